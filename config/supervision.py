"""Processes that belong together: started with a log each, started again when they die, stopped in order."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from config.servers import LINUX, die_with_parent

MARK = "PORTAL_SUPERVISED"
CALM_SECONDS = 60.0  # a process that lived this long has earned a prompt restart again
LONGEST_PAUSE = 30.0


@dataclass
class Child:
    """One process to keep alive. `patience` is how long it may take to stop, in seconds."""

    name: str
    command: list[str]
    log: Path
    patience: float = 10.0
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    due_at: float = 0.0
    deaths: int = field(default=0)

    def start(self, environment: Mapping[str, str], cwd: Path) -> None:
        if self.log.exists() and self.log.stat().st_size > 5_000_000:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us alone, and what it started can be stopped as a group
                preexec_fn=die_with_parent(signal.SIGTERM),
            )
        self.started_at = time.monotonic()

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def signal(self, sign: signal.Signals) -> None:
        """Signal the process; SIGKILL goes to all that it started."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sign == signal.SIGKILL:
                os.killpg(self.process.pid, sign)
            elif self.process.poll() is None:
                os.kill(self.process.pid, sign)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """Stop politely, and at the end of patience (or in a hurry) for sure, with all that it started."""
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + self.patience
        while self.alive() and time.monotonic() < deadline and not hurry():
            time.sleep(0.02)
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


class Supervisor:
    """Keeps its children alive until somebody asks it to stop (Ctrl-C, SIGTERM, SIGHUP; twice means at once)."""

    def __init__(self, mark: Path, cwd: Path) -> None:
        self.children: list[Child] = []
        self.mark = str(mark)
        self.cwd = cwd
        self.requests = 0

    def listen(self) -> None:
        for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(sign, self._asked)

    def _asked(self, *_: object) -> None:
        self.requests += 1

    def environment(self) -> dict[str, str]:
        return {**os.environ, MARK: self.mark, "PYTHONUNBUFFERED": "1"}

    def start(self, child: Child) -> None:
        self.children.append(child)
        child.start(self.environment(), self.cwd)

    def run(self, child: Child) -> int:
        """Run a child to its end; answers its exit code, 130 when asked to stop meanwhile."""
        child.start(self.environment(), self.cwd)
        assert child.process is not None
        while child.alive():
            if self.requests:
                child.stop(lambda: self.requests > 1)
                return 130
            time.sleep(0.02)
        return child.process.returncode

    def wait_for(self, ready: Callable[[], bool], seconds: float) -> Child | None:
        """Wait until ready or asked to stop. Answers the child that died meanwhile, or the last one at timeout."""
        deadline = time.monotonic() + seconds
        while not self.requests and not ready():
            for child in self.children:
                if not child.alive():
                    return child
            if time.monotonic() > deadline:
                return self.children[-1]
            time.sleep(0.05)
        return None

    def watch(self, say: Callable[[str], None], revive: Callable[[], Iterable[str]]) -> None:
        """Start again whatever dies, ever more slowly if it keeps dying, until asked to stop."""
        looked_at = time.monotonic()
        while not self.requests:
            now = time.monotonic()
            if now - looked_at > 2:
                for name in revive():
                    say(f"{name} had stopped: started again")
                looked_at = now
            for child in self.children:
                if not child.alive():
                    self._replace(child, now, say)
            time.sleep(0.2)

    def _replace(self, child: Child, now: float, say: Callable[[str], None]) -> None:
        if not child.due_at:
            assert child.process is not None
            child.signal(signal.SIGKILL)  # what it started and left behind still holds its port
            child.deaths = 0 if now - child.started_at > CALM_SECONDS else child.deaths + 1
            pause = min(LONGEST_PAUSE, 0.0 if not child.deaths else 2.0 ** (child.deaths - 1))
            child.due_at = now + pause
            code = child.process.returncode
            ended = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            say(
                f"{child.name} {ended}: starting it again"
                + (f" in {pause:.0f} s" if pause else "")
                + f" ({child.log})"
            )
        if now >= child.due_at:
            child.due_at = 0.0
            child.start(self.environment(), self.cwd)

    def stop(self) -> None:
        """Stop the children, first started last."""
        for child in reversed(self.children):
            child.stop(lambda: self.requests > 1)
        self.children.clear()


def clear_leftovers(mark: Path) -> None:
    """Stop what a killed supervisor with the same mark left running."""
    for sign, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)):
        deadline = time.monotonic() + patience
        left = _marked(mark)
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, sign)
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = _marked(mark)
        if not left:
            return


def _marked(mark: Path) -> list[int]:
    """Processes that carry the mark in their environment: ours for certain, whatever has become of their parents."""
    wanted = f"{MARK}={mark}"
    if not LINUX:
        listing = subprocess.run(
            ["ps", "-Eww", "-A", "-o", "pid=,command="], capture_output=True, text=True
        ).stdout
        found = [int(line.split(None, 1)[0]) for line in listing.splitlines() if f" {wanted}" in line]
        return [pid for pid in found if pid != os.getpid()]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted.encode() in (folder / "environ").read_bytes().split(b"\0") and folder.name != str(
                os.getpid()
            ):
                found.append(int(folder.name))
    return found


def python(*arguments: str) -> list[str]:
    """A command line that runs this same Python."""
    return [sys.executable, *arguments]
