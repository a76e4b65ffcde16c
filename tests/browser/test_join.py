"""Joining in a browser: the speed bump, the ask, the receipt."""

import re

import pytest
from django.core import mail
from playwright.sync_api import expect

from consents.models import Subscription
from tests import factories
from tests.browser.conftest import sideways, violations
from tests.journeys.visitor import CODE

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_person_joins_past_the_speed_bump(window, javascript):
    person, service = factories.PersonFactory(), factories.offered()
    kept, unwanted = (factories.joined(person, optional=False) for _ in range(2))
    page = window(person, java_script_enabled=javascript)
    page.goto(f"/services/{service.slug}/")
    page.get_by_role("link", name="가입 알아보기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("가입 전에 잠깐")
    expect(page.get_by_text("2곳이 내 정보를 가지고 있어요")).to_be_visible()
    expect(page.get_by_role("heading", name=kept.service.name_ko)).to_be_visible()

    # One is ended right here; the place is kept.
    page.get_by_role("button", name=re.compile(f"그만두기 ?: {unwanted.service.name_ko}")).click()
    expect(page).to_have_url(re.compile(f"/services/{service.slug}/join/$"))
    expect(page.get_by_text("1곳을 그만뒀어요")).to_be_visible()
    expect(page.get_by_role("heading", name=unwanted.service.name_ko)).to_have_count(0)

    page.get_by_role("button", name="계속하기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("무엇에 동의할지 골라 주세요")
    switches = page.locator("main").get_by_role("checkbox")
    assert switches.count() >= 4 and not any(switch.is_checked() for switch in switches.all())
    page.get_by_role("checkbox", name="동의할게요").first.check()
    page.get_by_role("button", name="동의하고 가입하기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("동의 영수증")
    joined = Subscription.objects.get(person=person, service=service)
    assert [consent.required for consent in joined.consents.order_by("pk")] == [True, False]
    page.goto("/me/")
    expect(page.get_by_role("heading", level=1)).to_have_text(re.compile(r"3\s*곳이 내 정보를 가지고 있어요"))


def test_a_strong_speed_bump_asks_once_more(window):
    person, service = factories.PersonFactory(), factories.offered()
    for _ in range(5):
        factories.joined(person, optional=False)
    page = window(person)
    page.goto(f"/services/{service.slug}/join/")
    page.get_by_role("button", name="계속하기").click()
    expect(page).to_have_url(re.compile("/join/$"))  # the browser itself asks for the box
    page.get_by_role("checkbox", name="위의 목록을 살펴봤어요").check()
    page.get_by_role("button", name="계속하기").click()
    page.get_by_role("button", name="동의하고 가입하기").click()
    expect(page).to_have_url(re.compile("/ask/"))
    page.get_by_role("checkbox", name="그래도 가입할게요").check()
    assert not violations(page) and not sideways(page)
    page.get_by_role("button", name="동의하고 가입하기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("동의 영수증")


def test_a_visitor_signs_up_on_the_way(window):
    service = factories.offered()
    page = window()
    page.goto(f"/services/{service.slug}/")
    page.get_by_role("link", name="가입 알아보기").click()
    page.get_by_role("link", name="먼저 가입해 주세요").click()
    page.get_by_label("이메일").fill("sae@example.com")
    page.get_by_label("생년월일").fill("1990-05-01")
    page.get_by_role("button", name="계속하기").click()
    expect(page.get_by_text("sae@example.com").first).to_be_visible()
    assert not violations(page)
    page.set_viewport_size({"width": 360, "height": 740})
    assert not sideways(page)
    page.get_by_label("코드").fill(CODE.findall(mail.outbox[-1].body)[0])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("가입 전에 잠깐")
    page.get_by_role("button", name="계속하기").click()
    page.get_by_role("button", name="동의하고 가입하기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("동의 영수증")
