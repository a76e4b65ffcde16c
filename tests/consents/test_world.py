"""The made-up city: the same for the same seed, true to its log, and nothing of it where it could not be finished.

The large one (a hundred thousand subscriptions, about ten minutes) is asked for by its number of people:

    WORLD_PEOPLE=22000 ./portal test tests/consents/test_world.py -k as_large -s
"""

import datetime
import os
import signal
import subprocess
import sys
import time
from urllib.parse import urlsplit

import psycopg
import pytest
from django.conf import settings as portal
from django.core.management import CommandError, call_command
from django.db import connection, transaction

from consents import lifecycle
from consents.actors import Actor
from consents.demo import bulk, partners, world
from consents.ledger import replay
from consents.models import Consent, Delivery, EntryIndex, Evidence, LedgerEntry, Person, Subscription
from providers import datafiles
from tests.consents.ledger.test_replay import log

__all__ = ["log"]

pytestmark = pytest.mark.timeout(300)  # a seed is work

SYSTEM = Actor.system("test")


@pytest.fixture
def keys(log, settings, tmp_path, now):
    settings.PORTAL_KEYS_DIR = tmp_path / "keys"
    datafiles.load_fictional(until=(now - datetime.timedelta(days=366)).date(), at=now)
    return partners.open_channels(by=SYSTEM, at=now - datetime.timedelta(days=366))


def settled() -> list:
    """Who there is, what they have and when it happened: everything but random ids and salts."""
    people = Person.objects.order_by("email").values_list(
        "email", "name", "born_on", "subject_id", "language"
    )
    held = Subscription.objects.order_by("person__email", "service__slug").values_list(
        "person__email", "service__slug", "origin", "state", "joined_at", "until_on", "ended_at", "end_reason", "erasure",
        "erasure_requested_at", "erasure_confirmed_at", "last_used_on", "version",
    )  # fmt: skip
    agreed = Consent.objects.order_by(
        "person__email", "subscription__service__slug", "terms_item", "source__code"
    )
    told = Delivery.objects.order_by(
        "person__email", "created_at", "subscription__service__slug", "organization__code"
    )
    return [
        list(people), list(held),
        list(agreed.values_list("person__email", "kind", "scopes", "riders", "state", "granted_at", "paused_at", "erasure")),
        list(told.values_list("person__email", "organization__code", "event", "goal", "state", "sent_at", "closed_at")),
        EntryIndex.objects.count(), Evidence.objects.count(),
    ]  # fmt: skip


def test_a_small_city_is_as_its_log_tells(keys, now, monkeypatch):
    """With every fate more frequent than in a real one, so that each is there among a few people."""
    monkeypatch.setattr(world, "REPORTED", 0.4)
    monkeypatch.setattr(world, "FATES", dict.fromkeys(world.FATES, 10))
    heard: list[int] = []
    bulk.settle(range(1, 46), seed=7, now=now, keys=keys, progress=heard.append)
    assert sum(heard) == Person.objects.count() == 45
    assert 150 < Subscription.objects.count() < 300
    report = replay.run()
    assert report.ok, str(report)
    assert report.compared["consents_subscription"] == Subscription.objects.count()
    assert report.entries == LedgerEntry.objects.count() == EntryIndex.objects.count()
    rows = {
        "reported": Subscription.objects.filter(origin="reported", state="ended"),
        "left and erased": Subscription.objects.filter(erasure="confirmed"),
        "left, still held": Subscription.objects.held_after_end().filter(erasure="not_requested"),
        "stuck": Subscription.objects.filter(erasure="requested"),
        "refused": Subscription.objects.filter(erasure="refused"),
        "expired": Consent.objects.filter(end_reason="expired"),
        "withdrawn": Consent.objects.filter(state="ended", subscription__state="active"),
        "paused": Consent.objects.filter(state="paused"),
        "asked later": Delivery.objects.filter(event="erasure-requested", state="erased"),
        "by hand": Evidence.objects.filter(means="desk"),
        "signed": Evidence.objects.filter(means="signed"),
        "third parties": Delivery.objects.filter(role="recipient", state="erased"),
    }
    assert not [name for name, found in rows.items() if not found.exists()]
    assert not Delivery.objects.filter(created_at__gt=now).exists()
    assert not EntryIndex.objects.filter(at__gt=now).exists(), "nothing happens tomorrow"


