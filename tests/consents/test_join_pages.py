"""Joining through its pages: the speed bump comes first and never blocks; nothing optional is on by itself."""

import datetime
import uuid

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consents import lifecycle
from consents.actors import Actor
from consents.models import Consent, EntryIndex, Subscription
from consents.queries.person import summary
from consents.views import join as views
from tests.factories import (
    LicenceFactory,
    MemberFactory,
    PersonFactory,
    TermsFactory,
    joined,
    offered,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def service():
    return offered()


def bump_url(service):
    return f"/services/{service.slug}/join/"


def ask_url(service):
    return f"/services/{service.slug}/join/ask/"


def seen(person, service, level="inform"):
    return views.note_of_seeing(person, service, level, summary(person).operators_holding)


def answer(person, service, *, level="inform", **more):
    """What a browser posts from the untouched ask page, and what was switched on."""
    terms = service.terms.get(state="published")
    return {
        "terms": str(terms.pk), "digest": terms.digest_ko, "language": "ko", "seen": seen(person, service, level),
        "months": "12", **more,
    }  # fmt: skip


def item(service, **which):
    return service.terms.get(state="published").items.get(**which)


def optional_source(service):
    return item(service, kind="transfer", required=False)


def text(response):
    return response.content.decode()


# --- the speed bump ------------------------------------------------------------------------------------------------------


def test_the_bump_shows_the_live_list_with_its_number(signed_in, person, service):
    mine = [joined(person) for _ in range(3)]
    page = signed_in.get(bump_url(service))
    assert page.status_code == 200
    assert page.context["bump"].total == 3
    for subscription in mine:
        assert subscription.service.name_ko in text(page)
        assert f'value="{subscription.pk}"' in text(page)


@pytest.mark.parametrize(
    ("number", "level"),
    [(0, "inform"), (2, "inform"), (3, "soft"), (4, "soft"), (5, "strong"), (6, "strong")],
)
def test_the_level_follows_the_number(signed_in, person, service, number, level):
    for _ in range(number):
        joined(person)
    assert signed_in.get(bump_url(service)).context["bump"].level == level


def test_a_person_may_set_their_own_threshold(signed_in, person, service):
    person.warn_at = 1
    person.save()
    joined(person)
    assert signed_in.get(bump_url(service)).context["bump"].level == "soft"


def test_the_ask_without_the_bump_leads_to_the_bump(signed_in, person, service):
    answer_ = signed_in.get(ask_url(service))
    assert answer_.status_code == 303
    assert answer_["Location"] == bump_url(service)


@pytest.mark.parametrize("note", ["", "nonsense", "a:b:c", "x" * 5000])
def test_a_made_up_note_of_having_seen_the_bump_is_worth_nothing(signed_in, person, service, note):
    assert signed_in.get(ask_url(service), {"seen": note}).status_code == 303
    posted = answer(person, service) | {"seen": note}
    assert signed_in.post(ask_url(service), posted).status_code == 303
    assert not Subscription.objects.exists()


def test_a_note_for_another_service_or_person_is_worth_nothing(signed_in, person, service):
    assert signed_in.get(ask_url(service), {"seen": seen(person, offered())}).status_code == 303
    assert signed_in.get(ask_url(service), {"seen": seen(PersonFactory(), service)}).status_code == 303


def test_an_old_note_leads_back_to_the_bump(signed_in, person, service):
    with time_machine.travel(timezone.now() - datetime.timedelta(seconds=views.SEEN_FOR + 60)):
        note = seen(person, service)
    assert signed_in.get(ask_url(service), {"seen": note}).status_code == 303


def test_the_bump_never_blocks_however_many(signed_in, person, service):
    for _ in range(7):
        joined(person)
    page = signed_in.get(bump_url(service))
    assert page.context["bump"].level == "strong"
    ask = signed_in.get(ask_url(service), {"seen": page.context["seen"], "reviewed": "on"})
    assert ask.status_code == 200
    posted = answer(person, service) | {"seen": page.context["seen"], "reviewed": "on", "sure": "on"}
    assert signed_in.post(ask_url(service), posted).status_code == 303
    assert Subscription.objects.live().filter(person=person, service=service).exists()


def test_a_strong_bump_asks_to_look_through_the_list_and_once_more(signed_in, person, service):
    note = seen(person, service, "strong")
    unread = signed_in.get(ask_url(service), {"seen": note})
    assert (unread.status_code, unread["Location"]) == (303, bump_url(service))
    unsure = signed_in.post(ask_url(service), answer(person, service, level="strong", reviewed="on"))
    assert unsure.status_code == 400
    assert "한 번 더 확인" in text(unsure)
    assert not Subscription.objects.exists()


def test_overlap_and_disuse_are_marked(signed_in, person, service):
    same_purpose = joined(person)
    elsewhere = joined(person, offered(purpose_code="health"), timezone.now() - datetime.timedelta(days=200))
    bump = signed_in.get(bump_url(service)).context["bump"]
    marks = {row.id: (row.overlap, bool(row.dormant)) for row in bump.rows}
    assert marks == {same_purpose.pk: (True, False), elsewhere.pk: (False, True)}


def test_a_visitor_is_asked_to_sign_in_and_comes_back(client, service):
    page = client.get(bump_url(service))
    assert page.status_code == 302
    assert bump_url(service) in page["Location"]


def test_only_persons_join(client, service):
    client.force_login(MemberFactory().person)
    assert client.get(bump_url(service)).status_code == 403
    assert client.post(ask_url(service), {}).status_code == 403


# --- ending on the spot ----------------------------------------------------------------------------------------------------


def test_one_is_ended_right_there_and_erased(signed_in, person, service):
    old, kept = joined(person), joined(person)
    done = signed_in.post(bump_url(service), {"end": str(old.pk), "erase": "on"}, follow=True)
    assert done.redirect_chain == [(bump_url(service), 303)]
    old.refresh_from_db()
    assert (old.state, old.erasure) == ("ended", "requested")
    assert [row.id for row in done.context["bump"].rows] == [kept.pk]
    assert done.context["bump"].receiving == 1
    assert done.context["bump"].held == 1


def test_several_are_ended_together_and_may_keep_what_was_taken(signed_in, person, service):
    mine = [joined(person) for _ in range(3)]
    ids = [str(subscription.pk) for subscription in mine[:2]]
    signed_in.post(bump_url(service), {"subscription": ids, "end_chosen": "1"})
    assert set(Subscription.objects.filter(state="ended").values_list("pk", "erasure")) == {
        (subscription.pk, "not_requested") for subscription in mine[:2]
    }


@pytest.mark.parametrize(
    "posted",
    [
        {},
        {"end_chosen": "1"},
        {"end": "not-an-id"},
        {"subscription": ["1"]},
        {"subscription": [str(uuid.uuid4()) for _ in range(101)]},
        {"erase": "on"},
        {"end": str(uuid.uuid4()), "erase": "perhaps"},
        {"end": str(uuid.uuid4()), "state": "ended"},
        {"end": "\x00"},
    ],
)
def test_what_cannot_be_understood_ends_nothing(signed_in, person, service, posted):
    joined(person)
    refused = signed_in.post(bump_url(service), posted)
    assert refused.status_code == 400
    assert "notice-bad" in text(refused)
    assert not Subscription.objects.filter(state="ended").exists()


def test_somebody_elses_subscription_does_not_exist(signed_in, person, service):
    mine, other = joined(person), joined(PersonFactory())
    assert signed_in.post(bump_url(service), {"end": str(other.pk)}).status_code == 404
    assert (
        signed_in.post(bump_url(service), {"subscription": [str(mine.pk), str(other.pk)]}).status_code == 404
    )
    assert not Subscription.objects.filter(state="ended").exists()


def test_ending_twice_says_so(signed_in, person, service):
    old = joined(person)
    signed_in.post(bump_url(service), {"end": str(old.pk)})
    again = signed_in.post(bump_url(service), {"end": str(old.pk)})
    assert again.status_code == 409
    assert "이미 그만둔" in text(again)
    assert EntryIndex.objects.filter(typ="subscription.ended", subscription=old).count() == 1


# --- the ask ---------------------------------------------------------------------------------------------------------------


def test_optional_items_and_riders_are_off_by_default(signed_in, person, service):
    page = text(signed_in.get(ask_url(service), {"seen": seen(person, service)}))
    for row in service.terms.get(state="published").items.all():
        assert (f'name="item-{row.pk}"' in page) is not row.required
        assert f'name="item-{row.pk}" aria-describedby="item-{row.pk}-title" checked' not in page
    assert 'name="rider-' in page
    assert page.count(" checked") == 1  # the duration
    assert "돈을 받고 제공돼요" in page
    assert "신중" in page


def test_joining_with_nothing_switched_on_takes_the_required_items_only(signed_in, person, service):
    done = signed_in.post(ask_url(service), answer(person, service))
    subscription = Subscription.objects.get(person=person)
    assert done.status_code == 303
    assert done["Location"] == f"/me/subscriptions/{subscription.pk}/receipt/"
    assert [consent.required for consent in subscription.consents.all()] == [True]
    assert subscription.consents.get().riders == []
    assert EntryIndex.objects.filter(typ="consent.declined", subscription=subscription).count() == 3


def test_switches_decide_what_is_agreed_to(signed_in, person, service):
    needed, chosen = item(service, required=True), optional_source(service)
    switched = {f"item-{chosen.pk}": "on", f"rider-{needed.pk}-memo": "on"}
    signed_in.post(ask_url(service), answer(person, service, **switched))
    agreed = {consent.terms_item_id: consent.riders for consent in Consent.objects.filter(person=person)}
    assert agreed == {needed.pk: ["memo"], chosen.pk: []}


def test_a_rider_of_an_item_that_is_off_stays_off(signed_in, person, service):
    off = optional_source(service)
    signed_in.post(ask_url(service), answer(person, service, **{f"rider-{off.pk}-memo": "on"}))
    assert not Consent.objects.filter(person=person, terms_item=off).exists()
    assert not Consent.objects.filter(person=person, riders__len__gt=0).exists()


def test_the_language_shown_is_kept_with_its_digest(signed_in, person, service):
    signed_in.cookies["django_language"] = "en"
    terms = service.terms.get()
    page = signed_in.get(ask_url(service), {"seen": seen(person, service)})
    assert 'lang="en"' in text(page)
    assert terms.digest_en in text(page)
    signed_in.post(ask_url(service), answer(person, service, language="en", digest=terms.digest_en))
    subscription = Subscription.objects.get(person=person)
    assert (subscription.language, subscription.text_digest) == ("en", terms.digest_en)


def test_a_shorter_duration_shortens_the_consents(signed_in, person, service):
    signed_in.post(ask_url(service), answer(person, service, months="3"))
    subscription = Subscription.objects.get(person=person)
    assert 88 <= (subscription.until_on - lifecycle.day(subscription.joined_at)).days <= 92


def test_a_double_submit_joins_once(signed_in, person, service):
    posted = answer(person, service)
    first = signed_in.post(ask_url(service), posted)
    second = signed_in.post(ask_url(service), posted)
    assert (first.status_code, second.status_code) == (303, 409)
    subscription = Subscription.objects.get(person=person)
    assert f"/me/subscriptions/{subscription.pk}/" in text(second)


def test_terms_that_changed_meanwhile_are_shown_again(signed_in, person, service):
    posted = answer(person, service)
    TermsFactory(service=service)
    again = signed_in.post(ask_url(service), posted)
    assert again.status_code == 409
    assert "그사이 약관이 바뀌었어요" in text(again)
    assert str(service.terms.get(state="published").pk) in text(again)
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "change",
    [{"digest": "sha256:" + "0" * 64}, {"terms": str(uuid.uuid4())}, {"terms": "x"}, {"language": "fr"}],
)
def test_what_was_not_shown_cannot_be_agreed_to(signed_in, person, service, change):
    assert signed_in.post(ask_url(service), answer(person, service) | change).status_code == 409
    assert not Subscription.objects.exists()


