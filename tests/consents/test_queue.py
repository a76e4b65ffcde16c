"""The queue is kept by the database: it has a row for each delivery that is to be tried, whoever moves it, and no other."""

import datetime
import random

import pytest
from django.db import connection

from consents import propagation
from consents.models import Delivery, Lease, Outgoing
from tests import factories

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def deliveries(person, now) -> list[Delivery]:
    service = factories.offered()
    factories.ChannelFactory(
        organization=service.organization, protocol="native", address="https://nobody.example/hook"
    )
    return list(factories.joined(person, service, now).deliveries.order_by("pk"))


def expected() -> set[tuple]:
    waiting = Delivery.objects.filter(state__in=["queued", "retrying", "dead"], next_at__isnull=False)
    return {
        (
            row.pk, row.organization_id, row.subscription_id, row.next_at, row.state != "dead",
            None if row.goal == "received" else row.created_at,
        )
        for row in waiting
    }  # fmt: skip


def queue() -> set[tuple]:
    return set(
        Outgoing.objects.values_list(
            "delivery_id", "organization_id", "subscription_id", "next_at", "in_order", "stop_since"
        )
    )


def test_what_is_owed_is_in_the_queue_and_what_waits_at_a_desk_is_not(deliveries):
    assert queue() == expected() and len(queue()) == 1 < len(deliveries)


@pytest.mark.parametrize("seed", range(12))
def test_the_queue_follows_every_way_in_which_a_delivery_may_move(deliveries, now, seed):
    """By row, by query and by raw SQL; also where only the moment of the next try changes."""
    dice = random.Random(seed)
    for step in range(25):
        row = Delivery.objects.get(pk=dice.choice(deliveries).pk)
        if row.state in ("sent", "received"):
            continue
        state = dice.choice(["queued", "retrying", "dead", "manual", "checking", *["sent"][: step // 20]])
        moment = (
            now + dice.randint(0, 99) * HOUR
            if state in ("queued", "retrying") or dice.random() < 0.5
            else None
        )
        change = {
            "state": state,
            "next_at": moment,
            "dead_at": now,
            "sent_at": now if state == "sent" else None,
        }
        match dice.randint(0, 2):
            case 0:
                Delivery.objects.filter(pk=row.pk).update(**change)
            case 1:
                for name, value in change.items():
                    setattr(row, name, value)
                row.save()
            case 2:
                with connection.cursor() as cursor:
                    cursor.execute(
                        "UPDATE consents_delivery SET state = %s, next_at = %s, dead_at = %s, sent_at = %s WHERE id = %s",
                        [*change.values(), row.pk],
                    )
        assert queue() == expected(), (state, moment)


def test_a_lease_about_nothing_that_waits_is_forgotten_when_it_is_over(deliveries, now):
    (waiting,) = propagation.claim(at=now, limit=10)
    Delivery.objects.filter(pk=waiting.pk).update(state="received", received_at=now, next_at=None)
    assert Lease.objects.filter(pk=waiting.pk).exists(), "it is still in the worker's hands"
    propagation.claim(at=now + HOUR, limit=10)
    assert not Lease.objects.exists()
