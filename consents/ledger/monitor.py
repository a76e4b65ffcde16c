"""WRITES what our own monitor found, and clears promises that were kept. It believes nothing but the published files.

Checkpoint and tiles are read as anybody reads them: signature, quorum, every new entry hashed into a tree that must
continue the one this monitor verified itself before; all of it once a day. What it verified lies in a file of its own and
in its rows: a restored database does not take back the one, a restored folder not the other. A checkpoint that went back
or forked stays red until a person has acknowledged it, also when the right one is there again.
"""

import contextlib
import datetime
import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.conf import settings
from django.db import connections

from consents import locks
from consents.models import Leaf, Promise, Verification
from providers.ids import uuid7

from . import merkle, notes, proofs, tiles

log = structlog.get_logger(__name__)

MEMORY = ".monitor.json"  # in the folder of the log; /log/ serves it to nobody
BATCH = 16_384  # leaves hashed at a time
AT_ONCE = 1_000_000  # old leaves hashed again when somebody waits for the answer
SWEEP = 200_000  # old leaves hashed again in a run, until all of them are
EVERY = datetime.timedelta(days=1)  # from one hashing of everything to the next
ROW_LASTS = datetime.timedelta(hours=1)  # checks with the same outcome share a row for so long
MOST = 20  # findings of one kind that are told
PROMISES = 20_000  # looked at in a run


Finding = dict[str, Any]
Read = Callable[[str], bytes]


class Damaged(Exception):
    """Tiles that do not agree with each other or cannot be read."""


@dataclass(slots=True)
class Memory:
    """What the monitor has verified. `edge` is the verified tree's; `sweep` how far it has hashed everything again."""

    since: str  # when this memory begins: earlier rows speak of another log
    origin: str
    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    edge: tiles.Edge = field(default_factory=tiles.Edge)
    sweep: tiles.Edge = field(default_factory=tiles.Edge)
    swept_at: str = ""
    held: list[Finding] = field(default_factory=list)
    acknowledged: list[Finding] = field(default_factory=list)
    sought: dict[str, int] = field(default_factory=dict)  # leaf hash -> leaves among which it is not
    told: str = ""  # since when nobody has witnessed, as the regulator was told

    def text(self) -> str:
        return json.dumps(
            {
                **{name: getattr(self, name) for name in _PLAIN},
                "root": self.root.hex(),
                "edge": _levels(self.edge),
                "sweep": _levels(self.sweep),
            }
        )

    @classmethod
    def parse(cls, text: str) -> "Memory":
        """Raises ValueError, KeyError, TypeError where it is not one."""
        kept = json.loads(text)
        memory = cls(**{name: kept[name] for name in _PLAIN})
        memory.root = bytes.fromhex(kept["root"])
        memory.edge, memory.sweep = _edge(kept["edge"]), _edge(kept["sweep"])
        if memory.edge.size != memory.size or memory.edge.root() != memory.root:
            raise ValueError("its tree does not give its root")
        return memory


_PLAIN = ("since", "origin", "size", "swept_at", "held", "acknowledged", "sought", "told")


def _levels(edge: tiles.Edge) -> dict[str, Any]:
    return {"size": edge.size, "levels": [b"".join(level).hex() for level in edge.levels]}


def _edge(kept: dict[str, Any]) -> tiles.Edge:
    return tiles.Edge(kept["size"], [_hashes(bytes.fromhex(level)) for level in kept["levels"]])


def _hashes(data: bytes) -> list[bytes]:
    return [data[i : i + merkle.HASH_BYTES] for i in range(0, len(data), merkle.HASH_BYTES)]


def clock() -> datetime.datetime:
    """The database's: promises are dated and judged by one clock."""
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


# --- a run ---------------------------------------------------------------------------------------------------------------


def watch(*, at: datetime.datetime, full: bool = False, read: Read | None = None) -> Verification | None:
    """Verify what is published now, and every promise; None where another one is just doing that.

    `full` hashes again at once, from the beginning, up to AT_ONCE entries, not only what is new. `read` answers a published file by its address (default:
    the folder of the log). Safe to run twice at once."""
    with locks.alone(locks.MONITOR, using=settings.LEDGER_ALIAS) as alone:
        if not alone:
            return None
        findings: list[Finding] = []
        memory = remembered(at=at, findings=findings)
        if memory is None:
            return _remember(findings, memory=Memory(at.isoformat(), ""), at=at)
        before = memory.text()
        try:
            findings += _verify(memory, read or proofs.directory().read, at=at, full=full)
        except OSError as problem:
            findings.append({"code": "disk", "detail": str(problem)[:300]})
        findings += [finding for finding in memory.held if finding not in findings]
        if memory.text() != before:
            proofs.directory().write({MEMORY: memory.text().encode()})
        return _remember(findings, memory=memory, at=at)


