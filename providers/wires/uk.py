"""UK Open Banking (Read/Write API v3.1 and v4.0): an account access consent is deleted, read back, and revoked at the bank."""

from collections.abc import Collection

from providers import outbound, signing
from providers.wires import (
    ABSENT,
    ACTIVE,
    STOPPED,
    UNKNOWN,
    BadInbound,
    Endpoint,
    Inbound,
    Message,
    Outcome,
    Reading,
    Reference,
    bearer,
    classify,
)
from providers.wires.asking import ENDS, members, read_each, reading, resource, send_each
from providers.wires.outcomes import REFUSED

CARRIES = ENDS
DETAILS = {
    **bearer.DETAILS,
    "client_id": "our name at the token address, and the audience of the bank's events",
    "issuer": "the bank's `iss` in the events it signs",
}
SCOPE = "accounts"
# Data.Status. v3.1 spells them out, v4.0 has four letters. What still waits for the customer may yet come into force.
STATUSES = {
    "Authorised": ACTIVE, "AwaitingAuthorisation": ACTIVE, "AUTH": ACTIVE, "AWAU": ACTIVE,
    "Revoked": STOPPED, "Rejected": STOPPED, "Expired": STOPPED, "Consumed": STOPPED,
    "RJCT": STOPPED, "CANC": STOPPED, "EXPD": STOPPED, "COND": STOPPED,
}  # fmt: skip
UNKNOWN_THERE = {"UK.OBIE.Resource.NotFound", "U011"}
# The second name is v4.0's, the third its newer word for the access that ends while the consent stays as it is.
REVOKED = (
    "urn:uk:org:openbanking:events:consent-authorization-revoked",
    "UK.OBIE.Consent-Authorization-Revoked",
    "UK.OBIE.Consent-Access-Revoked",
)
TYPES = ("secevent+jwt", "JWT", None)  # the standard's examples say JWT, older banks nothing
_SUBJECT = "http://openbanking.org.uk/"
_CONSENT = {"account-access-consent", "account-access-consents"}


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """DELETE every consent that the message refers to: 204. A consent they do not know any more is CHECK.

    The address is the one of the account API, up to the version and `aisp`. `now` is epoch seconds; `total` seconds are for
    all of them."""

    async def delete(reference: Reference) -> Outcome:
        reply = await _ask(session, "DELETE", reference, message, endpoint, now, total)
        if isinstance(reply, Outcome):
            return reply
        return classify(
            reply.status, reply.headers, wire="uk", code=_unknown_there(reply), digest=reply.digest, now=now
        )

    return await send_each(message, ("consent",), delete, total)


async def read_back(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Reading:
    """GET of the consents: `Data.Status`, or that there is none (400 with a code, 404)."""

    async def status(reference: Reference) -> Reading:
        reply = await _ask(session, "GET", reference, message, endpoint, now, total)
        if isinstance(reply, Outcome):
            return reading(UNKNOWN, reply)
        if reply.status in {404, 410} or _unknown_there(reply):
            return reading(ABSENT, reply)
        data = members(reply.body).get("Data") if reply.status == 200 else None
        word = data.get("Status") if isinstance(data, dict) else None
        if not isinstance(word, str) or word not in STATUSES:
            return reading(UNKNOWN, reply)
        return reading(STATUSES[word], reply, f"HTTP 200 {word}")

    return await read_each(message, ("consent",), status, total)


def verify_inbound(
    body: bytes | str, *, endpoint: Endpoint, now: int, audience: Collection[str] = ()
) -> Inbound:
    """A bank's event that a customer has taken the consent back there (`POST /event-notifications`, or one of `sets` of a
    poll): a SET signed with PS256 by a key of `endpoint.jwks`, for our client id there or one of `audience`.

    What is genuine and about something else has `happened` other. Raises BadInbound: a reason of BadSignature, or `event` where a
    revocation does not say of what, which must not pass for heard."""
    issuer = endpoint.details.get("issuer", "")
    if not issuer:
        raise BadInbound("iss", "no issuer is stored for this channel")
    names = {endpoint.details.get("client_id", ""), *audience} - {""}
    try:
        claims = signing.verify_jws(
            body, jwks=endpoint.jwks, typ=TYPES, issuer=issuer, audience=names, now=now, algorithms=("PS256",)
        )
    except signing.BadSignature as error:
        raise BadInbound(error.reason, str(error)) from error
    jti, happened, events = claims.get("jti"), claims.get("toe"), claims.get("events")
    if not isinstance(jti, str) or not 0 < len(jti) <= 128:
        raise BadInbound("form", "jti is missing")
    if not isinstance(events, dict) or not events:
        raise BadInbound("event", "no event")
    revoked = next((name for name in REVOKED if name in events), "")
    consent = _consent(events, revoked) if revoked else ""
    event = events.get(revoked)
    reason = event.get("reason") if isinstance(event, dict) else None
    return Inbound(
        jti=jti,
        issuer=issuer,
        happened="ended" if consent else "other",
        identifier=consent,
        reason=reason[:128] if isinstance(reason, str) else "",
        at=int(happened) if isinstance(happened, int | float) and _is_past(happened, now) else None,
    )


def _is_past(moment: object, now: int) -> bool:
    return isinstance(moment, int | float) and not isinstance(moment, bool) and 0 < moment <= now + 10


def _consent(events: dict, revoked: str) -> str:
    """The account access consent that is named, or empty where it is another resource. The standard's own example has the subject
    in a second event beside an empty one."""
    named = set()
    for event in (events[revoked], *events.values()):
        subject = event.get("subject") if isinstance(event, dict) else None
        if isinstance(subject, dict):
            identifier, kind = subject.get(f"{_SUBJECT}rid"), subject.get(f"{_SUBJECT}rty")
            kind = kind if isinstance(kind, str) else ""
            if kind in _CONSENT and isinstance(identifier, str) and 0 < len(identifier) <= 128:
                return identifier
            named.add(kind)
    if named and not named & {*_CONSENT, ""}:
        return ""
    raise BadInbound("event", "it names no account access consent")


def _unknown_there(reply: outbound.Reply) -> str:
    """The first error code of a 400 that says there is no such consent."""
    errors = members(reply.body).get("Errors") if reply.status == 400 else None
    codes = (
        [error.get("ErrorCode") for error in errors if isinstance(error, dict)]
        if isinstance(errors, list)
        else []
    )
    return next((code for code in codes if isinstance(code, str) and code in UNKNOWN_THERE), "")


async def _ask(
    session: outbound.Session,
    method: str,
    reference: Reference,
    message: Message,
    endpoint: Endpoint,
    now: int,
    total: float,
) -> outbound.Reply | Outcome:
    url = resource(f"{endpoint.address.rstrip('/')}/account-access-consents", reference.identifier)
    if not url:
        return Outcome(REFUSED, detail="the consent's name does not fit into an address")
    return await bearer.ask_with_token(
        session,
        method=method,
        url=url,
        headers={"Accept": "application/json", "x-fapi-interaction-id": message.jti},
        endpoint=endpoint,
        scope=SCOPE,
        now=now,
        total=total,
    )
