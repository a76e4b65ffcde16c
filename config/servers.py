"""One embedded server: PostgreSQL or Valkey from its wheel, as a process that we own.

Both listen on Unix sockets in a private folder and nowhere else. Who is using a server is told by file
locks, which the kernel gives back even after a kill -9; whose process it is, by its command line.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import psycopg

from config import programs
from config.programs import CannotStart, account

LINUX = sys.platform == "linux"
LOCALE = "C.UTF-8" if LINUX else "en_US.UTF-8"


class InUse(CannotStart):
    """Another command of this checkout is using the embedded servers."""


class Server:
    """One embedded server: where it lives, how it is started, asked and stopped."""

    name: str
    variable: str
    stop_signal: signal.Signals
    pid_name: str

    def __init__(self, home: Path, *, ephemeral: bool = False) -> None:
        self.home = home / self.name
        self.data = self.home / "data"
        self.log = home / "log" / f"{self.name}.log"
        self.ephemeral = ephemeral
        self._process: subprocess.Popen[bytes] | None = None
        self._users: IO[str] | None = None

    # What each kind of server answers for itself.

    def prepare(self) -> None:
        """Make the data folder ready; safe to repeat, never half done."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """The command line; it names the data folder, by which `pid` knows its own."""
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether the server takes connections now."""
        raise NotImplementedError

    def url(self) -> str:
        """The address, as the environment variable takes it."""
        raise NotImplementedError

    # The same for both.

    def program(self, name: str) -> Path:
        """The program to run, readable for the account that runs it."""
        return programs.find(self.home.parent / "programs")[name]

    def acquire(self) -> None:
        """Use the server from now on: join the one that runs, or start it. Raises CannotStart."""
        make_folder(self.home)
        make_folder(self.log.parent)
        with locked(self.home / "mutex"):
            self._users = (self.home / "users").open("a")
            try:
                # Nobody else holds the lock: whatever still runs was left by a killed owner.
                if try_lock(self._users) or not self.answers():
                    self._start()
                fcntl.flock(self._users, fcntl.LOCK_SH)
            except BaseException:
                self._users.close()
                self._users = None
                raise

    def release(self) -> None:
        """Stop using the server; the last user stops it."""
        if self._users is None:
            return
        with locked(self.home / "mutex"):
            if try_lock(self._users):
                self.stop()
            self._users.close()
            self._users = None

    def revive(self) -> bool:
        """Start the server again, at the same address, where it has died; True when it had."""
        if self.pid() and self.answers():
            return False
        with locked(self.home / "mutex"):
            if self.answers():
                return False
            self._start()
        return True

    def erase(self) -> None:
        """Delete the data. Raises InUse while a command uses the server."""
        make_folder(self.home)
        with locked(self.home / "mutex"), (self.home / "users").open("a") as users:
            if not try_lock(users):
                raise InUse("another command of this checkout is using the database: stop it, then try again")
            self.stop()
            shutil.rmtree(self.data, ignore_errors=True)

    def pid(self) -> int | None:
        """The running server's process id; None when the pid file is absent, stale or names a stranger."""
        try:
            pid = int((self.data / self.pid_name).read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None
        return pid if str(self.data) in _command_line(pid) else None

    def stop(self) -> None:
        """Stop the server, whoever started it, and remove its socket folder."""
        self._halt()
        note = self.home / "socket"
        with contextlib.suppress(OSError):
            shutil.rmtree(note.read_text())
        note.unlink(missing_ok=True)

    def _halt(self) -> None:
        """End the process: politely, then firmly."""
        pid = self.pid()
        if pid is not None:
            for sign, patience in ((self.stop_signal, 30), (signal.SIGQUIT, 5), (signal.SIGKILL, 5)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
                if _wait(lambda: not self._lives(pid), patience):
                    break
        if self._process is not None:
            self._process.kill()  # only where it lives without its pid file
            self._process.wait()
            self._process = None

    def socket_folder(self) -> Path:
        """The private folder of this server's socket: short, because a socket's path has at most 104 bytes."""
        note = self.home / "socket"
        owner = account().get("user", os.geteuid())
        with contextlib.suppress(OSError):
            folder = Path(note.read_text())
            seen = folder.lstat()
            # A name known from last time may have been taken by somebody else after a reboot.
            if seen.st_uid == owner and seen.st_mode & 0o170777 == 0o040700:
                return folder
        folder = Path(tempfile.mkdtemp(prefix="portal-", dir=temporary()))
        _hand_over(folder)
        note.write_text(str(folder))
        return folder

    def _start(self) -> None:
        self._halt()  # what a killed owner left behind; the socket's folder stays, others may know its name
        self.prepare()
        if self.log.exists() and self.log.stat().st_size > 5_000_000:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=_environment(),
                start_new_session=True,  # Ctrl-C is for us alone: we stop the servers last
                # Shared servers may outlive who started them; a test's own must die with it.
                preexec_fn=die_with_parent(signal.SIGQUIT) if self.ephemeral else None,
                **account(),
            )
        self._process = process
        try:
            # Generous: after a crash PostgreSQL replays its log before it answers.
            while not _wait(self.answers, 0.2):
                if process.poll() is not None:
                    raise CannotStart(
                        f"{self.name} did not start: {_last_line(self.log)} (all of it: {self.log})"
                    )
        except BaseException:
            process.kill()
            process.wait()
            raise

    def _lives(self, pid: int) -> bool:
        if self._process and self._process.pid == pid:
            return self._process.poll() is None
        return str(self.data) in _command_line(pid)


class Postgres(Server):
    """PostgreSQL 18 with the user and the database `portal`."""

    name = "postgres"
    variable = "DATABASE_URL"
    stop_signal = signal.SIGINT  # fast shutdown: does not wait for clients
    pid_name = "postmaster.pid"

    def prepare(self) -> None:
        version = self.data / "PG_VERSION"
        if version.exists():
            made_by = version.read_text().strip()
            if made_by != "18":
                raise CannotStart(
                    f"the data in {self.data} is of PostgreSQL {made_by}, not 18: start over with ./portal up --fresh"
                )
            return
        # With LC_CTYPE=C, what a bare container gives, pg_trgm finds nothing in Hangul.
        locale = [f"--locale={LOCALE}"]
        if LINUX:
            locale += ["--locale-provider=builtin", f"--builtin-locale={LOCALE}"]
        made = self.home / "data.new"  # renamed when complete: an interrupted initdb leaves no half cluster
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(mode=0o700)
        _hand_over(made)
        # trust: only this account and root can reach the socket's folder.
        command = [str(self.program("initdb")), "-D", str(made), "-U", "portal", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*command, *locale, *(["--no-sync"] if self.ephemeral else [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            env=_environment(),
            **account(),
        )
        if done.returncode:
            complaint = done.stderr.strip().splitlines() or ["no message"]
            raise CannotStart(f"PostgreSQL could not make its data folder {made}: {complaint[-1]}")
        made.rename(self.data)

    def command(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_folder()),
            "unix_socket_permissions": "0700",
            "max_connections": "200",
        }
        if self.ephemeral:
            # Nothing to keep: a crash of the machine may lose all of it.
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        given_options = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [str(self.program("postgres")), "-D", str(self.data), *given_options]

    def answers(self) -> bool:
        try:
            with psycopg.connect(
                host=str(self.socket_folder()),
                user="portal",
                dbname="postgres",
                connect_timeout=3,
                autocommit=True,
            ) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = 'portal'").fetchone():
                    connection.execute("CREATE DATABASE portal")
        except psycopg.OperationalError:
            return False
        return True

    def url(self) -> str:
        return f"postgresql://portal@/portal?host={self.socket_folder()}"


class Valkey(Server):
    """Valkey as broker and cache. It keeps nothing over a restart: the queue itself is a table."""

    name = "valkey"
    variable = "REDIS_URL"
    stop_signal = signal.SIGTERM
    pid_name = "valkey.pid"

    def prepare(self) -> None:
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            _hand_over(self.data)

    def command(self) -> list[str]:
        options = {
            "dir": str(self.data),
            "pidfile": str(self.data / self.pid_name),
            "port": "0",
            "unixsocket": str(self._socket()),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "daemonize": "no",
            "set-proc-title": "no",  # the command line tells whose server it is
            "maxmemory": "256mb",
            "maxmemory-policy": "noeviction",  # a broker that forgets messages silently is worse than one that refuses
        }
        return [str(self.program("valkey-server"))] + [
            part for name, value in options.items() for part in (f"--{name}", value)
        ]

    def answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(3)
                connection.connect(str(self._socket()))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def url(self) -> str:
        return f"unix://{self._socket()}?db=0"

    def _socket(self) -> Path:
        return self.socket_folder() / "valkey.sock"


def die_with_parent(sign: signal.Signals) -> Callable[[], None] | None:
    """A preexec_fn that has Linux send `sign` to the child when its parent dies, even by kill -9; None elsewhere."""
    if not LINUX:
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, int(sign))  # 1 is PR_SET_PDEATHSIG


def _hand_over(path: Path) -> None:
    who = account()
    if who:
        os.chown(path, who["user"], who["group"])


def _environment() -> dict[str, str]:
    """What the servers see: nothing of ours. macOS needs a valid LC_ALL or the postmaster turns multithreaded."""
    return {"PATH": os.defpath, "LC_ALL": LOCALE, "TZ": "UTC"}


def temporary() -> Path:
    """The temporary folder, or /tmp where a long or private TMPDIR would not do for sockets."""
    path = Path(tempfile.gettempdir()).resolve()
    reachable = os.geteuid() != 0 or all(folder.stat().st_mode & 1 for folder in (path, *path.parents))
    return path if reachable and len(bytes(path)) <= 64 else Path("/tmp")  # noqa: S108 - mkdtemp makes the names


def make_folder(path: Path, *, mode: int | None = None) -> Path:
    # As root the servers' account passes through to its own data, and sees nothing else.
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode or (0o711 if os.geteuid() == 0 else 0o700))
    return path


def _command_line(pid: int) -> str:
    """The command line of a process; empty when it is gone or dead and not yet buried."""
    if LINUX:
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    return subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True
    ).stdout


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _wait(done: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
