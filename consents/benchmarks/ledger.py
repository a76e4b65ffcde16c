"""WRITES a scratch log: how fast it orders, is witnessed, is verified and proves, against a bare pipeline.

The limit is "PostgreSQL → leaf → tiles → signed checkpoint" with nothing that makes the log trustworthy: entries come by
binary COPY from a bare table, nothing is queued, ordered, fsynced, guarded by triggers or kept as a row, and the key lies
in the same process.
"""

import base64
import datetime
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.db import connection

from consents.ledger import cosigning, entries, merkle, notes, proofs, recount, tiles
from consents.ledger.sequencer import Sequencer

from . import Result, median, percentile, scratch

FASTEST, RATIO = 50_000, 0.2  # entries/s sequenced; of the limit
WITNESSED_WITHIN, VERIFIED, PROVED_WITHIN = 60.0, 100_000, 20.0  # seconds, entries/s, milliseconds
CHUNK = 10_000  # entries a transaction
FIELDS = 5  # digests an entry: 352 bytes
ASKED = 1_000  # proofs
ROUND = 200_000  # entries in a round beside the limit
_COPY_SQL = "COPY ledger.event (event_id, entry, event_type) FROM STDIN (FORMAT BINARY)"
_BARE_SQL = "COPY (SELECT entry FROM bare ORDER BY place) TO STDOUT (FORMAT BINARY)"
Say = Callable[[str], object]


def run(*, count: int, rounds: int, leaves: int, say: Say) -> Result:
    """All measures of P7, on a database and in folders that are gone afterwards."""
    detail: dict = {"entries": count}
    with scratch.folders(), scratch.database():
        pairs = [_round(min(count, ROUND), number, rounds, say) for number in range(rounds)]
    ours, limit = (median([pair[i] for pair in pairs]) for i in (0, 1))
    ratio = median([ours / limit for ours, limit in pairs])
    detail["rounds"] = [[round(one) for one in pair] for pair in pairs]
    with scratch.folders(), scratch.database():
        say(f"sequencing {count:,} entries at one go")
        fill(count)
        detail["full_run_per_s"] = round(_sequenced(count))
    with scratch.folders() as home, scratch.database(), scratch.real_witness(home):
        say(f"writing {count:,} entries while they are sequenced and witnessed")
        detail["witnessed_after_s"] = round(_witnessed_after(count), 2)
        say("verifying all of it")
        detail["verify_py_per_s"], detail["recount_per_s"] = round(_verified(count)), round(_recounted(count))
        detail["proof_file_ms"] = _proof_files()
    with scratch.folders() as home:
        say(f"proofs in a tree of {leaves:,} leaves")
        detail["proof_ms"] = {"leaves": leaves, **_proofs(home, leaves)}
    holds = (
        min(ours, detail["full_run_per_s"]) >= FASTEST
        and ratio >= RATIO
        and detail["witnessed_after_s"] < WITNESSED_WITHIN
        and min(detail["verify_py_per_s"], detail["recount_per_s"]) >= VERIFIED
        and max(detail["proof_ms"]["p95"], detail["proof_file_ms"]["p95"]) < PROVED_WITHIN
    )
    goal = (
        f"≥ {FASTEST} entries/s and ≥ {RATIO} of the limit; cosigned < {WITNESSED_WITHIN:.0f} s after the last write; "
        f"verified ≥ {VERIFIED} entries/s; proof p95 < {PROVED_WITHIN:.0f} ms"
    )
    return Result("ledger", round(ours), round(limit), round(ratio, 3), "entries/s", goal, holds, detail)


# --- what is written -----------------------------------------------------------------------------------------------------


def invented(count: int) -> Iterator[tuple[uuid.UUID, bytes, str]]:
    """Entries as entries.encode makes them, over random digests: its bytes around places that are filled in."""
    typ, hole, dash = "consent.withdrawn", "D" * 43, "-" * 36
    drawn = entries.encode(
        typ=typ, day=datetime.date(2026, 11, 25), event_id=uuid.UUID(int=0), digests=[hole] * FIELDS
    )
    whole = drawn.replace(str(uuid.UUID(int=0)).encode(), dash.encode())
    head, _, rest = whole.partition(b'"' + b'","'.join([hole.encode()] * FIELDS) + b'"')
    middle, _, tail = rest.partition(dash.encode())
    for _ in range(count):
        made, event_id = os.urandom(32 * FIELDS), uuid.uuid4()
        digests = sorted(base64.urlsafe_b64encode(made[i : i + 32])[:43] for i in range(0, 32 * FIELDS, 32))
        yield (
            event_id,
            b"".join((head, b'"', b'","'.join(digests), b'"', middle, str(event_id).encode(), tail)),
            typ,
        )


def fill(count: int) -> None:
    """So many entries in the log, a transaction per chunk, over a connection of its own (as any writer has)."""
    parameters = connection.get_connection_params()
    for ours in ("cursor_factory", "context", "prepare_threshold"):
        parameters.pop(ours, None)
    with psycopg.connect(**parameters) as writer:
        for chunk in tiles.batches(invented(count), CHUNK):
            with writer.cursor() as cursor, cursor.copy(_COPY_SQL) as copy:
                copy.set_types(["uuid", "bytea", "text"])
                for row in chunk:
                    copy.write_row(row)
            writer.commit()


# --- sequencing beside its limit ---------------------------------------------------------------------------------------------


def _round(count: int, number: int, rounds: int, say: Say) -> tuple[float, float]:
    say(f"round {number + 1} of {rounds}: {count:,} entries")
    fill(count)
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bare")
        cursor.execute(
            "CREATE UNLOGGED TABLE bare AS SELECT pending.place, event.entry FROM ledger.pending JOIN ledger.event USING (event_id)"
        )
        cursor.execute("CREATE INDEX ON bare (place)")
        cursor.execute("ANALYZE bare")
    measures: list[Callable[[], float]] = [lambda: _sequenced(count), lambda: _bare(count, number)]
    if number % 2:
        limit, ours = measures[1](), measures[0]()
        return ours, limit
    return measures[0](), measures[1]()


