"""WRITES what operators report against what the ledger says: new holdings go in, contradictions become mismatch notices.

A report can add and can say when a service was last used. It can never revive what has ended, nor widen, move or
replace what a person agreed to here.
"""

import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from django.db import transaction

from consents import cases, ledger, messages, reports, speedbump, transfers
from consents.actors import Actor
from consents.ledger import facts
from consents.ledger.entries import SEOUL
from consents.models import Case, Consent, Notice, Person, Subscription
from consents.reports import Holding, Refused
from providers.models import Organization, Scope, Service

BATCH = 500


@dataclass
class Report:
    """What became of the rows. `refused` holds (row number, column, reason)."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    mismatched: int = 0
    refused: list[tuple[int, str, str]] = field(default_factory=list)


class _Undo(Exception):
    """Ends a dry run's transaction."""


def report_holdings(
    rows: Iterable[tuple[int, Mapping]],
    *,
    organization: Organization,
    by: Actor,
    at: datetime.datetime,
    dry_run: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Take in the rows of one operator, in transactions of BATCH rows; bad ones are named, the others go in.

    The same rows again change nothing. Safe beside other writers: each batch locks the people it touches."""
    report = Report()
    codes = {code for item in Scope.objects.values_list("codes", flat=True) for code in item}
    services = {service.client_id: service for service in Service.objects.filter(organization=organization)}
    sources = {source.code: source for source in Organization.objects.sources()}
    for service in services.values():
        service.organization = organization
    stream = iter(rows)
    while batch := list(islice(stream, BATCH)):
        stated = list(
            _judge(
                batch,
                report,
                today=at.astimezone(SEOUL).date(),
                codes=codes,
                services=services,
                sources=sources,
            )
        )
        try:
            with transaction.atomic():
                _take_in(stated, report, services=services, sources=sources, by=by, at=at)
                if dry_run:
                    raise _Undo
        except _Undo:
            pass
        progress(len(batch))
    return report


def _judge(batch, report, *, today, codes, services, sources) -> Iterator[Holding]:
    for number, row in batch:
        try:
            stated = reports.holding(number, row, today=today, codes=codes)
            if stated.client_id not in services:
                raise Refused("service_client_id", "is not a service of this organization")
            if stated.source not in sources:
                raise Refused("source_org_code", "is not a known source")
        except Refused as refusal:
            report.refused.append((number, refusal.column, refusal.reason))
        else:
            yield stated


@dataclass
class _Known:
    """What the portal knows of the people in one batch."""

    people: dict
    live: dict
    ended: dict
    consents: dict


def _take_in(stated: list[Holding], report: Report, *, services, sources, by: Actor, at) -> None:
    known = _known({row.subject for row in stated}, services)
    fresh: dict = {}
    consents: list[Consent] = []
    touched: dict = {}
    for row in stated:
        person = known.people.get(row.subject)
        if person is None:
            report.refused.append((row.number, "subject", "is not known to the portal"))
            continue
        key = (person.pk, services[row.client_id].pk)
        subscription = known.live.get(key)
        if subscription is None and any(ended >= row.joined_on for ended in known.ended[key]):
            _mismatch(person, row, services[row.client_id], report, by=by, at=at)
            continue
        if subscription is None:
            subscription = known.live[key] = held_subscription(row, person, services[row.client_id], at=at)
            fresh[subscription.pk] = subscription
        before = known.consents.get((subscription.pk, row.source))
        if (
            before is None
            and subscription.origin == Subscription.Origin.REPORTED
            and not _ended_here(known, subscription, row)
        ):
            consent = held_consent(row, subscription, sources[row.source], at=at)
            known.consents[subscription.pk, row.source] = consent
            consents.append(consent)
            subscription.until_on = max(subscription.until_on, row.end_date)
            report.created += 1
            touched[subscription.pk] = subscription
        elif before is None or _contradicts(before, row):
            _mismatch(person, row, subscription.service, report, by=by, at=at, subscription=subscription)
        elif row.last_used_on and (subscription.last_used_on or row.joined_on) < row.last_used_on:
            subscription.last_used_on = row.last_used_on
            touched[subscription.pk] = subscription
            report.updated += 1
        else:
            report.unchanged += 1
        if (
            before is not None
            and set(row.scopes) < set(before.scopes)
            and not _ended_here(known, subscription, row)
        ):
            before.subscription = subscription
            transfers.raise_lost(before, set(before.scopes) - set(row.scopes), by=by, at=at)
    _save(
        list(fresh.values()), consents, [row for pk, row in touched.items() if pk not in fresh], by=by, at=at
    )


def _known(subjects, services) -> _Known:
    """Locks the people and their subscriptions, so that two reports about one person come one after the other."""
    people = {
        p.subject_id: p
        for p in Person.objects.select_for_update(no_key=True).filter(subject_id__in=subjects).order_by("pk")
    }
    live, ended, consents = {}, defaultdict(list), {}
    # Locked, or what somebody ends meanwhile would be written over with what was read before.
    rows = Subscription.objects.select_for_update(no_key=True, of=("self",)).order_by("pk")
    rows = rows.filter(person__in=people.values(), service__in=services.values())
    for subscription in rows.select_related("service", "operator", "person"):
        key = (subscription.person_id, subscription.service_id)
        if subscription.state == Subscription.State.ACTIVE:
            live[key] = subscription
        else:
            ended[key].append(subscription.ended_at.astimezone(SEOUL).date())
    for consent in Consent.objects.filter(
        subscription__in=live.values(), kind=Consent.Kind.TRANSFER
    ).select_related("source"):
        key = (consent.subscription_id, consent.source.code)
        # A live consent tells more than an ended one of the same source.
        if key not in consents or consent.state != Consent.State.ENDED:
            consents[key] = consent
    return _Known(people, live, ended, consents)


def _ended_here(known: _Known, subscription: Subscription, row: Holding) -> bool:
    before = known.consents.get((subscription.pk, row.source))
    return before is not None and before.state == Consent.State.ENDED


def _contradicts(consent: Consent, row: Holding) -> bool:
    """The operator claims more than was agreed: another life, more scopes, a later end."""
    return (
        consent.state == Consent.State.ENDED
        or bool(set(row.scopes) - set(consent.scopes))
        or row.end_date > consent.until_on
    )


def held_subscription(row: Holding, person: Person, service: Service, *, at) -> Subscription:
    """The unsaved row of a subscription that an operator reports."""
    joined_at = min(datetime.datetime.combine(row.joined_on, datetime.time(12), tzinfo=SEOUL), at)
    return Subscription(
        person=person, service=service, operator=service.organization, language=person.language, joined_at=joined_at,
        origin=Subscription.Origin.REPORTED, until_on=row.end_date, last_used_on=row.last_used_on or row.joined_on,
    )  # fmt: skip


def held_consent(row: Holding, subscription: Subscription, source: Organization, *, at) -> Consent:
    """The unsaved row of what flows from one source by that report."""
    return Consent(
        person=subscription.person, subscription=subscription, kind=Consent.Kind.TRANSFER, required=True, source=source,
        scopes=list(row.scopes), cycle=row.cycle, purpose_ko=row.purpose, purpose_en=row.purpose, until_on=row.end_date,
        retained_until=row.retained_until, granted_at=min(at, datetime.datetime.combine(row.joined_on, datetime.time(12), tzinfo=SEOUL)),
    )  # fmt: skip


def _save(fresh, consents, touched, *, by: Actor, at) -> None:
    """Nobody is told: the operator said it itself, and the sources already send."""
    Subscription.objects.bulk_create(fresh)
    Subscription.objects.bulk_update(touched, ["last_used_on", "until_on"])
    Consent.objects.bulk_create(consents)
    if said := told(fresh, consents):
        ledger.append(said, by=by, at=at, txn=messages.new_id())


def told(fresh: list[Subscription], consents: list[Consent]) -> list[ledger.Fact]:
    """What the log says of a report."""
    said = [facts.of_subscription("subscription.joined", subscription) for subscription in fresh]
    return said + [facts.of_consent("consent.granted", consent) for consent in consents]


def _mismatch(person, row: Holding, service: Service, report: Report, *, by, at, subscription=None) -> None:
    """Tell the person that the operator says something else; nothing about the agreement changes."""
    report.mismatched += 1
    kind, consent = _kind_of(row, subscription)
    cases.open_case(
        kind, service.organization, matter=f"{person.subject_id} {service.client_id} {row.source}",
        stated={
            "service": row.client_id, "source": row.source, "scopes": list(row.scopes),
            "since_on": row.joined_on.isoformat(), "until_on": row.end_date.isoformat(), "says": "active",
        },
        known={"scopes": consent.scopes, "until_on": consent.until_on.isoformat(), "state": consent.state} if consent else {},
        person=person, subscription=subscription, consent=consent, by=by, at=at,
    )  # fmt: skip
    speedbump.raise_notice(
        person,
        speedbump.Reason(
            Notice.Kind.MISMATCH,
            f"{service.name_ko}: 회사가 알려 온 내용이 우리 기록과 달라요. 내 동의는 그대로예요.",
            f"{service.name_en}: what the company reports differs from our records. Your consents are unchanged.",
            subscription=subscription,
            matter=service.client_id,
            urgent=True,
        ),
        by=by,
        at=at,
    )


def _kind_of(row: Holding, subscription: Subscription | None) -> tuple[str, Consent | None]:
    """What sort of difference it is, and the consent that it is about. One query."""
    if subscription is None:
        return Case.Kind.ENDED_HERE, None
    same = subscription.consents.filter(kind=Consent.Kind.TRANSFER, source__code=row.source)
    consent = same.order_by("-granted_at", "-pk").first()
    if consent is None:
        return Case.Kind.UNKNOWN_HERE, None
    return (Case.Kind.ENDED_HERE if consent.state == Consent.State.ENDED else Case.Kind.DIFFERS), consent


def note_use(
    subscription: Subscription, *, used_on: datetime.date, transferred_at: datetime.datetime | None
) -> None:
    """What the operator tells about use: when the person last used it, when data last flowed. Never moves back."""
    with transaction.atomic():
        row = Subscription.objects.select_for_update(no_key=True).get(pk=subscription.pk)
        row.last_used_on = max(filter(None, [row.last_used_on, used_on]))
        row.last_transfer_at = max(filter(None, [row.last_transfer_at, transferred_at]), default=None)
        row.save(update_fields=["last_used_on", "last_transfer_at"])
