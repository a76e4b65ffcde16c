"""Somebody whose data five operators hold already wants one more."""

from tests import factories
from tests.journeys.conftest import number


def test_the_strong_speed_bump_lets_one_end_right_there_and_go_on(partners, browser_of):
    person = factories.PersonFactory()
    services = [factories.offered() for _ in range(5)]
    wanted = factories.offered()
    partners.connect_everybody()
    for service in services:
        factories.joined(person, service, optional=False)
    partners.settle()
    visitor = browser_of(person)
    assert number(visitor.open("/me/")) == 5

    page = visitor.open(f"/services/{wanted.slug}/join/")
    assert number(page) == 5
    for service in services:
        assert service.name_ko in page.text
    assert "목록을 끝까지 살펴본 다음" in page.text
    assert "reviewed" in page.button("계속하기").form.required

    # End one without losing the place.
    unwanted = services[2]
    visitor.press(next(b for b in page.buttons if b.name == "end" and unwanted.name_ko in b.label))
    assert visitor.page.url == f"/services/{wanted.slug}/join/"
    assert "1곳을 그만뒀어요" in visitor.page.text
    partners.settle()
    page = visitor.open(f"/services/{wanted.slug}/join/")
    assert number(page) == 4, "it erased: four are left"
    assert unwanted.name_ko not in [b.label for b in page.buttons]

    visitor.press("계속하기")
    assert "무엇에 동의할지 골라 주세요" in visitor.page.text
    visitor.press("동의하고 가입하기")
    assert visitor.page.url.endswith("/receipt/")
    partners.settle()
    assert number(visitor.open("/me/")) == 5
    left = {service.organization.code for service in [*services, wanted] if service != unwanted}
    assert partners.operators_holding(person) == left


def test_the_strong_speed_bump_asks_twice_and_never_blocks(partners, browser_of):
    person = factories.PersonFactory()
    for _ in range(5):
        factories.joined(person, optional=False)
    wanted = factories.offered()
    partners.connect_everybody()
    visitor = browser_of(person)
    visitor.open(f"/services/{wanted.slug}/join/")
    visitor.page.button("계속하기").form.tick("reviewed")
    visitor.press("계속하기")
    ask = visitor.page.button("동의하고 가입하기").form
    assert "sure" in ask.required
    ask.tick("sure")
    visitor.press("동의하고 가입하기")
    assert visitor.page.url.endswith("/receipt/")
    assert number(visitor.open("/me/")) == 6
