"""A person sees only their own, every page costs the same at any size, and every stop is one clear step."""

import datetime
import hashlib
import json
import uuid

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import answers, lifecycle, propagation, speedbump
from consents.actors import Actor
from consents.models import Consent, Delivery, EntryIndex, Erasure, Evidence, Lookup, Notice, Subscription
from consents.queries import holdings
from consents.queries.history import KINDS
from consents.queries.person import summary
from consents.queries.tracker import tracker
from tests import factories

DAY = datetime.timedelta(days=1)
MOST_QUERIES = 12


def leave(subscription, *, erase=True, at=None):
    at = at or timezone.now()
    return lifecycle.leave(subscription, erase=erase, by=Actor.person(subscription.person), at=at)


def state(delivery, status, *, at=None, basis=""):
    """The organization says that it stopped, erased or keeps."""
    at, document = at or timezone.now(), json.dumps({"status": status})
    evidence = Evidence(
        jti=str(uuid.uuid4()),
        status=status,
        means="signed",
        digest="sha256:" + hashlib.sha256(document.encode()).hexdigest(),
        document=document,
        stated_at=at,
    )
    by = Actor.organization(delivery.organization)
    return answers.complete(
        delivery.jti, organization=delivery.organization, evidence=evidence, basis=basis, by=by, at=at
    )


def finish(subscription):
    """Every party does all that was asked."""
    for delivery in Delivery.objects.filter(subscription=subscription, closed_at=None).exclude(
        goal="received"
    ):
        state(delivery, delivery.goal)
    subscription.refresh_from_db()


def notice_of(subscription, **fields):
    return Notice.objects.create(
        person=subscription.person, subscription=subscription, kind="dormant", matter=str(subscription.pk),
        reason_ko="오래 쓰지 않았어요.", reason_en="Unused.", raised_at=timezone.now(), **fields,
    )  # fmt: skip


def pages(subscription):
    """Every address of the person's pages that can be read."""
    own = [reverse(name, args=[subscription.pk]) for name in ("subscription", "tracker", "receipt", "terms")]
    own.append(reverse("certificate" if subscription.state == "ended" else "end", args=[subscription.pk]))
    if subscription.state == "active":
        own.append(reverse("withdraw", args=[subscription.consents.first().pk]))
    alone = [reverse(name) for name in ("me", "history", "notices", "account")]
    return own, alone


# --- counting ----------------------------------------------------------------------------------------------------------


def test_an_operator_counts_until_it_confirms_erasure(person, now):
    one, other = factories.joined(person), factories.joined(person)
    assert summary(person).operators_holding == 2
    leave(one)
    left = summary(person)
    assert (left.operators_holding, left.receiving, left.held_after_end, left.subscriptions) == (2, 1, 1, 1)
    finish(one)
    assert one.erasure == Erasure.CONFIRMED
    assert summary(person).operators_holding == 1
    assert holdings.state_of(other) == "receiving"


def test_two_subscriptions_at_one_operator_count_once(person):
    operator = factories.OperatorFactory()
    first = factories.joined(person, factories.offered(organization=operator))
    factories.joined(person, factories.offered(organization=operator))
    leave(first)
    counted = summary(person)
    assert (counted.operators_holding, counted.receiving, counted.held_after_end, counted.subscriptions) == (
        1,
        1,
        0,
        1,
    )


def test_the_summary_takes_two_queries(person, django_assert_num_queries):
    factories.joined(person)
    with django_assert_num_queries(2):
        summary(person)


# --- pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", [False, True])
def test_every_page_opens_in_both_languages_and_only_for_its_person(signed_in, person, ended, settings):
    subscription = factories.joined(person)
    notice_of(subscription)
    if ended:
        leave(subscription)
        finish(subscription)
    own, alone = pages(subscription)
    for language in ("ko", "en"):
        for address in own + alone:
            answer = signed_in.get(address, headers={"accept-language": language})
            assert answer.status_code == 200, address
            assert "style=" not in answer.content.decode(), address
            assert answer["Cache-Control"] == "no-store, private"
    stranger = factories.PersonFactory()
    signed_in.force_login(stranger, backend="allauth.account.auth_backends.AuthenticationBackend")
    for address in own:
        assert signed_in.get(address).status_code == 404, address