def remembered(*, at: datetime.datetime, findings: list[Finding]) -> Memory | None:
    """The monitor's memory, a new one where there is none or another log was begun; None, with the finding, where it
    cannot be read."""
    path = settings.LEDGER_DIR / MEMORY
    fresh = Memory(since="", origin=settings.LEDGER_ORIGIN)
    try:
        memory = Memory.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return fresh
    except (OSError, ValueError, KeyError, TypeError) as problem:
        findings.append({"code": "memory", "detail": f"{path}: {problem}"[:300]})
        return None
    if memory.origin != settings.LEDGER_ORIGIN:
        fresh.since = at.isoformat()
        return fresh
    return memory


def held(*, at: datetime.datetime) -> list[Finding]:
    """What stays red until a person acknowledges it."""
    memory = remembered(at=at, findings=[])
    return memory.held if memory else []


def acknowledge(*, reason: str, by, at: datetime.datetime) -> int:
    """A person has looked into what is held and says why it may go; answers how many. What is still so comes back."""
    with locks.alone(locks.MONITOR, using=settings.LEDGER_ALIAS) as alone:
        memory = remembered(at=at, findings=[]) if alone else None
        if memory is None or not memory.held:
            return 0
        gone = len(memory.held)
        who = {"by": f"{by.kind}:{by.id}", "at": at.isoformat(), "reason": reason}
        memory.acknowledged = [*memory.acknowledged, *({**held, **who} for held in memory.held)][-MOST:]
        memory.held = []
        proofs.directory().write({MEMORY: memory.text().encode()})
        log.warning("findings of the monitor acknowledged", count=gone, by=who["by"], reason=reason)
        return gone


def is_told(since: str, *, at: datetime.datetime) -> bool:
    """Whether the regulator knows already that nobody has witnessed since then."""
    memory = remembered(at=at, findings=[])
    return memory is None or memory.told == since


def note_told(since: str, *, at: datetime.datetime) -> None:
    """Remember that it was told; an empty text: somebody has witnessed again."""
    with locks.alone(locks.MONITOR, using=settings.LEDGER_ALIAS) as alone:
        memory = remembered(at=at, findings=[]) if alone else None
        if memory is not None:
            memory.told = since
            proofs.directory().write({MEMORY: memory.text().encode()})


def _verify(memory: Memory, read: Read, *, at: datetime.datetime, full: bool) -> list[Finding]:
    """Bring the memory up to what is published, where that holds."""
    try:
        note = notes.Note.parse(read(tiles.CHECKPOINT))
        checkpoint, _seen = notes.opened(note, proofs.policy())
    except tiles.NoTile:
        if not max(_anchors(memory)):
            return _settle(memory, read, at=at)  # nothing was ever published
        return [{"code": "checkpoint_missing", "detail": f"{max(_anchors(memory))} > 0"}]
    except proofs.NoPolicy as problem:
        return [{"code": "policy", "detail": str(problem)[:300]}]
    except (notes.BadNote, OSError) as problem:
        return [{"code": "checkpoint_invalid", "detail": str(problem)[:300]}]
    anchors = _anchors(memory)
    if finding := _went_back(checkpoint, anchors):
        memory.held += [] if finding in memory.held else [finding]
        return [finding]
    try:
        _follow(memory, checkpoint, anchors, read, at=at)
        _sweep(memory, read, at=at, full=full)
    except Damaged as damaged:
        if finding := _forked(checkpoint, anchors, read):
            memory.held += [] if finding in memory.held else [finding]
            return [finding]
        return [{"code": "tile_damaged", "detail": detail} for detail in damaged.args[0]]
    return _settle(memory, read, at=at)


def _anchors(memory: Memory) -> dict[int, bytes]:
    """Sizes and roots that were verified before: the memory's own, and that of the largest row."""
    row = (
        Verification.objects.filter(kind=Verification.Kind.MONITOR, findings=[])
        .exclude(root_hash="")
        .filter(**({"started_at__gte": memory.since} if memory.since else {}))
        .order_by("-size")
        .first()
    )
    known = {row.size: bytes.fromhex(row.root_hash)} if row else {}
    return known | {memory.size: memory.root}


def _went_back(checkpoint: notes.Checkpoint, anchors: Mapping[int, bytes]) -> Finding | None:
    largest = max(anchors)
    if checkpoint.size < largest:
        detail = f"{checkpoint.size} entries are published, {largest} were before"
        return {"code": "rolled_back", "detail": detail}
    known = anchors.get(checkpoint.size)
    if known is not None and known != checkpoint.root:
        return _fork(checkpoint, checkpoint.size, known)
    return None


