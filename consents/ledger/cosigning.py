"""WRITES cosignatures, and publishes: shows the newest checkpoint to the witnesses, and lets it out when enough have seen it.

C2SP tlog-witness. A witness that is behind us gets the proof from where it is; one that is ahead of us has seen a log
that we have not got: then nothing is published any more until a person has looked.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import connections, transaction

from consents.models import Cosignature, SignedCheckpoint, Verification
from providers import outbound

from . import merkle, notes, proofs, tiles

log = structlog.get_logger(__name__)

RUNNING = 7303  # advisory lock
AGAIN_AFTER = 600  # seconds: at least one fresh cosignature in ten minutes, also when nothing happens
CLOCK_SLACK = 300  # seconds a witness's clock may be ahead of ours
PATIENCE = 8.0  # seconds for one answer
REST = 60.0  # seconds that a witness is left alone that let us wait in vain: a worker has more to do
SIZE_TYPE = "text/x.tlog.size"
_KEEP_SQL = """
INSERT INTO ledger.cosignature (tree_size, key_name, key_id, cosigned_at, line) VALUES (%s, %s, %s, %s, %s)
ON CONFLICT DO NOTHING
"""


class Ahead(Exception):
    """A witness has cosigned a larger tree than we have: the database is older than the log."""


@dataclass(slots=True)
class Report:
    """What came of a run: the published size, who cosigned now, and what is wrong, by witness. `ahead`: who has seen
    more than we have (see Ahead); while there is one, nothing is published."""

    size: int = 0
    published: int = 0
    fresh: list[str] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    ahead: dict[str, str] = field(default_factory=dict)
    disputed: set[int] = field(default_factory=set)  # sizes from which a witness says we do not continue
    refused: set[str] = field(
        default_factory=set
    )  # witnesses that will not sign this checkpoint, however often asked
    busy: bool = False


def run(*, now: int) -> Report:
    """Ask the witnesses that have not seen the newest checkpoint, keep what they sign, publish with the quorum.

    `now` is epoch seconds. Safe to run twice at once. Raises proofs.NoPolicy, and tiles.NoTile where the tree cannot
    be read whole from its tiles: such a one is not shown to anybody."""
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [RUNNING])
        if not cursor.fetchone()[0]:
            return Report(busy=True)
        try:
            return _run(now)
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [RUNNING])


def _run(now: int) -> Report:
    newest = SignedCheckpoint.objects.using(settings.LEDGER_ALIAS).order_by("-tree_size").first()
    if newest is None:
        return Report()
    policy = proofs.policy()
    report = Report(size=newest.tree_size)
    due = [witness for witness in policy.witnesses.values() if witness.url and _is_due(witness, newest, now)]
    if due:
        asyncio.run(_ask_all(due, newest, report, _last_seen(due), now))
        _keep(report, newest)
    _check_disputed(report, newest)
    _hold_what_was_ahead(report, newest, policy)
    if not report.ahead:
        report.published = _publish(newest, policy)
    return report


# --- asking --------------------------------------------------------------------------------------------------------------


_resting: dict[str, float] = {}  # by address, until when on this process's own clock


def _is_due(witness: notes.Witness, newest: SignedCheckpoint, now: int) -> bool:
    if time.monotonic() < _resting.get(witness.url, 0.0):
        return False
    last = _lines(witness.key).filter(tree_size=newest.tree_size).order_by("-received_at").first()
    return last is None or now - last.received_at.timestamp() >= AGAIN_AFTER


def _lines(key: notes.Key):
    return Cosignature.objects.using(settings.LEDGER_ALIAS).filter(key_name=key.name, key_id=key.id)


def _last_seen(witnesses: list[notes.Witness]) -> dict[str, int]:
    """The largest size each witness has cosigned, as far as we know."""
    found = {}
    for witness in witnesses:
        last = _lines(witness.key).order_by("-tree_size").first()
        found[witness.name] = last.tree_size if last else 0
    return found


async def _ask_all(due, newest, report: Report, seen: dict[str, int], now: int) -> None:
    async with outbound.open_session() as session:
        await asyncio.gather(
            *(_ask(session, witness, newest, report, seen[witness.name], now) for witness in due)
        )


async def _ask(session, witness: notes.Witness, newest, report: Report, old: int, now: int) -> None:
    """One witness; where it is elsewhere than we thought, once more from there."""
    try:
        reply = await _submit(session, witness, newest, old)
        if reply.status == 409:
            there = _told_size(reply)
            if there > newest.tree_size:
                raise Ahead(f"it has seen {there} entries, we have {newest.tree_size}")
            old = there
            reply = await _submit(session, witness, newest, old)
        if reply.status == 422:
            report.disputed.add(old)
        if reply.status in (400, 403, 404, 422):
            report.refused.add(witness.name)
        if reply.status != 200:
            raise notes.BadNote(f"it answered {reply.status}")
        report.fresh += _checked(reply.body, witness, newest, now)
    except (outbound.Refused, outbound.Unreachable, notes.BadNote, Ahead) as trouble:
        if isinstance(trouble, Ahead):
            report.ahead[witness.name] = str(trouble)
        if isinstance(trouble, outbound.Unreachable) and trouble.reason == "timeout":
            _resting[witness.url] = time.monotonic() + REST
        report.troubles[witness.name] = str(trouble) or type(trouble).__name__


async def _submit(session, witness: notes.Witness, newest, old: int) -> outbound.Reply:
    tree = tiles.Tree(proofs.directory().read, newest.tree_size)
    proof = tree.consistency_proof(old)
    body = f"old {old}\n{notes.lines_of(proof)}\n{newest.note}".encode()
    return await outbound.send(
        session, method="POST", url=f"{witness.url.rstrip('/')}/add-checkpoint",
        headers={"Content-Type": "text/plain; charset=utf-8"}, body=body, total=PATIENCE,
    )  # fmt: skip


def _told_size(reply: outbound.Reply) -> int:
    text = reply.body.decode("ascii", "replace")
    if reply.headers.get("Content-Type", "").split(";")[0] != SIZE_TYPE or not text.endswith("\n"):
        raise notes.BadNote("it answered 409 without its size")
    return notes.number(text[:-1])


def _checked(body: bytes, witness: notes.Witness, newest, now: int) -> list[str]:
    """The lines of this witness's own key that hold; others are not ours to judge. Raises BadNote."""
    note = notes.Note.parse(notes.Note.parse(newest.note).text + "\n" + body.decode("utf-8", "replace"))
    seen_at = notes.cosigned_at(note, witness.key)
    if seen_at is None:
        raise notes.BadNote("it answered without its cosignature")
    if seen_at > now + CLOCK_SLACK:
        raise notes.BadNote("its clock is ahead of ours")
    return [str(signature) for signature in note.signatures if signature.by(witness.key)]


