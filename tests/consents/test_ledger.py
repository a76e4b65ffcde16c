"""The log's entries: their bytes, what they hide, who can read it, and that nothing in them ever changes."""

import base64
import datetime
import hashlib
import json
import re
import unicodedata
import uuid
from pathlib import Path

import jcs
import pytest
from django.db import DatabaseError, connection, transaction
from hypothesis import given
from hypothesis import strategies as st

from consents import ledger, lifecycle
from consents.actors import Actor
from consents.ledger import Fact, disclosures, entries
from consents.ledger.append import OutsideTransaction
from consents.models import Disclosure, EntryIndex, LedgerEntry, PersonKey
from providers import vault
from tests import factories

SYSTEM = Actor.system("test")
EXAMPLE = json.loads((Path(__file__).parent.parent / "vectors" / "consent_ledger_example.json").read_text())


def unpad(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("example", EXAMPLE["entries"], ids=lambda example: str(example["index"]))
def test_an_entry_is_made_of_its_disclosures_byte_for_byte(example):
    """The worked example, entry by entry."""
    public = json.loads(example["entry_utf8"])
    digests = [entries.digest(disclosure) for disclosure in example["disclosures"]]
    made = entries.encode(
        typ=public["typ"],
        day=datetime.date.fromisoformat(public["day"]),
        event_id=uuid.UUID(public["id"]),
        digests=digests,
    )
    assert made == example["entry_utf8"].encode() == bytes.fromhex(example["entry_hex"])
    assert entries.leaf_hash(made).hex() == example["leaf_hash_hex"]


@pytest.mark.parametrize("example", EXAMPLE["entries"], ids=lambda example: str(example["index"]))
def test_a_disclosure_is_made_of_its_parts_byte_for_byte(example):
    for disclosure in example["disclosures"]:
        salt, name, value = json.loads(unpad(disclosure))
        assert entries.disclose(name, value, unpad(salt)) == disclosure
        assert disclosures.decode(disclosure) == (name, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(value=JSON)
def test_a_second_implementation_of_jcs_agrees(value):
    salt = bytes(16)
    disclosure = entries.disclose("pur", value, salt)
    assert unpad(disclosure) == jcs.canonicalize([entries.b64(salt), "pur", entries.plain(value)])


@given(
    fields=st.dictionaries(
        st.sampled_from(sorted(entries.FIELDS["consent.granted"])), st.text(max_size=30), min_size=1
    )
)
def test_every_sealed_entry_is_canonical_and_adds_up(fields):
    at = datetime.datetime(2026, 11, 22, 3, tzinfo=datetime.UTC)
    sealed = entries.seal("consent.granted", at=at, fields=fields)
    public = json.loads(sealed.entry)
    assert sealed.entry == jcs.canonicalize(public)
    assert public["_sd"] == sorted(public["_sd"]) == sorted(sealed.digests.values())
    assert {name: disclosures.decode(d)[1] for name, d in sealed.disclosures.items()} == {
        name: unicodedata.normalize("NFC", value) for name, value in fields.items()
    }
    assert sealed.leaf_hash == hashlib.sha256(b"\x00" + sealed.entry).digest()
    assert 2 <= len(sealed.entry) <= 65535


def test_the_same_fact_twice_has_nothing_in_common():
    """Fresh salts of 128 bits in every field: two entries with the same values cannot be told to be the same."""
    at = datetime.datetime(2026, 11, 22, 3, tzinfo=datetime.UTC)
    made = [
        entries.seal("consent.granted", at=at, fields={"opr": "A", "con": "A", "rsn": "A"}) for _ in range(50)
    ]
    salts = [json.loads(unpad(d))[0] for sealed in made for d in sealed.disclosures.values()]
    assert len(set(salts)) == 150 and {len(unpad(salt)) for salt in salts} == {16}
    assert len({digest for sealed in made for digest in sealed.digests.values()}) == 150
    assert len({sealed.event_id for sealed in made}) == 50
    assert {sealed.event_id.version for sealed in made} == {4}, "a version 7 id would tell the time"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (datetime.datetime(2026, 11, 22, 3, 10, 0, 1, tzinfo=datetime.UTC), "2026-11-22T03:10:00.000001Z"),
        (datetime.datetime(2026, 11, 22, 12, 10, tzinfo=datetime.timezone(datetime.timedelta(hours=9))), "2026-11-22T03:10:00.000000Z"),
        (datetime.date(2026, 11, 22), "2026-11-22"),
        ("가", "가"), (2**53 - 1, 2**53 - 1), (2**53, str(2**53)), (-(2**60), str(-(2**60))),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"), (True, True), (None, None), (("a", 1), ["a", 1]),
    ],
)  # fmt: skip
def test_how_values_are_written(value, plain):
    assert entries.plain(value) == plain


