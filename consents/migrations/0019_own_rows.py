"""The second lock before organizations' rows: a role for their reads, and policies that bind this role and nobody else.

A policy that is restrictive for the role, beside one that lets everybody pass: so the portal's own logins see what they
saw, and who reads as `portal_organization` sees the rows of the organization in the setting `portal.organization`, or
none where it is not set. Roles are the cluster's: another database may have made this one before."""

from django.db import migrations

ROLE = "portal_organization"
OWN = "NULLIF(current_setting('portal.organization', true), '')::uuid"

ROLE_EXISTS = f"""
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{ROLE}') THEN CREATE ROLE {ROLE} NOLOGIN; END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;  -- another database's migration made it just now
END $$;
DO $$ BEGIN
  IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) AND NOT pg_has_role(current_user, '{ROLE}', 'SET') THEN
    GRANT {ROLE} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE;
  END IF;
EXCEPTION WHEN insufficient_privilege THEN
  RAISE EXCEPTION 'role {ROLE} belongs to somebody else' USING ERRCODE = '42501',
    HINT = format('Let whoever made it run: GRANT {ROLE} TO %I WITH ADMIN TRUE, INHERIT FALSE, SET TRUE', current_user);
END $$;
-- A hardened portal goes on reading between this migration and the next harden_database.
DO $$ BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'portal_app') AND NOT pg_has_role('portal_app', '{ROLE}', 'SET') THEN
    GRANT {ROLE} TO portal_app WITH INHERIT FALSE, SET TRUE;
  END IF;
EXCEPTION WHEN insufficient_privilege THEN RAISE WARNING 'portal_app may not read as {ROLE} yet: run harden_database';
END $$;
GRANT USAGE ON SCHEMA public TO {ROLE};
"""  # noqa: S608  # constants of this module

# Table → which of its rows are the organization's. What a rule reads is read under the rules, too.
RULES = {
    **dict.fromkeys(
        (
            "consents_delivery", "consents_evidence", "consents_consentrequest", "consents_upload", "consents_gymrun",
            "consents_channelchange", "consents_case", "providers_channel",
        ),
        f"organization_id = {OWN}",
    ),
    "consents_reissue": "EXISTS (SELECT FROM consents_delivery d WHERE d.id = delivery_id)",
    "consents_subscription": f"operator_id = {OWN} OR "
    + " OR ".join(
        f"EXISTS (SELECT FROM {about} a WHERE a.subscription_id = consents_subscription.id AND a.organization_id = {OWN})"
        for about in ("consents_delivery", "consents_case")
    ),
    "consents_consent": f"source_id = {OWN} OR recipient_id = {OWN} OR EXISTS (SELECT FROM consents_subscription s "
    f"WHERE s.id = subscription_id AND s.operator_id = {OWN})",
    "consents_person": "EXISTS (SELECT FROM consents_subscription s "
    f"WHERE s.person_id = consents_person.id AND s.operator_id = {OWN})",
    "providers_terms": f"state <> 'draft' OR EXISTS (SELECT FROM providers_service s "
    f"WHERE s.id = service_id AND s.organization_id = {OWN})",
    "providers_termsitem": "EXISTS (SELECT FROM providers_terms t WHERE t.id = terms_id)",
}  # fmt: skip
# Of a person nobody reads more than the random id in messages.
COLUMNS = {"consents_person": " (id, subject_id)"}
# Rows come in by COPY, which PostgreSQL refuses where a table has policies. So the role knows when there was news of a
# consent that it sees, and nothing else of the index.
UNRULED = "GRANT SELECT (consent_id, at) ON consents_entryindex"
EVERYBODY = ("providers_organization", "providers_service", "providers_scope")  # public as they are


def _locked(table: str, rule: str) -> str:
    return f"""
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody_else ON {table} USING (true);
CREATE POLICY own_rows ON {table} AS RESTRICTIVE TO {ROLE} USING ({rule});
GRANT SELECT{COLUMNS.get(table, "")} ON {table} TO {ROLE};"""


def _open(table: str) -> str:
    return f"""
REVOKE ALL ON {table} FROM {ROLE};
DROP POLICY own_rows ON {table};
DROP POLICY everybody_else ON {table};
ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;"""


FORWARDS = (
    ROLE_EXISTS
    + "".join(_locked(*one) for one in RULES.items())
    + f"\n{UNRULED} TO {ROLE};\nGRANT SELECT ON {', '.join(EVERYBODY)} TO {ROLE};"
)
BACKWARDS = f"REVOKE ALL ON {', '.join(EVERYBODY)}, consents_entryindex FROM {ROLE};" + "".join(
    map(_open, RULES)
)


class Migration(migrations.Migration):
    dependencies = [("consents", "0018_cache"), ("providers", "0006_directory")]
    operations = [migrations.RunSQL(FORWARDS, BACKWARDS)]
