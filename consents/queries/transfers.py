"""When and how often data flowed, as the two sides report it."""

import datetime
import uuid
from collections import defaultdict
from dataclasses import dataclass

from django.db.models import Count, F, Max, Q

from consents.models import Person, Subscription, Transfer
from consents.templatetags.portal import loc

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
    """Transfers of the last 30 days by subscription: of each flow what the page of it says. One query."""
    rows = Transfer.objects.filter(person=person, at__gt=at - LATELY, at__lte=at)
    counted = rows.values("subscription", "source", "recipient").annotate(
        told=Count("pk", filter=_BY_OPERATOR), sent=Count("pk", filter=~_BY_OPERATOR)
    )
    times: dict[uuid.UUID, int] = defaultdict(int)
    for row in counted.order_by():
        times[row["subscription"]] += max(row["told"], row["sent"])
    return dict(times)


def of_subscription(subscription: Subscription, *, at: datetime.datetime) -> list[Flow]:
    """By source and recipient, the latest first: how often in 30 days. One query."""
    return _flows(Transfer.objects.filter(subscription=subscription), since=at - LATELY)


def of_person(person: Person, *, at: datetime.datetime) -> list[Flow]:
    """By source and company over everything the person has, the latest first: how often in a year. One query."""
    return _flows(Transfer.objects.filter(person=person, at__gt=at - YEAR), since=at - YEAR)


def _flows(rows, *, since: datetime.datetime) -> list[Flow]:
    recent = Q(at__gt=since)
    names = [f"{side}__name_{language}" for side in ("source", "recipient") for language in ("ko", "en")]
    counted = (
        rows.values("source", "recipient", *names)
        .annotate(
            last_at=Max("at"),
            told=Count("pk", filter=_BY_OPERATOR & recent),
            sent=Count("pk", filter=~_BY_OPERATOR & recent),
            stray=Count("pk", filter=Q(after_stop=True)),
        )
        .order_by("-last_at")[:MOST]
    )
    return [
        Flow(
            loc({"name_ko": row["source__name_ko"], "name_en": row["source__name_en"]}, "name"),
            loc({"name_ko": row["recipient__name_ko"], "name_en": row["recipient__name_en"]}, "name"),
            max(row["told"], row["sent"]),
            row["last_at"],
            row["stray"],
        )
        for row in counted
    ]
