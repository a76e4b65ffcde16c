"""Two at once: real connections, started together; one wins, the log agrees, everybody is told once (T30, T31, T32)."""
# ruff: noqa: B023 - the lambdas run before the loop goes on

import datetime
import threading
from collections.abc import Callable

import pytest
from dateutil.relativedelta import relativedelta
from django.db import connection

from consents import answers, lifecycle, propagation, reconciliation, requests, speedbump
from consents.actors import Actor
from consents.models import (
    Consent,
    Delivery,
    EndReason,
    EntryIndex,
    Lease,
    LedgerEntry,
    Notice,
    Outgoing,
    Subscription,
)
from providers.wires import Outcome
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
SYSTEM = Actor.system("test")
ROUNDS = 4


def at_once(*acts: Callable[[], object]) -> list:
    """Do the acts in threads of their own, started by one barrier; their results or exceptions, in order."""
    start, results = threading.Barrier(len(acts)), [None] * len(acts)

    def run(number, act):
        try:
            start.wait(timeout=20)
            results[number] = act()
        except Exception as error:
            results[number] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number, act)) for number, act in enumerate(acts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "somebody waits for ever"
    return results


def refusals(results, *kinds) -> int:
    """How many were refused, and that nothing else went wrong."""
    errors = [result for result in results if isinstance(result, Exception)]
    strange = [error for error in errors if not isinstance(error, kinds)]
    assert not strange, strange
    return len(errors)


def entries(typ, **filters) -> int:
    return EntryIndex.objects.filter(typ=typ, **filters).count()


def agreed(subscription) -> None:
    """One terminal state: one entry, one set of deliveries, and every consent with the same cause."""
    subscription.refresh_from_db()
    assert subscription.state == "ended"
    assert entries("subscription.ended", subscription=subscription) == 1
    ended = EntryIndex.objects.get(typ="subscription.ended", subscription=subscription)
    assert ended.reason == subscription.end_reason
    consents = subscription.consents.all()
    assert {(c.state, c.ended_at) for c in consents} == {("ended", subscription.ended_at)}
    for consent in consents:
        closing = EntryIndex.objects.filter(consent=consent, typ__in=["consent.withdrawn", "consent.expired"])
        assert closing.count() == 1
    told = subscription.deliveries.filter(event="subscription-ended")
    assert len({row.txn for row in told}) <= 1
    assert len({row.organization_id for row in told}) == told.count()


def test_sixteen_joins_are_one():
    person, service = factories.PersonFactory(), factories.offered()
    results = at_once(*[lambda: factories.joined(person, service)] * 16)
    assert refusals(results, lifecycle.AlreadyJoined) == 15
    subscription = Subscription.objects.get(person=person)
    assert entries("subscription.joined", person=person) == 1
    assert entries("consent.granted", person=person) == subscription.consents.count() == 4
    assert Delivery.objects.filter(person=person).count() == 3


def test_a_request_granted_twice_is_granted_once():
    person, service = factories.PersonFactory(), factories.offered()
    at = datetime.datetime.now(datetime.UTC)
    lodged = requests.lodge(organization=service.organization, service=service, by=SYSTEM, at=at)
    terms = service.terms.get()
    choices = [lifecycle.Choice(item) for item in terms.items.select_related("source", "recipient")]

    def accept():
        return requests.accept(
            lodged, person=person, terms=terms, choices=choices, language="ko", by=Actor.person(person), at=at
        )

    results = at_once(
        *[accept] * 6, lambda: requests.decline(lodged, person=person, by=Actor.person(person), at=at)
    )
    assert refusals(results, lifecycle.Refused) == 6
    lodged.refresh_from_db()
    assert Subscription.objects.filter(person=person).count() == (lodged.state == "granted")


def test_joining_and_leaving_at_once():
    """The old one ends, and there is a new one or there is none; never two, never a revived one."""
    service = factories.offered()
    for _ in range(ROUNDS):
        person = factories.PersonFactory()
        old, by = factories.joined(person, service), Actor.person(person)
        now = datetime.datetime.now(datetime.UTC)
        results = at_once(
            lambda: lifecycle.leave(old, erase=True, by=by, at=now), lambda: factories.joined(person, service)
        )
        refused = refusals(results, lifecycle.AlreadyJoined)
        agreed(old)
        assert Subscription.objects.live().filter(person=person).count() == 1 - refused
        assert Subscription.objects.filter(person=person).count() == 2 - refused


def test_leaving_twice_at_once_is_leaving_once():
    for _ in range(ROUNDS):
        person = factories.PersonFactory()
        subscription, now = factories.joined(person), datetime.datetime.now(datetime.UTC)
        results = at_once(
            *[lambda: lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=now)] * 4
        )
        assert refusals(results, lifecycle.AlreadyEnded) == 3
        agreed(subscription)
        assert subscription.deliveries.filter(event="subscription-ended").count() == 4
        assert entries("erasure.requested", subscription=subscription) == 1


