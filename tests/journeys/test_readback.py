"""An operator that says "stopped" and keeps the data, and one where it is back later: our own look finds out both."""

import datetime
import time

import pytest
import time_machine
from django.core import mail
from django.utils import timezone

from consents import lifecycle, readback
from consents import mail as letters
from consents.actors import Actor
from consents.ledger import replay
from consents.models import Case, Check, Delivery, Subscription
from consents.queries.person import summary
from tests import factories


@pytest.fixture
def joined(partners):
    service, person = factories.offered(), factories.PersonFactory()
    partners.connect_everybody()
    subscription = factories.joined(person, service)
    partners.settle()
    return subscription


def leave(subscription, partners) -> Delivery:
    person = subscription.person
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    partners.settle()
    return subscription.deliveries.get(role="operator", event="subscription-ended")


def same_by_the_log() -> bool:
    """Whether every row is what the log says. Of the entries that other tests have really committed, some were sealed with
    keys of theirs and cannot be read here: what the rows of this test stand in can, or they would differ."""
    report = replay.run()
    assert report.compared["consents_subscription"] == Subscription.objects.count() > 0
    return not [one for one in report.differences if one.table != "entry"]


def look(after: datetime.timedelta) -> int:
    """One run of the job, that much later: by our clock, for the database's cannot be moved."""
    with time_machine.travel(timezone.now() + after, tick=True):
        return asked()


def asked() -> int:
    found = readback.run(now=timezone.now)
    letters.tell_contradicted(found)
    return len(found)


MINUTE = datetime.timedelta(minutes=1, seconds=5)


def test_who_keeps_what_it_says_it_stopped_is_found_out(joined, partners, browser_of, regulator):
    operator = joined.operator
    admin = factories.MemberFactory(organization=operator).person
    partners.fault(operator, "lies")
    stop = leave(joined, partners)
    assert stop.state == "erased", "they signed that everything is gone"
    assert look(MINUTE) == 1
    assert stop.checked.last().finding == Check.Finding.STILL_ACTIVE
    others = Check.objects.exclude(delivery__organization=operator)
    assert {check.says for check in others} == {"stopped"}, "everybody else told the truth"

    visitor = browser_of(joined.person)
    assert "아직 멈추지 않았어요" in visitor.open("/me/notices/").text
    page = visitor.open(f"/me/subscriptions/{joined.pk}/")
    assert "확인해 보니 그대로 있어요" in page.text
    case = Case.objects.get()
    assert (case.kind, case.organization) == (Case.Kind.ENDED_HERE, operator)
    assert [letter.to for letter in mail.outbox if "/desk/" in letter.body] == [[admin.email]]
    joined.refresh_from_db()
    assert joined.erasure == "requested" and summary(joined.person).operators_holding == 1
    assert "아직 남아 있어요" in page.text
    assert same_by_the_log(), "what contradicts a step undoes none, and asks again for erasure"

    inspector = browser_of(regulator)
    page = inspector.open("/oversight/reconciliation/")
    assert operator.name_ko in page.text and joined.person.name not in page.html
    page = inspector.open(f"/oversight/reconciliation/{case.pk}/")
    assert "끊었는데 아직 살아 있음" in page.text and joined.person.email not in page.html


def test_what_comes_back_after_it_was_gone_is_found_out(joined, partners, browser_of):
    partners.fault(joined.operator, "resurrects", 600)
    lifecycle.leave(joined, erase=True, by=Actor.person(joined.person), at=timezone.now())
    stop = joined.deliveries.get(role="operator", event="subscription-ended")
    until = time.monotonic() + 15
    while stop.state != "erased":
        assert time.monotonic() < until
        partners.deliver()
        stop.refresh_from_db()
    assert look(MINUTE) == 0, "now it is really gone"
    assert stop.checked.get().says == "stopped"
    with time_machine.travel(timezone.now() + datetime.timedelta(hours=1, minutes=1), tick=True):
        until = time.monotonic() + 10
        while {row["state"] for row in partners.held(organization=joined.operator.code)} != {"active"}:
            assert time.monotonic() < until
            time.sleep(0.05)
        assert asked() == 1
    assert stop.checked.last().finding == Check.Finding.CAME_BACK
    assert "되살아나 있어요" in browser_of(joined.person).open("/me/notices/").text


def test_a_partner_that_never_answered_but_did_stop_is_done_by_our_look(joined, partners):
    for organization in (
        joined.operator,
        *{consent.source for consent in joined.consents.filter(kind="transfer")},
    ):
        partners.fault(organization, "silent")
    lifecycle.leave(joined, erase=False, by=Actor.person(joined.person), at=timezone.now())
    while partners.deliver():
        pass
    stop = joined.deliveries.get(role="operator", event="subscription-ended")
    assert stop.state == "sent"
    look(MINUTE)
    stop.refresh_from_db()
    assert stop.state == "stopped" and stop.closed_at
    assert same_by_the_log(), "our own look stands in the log"
