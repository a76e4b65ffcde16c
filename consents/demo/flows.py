"""What flowed in the demo's year: transfers by the cycle of every consent, and the weekly counts of both sides.

One person's data flows once more after they had left, before it was erased, and one of their consents stops carrying an item.
"""

import datetime
from decimal import Decimal

from consents import counts, transfers
from consents.actors import Actor
from consents.ledger.entries import SEOUL
from consents.models import Consent
from providers.models import Organization, Service

STAR = "haneul@portal.example"
LEFT, NARROWED = "shopping-insight", "durumi-ledger"


def report(*, at: datetime.datetime) -> None:
    """Every operator reports the year it had, in the order in which it happened."""
    rows: dict[Organization, list[transfers.Row]] = {}
    odd: set[str] = set()  # services of which one consent has had its oddity
    consents = Consent.objects.filter(kind=Consent.Kind.TRANSFER).exclude(cycle="").order_by("pk")
    for consent in consents.select_related("subscription__operator", "subscription__service", "person"):
        rows.setdefault(consent.subscription.operator, []).extend(_of(consent, odd, at=at))
    for operator, told in rows.items():
        told.sort(key=lambda row: (row.at, row.key))
        by = Actor.organization(operator)
        for start in range(0, len(told), transfers.MOST):
            transfers.report(told[start : start + transfers.MOST], organization=operator, by=by, at=at)
    for weeks in (2, 1):
        _count(at - datetime.timedelta(weeks=weeks), at=at)


def _count(day: datetime.datetime, *, at: datetime.datetime) -> None:
    """Both sides count the week of that day; one source still counts somebody who has left."""
    local = day.astimezone(SEOUL).date()
    week_on = local - datetime.timedelta(days=local.isoweekday() % 7)
    services = {
        service.pk: service
        for service in Service.objects.filter(organization__is_fictional=True).select_related("organization")
    }
    sources = {row.pk: row for row in Organization.objects.sources().filter(is_fictional=True)}
    known = counts.known([week_on], services, sources)
    told: dict[Organization, list[counts.Row]] = {}
    for n, ((_week, service, source), numbers) in enumerate(sorted(known.items(), key=str)):
        calls = _calls(week_on, n, numbers.own)
        said = counts.Row(week_on, services[service].client_id, sources[source].code, numbers, calls)
        told.setdefault(services[service].organization, []).append(said)
        if n == 0:
            wrong = counts.Numbers(numbers.new, max(numbers.revoked - 1, 0), numbers.own + 1)
            said = counts.Row(week_on, said.service, said.source, wrong, calls)
        told.setdefault(sources[source], []).append(said)
    for organization, rows in told.items():
        by = Actor.organization(organization)
        counts.report(rows[: counts.MOST], organization=organization, by=by, at=at)


def _calls(week_on: datetime.date, n: int, consents: int) -> counts.Calls:
    """Regular calls of a week, at night: each consent three times a day, one that failed, answered in 120 to 480 ms."""
    mean, sent = 120 + (n * 37 + week_on.day) % 360, 3 * consents
    failures = [1 if day == n else 0 for day in range(7)]
    slots = [
        {
            "tm_slot": "03", "rsp_avg": mean, "rsp_total": mean * sent, "rsp_stdev": mean // 9,
            "success_api_cnt": max(sent - failed, 0), "fail_api_cnt": min(sent, failed),
        }
        for failed in failures
    ]  # fmt: skip
    days = [
        {
            "date": f"{week_on + datetime.timedelta(days=day):%Y%m%d}",
            "types": [{"api_type": "BA01", "tm_slot_list": [slot]}],
        }
        for day, slot in enumerate(slots)
    ]
    succeeded = sum(max(sent - failed, 0) for failed in failures)
    return counts.Calls("1", succeeded, 7 * sent - succeeded, Decimal(mean) if sent else None, days)


def _of(consent: Consent, odd: set[str], *, at: datetime.datetime) -> list[transfers.Row]:
    weeks = datetime.timedelta(weeks=int(consent.cycle[2]))
    end = min(filter(None, [consent.ended_at, consent.paused_at, at]))
    moments, moment = [], consent.granted_at + datetime.timedelta(minutes=7)
    while moment < end:
        moments.append(moment)
        moment += weeks
    slug = consent.subscription.service.slug if consent.person.email == STAR else ""
    if slug in odd:
        slug = ""
    if slug == LEFT and consent.ended_at:
        odd.add(slug)
        erased_at = consent.erasure_confirmed_at or at
        moments.append(consent.ended_at + (erased_at - consent.ended_at) / 2)
    narrow = slug == NARROWED and len(consent.scopes) > 1 and len(moments) > 6
    odd |= {NARROWED} if narrow else set()
    return [
        transfers.Row(
            f"{consent.pk}-{n}", consent.subscription_id, moment, consent.pk,
            scopes=tuple(consent.scopes[:-1] if narrow and n > len(moments) - 3 else consent.scopes),
        )
        for n, moment in enumerate(moments, 1)
    ]  # fmt: skip