def test_a_visitor_is_sent_to_sign_in(visitor, person):
    own, alone = pages(factories.joined(person))
    for address in own + alone:
        assert visitor.get(address).status_code == 302, address


def count_queries(browser, address):
    browser.get(address)  # the session gets its token at the first visit
    with CaptureQueriesContext(connection) as queries:
        assert browser.get(address).status_code == 200, address
    return len(queries)


def test_a_page_costs_the_same_with_one_subscription_and_with_twelve(signed_in, person):
    first = factories.joined(person)
    notice_of(first)
    leave(factories.joined(person))
    own, alone = pages(first)
    addresses = (
        own + alone + [reverse("history") + "?on=2026-01-01", reverse("me") + "?state=all&sort=sensitivity"]
    )
    few = {address: count_queries(signed_in, address) for address in addresses}
    for _ in range(11):
        another = factories.joined(person)
        notice_of(another)
    leave(factories.joined(person))
    lifecycle.pause(first.consents.first(), by=Actor.person(person), at=timezone.now())
    many = {address: count_queries(signed_in, address) for address in addresses}
    # A paused consent brings the first stop to the tracker: its statements are one query more.
    for address in addresses:
        assert many[address] - few[address] in (0, 1), address
        assert many[address] <= MOST_QUERIES, (address, many[address])


def test_the_list_is_paged_filtered_and_sorted(signed_in, person, monkeypatch):
    monkeypatch.setattr(holdings, "PAGE", 2)
    rows = [factories.joined(person, at=timezone.now() - DAY * n) for n in range(5)]
    leave(rows[0])
    first = signed_in.get("/me/?sort=joined")
    assert [row.id for row in first.context["page"].rows] == [rows[0].pk, rows[1].pk]
    second = signed_in.get("/me/" + first.context["next_url"])
    assert [row.id for row in second.context["page"].rows] == [rows[2].pk, rows[3].pk]
    held = signed_in.get("/me/?state=held").context["page"]
    assert [(row.id, row.state) for row in held.rows] == [(rows[0].pk, "held")]
    assert signed_in.get("/me/?state=active").context["page"].total == 4


@pytest.mark.parametrize(
    "query",
    [
        "state=everything",
        "sort=name",
        "after=x",
        "after=6f1b2c1e-54d3-4c5f-9a53-1d2f8a4f0c11",
        "state=all&state=held",
        "page=2",
    ],
)
def test_a_bad_filter_is_refused_in_words(signed_in, query):
    answer = signed_in.get(f"/me/?{query}")
    assert answer.status_code == 400
    assert "돌아가기" in answer.content.decode()


# --- ending ------------------------------------------------------------------------------------------------------------


def test_a_person_leaves_with_one_screen_and_one_click_and_the_data_is_asked_back(signed_in, person):
    subscription = factories.joined(person)
    screen = signed_in.get(reverse("end", args=[subscription.pk])).content.decode()
    assert "저절로 지워지지는 않아요" in screen
    assert 'name="erase" checked' in screen
    answer = signed_in.post(reverse("end", args=[subscription.pk]), {"erase": "on"}, follow=True)
    assert answer.redirect_chain == [(reverse("subscription", args=[subscription.pk]), 302)]
    assert "정말 멈췄나요?" in answer.content.decode()
    subscription.refresh_from_db()
    assert (subscription.state, subscription.erasure, subscription.end_reason) == (
        "ended",
        "requested",
        "person_left",
    )


def test_leaving_twice_changes_nothing_and_says_so(signed_in, person):
    subscription = factories.joined(person)
    address = reverse("end", args=[subscription.pk])
    signed_in.post(address, {"erase": "on"})
    before = EntryIndex.objects.count(), Delivery.objects.count()
    assert "이미 그만뒀어요" in signed_in.post(address, {"erase": "on"}, follow=True).content.decode()
    assert "이미 그만뒀어요" in signed_in.get(address, follow=True).content.decode()
    assert (EntryIndex.objects.count(), Delivery.objects.count()) == before


