"""The factories make what the portal would make."""

import datetime

import pytest

from consents.models import Consent, Subscription
from tests.factories import PersonFactory, TermsFactory, joined, offered


@pytest.mark.django_db
def test_a_person_joins_with_all_or_only_the_required_items():
    person = PersonFactory()
    at = datetime.datetime(2026, 11, 22, 5, tzinfo=datetime.UTC)
    all_of_it = joined(person, at=at)
    needed = joined(person, at=at, optional=False)
    assert all_of_it.state == Subscription.State.ACTIVE
    assert all_of_it.joined_at == at
    assert Consent.objects.filter(subscription=all_of_it).count() == 4
    assert Consent.objects.filter(subscription=needed).count() == 1


@pytest.mark.django_db
def test_a_second_version_retires_the_first():
    first = offered().terms.get()
    second = TermsFactory(service=first.service)
    first.refresh_from_db()
    assert (first.state, second.state, second.version) == ("retired", "published", 2)
