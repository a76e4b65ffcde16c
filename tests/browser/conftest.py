"""A browser with what the tests ask of every page: sessions without a detour, a watch on errors, axe, keyboard."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Request

WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE = {"width": 1280, "height": 900}
ZOOMED = {"width": 640, "height": 450}  # what 200 % leaves of it
NARROW = {"width": 360, "height": 740}
# Without motion, so that what is scrolled to is there at once.
USUAL: dict[str, Any] = {"viewport": WIDE, "timezone_id": "Asia/Seoul", "reduced_motion": "reduce"}
LOCALES = {"ko": "ko-KR", "en": "en-US"}


class Errors(list):
    """What a page complained about: scripts that fail, files that are missing, the content security policy."""

    def watch(self, page: Page) -> None:
        page.on("console", lambda message: message.type == "error" and self.append(message.text))
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("requestfailed", self.failed)

    def failed(self, request: Request) -> None:
        # A page that is left drops what it still fetched. What is missing or forbidden fails with another word.
        if request.failure != "net::ERR_ABORTED":
            self.append(f"{request.url} {request.failure}")


def context_of(
    browser: Browser, url: str, session: str | None = None, *, language: str = "ko", **options: Any
) -> BrowserContext:
    """A browser window of somebody who is signed in with that session cookie, or of a visitor."""
    options = {"locale": LOCALES[language], **USUAL, **options}
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(10_000)
    if session:
        context.add_cookies([{"name": "sid", "value": session, "url": url}])
    return context


@pytest.fixture
def window(browser, live_server, settings) -> Iterator[Callable[..., Page]]:
    """`window(person)`: a page of theirs on `live_server`. Errors of any page fail the test at its end."""
    settings.PORTAL_URL = live_server.url
    opened: list[BrowserContext] = []
    errors = Errors()

    def open_window(person=None, **options: Any) -> Page:
        session = None
        if person is not None:
            client = Client()
            client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
            session = client.cookies["sid"].value
        opened.append(context_of(browser, live_server.url, session, **options))
        page = opened[-1].new_page()
        errors.watch(page)
        return page

    yield open_window
    for context in opened:
        context.close()
    assert not errors


def violations(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 AA: rule, why, and where."""
    found = Axe().run(page, options={"runOnly": WCAG, "resultTypes": ["violations"]})
    return [
        f"{rule['id']} ({rule['impact']}): {node['target']} {node['failureSummary'][:300]} {node['html'][:200]}"
        for rule in found.response["violations"]
        for node in rule["nodes"][:3]
    ]


def sideways(page: Page) -> list[str]:
    """Elements that reach beyond the right edge, if the page can be scrolled sideways."""
    return page.evaluate(
        """() => {
          const edge = document.documentElement.clientWidth
          if (document.scrollingElement.scrollWidth <= edge) return []
          const wide = [...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > edge + 1)
          return [`${document.scrollingElement.scrollWidth} > ${edge}`, ...wide.slice(-4).map(e => e.outerHTML.slice(0, 160))]
        }"""
    )


FOCUS = """() => {
  const seen = e => {
    const style = getComputedStyle(e)
    return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== 'none'
  }
  const e = document.activeElement, box = e.getBoundingClientRect()
  const near = [e, e.nextElementSibling, e.closest('label'), ...(e.labels || [])].filter(Boolean)
  return {
    what: e.outerHTML.slice(0, 160),
    outlined: near.some(seen) || near.some(n => ['::before', '::after'].some(p => getComputedStyle(n, p).outlineStyle !== 'none')),
    inside: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  }
}"""


def tab_to(page: Page, target: Locator, *, most: int = 120) -> None:
    """Press Tab until the target has the focus; at every stop the focus is to be seen."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focus = page.evaluate(FOCUS)
        if focus["what"].startswith("<body"):  # past the last stop, in the browser's own bars
            continue
        assert focus["outlined"] and focus["inside"], f"the focus is not to be seen: {focus}"
        if target.evaluate("e => e === document.activeElement"):
            return
    raise AssertionError(f"{target} cannot be reached with {most} tabs")
