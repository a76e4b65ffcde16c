"""The life of a delivery: owed, claimed, sent, recorded; and the message itself, checked by other people's libraries."""

import base64
import datetime
import json
import socket
import threading
import time
import uuid
from collections import Counter

import jwt
import psycopg
import pytest
import standardwebhooks
from django.db import connection, transaction

from config import celery
from consents import (
    answers,
    health,
    jobs,
    ledger,
    lifecycle,
    messages,
    propagation,
    references,
    retries,
    routes,
)
from consents.actors import Actor
from consents.models import Breaker, Claimed, Delivery, EntryIndex, Lease, LedgerEntry, Outgoing, Reference
from consents.sending import Attempt
from providers import outbound, registry, signing
from providers.models import Channel, ChannelKey
from providers.wires import Outcome, native
from tests import factories
from tests.receivers import receiving

pytestmark = pytest.mark.django_db
State = Delivery.State
SECOND = datetime.timedelta(seconds=1)


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "propagation-keys"


@pytest.fixture
def receiver(settings):
    with receiving(settings) as running:
        yield running


@pytest.fixture
def service():
    return factories.offered()


def everybody(service) -> list:
    """The operator, its two sources and the third party."""
    items = service.terms.get(state="published").items.all()
    return [service.organization, *(i.source or i.recipient for i in items if i.source or i.recipient)]


@pytest.fixture
def wired(service, receiver):
    """Everybody who will be told has a native channel to the receiver."""
    receiver.connect(*everybody(service))
    return receiver


@pytest.fixture
def channels(service):
    """Native channels to an address that nobody is going to call: for claim and record without a wire."""
    for organization in everybody(service):
        factories.ChannelFactory(
            organization=organization, protocol="native", address="https://nobody.example/hook"
        )


@pytest.fixture
def subscription(person, service, channels, now):
    return factories.joined(person, service, now)


def operators(subscription, **filters) -> Delivery:
    return subscription.deliveries.filter(role="operator", **filters).latest("pk")


def claimed(delivery, *, at) -> Claimed:
    """The row as the worker that claimed it has it in its hands."""
    return next(row for row in propagation.claim(at=at, limit=50) if row.pk == delivery.pk)


def as_written(row: Claimed) -> Delivery:
    """The delivery itself, which is no longer what the worker has in its hands."""
    return Delivery.objects.get(pk=row.pk)


def sent(*deliveries, at):
    """These are out of the way."""
    Delivery.objects.filter(pk__in=[d.pk for d in deliveries]).update(state="sent", sent_at=at, next_at=None)


# --- owe -----------------------------------------------------------------------------------------------------------------


def test_one_delivery_for_each_party_with_one_act_id(subscription, now):
    rows = list(subscription.deliveries.all())
    assert len({row.txn for row in rows}) == 1 and len({row.jti for row in rows}) == len(rows) == 3
    assert {(row.state, row.next_at, row.attempts) for row in rows} == {("queued", now, 0)}


def test_an_organization_without_an_open_channel_is_told_at_its_desk(person, now):
    subscription = factories.joined(person, at=now)
    assert set(subscription.deliveries.values_list("state", "next_at")) == {("manual", None)}
    assert propagation.claim(at=now, limit=50) == []


def test_a_desk_is_never_called(person, service, now):
    factories.ChannelFactory(organization=service.organization)
    assert operators(factories.joined(person, service, now)).state == "manual"


def test_who_started_it_is_not_called_back(subscription, service, now):
    lifecycle.leave(
        subscription,
        erase=True,
        by=Actor.organization(service.organization),
        at=now,
        reason="operator_closed",
    )
    told = subscription.deliveries.filter(event="subscription-ended")
    assert sorted(told.values_list("role", flat=True)) == ["recipient", "source", "source"]


def test_nothing_is_owed_when_the_act_is_rolled_back(person, service, channels, now):
    with pytest.raises(RuntimeError), transaction.atomic():
        factories.joined(person, service, now)
        raise RuntimeError
    assert not Delivery.objects.exists() and not EntryIndex.objects.filter(person=person).exists()


@pytest.fixture
def broker(monkeypatch):
    """Celery as a fresh process would have it, with another broker: `broker(url)`."""

    def use(url):
        monkeypatch.setitem(celery.app.conf, "broker_url", url)
        monkeypatch.setattr(celery.app, "_pool", None)
        monkeypatch.setattr(celery.app.amqp, "_producer_pool", None)

    return use


@pytest.mark.django_db(transaction=True)
def test_a_dead_broker_delays_no_act(broker, person, service, channels, now):
    """The doorbell is a comfort: the row is the queue."""
    broker("redis://127.0.0.1:1/0")
    before = time.monotonic()
    subscription = factories.joined(person, service, now)
    assert time.monotonic() - before < 1
    assert subscription.deliveries.filter(state="queued").count() == 3


