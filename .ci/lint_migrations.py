"""Refuse a migration that would lock or break a running portal; ran by .ci/run inside `manage.py shell`."""

import sys

from django_migration_linter import MigrationLinter

linter = MigrationLinter(
    ".",
    include_apps=["config", "consents", "providers"],
    analyser_string="postgresql",
    # A table that a migration makes itself is empty: nothing of it can lock.
    ignore_initial_migrations=True,
    ignore_name=[
        "0002_ledger",
        "0004_tree",  # plain SQL that makes new tables only
        "0007_stops",  # new tables, and an index of deliveries remade; written before any portal held real ones
        "0003_wires",  # makes a varchar longer, which PostgreSQL does without looking at a row
        "0005_clients",  # clients of organizations are some hundreds, and secrets move once
        "0016_request_codes",  # consent requests live ten minutes: their table is small, and nothing has a code yet
        "0018_cache",  # makes a new table
        "0021_rules_row_by_row",  # as the next one
        "0019_own_rows",  # policies are marks in the catalogue: a lock of an instant on each table, no row is looked at
        # new tables, and leases moved out of deliveries: a lease lasts 45 seconds, and workers of before it are stopped first
        "0017_queue",
        "0004_decisions_of_one_day",  # a unique index of some dozens of decisions made anew with one more column
    ],
    quiet=["ignore", "ok"],
    no_cache=True,
)
linter.lint_all_migrations()
linter.print_summary()
if linter.has_errors:
    sys.exit(
        "portal: a migration above is not safe on a running portal: split it, or say in it why it is safe"
    )
