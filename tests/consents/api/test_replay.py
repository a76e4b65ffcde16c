"""A delivery asked for once more, by API and at the desk: the same message, the same id, no second effect."""

import uuid

import pytest
from django.test import Client
from django.utils import timezone

from consents import polling
from consents.models import Delivery
from tests import factories

from .conftest import of, problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(stopped) -> Delivery:
    Delivery.objects.filter(pk=stopped.pk).update(state="sent", sent_at=timezone.now(), next_at=None)
    stopped.refresh_from_db()
    return stopped


@pytest.fixture
def desk(service) -> Client:
    client = Client()
    admin = factories.MemberFactory(organization=service.organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def test_the_same_message_goes_out_once_more(operator, sent):
    answer = operator.post(f"deliveries/{sent.jti}/replay")
    assert answer.status_code == 202, answer.content
    again = Delivery.objects.get(replay_of=sent)
    assert answer.json() == {"jti": str(sent.jti), "replay": str(again.jti), "state": "queued"}
    assert (again.body, again.set_compact) == (sent.body, sent.set_compact) and again.next_at


def test_what_is_on_its_way_or_waits_at_the_desk_is_not_sent_again(operator, stopped, sent, unchanged):
    operator.post(f"deliveries/{sent.jti}/replay")
    with unchanged():
        problem(operator.post(f"deliveries/{sent.jti}/replay"), 409, "already-waiting")
    Delivery.objects.filter(replay_of=sent).update(
        state="sent", sent_at=timezone.now(), closed_at=timezone.now()
    )
    other = Delivery.objects.filter(organization=sent.organization, state="manual").first()
    with unchanged():
        problem(operator.post(f"deliveries/{other.jti}/replay"), 409, "already-waiting")


def test_anothers_delivery_does_not_exist(sent, unchanged):
    stranger = of(factories.OperatorFactory())
    with unchanged():
        foreign = problem(stranger.post(f"deliveries/{sent.jti}/replay"), 404, "not-found")
        assert problem(stranger.post(f"deliveries/{uuid.uuid4()}/replay"), 404, "not-found") == foreign


def test_too_many_have_to_wait(operator, sent, monkeypatch, desk):
    monkeypatch.setattr(polling, "REPLAYS_PER_MINUTE", 1)
    operator.post(f"deliveries/{sent.jti}/replay")
    late = operator.post(f"deliveries/{sent.jti}/replay")
    problem(late, 429, "too-many-requests")
    assert late["Retry-After"] == "60"
    page = desk.post(f"/desk/deliveries/{sent.jti}/replay/", follow=True)
    assert "1분 뒤에 다시 해 주세요" in page.content.decode()
    assert Delivery.objects.filter(replay_of=sent).count() == 1


def test_the_desk_has_a_button_for_it(desk, sent):
    address = f"/desk/deliveries/{sent.jti}/"
    assert "다시 보내기" in desk.get(address).content.decode()
    page = desk.post(f"{address}replay/", follow=True)
    assert page.redirect_chain[-1][0] == address and "같은 메시지를 다시 보내요" in page.content.decode()
    assert Delivery.objects.filter(replay_of=sent).count() == 1
    page = desk.post(f"{address}replay/", follow=True)
    assert "다시 보내지 않았어요" in page.content.decode()
    assert Delivery.objects.filter(replay_of=sent).count() == 1
    assert desk.post(f"{address}replay/", {"state": "erased"}).status_code == 400


def test_no_button_where_there_is_nothing_to_send(desk, stopped):
    assert "다시 보내기" not in desk.get(f"/desk/deliveries/{stopped.jti}/").content.decode()
