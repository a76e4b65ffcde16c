"""Ending is never harder than joining: screens, clicks, inputs and sign-ins, counted on the real pages."""

from dataclasses import astuple, dataclass, fields

import pytest
from playwright.sync_api import Locator, Page, expect

from tests import factories

pytestmark = pytest.mark.browser


@dataclass
class Effort:
    """What one way through the pages costs."""

    screens: int = 0
    clicks: int = 0
    inputs: int = 0
    sign_ins: int = 0


class Walk:
    """Counts while somebody walks: every document shown, every click, every field that has to be filled, every sign-in."""

    def __init__(self, page: Page, start: str):
        self.page, self.effort = page, Effort()
        page.goto(start)
        if "/accounts/" in page.url:
            self.effort.sign_ins += 1
        page.on("framenavigated", self._shown)

    def _shown(self, frame) -> None:
        if frame.parent_frame is None:
            self.effort.screens += 1
            self.effort.sign_ins += "/accounts/" in frame.url

    def go(self, target: Locator) -> None:
        form = target.locator("xpath=ancestor::form")
        if form.count():
            for empty in form.locator(":invalid").all():
                if empty.evaluate("e => e.matches('input, select, textarea')"):
                    self.effort.inputs += 1
                    empty.check() if empty.get_attribute("type") == "checkbox" else empty.fill("1990-05-01")
        self.effort.clicks += 1
        target.click()
        self.page.wait_for_load_state()


def join(page: Page, service) -> Effort:
    walk = Walk(page, f"/services/{service.slug}/")
    walk.go(page.get_by_role("link", name="가입 알아보기"))
    walk.go(page.get_by_role("button", name="계속하기"))
    walk.go(page.get_by_role("button", name="동의하고 가입하기"))
    expect(page.get_by_role("heading", level=1)).to_have_text("동의 영수증")
    return walk.effort


def leave(page: Page, subscription) -> Effort:
    walk = Walk(page, f"/me/subscriptions/{subscription.pk}/")
    walk.go(page.get_by_role("link", name="그만두기"))
    walk.go(page.get_by_role("button", name="그만두기"))
    expect(page.get_by_text("지웠다는 답을 기다리고 있어요")).to_be_visible()
    return walk.effort


@pytest.mark.parametrize("already", [0, 5], ids=["the first service", "the sixth service"])
def test_ending_takes_no_more_than_joining(window, already):
    person, service = factories.PersonFactory(), factories.offered()
    for _ in range(already):
        factories.joined(person, optional=False)
    page = window(person)
    joining = join(page, service)
    ending = leave(page, person.subscriptions.get(service=service))
    assert joining.screens >= 3 and ending.screens >= 2, "the walk was counted"
    for field, given, taken in zip(fields(Effort), astuple(joining), astuple(ending), strict=True):
        assert taken <= given, f"ending takes {taken} {field.name}, joining {given}"
    assert ending.inputs == 0 and ending.sign_ins == 0
    assert joining.inputs == (2 if already else 0)


def test_a_visitor_signs_in_no_more_often_to_end_than_to_join(window):
    person, service = factories.PersonFactory(), factories.offered()
    subscription = factories.joined(person)
    page = window()
    asked = []
    for address in (f"/services/{service.slug}/join/", f"/me/subscriptions/{subscription.pk}/end/"):
        page.goto(address)
        asked.append("/accounts/login/" in page.url)
    assert asked == [True, True]
