"""Whether a fact stands in the published log yet, and the files that prove it."""

import datetime
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

import structlog
from django.db.models import OuterRef, Subquery
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


def standings(entries: Iterable[EntryIndex]) -> dict[uuid.UUID, Standing]:
    """Where each entry stands. One query."""
    entries, size, now = list(entries), published_size(), timezone.now()
    leaf = Leaf.objects.filter(event_id=OuterRef("event_id"))
    rows = LedgerEntry.objects.filter(event_id__in=[entry.event_id for entry in entries]).values_list(
        "event_id", "leaf_hash", Subquery(leaf.values("leaf_index")), Subquery(leaf.values("sequenced_at"))
    )
    found = {row[0]: row[1:] for row in rows}
    return {entry.event_id: _standing(entry, *found[entry.event_id], size=size, now=now) for entry in entries}


def _standing(
    entry: EntryIndex,
    leaf: bytes,
    place: int | None,
    since: datetime.datetime | None,
    *,
    size: int | None,
    now: datetime.datetime,
) -> Standing:
    due, leaf = promises.due_at(entry.at), bytes(leaf)
    if size is None:
        return Standing("unknown", due, leaf)
    if place is not None and since is not None and place < size:
        return Standing("in", since, leaf)
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
