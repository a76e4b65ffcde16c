"""Signed notes, checkpoints, cosignatures, policies and proof files, byte for byte (C2SP). Pure functions.

checkpoint body = origin LF size LF base64(root) LF          note = body LF, then one line a signature
Whatever cannot be read raises BadNote: one value has one spelling, so that nobody can show two texts of one meaning.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .merkle import BadProof, verify_inclusion

ED25519, COSIGNATURE = 0x01, 0x04  # signature types of C2SP signed-note and tlog-cosignature
DASH = "— "  # an em dash and a space
MOST_SIGNATURES = 64
LARGEST_NOTE = 1_000_000  # bytes; C2SP signed-note
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_NAME = re.compile(r"[^\s+]+")
_BLANK = re.compile(r"[ \t\r]+")  # between the words of a policy; nothing else that Unicode calls a space


class BadNote(ValueError):
    """The text is not what it claims to be: malformed, unsigned, or signed by nobody we know."""


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def unb64(text: str) -> bytes:
    """Standard base64 with padding, in its one canonical spelling. Raises BadNote."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise BadNote("not base64") from error
    if b64(data) != text:
        raise BadNote("not canonical base64")
    return data


def number(text: str) -> int:
    """A size, index or time: ASCII digits without sign or leading zero, below 2**63. Raises BadNote."""
    if not _SIZE.fullmatch(text) or int(text) >= 2**63:
        raise BadNote(f"not a number: {text[:30]!r}")
    return int(text)


def hash_of(text: str) -> bytes:
    """32 bytes in base64. Raises BadNote."""
    if len(hash_ := unb64(text)) != 32:
        raise BadNote("a hash does not have 32 bytes")
    return hash_