def _fork(checkpoint: notes.Checkpoint, size: int, known: bytes) -> Finding:
    detail = (
        f"the tree of {checkpoint.size} entries with root {checkpoint.root.hex()} does not continue the tree of "
        f"{size} entries with root {known.hex()}"
    )
    return {"code": "forked", "detail": detail}


def _forked(checkpoint: notes.Checkpoint, anchors: Mapping[int, bytes], read: Read) -> Finding | None:
    """Whether the tiles do give the signed root, and yet do not continue what was verified before."""
    tree = tiles.Tree(read, checkpoint.size)
    try:
        if tree.root() != checkpoint.root:
            return None
        for size, known in anchors.items():
            try:
                proof = tree.consistency_proof(size)
                if size:
                    merkle.verify_consistency(
                        old=size, old_root=known, new=checkpoint.size, new_root=checkpoint.root, proof=proof
                    )
            except merkle.BadProof:
                return _fork(checkpoint, size, known)
    except tiles.NoTile:
        pass
    return None


# --- hashing what is published ---------------------------------------------------------------------------------------------


def _follow(
    memory: Memory, checkpoint: notes.Checkpoint, anchors: Mapping[int, bytes], read: Read, *, at
) -> None:
    """Hash what is new. A verified edge grown to the signed root is the proof that the one continues the other.

    Raises Damaged."""
    edge, whole = memory.edge.copy(), memory.size == 0
    for size in sorted({size for size in anchors if size > edge.size} | {checkpoint.size}):
        _walk(edge, size, checkpoint.size, read)
        known = checkpoint.root if size == checkpoint.size else anchors[size]
        if edge.root() != known:
            raise Damaged([f"the entries do not give the root of size {size}: {known.hex()}"])
    memory.size, memory.root, memory.edge = edge.size, checkpoint.root, edge
    if whole and memory.size:
        memory.swept_at = at.isoformat()


def _sweep(memory: Memory, read: Read, *, at: datetime.datetime, full: bool) -> None:
    """Hash again what was hashed before, a part in each run, all of it within EVERY. Raises Damaged."""
    last = datetime.datetime.fromisoformat(memory.swept_at) if memory.swept_at else None
    if not memory.size or not (full or memory.sweep.size or last is None or at - last >= EVERY):
        return
    edge = tiles.Edge() if full else memory.sweep.copy()
    step = AT_ONCE if full else SWEEP
    end = min(memory.size, edge.size - edge.size % tiles.WIDTH + step)
    _walk(edge, end, memory.size, read)
    if edge.size < memory.size:
        memory.sweep = edge
        return
    if edge.root() != memory.root:
        raise Damaged([f"the entries no longer give the root of size {memory.size}: {memory.root.hex()}"])
    memory.sweep, memory.swept_at = tiles.Edge(), at.isoformat()


