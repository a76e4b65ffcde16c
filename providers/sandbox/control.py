"""The switches of the sandbox, for tests and scripts: JSON in, JSON out."""

import json

from aiohttp import web

from . import duties, holdings, keys
from .hooks import SANDBOX

BATCH = 5_000
MOST_ROWS = 10_000


async def state(request: web.Request) -> web.Response:
    """GET /_/state?organization=&subject=&subscription=&limit=: what is held."""
    query, limit = request.query, _limit(request, 1_000)
    rows = await request.app[SANDBOX].database.read(
        holdings.find,
        query.get("organization", ""),
        query.get("subject", ""),
        query.get("subscription", ""),
        limit,
    )
    return web.json_response({"holdings": rows, "truncated": len(rows) == limit})


async def effects(request: web.Request) -> web.Response:
    """GET /_/effects?organization=&jti=&limit=: each message with its arrivals and its effects (never above one)."""
    query, database = request.query, request.app[SANDBOX].database
    rows = await database.read(
        holdings.messages, query.get("organization", ""), query.get("jti", ""), _limit(request, 1_000)
    )
    return web.json_response({"effects": rows, "totals": await database.read(holdings.totals)})


async def switch(request: web.Request) -> web.Response:
    """POST /_/faults, as JSON or as a form of the page: organization, fault, value."""
    sandbox = request.app[SANDBOX]
    is_form = request.content_type != "application/json"
    try:
        given = await request.post() if is_form else await request.json()
        organization, fault = str(given["organization"]), str(given["fault"])
        value = float(str(given.get("value") or 0))
        if sandbox.parties.get(organization) is None:
            raise ValueError("no such organization")
        await sandbox.faults.switch(organization, fault, value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return web.json_response({"error": str(error)}, status=400)
    if is_form:
        raise web.HTTPSeeOther("/")
    return web.json_response({"faults": sandbox.faults.all()})


async def key(request: web.Request) -> web.Response:
    """POST /_/keys, as JSON or as a form of the page: organization, secret (`whsec_…`), which its server takes from now on."""
    sandbox = request.app[SANDBOX]
    is_form = request.content_type != "application/json"
    try:
        given = await request.post() if is_form else await request.json()
        organization, secret = str(given["organization"]), str(given["secret"]).strip()
        if sandbox.parties.get(organization) is None:
            raise ValueError("no such organization")
        await sandbox.database.write(keys.keep, organization, secret)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return web.json_response({"error": str(error)}, status=400)
    if is_form:
        raise web.HTTPSeeOther("/")
    return web.json_response({"kept": True})


async def load(request: web.Request) -> web.Response:
    """POST /_/holdings: NDJSON, one holding a line, put in as it is over what is there."""
    database, loaded, batch = request.app[SANDBOX].database, 0, []
    try:
        async for line in request.content:
            if line.strip():
                batch.append(_holding(line))
            if len(batch) == BATCH:
                loaded += await database.write(holdings.load, batch)
                batch = []
        loaded += await database.write(holdings.load, batch)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return web.json_response(
            {"error": f"after {loaded + len(batch)} rows: {error}", "loaded": loaded}, status=400
        )
    return web.json_response({"loaded": loaded})


def _holding(line: bytes) -> dict:
    given = json.loads(line)
    row: dict[str, str | int] = {
        name: str(given.get(name) or "") for name in ("subject", "service", "kind", "source")
    }
    row |= {name: str(given[name]) for name in ("organization", "subscription", "consent")}
    scopes = given.get("scopes") or []
    row["scopes"] = json.dumps(scopes.split() if isinstance(scopes, str) else list(scopes))
    row["state"] = given.get("state", holdings.ACTIVE)
    if row["state"] not in holdings.STATES:
        raise ValueError("no such state")
    row["data_present"] = int(bool(given.get("data_present", row["state"] != holdings.ERASED)))
    row["version"] = int(given.get("version", 1))
    return row


async def reset(request: web.Request) -> web.Response:
    """POST /_/reset: forget everything but the list of organizations."""
    sandbox = request.app[SANDBOX]
    await sandbox.database.write(holdings.forget_all)
    await sandbox.faults.clear()
    return web.json_response({"reset": True})


async def report(request: web.Request) -> web.Response:
    """GET /{code}/reports/{jti}/{status}: the report whose digest was signed."""
    match = request.match_info
    text = await request.app[SANDBOX].database.read(
        duties.report, match["code"], match["jti"], match["status"]
    )
    if text is None:
        raise web.HTTPNotFound
    return web.Response(body=text.encode(), content_type="application/json")


def _limit(request: web.Request, default: int) -> int:
    text = request.query.get("limit", "")
    return min(int(text[:6]), MOST_ROWS) if text.isascii() and text.isdigit() else default
