"""The portal's own protocol: a Standard Webhooks 1.0.0 request that carries a signed SET, and two questions.

Who can take many messages in one request says how many (`together`): a request of type `batch` carries the messages as they
stand, `data.messages`. The answer may name, as RFC 8936 does, those it has (`ack`) and those it refuses (`setErrs`); an answer
to one message may `ack` it in the same way.

`status-query` asks what became of a stop, `holdings-query` what somebody holds of a person. Both are signed like every other
webhook and carry no SET, because they change nothing; the answer is JSON, signed by nobody.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from providers import outbound, signing
from providers.ids import uuid7
from providers.plainjson import strict_json
from providers.wires import (
    ABSENT,
    ACTIVE,
    BLOCKED,
    RECEIVED,
    REFUSED,
    RETRY,
    SENT,
    STOPPED,
    STOPPING,
    UNKNOWN,
    Endpoint,
    Listing,
    Message,
    Outcome,
    Reading,
    Reference,
    RemoteConsent,
    classify,
)

DETAILS = {"together": "how many messages one request may carry: 1 (where nothing is given) to 100"}
MOST_TOGETHER = 100
_NUMBERS = {str(number) for number in range(1, MOST_TOGETHER + 1)}
_ABOUT_CONTENT = {400, 413, 422}  # other refusals are about the address or us: they hold for each message
# Their words for a consent → what that says about a stop. A pause is no end: it can be taken back.
STATES = {
    "active": ACTIVE,
    "paused": ACTIVE,
    "stopping": STOPPING,
    "stopped": STOPPED,
    "erased": STOPPED,
}
# A reading is about consents by our own ids: a later consent of the same person is never taken for this one.
NAMES_OUR_IDS = True


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Offer the message once. Every failure of the network is an Outcome, none an exception.

    `now` is the moment of this attempt in epoch seconds (the receiver allows five minutes); the body is sent byte for
    byte as stored. RECEIVED where the answer names the message under `ack`."""
    outcome, answer = await _attempt(session, message, endpoint, now, total)
    return _each(outcome, answer, [message.jti])[message.jti]


async def send_together(
    session: outbound.Session,
    *,
    messages: Sequence[Message],
    endpoint: Endpoint,
    now: int,
    total: float = 15.0,
    divide: bool = True,
) -> dict[str, Outcome]:
    """Offer several messages in one request, under an id of its own; what came of each, by `jti`.

    A request whose content is refused whole says nothing about any one of them: its halves are offered, until it is known
    which it was, unless `divide` is False. All of that takes `total` seconds at most, as one request does; what is left
    then is to be tried again."""
    until = asyncio.get_running_loop().time() + total
    return await _offered(session, messages, endpoint, now, until, divide)


async def _offered(
    session: outbound.Session,
    messages: Sequence[Message],
    endpoint: Endpoint,
    now: int,
    until: float,
    divide: bool,
) -> dict[str, Outcome]:
    left = until - asyncio.get_running_loop().time()
    ids = [message.jti for message in messages]
    if left <= 0:
        return dict.fromkeys(ids, Outcome(RETRY, detail="no time left to divide"))
    if len(messages) == 1:
        return {ids[0]: await send(session, message=messages[0], endpoint=endpoint, now=now, total=left)}
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    whole = b'{"type":"batch","timestamp":"%s","data":{"messages":[%s]}}'
    body = whole % (moment.encode(), b",".join(message.body for message in messages))
    outcome, answer = await _attempt(session, Message(str(uuid7()), body), endpoint, now, left)
    if not divide or outcome.verdict != REFUSED or outcome.status not in _ABOUT_CONTENT:
        return _each(outcome, answer, ids)
    half = len(messages) // 2
    first = await _offered(session, messages[:half], endpoint, now, until, divide)
    return first | await _offered(session, messages[half:], endpoint, now, until, divide)


def together(details: Mapping[str, str]) -> int:
    """How many messages one request may carry there. ValueError where `details` say no such number."""
    given = details.get("together", "1")
    if given not in _NUMBERS:
        raise ValueError(f"together is a number from 1 to {MOST_TOGETHER}")
    return int(given)


def _each(outcome: Outcome, answer: bytes, ids: Sequence[str]) -> dict[str, Outcome]:
    """What an answer says of each message: those it names as refused, those it names as received, and the others."""
    if outcome.verdict != SENT or not answer:
        return dict.fromkeys(ids, outcome)
    given = _object(answer)
    has, refused = given.get("ack"), given.get("setErrs")
    has = {one for one in has if isinstance(one, str)} if isinstance(has, list) else set()
    refused = refused if isinstance(refused, dict) else {}
    received = replace(outcome, verdict=RECEIVED)
    return {
        one: _refusal(refused[one], outcome) if one in refused else received if one in has else outcome
        for one in ids
    }


def _refusal(error: Any, outcome: Outcome) -> Outcome:
    """One entry of `setErrs` (RFC 8936 §2.6), which means what the same answer to that message alone would mean."""
    return replace(classify(400, {}, json.dumps(error).encode()), digest=outcome.digest)


