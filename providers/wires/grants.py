"""FAPI Grant Management for OAuth 2.0 (draft 03): a grant is ended by deleting it.

The draft has no list of grants and puts one out of its scope (§1), so there is no `list_remote`."""

from providers import outbound
from providers.wires import (
    ABSENT,
    ACTIVE,
    UNKNOWN,
    Endpoint,
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
DETAILS = bearer.DETAILS
SCOPE = "grant_management_query grant_management_revoke"  # §6.1


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """DELETE every grant that the message refers to (§6.5). 204 means that the grant and its refresh tokens are dead; a
    grant they do not know is CHECK. `now` is epoch seconds; `total` seconds are for all of them."""

    async def revoke(reference: Reference) -> Outcome:
        reply = await _ask(session, "DELETE", reference, message, endpoint, now, total)
        if isinstance(reply, Outcome):
            return reply
        return classify(reply.status, reply.headers, wire="grants", code="", digest=reply.digest, now=now)

    return await send_each(message, ("grant",), revoke, total)


async def read_back(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Reading:
    """GET of the grants (§6.4): 200 with what is granted means in force, 404 that there is none. A page that answers everything
    with 200 says nothing."""

    async def query(reference: Reference) -> Reading:
        reply = await _ask(session, "GET", reference, message, endpoint, now, total)
        if isinstance(reply, Outcome) or (reply.status == 200 and not members(reply.body)):
            return reading(UNKNOWN, reply)
        return reading({200: ACTIVE, 404: ABSENT, 410: ABSENT}.get(reply.status, UNKNOWN), reply)

    return await read_each(message, ("grant",), query, total)


async def _ask(
    session: outbound.Session,
    method: str,
    reference: Reference,
    message: Message,
    endpoint: Endpoint,
    now: int,
    total: float,
) -> outbound.Reply | Outcome:
    url = resource(endpoint.address, reference.identifier)
    if not url:
        return Outcome(REFUSED, detail="the grant's name does not fit into an address")
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
