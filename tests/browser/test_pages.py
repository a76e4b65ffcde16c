"""Every page, as the demo fills it: readable for everybody, on every width, in both languages, without a complaint."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import Page

from consents import requests, speedbump
from consents.actors import Actor
from consents.demo import partners
from consents.models import Case, Consent, Delivery, EntryIndex, GymRun, Subscription
from consents.views.join import note_of_seeing
from providers.models import Service
from tests.browser.conftest import NARROW, WIDE, ZOOMED, Errors, context_of, sideways, violations

Address = Callable[[Any], str]
pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]  # the first one waits for the seed

SEVEN, NONE, YOUNG = "haneul@portal.example", "saebyeok@portal.example", "bom@portal.example"
REGULATOR, DESK, DESK2 = "regulator@portal.example", "desk@portal.example", "desk2@portal.example"


def of_view(name: str) -> Callable[[Address], Address]:
    """Says which page an address leads to, for test_site.py."""

    def mark(address: Address) -> Address:
        address.view = name  # type: ignore[attr-defined]
        return address

    return mark


def own(slug: str, view: str = "subscription") -> Address:
    """A page of the seven's subscription to a service."""

    @of_view(view)
    def address(city) -> str:
        found = Subscription.objects.filter(person__email=SEVEN, service__slug=slug).latest("joined_at")
        return reverse(view, args=[found.pk])

    return address


def ask(slug: str, email: str) -> Address:
    @of_view("ask")
    def address(city) -> str:
        note = note_of_seeing(city.person(email), Service.objects.get(slug=slug), speedbump.INFORM, 99)
        return f"/services/{slug}/join/ask/?seen={note}"

    return address


@of_view("withdraw")
def running_consent(city) -> str:
    consent = Consent.objects.filter(person__email=SEVEN, state="active", required=False).earliest(
        "granted_at"
    )
    return reverse("withdraw", args=[consent.pk])


@of_view("entry")
def any_entry(city) -> str:
    found = EntryIndex.objects.filter(typ="subscription.ended").latest("seq")
    return reverse("entry", args=[found.event_id])


@of_view("reconciliation_case")
def any_case(city) -> str:
    return reverse("reconciliation_case", args=[Case.objects.latest("opened_at").pk])


def desks_case(email: str) -> Address:
    @of_view("desk_case")
    def address(city) -> str:
        case = Case.objects.filter(organization=city.person(email).member.organization).latest("opened_at")
        return reverse("desk_case", args=[case.pk])

    return address


def desk_task(email: str) -> Address:
    @of_view("desk_delivery")
    def address(city) -> str:
        organization = city.person(email).member.organization
        delivery = Delivery.objects.filter(organization=organization).latest("pk")
        return reverse("desk_delivery", args=[delivery.jti])

    return address


@of_view("gym_run")
def run_that_failed(city) -> str:
    partners.past_runs("FTDURU9001", now=timezone.now())  # the seed knew no address yet that may be called
    found = GymRun.objects.filter(organization__code="FTDURU9001").earliest("asked_at")
    return reverse("gym_run", args=[found.pk])


@of_view("consent_request")
def lodged(city) -> str:
    """A request that an operator has just lodged for whoever comes with its address."""
    service = Service.objects.get(slug="durumi-ledger")
    organization = service.organization
    by = Actor.organization(organization)
    made = requests.lodge(organization=organization, service=service, by=by, at=timezone.now())
    return reverse("consent_request", args=[made.pk])


@of_view("change_api_client")
def own_client(city) -> str:
    organization = city.person(DESK).member.organization
    return reverse("change_api_client", args=[organization.api_client.client_id])