async def challenge(
    session: outbound.Session, *, jti: str, state: str, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Test an address: its owner must answer 2xx and repeat `state`, a random text that only this request carries."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"type": "verification", "timestamp": moment, "data": {"state": state}}
    message = Message(jti, json.dumps(body, separators=(",", ":"), sort_keys=True).encode())
    outcome, answer = await _attempt(session, message, endpoint, now, total)
    if outcome.verdict == SENT and not _repeats(answer, state):
        return replace(outcome, verdict=REFUSED, detail="the answer does not repeat the state")
    return outcome


async def read_back(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Reading:
    """Ask what became of the consents that `message` stopped. Whoever does not know the question (404, 400, another form of
    answer) has said nothing: UNKNOWN."""
    wanted = [consent["id"] for consent in message.facts.get("consents", ())]
    data = {"subscription": message.facts["subscription"], "consents": wanted, "jti": message.jti}
    outcome, answer = await _ask(session, "status-query", data, endpoint, now, total)
    says = _said(answer, message.facts["subscription"], set(wanted)) if outcome.verdict == SENT else UNKNOWN
    return Reading(says, outcome.status, outcome.detail, outcome.digest)


async def list_remote(
    session: outbound.Session,
    *,
    references: Sequence[Reference],
    endpoint: Endpoint,
    now: int,
    total: float = 15.0,
) -> Listing:
    """What they hold of the person whom a reference of kind `subject` names; identifiers are our consents' ids."""
    subject = next((reference.identifier for reference in references if reference.kind == "subject"), "")
    if not subject:
        return Listing(False, detail="no reference: subject")
    outcome, answer = await _ask(session, "holdings-query", {"subject": subject}, endpoint, now, total)
    listed = _listed(answer, subject) if outcome.verdict == SENT else None
    if listed is None:
        return Listing(False, (), outcome.status, outcome.detail, outcome.digest)
    consents, complete = listed
    return Listing(complete, consents, outcome.status, outcome.detail, outcome.digest)


async def _ask(
    session: outbound.Session,
    question: str,
    data: dict[str, Any],
    endpoint: Endpoint,
    now: int,
    total: float,
) -> tuple[Outcome, bytes]:
    """One question, under an id of its own: the same question again is not a repetition of the message."""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"type": question, "timestamp": moment, "data": data}
    message = Message(str(uuid7()), json.dumps(body, separators=(",", ":"), sort_keys=True).encode())
    return await _attempt(session, message, endpoint, now, total)


def _said(answer: bytes, subscription: str, wanted: set[str]) -> str:
    """What the states of the wanted consents say together: stopped only if none is still there."""
    given = _object(answer)
    rows = given.get("consents")
    if given.get("subscription") != subscription or not isinstance(rows, list):
        return UNKNOWN
    if not all(isinstance(row, dict) and isinstance(row.get("id"), str) for row in rows):
        return UNKNOWN
    says = {STATES.get(str(row.get("state")), UNKNOWN) for row in rows if not wanted or row["id"] in wanted}
    return next((word for word in (ACTIVE, UNKNOWN, STOPPING, STOPPED) if word in says), ABSENT)


def _listed(answer: bytes, subject: str) -> tuple[tuple[RemoteConsent, ...], bool] | None:
    given = _object(answer)
    rows = given.get("consents")
    if given.get("subject") != subject or not isinstance(rows, list):
        return None
    consents = tuple(_remote(row) for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str))
    return consents, len(consents) == len(rows) and given.get("complete") is True


def _remote(row: dict[str, Any]) -> RemoteConsent:
    def text(name: str) -> str:
        return str(row.get(name) or "")[:200]

    scopes = row.get("scopes")
    return RemoteConsent(
        identifier=row["id"][:100],
        service=text("service"),
        source=text("source"),
        recipient=text("recipient"),
        scopes=tuple(str(scope)[:40] for scope in scopes[:100]) if isinstance(scopes, list) else (),
        since_on=text("since"),
        until_on=text("until"),
        state=STATES.get(text("state"), UNKNOWN),
    )


def _object(answer: bytes) -> dict[str, Any]:
    try:
        given = strict_json(answer)
    except (ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


async def _attempt(
    session: outbound.Session, message: Message, endpoint: Endpoint, now: int, total: float
) -> tuple[Outcome, bytes]:
    headers = signing.webhook_headers(
        message_id=message.jti, timestamp=now, body=message.body, secrets=endpoint.secrets
    )
    headers["Content-Type"] = "application/json"
    try:
        reply = await outbound.send(
            session, method="POST", url=endpoint.address, headers=headers, body=message.body, total=total
        )
    except outbound.Refused as refusal:
        return Outcome(BLOCKED, detail=str(refusal)[:200]), b""
    except outbound.Unreachable as failure:
        return Outcome(RETRY, detail=failure.reason), b""
    return classify(reply.status, reply.headers, reply.body, digest=reply.digest, now=now), reply.body


def _repeats(answer: bytes, state: str) -> bool:
    return _object(answer).get("state") == state