@pytest.mark.django_db(transaction=True)
def test_a_frozen_broker_delays_an_act_by_seconds_only(broker, person, service, channels, now):
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes connections and never says a word
        broker(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        before = time.monotonic()
        subscription = factories.joined(person, service, now)
        assert time.monotonic() - before < 5
    assert subscription.deliveries.filter(state="queued").count() == 3


@pytest.mark.django_db(transaction=True)
def test_the_doorbell_rings_after_the_commit_and_carries_nothing(person, service, channels, monkeypatch, now):
    rung = []
    monkeypatch.setattr(
        propagation.current_app, "send_task", lambda *a, **k: rung.append((a, k, connection.in_atomic_block))
    )
    with transaction.atomic():
        factories.joined(person, service, now)
        assert rung == []
    ((args, options, inside),) = rung
    assert args == (jobs.deliver.name,) and not inside
    assert "args" not in options and "kwargs" not in options
    assert options["retry"] is False


# --- claim ---------------------------------------------------------------------------------------------------------------


def test_a_claim_leases_the_row_and_counts_the_try(subscription, now):
    rows = propagation.claim(at=now, limit=50)
    assert len(rows) == 3
    for row in rows:
        assert row.attempts == 1 and row.lease_token
    assert set(Lease.objects.values_list("until", "tries")) == {(now + 45 * SECOND, 1)}
    assert propagation.claim(at=now, limit=50) == []


def test_what_is_not_due_is_left_alone(subscription, now):
    assert propagation.claim(at=now - SECOND, limit=50) == []


def test_the_limit_is_kept_and_the_oldest_goes_first(person, service, channels, me, now):
    other = factories.joined(factories.PersonFactory(), service, now - 60 * SECOND)
    factories.joined(person, service, now)
    first = propagation.claim(at=now, limit=2)
    assert len(first) == 2 and {row.subscription_id for row in first} == {other.pk}


def test_an_expired_lease_is_claimed_again_with_another_token(subscription, now):
    delivery = operators(subscription)
    mine = claimed(delivery, at=now)
    assert delivery.pk not in {row.pk for row in propagation.claim(at=now + 44 * SECOND, limit=50)}
    theirs = claimed(delivery, at=now + 46 * SECOND)
    assert theirs.lease_token != mine.lease_token and theirs.attempts == 2


def test_one_organization_gets_only_so_many_at_once(service, channels, now):
    for _ in range(7):
        factories.joined(factories.PersonFactory(), service, now)
    rows = propagation.claim(at=now, limit=1000)
    assert Counter(row.organization_id for row in rows)[service.organization_id] == 4
    assert propagation.claim(at=now, limit=1000) == [], "these four are under way, whoever has them"
    mine = next(row for row in rows if row.organization_id == service.organization_id)
    propagation.record(mine, Outcome(verdict="sent", status=200), at=now)
    (following,) = propagation.claim(at=now, limit=1000)
    assert following.organization_id == service.organization_id


def test_messages_to_one_party_about_one_subscription_go_in_order(subscription, me, now):
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.pause(consent, by=me, at=now + SECOND)
    lifecycle.resume(consent, by=me, at=now + 2 * SECOND)
    later = now + 60 * SECOND
    seen = []
    for _ in range(3):
        rows = propagation.claim(at=later, limit=50)
        (row,) = [row for row in rows if row.role == "operator"]
        seen.append(row.event)
        for one in rows:
            propagation.record(one, Outcome(verdict="sent", status=200), at=later)
    assert seen == ["consent-granted", "consent-paused", "consent-resumed"]


def test_a_stop_waits_for_nobody_elses_messages(subscription, service, now, me):
    """Order is kept per subscription and party, not across them."""
    sent(*subscription.deliveries.all(), at=now)
    other = factories.joined(factories.PersonFactory(), service, now)
    Delivery.objects.filter(subscription=other).update(
        state="retrying", next_at=now + datetime.timedelta(hours=5)
    )
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    assert len(propagation.claim(at=now, limit=50)) == 4


def test_a_stop_pulls_earlier_messages_forward(subscription, me, now):
    delivery = operators(subscription)
    Delivery.objects.filter(pk=delivery.pk).update(
        state="retrying", next_at=now + datetime.timedelta(hours=20), attempts=11
    )
    lifecycle.withdraw(subscription.consents.filter(kind="transfer").first(), erase=False, by=me, at=now)
    delivery.refresh_from_db()
    assert (delivery.next_at, delivery.attempts) == (now, 0)
    assert claimed(delivery, at=now).event == "consent-granted"


def test_an_end_overtakes_undelivered_grants(subscription, me, now):
    grants = list(subscription.deliveries.all())
    held = claimed(grants[0], at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now + SECOND)
    for grant in grants:
        grant.refresh_from_db()
        assert (grant.state, grant.overtaken, grant.due_at) == ("checking", True, None)
    assert not Outgoing.objects.filter(delivery__in=grants).exists()
    assert not propagation.record(held, Outcome(verdict="sent", status=200), at=now + 2 * SECOND)
    assert {row.event for row in propagation.claim(at=now + SECOND, limit=50)} == {"subscription-ended"}


def test_an_end_overtakes_what_was_given_up_too(subscription, me, now):
    """Or its daily try would tell of the grant after the stop."""
    grant = operators(subscription)
    propagation.record(claimed(grant, at=now), Outcome("refused", status=404), at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now + SECOND)
    grant.refresh_from_db()
    assert (grant.state, grant.overtaken, grant.next_at) == ("checking", True, None)
    later = now + datetime.timedelta(days=2)
    assert {row.event for row in propagation.claim(at=later, limit=50)} == {"subscription-ended"}


def test_a_withdrawal_overtakes_what_is_about_its_consent_alone(subscription, me, now):
    grants = {row.role: row for row in subscription.deliveries.filter(role__in=["operator", "source"])}
    consent = subscription.consents.get(source=grants["source"].organization)
    other = subscription.consents.filter(kind="transfer").exclude(pk=consent.pk).first()
    lifecycle.amend(consent, cycle="1/4w", by=me, at=now)
    lifecycle.pause(other, by=me, at=now)
    lifecycle.withdraw(consent, erase=False, by=me, at=now + SECOND)
    pointless = subscription.deliveries.filter(overtaken=True)
    assert sorted(pointless.values_list("event", "role")) == [
        ("consent-amended", "operator"), ("consent-amended", "source"), ("consent-granted", "source"),
    ]  # fmt: skip
    assert grants["source"] in pointless and set(pointless.values_list("closed_at", flat=True)) == {
        now + SECOND
    }
    entry = EntryIndex.objects.get(typ="consent.withdrawn", consent=consent)
    said = ledger.disclosed([entry.event_id])[entry.event_id]["ovt"]
    assert sorted(said) == sorted(str(jti) for jti in pointless.values_list("jti", flat=True))
    first = {(row.organization_id, row.event) for row in propagation.claim(at=now + SECOND, limit=50)}
    assert (consent.source_id, "consent-withdrawn") in first, "it waits for nothing"


def test_an_end_overtakes_the_replay_of_a_grant_and_not_that_of_a_stop(subscription, me, now):
    sent(*subscription.deliveries.all(), at=now)
    lifecycle.withdraw(subscription.consents.filter(kind="transfer").first(), erase=False, by=me, at=now)
    stop = operators(subscription, event="consent-withdrawn")
    sent(*subscription.deliveries.all(), at=now)
    again = [
        propagation.replay(one, by=me, at=now)
        for one in (operators(subscription, event="consent-granted"), stop)
    ]
    lifecycle.leave(subscription, erase=True, by=me, at=now + SECOND)
    assert [Delivery.objects.get(pk=row.pk).overtaken for row in again] == [True, False]
    entry = EntryIndex.objects.get(typ="subscription.ended", subscription=subscription)
    assert "ovt" not in ledger.disclosed([entry.event_id])[entry.event_id], "the log knows of no replays"


def test_an_end_overtakes_no_stop(subscription, me, now):
    """A withdrawal that is still on its way is told too: it may have been promised to somebody."""
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.withdraw(consent, erase=False, by=me, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now + SECOND)
    withdrawal = operators(subscription, event="consent-withdrawn")
    assert (withdrawal.state, withdrawal.overtaken) == ("queued", False)


@pytest.mark.django_db(transaction=True)
def test_a_row_in_another_workers_hands_is_skipped_not_waited_for(person, service, channels, now):
    subscription = factories.joined(person, service, now)
    held = operators(subscription)
    with psycopg.connect(**connection.get_connection_params() | {"cursor_factory": psycopg.Cursor}) as other:
        other.execute("SELECT 1 FROM consents_outgoing WHERE delivery_id = %s FOR UPDATE", [held.pk])
        with connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '2s'")
        before = time.monotonic()
        rows = propagation.claim(at=now, limit=50)
        assert time.monotonic() - before < 1
    connection.close()  # with its lock_timeout
    assert len(rows) == 2 and held.pk not in {row.pk for row in rows}


@pytest.mark.django_db(transaction=True)
def test_workers_at_once_never_claim_the_same_row(service, channels, now):
    for _ in range(12):
        factories.joined(factories.PersonFactory(), service, now)
    start, got = threading.Barrier(8), []

    def work():
        try:
            start.wait(timeout=10)
            for _ in range(6):
                got.extend(row.pk for row in propagation.claim(at=now, limit=5))
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(got) == len(set(got)) == 12, "three organizations, four under way at each"


# --- record --------------------------------------------------------------------------------------------------------------


def test_a_taken_message_is_sent_and_logged(subscription, now):
    row = claimed(operators(subscription), at=now)
    assert propagation.record(row, Outcome(verdict="sent", status=202), at=now + SECOND)
    row = as_written(row)
    assert (row.state, row.sent_at, row.http_status, row.attempts) == ("sent", now + SECOND, 202, 1)
    assert not Lease.objects.filter(pk=row.pk).exists() and not Outgoing.objects.filter(pk=row.pk).exists()
    entry = EntryIndex.objects.get(jti=row.jti, typ="delivery.sent")
    assert ledger.disclosed([entry.event_id])[entry.event_id]["sta"] == "sent"


def test_a_stale_lease_writes_nothing(subscription, now):
    delivery = operators(subscription)
    stale = claimed(delivery, at=now)
    fresh = claimed(delivery, at=now + 46 * SECOND)
    before = LedgerEntry.objects.count()
    assert not propagation.record(stale, Outcome(verdict="refused", status=400), at=now + 47 * SECOND)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.http_status) == ("queued", None)
    assert str(Lease.objects.get(pk=delivery.pk).token) == fresh.lease_token
    assert LedgerEntry.objects.count() == before
    assert propagation.record(fresh, Outcome(verdict="sent", status=200), at=now + 48 * SECOND)


