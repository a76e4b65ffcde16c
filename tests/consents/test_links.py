"""The one-time link of a letter: it leads an admin of the right organization to one stop, until that is answered."""

import datetime
import json

import pytest
import time_machine
from django.core import mail as letters
from django.urls import reverse
from django.utils import timezone

from consents import answers, jobs, lifecycle, links
from consents.actors import Actor
from consents.models import Evidence
from tests import factories

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"


@pytest.fixture
def stop():
    """A stop with erasure that waits in the inbox of an operator without an API."""
    subscription = factories.joined(factories.PersonFactory())
    lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=timezone.now())
    return subscription.deliveries.get(event="subscription-ended", role="operator")


@pytest.fixture
def clerk(stop, client):
    client.force_login(factories.MemberFactory(organization=stop.organization).person, backend=BACKEND)
    return client


def path(delivery) -> str:
    return "/" + links.address(delivery).split("/", 3)[3]


def test_the_letters_link_is_answered_by_a_named_account_and_then_spent(stop, clerk):
    jobs.escalate()
    (letter,) = [one for one in letters.outbox if stop.organization.duty_contact in one.to]
    link = next(word for word in letter.body.split() if "/desk/links/" in word)
    where = "/" + link.split("/", 3)[3]
    page = clerk.get(where)
    assert page.status_code == 200 and str(stop.subscription_id) in page.content.decode()
    assert f'action="{where}"' in page.content.decode()
    answer = clerk.post(where, {"step": "stopped", "back": "desk_delivery", "note": "끊었어요."})
    assert answer.status_code == 302
    stop.refresh_from_db()
    assert stop.state == "stopped" and stop.received_at
    document = json.loads(Evidence.objects.get(delivery=stop).document)
    assert document["link"] == links.digest_of(where.split("/")[3])
    assert document["confirmed_by"] and document["note"] == "끊었어요."
    for again in (clerk.get(where), clerk.post(where, {"step": "erased", "back": "desk_delivery"})):
        assert again.status_code == 410 and "이미 썼어요" in again.content.decode()
    stop.refresh_from_db()
    assert stop.state == "stopped" and Evidence.objects.count() == 1


def test_looking_spends_nothing(stop, clerk):
    """Mail servers open links before people do."""
    for _ in range(3):
        assert clerk.get(path(stop)).status_code == 200
    assert clerk.post(path(stop), {"step": "received", "back": "desk"}).status_code == 302
    assert clerk.get(path(stop)).status_code == 410


def test_what_was_answered_another_way_spends_it_too(stop, clerk):
    own = stop.organization
    answers.acknowledge(stop.jti, organization=own, by=Actor.organization(own), at=timezone.now())
    assert clerk.get(path(stop)).status_code == 410


def test_a_wrong_statement_spends_nothing(stop, clerk):
    where = path(stop)
    answer = clerk.post(where, {"step": "retained", "back": "desk_delivery", "legal_basis": ""})
    assert answer.status_code == 400 and f'action="{where}"' in answer.content.decode()
    assert clerk.get(where).status_code == 200


def test_it_opens_nothing_by_itself(stop, client):
    answer = client.get(path(stop))
    assert answer.status_code == 302 and "login" in answer["Location"]
    other = factories.MemberFactory(organization=factories.OperatorFactory()).person
    client.force_login(other, backend=BACKEND)
    assert client.get(path(stop)).status_code == 404
    assert client.post(path(stop), {"step": "received", "back": "desk"}).status_code == 404
    stop.refresh_from_db()
    assert stop.state == "manual"


def test_a_link_that_is_not_ours_or_too_old_leads_nowhere(stop, clerk):
    token = path(stop).split("/")[3]
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), "x", token.split(":")[0], "가", "%00"):
        assert clerk.get(reverse("desk_link", args=["x"]).replace("x", wrong)).status_code == 404
    late = timezone.now() + datetime.timedelta(seconds=links.GOOD_FOR + 60)
    with time_machine.travel(late), pytest.raises(links.BadLink):
        links.opened(token)
