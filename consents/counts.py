"""WRITES weekly counts (지원-004 by operators, 지원-005 by sources) and compares them with the other side's and the log's.

A week is Sunday to Saturday in Seoul. The log's own numbers are counted from the rows that replay proves equal to it.
"""

import datetime
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q

from consents import cases
from consents.actors import Actor
from consents.ledger.entries import SEOUL
from consents.models import Case, Consent, EntryIndex, WeeklyCalls, WeeklyCount
from providers.models import Organization, Service

MOST = 1000
WEEK = datetime.timedelta(days=7)


class Refused(ValueError):
    """One row cannot go in: which field, and why."""

    def __init__(self, place: str, reason: str):
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason


@dataclass(frozen=True, slots=True)
class Numbers:
    """New or changed in the week, ended in it, valid at its end."""

    new: int
    revoked: int
    own: int


@dataclass(frozen=True, slots=True)
class Calls:
    """How one kind of calls fared in the week. `days` is kept as it was measured, hour by hour."""

    kind: str
    succeeded: int
    failed: int
    mean: Decimal | None
    days: list[dict[str, Any]]
    people: int | None = None
    askers: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One side's numbers of one service and one source in the week that begins on `week_on`."""

    week_on: datetime.date
    service: str  # client_id
    source: str  # organization code
    numbers: Numbers
    calls: Calls | None = None  # said together with the numbers, where the other side measures them


def report(
    rows: list[Row], *, organization: Organization, by: Actor, at: datetime.datetime
) -> list[str | Refused]:
    """Take in at most MOST rows of one side; for each `kept`, or why it is refused. The same week again replaces it.

    Six queries, whatever the number of rows, one more where calls were measured, and one for each difference."""
    if len(rows) > MOST:
        raise ValueError(f"more than {MOST} rows")
    services = {
        row.client_id: row for row in Service.objects.filter(client_id__in={row.service for row in rows})
    }
    sources = {row.code: row for row in Organization.objects.filter(code__in={row.source for row in rows})}
    answers: list[str | Refused] = []
    fresh: dict[tuple, WeeklyCount] = {}
    measured: dict[tuple, Calls] = {}
    for row in rows:
        try:
            count = _row(row, organization, services, sources, at=at)
        except Refused as refusal:
            answers.append(refusal)
        else:
            key = (count.week_on, count.service_id, count.source_id)
            fresh[key] = count
            if row.calls is not None:
                measured[key] = row.calls
            answers.append("kept")
    with transaction.atomic():
        WeeklyCount.objects.bulk_create(
            fresh.values(), update_conflicts=True, unique_fields=["organization", "week_on", "service", "source"],
            update_fields=["consents_new", "consents_revoked", "consents_own", "reported_at"],
        )  # fmt: skip
        _keep({fresh[key].pk: calls for key, calls in measured.items()})
        _compare(list(fresh.values()), by=by, at=at)
    return answers


def _keep(measured: dict[int, Calls]) -> None:
    """Beside each count the calls of one kind, in the place of what was said of that kind before."""
    if not measured:
        return
    WeeklyCalls.objects.bulk_create(
        [WeeklyCalls(count_id=pk, **asdict(calls)) for pk, calls in measured.items()],
        update_conflicts=True, unique_fields=["count", "kind"],
        update_fields=["succeeded", "failed", "mean", "people", "askers", "days"],
    )  # fmt: skip


def _row(row: Row, organization, services, sources, *, at: datetime.datetime) -> WeeklyCount:
    service, source = services.get(row.service), sources.get(row.source)
    if service is None:
        raise Refused("service", "not_found")
    if source is None:
        raise Refused("source", "not_found")
    if organization.pk not in (service.organization_id, source.pk):
        raise Refused("service", "not_found")
    if row.week_on.isoweekday() != 7:
        raise Refused("week_on", "no_sunday")
    if row.week_on + WEEK > at.astimezone(SEOUL).date():
        raise Refused("week_on", "not_over")
    numbers = row.numbers
    return WeeklyCount(
        organization=organization, week_on=row.week_on, service=service, source=source, consents_new=numbers.new,
        consents_revoked=numbers.revoked, consents_own=numbers.own, reported_at=at,
    )  # fmt: skip


def known(weeks: Iterable[datetime.date], services, sources) -> dict[tuple, Numbers]:
    """What the log says of each week, service (id) and source (id). One query a week. What was changed counts as new (지원-004)."""
    found: dict[tuple, Numbers] = {}
    for week_on in set(weeks):
        start = datetime.datetime.combine(week_on, datetime.time(), tzinfo=SEOUL)
        end = start + WEEK
        changed = EntryIndex.objects.filter(
            consent=OuterRef("pk"), typ="consent.amended", at__gte=start, at__lt=end
        )
        within = Q(granted_at__gte=start, granted_at__lt=end) | Q(Exists(changed))
        rows = (
            Consent.objects.filter(
                kind=Consent.Kind.TRANSFER, subscription__service__in=services, source__in=sources,
                granted_at__lt=end,
            )
            .filter(Q(ended_at__isnull=True) | Q(ended_at__gte=start))
            .values("subscription__service", "source")
            .annotate(
                new=Count("pk", filter=within),
                revoked=Count("pk", filter=Q(ended_at__lt=end)),
                own=Count("pk", filter=Q(ended_at__isnull=True) | Q(ended_at__gte=end)),
            )
            .order_by()
        )  # fmt: skip
        for row in rows:
            key = (week_on, row["subscription__service"], row["source"])
            found[key] = Numbers(row["new"], row["revoked"], row["own"])
    return found


def numbers(count: WeeklyCount) -> Numbers:
    return Numbers(count.consents_new, count.consents_revoked, count.consents_own)


def _compare(fresh: list[WeeklyCount], *, by: Actor, at: datetime.datetime) -> None:
    ours = known(
        {count.week_on for count in fresh},
        {count.service_id for count in fresh},
        {count.source_id for count in fresh},
    )
    for count in fresh:
        said, here = (
            numbers(count),
            ours.get((count.week_on, count.service_id, count.source_id), Numbers(0, 0, 0)),
        )
        if said != here:
            matter = f"{count.week_on} {count.service.client_id} {count.source.code}"
            about = {
                "week_on": str(count.week_on),
                "service": count.service.client_id,
                "source": count.source.code,
            }
            cases.open_case(
                Case.Kind.COUNTS, count.organization, matter=matter, stated=about | _json(said), known=about | _json(here),
                by=by, at=at,
            )  # fmt: skip


def _json(count: Numbers) -> dict[str, int]:
    return {"new": count.new, "revoked": count.revoked, "own": count.own}
