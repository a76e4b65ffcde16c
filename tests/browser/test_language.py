"""Korean unless somebody wishes otherwise; the switch keeps the place."""

import re

import pytest
from playwright.sync_api import expect

from tests import factories

pytestmark = pytest.mark.browser


def test_korean_is_the_default_and_the_switch_keeps_the_place(window):
    service = factories.offered()
    for locale in ("ko-KR", "de-DE"):
        page = window(locale=locale)
        page.goto(f"/services/{service.slug}/")
        expect(page.locator("html")).to_have_attribute("lang", "ko")
        expect(page.get_by_role("heading", level=1)).to_have_text(service.name_ko)
    page.get_by_role("button", name="English").click()
    expect(page).to_have_url(re.compile(f"/services/{service.slug}/$"))
    expect(page.locator("html")).to_have_attribute("lang", "en")
    expect(page.get_by_role("heading", level=1)).to_have_text(service.name_en)
    page.get_by_role("button", name="한국어").click()
    expect(page.locator("html")).to_have_attribute("lang", "ko")


def test_english_is_given_to_whoever_asks_for_it(window):
    page = window(language="en")
    page.goto("/")
    expect(page.locator("html")).to_have_attribute("lang", "en")
