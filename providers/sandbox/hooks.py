"""The door that messages of the portal come through: check everything, act once, answer."""

import asyncio
import time
from dataclasses import dataclass, field

from aiohttp import web

from providers import signing

from . import faults, holdings, keys, queries
from .database import Database
from .duties import Duties
from .faults import Faults
from .parties import Parties, Party
from .portal import Later, Portal


@dataclass(frozen=True)
class Sandbox:
    """What the doors share."""

    database: Database
    parties: Parties
    faults: Faults
    portal: Portal
    duties: Duties
    delays: tuple[float, float]
    own_names: frozenset[str] = field(default=frozenset({"127.0.0.1", "localhost"}))


SANDBOX = web.AppKey("sandbox", Sandbox)


async def consent(request: web.Request) -> web.StreamResponse:
    """POST /{code}/hooks/consent: 200 when taken; 400 with an RFC 8935 `err` when it is not right; 503 when the
    portal's keys cannot be had just now."""
    sandbox = request.app[SANDBOX]
    party = sandbox.parties.get(request.match_info["code"])
    if party is None:
        return web.json_response(
            {"err": "invalid_request", "description": "no such organization"}, status=404
        )
    raw = await request.read()
    asking = queries.is_query(raw)  # a question uses up no fault: those are for messages
    fault, value = sandbox.faults.now(party.code) if asking else await sandbox.faults.take(party.code)
    if fault == faults.ERROR:
        return web.Response(status=500, text="a fault switched on in the sandbox")
    if fault == faults.DROP_BEFORE:
        return _hang_up(request)

    try:
        checked = _trusted if fault == faults.TRUSTING else _verified
        message = await checked(sandbox, party, request.headers, raw)
    except signing.BadSignature as error:
        return web.json_response({"err": _err(error), "description": str(error)}, status=400)
    except ValueError as error:
        return web.json_response({"err": "invalid_request", "description": str(error)}, status=400)
    except Later as error:
        return web.json_response({"description": str(error)}, status=503, headers={"Retry-After": "5"})
    if message["type"] == "verification":
        return web.json_response({"state": message["state"]})
    if asking:
        return web.json_response(await sandbox.database.read(queries.answer, party.code, message))

    answer = await _acted(sandbox, party, message, fault, value)
    if fault == faults.DROP_AFTER_EFFECT:
        return _hang_up(request)
    if fault == faults.SLOW:
        await asyncio.sleep(value)
    return web.json_response(answer)


async def _acted(sandbox: Sandbox, party: Party, message: dict, fault: str, value: float) -> dict:
    """Do what one message says, or each of many; the answer."""
    together = message["type"] == "batch"
    answers = fault not in {faults.SILENT, faults.DROP_AFTER_EFFECT}
    results = {}
    for one in message["messages"] if together else [message]:
        plan = holdings.Plan(
            role=_role(party, one),
            keeps_data=fault == faults.LIES,
            answers=answers,
            acknowledges=not together,
            resurrects_after=value if fault == faults.RESURRECTS else None,
            delays=sandbox.delays,
        )
        results[one["jti"]] = await sandbox.database.write(
            holdings.receive, party.code, one, plan, time.time()
        )
    sandbox.duties.ring()
    if not together:
        return {"result": results[message["jti"]]}
    return {"ack": list(results) if answers else [], "setErrs": message["refused"]}


async def _verified(sandbox: Sandbox, party: Party, headers, raw: bytes) -> dict:
    """The message inside: its webhook signature, its SET and their agreement are checked."""
    now = int(time.time())
    handed = await sandbox.database.read(keys.known, party.code)
    signing.verify_webhook(headers, raw, secrets=[party.secret, *handed], now=now)
    body = signing.strict_json(raw)
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("data"), dict)
        or not isinstance(body.get("type"), str)
    ):
        raise ValueError("the body wants type, timestamp and data")
    data = body["data"]
    if body["type"] == "verification":
        return {"type": "verification", "state": str(data.get("state", ""))}
    if body["type"] in queries.QUESTIONS:
        return queries.question(body["type"], data)
    if body["type"] == "batch":
        return await _each(sandbox, party, data.get("messages"), now)
    return await _signed(sandbox, party, body, headers["webhook-id"], now)


async def _signed(sandbox: Sandbox, party: Party, body: dict, jti: str, now: int) -> dict:
    """The message, once its SET says the same."""
    data = body["data"]
    if not isinstance(data.get("set"), str):
        raise ValueError("data.set is missing")
    claims = await sandbox.portal.verified_set(data["set"], party.code, now)
    _compare(sandbox.portal.address, body, claims, jti)
    return _message(body["type"], data)


