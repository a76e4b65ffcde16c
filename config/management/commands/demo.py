"""The whole portal on this machine: servers, migrations, demo data, pretend operators, worker and web."""

import fcntl
import http.client
import io
import json
import os
import shutil
import socket
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config import embedded, supervision
from config.supervision import Child, Supervisor, python

MANAGE = embedded.CHECKOUT / "manage.py"
START_SECONDS = 60.0
WITNESS = "fss.example.kr/witness/1"


class Command(BaseCommand):
    """The main job. Runs Django only in its children, so that it stays small and their environment is complete."""

    help = (
        "Run the whole portal on this machine with demo data: database, broker, worker, web and the pretend operators. "
        "Prints the address and the demo sign-ins. Ctrl-C stops everything; running it again keeps the data."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port",
            type=int,
            default=8000,
            help="port of the web (default 8000); the next two are for the pretend operators and the witness",
        )
        parser.add_argument(
            "--fresh", action="store_true", help="delete the embedded data of this checkout and start over"
        )
        parser.add_argument(
            "--people",
            type=int,
            default=40,
            help="how many synthetic people the first run makes (default 40)",
        )
        parser.add_argument(
            "--prepare",
            action="store_true",
            help="only migrate and seed, in the environment as it is; used by demo itself",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["prepare"]:
            prepare(options["people"])
            return
        if not 1 <= options["port"] <= 65533:
            raise CommandError("--port must be between 1 and 65533: the next two ports are used too")
        if options["people"] < 1:
            raise CommandError("--people must be at least 1")
        home = embedded.make_folder(embedded.state_dir())
        with (home / "demo.lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CommandError(
                    f"the portal of this checkout runs already at {running_at(home)}: use that one, or stop it first"
                ) from None
            supervision.clear_leftovers(home)
            self._run(home, options["port"], options["people"], options["fresh"])

    def _run(self, home: Path, port: int, people: int, fresh: bool) -> None:
        uses = ((port, "the web"), (port + 1, "the pretend operators"), (port + 2, "the pretend witness"))
        for number, use in uses:
            if not free(number):
                raise CommandError(
                    f"port {number}, needed for {use}, is taken: stop what uses it, or choose another with --port N"
                )
        if fresh:
            if embedded.given("DATABASE_URL"):
                raise CommandError(
                    "--fresh deletes embedded data only: empty the database that DATABASE_URL names yourself"
                )
            try:
                embedded.erase()
            except embedded.CannotStart as problem:
                raise CommandError(str(problem)) from problem
        supervisor = Supervisor(home, embedded.CHECKOUT)
        supervisor.listen()
        self._say("starting the database and the broker")
        try:
            servers = embedded.provide()
        except embedded.CannotStart as problem:
            raise CommandError(str(problem)) from problem
        try:
            self._serve(supervisor, servers, home, port, people)
        finally:
            if supervisor.children:
                self._say("stopping")
            supervisor.stop()
            servers.stop()
            (home / "run.json").unlink(missing_ok=True)
        self._say("stopped; the data is kept")

    def _serve(
        self, supervisor: Supervisor, servers: embedded.Servers, home: Path, port: int, people: int
    ) -> None:
        url = surroundings(home, port)
        (home / "run.json").write_text(json.dumps({"pid": os.getpid(), "url": url}))
        children = family(home, port)
        setup = Child(
            "setup",
            python(str(MANAGE), "demo", "--prepare", f"--people={people}"),
            children[0].log.with_name("setup.log"),
        )
        self._say(
            "preparing the data"
            if (home / "demo.json").exists()
            else "making the demo data, once: about half a minute"
        )
        setup.log.unlink(missing_ok=True)
        code = supervisor.run(setup)
        if supervisor.requests:
            return
        if code:
            raise CommandError(
                f"the data could not be prepared: {last_line(setup.log)} (all of it: {setup.log})"
            )
        for child in children:
            supervisor.start(child)
        culprit = supervisor.wait_for(lambda: answers(port) and not free(port + 1), START_SECONDS)
        if culprit:
            raise CommandError(
                f"{culprit.name} did not start: {last_line(culprit.log)} (all of it: {culprit.log})"
            )
        if supervisor.requests:
            return
        self.stdout.write(welcome(home, url))
        self.stdout.flush()
        supervisor.watch(self._say, servers.revive)

    def _say(self, text: str) -> None:
        self.stdout.write(f"portal: {text}")
        self.stdout.flush()


def prepare(people: int) -> None:
    """Migrate, and seed: people the first time, afterwards only where the pretend operators are to be reached."""
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0, interactive=False)
    call_command("seed", demo=True, people=people)
    open_log()


