"""What we send, described: the AsyncAPI 3 document of our messages, and examples with published keys to test a receiver with.

The document is made from the same names that `messages` writes; a test holds a real message against it."""

import functools
import json
from typing import Any

from django.conf import settings
from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from consents import access
from consents.models import Consent, Delivery, EndReason
from consents.queries.official import EVENTS
from providers import datafiles
from providers.models.catalogue import Rider
from providers.wires import native

UUID: dict[str, Any] = {"type": "string", "format": "uuid"}
INSTANT: dict[str, Any] = {"type": "string", "format": "date-time"}
CODE: dict[str, Any] = {"type": "string", "pattern": "^[A-Z0-9]{10}$"}
SECONDS: dict[str, Any] = {"type": "integer", "description": "seconds since 1970"}
QUESTIONS: dict[str, dict[str, Any]] = {
    "status-query": {"subscription": UUID, "consents": {"type": "array", "items": UUID}, "jti": UUID},
    "holdings-query": {"subject": UUID},
    "verification": {"state": {"type": "string", "description": "to be repeated in the answer"}},
}
# Many messages in one request, to whoever said at the desk how many, and what may be answered to it (names of RFC 8936 §2.4).
BATCH = "batch"
BATCH_ANSWER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ack": {"type": "array", "items": UUID, "description": "the jti of each message that you have now"},
        "setErrs": {
            "type": "object",
            "description": "by jti: what RFC 8935 §2.4 would answer to that message alone",
            "additionalProperties": {
                "type": "object",
                "properties": {"err": {"type": "string"}, "description": {"type": "string"}},
                "required": ["err"],
            },
        },
    },
}
HEADERS = {
    "type": "object",
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    "properties": {
        "webhook-id": {"type": "string", "description": "the jti, unchanged over retries; of a batch an id of its own"},
        "webhook-timestamp": {"type": "string", "pattern": "^[0-9]{1,11}$", "description": "of this attempt; ± 5 minutes"},
        "webhook-signature": {
            "type": "string",
            "description": "separated by spaces: v1 (HMAC-SHA256, one for each live secret) and v1a (Ed25519)",
        },
    },
}  # fmt: skip


