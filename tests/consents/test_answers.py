"""What organizations answer: received, stopped, erased, kept; early, late, twice, in the wrong order, about others."""

import datetime
import uuid

import pytest
from django.db import IntegrityError, transaction

from consents import answers, ledger, lifecycle, propagation, steps
from consents.actors import Actor
from consents.models import Consent, Delivery, EntryIndex, Evidence, Promise, Subscription
from tests import factories

pytestmark = pytest.mark.django_db
HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def left(person, me, now) -> Subscription:
    """Left with erasure asked; everybody is told over the desk."""
    return lifecycle.leave(factories.joined(person, at=now), erase=True, by=me, at=now)


def owed(subscription, role="operator", event="subscription-ended") -> Delivery:
    return subscription.deliveries.filter(role=role, event=event).first()


def evidence(status, jti=None, *, at) -> Evidence:
    return Evidence(
        jti=jti or uuid.uuid4().hex, status=status, means="signed", digest="sha256:" + "0" * 64, document="a.b.c", stated_at=at,
    )  # fmt: skip


def says(delivery, status, *, at, jti=None, basis=""):
    organization = delivery.organization
    return answers.complete(
        delivery.jti, organization=organization, evidence=evidence(status, jti, at=at), basis=basis or ("상법 33조" if status == "retained" else ""),
        by=Actor.organization(organization), at=at,
    )  # fmt: skip


def heard(delivery, *, at):
    organization = delivery.organization
    return answers.acknowledge(
        delivery.jti, organization=organization, by=Actor.organization(organization), at=at
    )


def entries(delivery) -> list[str]:
    return list(EntryIndex.objects.filter(jti=delivery.jti).order_by("seq").values_list("typ", flat=True))


# --- received ------------------------------------------------------------------------------------------------------------


def test_several_are_acknowledged_at_once_each_with_its_entry_and_others_ids_are_told(left, now):
    own = owed(left).organization
    mine = list(Delivery.objects.filter(organization=own).order_by("pk"))
    strangers = {Delivery.objects.exclude(organization=own).first().jti, uuid.uuid4()}
    asked = {row.jti for row in mine} | strangers
    by = Actor.organization(own)
    assert steps.acknowledge_all(asked, organization=own, by=by, at=now + HOUR) == strangers
    assert steps.acknowledge_all(asked, organization=own, by=by, at=now + 2 * HOUR) == strangers
    for row in mine:
        row.refresh_from_db()
        assert row.received_at == now + HOUR and row.next_at is None
        assert entries(row).count("delivery.received") == 1
        assert row.closed_at == (now + HOUR if row.goal == "received" else None)
    acts = {row.txn for row in mine}
    said = EntryIndex.objects.filter(typ="delivery.received", txn__in=acts).values("event_id")
    assert Promise.objects.filter(event_id__in=said).count() == len(acts) > 1, "each act has its promise"
    assert steps.acknowledge_all(set(), organization=own, by=by, at=now) == set()


def test_what_is_acknowledged_is_not_sent_once_more(left, now):
    """A replay that waits is answered by the answer to its first."""
    delivery = owed(left)
    Delivery.objects.filter(pk=delivery.pk).update(state="sent", sent_at=now)
    again = propagation.replay(delivery, by=Actor.organization(delivery.organization), at=now)
    heard(delivery, at=now + HOUR)
    again.refresh_from_db()
    assert (again.state, again.next_at, again.closed_at) == ("received", None, now + HOUR)


def test_an_acknowledgement_moves_the_row_and_its_deadline(left, now):
    delivery = owed(left)
    heard(delivery, at=now + HOUR)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.received_at) == ("received", now + HOUR)
    assert delivery.due_at == now + 24 * HOUR and delivery.closed_at is None
    assert entries(delivery) == ["delivery.received"]


def test_a_double_acknowledgement_is_fine_and_writes_once(left, now):
    delivery = owed(left)
    first = heard(delivery, at=now + HOUR)
    again = heard(delivery, at=now + 2 * HOUR)
    assert first.received_at == again.received_at == now + HOUR
    assert entries(delivery) == ["delivery.received"]


def test_an_acknowledgement_after_the_evidence_changes_nothing(left, now):
    delivery = owed(left)
    says(delivery, "stopped", at=now + HOUR)
    heard(delivery, at=now + 2 * HOUR)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.received_at) == ("stopped", now + HOUR)
    assert entries(delivery) == ["delivery.stopped"]


def test_news_are_done_when_received(person, now):
    delivery = owed(factories.joined(person, at=now), event="consent-granted")
    heard(delivery, at=now)
    delivery.refresh_from_db()
    assert (delivery.closed_at, delivery.due_at) == (now, None)


@pytest.mark.parametrize("state", ["queued", "retrying", "checking", "dead", "manual", "sent"])
def test_an_acknowledgement_is_taken_in_every_state(left, now, state):
    delivery = owed(left)
    Delivery.objects.filter(pk=delivery.pk).update(
        state=state, next_at=now if state in ("queued", "retrying") else None, sent_at=now if state == "sent" else None,
        dead_at=now if state == "dead" else None,
        last_error="HTTP 500",
    )  # fmt: skip
    heard(delivery, at=now + HOUR)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.next_at, delivery.last_error) == (
        "received",
        None,
        "",
    )


