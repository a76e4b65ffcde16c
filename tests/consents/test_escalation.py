"""The ladder of a late stop: each step once, at its time, to whom the policy names."""

import datetime

import pytest
from django.core import mail as letters
from django.utils import timezone

from consents import answers, clock, escalation, jobs, lifecycle, mail, polling, propagation
from consents.actors import Actor
from consents.models import Breaker, Delivery, EntryIndex, Escalation, Notice
from providers import policy
from providers.models import Channel, Organization, PolicyRule
from providers.wires import Outcome
from tests import factories

pytestmark = pytest.mark.django_db
BY = Actor.system("escalate")
MINUTE, HOUR, DAY = datetime.timedelta(minutes=1), datetime.timedelta(hours=1), datetime.timedelta(days=1)


@pytest.fixture
def now():
    return timezone.now()


@pytest.fixture
def stopped(now):
    """A subscription that was left with erasure; nobody has been told yet."""
    service = factories.offered()
    items = service.terms.get(state="published").items.all()
    for party in [service.organization, *(i.source or i.recipient for i in items if i.source or i.recipient)]:
        factories.ChannelFactory(organization=party, protocol="native", address="https://hook.example/x")
    subscription = factories.joined(factories.PersonFactory(), service, now - HOUR)
    lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=now)
    return subscription


def operators(subscription) -> Delivery:
    return subscription.deliveries.get(event="subscription-ended", role="operator")


def steps(delivery) -> list[str]:
    return list(delivery.escalations.values_list("step", flat=True))


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (59 * datetime.timedelta(seconds=1), []),
        (MINUTE, ["not_sent"]),
        (15 * MINUTE, ["not_sent", "duty_contact"]),
        (24 * HOUR, ["not_sent", "duty_contact", "not_received", "not_stopped"]),
        (7 * DAY, ["not_sent", "duty_contact", "not_received", "not_stopped", "not_erased"]),
    ],
)
def test_each_step_comes_at_its_time_and_once(stopped, now, after, told):
    for _ in range(3):
        escalation.raise_due(by=BY, at=now + after)
    assert steps(operators(stopped)) == told


def test_a_step_that_was_reached_is_not_complained_about(stopped, now):
    row = operators(stopped)
    own = row.organization
    propagation.record(
        next(one for one in propagation.claim(at=now, limit=50) if one.pk == row.pk), Outcome("sent"), at=now
    )
    answers.acknowledge(row.jti, organization=own, by=Actor.organization(own), at=now + MINUTE)
    escalation.raise_due(by=BY, at=now + 25 * HOUR)
    assert steps(row) == ["not_stopped"]


def test_who_was_only_to_stop_is_not_asked_to_erase(stopped, now):
    source = stopped.deliveries.filter(event="subscription-ended", role="source").first()
    escalation.raise_due(by=BY, at=now + 8 * DAY)
    assert "not_erased" not in steps(source) and "not_stopped" in steps(source)


def test_news_about_a_grant_escalates_nothing(now):
    subscription = factories.joined(factories.PersonFactory(), factories.offered(), now)
    escalation.raise_due(by=BY, at=now + 8 * DAY)
    assert subscription.deliveries.exists() and not Escalation.objects.exists()


def test_the_person_is_told_when_the_erasure_is_late(stopped, now):
    escalation.raise_due(by=BY, at=now + 7 * DAY)
    notices = Notice.objects.filter(person=stopped.person, kind="overdue", answer="")
    told = stopped.deliveries.filter(event="subscription-ended", goal="erased")
    assert notices.count() == told.count() >= 1
    notice = notices.get(matter=f"overdue {operators(stopped).jti}")
    assert notice.urgent and "7일" in notice.reason_ko and "7 days" in notice.reason_en


def test_a_message_that_was_given_up_is_for_people_at_once(stopped, now):
    row = operators(stopped)
    claimed = next(one for one in propagation.claim(at=now, limit=50) if one.pk == row.pk)
    propagation.record(claimed, Outcome("refused", status=403), at=now)
    escalation.raise_due(by=BY, at=now)
    assert steps(row) == ["dead"]


def test_one_letter_to_each_duty_contact(stopped, now, monkeypatch):
    monkeypatch.setattr(clock, "now", lambda: now + 20 * MINUTE)
    jobs.escalate()
    jobs.escalate()
    waiting = Delivery.objects.filter(event="subscription-ended").values_list(
        "organization__duty_contact", flat=True
    )
    assert sorted(to for letter in letters.outbox for to in letter.to) == sorted(waiting)
    assert all("1건" in letter.body and "/desk/" in letter.body for letter in letters.outbox)


def test_the_ladder_costs_no_query_a_row(now, django_assert_max_num_queries):
    service = factories.offered()
    for _ in range(6):
        left = factories.joined(factories.PersonFactory(), service, now - HOUR)
        lifecycle.leave(left, erase=True, by=Actor.person(left.person), at=now)
    with django_assert_max_num_queries(45):
        assert len(escalation.raise_due(by=BY, at=now + 25 * HOUR)) > 40