@pytest.mark.parametrize(
    "value", [1.5, float("nan"), b"bytes", {1, 2}, object(), datetime.datetime(2026, 11, 22)]
)
def test_what_has_no_one_form_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        entries.disclose("pur", value, bytes(16))


def test_the_day_is_the_day_in_seoul():
    late = datetime.datetime(2026, 11, 22, 15, 0, tzinfo=datetime.UTC)
    assert json.loads(entries.seal("person.erased", at=late, fields={}).entry)["day"] == "2026-11-23"


@pytest.mark.parametrize(
    ("typ", "fields"),
    [
        ("consent.revived", {}), ("", {}), ("consent.granted", {"email": "a@b.kr"}), ("delivery.sent", {"con": "1", "person": "x"}),
    ],
)  # fmt: skip
def test_an_unknown_type_or_field_is_refused(typ, fields):
    with pytest.raises(entries.UnknownField):
        entries.seal(typ, at=datetime.datetime.now(datetime.UTC), fields=fields)


def test_an_entry_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match="longer"):
        entries.encode(
            typ="person.erased",
            day=datetime.date(2026, 1, 1),
            event_id=uuid.uuid4(),
            digests=["x" * 43] * 1500,
        )


def test_every_type_of_the_contract_is_known():
    promised = (
        "subscription.joined subscription.ended consent.granted consent.declined consent.amended consent.paused consent.resumed "
        "consent.withdrawn consent.expired erasure.requested erasure.confirmed erasure.refused delivery.sent delivery.received "
        "delivery.stopped delivery.erased delivery.dead request.lodged request.declined request.expired terms.published terms.retired "
        "licence.decided channel.opened channel.rotated channel.retired notice.raised notice.answered record.looked_up record.revealed "
        "record.exported key.added key.retired person.erased"
    )
    assert set(promised.split()) <= set(entries.FIELDS)
    assert all("at" in fields for fields in entries.FIELDS.values())


# --- appending -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_nothing_is_appended_outside_a_transaction(now):
    before = LedgerEntry.objects.count()
    with pytest.raises(OutsideTransaction, match="transaction"):
        ledger.append([Fact("person.erased", fields={"cnt": 1})], by=SYSTEM, at=now)
    assert LedgerEntry.objects.count() == before


@pytest.mark.django_db(transaction=True)
def test_an_entry_vanishes_with_the_transaction_it_speaks_of(person, now):
    before = LedgerEntry.objects.count()
    with pytest.raises(RuntimeError), transaction.atomic():
        factories.joined(person, at=now)
        raise RuntimeError
    assert LedgerEntry.objects.count() == before and not EntryIndex.objects.filter(person=person).exists()


@pytest.mark.django_db
def test_a_refused_fact_writes_nothing_of_its_neighbours(now):
    with pytest.raises(entries.UnknownField):
        ledger.append([Fact("person.erased"), Fact("consent.revived")], by=SYSTEM, at=now)
    assert not EntryIndex.objects.exists()


@pytest.mark.django_db
def test_every_entry_waits_for_the_sequencer(person, now):
    factories.joined(person, at=now)
    ids = set(EntryIndex.objects.values_list("event_id", flat=True))
    with connection.cursor() as cursor:
        cursor.execute("SELECT event_id FROM ledger.pending WHERE event_id = ANY (%s)", [list(ids)])
        assert {row for (row,) in cursor.fetchall()} == ids


