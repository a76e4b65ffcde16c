"""The table of Django's cache: sign-in limits and codes of a minute live in PostgreSQL, and hold while the broker is down.

It is not logged: a crash of the server forgets what is a minute old, and nothing in it costs a write to disk."""

from django.db import migrations

TABLE = """
CREATE UNLOGGED TABLE portal_cache (
  cache_key varchar(255) PRIMARY KEY, value text NOT NULL, expires timestamptz NOT NULL
);
CREATE INDEX portal_cache_by_end ON portal_cache (expires);
"""


class Migration(migrations.Migration):
    dependencies = [("consents", "0017_queue")]
    operations = [migrations.RunSQL(TABLE, "DROP TABLE portal_cache")]
