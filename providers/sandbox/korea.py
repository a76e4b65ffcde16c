"""The Korean support API that a pretend organization serves below /{code}/kr: 지원-101…107 and 전송요구-004, 005.

Written from the published contract alone: it shares no line with the portal's wire. The portal signs in with the client_id and
client_secret that the organization has for the portal (one pair, both ways). Faults: `lies` answers "철회완료" and ends nothing,
`silent` stays at 02 for ever, `resurrects` lists again what it had ended; the others act as with webhooks.
"""

import asyncio
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import faults, holdings, korea_holdings
from .hooks import SANDBOX, Sandbox
from .parties import Party

TOKEN_LIFE = 600  # seconds
MOST_TOKENS = 10_000
TRAN_ID = "x-api-tran-id"
MESSAGES = {
    "00000": (200, "성공"),
    "40001": (400, "잘못된 파라미터"),
    "40002": (400, "헤더값 없음"),
    "40101": (401, "잘못된 토큰"),
    "40303": (403, "기관코드 확인 불가"),
    "40402": (404, "자산 미존재"),
    "40403": (404, "고객 미존재"),
    "50001": (500, "시스템장애"),
    "99999": (200, "유효하지 않은 전송요구"),
}

TOKENS = web.AppKey("korean_tokens", dict)

_TRAN = re.compile(r"[A-Z0-9]{25}")
_SHAPES = {
    "org_code": re.compile(r"[A-Za-z0-9]{10}"),
    "user_ci": re.compile(r"[A-Za-z0-9+/]{1,98}={0,2}"),
    "prov_consent_num": re.compile(r"[A-Za-z0-9._-]{1,50}"),
    "tx_id": re.compile(r"[\x20-\x7e]{1,74}"),
    "from_dtime": re.compile(r"[0-9]{14}"),
    "to_dtime": re.compile(r"[0-9]{14}"),
    "next_page": re.compile(r"[0-9]{0,6}"),
    "type": re.compile(r"0[12]"),
}

Work = Callable[[Sandbox, Party, dict, str], Awaitable[tuple[str, dict]]]


def mount(app: web.Application) -> None:
    """Its table and its addresses. v1 has 지원-102 and 지원-103 only, as published."""
    app[TOKENS] = {}
    app.cleanup_ctx.append(_prepared)
    base = "/{code}/kr"
    app.add_routes([web.post(f"{base}/mgmts/oauth/2.0/token", token)])
    for version in ("v1", "v2"):
        app.add_routes(
            [
                web.get(f"{base}/{version}/mgmts/status", _door(_status, "org_code")),
                web.post(f"{base}/{version}/mgmts/consents", _door(_consents, "org_code", "user_ci")),
            ]
        )
    agreements = f"{base}/v2/mgmts/agreements"
    detail = ("org_code", "prov_consent_num", "from_dtime", "to_dtime", "next_page")
    app.add_routes(
        [
            web.post(agreements, _door(_agreements, "org_code", "user_ci")),
            web.post(f"{agreements}/detail", _door(_detail, *detail)),
            web.post(f"{agreements}/revoke", _door(_revoke, "org_code", "prov_consent_num")),
            web.post(f"{base}/consents/revoke", _door(_end, "tx_id", "user_ci")),
            web.post(f"{base}/v2/mgmts/consents/revoke", _door(_end, "tx_id", "user_ci")),
            web.post(f"{base}/consents/req-result", _door(_again, "type", "tx_id", "user_ci")),
        ]
    )


async def _prepared(app: web.Application):
    await app[SANDBOX].database.write(korea_holdings.prepare)
    yield


async def token(request: web.Request) -> web.StreamResponse:
    """지원-101, RFC 6749 §4.4."""
    party = request.app[SANDBOX].parties.get(request.match_info["code"])
    form, tokens = await request.post(), request.app[TOKENS]
    tran = request.headers.get(TRAN_ID, "")
    headers = {TRAN_ID: tran if _TRAN.fullmatch(tran) else ""}
    if form.get("grant_type") != "client_credentials" or form.get("scope") != "manage":
        return web.json_response({"error": "invalid_request"}, status=400, headers=headers)
    given = (str(form.get("client_id", "")), str(form.get("client_secret", "")))
    if party is None or given[0] != party.client_id or not _same(given[1], party.client_secret):
        return web.json_response({"error": "invalid_client"}, status=401, headers=headers)
    if len(tokens) >= MOST_TOKENS:
        tokens.clear()
    made = secrets.token_urlsafe(32)
    tokens[made] = (party.code, time.monotonic() + TOKEN_LIFE)
    answer = {"token_type": "Bearer", "access_token": made, "expires_in": TOKEN_LIFE, "scope": "manage"}
    return web.json_response(answer, headers=headers)


