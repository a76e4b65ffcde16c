"""Whether the log can be trusted: what is published, who has seen it, what our checks found, and proofs between checkpoints."""

import datetime
import uuid
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connections
from django.utils.translation import gettext_lazy as _

from consents.ledger import merkle, notes, promises, proofs, tiles
from consents.models import Cosignature, Leaf, SignedCheckpoint, Verification

from .paging import BadCursor, Page

SIZE = 20
ALARM = datetime.timedelta(minutes=15)  # without a witness, before we say so aloud
TELL = datetime.timedelta(minutes=60)  # without a witness, before the regulator gets a letter
CHECKS = 12  # rows of checks on the page

# What a check can find, in plain words; the detail stands beside it as it is.
FINDINGS: dict[str, Any] = {
    "checkpoint_missing": _("공개된 체크포인트가 없어졌어요."),
    "checkpoint_invalid": _("공개된 체크포인트의 서명이나 증인이 맞지 않아요."),
    "rolled_back": _("공개된 기록이 예전 것으로 되돌아갔어요."),
    "forked": _("서명된 기록이 두 갈래예요. 전에 확인한 기록에 이어지지 않아요."),
    "tile_damaged": _("공개된 타일이 깨졌거나 서명과 맞지 않아요."),
    "broken_promise": _("영수증으로 약속한 기록이 제때 공개되지 않았어요."),
    "memory": _("감시 프로그램이 전에 무엇을 확인했는지 읽지 못해요."),
    "policy": _("정책 파일을 읽지 못해요."),
    "disk": _("파일을 읽거나 쓰지 못해요."),
    "tiles": _("타일을 읽지 못해서 공개를 멈췄어요."),
    "signer": _("서명 프로그램이 답하지 않아요."),
    "signer_ahead": _("서명 프로그램이 데이터베이스보다 많은 기록에 서명했어요. 오래된 데이터베이스일 수 있어요."),
    "signer_root": _("서명 프로그램이 기억하는 기록과 데이터베이스가 달라요."),
    "rewritten": _("서명한 뒤에 데이터베이스의 기록이 바뀌었어요."),
    "refused": _("서명 프로그램이 서명을 거절했어요."),
    "witness_ahead": _("증인이 우리보다 많은 기록을 봤어요. 오래된 데이터베이스일 수 있어요."),
    "witness_refuses": _("증인이 우리 기록을 확인해 주지 않아요. 전에 본 기록에 이어지지 않거나, 서명을 믿지 않아요."),
    "checkpoint_root": _("기록을 다시 계산한 값이 서명한 체크포인트와 달라요."),
    "published_root": _("기록을 다시 계산한 값이 공개된 체크포인트와 달라요."),
    "checkpoint_false": _("저장된 체크포인트의 서명이 맞지 않아요."),
    "checkpoint_beyond": _("서명한 체크포인트보다 데이터베이스의 기록이 적어요."),
    "tile_differs": _("공개된 타일이 데이터베이스와 달라요."),
    "tile_missing": _("공개된 타일이 없어졌어요."),
    "missing": _("공개됐지만 데이터베이스에는 없는 기록이에요. 되살린 뒤에 빠진 것일 수 있어요."),
    "entry_gone": _("번호를 받은 기록이 데이터베이스에서 사라졌어요."),
    "entry_changed": _("기록의 내용이 번호를 받을 때와 달라요."),
    "leaf_gap": _("기록 번호가 이어지지 않아요."),
    "lost": _("적혔지만 번호를 받지도, 기다리지도 않는 기록이 있어요."),
    "waiting": _("약속한 때가 지나도록 번호를 받지 못한 기록이 있어요."),
    "trigger_gone": _("기록을 지키는 데이터베이스 규칙이 없어졌어요."),
    "trigger_off": _("기록을 지키는 데이터베이스 규칙이 꺼져 있어요."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Witnessing:
    """Whether enough witnesses have seen what is published. `state`: seen, waiting (never yet, or not for ALARM), alone
    (the policy asks for none), unreadable. `at`: last seen, or waiting since then."""

    state: str
    at: datetime.datetime | None = None
    by: list[str] = field(default_factory=list)

    def late(self, *, at: datetime.datetime, after: datetime.timedelta = ALARM) -> bool:
        return self.at is not None and self.state in ("seen", "waiting") and at - self.at > after


@dataclass(frozen=True, slots=True)
class Check:
    """One verification, with its findings as (sentence, detail)."""

    kind: Any
    at: datetime.datetime
    since: datetime.datetime
    size: int
    findings: list[tuple[Any, str]]


@dataclass(frozen=True, slots=True)
class Overview:
    """The page's head. `checks` are the newest of each kind, `before` the ones that came before them."""

    published: proofs.Published | None
    unreadable: str
    witnessing: Witnessing
    checks: list[Check]
    before: list[Check]
    signed: int
    waiting: int
    oldest: datetime.datetime | None
    overdue: bool
    origin: str

    @property
    def holds(self) -> bool:
        return not self.unreadable and not self.overdue and not any(check.findings for check in self.checks)

    @property
    def verified(self) -> bool:
        """Whether any check has run at all."""
        return bool(self.checks)

    @property
    def root(self) -> str:
        return self.published.checkpoint.root.hex() if self.published else ""


def overview(*, at: datetime.datetime) -> Overview:
    """Seven queries, whatever the size of the log."""
    shown, unreadable = _published()
    newest = newest_checks()
    rows = Verification.objects.exclude(pk__in=[row.pk for row in newest])[:CHECKS]
    waiting, oldest = pending()
    last = _signed().first()
    return Overview(
        published=shown,
        unreadable=unreadable,
        witnessing=witnessing(shown, unreadable=bool(unreadable)),
        checks=[check(row) for row in newest],
        before=[check(row) for row in rows],
        signed=last.tree_size if last else 0,
        waiting=waiting,
        oldest=oldest,
        overdue=is_overdue(oldest, at=at),
        origin=settings.LEDGER_ORIGIN,
    )


def newest_checks() -> list[Verification]:
    """The newest verification of each kind. One query."""
    rows = Verification.objects.order_by("kind", "-finished_at").distinct("kind")
    order = list(Verification.Kind.values)
    return sorted(rows, key=lambda row: order.index(row.kind))


def check(row: Verification) -> Check:
    found = [
        (FINDINGS.get(finding["code"], finding["code"]), finding.get("detail", ""))
        for finding in row.findings
    ]
    return Check(row.get_kind_display(), row.finished_at, row.started_at, row.size, found)


def pending() -> tuple[int, datetime.datetime | None]:
    """How many entries wait for their place (at most a thousand are counted), and since when the oldest does."""
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT count(*), min(enqueued_at) FROM (SELECT enqueued_at FROM ledger.pending ORDER BY place LIMIT 1000) AS first"
        )
        return cursor.fetchone()


def is_overdue(oldest: datetime.datetime | None, *, at: datetime.datetime) -> bool:
    return oldest is not None and at > promises.due_at(oldest)


def _published() -> tuple[proofs.Published | None, str]:
    try:
        return proofs.published(), ""
    except (notes.BadNote, proofs.NoPolicy, OSError) as problem:
        return None, str(problem)


def _signed():
    return SignedCheckpoint.objects.using(settings.LEDGER_ALIAS).order_by("-tree_size")


def witnessing(shown: proofs.Published | None, *, unreadable: bool = False) -> Witnessing:
    """From the published file; where there is none, since when the first checkpoint waits. At most one query."""
    if unreadable:
        return Witnessing("unreadable")
    try:
        policy = proofs.policy()
    except proofs.NoPolicy:
        return Witnessing("unreadable")
    if policy.satisfied(set()):
        return Witnessing("alone")
    if shown is None:
        first = SignedCheckpoint.objects.using(settings.LEDGER_ALIAS).order_by("tree_size").first()
        return Witnessing("waiting", first.signed_at if first else None)
    # The newest moment by which enough of them had seen it.
    present: set[str] = set()
    for name in sorted(shown.seen, key=lambda name: -shown.seen[name]):
        present.add(name)
        if policy.satisfied(present):
            break
    seen_at = datetime.datetime.fromtimestamp(min(shown.seen[name] for name in present), datetime.UTC)
    return Witnessing("seen", seen_at, sorted(present))


def witnessing_now() -> Witnessing:
    """From the published file as it is now."""
    shown, unreadable = _published()
    return witnessing(shown, unreadable=bool(unreadable))


# --- history and consistency -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signed:
    """One checkpoint of the history; `seen`: the names of the keys that cosigned it, and when first."""

    size: int
    root: str
    signed_at: datetime.datetime
    seen: list[tuple[str, datetime.datetime]]


def history(after: str = "", *, size: int = SIZE) -> Page:
    """A page of Signed, the largest first, by keyset. Two queries. Raises BadCursor."""
    rows = _signed()
    if after:
        try:
            rows = rows.filter(tree_size__lt=notes.number(after))
        except notes.BadNote as wrong:
            raise BadCursor(after[:60]) from wrong
    found = list(rows[: size + 1])
    shown = found[:size]
    seen: dict[int, dict[str, datetime.datetime]] = {}
    lines = Cosignature.objects.using(settings.LEDGER_ALIAS).filter(
        tree_size__in=[row.tree_size for row in shown]
    )
    # A witness cosigns the newest again and again: its first line of each size counts here.
    for line in lines.order_by("tree_size", "key_name", "key_id", "cosigned_at").distinct(
        "tree_size", "key_name", "key_id"
    ):
        moment = datetime.datetime.fromtimestamp(line.cosigned_at, datetime.UTC)
        seen.setdefault(line.tree_size, {}).setdefault(line.key_name, moment)
    return Page(
        [
            Signed(
                row.tree_size,
                bytes(row.root_hash).hex(),
                row.signed_at,
                sorted(seen.get(row.tree_size, {}).items()),
            )
            for row in shown
        ],
        str(shown[-1].tree_size) if len(found) > size else None,
    )


class NoCheckpoint(LookupError):
    """There is no checkpoint of this size, or it is not published yet."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """Whether the smaller tree is the beginning of the larger. `wrong` says why not; empty: it is, and `proof` shows it."""

    old: int
    old_root: str
    new: int
    new_root: str
    proof: list[str]
    wrong: str
    note: str

    @property
    def text(self) -> str:
        """The body of a witness's add-checkpoint (C2SP tlog-witness): any witness or verifier reads it."""
        lines = "".join(f"{line}\n" for line in self.proof)
        return f"old {self.old}\n{lines}\n{self.note}"


def consistency(old: int, new: int) -> Consistency:
    """Between two signed checkpoints, from the published tiles alone, verified before it is shown. Raises NoCheckpoint."""
    shown, _unreadable = _published()
    rows = {row.tree_size: row for row in _signed().filter(tree_size__in=[old, new])}
    if old not in rows or new not in rows or shown is None or new > shown.checkpoint.size:
        raise NoCheckpoint(f"{old} {new}")
    roots = {size: bytes(row.root_hash) for size, row in rows.items()}
    proof: list[bytes] = []
    wrong = ""
    try:
        proof = tiles.Tree(proofs.directory().read, new).consistency_proof(old)
        merkle.verify_consistency(old=old, old_root=roots[old], new=new, new_root=roots[new], proof=proof)
    except (tiles.NoTile, merkle.BadProof, OSError) as problem:
        wrong = str(problem)
    return Consistency(
        old,
        roots[old].hex(),
        new,
        roots[new].hex(),
        [notes.b64(hash_) for hash_ in proof],
        wrong,
        rows[new].note,
    )


# --- one entry -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands. `state`: in (proved under the published checkpoint), waiting, broken, unreadable."""

    state: str
    since: datetime.datetime
    index: int | None = None
    size: int = 0
    proof: list[str] = field(default_factory=list)
    witnessing: Witnessing | None = None
    late: bool = False


def place(event_id: uuid.UUID, leaf_hash: bytes, since: datetime.datetime, *, at: datetime.datetime) -> Place:
    """The true state of an entry in the published log; its proof is made and checked. One query."""
    leaf = Leaf.objects.using(settings.LEDGER_ALIAS).filter(event_id=event_id).first()
    index, late = leaf.leaf_index if leaf else None, at > promises.due_at(since)
    shown, unreadable = _published()
    if unreadable:
        return Place("unreadable", since, index)
    if shown is None or index is None or index >= shown.checkpoint.size:
        return Place("waiting", since, index, late=late)
    try:
        hashes = proofs.inclusion(index, leaf_hash, shown)
    except proofs.Broken:
        return Place("broken", since, index, shown.checkpoint.size)
    return Place(
        "in", since, index, shown.checkpoint.size, [notes.b64(hash_) for hash_ in hashes], witnessing(shown)
    )
