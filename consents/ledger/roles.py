"""The roles of the log and what each may do in the database, as SQL that may be run again (security brief 1.2).

ledger_owner owns the log and cannot log in. Whoever runs it (the database's owner) is its member, so that later
migrations go on working; the portal's own logins are not, and can neither change nor drop anything of the log.
"""

from dataclasses import dataclass

OWNER = "ledger_owner"
ORGANIZATION = "portal_organization"  # made by a migration, which says what it may read; nobody logs in as it
LOGINS = {
    "portal_app": "web, worker and beat (DATABASE_URL)",
    "ledger_sequencer": "orders the log (LEDGER_DATABASE_URL)",
    "ledger_auditor": "reads the log and nothing else",
    "privacy_officer": "deletes disclosures after their hold and cannot read them (PRIVACY_DATABASE_URL)",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What is done, in words, and its SQL."""

    words: str
    sql: str


def steps(*, version: int) -> list[Step]:
    """All of it, to be run in one transaction. `version` is PostgreSQL's, as 160004."""
    return [
        *(Step(f"role {name} exists", _role(name)) for name in (OWNER, *LOGINS)),
        Step("whoever migrates is a member of ledger_owner", _membership(version)),
        Step("ledger_owner owns the schema ledger and all in it", _OWNERSHIP),
        Step("nobody has a right in the schema ledger", _clean()),
        *(Step(f"{role}: {words}", _grant(role, rights)) for role, words, rights in _LEDGER),
        Step("portal_app reads and writes the portal's own tables, also future ones", _PUBLIC),
        Step("portal_app may read as one organization, and is not bound by its rules otherwise", _READER),
        Step("portal_app changes no migrations; ledger_sequencer notes its checks", _EXCEPTIONS),
    ]


def _role(name: str) -> str:
    login = "NOLOGIN" if name == OWNER else "LOGIN"
    return f"""DO $$ BEGIN
  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{name}') THEN CREATE ROLE {name} {login}; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- somebody else made it just now
END $$"""  # noqa: S608  # constants of this module


def _membership(version: int) -> str:
    options = " WITH INHERIT TRUE, SET TRUE" if version >= 160000 else ""
    mode = "SET" if version >= 160000 else "MEMBER"
    return f"""DO $$ BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT (
      pg_has_role(current_user, '{OWNER}', '{mode}') AND pg_has_role(current_user, '{OWNER}', 'USAGE')) THEN
    GRANT {OWNER} TO CURRENT_USER{options};
  END IF;
END $$"""  # noqa: S608


_OWNERSHIP = f"""DO $$ DECLARE one record; BEGIN
  IF (SELECT nspowner <> '{OWNER}'::regrole FROM pg_namespace WHERE nspname = 'ledger') THEN
    ALTER SCHEMA ledger OWNER TO {OWNER};
  END IF;
  FOR one IN SELECT relname FROM pg_class WHERE relnamespace = 'ledger'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
      AND relowner <> '{OWNER}'::regrole LOOP
    EXECUTE format('ALTER TABLE ledger.%I OWNER TO {OWNER}', one.relname);
  END LOOP;
  FOR one IN SELECT oid::regprocedure AS signature FROM pg_proc WHERE pronamespace = 'ledger'::regnamespace
      AND proowner <> '{OWNER}'::regrole LOOP
    EXECUTE format('ALTER FUNCTION %s OWNER TO {OWNER}', one.signature);
  END LOOP;
END $$"""  # noqa: S608

_ALL_LOGINS = ", ".join(LOGINS)


def _clean() -> str:
    everybody = f"PUBLIC, {_ALL_LOGINS}"
    return f"""REVOKE ALL ON SCHEMA ledger FROM {everybody};
REVOKE ALL ON ALL TABLES IN SCHEMA ledger FROM {everybody};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA ledger FROM {everybody};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM {everybody};
GRANT USAGE ON SCHEMA ledger TO {_ALL_LOGINS}"""


# role, in words, what it may on which tables; xid and created_at of an event are written by nobody but the database
_LEDGER: list[tuple[str, str, list[str]]] = [
    (
        "portal_app",
        "adds entries and disclosures, reads what is ordered, changes nothing",
        [
            "SELECT, INSERT (event_id, entry, event_type) ON ledger.event",
            "SELECT, INSERT ON ledger.disclosure",
            "SELECT, INSERT ON ledger.promise",
            "SELECT ON ledger.leaf, ledger.checkpoint, ledger.cosignature",
        ],
    ),
    (
        "ledger_sequencer",
        "orders what waits, adds leaves, checkpoints and cosignatures, settles promises",
        [
            "SELECT ON ledger.event",
            "SELECT, DELETE ON ledger.pending",
            "SELECT, INSERT ON ledger.leaf, ledger.checkpoint, ledger.cosignature",
            "SELECT, DELETE ON ledger.promise",
        ],
    ),
    (
        "ledger_auditor",
        "reads the public log",
        ["SELECT ON ledger.event, ledger.leaf, ledger.checkpoint, ledger.cosignature"],
    ),
    (
        "privacy_officer",
        "deletes disclosures, blind to what they say",
        ["SELECT (event_id, name, digest, retain_until, subject_key_id), DELETE ON ledger.disclosure"],
    ),
]


def _grant(role: str, rights: list[str]) -> str:
    return ";\n".join(f"GRANT {right} TO {role}" for right in rights)


_PUBLIC = f"""REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {_ALL_LOGINS};
GRANT USAGE ON SCHEMA public TO portal_app, ledger_sequencer;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO portal_app;
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO portal_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO portal_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO portal_app"""

# Without INHERIT: a member that inherits would see no organization's rows at all.
_READER = f"""DO $$ BEGIN
  IF NOT pg_has_role('portal_app', '{ORGANIZATION}', 'SET') OR pg_has_role('portal_app', '{ORGANIZATION}', 'USAGE') THEN
    GRANT {ORGANIZATION} TO portal_app WITH INHERIT FALSE, SET TRUE;
  END IF;
END $$"""

_EXCEPTIONS = """REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM portal_app;
GRANT SELECT, INSERT ON consents_verification TO ledger_sequencer"""
