"""Joining and leaving with Tab, Space and Enter alone; the focus is to be seen at every stop."""

import re

import pytest
from playwright.sync_api import expect

from tests import factories
from tests.browser.conftest import tab_to

pytestmark = pytest.mark.browser


def test_a_person_joins_by_keyboard(window):
    person, service = factories.PersonFactory(), factories.offered()
    for _ in range(5):
        factories.joined(person, optional=False)
    page = window(person)
    page.goto(f"/services/{service.slug}/")
    tab_to(page, page.get_by_role("link", name="가입 알아보기"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("가입 전에 잠깐")
    tab_to(page, page.get_by_role("checkbox", name="위의 목록을 살펴봤어요"))
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("button", name="계속하기"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("무엇에 동의할지 골라 주세요")
    tab_to(page, page.get_by_role("checkbox", name="동의할게요").first)
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("checkbox", name="그래도 가입할게요"))
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("button", name="동의하고 가입하기"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("동의 영수증")


def test_a_person_leaves_by_keyboard(window):
    person = factories.PersonFactory()
    subscription = factories.joined(person)
    page = window(person)
    page.goto("/me/")
    tab_to(page, page.get_by_role("link", name=subscription.service.name_ko))
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/me/subscriptions/"))
    tab_to(page, page.get_by_role("link", name="그만두기").first)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/end/"))
    tab_to(page, page.get_by_role("button", name="그만두기"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("지웠다는 답을 기다리고 있어요")).to_be_visible()
    subscription.refresh_from_db()
    assert (subscription.state, subscription.erasure) == ("ended", "requested")


def test_the_first_stop_leads_past_the_navigation(window):
    page = window()
    page.goto("/")
    tab_to(page, page.get_by_role("link", name="본문으로 바로 가기"), most=1)
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
