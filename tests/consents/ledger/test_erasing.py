"""A person is erased after the legal hold, link by link; the tree stays what it was and nothing tells of them any more."""

import base64
import datetime
import itertools
import json
import os
import uuid

import pytest
import redis
from django.db import IntegrityError, connection, transaction
from django.test import Client

from consents import accounts, jobs, ledger, lifecycle
from consents.actors import Actor
from consents.ledger import disclosures, entries, erasing, merkle, proofs, replay, tiles, upkeep
from consents.models import (
    Delivery,
    EndReason,
    EntryIndex,
    Evidence,
    IdempotencyKey,
    LedgerEntry,
    Lookup,
    Notice,
    Person,
    PersonKey,
    Subscription,
)
from providers import policy, vault
from providers.models import Organization, PolicyRule, Scope
from tests import factories
from tests.consents.test_races import at_once

pytestmark = pytest.mark.django_db
BY = Actor.system("erase")


@pytest.fixture
def at():
    return datetime.datetime.now(datetime.UTC)


@pytest.fixture
def no_hold():
    """Records of today may go today: what three years do to all of them."""
    PolicyRule.objects.filter(key="PROCESSING_RECORD_YEARS").update(value=0)
    policy.forget()
    yield
    policy.forget()


@pytest.fixture
def life(person, at):
    """One of everything about a person, and what of it must be found nowhere afterwards."""
    me = Actor.person(person)
    kept, left = factories.joined(person, at=at), factories.joined(person, at=at)
    lifecycle.leave(left, erase=False, by=me, at=at)
    delivery = left.deliveries.get(role="operator", event="subscription-ended")
    Evidence.objects.create(
        jti="evidence-of-a-person", organization=delivery.organization, delivery=delivery, status="stopped", means="desk",
        digest="sha256:0", document=json.dumps({"sub": str(person.subject_id)}), stated_at=at, received_at=at,
    )  # fmt: skip
    Notice.objects.create(
        person=person, kind="count", matter="test", reason_ko="아주 남다른 알림의 이유", reason_en="A peculiar reason", raised_at=at
    )  # fmt: skip
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    entry = EntryIndex.objects.filter(person=person).first()
    Lookup.objects.create(
        person=person, by=regulator, event_id=entry.event_id, case="2026-77", reason="because", at=at
    )
    IdempotencyKey.objects.create(
        actor="client:somebody", key="k", method="POST", path="/api/v1/x", digest="", body={"subscription": str(kept.pk)},
        status=200, created_at=at,
    )  # fmt: skip
    secrets = {person.email, person.name, str(person.pk), str(person.subject_id), "evidence-of-a-person"}
    secrets |= {"아주 남다른 알림의 이유", "A peculiar reason", "2026-77"}
    for subscription in (kept, left):
        secrets |= {str(subscription.pk), pseudonym(person, subscription)}
        secrets |= {str(consent.pk) for consent in subscription.consents.all()}
        secrets |= {str(one.jti) for one in subscription.deliveries.all()}
    return secrets


