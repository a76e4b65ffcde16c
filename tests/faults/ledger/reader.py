"""A reader of the log who trusts nobody and shares no code with it: RFC 6962, C2SP signed notes, cosignatures and tiles.

Everything here raises Wrong where what lies in the folder or in the tables is not what a log may show.
"""

import base64
import hashlib
import json
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

WIDTH = 256


class Wrong(AssertionError):
    """An invariant of the log is broken."""


def check(condition: object, why: str) -> None:
    if not condition:
        raise Wrong(why)


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def leaf(entry: bytes) -> bytes:
    return sha(b"\0", entry)


class Roots:
    """Root of the first n of some leaves, for any n; complete subtrees are reckoned once."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def of(self, size: int) -> bytes:
        return self._range(0, size) if size else sha()

    def _range(self, start: int, end: int) -> bytes:
        count = end - start
        if count == 1:
            return self.leaves[start]
        if found := self._known.get((start, end)):
            return found
        split = 1
        while split * 2 < count:
            split *= 2
        made = sha(b"\1", self._range(start, start + split), self._range(start + split, end))
        if count & (count - 1) == 0:
            self._known[start, end] = made
        return made


class Key:
    """A vkey: name+id+base64(type || key)."""

    def __init__(self, vkey: str) -> None:
        self.name, key_id, material = vkey.split("+", 2)
        raw = base64.b64decode(material)
        self.kind, self.raw, self.id = raw[0], raw[1:], bytes.fromhex(key_id)
        check(sha(self.name.encode(), b"\n", raw)[:4] == self.id, "the vkey's id is not its own")

    def signed(self, note: str) -> bool:
        """Whether the note carries a signature by this key. A wrong one is Wrong."""
        body, _, lines = note.rpartition("\n\n")
        body += "\n"
        for line in lines.splitlines():
            dash, name, value = line.split(" ")
            raw = base64.b64decode(value, validate=True)
            if dash != "—" or name != self.name or raw[:4] != self.id:
                continue
            message, signature = body.encode(), raw[4:]
            if self.kind == 4:
                time = int.from_bytes(raw[4:12], "big")
                message, signature = f"cosignature/v1\ntime {time}\n{body}".encode(), raw[12:]
            try:
                Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
            except InvalidSignature:
                raise Wrong(f"a signature by {name} does not hold") from None
            return True
        return False


def checkpoint(note: str, key: Key) -> tuple[int, bytes]:
    """Size and root of a signed checkpoint."""
    lines = note.split("\n")
    check(len(lines) > 4 and lines[3] == "" and lines[0] == key.name, f"not a checkpoint: {note[:80]!r}")
    check(key.signed(note), "the log's own signature is missing")
    root = base64.b64decode(lines[2], validate=True)
    check(str(int(lines[1])) == lines[1] and len(root) == 32, "not a size and a root")
    return int(lines[1]), root


class Reader:
    """Reads a folder as anybody would over the network. `quorum` of the `witnesses` must have cosigned."""

    def __init__(self, folder: Path, key: Key, witnesses: list[Key] | None = None, quorum: int = 0) -> None:
        self.folder, self.key, self.witnesses, self.quorum = folder, key, witnesses or [], quorum
        self.size, self.root = 0, sha()

    def look(self) -> int:
        """The published size, after everything under it was read; 0 before the first checkpoint."""
        path = self.folder / "checkpoint"
        if not path.exists():
            check(self.size == 0, "the published checkpoint has gone")
            return 0
        try:
            note = path.read_text(encoding="utf-8")
            size, root = checkpoint(note, self.key)
        except ValueError as problem:
            raise Wrong(f"the published checkpoint cannot be read: {problem}") from problem
        seen = sum(witness.signed(note) for witness in self.witnesses)
        check(seen >= self.quorum, f"published with {seen} cosignatures, {self.quorum} are needed")
        check(size >= self.size, f"the published size went back from {self.size} to {size}")
        leaves = self.tree(size, root)
        check(Roots(leaves).of(self.size) == self.root, "two published checkpoints contradict each other")
        self.size, self.root = size, root
        return size

    def tree(self, size: int, root: bytes) -> list[bytes]:
        """The leaves of this tree after all its tiles were compared."""
        leaves = [leaf(entry) for entry in self.entries(size)]
        hashes, level = leaves, 0
        while hashes:
            told = b"".join(self._tiles(level, len(hashes), 32))
            check(told == b"".join(hashes), f"the tiles of level {level} are not those of the entries")
            full = len(hashes) // WIDTH
            hashes = [Roots(hashes[n * WIDTH : (n + 1) * WIDTH]).of(WIDTH) for n in range(full)]
            level += 1
        check(Roots(leaves).of(size) == root, f"the tiles do not give the root of size {size}")
        return leaves

    def entries(self, size: int) -> list[bytes]:
        found: list[bytes] = []
        for data in self._tiles("entries", size, 0):
            place = 0
            while place < len(data):
                length = int.from_bytes(data[place : place + 2], "big")
                found.append(data[place + 2 : place + 2 + length])
                place += 2 + length
            check(place == len(data), "an entry is cut short")
        check(len(found) == size, f"{len(found)} entries of {size}")
        return found

    def ids(self, size: int) -> list[str]:
        return [json.loads(entry)["id"] for entry in self.entries(size)]

    def _tiles(self, level: int | str, count: int, each: int) -> list[bytes]:
        found = []
        for n in range(-(-count // WIDTH)):
            width = min(WIDTH, count - n * WIDTH)
            address = f"tile/{level}/{n:03d}" + (f".p/{width}" if width < WIDTH else "")
            try:
                data = (self.folder / address).read_bytes()
            except OSError as problem:
                raise Wrong(f"{address} cannot be read: {problem}") from problem
            check(not each or len(data) == each * width, f"{address} has {len(data)} bytes")
            found.append(data)
        return found
