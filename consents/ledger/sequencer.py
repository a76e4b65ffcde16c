"""WRITES leaves and checkpoints: orders what was committed, grows the tree and has the signer sign it.

Two steps in transactions of their own. First what waits in ledger.pending becomes dense leaves; only what is committed
waits there, so that a late writer is never passed over. Then the tree over the committed leaves goes into tiles and is
signed, and the checkpoint is noted. A crash anywhere repeats a step and gives the same bytes. Nothing is signed before
its leaves are committed: another order would need another signature for the same size, which the signer refuses.
"""

import contextlib
from dataclasses import dataclass

import psycopg
import structlog
from django.conf import settings
from django.db import IntegrityError, connections, transaction

from consents import locks

from . import merkle, notes, proofs, signer, tiles

log = structlog.get_logger(__name__)

HASH_MISMATCH = "23L03"  # of the trigger b_dense
BATCH = 16_384  # leaves a checkpoint; a multiple of the tiles' width

_ORDER_SQL = """
WITH gone AS (
  -- One snapshot sees both: what commits meanwhile with a lower place is not seen, and stays.
  DELETE FROM ledger.pending WHERE place <= (
    SELECT max(place) FROM (SELECT place FROM ledger.pending ORDER BY place LIMIT %(limit)s) AS taken
  ) RETURNING place, event_id, leaf_hash
), ordered AS (
  -- That the hash is the event's is checked by the trigger b_dense.
  INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash)
  SELECT %(first)s - 1 + row_number() OVER (ORDER BY place), event_id, leaf_hash FROM gone
)
SELECT count(*) FROM gone
"""
# A restored dump enqueues again what has its leaf already, or waits already.
_FORGET_SQL = """
DELETE FROM ledger.pending USING (
  SELECT place, row_number() OVER (PARTITION BY event_id ORDER BY place) > 1 AS again FROM ledger.pending
) AS seen
WHERE pending.place = seen.place
  AND (again OR EXISTS (SELECT 1 FROM ledger.leaf WHERE leaf.event_id = pending.event_id))
"""
_LEAVES_SQL = """
SELECT leaf.leaf_hash, event.entry FROM ledger.leaf JOIN ledger.event USING (event_id)
WHERE leaf_index >= %s AND leaf_index < %s ORDER BY leaf_index
"""
# A batch is small beside the log, and these tables grow faster than their statistics: a plan that reads one of them
# whole costs more with every batch. By its index each row costs the same for ever.
_BY_INDEX_SQL = (
    "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_hashjoin = off; "
    "SET LOCAL enable_mergejoin = off"
)


class Stopped(Exception):
    """Nothing is signed until a person has looked. `code`: signer_ahead, rewritten, refused."""

    def __init__(self, code: str, detail: str):
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class Report:
    """What a run did: how many entries got their place, and the size that is now signed. `busy`: another one runs."""

    ordered: int = 0
    size: int = 0
    busy: bool = False


