"""The portal's own protocol: a Standard Webhooks 1.0.0 request that carries a signed SET."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from providers import outbound, signing
from providers.wires import BLOCKED, REFUSED, RETRY, SENT, Endpoint, Message, Outcome, classify


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Offer the message once. Every failure of the network is an Outcome, none an exception.

    `now` is the moment of this attempt in epoch seconds (the receiver allows five minutes); the body is sent byte for
    byte as stored."""
    outcome, _ = await _attempt(session, message, endpoint, now, total)
    return outcome


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
    try:
        given = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(given, dict) and given.get("state") == state
