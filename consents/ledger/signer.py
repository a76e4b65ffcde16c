"""The log's signer: a key, and a memory of what it signed last, in a process of its own.

It signs a size and a root only if they continue what it signed before, shown by a consistency proof. So neither the
database nor whoever holds the portal can have it sign a second history: a restored backup stops the log instead of
forking it. The memory is fsynced before a signature leaves the process.

Spoken over a Unix socket, one JSON object a line: {"op": "state"} and
{"op": "sign", "size": n, "root": base64, "old": n, "proof": [base64, …]}.
"""

import contextlib
import fcntl
import json
import os
import socket
import socketserver
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from django.conf import settings

from . import merkle, notes

PATIENCE = 10.0  # seconds for one answer
LARGEST_LINE = 65_536  # bytes
LONGEST_SOCKET_PATH = 100  # bytes; the kernel's limit is 104 to 108
KEY, MEMORY, LOCK = "key.pem", "last.json", "lock"


class Refused(Exception):
    """The signer will not sign this. `code`: stale (older than its last), fork (another history), form."""

    def __init__(self, code: str, detail: str):
        super().__init__(detail)
        self.code = code


class Unavailable(Exception):
    """The signer cannot be asked; the message says what to do."""


@dataclass(frozen=True, slots=True)
class State:
    """What the signer signed last. `note` is empty as long as that is nothing."""

    size: int
    root: bytes
    note: str
    key: notes.Key


class Signing(Protocol):
    def state(self) -> State: ...

    def sign(self, *, size: int, root: bytes, old: int, proof: Sequence[bytes]) -> str: ...


def make(folder: Path, origin: str) -> notes.Key:
    """A new key and an empty memory for a log of this name; those that are there stay. Raises Unavailable."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _lock(folder):
        if not (folder / KEY).exists():
            if (folder / MEMORY).exists():
                raise Unavailable(f"{folder} has a memory and no key: bring the key back, or start a new log")
            pem = Ed25519PrivateKey.generate().private_bytes(
                Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
            )
            # The memory first: a key without one would be taken for a signer that has forgotten.
            _write(
                folder / MEMORY,
                json.dumps({"origin": origin, "size": 0, "root": merkle.EMPTY_ROOT.hex(), "note": ""}),
            )
            _write(folder / KEY, pem.decode())
    with Signer(folder, origin) as signer:
        return signer.state().key


class Signer:
    """The signer itself; exactly one at a time holds its folder. Raises Unavailable."""

    def __init__(self, folder: Path, origin: str) -> None:
        self._folder, self._origin = Path(folder), origin
        self._held = contextlib.ExitStack()
        self._one = threading.Lock()
        try:
            self._held.enter_context(_lock(self._folder))
            private = load_pem_private_key((self._folder / KEY).read_bytes(), None)
            self._memory = json.loads((self._folder / MEMORY).read_text())
        except (OSError, ValueError) as problem:
            self._held.close()
            raise Unavailable(
                f"the signer's key or memory in {folder} cannot be read ({problem}): without its memory it must not "
                "sign; bring the folder back from its backup, or start a new log with another LEDGER_ORIGIN"
            ) from problem
        if not isinstance(private, Ed25519PrivateKey) or self._memory["origin"] != origin:
            self._held.close()
            raise Unavailable(f"the signer in {folder} belongs to the log {self._memory['origin']}")
        self._private = private
        self._key = notes.Key.of(private, name=origin, kind=notes.ED25519)

    def __enter__(self) -> "Signer":
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def state(self) -> State:
        memory = self._memory
        return State(memory["size"], bytes.fromhex(memory["root"]), memory["note"], self._key)

    def sign(self, *, size: int, root: bytes, old: int, proof: Sequence[bytes]) -> str:
        """The signed note of a checkpoint that continues the last one; the same one again gives the same bytes.

        `proof` shows the tree of `old`, the size signed last, to be the beginning of this one. Raises Refused."""
        with self._one:
            last = self.state()
            if size == last.size and root == last.root and last.note:
                return last.note
            self._check(last, size, root, old, proof)
            text = notes.Checkpoint(self._origin, size, root).text
            signature = notes.note_signature(self._private, name=self._origin, text=text)
            note = str(notes.Note(text, (signature,)))
            memory = {"origin": self._origin, "size": size, "root": root.hex(), "note": note}
            _write(self._folder / MEMORY, json.dumps(memory))
            self._memory = memory
            return note

    def _check(self, last: State, size: int, root: bytes, old: int, proof: Sequence[bytes]) -> None:
        if len(root) != merkle.HASH_BYTES or size < 0 or (size == 0 and root != merkle.EMPTY_ROOT):
            raise Refused("form", "not a size and a root")
        if size < last.size:
            raise Refused("stale", f"size {size} is smaller than {last.size}, which was signed before")
        if size == last.size and root != last.root:
            raise Refused("fork", f"size {size} was signed before with another root")
        if old != last.size:
            raise Refused("stale", f"the proof starts at {old}, the last signed size is {last.size}")
        if last.size:
            try:
                merkle.verify_consistency(
                    old=last.size, old_root=last.root, new=size, new_root=root, proof=proof
                )
            except merkle.BadProof as wrong:
                raise Refused("fork", f"size {size} does not continue size {last.size}: {wrong}") from wrong


# --- over the socket -----------------------------------------------------------------------------------------------------


def serve(folder: Path, origin: str, address: Path) -> None:
    """Answer on a Unix socket until stopped. Raises Unavailable where another signer holds the folder."""
    with Signer(folder, origin) as signer:

        class Caller(socketserver.StreamRequestHandler):
            timeout = PATIENCE

            def handle(self) -> None:
                while line := self.rfile.readline(LARGEST_LINE):
                    self.wfile.write(json.dumps(_answer(signer, line)).encode() + b"\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A caller that went away is not our trouble."""

        _private_folder(address.parent)
        address.unlink(missing_ok=True)  # ours alone: the lock is held
        with Server(str(address), Caller) as server:
            address.chmod(0o660)
            try:
                server.serve_forever(poll_interval=0.2)
            finally:
                address.unlink(missing_ok=True)


