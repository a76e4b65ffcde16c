"""WRITES what operators report against what the ledger says: new holdings go in, contradictions become mismatch notices.

A report can add and can say when a service was last used. It can never revive what has ended, nor widen, move or
replace what a person agreed to here. What it says of people who are not here yet waits (`waiting`).
"""

import datetime
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from django.db import connection, transaction

from consents import cases, ledger, messages, reports, speedbump, transfers, waiting
from consents.actors import Actor
from consents.ledger import facts
from consents.ledger.entries import SEOUL
from consents.models import Case, Consent, Identity, Notice, Person, Subscription
from consents.reports import Holding, Refused
from providers.models import Organization, Scope, Service

BATCH = 1000

# Rows that say what stands here already: live, by the same scopes, no longer and no later used. The bulk of every report. Each
# is looked up by its keys, however little the database knows yet of tables that have just been filled.
_KNOWN_SQL = """
SELECT row.number
FROM reported row
JOIN LATERAL (SELECT id FROM consents_person WHERE subject_id = row.subject LIMIT 1) p ON true
JOIN LATERAL (
  SELECT id, last_used_on FROM consents_subscription
  WHERE person_id = p.id AND service_id = row.service_id AND state = 'active' LIMIT 1) s ON true
JOIN LATERAL (
  SELECT FROM consents_consent c
  WHERE c.subscription_id = s.id AND c.source_id = row.source_id AND c.kind = 'transfer' AND c.state <> 'ended'
    AND c.scopes @> row.scopes::varchar[] AND c.scopes <@ row.scopes::varchar[] AND row.end_date <= c.until_on LIMIT 1) c ON true
WHERE row.last_used_on IS NULL OR row.last_used_on <= coalesce(s.last_used_on, row.joined_on)
"""


class Refusal(NamedTuple):
    """A row that did not go in, and why: a code of reports.REASONS with its values. `also` is what else is wrong with it, each
    with `column`, `code` and `values`."""

    number: int
    column: str
    code: str
    values: dict[str, str]
    also: tuple[dict, ...] = ()

    @property
    def faults(self) -> list[tuple[str, str, dict[str, str]]]:
        """All that is wrong with it, as column, code and values."""
        others = [(fault["column"], fault["code"], fault["values"]) for fault in self.also]
        return [(self.column, self.code, self.values), *others]


@dataclass
class Report:
    """What became of the rows: how many of each, and which were refused. `told` has the outcome by row number where it is wanted.
    `replaced` are waiting rows that took the place of another word about the same."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0
    mismatched: int = 0
    waiting: int = 0
    refused: list[Refusal] = field(default_factory=list)
    told: dict[int, str] | None = None
    replaced: set[int] = field(default_factory=set)

    def note(self, number: int, outcome: str) -> None:
        setattr(self, outcome, getattr(self, outcome) + 1)
        if self.told is not None:
            self.told[number] = outcome

    def refuse(self, number: int, first: Refused, *others: Refused) -> None:
        also = tuple({"column": fault.column, "code": fault.code, "values": fault.values} for fault in others)
        self.refused.append(Refusal(number, first.column, first.code, first.values, also))


@dataclass(frozen=True, slots=True)
class Market:
    """What rows may name: the organization's services, every source, every scope."""

    services: dict[str, Service]
    sources: dict[str, Organization]
    codes: set[str]

    @classmethod
    def of(cls, organization: Organization) -> "Market":
        services = {row.client_id: row for row in Service.objects.filter(organization=organization)}
        for service in services.values():
            service.organization = organization
        sources = {row.code: row for row in Organization.objects.sources()}
        codes = {code for item in Scope.objects.values_list("codes", flat=True) for code in item}
        return cls(services, sources, codes)


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
    report, market, stream = Report(), Market.of(organization), iter(rows)
    while batch := list(islice(stream, BATCH)):
        try:
            with transaction.atomic():
                take_in(batch, report, market=market, by=by, at=at)
                if dry_run:
                    raise _Undo
        except _Undo:
            pass
        progress(len(batch))
    return report


