"""The other side ends: everybody else is told, the person gets a notice, the log an entry, and whoever said it hears no echo."""

import pytest
from django.utils import timezone

from consents import inbound, jobs
from consents.actors import Actor
from consents.models import Delivery, EntryIndex, Notice, Subscription
from tests import factories
from tests.consents.api.conftest import of

pytestmark = pytest.mark.django_db


@pytest.fixture
def subscription(person):
    return factories.joined(person)


@pytest.fixture
def operator(subscription):
    return of(subscription.operator)


@pytest.fixture
def flow(subscription):
    return subscription.consents.filter(kind="transfer").select_related("source").first()


def told(subscription, event: str) -> set:
    return set(
        Delivery.objects.filter(subscription=subscription, event=event).values_list("organization", flat=True)
    )


def test_a_source_says_that_the_customer_left(subscription, flow, person):
    answer = of(flow.source).post(
        f"consents/{flow.pk}/end", {"reason": "account_closed"}, Idempotency_Key="k"
    )
    assert answer.status_code == 200 and answer.json() == {"ended": 1}
    flow.refresh_from_db()
    assert (flow.state, flow.end_reason, flow.erasure) == ("ended", "account_closed", "not_requested")
    assert told(subscription, "consent-withdrawn") == {subscription.operator_id}, "no echo"
    entry = EntryIndex.objects.get(typ="consent.withdrawn", consent=flow)
    assert (entry.actor_kind, entry.reason) == ("organization", "account_closed")
    notice = Notice.objects.get(person=person, kind="lost")
    assert flow.source.name_ko in notice.reason_ko and flow.source.name_en in notice.reason_en
    again = of(flow.source).post(f"consents/{flow.pk}/end", {})
    assert again.status_code == 409 and again.json()["type"].endswith("already-ended")
    assert Notice.objects.filter(kind="lost").count() == 1


def test_without_a_reason_each_side_has_its_own(subscription, flow, operator):
    of(flow.source).post(f"consents/{flow.pk}/end")
    operator.post(f"subscriptions/{subscription.pk}/end")
    flow.refresh_from_db()
    subscription.refresh_from_db()
    assert (flow.end_reason, subscription.end_reason) == ("source_left", "operator_closed")
    assert subscription.operator_id not in told(subscription, "subscription-ended")
    assert told(subscription, "subscription-ended")


def test_a_reason_that_is_somebody_elses(subscription, flow, operator):
    for caller, path, reason in (
        (operator, f"subscriptions/{subscription.pk}/end", "source_left"),
        (of(flow.source), f"consents/{flow.pk}/end", "operator_closed"),
        (operator, f"subscriptions/{subscription.pk}/end", "licence_ended"),
    ):
        answer = caller.post(path, {"reason": reason})
        assert answer.status_code == 400 and answer.json()["errors"][0]["pointer"] == "#/reason"
    assert Subscription.objects.live().exists()


def test_a_stranger_ends_nothing(subscription, flow):
    for stranger in (of(factories.offered().organization), of(factories.OrganizationFactory())):
        for path in (f"consents/{flow.pk}/end", f"subscriptions/{subscription.pk}/end"):
            assert stranger.post(path).status_code == 404
    assert Subscription.objects.live().exists()


def test_a_closed_service_is_left_by_everybody(subscription, operator, person):
    other = factories.joined(factories.PersonFactory(), subscription.service)
    elsewhere = factories.joined(person)
    path = f"services/{subscription.service.client_id}/close"
    answer = operator.post(path)
    assert answer.status_code == 202 and answer.json()["ending"] == 2 and answer.json()["state"] == "closed"
    assert jobs.end_closed() == 2 and jobs.end_closed() == 0
    for row in (subscription, other):
        row.refresh_from_db()
        assert (row.state, row.end_reason) == ("ended", "operator_closed")
        assert told(row, "subscription-ended") and row.operator_id not in told(row, "subscription-ended")
        assert Notice.objects.filter(person=row.person, kind="lost").exists()
    elsewhere.refresh_from_db()
    assert elsewhere.state == "active"
    assert EntryIndex.objects.filter(typ="subscription.ended", reason="operator_closed").count() == 2
    assert operator.post(path).json()["ending"] == 0
    stranger = of(factories.offered().organization)
    assert stranger.post(path).status_code == 404


