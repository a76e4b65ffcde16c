"""Creates the log's roles and their rights, so that the portal itself can no longer change what it has written."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import ProgrammingError, connection, transaction

from consents.ledger import roles

_LIST = "\n".join(f"  {name:<17} {words}" for name, words in roles.LOGINS.items())


class Command(BaseCommand):
    help = f"""Create the roles of the log and give each its rights in the database. Safe to run again.

Run it as the database's owner, after every `migrate`. No superuser is needed: the owner needs CREATEROLE, or somebody
has created the roles and made the owner a member of ledger_owner. Roles:
  {roles.OWNER:<17} owns the log, cannot log in
  {roles.ORGANIZATION}  as whom portal_app reads for one organization; migrations make it, it cannot log in
{_LIST}

It sets no passwords: give each login one (ALTER ROLE portal_app PASSWORD '…'), start web, worker and beat with their
own addresses, and keep the owner's address for migrations, harden_database and `ledger replay`.

Example:
  DATABASE_URL=postgresql://owner@db/portal manage.py harden_database --dry-run"""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any):
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="print the SQL and do nothing")

    def handle(self, *, dry_run: bool, **options: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT current_setting('server_version_num')::int, to_regclass('consents_verification')"
            )
            version, migrated = cursor.fetchone()
        steps = roles.steps(version=version)
        if dry_run:
            self.stdout.write("BEGIN;")
            for step in steps:
                self.stdout.write(f"-- {step.words}\n{step.sql};")
            self.stdout.write("COMMIT;")
            return
        if migrated is None:
            raise CommandError("The log's tables are missing: run migrate first.")
        before = self._known()
        with transaction.atomic(), connection.cursor() as cursor:
            for step in steps:
                try:
                    cursor.execute(step.sql)
                except ProgrammingError as problem:
                    reason = str(problem).strip().splitlines()[0]
                    raise CommandError(
                        f"Nothing was changed. Stopped at: {step.words} ({reason}). Run this as the database's owner "
                        "with CREATEROLE; --dry-run prints the SQL for whoever may."
                    ) from problem
                self.stdout.write(f"ok  {step.words}")
        fresh = sorted(self._known() - before)
        self.stdout.write(f"New roles: {', '.join(fresh) or 'none'}.")
        if fresh:
            self.stdout.write("They have no password yet: ALTER ROLE … PASSWORD '…' before they log in.")

    @staticmethod
    def _known() -> set[str]:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s)", [[roles.OWNER, *roles.LOGINS]]
            )
            return {name for (name,) in cursor.fetchall()}