def test_what_waits_in_an_inbox_gets_its_letter_at_once_and_another_after_a_day(now, monkeypatch):
    left = factories.joined(factories.PersonFactory(), factories.offered(), now - HOUR)
    lifecycle.leave(left, erase=True, by=Actor.person(left.person), at=now)
    admin = factories.MemberFactory(organization=left.operator).person
    assert operators(left).state == "manual"
    monkeypatch.setattr(clock, "now", lambda: now)
    for _ in range(2):
        jobs.escalate()
    assert steps(operators(left)) == ["letter"]
    (letter,) = [one for one in letters.outbox if left.operator.duty_contact in one.to]
    assert letter.to == [left.operator.duty_contact]
    assert str(operators(left).jti) in letter.body and "/desk/links/" in letter.body
    letters.outbox.clear()
    monkeypatch.setattr(clock, "now", lambda: now + 23 * HOUR)
    assert jobs.escalate() == 0 and not letters.outbox
    monkeypatch.setattr(clock, "now", lambda: now + 24 * HOUR)
    jobs.escalate()
    assert steps(operators(left)) == ["letter", "not_received", "not_stopped"]
    told = [to for one in letters.outbox for to in one.to]
    assert told.count(left.operator.duty_contact) == told.count(admin.email) == 1, "a second reader"


def test_a_letter_names_a_few_stops_and_the_number_of_all(now, monkeypatch):
    service = factories.offered()
    for _ in range(mail.MOST_STOPS + 2):
        left = factories.joined(factories.PersonFactory(), service, now - HOUR)
        lifecycle.leave(left, erase=True, by=Actor.person(left.person), at=now)
    monkeypatch.setattr(clock, "now", lambda: now)
    jobs.escalate()
    (letter,) = [one for one in letters.outbox if service.organization.duty_contact in one.to]
    assert letter.body.count("/desk/links/") == mail.MOST_STOPS
    assert f"{mail.MOST_STOPS + 2}건" in letter.body


def test_who_has_no_duty_contact_is_told_through_its_admins(now, monkeypatch):
    service = factories.offered()
    admins = {factories.MemberFactory(organization=service.organization).person.email for _ in range(2)}
    Organization.objects.filter(pk=service.organization.pk).update(duty_contact="")
    left = factories.joined(factories.PersonFactory(), service, now - HOUR)
    lifecycle.leave(left, erase=True, by=Actor.person(left.person), at=now)
    monkeypatch.setattr(clock, "now", lambda: now)
    jobs.escalate()
    assert admins <= {to for one in letters.outbox for to in one.to}


@pytest.mark.parametrize("why", ["disabled", "poll"])
def test_what_nobody_is_called_about_is_for_people_after_seventy_five_hours(stopped, now, why):
    """The address was switched off, or they fetch by poll and do not: there are no tries that could end."""
    row = operators(stopped)
    channel = Channel.objects.get(organization=row.organization)
    if why == "poll":
        Channel.objects.filter(pk=channel.pk).update(protocol="poll")
    else:
        Breaker.objects.create(channel=channel, state="disabled", changed_at=now)
    escalation.raise_due(by=BY, at=now + 75 * HOUR + 34 * MINUTE)
    assert "dead" not in steps(row)
    for _ in range(2):
        escalation.raise_due(by=BY, at=now + 75 * HOUR + 35 * MINUTE)
    row.refresh_from_db()
    assert row.state == "dead" and steps(row).count("dead") == 1
    assert EntryIndex.objects.filter(typ="delivery.dead").count() == 1, "and nobody else's, who are called"
    factories.api_client(row.organization)
    offered, _more = polling.offer(row.organization, most=10, by=BY, at=now + 76 * HOUR)
    assert str(row.jti) in offered


def test_a_rule_that_changes_later_moves_no_clock_that_runs(stopped, now):
    row, tomorrow = operators(stopped), (now + DAY).date()
    for key, value in (("RECEIVED_REGULATOR_HOURS", 1), ("STOPPED_WITHIN_HOURS", 99)):
        PolicyRule.objects.create(
            key=key, value=value, unit="hours", effective_on=tomorrow, source="a new rule"
        )
    policy.forget()
    try:
        escalation.raise_due(by=BY, at=now + 24 * HOUR - MINUTE)
        assert not {"not_received", "not_stopped"} & set(steps(row)), (
            "not yet, though the new rule says one hour"
        )
        escalation.raise_due(by=BY, at=now + 24 * HOUR)
        assert {"not_received", "not_stopped"} <= set(steps(row)), "though the new rule allows longer"
        Delivery.objects.filter(pk=row.pk).update(created_at=now + DAY)
        row.escalations.all().delete()
        escalation.raise_due(by=BY, at=now + DAY + 25 * HOUR)
        assert "not_received" in steps(row) and "not_stopped" not in steps(row), "who came after it"
    finally:
        policy.forget()