def _object(properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    needed = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": needed}


CONSENT = _object(
    {
        "id": UUID, "kind": {"enum": list(Consent.Kind.values)}, "source": {"oneOf": [CODE, {"type": "null"}]},
        "recipient": {"oneOf": [CODE, {"type": "null"}]}, "scopes": {"type": "array", "items": {"type": "string"}},
        "riders": {"type": "array", "items": {"enum": list(Rider.values)}}, "cycle": {"type": "string"},
        "until": {"type": "string", "format": "date"},
    }
)  # fmt: skip
FACTS: dict[str, Any] = {
    "subscription": UUID,
    "subject": UUID | {"description": "the person, at random; the same in every message"},
    "service": {"type": "string", "description": "client_id"},
    "consents": {"type": "array", "items": {"$ref": "#/components/schemas/Consent"}},
    "reason": {"enum": ["", *EndReason.values]},
    "role": {"enum": list(Delivery.Role.values)},
    "delete_data": {"type": "boolean", "description": "erase what was received, too"},
    "effective_at": INSTANT,
    "complete_by": INSTANT,
    "version": {
        "type": "integer",
        "minimum": 1,
        "description": "rises with every change of the subscription",
    },
}


def _claims() -> dict[str, Any]:
    """The claims of the SET (RFC 8417) that travels in `data.set`."""
    inside = FACTS | {
        "event_timestamp": SECONDS, "initiating_entity": {"enum": ["user", "system"]},
        "leaf": _object({"log": {"type": "string"}, "hash": {"type": "string", "contentEncoding": "base64"}}),
    }  # fmt: skip
    names = "|".join(EVENTS)
    return _object(
        {
            "iss": {"const": settings.PORTAL_URL}, "aud": CODE | {"description": "your organization code"}, "iat": SECONDS, "toe": SECONDS,
            "jti": UUID, "txn": UUID | {"description": "one act; the same for every party that is told"},
            "sub_id": _object({"format": {"const": "opaque"}, "id": UUID}),
            "events": {
                "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": False,
                "patternProperties": {f"^.+/secevent/({names})$": _object(inside)},
            },
        }
    )  # fmt: skip


def _body(kind: str, data: dict[str, Any]) -> dict[str, Any]:
    return _object({"type": {"const": kind}, "timestamp": INSTANT, "data": data})


def document() -> dict[str, Any]:
    """AsyncAPI 3.0.0, in the language of the request."""
    told = _object(
        {
            "txn": UUID,
            "jti": UUID,
            **FACTS,
            "set": {"type": "string", "description": "compact JWS: SetClaims"},
        }
    )
    bodies = {name: _body(name, told) for name in EVENTS}
    bodies |= {name: _body(name, _object(data)) for name, data in QUESTIONS.items()}
    each = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in EVENTS]}
    carried = {"type": "array", "items": each, "minItems": 2, "maxItems": native.MOST_TOGETHER}
    bodies[BATCH] = _body(BATCH, _object({"messages": carried}))
    vectors = published_vectors()
    messages: dict[str, dict[str, Any]] = {
        name: {
            "name": name,
            "title": str(EVENTS.get(name, name)),
            "contentType": "application/json",
            "headers": {"$ref": "#/components/schemas/WebhookHeaders"},
            "payload": {"$ref": f"#/components/schemas/{name}"},
        }
        for name in bodies
    }
    example = vectors["webhook"]
    messages[example["type"]]["examples"] = [
        {"name": "a stop", "headers": example["headers"], "payload": json.loads(example["body"])}
    ]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "방지턱 events", "version": "1",
            "description": "At least once, under one id; in order within one consent. Keep ids for 30 days.",
            "externalDocs": {"url": f"{settings.PORTAL_URL}/api/docs/events/"},
        },
        "defaultContentType": "application/json",
        "servers": {"yours": {"host": "your-server.example", "protocol": "https"}},
        "channels": {
            "webhook": {
                "address": "/hooks/consent",
                "description": "the address you registered at the desk; the same messages wait at POST /api/v1/sets/poll (RFC 8936)",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            },
            "answer": {
                "description": "the body of your 2xx, which may be empty",
                "messages": {"received": {"payload": {"$ref": "#/components/schemas/Received"}}},
            },
        },
        "operations": {
            "tell": {
                "action": "send", "channel": {"$ref": "#/channels/webhook"},
                "messages": [{"$ref": f"#/channels/webhook/messages/{name}"} for name in (*EVENTS, BATCH)],
                "reply": {
                    "channel": {"$ref": "#/channels/answer"},
                    "messages": [{"$ref": "#/channels/answer/messages/received"}],
                },
            },
            "ask": {
                "action": "send", "channel": {"$ref": "#/channels/webhook"},
                "messages": [{"$ref": f"#/channels/webhook/messages/{name}"} for name in QUESTIONS],
            },
        },
        "components": {
            "messages": messages,
            "schemas": {"WebhookHeaders": HEADERS, "Consent": CONSENT, "SetClaims": _claims(), "Received": BATCH_ANSWER, **bodies},
        },
    }  # fmt: skip


@functools.cache
def published_vectors() -> dict[str, Any]:
    """Messages with keys that everybody knows: what a receiver must take, and what it must refuse."""
    return datafiles.event_vectors()


@access.public
@require_safe
def asyncapi(request):
    return JsonResponse(document(), json_dumps_params={"ensure_ascii": False, "indent": 1})


@access.public
@require_safe
def event_vectors(request):
    content = json.dumps(published_vectors(), ensure_ascii=False, indent=1)
    return HttpResponse(content, content_type="application/json")


@access.public
@require_safe
def events(request):
    vectors = published_vectors()
    jti = vectors["set"]["claims"]["jti"]
    refused = {"err": "invalid_audience", "description": "aud"}
    shown = {
        "most": native.MOST_TOGETHER,
        "batch": '{"type":"batch","timestamp":"…","data":{"messages":[{"type":"subscription-ended", …}, …]}}',
        "answer": json.dumps({"ack": [jti], "setErrs": {jti[:-4] + "beef": refused}}, separators=(",", ":")),
        "events": EVENTS.items(),
        "fields": [(name, _words(schema)) for name, schema in FACTS.items()],
        "vectors": vectors,
        "signature": vectors["webhook"]["headers"]["webhook-signature"].split(),
        "refused": vectors["refuse"],
    }
    return render(request, "api/events.html", shown)


def _words(schema: dict[str, Any]) -> str:
    """A schema in a few words, for the table."""
    if "enum" in schema:
        return " | ".join(value or '""' for value in schema["enum"])
    kind = schema.get("format") or schema.get("type", "object")
    return f"{kind}: {schema['description']}" if "description" in schema else kind
