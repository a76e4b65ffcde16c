"""The desk of an operator or source: its own obligations, deliveries, channel and services. Numbers, never people."""

import datetime
import json
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import OuterRef, Q, Subquery

from consents import access, checks
from consents.models import Delivery, EntryIndex
from consents.templatetags.labels import entry_code
from providers.models import Channel, Organization, Scope, Service, Terms

from . import duties, official, paging, proofs

COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Duty:
    """One obligation in the inbox. `steps` can be confirmed now; `next` is the one with the deadline, `owed` its name."""

    delivery: Delivery
    service: Service
    task: str
    event: Any
    subject: str
    next: str | None
    owed: Any
    steps: list[str]
    shown_state: str
    late: datetime.timedelta | None
    complete_by: datetime.datetime


def _duties(organization: Organization):
    """What this organization still has to do: stops and erasures, and whatever waits for a person."""
    return (
        Delivery.objects.of(organization)
        .filter(closed_at__isnull=True, due_at__isnull=False)
        .filter(~Q(goal=Delivery.Goal.RECEIVED) | Q(state__in=[Delivery.State.MANUAL, Delivery.State.DEAD]))
    )


def inbox(organization: Organization, *, at: datetime.datetime, after: str = "") -> paging.Page:
    """A page of Duties, the earliest deadline first, so that what is late leads. Raises paging.BadCursor."""
    rows = _duties(organization).select_related("subscription__service").defer("set_compact")
    found = paging.page(rows, moment="due_at", number="pk", after=after, newest_first=False)
    return paging.Page([duty(delivery, at=at) for delivery in found.rows], found.next)


def as_seen(rows: list[Duty]) -> list[Duty]:
    """The same with what we saw ourselves not called their word. One query, of the log's index, which no organization reads."""
    known = checks.looked(row.delivery.pk for row in rows)
    return [replace(row, shown_state=checks.shown_state(known[row.delivery.pk])) for row in rows]


def duty(delivery: Delivery, *, at: datetime.datetime) -> Duty:
    message = json.loads(delivery.body)["data"]
    step = duties.owed_step(delivery)
    return Duty(
        delivery=delivery,
        service=delivery.subscription.service,
        task=duties.task(delivery),
        event=official.EVENTS.get(delivery.event, delivery.event),
        subject=message["subject"],
        next=step,
        owed=official.OWED[step] if step else "",
        steps=duties.possible_steps(delivery),
        shown_state=delivery.state,
        late=at - delivery.due_at if delivery.due_at and delivery.due_at < at else None,
        complete_by=datetime.datetime.fromisoformat(message["complete_by"]),
    )


def numbers(organization: Organization, *, at: datetime.datetime) -> dict[str, int]:
    """`open` and `late` obligations, counted up to COUNTED, so that a flood does not slow the page."""
    rows = _duties(organization)
    return {
        "open": rows.values("pk")[: COUNTED + 1].count(),
        "late": rows.filter(due_at__lt=at).values("pk")[: COUNTED + 1].count(),
    }


def channel(organization: Organization) -> Channel | None:
    """The open channel, else the newest one."""
    found = list(Channel.objects.filter(organization=organization).order_by("-opened_at")[:10])
    return next((row for row in found if row.state == Channel.State.OPEN), found[0] if found else None)


def services(organization: Organization) -> list[Service]:
    """Its services with `terms_version` and `terms_since` of the published terms; at most 100."""
    published = Terms.objects.filter(service=OuterRef("pk"), state=Terms.State.PUBLISHED)
    rows = Service.objects.filter(organization=organization).annotate(
        terms_version=Subquery(published.values("version")[:1]),
        terms_since=Subquery(published.values("published_at")[:1]),
    )
    return list(rows.order_by("name_ko")[:100])