@pytest.mark.django_db
def test_the_database_computes_the_leaf_itself(person, now):
    factories.joined(person, at=now)
    for row in LedgerEntry.objects.filter(event_id__in=EntryIndex.objects.values("event_id")):
        assert bytes(row.leaf_hash) == entries.leaf_hash(bytes(row.entry))
        assert json.loads(bytes(row.entry))["typ"] == row.event_type


@pytest.fixture
def told(person, me, now):
    """A life with everything in it."""
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.pause(consent, by=me, at=now)
    lifecycle.resume(consent, by=me, at=now)
    lifecycle.withdraw(consent, erase=True, by=me, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    return subscription


@pytest.mark.django_db
def test_nothing_personal_and_no_time_stands_in_an_entry(told, person, now):
    """Type, day, random id and digests: that is all there is to see."""
    secret = [
        person.email, person.name, str(person.pk), str(person.subject_id), str(told.pk), told.operator.code, told.service.client_id,
        now.strftime("%H:%M:%S"), *(str(c.pk) for c in told.consents.all()), *(str(d.jti) for d in told.deliveries.all()),
    ]  # fmt: skip
    rows = LedgerEntry.objects.filter(event_id__in=EntryIndex.objects.values("event_id"))
    assert len(rows) >= 14
    for row in rows:
        text = bytes(row.entry).decode("ascii")
        assert re.fullmatch(
            r'\{"_sd":\[("[A-Za-z0-9_-]{43}",?)+\],"_sd_alg":"sha-256","day":"\d{4}-\d\d-\d\d","id":"[0-9a-f-]{36}","typ":"[a-z_.]+","v":1\}',
            text,
        )
        assert not [one for one in secret if one in text]


@pytest.mark.django_db
def test_what_is_disclosed_hashes_to_what_is_public(told):
    for row in LedgerEntry.objects.filter(event_id__in=EntryIndex.objects.values("event_id")):
        stored = dict(Disclosure.objects.filter(event_id=row.event_id).values_list("name", "digest"))
        assert sorted(stored.values()) == json.loads(bytes(row.entry))["_sd"]


@pytest.mark.django_db
def test_a_disclosure_opens_with_its_persons_key_only(told, person):
    index = EntryIndex.objects.filter(subscription=told, typ="subscription.ended").get()
    row = Disclosure.objects.get(event_id=index.event_id, name="rsn")
    key_id, key = disclosures.person_keys([person.pk])[person.pk]
    assert row.subject_key_id == key_id
    opened = disclosures.decrypt(key, event_id=row.event_id, name="rsn", ciphertext=bytes(row.ciphertext))
    assert disclosures.decode(opened) == ("rsn", "person_left") and entries.digest(opened) == row.digest
    other = factories.PersonFactory()
    _, others = disclosures.person_keys([other.pk])[other.pk]
    for wrong in (
        {"key": others, "event_id": row.event_id, "name": "rsn"},
        {"key": key, "event_id": uuid.uuid4(), "name": "rsn"},
        {"key": key, "event_id": row.event_id, "name": "opr"},
    ):
        with pytest.raises(vault.BadSeal):
            disclosures.decrypt(
                wrong["key"], event_id=wrong["event_id"], name=wrong["name"], ciphertext=bytes(row.ciphertext)
            )


@pytest.mark.django_db
def test_a_destroyed_key_shreds_what_it_opened(told, person):
    index = EntryIndex.objects.filter(subscription=told, typ="subscription.ended").get()
    assert ledger.disclosed([index.event_id])[index.event_id]["rsn"] == "person_left"
    with (
        connection.cursor() as cursor
    ):  # the database lets a key go only after what it opens, see test_erasing.py
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("ALTER TABLE consents_personkey DISABLE TRIGGER USER")
    PersonKey.objects.filter(person=person).delete()
    assert ledger.disclosed([index.event_id]) == {index.event_id: {}}


@pytest.mark.django_db
def test_a_person_has_another_name_at_every_operator(person, now):
    one, two = factories.joined(person, at=now), factories.joined(person, at=now)
    names = {EntryIndex.objects.filter(subscription=s).first().subject for s in (one, two)}
    assert len(names) == 2 and all(re.fullmatch(r"p_[A-Z2-7]{26}", name) for name in names)


# --- append-only -----------------------------------------------------------------------------------------------------------


def refused(*statements, params=None) -> str:
    """SQLSTATE of the refusal of the last statement."""
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement, params)
    except DatabaseError as error:
        return error.__cause__.sqlstate
    return "nobody refuses"


