"""At rest, everybody says the same: the API, the page, and the pretend operators."""

import pytest
from django.test import Client

from consents.models import Member, Person, Subscription
from tests.journeys.conftest import number
from tests.journeys.visitor import Page
from tests.partners import application_of


@pytest.mark.timeout(300)  # it may wait for the seed
def test_summary_page_and_partners_say_the_same_for_everybody(city):
    city.partners.settle()
    people = Person.objects.exclude(pk__in=Member.objects.values("person"))
    seen = []
    for person in people.order_by("email"):
        client = Client(headers={"Accept-Language": "ko"})
        summary = application_of(person, client).get("me/summary")
        client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
        page = Page("/me/", 200, client.get("/me/").content.decode())
        assert number(page) == summary["operators_holding"], person.email
        assert summary["receiving"] + summary["held_after_end"] == summary["operators_holding"], person.email
        holding = Subscription.objects.filter(person=person).holding().select_related("operator")
        here = {row.operator.code for row in holding}
        by_hand = {row.operator.code for row in holding if not city.partners.plays(row.operator)}
        assert here - by_hand == city.partners.operators_holding(person), person.email
        assert len(here) == summary["operators_holding"]
        seen.append(summary["operators_holding"])
    assert len(seen) == 40 and max(seen) >= 7 and min(seen) == 0
