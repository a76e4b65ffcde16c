"""Australia's Consumer Data Right: the end of a sharing arrangement, told to data holders and to data recipients, and by them.

The standard's CDR Arrangement Revocation End Point. Everything is signed with PS256 as its security profile wants; the
sample token of the standard that says HS256 is not followed. It can be neither listed nor read back."""

import secrets
from collections.abc import Collection, Mapping
from urllib.parse import parse_qs, urlencode

from providers import outbound, signing
from providers.wires import BadInbound, Endpoint, Inbound, Message, Outcome, Reference, classify
from providers.wires.asking import ENDS, ask, send_each
from providers.wires.bearer import FORM, oauth_error
from providers.wires.outcomes import REFUSED

CARRIES = ENDS
DETAILS = {
    "party": "what they are: holder or recipient",
    "client_id": "our name there: a software product's client id at a holder, the brand id at a recipient",
    "audience": "the issuer identifier of a holder; the address where nothing is given, as recipients want it",
    "issuer": "the name they sign with when they tell us of an end",
}
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 §2.2
LIFETIME = 300  # seconds, as in the standard's examples
LONGEST_LIFE = 3600  # seconds; a token of theirs that is good for longer is refused, so that its jti need not be kept longer
LARGEST_FORM = 65_536  # bytes
TYPES = ("JWT", None)
ALGORITHMS = ("PS256", "ES256")  # FAPI 1.0 Advanced §8.6


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Revoke every arrangement that the message refers to. 204 is the answer; 422, an arrangement they do not know, is
    CHECK. Each attempt is signed anew, since a `jti` is good once. `now` is epoch seconds; `total` seconds are for all."""
    party, client_id = endpoint.details.get("party", ""), endpoint.details.get("client_id", "")
    if party not in {"holder", "recipient"} or not client_id:
        return Outcome(
            REFUSED, detail=f"no {'client_id' if client_id == '' else 'party'} is stored for this channel"
        )
    signed = _to_holder if party == "holder" else _to_recipient

    async def revoke(reference: Reference) -> Outcome:
        headers, form = signed(reference.identifier, client_id, endpoint, now)
        headers |= {"Content-Type": FORM, "Accept": "application/json", "x-fapi-interaction-id": message.jti}
        body = urlencode(form).encode()
        reply = await ask(
            session, method="POST", url=endpoint.address, headers=headers, body=body, total=total
        )
        if isinstance(reply, Outcome):
            return reply
        return classify(
            reply.status, reply.headers, wire="cdr", code=oauth_error(reply), digest=reply.digest, now=now
        )

    return await send_each(message, ("arrangement",), revoke, total)


def verify_inbound(
    headers: Mapping[str, str], body: bytes, *, endpoint: Endpoint, audience: Collection[str], now: int
) -> Inbound:
    """The end of an arrangement that a holder (`cdr_arrangement_jwt` and a self-signed bearer token) or a recipient (a
    client assertion and `cdr_arrangement_id`) tells us, signed with a key of `endpoint.jwks`.

    `audience` holds the address that was called and our base address, which live gateways use as well. Raises BadInbound.
    The caller accepts each `jti` once in LONGEST_LIFE, and rejects an arrangement that is not one of this client's."""
    form = _form(body)
    if "cdr_arrangement_jwt" in form and "client_assertion" not in form:
        given = {name.lower(): value for name, value in headers.items()}.get("authorization", "")
        scheme, _, token = given.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise BadInbound("form", "no bearer token")
        _claims(token.strip(), endpoint, audience, now)
        claims = _claims(form["cdr_arrangement_jwt"], endpoint, audience, now)
        arrangement = claims.get("cdr_arrangement_id")
    elif form.get("client_assertion_type") == ASSERTION_TYPE and "cdr_arrangement_jwt" not in form:
        claims = _claims(form.get("client_assertion", ""), endpoint, audience, now)
        if form.get("client_id", claims["iss"]) != claims["iss"]:
            raise BadInbound("iss", "client_id is another one")
        arrangement = form.get("cdr_arrangement_id")
    else:
        raise BadInbound("form", "neither a holder's nor a recipient's form")
    if not isinstance(arrangement, str) or not 0 < len(arrangement) <= 256:
        raise BadInbound("form", "no arrangement is named")
    issued = claims.get("iat")
    return Inbound(
        jti=claims["jti"],
        issuer=claims["iss"],
        happened="ended",
        identifier=arrangement,
        at=int(issued) if issued is not None and issued > 0 else None,
    )


def _to_holder(arrangement: str, client_id: str, endpoint: Endpoint, now: int) -> tuple[dict, dict]:
    return {}, {
        "client_id": client_id,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": signing.sign_cdr(_fresh(client_id, endpoint, now)),
        "cdr_arrangement_id": arrangement,
    }


def _to_recipient(arrangement: str, client_id: str, endpoint: Endpoint, now: int) -> tuple[dict, dict]:
    token = signing.sign_cdr(_fresh(client_id, endpoint, now))
    named = signing.sign_cdr({**_fresh(client_id, endpoint, now), "cdr_arrangement_id": arrangement})
    return {"Authorization": f"Bearer {token}"}, {"cdr_arrangement_jwt": named}


def _fresh(client_id: str, endpoint: Endpoint, now: int) -> dict:
    return {
        "iss": client_id,
        "sub": client_id,
        "aud": endpoint.details.get("audience") or endpoint.address,
        "iat": now,
        "exp": now + LIFETIME,
        "jti": secrets.token_urlsafe(16),
    }


def _claims(compact: str, endpoint: Endpoint, audience: Collection[str], now: int) -> dict:
    issuer = endpoint.details.get("issuer", "")
    if not issuer:
        raise BadInbound("iss", "no issuer is stored for this channel")
    try:
        claims = signing.verify_jws(
            compact,
            jwks=endpoint.jwks,
            typ=TYPES,
            issuer=issuer,
            audience=audience,
            now=now,
            algorithms=ALGORITHMS,
            required="exp",  # `iat` is optional there
        )
    except signing.BadSignature as error:
        raise BadInbound(error.reason, str(error)) from error
    if claims.get("sub") != issuer:
        raise BadInbound("iss", "sub is not iss")
    if claims["exp"] > now + LONGEST_LIFE:
        raise BadInbound("exp", "good for too long")
    if not isinstance(claims.get("jti"), str) or not 0 < len(claims["jti"]) <= 256:
        raise BadInbound("form", "jti is missing")
    return claims


def _form(body: bytes) -> dict[str, str]:
    """Each field once, in plain ASCII."""
    if len(body) > LARGEST_FORM:
        raise BadInbound("form", "larger than 64 KiB")
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=True, max_num_fields=20, errors="strict")
    except ValueError as error:
        raise BadInbound("form", "not a form") from error
    if any(len(values) > 1 for values in fields.values()):
        raise BadInbound("form", "a field is given twice")
    return {name: values[0] for name, values in fields.items()}