REPLICA = "SET LOCAL session_replication_role = replica"
UPSERT = (
    "INSERT INTO ledger.event (event_id, entry, event_type) SELECT event_id, entry, event_type FROM ledger.event WHERE event_id = %(event)s "
    "ON CONFLICT (event_id) DO UPDATE SET entry = 'other'"
)
MERGE = "MERGE INTO ledger.event e USING (SELECT %(event)s::uuid AS id) s ON e.event_id = s.id WHEN MATCHED THEN UPDATE SET event_type = 'a.b'"


@pytest.mark.django_db
@pytest.mark.parametrize("switched_off", [[], [REPLICA]], ids=["plainly", "as a replica"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger.event SET entry = 'other' WHERE event_id = %(event)s",
        "UPDATE ledger.event SET created_at = now() WHERE event_id = %(event)s",
        "UPDATE ledger.event SET event_type = 'a.b' WHERE false",
        "DELETE FROM ledger.event WHERE event_id = %(event)s",
        "DELETE FROM ledger.event WHERE false",
        "TRUNCATE ledger.event CASCADE",
        UPSERT, MERGE,
        "UPDATE ledger.disclosure SET ciphertext = 'other' WHERE event_id = %(event)s",
        "TRUNCATE ledger.disclosure",
    ],
)  # fmt: skip
def test_what_was_written_cannot_change(told, statement, switched_off):
    event = EntryIndex.objects.filter(subscription=told).first().event_id
    before = bytes(LedgerEntry.objects.get(event_id=event).entry)
    assert refused(*switched_off, statement, params={"event": event}) == "23L01"
    assert bytes(LedgerEntry.objects.get(event_id=event).entry) == before


@pytest.mark.django_db
def test_the_leaf_cannot_be_chosen():
    statement = "INSERT INTO ledger.event (event_id, entry, event_type, leaf_hash) VALUES (gen_random_uuid(), '{}', 'a.b', '\\x00')"
    assert refused(statement) == "428C9", "generated always"


@pytest.mark.django_db
@pytest.mark.parametrize("switched_off", [[], [REPLICA]], ids=["plainly", "as a replica"])
def test_the_legal_hold_keeps_disclosures(told, switched_off):
    event = EntryIndex.objects.filter(subscription=told).first().event_id
    assert (
        refused(
            *switched_off, "DELETE FROM ledger.disclosure WHERE event_id = %(event)s", params={"event": event}
        )
        == "23L06"
    )


@pytest.mark.django_db
def test_after_the_legal_hold_disclosures_may_go_and_the_entry_stays(person):
    """Processing records are kept three years (신용정보법 20조②)."""
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=366 * 3 + 1)
    with transaction.atomic():
        (old,) = ledger.append(
            [Fact("notice.raised", person=person, fields={"knd": "count"})], by=SYSTEM, at=long_ago
        )
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM ledger.disclosure WHERE event_id = %s", [old.event_id])
        assert cursor.rowcount == len(old.disclosures)
    assert bytes(LedgerEntry.objects.get(event_id=old.event_id).leaf_hash) == old.leaf_hash


@pytest.mark.django_db
def test_the_hold_lasts_three_years(told, now):
    row = Disclosure.objects.filter(event_id__in=EntryIndex.objects.values("event_id")).first()
    assert datetime.timedelta(days=3 * 365) <= row.retain_until - now <= datetime.timedelta(days=3 * 366)