async def _each(sandbox: Sandbox, party: Party, bodies: object, now: int) -> dict:
    """Many messages in one request: those that are right, and why the others are not."""
    if not isinstance(bodies, list) or not 0 < len(bodies) <= 100:
        raise ValueError("data.messages wants 1 to 100 messages")
    right: list[dict] = []
    refused: dict[str, dict] = {}
    for body in bodies:
        if not (isinstance(body, dict) and isinstance(body.get("data"), dict)):
            raise ValueError("each of data.messages wants type, timestamp and data")
        jti = str(body["data"].get("jti"))
        try:
            right.append(await _signed(sandbox, party, body, jti, now))
        except signing.BadSignature as error:
            refused[jti] = {"err": _err(error), "description": str(error)}
        except ValueError as error:
            refused[jti] = {"err": "invalid_request", "description": str(error)}
    return {"type": "batch", "messages": right, "refused": refused}


async def _trusted(sandbox: Sandbox, party: Party, headers, raw: bytes) -> dict:
    """The fault `trusting`: the message as it stands there, whoever made it. Questions are still checked."""
    body = signing.strict_json(raw)
    if not isinstance(body, dict) or not isinstance(body.get("data"), dict) or "set" not in body["data"]:
        return await _verified(sandbox, party, headers, raw)
    return _message(str(body.get("type")), body["data"])


def _compare(portal: str, body: dict, claims: dict, webhook_id: str) -> None:
    """The plain fields are a copy of what was signed, or the message is refused."""
    data, events = body["data"], claims.get("events")
    event_type = f"{portal}/secevent/{body['type']}"
    if (
        not isinstance(events, dict)
        or list(events) != [event_type]
        or not isinstance(events[event_type], dict)
    ):
        raise ValueError("the SET is about another event than the body")
    signed = {**events[event_type], **{name: claims[name] for name in ("jti", "txn") if name in claims}}
    if signed.get("jti") != webhook_id:
        raise ValueError("the SET has another id than the webhook")
    differing = [
        name
        for name, value in data.items()
        if name != "set" and (name not in signed or signed[name] != value)
    ]
    if differing:
        raise ValueError(f"not as signed: {', '.join(sorted(differing)[:5])}")


def _message(kind: str, data: dict) -> dict:
    """The fields we act on, each with its type checked."""
    message: dict = {"type": kind}
    for name in ("txn", "jti", "subscription", "subject", "service"):
        message[name] = data.get(name)
        if not isinstance(message[name], str) or not 0 < len(message[name]) <= 200:
            raise ValueError(f"data.{name} is missing or not a short text")
    message["version"] = data.get("version")
    if isinstance(message["version"], bool) or not isinstance(message["version"], int):
        raise ValueError("data.version is not a whole number")
    message["delete_data"] = data.get("delete_data", False)
    if not isinstance(message["delete_data"], bool):
        raise ValueError("data.delete_data is not true or false")
    message["role"] = data.get("role")
    listed = data.get("consents", [])
    if not isinstance(listed, list):
        raise ValueError("data.consents is not a list")
    message["consents"] = [_consent(item) for item in listed]
    return message


def _consent(item: object) -> dict:
    if not isinstance(item, dict) or not isinstance(item.get("id"), str) or not item["id"]:
        raise ValueError("a consent without an id")
    scopes = item.get("scopes") or []
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise ValueError("the scopes of a consent are not a list of texts")
    return {
        "id": item["id"],
        "kind": str(item.get("kind") or ""),
        "source": str(item.get("source") or ""),
        "scopes": scopes,
    }


def _role(party: Party, message: dict) -> str:
    """In which role the organization is told: many are both operator and source."""
    if message["role"] in {"operator", "source", "recipient"}:
        return message["role"]
    if message["service"] in party.services:
        return "operator"
    consents = message["consents"]
    if consents and all(
        consent["kind"] == "transfer" and consent["source"] == party.code for consent in consents
    ):
        return "source"
    if party.is_operator:
        return "operator"
    return "recipient" if any(consent["kind"] == "third_party" for consent in consents) else "source"


def _err(error: signing.BadSignature) -> str:
    """RFC 8935 §2.4."""
    known = {"kid": "invalid_key", "key": "invalid_key", "iss": "invalid_issuer", "aud": "invalid_audience"}
    if error.reason in {"signature", "id", "timestamp"}:
        return "authentication_failed"
    return known.get(error.reason, "invalid_request")


def _hang_up(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
