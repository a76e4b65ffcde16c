"""The regulator and an operator's admin in a browser: what only a posted form shows."""

import re

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from consents import lifecycle
from consents.actors import Actor
from consents.models import EntryIndex
from tests import factories
from tests.browser.conftest import NARROW, sideways, violations

pytestmark = pytest.mark.browser


def test_the_regulator_looks_behind_a_pseudonym_and_the_person_sees_it(window):
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    subscription = factories.joined(factories.PersonFactory())
    entry = EntryIndex.objects.filter(typ="subscription.joined").latest("seq")
    page = window(regulator)
    page.goto(f"/oversight/entries/{entry.event_id}/")
    expect(page.get_by_text(subscription.person.email)).to_have_count(0)
    form = page.locator("form[action$='/reveal/']")
    form.locator("[name=case]").fill("2026-감독-17")
    form.locator("[name=reason]").fill("철회가 지켜졌는지 민원인에게 확인하려고 해요.")
    form.get_by_role("button").click()
    expect(page.get_by_text(subscription.person.email)).to_be_visible()
    assert not violations(page)
    page.set_viewport_size(NARROW)
    assert not sideways(page)

    own = window(subscription.person)
    own.goto("/me/history/")
    expect(own.get_by_text("2026-감독-17").first).to_be_visible()


def test_an_admin_confirms_at_the_desk(window):
    person, service = factories.PersonFactory(), factories.offered()
    factories.ChannelFactory(organization=service.organization)
    admin = factories.MemberFactory(organization=service.organization).person
    subscription = factories.joined(person, service, optional=False)
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    page = window(admin)
    page.goto("/desk/")
    assert person.email not in page.content()
    for _ in range(3):  # received, stopped, erased
        page.goto(f"/desk/deliveries/{_task(subscription).jti}/")
        form = page.locator("form[action$='/confirm/']").first
        for box in form.locator("input[type=checkbox][required]").all():
            box.check()
        form.get_by_role("button").last.click()
        expect(page.get_by_text(re.compile("확인을 기록했어요"))).to_be_visible()
    subscription.refresh_from_db()
    assert subscription.erasure == "confirmed"


def _task(subscription):
    return subscription.deliveries.get(event="subscription-ended", organization=subscription.operator)
