"""How a wire asks: every failure of the network is an answer, and several things of one message are ended one by one."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from providers import outbound
from providers.plainjson import strict_json
from providers.wires import ABSENT, ACTIVE, STOPPED, STOPPING, UNKNOWN, Message, Reading, Reference
from providers.wires.outcomes import (
    BLOCKED,
    CHECK,
    GONE,
    KEY,
    REFUSED,
    RETRY,
    SENT,
    Outcome,
)

LONGEST_NAME = 1024  # characters of an identifier that goes into an address
# What ends one thing after the other can only say: that has ended. A pause, a change and a wish to erase have no call in it.
WHOLE = frozenset({"subscription-ended", "operator-ended"})
ENDS = WHOLE | {"consent-withdrawn"}
_GOES_ALONG = {"use", "marketing"}  # what the operator itself does with it ends with the whole subscription

# Of several outcomes the first here is that of the message; of several readings likewise.
_FIRST = (RETRY, BLOCKED, KEY, GONE, REFUSED, CHECK, SENT)
_LOUDEST = (ACTIVE, UNKNOWN, STOPPING, STOPPED, ABSENT)


async def ask(
    session: outbound.Session,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    total: float,
) -> outbound.Reply | Outcome:
    """One request. An Outcome instead of a reply says why there is none: our policy (BLOCKED) or the network (RETRY)."""
    try:
        return await outbound.send(session, method=method, url=url, headers=headers, body=body, total=total)
    except outbound.Refused as refusal:
        return Outcome(BLOCKED, detail=str(refusal)[:200])
    except outbound.Unreachable as failure:
        return Outcome(RETRY, detail=failure.reason)


async def send_each(
    message: Message, kinds: Sequence[str], send: Callable[[Reference], Awaitable[Outcome]], total: float
) -> Outcome:
    """End everything that the message names by one of `kinds`, in their order, in `total` seconds together; the outcome
    that most needs somebody is that of the message.

    What one thing's answer says about the address ends the round; what it says about the thing does not. What has a name is
    ended even where another has none; then the outcome is REFUSED and says so."""
    if message.event not in ENDS:
        return Outcome(REFUSED, detail=f"the protocol has no call for {message.event}")
    references, unnamed = _named(message, kinds)
    if not references:
        return Outcome(REFUSED, detail=f"the message names no {kinds[0]}")
    outcomes = [Outcome(REFUSED, detail=f"no {kinds[0]} of consent {one}") for one in unnamed[:1]]
    try:
        async with asyncio.timeout(total):
            for reference in references:
                outcomes.append(await send(reference))
                if outcomes[-1].verdict in {RETRY, BLOCKED, KEY, GONE}:
                    break
    except TimeoutError:
        return Outcome(RETRY, detail="timeout")
    return min(outcomes, key=lambda outcome: _FIRST.index(outcome.verdict))


async def read_each(
    message: Message, kinds: Sequence[str], read: Callable[[Reference], Awaitable[Reading]], total: float
) -> Reading:
    """What the other side says of everything the message names: stopped only if all of it is. In `total` seconds."""
    references, unnamed = _named(message, kinds)
    if not references:
        return Reading(UNKNOWN, detail=f"the message names no {kinds[0]}")
    try:
        async with asyncio.timeout(total):
            readings = [await read(reference) for reference in references]
    except TimeoutError:
        return Reading(UNKNOWN, detail="timeout")
    readings += [Reading(UNKNOWN, detail=f"no {kinds[0]} of consent {one}") for one in unnamed[:1]]
    said = min(readings, key=lambda reading: _LOUDEST.index(reading.says))
    return said if len(readings) == 1 else _with_digest(said, readings)


def reading(says: str, answer: outbound.Reply | Outcome, detail: str = "") -> Reading:
    """`says` with the proof of what was answered; an Outcome has no answer and says nothing."""
    if isinstance(answer, Outcome):
        return Reading(UNKNOWN, answer.status, answer.detail, answer.digest)
    return Reading(says, answer.status, detail or f"HTTP {answer.status}", answer.digest)


def members(body: bytes) -> dict[str, Any]:
    """The members of a JSON object; empty where the body is anything else."""
    try:
        value = strict_json(body)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def resource(address: str, identifier: str) -> str:
    """The address of one thing below `address`, or empty where the identifier would lead somewhere else."""
    if identifier.strip(".") == "" or len(identifier) > LONGEST_NAME or "?" in address:
        return ""
    try:
        return f"{address.rstrip('/')}/{quote(identifier, safe='')}"
    except UnicodeEncodeError:
        return ""


def _named(message: Message, kinds: Iterable[str]) -> tuple[list[Reference], list[str]]:
    """What the message ends by their names, in the order of `kinds`, each once; and the consents that have none.

    The name of a whole subscription is no way to end one consent of it, except at a source, which sends once for each."""
    consents = {consent["id"]: consent["kind"] for consent in message.facts.get("consents", ())}
    whole = message.event in WHOLE or not consents
    wide = whole or message.facts.get("role") == "source"
    found = [
        reference
        for kind in kinds
        for reference in message.references_of(kind)
        if whole or reference.consent in consents or (wide and not reference.consent)
    ]
    named = {reference.consent for reference in found}
    unnamed = [
        one
        for one, kind in consents.items()
        if named and one not in named and "" not in named and not (whole and kind in _GOES_ALONG)
    ]
    return list({(reference.kind, reference.identifier): reference for reference in found}.values()), unnamed


def _with_digest(said: Reading, readings: list[Reading]) -> Reading:
    """Several answers: the digest is that of their digests, one a line."""
    lines = "\n".join(reading.digest for reading in readings)
    return Reading(said.says, said.status, said.detail, hashlib.sha256(lines.encode()).hexdigest(), said.at)