def _walk(edge: tiles.Edge, end: int, size: int, read: Read) -> None:
    """Grow `edge` to `end` from the entries of the published tree of `size`, comparing each hash tile. Raises Damaged."""
    while edge.size < end:
        stop = min(end, edge.size - edge.size % tiles.WIDTH + BATCH)
        leaves: list[bytes] = []
        for n in range(edge.size // tiles.WIDTH, -(-stop // tiles.WIDTH)):
            first = n * tiles.WIDTH
            entries = _entries(n, min(tiles.WIDTH, size - first), read)
            leaves += map(
                merkle.leaf_hash, entries[max(edge.size - first, 0) : min(stop - first, tiles.WIDTH)]
            )
        expected = edge.grow(leaves)
        if edge.size == size:
            expected |= edge.partials()
        _compare(expected, read)


def _entries(n: int, width: int, read: Read) -> list[bytes]:
    address = tiles.path(tiles.ENTRIES, n, width)
    try:
        entries = tiles.unbundle(read(address))
    except (tiles.NoTile, OSError) as problem:
        raise Damaged([f"{address}: {_why(problem, address)}"]) from problem
    if len(entries) != width or not all(entries):
        raise Damaged([f"{address} does not hold {width} entries"])
    return entries


def _compare(expected: Mapping[str, bytes], read: Read) -> None:
    """The lowest level that differs is told: what stands on it differs too."""
    wrong: dict[int, list[str]] = {}
    for address, data in expected.items():
        level, n, width = tiles.parse(address)
        try:
            right = read(address) == data
        except (tiles.NoTile, OSError) as problem:
            wrong.setdefault(int(level), []).append(f"{address}: {_why(problem, address)}")
            continue
        if not right:
            below = tiles.path(tiles.ENTRIES, n, width) if level == 0 else "the tiles below it"
            wrong.setdefault(int(level), []).append(f"{address} does not agree with {below}")
    if wrong:
        raise Damaged(wrong[min(wrong)][:MOST])


def _why(problem: Exception, address: str) -> str:
    return "is not there" if str(problem) == address else str(problem)


# --- promises ----------------------------------------------------------------------------------------------------------------


def _settle(memory: Memory, read: Read, *, at: datetime.datetime) -> list[Finding]:
    """Clear promises whose leaf stands in the verified tree; the rest is broken where its time is over.

    ledger.leaf says only where to look first: what counts is the published tree."""
    tree = tiles.Tree(read, memory.size)
    promises = list(Promise.objects.using(settings.LEDGER_ALIAS).order_by("due_at")[:PROMISES])
    hints = dict(
        Leaf.objects.filter(event_id__in=[row.event_id for row in promises]).values_list(
            "event_id", "leaf_index"
        )
    )
    stands = functools.partial(_stands, tree, memory)
    kept = [row for row in promises if stands(hints.get(row.event_id), bytes(row.leaf_hash))]
    done = {row.event_id for row in kept}
    left = {bytes(row.leaf_hash): row for row in promises if row.due_at < at and row.event_id not in done}
    for leaf, index in _seek(memory, set(left), tree).items():
        if stands(index, leaf):
            kept.append(left.pop(leaf))
    for ids in tiles.batches((row.event_id for row in kept), 1000):
        Promise.objects.using(settings.LEDGER_ALIAS).filter(event_id__in=ids).delete()
    broken = [
        {"code": "broken_promise", "detail": f"{row.event_id}: by {row.due_at:%Y-%m-%d %H:%M:%S} UTC"}
        for row in left.values()
    ]
    return _at_most(broken)


def _at_most(found: list[Finding]) -> list[Finding]:
    if len(found) > MOST:
        more = {"code": found[0]["code"], "detail": f"+{len(found) - MOST}"}
        return [*found[:MOST], more]
    return found


def _stands(tree: tiles.Tree, memory: Memory, index: int | None, leaf: bytes) -> bool:
    if index is None or index >= memory.size:
        return False
    try:
        proof = tree.inclusion_proof(index)
        merkle.verify_inclusion(leaf=leaf, index=index, size=memory.size, proof=proof, root=memory.root)
    except (tiles.NoTile, merkle.BadProof):
        return False
    return True


def _seek(memory: Memory, wanted: set[bytes], tree: tiles.Tree) -> dict[bytes, int]:
    """Where these leaves stand, looked for in the hash tiles; those that were looked for before only in what is new."""
    memory.sought = {key: size for key, size in memory.sought.items() if bytes.fromhex(key) in wanted}
    found: dict[bytes, int] = {}
    if not wanted:
        return found
    start = min(memory.sought.get(leaf.hex(), 0) for leaf in wanted)
    with contextlib.suppress(tiles.NoTile):
        for n in range(start // tiles.WIDTH, -(-memory.size // tiles.WIDTH)):
            for place, hash_ in enumerate(_leaves(tree, n), n * tiles.WIDTH):
                if hash_ in wanted:
                    found[hash_] = place
        memory.sought = {leaf.hex(): memory.size for leaf in wanted - found.keys()}
    return found


def _leaves(tree: tiles.Tree, n: int) -> list[bytes]:
    """The leaf hashes of one tile. Raises tiles.NoTile."""
    first = n * tiles.WIDTH
    return [tree.node(0, place) for place in range(first, min(first + tiles.WIDTH, tree.size))]


# --- rows --------------------------------------------------------------------------------------------------------------------


def _remember(findings: list[Finding], *, memory: Memory, at: datetime.datetime) -> Verification:
    """A row for each outcome: one that stays the same is dated anew, for at most ROW_LASTS."""
    root = memory.root.hex() if memory.size else ""
    last = Verification.objects.filter(kind=Verification.Kind.MONITOR).first()
    if last and last.findings == findings and at - last.started_at < ROW_LASTS and last.finished_at <= at:
        last.finished_at, last.size, last.root_hash = at, memory.size, root
        last.save(update_fields=["finished_at", "size", "root_hash"])
        return last
    for finding in findings:
        log.error("the published log is not right", **finding)
    return Verification.objects.create(
        id=uuid7(), kind=Verification.Kind.MONITOR, started_at=at, finished_at=at, size=memory.size,
        root_hash=root, findings=findings,
    )  # fmt: skip