def test_the_same_outcome_twice_is_written_once(subscription, now):
    row = claimed(operators(subscription), at=now)
    assert propagation.record(row, Outcome(verdict="sent", status=200), at=now)
    assert not propagation.record(row, Outcome(verdict="sent", status=200), at=now)
    assert EntryIndex.objects.filter(jti=row.jti, typ="delivery.sent").count() == 1


@pytest.mark.parametrize("outcome", ["sent", "retry", "refused", "gone", "check", "blocked", "key"])
def test_an_acknowledgement_before_our_own_call_returns_stands(subscription, now, outcome):
    delivery = operators(subscription)
    row, own = claimed(delivery, at=now), delivery.organization
    answers.acknowledge(row.jti, organization=own, by=Actor.organization(own), at=now)
    assert not propagation.record(row, Outcome(verdict=outcome), at=now + SECOND)
    row = as_written(row)
    assert (row.state, row.received_at, row.sent_at) == ("received", now, now)


@pytest.mark.parametrize(
    ("verdict", "state", "typ"),
    [
        ("sent", "sent", "delivery.sent"), ("check", "checking", None), ("refused", "dead", "delivery.dead"),
        ("gone", "retrying", None), ("retry", "retrying", None), ("blocked", "retrying", None), ("key", "retrying", None),
        ("a verdict nobody foresaw", "retrying", None),
    ],
)  # fmt: skip
def test_what_each_verdict_does(subscription, now, verdict, state, typ):
    row = claimed(operators(subscription), at=now)
    propagation.record(row, Outcome(verdict=verdict, detail="why"), at=now)
    row = as_written(row)
    assert (row.state, row.last_error) == (state, "why")
    assert not Lease.objects.filter(pk=row.pk).exists()
    logged = EntryIndex.objects.filter(jti=row.jti).values_list("typ", flat=True)
    assert list(logged) == ([typ] if typ else [])


def test_the_tries_follow_the_schedule_and_end(subscription, now):
    """Fourteen tries, each wait within ±20 % of the schedule; then a human."""
    row, at, waits = operators(subscription), now, []
    while row.state in ("queued", "retrying"):
        propagation.record(claimed(row, at=at), Outcome(verdict="retry", status=503), at=at)
        row.refresh_from_db()
        if row.state != "dead":
            waits.append((row.next_at - at).total_seconds())
            at = row.next_at
    assert row.dead_at == at and row.next_at == at + datetime.timedelta(days=1), "and once a day from then on"
    assert row.state == "dead" and row.attempts == 14 and len(waits) == len(propagation.RETRY_AFTER) == 13
    for wait, planned in zip(waits, propagation.RETRY_AFTER, strict=True):
        assert 0.8 * planned <= wait <= 1.2 * planned
    assert sum(propagation.RETRY_AFTER) > 75 * 3600
    assert EntryIndex.objects.filter(jti=row.jti, typ="delivery.dead").count() == 1
    assert row.due_at, "a dead delivery is still overdue"


def test_retries_are_spread(service, channels, now):
    for _ in range(4):
        factories.joined(factories.PersonFactory(), service, now)
    rows = propagation.claim(at=now, limit=50)
    for row in rows:
        propagation.record(row, Outcome(verdict="retry"), at=now)
    assert len(set(Delivery.objects.values_list("next_at", flat=True))) > len(rows) / 2


def test_retry_after_is_honoured_when_it_is_longer(subscription, now):
    row = claimed(operators(subscription), at=now)
    propagation.record(row, Outcome(verdict="retry", status=429, retry_after=900), at=now)
    row = as_written(row)
    assert row.next_at == now + 900 * SECOND


