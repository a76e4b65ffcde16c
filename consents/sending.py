"""Messages on their way: a bounded number of attempts at once, each outside any transaction, outcomes as they arrive.

One thread with an event loop makes the attempts; the caller keeps the database to itself. A slow party holds nobody up:
what others answered can be recorded, and more be started, while its attempt is still under way. Whoever takes many messages
in one request gets in each what has gathered for them meanwhile.
"""

import asyncio
import contextlib
import queue
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field

import structlog

from consents.models import Claimed
from consents.routes import Route
from providers import outbound
from providers.wires import RETRY, Message, Outcome

log = structlog.get_logger(__name__)

SLOW = 1.0  # seconds
TOGETHER = 0.04  # seconds in which answers are gathered before they are recorded
MOST_AT_ONCE = (
    1_000  # messages that are claimed, or recorded, in one transaction: others want their share of both
)
MOST_BYTES = 512_000  # of messages in one request: servers rarely take more than a megabyte
SHARE = 32  # messages that travel together weigh as much as one that travels alone: they share their requests
NO_ROUTE = "by_hand"  # the organization has no channel that we carry, or that has a word for such an event


@dataclass(slots=True)
class Attempt:
    """One delivery under one lease, and what came of it."""

    delivery: Claimed
    outcome: Outcome
    channel: uuid.UUID | None = None


Parcel = tuple[Claimed, Route, Message]


@dataclass
class Sender:
    """A context in which attempts are made. `most` requests at once in all, `per_host` to one address; `now` is a clock."""

    now: Callable
    most: int
    per_host: int
    _load: int = field(default=0, init=False)
    _arrived: queue.SimpleQueue = field(default_factory=queue.SimpleQueue, init=False)
    _ready: threading.Event = field(default_factory=threading.Event, init=False)
    _broken: Exception | None = field(default=None, init=False)
    _begun: dict[tuple[int, str], tuple[float, int]] = field(default_factory=dict, init=False)
    _gathered: dict[uuid.UUID, deque[Parcel]] = field(default_factory=lambda: defaultdict(deque), init=False)
    _carriers: dict[uuid.UUID, int] = field(default_factory=lambda: defaultdict(int), init=False)
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
    def under_way(self) -> int:
        return len(self._begun)

    @property
    def free(self) -> int:
        """How many more messages may be begun, should all of them travel alone."""
        return self.most - -(-self._load // SHARE)

    @property
    def stragglers(self) -> bool:
        """Whether an attempt has been under way for longer than a healthy party takes."""
        # In the order in which they were begun.
        return bool(self._begun) and time.monotonic() - next(iter(self._begun.values()))[0] > SLOW

    def start(
        self, deliveries: list[Claimed], routes: Mapping[uuid.UUID, Route], letters: Mapping[int, Message]
    ) -> None:
        """Begin an attempt for each delivery."""
        reached, begun = [], time.monotonic()
        for delivery in deliveries:
            route = routes.get(delivery.organization_id)
            weight = 1 if route and route.together > 1 else SHARE
            self._begun[delivery.pk, delivery.lease_token] = begun, weight
            self._load += weight
            if route and route.carries(delivery.event):
                reached.append((delivery, route, letters[delivery.pk]))
            else:
                why = f"no word for {delivery.event}" if route else "no channel that we carry"
                self._arrived.put(Attempt(delivery, Outcome(NO_ROUTE, detail=why)))
        if reached:
            self._loop.call_soon_threadsafe(self._begin, reached)

    def _begin(self, reached: list[Parcel]) -> None:
        """In the loop's thread."""
        fuller = {}
        for one in reached:
            route = one[1]
            if route.together > 1:
                self._gathered[route.channel.pk].append(one)
                fuller[route.channel.pk] = route
            else:
                self._spawn(self._attempt([one]))
        for channel, route in fuller.items():
            while self._carriers[channel] < min(
                self.per_host, -(-len(self._gathered[channel]) // route.together)
            ):
                self._carriers[channel] += 1
                self._spawn(self._carry(channel, route))

    def _spawn(self, work: Coroutine) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself would let it be collected half way
        task.add_done_callback(self._tasks.discard)

    def arrived(self, *, wait: float) -> list[Attempt]:
        """What has come in: waits up to `wait` seconds for the first, then a moment for others that are under way, because
        one transaction for many costs little more than one for each."""
        found: list[Attempt] = []
        until = time.monotonic() + wait
        with contextlib.suppress(queue.Empty):
            while len(found) < min(self.under_way, MOST_AT_ONCE):
                found.append(self._arrived.get(timeout=max(0.0, until - time.monotonic())))
                if len(found) == 1:
                    until = time.monotonic() + TOGETHER
        if not found and self._broken:
            raise self._broken  # what was under way is claimed again when its lease has run out
        for attempt in found:
            _, weight = self._begun.pop((attempt.delivery.pk, attempt.delivery.lease_token))
            self._load -= weight
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

    async def _carry(self, channel: uuid.UUID, route: Route) -> None:
        """Send what has gathered for one channel, request after request, until nothing is left."""
        waiting = self._gathered[channel]
        try:
            while waiting:
                await self._attempt(_filled(waiting, route.together))
        finally:
            self._carriers[channel] -= 1

    async def _attempt(self, parcels: list[Parcel]) -> None:
        """One request to one channel, and what came of each message in it."""
        outcomes: dict[str, Outcome] = {}
        fault = Outcome(RETRY)
        try:
            outcomes = await self._sent(parcels[0][1], [message for _, _, message in parcels])
        except BaseException as error:  # counts as a try, or a bug would become an endless hot loop
            log.exception("wire failed", jti=parcels[0][2].jti)
            fault = Outcome(RETRY, detail=type(error).__name__)
            if not isinstance(error, Exception):
                raise
        finally:
            for delivery, route, message in parcels:
                outcome = outcomes.get(message.jti, fault)
                self._arrived.put(Attempt(delivery, outcome, route.channel.pk))

    async def _sent(self, route: Route, letters: list[Message]) -> dict[str, Outcome]:
        now = int(self.now().timestamp())
        if len(letters) > 1:
            return await route.wire.send_together(
                self._session, messages=letters, endpoint=route.endpoint, now=now
            )
        outcome = await route.wire.send(self._session, message=letters[0], endpoint=route.endpoint, now=now)
        return {letters[0].jti: outcome}


def _filled(waiting: deque[Parcel], most: int) -> list[Parcel]:
    """The first that fit into one request, taken out of `waiting`; one at least."""
    parcels = [waiting.popleft()]
    size = len(parcels[0][2].body)
    while waiting and len(parcels) < most and size + len(waiting[0][2].body) <= MOST_BYTES:
        parcels.append(waiting.popleft())
        size += len(parcels[-1][2].body)
    return parcels
