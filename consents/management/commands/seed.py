"""Makes the demo's people and their history."""

import datetime
import random
import sqlite3
import sys
from argparse import ArgumentParser
from typing import Any

from allauth.account.models import EmailAddress
from dateutil.relativedelta import relativedelta
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone
from joserfc.jwk import ECKey
from tqdm import tqdm

from consents import accounts, publishing
from consents.actors import Actor
from consents.demo import bulk, cast, clients, partners, story
from consents.models import Member, Person
from providers import datafiles, register, registry
from providers.models import Channel, Licence, Organization, Service, Terms

PEOPLE = {"small": 40, "city": 22_000}


class Command(BaseCommand):
    help = (
        "Make the demo's invented people, organizations and their last year. The same seed makes the same people. "
        "A database that has people already is left as it is. `--scale city` makes 22,000 people with about 100,000 "
        "subscriptions (minutes), `nation` as many as --people says: the demo's forty with their sign-ins and a crowd in "
        "bulk, whose dates count back from today. Example: manage.py seed --people 40 --seed 7"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--people", type=int, help="how many consumers (default 40; city 22,000; nation has none)"
        )
        parser.add_argument(
            "--scale",
            choices=["small", "city", "nation"],
            default="small",
            help="how they are made (default small)",
        )
        parser.add_argument("--seed", type=int, default=7, help="of the dice (default 7)")
        parser.add_argument(
            "--demo",
            action="store_true",
            help="for the demo: on a seeded database, only tell both sides where the other one is now",
        )

    def handle(
        self, *args: Any, people: int | None, seed: int, demo: bool, scale: str, **options: Any
    ) -> None:
        if scale == "nation" and people is None:
            raise CommandError("--scale nation needs --people: 200000 make about a million subscriptions")
        people = PEOPLE[scale] if people is None else people
        if people < 1:
            raise CommandError("--people must be at least 1")
        if settings.SECURE:
            raise CommandError(
                "this makes invented people with a known password: not on a portal with a public https address"
            )
        if Person.objects.exists():
            if not demo:
                raise CommandError(
                    "there are people already: seed an empty database (manage.py demo --fresh starts over)"
                )
            datafiles.load_policy()  # rules that are new since it was seeded
            partners.reconnect()
            return
        now = timezone.now().replace(microsecond=0)
        if scale != "small":
            self._seed_many(people, seed, now)
            return
        # One transaction: a seed that is interrupted leaves an empty database, not half a year.
        with transaction.atomic():
            self._seed(people, seed, now, self._market(now))

    def _seed_many(self, people: int, seed: int, now: datetime.datetime) -> None:
        """The demo's forty as always, and the rest in bulk beside them. An interrupted one leaves organizations only."""
        few = min(PEOPLE["small"], max(1, people // 10))
        with transaction.atomic():
            keys = self._market(now)
        try:
            with (
                tqdm(total=people - few, desc="people", disable=not sys.stderr.isatty(), leave=False) as bar,
                transaction.atomic(),
                bulk.settling(people - few, seed=seed, now=now, keys=keys, progress=bar.update),
            ):
                self._seed(few, seed, now, keys)
        except bulk.Failed as failure:
            raise CommandError(str(failure)) from failure
        bulk.analyze()

    def _market(self, now: datetime.datetime) -> dict[str, ECKey]:
        """Organizations, services, terms and channels; what an interrupted seed has left of them is used."""
        if Channel.objects.filter(organization__is_fictional=True).exists():
            return partners.known_keys()
        self._facts(now)
        return partners.open_channels(by=story.SYSTEM, at=now - relativedelta(years=1, days=1))

    def _seed(self, people: int, seed: int, now: datetime.datetime, keys: dict[str, ECKey]) -> None:
        roles = {role.key: role for role in cast.consumers(people, random.Random(seed))}  # noqa: S311 - a story, not a secret
        persons = {key: self._account(role) for key, role in roles.items()}
        self._staff(now)
        self._play(story.Story(now=now, dice=random.Random(seed), keys=keys), persons)  # noqa: S311
        self._close_services()
        partners.hand_over_holdings()
        partners.past_runs("FTDURU9001", now=now)
        clients.settle(now=now)
        partners.lodge_requests("FTDURU9001", now=now)
        self._switch_faults()
        signs = [*roles.values(), *cast.STAFF]
        partners.write_private(
            partners.folder() / "demo.json",
            [
                {"label": role.label, "email": role.email, "password": cast.PASSWORD}
                for role in signs
                if role.label
            ],
        )

    def _facts(self, now: datetime.datetime) -> None:
        datafiles.load_policy()
        datafiles.load_scopes()
        rows = list(register.read(datafiles.DATA / "registry.csv"))
        start = now - relativedelta(years=1, days=1)
        report = registry.import_register(rows, at=now)
        datafiles.load_fictional(until=start.date(), at=now)
        terms = Terms.objects.select_related("service__organization").filter(state=Terms.State.PUBLISHED)
        publishing.note_terms(terms, by=story.SYSTEM, at=start)
        known = Licence.objects.select_related("organization").filter(effective_on__lte=start)
        publishing.note_licences({*report.licences, *known}, by=story.SYSTEM, at=start)
        # Open for the story, so that people can join what has closed since; `_close_services` sets the end of it.
        registry.set_service_states(
            dict.fromkeys(
                Service.objects.filter(organization__is_fictional=True).values_list("slug", flat=True), "live"
            )
        )

    def _account(self, role: cast.Role) -> Person:
        person = Person.objects.create_user(
            role.email,
            cast.PASSWORD if role.label else None,
            name=role.name,
            born_on=role.born_on,
            language=role.language,
        )
        EmailAddress.objects.create(user=person, email=person.email, verified=True, primary=True)
        return person

    def _staff(self, now: datetime.datetime) -> None:
        for role in cast.STAFF:
            person = self._account(role)
            regulator = role.key.startswith("regulator")
            accounts.appoint(
                person=person,
                role=Member.Role.REGULATOR if regulator else Member.Role.OPERATOR_ADMIN,
                organization=None if regulator else Organization.objects.get(code=role.key),
                by=Actor.system("demo"),
                at=now,
            )

    def _play(self, told: story.Story, persons: dict[str, Person]) -> None:
        told.market()
        told.stars(persons)
        crowd = [person for key, person in persons.items() if key.startswith("p")]
        told.crowd(crowd)
        told.reports(crowd)
        told.goes(crowd[12:])
        told.files()
        told.flows()
        told.warn()
        with tqdm(
            desc="a year of history", unit=" acts", disable=not sys.stderr.isatty(), leave=False
        ) as bar:
            told.calendar.play(bar.update)

    def _close_services(self) -> None:
        registry.set_service_states({row["slug"]: row["state"] for row in datafiles.fictional()["services"]})

    def _switch_faults(self) -> None:
        """Two sources of the demo stay difficult, so that there is something late to look at."""
        with sqlite3.connect(partners.folder() / "sandbox.sqlite3") as db:
            for code, fault in story.LATE.items():
                db.execute("INSERT OR REPLACE INTO fault VALUES (?, ?, 0, NULL)", [code, fault])
        db.close()
