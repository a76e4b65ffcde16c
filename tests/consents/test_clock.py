"""One clock for all: the database's, whatever this process's own says, and whatever is done to it meanwhile."""

import datetime

import pytest
import time_machine
from django.utils import timezone

from consents import clock, lifecycle
from consents.actors import Actor
from consents.models import Delivery
from tests import factories

pytestmark = pytest.mark.django_db
HOUR, SECONDS = datetime.timedelta(hours=1), datetime.timedelta(seconds=10)


@pytest.mark.parametrize("wrong_by", [HOUR, -HOUR], ids=["ahead", "behind"])
def test_a_process_whose_clock_is_wrong_works_by_the_databases(wrong_by):
    right = timezone.now()
    with time_machine.travel(right + wrong_by, tick=True):
        assert abs(clock.now() - right) < SECONDS
        assert abs(clock.running()() - right) < SECONDS
        assert abs(clock.skew() - wrong_by) < SECONDS


def test_a_clock_that_is_turned_while_a_job_runs_changes_nothing():
    now, right = clock.running(), timezone.now()
    with time_machine.travel(right + 3 * HOUR, tick=True):
        assert abs(now() - right) < SECONDS


def test_a_stop_that_a_web_process_dates_in_the_future_waits_for_nobody(person):
    """F13: what is due is due by whichever clock is behind."""
    now = timezone.now()
    service = factories.offered()
    factories.ChannelFactory(
        organization=service.organization, protocol="native", address="https://nobody.example/hook"
    )
    subscription = factories.joined(person, service, now)
    with time_machine.travel(now + HOUR, tick=True):
        lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    stops = Delivery.objects.filter(
        subscription=subscription, event="subscription-ended", next_at__isnull=False
    )
    assert stops.exists() and not stops.filter(next_at__gt=clock.now()).exists()