def test_what_was_not_erased_can_be_erased_later_once(signed_in, person):
    subscription = factories.joined(person)
    signed_in.post(reverse("end", args=[subscription.pk]), {})
    page = signed_in.get(reverse("subscription", args=[subscription.pk])).content.decode()
    assert "지워 달라고 하기(삭제 요구)" in page
    address = reverse("erase", args=[subscription.pk])
    assert signed_in.get(address).status_code == 405
    signed_in.post(address)
    subscription.refresh_from_db()
    assert subscription.erasure == Erasure.REQUESTED
    before = EntryIndex.objects.count()
    assert "바뀐 것은 없어요" in signed_in.post(address, follow=True).content.decode()
    assert EntryIndex.objects.count() == before


@pytest.mark.parametrize("data", [{"erase": "on", "all": "1"}, {"next": "x" * 400}])
def test_an_end_with_a_strange_form_changes_nothing(signed_in, person, data):
    subscription = factories.joined(person)
    assert signed_in.post(reverse("end", args=[subscription.pk]), data).status_code == 400
    subscription.refresh_from_db()
    assert subscription.state == "active"


@pytest.mark.parametrize(
    ("target", "lands"),
    [
        ("/services/x/join/", True),
        ("https://evil.example/", False),
        ("//evil.example", False),
        ("javascript:alert(1)", False),
    ],
)
def test_an_end_leads_back_only_to_pages_of_ours(signed_in, person, target, lands):
    subscription = factories.joined(person)
    answer = signed_in.post(reverse("end", args=[subscription.pk]), {"next": target})
    assert answer["Location"] == (target if lands else reverse("subscription", args=[subscription.pk]))


def test_several_are_ended_together_after_one_confirmation(signed_in, person):
    rows = [factories.joined(person) for _ in range(3)]
    ids = [str(row.pk) for row in rows[:2]]
    asked = signed_in.post("/me/end/", {"subscription": ids}).content.decode()
    assert "저절로 지워지지는 않아요" in asked
    assert Subscription.objects.live().count() == 3
    leave(rows[1])
    done = signed_in.post(
        "/me/end/", {"subscription": ids, "step": "confirm", "erase": "on"}, follow=True
    ).content.decode()
    assert "그만뒀어요. 받아간 정보도 지워 달라고 했어요" in done
    assert "이미 그만뒀어요" in done
    assert list(Subscription.objects.live().filter(person=person)) == [rows[2]]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"subscription": []},
        {"subscription": "x"},
        {"step": "confirm", "erase": "on"},
        {"subscription": "*"},
    ],
)
def test_an_empty_or_broken_choice_is_an_error_and_never_everything(signed_in, person, data):
    factories.joined(person)
    assert signed_in.post("/me/end/", data).status_code == 400
    assert Subscription.objects.live().count() == 1


def test_somebody_elses_subscription_among_the_chosen_ends_nothing(signed_in, person):
    own, foreign = factories.joined(person), factories.joined(factories.PersonFactory())
    data = {"subscription": [str(own.pk), str(foreign.pk)], "step": "confirm"}
    assert signed_in.post("/me/end/", data).status_code == 404
    assert Subscription.objects.live().count() == 2


# --- one consent -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "words"), [("ko", "지금은 다시 이을 수 없어요"), ("en", "It stays paused.")]
)
def test_who_has_no_licence_any_more_is_not_resumed(signed_in, person, language, words):
    subscription = factories.joined(person)
    consent, today = subscription.consents.first(), timezone.localdate()
    signed_in.post(reverse("pause", args=[consent.pk]))
    factories.LicenceFactory(
        organization=subscription.operator, status="cancelled", decided_on=today, effective_on=today
    )
    answer = signed_in.post(reverse("resume", args=[consent.pk]), HTTP_ACCEPT_LANGUAGE=language)
    assert answer.status_code == 409 and words in answer.content.decode()
    consent.refresh_from_db()
    assert consent.state == "paused"