def test_the_first_cause_wins():
    """The person leaves, the calendar ends it, and the operator's licence ends, all in the same moment."""
    seen = set()
    for _ in range(ROUNDS):
        person, now = factories.PersonFactory(), datetime.datetime.now(datetime.UTC)
        subscription = factories.joined(person, at=now - relativedelta(months=12, days=2))
        assert subscription.until_on < now.date()
        results = at_once(
            lambda: lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=now),
            lambda: lifecycle.expire_due(by=SYSTEM, at=now),
            lambda: lifecycle.leave(
                subscription, erase=True, by=SYSTEM, at=now, reason=EndReason.LICENCE_ENDED
            ),
        )
        refusals(results, lifecycle.AlreadyEnded)
        agreed(subscription)
        seen.add(subscription.end_reason)
        expired = subscription.end_reason == "expired"
        assert subscription.deliveries.filter(event="subscription-ended").count() == (0 if expired else 4)
        assert subscription.erasure == ("not_requested" if expired else "requested")
    assert seen <= {"person_left", "expired", "licence_ended"}


def test_withdrawing_and_leaving_at_once():
    for _ in range(ROUNDS):
        person, now = factories.PersonFactory(), datetime.datetime.now(datetime.UTC)
        subscription, by = factories.joined(person, at=now), Actor.person(person)
        consent = subscription.consents.filter(kind="transfer").first()
        results = at_once(
            lambda: lifecycle.withdraw(consent, erase=False, by=by, at=now),
            lambda: lifecycle.leave(subscription, erase=True, by=by, at=now),
            lambda: lifecycle.pause(consent, by=by, at=now),
        )
        refusals(results, lifecycle.AlreadyEnded, lifecycle.NotActive)
        consent.refresh_from_db()
        assert consent.state == "ended" and entries("consent.withdrawn", consent=consent) == 1
        assert consent.erasure == "requested", "whoever came first, all is to be erased"
        versions = list(subscription.deliveries.order_by("pk").values_list("version", flat=True))
        assert versions == sorted(versions), "receivers ignore what is older"


def test_what_is_extended_and_ended_at_once_has_ended():
    for _ in range(ROUNDS):
        person, now = factories.PersonFactory(), datetime.datetime.now(datetime.UTC)
        subscription, by = (
            factories.joined(person, at=now - relativedelta(months=11, days=20)),
            Actor.person(person),
        )
        consent = subscription.consents.filter(kind="transfer").first()
        results = at_once(
            lambda: lifecycle.amend(consent, until_on=now.date() + relativedelta(months=6), by=by, at=now),
            lambda: lifecycle.withdraw(consent, erase=True, by=by, at=now),
        )
        refusals(results, lifecycle.AlreadyEnded)
        consent.refresh_from_db()
        assert consent.state == "ended"
        last = EntryIndex.objects.filter(consent=consent).latest("seq")
        assert last.typ in ("consent.withdrawn", "erasure.requested")


