"""People who withdraw, over HTTP, and write down what they were answered. They judge nothing."""

import http.client
import json
import queue
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.faults.stops.rig import World

PATIENCE = 20.0  # seconds for one answer
DOUBLE, DOUBT, LOOK = (
    0.05,
    0.5,
    0.1,
)  # how often somebody taps twice, asks again after no answer, looks it up afterwards


@dataclass
class Act:
    """`f` is `withdraw` (one consent) or `end` (a whole subscription), `k` its id."""

    f: str
    k: str
    token: str
    subscription: str
    erase: bool = False
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def path(self) -> str:
        place = f"consents/{self.k}/withdraw" if self.f == "withdraw" else f"subscriptions/{self.k}/end"
        return f"/api/v1/me/{place}"


def acts(world: World, rng: random.Random, count: int) -> list[Act]:
    """So many acts in random order, none of which touches what another ends; each is taken once in a world."""
    taken = world.__dict__.setdefault("taken", set())
    plan, found = world.plan, []
    free = [key for key in sorted(plan["subscriptions"]) if key not in taken]
    rng.shuffle(free)
    while free and len(found) < count:
        key = free.pop()
        taken.add(key)
        told = plan["subscriptions"][key]
        token = plan["people"][told["person"]]
        if rng.random() < 0.35:
            found.append(Act("end", key, token, key, erase=rng.random() < 0.5))
            continue
        some = rng.sample(told["consents"], rng.randint(2, len(told["consents"])))
        found += [Act("withdraw", consent, token, key, erase=rng.random() < 0.2) for consent in some]
    found = found[:count]
    rng.shuffle(found)
    return found


class Crowd:
    """`clients` people at once, `rate` acts a second together (0: as fast as they can), in the background until `join`."""

    def __init__(
        self, world: World, rng: random.Random, acts: list[Act], *, clients: int = 4, rate: float = 0.0,
        webs: list[str] | None = None, doubles: float = DOUBLE,
    ) -> None:  # fmt: skip
        self.world, self.webs = world, webs or list(world.webs)
        self.work: queue.Queue[tuple[float, Act]] = queue.Queue()
        self.begun, self.clients = time.monotonic(), clients
        for n, act in enumerate(acts):
            due = n / rate if rate else 0.0
            self.work.put((due, act))
            if rng.random() < doubles:  # the same act again, at once, with a key of its own
                self.work.put((due, Act(act.f, act.k, act.token, act.subscription, act.erase)))
        self.stopped = threading.Event()
        self.slowest, self.answered = 0.0, 0
        seeds = [rng.randrange(2**30) for _ in range(clients)]
        self.threads = [
            threading.Thread(target=self._person, args=(f"person-{n}", random.Random(seed)), daemon=True)
            for n, seed in enumerate(seeds)
        ]
        for thread in self.threads:
            thread.start()

    def join(self, seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.stopped.set()
        for thread in self.threads:
            thread.join(PATIENCE + 5)

    def stop(self) -> None:
        """Whoever waits for their turn goes home; nobody is interrupted."""
        self.stopped.set()
        self.join()

    def running(self) -> bool:
        return any(thread.is_alive() for thread in self.threads)

    def _person(self, name: str, rng: random.Random) -> None:
        while not self.stopped.is_set():
            try:
                due, act = self.work.get_nowait()
            except queue.Empty:
                return
            self.stopped.wait(max(0.0, self.begun + due - time.monotonic()))
            if self.stopped.is_set():
                return
            self._insist(name, rng, act)

    def _insist(self, name: str, rng: random.Random, act: Act) -> None:
        """Until there is an answer, or there may have been an effect and we do not ask again. Whoever is told that
        something broke tries again, with the same key."""
        for _ in range(60):
            ended = self._try(name, rng.choice(self.webs), act)
            if ended == "ok" and rng.random() < LOOK:
                self._look(name, rng.choice(self.webs), act)
            if ended in ("ok", "fail") or (ended == "info" and rng.random() > DOUBT):
                return
            self.stopped.wait(0.5)

    def _try(self, name: str, web: str, act: Act) -> str:
        """`ok`, `fail` (refused), `info` (no answer: unknown), `broken` (5xx: unknown too) or `nobody` (not heard)."""
        history, started = self.world.history, time.monotonic()
        history.write(name, act.f, act.k, "invoke", web)
        connection = http.client.HTTPConnection("127.0.0.1", self.world.webs[web], timeout=PATIENCE)
        try:
            try:
                connection.connect()
            except OSError as error:
                history.write(name, act.f, act.k, "fail", repr(error))
                return "nobody"
            try:
                status, content = self._call(connection, "POST", act, {"erase": act.erase})
            except (OSError, http.client.HTTPException) as error:
                history.write(name, act.f, act.k, "info", repr(error))
                return "info"
        finally:
            connection.close()
        took = time.monotonic() - started
        self.slowest, self.answered = max(self.slowest, took), self.answered + 1
        if status == 200:
            history.write(name, act.f, act.k, "ok", round(took, 4))
            return "ok"
        kind = "fail" if 400 <= status < 500 else "info"
        history.write(name, act.f, act.k, kind, [status, content[:200]])
        return kind if kind == "fail" else "broken"

    def _look(self, name: str, web: str, act: Act) -> None:
        """What was accepted is shown as ended, by whichever process is asked."""
        connection = http.client.HTTPConnection("127.0.0.1", self.world.webs[web], timeout=PATIENCE)
        try:
            status, content = self._call(connection, "GET", act, None)
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()
        if status == 200:
            told = json.loads(content)
            rows = {told["id"]: told["state"], **{row["id"]: row["state"] for row in told["consents"]}}
            self.world.history.write(name, "look", act.k, "ok", rows.get(act.k))

    def _call(
        self, connection: http.client.HTTPConnection, method: str, act: Act, body: Any
    ) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {act.token}", "Content-Type": "application/json"}
        if method == "POST":
            headers["Idempotency-Key"] = act.key
        path = act.path if method == "POST" else f"/api/v1/me/subscriptions/{act.subscription}"
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
