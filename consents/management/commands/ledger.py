"""The log from the command line: recompute, print, prove, export, rebuild."""

import sys
import time
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from tqdm import tqdm

from consents.ledger import cosigning, exporting, notes, proofs, recount, replay, signer
from consents.ledger.sequencer import Sequencer, Stopped


class Command(BaseCommand):
    help = "The append-only log. `manage.py ledger COMMAND --help` explains each command."

    def add_arguments(self, parser: ArgumentParser) -> None:
        commands = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
        commands.add_parser(
            "verify", help="recompute every entry, root and checkpoint from the database and the tiles"
        )
        commands.add_parser("checkpoint", help="print the published checkpoint, with its cosignatures")
        prove = commands.add_parser("prove", help="write the .tlog-proof of an entry")
        prove.add_argument("entry", help="id of the entry")
        prove.add_argument(
            "--output", "-o", default="", help="where to write it (default: ENTRY.tlog-proof; - prints it)"
        )
        export = commands.add_parser(
            "export", help="write checkpoint and tiles (C2SP tlog-tiles) for any static host"
        )
        export.add_argument("directory", help="an empty or earlier export's folder")
        commands.add_parser(
            "replay", help="rebuild the state tables from the log and compare them row by row"
        )
        commands.add_parser(
            "sequence", help="order, sign, cosign and publish now, as the jobs do every two seconds"
        )
        commands.add_parser(
            "repair",
            help="write every tile of the signed tree again from the database: some are missing or damaged",
        )

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        try:
            getattr(self, f"_{action}")(options)
        except (proofs.NoPolicy, proofs.Broken, notes.BadNote, Stopped, signer.Unavailable) as problem:
            raise CommandError(str(problem)) from problem
        except OSError as problem:
            raise CommandError(f"a file cannot be read or written: {problem}") from problem

    def _checkpoint(self, options: dict) -> None:
        shown = proofs.published()
        if shown is None:
            raise CommandError("nothing is published yet: start the portal, or run manage.py ledger sequence")
        self.stdout.write(shown.note, ending="")

    def _prove(self, options: dict) -> None:
        try:
            event_id = uuid.UUID(options["entry"])
            proof = proofs.tlog_proof(event_id)
        except (ValueError, proofs.Unknown):
            raise CommandError(f"there is no entry {options['entry']}: give the id of one") from None
        except proofs.NotYet as waiting:
            raise CommandError(
                f"accepted at {waiting.since.isoformat()} and not yet under the published checkpoint: try again in a minute"
            ) from None
        target = options["output"] or f"{event_id}.tlog-proof"
        if target == "-":
            self.stdout.write(proof, ending="")
            return
        Path(target).write_text(proof, encoding="utf-8")
        self.stdout.write(target)

    def _export(self, options: dict) -> None:
        try:
            with tqdm(desc="tiles", unit=" files", disable=not sys.stderr.isatty(), leave=False) as bar:
                size, written = exporting.export(Path(options["directory"]), progress=bar.update)
        except exporting.NotPossible as problem:
            raise CommandError(str(problem)) from problem
        self.stdout.write(f"{options['directory']}: {size} entries, {written} files written")

    def _sequence(self, options: dict) -> None:
        report = Sequencer().run(rounds=1_000_000)
        if report.busy:
            raise CommandError("another process is ordering the log just now: try again")
        shown = cosigning.run(now=int(time.time()))
        for name, trouble in shown.troubles.items():
            self.stderr.write(f"witness {name}: {trouble}")
        self.stdout.write(
            f"{report.ordered} entries ordered, {report.size} signed, {shown.published} published"
        )

    def _repair(self, options: dict) -> None:
        if not Sequencer().remake():
            raise CommandError("another process is ordering the log just now: try again")
        self.stdout.write("every tile of the signed tree is written again")

    def _verify(self, options: dict) -> None:
        raise SystemExit(self._told(recount.run))

    def _replay(self, options: dict) -> None:
        raise SystemExit(self._told(replay.run))

    def _told(self, run) -> int:
        with tqdm(unit=" entries", disable=not sys.stderr.isatty(), leave=False) as bar:
            report = run(progress=bar.update)
        self.stdout.write(str(report))
        return 0 if report.ok else 1