def test_an_acknowledgement_and_the_record_of_the_call_at_once():
    """Whatever comes first: it was received, and `received` is never written over by `sent`."""
    for verdict in ("sent", "retry", "refused", "sent"):
        person, now = factories.PersonFactory(), datetime.datetime.now(datetime.UTC)
        service = factories.offered()
        factories.ChannelFactory(
            organization=service.organization, protocol="native", address="https://nobody.example/"
        )
        factories.joined(person, service, now)
        (row,) = propagation.claim(at=now, limit=50)
        results = at_once(
            lambda: propagation.record(row, Outcome(verdict=verdict), at=now),
            lambda: answers.acknowledge(
                row.jti,
                organization=service.organization,
                by=Actor.organization(service.organization),
                at=now,
            ),
        )
        assert refusals(results) == 0
        written = Delivery.objects.get(pk=row.pk)
        assert (written.state, written.next_at) == ("received", None)
        assert (
            not Lease.objects.filter(pk=row.pk).exists() and not Outgoing.objects.filter(pk=row.pk).exists()
        )
        assert entries("delivery.received", jti=row.jti) == 1
        assert EntryIndex.objects.filter(jti=row.jti).latest("seq").typ == "delivery.received"


def test_the_same_acknowledgement_eight_times_is_one():
    subscription, now = factories.joined(factories.PersonFactory()), datetime.datetime.now(datetime.UTC)
    row = subscription.deliveries.get(role="operator")
    by = Actor.organization(row.organization)
    results = at_once(
        *[lambda: answers.acknowledge(row.jti, organization=row.organization, by=by, at=now)] * 8
    )
    assert refusals(results) == 0
    assert entries("delivery.received", jti=row.jti) == 1


def test_leaving_while_the_operator_answers_about_it():
    """Row locks in one order: nobody waits in a circle."""
    for _ in range(ROUNDS):
        person, now = factories.PersonFactory(), datetime.datetime.now(datetime.UTC)
        subscription = factories.joined(person, at=now)
        rows = list(subscription.deliveries.select_related("organization"))

        def heard(row, at=now):
            return lambda: answers.acknowledge(row.jti, organization=row.organization, by=SYSTEM, at=at)

        results = at_once(
            lambda: lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=now),
            *[heard(row) for row in rows],
        )
        assert refusals(results) == 0
        agreed(subscription)
        assert set(
            subscription.deliveries.filter(event="consent-granted").values_list("state", flat=True)
        ) == {"received"}


def test_two_daily_jobs_at_once_raise_each_notice_once():
    now = datetime.datetime.now(datetime.UTC)
    people = [factories.PersonFactory() for _ in range(3)]
    for person in people:
        for _ in range(4):
            factories.joined(person, at=now - relativedelta(months=7))
    results = at_once(*[lambda: speedbump.raise_due(by=SYSTEM, at=now)] * 4)
    assert refusals(results) == 0
    for person in people:
        raised = list(Notice.objects.filter(person=person).values_list("kind", "matter"))
        assert len(raised) == len(set(raised)) and ("count", "soft") in raised
    assert entries("notice.raised") == Notice.objects.count() == sum(result["raised"] for result in results)


def test_a_notice_is_answered_once_by_whoever_is_first():
    for _ in range(ROUNDS):
        person, now = factories.PersonFactory(), datetime.datetime.now(datetime.UTC)
        subscription = factories.joined(person, at=now - relativedelta(months=7))
        speedbump.raise_due(by=SYSTEM, at=now)
        notice = Notice.objects.get(person=person, kind="dormant")
        results = at_once(
            lambda: speedbump.answer(notice=notice, answer="kept", by=Actor.person(person), at=now),
            lambda: lifecycle.leave(subscription, erase=False, by=Actor.person(person), at=now),
            lambda: speedbump.raise_due(by=SYSTEM, at=now),
        )
        assert refusals(results) == 0
        notice.refresh_from_db()
        told = EntryIndex.objects.filter(typ="notice.answered", person=person, reason="dormant")
        assert notice.answer in ("kept", "ended", "gone") and told.count() == 1


def test_two_clocks_at_once_end_everything_once():
    now = datetime.datetime.now(datetime.UTC)
    service = factories.offered()
    rows = [
        factories.joined(factories.PersonFactory(), service, now - relativedelta(months=12, days=2))
        for _ in range(6)
    ]
    paused = factories.joined(factories.PersonFactory(), service, now - relativedelta(months=2))
    consent = paused.consents.filter(kind="transfer").first()
    lifecycle.pause(
        consent, by=SYSTEM, at=now - relativedelta(days=9), until_on=(now - relativedelta(days=3)).date()
    )
    results = at_once(*[lambda: lifecycle.expire_due(by=SYSTEM, at=now)] * 4)
    assert refusals(results) == 0
    for row in rows:
        agreed(row)
    assert sum(result["expired"] for result in results) == 6
    assert sum(result["resumed"] for result in results) == 1
    assert entries("consent.resumed", consent=consent) == 1


