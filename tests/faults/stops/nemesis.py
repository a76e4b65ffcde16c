"""Breaks things on purpose while others work: by name, or at random for a while; mends everything in the end."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.faults.stops.rig import World, wait


class Nemesis:
    """Each fault breaks one thing and mends it, so that the next finds everything there."""

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng, self.done = world, rng, Counter()
        self.faults: dict[str, Callable[[], None]] = {
            "worker killed": self.worker_is_killed, "worker killed at a moment": self.worker_dies_at,
            "web killed": self.web_is_killed, "web killed at a moment": self.web_dies_at,
            "broker emptied": world.flush_broker, "broker killed": self.broker_is_killed,
            "database crashed": self.database_crashes,
        }  # fmt: skip

    def strike(self, name: str) -> None:
        history = self.world.history
        history.write("nemesis", "fault", name, "invoke")
        try:
            self.faults[name]()
        except BaseException as problem:
            history.write("nemesis", "fault", name, "fail", repr(problem))
            raise
        history.write("nemesis", "fault", name, "ok")
        self.done[name] += 1

    def rage(self, seconds: float, running: Callable[[], bool]) -> None:
        """Every fault once in random order, then any of them, until the time is over or nobody works any more."""
        deadline = time.monotonic() + seconds
        names = self.rng.sample(sorted(self.faults), len(self.faults))
        while time.monotonic() < deadline and running():
            self.strike(names.pop() if names else self.rng.choice(sorted(self.faults)))
            time.sleep(self.rng.uniform(0.3, 2.0))

    def worker_is_killed(self) -> None:
        name = self.rng.choice(self.world.workers)
        self.world.kill(name)
        time.sleep(self.rng.uniform(0, 1))
        self.world.again(name)

    def worker_dies_at(self) -> None:
        self._at(self.rng.choice(self.world.workers), self.rng.choice(["claimed", "sent", "recorded"]))

    def web_is_killed(self) -> None:
        name = self.rng.choice(list(self.world.webs))
        self.world.kill(name)
        time.sleep(self.rng.uniform(0, 1))
        self.world.again(name)

    def web_dies_at(self) -> None:
        self._at(self.rng.choice(list(self.world.webs)), self.rng.choice(["uncommitted", "committed"]))

    def _at(self, name: str, moment: str) -> None:
        self.world.arm(name, moment)
        deadline = time.monotonic() + 6
        while self.world.alive(name) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.world.again(name)

    def broker_is_killed(self) -> None:
        self.world.kill_broker()
        time.sleep(self.rng.uniform(0, 3))
        self.world.revive_broker()

    def database_crashes(self) -> None:
        self.world.kill_database()
        time.sleep(2)
        self.world.revive_database()

    def mend(self) -> None:
        """Everybody is there again, and listens."""
        self.world.all_again()
        wait(lambda: all(map(self.world.ready, self.world.workers)), 60, self.world.last_words)


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread
