"""The regulator's screens: search of the log, one entry, obligations past their deadline. Pseudonyms only."""

import datetime
import json
import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F, Min, Q
from django.utils import timezone

from consents import checks, ledger
from consents.models import Delivery, EntryIndex, LedgerEntry
from consents.templatetags.labels import entry_code
from providers import signing
from providers.models import Organization

from . import duties, integrity, official, paging
from .disclosures import Value, in_words

RELATED = 50
GROUPS = 100


@dataclass(frozen=True, slots=True)
class Row:
    """One entry as the search shows it. `actor` is in words; a person acting stays behind the pseudonym."""

    seq: int
    event_id: uuid.UUID
    at: datetime.datetime
    typ: str
    sentence: Any
    operator: Organization | None
    party: Organization | None
    subject: str
    actor_kind: str
    actor: Any
    actor_id: str
    subscription_id: uuid.UUID | None
    consent_id: uuid.UUID | None
    txn: uuid.UUID | None
    reason: str

    @property
    def typ_parts(self) -> list[str]:
        """Where the type may be broken over two lines."""
        return self.typ.split(".")


def organizations() -> dict[str, list[Organization]]:
    """What the filters offer: all operators, and all organizations. One query."""
    everyone = list(
        Organization.objects.only("code", "name_ko", "name_en", "is_operator").order_by("name_ko")
    )
    return {"operators": [row for row in everyone if row.is_operator], "parties": everyone}


def entries(filters, after: str = "", *, size: int = paging.SIZE) -> paging.Page:
    """A page of Rows for a valid `forms.oversight.EntryFilters`, newest first. Raises paging.BadCursor.

    Ordered by time, then by place in the log: imported histories are written long after they happened."""
    rows = filters.qs.select_related("operator", "party")
    found = paging.page(rows, moment="at", number="seq", after=after, size=size)
    return paging.Page([_row(entry) for entry in found.rows], found.next)


def _row(entry: EntryIndex) -> Row:
    # A person's own id is the same towards every operator: the pseudonym must do.
    actor_id = "" if entry.actor_kind == "person" else entry.actor_id
    of_case = official.of_case(entry.reason)
    code = entry_code(entry.typ, entry.actor_id)
    sentence = official.CASE_SETTLED if of_case else official.SENTENCES.get(code, entry.typ)
    return Row(
        seq=entry.seq, event_id=entry.event_id, at=entry.at, typ=entry.typ, sentence=sentence,
        operator=entry.operator, party=entry.party, subject=entry.subject, actor_kind=entry.actor_kind,
        actor=official.ACTORS.get(entry.actor_kind, entry.actor_kind), actor_id=actor_id, subscription_id=entry.subscription_id,
        consent_id=entry.consent_id, txn=entry.txn, reason=entry.reason,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Detail:
    """One entry. `raw` are its public bytes (JSON text), `hidden` how many of its fields can no longer be read."""

    row: Row
    values: list[Value]
    hidden: int
    raw: str
    leaf_hash: str
    logged_at: datetime.datetime
    related: list[Row]
    more_related: bool
    has_person: bool
    place: integrity.Place


def entry(event_id: uuid.UUID) -> Detail | None:
    """One entry with its disclosed values in words, its bytes, and the other entries of the same act."""
    index = EntryIndex.objects.select_related("operator", "party").filter(event_id=event_id).first()
    if index is None:
        return None
    logged = LedgerEntry.objects.get(event_id=event_id)
    disclosed = ledger.disclosed([event_id])[event_id]
    raw = bytes(logged.entry).decode()
    related = []
    if index.txn:
        same_act = (
            EntryIndex.objects.select_related("operator", "party").filter(txn=index.txn).exclude(pk=index.pk)
        )
        related = [_row(other) for other in same_act.order_by("seq")[: RELATED + 1]]
    return Detail(
        row=_row(index),
        values=in_words(index.typ, disclosed),
        hidden=len(json.loads(raw)["_sd"]) - len(disclosed),
        raw=raw,
        leaf_hash=bytes(logged.leaf_hash).hex(),
        logged_at=logged.created_at,
        related=related[:RELATED],
        more_related=len(related) > RELATED,
        has_person=index.person_id is not None,
        place=integrity.place(event_id, bytes(logged.leaf_hash), logged.created_at, at=timezone.now()),
    )


@dataclass(frozen=True, slots=True)
class Late:
    """One obligation past its deadline, or one that could not be delivered. `subject` is a pseudonym, `state` not called
    somebody's word where it is what we saw."""

    jti: uuid.UUID
    txn: uuid.UUID
    organization: Organization
    service: Any
    event: Any
    owed: Any
    state: str
    role: Any
    created_at: datetime.datetime
    due_at: datetime.datetime
    late: datetime.timedelta | None
    attempts: int
    last_error: str
    subscription_id: uuid.UUID
    subject: str


def _open(at: datetime.datetime):
    return Delivery.objects.filter(closed_at__isnull=True, due_at__isnull=False).filter(
        Q(due_at__lt=at) | Q(state=Delivery.State.DEAD)
    )


def overdue(
    *, at: datetime.datetime, organization: Organization | None = None, goal: str = "", after: str = ""
) -> paging.Page:
    """A page of Late obligations, the oldest deadline first. Raises paging.BadCursor."""
    rows = _open(at).select_related("organization", "subscription__service")
    if organization is not None:
        rows = rows.filter(organization=organization)
    if goal:
        rows = rows.filter(goal=goal)
    found = paging.page(rows, moment="due_at", number="pk", after=after, newest_first=False)
    known = checks.looked(row.pk for row in found.rows)
    return paging.Page([_late(row, known[row.pk], at=at) for row in found.rows], found.next)


def _late(delivery: Delivery, looked: Delivery, *, at: datetime.datetime) -> Late:
    subscription, due_at = delivery.subscription, delivery.due_at or delivery.created_at
    return Late(
        jti=delivery.jti, txn=delivery.txn, organization=delivery.organization, service=subscription.service,
        event=official.EVENTS.get(delivery.event, delivery.event), owed=official.OWED[duties.owed_step(delivery) or delivery.goal],
        state=checks.shown_state(looked), role=official.ROLES.get(delivery.role, delivery.role), created_at=delivery.created_at, due_at=due_at,
        late=at - due_at if due_at < at else None, attempts=delivery.attempts,
        last_error=delivery.last_error, subscription_id=subscription.pk,
        subject=signing.pseudonym(str(subscription.operator_id), str(delivery.person_id)),
    )  # fmt: skip


def overdue_by_organization(*, at: datetime.datetime) -> list[dict[str, Any]]:
    """How many are late or stuck at each organization, and the oldest deadline; the worst GROUPS of them."""
    return list(
        _open(at)
        .values(
            code=F("organization__code"),
            name_ko=F("organization__name_ko"),
            name_en=F("organization__name_en"),
        )
        .annotate(
            late=Count("pk", filter=Q(due_at__lt=at)),
            stuck=Count("pk", filter=Q(state=Delivery.State.DEAD)),
            oldest=Min("due_at"),
        )
        .order_by("oldest", "code")[:GROUPS]
    )
