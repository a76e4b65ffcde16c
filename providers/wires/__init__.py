"""One module per protocol; here is what they share: a message, where it goes, and how an answer is read.

A wire has `send` (offer a message once) and, where its protocol has them, `read_back` (ask what became of a stop),
`list_remote` (ask what somebody holds of a person) and `verify_inbound` (judge what the other side sends us). Each makes
at most a few bounded requests through `outbound`; every failure of the network is an answer, none an exception.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from providers.wires.outcomes import (
    BLOCKED,
    CHECK,
    GONE,
    KEY,
    LONGEST_WAIT,
    RECEIVED,
    REFUSED,
    RETRY,
    SENT,
    Outcome,
    classify,
)

__all__ = [
    "ABSENT",
    "ACTIVE",
    "BLOCKED",
    "CHECK",
    "GONE",
    "KEY",
    "LONGEST_WAIT",
    "RECEIVED",
    "REFUSED",
    "RETRY",
    "SENT",
    "STOPPED",
    "STOPPING",
    "UNKNOWN",
    "BadInbound",
    "Endpoint",
    "Inbound",
    "Listing",
    "Message",
    "Outcome",
    "Reading",
    "Reference",
    "RemoteConsent",
    "classify",
]

# What a read-back says about one stop.
ACTIVE = "active"  # it is still in force over there
STOPPING = "stopping"  # they have taken it up and are not done
STOPPED = "stopped"  # they show it as ended
ABSENT = "absent"  # they know no such consent: ended, or never there
UNKNOWN = "unknown"  # no answer that says anything: ask again


@dataclass(frozen=True)
class Reference:
    """The other side's own name for what we end: an arrangement, a consent, a grant, a token, a provision, a person's CI.

    `consent` is our consent's id, empty where the reference is about the whole subscription or the person. The identifier
    may be a secret (a token, a CI) and is never logged."""

    kind: str
    identifier: str = field(repr=False)
    consent: str = ""


@dataclass(frozen=True)
class Message:
    """One delivery as it was stored: the bytes never change between attempts.

    `body` is the native body; `facts` are its data (`txn jti subscription subject service consents[] reason role delete_data
    effective_at complete_by version set`), from which wires with another shape make their own request."""

    jti: str
    body: bytes
    references: tuple[Reference, ...] = ()
    handle: str = (
        ""  # what the other side called this stop when it took it (a transaction id), for asking again
    )

    @functools.cached_property
    def event(self) -> str:
        return json.loads(self.body)["type"]

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        return json.loads(self.body)["data"]

    @property
    def set_compact(self) -> str:
        """The signed SET (RFC 8417) inside the body."""
        return self.facts["set"]

    def references_of(self, kind: str) -> list[Reference]:
        return [reference for reference in self.references if reference.kind == kind]


@dataclass(frozen=True)
class Endpoint:
    """Where messages go and how we sign in there.

    `secrets` sign native webhooks (two while one is being rotated). `details` are the protocol's own settings, each named in
    its module's `DETAILS`; `credential` is the one secret that signs us in (a bearer token, a client secret). `jwks` are the
    public keys the organization signs with."""

    address: str
    secrets: list[bytes] = field(default_factory=list, repr=False)
    details: Mapping[str, str] = field(default_factory=dict)
    credential: str = field(default="", repr=False)
    jwks: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Reading:
    """What the other side says about one stop when it is asked. `digest` is the SHA-256 of its answer, in hexadecimal, kept
    because none of these answers is signed. `at` is epoch seconds where they name when they stopped."""

    says: str
    status: int | None = None
    detail: str = ""
    digest: str = ""
    at: int | None = None


@dataclass(frozen=True)
class RemoteConsent:
    """One live permission as the other side lists it. Codes are theirs; `until_on` is `YYYY-MM-DD` or empty."""

    identifier: str
    service: str = ""  # client_id of the service
    source: str = ""  # organization code of the source
    recipient: str = ""  # organization code or name of a third party
    scopes: tuple[str, ...] = ()
    since_on: str = ""
    until_on: str = ""
    state: str = ACTIVE


@dataclass(frozen=True)
class Listing:
    """What an organization says it holds of a person. `complete` is False where it could not be asked to the end:
    then nothing may be concluded from what is missing. A list that can only hold consents of some kinds names them in `kinds`:
    it says nothing about others."""

    complete: bool
    consents: tuple[RemoteConsent, ...] = ()
    status: int | None = None
    detail: str = ""
    digest: str = ""
    kinds: frozenset[str] | None = None


class BadInbound(Exception):
    """What arrived is not what it claims to be. `reason` is one word, as in signing.BadSignature, or `replay`."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True)
class Inbound:
    """A stop that the other side started, or the result of one of ours, after its signature was checked.

    `jti` is the id a replay is known by; `identifier` their name for what ended; `happened` is `ended`, `result`,
    `verification`, or `other` for what is genuine and ends nothing; `about` says what the identifier names, where the message
    does (`consent` or `subscription`); `at` epoch seconds."""

    jti: str
    issuer: str
    happened: str
    identifier: str = ""
    reason: str = ""
    at: int | None = None
    result: str = ""
    about: str = ""
