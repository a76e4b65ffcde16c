"""The tables rebuilt from the log: equal after whatever happens, and every change behind the log's back is named."""

import dataclasses
import datetime
import random
import uuid
from collections import Counter

import pytest
from django.core.management import call_command
from django.db import connection, transaction

from consents import answers, lifecycle, propagation, readback, reconciliation, transfers
from consents.actors import Actor
from consents.ledger import disclosures, entries, facts, replay
from consents.ledger.replay import comparing
from consents.models import (
    Consent,
    Delivery,
    EntryIndex,
    Erasure,
    Evidence,
    LedgerEntry,
    PersonKey,
    Subscription,
)
from providers import registry, signing
from providers.wires import ACTIVE, STOPPED, Outcome, Reading
from tests import factories

HOUR = datetime.timedelta(hours=1)
SYSTEM = Actor.system("test")
TABLES = ("consents_subscription", "consents_consent", "consents_delivery")


@pytest.fixture
def log(db):
    """An empty log: what tests that really committed have left there belongs to people who are gone."""
    guards = [
        ("event", "a_no_row"), ("event", "a_no_stmt"), ("leaf", "a_no_row"), ("leaf", "a_no_stmt"), ("disclosure", "b_hold"),
    ]  # fmt: skip
    for table, guard in guards:
        sql(f"ALTER TABLE ledger.{table} DISABLE TRIGGER {guard}")
    sql(
        "DELETE FROM ledger.disclosure; DELETE FROM ledger.pending; DELETE FROM ledger.leaf; DELETE FROM ledger.event"
    )
    sql("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    for table, guard in guards:
        sql(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {guard}")


# --- whatever happens ----------------------------------------------------------------------------------------------------------


class Walk:
    """Acts of people, organizations, wires and the calendar in any order; what the domain refuses does not happen."""

    def __init__(self, seed: int, now: datetime.datetime):
        self.dice, self.now, self.done, self.found = random.Random(seed), now, Counter(), 0
        self.people = [factories.PersonFactory() for _ in range(3)]
        self.services = [factories.offered() for _ in range(3)]
        for service in self.services[:2]:  # the third confirms by hand
            items = service.terms.get(state="published").items.all()
            for told in [
                service.organization,
                *(i.source or i.recipient for i in items if i.source or i.recipient),
            ]:
                registry.open_channel(
                    organization=told, protocol="native", address=f"https://{told.code.lower()}.example/hooks",
                    secret=signing.new_webhook_secret(), at=now,
                )  # fmt: skip

    def go(self, steps: int) -> None:
        acts = [
            self.join, self.join, self.join, self.amend, self.pause, self.resume, self.withdraw, self.leave, self.erase,
            self.erase_consent, self.calendar, self.wire, self.wire, self.wire, self.acknowledge, self.acknowledge,
            self.prove, self.prove, self.prove, self.report, self.use, self.look, self.look, self.flow,
        ]  # fmt: skip
        for _ in range(steps):
            self.now += self.dice.choice([HOUR / 60, HOUR, 20 * HOUR, 90 * HOUR])
            act = self.dice.choice(acts)
            try:
                with transaction.atomic():
                    act()
            except (lifecycle.Refused, answers.WrongOrder, LookupError):
                continue
            self.done[act.__name__] += 1

    def one(self, rows):
        """Any of these rows; LookupError where there is none."""
        return self.dice.choice(list(rows))

    def join(self):
        service = self.one(self.services)
        terms = service.terms.get(state="published")
        items = [
            i
            for i in terms.items.select_related("source", "recipient")
            if i.required or self.dice.random() < 0.6
        ]
        lifecycle.join(
            person=(person := self.one(self.people)), service=service, terms=terms, language=self.one(["ko", "en"]),
            choices=[lifecycle.Choice(item, riders=tuple(item.riders[:1])) for item in items], by=Actor.person(person),
            origin=self.one(["portal", "request"]), at=self.now,
            until_on=self.one([None, (self.now + 60 * 24 * HOUR).date()]),
        )  # fmt: skip

    def consent(self, **conditions) -> Consent:
        return self.one(Consent.objects.filter(**conditions).select_related("subscription", "person"))

    def amend(self):
        consent = self.consent(state="active")
        changes = self.one([
            {"scopes": list(consent.scopes[:1])}, {"riders": []}, {"cycle": "1/4w"},
            {"until_on": consent.until_on - datetime.timedelta(days=1)},
        ])  # fmt: skip
        lifecycle.amend(consent, by=Actor.person(consent.person), at=self.now, **changes)

    def pause(self):
        until = self.one([None, (self.now + 30 * 24 * HOUR).date()])
        consent = self.consent(state="active")
        lifecycle.pause(consent, until_on=until, by=Actor.person(consent.person), at=self.now)

    def resume(self):
        lifecycle.resume(self.consent(state="paused"), by=SYSTEM, at=self.now)

    def withdraw(self):
        consent = self.one(Consent.objects.live().select_related("subscription", "source"))
        by = self.one(
            [Actor.person(consent.person), Actor.organization(consent.source) if consent.source else SYSTEM]
        )
        lifecycle.withdraw(consent, erase=self.dice.random() < 0.5, by=by, at=self.now)

    def leave(self):
        subscription = self.one(Subscription.objects.live())
        lifecycle.leave(
            subscription, erase=self.dice.random() < 0.5, by=Actor.person(subscription.person), at=self.now
        )

    def erase(self):
        lifecycle.erase(self.one(Subscription.objects.all()), by=SYSTEM, at=self.now)

    def erase_consent(self):
        lifecycle.erase_consent(self.consent(state="ended"), by=SYSTEM, at=self.now)

    def calendar(self):
        if self.dice.random() < 0.2:
            self.now += 200 * 24 * HOUR
        lifecycle.expire_due(by=SYSTEM, at=self.now)

    def wire(self):
        batch = propagation.claim(at=self.now, limit=5)
        verdicts = ["sent", "sent", "sent", "retry", "refused", "check", "blocked", "key", "gone"]
        for delivery in batch:
            propagation.record(delivery, Outcome(verdict=self.dice.choice(verdicts), status=200), at=self.now)
        self.one(batch)

    def delivery(self) -> Delivery:
        return self.one(Delivery.objects.filter(closed_at=None).select_related("organization"))

    def acknowledge(self):
        delivery = self.delivery()
        by = Actor.organization(delivery.organization)
        answers.acknowledge(delivery.jti, organization=delivery.organization, by=by, at=self.now)

    def prove(self):
        delivery = self.one(Delivery.objects.exclude(goal="received").select_related("organization"))
        status = self.one(["stopped", "erased", "erased", "retained"])
        answers.complete(
            delivery.jti, organization=delivery.organization, basis="상법 제33조 " * (60 if status == "retained" else 0),
            evidence=Evidence(jti=str(uuid.uuid4()), status=status, means="desk", digest="sha256:0", document="{}", stated_at=self.now),
            by=Actor.organization(delivery.organization), at=self.now,
        )  # fmt: skip

    def report(self):
        service, person = self.one(self.services), self.one(self.people)
        sources = [
            i.source for i in service.terms.get(state="published").items.select_related("source") if i.source
        ]
        rows = [
            {
                "subject": str(person.subject_id), "service_client_id": service.client_id,
                "joined_on": (self.now - 48 * HOUR).date().isoformat(), "source_org_code": source.code,
                "scopes": "bank.list bank.deposit", "purpose": "가계부", "cycle": "1/w",
                "end_date": (self.now + self.dice.randint(100, 300) * 24 * HOUR).strftime("%Y%m%d"),
                "retained_until": "99991231", "last_used_on": self.now.date().isoformat(),
            }
            for source in sources
        ]  # fmt: skip
        operator = service.organization
        reconciliation.report_holdings(
            enumerate(rows, 1), organization=operator, by=Actor.organization(operator), at=self.now
        )

    def look(self):
        """A read-back, rather of what was signed as erased."""
        asked = Delivery.objects.exclude(state__in=["queued", "retrying", "dead", "manual"])
        told = asked.exclude(goal="received").filter(overtaken=False)
        delivery = self.one(told.filter(state=self.one(["erased", "erased", "stopped", "received"])))
        Delivery.objects.filter(pk=delivery.pk).update(check_at=self.now)
        delivery.check_at = self.now
        reading = Reading(self.one([ACTIVE, ACTIVE, STOPPED]), 200)
        self.found += bool(readback.record(delivery, reading, by=readback.BY, at=self.now).finding)

    def flow(self):
        """Data flows, whether or not it has ended."""
        consent = self.consent(kind="transfer")
        operator = consent.subscription.operator
        row = transfers.Row(str(uuid.uuid4()), consent.subscription_id, self.now, consent=consent.pk)
        transfers.report([row], organization=operator, by=Actor.organization(operator), at=self.now)

    def use(self):
        subscription = self.one(Subscription.objects.live())
        reconciliation.note_use(subscription, used_on=self.now.date(), transferred_at=self.now)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_the_log_tells_all_of_it(log, seed, now):
    walk = Walk(seed, now)
    for _ in range(2):
        walk.go(60)
        report = replay.run()
        assert report.ok, f"seed {seed}, after {sum(walk.done.values())} acts\n{report}"
    assert report.entries == LedgerEntry.objects.count()
    assert report.compared["consents_consent"] == Consent.objects.count() > 5


def test_a_walk_goes_everywhere(log, now):
    """A walk reaches every state of every table, or the walks' equality would say little."""
    walk = Walk(1, now)
    for _ in range(30):
        walk.go(40)
        if not (missing := _missing()):
            break
    assert not missing and walk.found
    assert LedgerEntry.objects.filter(event_type="delivery.contradicted").exists()
    report = replay.run()
    assert report.ok, str(report)


def _missing() -> set[str]:
    """Which of the states that the replay must tell apart no row is in."""
    reached: set[str] = set()
    for model, column in [
        (Delivery, "state"), (Delivery, "overtaken"), (Consent, "state"), (Consent, "erasure"), (Consent, "end_reason"),
        (Subscription, "state"), (Subscription, "erasure"), (Subscription, "origin"),
    ]:  # fmt: skip
        values = model.objects.order_by().values_list(column, flat=True).distinct()
        reached |= {f"{model.__name__} {column} {value}" for value in values}
    wanted = {f"Delivery state {state}" for state in Delivery.State.values} | {"Delivery overtaken True"}
    wanted |= {
        f"{name} erasure {erasure}" for name in ("Consent", "Subscription") for erasure in Erasure.values
    }
    wanted |= {f"Consent state {state}" for state in Consent.State.values} | {"Subscription origin reported"}
    wanted |= {f"Consent end_reason {reason}" for reason in ("person_left", "person_withdrew", "expired")}
    return wanted - reached


def test_the_demos_year(city):
    report = replay.run()
    assert report.ok, str(report)
    assert report.compared["consents_subscription"] == Subscription.objects.count() > 40
    assert report.entries == LedgerEntry.objects.count() and report.shredded == 0


# --- what is changed behind the log's back -----------------------------------------------------------------------------------------


@pytest.fixture
def lived(log, person, now):
    """A subscription with a bit of everything, before anybody touches it."""
    subscription = factories.joined(person, at=now)
    first, second, *_ = subscription.consents.order_by("pk")
    lifecycle.pause(
        first, until_on=(now + 100 * HOUR).date(), by=Actor.person(person), at=now + HOUR, reason="inactive"
    )
    lifecycle.withdraw(second, erase=True, by=Actor.person(person), at=now + 2 * HOUR)
    asked = Delivery.objects.get(consent=second, role="operator")
    answers.complete(
        asked.jti, organization=asked.organization, basis="상법 제33조", by=SYSTEM, at=now + 3 * HOUR,
        evidence=Evidence(jti="1", status="retained", means="desk", digest="sha256:0", document="{}", stated_at=now),
    )  # fmt: skip
    assert replay.run().ok
    return subscription


def sql(statement: str, *params) -> list:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else []


def unguard() -> None:
    """As the database's owner: triggers off, constraints gone; the test's transaction takes it back."""
    sql("SET CONSTRAINTS ALL IMMEDIATE")
    for table in (*TABLES, "consents_personkey", "ledger.event", "ledger.disclosure", "ledger.leaf"):
        sql(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    constraints = sql(
        "SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype IN ('c', 'f') AND (conrelid::regclass::text = ANY(%s)"
        " OR confrelid::regclass::text = ANY(%s)) ORDER BY contype DESC",
        list(TABLES + ("ledger.event", "ledger.disclosure")),
        list(TABLES + ("ledger.event", "ledger.disclosure")),
    )
    for table, name in constraints:
        sql(f'ALTER TABLE {table} DROP CONSTRAINT "{name}"')


def columns(table: str) -> dict[str, str]:
    return dict(
        sql(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'public' AND table_name = %s",
            table,
        )
    )


OTHER = {
    "character varying": "'zz'",
    "uuid": "gen_random_uuid()",
    "bigint": "coalesce({0}, 0) + 1",
    "integer": "{0} + 1",
    "boolean": "NOT {0}",
    "timestamp with time zone": "coalesce({0}, now()) + interval '1 microsecond'",
    "date": "coalesce({0}, date '2030-01-01') + 1",
    "ARRAY": "ARRAY['zz']",
}


@pytest.mark.parametrize("table", TABLES)
def test_any_column_of_any_row_changed_is_named(lived, table):
    unguard()
    key = "jti" if table == "consents_delivery" else "id"
    rows = [row for (row,) in sql(f"SELECT {key} FROM {table} ORDER BY {key}")]
    for number, (column, kind) in enumerate(columns(table).items()):
        if column in comparing.NOT_IN_THE_LOG[table]:
            continue
        row = rows[number % len(rows)]
        with transaction.atomic():
            sql(f"UPDATE {table} SET {column} = {OTHER[kind].format(column)} WHERE {key} = %s", row)
            report = replay.run()
            named = "row" if column == key else column.removesuffix("_id")
            assert not report.ok, column
            assert (table, str(row), named) in {(d.table, d.key, d.column) for d in report.differences}, (
                f"{column}\n{report}"
            )
            transaction.set_rollback(True)
    assert replay.run().ok


def test_columns_that_the_log_does_not_carry_are_told_apart_with_a_reason(lived):
    for table in TABLES:
        assert set(comparing.NOT_IN_THE_LOG[table]) <= set(columns(table))
        assert all(comparing.NOT_IN_THE_LOG[table].values())
    sql("UPDATE consents_subscription SET last_used_on = '2026-11-23'")
    sql("UPDATE consents_delivery SET attempts = 3, last_error = 'HTTP 500'")
    assert replay.run().ok


def test_entries_of_the_first_months_say_more_of_a_delivery_and_are_read(lived, monkeypatch, now):
    lean = facts.of_message

    def as_it_was(typ, message, **given):
        fact = lean(typ, message, **given)
        more = {
            "sbs": message.subscription_id,
            "con": message.consent_id,
            "evt": message.event,
            "rol": message.role,
        }
        return dataclasses.replace(fact, fields=fact.fields | more | {"gol": message.goal})

    monkeypatch.setattr(facts, "of_message", as_it_was)
    joined = factories.joined(factories.PersonFactory(), at=now)
    row = joined.deliveries.select_related("organization").first()
    own = row.organization
    answers.acknowledge(row.jti, organization=own, by=Actor.organization(own), at=now + HOUR)
    entry = EntryIndex.objects.get(jti=row.jti, typ="delivery.received")
    assert {"sbs", "gol"} <= set(disclosures.disclosed([entry.event_id])[entry.event_id])
    assert replay.run().ok


@pytest.mark.parametrize("table", TABLES)
def test_a_row_taken_out_or_put_in_is_named(lived, table):
    unguard()
    key = "jti" if table == "consents_delivery" else "id"
    ((row,),) = sql(f"SELECT {key} FROM {table} ORDER BY {key} LIMIT 1")
    with transaction.atomic():
        sql(f"DELETE FROM {table} WHERE {key} = %s", row)
        report = replay.run()
        assert (table, str(row), "row", None) in {
            (d.table, d.key, d.column, d.kept) for d in report.differences
        }
        transaction.set_rollback(True)
    sql(f"CREATE TEMPORARY TABLE another ON COMMIT DROP AS SELECT * FROM {table} WHERE {key} = %s", row)
    another = uuid.uuid4()
    sql(f"UPDATE another SET {key} = %s", another)
    if key == "jti":
        sql("UPDATE another SET id = -1, txn = gen_random_uuid()")
    if table == "consents_subscription":
        sql("UPDATE another SET state = 'ended'")
    if table == "consents_consent":
        sql("UPDATE another SET terms_item_id = NULL, state = 'ended'")
    sql(f"INSERT INTO {table} SELECT * FROM another")
    report = replay.run()
    assert (report.total, report.differences[0].table, report.differences[0].key) == (1, table, str(another))
    assert (report.differences[0].logged, report.differences[0].kept) == (None, "is there")
    sql("DROP TABLE another")


def into_the_tree() -> None:
    """As the sequencer does."""
    sql(
        "INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash)"
        " SELECT row_number() OVER (ORDER BY place) - 1, event_id, leaf_hash FROM ledger.pending"
    )
    sql("DELETE FROM ledger.pending")


@pytest.mark.parametrize("ordered", [False, True], ids=["waiting", "in the tree"])
@pytest.mark.parametrize(
    "typ",
    ["subscription.joined", "consent.granted", "consent.paused", "consent.withdrawn", "erasure.refused"],
)
def test_an_entry_taken_out_is_missed(lived, typ, ordered):
    if ordered:
        into_the_tree()
    unguard()
    assert replay.run().ok
    ((event_id,),) = sql("SELECT event_id FROM ledger.event WHERE event_type = %s LIMIT 1", typ)
    sql("DELETE FROM ledger.disclosure WHERE event_id = %s", event_id)
    report = replay.run()
    assert not report.ok and report.shredded == 1, "its values alone: the rows stand there without a word"
    sql("DELETE FROM ledger.event WHERE event_id = %s", event_id)
    report = replay.run()
    assert ("entry", str(event_id), "is in the tree, but not in the log") in {
        (d.table, d.key, d.column) for d in report.differences
    }
    sql("DELETE FROM ledger.pending WHERE event_id = %s", event_id)
    sql("DELETE FROM ledger.leaf WHERE event_id = %s", event_id)
    report = replay.run()
    assert not report.ok and {d.table for d in report.differences} & set(TABLES)


TAMPERED = {
    "another digest beside the value": "UPDATE ledger.disclosure SET digest = 'x' WHERE (event_id, name) = (%s, 'at')",
    "another ciphertext": "UPDATE ledger.disclosure SET ciphertext = set_byte(ciphertext, 20, 255 - get_byte(ciphertext, 20)) WHERE (event_id, name) = (%s, 'at')",
    "a short ciphertext": "UPDATE ledger.disclosure SET ciphertext = 'x' WHERE (event_id, name) = (%s, 'at')",
    "another name": "UPDATE ledger.disclosure SET name = 'bgn' WHERE (event_id, name) = (%s, 'opr')",
    "a value less": "DELETE FROM ledger.disclosure WHERE (event_id, name) = (%s, 'by')",
    "other bytes": "UPDATE ledger.event SET entry = entry || ' '::bytea WHERE event_id = %s",
    "no JSON": "UPDATE ledger.event SET entry = 'xx' WHERE event_id = %s",
    "an empty object": "UPDATE ledger.event SET entry = '{}' WHERE event_id = %s",
    "a list": "UPDATE ledger.event SET entry = '[]' WHERE event_id = %s",
    "nested without end": "UPDATE ledger.event SET entry = convert_to(repeat('[', 60000), 'UTF8') WHERE event_id = %s",
    "not sorted": "UPDATE ledger.event SET entry = convert_to(replace(convert_from(entry, 'UTF8'), ',\"v\":1', ', \"v\":1'), 'UTF8') WHERE event_id = %s",
    "another day": "UPDATE ledger.event SET entry = convert_to(replace(convert_from(entry, 'UTF8'), '2026-11-', '2026-12-'), 'UTF8') WHERE event_id = %s",
    "another type": "UPDATE ledger.event SET event_type = 'consent.declined' WHERE event_id = %s",
}


@pytest.mark.parametrize("statement", TAMPERED.values(), ids=TAMPERED)
def test_an_entry_that_is_not_what_was_written_is_named(lived, statement):
    unguard()
    ((event_id,),) = sql("SELECT event_id FROM ledger.event WHERE event_type = 'consent.paused'")
    sql(statement, event_id)
    report = replay.run()
    assert ("entry", str(event_id)) in {(d.table, d.key) for d in report.differences}, str(report)


def test_bytes_other_than_their_leafs_are_named(lived):
    into_the_tree()
    unguard()
    ((event_id,),) = sql("SELECT event_id FROM ledger.event WHERE event_type = 'consent.paused'")
    sql("UPDATE ledger.leaf SET leaf_hash = sha256('x') WHERE event_id = %s", event_id)
    (difference,) = [d for d in replay.run().differences if d.table == "entry"]
    assert (difference.key, difference.column) == (str(event_id), "is not what its leaf says")


def test_an_entry_without_a_place_is_named(lived):
    sql("DELETE FROM ledger.pending WHERE event_id = (SELECT min(event_id::text)::uuid FROM ledger.event)")
    assert "is neither in the tree nor waiting for it" in str(replay.run())


def test_what_a_restored_dump_enqueues_again_is_read_once(lived, monkeypatch):
    into_the_tree()
    entries_before = LedgerEntry.objects.count()
    sql("INSERT INTO ledger.pending (event_id, leaf_hash) SELECT event_id, leaf_hash FROM ledger.event")
    factories.joined(lived.person, at=lived.joined_at + 200 * HOUR)
    monkeypatch.setattr("consents.ledger.replay.reading.BATCH", 4)
    report = replay.run()
    assert report.ok and report.entries == LedgerEntry.objects.count() > entries_before, str(report)


def said_again(typ: str, **changes) -> None:
    """A second entry of a type, sealed by somebody who has all keys: with the first one's values, but for `changes`."""
    ((event_id,),) = sql("SELECT event_id FROM ledger.event WHERE event_type = %s LIMIT 1", typ)
    values = dict(disclosures.decode(each) for each in disclosures.readable([event_id])[event_id].values())
    sealed = entries.seal(typ, at=datetime.datetime.fromisoformat(values["at"]), fields={**values, **changes})
    ((key_id,),) = sql("SELECT DISTINCT subject_key_id FROM ledger.disclosure WHERE event_id = %s", event_id)
    key = PersonKey.objects.get(pk=key_id)
    plain = disclosures.person_keys([key.person_id])[key.person_id][1]
    sql(
        "INSERT INTO ledger.event (event_id, entry, event_type) VALUES (%s, %s, %s)",
        sealed.event_id,
        sealed.entry,
        typ,
    )
    for name, disclosure in sealed.disclosures.items():
        cipher = disclosures.encrypt_all(plain, event_id=sealed.event_id, disclosures={name: disclosure})[
            name
        ]
        sql(
            "INSERT INTO ledger.disclosure VALUES (%s, %s, %s, %s, %s, now())",
            sealed.event_id, name, sealed.digests[name], cipher, key_id,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("typ", "changes", "what"),
    [
        ("subscription.joined", {}, "begins again what had begun"),
        ("consent.withdrawn", {}, "ends again what had ended"),
        ("consent.paused", {"con": str(uuid.uuid4())}, "speaks of a consent that never began"),
        ("consent.granted", {"con": str(uuid.uuid4())}, "row"),
        ("erasure.refused", {"jti": str(uuid.uuid4())}, "speaks of a delivery that nobody owed"),
        ("consent.paused", {"sbs": str(uuid.uuid4())}, "speaks of a subscription that never began"),
        ("consent.paused", {"dlv": 7}, "discloses values of another shape"),
        ("consent.paused", {"dlv": [["a"]]}, "has another shape in dlv"),
        ("consent.paused", {"sbv": "x"}, "has another shape in sbv"),
        ("erasure.refused", {"ids": [["a"]]}, "has another shape in ids"),
        ("consent.paused", {"at": "yesterday"}, "discloses values of another shape"),
        ("consent.paused", {"at": "2020-01-01T00:00:00.000000Z"}, "is of another day than what it discloses"),
        ("consent.paused", {"pur": "a\x00b"}, "discloses as pur what no column can hold"),
        ("consent.paused", {"scp": {"x": None}}, "scopes"),
    ],
)
def test_an_entry_too_many_is_named(lived, typ, changes, what):
    """Also one that is sealed as it should be: whoever holds the keys cannot make up a history either."""
    said_again(typ, **changes)
    report = replay.run()
    assert not report.ok
    assert what is None or what in {d.column for d in report.differences}, str(report)


# --- people who are erased --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shredded", ["key", "disclosures", "both"])
def test_what_was_shredded_is_passed_over_and_its_rows_must_be_gone(lived, now, shredded):
    other = factories.joined(factories.PersonFactory(), at=now)
    before = LedgerEntry.objects.count()
    ((key_id,),) = sql("SELECT id FROM consents_personkey WHERE person_id = %s", lived.person_id)
    unguard()
    ((values,),) = sql(
        "SELECT count(DISTINCT event_id) FROM ledger.disclosure WHERE subject_key_id = %s", key_id
    )
    if shredded != "key":
        sql("DELETE FROM ledger.disclosure WHERE subject_key_id = %s", key_id)
    if shredded != "disclosures":
        sql("DELETE FROM consents_personkey WHERE id = %s", key_id)
    report = replay.run()
    assert (report.entries, report.shredded) == (before, values)
    assert ("consents_subscription", str(lived.pk), "row") in {
        (d.table, d.key, d.column) for d in report.differences
    }, "the person is gone from the log, and still in the tables"
    for table in reversed(TABLES):
        sql(f"DELETE FROM {table} WHERE person_id = %s", lived.person_id)
    report = replay.run()
    assert report.ok, str(report)
    assert report.compared["consents_subscription"] == Subscription.objects.count() == 1
    assert Subscription.objects.get().pk == other.pk


# --- as a report ---------------------------------------------------------------------------------------------------------------------


def test_the_report_is_bounded_counts_all_and_tells_its_progress(lived, monkeypatch):
    heard: list[int] = []
    monkeypatch.setattr("consents.ledger.replay.reading.BATCH", 3)
    report = replay.run(progress=heard.append)
    assert report.ok and sum(heard) == report.entries and max(heard) == 3
    assert str(report).endswith("no difference")
    unguard()
    sql("UPDATE consents_consent SET purpose_ko = 'x', purpose_en = 'y'")
    monkeypatch.setattr("consents.ledger.replay.findings.MOST", 3)
    report = replay.run()
    assert (report.total, len(report.differences)) == (8, 3)
    assert str(report).endswith("… and 5 more\n8 differences")
    assert "purpose_en: in the log 'To enter it in your ledger.', in the table 'y'" in str(report)


def test_nothing_is_left_behind_and_nothing_kept_is_written(lived):
    before = sql("SELECT count(*), max(xmin::text::bigint) FROM consents_consent")
    replay.run()
    assert sql("SELECT relname FROM pg_class WHERE relname LIKE 'replay%%'") == []
    assert sql("SELECT count(*), max(xmin::text::bigint) FROM consents_consent") == before


def test_the_command_ends_without_success_where_anything_differs(lived, capsys):
    with pytest.raises(SystemExit) as ended:
        call_command("ledger", "replay")
    assert ended.value.code == 0 and "no difference" in capsys.readouterr().out
    unguard()
    sql("UPDATE consents_subscription SET end_reason = 'error'")
    with pytest.raises(SystemExit) as ended:
        call_command("ledger", "replay")
    assert (
        ended.value.code == 1 and "end_reason: in the log '', in the table 'error'" in capsys.readouterr().out
    )
