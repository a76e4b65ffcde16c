"""What organizations call things: told by themselves, kept sealed, and what a stop needs in many protocols."""

import datetime
import json
import uuid

import pytest
from django.db import connection
from django.utils import timezone

from consents import identities, lifecycle, propagation, references, routes
from consents.actors import Actor
from consents.models import Breaker, Delivery, Reference
from providers import outbound, registry
from tests import factories

from .conftest import Caller, of, problem

pytestmark = pytest.mark.django_db
ARRANGEMENT = "5a1bf696-ee03-408b-b315-97955415d1f0"
CI, OTHER_CI = "A" * 86 + "==", "B" * 86 + "=="


@pytest.fixture
def consent(subscription):
    return subscription.consents.filter(kind="transfer").select_related("source").first()


def name(caller, consent, /, **more):
    return caller.post(
        "references", {"kind": "arrangement", "identifier": ARRANGEMENT, "consent": str(consent.pk)} | more
    )


def test_each_party_names_a_consent_for_itself(service, consent):
    for organization in (service.organization, consent.source):
        answer = name(of(organization), consent)
        assert answer.status_code == 201, answer.content
        assert answer.json() == {
            "kind": "arrangement", "consent": str(consent.pk), "subscription": str(consent.subscription_id),
            "subject": str(consent.person.subject_id),
        }  # fmt: skip
        assert references.named(organization, "arrangement", ARRANGEMENT).consent == consent
    assert Reference.objects.count() == 2
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM consents_reference t WHERE t::text LIKE %s", [f"%{ARRANGEMENT}%"]
        )
        assert cursor.fetchone() == (0,), "kept sealed"


def test_the_same_again_is_no_change_and_a_name_is_one_things(operator, service, subscription, consent):
    first = name(operator, consent)
    assert (first.status_code, name(operator, consent).content) == (201, first.content)
    other = subscription.consents.exclude(pk=consent.pk).first()
    problem(name(operator, other), 409, "name-in-use")
    whole = {"kind": "arrangement", "identifier": ARRANGEMENT, "subscription": str(subscription.pk)}
    problem(operator.post("references", whole), 409, "name-in-use")
    assert Reference.objects.get().consent == consent


def test_a_subscription_and_a_person_can_be_named(operator, service, subscription):
    told = {"kind": "grant", "identifier": "g-1", "subscription": str(subscription.pk)}
    assert operator.post("references", told).json()["consent"] is None
    told = {"kind": "ci", "identifier": CI, "subject": str(subscription.person.subject_id)}
    assert operator.post("references", told).json()["subscription"] is None
    rows = list(subscription.deliveries.filter(organization=service.organization))
    letters = routes.letters(rows)
    assert {(one.kind, one.identifier) for row in rows for one in letters[row.pk].references} == {
        ("grant", "g-1"),
        ("ci", CI),
    }


def test_a_ci_is_one_persons(operator, service, subscription):
    told = {"kind": "ci", "identifier": CI, "subject": str(subscription.person.subject_id)}
    vouched = identities.Vouched("kakao", OTHER_CI)
    identities.verify(subscription.person, vouched, by=Actor.person(subscription.person), at=timezone.now())
    problem(operator.post("references", told), 409, "name-in-use")
    assert operator.post("references", told | {"identifier": OTHER_CI}).status_code == 201
    another = factories.joined(factories.PersonFactory(), service).person
    taken = {"kind": "ci", "identifier": OTHER_CI, "subject": str(another.subject_id)}
    problem(operator.post("references", taken), 409, "name-in-use")


def test_anothers_things_have_no_name_of_yours(consent, subscription, unchanged):
    stranger, narrow = of(factories.OperatorFactory()), of(consent.source, "consents:read")
    asked = [
        {"consent": str(consent.pk)}, {"consent": str(uuid.uuid4())}, {"subscription": str(subscription.pk)},
        {"subscription": str(uuid.uuid4())},
    ]  # fmt: skip
    with unchanged():
        told = [problem(stranger.post("references", {"kind": "grant", "identifier": "g"} | one), 404, "not-found") for one in asked]  # fmt: skip
        for subject in (str(subscription.person.subject_id), str(uuid.uuid4())):
            who = {"kind": "ci", "identifier": CI, "subject": subject}
            told.append(problem(stranger.post("references", who), 404, "not-found"))
        assert all(one == told[0] for one in told)
        problem(name(Caller(), consent), 401, "unauthorized")
        problem(name(narrow, consent), 403, "insufficient-scope")


NOBODY = "01a2013b-6740-7a01-8f00-0000000000ff"


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "password"}, {"kind": None}, {"identifier": ""}, {"identifier": "x" * 1025}, {"identifier": "가"},
        {"identifier": "a b"}, {"identifier": "a\n"}, {"identifier": 7}, {"consent": "x"}, {"consent": None},
        {"subject": NOBODY}, {"subscription": NOBODY}, {"kind": "ci"}, {"also": 1},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_what_is_no_name_is_refused(operator, consent, unchanged, wrong):
    with unchanged():
        assert problem(name(operator, consent, **wrong), 400, "invalid-request")["errors"]


def test_a_ci_has_its_form_and_is_a_persons(operator, subscription, unchanged):
    subject = str(subscription.person.subject_id)
    with unchanged():
        for wrong in ({"identifier": "Q0k="}, {"kind": "grant"}):
            told = {"kind": "ci", "identifier": CI, "subject": subject} | wrong
            problem(operator.post("references", told), 400, "invalid-request")


def test_what_a_protocol_has_no_word_for_waits_in_the_inbox(subscription, consent, me, monkeypatch):
    """A bank hears of ends only: that a consent is paused is for its people, and nothing is given up."""
    bank, at = consent.source, timezone.now()
    registry.open_channel(
        organization=bank, protocol="uk", address="https://bank.example/open-banking/v3.1/aisp", credential="t", at=at
    )  # fmt: skip
    lifecycle.pause(consent, by=me, at=at)
    propagation.deliver_due(now=timezone.now)
    news = Delivery.objects.get(organization=bank, event="consent-paused")
    assert (news.state, news.last_error) == ("manual", "no word for consent-paused")
    assert not Breaker.objects.exclude(state="closed").exists()


def test_a_stop_that_waited_for_a_name_goes_out_when_it_has_one(consent, me, monkeypatch):
    """A bank whose consents are deleted: without ConsentId nothing can be, with it the next run does."""
    bank, at, asked = consent.source, timezone.now(), []
    registry.open_channel(
        organization=bank, protocol="uk", address="https://bank.example/open-banking/v3.1/aisp", credential="t", at=at
    )  # fmt: skip

    async def deleted(session, *, method, url, **request):
        asked.append((method, url))
        return outbound.Reply(204, {}, b"", "d" * 64)

    monkeypatch.setattr(outbound, "send", deleted)
    lifecycle.withdraw(consent, erase=False, by=me, at=at)
    propagation.deliver_due(now=timezone.now)
    stop = Delivery.objects.get(organization=bank, event="consent-withdrawn")
    assert (stop.state, stop.last_error, asked) == ("dead", "the message names no consent", [])
    assert stop.next_at > timezone.now() + datetime.timedelta(hours=1)
    assert name(of(bank), consent, kind="consent", identifier="aac-1").status_code == 201
    propagation.deliver_due(now=timezone.now)
    stop.refresh_from_db()
    assert stop.state == "sent"
    assert asked == [("DELETE", "https://bank.example/open-banking/v3.1/aisp/account-access-consents/aac-1")]
