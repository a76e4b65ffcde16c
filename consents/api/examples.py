"""Examples of the OpenAPI document: some told by hand, all others made from the schema, one value for each name."""

import json
from collections.abc import Sequence
from typing import Any

from drf_spectacular.utils import OpenApiExample

OFFER = {
    "name_ko": "징검다리 가계부", "name_en": "Stepping Stone Ledger",
    "summary_ko": "통장을 모아 저절로 쓰는 가계부", "summary_en": "A ledger that fills itself in from your accounts",
    "benefit_ko": "한 달에 얼마를 썼는지 손으로 적지 않아도 알 수 있어요.", "benefit_en": "You see what you spent without writing it down.",
    "loss_ko": "가계부에 새 내역이 쌓이지 않아요.", "loss_en": "No new entries reach your ledger.",
    "purpose_code": "budgeting",
}  # fmt: skip
VERSION = {
    "change_kind": "first",
    "summary_ko": "통장 내역으로 가계부를 써 드려요. 한 주에 한 번 받아요.",
    "summary_en": "We keep your ledger from your accounts, once a week.",
    "text_ko": "## 누가 받나요\n\n징검다리가 받아요.\n", "text_en": "## Who receives it\n\nStepping Stone does.\n",
    "items": [
        {
            "kind": "transfer", "required": True, "source": "BKNEUT9001", "scopes": ["bank.list", "bank.deposit"], "cycle": "1/1w",
            "valid_months": 12, "title_ko": "느티은행에서 예금 정보 가져오기", "title_en": "Get deposit information from Neuti Bank",
            "purpose_ko": "들어오고 나간 돈을 가계부에 적으려고 받아요.", "purpose_en": "To enter what came in and went out.",
            "retention_ko": "그만두거나 지워 달라고 할 때까지", "retention_en": "Until you leave or ask for it to be erased",
        },
        {
            "kind": "marketing", "required": False, "valid_months": 12, "title_ko": "새 소식 받기", "title_en": "News",
            "purpose_ko": "새 기능을 알려 드려요.", "purpose_en": "To tell you about new features.",
            "retention_ko": "그만둘 때까지", "retention_en": "Until you leave", "grade": "02",
        },
    ],
}  # fmt: skip

JWS = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjEiLCJ0eXAiOiJKV1QifQ.eyJpc3MiOiJodHRwczovL3BvcnRhbC5leGFtcGxlIn0.c2lnbmF0dXJl"
DIGEST = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
# Values by the name of the property, where the schema alone would say little.
VALUES: dict[str, Any] = {
    "at": "2026-11-22T05:03:00Z", "code": "BKNEUT9001", "client_id": "durumi-ledger-01", "slug": "durumi-ledger", "name_ko": "느티은행",
    "name_en": "Neuti Bank", "title_ko": "느티은행에서 예금 정보 가져오기", "title_en": "Get deposit information from Neuti Bank",
    "purpose_ko": "가계부에 적으려고 받아요.", "purpose_en": "To enter it in your ledger.", "receipt": JWS, "set": JWS, "cycle": "1/1w",
    "digest": DIGEST, "text_digest": DIGEST, "digest_ko": DIGEST, "digest_en": DIGEST, "detail": "새 토큰을 받아 Authorization: Bearer로 보내 주세요.",
    "pointer": "#/service", "service": "durumi-ledger-01", "source": "BKNEUT9001", "operator": "FTDURU9001", "key": "2026-11-22/0001",
    "language": "ko", "scopes": ["bank.list", "bank.deposit"], "codes": ["bank.deposit"], "next": "ImUwMSI:1vNp0e:Zk3",
    "reason": "person_left", "end_reason": "person_left", "purpose_code": "budgeting", "typ": "subscription.ended", "by": "person",
    "org_code": "BKNEUT9001", "org_name": "느티은행", "rsp_code": "00000", "rsp_msg": "성공", "search_timestamp": 20261122000000,
    "stat_date": "20261115", "inquiry_date": "20261122", "tm_slot": "01", "api_type": "BA01", "org_regno": "9991657099",
    "serial_num": "9991657099", "industry": "bank", "redirect_uri": "https://app.example.com/back", "service_name": "두루미 가계부",
    "redirect_uri_cnt": 1, "org_cnt": 1, "service_cnt": 1, "stat_date_cnt": 7, "access_token": "Rk0XnJ5mB2v8", "expires_in": 600,
    "client_secret": "8fJ2kQvXw3bZ1nM5rT7yU9iO0pA4sD6fG", "limit": 20, "moreAvailable": False, "week_on": "2026-11-15", "jti_text": "e-1",
    "authorize_url": "https://portal.example/requests/7b0c6a52-6d1f-4f0e-9a57-3f6c2f1f9a10/", "corp_regno": "1101110000001",
}  # fmt: skip
BY_FORMAT = {
    "uuid": "01a2013b-6740-7a01-8f00-00000000c0de", "date-time": "2026-11-22T05:03:00Z", "date": "2026-11-22",
    "uri": "https://portal.example/", "email": "privacy@neuti-bank.example", "binary": "",
}  # fmt: skip
DEEPEST = 8


