"""Stopping in a browser: one service, several at once, and the tracker that moves by itself."""

import re

import pytest
from playwright.sync_api import expect

from tests import factories
from tests.browser.conftest import NARROW, sideways, violations

pytestmark = pytest.mark.browser
NUMBER = "{}곳이 내 정보를 가지고 있어요"


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without JavaScript"])
def test_a_person_leaves_and_the_number_drops(window, partners, javascript):
    person, service = factories.PersonFactory(), factories.offered()
    partners.connect_everybody()
    factories.joined(person, service)
    partners.settle()
    page = window(person, java_script_enabled=javascript)
    page.goto("/me/")
    page.get_by_role("link", name=service.name_ko).click()
    page.get_by_role("link", name="그만두기").click()
    expect(page.get_by_role("checkbox", name="지워 달라고")).to_be_checked()
    expect(page.get_by_text("저절로 지워지지는 않아요")).to_be_visible()
    page.get_by_role("button", name="그만두기").click()
    expect(page.get_by_text("지웠다는 답을 기다리고 있어요")).to_be_visible()
    partners.settle()
    if not javascript:
        page.get_by_role("link", name="새로 고침").click()
        page.reload()
    expect(page.get_by_text("받아간 정보를 지웠다고 서명했어요")).to_be_visible(timeout=10_000)
    page.get_by_role("link", name="그만둔 확인서 보기").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("그만둔 확인서")
    page.goto("/me/")
    expect(page.get_by_role("heading", level=1)).to_contain_text("0")


@pytest.mark.parametrize("partners", [(0.5, 5.0)], indirect=True, ids=["erasure takes five seconds"])
def test_the_tracker_moves_without_a_reload(window, partners):
    person, service = factories.PersonFactory(), factories.offered()
    partners.connect_everybody()
    subscription = factories.joined(person, service)
    partners.settle()
    page = window(person)
    page.goto(f"/me/subscriptions/{subscription.pk}/end/")
    page.get_by_role("button", name="그만두기").click()
    tracker = page.locator("#stops")
    expect(tracker.get_by_text("기다리는 중").first).to_be_visible()
    page.evaluate("window.sameDocument = true")
    loads = []
    page.on("framenavigated", lambda frame: loads.append(frame.url))

    partners.deliver()
    expect(tracker.get_by_text("지웠다는 답을 기다리고 있어요")).to_be_visible()
    expect(tracker.locator(".stop-done").nth(4)).to_be_visible(timeout=10_000)
    assert tracker.get_by_text("받아간 정보를 지웠다고 서명했어요").count() == 0, (
        "not yet: erasure takes its time"
    )
    expect(tracker.get_by_text("받아간 정보를 지웠다고 서명했어요")).to_be_visible(timeout=10_000)
    expect(tracker.get_by_text("답이 오면 저절로 바뀌어요")).to_have_count(0)
    expect(page.locator("#holding-state")).to_contain_text("지")
    expect(page.locator("#announcer")).not_to_be_empty()
    assert page.evaluate("window.sameDocument") and not loads
    with pytest.raises(Exception, match="Timeout"), page.expect_request("**/tracker/**", timeout=3_000):
        pass
    assert not violations(page)


def test_several_are_ended_together(window):
    person = factories.PersonFactory()
    subscriptions = [factories.joined(person, optional=False) for _ in range(3)]
    page = window(person)
    page.goto("/me/")
    for subscription in subscriptions[:2]:
        page.get_by_role("checkbox", name=f"{subscription.service.name_ko} 고르기").check()
    page.get_by_role("button", name="고른 서비스 그만두기").click()
    assert not violations(page)
    page.set_viewport_size(NARROW)
    assert not sideways(page)
    page.locator("main").get_by_role("button", name=re.compile("그만두기|그만둘")).last.click()
    expect(page).to_have_url(re.compile("/me/$"))
    expect(page.get_by_text("그만뒀어요. 받아간 정보도 지워 달라고 했어요").first).to_be_visible()
    ended = [subscription.service.name_ko for subscription in subscriptions if _ended(subscription)]
    assert ended == [subscription.service.name_ko for subscription in subscriptions[:2]]


def _ended(subscription) -> bool:
    subscription.refresh_from_db()
    return subscription.state == "ended"