def everything() -> str:
    """All rows of all tables of all schemas as text, binary columns with their ASCII readable."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns JOIN information_schema.tables "
            "USING (table_schema, table_name) WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', "
            "'information_schema') ORDER BY 1, 2, ordinal_position"
        )
        rows = cursor.fetchall()
        text = []
        for (schema, table), columns in itertools.groupby(rows, key=lambda row: row[:2]):
            wanted = [
                f"encode(\"{name}\", 'escape')" if kind == "bytea" else f'"{name}"::text'
                for _s, _t, name, kind in columns
            ]
            statement = f'COPY (SELECT {", ".join(wanted)} FROM "{schema}"."{table}") TO STDOUT'
            with cursor.copy(statement) as copy:
                text += [bytes(part).decode() for part in copy]
    return "".join(text)


def found_in(text: str, secrets: set[str]) -> set[str]:
    shapes = {secret: {secret, secret.replace("-", "")} for secret in secrets}
    return {secret for secret, ways in shapes.items() if any(way in text for way in ways)}


def closed(person, at):
    accounts.close(person, by=Actor.person(person), at=at)
    return Person.objects.get(pk=person.pk)


# --- closing ---------------------------------------------------------------------------------------------------------------


def test_a_closed_account_ends_everything_and_keeps_no_name(life, person, at):
    email, name = person.email, person.name
    gone = closed(person, at)
    rows = Subscription.objects.filter(person=gone)
    assert {(row.state, row.erasure) for row in rows} == {("ended", "requested")}
    assert EndReason.ACCOUNT_CLOSED in {row.end_reason for row in rows}
    assert gone.email.endswith("@closed.invalid") and (gone.name, gone.born_on, gone.last_login) == (
        "",
        None,
        None,
    )
    assert not gone.is_active and not gone.has_usable_password() and gone.closed_at == at
    assert found_in(everything(), {email, name}) == set()
    assert Delivery.objects.filter(person=gone, goal="erased").exists()


def test_closing_by_hand_needs_a_tick_and_says_until_when_and_why(life, person, signed_in):
    page = signed_in.get("/me/account/").content.decode()
    year = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=366 * 3)).year
    assert "신용정보법 제20조 제2항" in page and f"{year}년" in page
    refused = signed_in.post("/me/account/", {"step": "close"})
    assert refused.status_code == 400 and "계정을 닫으려면 여기에 표시해 주세요." in refused.content.decode()
    assert signed_in.post("/me/account/", {"step": "close", "sure": "on", "more": "1"}).status_code == 400
    assert Person.objects.get(pk=person.pk).closed_at is None
    other_browser = Client()
    other_browser.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    answer = signed_in.post("/me/account/", {"step": "close", "sure": "on"}, follow=True)
    words = answer.content.decode()
    assert "계정을 닫았어요" in words and "신용정보법 제20조 제2항" in words and f"{year}년" in words
    assert Person.objects.get(pk=person.pk).closed_at
    for browser in (signed_in, other_browser):
        assert browser.get("/me/").status_code == 302


def test_an_english_reader_is_told_in_english(person, signed_in):
    page = signed_in.get("/me/account/", headers={"Accept-Language": "en"}).content.decode()
    assert "Close my account" in page and "계정 닫기" not in page


def test_closing_twice_changes_nothing(life, person, at):
    gone = closed(person, at)
    before = LedgerEntry.objects.count()
    again = closed(gone, at + datetime.timedelta(days=1))
    assert (again.closed_at, again.email, LedgerEntry.objects.count()) == (gone.closed_at, gone.email, before)


def test_a_member_does_not_close_their_account(at):
    admin = factories.MemberFactory().person
    with pytest.raises(accounts.NotAConsumer):
        accounts.close(admin, by=Actor.person(admin), at=at)


def test_what_reaches_a_closed_account_later_is_ended_by_the_job(person, at):
    gone = closed(person, at)
    late = factories.joined(gone, at=at)
    assert jobs.erase() == 0
    late.refresh_from_db()
    assert (late.state, late.end_reason, late.erasure) == ("ended", "account_closed", "requested")


# --- the hold ---------------------------------------------------------------------------------------------------------------


def test_before_the_hold_ends_nothing_changes(life, person, at):
    gone = closed(person, at)
    before = everything()
    with pytest.raises(erasing.HeldUntil) as held:
        erasing.erase_person(gone, by=BY, at=at + datetime.timedelta(days=365 * 3))
    assert held.value.until == erasing.held_until(gone) == at + datetime.timedelta(days=366 * 3)
    assert jobs.erase() == 0
    assert everything() == before


def test_an_open_account_is_not_erased(no_hold, life, person, at):
    with pytest.raises(erasing.NotClosed):
        erasing.erase_person(person, by=BY, at=at)


def test_the_clock_of_the_database_decides_not_the_callers(life, person, at):
    """Whoever says it is 2040 is refused by the trigger, and nothing is gone."""
    gone = closed(person, at)
    before = everything()
    with pytest.raises(Exception, match="legal hold until"), transaction.atomic():
        erasing.erase_person(gone, by=BY, at=at + datetime.timedelta(days=5000))
    assert everything() == before


LINKS = {
    "person_key_outlives_its_disclosures": "DELETE FROM consents_personkey WHERE person_id = %(person)s",
    "person_key_is_fixed": "UPDATE consents_personkey SET wrapped = 'x' WHERE person_id = %(person)s",
    "consents_subscription_is_never_deleted": "DELETE FROM consents_subscription WHERE person_id = %(person)s",
    "consents_consent_is_never_deleted": "DELETE FROM consents_consent WHERE person_id = %(person)s",
    "consents_delivery_is_never_deleted": "DELETE FROM consents_delivery WHERE person_id = %(person)s",
    "consents_evidence_is_append_only": "DELETE FROM consents_evidence",
    "consents_lookup_is_append_only": "DELETE FROM consents_lookup WHERE person_id = %(person)s",
    "person_closed_stays_closed": "UPDATE consents_person SET closed_at = NULL WHERE id = %(person)s",
}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("replica", [False, True])
def test_each_link_refuses_before_the_one_in_front_of_it(life, person, at, name, replica):
    """Also in a session that replays (session_replication_role), where ordinary triggers sleep."""
    gone = closed(person, at)
    with transaction.atomic(), connection.cursor() as cursor:
        if replica:
            cursor.execute("SET LOCAL session_replication_role = replica")
        with pytest.raises(IntegrityError) as refused, transaction.atomic():
            cursor.execute(LINKS[name], {"person": gone.pk})
        assert refused.value.__cause__.diag.constraint_name == name
        cursor.execute("SET LOCAL session_replication_role = origin")


def test_rows_of_an_open_account_without_a_key_stay(person, at):
    subscription = factories.joined(person, at=at)
    assert not PersonKey.objects.exclude(person=person).exists()
    other = factories.PersonFactory()  # has no key and no closed account
    with pytest.raises(IntegrityError) as refused, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            'INSERT INTO consents_lookup (id, person_id, by_id, event_id, "case", reason, at) VALUES '
            "(gen_random_uuid(), %s, %s, gen_random_uuid(), 'c', 'r', now())",
            [other.pk, person.pk],
        )
        cursor.execute("DELETE FROM consents_lookup WHERE person_id = %s", [other.pk])
    assert refused.value.__cause__.diag.constraint_name == "consents_lookup_is_append_only"
    assert subscription.pk


# --- after it ------------------------------------------------------------------------------------------------------------------


def test_nothing_tells_of_the_person_any_more(no_hold, life, person, at, caplog, capfd):
    """Database, broker, logs, and the regulator's lists and files (security brief 1.4 test c)."""
    found_before = found_in(everything(), life)
    assert found_before >= {person.email, str(person.pk), "2026-77", "아주 남다른 알림의 이유"}, (
        "the search itself works"
    )
    gone = closed(person, at)
    with caplog.at_level("INFO"):
        assert jobs.erase() == 1
    assert found_in(everything(), life | {str(gone.pk), gone.email}) == set()
    said = caplog.text + "".join(capfd.readouterr())
    assert found_in(said, life) == set()
    server = redis.Redis.from_url(os.environ["REDIS_URL"]) if "REDIS_URL" in os.environ else None
    assert server is not None and server.ping()
    for key in server.scan_iter():
        kind = server.type(key)
        value = server.get(key) if kind == b"string" else server.dump(key)
        assert found_in((key + (value or b"")).decode("latin-1"), life) == set()
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    browser = Client()
    browser.force_login(regulator, backend="allauth.account.auth_backends.AuthenticationBackend")
    page = browser.get("/oversight/")
    assert page.status_code == 200
    pages = page.content.decode()
    assert found_in(pages, life) == set()


def test_the_entry_that_says_so_tells_of_nobody(no_hold, life, person, at):
    gone = closed(person, at)
    known = EntryIndex.objects.filter(person=gone).count()
    entry = erasing.erase_person(gone, by=BY, at=at)
    assert set(entry.disclosures) == {"at", "by", "cnt", "law"}
    assert ledger.disclosed([entry.event_id])[entry.event_id]["cnt"] == known > 5
    index = EntryIndex.objects.get(event_id=entry.event_id)
    assert (index.person_id, index.subject, index.subscription_id) == (None, "", None)


def test_the_tree_and_its_proofs_stay(no_hold, life, person, at):
    """Security brief 1.4 test a: root, entries and published proofs are unchanged and still verify."""
    upkeep.sequence(at=at)
    size = upkeep.cosign(at=at)
    mine = EntryIndex.objects.filter(person=person).first().event_id
    before, paper = proofs.published(), proofs.tlog_proof(mine)
    tree = tiles.Tree(proofs.directory().read, size)
    leaves, root = tree_leaves(size), tree.root()
    assert size > 10 and merkle.root(leaves) == root == before.checkpoint.root
    rows = set(LedgerEntry.objects.values_list("event_id", "entry", "leaf_hash"))
    given = [tree.inclusion_proof(index) for index in range(size)]
    erasing.erase_person(closed(person, at), by=BY, at=at)
    assert proofs.published() == before and tree_leaves(size) == leaves
    assert rows < set(LedgerEntry.objects.values_list("event_id", "entry", "leaf_hash"))
    for index, proof in enumerate(given):
        merkle.verify_inclusion(leaf=leaves[index], index=index, size=size, root=root, proof=proof)
    grown = upkeep.sequence(at=at)
    after = tiles.Tree(proofs.directory().read, grown)
    assert grown > size and after.root() == merkle.root(tree_leaves(grown))
    merkle.verify_consistency(
        old=size, old_root=root, new=grown, new_root=after.root(), proof=after.consistency_proof(size)
    )
    # The proof that the person took home is theirs; ours knows the entry and no value any more.
    assert "extra" in paper and paper.splitlines()[0] == proofs.tlog_proof(mine).splitlines()[0]
    assert disclosures.readable([mine])[mine] == {}


def tree_leaves(size: int) -> list[bytes]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT leaf_hash FROM ledger.leaf WHERE leaf_index < %s ORDER BY leaf_index", [size])
        return [bytes(row[0]) for row in cursor.fetchall()]


def test_brute_force_over_the_values_finds_nothing(no_hold, life, person, at):
    """Security brief 1.4 test b. Whoever kept the public entries tries every value there is, with every salt they can think of."""
    subscription = Subscription.objects.filter(person=person).first()
    public = [bytes(entry) for entry in LedgerEntry.objects.values_list("entry", flat=True)]
    ids = [json.loads(entry)["id"] for entry in public]
    values: dict[str, list] = {
        "opr": list(Organization.objects.values_list("code", flat=True)),
        "scp": [
            list(few)
            for n in (1, 2)
            for few in itertools.permutations(Scope.objects.values_list("ref", flat=True)[:12], n)
        ],
        "rsn": [*EndReason.values, "person_left"],
        "prd": [(at.date() + datetime.timedelta(days=n)).isoformat() for n in range(400)],
        "sbs": [str(pk) for pk in Subscription.objects.values_list("pk", flat=True)],
        "by": ["person", "organization", "regulator", "system"],
        "sub": [pseudonym(person, subscription)],
        "ver": list(range(1, 20)),
    }
    retained = salts_of(person)
    own = search(public, values, retained)
    assert {"opr", "sbs", "by", "sub"} <= own, "with the salts the search does find"
    gone = closed(person, at)
    erasing.erase_person(gone, by=BY, at=at)
    guesses = [b"", bytes(16), b"\xff" * 16, *(uuid.UUID(one).bytes for one in ids), *disclosure_salts_left()]
    assert search(public, values, guesses) == set()


def pseudonym(person, subscription) -> str:
    return vault.pseudonym(str(subscription.operator_id), str(person.pk))


def salts_of(person) -> list[bytes]:
    mine = list(EntryIndex.objects.filter(person=person).values_list("event_id", flat=True))
    return [
        unb64(json.loads(unb64(text))[0])
        for known in disclosures.readable(mine).values()
        for text in known.values()
    ]


def disclosure_salts_left() -> list[bytes]:
    everyone = list(LedgerEntry.objects.values_list("event_id", flat=True))
    return [
        unb64(json.loads(unb64(text))[0])
        for known in disclosures.readable(everyone).values()
        for text in known.values()
    ]


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def search(public: list[bytes], values: dict[str, list], salts: list[bytes]) -> set[str]:
    """Names of fields whose value is found in a person's entry by trying all of `values` with all of `salts`."""
    digests = {
        digest
        for entry in map(json.loads, public)
        if entry["typ"].startswith(("subscription.", "consent.", "erasure.", "delivery."))
        for digest in entry["_sd"]
    }
    return {
        name
        for name, domain in values.items()
        if any(
            entries.digest(entries.disclose(name, value, salt)) in digests
            for value in domain
            for salt in salts
        )
    }


def test_yesterdays_backup_cannot_be_decrypted(no_hold, life, person, at):
    """Security brief 1.4 test d. The backup is that of the README: everything without the data of consents_personkey."""
    mine = list(EntryIndex.objects.filter(person=person).values_list("event_id", flat=True))
    other = factories.PersonFactory()
    factories.joined(other, at=at)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT event_id, name, ciphertext FROM ledger.disclosure WHERE event_id = ANY(%s)", [mine]
        )
        backup = [(event, name, bytes(sealed)) for event, name, sealed in cursor.fetchall()]
    key = bytes(disclosures.person_keys([person.pk])[person.pk][1])
    assert len(backup) > 50 and disclosures.decrypt(
        key, event_id=backup[0][0], name=backup[0][1], ciphertext=backup[0][2]
    )
    gone = closed(person, at)
    erasing.erase_person(gone, by=BY, at=at)
    assert not PersonKey.objects.filter(person_id=gone.pk).exists()
    left = [disclosures.public_key_bytes(), vault.derived_key("anything"), vault._vault_key()]
    left += [vault.unseal(bytes(row.wrapped), aad=row.id.bytes) for row in PersonKey.objects.all()]
    assert len(left) > 3
    for event_id, name, sealed in backup:
        for remaining in left:
            with pytest.raises(vault.BadSeal):
                disclosures.decrypt(remaining, event_id=event_id, name=name, ciphertext=sealed)
    # Restored over the live database, they stay unreadable; those of others are read as before.
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO ledger.disclosure (event_id, name, digest, ciphertext, subject_key_id, retain_until) "
            "VALUES (%s, %s, '', %s, gen_random_uuid(), now())",
            backup,
        )
    assert set(map(len, disclosures.readable(mine).values())) == {0}
    theirs = list(EntryIndex.objects.filter(person=other).values_list("event_id", flat=True))
    assert all(disclosures.readable(theirs).values())


def test_only_who_is_due_goes(no_hold, life, person, at):
    gone = closed(person, at)
    other = factories.PersonFactory()
    subscription = factories.joined(other, at=at)
    assert (jobs.erase(), jobs.erase()) == (1, 0)
    assert not Person.objects.filter(pk=gone.pk).exists()
    subscription.refresh_from_db()
    assert subscription.state == "active"


def test_an_account_that_did_nothing_goes_at_once(person, at):
    closed(person, at)
    assert jobs.erase() == 1
    assert not Person.objects.filter(pk=person.pk).exists()


def test_a_run_does_a_bounded_share(at):
    for _n in range(3):
        closed(factories.PersonFactory(), at)
    assert [erasing.erase_due(by=BY, at=at, limit=2) for _n in range(3)] == [2, 1, 0]


def test_a_replay_of_the_log_agrees_with_what_is_left(no_hold, life, person, at):
    other = factories.joined(factories.PersonFactory(), at=at)
    lifecycle.leave(other, erase=True, by=BY, at=at)
    gone = closed(person, at)
    erasing.erase_person(gone, by=BY, at=at)
    report = replay.run()
    assert report.ok, str(report)
    assert report.shredded > 10 and report.compared


def test_what_stopped_half_way_is_finished_by_the_next_run(no_hold, life, person, at):
    """The officer's transaction is one of its own: after a crash behind it disclosures are gone and rows are not."""
    gone = closed(person, at)
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM ledger.disclosure WHERE subject_key_id = %s", [gone.data_key.pk])
    assert Subscription.objects.filter(person=gone).count() == 2
    assert jobs.erase() == 1
    assert found_in(everything(), life) == set()


def test_one_who_cannot_go_does_not_keep_the_others(no_hold, at, monkeypatch):
    """Something was written about them after they were found due."""
    people = [closed(factories.PersonFactory(), at) for _n in range(3)]
    real = erasing.held_until
    later = at + datetime.timedelta(days=9)
    monkeypatch.setattr(erasing, "held_until", lambda one: later if one.pk == people[0].pk else real(one))
    assert erasing.erase_due(by=BY, at=at) == 2
    assert list(Person.objects.filter(closed_at__isnull=False)) == [people[0]]


@pytest.mark.django_db(transaction=True)
def test_two_runs_at_once_erase_everybody_once(no_hold, at):
    before = LedgerEntry.objects.filter(event_type="person.erased").count()  # the log outlives every test
    for _n in range(4):
        person = factories.PersonFactory()
        factories.joined(person, at=at)
        closed(person, at)
    results = at_once(*[lambda: erasing.erase_due(by=BY, at=at)] * 4)
    assert sum(results) == 4
    assert not Person.objects.filter(closed_at__isnull=False).exists()
    assert LedgerEntry.objects.filter(event_type="person.erased").count() == before + 4


@pytest.mark.django_db(transaction=True)
def test_an_entry_written_at_the_same_moment_is_erased_too_or_never_written(no_hold, at):
    """The writer waits for the lock on the person, and then there is nobody to write about."""
    for _n in range(4):
        person = factories.PersonFactory()
        subscription = factories.joined(person, at=at)
        gone = closed(person, at)
        key = PersonKey.objects.get(person=gone).pk

        def late(subscription=subscription, person=person):
            with transaction.atomic():
                fact = ledger.Fact(
                    "notice.raised", person=person, operator=subscription.operator, fields={"knd": "count"}
                )
                ledger.append([fact], by=BY, at=at)

        _written, erased = at_once(late, lambda gone=gone: erasing.erase_person(gone, by=BY, at=at))
        assert not isinstance(erased, Exception), erased
        assert not EntryIndex.objects.filter(person_id=gone.pk).exists()
        with (
            connection.cursor() as cursor
        ):  # what other tests wrote is opened by keys that went with their tables
            cursor.execute("SELECT count(*) FROM ledger.disclosure WHERE subject_key_id = %s", [key])
            assert cursor.fetchone() == (0,)
