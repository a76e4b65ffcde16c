"""Push of the signed SET itself (RFC 8935), to whoever speaks Shared Signals and by them to us."""

from collections.abc import Mapping
from dataclasses import replace

from django.conf import settings

from providers import outbound, signing
from providers.wires import BadInbound, Endpoint, Inbound, Message, Outcome, classify
from providers.wires.asking import ask
from providers.wires.outcomes import REFUSED, SENT

DETAILS = {
    "audience": "whom our verification event is for; the address where nothing is given",
    "stream_id": "the receiver's name of the stream, the subject of a verification event",
}
VERIFICATION = "https://schemas.openid.net/secevent/ssf/event-type/verification"  # SSF 1.0 §8.1.4.1
# What may be told to us, and the member that names what ended.
ENDED = {"consent-withdrawn": "consent", "subscription-ended": "subscription"}


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Push the SET once. 202 is the answer of §2.2; another 2xx counts as sent, with a word about it in the detail.

    The credential, where there is one, is a bearer token. `now` is epoch seconds, `total` seconds."""
    return await _push(session, message.set_compact, endpoint, now, total)


async def challenge(
    session: outbound.Session, *, jti: str, state: str, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Test an address with a verification event that carries `state`; only 202 is good.

    The receiver must check the signature to answer that (§2.2); it has no way to repeat the state."""
    audience = endpoint.details.get("audience") or endpoint.address
    claims = {
        "iss": settings.PORTAL_URL,
        "aud": audience,
        "iat": now,
        "jti": jti,
        "sub_id": {"format": "opaque", "id": endpoint.details.get("stream_id") or audience},
        "events": {VERIFICATION: {"state": state}},
    }
    outcome = await _push(session, signing.sign_set(claims), endpoint, now, total)
    if outcome.verdict == SENT and outcome.status != 202:
        return replace(outcome, verdict=REFUSED)
    return outcome


def verify_inbound(body: bytes | str, *, issuer: str, jwks: Mapping, now: int) -> Inbound:
    """A SET by a key of `jwks` that tells us of one end, or tests the line; `issuer` is the organization's code.

    Raises BadSignature, BadInbound."""
    claims = signing.verify_jws(
        body, jwks=jwks, typ=signing.SET_TYP, issuer=issuer, now=now,
        audience={settings.PORTAL_URL, f"{settings.PORTAL_URL}/api/v1/sets"},
    )  # fmt: skip
    jti, events = claims.get("jti"), claims.get("events")
    if not isinstance(jti, str) or not 0 < len(jti) <= 256:
        raise BadInbound("form", "jti is missing")
    if not isinstance(events, dict) or len(events) != 1:
        raise BadInbound("event", "not one event")
    ((uri, event),) = events.items()
    if uri == VERIFICATION:
        return Inbound(jti=jti, issuer=issuer, happened="verification")
    about = ENDED.get(uri.removeprefix(f"{settings.PORTAL_URL}/secevent/"), "")
    identifier = event.get(about) if isinstance(event, dict) else None
    if not about or not isinstance(identifier, str) or not 0 < len(identifier) <= 256:
        raise BadInbound("event", "no end that we know")
    return Inbound(jti=jti, issuer=issuer, happened="ended", identifier=identifier, about=about)


async def _push(
    session: outbound.Session, compact: str, endpoint: Endpoint, now: int, total: float
) -> Outcome:
    headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
    if endpoint.credential:
        headers["Authorization"] = f"Bearer {endpoint.credential}"
    body = compact.encode("ascii")
    reply = await ask(session, method="POST", url=endpoint.address, headers=headers, body=body, total=total)
    if isinstance(reply, Outcome):
        return reply
    outcome = classify(reply.status, reply.headers, reply.body, wire="push", digest=reply.digest, now=now)
    if outcome.verdict == SENT and reply.status != 202:
        return replace(outcome, detail=f"HTTP {reply.status}, not 202")
    return outcome
