"""The two sides of surface.py, for the modules that knock at every address there is."""

import copy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.db import models, transaction
from django.test import override_settings

from consents import oauth
from tests import conftest
from tests.consents import surface
from tests.consents.surface import Side


@pytest.fixture(scope="module")
def world(django_db_setup, django_db_blocker, tmp_path_factory) -> Iterator[tuple[Side, Path]]:
    """One side and its log, in a transaction around the whole module, because making them costs as much as twenty answers.

    Each test's own transaction lies within this one, and takes back what the test has done."""
    folder = tmp_path_factory.mktemp("world")
    log = {"LEDGER_DIR": folder / "ledger", "SIGNER_DIR": folder / "signer"}
    keys = tmp_path_factory.getbasetemp() / "surface-keys"
    with django_db_blocker.unblock(), transaction.atomic():
        conftest.bring_facts()
        with override_settings(PORTAL_KEYS_DIR=keys, LEDGER_POLICY=log["LEDGER_DIR"] / "policy.txt", **log):
            made = surface.side(an_app())
        yield made, folder
        transaction.set_rollback(True)


def an_app():
    return oauth.create_app_client(name="내 앱", redirect_uris=["https://my.example/back"])


@pytest.fixture
def alice(world, db, published_log, settings) -> Side:
    """The module's side as it was made, with its log in this test's own folder, and signed in just now."""
    made, folder = world
    for name, place in (("ledger", settings.LEDGER_DIR), ("signer", settings.SIGNER_DIR)):
        shutil.copytree(folder / name, place, ignore=shutil.ignore_patterns("*.sock"))
    rows = {name: copy.copy(value) for name, value in vars(made).items() if isinstance(value, models.Model)}
    side = copy.copy(made)
    vars(side).update(rows, sessions={})
    side.sign_in()
    return side


@pytest.fixture
def bob(alice) -> Side:
    return surface.side(an_app())
