"""What was signed as erased and is still there counts again, until somebody signs for it anew; the log tells all of it."""

import datetime
import json
import uuid

import pytest
from django.urls import reverse

from consents import answers, checks, discovery, lifecycle, readback, transfers
from consents.actors import Actor
from consents.forms.desk import step_form
from consents.ledger import replay
from consents.models import Case, Check, Consent, Delivery, EntryIndex, Evidence, Inquiry, Subscription
from consents.queries import desk, oversight
from consents.queries.duties import possible_steps
from consents.queries.person import summary
from consents.queries.subscription import screen
from consents.queries.tracker import tracker
from providers.wires import ABSENT, ACTIVE, STOPPED, Listing, Reading, RemoteConsent
from tests import factories

pytestmark = pytest.mark.django_db
MINUTE, HOUR, DAY = (datetime.timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days"))


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "contradiction-keys"


@pytest.fixture
def left(person, me, now) -> Subscription:
    """Left with erasure; the operator can be asked."""
    service = factories.offered()
    factories.ChannelFactory(
        organization=service.organization, protocol="native", address="https://nobody.example/h"
    )
    return lifecycle.leave(factories.joined(person, service, now - DAY), erase=True, by=me, at=now)


@pytest.fixture
def stop(left, now) -> Delivery:
    """What the operator was told of it, and has signed as erased."""
    row = left.deliveries.get(role="operator", event="subscription-ended")
    says(row, "erased", at=now + MINUTE)
    left.refresh_from_db()
    assert left.erasure == "confirmed" and summary(left.person).operators_holding == 0
    return row


def says(row: Delivery, status: str, *, at) -> Delivery:
    digest = "sha256:" + "0" * 64
    evidence = Evidence(
        jti=uuid.uuid4().hex, status=status, means="signed", digest=digest, document="a.b.c", stated_at=at,
    )  # fmt: skip
    return answers.complete(
        row.jti, organization=row.organization, evidence=evidence, basis="상법 제33조" * (status == "retained"),
        by=Actor.organization(row.organization), at=at,
    )  # fmt: skip


def look(row: Delivery, finds: str, *, at) -> Check | None:
    Delivery.objects.filter(pk=row.pk).update(check_at=at)
    claimed = next(one for one in readback.claim(at=at, limit=50) if one.pk == row.pk)
    return readback.record(claimed, Reading(finds, 200, "HTTP 200", "ab" * 32), by=readback.BY, at=at)


def flow(consent: Consent, reporter, *, at) -> transfers.Answer:
    row = transfers.Row(
        str(uuid.uuid4()), consent.subscription_id, at, consent=consent.pk, scopes=tuple(consent.scopes)
    )
    [answer] = transfers.report([row], organization=reporter, by=Actor.organization(reporter), at=at)
    return answer


def erasures(subscription: Subscription) -> set[str]:
    rows = (Subscription.objects.filter(pk=subscription.pk), subscription.consents.all())
    return {erasure for found in rows for erasure in found.values_list("erasure", flat=True)}


def told(typ: str) -> list:
    """The rows that the newest entry of this type names."""
    entry = EntryIndex.objects.filter(typ=typ).order_by("seq").last()
    values = {value.name: value.value for value in oversight.entry(entry.event_id).values}
    return values.get("ids")


def test_what_was_signed_as_erased_and_is_there_counts_again(left, stop, person, now):
    assert look(stop, ACTIVE, at=now + HOUR).is_news
    left.refresh_from_db()
    assert (left.erasure, left.erasure_requested_at, left.erasure_confirmed_at) == ("requested", now, None)
    others = left.consents.filter(kind="third_party").values_list("recipient", flat=True)
    assert set(left.consents.exclude(recipient__in=others).values_list("erasure", flat=True)) == {"requested"}
    numbers = summary(person)
    assert (numbers.operators_holding, numbers.held_after_end) == (1, 1)
    assert "다시 세요" in person.notices.get(kind="revived").reason_ko
    stop.refresh_from_db()
    assert stop.state == "erased" and left.state == "ended", "nothing else goes back"
    assert replay.run().ok


def test_the_page_says_so(left, stop, client, person, now):
    look(stop, ACTIVE, at=now + HOUR)
    left.refresh_from_db()
    shown = screen(left, at=now + HOUR)
    assert shown.state == "held" and shown.tracker.signed_at == now + MINUTE
    client.force_login(person)
    page = client.get(reverse("subscription", args=[left.pk])).content.decode()
    assert "아직 남아 있어요" in page and "이제 이 서비스는 세지 않아요" not in page


def test_the_log_names_the_rows_that_are_asked_again(left, stop, now):
    confirmed = {left.pk, *left.consents.filter(erasure="confirmed").values_list("pk", flat=True)}
    look(stop, ACTIVE, at=now + HOUR)
    assert set(map(str, told("delivery.contradicted"))) == set(map(str, confirmed))


def test_an_honest_confirmation_settles_it_again(left, stop, person, now):
    look(stop, ACTIVE, at=now + HOUR)
    anew = says(stop, "erased", at=now + 2 * HOUR)
    left.refresh_from_db()
    assert (left.erasure, left.erasure_confirmed_at) == ("confirmed", now + 2 * HOUR)
    assert erasures(left) <= {"confirmed", "requested"} and summary(person).operators_holding == 0
    stop.refresh_from_db()
    assert stop.check_at <= anew.check_at == now + 2 * HOUR + MINUTE, "both are looked at once more"
    assert stop.erased_at == stop.closed_at == now + MINUTE
    assert anew.jti != stop.jti and anew.erased_at == anew.closed_at == now + 2 * HOUR
    with pytest.raises(answers.WrongOrder):
        says(stop, "erased", at=now + 3 * HOUR)
    assert replay.run().ok


def test_the_organization_is_asked_again_by_a_message_with_deadlines_of_its_own(left, stop, now):
    look(stop, ACTIVE, at=now + HOUR)
    left.refresh_from_db()
    anew = left.deliveries.get(event="erasure-requested")
    assert (anew.organization_id, anew.role, anew.goal) == (stop.organization_id, "operator", "erased")
    assert (anew.state, anew.closed_at, anew.consent_id) == ("queued", None, None)
    message = json.loads(anew.body)["data"]
    assert message["version"] == left.version == stop.version + 1 and message["delete_data"] is True
    asked = set(left.consents.filter(erasure="requested").values_list("pk", flat=True))
    assert {consent["id"] for consent in message["consents"]} <= set(map(str, asked))
    assert oversight.overdue(at=now + 30 * DAY).rows[-1].jti == anew.jti, "and is late one day"
    look(stop, ACTIVE, at=now + 2 * HOUR)
    assert left.deliveries.filter(event="erasure-requested").count() == 1
    assert replay.run().ok


def test_who_was_found_out_may_say_that_it_keeps_lawfully(left, stop, person, now):
    look(stop, ACTIVE, at=now + HOUR)
    anew = says(stop, "retained", at=now + 2 * HOUR)
    left.refresh_from_db()
    assert (left.erasure, left.erasure_refusal) == ("refused", "상법 제33조")
    assert anew.refused_at == anew.closed_at == now + 2 * HOUR
    assert summary(person).operators_holding == 1, "and is counted, for it holds"
    says(anew, "erased", at=now + 3 * HOUR)
    assert summary(person).operators_holding == 0 and replay.run().ok


def test_a_third_party_answers_for_itself_also_when_the_operator_is_asked_again(left, stop, now):
    look(stop, ACTIVE, at=now + HOUR)
    others = left.consents.filter(kind="third_party")
    before = set(others.values_list("pk", "erasure"))
    assert before, "the service hands something on"
    says(stop, "erased", at=now + 2 * HOUR)
    assert set(others.values_list("pk", "erasure")) == before


def test_whose_server_signs_for_it_again_and_again_is_asked_through_its_people(left, stop, now):
    for hour in (1, 3, 5):
        look(stop, ACTIVE, at=now + hour * HOUR)
        says(stop, "erased", at=now + (hour + 1) * HOUR)
    assert left.deliveries.filter(event="erasure-requested").count() == 3
    look(stop, ACTIVE, at=now + 7 * HOUR)
    assert [row.state for row in left.deliveries.filter(event="erasure-requested").order_by("pk")][2:] == [
        "erased", "manual",
    ]  # fmt: skip
    assert replay.run().ok


def test_a_list_that_shows_it_counts_again(left, stop, person, now):
    consent = left.consents.filter(kind="transfer", required=True).select_related("source").get()
    inquiry = Inquiry.objects.create(person=person, organization=left.operator, due_at=now + 2 * DAY)
    shown = RemoteConsent(str(consent.pk), service=left.service.client_id, scopes=tuple(consent.scopes))
    discovery.record(inquiry, Listing(False, (shown,), 200), by=discovery.BY, at=now + 2 * DAY)
    left.refresh_from_db()
    consent.refresh_from_db()
    assert left.erasure == consent.erasure == "requested" and summary(person).operators_holding == 1
    assert set(map(str, told("delivery.contradicted"))) == {str(left.pk), str(consent.pk)}
    assert left.deliveries.get(event="erasure-requested").organization == left.operator
    assert Case.objects.get().kind == "ended_here"
    shown = tracker(left, at=now + 2 * DAY)
    assert any(party.contradicted for act in shown.acts for party in act.parties)
    assert replay.run().ok


def test_a_list_that_was_asked_for_before_the_signature_is_not_held_against_it(left, stop, person, now):
    Subscription.objects.filter(pk=left.pk).update(erasure_confirmed_at=now + 2 * DAY)
    left.consents.filter(erasure="confirmed").update(erasure_confirmed_at=now + 2 * DAY)
    consent = left.consents.filter(kind="transfer", required=True).get()
    inquiry = Inquiry.objects.create(person=person, organization=left.operator, due_at=now + 2 * DAY)
    shown = RemoteConsent(str(consent.pk), scopes=tuple(consent.scopes))
    discovery.record(inquiry, Listing(False, (shown,), 200), by=discovery.BY, at=now + 2 * DAY)
    left.refresh_from_db()
    assert left.erasure == "confirmed" and not left.deliveries.filter(event="erasure-requested").exists()


def test_who_lies_twice_is_found_out_twice(left, stop, person, now):
    look(stop, ACTIVE, at=now + HOUR)
    says(stop, "erased", at=now + 2 * HOUR)
    assert look(stop, ACTIVE, at=now + 3 * HOUR).is_news, "it was signed as erased since"
    assert not look(stop, ACTIVE, at=now + 4 * HOUR).is_news
    assert EntryIndex.objects.filter(typ="delivery.contradicted").count() == 2
    assert summary(person).operators_holding == 1 and person.notices.filter(kind="revived").count() == 1
    assert replay.run().ok


def test_a_look_from_before_the_signature_is_not_held_against_it(left, stop, now):
    Delivery.objects.filter(pk=stop.pk).update(check_at=now)
    claimed = next(one for one in readback.claim(at=now + MINUTE, limit=50) if one.pk == stop.pk)
    readback.record(claimed, Reading(ACTIVE, 200), by=readback.BY, at=now + 2 * MINUTE)
    assert "confirmed" in erasures(left)


@pytest.mark.parametrize("finds", [STOPPED, ABSENT])
def test_a_look_that_finds_nothing_settles_nothing(left, stop, now, finds):
    look(stop, ACTIVE, at=now + HOUR)
    look(stop, finds, at=now + 2 * HOUR)
    left.refresh_from_db()
    assert left.erasure == "requested", "erased is never taken from a look"


def test_what_a_source_shows_says_nothing_about_erasing(left, stop, now):
    source = left.deliveries.filter(role="source", goal="stopped").select_related("organization").first()
    factories.ChannelFactory(
        organization=source.organization, protocol="native", address="https://nobody.example/s"
    )
    source.state, source.next_at = "stopped", None
    source.sent_at = source.received_at = source.stopped_at = now
    checks.schedule(source, at=now)
    source.save()
    assert look(source, ACTIVE, at=now + HOUR).finding == "still_active"
    left.refresh_from_db()
    assert left.erasure == "confirmed" and told("delivery.contradicted") is None


def test_one_consent_that_lives_on_is_enough_to_hold(person, me, now):
    subscription = factories.joined(person, factories.offered(), now - DAY)
    factories.ChannelFactory(
        organization=subscription.operator, protocol="native", address="https://nobody.example/h"
    )
    consent = subscription.consents.filter(kind="transfer", required=False).get()
    lifecycle.withdraw(consent, erase=True, by=me, at=now)
    one = Delivery.objects.get(consent=consent, role="operator", event="consent-withdrawn")
    says(one, "erased", at=now + MINUTE)
    lifecycle.leave(subscription, erase=True, by=me, at=now + HOUR)
    whole = subscription.deliveries.get(role="operator", event="subscription-ended")
    says(whole, "erased", at=now + 2 * HOUR)
    look(one, ACTIVE, at=now + DAY)
    consent.refresh_from_db()
    subscription.refresh_from_db()
    assert consent.erasure == subscription.erasure == "requested"
    others = subscription.consents.exclude(pk=consent.pk).values_list("erasure", flat=True)
    assert "confirmed" in others, "of the others nothing was seen"
    with pytest.raises(answers.WrongOrder):  # that would be said of one consent, and more is asked now
        says(one, "erased", at=now + 2 * DAY)
    says(whole, "erased", at=now + 2 * DAY)
    subscription.refresh_from_db()
    assert subscription.erasure == "confirmed" and replay.run().ok


# --- transfers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reporter", ["operator", "source"])
def test_data_that_flows_after_the_erasure_counts_again(left, stop, person, now, reporter):
    consent = left.consents.filter(kind="transfer", required=True).select_related("source").get()
    who = left.operator if reporter == "operator" else consent.source
    assert flow(consent, who, at=now + HOUR).after_stop
    left.refresh_from_db()
    consent.refresh_from_db()
    assert left.erasure == consent.erasure == "requested" and left.erasure_confirmed_at is None
    assert summary(person).operators_holding == 1
    assert set(map(str, told("transfer.contradicted"))) == {str(left.pk), str(consent.pk)}
    flow(consent, who, at=now + 2 * HOUR)
    assert told("transfer.contradicted") is None, "once is enough"
    assert replay.run().ok
    says(stop, "erased", at=now + DAY)
    assert summary(person).operators_holding == 0 and replay.run().ok


def test_what_flowed_before_the_erasure_was_erased_with_it(left, stop, now):
    consent = left.consents.filter(kind="transfer", required=True).get()
    Subscription.objects.filter(pk=left.pk).update(erasure_confirmed_at=now + HOUR)
    Consent.objects.filter(pk=consent.pk).update(erasure_confirmed_at=now + HOUR)
    assert flow(consent, left.operator, at=now + 30 * MINUTE).after_stop
    left.refresh_from_db()
    assert left.erasure == "confirmed"


# --- the desk ------------------------------------------------------------------------------------------------------------------


def test_the_desk_can_confirm_once_more(left, stop, client, now):
    admin = factories.MemberFactory(organization=stop.organization).person
    stop.refresh_from_db()
    assert possible_steps(stop) == []
    look(stop, ACTIVE, at=now + HOUR)
    anew = left.deliveries.get(event="erasure-requested")
    assert possible_steps(stop) == [] and possible_steps(anew)[-2:] == ["erased", "retained"]
    assert [row.delivery.jti for row in desk.inbox(stop.organization, at=now + HOUR).rows] == [anew.jti]
    by = Actor.organization(stop.organization, member=admin)
    form = step_form("erased", {"step": "erased", "note": "이번에는 정말 지웠어요"})
    assert form.is_valid()
    said = form.statement(anew, by=by, at=now + 2 * HOUR)
    answers.complete(anew.jti, organization=stop.organization, evidence=said, by=by, at=now + 2 * HOUR)
    anew.refresh_from_db()
    assert possible_steps(anew) == []
