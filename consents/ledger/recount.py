"""WRITES what the nightly check found: everything in the database counted again, and held against what is published.

Each entry is hashed anew here (the database's own column is not believed), in the order of ledger.leaf; the tree over
them must give the root of every checkpoint that was ever signed, what the signer remembers, what is published, and every
tile. Nothing is repaired: what is missing or was changed is told, and a person decides.
"""

import contextlib
import datetime
import heapq
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog
from django.conf import settings
from django.db import connections, transaction

from consents.models import Verification
from providers.ids import uuid7

from . import merkle, monitor, notes, promises, proofs, signer, tiles

log = structlog.get_logger(__name__)

BATCH = 16_384  # rows fetched at a time; a multiple of the tiles' width
MOST = 100  # findings of one kind that are told
SIGNER_TRIES = 20  # a sequencer holds the embedded signer for a moment

# Every trigger that keeps the log append-only. Each fires ALWAYS, also where a session calls itself a replica.
TRIGGERS = frozenset(
    {(table, name) for table in ("event", "leaf", "checkpoint", "cosignature") for name in ("a_no_row", "a_no_stmt")}
    | {
        ("event", "z_enqueue"), ("leaf", "b_dense"), ("checkpoint", "b_rises"), ("disclosure", "a_no_upd"),
        ("disclosure", "b_hold"),
    }
)  # fmt: skip

_ROWS_SQL = """
SELECT leaf.leaf_index, leaf.leaf_hash, event.entry FROM ledger.leaf LEFT JOIN ledger.event USING (event_id)
WHERE leaf_index < %s ORDER BY leaf_index
"""
_CHECKPOINTS_SQL = (
    "SELECT tree_size, root_hash, note FROM ledger.checkpoint WHERE tree_size <= %s ORDER BY tree_size"
)
_LOST_SQL = """
SELECT event.event_id::text FROM ledger.event
WHERE NOT EXISTS (SELECT 1 FROM ledger.leaf WHERE leaf.event_id = event.event_id)
  AND NOT EXISTS (SELECT 1 FROM ledger.pending WHERE pending.event_id = event.event_id)
LIMIT %s
"""
_WAITING_SQL = """
SELECT pending.event_id::text || ' ' || to_char(pending.enqueued_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'
FROM ledger.pending WHERE enqueued_at < %s ORDER BY place LIMIT %s
"""
_TRIGGERS_SQL = """
SELECT relname, tgname, tgenabled::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = 'ledger'::regnamespace AND NOT tgisinternal
"""


@dataclass(slots=True)
class Report:
    """What was counted and what is wrong; prints as lines."""

    entries: int = 0
    checkpoints: int = 0
    root: str = ""
    seconds: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    @property
    def ok(self) -> bool:
        return not self.findings

    def find(self, code: str, detail: object) -> None:
        """At most MOST of one kind are kept; how many there are is said at the end."""
        self.told[code] += 1
        if self.told[code] <= MOST:
            self.findings.append({"code": code, "detail": str(detail)[:300]})

    def close(self) -> None:
        for code, count in self.told.items():
            if count > MOST:
                self.findings.append({"code": code, "detail": f"+{count - MOST}"})

    def __str__(self) -> str:
        rate = self.entries / self.seconds if self.seconds else 0
        lines = [
            f"{self.entries} entries, {self.checkpoints} checkpoints counted again in {self.seconds:.1f} s ({rate:,.0f} a second)",
            f"root {self.root}",
            *(f"{finding['code']}: {finding['detail']}" for finding in self.findings),
            "all is well" if self.ok else f"{len(self.findings)} findings",
        ]
        return "\n".join(lines)


class Mark(NamedTuple):
    """A root that the tree must have at a size, and who says so: checkpoint, signer, published."""

    size: int
    who: str
    root: bytes


def run(*, progress: Callable[[int], object] = lambda entries: None) -> Report:
    """Count everything again and keep what was found as a row. `progress` is told how many more entries were hashed."""
    at, started, report = monitor.clock(), time.monotonic(), Report()
    # What may grow meanwhile is read in this order, so that nobody is ahead of what is read after them.
    shown = _published(report)
    signed = _signed(report)
    _count(report, shown, signed, progress)
    _look_at_rest(report, at)
    report.close()
    report.seconds = time.monotonic() - started
    _remember(report, at)
    return report


def _remember(report: Report, at: datetime.datetime) -> None:
    for finding in report.findings:
        log.error("the log in the database is not right", **finding)
    Verification.objects.create(
        id=uuid7(), kind=Verification.Kind.NIGHTLY, started_at=at, finished_at=monitor.clock(), size=report.entries,
        root_hash=report.root, findings=report.findings,
    )  # fmt: skip