def deliveries(organization: Organization, **chosen) -> paging.Page:
    """A page of its deliveries, newest first, with the words of the event in `event_words`, and what we saw in `seen`. Two
    queries. Raises paging.BadCursor."""
    found = _own_deliveries(organization, **chosen)
    known = checks.looked(row.pk for row in found.rows)
    for row in found.rows:
        row.event_words = official.EVENTS.get(row.event, row.event)
        row.seen, row.shown_state = checks.seen(known[row.pk]), checks.shown_state(known[row.pk])
    return found


@access.only_own
def _own_deliveries(
    organization: Organization, *, state="", event="", jti=None, after: str = ""
) -> paging.Page:
    rows = Delivery.objects.of(organization)
    for name, value in (("state", state), ("event", event), ("jti", jti)):
        if value:
            rows = rows.filter(**{name: value})
    rows = rows.select_related("subscription__service").defer("body", "set_compact")
    return paging.page(rows, moment="created_at", number="pk", after=after)


def delivery_detail(delivery: Delivery, *, at: datetime.datetime) -> dict[str, Any]:
    """One delivery: the facts of its message in words, its evidence, and what happened when, and the log's entries
    about it. Eight queries at most."""
    looked = checks.with_looks(Delivery.objects.filter(pk=delivery.pk)).get()
    message = json.loads(delivery.body)
    data = message["data"]
    codes = {consent[side] for consent in data["consents"] for side in ("source", "recipient")} - {None}
    names = {row.code: row for row in Organization.objects.filter(code__in=codes)} if codes else {}
    wanted = sorted({code for consent in data["consents"] for code in consent["scopes"]})
    scopes: dict[str, list[Scope]] = {}
    for scope in Scope.objects.filter(codes__overlap=wanted) if wanted else ():
        for code in scope.codes:
            scopes.setdefault(code, []).append(scope)
    consents = [
        {
            **consent,
            "source": names.get(consent["source"]),
            "recipient": names.get(consent["recipient"]),
            "scopes": [{"code": code, "scopes": scopes.get(code, [])} for code in consent["scopes"]],
            "until": datetime.date.fromisoformat(consent["until"]),
        }
        for consent in data["consents"]
    ]
    return {
        "duty": duty(delivery, at=at),
        "reason": official.REASONS.get(data["reason"], data["reason"]),
        "role": official.ROLES.get(delivery.role, delivery.role),
        "version": data["version"],
        "consents": consents,
        "evidence": list(delivery.evidence.order_by("pk")),
        "steps": _steps(looked),
        "shown_state": checks.shown_state(looked),
        "entries": _entries(delivery),
        "message": json.dumps(message | {"data": data | {"set": "…"}}, ensure_ascii=False, indent=2),
    }


def _entries(delivery: Delivery) -> list[dict[str, Any]]:
    """What the log says about the delivery, in order, and whether it can be proved already. Two queries."""
    found = list(
        EntryIndex.objects.filter(
            jti=delivery.jti, party=delivery.organization, typ__startswith="delivery."
        ).order_by("seq")[:50]
    )
    standings = proofs.standings(found)
    return [
        {
            "event_id": entry.event_id,
            "code": entry_code(entry.typ, entry.actor_id),
            "at": entry.at,
            "standing": standings[entry.event_id],
        }
        for entry in found
    ]


def _steps(delivery: Delivery) -> list[dict[str, Any]]:
    """What happened to the delivery, in time order. What waits at the desk was never sent, whatever came later; what we saw
    ourselves is not said of the organization."""
    seen = checks.seen(delivery)
    moments = [
        ("created", delivery.created_at), ("sent", delivery.sent_at if delivery.attempts else None),
        ("received", None if "received" in seen else delivery.received_at),
        ("seen" if "stopped" in seen else "stopped", delivery.stopped_at), ("erased", delivery.erased_at), ("refused", delivery.refused_at),
    ]  # fmt: skip
    return sorted(({"code": code, "at": at} for code, at in moments if at), key=lambda step: step["at"])