def test_the_person_reads_that_the_company_closed_it(client, subscription, operator, person):
    service = subscription.service
    operator.post(f"services/{service.client_id}/close")
    jobs.end_closed()
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    words = client.get("/me/notices/").content.decode()
    assert "회사가 서비스를 닫았어요" in words and "오가던 정보가 줄었어요" not in words
    assert "회사가 서비스를 닫아서 가입이 끝났어요" in words
    late = client.get(f"/services/{service.slug}/join/")
    assert late.status_code == 409 and "회사가 서비스를 닫아서 이제 가입할 수 없어요" in late.content.decode()


def test_the_desk_speaks_as_the_company_does(client, subscription):
    desk, service = desk_of(client, subscription.operator), subscription.service
    type(service).objects.filter(pk=service.pk).update(name_en="A Name of Its Own")
    words = desk.get("/desk/end/", HTTP_ACCEPT_LANGUAGE="en").content.decode()
    assert words.count("A Name of Its Own") == 2 and service.name_ko not in words
    assert "The customer closed the account" in words and "You closed your account" not in words


def test_who_holds_nothing_of_a_customer_ends_nothing(person):
    own = factories.offered().organization
    with pytest.raises(inbound.Unknown):
        inbound.end_customer(own, subject=person.subject_id, by=Actor.organization(own), at=timezone.now())


# --- at the desk ---------------------------------------------------------------------------------------------------------


def desk_of(client, organization):
    admin = factories.MemberFactory(organization=organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


def test_an_admin_ends_one_customers_subscription(client, subscription, person):
    desk = desk_of(client, subscription.operator)
    assert person.subject_id and str(person.subject_id) not in desk.get("/desk/end/").content.decode()
    data = {
        "subject": str(person.subject_id),
        "service": subscription.service.client_id,
        "reason": "operator_closed",
    }
    assert desk.post("/desk/end/", data).status_code == 302
    subscription.refresh_from_db()
    assert subscription.end_reason == "operator_closed"
    again = desk.post("/desk/end/", data)
    assert again.status_code == 400 and "이어져 있는 고객이 아니" in again.content.decode()
    assert desk.post("/desk/end/", data | {"reason": "source_left"}).status_code == 400


def test_a_sources_admin_ends_what_it_sends(client, subscription, flow, person):
    desk = desk_of(client, flow.source)
    assert "서비스 닫기" not in desk.get("/desk/end/").content.decode()
    answer = desk.post("/desk/end/", {"subject": str(person.subject_id), "reason": "source_left"})
    assert answer.status_code == 302
    flow.refresh_from_db()
    subscription.refresh_from_db()
    assert (flow.end_reason, subscription.state) == ("source_left", "active")


def test_a_service_is_closed_by_its_name(client, subscription):
    desk, service = desk_of(client, subscription.operator), subscription.service
    wrong = desk.post("/desk/end/service/", {"service": service.client_id, "name": "다른 것"})
    assert wrong.status_code == 400 and "이름이 서비스와 달라요" in wrong.content.decode()
    theirs = factories.offered()
    assert (
        desk.post("/desk/end/service/", {"service": theirs.client_id, "name": theirs.name_ko}).status_code
        == 400
    )
    assert (
        desk.post("/desk/end/service/", {"service": service.client_id, "name": service.name_ko}).status_code
        == 302
    )
    service.refresh_from_db()
    theirs.refresh_from_db()
    assert (service.state, theirs.state) == ("closed", "live")