def test_bad_input_changes_nothing(signed_in, person, service):
    other = offered()
    for change in (
        {"months": "13"},
        {"months": ""},
        {"months": "9" * 400},
        {f"item-{optional_source(service).pk}": "maybe"},
        {f"item-{optional_source(other).pk}": "on"},
        {f"rider-{item(service, required=True).pk}-merchant": "on"},
        {f"item-{item(service, required=True).pk}": "on"},
        {"operator": "x"},
        {"request": "not-an-id"},
    ):
        status = signed_in.post(ask_url(service), answer(person, service) | change).status_code
        assert status in (400, 404), change
    assert not Subscription.objects.exists()


def test_an_enormous_form_is_refused(signed_in, person, service):
    crowd = {f"item-{n}": "on" for n in range(300)}
    assert signed_in.post(ask_url(service), answer(person, service) | crowd).status_code == 400
    assert not Subscription.objects.exists()


def test_a_forged_form_is_refused(person, service):
    from django.test import Client

    strict = Client(enforce_csrf_checks=True)
    strict.force_login(person)
    assert strict.post(ask_url(service), answer(person, service)).status_code == 403
    assert not Subscription.objects.exists()


def test_a_closed_service_cannot_be_joined(signed_in, person, service):
    posted = answer(person, service)
    service.state = "closing"
    service.save()
    assert signed_in.get(bump_url(service)).status_code == 409
    assert signed_in.post(ask_url(service), posted).status_code == 409
    assert not Subscription.objects.exists()


