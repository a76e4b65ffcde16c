"""What every operation of the OpenAPI document gets when it is made: examples of what is sent and answered, and the headers
of answers. Nothing here is written by hand for one operation."""

from typing import Any

from consents.api import examples, problems
from consents.limits import WINDOW

HEADERS: dict[str, dict[str, Any]] = {
    "X-Request-Id": {
        "description": "yours, or one of ours",
        "schema": {"type": "string"},
        "example": "abc-1.2",
    },
    "RateLimit-Policy": {
        "description": "what you may do: q requests in w seconds; of an organization, a person or a visitor's address",
        "schema": {"type": "string"},
        "example": f'"organization";q=60000;w={WINDOW}',
    },
    "RateLimit": {
        "description": "what is left (r), and the seconds until it is whole again (t)",
        "schema": {"type": "string"},
        "example": '"organization";r=59999;t=42',
    },
    "Retry-After": {"description": "seconds", "schema": {"type": "integer"}, "example": 42},
    "Deprecation": {
        "description": "only where the operation will go away: since when (RFC 9745)",
        "schema": {"type": "string"},
        "example": "@1796083200",
    },
    "Sunset": {
        "description": "only where the operation will go away: when it ends (RFC 8594)",
        "schema": {"type": "string"},
        "example": "Wed, 01 Dec 2027 00:00:00 GMT",
    },
}
ALWAYS = ("X-Request-Id", "RateLimit-Policy", "RateLimit")
METHODS = ("get", "put", "post", "delete", "patch")


def complete(result: dict, generator, request, public) -> dict:
    """A postprocessing hook of drf-spectacular."""
    components = result["components"]
    components["headers"] = HEADERS
    for path, operations in result["paths"].items():
        for method in METHODS:
            if method in operations:
                schemas = components.get("schemas", {})
                _complete(operations[method], schemas, path)
    return result


# Pushed SETs are refused as application/json (RFC 8935 §2.4).
PLAIN = ("/api/v1/sets",)


def _complete(operation: dict, schemas: dict, path: str) -> None:
    is_korean = path.startswith("/mydata/")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        _with_example(content, schemas, kind)
    names = ALWAYS + (("Deprecation", "Sunset") if operation.get("deprecated") else ())
    for status, response in operation["responses"].items():
        waits = ("Retry-After",) if status in ("429", "503") else ()
        response.setdefault("headers", {}).update(
            {name: {"$ref": f"#/components/headers/{name}"} for name in names + waits}
        )
        if int(status) >= 400 and not is_korean and path not in PLAIN:
            _as_problem(response.get("content", {}))
        for kind, content in response.get("content", {}).items():
            if kind == problems.CONTENT_TYPE:
                content.setdefault("example", problems.body(_slug(int(status))))
            elif int(status) >= 400 and is_korean:
                content.setdefault("example", {"rsp_code": "40001", "rsp_msg": "잘못된 파라미터"})
            else:
                _with_example(content, schemas, kind)


def _as_problem(contents: dict) -> None:
    """A problem document has a media type of its own, also where a door describes one by hand."""
    told = contents.get("application/json", {}).get("schema", {}).get("$ref", "")
    if told.endswith("/Problem"):
        contents[problems.CONTENT_TYPE] = contents.pop("application/json")


def _slug(status: int) -> str:
    usual = {409: "already-ended", 422: "unknown-arrangement", 503: "try-again", 500: "server-error"}
    return problems.OF_STATUS.get(status) or usual[status]


def _with_example(content: dict, schemas: dict, kind: str) -> None:
    for example in content.get("examples", {}).values():
        value = example["value"]
        if isinstance(value, list) and value and isinstance(value[0], list):
            example["value"] = value[0]  # a list that was put into a list of lists
    if "example" in content or "examples" in content or "schema" not in content:
        return
    if kind.endswith("jwt"):
        content["example"] = examples.JWS
        return
    content["example"] = examples.of(content["schema"], schemas)
