"""What the published log proves: its checkpoint, the policy it is read with, and the proof of one entry."""

import datetime
import functools
import uuid
from dataclasses import dataclass

import rfc8785
from django.conf import settings

from consents.models import Leaf, LedgerEntry

from . import disclosures, merkle, notes, tiles


class Unknown(LookupError):
    """There is no such entry."""


class NotYet(LookupError):
    """The entry is accepted and not yet under the published checkpoint. `since` is when it was accepted."""

    def __init__(self, since: datetime.datetime):
        super().__init__("not yet in the published log")
        self.since = since


class Broken(RuntimeError):
    """The published tree does not hold the entry where it should stand: somebody has to look."""


class NoPolicy(RuntimeError):
    """The policy file cannot be read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Published:
    """The published checkpoint: its note, what it says, and when each witness saw it (epoch seconds, by name)."""

    note: str
    checkpoint: notes.Checkpoint
    seen: dict[str, int]


def directory() -> tiles.Directory:
    return tiles.Directory(settings.LEDGER_DIR)


def policy_text() -> str:
    """The policy as its file has it. Raises NoPolicy."""
    try:
        return settings.LEDGER_POLICY.read_text(encoding="utf-8")
    except OSError as problem:
        raise NoPolicy(
            f"the policy {settings.LEDGER_POLICY} cannot be read: name it in LEDGER_POLICY"
        ) from problem


def policy() -> notes.Policy:
    """Which log key and which witnesses count. Raises NoPolicy."""
    try:
        return notes.Policy.parse(policy_text())
    except notes.BadNote as problem:
        raise NoPolicy(f"the policy {settings.LEDGER_POLICY} is not one: {problem}") from problem


def published() -> Published | None:
    """The published checkpoint, signed and with the policy's quorum; None before the first. Raises BadNote, NoPolicy."""
    try:
        note = (settings.LEDGER_DIR / tiles.CHECKPOINT).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    checkpoint, seen = notes.opened(notes.Note.parse(note), policy())
    return Published(note, checkpoint, seen)


@functools.lru_cache(maxsize=4)
def _tree(folder: str, size: int, root: bytes) -> tiles.Tree:
    """One reader per checkpoint, so that the upper tiles stay in memory between proofs."""
    return tiles.Tree(tiles.Directory(settings.LEDGER_DIR).read, size)


def tree(checkpoint: notes.Checkpoint) -> tiles.Tree:
    return _tree(str(settings.LEDGER_DIR), checkpoint.size, checkpoint.root)


def inclusion(index: int, leaf: bytes, shown: Published) -> list[bytes]:
    """The proof that `leaf` stands at `index` of the published tree, checked before it is given. Raises Broken."""
    checkpoint = shown.checkpoint
    try:
        proof = tree(checkpoint).inclusion_proof(index)
        merkle.verify_inclusion(
            leaf=leaf, index=index, size=checkpoint.size, proof=proof, root=checkpoint.root
        )
    except (tiles.NoTile, merkle.BadProof) as wrong:
        raise Broken(f"leaf {index} of {checkpoint.size}: {wrong}") from wrong
    return proof


def tlog_proof(event_id: uuid.UUID) -> str:
    """The `.tlog-proof` of an entry, with every disclosure that can still be read (C2SP tlog-proof v1).

    It holds the salts of those: whoever gets the file can show these values to anybody. Raises Unknown, NotYet, Broken."""
    entry = LedgerEntry.objects.filter(event_id=event_id).first()
    if entry is None:
        raise Unknown(str(event_id))
    found = tlog_proofs([event_id])[event_id]
    if found is None:
        raise NotYet(entry.created_at)
    return found


def tlog_proofs(event_ids: list[uuid.UUID]) -> dict[uuid.UUID, str | None]:
    """The `.tlog-proof` of each entry, None where it is not under the published checkpoint. Four queries, whatever the
    number. Raises Broken."""
    shown = published()
    size = shown.checkpoint.size if shown else 0
    places = dict(
        Leaf.objects.filter(event_id__in=event_ids, leaf_index__lt=size).values_list("event_id", "leaf_index")
    )
    if shown is None or not places:
        return dict.fromkeys(event_ids)
    known = disclosures.readable(list(places))
    written: dict[uuid.UUID, str] = {}
    for entry in LedgerEntry.objects.filter(event_id__in=places):
        index, said = places[entry.event_id], known[entry.event_id]
        hashes = inclusion(index, merkle.leaf_hash(bytes(entry.entry)), shown)
        extra = rfc8785.dumps(
            {"disclosures": [said[name] for name in sorted(said)], "entry": bytes(entry.entry).decode()}
        )
        written[entry.event_id] = str(notes.Proof(index, tuple(hashes), shown.note, extra))
    return {event_id: written.get(event_id) for event_id in event_ids}
