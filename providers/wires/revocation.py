"""Token revocation (RFC 7009), where we are the OAuth client, read back by introspection (RFC 7662)."""

from urllib.parse import urlencode

from providers import outbound
from providers.wires import ACTIVE, STOPPED, UNKNOWN, Endpoint, Message, Outcome, Reading, Reference, classify
from providers.wires.asking import ENDS, ask, members, read_each, reading, send_each
from providers.wires.bearer import FORM, basic, oauth_error
from providers.wires.outcomes import REFUSED

CARRIES = ENDS
DETAILS = {
    "client_id": "our name there; the credential is the client secret",
    "introspect": "the introspection address (RFC 7662); without it a revocation cannot be read back",
}
# Kind of reference → token_type_hint, in the order in which they are sent: the refresh token first, since with it access
# tokens are made anew (RFC 7009 §2.1). A plain `token` is the one a consent hangs on, the refresh token; a wrong hint does
# no harm (§2.1).
HINTS = {"token": "refresh_token", "access_token": "access_token"}


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Revoke every token that the message refers to. The best that can come of it is CHECK: 200 is also the answer for a
    token nobody knows (§2.2). `now` is epoch seconds; `total` seconds are for all of them."""

    async def revoke(reference: Reference) -> Outcome:
        reply = await _post(session, endpoint.address, reference, endpoint, total)
        if isinstance(reply, Outcome):
            return reply
        return classify(
            reply.status,
            reply.headers,
            wire="revocation",
            code=oauth_error(reply),
            digest=reply.digest,
            now=now,
        )

    if missing := _missing(endpoint):
        return Outcome(REFUSED, detail=missing)
    return await send_each(message, tuple(HINTS), revoke, total)


async def read_back(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Reading:
    """What introspection says of the tokens. `active: false` means that the token does nothing for anybody there now, for
    whatever reason (RFC 7662 §2.2). `total` seconds are for all of them."""
    address = endpoint.details.get("introspect", "")

    async def introspect(reference: Reference) -> Reading:
        reply = await _post(session, address, reference, endpoint, total)
        if isinstance(reply, Outcome) or reply.status != 200:
            return reading(UNKNOWN, reply)
        active = members(reply.body).get("active")
        says = {True: ACTIVE, False: STOPPED}[active] if isinstance(active, bool) else UNKNOWN
        return reading(says, reply)

    if missing := "no introspection address is stored" if not address else _missing(endpoint):
        return Reading(UNKNOWN, detail=missing)
    return await read_each(message, tuple(HINTS), introspect, total)


async def _post(
    session: outbound.Session, url: str, reference: Reference, endpoint: Endpoint, total: float
) -> outbound.Reply | Outcome:
    form = urlencode({"token": reference.identifier, "token_type_hint": HINTS[reference.kind]})
    headers = {"Content-Type": FORM, "Accept": "application/json", "Authorization": basic(endpoint)}
    return await ask(session, method="POST", url=url, headers=headers, body=form.encode(), total=total)


def _missing(endpoint: Endpoint) -> str:
    if not endpoint.details.get("client_id"):
        return "no client_id is stored for this channel"
    return "" if endpoint.credential else "no credential is stored for this channel"