def test_another_organizations_delivery_does_not_exist(left, now):
    delivery, stranger = owed(left), factories.OperatorFactory()
    with pytest.raises(answers.UnknownDelivery):
        answers.acknowledge(delivery.jti, organization=stranger, by=Actor.organization(stranger), at=now)
    with pytest.raises(answers.UnknownDelivery):
        answers.complete(
            delivery.jti,
            organization=stranger,
            evidence=evidence("stopped", at=now),
            by=Actor.organization(stranger),
            at=now,
        )
    with pytest.raises(answers.UnknownDelivery):
        answers.acknowledge(uuid.uuid4(), organization=delivery.organization, by=Actor.system("test"), at=now)
    delivery.refresh_from_db()
    assert delivery.state == "manual" and not entries(delivery) and not Evidence.objects.exists()


# --- stopped and erased ----------------------------------------------------------------------------------------------------


def test_the_whole_ladder(left, now):
    delivery = owed(left)
    heard(delivery, at=now + HOUR)
    says(delivery, "stopped", at=now + 2 * HOUR)
    delivery.refresh_from_db()
    assert delivery.due_at == now + datetime.timedelta(days=7) and left.holds
    says(delivery, "erased", at=now + 3 * HOUR)
    delivery.refresh_from_db()
    left.refresh_from_db()
    assert (delivery.state, delivery.closed_at, delivery.due_at) == ("erased", now + 3 * HOUR, None)
    assert (left.erasure, left.erasure_confirmed_at, left.holds) == ("confirmed", now + 3 * HOUR, False)
    assert entries(delivery) == [
        "delivery.received",
        "delivery.stopped",
        "delivery.erased",
        "erasure.confirmed",
    ]


def test_evidence_may_jump_over_steps(left, now):
    delivery = owed(left)
    says(delivery, "erased", at=now + HOUR)
    delivery.refresh_from_db()
    assert {delivery.sent_at, delivery.received_at, delivery.stopped_at, delivery.erased_at} == {now + HOUR}


def test_evidence_is_kept_with_its_digest_and_named_in_the_log(left, now):
    delivery = owed(left)
    says(delivery, "stopped", jti="proof-1", at=now)
    kept = Evidence.objects.get()
    assert (kept.jti, kept.organization, kept.delivery, kept.received_at) == (
        "proof-1",
        delivery.organization,
        delivery,
        now,
    )
    event = EntryIndex.objects.get(jti=delivery.jti, typ="delivery.stopped").event_id
    assert ledger.disclosed([event])[event]["evd"] == kept.digest


@pytest.mark.parametrize("steps", [["stopped", "stopped"], ["erased", "stopped"], ["erased", "erased"]])
def test_a_statement_never_goes_backwards(left, now, steps):
    delivery = owed(left)
    says(delivery, steps[0], at=now)
    before = entries(delivery)
    with pytest.raises(answers.WrongOrder):
        says(delivery, steps[1], at=now + HOUR)
    assert entries(delivery) == before and Evidence.objects.count() == 1


def test_nothing_can_be_proved_about_mere_news(person, now):
    with pytest.raises(answers.WrongOrder):
        says(owed(factories.joined(person, at=now), event="consent-granted"), "stopped", at=now)


def test_the_same_evidence_id_for_something_else_is_refused(left, now):
    delivery = owed(left)
    says(delivery, "stopped", jti="one", at=now)
    with pytest.raises(IntegrityError), transaction.atomic():
        says(delivery, "erased", jti="one", at=now)
    delivery.refresh_from_db()
    assert delivery.state == "stopped"


# --- what it means for the erasure -----------------------------------------------------------------------------------------


def erasures(subscription) -> dict[str, set[str]]:
    return {
        kind: set(subscription.consents.filter(kind=kind).values_list("erasure", flat=True))
        for kind in subscription.consents.values_list("kind", flat=True)
    }


def test_a_source_that_says_erased_confirms_nobody_elses_erasure(left, now):
    """A source keeps its own data, and was asked to stop only: the operator still holds."""
    says(owed(left, "source"), "erased", at=now)
    left.refresh_from_db()
    assert left.erasure == "requested" and left.holds
    assert all(states == {"requested"} for states in erasures(left).values())
    assert not EntryIndex.objects.filter(typ="erasure.confirmed").exists()


def test_a_third_party_confirms_its_own_part_only(left, now):
    says(owed(left, "recipient"), "erased", at=now)
    left.refresh_from_db()
    assert left.erasure == "requested" and left.holds
    assert erasures(left) == {
        "transfer": {"requested"},
        "third_party": {"confirmed"},
        "marketing": {"requested"},
    }


def test_the_operator_confirms_all_but_what_third_parties_answer_for(left, now):
    says(owed(left), "erased", at=now)
    left.refresh_from_db()
    assert left.erasure == "confirmed" and not left.holds
    assert erasures(left) == {
        "transfer": {"confirmed"},
        "third_party": {"requested"},
        "marketing": {"confirmed"},
    }