def test_retry_after_does_not_shorten_the_wait(subscription, now):
    row = claimed(operators(subscription), at=now)
    propagation.record(row, Outcome(verdict="retry", status=429, retry_after=0), at=now)
    row = as_written(row)
    assert row.next_at >= now + 4 * SECOND


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (Outcome("retry", status=503, retry_after=900), 900),
        (Outcome("blocked"), 600),
        (Outcome("retry", status=503), 0),
    ],
)
def test_nothing_hurries_who_asked_for_time(wired, service, person, me, now, outcome, seconds):
    """Neither a stop that waits behind it nor a channel that is well again."""
    row = operators(factories.joined(person, service, now))
    channel = Channel.objects.get(organization=service.organization)
    propagation.record(claimed(row, at=now), outcome, at=now)
    consent = row.subscription.consents.filter(kind="transfer").first()
    lifecycle.withdraw(consent, erase=False, by=me, at=now + 2 * SECOND)
    assert as_written(row).next_at == now + max(2, seconds) * SECOND
    health.note({channel.pk: ["retry"] * 5}, at=now)
    health.note({channel.pk: ["sent"]}, at=now + 61 * SECOND)
    assert as_written(row).next_at == now + max(2, seconds) * SECOND


def test_a_forbidden_address_is_for_people_as_late_as_any_other(subscription, now):
    row, clock = operators(subscription), now
    for after in (0, 75 * 3600 + 34 * 60, 75 * 3600 + 45 * 60):
        clock = now + after * SECOND
        assert as_written(row).state in ("queued", "retrying")
        propagation.record(claimed(row, at=clock), Outcome("blocked"), at=clock)
    assert (as_written(row).state, as_written(row).dead_at) == ("dead", clock)


def test_a_forbidden_address_is_tried_again_in_ten_minutes(subscription, now):
    row = claimed(operators(subscription), at=now)
    propagation.record(
        row, Outcome(verdict="blocked", detail="10.0.0.1 is not an address of the public internet"), at=now
    )
    row = as_written(row)
    assert row.next_at == now + datetime.timedelta(minutes=10) and "10.0.0.1" in row.last_error


def test_an_unknown_key_is_waited_for_an_hour_and_no_longer(subscription, now):
    """By the tries as they really come; however late in the schedule it begins, for they may have fetched our keys anew."""
    row, begun = operators(subscription), now + datetime.timedelta(hours=30)
    Delivery.objects.filter(pk=row.pk).update(state="retrying", next_at=begun, attempts=9)
    tries, at = 0, begun
    while (row := as_written(row)).state != "dead":
        at, tries = row.next_at, tries + 1
        propagation.record(claimed(row, at=at), Outcome("key", status=400), at=at)
    assert row.dead_at - begun == datetime.timedelta(hours=1) and tries >= 4


def test_another_answer_ends_the_wait_for_a_key(subscription, now):
    row = operators(subscription)
    for after, verdict in ((0, "key"), (70, "retry"), (140, "key")):
        at = now + datetime.timedelta(minutes=after)
        Delivery.objects.filter(pk=row.pk).update(next_at=at)
        propagation.record(claimed(row, at=at), Outcome(verdict, status=400), at=at)
    assert (as_written(row).state, as_written(row).key_fault_at) == ("retrying", at)


def test_a_dead_delivery_comes_alive_when_it_is_acknowledged(subscription, now):
    row = operators(subscription)
    propagation.record(claimed(row, at=now), Outcome(verdict="refused", status=403), at=now)
    answers.acknowledge(
        row.jti, organization=row.organization, by=Actor.organization(row.organization), at=now
    )
    row.refresh_from_db()
    assert row.state == "received"


# --- the whole way, over HTTP ----------------------------------------------------------------------------------------------


def clock(at):
    return lambda: at


def test_everybody_is_told_once(wired, service, person, now):
    subscription = factories.joined(person, service, now)
    assert propagation.deliver_due(now=clock(now)) == 3
    assert set(subscription.deliveries.values_list("state", flat=True)) == {"sent"}
    assert sorted(a.id for a in wired.arrivals) == sorted(str(d.jti) for d in subscription.deliveries.all())
    assert propagation.deliver_due(now=clock(now)) == 0


def test_who_hangs_takes_nobody_elses_places_though_they_share_a_port(wired, service, now):
    """Six messages to one that hangs; the pretend companies of a demo are all at one address."""
    released, code = threading.Event(), service.organization.code

    def answer(arrival):
        if arrival.path == f"/{code}":
            released.wait(10)
        return 200

    wired.answer = answer
    for _ in range(6):
        factories.joined(factories.PersonFactory(), service, now)
    threading.Timer(2.0, released.set).start()
    began = time.time()
    propagation.deliver_due(now=clock(now))
    others = [arrival.at - began for arrival in wired.arrivals if arrival.path != f"/{code}"]
    assert len(others) == 12 and max(others) < 1.9


def test_what_follows_in_order_is_sent_in_the_same_run(wired, service, person, me, now):
    subscription = factories.joined(person, service, now)
    lifecycle.pause(subscription.consents.filter(kind="transfer").first(), by=me, at=now)
    propagation.deliver_due(now=clock(now))
    assert [a.message["type"] for a in wired.of(service.organization)] == [
        "consent-granted",
        "consent-paused",
    ]


@pytest.mark.parametrize(
    ("answer", "state", "detail"),
    [
        (200, "sent", ""), (202, "sent", ""), (500, "retrying", "HTTP 500"), (None, "retrying", "connection"),
        ((302, {"Location": "http://127.0.0.1/"}), "retrying", "redirect"), (400, "dead", "HTTP 400"), (410, "retrying", "HTTP 410"),
        ((429, {"Retry-After": "120"}), "retrying", "HTTP 429"),
    ],
)  # fmt: skip
def test_what_an_answer_does(wired, service, person, now, answer, state, detail):
    subscription = factories.joined(person, service, now)
    wired.answer = lambda arrival: answer
    propagation.deliver_due(now=clock(now))
    row = operators(subscription)
    assert row.state == state and detail in row.last_error and row.attempts == 1
    assert len(wired.of(service.organization)) == 1, "never followed, never tried twice in one run"


def test_an_address_that_may_not_be_called_is_not_called(wired, service, person, now):
    subscription = factories.joined(person, service, now)
    Channel.objects.filter(organization=service.organization).update(
        address="https://169.254.169.254/latest/meta-data"
    )
    propagation.deliver_due(now=clock(now))
    row = operators(subscription)
    assert row.state == "retrying" and row.next_at == now + retries.BLOCKED_WAIT
    assert len(wired.arrivals) == 2