def test_a_consent_is_paused_resumed_and_withdrawn(signed_in, person):
    consent = factories.joined(person).consents.first()
    until = timezone.localdate() + DAY * 3
    signed_in.post(reverse("pause", args=[consent.pk]), {"until_on": until.isoformat()})
    consent.refresh_from_db()
    assert (consent.state, consent.paused_until) == ("paused", until)
    assert (
        "저절로 다시 시작해요"
        in signed_in.get(reverse("subscription", args=[consent.subscription_id])).content.decode()
    )
    signed_in.post(reverse("resume", args=[consent.pk]))
    consent.refresh_from_db()
    assert consent.state == "active"
    assert (
        "저절로 지워지지는 않아요" in signed_in.get(reverse("withdraw", args=[consent.pk])).content.decode()
    )
    signed_in.post(reverse("withdraw", args=[consent.pk]), {"erase": "on"})
    consent.refresh_from_db()
    assert (consent.state, consent.erasure, consent.subscription.state) == ("ended", "requested", "active")


def test_what_came_through_a_withdrawn_consent_can_be_erased_later_once(signed_in, person):
    consent = factories.joined(person).consents.first()
    signed_in.post(reverse("withdraw", args=[consent.pk]), {})
    assert (
        "받아간 정보 지워 달라고 하기"
        in signed_in.get(reverse("subscription", args=[consent.subscription_id])).content.decode()
    )
    address = reverse("erase_consent", args=[consent.pk])
    signed_in.post(address)
    consent.refresh_from_db()
    assert consent.erasure == Erasure.REQUESTED
    before = EntryIndex.objects.count()
    assert "바뀐 것은 없어요" in signed_in.post(address, follow=True).content.decode()
    assert EntryIndex.objects.count() == before


@pytest.mark.parametrize("until", ["2020-01-01", "soon", "99991231"])
def test_a_pause_until_a_day_that_cannot_be_is_refused(signed_in, person, until):
    consent = factories.joined(person).consents.first()
    assert signed_in.post(reverse("pause", args=[consent.pk]), {"until_on": until}).status_code == 400
    consent.refresh_from_db()
    assert consent.state == "active"


@pytest.mark.parametrize("act", ["pause", "resume", "withdraw"])
def test_an_ended_consent_stays_as_it_is(signed_in, person, act):
    consent = factories.joined(person).consents.first()
    lifecycle.withdraw(consent, erase=False, by=Actor.person(person), at=timezone.now())
    before = EntryIndex.objects.count()
    assert "바뀐 것은 없어요" in signed_in.post(reverse(act, args=[consent.pk]), follow=True).content.decode()
    assert EntryIndex.objects.count() == before


@pytest.mark.parametrize("act", ["pause", "resume", "withdraw", "erase_consent"])
def test_nobody_touches_the_consent_of_somebody_else(signed_in, act):
    consent = factories.joined(factories.PersonFactory()).consents.first()
    assert signed_in.post(reverse(act, args=[consent.pk])).status_code == 404
    assert Consent.objects.get(pk=consent.pk).state == "active"


@pytest.mark.parametrize("act", ["end", "erase"])
def test_nobody_touches_the_subscription_of_somebody_else(signed_in, act):
    subscription = factories.joined(factories.PersonFactory())
    assert signed_in.post(reverse(act, args=[subscription.pk])).status_code == 404
    assert Subscription.objects.get(pk=subscription.pk).state == "active"


# --- the stop tracker --------------------------------------------------------------------------------------------------


