"""The checks see what they are there for: each meets a page with exactly that fault."""

import pytest

from tests.browser.conftest import NARROW, Errors, sideways, tab_to, violations

pytestmark = pytest.mark.browser
GOOD = "<!doctype html><html lang=ko><title>쪽</title><main><h1>제목</h1>{}</main></html>"


def test_axe_sees_a_picture_without_words_and_pale_text(page):
    page.set_content(GOOD.format("<p>글</p>"))
    assert not violations(page)
    page.set_content(GOOD.format("<img src='data:,'><p style='color:#aaa;background:#fff'>색이 옅은 글</p>"))
    assert {line.split()[0] for line in violations(page)} == {"image-alt", "color-contrast"}


def test_a_page_that_is_too_wide_is_seen(page):
    page.set_viewport_size(NARROW)
    page.set_content(GOOD.format("<div style='width:300px'>좁아요</div>"))
    assert not sideways(page)
    page.set_content(GOOD.format("<div style='width:400px'>넓어요</div>"))
    assert "넓어요" in sideways(page)[-1]


def test_a_focus_without_a_ring_is_seen(page):
    page.set_content(GOOD.format("<button>하나</button><button style='outline:none'>둘</button>"))
    tab_to(page, page.get_by_text("하나"))
    with pytest.raises(AssertionError, match="not to be seen"):
        tab_to(page, page.get_by_text("둘"))
    with pytest.raises(AssertionError, match="cannot be reached"):
        tab_to(page, page.get_by_text("제목"), most=1)


def test_what_breaks_the_security_policy_is_seen(page, live_server):
    errors = Errors()
    errors.watch(page)
    page.goto(f"{live_server.url}/")
    assert not errors
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"color:red\">빨강</p>')")
    page.wait_for_timeout(100)
    assert "Content Security Policy" in errors[0]