def test_an_operator_without_licence_cannot_be_joined(signed_in, person, service):
    LicenceFactory(
        organization=service.organization,
        status="suspended",
        decided_on=datetime.date(2026, 1, 2),
        effective_on=datetime.date(2026, 1, 2),
    )
    assert signed_in.get(bump_url(service)).status_code == 409
    assert signed_in.post(ask_url(service), answer(person, service)).status_code == 409


def test_a_child_is_refused_in_words(signed_in, person, service):
    person.born_on = timezone.localdate() - datetime.timedelta(days=365 * 10)
    person.save()
    refused = signed_in.post(ask_url(service), answer(person, service))
    assert refused.status_code == 403
    assert "만 14세" in text(refused)
    assert not Subscription.objects.exists()


def test_the_young_are_not_asked_for_marketing_and_third_parties(signed_in, person, service):
    person.born_on = timezone.localdate() - datetime.timedelta(days=366 * 16)
    person.save()
    page = signed_in.get(ask_url(service), {"seen": seen(person, service)})
    assert {row.kind for row in page.context["asked"].rows} == {"transfer"}
    assert signed_in.post(ask_url(service), answer(person, service)).status_code == 303


def test_an_unknown_service_is_not_found(signed_in):
    assert signed_in.get("/services/no-such/join/").status_code == 404
    assert signed_in.get("/services/no-such/join/ask/").status_code == 404