def take_in(
    batch: Iterable[tuple[int, Mapping]], report: Report, *, market: Market, by: Actor, at: datetime.datetime
) -> None:
    """Take in numbered rows of one operator, in the caller's transaction; what became of each goes into `report`."""
    stated = _of_known_people(_judge(batch, report, market, at=at), report, market, by=by, at=at)
    said_before = _said_before(stated, market)
    for number in said_before:
        report.note(number, "unchanged")
    rest = [row for row in stated if row.number not in said_before]
    if rest:
        _take_in(rest, report, services=market.services, sources=market.sources, by=by, at=at)


def _judge(batch, report: Report, market: Market, *, at: datetime.datetime) -> Iterator[Holding]:
    today = at.astimezone(SEOUL).date()
    for number, row in batch:
        try:
            stated = reports.holding(number, row, today=today, codes=market.codes)
            if stated.client_id not in market.services:
                raise Refused("service_client_id", "not-own-service")
            if stated.source not in market.sources:
                raise Refused("source_org_code", "unknown-source")
        except Refused:
            report.refuse(
                number,
                *reports.faults(
                    row, today=today, codes=market.codes, services=market.services, sources=market.sources
                ),
            )
        else:
            yield stated


def _of_known_people(
    stated: Iterable[Holding], report: Report, market: Market, *, by: Actor, at: datetime.datetime
) -> list[Holding]:
    """The rows of people who are here, by their subject; those of others wait."""
    rows = list(stated)
    digests = {row.digest for row in rows if row.digest}
    if not digests:
        return rows
    known: dict[str, uuid.UUID] = dict(
        Identity.objects.filter(digest__in=digests).values_list("digest", "person__subject_id")
    )
    strange = [row for row in rows if row.digest and row.digest not in known]
    news = waiting.keep(strange, services=market.services, sources=market.sources, by=by, at=at)
    for row in strange:
        report.note(row.number, "waiting" if row.number in news else "unchanged")
    report.replaced.update(number for number, replaced in news.items() if replaced)
    return [
        replace(row, subject=known[row.digest]) if row.digest else row
        for row in rows
        if not row.digest or row.digest in known
    ]


def _said_before(rows: list[Holding], market: Market) -> set[int]:
    if not rows:
        return set()
    with connection.cursor() as cursor:
        waiting.lay_out(cursor, rows, services=market.services, sources=market.sources)
        cursor.execute(_KNOWN_SQL)
        return {number for (number,) in cursor.fetchall()}


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
            report.refuse(row.number, Refused("subject", "unknown-person"))
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
            report.note(row.number, "created")
            touched[subscription.pk] = subscription
        elif before is None or _contradicts(before, row):
            _mismatch(person, row, subscription.service, report, by=by, at=at, subscription=subscription)
        elif row.last_used_on and (subscription.last_used_on or row.joined_on) < row.last_used_on:
            subscription.last_used_on = row.last_used_on
            touched[subscription.pk] = subscription
            report.note(row.number, "updated")
        else:
            report.note(row.number, "unchanged")
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
    if acts := _acts(fresh, consents):
        ledger.append_acts(acts, by=by, at=at)


def _acts(fresh: list[Subscription], consents: list[Consent]) -> list[tuple[uuid.UUID, list[ledger.Fact]]]:
    """An act a subscription: what one operator reports of two people has nothing to do with each other."""
    begun = {row.pk for row in fresh}
    flows: dict[uuid.UUID, list[Consent]] = defaultdict(list)
    of: dict[uuid.UUID, Subscription] = {row.pk: row for row in fresh}
    for consent in consents:
        flows[consent.subscription_id].append(consent)
        of[consent.subscription_id] = consent.subscription
    return [(messages.new_id(), told([row] if pk in begun else [], flows[pk])) for pk, row in of.items()]


def told(fresh: list[Subscription], consents: list[Consent]) -> list[ledger.Fact]:
    """What the log says of a report."""
    said = [facts.of_subscription("subscription.joined", subscription) for subscription in fresh]
    return said + [facts.of_consent("consent.granted", consent) for consent in consents]


def _mismatch(person, row: Holding, service: Service, report: Report, *, by, at, subscription=None) -> None:
    """Tell the person that the operator says something else; nothing about the agreement changes."""
    report.note(row.number, "mismatched")
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