def open_log() -> None:
    """Make the log's key and a pretend regulator with a witness, whose policy the log is read with from now on."""
    from django.conf import settings
    from django.core.management import call_command

    from consents.ledger import signer

    key = signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    folder = settings.LEDGER_DIR.parent / "witness"
    call_command(
        "witness", "init", dir=str(folder), name=WITNESS, log=[str(key)], url=settings.WITNESS_URL,
        stdout=io.StringIO(), stderr=io.StringIO(),
    )  # fmt: skip
    settings.LEDGER_DIR.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "policy.txt", settings.LEDGER_DIR / "policy.txt")


def surroundings(home: Path, port: int) -> str:
    """Set what the children read from the environment; answers the portal's address."""
    url = os.environ.setdefault("PORTAL_URL", f"http://127.0.0.1:{port}")
    os.environ["DEMO"] = "1"
    os.environ["SANDBOX_URL"] = f"http://127.0.0.1:{port + 1}"
    os.environ["WITNESS_URL"] = f"http://127.0.0.1:{port + 2}"
    # The folder's name stands as it is, spaces included: settings takes the path as written.
    os.environ.setdefault("EMAIL_URL", f"file://{embedded.make_folder(home / 'mail', mode=0o700)}")
    return url


def family(home: Path, port: int) -> list[Child]:
    """The processes of the portal, in the order in which they start; they stop in the reverse one."""
    log = embedded.make_folder(home / "log")
    return [
        Child("signer", python(str(MANAGE), "signer", "serve"), log / "signer.log"),
        Child(
            "witness",
            python(str(MANAGE), "witness", "serve", f"--dir={home / 'witness'}", f"--port={port + 2}"),
            log / "witness.log",
        ),
        Child(
            "sandbox",
            python(str(MANAGE), "sandbox", f"--port={port + 1}", f"--config={home / 'sandbox.json'}")
            + [f"--database={home / 'sandbox.sqlite3'}", f"--mail={home / 'mail'}"],
            log / "sandbox.log",
        ),
        Child(
            "worker",
            python("-m", "celery", "-A", "config", "worker", "-B", "-c", "2", "-l", "info")
            + ["-s", str(home / "beat-schedule"), "--without-gossip", "--without-mingle"],
            log / "worker.log",
        ),
        Child(
            "web",
            python("-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port", str(port))
            + ["--workers", "2", "--blocking-threads", "4", "--no-ws", "config.wsgi:application"],
            log / "web.log",
        ),
    ]


def free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int) -> bool:
    """Whether the web of the portal answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def running_at(home: Path) -> str:
    try:
        seen = json.loads((home / "run.json").read_text())
        return f"{seen['url']} (process {seen['pid']})"
    except (OSError, ValueError, KeyError):
        return "an address that it has not told yet"


def last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].strip() if lines else "it said nothing"


def welcome(home: Path, url: str) -> str:
    """The address and the demo sign-ins, as the first run wrote them down."""
    lines = ["", f"  Portal               {url}"]
    if sandbox := os.environ.get("SANDBOX_URL"):
        lines += [f"  Pretend companies    {sandbox}/", f"  Mailbox              {sandbox}/mail/"]
    lines.append(f"  Logs                 {home / 'log'}")
    try:
        rows = json.loads((home / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        rows = []
    if rows:
        lines += ["", "  Demo sign-ins"]
        label = max(width(row["label"]) for row in rows)
        email = max(width(row["email"]) for row in rows)
        for row in rows:
            lines.append(f"    {pad(row['label'], label)}  {pad(row['email'], email)}  {row['password']}")
    return "\n".join([*lines, "", "  Ctrl-C stops everything and keeps the data.", ""])


def width(text: str) -> int:
    """Columns on a terminal: a Hangul syllable takes two."""
    return sum(2 if ord(letter) >= 0x1100 else 1 for letter in text)


def pad(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))