def test_who_has_joined_is_shown_the_subscription_instead_of_the_ask(signed_in, person, service):
    subscription = joined(person, service)
    page = signed_in.get(ask_url(service), {"seen": seen(person, service)})
    assert page["Location"] == f"/me/subscriptions/{subscription.pk}/"
    assert f"/me/subscriptions/{subscription.pk}/" in text(signed_in.get(bump_url(service)))


def test_joining_again_after_leaving_makes_a_new_subscription(signed_in, person, service):
    old = joined(person, service)
    lifecycle.leave(old, erase=True, by=Actor.person(person), at=timezone.now())
    signed_in.post(ask_url(service), answer(person, service))
    assert Subscription.objects.filter(person=person, service=service).count() == 2
    assert Subscription.objects.live().get(person=person).pk != old.pk


# --- cost --------------------------------------------------------------------------------------------------------------------


def queries_of(client, url, data=None):
    client.get(url, data)  # what is remembered for good, such as rules, is asked once
    with CaptureQueriesContext(connection) as caught:
        assert client.get(url, data).status_code == 200
    return len(caught)


def test_the_bump_costs_the_same_with_one_and_with_twelve(signed_in, person, service):
    joined(person)
    one = queries_of(signed_in, bump_url(service))
    for _ in range(11):
        joined(person)
    assert queries_of(signed_in, bump_url(service)) == one
    assert one <= 12


def test_the_ask_costs_little(signed_in, person, service):
    assert queries_of(signed_in, ask_url(service), {"seen": seen(person, service)}) <= 12


def test_an_old_tab_does_not_skip_a_list_that_has_grown(signed_in, person):
    service = offered()
    old = seen(person, service)
    for _n in range(4):
        joined(person)
    answer = signed_in.get(f"{ask_url(service)}?seen={old}")
    assert answer.status_code in (302, 303) and answer.url.startswith(f"/services/{service.slug}/join/")
