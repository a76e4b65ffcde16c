"""One bounded visit to a Korean organization's support API: signed in, each call checked against the table.

A visit fetches the token (지원-101) once and keeps it for the process until it expires. What comes back is an Answer, whatever
happens: the network, a foreign code and an answer that breaks the table are all answers, none an exception.
"""

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from providers import outbound
from providers.plainjson import strict_json
from providers.wires import BLOCKED, KEY, REFUSED, RETRY, SENT, Endpoint, Outcome, classify
from providers.wires.korea_fields import FIELDS, OK, Call, problem
from providers.wires.korea_fields import TRAN_ID as FORM

# The settings of a channel (Endpoint.details).
DETAILS = {
    "org_code": "their organization code, ten letters and digits",
    "portal_code": "our own organization code, which every transaction id starts with",
    "client_id": "our client_id there; the client secret is the channel's credential",
    "version": "v2 (default) or v1: which of the two 지원-102 and 지원-103 they serve; with v1 nobody is asked for 지원-105",
    "consents_revoke": "on: stops of transfer requests go to /v2/mgmts/consents/revoke, whose fields nobody has published",
    "client_certificate": "reserved: the name of the certificate for mTLS. Not built: the session has one TLS context for all",
}  # fmt: skip
NEEDED = ("org_code", "portal_code", "client_id")

TRAN_ID = "x-api-tran-id"
# Who made the transaction id. M is known to be an operator (마이데이터사업자); the portal's letter is not published.
SUBJECT = "S"
STALE = {"40101", "40103"}  # our token is wrong or was revoked: one other is fetched, once
MARGIN = 30  # seconds before its end that a token is no longer used
MOST_TOKENS = 1_000
LATER = {"50008": 1_800, "50009": 1_800}  # seconds: maintenance, and outside the hours of regular transfer
OAUTH_ERRORS = {
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
    "access_denied", "server_error", "temporarily_unavailable",
}  # fmt: skip

_SIGNS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CODE = re.compile(r"[A-Za-z0-9]{5}")
_tokens: dict[str, tuple[str, int]] = {}


@dataclass(frozen=True)
class Answer:
    """One call's result: what class it is, their own code ("" where there is none to believe), and the checked fields of
    a success. `cut` is true where the answer was longer than we read."""

    outcome: Outcome
    code: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)
    cut: bool = False

    @property
    def good(self) -> bool:
        return self.outcome.verdict == SENT


def tran_id(portal_code: str, jti: str, step: str = "") -> str:
    """Our `x-api-tran-id` for a message: organization code (10), who made it (1), number (14).

    The number is SHA-256 of the jti (and of `step`, where one message takes several calls) in base 36, cut to 14 signs: the
    same message has the same id however often it is tried, and nothing need be stored to know it. 36^14 is 2^72.4: among
    a thousand million ids the chance that any two are equal is 0.01 %. The id proves nothing and opens nothing."""
    number = int.from_bytes(
        hashlib.sha256(f"{jti}\n{step}".encode() if step else jti.encode()).digest(), "big"
    )
    signs = ""
    for _ in range(14):
        number, place = divmod(number, 36)
        signs += _SIGNS[place]
    return f"{portal_code}{SUBJECT}{signs}"


def given_id(headers: Mapping[str, str]) -> str:
    """The caller's `x-api-tran-id`; empty where it is missing or malformed."""
    given = next((value for name, value in headers.items() if name.lower() == TRAN_ID), "")
    return "" if problem({"id": FORM}, {"id": given}) else given


def forget_tokens() -> None:
    """Sign in anew everywhere: after a key change, and in tests."""
    _tokens.clear()