def _hold_what_was_ahead(report: Report, newest: SignedCheckpoint, policy: notes.Policy) -> None:
    """Whoever was ahead stays so until it cosigns what we have now: its silence must not let the log go on."""
    last = Verification.objects.filter(kind=Verification.Kind.WITNESS).first()
    if last is None:
        return
    for finding in last.findings:
        witness = policy.witnesses.get(finding.get("witness", ""))
        if witness and not (
            _lines(witness.key).filter(tree_size=newest.tree_size, received_at__gte=last.finished_at).exists()
        ):
            report.ahead.setdefault(witness.name, finding["detail"].partition(": ")[2])


def _check_disputed(report: Report, newest: SignedCheckpoint) -> None:
    """Where a witness says that we do not continue what it saw: is it our tiles? Raises tiles.NoTile."""
    tree = tiles.Tree(proofs.directory().read, newest.tree_size)
    for known in SignedCheckpoint.objects.using(settings.LEDGER_ALIAS).filter(
        tree_size__in=report.disputed - {0}
    ):
        try:
            merkle.verify_consistency(
                old=known.tree_size, old_root=bytes(known.root_hash), new=newest.tree_size,
                new_root=bytes(newest.root_hash), proof=tree.consistency_proof(known.tree_size),
            )  # fmt: skip
        except merkle.BadProof as wrong:
            raise tiles.NoTile(f"the tiles do not lead from {known.tree_size} on: {wrong}") from wrong


# --- keeping and publishing ------------------------------------------------------------------------------------------------


def _keep(report: Report, newest: SignedCheckpoint) -> None:
    rows: list[tuple[int, str, bytes, int, str]] = []
    for line in report.fresh:
        signature = notes.Signature.parse(line)
        seen_at = int.from_bytes(signature.value[:8], "big")
        rows.append((newest.tree_size, signature.name, signature.key_id, seen_at, line))
    with (
        transaction.atomic(using=settings.LEDGER_ALIAS),
        connections[settings.LEDGER_ALIAS].cursor() as cursor,
    ):
        cursor.executemany(_KEEP_SQL, rows)
    for name, trouble in report.troubles.items():
        log.warning("witness", witness=name, reason=trouble, size=newest.tree_size)


def _publish(newest: SignedCheckpoint, policy: notes.Policy) -> int:
    """Write the checkpoint with its newest cosignatures where the quorum holds; answers the published size."""
    signed = notes.Note.parse(newest.note)
    lines = []
    for witness in policy.witnesses.values():
        last = _lines(witness.key).filter(tree_size=newest.tree_size).order_by("-cosigned_at").first()
        if last:
            lines.append(notes.Signature.parse(last.line))
    note = notes.Note(signed.text, (*signed.signatures, *lines))
    before = _published_size()
    with contextlib.suppress(notes.BadNote):
        notes.opened(note, policy)
        path = proofs.directory().root / tiles.CHECKPOINT
        text = str(note)
        if before < newest.tree_size:
            _check_tiles(newest, before)
        if before <= newest.tree_size and (not path.exists() or path.read_text(encoding="utf-8") != text):
            proofs.directory().write({tiles.CHECKPOINT: text.encode()})
            proofs.directory().forget_partials(before, newest.tree_size)
        return max(before, newest.tree_size)
    return before


def _check_tiles(newest: SignedCheckpoint, before: int) -> None:
    """Nothing is published that cannot be read. Raises tiles.NoTile."""
    tree = tiles.Tree(proofs.directory().read, newest.tree_size)
    tree.check(before)
    if tree.root() != bytes(newest.root_hash):
        raise tiles.NoTile(f"the tiles do not give the root signed for size {newest.tree_size}")


def _published_size() -> int:
    """Size of the published checkpoint; one that can no longer be read does not stand in the way of a better one."""
    try:
        text = (proofs.directory().root / tiles.CHECKPOINT).read_text(encoding="utf-8")
        return notes.Checkpoint.parse(notes.Note.parse(text).text).size
    except (OSError, notes.BadNote):
        return 0
