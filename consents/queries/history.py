"""What happened, fact by fact; who held the data on a day; and who looked."""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _

from consents.ledger.entries import SEOUL
from consents.models import Check, Consent, EndReason, EntryIndex, Lookup, Notice, Person, Subscription
from consents.queries import official, proofs
from consents.templatetags.labels import entry_code
from consents.templatetags.portal import label, loc, tone
from providers.models import Organization

PAGE = 20
# Kind groups of the filter: the first word of a ledger type, and how it is called.
KINDS = {
    "subscription": ("subscription.",),
    "consent": ("consent.", "request."),
    "erasure": ("erasure.",),
    "delivery": ("delivery.", "transfer."),
    "notice": ("notice.",),
    "record": ("record.", "person."),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One fact as a sentence, with what proves it: the entry's id and its leaf hash (hexadecimal)."""

    seq: int
    event_id: uuid.UUID
    typ: str
    at: datetime.datetime
    what: str
    tone: str
    whom: str
    service: str
    url: str
    why: str
    by: str
    leaf: str
    standing: proofs.Standing


@dataclass(frozen=True, slots=True)
class Page:
    lines: list[Line]
    next_after: int | None


@dataclass(frozen=True, slots=True)
class HeldOn:
    """One subscription whose operator held the data on the day asked for."""

    service: str
    operator: str
    url: str
    joined_at: datetime.datetime
    ended_at: datetime.datetime | None
    erased_at: datetime.datetime | None
    receiving: bool


def history(
    person: Person, *, kind: str = "", operator: Organization | None = None, after: int | None = None
) -> Page:
    """The person's facts, newest first, one page. One query."""
    entries = EntryIndex.objects.filter(person=person)
    if kind:
        wanted = Q()
        for start in KINDS[kind]:
            wanted |= Q(typ__startswith=start)
        entries = entries.filter(wanted)
    if operator is not None:
        entries = entries.filter(operator=operator)
    return _page(entries, after=after)


def of_subscription(subscription: Subscription, *, most: int) -> Page:
    """The newest facts of one subscription, at most `most`. One query."""
    return _page(EntryIndex.objects.filter(subscription=subscription), after=None, size=most)


def operators(person: Person) -> list[Organization]:
    """Every operator the person ever had a subscription with."""
    return list(Organization.objects.filter(subscriptions__person=person).distinct())


def held_on(person: Person, on: datetime.date) -> list[HeldOn]:
    """Who held the person's data at some moment of a day in Seoul: joined by its end, erasure not confirmed before it.

    One query."""
    start = datetime.datetime.combine(on, datetime.time(), tzinfo=SEOUL)
    end = start + datetime.timedelta(days=1)
    rows = (
        Subscription.objects.filter(person=person, joined_at__lt=end)
        .filter(Q(erasure_confirmed_at__isnull=True) | Q(erasure_confirmed_at__gte=start))
        .select_related("service", "operator")
        .order_by("joined_at", "id")
    )
    return [
        HeldOn(
            service=loc(row.service, "name"),
            operator=loc(row.operator, "name"),
            url=reverse("subscription", args=[row.pk]),
            joined_at=row.joined_at,
            ended_at=row.ended_at,
            erased_at=row.erasure_confirmed_at,
            receiving=row.ended_at is None or row.ended_at >= start,
        )
        for row in rows
    ]


def looked(person: Person) -> list[Lookup]:
    """Who at the regulator found out who the person is, newest first."""
    return list(Lookup.objects.filter(person=person).select_related("by").order_by("-at", "-id")[:PAGE])


def newest(
    typ: str,
    *,
    subscription: Subscription | None = None,
    consent: Consent | None = None,
    person: Person | None = None,
    jti: uuid.UUID | None = None,
) -> uuid.UUID | None:
    """The newest fact of this type about a consent, about a subscription as a whole, or otherwise. One query."""
    about: dict[str, Any] = {"consent": consent, "person": person, "jti": jti}
    wanted = {name: value for name, value in about.items() if value is not None}
    if subscription is not None:
        wanted |= {"subscription": subscription, "consent": None}
    found = EntryIndex.objects.filter(typ=typ, **wanted).order_by("-seq")
    return found.values_list("event_id", flat=True).first()


def _page(entries, *, after: int | None, size: int = PAGE) -> Page:
    if after is not None:
        entries = entries.filter(seq__lt=after)
    related = ("operator", "party", "consent", "subscription__service")
    found = list(proofs.placed(entries).select_related(*related).order_by("-seq")[: size + 1])
    standings = proofs.standings(found[:size])
    lines = [_line(entry, standings[entry.event_id]) for entry in found[:size]]
    return Page(lines, found[size - 1].seq if len(found) > size else None)


def _line(entry: EntryIndex, standing: proofs.Standing) -> Line:
    subscription = entry.subscription
    return Line(
        seq=entry.seq,
        event_id=entry.event_id,
        typ=entry.typ,
        at=entry.at,
        what=_what(entry),
        tone=tone(entry.typ, "entry"),
        whom=_whom(entry),
        service=loc(subscription.service, "name") if subscription else "",
        url=reverse("subscription", args=[subscription.pk]) if subscription else "",
        why=_why(entry),
        by=_by(entry),
        leaf=standing.leaf.hex(),
        standing=standing,
    )


def _what(entry: EntryIndex) -> str:
    if official.of_case(entry.reason):
        return _("서로 다르던 기록을 정리했어요")
    if entry.typ == "notice.answered" and entry.actor_kind == "system":
        return _("더는 해당하지 않아 알림을 거뒀어요")
    return label(entry_code(entry.typ, entry.actor_id), "entry")


def _whom(entry: EntryIndex) -> str:
    """Between whom: the source or recipient and the operator, or the party that a message went to."""
    if entry.typ.startswith(("delivery.", "erasure.")) and entry.party:
        return loc(entry.party, "name")
    if entry.party and entry.operator and entry.consent and entry.party_id != entry.operator_id:
        if entry.consent.recipient_id == entry.party_id:
            return f"{loc(entry.operator, 'name')} → {loc(entry.party, 'name')}"
        return f"{loc(entry.party, 'name')} → {loc(entry.operator, 'name')}"
    return loc(entry.party or entry.operator, "name") if entry.party or entry.operator else ""


def _why(entry: EntryIndex) -> str:
    if not entry.reason:
        return ""
    if about := official.of_case(entry.reason):
        return about
    if entry.typ.startswith("notice."):
        return label(entry.reason, "notice") if entry.reason in Notice.Kind.values else entry.reason
    if entry.reason in Check.Finding.values:
        return label(entry.reason, "finding")
    return label(entry.reason, "reason") if entry.reason in EndReason.values else entry.reason


def _by(entry: EntryIndex) -> str:
    return {
        "person": _("나"),
        "organization": _("회사·기관"),
        "regulator": _("감독자"),
        "staff": _("방지턱 직원"),
        "system": _("방지턱이 저절로"),
    }.get(entry.actor_kind, entry.actor_kind)
