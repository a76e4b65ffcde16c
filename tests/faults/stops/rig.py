"""What the experiments stand on: a cluster, a broker, a signer, two web processes, two workers with their beats and the mock
operators, all of them one experiment's own.

Everything lives in one temporary folder, listens on Unix sockets or loopback, and is ended by its recorded id only.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from config import embedded, servers
from config.management.commands import demo
from config.programs import CannotStart
from config.supervision import Child, python
from tests.faults.portal import DurablePostgres
from tests.faults.stops.history import History
from tests.faults.stops.proxy import Proxy

SECRET = "f" * 50
REST = 120.0  # seconds within which everything must be at rest after the last fault


class Wrong(AssertionError):
    """An invariant of propagation is broken."""


def check(condition: object, why: str) -> None:
    if not condition:
        raise Wrong(why)


class ForgetfulPostgres(DurablePostgres):
    """One that says yes before it has written anything down: what the checker must notice."""

    def command(self) -> list[str]:
        careless = ["synchronous_commit=off", "wal_writer_delay=10s", "wal_writer_flush_after=1GB"]
        return [*super().command(), *(part for setting in careless for part in ("-c", setting))]


@dataclass(frozen=True)
class Template:
    """A cluster at rest, made once, and the plan of who agreed to what."""

    folder: Path
    plan: dict[str, Any]


class World:
    """One experiment's processes. `mutant` puts a fault into the portal: see mutants.py. `clocks` are seconds by which a
    child's clock is wrong; `acks` the parties that acknowledge (default: every second one)."""

    def __init__(
        self, template: Template, *, seed: int, mutant: str = "", lease: int = 5, forgetful: bool = False,
        acks: set[str] | None = None, clocks: dict[str, float] | None = None, workers: int = 2, webs: int = 2,
        proxied: bool = False, policy: dict[str, int] | None = None,
    ) -> None:  # fmt: skip
        self.home = Path(tempfile.mkdtemp(prefix="portal-stops-", dir=servers.temporary()))
        self.home.chmod(0o711)
        self.plan, self.rng = template.plan, random.Random(seed)
        self.postgres = (ForgetfulPostgres if forgetful else DurablePostgres)(self.home, ephemeral=True)
        self.postgres.home.mkdir()
        self.postgres.home.chmod(0o711)
        for name, target in (("data", self.postgres.data), ("keys", self.home / "keys")):
            subprocess.run(["cp", "-a", str(template.folder / name), str(target)], check=True)
        self.valkey = servers.Valkey(self.home, ephemeral=True)
        self.faults = embedded.make_folder(self.home / "faults")
        embedded.make_folder(self.home / "log")
        self.journal, self.path = self.home / "operators.jsonl", self.home / "history.jsonl"
        self.history = History(self.path)
        # A breaker that rests for a minute would only make the experiments wait.
        self.policy = {"LEASE_SECONDS": lease, "BREAKER_OPEN_SECONDS": 3, **(policy or {})}
        self.lease, self.mutant, self.seed, self.clocks = lease, mutant, seed, clocks or {}
        codes = sorted(self.plan["parties"])
        self.acks = set(codes[::2]) if acks is None else acks
        free = ports(webs + len(codes) + 1)
        self.webs = {f"web-{n}": free.pop() for n in range(1, webs + 1)}
        self.workers = [f"worker-{n}" for n in range(1, workers + 1)]
        self.control = free.pop()
        self.ports = dict(zip(codes, free, strict=True))
        self.proxies = {code: Proxy(port) for code, port in self.ports.items()} if proxied else {}
        self.children: dict[str, Child] = {}
        # A child dies with the thread that started it, so one thread that stays starts them all.
        self._starter = ThreadPoolExecutor(1)
        self._lock = threading.RLock()

    # --- processes -----------------------------------------------------------------------------------------------------

    def __enter__(self) -> "World":
        try:
            self._starter.submit(self._start).result()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.postgres.acquire()
        self.valkey.acquire()
        issuer = f"http://127.0.0.1:{self.webs['web-1']}"
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PYTEST", "DJANGO", "LEDGER", "SIGNER"))
            },
            "DATABASE_URL": self.postgres.url(), "REDIS_URL": self.valkey.url(), "SECRET_KEY": SECRET,
            "PORTAL_KEYS_DIR": str(self.home / "keys"), "PORTAL_STATE_DIR": str(self.home), "PORTAL_URL": issuer,
            "EMAIL_URL": f"file://{embedded.make_folder(self.home / 'mail', mode=0o700)}", "LOG_LEVEL": "INFO",
            "MUTANT": self.mutant, "FAULTS": str(self.faults), "PYTHONUNBUFFERED": "1",
            "OPERATOR_PORTS": ",".join(map(str, self.doors().values())),
        }  # fmt: skip
        for code, port in self.doors().items():
            self.sql(
                "UPDATE providers_channel SET address = %s WHERE organization_id = "
                "(SELECT id FROM providers_organization WHERE code = %s)",
                [f"http://127.0.0.1:{port}/hook", code],
            )
        for key, value in self.policy.items():
            self.sql(
                "INSERT INTO providers_policyrule (key, value, unit, effective_on, source, note) "
                "VALUES (%s, %s, 'seconds', '2026-01-01', 'experiments', '')",
                [key, value],
            )
        self.first = self.sql(
            "SELECT (SELECT max(id) FROM consents_delivery), (SELECT max(seq) FROM consents_entryindex)"
        )[0]
        told = {
            "issuer": issuer, "webs": [f"http://127.0.0.1:{port}" for port in self.webs.values()], "seed": self.seed,
            "journal": str(self.journal), "control": self.control,
            "parties": {
                code: {**self.plan["parties"][code], "port": port, "acks": code in self.acks}
                for code, port in self.ports.items()
            },
        }  # fmt: skip
        (self.home / "operators.json").write_text(json.dumps(told))
        self._begin(
            "operators", python("-m", "tests.faults.stops.operators", str(self.home / "operators.json"))
        )
        self._begin("signer", python(str(demo.MANAGE), "signer", "serve"))
        for name in [*self.webs, *self.workers]:
            self._begin(name, self._command(name))
        wait(lambda: all(map(demo.answers, self.webs.values())), 60, lambda: f"the web; {self.last_words()}")
        wait(lambda: self.ask() is not None, 20, "the operators")
        wait(lambda: all(map(self.ready, self.workers)), 60, "the workers")

    def doors(self) -> dict[str, int]:
        """The ports that the portal calls."""
        return self.ports | {code: proxy.port for code, proxy in self.proxies.items()}

    def _command(self, name: str) -> list[str]:
        *_, worker, web = demo.family(self.home, self.webs.get(name, 0))
        if name in self.webs:
            threads = [part if part != "2" else "1" for part in web.command]
            return [part.replace("config.wsgi", "tests.faults.stops.wsgi") for part in threads]
        command = worker.command
        command[command.index("celery")] = "tests.faults.stops.child"
        return [part.replace("beat-schedule", f"beat-{name}") for part in command]

    def _begin(self, name: str, command: list[str]) -> None:
        child = Child(name, command, self.home / "log" / f"{name}.log")
        shift = str(self.clocks.get(name, 0))
        child.start({**self.environment, "CHILD": name, "CLOCK_SHIFT": shift}, embedded.CHECKOUT)
        self.children[name] = child

    def ready(self, name: str) -> bool:
        """Whether this worker has connected to its broker since it was started last."""
        log = self.children[name].log
        return log.exists() and " ready." in log.read_text(errors="replace").rpartition("[config]")[2]

    def alive(self, name: str) -> bool:
        return self.children[name].alive()

    def kill(self, name: str) -> None:
        """With everything that it started."""
        child = self.children[name]
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait(20)

    def dead(self, name: str) -> bool:
        return not self.alive(name)

    def freeze(self, name: str) -> None:
        os.killpg(self.children[name].process.pid, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.children[name].process.pid, signal.SIGCONT)

    def frozen(self, name: str) -> bool:
        status = Path(f"/proc/{self.children[name].process.pid}/stat").read_text()
        return status.rpartition(")")[2].split()[0] == "T"

    def again(self, name: str) -> None:
        """Start it again; what it left behind is ended first."""

        def start() -> None:
            self.kill(name)
            for moment in self.faults.glob(f"{name}.*"):
                moment.unlink(missing_ok=True)
            log = self.children[name].log
            log.rename(log.with_suffix(f".{time.monotonic_ns()}.log"))
            self._begin(name, self._command(name))

        with self._lock:
            self._starter.submit(start).result()

    def all_again(self) -> list[str]:
        """Start whatever has died; their names."""
        dead = [name for name in self.children if not self.alive(name)]
        for name in dead:
            self.again(name)
        return dead

    def arm(self, name: str, moment: str) -> Path:
        """The named child will die (or freeze, or wait) when it comes there next."""
        path = self.faults / f"{name}.{moment}"
        path.touch()
        return path

    def kill_database(self, sign: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT is `pg_ctl stop -m immediate`: no checkpoint, nothing written that was not written before."""
        if pid := self.postgres.pid():
            os.kill(pid, sign)
        wait(lambda: not self.postgres.answers(), 10, "the database to be gone")

    def revive_database(self) -> None:
        def back() -> bool:
            try:
                return self._starter.submit(self.postgres.revive).result() or self.postgres.answers()
            except CannotStart:  # its orphans have not noticed yet that the postmaster is gone
                return False

        wait(back, 40, "the database to be back")

    def kill_broker(self) -> None:
        if pid := self.valkey.pid():
            os.kill(pid, signal.SIGKILL)
        wait(lambda: not self.valkey.answers(), 10, "the broker to be gone")

    def revive_broker(self) -> None:
        self._starter.submit(self.valkey.revive).result()

    def flush_broker(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.valkey._socket()))
            connection.sendall(b"FLUSHALL\r\n")
            check(connection.recv(16).startswith(b"+OK"), "the broker was not emptied")

    def manage(self, *arguments: str) -> str:
        """A program in this world's environment, run to its end; what it printed."""
        done = subprocess.run(
            python(*arguments), cwd=embedded.CHECKOUT, capture_output=True, text=True, timeout=110,
            env={**self.environment, "CHILD": "program"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self.children)):
            self.kill(name)
        for proxy in self.proxies.values():
            proxy.close()
        self._starter.submit(self.valkey.release).result()
        self._starter.submit(self.postgres.release).result()
        self._starter.shutdown()
        self.history.close()
        if keep := os.environ.get("FAULT_KEEP"):  # the histories and logs of what went wrong
            shutil.copytree(
                self.home, Path(keep) / self.home.name, ignore=shutil.ignore_patterns("postgres", "keys")
            )
        shutil.rmtree(self.home, ignore_errors=True)

    # --- what can be seen and said -------------------------------------------------------------------------------------

    def sql(self, statement: str, values: list | tuple = ()) -> list[tuple]:
        with psycopg.connect(
            host=str(self.postgres.socket_folder()), user="portal", dbname="portal", autocommit=True
        ) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def ask(self, **told: Any) -> dict[str, Any] | None:
        """Tell the operators (`moods`, `secrets`, `forget_keys`), or ask what they still owe."""
        body = json.dumps(told).encode() if told else None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.control}/", body, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            return None

    def moods(self, **moods: str) -> None:
        check(self.ask(moods=moods) is not None, "the operators do not answer")

    def waiting(self) -> list[tuple[int, int]]:
        """Attempts made, and how many messages still have to be sent after so many."""
        return self.sql(
            "SELECT attempts + coalesce(tries, 0), count(*) FROM consents_delivery LEFT JOIN consents_lease ON delivery_id = id "
            "WHERE state IN ('queued', 'retrying') GROUP BY 1 ORDER BY 1"
        )

    def at_rest(self) -> bool:
        return not self.waiting() and not (self.ask() or {"acks_owed": 1})["acks_owed"]

    def comes_to_rest(self, seconds: float = REST, *, patient: bool = False) -> float:
        """Seconds until nothing is to be sent and nothing to be acknowledged. Unless `patient`, a retry that would come in
        minutes is brought near: time passes, nothing else. Whoever does not come to rest is the checker's business."""
        started = time.monotonic()
        while not self.at_rest() and time.monotonic() - started < seconds:
            if not patient:
                self.sql(
                    "UPDATE consents_delivery SET next_at = now() + interval '2 s' "
                    "WHERE state = 'retrying' AND next_at > now() + interval '4 s' "
                    "AND id NOT IN (SELECT delivery_id FROM consents_lease)"
                )
                self.sql(
                    "UPDATE consents_breaker SET open_until = now() WHERE open_until > now() + interval '4 s'"
                )
            time.sleep(0.3)
        return round(time.monotonic() - started, 1)

    def last_words(self) -> str:
        return "\n".join(
            f"--- {name}\n{demo.last_line(child.log)}"
            for name, child in self.children.items()
            if child.log.exists()
        )


