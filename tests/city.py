"""The demo's city for tests: its invented people with their last year, in a database of their own, served on loopback.

`city` serves it to one module, for tests that look at many pages of many people. The database is seeded once
a session beside the usual test database, and nothing is flushed in between: a test must leave it as it found it and
takes no database fixture; one that ends or joins something belongs on `live_server` with rows of its own.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.core.cache import cache
from django.core.management import call_command
from django.test import Client, override_settings
from pytest_django.live_server_helper import LiveServer

from consents.demo import partners as demo
from consents.models import Person
from tests import databases, factories
from tests.partners import Partners, SandboxServer

PEOPLE = 40


@dataclass
class City:
    """`url` of the portal; `partners` are the pretend organizations with what the history gave them."""

    url: str
    partners: Partners
    folder: Path

    def person(self, email: str) -> Person:
        return Person.objects.get(email=email)

    def session(self, email: str) -> str:
        """The session cookie of somebody who signed in just now."""
        client, person = Client(), self.person(email)
        client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
        factories.prove(client, person)
        return client.cookies["sid"].value


@pytest.fixture(scope="session")
def seeded(
    request, django_test_environment, django_db_blocker, tmp_path_factory, migrated
) -> Iterator[tuple[str, Path]]:
    """The name of the seeded database, and the folder with its keys and the files of the sandbox.

    The usual test database, where any test wants it, comes first: what this one gives back must not be the server's own."""
    if any(_wants_the_usual(item) for item in request.session.items):
        request.getfixturevalue("django_db_setup")
    folder, name = tmp_path_factory.mktemp("city"), f"test_city_{os.getpid()}"
    with django_db_blocker.unblock():
        databases.create(name, template=migrated)
        with databases.in_database(name), override_settings(PORTAL_KEYS_DIR=folder / "keys"):
            call_command("seed", people=PEOPLE)
    yield name, folder
    with django_db_blocker.unblock():
        databases.drop(name)


def _wants_the_usual(item: pytest.Item) -> bool:
    fixtures = set(getattr(item, "fixturenames", ()))
    return bool(item.get_closest_marker("django_db") or {"db", "transactional_db", "live_server"} & fixtures)


@pytest.fixture(scope="module")
def city(seeded, django_db_blocker) -> Iterator[City]:
    """The city's portal and its sandbox, running until the module's end."""
    name, folder = seeded
    cache.clear()
    with django_db_blocker.unblock(), databases.in_database(name):
        portal = LiveServer("127.0.0.1")
        sandbox = SandboxServer(config=folder / "sandbox.json", database=folder / "sandbox.sqlite3")
        try:
            with override_settings(
                PORTAL_KEYS_DIR=folder / "keys", PORTAL_URL=portal.url, SANDBOX_URL=sandbox.address
            ):
                demo.reconnect()
                known = json.loads((folder / "sandbox.json").read_text())["organizations"]
                yield City(portal.url, Partners(sandbox, folder / "sandbox.json", portal.url, known), folder)
        finally:
            sandbox.stop()
            portal.stop()
