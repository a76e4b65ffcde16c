"""The gym: well-behaved servers pass, each kind of fault fails its trial, a badge counts for one channel at one address."""

import datetime
import json
import threading
import uuid

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from consents import gym, trials
from consents.actors import Actor
from consents.models import Delivery, EntryIndex, GymMessage, GymRun, Subscription
from providers import registry
from providers.models import Channel
from tests import factories
from tests.consents.api.conftest import of

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
BY = Actor.system("test")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trials as they are, only not as long."""
    monkeypatch.setattr(trials, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(trials, "SLOW_ANSWER_SECONDS", 10.0)
    monkeypatch.setattr(trials, "ANSWER_SECONDS", 8.0)
    monkeypatch.setattr(gym, "ACK_SECONDS", 20.0)
    monkeypatch.setattr(gym, "QUIET_SECONDS", 0.3)


def browser(person):
    made = Client()
    made.force_login(person, backend=BACKEND)
    return made


def asked(organization, at=None) -> GymRun:
    channel = organization.channels.exclude(state="retired").get()
    return gym.ask(channel, by=BY, at=at or timezone.now())


def fought(run: GymRun) -> dict[str, dict]:
    """The results of a run by trial, after the job."""
    assert gym.run_next(now=timezone.now) == 1
    run.refresh_from_db()
    return {one["name"]: one for one in run.results}


@pytest.fixture
def operator(partners):
    service = factories.offered()
    partners.connect(service.organization)
    return service.organization


# --- who passes, who does not ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_well_behaved_server_passes_and_no_subscription_is_touched(partners, operator, person):
    subscription = factories.joined(person, operator.services.get())
    before = list(Subscription.objects.values()), Delivery.objects.count(), EntryIndex.objects.count()
    held = partners.held()
    run = asked(operator)
    results = fought(run)
    assert {name: one["passed"] for name, one in results.items()} == dict.fromkeys(
        trials.names("native"), True
    )
    assert run.passed and run.valid_until - run.finished_at == datetime.timedelta(days=365)
    assert gym.badge(run.channel, at=timezone.now()) == run
    assert (list(Subscription.objects.values()), Delivery.objects.count(), EntryIndex.objects.count()) == before
    assert partners.held() == held and subscription.state == "active"
    storm = run.messages.get(trial="storm")
    assert storm.asked == gym.TURNED_AWAY + 1
    assert all(answer["ms"] >= 0 for one in results.values() for answer in one["answers"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("trusting", {*trials.FORGED}),
        ("silent", {"good", "storm"}),
        ("error", {*trials.names("native")} - {"slow"}),
    ],
)
def test_each_fault_fails_its_trials(partners, operator, fault, failing):
    partners.fault(operator, fault)
    run = asked(operator)
    results = fought(run)
    assert failing <= {name for name, one in results.items() if one["passed"] is False}
    assert not run.passed and run.valid_until is None and run.finished_at
    assert gym.badge(run.channel, at=timezone.now()) is None
    if fault == "silent":
        assert {name for name, one in results.items() if not one["passed"]} == failing
        assert results["good"]["detail"] == trials.NO_ACK
    if fault == "trusting":
        assert results["unknown_key"]["detail"] in {trials.TAKEN, trials.FORGERY_ACKED}
        assert results["good"]["passed"] and results["storm"]["passed"]
