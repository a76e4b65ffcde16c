"""Messages on their way: a bounded number of attempts at once, each outside any transaction, outcomes as they arrive.

One thread with an event loop makes the attempts; the caller keeps the database to itself. A slow party holds nobody up:
what others answered can be recorded, and more be started, while its attempt is still under way.
"""

import asyncio
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from consents.models import Claimed
from consents.routes import Route
from providers import outbound
from providers.wires import Message, Outcome

log = structlog.get_logger(__name__)

SLOW = 1.0  # seconds
TOGETHER = 0.04  # seconds in which answers are gathered before they are recorded
NO_ROUTE = "by_hand"  # the organization has no channel that we carry


@dataclass(slots=True)
class Attempt:
    """One delivery under one lease, and what came of it."""

    delivery: Claimed
    outcome: Outcome
    channel: uuid.UUID | None = None


@dataclass
class Sender:
    """A context in which attempts are made. `most` at once in all, `per_host` to one address; `now` is a clock."""

    now: Callable
    most: int
    per_host: int
    under_way: int = field(default=0, init=False)
    _arrived: queue.SimpleQueue = field(default_factory=queue.SimpleQueue, init=False)
    _ready: threading.Event = field(default_factory=threading.Event, init=False)
    _broken: Exception | None = field(default=None, init=False)
    _begun: dict[int, float] = field(default_factory=dict, init=False)
    _tasks: set[asyncio.Task] = field(default_factory=set, init=False)

    def __enter__(self) -> "Sender":
        self._thread = threading.Thread(target=self._run, name="outbound", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._broken:
            raise self._broken
        return self

    def __exit__(self, *_) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    @property
    def free(self) -> int:
        return self.most - self.under_way

    @property
    def stragglers(self) -> bool:
        """Whether an attempt has been under way for longer than a healthy party takes."""
        return bool(self._begun) and time.monotonic() - min(self._begun.values(), default=0) > SLOW

    def start(
        self, deliveries: list[Claimed], routes: Mapping[uuid.UUID, Route], letters: Mapping[int, Message]
    ) -> None:
        """Begin an attempt for each delivery."""
        self.under_way += len(deliveries)
        self._begun |= dict.fromkeys((delivery.pk for delivery in deliveries), time.monotonic())
        reached = []
        for delivery in deliveries:
            if route := routes.get(delivery.organization_id):
                reached.append((delivery, route, letters[delivery.pk]))
            else:
                self._arrived.put(Attempt(delivery, Outcome(NO_ROUTE, detail="no channel that we carry")))
        if reached:
            self._loop.call_soon_threadsafe(self._begin, reached)

    def _begin(self, reached: list[tuple[Claimed, Route, Message]]) -> None:
        """In the loop's thread."""
        for one in reached:
            task = self._loop.create_task(self._attempt(*one))
            self._tasks.add(task)  # the loop itself would let it be collected half way
            task.add_done_callback(self._tasks.discard)

    def arrived(self, *, wait: float) -> list[Attempt]:
        """What has come in: waits up to `wait` seconds for the first, then a moment for others that are under way, because
        one transaction for many costs little more than one for each."""
        found: list[Attempt] = []
        try:
            found.append(self._arrived.get(timeout=wait))
            if self.under_way > 1:
                time.sleep(TOGETHER)
            while True:
                found.append(self._arrived.get_nowait())
        except queue.Empty:
            pass
        if not found and self._broken:
            raise self._broken  # what was under way is claimed again when its lease has run out
        self.under_way -= len(found)
        for attempt in found:
            self._begun.pop(attempt.delivery.pk, None)
        return found

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self._broken = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with outbound.open_session(limit=self.most, per_host=self.per_host) as session:
            self._session = session
            self._ready.set()
            await self._stop.wait()

    async def _attempt(self, delivery: Claimed, route: Route, message: Message) -> None:
        try:
            outcome = await route.wire.send(
                self._session, message=message, endpoint=route.endpoint, now=int(self.now().timestamp())
            )
        except BaseException as error:  # counts as a try, or a bug would become an endless hot loop
            log.exception("wire failed", jti=message.jti)
            outcome = Outcome(verdict="retry", detail=type(error).__name__)
            if not isinstance(error, Exception):
                self._arrived.put(Attempt(delivery, outcome, route.channel.pk))
                raise
        self._arrived.put(Attempt(delivery, outcome, route.channel.pk))
