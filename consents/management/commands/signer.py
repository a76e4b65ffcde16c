"""The log's signer as a process of its own."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from consents.ledger import signer


class Command(BaseCommand):
    help = (
        "The log's signer: `init` makes its key and memory in SIGNER_DIR and prints the key that verifies it (vkey); "
        "`serve` signs checkpoints over the Unix socket SIGNER_SOCKET. Run it as a user of its own, and keep SIGNER_DIR "
        "out of the database's backups: its memory is what a restored database is measured against."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["init", "serve"])

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        try:
            key = signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
            if action == "init":
                self.stdout.write(str(key))
                return
            address = signer.socket_path()
            self.stdout.write(f"signer of {key.name} listens at {address}")
            self.stdout.flush()
            signer.serve(settings.SIGNER_DIR, settings.LEDGER_ORIGIN, address)
        except signer.Unavailable as problem:
            raise CommandError(str(problem)) from problem
        except OSError as problem:
            raise CommandError(f"the signer cannot use {settings.SIGNER_DIR}: {problem}") from problem