def _sequenced(count: int) -> float:
    start = time.perf_counter()
    report = Sequencer().run(rounds=sys.maxsize)
    seconds = time.perf_counter() - start
    if report.ordered != count:
        raise RuntimeError(f"{report.ordered} of {count} entries were sequenced")
    return count / seconds


def _bare(count: int, number: int) -> float:
    """The limit: entries per second."""
    folder = settings.LEDGER_DIR.parent / f"limit-{number}"
    key = Ed25519PrivateKey.generate()
    start = time.perf_counter()
    edge, rows = tiles.Edge(), 0
    with connection.cursor() as cursor, cursor.copy(_BARE_SQL) as copy:
        found = (bytes(row[6:]) for row in _rows(copy))
        for n, block in enumerate(tiles.batches(found, tiles.WIDTH * 64)):
            rows += len(block)
            full = edge.grow([sha256(b"\x00" + entry).digest() for entry in block])
            for i in range(0, len(block), tiles.WIDTH):
                part = block[i : i + tiles.WIDTH]
                full[tiles.path(tiles.ENTRIES, n * 64 + i // tiles.WIDTH, len(part))] = tiles.bundle(part)
            _put(folder, full)
    _put(folder, edge.partials())
    text = notes.Checkpoint("bench.invalid/limit", edge.size, edge.root()).text
    note = notes.Note(text, (notes.note_signature(key, name="bench.invalid/limit", text=text),))
    _put(folder, {tiles.CHECKPOINT: str(note).encode()})
    seconds = time.perf_counter() - start
    if rows != count:
        raise RuntimeError(f"the limit read {rows} of {count} entries")
    return count / seconds


def _rows(copy: psycopg.Copy) -> Iterator[bytes]:
    """Rows of a binary COPY of one column, each behind 6 bytes: number of columns, length."""
    header = True
    for data in copy:
        row = bytes(data)
        if header:
            row, header = row[19:], False  # signature, flags, length of the extension
        if row and row != b"\xff\xff":
            yield row


def _put(folder: Path, files: dict[str, bytes]) -> None:
    for address, data in files.items():
        target = folder / address
        try:
            target.write_bytes(data)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


# --- witnessed, verified, proved -----------------------------------------------------------------------------------------------


def _witnessed_after(count: int) -> float:
    """Seconds from the last commit to a published checkpoint over it, its cosignature included."""
    ended: list[float] = []

    def write() -> None:
        try:
            fill(count)
        finally:
            ended.append(time.perf_counter())

    writer, sequencer = threading.Thread(target=write), Sequencer()
    writer.start()
    try:
        while True:
            written = bool(ended)  # before the run: what it says then is about everything
            sequencer.run()
            report = cosigning.run(now=int(time.time()))
            if written and report.published >= count:
                return time.perf_counter() - ended[0]
            if written and (report.troubles or time.perf_counter() - ended[0] > 10 * WITNESSED_WITHIN):
                raise RuntimeError(f"not published: {report}")
            time.sleep(0.05)
    finally:
        writer.join()


def _verified(count: int) -> float:
    """The verifier that is given away, started as anybody starts it."""
    command = [sys.executable, str(settings.BASE_DIR / "verify.py"), "--log", str(settings.LEDGER_DIR)]
    start = time.perf_counter()
    done = subprocess.run(
        [*command, str(settings.LEDGER_POLICY)], capture_output=True, text=True, check=False
    )
    if done.returncode or "VALID" not in done.stdout:
        raise RuntimeError(f"verify.py: {done.stdout}{done.stderr}")
    return count / (time.perf_counter() - start)


def _recounted(count: int) -> float:
    """The nightly count, over the database and the tiles."""
    start = time.perf_counter()
    report = recount.run()
    if report.entries != count or not report.ok:
        raise RuntimeError(f"recount: {report}")
    return count / (time.perf_counter() - start)


def _proof_files() -> dict[str, float]:
    """Milliseconds for whole .tlog-proof files of random entries, database included."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT event_id FROM ledger.event ORDER BY event_id LIMIT %s", [ASKED])  # random ids
        asked = [event_id for (event_id,) in cursor.fetchall()]
    return _timed(lambda event_id: proofs.tlog_proof(event_id), asked)


def _proofs(home: Path, leaves: int) -> dict[str, float]:
    """Milliseconds for an inclusion proof from tiles, checked, at random places."""
    edge, made = tiles.Edge(), 0
    while made < leaves:
        some = min(262_144, leaves - made)
        data = os.urandom(some * merkle.HASH_BYTES)
        _put(home, edge.grow(data[i : i + merkle.HASH_BYTES] for i in range(0, len(data), merkle.HASH_BYTES)))
        made += some
    _put(home, edge.partials())
    tree, root = tiles.Tree(tiles.Directory(home).read, leaves), edge.root()

    def prove(index: int) -> None:
        proof = tree.inclusion_proof(index)
        merkle.verify_inclusion(leaf=tree.node(0, index), index=index, size=leaves, proof=proof, root=root)

    return _timed(prove, [random.randrange(leaves) for _ in range(ASKED)])  # noqa: S311 -- where to look


def _timed(act: Callable, asked: list) -> dict[str, float]:
    took = []
    for one in asked:
        start = time.perf_counter()
        act(one)
        took.append((time.perf_counter() - start) * 1000)
    return {"p50": round(percentile(took, 0.5), 2), "p95": round(percentile(took, 0.95), 2)}