def _published(report: Report) -> notes.Checkpoint | None:
    try:
        shown = proofs.published()
    except proofs.NoPolicy as problem:
        report.find("policy", problem)
    except (notes.BadNote, OSError) as problem:
        report.find("checkpoint_invalid", problem)
    else:
        return shown.checkpoint if shown else None
    return None


def _signed(report: Report) -> signer.State | None:
    problem: signer.Unavailable | None = None
    for _try in range(SIGNER_TRIES):
        try:
            with signer.connect() as signing:
                return signing.state()
        except signer.Unavailable as away:
            problem = away
            if "holds" not in str(away):
                break
            time.sleep(0.25)
    report.find("signer", problem)
    return None


# --- the tree ----------------------------------------------------------------------------------------------------------------


def _count(report: Report, shown: notes.Checkpoint | None, signed: signer.State | None, progress) -> None:
    ours = connections[settings.LEDGER_ALIAS]
    with ours.cursor() as cursor:
        cursor.execute("SELECT coalesce(max(leaf_index) + 1, 0) FROM ledger.leaf")
        (leaves,) = cursor.fetchone()
        cursor.execute(
            "SELECT tree_size FROM ledger.checkpoint WHERE tree_size > %s LIMIT %s", [leaves, MOST + 1]
        )
        for (size,) in cursor.fetchall():
            report.find("checkpoint_beyond", f"{size} > {leaves}")
    if signed and signed.size > leaves:
        report.find("signer_ahead", f"{signed.size} > {leaves}")
    if shown and shown.size > leaves:
        _list_missing(report, leaves, shown)
    extra = [
        *([Mark(signed.size, "signer", signed.root)] if signed and 0 < signed.size <= leaves else []),
        *([Mark(shown.size, "published", shown.root)] if shown and 0 < shown.size <= leaves else []),
    ]
    with transaction.atomic(using=settings.LEDGER_ALIAS), _in_order(ours):
        marks = heapq.merge(_checkpoints(report, leaves), sorted(extra))
        _grow(report, leaves, marks, min(shown.size, leaves) if shown else 0, progress)


@contextlib.contextmanager
def _in_order(ours) -> Iterator[None]:
    """Entries are looked up one after the other by the order of their leaves: a hash join would have to sort all of them,
    with their bytes, on the disk."""
    with ours.cursor() as cursor:
        cursor.execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")
        yield
        cursor.execute("SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on")


def _stream(sql: str, parameters: list[Any], name: str, size: int = BATCH) -> Iterator[list[tuple]]:
    """Rows in batches by a cursor on the server, in binary: a million entries do not come to lie in memory."""
    return _batches(connections[settings.LEDGER_ALIAS].connection, sql, parameters, name, size)


def _batches(raw, sql: str, parameters: list[Any], name: str, size: int) -> Iterator[list[tuple]]:
    with raw.cursor(name=name, binary=True) as cursor:
        cursor.execute(sql, parameters)
        while rows := cursor.fetchmany(size):
            yield rows


def _ahead(batches: Iterator[list[tuple]]) -> Iterator[list[tuple]]:
    """The same batches; while one is hashed here, the database is already reading the next."""
    nothing: list[tuple] = []
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, batches, nothing)
        while rows := following.result():
            following = pool.submit(next, batches, nothing)
            yield rows


def _checkpoints(report: Report, leaves: int) -> Iterator[Mark]:
    """The root of each signed checkpoint, after its note was verified."""
    try:
        policy = proofs.policy()
    except proofs.NoPolicy:
        policy = None  # told already
    for rows in _stream(_CHECKPOINTS_SQL, [leaves], "recounted_checkpoints", 1024):
        for size, root, note in rows:
            report.checkpoints += 1
            try:
                text = notes.Note.parse(note)
                said = notes.Checkpoint.parse(text.text)
                if policy:
                    notes.signed_checkpoint(text, policy)
                if (said.size, said.root) != (size, bytes(root)):
                    raise notes.BadNote("the note speaks of another tree than the row")
            except notes.BadNote as wrong:
                report.find("checkpoint_false", f"{size}: {wrong}")
            yield Mark(size, "checkpoint", bytes(root))


