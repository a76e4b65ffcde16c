"""Hooks of schemathesis: bodies of types that it does not know by itself go out as they are. Loaded by its own process."""

import json
import os
import random
from pathlib import Path

import schemathesis


def _bytes(value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


# Start of a path → ids that are there, each with its owner's token; none where nobody has said so.
KNOWN: dict[str, list[dict[str, str]]] = json.loads(Path(os.environ["STRANGERS_IDS"]).read_text())


@schemathesis.check
def nothing_of_another_tenant(ctx, response, case) -> None:
    """Whoever asks for another's thing by its id gets nothing, whatever they want with it."""
    ids = {
        one["id"]: one["owner"]
        for one in KNOWN.get(case.operation.path.split("{")[0].removeprefix("/api/v1"), [])
    }
    for value in (case.path_parameters or {}).values():
        owner = ids.get(value)
        asked = (response.request.headers.get("Authorization") or "").removeprefix("Bearer ")
        assert owner is None or asked == owner or response.status_code >= 400, (
            f"{case.method} {case.operation.path} answered {response.status_code} to somebody whose it is not"
        )


@schemathesis.serializer("application/secevent+jwt", "application/jwt")
def compact(ctx, value) -> bytes:
    return _bytes(value)


@schemathesis.serializer("application/x-ndjson")
def lines(ctx, value) -> bytes:
    rows = value if isinstance(value, list) else [value]
    return b"\n".join(json.dumps(row).encode() for row in rows)


@schemathesis.serializer("text/csv")
def table(ctx, value) -> bytes:
    return _bytes(value)


@schemathesis.hook
def before_load_schema(ctx, raw_schema) -> None:
    """Strangers come with tokens: the portal's own pages, which come with a session, are crawled in test_access.py."""
    for operations in raw_schema["paths"].values():
        for operation in operations.values():
            if isinstance(operation, dict) and "security" in operation:
                operation["security"] = [need for need in operation["security"] if "browser" not in need]


@schemathesis.hook
def before_call(ctx, case, kwargs) -> None:
    """Waiting for messages is what a long poll is for; a stranger with little time does not wait. And half of the things that
    they ask for by an id are there: one's own or another tenant's."""
    ids = KNOWN.get(case.operation.path.split("{")[0].removeprefix("/api/v1"), [])
    if ids and len(case.path_parameters or {}) == 1 and random.random() < 0.5:
        case.path_parameters = dict.fromkeys(case.path_parameters, random.choice(ids)["id"])
    if case.operation.path.endswith("/sets/poll") and isinstance(case.body, dict):
        case.body.setdefault("returnImmediately", True)