def _answer(signer: Signer, line: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(line)
        if asked["op"] == "sign":
            note = signer.sign(
                size=int(asked["size"]), root=notes.unb64(asked["root"]), old=int(asked["old"]),
                proof=[notes.hash_of(text) for text in asked["proof"]],
            )  # fmt: skip
            return {"note": note}
        state = signer.state()
        return {
            "size": state.size, "root": notes.b64(state.root), "note": state.note, "key": str(state.key),
        }  # fmt: skip
    except Refused as refusal:
        return {"refused": refusal.code, "detail": str(refusal)}
    except (ValueError, KeyError, TypeError, notes.BadNote) as problem:
        return {"refused": "form", "detail": f"not a question: {type(problem).__name__}"}


class _Remote:
    """The signer's process, asked over its socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._stream = connection.makefile("rwb")

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            self._stream.write(json.dumps(question).encode() + b"\n")
            self._stream.flush()
            answer = json.loads(self._stream.readline(LARGEST_LINE) or b"null")
        except (OSError, ValueError) as problem:
            raise Unavailable(f"the signer does not answer: {problem}") from problem
        if not answer:
            raise Unavailable("the signer hung up")
        if "refused" in answer:
            raise Refused(answer["refused"], answer["detail"])
        return answer

    def state(self) -> State:
        answer = self._ask({"op": "state"})
        return State(
            answer["size"], notes.hash_of(answer["root"]), answer["note"], notes.Key.parse(answer["key"])
        )

    def sign(self, *, size: int, root: bytes, old: int, proof: Sequence[bytes]) -> str:
        question = {
            "op": "sign", "size": size, "root": notes.b64(root), "old": old,
            "proof": [notes.b64(hash_) for hash_ in proof],
        }  # fmt: skip
        return self._ask(question)["note"]


@contextlib.contextmanager
def connect() -> Iterator[Signing]:
    """The signer's process; in the embedded default, where none runs, the signer itself for as long as it is needed.

    Where SIGNER_SOCKET names a socket there is no such lending: the key lies with another user. Raises Unavailable."""
    address = socket_path()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.connect(str(address))
        except OSError as problem:
            if settings.SIGNER_SOCKET:
                raise Unavailable(
                    f"the signer does not answer at {address}: start it (manage.py signer serve)"
                ) from problem
        else:
            yield _Remote(connection)
            return
    make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    with Signer(settings.SIGNER_DIR, settings.LEDGER_ORIGIN) as signer:
        yield signer


def socket_path() -> Path:
    """Where the signer listens: SIGNER_SOCKET, or in its own folder, or in a private one where that path is too long."""
    if settings.SIGNER_SOCKET:
        return Path(settings.SIGNER_SOCKET)
    path = Path(settings.SIGNER_DIR) / "signer.sock"
    if len(bytes(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = sha256(bytes(path)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"portal-signer-{os.geteuid()}-{name}" / "signer.sock"


def _private_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.geteuid():
        raise Unavailable(f"{folder} belongs to somebody else")


# --- files ---------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    try:
        file = (folder / LOCK).open("a")
    except OSError as problem:
        raise Unavailable(f"there is no signer in {folder}: make one with manage.py signer init") from problem
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another process holds the signer in {folder}") from None
        yield


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and on the disk when this returns."""
    draft = path.with_name(f".{path.name}.new")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