def of(schema: dict, components: dict, *, name: str = "", depth: int = 0) -> Any:
    """An example of a schema, as an honest answer could look."""
    schema = _resolved(schema, components)
    if "example" in schema:
        return schema["example"]
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return next((value for value in schema["enum"] if value not in (None, "")), schema["enum"][0])
    for word in ("oneOf", "anyOf"):
        if schema.get(word):
            return of(_first(schema[word], components), components, name=name, depth=depth)
    kind = _kind(schema)
    if kind == "object":
        return _object(schema, components, depth)
    if kind == "array":
        return _array(schema, components, name, depth)
    if name in VALUES and _fits(VALUES[name], kind):
        return VALUES[name]
    return _scalar(schema, kind)


def _resolved(schema: dict, components: dict) -> dict:
    while "$ref" in schema:
        schema = components[schema["$ref"].rpartition("/")[2]]
    if "allOf" in schema:
        merged: dict = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            merged = _resolved(part, components) | merged
        return merged
    return schema


def _first(choices: list[dict], components: dict) -> dict:
    """A choice that says something: not null, and not the empty word."""
    told = [_resolved(choice, components) for choice in choices]
    return next(
        (one for one in told if one.get("type") != "null" and one.get("enum") not in ([""], [None])), told[0]
    )


def _kind(schema: dict) -> str:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return next((one for one in kind if one != "null"), "null") if isinstance(kind, list) else kind


def _object(schema: dict, components: dict, depth: int) -> dict:
    if depth > DEEPEST:
        return {}
    made = {
        key: of(inner, components, name=key, depth=depth + 1)
        for key, inner in schema.get("properties", {}).items()
    }
    more = schema.get("additionalProperties")
    if not made and isinstance(more, dict):
        return {BY_FORMAT["uuid"]: of(more, components, name="set", depth=depth + 1)}
    return made


def _array(schema: dict, components: dict, name: str, depth: int) -> list:
    if isinstance(VALUES.get(name), list) and _kind(_resolved(schema["items"], components)) == "string":
        return VALUES[name]
    count = max(1, schema.get("minItems", 1))
    return [of(schema["items"], components, name="", depth=depth + 1)] * count


def _fits(value: Any, kind: str) -> bool:
    wanted = {"string": str, "integer": int, "number": int | float, "boolean": bool}.get(kind)
    return wanted is not None and isinstance(value, wanted) and isinstance(value, bool) == (kind == "boolean")


def _scalar(schema: dict, kind: str) -> Any:
    if kind == "boolean":
        return False
    if kind in ("integer", "number"):
        return max(1, schema.get("minimum", 1)) if schema.get("maximum", 2) >= 1 else schema["maximum"]
    if kind == "null":
        return None
    if schema.get("format") in BY_FORMAT:
        return BY_FORMAT[schema["format"]]
    return _text(schema)


def _text(schema: dict) -> str:
    length = schema.get("minLength", 0)
    pattern = schema.get("pattern", "")
    if "[0-9]{8}" in pattern:
        return "20261122"
    if "[0-9]{14}" in pattern:
        return "20261122000000"
    if pattern.startswith(r"^-?\d"):  # a decimal number
        return "12.5"
    if "[0-9]" in pattern and "A-Z" not in pattern:
        return "1" * max(1, length)
    return "A" * length if length else "text"[: schema.get("maxLength", 4)]


def of_rows(name: str, rows: list[dict[str, Any]], columns: Sequence[str]) -> list[OpenApiExample]:
    """The same rows in each of the forms that bulk doors take; a CSV has all `columns`."""
    cells = [[_cell(row.get(column, "")) for column in columns] for row in rows]
    csv = "".join(",".join(line) + "\n" for line in [columns, *cells])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    forms = {"application/json": rows, "application/x-ndjson": lines, "text/csv": csv}
    return [
        OpenApiExample(name, request_only=True, media_type=kind, value=value) for kind, value in forms.items()
    ]


def _cell(value: object) -> str:
    """As a CSV has it: a list is its words, a truth is written small."""
    if isinstance(value, list):
        return " ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def week(**of_whose: str) -> dict[str, Any]:
    """A week of the Korean support API with one organization in it."""
    slot = {
        "tm_slot": "01", "rsp_avg": "12.5", "rsp_total": "125", "rsp_stdev": "0.031", "success_api_cnt": 9, "fail_api_cnt": 1,
    }  # fmt: skip
    of_row = {name: value for name, value in of_whose.items() if name == "org_code"}
    row = of_row | {
        "consent_new": 2, "consent_revoke": 1, "consent_own": 120, "api_type_cnt": 1,
        "api_type_list": [{"api_type": "BA01", "tm_slot_cnt": 1, "tm_slot_list": [slot]}],
    }  # fmt: skip
    days = [f"202611{day}" for day in range(15, 22)]
    return {name: value for name, value in of_whose.items() if name != "org_code"} | {
        "type": "1", "inquiry_date": "20261122", "stat_date_cnt": 7,
        "stat_date_list": [{"stat_date": day, "org_cnt": 1, "org_list": [row]} for day in days],
    }  # fmt: skip