# Name → whose page, its address, the status it answers.
PAGES: dict[str, tuple[str | None, str | Address, int]] = {
    "home": (None, "/", 200),
    "operators": (None, "/operators/", 200),
    "operators, nothing found": (None, "/operators/?q=%EC%97%86%EB%8A%94", 200),
    "operator": (None, "/operators/FTDURU9001/", 200),
    "services": (None, "/services/", 200),
    "service": (None, "/services/durumi-ledger/", 200),
    "sign in": (None, "/accounts/login/", 200),
    "sign in by code": (None, "/accounts/login/code/", 200),
    "sign up": (None, "/accounts/signup/", 200),
    "sign up by passkey": (None, "/accounts/signup/passkey/", 200),
    "reset": (None, "/accounts/password/reset/", 200),
    "verify": (None, "/verify/", 200),
    "api docs": (None, "/api/docs/", 200),
    "api problems": (None, "/api/docs/problems", 200),
    "api events": (None, "/api/docs/events/", 200),
    "api start": (None, "/api/docs/start/", 200),
    "api changes": (None, "/api/docs/changes/", 200),
    "api korea": (None, "/api/docs/korea/", 200),
    "not found": (None, "/nowhere/", 404),
    "home of a person": (SEVEN, "/", 200),
    "me": (SEVEN, "/me/", 200),
    "me, nobody yet": (NONE, "/me/", 200),
    "subscription": (SEVEN, own("durumi-ledger"), 200),
    "subscription, erased": (SEVEN, own("shopping-insight"), 200),
    "subscription, still held": (SEVEN, own("phone-plan"), 200),
    "end": (SEVEN, own("durumi-ledger", "end"), 200),
    "withdraw": (SEVEN, running_consent, 200),
    "certificate": (SEVEN, own("shopping-insight", "certificate"), 200),
    "no certificate": (SEVEN, own("durumi-ledger", "certificate"), 404),
    "receipt": (SEVEN, own("durumi-ledger", "receipt"), 200),
    "terms": (SEVEN, own("durumi-ledger", "terms"), 200),
    "verify me": (NONE, "/me/verify/", 200),
    "count code": (SEVEN, "/me/code/", 200),
    "history": (SEVEN, "/me/history/", 200),
    "history of a day": (SEVEN, "/me/history/?on=2026-10-01", 200),
    "notices": (SEVEN, "/me/notices/", 200),
    "account": (SEVEN, "/me/account/", 200),
    "asking companies": (SEVEN, "/me/ask/", 200),
    "speed bump": (SEVEN, "/services/spare-change/join/", 200),
    "speed bump, first": (NONE, "/services/durumi-ledger/join/", 200),
    "ask": (NONE, ask("durumi-ledger", NONE), 200),
    "ask of the young": (YOUNG, ask("durumi-ledger", YOUNG), 200),
    "cannot be joined": (SEVEN, "/services/dalgureum-view/join/", 409),
    "request": (NONE, lodged, 200),
    "e-mail addresses": (SEVEN, "/accounts/email/", 200),
    "second factors": (SEVEN, "/accounts/2fa/", 200),
    "sessions": (SEVEN, "/accounts/sessions/", 200),
    "sign out": (SEVEN, "/accounts/logout/", 200),
    "not for this role": (SEVEN, "/oversight/", 403),
    "oversight": (REGULATOR, "/oversight/", 200),
    "oversight, wrong filter": (REGULATOR, "/oversight/?operator=nobody", 400),
    "entry": (REGULATOR, any_entry, 200),
    "overdue": (REGULATOR, "/oversight/overdue/", 200),
    "reconciliation": (REGULATOR, "/oversight/reconciliation/", 200),
    "reconciliation, one case": (REGULATOR, any_case, 200),
    "weekly counts": (REGULATOR, "/oversight/reconciliation/counts/", 200),
    "regulator's applications": (REGULATOR, "/oversight/apps/", 200),
    "integrity": (REGULATOR, "/oversight/integrity/", 200),
    "integrity, no such size": (REGULATOR, "/oversight/integrity/consistency/?old=1&new=1", 400),
    "desk": (DESK, "/desk/", 200),
    "desk by hand": (DESK2, "/desk/", 200),
    "desk cases": (DESK, "/desk/cases/", 200),
    "desk case": (DESK, desks_case(DESK), 200),
    "desk requests": (DESK, "/desk/requests/", 200),
    "desk deliveries": (DESK, "/desk/deliveries/", 200),
    "desk delivery": (DESK2, desk_task(DESK2), 200),
    "channel": (DESK, "/desk/channel/", 200),
    "end from the desk": (DESK, "/desk/end/", 200),
    "uploads": (DESK, "/desk/uploads/", 200),
    "channel, another": (DESK, "/desk/channel/ask/", 200),
    "gym": (DESK, "/desk/gym/", 200),
    "gym, by hand": (DESK2, "/desk/gym/", 200),
    "clients": (DESK, "/desk/api/", 200),
    "clients, by hand": (DESK2, "/desk/api/", 200),
    "client, new": (DESK, "/desk/api/new/", 200),
    "client, changed": (DESK, own_client, 200),
    "application, new": (DESK, "/desk/api/apps/new/", 200),
    "public keys": (DESK, "/desk/api/keys/", 200),
    "gym run": (DESK, run_that_failed, 200),
}
IN_ENGLISH_TOO = [
    "home", "service", "sign in", "sign up", "me", "subscription, still held", "end", "certificate", "history", "notices",
    "speed bump", "ask", "oversight", "entry", "overdue", "integrity", "desk by hand", "channel",
    "channel, another", "gym", "gym run", "clients", "account", "client, new", "public keys", "not found",
]  # fmt: skip


