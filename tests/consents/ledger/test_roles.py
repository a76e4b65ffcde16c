"""harden_database: migrations and roles without a superuser, and raw SQL as each role, allowed and refused."""

import importlib
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import psycopg
import pytest
from psycopg import sql

from consents.ledger import roles

ROOT = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.slow

HASH = "sha256('x')"
EVENT = "INSERT INTO ledger.event (event_id, entry, event_type) VALUES (gen_random_uuid(), convert_to(gen_random_uuid()::text, 'UTF8'), 'person.erased')"
EVERY = ("event", "pending", "leaf", "checkpoint", "cosignature", "promise", "disclosure")


class Hardened:
    """A database of its own, migrated and hardened by an owner who is no superuser."""

    def __init__(self) -> None:
        self.given = os.environ["DATABASE_URL"]
        parts = urlsplit(self.given)
        self.host = dict(parse_qsl(parts.query)).get("host") or parts.hostname
        self.port, self.super = parts.port, parts.username
        mark = uuid.uuid4().hex[:8]
        self.name, self.owner = f"hardened_{mark}", f"owner_{mark}"
        self.words = ""

    def connect(self, user: str, name: str = "") -> psycopg.Connection:
        return psycopg.connect(
            host=self.host, port=self.port, user=user, dbname=name or self.name, autocommit=True
        )

    def url(self, user: str) -> str:
        port = f":{self.port}" if self.port else ""
        return f"postgresql://{user}@{port}/{self.name}?host={self.host}"

    def manage(self, *args: str, user: str = "", **more: str) -> str:
        return self.run("manage.py", *args, user=user, **more)

    def run(self, *args: str, user: str = "", check: bool = True, **more: str) -> str:
        environment = {**os.environ, "DATABASE_URL": self.url(user or self.owner), **more}
        done = subprocess.run(
            [sys.executable, *args],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def ask(self, user: str, statement: str, *values) -> list:
        with self.connect(user) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []


@pytest.fixture(scope="module")
def hardened() -> Iterator[Hardened]:
    made = Hardened()
    with made.connect(made.super, "postgres") as root:
        # The roles are the cluster's: one worker at a time, and a later owner gets a hold of what an earlier one made.
        root.execute("SELECT pg_advisory_lock(7399)")
        owner = sql.Identifier(made.owner)
        root.execute(sql.SQL("CREATE ROLE {} LOGIN NOSUPERUSER CREATEROLE").format(owner))
        root.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(made.name), owner))
        root.execute(
            f"DO $$ BEGIN CREATE ROLE {roles.ORGANIZATION}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        for role in (roles.OWNER, roles.ORGANIZATION, *roles.LOGINS):
            root.execute(
                f"DO $$ BEGIN IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{role}') THEN "
                f"GRANT {role} TO {made.owner} WITH ADMIN OPTION; END IF; END $$"
            )
        made.manage("migrate", "--no-input", "-v0")
        made.words = made.manage("harden_database")
    with made.connect(made.super) as root:
        event = root.execute(f"{EVENT} RETURNING event_id").fetchone()[0]
        for name, when in (
            ("held", "now() + interval '1 day'"),
            ("over", "now() - interval '1 day'"),
            ("also", "now() - interval '1 day'"),
        ):
            root.execute(
                f"INSERT INTO ledger.disclosure (event_id, name, digest, ciphertext, retain_until) VALUES (%s, %s, 'd', 'secret', {when})",
                [event, name],
            )
    yield made
    with made.connect(made.super, "postgres") as root:
        root.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(made.name)))


def refused(hardened: Hardened, user: str, statement: str) -> str:
    with pytest.raises(psycopg.Error) as problem:
        hardened.ask(user, statement)
    return problem.value.sqlstate or ""


# --- who may not ---------------------------------------------------------------------------------------------------------

NOT_PERMITTED = {"42501"}  # insufficient_privilege: not even the trigger is asked

APP_REFUSED = [
    "UPDATE ledger.event SET event_type = 'a.b'", "UPDATE ledger.disclosure SET digest = 'x'", f"UPDATE ledger.leaf SET leaf_hash = {HASH}",
    "UPDATE ledger.checkpoint SET note = 'x'", "UPDATE ledger.cosignature SET line = 'x'", "UPDATE ledger.promise SET due_at = now()",
    "UPDATE ledger.pending SET enqueued_at = now()",
    *(f"DELETE FROM ledger.{table}" for table in EVERY), *(f"TRUNCATE ledger.{table} CASCADE" for table in EVERY),
    "INSERT INTO ledger.event (event_id, entry, event_type) VALUES (gen_random_uuid(), '{}', 'a.b') "
    "ON CONFLICT (event_id) DO UPDATE SET event_type = 'c.d'",
    "INSERT INTO ledger.event (event_id, entry, event_type, xid) VALUES (gen_random_uuid(), '{}', 'a.b', '1')",
    "INSERT INTO ledger.event (event_id, entry, event_type, created_at) VALUES (gen_random_uuid(), '{}', 'a.b', now())",
    "SELECT * FROM ledger.pending", "INSERT INTO ledger.pending (event_id) VALUES (gen_random_uuid())",
    f"INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) VALUES (0, gen_random_uuid(), {HASH})",
    f"INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (0, {HASH}, '')",
    "INSERT INTO ledger.cosignature (tree_size, key_name, key_id, cosigned_at, line) VALUES (0, '', '', 0, '')",
    "DROP TRIGGER a_no_row ON ledger.event", "ALTER TABLE ledger.event DISABLE TRIGGER a_no_row", "ALTER TABLE ledger.event DISABLE TRIGGER ALL",
    "DROP TABLE ledger.promise", "DROP SCHEMA ledger CASCADE", "CREATE TABLE ledger.mine (a int)", "CREATE TABLE public.mine (a int)",
    "CREATE OR REPLACE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$",
    "DROP FUNCTION ledger.refuse() CASCADE", "ALTER TABLE ledger.event OWNER TO portal_app", "SET session_replication_role = replica",
    "SET ROLE ledger_owner", "SET ROLE ledger_sequencer", "SET ROLE privacy_officer", "SELECT ledger.enqueue()",
    "MERGE INTO ledger.event USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
    "DROP TRIGGER a_ended_stays_ended ON consents_subscription", "ALTER TABLE consents_person DISABLE TRIGGER ALL",
    "TRUNCATE consents_person CASCADE", "DELETE FROM django_migrations", "CREATE ROLE mine SUPERUSER", "DROP TABLE consents_notice",
]  # fmt: skip
SEQUENCER_REFUSED = [
    EVENT, "DELETE FROM ledger.event", "DELETE FROM ledger.leaf", "DELETE FROM ledger.checkpoint", f"UPDATE ledger.leaf SET leaf_hash = {HASH}",
    "TRUNCATE ledger.pending", "SELECT * FROM ledger.disclosure", "DELETE FROM ledger.disclosure", "SELECT * FROM consents_person",
    "SELECT * FROM consents_personkey", "UPDATE ledger.pending SET event_id = gen_random_uuid()", "UPDATE consents_verification SET size = 0",
    "DELETE FROM consents_verification", "INSERT INTO ledger.promise (event_id, leaf_hash, due_at) VALUES (gen_random_uuid(), sha256('x'), now())",
    "DROP TRIGGER b_dense ON ledger.leaf", "SET session_replication_role = replica", "SET ROLE ledger_owner",
    "INSERT INTO ledger.pending (event_id) VALUES (gen_random_uuid())", "CREATE TABLE ledger.mine (a int)",
]  # fmt: skip
AUDITOR_REFUSED = [
    EVENT, "SELECT * FROM ledger.disclosure", "SELECT * FROM ledger.pending", "SELECT * FROM ledger.promise", "SELECT * FROM consents_person",
    "SELECT * FROM consents_entryindex", "SELECT * FROM consents_personkey", "DELETE FROM ledger.event", "UPDATE ledger.event SET event_type = 'a.b'",
    "TRUNCATE ledger.event CASCADE", f"INSERT INTO ledger.checkpoint (tree_size, root_hash, note) VALUES (0, {HASH}, '')",
    "DROP TRIGGER a_no_row ON ledger.event", "SET ROLE ledger_owner",
]  # fmt: skip
OFFICER_REFUSED = [
    "SELECT ciphertext FROM ledger.disclosure", "SELECT * FROM ledger.disclosure", "DELETE FROM ledger.disclosure WHERE ciphertext = 'secret'",
    "DELETE FROM ledger.disclosure WHERE name = 'also' RETURNING ciphertext", "COPY ledger.disclosure TO STDOUT",
    "UPDATE ledger.disclosure SET retain_until = now()", "UPDATE ledger.disclosure SET digest = 'x'", "TRUNCATE ledger.disclosure",
    "INSERT INTO ledger.disclosure (event_id, name, digest, ciphertext, retain_until) VALUES (gen_random_uuid(), 'n', 'd', 'c', now())",
    "SELECT * FROM ledger.event", "SELECT * FROM consents_person", "SELECT * FROM consents_personkey", "DELETE FROM consents_personkey",
    "DROP TRIGGER b_hold ON ledger.disclosure", "ALTER TABLE ledger.disclosure DISABLE TRIGGER b_hold", "SET session_replication_role = replica",
    "SET ROLE ledger_owner",
]  # fmt: skip
REFUSED = {
    "portal_app": APP_REFUSED,
    "ledger_sequencer": SEQUENCER_REFUSED,
    "ledger_auditor": AUDITOR_REFUSED,
    "privacy_officer": OFFICER_REFUSED,
}


@pytest.mark.parametrize("user", REFUSED)
def test_what_a_role_may_not_is_refused(hardened, user, subtests):
    for statement in REFUSED[user]:
        with subtests.test(statement[:80]):
            assert refused(hardened, user, statement) in NOT_PERMITTED, statement


def test_the_owner_of_the_log_cannot_log_in(hardened):
    with pytest.raises(psycopg.OperationalError, match="not permitted to log in"):
        hardened.connect(roles.OWNER)


def test_no_login_is_a_member_of_anything_that_owns(hardened):
    rows = hardened.ask(
        hardened.super,
        "SELECT r.rolname, r.rolsuper, r.rolcreaterole, r.rolcreatedb, r.rolbypassrls, r.rolreplication, "
        "EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid AND m.roleid <> %s::regrole) "
        "FROM pg_roles r WHERE rolname = ANY(%s)",
        roles.ORGANIZATION,
        list(roles.LOGINS),
    )
    assert len(rows) == 4 and all(not any(row[1:]) for row in rows)
    owners = hardened.ask(
        hardened.super,
        "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'ledger' UNION SELECT DISTINCT proowner::regrole::text FROM pg_proc "
        "WHERE pronamespace = 'ledger'::regnamespace UNION SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'ledger'",
    )
    assert owners == [(roles.OWNER,)]


# --- who may ---------------------------------------------------------------------------------------------------------------

ALLOWED = {
    "portal_app": [
        EVENT, "SELECT * FROM ledger.event", "SELECT * FROM ledger.leaf, ledger.checkpoint, ledger.cosignature",
        "SELECT ciphertext FROM ledger.disclosure", "SELECT * FROM ledger.promise",
        f"INSERT INTO ledger.promise (event_id, leaf_hash, due_at) VALUES (gen_random_uuid(), {HASH}, now())",
        "INSERT INTO ledger.disclosure (event_id, name, digest, ciphertext, retain_until) "
        "SELECT event_id, gen_random_uuid()::text, 'd', 'c', now() + interval '1 day' FROM ledger.event LIMIT 1",
        "SELECT * FROM consents_person, django_migrations", "DELETE FROM consents_idempotencykey",
    ],
    "ledger_sequencer": [
        "SELECT * FROM ledger.event, ledger.pending, ledger.leaf, ledger.checkpoint, ledger.cosignature, ledger.promise",
        "DELETE FROM ledger.promise", "SELECT * FROM consents_verification",
        "INSERT INTO consents_verification (id, kind, started_at, finished_at, size, root_hash, findings) "
        "VALUES (gen_random_uuid(), 'nightly', now(), now(), 0, '', '[]')",
        "WITH one AS (DELETE FROM ledger.pending WHERE place = (SELECT min(place) FROM ledger.pending) RETURNING event_id) "
        "INSERT INTO ledger.leaf (leaf_index, event_id, leaf_hash) SELECT (SELECT count(*) FROM ledger.leaf), event_id, leaf_hash "
        "FROM one JOIN ledger.event USING (event_id)",
        f"INSERT INTO ledger.checkpoint (tree_size, root_hash, note) "
        f"SELECT count(*), {HASH}, 'x' FROM ledger.leaf HAVING count(*) > (SELECT coalesce(max(tree_size), -1) FROM ledger.checkpoint)",
        "INSERT INTO ledger.cosignature (tree_size, key_name, key_id, cosigned_at, line) SELECT max(tree_size), 'w', 'k', 1, 'l' FROM ledger.checkpoint",
    ],
    "ledger_auditor": ["SELECT * FROM ledger.event, ledger.leaf, ledger.checkpoint, ledger.cosignature"],
    "privacy_officer": ["SELECT event_id, name, digest, retain_until, subject_key_id FROM ledger.disclosure"],
}  # fmt: skip


@pytest.mark.parametrize("user", ALLOWED)
def test_what_a_role_is_for_it_may(hardened, user, subtests):
    for statement in ALLOWED[user]:
        with subtests.test(statement[:80]):
            hardened.ask(user, statement)


def test_the_officer_deletes_only_what_is_held_no_longer(hardened):
    assert (
        refused(hardened, "privacy_officer", "DELETE FROM ledger.disclosure WHERE name = 'held'") == "23L06"
    )
    assert refused(hardened, "privacy_officer", "DELETE FROM ledger.disclosure") == "23L06"
    count = "SELECT count(*) FROM ledger.disclosure WHERE name IN ('held', 'over')"
    assert hardened.ask(hardened.super, count) == [(2,)]
    assert hardened.ask(
        "privacy_officer", "DELETE FROM ledger.disclosure WHERE name = 'over' RETURNING name"
    ) == [("over",)]
    assert hardened.ask(hardened.super, count) == [(1,)]


def test_the_portal_reads_as_one_organization_and_is_not_bound_otherwise(hardened):
    membership = "SELECT inherit_option, set_option FROM pg_auth_members WHERE roleid = %s::regrole AND member = 'portal_app'::regrole"
    assert set(hardened.ask(hardened.super, membership, roles.ORGANIZATION)) == {(False, True)}
    made = (
        "INSERT INTO providers_organization (id, code, name_ko, name_en, sector, is_operator, is_source, is_fictional, duty_contact) "
        "VALUES (gen_random_uuid(), %s, '가', 'A', 'bank', true, true, true, '') RETURNING id::text"
    )
    ((one,),), ((other,),) = (hardened.ask("portal_app", made, f"RLSROLE{n:03}") for n in (1, 2))
    for own in (one, other):
        hardened.ask(
            "portal_app",
            "INSERT INTO consents_upload (id, organization_id, kind, format, state, received, lines, read_to, line, header, created, updated, "
            "unchanged, mismatched, waiting, refused, fault, faults, opened_at, touched_at) "
            "VALUES (gen_random_uuid(), %s, 'holdings', 'csv', 'receiving', 0, 0, 0, 0, '[]', 0, 0, 0, 0, 0, 0, '', 0, now(), now())",
            own,
        )
    with hardened.connect("portal_app") as portal:
        rows = "SELECT organization_id::text FROM consents_upload ORDER BY 1"
        assert portal.execute(rows).fetchall() == [(row,) for row in sorted((one, other))]
        portal.execute("BEGIN")
        portal.execute(
            "SELECT set_config('role', %s, true), set_config('portal.organization', %s, true)",
            [roles.ORGANIZATION, one],
        )
        assert portal.execute(rows).fetchall() == [(one,)]
        portal.execute("ROLLBACK")
        assert len(portal.execute(rows).fetchall()) == 2


def test_an_owner_who_may_create_roles_makes_the_one_of_organizations(hardened):
    """In a cluster that has none yet; where somebody else has made it, they are told what to ask for."""
    migration = importlib.import_module("consents.migrations.0019_own_rows")
    fresh = f"made_{uuid.uuid4().hex[:8]}"
    statement = migration.ROLE_EXISTS.replace(roles.ORGANIZATION, fresh)
    for _again in range(2):
        with hardened.connect(hardened.owner) as owner:
            owner.execute(statement)
    options = "SELECT bool_or(set_option), bool_or(inherit_option) FROM pg_auth_members WHERE roleid = %s::regrole AND member = %s::regrole"
    assert hardened.ask(hardened.super, options, fresh, hardened.owner) == [(True, False)]
    assert hardened.ask(hardened.super, options, fresh, "portal_app") == [(True, False)]
    foreign = f"made_{uuid.uuid4().hex[:8]}"
    hardened.ask(hardened.super, f"CREATE ROLE {foreign}")
    with (
        hardened.connect(hardened.owner) as owner,
        pytest.raises(psycopg.errors.InsufficientPrivilege) as told,
    ):
        owner.execute(migration.ROLE_EXISTS.replace(roles.ORGANIZATION, foreign))
    assert f"GRANT {foreign} TO {hardened.owner}" in (told.value.diag.message_hint or "")
    with hardened.connect(hardened.super) as root:
        for name in (fresh, foreign):
            root.execute(f"DROP OWNED BY {name}")
            root.execute(f"DROP ROLE {name}")


# --- the command -------------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_did_and_changes_nothing_the_second_time(hardened):
    assert "ok  ledger_owner owns the schema ledger" in hardened.words
    before = privileges(hardened)
    assert "New roles: none." in hardened.manage("harden_database")
    assert privileges(hardened) == before and len(before) > 40


def test_a_right_that_somebody_added_is_taken_back(hardened):
    before = privileges(hardened)
    hardened.ask(hardened.super, "GRANT UPDATE, TRUNCATE ON ledger.event, consents_person TO portal_app")
    assert privileges(hardened) != before
    hardened.manage("harden_database")
    assert "TRUNCATE" not in {row[2] for row in privileges(hardened)}
    assert ("ledger.event", "portal_app", "UPDATE") not in privileges(hardened)


def test_a_dry_run_prints_what_psql_could_run(hardened):
    before = privileges(hardened)
    said = hardened.manage("harden_database", "--dry-run")
    assert said.startswith("BEGIN;") and said.rstrip().endswith("COMMIT;") and privileges(hardened) == before
    with hardened.connect(hardened.owner) as connection:
        connection.execute(said)
    assert privileges(hardened) == before


def test_help_names_every_role(hardened):
    said = hardened.manage("harden_database", "--help")
    assert all(role in said for role in (roles.OWNER, roles.ORGANIZATION, *roles.LOGINS))


def test_whoever_may_not_is_told_so_and_nothing_is_changed(hardened):
    before = privileges(hardened)
    said = hardened.manage("harden_database", user="portal_app", check=False)
    assert "Nothing was changed" in said and "Traceback" not in said
    assert privileges(hardened) == before


def privileges(hardened: Hardened) -> set[tuple[str, str, str]]:
    return set(
        hardened.ask(
            hardened.super,
            "SELECT table_schema || '.' || table_name, grantee, privilege_type FROM information_schema.table_privileges "
            "WHERE grantee = ANY(%s) UNION SELECT table_schema || '.' || table_name || '.' || column_name, grantee, privilege_type "
            "FROM information_schema.column_privileges WHERE grantee = ANY(%s) AND table_schema = 'ledger'",
            list(roles.LOGINS),
            list(roles.LOGINS),
        )
    )


def test_later_migrations_of_the_owner_still_work(hardened):
    """Also those of the log itself: the newest one back and forth, then a change of a table of the log."""
    hardened.manage("migrate", "consents", "0005", "-v0")
    hardened.manage("migrate", "--no-input", "-v0")
    hardened.ask(hardened.owner, "ALTER TABLE ledger.promise ADD COLUMN later int")
    hardened.ask(hardened.owner, "ALTER TABLE ledger.promise DROP COLUMN later")
    hardened.ask(hardened.owner, "CREATE TABLE public.a_new_one (id bigserial)")
    hardened.ask("portal_app", "INSERT INTO a_new_one DEFAULT VALUES")
    hardened.manage("harden_database")
    hardened.ask("portal_app", "SELECT * FROM consents_person")


# --- the portal itself ---------------------------------------------------------------------------------------------------------

LIFE = """
import datetime, json, django
django.setup()
from django.conf import settings
from django.db import connection, connections
from consents import accounts, jobs, lifecycle, propagation
from consents.actors import Actor
from consents.models import EntryIndex, Disclosure, Leaf, Person, Verification
from providers import datafiles, policy
from providers.models import PolicyRule
from tests import factories

assert settings.LEDGER_ALIAS == "sequencer" and settings.PRIVACY_ALIAS == "privacy"
users = [connections[alias].cursor().execute("SELECT current_user").fetchone()[0] for alias in ("default", "sequencer", "privacy")]
datafiles.load_policy(); datafiles.load_scopes()
PolicyRule.objects.filter(key="PROCESSING_RECORD_YEARS").update(value=0)
policy.forget()
at = datetime.datetime.now(datetime.UTC)
person = factories.PersonFactory()
me = Actor.person(person)
kept, left = factories.joined(person, at=at), factories.joined(person, at=at)
lifecycle.leave(left, erase=True, by=me, at=at)
delivered = jobs.deliver()
size = jobs.sequence()
published = jobs.cosign()
accounts.close(person, by=me, at=at)
erased = jobs.erase()
print(json.dumps({
    "users": users, "size": size, "published": published, "erased": erased,
    "people": Person.objects.filter(pk=person.pk).count(),
    "troubles": [row.findings for row in Verification.objects.all() if row.findings],
    "grown": jobs.sequence(), "left": Disclosure.objects.filter(subject_key_id__isnull=False).count(),
}))
"""


def test_the_portal_works_as_its_own_roles(hardened, tmp_path):
    """Join, leave, deliver, order, publish, close and erase, with three logins none of which owns anything."""
    said = hardened.run(
        "-c", LIFE, user="portal_app", DJANGO_SETTINGS_MODULE="config.settings",
        LEDGER_DATABASE_URL=hardened.url("ledger_sequencer"), PRIVACY_DATABASE_URL=hardened.url("privacy_officer"),
        PORTAL_KEYS_DIR=str(tmp_path / "keys"), LEDGER_DIR=str(tmp_path / "ledger"), SIGNER_DIR=str(tmp_path / "signer"),
    )  # fmt: skip
    (line,) = [line for line in said.splitlines() if line.startswith('{"users"')]
    told = json.loads(line)
    assert told["users"] == ["portal_app", "ledger_sequencer", "privacy_officer"]
    assert told["size"] == told["published"] > 10 and told["grown"] > told["size"]
    assert (told["erased"], told["people"], told["left"], told["troubles"]) == (1, 0, 0, [])
