"""A whole portal of real processes, for tests that kill them: PostgreSQL with fsync, Valkey, web, worker, pretend operators.

Everything lives in one temporary folder, is started by the commands of the demo, dies with the test run, and is ended
by its recorded process id only.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from config import embedded, servers
from config.management.commands import demo
from config.supervision import Child, python

LEASE = 3  # seconds; the policy's 45 would only make the tests wait
REST = 40.0  # seconds within which everybody must be at rest after a fault


class DurablePostgres(servers.Postgres):
    """One that dies with us like a test's own, and keeps its promises to the disk like a real one."""

    def command(self) -> list[str]:
        safe = ["fsync=on", "synchronous_commit=on", "full_page_writes=on"]
        return [*super().command(), *(part for setting in safe for part in ("-c", setting))]


class Portal:
    """The processes and what they answer. `start()` makes the demo's people."""

    people = 40

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="portal-faults-", dir=servers.temporary()))
        self.home.chmod(0o711)
        self.postgres = DurablePostgres(self.home, ephemeral=True)
        self.valkey = servers.Valkey(self.home, ephemeral=True)
        self.port = _three_free_ports()
        self.url, self.sandbox_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.port + 1}"
        self.children: list[Child] = []
        self.visitors: list[Visitor] = []

    # --- processes -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.postgres.acquire()
        self.valkey.acquire()
        self.environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DJANGO"))
            },
            "DATABASE_URL": self.postgres.url(),
            "REDIS_URL": self.valkey.url(),
            "SECRET_KEY": "f" * 50,
            "PORTAL_KEYS_DIR": str(embedded.make_folder(self.home / "keys", mode=0o700)),
            "PORTAL_STATE_DIR": str(self.home),
            "PORTAL_URL": self.url,
            "SANDBOX_URL": self.sandbox_url,
            "WITNESS_URL": f"http://127.0.0.1:{self.port + 2}",
            "EMAIL_URL": f"file://{embedded.make_folder(self.home / 'mail', mode=0o700)}",
            "DEMO": "1",
            "LOG_LEVEL": "INFO",
            "PYTHONUNBUFFERED": "1",
        }
        self.run(str(demo.MANAGE), "demo", "--prepare", f"--people={self.people}")
        self.sql(
            "INSERT INTO providers_policyrule (key, value, unit, effective_on, source, note) "
            "VALUES ('LEASE_SECONDS', %s, 'seconds', '2026-01-01', 'tests of faults', '')",
            [LEASE],
        )
        self.visitors = [
            Visitor(self, **row)
            for row in json.loads(self.run("-m", "tests.faults.visitors").splitlines()[-1])
        ]
        self.signer, self.witness, self.sandbox, self._worker, self.web = demo.family(self.home, self.port)
        self.web.command = [part if part != "2" else "1" for part in self.web.command]
        for child in (self.signer, self.witness, self.sandbox, self.web):
            self.begin(child)
        wait(lambda: demo.answers(self.port) and not demo.free(self.port + 1), 30, "web and sandbox answer")
        self.settle_the_past()

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            python(*arguments),
            cwd=embedded.CHECKOUT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def begin(self, child: Child, **more: str) -> Child:
        child.start({**self.environment, **more}, embedded.CHECKOUT)
        if child not in self.children:
            self.children.append(child)
        return child

    @contextlib.contextmanager
    def working(self) -> Iterator[Child]:
        """The worker of the demo, with its beat, for as long as it is needed."""
        child = self.begin(Child("worker", list(self._worker.command), self._worker.log))
        try:
            yield child
        finally:
            self.end(child)

    def doomed_worker(self, fault_at: str) -> Child:
        """One that is killed at that moment; see `worker.py`."""
        options = self._worker.command[self._worker.command.index("-A") :]
        beat = options.index("-s") + 1
        options[beat] = f"{options[beat]}-{fault_at}"
        child = Child(
            fault_at,
            [sys.executable, "-m", "tests.faults.worker", *options],
            self.home / "log" / f"{fault_at}.log",
        )
        return self.begin(child, FAULT_AT=fault_at)

    def end(self, child: Child, sign: signal.Signals = signal.SIGKILL) -> None:
        """Kill a child with all that it started."""
        if child.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.process.pid, sign)
            child.process.wait(timeout=20)
        if child in self.children:
            self.children.remove(child)

    def stop(self) -> None:
        for child in reversed(self.children[:]):
            self.end(child)
        self.valkey.release()
        self.postgres.release()
        shutil.rmtree(self.home, ignore_errors=True)

    def settle_the_past(self) -> None:
        """Deliver what the demo's year left on its way; its difficult sources are well-behaved from here on."""
        for (code,) in self.sql("SELECT code FROM providers_organization WHERE is_fictional"):
            with contextlib.suppress(urllib.error.HTTPError):  # those without an API are not in the sandbox
                self.fault(code, "none")
        self.sql("UPDATE consents_delivery SET next_at = now() WHERE state = 'retrying'")
        with self.working():
            self.comes_to_rest()

    def fault(self, code: str, name: str, value: int = 0) -> None:
        """Switch a fault of the sandbox."""
        self.ask_sandbox("/_/faults", {"organization": code, "fault": name, "value": value})

    # --- what they know ------------------------------------------------------------------------------------------------

    def sql(self, statement: str, values: list | tuple = ()) -> list[tuple]:
        with psycopg.connect(
            host=str(self.postgres.socket_folder()), user="portal", dbname="portal", autocommit=True
        ) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def ask_sandbox(self, path: str, content: object = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.sandbox_url + path, data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def effects(self) -> dict[str, dict]:
        """What became of each message at the other side, by jti."""
        return {row["jti"]: row for row in self.ask_sandbox("/_/effects?limit=10000")["effects"]}

    def waiting(self) -> int:
        """Messages that the portal still has to send."""
        return self.sql("SELECT count(*) FROM consents_delivery WHERE state IN ('queued', 'retrying')")[0][0]

    def at_rest(self) -> bool:
        """Nothing to send and no answer outstanding, on either side."""
        return not self.waiting() and not self.ask_sandbox("/_/effects?limit=1")["totals"]["duties_open"]

    def comes_to_rest(self, seconds: float = REST) -> float:
        """Seconds it took."""
        started = time.monotonic()
        wait(
            self.at_rest,
            seconds,
            lambda: f"rest; {self.waiting()} to send, {self.ask_sandbox('/_/effects?limit=1')['totals']}",
        )
        return time.monotonic() - started

    def somebody_leaves(self) -> str:
        """Over HTTP, from a service whose operator is told over the wire; the id of the subscription."""
        by_wire = self.sql(
            "SELECT p.email, s.id::text FROM consents_subscription s JOIN consents_person p ON p.id = s.person_id "
            "JOIN providers_channel c ON c.organization_id = s.operator_id "
            "WHERE s.state = 'active' AND c.state = 'open' AND c.protocol = 'native' ORDER BY s.id LIMIT 1"
        )
        ((email, subscription),) = by_wire
        (visitor,) = [visitor for visitor in self.visitors if visitor.email == email]
        answer = visitor.post(f"me/subscriptions/{subscription}/end", {"erase": True})
        assert (answer["state"], answer["erasure"]) == ("ended", "requested")
        return subscription

    def deliveries(self, subscription: str, event: str = "subscription-ended") -> list[dict]:
        """What is owed over the wire because of one end."""
        rows = self.sql(
            "SELECT jti, state, goal, role, attempts + coalesce(tries, 0), token IS NOT NULL FROM consents_delivery "
            "LEFT JOIN consents_lease ON delivery_id = id WHERE subscription_id = %s AND event = %s AND state <> 'manual' ORDER BY id",
            [subscription, event],
        )
        return [
            dict(zip(("jti", "state", "goal", "role", "attempts", "leased"), map(_plain, row), strict=True))
            for row in rows
        ]


class Visitor:
    """One person, at the API by token and at the pages by session; everything over HTTP."""

    def __init__(self, portal: Portal, *, email: str, subject: str, session: str, token: str):
        self.portal, self.email, self.subject = portal, email, subject
        self._session, self._token = session, token

    def get(self, path: str) -> Any:
        return self._api(path, None)

    def post(self, path: str, content: object) -> Any:
        return self._api(path, json.dumps(content).encode())

    def _api(self, path: str, body: bytes | None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.portal.url}/api/v1/{path}", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from error

    def number(self) -> int:
        """The large number of the home page."""
        request = urllib.request.Request(
            f"{self.portal.url}/me/", headers={"Cookie": f"sid={self._session}", "Accept-Language": "ko"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            text = re.sub(r"<[^>]+>", "", answer.read().decode())
        found = re.search(r"(\d+)\s*곳이 내 정보를 가지고 있어요", text)
        assert found, f"no number on the page of {self.email}"
        return int(found[1])


def wait(done: Callable[[], object], seconds: float, what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.05)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | bool) else str(value)


def _three_free_ports() -> int:
    """A port whose neighbours are free too: sandbox and witness stand at the next ones."""
    for _ in range(50):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 65_000 and all(demo.free(port + next_) for next_ in range(3)):
            return port
    raise AssertionError("no three free ports side by side")
