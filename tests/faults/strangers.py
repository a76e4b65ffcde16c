"""Hooks of schemathesis: bodies of types that it does not know by itself go out as they are. Loaded by its own process."""

import json

import schemathesis


def _bytes(value) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


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
    """Waiting for messages is what a long poll is for; a stranger with little time does not wait."""
    if case.operation.path.endswith("/sets/poll") and isinstance(case.body, dict):
        case.body.setdefault("returnImmediately", True)