class Sequencer:
    """Keeps the tree's right edge in memory between runs; everything else is read again."""

    def __init__(self) -> None:
        self._edge: tiles.Edge | None = None
        self._last_leaf = b""

    def run(self, *, rounds: int = 64, batch: int = BATCH) -> Report:
        """Order, grow and sign until nothing waits, at most `rounds` batches. Safe to run twice at once.

        Raises Stopped, signer.Unavailable, OSError (no space for tiles); what was ordered stays ordered."""
        with locks.alone(locks.SEQUENCER, using=settings.LEDGER_ALIAS) as alone:
            if not alone:
                return Report(busy=True)
            with signer.connect() as signing:
                return self._run(signing, rounds, batch)

    def _run(self, signing: signer.Signing, rounds: int, batch: int) -> Report:
        signed, committed = signing.state(), leaves()
        _write_default_policy(signed.key)
        if signed.size > committed:
            raise Stopped(
                "signer_ahead",
                f"the signer has signed {signed.size} entries, the database has {committed}: an older database?",
            )
        edge = self._current_edge(committed, signed)
        ordered = 0
        for _round in range(rounds):
            took = _order(batch)
            ordered += took
            committed += took
            while edge.size < committed:
                self._grow(edge, min(committed, edge.size + batch))
            if edge.size > signed.size:
                self._sign(signing, edge, signed)
                signed = signing.state()
            elif edge.root() != signed.root:
                self._edge = None
                raise Stopped(
                    "rewritten", f"size {edge.size} was signed with another root than the database gives"
                )
            self._note(signed)
            if took < batch:
                break
        return Report(ordered=ordered, size=edge.size)

    def _current_edge(self, committed: int, signed: signer.State) -> tiles.Edge:
        """The edge kept from the last run where it still belongs to this database, else the one on the disk."""
        edge = self._edge
        if (
            edge is None
            or not signed.size <= edge.size <= committed
            or (edge.size and _leaf(edge.size - 1) != self._last_leaf)
        ):
            edge = self._loaded_edge(signed)
        self._edge = edge
        return edge

    def _loaded_edge(self, signed: signer.State) -> tiles.Edge:
        """The edge of the tree signed last. Growth starts there, so that no tile of a signed tree is written over by
        what a changed database says."""
        if signed.size and _checkpoint() != (signed.size, signed.root):
            _reckon(
                signed.size, signed.root
            )  # signed and not noted: a crash, or somebody changed the database
        with contextlib.suppress(tiles.NoTile):
            edge = tiles.Edge.load(proofs.directory().read, signed.size)
            if edge.root() == signed.root:
                self._last_leaf = _leaf(signed.size - 1)
                return edge
        return self._remade(signed.size, signed.root)

    def remake(self) -> bool:
        """Write all tiles of the signed tree again from the committed leaves: some are missing or damaged.

        False: another one runs, nothing was written. Raises Stopped, signer.Unavailable, OSError."""
        with locks.alone(locks.SEQUENCER, using=settings.LEDGER_ALIAS) as alone:
            if alone:
                with signer.connect() as signing:
                    signed = signing.state()
                self._edge = None
                self._edge = self._remade(signed.size, signed.root)
            return alone

    def _remade(self, size: int, root: bytes) -> tiles.Edge:
        """First reckoned without writing: what a changed database says must not replace what is published."""
        log.warning("tiles are missing or damaged: making them again", size=size)
        _reckon(size, root)
        edge = tiles.Edge()
        while edge.size < size:
            self._grow(edge, min(size, edge.size + BATCH))
        return edge

    def _grow(self, edge: tiles.Edge, size: int) -> None:
        """Read committed leaves up to `size`, and put all their tiles on the disk."""
        start = edge.size - edge.size % tiles.WIDTH  # the entries of the tile that was not full
        rows = _committed(start, size)
        grown = edge.copy()
        files = grown.grow(leaf for leaf, _entry in rows[edge.size - start :])
        files |= grown.partials()
        for place in range(0, len(rows), tiles.WIDTH):
            entries = [entry for _leaf_hash, entry in rows[place : place + tiles.WIDTH]]
            n = (start + place) // tiles.WIDTH
            files[tiles.path(tiles.ENTRIES, n, len(entries))] = tiles.bundle(entries)
        proofs.directory().write(files)
        edge.size, edge.levels = grown.size, grown.levels
        self._last_leaf = rows[-1][0]

    def _sign(self, signing: signer.Signing, edge: tiles.Edge, signed: signer.State) -> None:
        try:
            proof = _proof(edge, signed)
        except (
            tiles.NoTile,
            merkle.BadProof,
        ):  # a tile is damaged, or the database: in both cases the leaves decide
            self._remade(edge.size, edge.root())
            proof = tiles.Tree(proofs.directory().read, edge.size).consistency_proof(signed.size)
        try:
            signing.sign(size=edge.size, root=edge.root(), old=signed.size, proof=proof)
        except signer.Refused as refusal:
            self._edge = None
            raise Stopped("refused", f"the signer refuses: {refusal}") from refusal

    def _note(self, signed: signer.State) -> None:
        """Keep the signed checkpoint as a row, also one that was signed just before a crash."""
        noted = _checkpoint()
        if signed.note and (noted is None or noted[0] < signed.size):
            with (
                transaction.atomic(using=settings.LEDGER_ALIAS),
                connections[settings.LEDGER_ALIAS].cursor() as cursor,
            ):
                cursor.execute(
                    "INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (%s, %s, %s)",
                    [signed.size, signed.root, signed.note],
                )


