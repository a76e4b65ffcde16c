"""An operator takes the message and says nothing: the person and the regulator see that it is late."""

import datetime

import time_machine
from django.utils import timezone

from providers import policy
from tests import factories
from tests.journeys.conftest import number


def test_a_silent_operator_is_late_for_the_person_and_the_regulator(partners, browser_of, regulator):
    service, person = factories.offered(), factories.PersonFactory()
    operator = service.organization
    partners.connect_everybody()
    subscription = factories.joined(person, service)
    partners.settle()
    partners.fault(operator, "silent")

    visitor = browser_of(person)
    visitor.open(f"/me/subscriptions/{subscription.pk}/end/")
    visitor.press("그만두기", within="/end/")
    partners.settle()
    page = visitor.open(f"/me/subscriptions/{subscription.pk}/")
    assert "늦어지고 있어요" not in page.text, "there is still time"
    inspector = browser_of(regulator)
    assert operator.name_ko not in inspector.open("/oversight/overdue/").text.partition("하나씩")[2]

    wait = datetime.timedelta(minutes=policy.number("RECEIVED_ESCALATE_MINUTES", on=timezone.localdate()) + 1)
    with time_machine.travel(timezone.now() + wait, tick=True):
        page = visitor.open(f"/me/subscriptions/{subscription.pk}/")
        assert "늦어지고 있어요" in page.text
        assert "민원 글" in page.text and f"privacy@{operator.code.lower()}.example" in page.html
        assert number(visitor.open("/me/")) == 1, "silence is not erasure"
        page = inspector.open("/oversight/overdue/")
        assert operator.name_ko in page.text and service.name_ko in page.text
        assert person.email not in page.html and person.name not in page.html
        inspector.follow(operator.name_ko)
        assert service.name_ko in inspector.page.text


def test_an_operator_that_fails_at_first_is_told_again(partners, browser_of):
    service, person = factories.offered(), factories.PersonFactory()
    partners.connect_everybody()
    subscription = factories.joined(person, service)
    partners.settle()
    partners.fault(service.organization, "error", 2)
    visitor = browser_of(person)
    visitor.open(f"/me/subscriptions/{subscription.pk}/end/")
    visitor.press("그만두기", within="/end/")
    now = timezone.now()
    for seconds in (0, 30, 90):
        with time_machine.travel(now + datetime.timedelta(seconds=seconds), tick=True):
            partners.settle()
    page = visitor.open("/me/")
    assert number(page) == 0
    ended = [
        row
        for row in partners.effects(organization=service.organization.code)
        if row["type"] == "subscription-ended"
    ]
    assert [row["effects"] for row in ended] == [1]
