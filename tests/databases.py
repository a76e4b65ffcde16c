"""One migrated database for all processes of a test run, of which every test database is a copy.

Migrating costs as much as a few hundred tests; a copy is made in less than a second. The first process that needs it makes
it, under a lock, and the last one to leave removes it: on a server of somebody's own nothing may stay behind.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django.db.backends.postgresql.creation import DatabaseCreation
from psycopg import sql

from config.servers import locked, try_lock


@contextlib.contextmanager
def in_database(name: str) -> Iterator[None]:
    """Every connection of this process goes to the database `name`."""
    given = connections.settings["default"]
    usual = given["NAME"]
    connections.close_all()
    given["NAME"] = connection.settings_dict["NAME"] = name
    try:
        yield
    finally:
        connections.close_all()
        given["NAME"] = connection.settings_dict["NAME"] = usual


def create(name: str, *, template: str = "template1") -> None:
    _order("CREATE DATABASE {} TEMPLATE {}", name, template)


def drop(name: str) -> None:
    _order("DROP DATABASE IF EXISTS {} WITH (FORCE)", name)


def _order(statement: str, *names: str) -> None:
    with connection._nodb_cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def _of_the_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that the processes of this test run share, and a name for the run."""
    own = tmp_path_factory.getbasetemp()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    return (own.parent, run) if run else (own, str(os.getpid()))


@pytest.fixture(scope="session")
def migrated(django_test_environment, django_db_blocker, tmp_path_factory) -> Iterator[str]:
    """The name of a database with every migration in it and no rows of a test; nobody may stay connected to it."""
    folder, run = _of_the_run(tmp_path_factory)
    name, made = f"test_migrated_{run}", folder / "migrated"
    with (folder / "migrated.users").open("a") as users:
        with django_db_blocker.unblock(), locked(folder / "migrated.lock"):
            if not made.exists():
                drop(name)
                create(name)
                with in_database(name):
                    call_command("migrate", verbosity=0)
                made.touch()
            fcntl.flock(users, fcntl.LOCK_SH)
        yield name
        with django_db_blocker.unblock(), locked(folder / "migrated.lock"):
            if try_lock(users):
                made.unlink()
                drop(name)


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings, migrated) -> None:
    """The usual test database starts as a copy; Django then finds nothing left to migrate."""
    connections.settings["default"]["TEST"]["TEMPLATE"] = migrated


def _destroy(self: DatabaseCreation, test_database_name: str, verbosity: int) -> None:
    drop(test_database_name)


# A server's thread may have kept its connection: the database goes all the same.
DatabaseCreation._destroy_test_db = _destroy  # type: ignore[method-assign]