def leaves() -> int:
    """How many entries have their place."""
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute("SELECT coalesce(max(leaf_index) + 1, 0) FROM ledger.leaf")
        return cursor.fetchone()[0]


def _order(limit: int) -> int:
    """Give the next waiting entries their place; answers how many. Raises Stopped where an event is not what it was."""
    try:
        return _placed(limit)
    except IntegrityError as error:
        if getattr(error.__cause__, "sqlstate", "") == HASH_MISMATCH:
            raise Stopped("rewritten", f"a waiting entry was changed or removed: {error}") from error
        log.warning("entries wait that have their place already: forgotten")
        return _placed(limit, forget=True)


def _placed(limit: int, *, forget: bool = False) -> int:
    with (
        transaction.atomic(using=settings.LEDGER_ALIAS),
        connections[settings.LEDGER_ALIAS].cursor() as cursor,
    ):
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.LEDGER_ORDER])
        if forget:
            cursor.execute(_FORGET_SQL)
        cursor.execute(_BY_INDEX_SQL)
        cursor.execute("SELECT coalesce(max(leaf_index) + 1, 0) FROM ledger.leaf")
        (first,) = cursor.fetchone()
        cursor.execute(_ORDER_SQL, {"limit": limit, "first": first})
        return cursor.fetchone()[0]


def _committed(start: int, end: int) -> list[tuple[bytes, bytes]]:
    """Leaf hash and entry of committed leaves. Raises Stopped where some are missing."""
    with (
        transaction.atomic(using=settings.LEDGER_ALIAS),
        connections[settings.LEDGER_ALIAS].cursor() as cursor,
    ):
        cursor.execute(_BY_INDEX_SQL)
        # Binary: as text each byte would come as two, to be put together again.
        with psycopg.Cursor(cursor.connection) as reader:
            rows = reader.execute(_LEAVES_SQL, [start, end], binary=True).fetchall()
    if len(rows) != end - start:
        raise Stopped("rewritten", f"entries between {start} and {end} have vanished from the database")
    return rows


def _reckon(size: int, root: bytes) -> None:
    """The tree of the committed entries has this root. Raises Stopped where it has not."""
    edge = tiles.Edge()
    while edge.size < size:
        rows = _committed(edge.size, min(size, edge.size + BATCH))
        edge.grow(merkle.leaf_hash(entry) for _leaf_hash, entry in rows)
    if edge.root() != root:
        raise Stopped("rewritten", f"the entries in the database do not give the root known for size {size}")


def _proof(edge: tiles.Edge, signed: signer.State) -> list[bytes]:
    """That the edge's tree continues the signed one, from the tiles. Raises tiles.NoTile, merkle.BadProof."""
    proof = tiles.Tree(proofs.directory().read, edge.size).consistency_proof(signed.size)
    if signed.size:
        merkle.verify_consistency(
            old=signed.size, old_root=signed.root, new=edge.size, new_root=edge.root(), proof=proof
        )
    return proof


def _leaf(index: int) -> bytes:
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute("SELECT leaf_hash FROM ledger.leaf WHERE leaf_index = %s", [index])
        row = cursor.fetchone()
    return bytes(row[0]) if row else b""


def _checkpoint() -> tuple[int, bytes] | None:
    with connections[settings.LEDGER_ALIAS].cursor() as cursor:
        cursor.execute("SELECT tree_size, root_hash FROM ledger.checkpoint ORDER BY tree_size DESC LIMIT 1")
        row = cursor.fetchone()
    return (row[0], bytes(row[1])) if row else None


def _write_default_policy(key: notes.Key) -> None:
    """Where nobody named a policy, the log is read with its own key and without witnesses."""
    path = settings.LEDGER_DIR / "policy.txt"
    if path == settings.LEDGER_POLICY and not path.exists():
        proofs.directory().write({path.name: f"log {key}\nquorum none\n".encode()})
