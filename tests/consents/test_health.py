"""Verification events: every channel is tested daily, after a change, and as the probe of an open breaker."""

import datetime
import json
import threading
import uuid
from types import SimpleNamespace

import pytest
from django.db import connection
from django.utils import timezone

from consents import health, lifecycle, propagation, recording, sending
from consents.actors import Actor
from consents.models import Breaker, Delivery
from providers import registry
from providers.models import Channel
from providers.wires import Outcome
from tests import factories
from tests.receivers import receiving

pytestmark = pytest.mark.django_db
MINUTE, DAY = datetime.timedelta(minutes=1), datetime.timedelta(days=1)


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def receiver(settings):
    with receiving(settings) as running:
        running.answer = repeats
        yield running


def repeats(arrival):
    """What a good receiver answers to a verification event: its `state`."""
    return 200, {}, json.dumps({"state": arrival.message["data"]["state"]})


@pytest.fixture
def channel(receiver):
    organization = factories.OperatorFactory()
    receiver.connect(organization)
    return Channel.objects.get(organization=organization)


def verify(at) -> int:
    return health.verify_due(now=lambda: at)


def test_a_channel_is_tested_once_a_day(receiver, channel, now):
    assert verify(now) == 1
    assert Breaker.objects.get(channel=channel).verified_at == now
    assert verify(now + DAY - MINUTE) == 0
    assert verify(now + DAY) == 1
    first, second = receiver.arrivals
    assert first.message["type"] == "verification"
    assert first.message["data"]["state"] != second.message["data"]["state"], "a new random text each time"


def test_an_answer_that_does_not_repeat_the_state_is_a_failure(receiver, channel, now):
    receiver.answer = lambda arrival: (200, {}, '{"state": "something else"}')
    verify(now)
    breaker = Breaker.objects.get(channel=channel)
    assert (breaker.verified_at, breaker.in_row, breaker.recent) == (None, 1, "x")


def test_a_test_that_failed_is_made_again_after_a_while_and_opens_the_breaker_in_the_end(
    receiver, channel, now
):
    receiver.answer = lambda arrival: 500
    for asked in range(1, 6):
        assert not Breaker.objects.filter(state="open").exists()
        at = now + asked * 10 * MINUTE
        assert verify(at) == 1
        assert verify(at + 9 * MINUTE) == 0 or asked == 5, "not hammered"
    assert Breaker.objects.get(channel=channel).state == "open"
    assert len(receiver.arrivals) == 6, "five tests, and the probe of the open breaker"


def test_an_open_breaker_is_probed_when_its_time_is_over(receiver, channel, now):
    health.note({channel.pk: ["retry"] * 5}, at=now)
    assert verify(now + MINUTE - datetime.timedelta(seconds=1)) == 0
    assert verify(now + MINUTE) == 1
    assert Breaker.objects.get(channel=channel).state == "closed"


def test_each_probe_that_fails_doubles_the_opening_up_to_a_quarter_of_an_hour(receiver, channel, now):
    health.note({channel.pk: ["retry"] * 5}, at=now)
    at, openings = now, []
    for _ in range(6):
        breaker = Breaker.objects.get(channel=channel)
        openings.append((breaker.open_until - at).total_seconds())
        at = breaker.open_until
        health.note({channel.pk: ["retry"]}, at=at)
    assert openings == [60, 120, 240, 480, 900, 900]
    health.note({channel.pk: ["sent"]}, at=at)
    assert Breaker.objects.get(channel=channel).state == "closed"
    health.note({channel.pk: ["retry"] * 5}, at=at)
    assert Breaker.objects.get(channel=channel).open_until == at + MINUTE, "it begins anew"


def test_half_of_the_last_twenty_open_it_though_no_five_fail_in_a_row(channel, now):
    health.note({channel.pk: ["retry", "sent"] * 9}, at=now)
    assert Breaker.objects.get(channel=channel).state == "closed", "eighteen are not twenty"
    health.note({channel.pk: ["sent", "retry"]}, at=now)
    assert Breaker.objects.get(channel=channel).state == "open"


def test_whoever_is_well_again_is_sent_what_waits_and_what_was_given_up(receiver, now):
    service = factories.offered()
    items = service.terms.get(state="published").items.all()
    parties = {item.source or item.recipient for item in items if item.source or item.recipient}
    receiver.connect(service.organization, *parties)
    subscription = factories.joined(factories.PersonFactory(), service, now)
    propagation.deliver_due(now=lambda: now)
    lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=now)
    stops = Delivery.objects.filter(subscription=subscription, event="subscription-ended")
    assert stops.update(state="dead", dead_at=now, next_at=now + DAY) > 1
    channel = Channel.objects.get(organization=service.organization)
    health.note({channel.pk: ["retry"] * 5}, at=now)
    health.note({channel.pk: ["sent"]}, at=now + MINUTE)
    due = stops.filter(next_at=now + MINUTE).values_list("organization", flat=True)
    assert list(due) == [service.organization.pk], "and nobody else's"
    stops.filter(state="dead").update(next_at=None)  # tried daily for a month
    health.note({channel.pk: ["retry"] * 5}, at=now + 40 * DAY)
    health.note({channel.pk: ["sent"]}, at=now + 40 * DAY + MINUTE)
    assert stops.get(next_at__isnull=False).next_at == now + 40 * DAY + MINUTE, "once more all the same"


def test_protocols_without_such_an_event_and_closed_channels_are_left_alone(receiver, now):
    registry.open_channel(organization=factories.OperatorFactory(), protocol="desk", at=now)
    registry.open_channel(
        organization=factories.OperatorFactory(), protocol="uk", address="https://bank.example/x", at=now
    )
    retired = registry.open_channel(
        organization=factories.OperatorFactory(), protocol="native", address="https://x.example/h", at=now
    )
    registry.retire_channel(channel=retired, at=now)
    assert verify(now) == 0


def test_an_address_that_was_switched_off_is_not_asked_again(receiver, channel, now):
    receiver.answer = lambda arrival: 410
    verify(now)
    assert Breaker.objects.get(channel=channel).state == "disabled"
    assert verify(now + 3 * DAY) == 0


def test_a_bug_in_a_wire_is_a_failed_test(receiver, channel, now, monkeypatch):
    from providers.wires import native

    async def broken(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(native, "challenge", broken)
    assert verify(now) == 1
    assert Breaker.objects.get(channel=channel).in_row == 1


@pytest.mark.django_db(transaction=True)
def test_failures_from_many_workers_at_once_are_all_counted(receiver, now):
    organization = factories.OperatorFactory()
    receiver.connect(organization)
    channel = Channel.objects.get(organization=organization)

    def fail():
        try:
            health.note({channel.pk: ["retry"]}, at=now)
        finally:
            connection.close()

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert Breaker.objects.get(channel=channel).in_row == 4


def test_what_was_never_sent_says_nothing_about_a_channel():
    """A message without a name for what it ends must not close the breaker of an endpoint that is down."""
    row, channel = SimpleNamespace(organization_code="BKNEUT9001", jti=uuid.uuid4()), uuid.uuid4()
    tries = [
        Outcome("refused", detail="the message names no consent"),
        Outcome("refused", 403),
        Outcome("retry"),
    ]
    heard = recording._heard([sending.Attempt(row, outcome, channel) for outcome in tries])
    assert heard == {channel: ["refused", "retry"]}
