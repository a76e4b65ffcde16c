"""What the model keeps: services, subscriptions, consents and deliveries, in plain Python.

Everything has a name that both sides can work out: a subscription is (person, service, which one), a consent is
(subscription, what it is about), a delivery is (subscription, the version its act gave it, the organization told).
"""

import datetime
from dataclasses import dataclass, field

DAY = datetime.timedelta(days=1)
RANK = {"sent": 1, "received": 2, "stopped": 3, "erased": 4}
WAITING = {"queued", "retrying"}
OPEN = {"licensed", "conditional"}


class No(Exception):
    """The portal should refuse; the text is the name of the exception it gives."""


@dataclass(frozen=True)
class Item:
    """One thing that terms ask for. `about` is the source's or the recipient's code, or the kind where there is none."""

    about: str
    kind: str
    required: bool = False
    scopes: tuple[str, ...] = ()
    riders: tuple[str, ...] = ()
    cycle: str = ""
    months: int = 12


@dataclass
class Service:
    """A service as people meet it. `terms` is the version that is published."""

    operator: str
    items: tuple[Item, ...]
    licence: str = "licensed"
    terms: int = 1

    @property
    def sources(self) -> list[str]:
        return [item.about for item in self.items if item.kind == "transfer"]


@dataclass
class Consent:
    about: str
    kind: str
    until: datetime.date
    scopes: tuple[str, ...]
    riders: tuple[str, ...]
    cycle: str
    item: Item | None
    state: str = "active"
    paused_until: datetime.date | None = None
    reason: str = ""
    erasure: str = "not_requested"
    version: int = 1

    def shown(self) -> tuple:
        return (
            self.state, self.until, self.reason, self.erasure, tuple(self.scopes), tuple(self.riders), self.cycle,
            self.paused_until, self.version,
        )  # fmt: skip


@dataclass
class Subscription:
    key: tuple
    operator: str
    origin: str
    until: datetime.date
    used: datetime.date
    state: str = "active"
    reason: str = ""
    erasure: str = "not_requested"
    version: int = 1
    ended_on: datetime.date | None = None
    consents: dict[str, Consent] = field(default_factory=dict)

    @property
    def live(self) -> list[Consent]:
        return [consent for consent in self.consents.values() if consent.state != "ended"]

    def shown(self) -> tuple:
        return self.origin, self.state, self.until, self.used, self.reason, self.erasure, self.version


@dataclass
class Delivery:
    key: tuple
    role: str
    goal: str
    event: str
    consents: list[str]
    state: str
    number: int
    consent: str | None = None
    overtaken: bool = False
    refused: bool = False
    closed: bool = False
    attempts: int = 0
    lease: object = None
    leased_until: datetime.datetime | None = None

    @property
    def organization(self) -> str:
        return self.key[2]

    def shown(self) -> tuple:
        return self.role, self.goal, self.event, self.state, self.overtaken, self.refused, self.closed

    def forward(self, state: str) -> None:
        self.state, self.lease = state, None
        self.closed = self.closed or RANK[state] >= RANK[self.goal]