# --- keys ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """A verifier key: whose, for which kind of signature, and its 32 public bytes (Ed25519)."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]

    def __str__(self) -> str:
        """The vkey: `name+hex(id)+base64(kind || public)`."""
        return f"{self.name}+{self.id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    @classmethod
    def parse(cls, text: str) -> "Key":
        name, _, rest = text.partition("+")
        ident, _, encoded = rest.partition("+")
        material = unb64(encoded)
        if not _NAME.fullmatch(name) or len(material) != 33 or material[0] not in (ED25519, COSIGNATURE):
            raise BadNote("not a verifier key: name+id+key, Ed25519")
        key = cls(name, material[0], material[1:])
        if key.id.hex() != ident:
            raise BadNote("the key's id does not belong to its name and bytes")
        return key

    @classmethod
    def of(cls, private: Ed25519PrivateKey, *, name: str, kind: int) -> "Key":
        if not _NAME.fullmatch(name):
            raise BadNote("a name holds no space and no +")
        return cls(name, kind, private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    def verifies(self, signature: bytes, message: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


# --- notes -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line: a name, a key id and the signature's own bytes (for a cosignature with 8 bytes of time)."""

    name: str
    key_id: bytes
    value: bytes

    def __str__(self) -> str:
        return f"{DASH}{self.name} {b64(self.key_id + self.value)}"

    @classmethod
    def parse(cls, line: str) -> "Signature":
        parts = line.removeprefix(DASH).split(" ")
        if not line.startswith(DASH) or len(parts) != 2 or not _NAME.fullmatch(parts[0]):
            raise BadNote("not a signature line")
        data = unb64(parts[1])
        if len(data) < 5:
            raise BadNote("a signature line is too short")
        return cls(parts[0], data[:4], data[4:])

    def by(self, key: Key) -> bool:
        """Whether the line claims to be this key's; what it claims must then be true."""
        return self.name == key.name and self.key_id == key.id


@dataclass(frozen=True, slots=True)
class Note:
    """A text (with its final line feed) and the signatures under it."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, note: str | bytes) -> "Note":
        raw = note.encode("utf-8", "surrogatepass") if isinstance(note, str) else note
        if len(raw) > LARGEST_NOTE:
            raise BadNote("larger than a note may be")
        try:
            decoded = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise BadNote("not UTF-8") from error
        if any(ord(letter) < 0x20 and letter != "\n" for letter in decoded):
            raise BadNote("a control character")
        # The text itself may hold blank lines: the last one separates.
        text, separator, lines = decoded.rpartition("\n\n")
        if not separator or not lines.endswith("\n"):
            raise BadNote("not a signed note")
        found = [Signature.parse(line) for line in lines[:-1].split("\n")]
        if len(found) > MOST_SIGNATURES:
            raise BadNote("too many signatures")
        return cls(text + "\n", tuple(found))

    def __str__(self) -> str:
        return self.text + "\n" + "".join(f"{signature}\n" for signature in self.signatures)


def note_signature(key: Ed25519PrivateKey, *, name: str, text: str) -> Signature:
    """The plain Ed25519 signature under a note's text."""
    return Signature(name, Key.of(key, name=name, kind=ED25519).id, key.sign(text.encode()))


def verified(note: Note, key: Key) -> bool:
    """Whether this key signed the note; a line that claims to be the key's and is not raises BadNote."""
    found = False
    for signature in note.signatures:
        if signature.by(key):
            if not key.verifies(signature.value, note.text.encode()):
                raise BadNote(f"the signature of {key.name} is false")
            found = True
    return found


# --- checkpoints -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Size and root of a log at one moment."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{b64(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> "Checkpoint":
        """The first three lines; extension lines are refused, because not every cosignature covers them."""
        lines = text.split("\n")
        if len(lines) != 4 or lines[3]:
            raise BadNote("not a checkpoint of three lines")
        if not _NAME.fullmatch(lines[0]):
            raise BadNote("the origin is empty or holds a space or a +")
        return cls(lines[0], number(lines[1]), hash_of(lines[2]))


def cosigned_message(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def cosignature(key: Ed25519PrivateKey, *, name: str, text: str, time: int) -> Signature:
    """A witness's timed signature over a checkpoint's text (C2SP tlog-cosignature)."""
    value = time.to_bytes(8, "big") + key.sign(cosigned_message(text, time))
    return Signature(name, Key.of(key, name=name, kind=COSIGNATURE).id, value)


def cosigned_at(note: Note, key: Key) -> int | None:
    """When this witness saw the checkpoint, in epoch seconds, newest of its lines; None where it did not. Raises BadNote
    for a line that claims to be the witness's and is not."""
    newest = None
    for signature in note.signatures:
        if signature.by(key):
            if len(signature.value) != 72:
                raise BadNote(f"the cosignature of {key.name} has another length")
            time = int.from_bytes(signature.value[:8], "big")
            if not key.verifies(signature.value[8:], cosigned_message(note.text, time)):
                raise BadNote(f"the cosignature of {key.name} is false")
            newest = max(newest or 0, time)
    return newest


# --- policy (C2SP tlog-policy) ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Witness:
    name: str
    key: Key
    url: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Which logs count, which witnesses there are, and how many of them must have cosigned."""

    logs: tuple[Key, ...]
    witnesses: dict[str, Witness] = field(default_factory=dict)
    groups: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)
    quorum: str = "none"

    @classmethod
    def parse(cls, text: str) -> "Policy":
        logs: list[Key] = []
        witnesses: dict[str, Witness] = {}
        groups: dict[str, tuple[int, tuple[str, ...]]] = {}
        quorum = None
        for line in text.split("\n"):
            words = [word for word in _BLANK.split(line) if word]
            if not words or words[0].startswith("#"):
                continue
            known = witnesses.keys() | groups.keys()
            match words:
                case ["log", vkey] | ["log", vkey, _]:
                    logs.append(_key(vkey, ED25519))
                case ["witness", name, vkey, *rest] if len(rest) < 2 and name not in known | {"none"}:
                    key = _key(vkey, COSIGNATURE)
                    if any(key.public == other.key.public for other in witnesses.values()):
                        raise BadNote("one witness key is counted twice")
                    witnesses[name] = Witness(name, key, rest[0] if rest else "")
                case ["group", name, threshold, *members] if name not in known | {"none"} and members:
                    if set(members) - known or len(set(members)) != len(members):
                        raise BadNote(f"group {name} names an unknown member, or one twice")
                    needed = {"any": 1, "all": len(members)}.get(threshold) or number(threshold)
                    if not 1 <= needed <= len(members):
                        raise BadNote(f"group {name} can never be satisfied as written")
                    groups[name] = (needed, tuple(members))
                case ["quorum", name] if quorum is None and name in known | {"none"}:
                    quorum = name
                case _:
                    raise BadNote(f"a policy line cannot be read: {line[:80]!r}")
        if not logs or quorum is None:
            raise BadNote("a policy needs a log and a quorum")
        return cls(tuple(logs), witnesses, groups, quorum)

    def satisfied(self, present: set[str]) -> bool:
        """Whether the witnesses of these names are enough."""
        holds = {"none": True, **{name: name in present for name in self.witnesses}}
        for name, (needed, members) in self.groups.items():  # each stands after its members
            holds[name] = sum(holds[member] for member in members) >= needed
        return holds[self.quorum]


def _key(vkey: str, kind: int) -> Key:
    key = Key.parse(vkey)
    if key.kind != kind:
        raise BadNote(f"the key of {key.name} is for another kind of signature")
    return key


def opened(note: Note, policy: Policy) -> tuple[Checkpoint, dict[str, int]]:
    """The checkpoint of a note that a log of the policy signed, and when each witness saw it. Raises BadNote where the log
    is unknown, a signature is false or the quorum is missing."""
    checkpoint, seen = signed_checkpoint(note, policy)
    if not policy.satisfied(set(seen)):
        raise BadNote("too few witnesses have seen this checkpoint")
    return checkpoint, seen


def signed_checkpoint(note: Note, policy: Policy) -> tuple[Checkpoint, dict[str, int]]:
    """Like `opened`, without asking for the quorum."""
    checkpoint = Checkpoint.parse(note.text)
    if checkpoint.origin not in {key.name for key in policy.logs}:
        raise BadNote(f"the log {checkpoint.origin} is not in the policy")
    signed = [
        key.name for key in policy.logs if verified(note, key)
    ]  # all of them: a false one refuses the note
    if checkpoint.origin not in signed:
        raise BadNote("the log has not signed this checkpoint")
    times = {name: cosigned_at(note, witness.key) for name, witness in policy.witnesses.items()}
    return checkpoint, {name: time for name, time in times.items() if time is not None}


# --- proof files (C2SP tlog-proof) ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proof:
    """That an entry stands at `index` under a checkpoint. `extra` is untrusted: whoever reads it hashes it again."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes = b""

    def __str__(self) -> str:
        extra = f"extra {b64(self.extra)}\n" if self.extra else ""
        hashes = "".join(f"{b64(hash_)}\n" for hash_ in self.hashes)
        return f"{PROOF_HEADER}\n{extra}index {self.index}\n{hashes}\n{self.checkpoint}"

    @classmethod
    def parse(cls, text: str) -> "Proof":
        head, separator, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not separator or lines[0] != PROOF_HEADER:
            raise BadNote("not a tlog-proof")
        del lines[0]
        extra = b""
        if lines and lines[0].startswith("extra "):
            extra = unb64(lines.pop(0).removeprefix("extra "))
        if not lines or not lines[0].startswith("index "):
            raise BadNote("a tlog-proof needs its index")
        index = number(lines.pop(0).removeprefix("index "))
        if len(lines) > 63:
            raise BadNote("a proof has at most 63 hashes")
        return cls(index, tuple(hash_of(line) for line in lines), checkpoint, extra)

    def verify(self, leaf: bytes, policy: Policy) -> tuple[Checkpoint, dict[str, int]]:
        """The checkpoint the leaf stands under, and who saw it when. Raises BadNote or BadProof."""
        checkpoint, seen = opened(Note.parse(self.checkpoint), policy)
        verify_inclusion(
            leaf=leaf, index=self.index, size=checkpoint.size, proof=self.hashes, root=checkpoint.root
        )
        return checkpoint, seen


def lines_of(hashes: Iterable[bytes]) -> str:
    return "".join(f"{b64(hash_)}\n" for hash_ in hashes)


def parse_hashes(lines: Sequence[str]) -> list[bytes]:
    return [hash_of(line) for line in lines]


__all__ = ["BadNote", "BadProof", "Checkpoint", "Key", "Note", "Policy", "Proof", "Signature", "Witness"]