def wait(done: Callable[[], object], seconds: float, what: str | Callable[[], str]) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Wrong(f"waited {seconds} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.03)


def ports(count: int) -> list[int]:
    """So many free ports of the loopback address, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextlib.contextmanager
def shared_template(run: str) -> Iterator[Template]:
    """Everybody has joined, everybody has heard of it; copied for each experiment, made once for all processes of the test
    run and removed by the last of them."""
    folder = servers.temporary() / f"portal-stops-{run}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o711)
    with (folder / "users").open("a") as users:
        with servers.locked(folder / "mutex"):
            if not (folder / "plan.json").exists():
                _make_template(folder)
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield Template(folder, json.loads((folder / "plan.json").read_text()))
        finally:
            if servers.try_lock(users):
                shutil.rmtree(folder, ignore_errors=True)


def _make_template(folder: Path) -> None:
    postgres = servers.Postgres(folder, ephemeral=True)
    try:
        postgres.acquire()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DJANGO", "LEDGER"))},
            "DATABASE_URL": postgres.url(), "REDIS_URL": "redis://127.0.0.1:9/0", "SECRET_KEY": SECRET,
            "PORTAL_KEYS_DIR": str(embedded.make_folder(folder / "keys", mode=0o700)), "PORTAL_STATE_DIR": str(folder),
            "LOG_LEVEL": "ERROR",
        }  # fmt: skip
        done = subprocess.run(
            python("-m", "tests.faults.stops.prepare"), cwd=embedded.CHECKOUT, env=environment, capture_output=True,
            text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    finally:
        postgres.release()
    postgres.data.rename(folder / "data")
    (folder / "plan.json").write_text(done.stdout.splitlines()[-1])