def test_its_people_go_on_living(keys, now):
    """What the domain does next finds rows as it would have written them."""
    bulk.settle(range(1, 16), seed=7, now=now, keys=keys)
    for subscription in Subscription.objects.live()[:5]:
        lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=now)
    for consent in Consent.objects.live()[:5]:
        lifecycle.withdraw(consent, erase=False, by=Actor.person(consent.person), at=now)
    report = replay.run()
    assert report.ok, str(report)


def test_the_same_seed_makes_the_same_city_however_it_is_divided(keys, now, monkeypatch):
    found = []
    for seed, batch in ((7, 100), (7, 3), (8, 100)):
        monkeypatch.setattr(bulk, "BATCH", batch)
        with transaction.atomic():
            bulk.settle(range(1, 13), seed=seed, now=now, keys=keys)
            found.append(settled())
            transaction.set_rollback(True)
    assert found[0] == found[1] != found[2]
    assert found[0][1], "somebody has a subscription"


def test_what_is_asked_for_is_checked_before_anything_is_made(db):
    with pytest.raises(CommandError, match="nation needs --people"):
        call_command("seed", scale="nation")
    with pytest.raises(CommandError, match="at least 1"):
        call_command("seed", scale="city", people=0)
    assert not Person.objects.exists()


# --- the command ---------------------------------------------------------------------------------------------------------------


class Database:
    """One of its own beside the test's, for commands in processes of their own."""

    def __init__(self, folder, name: str):
        self.name, self.folder = name, folder
        url = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{name}").geturl()
        self.env = {
            **os.environ, "DATABASE_URL": url, "PORTAL_KEYS_DIR": str(folder / "keys"), "PORTAL_STATE_DIR": str(folder),
            "LEDGER_DIR": str(folder / "ledger"), "SIGNER_DIR": str(folder / "signer"), "LOG_LEVEL": "WARNING",
        }  # fmt: skip
        self.url = url

    def start(self, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, str(portal.BASE_DIR / "manage.py"), *arguments]
        return subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )  # fmt: skip

    def run(self, *arguments: str) -> tuple[int, str]:
        running = self.start(*arguments)
        out, _ = running.communicate()
        return running.returncode, out

    def ask(self, statement: str) -> list:
        with psycopg.connect(self.url) as direct:
            return direct.execute(statement).fetchall()


@pytest.fixture
def database(django_test_environment, django_db_blocker, tmp_path):
    name = f"test_world_{os.getpid()}"
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    made = Database(tmp_path, name)
    code, out = made.run("migrate", "--verbosity", "0")
    assert code == 0, out
    yield made
    with django_db_blocker.unblock(), connection._nodb_cursor() as cursor:
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.mark.asked
@pytest.mark.timeout(300)
def test_the_command_commits_all_of_it_or_nothing(database):
    interrupted = database.start("seed", "--scale", "city", "--people", "3000", "--seed", "7")
    until = time.monotonic() + 120
    busy = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY%'"
    while database.ask(busy) == [(0,)] and time.monotonic() < until:
        time.sleep(0.05)
    os.kill(interrupted.pid, signal.SIGINT)
    interrupted.communicate()
    assert interrupted.returncode != 0
    assert database.ask("SELECT count(*) FROM consents_person") == [(0,)]
    code, out = database.run("seed", "--scale", "city", "--people", "60", "--seed", "7")
    assert code == 0, out
    assert database.ask("SELECT count(*) FROM consents_person WHERE email LIKE 'city%'") == [(54,)]
    assert database.ask("SELECT count(*) FROM consents_member") == [(5,)]
    code, out = database.run("ledger", "replay")
    assert code == 0 and out.rstrip().endswith("no difference"), out
    code, out = database.run("seed", "--scale", "city", "--people", "60")
    assert code != 0 and "people already" in out


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif(not os.environ.get("WORLD_PEOPLE"), reason="asked for with WORLD_PEOPLE=22000")
def test_a_city_as_large_as_asked_has_no_difference(database):
    people = os.environ["WORLD_PEOPLE"]
    started = time.monotonic()
    code, out = database.run("seed", "--scale", "city", "--people", people)
    assert code == 0, out
    counted = [
        database.ask(f"SELECT count(*) FROM {table}")[0][0]
        for table in ("consents_subscription", "ledger.event")
    ]
    print(
        f"\n{people} people, {counted[0]} subscriptions, {counted[1]} entries in {time.monotonic() - started:.0f} s"
    )
    code, out = database.run("ledger", "replay")
    print(out)
    assert code == 0 and out.rstrip().endswith("no difference"), out