def test_what_has_no_channel_any_more_waits_for_a_human_until_there_is_one(wired, service, person, now):
    subscription = factories.joined(person, service, now)
    Channel.objects.filter(organization=service.organization).update(state="retired")
    propagation.deliver_due(now=clock(now))
    row = operators(subscription)
    assert (row.state, row.last_error) == ("manual", "no channel that we carry")
    assert not Lease.objects.filter(pk=row.pk).exists()
    Channel.objects.filter(organization=service.organization).update(state="open")
    assert propagation.reroute(service.organization, by=Actor.system("channels"), at=now + SECOND) == 1
    propagation.deliver_due(now=clock(now + SECOND))
    row.refresh_from_db()
    assert row.state == "sent"


def test_a_bug_in_a_wire_counts_as_a_try(wired, service, person, now, monkeypatch, caplog):
    """Otherwise it would be an endless hot loop."""
    subscription = factories.joined(person, service, now)

    async def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(native, "send", broken)
    assert propagation.deliver_due(now=clock(now)) == 3
    row = operators(subscription)
    assert (row.state, row.last_error, row.attempts) == ("retrying", "ZeroDivisionError", 1)
    assert row.next_at > now


def test_a_secret_that_cannot_be_opened_is_a_try_of_its_own_messages_only(wired, service, person, now):
    factories.joined(person, service, now)
    ChannelKey.objects.filter(channel__organization=service.organization).update(sealed_secret=b"not sealed")
    assert propagation.deliver_due(now=clock(now)) == 3
    row = Delivery.objects.get(role="operator")
    assert (row.state, row.attempts, row.last_error) == ("retrying", 1, "BadSeal")
    assert set(Delivery.objects.exclude(pk=row.pk).values_list("state", flat=True)) == {"sent"}
    assert breaker_of(service.organization).in_row == 1


def test_a_name_that_cannot_be_opened_is_for_people_and_holds_nobody_up(wired, service, person, now):
    subscription = factories.joined(person, service, now)
    propagation.deliver_due(now=clock(now))
    references.note(
        service.organization, person, kind="token", identifier="x", by=Actor.system("test"), at=now
    )
    Reference.objects.update(sealed=b"not sealed")
    Channel.objects.filter(organization=service.organization).update(protocol="revocation")
    lifecycle.leave(subscription, erase=False, by=Actor.person(person), at=now)
    assert propagation.deliver_due(now=clock(now)) >= 3
    stops = Delivery.objects.exclude(goal="received")
    assert stops.get(role="operator").state == "dead"
    assert set(stops.exclude(role="operator").values_list("state", flat=True)) == {"sent"}


def test_a_session_that_cannot_be_opened_loses_nothing(wired, service, person, now, monkeypatch):
    subscription = factories.joined(person, service, now)

    def broken(**limits):
        raise OSError("no more files")

    with monkeypatch.context() as patch:
        patch.setattr(outbound, "open_session", broken)
        with pytest.raises(OSError, match="no more files"):
            propagation.deliver_due(now=clock(now))
    row = operators(subscription)
    assert row.state == "queued" and row.lease
    propagation.deliver_due(now=clock(now + 46 * SECOND))
    row.refresh_from_db()
    assert row.state == "sent"


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_while_a_message_is_on_its_way(settings, monkeypatch, now):
    """A slow organization must not hold a row lock, nor a snapshot."""
    with receiving(settings) as receiver:
        service = factories.offered()
        receiver.connect(*everybody(service))
        subscription = factories.joined(factories.PersonFactory(), service, now)
        seen, together = [], threading.Barrier(3)

        def look(arrival):
            together.wait(timeout=10)  # all are on their way: nothing is being recorded
            try:
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
                        "AND state LIKE 'idle in transaction%%'"
                    )
                    idle = cursor.fetchone()[0]
                    cursor.execute("SET lock_timeout = '300ms'")
                    cursor.execute("SELECT 1 FROM consents_delivery WHERE jti = %s FOR UPDATE", [arrival.id])
                    seen.append((idle, cursor.rowcount))
            finally:
                connection.close()
            together.wait(timeout=10)
            return 200

        receiver.answer = look
        propagation.deliver_due(now=clock(now))
    assert seen == [(0, 1)] * 3
    assert set(subscription.deliveries.values_list("state", flat=True)) == {"sent"}


@pytest.mark.django_db(transaction=True)
def test_a_slow_organization_does_not_keep_the_others_from_being_recorded(settings, now):
    with receiving(settings) as receiver:
        service = factories.offered()
        receiver.connect(*everybody(service))
        subscription = factories.joined(factories.PersonFactory(), service, now)
        done = threading.Event()

        def slow_operator(arrival):
            if arrival.path == f"/{service.organization.code}":
                done.wait(10)
            return 200

        receiver.answer = slow_operator
        errors = []

        def work():
            try:
                propagation.deliver_due(now=clock(now))
            except Exception as error:
                errors.append(error)
            finally:
                connection.close()

        worker = threading.Thread(target=work)
        worker.start()
        until = time.monotonic() + 5
        while subscription.deliveries.filter(state="sent").count() < 2 and time.monotonic() < until:
            time.sleep(0.02)
        states = sorted(subscription.deliveries.values_list("role", "state"))
        done.set()
        worker.join(timeout=10)
    assert states == [("operator", "queued"), ("source", "sent"), ("source", "sent")]
    assert not errors and operators(subscription).state == "sent"


# --- the message -----------------------------------------------------------------------------------------------------------


def public_key(compact: str):
    kid = jwt.get_unverified_header(compact)["kid"]
    (found,) = [key for key in signing.public_jwks()["keys"] if key["kid"] == kid]
    return jwt.PyJWK(found)


def test_the_webhook_is_what_the_standard_says(wired, service, person, settings):
    """Checked by the reference implementation."""
    at = datetime.datetime.now(datetime.UTC)
    factories.joined(person, service, at)
    propagation.deliver_due(now=clock(at))
    for organization in everybody(service)[:3]:
        (arrival,) = wired.of(organization)
        hook = standardwebhooks.Webhook(wired.secrets[organization.code])
        assert hook.verify(arrival.body, arrival.headers) == arrival.message
        assert arrival.headers["content-type"] == "application/json"
        assert arrival.id == arrival.message["data"]["jti"]


