"""The regulator's witness (C2SP tlog-witness v1.0.0): a key and a store of its own, nothing of the portal's.

It cosigns a checkpoint only where the log's key signed it and a consistency proof shows that it continues the one cosigned
last. Comparing and storing are one transaction, and what is stored is on the disk before anybody hears of it. A witness
brought back from an old copy is behind, nothing worse: it tells its size, and asks for the proof from there.

DIR/key.pem      the key, readable by its user alone
DIR/witness.db   SQLite: the last cosigned checkpoint a log, and signed forgeries that were refused
DIR/policy.txt   C2SP tlog-policy: whose checkpoints are judged, and what is handed to everybody who verifies
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from . import merkle, notes

KEY, STORE, POLICY, LOCK = "key.pem", "witness.db", "policy.txt", "lock"
LARGEST_BODY = 262_144  # bytes: 64 signatures of the longest kind, and a proof
MOST_HASHES = 63
PATIENCE = 10.0  # seconds to wait for another writer
TEXT = "text/plain; charset=utf-8"
SIZE = "text/x.tlog.size"

# One row a log, and what was refused although the log had signed it: `fork` proves by itself that the log shows two
# histories (`against` is the other one), `proof` is a checkpoint whose continuity could not be shown.
_TABLES = """
CREATE TABLE IF NOT EXISTS cosigned (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, time INTEGER NOT NULL, note TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS evidence (
    origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, kind TEXT NOT NULL, seen_at INTEGER NOT NULL,
    request BLOB NOT NULL, against TEXT NOT NULL, PRIMARY KEY (origin, size, root, kind)
) STRICT, WITHOUT ROWID;
"""
_LAST = "SELECT size, root, time, note FROM cosigned WHERE origin = ?"
_KEEP = "INSERT OR REPLACE INTO cosigned (origin, size, root, time, note) VALUES (?, ?, ?, ?, ?)"
_ACCUSE = (
    "INSERT OR IGNORE INTO evidence (origin, size, root, kind, seen_at, request, against) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)


class Unavailable(Exception):
    """The witness cannot work; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    content_type: str = TEXT


@dataclass(frozen=True, slots=True)
class Submission:
    """An add-checkpoint request, read and not yet believed."""

    old: int
    proof: tuple[bytes, ...]
    note: notes.Note
    checkpoint: notes.Checkpoint
    misspelt: tuple[
        notes.Signature, ...
    ] = ()  # lines of the note whose base64 is not in its one canonical spelling

    @classmethod
    def parse(cls, body: bytes) -> "Submission":
        """Raises BadNote."""
        if len(body) > LARGEST_BODY:
            raise notes.BadNote("larger than a request may be")
        head, separator, rest = body.partition(b"\n\n")
        try:
            first, *proof = head.decode("ascii").split("\n")
        except UnicodeDecodeError as error:
            raise notes.BadNote("not ASCII before the checkpoint") from error
        if not separator or not first.startswith("old "):
            raise notes.BadNote("not an old size, a proof, a blank line and a checkpoint")
        if len(proof) > MOST_HASHES:
            raise notes.BadNote(f"a proof has at most {MOST_HASHES} hashes")
        rest, misspelt = _respelled(rest)
        note = notes.Note.parse(rest)
        return cls(
            old=notes.number(first.removeprefix("old ")),
            proof=tuple(notes.parse_hashes(proof)),
            note=note,
            checkpoint=notes.Checkpoint.parse(note.text),
            misspelt=tuple(notes.Signature.parse(line) for line in misspelt),
        )


def _respelled(note: bytes) -> tuple[bytes, list[str]]:
    """The note with its signatures spelt canonically, and the lines that were not: such a line of a key that is unknown is
    ignored like any other, one of the log's is a false signature (403) and not a malformed request."""
    text, separator, lines = note.rpartition(b"\n\n")
    spelt, misspelt = [], []
    for line in lines.split(b"\n"):
        before, space, encoded = line.rpartition(b" ")
        with contextlib.suppress(ValueError):
            again = before + space + base64.b64encode(base64.b64decode(encoded, validate=True))
            if space and again != line:
                misspelt.append(again.decode())
                line = again
        spelt.append(line)
    return text + separator + b"\n".join(spelt), misspelt


@dataclass(frozen=True, slots=True)
class Last:
    """What was cosigned last for a log; of a log never seen the empty tree."""

    size: int = 0
    root: bytes = merkle.EMPTY_ROOT
    time: int = 0
    note: str = ""


class Witness:
    """The witness in a folder. Any number of threads and processes may use one folder at once. Raises Unavailable."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._private = _private_key(self._folder)
        if not (self._folder / STORE).is_file():
            raise Unavailable(
                f"{self._folder} has a key and no {STORE}: a witness that has forgotten must not cosign; bring the file "
                "back from a copy, however old, or make a new witness"
            )
        public = notes.Key.of(self._private, name="-", kind=notes.COSIGNATURE).public
        own = [w for w in self.policy().witnesses.values() if w.key.public == public]
        if not own:
            raise Unavailable(f"{self._folder / POLICY} does not name this witness")
        self.key = own[0].key
        with self._store():
            """It can be read, or this says that it cannot."""

    def policy(self) -> notes.Policy:
        """Read each time: a log that is added counts from then on."""
        return read_policy(self._folder)

    def add_checkpoint(self, body: bytes, now: int) -> Answer:
        """Judge one submission; a cosignature that is answered is stored. `now` is epoch seconds."""
        try:
            submission = Submission.parse(body)
        except notes.BadNote as problem:
            return _refusal(400, str(problem))
        try:
            keys = [key for key in self.policy().logs if key.name == submission.checkpoint.origin]
            if not keys:
                return _refusal(404, "this log is not known here")
            if refusal := _unsigned(submission, keys):
                return refusal
            if submission.old > submission.checkpoint.size:
                return _refusal(400, "the old size is larger than the checkpoint's")
            with self._store() as store, _at_once(store):
                return self._judge(store, submission, body, now)
        except (sqlite3.Error, Unavailable):
            return _refusal(503, "the witness cannot use its store")

    def _judge(self, store: sqlite3.Connection, submission: Submission, body: bytes, now: int) -> Answer:
        asked, last = submission.checkpoint, _last(store, submission.checkpoint.origin)
        if last.note and asked.size == last.size and asked.root != last.root:
            _accuse(store, asked, "fork", now, body, last)  # whatever the old size says
        if asked.size == 0 and asked.root != merkle.EMPTY_ROOT:
            _accuse(store, asked, "fork", now, body, last)
            return _refusal(422, "an empty tree has another root")
        if submission.old != last.size:
            return Answer(409, f"{last.size}\n".encode(), SIZE)
        try:
            _continues(last, asked, submission.proof)
        except merkle.BadProof as wrong:
            if asked.size != last.size or not last.note:
                _accuse(store, asked, "proof", now, body, last)
            return _refusal(422, str(wrong))
        time = max(now, last.time)
        line = notes.cosignature(self._private, name=self.key.name, text=submission.note.text, time=time)
        trusted = tuple(s for s in submission.note.signatures if any(s.by(k) for k in self.policy().logs))
        note = str(notes.Note(submission.note.text, (*trusted, line)))
        store.execute(_KEEP, (asked.origin, asked.size, asked.root, time, note))
        return Answer(200, f"{line}\n".encode())

    def last(self, origin_hash: str) -> str | None:
        """The checkpoint cosigned last, with the cosignature, of the log whose origin has this SHA-256."""
        with self._store() as store:
            for origin, note in store.execute("SELECT origin, note FROM cosigned"):
                if hashlib.sha256(origin.encode()).hexdigest() == origin_hash:
                    return note
        return None

    def evidence(self) -> list[tuple[str, int, str, str, bytes, str]]:
        """What was refused although the log had signed it: origin, size, root, kind, request, the checkpoint against it."""
        with self._store() as store:
            rows = store.execute(
                "SELECT origin, size, root, kind, request, against FROM evidence ORDER BY seen_at, size"
            )
            return [(o, size, root.hex(), kind, request, note) for o, size, root, kind, request, note in rows]

    @contextlib.contextmanager
    def _store(self) -> Iterator[sqlite3.Connection]:
        with _opened(self._folder / STORE, "rw") as store:
            yield store


def _unsigned(submission: Submission, keys: Sequence[notes.Key]) -> Answer | None:
    if any(signature.by(key) for signature in submission.misspelt for key in keys):
        return _refusal(403, "a signature is not spelt as it must be")
    try:
        signed = [notes.verified(submission.note, key) for key in keys]  # all: a false one refuses the note
    except notes.BadNote as problem:
        return _refusal(403, str(problem))
    return None if any(signed) else _refusal(403, "no key that is trusted for this log has signed")


def _continues(last: Last, asked: notes.Checkpoint, proof: Sequence[bytes]) -> None:
    """Return if the checkpoint continues the last one. Raises BadProof."""
    if last.size == 0:
        if proof:
            raise merkle.BadProof("nothing is proven from an empty tree: the proof must be empty")
        return
    merkle.verify_consistency(
        old=last.size, old_root=last.root, new=asked.size, new_root=asked.root, proof=proof
    )


def _refusal(status: int, reason: str) -> Answer:
    return Answer(status, f"{reason}\n".encode())


# --- the store -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection whose commits are on the disk, directory entry included: no journal can come back and undo one."""
    address = f"{path.absolute().as_uri()}?mode={mode}"
    try:
        store = sqlite3.connect(address, uri=True, timeout=PATIENCE, isolation_level=None)
    except sqlite3.Error as problem:
        raise Unavailable(f"{path} cannot be opened: {problem}") from problem
    with contextlib.closing(store):
        store.execute("PRAGMA synchronous = EXTRA")
        yield store


@contextlib.contextmanager
def _at_once(store: sqlite3.Connection) -> Iterator[None]:
    """One transaction that nobody else writes beside; left without a commit it has not been."""
    store.execute("BEGIN IMMEDIATE")
    try:
        yield
        store.execute("COMMIT")
    finally:
        if store.in_transaction:
            store.execute("ROLLBACK")


def _last(store: sqlite3.Connection, origin: str) -> Last:
    row = store.execute(_LAST, (origin,)).fetchone()
    return Last(*row) if row else Last()


def _accuse(
    store: sqlite3.Connection, asked: notes.Checkpoint, kind: str, now: int, body: bytes, last: Last
) -> None:
    """Keep the request, once for each checkpoint the log has signed: who repeats it does not fill the disk."""
    store.execute(_ACCUSE, (asked.origin, asked.size, asked.root, kind, now, body, last.note))


# --- making one ----------------------------------------------------------------------------------------------------------


def make(folder: Path | str, *, name: str, logs: Sequence[str], url: str = "") -> tuple[notes.Key, list[str]]:
    """The witness's key, and what was new: `key`, `log`, `url`; nothing where all was there. Raises Unavailable, BadNote."""
    folder, new = Path(folder), []
    trusted = [notes.Key.parse(log) for log in logs]
    if any(key.kind != notes.ED25519 for key in trusted):
        raise notes.BadNote("the key of a log is for another kind of signature")
    if url and (len(url.split()) != 1 or not url.startswith(("http://", "https://"))):
        raise notes.BadNote("the address of a witness starts with http:// or https://")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / KEY).exists():
            private = Ed25519PrivateKey.generate()
            notes.Key.of(
                private, name=name, kind=notes.COSIGNATURE
            )  # the name can be one, or nothing is made
            if not (folder / POLICY).exists() and not trusted:
                raise notes.BadNote("a witness needs a log to watch: give its key with --log")
            _make_store(folder)
            pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            _write(folder / KEY, pem.decode(), 0o600)
            new.append("key")
        key = notes.Key.of(_private_key(folder), name=name, kind=notes.COSIGNATURE)
        text = (folder / POLICY).read_text(encoding="utf-8") if (folder / POLICY).exists() else ""
        changed, what = _policy_with(text, key, trusted, url)
        notes.Policy.parse(changed)
        if changed != text:
            _write(folder / POLICY, changed, 0o644)
        new += what
    return Witness(folder).key, new