class Windows:
    """One window for each person and language, kept open over the module."""

    def __init__(self, browser, city):
        self._browser, self._city = browser, city
        self._open: dict[tuple[str | None, str], Page] = {}
        self.errors = Errors()

    def of(self, email: str | None, language: str) -> Page:
        if (email, language) not in self._open:
            session = self._city.session(email) if email else None
            context = context_of(self._browser, self._city.url, session, language=language)
            page = self._open[email, language] = context.new_page()
            self.errors.watch(page)
        self.errors.clear()
        return self._open[email, language]

    def close(self) -> None:
        for page in self._open.values():
            page.context.close()


@pytest.fixture(scope="module")
def windows(browser, city) -> Iterator[Windows]:
    opened = Windows(browser, city)
    yield opened
    opened.close()


def visit(windows: Windows, city, name: str, language: str) -> Page:
    """Open a page and check what holds for every page; what is wrong is told all at once."""
    email, address, status = PAGES[name]
    page = windows.of(email, language)
    page.set_viewport_size(WIDE)
    answer = page.goto(address if isinstance(address, str) else address(city))
    wrong = []
    if answer.status != status:
        wrong.append(f"{page.url} answers {answer.status}")
    if answer.headers.get("x-frame-options") != "DENY":
        wrong.append("x-frame-options is not DENY")
    if "frame-ancestors 'none'" not in answer.headers.get("content-security-policy", ""):
        wrong.append("the content security policy lets others frame the page")
    if page.get_attribute("html", "lang") != language:
        wrong.append(f"<html lang> is {page.get_attribute('html', 'lang')}")
    if page.locator("h1").count() != 1:
        wrong.append(f"{page.locator('h1').count()} h1")
    for size in (NARROW, ZOOMED):
        page.set_viewport_size(size)
        wrong += [f"{size['width']} px: {part}" for part in sideways(page)]
    page.set_viewport_size(WIDE)
    told = [text for text in windows.errors if not (status >= 400 and "Failed to load resource" in text)]
    assert not wrong + told, "\n".join(wrong + told)
    return page


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_fit_for_everybody(windows, city, name):
    page = visit(windows, city, name, "ko")
    found = violations(page)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("name", IN_ENGLISH_TOO)
def test_every_page_is_fit_for_everybody_in_english(windows, city, name):
    page = visit(windows, city, name, "en")
    found = violations(page)
    assert not found, "\n".join(found)
