"""A person stops one service, and sees that everybody stopped and erased."""

import json

import jwt

from tests import factories
from tests.journeys.conftest import number
from tests.partners import application_of


def certified(compact: str, client) -> dict:
    """The claims of what the portal signed, checked by somebody who only has its public keys."""
    kid = jwt.get_unverified_header(compact)["kid"]
    published = client.get("/.well-known/jwks.json").json()["keys"]
    key = next(key for key in published if key["kid"] == kid)
    return jwt.decode(compact, jwt.PyJWK(key).key, algorithms=["ES256"], options={"verify_aud": False})


def test_leaving_reaches_everybody_and_the_number_drops(partners, browser_of, regulator, client):
    service, person = factories.offered(), factories.PersonFactory()
    partners.connect_everybody()
    subscription = factories.joined(person, service)
    partners.settle()
    visitor = browser_of(person)
    assert number(visitor.open("/me/")) == 1

    visitor.follow(service.name_ko)
    visitor.follow("그만두기")
    form = visitor.page.button("그만두기").form
    assert ("erase", "on") in form.values, "erase is preselected"
    assert "저절로 지워지지는 않아요" in visitor.page.text
    visitor.press("그만두기", within="/end/")
    assert visitor.page.url == f"/me/subscriptions/{subscription.pk}/"
    assert "지웠다는 답을 기다리고 있어요" in visitor.page.text
    assert number(visitor.open("/me/")) == 1, "until erasure is confirmed the operator still holds"

    partners.settle()
    page = visitor.open(f"/me/subscriptions/{subscription.pk}/")
    assert "받아간 정보를 지웠다고 서명했어요" in page.text
    assert number(visitor.open("/me/")) == 0
    assert partners.operators_holding(person) == set()
    states = {row["organization"]: row["state"] for row in partners.held(subscription=subscription.pk)}
    assert states.pop(service.organization.code) == "erased"
    recipient = subscription.consents.get(kind="third_party").recipient.code
    assert states.pop(recipient) == "erased"
    assert set(states.values()) == {"stopped"}, "a source only stops sending"
    effects = [row for row in partners.effects() if row["type"] == "subscription-ended"]
    assert {row["effects"] for row in effects} == {1}

    page = visitor.open(f"/me/subscriptions/{subscription.pk}/certificate/")
    assert "지웠다고 서명함" in page.text and "아직 답하지 않은 곳이" not in page.text
    file = json.loads(
        visitor.client.get(f"/me/subscriptions/{subscription.pk}/certificate/?format=json").content
    )
    signed = certified(file["jws"], client)["certificate"]
    assert signed["parties"] == file["parties"] and signed["type"] == file["type"] == "certificate-of-ending"
    assert file["open"] == 0 and len(file["evidence"]) >= 2
    assert all(entry["typ"] for entry in file["log"]["entries"])
    assert application_of(person, client).get("me/summary")["operators_holding"] == 0

    # The regulator sees all of it, and no name.
    inspector = browser_of(regulator)
    log = f"/oversight/?operator={service.organization.code}"
    for typ in (
        "subscription.ended",
        "delivery.sent",
        "delivery.received",
        "delivery.stopped",
        "erasure.confirmed",
    ):
        page = inspector.open(f"{log}&typ={typ}")
        assert service.organization.name_ko in page.text.partition("정보주체(가명)")[2], typ
    assert person.email not in page.html and person.name not in page.html
    assert "늦은 처리가 없어요" in inspector.open("/oversight/overdue/").text


def test_stopping_without_erasing_keeps_counting_until_the_person_asks(partners, browser_of):
    service, person = factories.offered(), factories.PersonFactory()
    partners.connect_everybody()
    subscription = factories.joined(person, service)
    partners.settle()
    visitor = browser_of(person)
    visitor.open(f"/me/subscriptions/{subscription.pk}/end/")
    visitor.page.button("그만두기").form.untick("erase")
    visitor.press("그만두기", within="/end/")
    partners.settle()
    assert number(visitor.open("/me/")) == 1
    assert partners.operators_holding(person) == {service.organization.code}
    assert {row["state"] for row in partners.held(organization=service.organization.code)} == {"stopped"}

    visitor.open(f"/me/subscriptions/{subscription.pk}/")
    visitor.press("지워 달라고 하기(삭제 요구)")
    partners.settle()
    assert number(visitor.open("/me/")) == 0
    assert partners.operators_holding(person) == set()
