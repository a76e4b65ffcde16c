"""A regular flow that stops wholly: told once to the person, after three missed cycles, and taken back when data comes again."""

import datetime
import uuid

import pytest

from consents import jobs, lifecycle, silences, speedbump, transfers
from consents.actors import Actor
from consents.models import Consent
from tests import factories

pytestmark = pytest.mark.django_db
DAY = datetime.timedelta(days=1)
WEEK = 7 * DAY
BY = Actor.system("test")


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "silence-keys"


@pytest.fixture
def consent(person, now) -> Consent:
    """Data comes once a week, and is 100 days old by `now`."""
    subscription = factories.joined(person, factories.offered(), now - 100 * DAY)
    consent = subscription.consents.filter(kind="transfer", required=True).select_related("source").get()
    Consent.objects.filter(pk=consent.pk).update(cycle="1/1w")
    consent.refresh_from_db()
    return consent


def came(consent: Consent, *moments, regular=True) -> None:
    operator = consent.subscription.operator
    rows = [
        transfers.Row(str(uuid.uuid4()), consent.subscription_id, at, consent=consent.pk, regular=regular)
        for at in moments
    ]
    transfers.report(rows, organization=operator, by=Actor.organization(operator), at=max(moments))


def told(at) -> int:
    return silences.raise_due(by=BY, at=at)


def weekly(consent, last) -> None:
    came(consent, *(last - n * WEEK for n in range(4)))


def test_three_missed_cycles_are_told_once(consent, person, now):
    weekly(consent, now)
    assert told(now + 3 * WEEK) == 0, "the third may still come today"
    assert told(now + 3 * WEEK + DAY) == 1
    notice = person.notices.get(kind="lost")
    assert consent.source.name_ko in notice.reason_ko and notice.subscription_id == consent.subscription_id
    assert told(now + 3 * WEEK + DAY) == told(now + 9 * WEEK) == 0 and person.notices.count() == 1
    speedbump.raise_due(by=BY, at=now + 4 * WEEK)
    assert person.notices.get(kind="lost").answer == "", "the daily review leaves it alone"


@pytest.mark.parametrize("cycle", ["1/2w", "1/4w"])
def test_a_rarer_cycle_has_longer_patience(consent, now, cycle):
    weeks = int(cycle[2])
    came(consent, *(now - n * WEEK * weeks for n in range(3)))
    Consent.objects.filter(pk=consent.pk).update(cycle=cycle)
    assert told(now + 3 * weeks * WEEK) == 0
    assert told(now + 3 * weeks * WEEK + DAY) == 1


def test_what_never_came_regularly_is_not_missed(consent, now):
    assert told(now) == 0, "nothing ever came"
    came(consent, now - 2 * WEEK, now)
    assert told(now + 9 * WEEK) == 0, "twice is no rule"
    came(consent, now - 10 * WEEK)
    assert told(now + 9 * WEEK) == 0, "three times in ten weeks neither"
    came(consent, *(now - n * DAY for n in range(4)), regular=False)
    assert told(now + 9 * WEEK) == 0, "what the person asked for is no rule"


@pytest.mark.parametrize("change", [{"cycle": ""}, {"state": "paused"}, {"state": "ended"}])
def test_only_a_live_consent_with_a_cycle_is_looked_at(consent, person, me, now, change):
    weekly(consent, now)
    if change == {"cycle": ""}:
        Consent.objects.filter(pk=consent.pk).update(**change)
    elif change == {"state": "paused"}:
        lifecycle.pause(consent, by=me, at=now)
    else:
        lifecycle.withdraw(consent, erase=False, by=me, at=now)
    assert told(now + 9 * WEEK) == 0


def test_while_it_was_paused_nothing_could_come(consent, me, now):
    weekly(consent, now)
    lifecycle.pause(consent, by=me, at=now + DAY)
    lifecycle.resume(consent, by=me, at=now + 5 * WEEK)
    assert told(now + 6 * WEEK) == 0
    assert told(now + 8 * WEEK + DAY) == 1


def test_what_comes_again_takes_it_back_and_a_second_silence_is_told_anew(consent, person, now):
    weekly(consent, now)
    told(now + 4 * WEEK)
    came(consent, now - 5 * WEEK)
    assert person.notices.get(kind="lost").answer == "", "that was from before"
    weekly(consent, now + 8 * WEEK)
    assert person.notices.get(kind="lost").answer == "gone"
    assert told(now + 12 * WEEK) == 1
    assert person.notices.filter(kind="lost").count() == 2


def test_an_answer_stands(consent, person, now):
    weekly(consent, now)
    told(now + 4 * WEEK)
    speedbump.answer(notice=person.notices.get(kind="lost"), answer="kept", by=BY, at=now + 4 * WEEK)
    assert told(now + 5 * WEEK) == 0 and person.notices.filter(kind="lost").count() == 1


def test_batches_look_at_everybody(consent, person, now, monkeypatch):
    monkeypatch.setattr(silences, "BATCH", 1)
    other = consent.subscription.consents.filter(kind="transfer", required=False).get()
    Consent.objects.filter(pk=other.pk).update(cycle="1/1w")
    for one in (consent, other):
        weekly(one, now)
    assert told(now + 4 * WEEK) == 2


def test_the_nightly_job_looks(consent):
    assert jobs.warn()["silent"] == 0
