"""A person who is new here says yes to one service, knowingly."""

from consents.models import Person
from tests import factories
from tests.journeys.conftest import id_in, number
from tests.journeys.visitor import Visitor
from tests.partners import application_of


def test_a_new_person_signs_up_passes_the_speed_bump_and_joins(partners, client):
    service = factories.offered()
    partners.connect_everybody()
    visitor = Visitor()

    visitor.open("/")
    visitor.open("/services/")
    visitor.follow(service.name_ko)
    visitor.follow("가입 알아보기")
    assert visitor.page.url.startswith("/accounts/login/")
    visitor.sign_up("nara@example.com")

    # The way leads back to where it began: the speed bump, before anything is asked.
    assert visitor.page.url == f"/services/{service.slug}/join/"
    assert "아직 내 정보를 가진 곳이 없어요" in visitor.page.text
    visitor.press("계속하기")
    assert "무엇에 동의할지 골라 주세요" in visitor.page.text
    ask = visitor.page.button("동의하고 가입하기").form
    optional = [name for name in ask.offered if name.startswith(("item-", "rider-"))]
    assert optional and not {name for name, _ in ask.values} & set(optional), (
        "optional items and riders are off"
    )
    ask.tick(next(name for name in optional if name.startswith("item-")))
    visitor.press("동의하고 가입하기")

    assert visitor.page.url.endswith("/receipt/")
    assert "동의 영수증" in visitor.page.text
    subscription = id_in(visitor.page.url)
    assert number(visitor.open("/me/")) == 1

    partners.settle()
    person = Person.objects.get(email="nara@example.com")
    held = partners.held(organization=service.organization.code)
    assert {row["subscription"] for row in held} == {subscription}
    assert {row["subject"] for row in held} == {str(person.subject_id)}
    assert {row["state"] for row in held} == {"active"}
    assert len(held) == 2, "the required item and the one that was switched on"
    assert partners.operators_holding(person) == {service.organization.code}
    assert application_of(person, client).get("me/summary") == {
        "operators_holding": 1, "receiving": 1, "held_after_end": 0, "subscriptions": 1, "notices": 0,
    }  # fmt: skip
    history = visitor.open("/me/history/").text
    assert service.name_ko in history

    # Only the way in by code is needed the next time.
    again = Visitor()
    again.open("/me/")
    again.sign_in("nara@example.com")
    assert number(again.page) == 1


def test_backing_out_at_the_ask_leaves_nothing(partners, browser_of):
    service, person = factories.offered(), factories.PersonFactory()
    partners.connect_everybody()
    visitor = browser_of(person)
    visitor.open(f"/services/{service.slug}/join/")
    visitor.press("계속하기")
    visitor.follow("가입하지 않기")
    assert visitor.page.url == f"/services/{service.slug}/"
    assert number(visitor.open("/me/")) == 0
    assert partners.deliver() == 0 and not partners.held()
