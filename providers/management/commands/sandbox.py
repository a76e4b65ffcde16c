"""Run the pretend operators and sources."""

import socket
import tempfile
from pathlib import Path

from aiohttp import web
from django.core.management.base import BaseCommand, CommandError

from providers.sandbox.server import application


class Command(BaseCommand):
    help = (
        "Runs pretend operators and sources as one HTTP server on 127.0.0.1: they take messages from the portal, "
        "acknowledge them and sign evidence. Their page switches faults; /mail/ shows the letters the portal wrote. "
        "For the demo and for tests only. Ctrl-C stops it."
    )
    requires_system_checks = ()

    def add_arguments(self, parser):
        parser.add_argument("--port", type=int, default=8001, help="port on 127.0.0.1 (default 8001)")
        parser.add_argument(
            "--config",
            type=Path,
            help="JSON file with the organizations; may appear later, read again on change",
        )
        parser.add_argument(
            "--database", type=Path, help="SQLite file (default: a temporary one, gone at the end)"
        )
        parser.add_argument(
            "--mail", type=Path, help="folder where the portal's file-based mail backend writes"
        )
        parser.add_argument(
            "--delays",
            type=float,
            nargs=2,
            default=(1.0, 2.0),
            metavar=("STOPPED", "ERASED"),
            help="seconds until it proves that data stopped and was erased (default 1 2)",
        )

    def handle(self, *, port, config, database, mail, delays, **options):
        if not 0 < port < 65536 or min(delays) < 0:
            raise CommandError("The port is a number from 1 to 65535 and delays are not negative.")
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with listener, tempfile.TemporaryDirectory(prefix="sandbox-") as scratch:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError as error:
                raise CommandError(
                    f"Port {port} on 127.0.0.1 cannot be used: choose another with --port."
                ) from error
            app = application(
                port=port,
                database=database or Path(scratch) / "sandbox.sqlite3",
                config=config,
                mail=mail,
                delays=tuple(delays),
            )
            self.stdout.write(f"http://127.0.0.1:{port}/")
            self.stdout.flush()
            web.run_app(app, sock=listener, print=None, access_log=None, shutdown_timeout=2)