def test_who_was_asked_to_stop_only_settles_no_erasure(person, me, now):
    """Left without erasing: whatever the operator says, the person has not asked; state and log agree."""
    subscription = lifecycle.leave(factories.joined(person, at=now), erase=False, by=me, at=now)
    says(owed(subscription), "erased", at=now)
    subscription.refresh_from_db()
    assert (subscription.erasure, subscription.holds) == ("not_requested", True)
    assert not EntryIndex.objects.filter(typ="erasure.confirmed").exists()


def test_keeping_needs_a_ground_and_is_shown(left, now):
    delivery = owed(left)
    says(delivery, "retained", basis="전자금융거래법 22조, 5년", at=now)
    delivery.refresh_from_db()
    left.refresh_from_db()
    assert (delivery.state, delivery.refusal, delivery.closed_at) == (
        "stopped",
        "전자금융거래법 22조, 5년",
        now,
    )
    assert (left.erasure, left.erasure_refusal, left.holds) == ("refused", "전자금융거래법 22조, 5년", True)
    assert entries(delivery) == ["erasure.refused"]


def test_what_was_kept_may_be_erased_later(left, now):
    delivery = owed(left)
    says(delivery, "retained", at=now)
    says(delivery, "erased", at=now + HOUR)
    left.refresh_from_db()
    assert (left.erasure, left.holds) == ("confirmed", False)


@pytest.mark.parametrize("before", ["retained", "erased"])
def test_keeping_is_said_once_and_not_after_erasing(left, now, before):
    delivery = owed(left)
    says(delivery, before, at=now)
    with pytest.raises(answers.WrongOrder):
        says(delivery, "retained", at=now)


def test_keeping_what_nobody_asked_to_erase_is_refused(person, me, now):
    subscription = lifecycle.leave(factories.joined(person, at=now), erase=False, by=me, at=now)
    for role in ("operator", "source"):
        with pytest.raises(answers.WrongOrder):
            says(owed(subscription, role), "retained", at=now)


def test_one_consents_erasure_leaves_the_subscription_alone(person, me, now):
    subscription = factories.joined(person, at=now)
    consent = lifecycle.withdraw(
        subscription.consents.filter(kind="transfer").first(), erase=True, by=me, at=now
    )
    says(owed(subscription, event="consent-withdrawn"), "erased", at=now)
    consent.refresh_from_db()
    subscription.refresh_from_db()
    assert consent.erasure == "confirmed"
    assert (subscription.state, subscription.erasure, subscription.holds) == ("active", "not_requested", True)
    assert set(subscription.consents.exclude(pk=consent.pk).values_list("erasure", flat=True)) == {
        "not_requested"
    }


def test_a_late_answer_about_a_consent_settles_no_erasure_that_was_asked_later(person, me, now):
    """The withdrawal asked to stop; the erasure was asked with the end, and is answered there."""
    subscription = factories.joined(person, at=now)
    lifecycle.withdraw(subscription.consents.filter(kind="transfer").first(), erase=False, by=me, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    says(owed(subscription, event="consent-withdrawn"), "erased", at=now)
    subscription.refresh_from_db()
    assert subscription.erasure == "requested" and "confirmed" not in set().union(
        *erasures(subscription).values()
    )


def test_leaving_asks_for_what_was_withdrawn_before_too(person, me, now):
    """Leave means: erase all (product); a consent that was withdrawn without erasing is part of all."""
    subscription = factories.joined(person, at=now)
    before = lifecycle.withdraw(
        subscription.consents.filter(kind="transfer").first(), erase=False, by=me, at=now
    )
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    before.refresh_from_db()
    assert before.erasure == "requested"
    says(owed(subscription), "erased", at=now)
    before.refresh_from_db()
    assert before.erasure == "confirmed"


def test_an_ended_consent_is_not_revived_by_any_answer(left, now):
    for role in ("operator", "source", "recipient"):
        delivery = owed(left, role)
        heard(delivery, at=now)
        says(delivery, "stopped", at=now)
    assert set(Consent.objects.filter(subscription=left).values_list("state", "ended_at")) == {("ended", now)}


def test_the_id_of_a_replay_answers_the_first(left, now):
    """It is told to whoever asks for one, and has no entries of its own."""
    first = left.deliveries.filter(role="operator").latest("pk")
    Delivery.objects.filter(pk=first.pk).update(state="sent", sent_at=now, next_at=None)
    own, by = first.organization, Actor.organization(first.organization)
    again = propagation.replay(first, by=by, at=now)
    assert answers.acknowledge(again.jti, organization=own, by=by, at=now) == first
    second = propagation.replay(first, by=by, at=now)
    assert steps.acknowledge_all([second.jti], organization=own, by=by, at=now) == set()
    first.refresh_from_db()
    assert first.state == "received" and {row.state for row in first.replays.all()} == {"received"}
    assert not EntryIndex.objects.filter(jti__in=[again.jti, second.jti]).exists()
