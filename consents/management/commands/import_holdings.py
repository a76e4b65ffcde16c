"""Brings an operator's report of its holdings in, and says which rows were refused and why."""

import csv
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone, translation
from tqdm import tqdm

from consents import reconciliation, reports
from consents.actors import Actor
from providers.models import Organization

LISTED = 10


class Command(BaseCommand):
    help = f"""Bring in the subscriptions that an operator reports, one row a person, service and source.

CSV with the header
  {",".join(reports.COLUMNS)}
or NDJSON (.ndjson) with the same keys. UTF-8, with or without a byte order mark. Dates: 2026-11-22 or 20261122;
retained_until 99991231 means until erased. scopes are separated by spaces. subject is the id the portal gave, or
the person's CI, which is never kept: whom the portal does not know yet waits until they come.

Rows that can be accepted go in. Refused rows are named by number, column and reason in FILE.refused.csv beside the
input. The same file again changes nothing. A row can never revive what has ended: it becomes a mismatch notice.

Example:
  manage.py import_holdings holdings.csv --organization FTDURU9001 --dry-run"""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any):
        return super().create_parser(
            prog_name, subcommand, formatter_class=RawDescriptionHelpFormatter, **kwargs
        )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path, help="the report, .csv or .ndjson")
        parser.add_argument(
            "--organization",
            required=True,
            metavar="CODE",
            help="the operator that reports, by its ten-character code",
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would happen and keep nothing")

    def handle(self, *args: Any, file: Path, organization: str, dry_run: bool, **options: Any) -> None:
        operator = Organization.objects.operators().filter(code=organization).first()
        if operator is None:
            raise CommandError(
                f"{organization} is not the code of an operator: see /operators/ for the codes"
            )
        bar = tqdm(unit=" rows", disable=not sys.stderr.isatty(), leave=False)
        try:
            report = reconciliation.report_holdings(
                reports.read(file), organization=operator, by=Actor.organization(operator), at=timezone.now(), dry_run=dry_run,
                progress=bar.update,
            )  # fmt: skip
        except reports.NotAReport as error:
            with translation.override("en"):  # as everything a command says
                raise CommandError(f"{file}: {error}") from error
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror or error}") from error
        finally:
            bar.close()
        self.stdout.write(
            f"{report.created} holdings added, {report.updated} updated, {report.unchanged} already known, "
            f"{report.mismatched} contradict our records, {report.waiting} wait for their person, {len(report.refused)} refused"
            + (" (dry run: nothing was kept)" if dry_run else "")
        )
        with translation.override("en"):  # as everything a command says
            refused = [
                (row.number, column, reports.words(code, values))
                for row in sorted(report.refused)
                for column, code, values in row.faults
            ]
        for number, column, reason in refused[:LISTED]:
            self.stdout.write(f"  row {number}, {column or 'whole row'}: {reason}")
        if len(refused) > LISTED:
            self.stdout.write(f"  and {len(refused) - LISTED} more")
        self._write_refused(file.with_name(f"{file.name}.refused.csv"), refused)

    def _write_refused(self, path: Path, refused: list[tuple[int, str, str]]) -> None:
        try:
            if not refused:
                path.unlink(missing_ok=True)  # an old list would speak of rows that are in now
                return
            with path.open("w", encoding="utf-8", newline="") as file:
                lines = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
                lines.writerow(["row", "column", "reason"])
                lines.writerows(refused)
        except OSError as error:
            raise CommandError(
                f"the accepted rows are in, but {path} cannot be written: {error.strerror or error}"
            ) from error
        self.stdout.write(f"Refused rows: {path}")