def _make_store(folder: Path) -> None:
    with _opened(folder / STORE, "rwc") as store:
        store.executescript(_TABLES)
        if store.execute("SELECT 1 FROM cosigned").fetchone():
            raise Unavailable(f"{folder} has a memory and no {KEY}: bring the key back, or take a new folder")
    (folder / STORE).chmod(0o600)


def _policy_with(text: str, key: notes.Key, logs: Sequence[notes.Key], url: str) -> tuple[str, list[str]]:
    """The policy with these logs and this address; every other line of it stays as somebody wrote it."""
    new: list[str] = []
    lines = text.splitlines()
    words = [line.split() for line in lines]
    known = {row[1] for row in words if row[:1] == ["log"]}
    places = [place for place, row in enumerate(words) if row[:1] == ["witness"] and row[2:3] == [str(key)]]
    if not lines:
        lines = [f"witness {_short(key.name)} {key}", f"quorum {_short(key.name)}"]
        places = [0]
    elif not places:
        raise Unavailable(f"the policy that is there names no witness {key.name} with this key")
    place = places[0]
    before = lines[place]
    name = before.split()[1]
    if url and before.split()[3:] != [url]:
        lines[place] = f"witness {name} {key} {url}"
        new.append("url")
    added = list(dict.fromkeys(f"log {log}" for log in logs if str(log) not in known))
    if added:
        lines[:0] = added
        new.append("log")
    return "".join(f"{line}\n" for line in lines), new


def _short(name: str) -> str:
    """What the policy calls a witness: `fss1` for fss.example.kr/witness/1."""
    digits = name[len(name.rstrip("0123456789")) :]
    host = name.split("/")[0].split(".")[0]
    return f"{host}{digits}" if host and host != "none" else "witness"


def read_policy(folder: Path) -> notes.Policy:
    """Raises Unavailable."""
    try:
        return notes.Policy.parse((folder / POLICY).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, notes.BadNote) as problem:
        raise Unavailable(f"{folder / POLICY} cannot be read: {problem}") from problem


def _private_key(folder: Path) -> Ed25519PrivateKey:
    try:
        private = load_pem_private_key((folder / KEY).read_bytes(), None)
    except (OSError, ValueError, TypeError) as problem:
        raise Unavailable(
            f"there is no witness in {folder} ({problem}): make one with manage.py witness init"
        ) from problem
    if not isinstance(private, Ed25519PrivateKey):
        raise Unavailable(f"{folder / KEY} is not an Ed25519 key")
    return private


def _write(path: Path, text: str, mode: int) -> None:
    """Whole or not at all, and on the disk when this returns."""
    draft = path.with_name(f".{path.name}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
