"""Brings a file of the public licence register in, and says which rows were refused and why."""

import csv
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import timezone

from consents import publishing
from consents.actors import Actor
from providers import register, registry
from providers.models.organizations import ENDING_STATUSES, LicenceStatus, Sector

LISTED = 10  # refused rows repeated on standard output; all of them are in the file


class Command(BaseCommand):
    help = f"""Bring organizations and licence decisions in from a CSV file.

The file is UTF-8, with or without a byte order mark. Its first row is
  {",".join(register.COLUMNS)}
and may go on with any of
  {",".join(register.OPTIONAL)}
(lists separated by spaces: 203.0.113.4 203.0.113.5; np_time_list: 0000-0600 2330-0000; auth_type: 01, 03)
sector: {", ".join(Sector.values)}
role: {", ".join(register.ROLES)}; dates: 2021-01-27 or 20210127.
A source has no licence: its licence_status, decided_on and effective_on are empty.

Rows that can be accepted go in. Refused rows are named by number (the header is row 1), column and reason in
FILE.csv.refused.csv beside the input. The same file again changes nothing.

Example:
  manage.py import_registry providers/data/registry.csv --dry-run"""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any):
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE.csv", type=Path, help="the register")
        parser.add_argument("--dry-run", action="store_true", help="say what would happen and keep nothing")

    def handle(self, *args: Any, file: Path, dry_run: bool, **options: Any) -> None:
        try:
            rows = list(register.read(file))
        except register.NotARegister as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror or error}") from error
        by, at = Actor.system("import_registry"), timezone.now()
        with transaction.atomic():
            report = registry.import_register(rows, by=by, at=at, dry_run=dry_run)
            if not dry_run:
                publishing.note_licences(report.licences, by=by, at=at)
        self.stdout.write(
            f"{report.created} rows added, {report.unchanged} already known, {len(report.refused)} refused"
            + (" (dry run: nothing was kept)" if dry_run else "")
        )
        for decision in report.licences:
            if decision.status in (*ENDING_STATUSES, LicenceStatus.SUSPENDED) and not dry_run:
                self.stdout.write(
                    f"  note: {decision.organization.code} is now {decision.status}. Nobody can join it; subscriptions that run "
                    "are not ended by a file, and their people get a notice with the next daily job"
                )
        for number, column, reason in report.refused[:LISTED]:
            self.stdout.write(f"  row {number}, {column or 'whole row'}: {reason}")
        if len(report.refused) > LISTED:
            self.stdout.write(f"  and {len(report.refused) - LISTED} more")
        self._write_refused(file.with_name(f"{file.name}.refused.csv"), report.refused, rows)

    def _write_refused(self, path: Path, refused: list[tuple[int, str, str]], rows: list[dict]) -> None:
        try:
            if not refused:
                path.unlink(missing_ok=True)  # an old list would speak of rows that are in now
                return
            with path.open("w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file, lineterminator="\n")
                lines.writerow(["row", "column", "reason", "value"])
                for number, column, reason in refused:
                    lines.writerow(
                        [number, column, reason, _shown(rows[number - 2].get(column or None) or "")]
                    )
        except OSError as error:
            raise CommandError(
                f"the accepted rows are dealt with, but {path} cannot be written: {error.strerror or error}"
            ) from error
        self.stdout.write(f"Refused rows: {path}")


def _shown(value: str) -> str:
    """The refused value, short and such that a spreadsheet does not run it."""
    text = "".join(character if character.isprintable() else "�" for character in value)[:200]
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text
