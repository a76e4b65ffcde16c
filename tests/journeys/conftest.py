"""What the stories share: people at their browsers, and how a page is read."""

import re
import uuid

import pytest

from tests import factories
from tests.journeys.visitor import Visitor


@pytest.fixture
def browser_of():
    """`browser_of(person)`: their browser, signed in without a detour."""

    def sit_down(person, **options) -> Visitor:
        visitor = Visitor(**options)
        visitor.client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
        return visitor

    return sit_down


@pytest.fixture
def regulator(transactional_db):
    return factories.MemberFactory(role="regulator", organization=None).person


def number(page) -> int:
    """The large number of the home page."""
    found = re.search(r"(\d+) ?곳이 내 정보를 가지고 있어요", page.text)
    assert found, page.text
    return int(found[1])


def id_in(address: str) -> str:
    """The id of the subscription that an address is about."""
    return str(uuid.UUID(address.split("/subscriptions/")[1].split("/")[0]))
