"""Whether a fact stands in the published log yet, and the files that prove it."""

import datetime
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from django.db.models import OuterRef, QuerySet, Subquery
from django.utils import timezone

from consents.ledger import notes, promises, proofs
from consents.models import EntryIndex, Leaf, LedgerEntry

log = structlog.get_logger(__name__)


class Unreadable(Exception):
    """The published log cannot be read at the moment; the entry itself is safe."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an entry stands: `in` the log since `at`, `promised` until `at`, or `late`: promised until `at` and not there.

    `unknown` where the published log cannot be read. `leaf` is the entry's leaf hash, as PostgreSQL computed it."""

    code: str
    at: datetime.datetime
    leaf: bytes


def published_size() -> int | None:
    """Leaves under the published checkpoint; None where it cannot be read."""
    try:
        shown = proofs.published()
    except (notes.BadNote, proofs.NoPolicy) as problem:
        log.error("the published checkpoint cannot be read", reason=str(problem))
        return None
    return shown.checkpoint.size if shown else 0


def placed(entries: QuerySet[EntryIndex]) -> QuerySet[EntryIndex]:
    """The same entries, read together with their place in the tree, so that `standings` asks nothing more."""
    event = LedgerEntry.objects.filter(event_id=OuterRef("event_id"))
    leaf = Leaf.objects.filter(event_id=OuterRef("event_id"))
    return entries.annotate(
        leaf_hash=Subquery(event.values("leaf_hash")),
        place=Subquery(leaf.values("leaf_index")),
        placed_at=Subquery(leaf.values("sequenced_at")),
    )


def standings(entries: Iterable[EntryIndex]) -> dict[uuid.UUID, Standing]:
    """Where each entry stands. One query, or none for entries that came through `placed`."""
    entries, size, now = list(entries), published_size(), timezone.now()
    if not all(hasattr(entry, "place") for entry in entries):
        ids = [entry.event_id for entry in entries]
        entries = list(placed(EntryIndex.objects.filter(event_id__in=ids)))
    return {entry.event_id: _standing(entry, size=size, now=now) for entry in entries}


def _standing(entry: Any, *, size: int | None, now: datetime.datetime) -> Standing:
    leaf = bytes(entry.leaf_hash)
    if size is not None and entry.place is not None and entry.place < size:
        return Standing("in", entry.placed_at, leaf)
    due = promises.due_at(entry.at)
    if size is None:
        return Standing("unknown", due, leaf)
    return Standing("promised" if now <= due else "late", due, leaf)


def proof(entry: EntryIndex) -> str | None:
    """The `.tlog-proof` of an entry; None while it is not in the published log. Raises Unreadable."""
    return texts([entry.event_id])[entry.event_id]


def texts(event_ids: list[uuid.UUID]) -> dict[uuid.UUID, str | None]:
    """The `.tlog-proof` of each entry; None while it is not in the published log. Four queries. Raises Unreadable."""
    try:
        return proofs.tlog_proofs(event_ids)
    except (notes.BadNote, proofs.NoPolicy, proofs.Broken) as problem:
        log.error("no proof can be made", reason=str(problem))
        raise Unreadable from problem


def wait(entry: EntryIndex) -> int:
    """Seconds until an entry is promised to be in the published log; a minute where that is over."""
    left = (promises.due_at(entry.at) - timezone.now()).total_seconds()
    return max(60, int(left) + 1)


def receipt(entry: EntryIndex) -> str:
    """The receipt of an entry, for whom it is about. Three queries."""
    return promises.receipt(entry)


def receipt_for(entry: EntryIndex, organization) -> str:
    """The receipt of an entry for an organization: without what is between the person and another operator."""
    own = entry.operator_id == organization.pk
    return promises.receipt(entry, withheld=frozenset() if own else promises.PAIRWISE)