def _door(work: Work, *names: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A call: signed in, well formed, about this organization; then the fault that is switched on, and the work."""

    async def door(request: web.Request) -> web.StreamResponse:
        sandbox, tran = request.app[SANDBOX], request.headers.get(TRAN_ID, "")
        party = sandbox.parties.get(request.match_info["code"])
        if party is None or not _signed_in(request, party):
            return _answer("40101", tran)
        if not _TRAN.fullmatch(tran):
            return _answer("40002", "")
        try:
            asked = await _asked(request, names)
        except (ValueError, KeyError, TypeError, RecursionError):
            return _answer("40001", tran)
        if asked.get("org_code", party.code) != party.code:
            return _answer("40303", tran)
        return await _faulty(request, sandbox, party, work, asked, tran)

    return door


async def _faulty(
    request: web.Request, sandbox: Sandbox, party: Party, work: Work, asked: dict, tran: str
) -> web.StreamResponse:
    fault, value = faults.NONE, 0.0
    if work in {_revoke, _end}:  # a question uses up no fault: those are for stops
        fault, value = await sandbox.faults.take(party.code)
    elif found := sandbox.faults.all().get(party.code):
        fault, value = found["fault"], found["value"]
    if fault == faults.ERROR and work is not _status:
        return _answer("50001", tran)
    if fault == faults.DROP_BEFORE:
        return _hang_up(request)
    asked["fault"], asked["value"] = fault, value
    code, fields = await work(sandbox, party, asked, tran)
    if fault == faults.DROP_AFTER_EFFECT and work in {_revoke, _end}:
        return _hang_up(request)
    if fault == faults.SLOW:
        await asyncio.sleep(value)
    return _answer(code, tran, fields)


async def _status(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    return "00000", {"availability": "02" if asked["fault"] == faults.ERROR else "01"}


async def _consents(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    subject = korea_holdings.subject_of(asked["user_ci"])
    return "00000", await sandbox.database.read(korea_holdings.consents, party.code, subject)


async def _agreements(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    subject = korea_holdings.subject_of(asked["user_ci"])
    return "00000", await sandbox.database.read(korea_holdings.agreements, party.code, subject)


async def _detail(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    found = await sandbox.database.read(korea_holdings.provided, party.code, asked, time.time())
    return ("40402", {}) if found is None else ("00000", found)


async def _revoke(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    code = await sandbox.database.write(
        korea_holdings.end_provision,
        party.code,
        tran,
        asked["prov_consent_num"],
        _plan(sandbox, asked),
        time.time(),
    )
    sandbox.duties.ring()
    lies = asked["fault"] == faults.LIES and code == "00000"
    return code, {"rsp_msg": "철회완료(03)"} if lies else {}


async def _end(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    code = await sandbox.database.write(
        korea_holdings.end_transfer, party.code, tran, asked, _plan(sandbox, asked), time.time()
    )
    sandbox.duties.ring()
    return code, {}


async def _again(sandbox: Sandbox, party: Party, asked: dict, tran: str) -> tuple[str, dict]:
    answers = asked["fault"] != faults.SILENT
    code = await sandbox.database.write(
        korea_holdings.tell_again, party.code, tran, asked, answers, time.time()
    )
    sandbox.duties.ring()
    return code, {}


def _plan(sandbox: Sandbox, asked: dict) -> holdings.Plan:
    fault = asked["fault"]
    return holdings.Plan(
        role="operator",
        keeps_data=fault == faults.LIES,
        answers=fault != faults.SILENT,
        resurrects_after=asked["value"] if fault == faults.RESURRECTS else None,
        delays=sandbox.delays,
    )


async def _asked(request: web.Request, names: tuple[str, ...]) -> dict:
    """The fields of the call, each of its form. ValueError, KeyError or TypeError where one is not."""
    given = dict(request.query) if request.method == "GET" else json.loads(await request.read())
    asked: dict[str, Any] = {}
    for name in names:
        value = given.get(name, "") if name == "next_page" else given[name]
        if not _SHAPES[name].fullmatch(value):
            raise ValueError(name)
        asked[name] = value
    if "from_dtime" in names:
        time.strptime(asked["from_dtime"], "%Y%m%d%H%M%S")
        time.strptime(asked["to_dtime"], "%Y%m%d%H%M%S")
        asked["limit"] = given["limit"]
        if isinstance(asked["limit"], bool) or not 1 <= asked["limit"] <= korea_holdings.MOST_ROWS:
            raise ValueError("limit")
    if request.path.endswith("/consents/revoke"):
        asked["is_delete"] = given["is_delete"]
        if not isinstance(asked["is_delete"], bool):
            raise ValueError("is_delete")
    return asked


def _signed_in(request: web.Request, party: Party) -> bool:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    code, until = request.app[TOKENS].get(given, ("", 0.0))
    return kind == "Bearer" and code == party.code and time.monotonic() < until


def _answer(code: str, tran: str, fields: dict | None = None) -> web.Response:
    status, message = MESSAGES[code]
    content = {"rsp_code": code, "rsp_msg": message, **(fields or {})}
    return web.json_response(content, status=status, headers={TRAN_ID: tran if _TRAN.fullmatch(tran) else ""})


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), known.encode())


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
