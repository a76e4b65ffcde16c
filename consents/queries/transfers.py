"""When and how often data flowed, as the two sides report it."""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Count, F, Max, Q

from consents.models import Person, Subscription, Transfer
from consents.templatetags.portal import loc
from providers.models import Organization

LATELY = datetime.timedelta(days=30)
YEAR = datetime.timedelta(days=365)
MOST = 100  # pairs on a page

# Both sides may report the same transfer: what counts is the side that reports more.
_BY_OPERATOR = Q(organization=F("subscription__operator"))


@dataclass(frozen=True, slots=True)
class Flow:
    """What flowed from a source to a company: how often in 30 days (or a year, for the history) and when last.
    `after_stop` counts what came after the consent had ended."""

    source: str
    recipient: str
    times: int
    last_at: datetime.datetime
    after_stop: int


def lately(person: Person, *, at: datetime.datetime) -> dict[uuid.UUID, int]:
    """Transfers of the last 30 days by subscription. One query."""
    rows = Transfer.objects.filter(person=person, at__gt=at - LATELY, at__lte=at).values("subscription")
    counted = rows.annotate(
        told=Count("pk", filter=_BY_OPERATOR), sent=Count("pk", filter=~_BY_OPERATOR)
    ).order_by()
    return {row["subscription"]: max(row["told"], row["sent"]) for row in counted}


def of_subscription(subscription: Subscription, *, at: datetime.datetime) -> list[Flow]:
    """By source and recipient, the latest first: how often in 30 days. Two queries."""
    return _flows(Transfer.objects.filter(subscription=subscription), since=at - LATELY)


def of_person(person: Person, *, at: datetime.datetime) -> list[Flow]:
    """By source and company over everything the person has, the latest first: how often in a year. Two queries."""
    return _flows(Transfer.objects.filter(person=person, at__gt=at - YEAR), since=at - YEAR)


def _flows(rows, *, since: datetime.datetime) -> list[Flow]:
    recent = Q(at__gt=since)
    counted = list(
        rows.values("source", "recipient")
        .annotate(
            last_at=Max("at"),
            told=Count("pk", filter=_BY_OPERATOR & recent),
            sent=Count("pk", filter=~_BY_OPERATOR & recent),
            stray=Count("pk", filter=Q(after_stop=True)),
        )
        .order_by("-last_at")[:MOST]
    )
    names = Organization.objects.in_bulk({row[side] for row in counted for side in ("source", "recipient")})

    def name(pk: Any) -> str:
        return loc(names[pk], "name") if pk in names else ""

    return [
        Flow(
            name(row["source"]),
            name(row["recipient"]),
            max(row["told"], row["sent"]),
            row["last_at"],
            row["stray"],
        )
        for row in counted
    ]