def test_the_tracker_moves_from_sent_to_erased_and_then_stops_asking(signed_in, person):
    subscription = factories.joined(person)
    leave(subscription)
    address = reverse("tracker", args=[subscription.pk])
    shown = signed_in.get(address)
    assert 'hx-trigger="every 2s"' in shown.content.decode()
    seen = shown.context["tracker"].seen
    assert signed_in.get(address, {"seen": seen}).status_code == 204
    delivery = Delivery.objects.get(subscription=subscription, role="operator", goal="erased")
    answers.acknowledge(
        delivery.jti,
        organization=delivery.organization,
        by=Actor.organization(delivery.organization),
        at=timezone.now(),
    )
    moved = signed_in.get(address, {"seen": seen})
    assert moved.status_code == 200
    assert "받았다고 했어요" in moved.content.decode()
    finish(subscription)
    settled = signed_in.get(address, {"seen": seen}).content.decode()
    assert "hx-trigger" not in settled
    assert "지웠다고 서명했어요" in settled
    assert "sha256:" in settled
    assert 'hx-swap-oob="innerHTML:#holding-state"' in settled
    assert "지웠다고 서명했어요" in settled


def test_a_late_answer_is_marked_and_brings_a_complaint_that_can_be_sent(person):
    subscription = factories.joined(person)
    leave(subscription)
    Delivery.objects.filter(subscription=subscription).update(
        state="sent", sent_at=timezone.now(), next_at=None
    )
    act = tracker(subscription, at=timezone.now() + DAY).acts[0]
    party = act.parties[0]
    assert party.overdue
    assert [step.state for step in party.steps][:3] == ["done", "done", "late"]
    assert str(party.delivery.jti) in party.complaint.text
    assert str(person.subject_id) in party.complaint.text
    assert party.complaint.mailto.startswith("mailto:privacy@")
    assert "늦어지고 있어요" in act.summary


@pytest.mark.parametrize(
    ("fields", "words", "step"),
    [
        ({"state": "dead", "dead_at": timezone.now(), "next_at": None}, "담당자가 직접 살펴봐요", "bad"),
        ({"state": "checking", "next_at": None}, "다시 확인하고 있어요", "now"),
        ({"state": "retrying", "attempts": 3, "next_at": timezone.now()}, "3번 보냈지만", "now"),
        ({"state": "manual", "next_at": None}, "업무함에서 기다리고", "now"),
        ({"state": "queued", "next_at": timezone.now()}, "곧 보내요", "now"),
    ],
)
def test_side_states_are_explained(person, fields, words, step):
    subscription = factories.joined(person)
    leave(subscription)
    Delivery.objects.filter(subscription=subscription).update(**fields)
    waiting = tracker(subscription, at=timezone.now()).acts[0].parties[0].steps[1]
    assert words in waiting.note
    assert waiting.state == step


def test_a_refusal_to_erase_is_shown_with_its_reason(signed_in, person):
    subscription = factories.joined(person)
    leave(subscription)
    operator = Delivery.objects.get(subscription=subscription, role="operator", goal="erased")
    state(operator, "stopped")
    state(operator, "retained", basis="상법 제33조: 5년 보관")
    page = signed_in.get(reverse("subscription", args=[subscription.pk])).content.decode()
    assert "상법 제33조: 5년 보관" in page
    assert summary(person).held_after_end == 1


def test_our_own_delay_is_called_ours(person):
    subscription = factories.joined(person)
    leave(subscription)
    Delivery.objects.filter(subscription=subscription).update(state="queued", next_at=timezone.now())
    party = tracker(subscription, at=timezone.now() + DAY).acts[0].parties[0]
    assert party.overdue
    assert party.complaint is None
    assert "우리가 늦은 거예요" in party.steps[1].note


def test_news_of_a_grant_is_not_a_stop(person):
    assert tracker(factories.joined(person), at=timezone.now()).acts == []


def test_a_pause_is_on_the_tracker(person):
    consent = factories.joined(person).consents.filter(kind="transfer").first()
    lifecycle.pause(consent, by=Actor.person(person), at=timezone.now())
    act = tracker(consent.subscription, at=timezone.now()).acts[0]
    assert [step.code for step in act.parties[0].steps] == ["paused", "sent", "received"]
    assert {party.role for party in act.parties} == {"operator", "source"}


