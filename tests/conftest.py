"""Fixtures of every test: the dated numbers and the scope catalogue, a clock, people with their browsers."""

import datetime

import pytest
from django.utils import translation

from consents import turnstile
from consents.actors import Actor
from providers import datafiles, policy
from providers.models import PolicyRule
from tests import factories
from tests.city import city, seeded
from tests.databases import django_db_modify_db_settings, migrated
from tests.partners import partners

# Fixtures, one of each for every folder.
__all__ = ["city", "django_db_modify_db_settings", "migrated", "partners", "seeded"]

NOW = datetime.datetime(2026, 11, 22, 3, 0, tzinfo=datetime.UTC)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """The facts of `providers/data` are in every test database, as they are in every real one."""
    with django_db_blocker.unblock():
        datafiles.load_policy()
        datafiles.load_scopes()


@pytest.fixture(autouse=True)
def speaks_korean_first(settings):
    """A request in English leaves its thread in English: the next test begins in Korean all the same."""
    translation.activate(settings.LANGUAGE_CODE)


@pytest.fixture(autouse=True)
def facts(request):
    """A test that empties the tables at its end takes the facts along: bring them back for the next one."""
    policy.forget()
    marker = request.node.get_closest_marker("django_db")
    if marker is None and not {"db", "transactional_db", "live_server"} & set(request.fixturenames):
        return
    transactional = {"transactional_db", "live_server"} & set(request.fixturenames)
    request.getfixturevalue(
        "transactional_db" if transactional or (marker and marker.kwargs.get("transaction")) else "db"
    )
    bring_facts()


def bring_facts() -> None:
    policy.forget()
    if not PolicyRule.objects.exists():
        datafiles.load_policy()
        datafiles.load_scopes()


@pytest.fixture(autouse=True)
def published_log(settings, tmp_path_factory, request):
    """Every test has a log folder and a signer of its own; both are made at the first use."""
    folder = tmp_path_factory.getbasetemp() / "logs" / str(abs(hash(request.node.nodeid)))
    settings.LEDGER_DIR, settings.SIGNER_DIR = folder / "ledger", folder / "signer"
    settings.LEDGER_POLICY = settings.LEDGER_DIR / "policy.txt"
    return settings.LEDGER_DIR


@pytest.fixture(autouse=True)
def nobody_is_shut_out():
    """Who came too often in one test is a stranger in the next."""
    turnstile.forget_shut()


@pytest.fixture
def now() -> datetime.datetime:
    return NOW


@pytest.fixture
def person(db):
    return factories.PersonFactory()


@pytest.fixture
def me(person) -> Actor:
    return Actor.person(person)


@pytest.fixture
def visitor(client):
    """A browser without a session."""
    return client


@pytest.fixture
def signed_in(client, person):
    """The person's browser."""
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    return client


LONG = {"stop_faults", "model", "asked"}  # markers of what takes long


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long runs when it is asked for, by one of its markers or by name; what is marked `always` runs always.

    The city's tests come first, in whatever order they have: one worker gets all of them, and the others need no city."""
    items.sort(key=lambda item: "city" not in getattr(item, "fixturenames", ()))
    if any("::" in part for part in config.args):
        return
    wanted = config.getoption("markexpr") or ""

    def is_left(item: pytest.Item) -> bool:
        marks = {mark.name for mark in item.iter_markers()}
        return bool(marks & LONG) and "always" not in marks and not any(name in wanted for name in marks)

    left = [item for item in items if is_left(item)]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
