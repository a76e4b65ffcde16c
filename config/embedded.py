"""The embedded default: a real PostgreSQL and a real Valkey, started by us where no address is given.

Whoever needs them calls `provide`; several commands of one checkout share one pair, and the last one
to leave stops it. As root the servers run as nobody, because PostgreSQL refuses root.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import IO

from config.servers import CannotStart as CannotStart
from config.servers import Postgres, Server, Valkey, locked, temporary, try_lock
from config.servers import make_folder as make_folder

CHECKOUT = Path(__file__).resolve().parent.parent
TEST_PREFIX = "portal-test-"


def state_dir() -> Path:
    """Where this checkout keeps its embedded data: for root under /var/lib (the servers run as nobody), else var/."""
    if os.geteuid() != 0:
        return CHECKOUT / "var"
    return Path("/var/lib") / f"portal-{hashlib.sha256(bytes(CHECKOUT)).hexdigest()[:10]}"


def given(name: str) -> bool:
    """Whether the environment already says NAME, or where to read it (NAME_FILE)."""
    return bool(os.environ.get(name) or os.environ.get(f"{name}_FILE"))


class Servers:
    """The servers that `provide` got hold of; `stop` (or leaving the `with`) lets go of them."""

    def __init__(
        self, servers: list[Server], own_home: Path | None = None, owner: IO[str] | None = None
    ) -> None:
        self._servers = servers
        self._own_home = own_home
        self._owner = owner

    def __enter__(self) -> "Servers":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let go of the servers in reverse order; safe to repeat."""
        while self._servers:
            self._servers[-1].release()
            self._servers.pop()
        if self._own_home:
            shutil.rmtree(self._own_home, ignore_errors=True)
        if self._owner:
            self._owner.close()

    def revive(self) -> list[str]:
        """Start again what has died, at the same address; answers the names of those."""
        return [server.name for server in self._servers if server.revive()]


def provide(*, ephemeral: bool = False) -> Servers:
    """Make DATABASE_URL, REDIS_URL, PORTAL_KEYS_DIR and SECRET_KEY_FILE true in this process's environment.

    What the environment already gives is left alone. `ephemeral` starts servers of one's own in a temporary
    folder, fast and forgetful, and deletes all of it at the end. Raises CannotStart.
    """
    own_home, owner = _temporary_home() if ephemeral else (None, None)
    home = own_home or state_dir()
    make_folder(home)
    held: list[Server] = []
    servers = Servers(held, own_home, owner)
    try:
        for kind in (Postgres, Valkey):
            if not given(kind.variable):
                server = kind(home, ephemeral=ephemeral)
                server.acquire()
                held.append(server)
                os.environ[kind.variable] = server.url()
        os.environ["PORTAL_STATE_DIR"] = str(home)
        if not given("PORTAL_KEYS_DIR"):
            os.environ["PORTAL_KEYS_DIR"] = str(make_folder(home / "keys", mode=0o700))
        if not given("SECRET_KEY"):
            os.environ["SECRET_KEY_FILE"] = str(_secret_key(home))
    except OSError as problem:
        servers.stop()
        raise CannotStart(f"cannot prepare {home}: {problem}") from problem
    except BaseException:
        servers.stop()
        raise
    return servers


def pretend() -> None:
    """Enough of an environment for a command that needs no server: where our keys lie, and a throw-away secret."""
    os.environ.setdefault("PORTAL_STATE_DIR", str(state_dir()))
    if not given("PORTAL_KEYS_DIR"):
        os.environ["PORTAL_KEYS_DIR"] = str(Path(os.environ["PORTAL_STATE_DIR"]) / "keys")
    if not given("SECRET_KEY"):
        os.environ["SECRET_KEY"] = secrets.token_urlsafe(50)


def erase() -> None:
    """Delete this checkout's embedded data, keys and demo files. Raises InUse while a command uses them."""
    home = state_dir()
    for kind in (Postgres, Valkey):
        kind(home).erase()
    for name in ("keys", "mail", "sandbox", "log", "ledger", "witness"):
        shutil.rmtree(home / name, ignore_errors=True)
    for leftover in home.glob("*"):
        if leftover.is_file() and leftover.suffix != ".lock":
            leftover.unlink(missing_ok=True)


def _temporary_home() -> tuple[Path, IO[str]]:
    """A folder for ephemeral servers, with its owner's lock; removes those whose owner is gone."""
    for old in temporary().glob(f"{TEST_PREFIX}*"):
        with contextlib.suppress(OSError), (old / "owner").open("r+") as owner:
            if old.stat().st_uid == os.geteuid() and try_lock(owner):
                for kind in (Postgres, Valkey):
                    kind(old).stop()
                shutil.rmtree(old, ignore_errors=True)
    home = Path(tempfile.mkdtemp(prefix=TEST_PREFIX, dir=temporary()))
    home.chmod(0o711)
    owner = (home / "owner").open("w")
    fcntl.flock(owner, fcntl.LOCK_EX)
    return home, owner


def _secret_key(home: Path) -> Path:
    path = home / "secret_key"
    with locked(home / "secret.lock"):
        if not path.exists():
            partial = home / "secret_key.new"
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(50))
            partial.rename(path)
    return path