@pytest.mark.parametrize(
    ("by_whom", "reason", "first"),
    [
        ("operator", "operator_closed", "over"),
        ("person", "person_left", "ended"),
        ("system", "expired", "over"),
    ],
)
def test_only_what_the_person_ended_is_called_theirs(person, by_whom, reason, first):
    subscription = factories.joined(person)
    by = {
        "operator": Actor.organization(subscription.operator), "person": Actor.person(person), "system": Actor.system("expire"),
    }[by_whom]  # fmt: skip
    lifecycle.leave(subscription, erase=False, by=by, at=timezone.now(), reason=reason)
    subscription.refresh_from_db()
    parties = tracker(subscription, at=timezone.now()).acts[0].parties
    assert {party.steps[0].code for party in parties} == {first}


# --- papers ------------------------------------------------------------------------------------------------------------


def test_a_running_subscription_has_no_certificate(signed_in, person):
    answer = signed_in.get(reverse("certificate", args=[factories.joined(person).pk]))
    assert answer.status_code == 404
    assert "아직 그만두지 않은" in answer.content.decode()


def test_the_certificate_names_who_answered_and_what_is_open(signed_in, person):
    subscription = factories.joined(person)
    leave(subscription)
    address = reverse("certificate", args=[subscription.pk])
    page = signed_in.get(address)
    assert page.context["paper"].statement["open"] == len(page.context["paper"].parties) > 1
    finish(subscription)
    page = signed_in.get(address)
    assert page.context["paper"].statement["open"] == 0
    assert "<svg viewBox" in page.content.decode()
    download = signed_in.get(address, {"format": "json"})
    assert download["Content-Disposition"].startswith("attachment")
    paper = download.json()
    assert {"subscription.ended", "erasure.requested", "delivery.erased"} <= {
        entry["typ"] for entry in paper["log"]["entries"]
    }
    assert all(party["statements"] for party in paper["parties"])


def test_the_receipt_is_a_signed_json_ld_document(signed_in, person):
    subscription = factories.joined(person)
    download = signed_in.get(reverse("receipt", args=[subscription.pk]), {"format": "json"})
    assert download["Content-Type"].startswith("application/ld+json")
    assert download["Content-Disposition"].startswith("attachment")
    assert download.json()["record_id"] == f"urn:uuid:{subscription.pk}"
    assert download.json()["jws"].count(".") == 2


def test_the_agreed_text_is_shown_word_for_word(signed_in, person):
    subscription = factories.joined(person)
    page = signed_in.get(reverse("terms", args=[subscription.pk])).content.decode()
    assert "표시된 그대로임을 확인했어요" in page
    assert subscription.text_digest in page
    factories.TermsFactory(service=subscription.service)
    later = signed_in.get(reverse("terms", args=[subscription.pk])).content.decode()
    assert "보관 기간을 바꿨어요." in later
    assert "정보 가져오기 · 새로 물어요" in later
    assert "표시된 그대로임을 확인했어요" in later
    Subscription.objects.filter(pk=subscription.pk).update(text_digest="sha256:" + "f" * 64)
    assert "지문이 달라요" in signed_in.get(reverse("terms", args=[subscription.pk])).content.decode()


# --- history -----------------------------------------------------------------------------------------------------------


def test_history_is_newest_first_filtered_and_paged(signed_in, person):
    subscription = factories.joined(person)
    factories.joined(person)
    for _ in range(3):
        factories.joined(person)
    leave(subscription)
    first = signed_in.get("/me/history/")
    seqs = [line.seq for line in first.context["page"].lines]
    assert seqs == sorted(seqs, reverse=True)
    second = signed_in.get("/me/history/" + first.context["next_url"])
    assert max(line.seq for line in second.context["page"].lines) < min(seqs)
    only = signed_in.get("/me/history/", {"kind": "subscription", "operator": subscription.operator.code})
    assert [line.typ for line in only.context["page"].lines] == ["subscription.ended", "subscription.joined"]
    assert all(len(line.leaf) == 64 for line in only.context["page"].lines)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fact_can_be_chosen(signed_in, kind):
    assert signed_in.get("/me/history/", {"kind": kind}).status_code == 200