def test_two_expiries_of_requests_at_once_write_one_entry():
    service, now = factories.offered(), datetime.datetime.now(datetime.UTC)
    requests.lodge(
        organization=service.organization, service=service, by=SYSTEM, at=now - datetime.timedelta(days=1)
    )
    results = at_once(*[lambda: requests.expire_due(by=SYSTEM, at=now)] * 4)
    assert sorted(results) == [0, 0, 0, 1] and entries("request.expired") == 1


def holdings(people, service, source) -> list[tuple[int, dict]]:
    today = datetime.date.today()
    return [
        (
            number,
            {
                "subject": str(person.subject_id), "service_client_id": service.client_id,
                "joined_on": (today - relativedelta(months=2)).isoformat(), "source_org_code": source.code,
                "scopes": "bank.list bank.deposit", "purpose": "자산을 한눈에 보여 드려요.", "cycle": "1/w",
                "end_date": (today + relativedelta(months=10)).isoformat(), "retained_until": "99991231",
                "last_used_on": (today - relativedelta(days=3)).isoformat(),
            },
        )
        for number, person in enumerate(people, 1)
    ]  # fmt: skip


def test_the_same_report_twice_at_once_goes_in_once():
    service, now = factories.offered(), datetime.datetime.now(datetime.UTC)
    source = service.terms.get().items.filter(kind="transfer").first().source
    people = [factories.PersonFactory() for _ in range(12)]
    rows = holdings(people, service, source)

    def report(order):
        return lambda: reconciliation.report_holdings(
            order, organization=service.organization, by=SYSTEM, at=now
        )

    results = at_once(report(rows), report(rows[::-1]), report(rows))
    assert refusals(results) == 0 and not any(result.refused for result in results)
    assert sum(result.created for result in results) == 12
    assert Subscription.objects.count() == Consent.objects.count() == 12
    assert entries("subscription.joined") == 12


def test_a_report_and_an_end_at_once_revive_nothing():
    """The import has read the row as live; the person leaves; the import writes what it read."""
    for _ in range(ROUNDS):
        service, now = factories.offered(), datetime.datetime.now(datetime.UTC)
        sources = [item.source for item in service.terms.get().items.filter(kind="transfer")]
        people = [factories.PersonFactory() for _ in range(4)]
        reconciliation.report_holdings(
            holdings(people, service, sources[0]), organization=service.organization, by=SYSTEM, at=now
        )
        mine = list(Subscription.objects.filter(service=service))
        later = [
            (n, row | {"end_date": (datetime.date.today() + relativedelta(months=11)).isoformat()})
            for n, row in holdings(people, service, sources[1])
        ]
        results = at_once(
            lambda: reconciliation.report_holdings(
                later, organization=service.organization, by=SYSTEM, at=now
            ),
            *[lambda s=s: lifecycle.leave(s, erase=True, by=Actor.person(s.person), at=now) for s in mine],
        )
        assert refusals(results) == 0
        for subscription in mine:
            subscription.refresh_from_db()
            assert subscription.state == "ended"
            assert entries("subscription.ended", subscription=subscription) == 1
            assert not subscription.consents.live().exists()
        assert Subscription.objects.filter(service=service).count() == len(mine)


def test_every_entry_of_a_crowd_is_there():
    """Writers that overlap lose nothing: each act's entries are in the log and wait for the sequencer."""
    service = factories.offered()
    people = [factories.PersonFactory() for _ in range(8)]
    before = LedgerEntry.objects.count()
    results = at_once(*[lambda p=p: factories.joined(p, service) for p in people])
    assert refusals(results) == 0
    assert LedgerEntry.objects.count() - before == EntryIndex.objects.count() == 8 * 5
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM ledger.pending WHERE event_id = ANY (%s)",
            [list(EntryIndex.objects.values_list("event_id", flat=True))],
        )
        assert cursor.fetchone() == (40,)