class Visit:
    """Calls at one endpoint within `total` seconds. `now` is epoch seconds."""

    def __init__(self, session: outbound.Session, endpoint: Endpoint, now: int, total: float):
        self.session, self.endpoint, self.now = session, endpoint, now
        self._until = time.monotonic() + total
        self._lock = asyncio.Lock()

    @property
    def org_code(self) -> str:
        return self.endpoint.details.get("org_code", "")

    def tran_id(self, jti: str, step: str = "") -> str:
        return tran_id(self.endpoint.details.get("portal_code", ""), jti, step)

    async def call(self, name: str, given: Mapping[str, Any], tran: str, path: str = "") -> Answer:
        """One call of the table. Our own mistakes are REFUSED before anything is sent."""
        call = FIELDS[name]
        lacking = [key for key in NEEDED if not self.endpoint.details.get(key)]
        if lacking:
            return Answer(Outcome(REFUSED, detail=f"the channel lacks {', '.join(lacking)}"))
        if len(tran) != 25 or (wrong := problem(call.request, dict(given))):
            return Answer(Outcome(REFUSED, detail=f"our own {name} breaks the table ({wrong or TRAN_ID})"))
        token = await self._token("")
        if isinstance(token, Answer):
            return token
        answer = await self._ask(name, given, tran, token, path)
        if answer.code in STALE:
            again = await self._token(token)
            answer = again if isinstance(again, Answer) else await self._ask(name, given, tran, again, path)
        return answer

    async def _token(self, stale: str) -> str | Answer:
        """A token that is not `stale`, from memory or from 지원-101."""
        endpoint = self.endpoint
        parts = [endpoint.address, endpoint.details["client_id"], endpoint.credential]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        async with self._lock:
            token, until = _tokens.get(key, ("", 0))
            if token and token != stale and self.now < until:
                return token
            answer = await self._sign_in()
            if not answer.good:
                return answer
            if len(_tokens) >= MOST_TOKENS:
                _tokens.clear()
            _tokens[key] = (answer.fields["access_token"], self.now + answer.fields["expires_in"] - MARGIN)
            return answer.fields["access_token"]

    async def _sign_in(self) -> Answer:
        endpoint = self.endpoint
        form = {
            "grant_type": "client_credentials",
            "client_id": endpoint.details["client_id"],
            "client_secret": endpoint.credential,
            "scope": "manage",
        }
        if not endpoint.credential:
            return Answer(Outcome(KEY, detail="the channel has no client secret"))
        if wrong := problem(FIELDS["지원-101"].request, form):
            return Answer(Outcome(REFUSED, detail=f"our own 지원-101 breaks the table ({wrong})"))
        # A token is nobody's message: its id is new each time.
        tran = self.tran_id(hashlib.sha256(f"{time.time_ns()}{id(self)}".encode()).hexdigest())
        return await self._ask("지원-101", form, tran, "", "")

    async def _ask(self, name: str, given: Mapping[str, Any], tran: str, token: str, path: str) -> Answer:
        call = FIELDS[name]
        version = "v1" if self.endpoint.details.get("version") == "v1" else "v2"
        url = self.endpoint.address.rstrip("/") + (path or call.path.format(version=version))
        headers, body = {TRAN_ID: tran, "Accept": "application/json"}, b""
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if call.method == "GET":
            url += "?" + urlencode(given)
        elif name == "지원-101":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            body = urlencode(given).encode()
        else:
            headers["Content-Type"] = "application/json; charset=UTF-8"
            body = json.dumps(given, ensure_ascii=False, separators=(",", ":")).encode()
        left = self._until - time.monotonic()
        if left <= 0:
            return Answer(Outcome(RETRY, detail="timeout"))
        try:
            reply = await outbound.send(
                self.session, method=call.method, url=url, headers=headers, body=body, total=left
            )
        except outbound.Refused as refusal:
            return Answer(Outcome(BLOCKED, detail=str(refusal)[:200]))
        except outbound.Unreachable as failure:
            return Answer(Outcome(RETRY, detail=failure.reason))
        return read(reply, name, call, tran, self.now)


def read(reply: outbound.Reply, name: str, call: Call, tran: str, now: int) -> Answer:
    """What one reply means. Their code counts more than the HTTP status, except that a success needs both."""
    fields = _object(reply.body)
    code = _code(fields)
    fine, echo = 200 <= reply.status < 300, reply.headers.get(TRAN_ID, "")

    def unusable(why: str, *, cut: bool = False) -> Answer:
        wait = classify(503, reply.headers, wire="korea", code="", now=now).retry_after
        detail = f"HTTP {reply.status} {code}".rstrip() + f": {name} {why}"
        return Answer(Outcome(RETRY, reply.status, detail, wait, reply.digest), "", cut=cut)

    if echo and echo != tran:
        return unusable("answers another transaction id")
    if fine and len(reply.body) >= outbound.LARGEST_ANSWER:
        return unusable("is longer than 64 KiB", cut=True)
    if fine and not echo:
        return unusable("does not repeat our transaction id")
    if 300 <= reply.status < 400 or (code == OK and not fine):
        code = ""  # a redirect is never an answer of theirs, and 00000 under an error is none
    if fine and (code == OK or (name == "지원-101" and not code)):
        if wrong := problem(call.answer, fields):
            return unusable(f"breaks the table ({wrong})")
        outcome = classify(reply.status, reply.headers, wire="korea", code=OK, digest=reply.digest, now=now)
        return Answer(outcome, OK, fields)
    outcome = classify(reply.status, reply.headers, wire="korea", code=code, digest=reply.digest, now=now)
    wait = outcome.retry_after if outcome.retry_after is not None else LATER.get(code)
    detail = outcome.detail + (" (signing in)" if name == "지원-101" else "")
    return Answer(Outcome(outcome.verdict, outcome.status, detail, wait, outcome.digest), code)


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = strict_json(body)
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}


def _code(fields: Mapping[str, Any]) -> str:
    code, error = fields.get("rsp_code"), fields.get("error")
    if isinstance(code, str) and _CODE.fullmatch(code):
        return code
    return error if isinstance(error, str) and error in OAUTH_ERRORS else ""


def digest_of(digests: list[str]) -> str:
    """The answer's own digest; of several answers the SHA-256 of their digests, one a line."""
    known = [digest for digest in digests if digest]
    if len(known) == 1:
        return known[0]
    return hashlib.sha256("\n".join(known).encode()).hexdigest() if known else ""