def test_who_held_my_data_on_a_day(signed_in, person):
    at = timezone.now() - DAY * 30
    subscription = factories.joined(person, at=at)
    leave(subscription, at=at + DAY * 10)
    for delivery in Delivery.objects.filter(subscription=subscription, closed_at=None).exclude(
        goal="received"
    ):
        state(delivery, delivery.goal, at=at + DAY * 12)

    def held(days):
        on = timezone.localdate(at + DAY * days).isoformat()
        return [row.receiving for row in signed_in.get("/me/history/", {"on": on}).context["held"]]

    assert held(-1) == []
    assert held(0) == [True]
    assert held(10) == [True]
    assert held(11) == [False]
    assert held(12) == [False]
    assert held(13) == []


@pytest.mark.parametrize(
    "query",
    ["on=yesterday", "on=", "on=2999-01-01", "on=0001-01-01", "on=20260101", "kind=x", "operator=NOBODY0000", "after=-1", "after=x", "after=99999999999999999999", "x=1"],
)  # fmt: skip
def test_a_bad_question_to_the_history_is_refused_in_words(signed_in, query):
    answer = signed_in.get(f"/me/history/?{query}")
    assert answer.status_code == 400
    assert "돌아가기" in answer.content.decode()


def test_a_look_by_the_regulator_is_shown_to_the_person(signed_in, person):
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    Lookup.objects.create(
        person=person,
        by=regulator,
        event_id=uuid.uuid4(),
        case="2026-17",
        reason="민원 확인",
        at=timezone.now(),
    )
    page = signed_in.get("/me/history/").content.decode()
    assert "민원 확인" in page
    assert "2026-17" in page


# --- notices and account -----------------------------------------------------------------------------------------------


def test_a_notice_is_answered_once_and_only_by_its_person(signed_in, person):
    notice = notice_of(factories.joined(person))
    address = reverse("answer_notice", args=[notice.pk])
    assert signed_in.post(address, {"answer": "ended"}).status_code == 400
    signed_in.post(address, {"answer": "kept"})
    notice.refresh_from_db()
    assert notice.answer == "kept"
    signed_in.post(address, {"answer": "kept"})
    assert EntryIndex.objects.filter(typ="notice.answered").count() == 1
    foreign = notice_of(factories.joined(factories.PersonFactory()))
    assert signed_in.post(reverse("answer_notice", args=[foreign.pk]), {"answer": "kept"}).status_code == 404


def test_answered_notices_are_kept_below(signed_in, person):
    notice = notice_of(factories.joined(person))
    speedbump.answer(notice=notice, answer="kept", by=Actor.person(person), at=timezone.now())
    page = signed_in.get("/me/notices/")
    assert page.context["page"].waiting == []
    assert page.context["page"].answered == [notice]


def test_the_profile_is_saved_and_nonsense_is_not(signed_in, person):
    signed_in.post("/me/account/", {"name": "김둘", "language": "en", "warn_at": "7"})
    person.refresh_from_db()
    assert (person.name, person.language, person.warn_at) == ("김둘", "en", 7)
    for nonsense in (
        {"warn_at": "0"},
        {"warn_at": "51"},
        {"language": "fr"},
        {"name": "x" * 61},
        {"email": "a@example.com"},
        {"name": "a\u202eb"},
    ):
        answer = signed_in.post("/me/account/", {"name": "김셋", "language": "ko", "warn_at": ""} | nonsense)
        assert answer.status_code == 400, nonsense
    person.refresh_from_db()
    assert person.name == "김둘"


def test_a_stop_reaches_the_screen_of_a_late_worker(person):
    """What the worker claims later does not put an acknowledged stop back."""
    subscription = factories.joined(person)
    leave(subscription)
    finish(subscription)
    assert propagation.claim(at=timezone.now() + DAY, limit=50) == []
    assert not tracker(subscription, at=timezone.now()).moving