def test_the_signed_fact_inside_verifies_and_says_the_same(wired, service, person, me, settings, now):
    """RFC 8417, by PyJWT: type, issuer, audience, key; and the plain fields are a projection of it."""
    subscription = factories.joined(person, service, now)
    sent(*subscription.deliveries.all(), at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    propagation.deliver_due(now=clock(now))
    assert len(wired.arrivals) == 4
    for arrival in wired.arrivals:
        message, data = arrival.message, arrival.message["data"]
        compact = data["set"]
        assert jwt.get_unverified_header(compact)["typ"] == "secevent+jwt"
        code = arrival.path.removeprefix("/")
        claims = jwt.decode(
            compact, public_key(compact), algorithms=["ES256"], audience=code, issuer=settings.PORTAL_URL,
            options={"require": ["iss", "aud", "iat", "jti"], "verify_iat": False},
        )  # fmt: skip
        assert "exp" not in claims, "a retry after three days is legitimate"
        ((event, facts),) = claims["events"].items()
        assert (
            event
            == f"{settings.PORTAL_URL}/secevent/{message['type']}"
            == f"{settings.PORTAL_URL}/secevent/subscription-ended"
        )
        plain = {name: value for name, value in data.items() if name not in ("set", "txn", "jti")}
        assert {name: facts[name] for name in plain} == plain
        assert (claims["jti"], claims["txn"]) == (data["jti"], data["txn"]) == (arrival.id, data["txn"])
        assert claims["toe"] == facts["event_timestamp"] == int(now.timestamp())
        assert facts["version"] == subscription.version + 1


def test_one_act_has_one_txn_and_each_party_its_own_jti(wired, service, person, me, now):
    subscription = factories.joined(person, service, now)
    lifecycle.leave(subscription, erase=False, by=me, at=now)
    propagation.deliver_due(now=clock(now))
    assert len({a.message["data"]["txn"] for a in wired.arrivals}) == 1
    assert len({a.id for a in wired.arrivals}) == len(wired.arrivals) == 4
    assert all(uuid.UUID(a.id).version == 7 for a in wired.arrivals)


def test_the_message_points_at_the_entry_of_the_act(wired, service, person, me, now):
    subscription = factories.joined(person, service, now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    propagation.deliver_due(now=clock(now))
    index = EntryIndex.objects.get(typ="subscription.ended", subscription=subscription)
    leaf = bytes(LedgerEntry.objects.get(event_id=index.event_id).leaf_hash)
    for arrival in wired.arrivals:
        claims = jwt.decode(arrival.message["data"]["set"], options={"verify_signature": False})
        (facts,) = claims["events"].values()
        assert base64.b64decode(facts["leaf"]["hash"]) == leaf
    said = ledger.disclosed([index.event_id])[index.event_id]["dlv"]
    assert sorted(jti for jti, *_rest in said) == sorted(a.id for a in wired.arrivals)


def test_each_party_hears_of_its_own_part_only(wired, service, person, me, now):
    subscription = factories.joined(person, service, now)
    sent(*subscription.deliveries.all(), at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    propagation.deliver_due(now=clock(now))
    told = {a.path.removeprefix("/"): a.message["data"] for a in wired.arrivals}
    assert (
        len(told[service.organization.code]["consents"]) == 4
        and told[service.organization.code]["delete_data"] is True
    )
    for consent in subscription.consents.filter(kind="transfer"):
        data = told[consent.source.code]
        assert [c["id"] for c in data["consents"]] == [str(consent.pk)]
        assert (data["role"], data["delete_data"]) == ("source", False)
    third = subscription.consents.get(kind="third_party")
    assert [c["id"] for c in told[third.recipient.code]["consents"]] == [str(third.pk)]


def test_the_message_names_nobody(wired, service, person, me, now):
    """Only the random subject id leaves the portal."""
    lifecycle.leave(factories.joined(person, service, now), erase=True, by=me, at=now)
    propagation.deliver_due(now=clock(now))
    for arrival in wired.arrivals:
        compact = arrival.message["data"]["set"]
        text = arrival.body.decode() + json.dumps(jwt.decode(compact, options={"verify_signature": False}))
        assert str(person.subject_id) in text
        for secret in (str(person.pk), person.email, person.name, str(person.born_on)):
            assert secret not in text


def test_the_bytes_never_change_over_the_tries(wired, service, person, now):
    subscription = factories.joined(person, service, now)
    wired.answer = lambda arrival: 500
    at = now
    for _ in range(4):
        propagation.deliver_due(now=clock(at))
        row = operators(subscription)
        at = row.next_at
    arrivals = wired.of(service.organization)
    assert len(arrivals) == 4
    assert {a.body for a in arrivals} == {row.body.encode()} and {a.id for a in arrivals} == {str(row.jti)}
    moments = [int(a.headers["webhook-timestamp"]) for a in arrivals]
    assert moments == sorted(set(moments)), "the attempt's own time, or the receiver would call it a replay"


def test_a_key_that_is_being_rotated_signs_beside_the_new_one(wired, service, person, now):
    channel = Channel.objects.get(organization=service.organization)
    fresh = signing.new_webhook_secret()
    at = datetime.datetime.now(datetime.UTC)
    registry.rotate_key(channel=channel, secret=fresh, at=at)
    factories.joined(person, service, at)
    propagation.deliver_due(now=clock(at))
    (arrival,) = wired.of(service.organization)
    for secret in (fresh, wired.secrets[service.organization.code]):
        assert standardwebhooks.Webhook(secret).verify(arrival.body, arrival.headers)


@pytest.mark.parametrize(
    ("act", "event"),
    [
        ("pause", messages.CONSENT_PAUSED), ("withdraw", messages.CONSENT_WITHDRAWN), ("amend", messages.CONSENT_AMENDED),
    ],
)  # fmt: skip
def test_each_act_has_its_event(subscription, me, now, act, event):
    consent = subscription.consents.filter(kind="transfer").first()
    more = {"withdraw": {"erase": False}, "amend": {"cycle": "1/4w"}}.get(act, {})
    getattr(lifecycle, act)(consent, by=me, at=now, **more)
    rows = subscription.deliveries.filter(consent=consent)
    assert {row.event for row in rows} == {event}
    assert {row.organization_id for row in rows} == {subscription.operator_id, consent.source_id}
    assert {row.version for row in rows} == {2}


# --- the health of a channel ----------------------------------------------------------------------------------------------


def breaker_of(organization) -> Breaker:
    return Breaker.objects.get(channel__organization=organization)


def several(service, n: int, now) -> list[Delivery]:
    """The operator's messages of `n` joins."""
    return [operators(factories.joined(factories.PersonFactory(), service, now)) for _ in range(n)]


def run(now):
    return propagation.deliver_due(now=clock(now))


def test_five_failures_in_a_row_open_the_breaker_and_one_probe_closes_it(wired, service, now):
    several(service, 9, now)
    wired.answer = lambda arrival: 503 if arrival.path == f"/{service.organization.code}" else 200
    run(now)
    broken = breaker_of(service.organization)
    assert (broken.state, broken.wait, broken.open_until) == ("open", 60, now + 60 * SECOND)
    tried = len(wired.of(service.organization))
    assert 5 <= tried <= 8, "what was under way when it opened, and nothing after that"
    run(now + 59 * SECOND)
    assert len(wired.of(service.organization)) == tried, "closed to everybody while it is open"
    run(now + 61 * SECOND)
    assert len(wired.of(service.organization)) == tried + 1, "one probe"
    again = breaker_of(service.organization)
    assert (again.state, again.wait, again.open_until) == ("open", 120, now + (61 + 120) * SECOND)
    wired.answer = lambda arrival: 200
    run(now + 182 * SECOND)
    assert breaker_of(service.organization).state == "closed"
    run(now + 183 * SECOND)
    mine = Delivery.objects.filter(organization=service.organization)
    assert set(mine.values_list("state", flat=True)) == {"sent"}, "all that waited, at once"


def test_half_of_twenty_open_it_too_and_the_wait_doubles_to_a_quarter_of_an_hour(wired, service, now):
    channel = Channel.objects.get(organization=service.organization)
    health.note({channel.pk: ["sent", "retry"] * 10}, at=now)
    assert breaker_of(service.organization).state == "open"
    at = now
    for wait in (120, 240, 480, 900, 900):
        at = breaker_of(service.organization).open_until + SECOND
        health.note({channel.pk: ["retry"]}, at=at)
        assert breaker_of(service.organization).wait == wait
    health.note({channel.pk: ["refused"]}, at=at + 901 * SECOND)
    assert breaker_of(service.organization).state == "closed", "a refusal is an answer"


def test_a_healthy_channel_costs_no_row(wired, service, person, now):
    factories.joined(person, service, now)
    run(now)
    assert not Breaker.objects.exists()


def test_an_open_breaker_holds_no_stop_longer_than_a_quarter_of_an_hour(wired, service, me, now):
    subscription = factories.joined(factories.PersonFactory(), service, now)
    run(now)
    channel = Channel.objects.get(organization=service.organization)
    Breaker.objects.create(
        channel=channel, state="open", wait=900, open_until=now + datetime.timedelta(hours=9), changed_at=now
    )
    lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=now)
    run(now + datetime.timedelta(minutes=14))
    assert len(wired.of(service.organization)) == 1
    run(now + datetime.timedelta(minutes=16))
    assert len(wired.of(service.organization)) == 2


def test_an_address_its_owner_switched_off_is_left_alone_and_the_message_stays_open(wired, service, now, me):
    subscription = factories.joined(factories.PersonFactory(), service, now)
    wired.answer = lambda arrival: 410
    run(now)
    row = operators(subscription)
    assert (row.state, row.closed_at, breaker_of(service.organization).state) == (
        "retrying",
        None,
        "disabled",
    )
    run(now + datetime.timedelta(days=3))
    assert len(wired.of(service.organization)) == 1


def test_who_fetches_by_poll_is_not_called(service, person, now):
    registry.open_channel(organization=service.organization, protocol="poll", at=now)
    row = operators(factories.joined(person, service, now))
    assert row.state == "queued"
    assert row.pk not in {one.pk for one in propagation.claim(at=now + SECOND, limit=50)}


# --- given up, and yet not forgotten -----------------------------------------------------------------------------------------


def test_the_dead_are_tried_once_a_day_for_thirty_days(subscription, now):
    row = claimed(operators(subscription), at=now)
    propagation.record(row, Outcome(verdict="refused", status=403), at=now)
    days, at = 0, now
    while (row := Delivery.objects.get(pk=row.pk)).next_at:
        assert row.next_at == at + datetime.timedelta(days=1)
        at, days = row.next_at, days + 1
        row = claimed(row, at=at)
        propagation.record(row, Outcome(verdict="retry", status=500), at=at)
    assert (days, row.state, row.dead_at) == (30, "dead", now)
    assert EntryIndex.objects.filter(jti=row.jti, typ="delivery.dead").count() == 1


def test_a_dead_message_arrives_when_its_channel_is_well_again(wired, service, person, now):
    row = operators(factories.joined(person, service, now))
    propagation.record(claimed(row, at=now), Outcome(verdict="refused", status=403), at=now)
    channel = Channel.objects.get(organization=service.organization)
    health.note({channel.pk: ["retry"] * 5}, at=now)
    health.note({channel.pk: ["sent"]}, at=now + 61 * SECOND)
    run(now + 62 * SECOND)
    row.refresh_from_db()
    assert (row.state, row.sent_at) == ("sent", now + 62 * SECOND)


# --- once more ---------------------------------------------------------------------------------------------------------------


def test_a_replay_is_a_new_row_with_the_same_body_and_message_id(wired, service, person, me, now):
    subscription = factories.joined(person, service, now)
    run(now)
    first = operators(subscription)
    again = propagation.replay(first, by=me, at=now + SECOND)
    assert (again.pk != first.pk, again.jti != first.jti, again.body, again.replay_of) == (
        True, True, first.body, first,
    )  # fmt: skip
    with pytest.raises(propagation.AlreadyWaiting):
        propagation.replay(first, by=me, at=now + SECOND)
    run(now + 2 * SECOND)
    one, two = wired.of(service.organization)
    assert one.id == two.id == str(first.jti) and one.body == two.body
    again.refresh_from_db()
    assert (again.state, again.closed_at) == ("sent", now + 2 * SECOND)
    assert EntryIndex.objects.filter(jti=first.jti, typ="delivery.sent").count() == 1
    assert not EntryIndex.objects.filter(jti=again.jti).exists()


def test_a_healthy_party_does_not_wait_for_a_hanging_one(wired, service, person, now):
    """What comes in while one is still silent is claimed, sent and recorded."""
    released, code = threading.Event(), service.organization.code

    def answer(arrival):
        if arrival.path == f"/{code}":
            released.wait(10)
        return 200

    wired.answer = answer
    factories.joined(person, service, now)
    timer = threading.Timer(1.0, released.set)
    timer.start()
    before = time.monotonic()
    assert propagation.deliver_due(now=clock(now)) == 3
    assert time.monotonic() - before >= 0.9
    arrivals = {a.path: a.at for a in wired.arrivals}
    assert len(arrivals) == 3


def test_two_tries_of_one_row_that_come_in_together_are_one_step(subscription, now):
    """A try outlived its lease, the same worker made another: the later lease counts, and the log says it once."""
    first = claimed(operators(subscription), at=now)
    second = claimed(first, at=now + 46 * SECOND)
    both = [Attempt(second, Outcome("sent", status=200)), Attempt(first, Outcome("retry", status=500))]
    assert propagation.record_all(both, at=now + 47 * SECOND) == {first.pk}
    row = as_written(first)
    assert (row.state, row.http_status) == ("sent", 200)
    assert EntryIndex.objects.filter(jti=first.jti, typ="delivery.sent").count() == 1


def test_a_run_looks_a_route_up_once_and_follows_a_change_within_a_second(
    service, channels, monkeypatch, django_assert_num_queries
):
    lately, organization = routes.Lately(), service.organization_id
    with django_assert_num_queries(2):
        first = lately.routes([organization])[organization]
        assert lately.routes([organization])[organization] is first
    Channel.objects.filter(organization=organization).update(state="retired")
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 1.1)
    assert lately.routes([organization]) == {}


# --- several at once -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def together(wired, service):
    """The operator takes three messages in one request, and names in its answer what it has."""
    Channel.objects.filter(organization=service.organization).update(details={"together": "3"})

    def answer(arrival):
        data = arrival.message["data"]
        return 200, {}, json.dumps({"ack": [one["data"]["jti"] for one in data.get("messages", [])]})

    wired.answer = answer
    return wired


def joined_by(count, service, now) -> list[Delivery]:
    """The operator's deliveries of so many people who join."""
    return [operators(factories.joined(factories.PersonFactory(), service, now)) for _ in range(count)]


def test_what_waits_for_one_organization_goes_out_together(together, service, now):
    rows = joined_by(7, service, now)
    run(now)
    sizes = [
        len(arrival.message["data"].get("messages", [1])) for arrival in together.of(service.organization)
    ]
    assert sorted(sizes) == [1, 3, 3]
    states = Delivery.objects.filter(pk__in=[row.pk for row in rows]).values_list("state", flat=True)
    assert sorted(states) == ["received"] * 6 + ["sent"], "who travels alone was not named in the answer"
    others = {arrival.path for arrival in together.arrivals} - {f"/{service.organization.code}"}
    assert others and all(
        "messages" not in arrival.message["data"] for arrival in together.arrivals if arrival.path in others
    )


def test_named_in_the_answer_is_received_with_all_that_follows(together, service, person, me, now):
    """The same row, entry and deadline as if it had been acknowledged a moment later."""
    subscriptions = [factories.joined(factories.PersonFactory(), service, now) for _ in range(2)]
    Delivery.objects.update(state="sent", sent_at=now, next_at=None)
    for one in subscriptions:
        lifecycle.leave(one, erase=True, by=Actor.person(one.person), at=now)
    rows = [operators(one, event="subscription-ended") for one in subscriptions]
    later = now + 2 * SECOND
    run(later)
    told = [Delivery.objects.get(pk=row.pk) for row in rows]
    by_call = rows[0]
    answers.acknowledge(by_call.jti, organization=service.organization, by=me, at=later)  # no second step
    for row in told:
        assert (row.state, row.sent_at, row.received_at, row.closed_at) == ("received", later, later, None)
        assert row.due_at == propagation.deadline("stopped", created_at=row.created_at, goal=row.goal)
        assert row.check_at is not None and row.next_at is None
        entries = EntryIndex.objects.filter(jti=row.jti, typ__startswith="delivery.")
        assert list(entries.values_list("typ", flat=True)) == ["delivery.received"]
    assert not Lease.objects.exists() and not Outgoing.objects.filter(delivery__in=rows).exists()


def test_news_that_only_had_to_be_received_are_closed_by_the_answer(together, service, now):
    rows = joined_by(2, service, now)
    run(now)
    assert {(row.state, row.closed_at, row.due_at) for row in map(as_written, rows)} == {
        ("received", now, None)
    }


def test_the_answer_to_a_replay_answers_the_first(wired, service, person, me, now):
    first = operators(factories.joined(person, service, now))
    run(now)
    again = propagation.replay(first, by=me, at=now + SECOND)
    wired.answer = lambda arrival: (200, {}, json.dumps({"ack": [arrival.id]}))
    run(now + 2 * SECOND)
    first.refresh_from_db()
    again.refresh_from_db()
    assert (first.state, again.state) == ("received", "received") and again.closed_at
    assert EntryIndex.objects.filter(jti=first.jti, typ="delivery.received").count() == 1
    assert not EntryIndex.objects.filter(jti=again.jti).exists()


def test_an_acknowledgement_that_came_first_is_not_written_again(together, service, me, now):
    [row] = joined_by(1, service, now)
    held = claimed(row, at=now)
    answers.acknowledge(row.jti, organization=service.organization, by=me, at=now)
    assert not propagation.record(held, Outcome(verdict="received", status=200), at=now + SECOND)
    assert EntryIndex.objects.filter(jti=row.jti, typ="delivery.received").count() == 1


def test_one_bad_message_does_not_condemn_its_company(together, service, now):
    rows = joined_by(3, service, now)
    bad = str(rows[1].jti)
    takes = together.answer
    together.answer = lambda arrival: 400 if bad.encode() in arrival.body else takes(arrival)
    run(now)
    states = [as_written(row).state for row in rows]
    assert states[1] == "dead" and set(states[::2]) <= {"sent", "received"}


def test_who_takes_many_at_once_has_so_many_more_places(service, channels, now):
    each = 4
    Channel.objects.filter(organization=service.organization).update(details={"together": "5"})
    joined_by(25, service, now)
    held = propagation.claim(at=now, limit=50)
    per = Counter(row.organization_id for row in held)
    assert per.pop(service.organization_id) == 5 * each and set(per.values()) == {each}


def test_many_that_travel_together_weigh_as_much_as_one_that_travels_alone(
    service, channels, monkeypatch, now
):
    monkeypatch.setattr(propagation, "SHARE", 8)
    Channel.objects.filter(organization=service.organization).update(details={"together": "100"})
    joined_by(20, service, now)
    alone = Delivery.objects.exclude(organization=service.organization)
    alone.update(state="sent", sent_at=now, next_at=None)
    assert len(propagation.claim(at=now, limit=2)) == 16
    monkeypatch.setattr(propagation, "MOST_AT_ONCE", 3)
    assert len(propagation.claim(at=now, limit=50)) == 3


@pytest.mark.parametrize("given", ["0", "x", "1e3", "99999999999999999999", "-3", "007"])
def test_a_setting_that_nobody_checked_keeps_nothing_from_going_out(wired, service, now, given):
    Channel.objects.filter(organization=service.organization).update(details={"together": given})
    rows = joined_by(2, service, now)
    run(now)
    assert {as_written(row).state for row in rows} == {"sent"}