def _grow(report: Report, leaves: int, marks: Iterator[Mark], published: int, progress) -> None:
    """Hash all entries in their order; compare the root at every mark, and the tiles up to the published size."""
    edge, held = tiles.Edge(), _Held(published, report)
    mark = next(marks, None)
    for rows in _ahead(_stream(_ROWS_SQL, [leaves], "recounted_leaves")):
        hashes, entries = _hashed(report, edge.size, rows)
        done = 0
        while done < len(hashes):
            # In steps that end at each mark, at the published size, or with the batch.
            stops = [len(hashes), *([mark.size - edge.size + done] if mark else [])]
            if edge.size < published:
                stops.append(published - edge.size + done)
            stop = min(stops)
            held.compare(edge.grow(hashes[done:stop]), entries[done:stop], edge)
            done = stop
            while mark and mark.size <= edge.size:
                if mark.size and edge.root() != mark.root:
                    report.find(f"{mark.who}_root", f"{mark.size}: {edge.root().hex()} ≠ {mark.root.hex()}")
                mark = next(marks, None)
        progress(len(rows))
    report.entries, report.root = edge.size, edge.root().hex()


def _hashed(report: Report, first: int, rows: list[tuple]) -> tuple[list[bytes], list[bytes]]:
    """Leaf hashes and entries of a batch, each hash compared with its row."""
    leaf_hash = merkle.leaf_hash
    hashes, entries = [], []
    for expected, (index, known, entry) in enumerate(rows, first):
        if index != expected:
            report.find("leaf_gap", f"{expected} … {index}")
            first = expected = index
        if entry is None:
            report.find("entry_gone", _named(index))
            hashes.append(bytes(known))
            entries.append(b"")
            continue
        hash_ = leaf_hash(entry)
        if hash_ != known:
            report.find("entry_changed", _named(index))
        hashes.append(hash_)
        entries.append(entry)
    return hashes, entries


def _named(index: int) -> str:
    """An entry by its place and its id."""
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute("SELECT event_id::text FROM ledger.leaf WHERE leaf_index = %s", [index])
        row = cursor.fetchone()
    return f"{index}: {row[0] if row else '?'}"


class _Held:
    """The published tiles, held against the counted ones."""

    def __init__(self, published: int, report: Report) -> None:
        self._published, self._report = published, report
        self._read = proofs.directory().read
        self._entries: list[bytes] = []
        self._n = 0

    def compare(self, full: dict[str, bytes], entries: list[bytes], edge: tiles.Edge) -> None:
        """`full` became full and `entries` came when the tree grew to `edge`."""
        if edge.size > self._published:
            return
        expected = dict(full)
        self._entries += entries
        while len(self._entries) >= tiles.WIDTH:
            expected[tiles.path(tiles.ENTRIES, self._n)] = tiles.bundle(self._entries[: tiles.WIDTH])
            del self._entries[: tiles.WIDTH]
            self._n += 1
        if edge.size == self._published:
            expected |= edge.partials()
            if self._entries:
                address = tiles.path(tiles.ENTRIES, self._n, len(self._entries))
                expected[address] = tiles.bundle(self._entries)
        for address, data in expected.items():
            try:
                if self._read(address) != data:
                    self._report.find("tile_differs", address)
            except (tiles.NoTile, OSError):
                self._report.find("tile_missing", address)


def _list_missing(report: Report, leaves: int, shown: notes.Checkpoint) -> None:
    """Entries that are published and that this database has not got: it was restored. Listed, never written back."""
    tree = tiles.Tree(proofs.directory().read, shown.size)
    try:
        for index, entry in tree.entries(leaves):
            if index >= leaves:
                report.find("missing", f"{index}: {_id_of(entry)}")
    except (tiles.NoTile, OSError) as problem:
        report.find("tile_missing", problem)


def _id_of(entry: bytes) -> str:
    try:
        return str(json.loads(entry)["id"])
    except (ValueError, KeyError, TypeError):
        return "?"


# --- what stands beside the tree ---------------------------------------------------------------------------------------------


def _look_at_rest(report: Report, at: datetime.datetime) -> None:
    delay = datetime.timedelta(seconds=promises.merge_delay(at))
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute(_LOST_SQL, [MOST + 1])
        for (event_id,) in cursor.fetchall():
            report.find("lost", event_id)
        cursor.execute(_WAITING_SQL, [at - delay, MOST + 1])
        for (waiting,) in cursor.fetchall():
            report.find("waiting", waiting)
        cursor.execute(_TRIGGERS_SQL)
        enabled = {(table, name): how for table, name, how in cursor.fetchall()}
    for table, name in sorted(TRIGGERS):
        how = enabled.get((table, name))
        if how != "A":
            report.find("trigger_off" if how else "trigger_gone", f"ledger.{table} {name}")
