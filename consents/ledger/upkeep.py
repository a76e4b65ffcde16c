"""WRITES what becomes of the log's jobs: orders and signs, shows to witnesses, and keeps a row where that is stopped."""

import datetime

import structlog

from consents.models import Verification

from . import cosigning, proofs, signer, tiles
from .sequencer import Sequencer, Stopped

log = structlog.get_logger(__name__)

_sequencer = Sequencer()  # one a process: the tree's edge stays in memory between runs


def sequence(*, at: datetime.datetime) -> int:
    """Order what waits and have it signed; answers the signed size. What stops it is kept, told and tried again."""
    try:
        report = _sequencer.run()
    except (Stopped, signer.Unavailable, OSError) as problem:
        _stopped(problem, at=at)
        return 0
    if not report.busy:
        _remember(Verification.Kind.SEQUENCER, [], size=report.size, at=at)
    return report.size


def cosign(*, at: datetime.datetime) -> int:
    """Show the newest checkpoint to the witnesses and publish it; answers the published size."""
    try:
        report = cosigning.run(now=int(at.timestamp()))
    except (proofs.NoPolicy, tiles.NoTile, OSError) as problem:
        damaged = isinstance(problem, tiles.NoTile)
        code = "policy" if isinstance(problem, proofs.NoPolicy) else "tiles" if damaged else "disk"
        log.error("nothing is published", code=code, reason=str(problem))
        _remember(Verification.Kind.WITNESS, [{"code": code, "detail": str(problem)[:300]}], size=0, at=at)
        if damaged:
            _remake(at=at)
        return 0
    findings = [
        {"code": "witness_ahead", "witness": name, "detail": f"{name}: {trouble}"[:300]}
        for name, trouble in report.ahead.items()
    ] + [
        {"code": "witness_refuses", "witness": name, "detail": f"{name}: {trouble}"[:300]}
        for name, trouble in report.troubles.items()
        if name in report.refused
    ]
    if not report.busy:
        _remember(Verification.Kind.WITNESS, findings, size=report.published, at=at)
    return report.published


def _remake(*, at: datetime.datetime) -> None:
    """Tiles that cannot be read are made again; the next run publishes."""
    try:
        _sequencer.remake()
    except (Stopped, signer.Unavailable, OSError) as problem:
        _stopped(problem, at=at)


def _stopped(problem: Exception, *, at: datetime.datetime) -> None:
    code = "signer" if isinstance(problem, signer.Unavailable) else getattr(problem, "code", "disk")
    log.error("sequencing stopped", code=code, reason=str(problem))
    _remember(Verification.Kind.SEQUENCER, [{"code": code, "detail": str(problem)[:300]}], size=0, at=at)


def _remember(kind: str, findings: list[dict[str, str]], *, size: int, at: datetime.datetime) -> None:
    """A row where something changed for the worse or the better; what stays as it was is not written again."""
    last = Verification.objects.filter(kind=kind).first()
    if (last.findings if last else []) != findings:
        Verification.objects.create(kind=kind, started_at=at, finished_at=at, size=size, findings=findings)
