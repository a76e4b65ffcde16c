"""Signing in with a bearer token (RFC 6750): the credential itself, or a token that the credential buys (RFC 6749 §4.4)."""

import asyncio
import base64
import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import quote_plus, urlencode

from providers import outbound
from providers.wires import Endpoint
from providers.wires.asking import ask, members
from providers.wires.outcomes import REFUSED, RETRY, Outcome, classify

DETAILS = {
    "token_address": "where tokens are given for client credentials; without it the credential is the token",
    "client_id": "our name at the token address",
    "scope": "asked for instead of the protocol's own",
}
FORM = "application/x-www-form-urlencoded"
MOST_TOKENS = 256  # kept in memory; the one used longest ago goes first
LONGEST_USE = 3600  # seconds
SPARE = 30  # seconds before its end from which a token is not used any more

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,3500}=*")  # RFC 6750 §2.1
_ERRORS = {
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
    "unsupported_token_type",
}  # RFC 6749 §5.2, RFC 7009 §2.2.1  # fmt: skip
_kept: OrderedDict[str, tuple[str, int]] = OrderedDict()  # token and the moment it is used until


async def ask_with_token(
    session: outbound.Session,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    endpoint: Endpoint,
    scope: str,
    now: int,
    total: float,
) -> outbound.Reply | Outcome:
    """One request with our bearer token, in `total` seconds, the token included. An Outcome says why there is no reply.

    A kept token that is answered with 401 is fetched again, once. `now` is epoch seconds."""
    if not endpoint.credential:
        return Outcome(REFUSED, detail="no credential is stored for this channel")

    async def once(token: str) -> outbound.Reply | Outcome:
        signed = {**headers, "Authorization": f"Bearer {token}"}
        return await ask(session, method=method, url=url, headers=signed, total=total)

    try:
        async with asyncio.timeout(total):
            if not endpoint.details.get("token_address"):
                return await once(endpoint.credential)
            if not endpoint.details.get("client_id"):
                return Outcome(REFUSED, detail="no client_id is stored for this channel")
            scope = endpoint.details.get("scope", scope)
            key = _key(endpoint, scope)
            if kept := _still_good(key, now):
                answer = await once(kept)
                if isinstance(answer, Outcome) or answer.status != 401:
                    return answer
                _kept.pop(key, None)
            fetched = await _fetch(session, endpoint, scope, key, now, total)
            return fetched if isinstance(fetched, Outcome) else await once(fetched)
    except TimeoutError:
        return Outcome(RETRY, detail="timeout")


def basic(endpoint: Endpoint) -> str:
    """The Authorization header of client_secret_basic: both parts are form-encoded first (RFC 6749 §2.3.1)."""
    pair = f"{quote_plus(endpoint.details.get('client_id', ''))}:{quote_plus(endpoint.credential)}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def oauth_error(reply: outbound.Reply) -> str:
    """The `error` of a refused OAuth request (RFC 6749 §5.2), empty where it is none we know."""
    error = members(reply.body).get("error") if reply.status in {400, 401} else None
    return error if isinstance(error, str) and error in _ERRORS else ""


async def _fetch(
    session: outbound.Session, endpoint: Endpoint, scope: str, key: str, now: int, total: float
) -> str | Outcome:
    headers = {"Content-Type": FORM, "Accept": "application/json", "Authorization": basic(endpoint)}
    form = urlencode({"grant_type": "client_credentials", "scope": scope}).encode()
    answer = await ask(
        session,
        method="POST",
        url=endpoint.details["token_address"],
        headers=headers,
        body=form,
        total=total,
    )
    if isinstance(answer, Outcome):
        return Outcome(answer.verdict, detail=f"token: {answer.detail}")
    if not 200 <= answer.status < 300:
        refused = classify(
            answer.status,
            answer.headers,
            wire="token",
            code=oauth_error(answer),
            digest=answer.digest,
            now=now,
        )
        return Outcome(
            refused.verdict, refused.status, f"token: {refused.detail}", refused.retry_after, refused.digest
        )
    given = members(answer.body)
    token, kind, lasts = (given.get(name) for name in ("access_token", "token_type", "expires_in"))
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or str(kind).lower() != "bearer":
        return Outcome(RETRY, answer.status, "token: the answer holds no bearer token", digest=answer.digest)
    if isinstance(lasts, int) and lasts > SPARE:
        _keep(key, token, now + min(lasts, LONGEST_USE) - SPARE)
    return token


def _key(endpoint: Endpoint, scope: str) -> str:
    """A changed credential, scope or address is another token. Hashed: the credential is not kept."""
    parts = (
        endpoint.details["token_address"],
        endpoint.details.get("client_id", ""),
        endpoint.credential,
        scope,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _still_good(key: str, now: int) -> str:
    token, until = _kept.get(key, ("", 0))
    return token if now < until else ""


def _keep(key: str, token: str, until: int) -> None:
    _kept[key] = (token, until)
    _kept.move_to_end(key)
    while len(_kept) > MOST_TOKENS:
        _kept.popitem(last=False)
