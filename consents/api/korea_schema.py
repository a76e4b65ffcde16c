"""The tables of the Korean support API as JSON Schema and parameters: what the OpenAPI document says is what is checked."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from providers.wires.korea_fields import RSP, TEXTS, TRAN_ID, Field
from providers.wires.korea_served import SERVED

TRAN_ID_HEADER = "x-api-tran-id"


def schema(fields: Mapping[str, Field], *, closed: bool = False) -> dict[str, Any]:
    """One object; `closed` allows no other field."""
    made: dict[str, Any] = {
        "type": "object",
        "properties": {name: _one(field, closed) for name, field in fields.items()},
    }
    for name, field in fields.items():
        if field.type == "rows" and (counts := fields[field.count].values):
            made["properties"][name] |= {"minItems": int(counts[0]), "maxItems": int(counts[-1])}
    needed = [name for name, field in fields.items() if field.required and field.type != "rows"]
    if needed:
        made["required"] = needed
    if closed:
        made["additionalProperties"] = False
    return made


def _one(field: Field, closed: bool) -> dict[str, Any]:
    if field.type == "rows":
        return {"type": "array", "maxItems": field.length, "items": schema(field.rows, closed=closed)}
    if field.type == "Boolean":
        return {"type": "boolean"}
    if field.type == "N" and not field.exact:
        numbers = [int(value) for value in field.values]
        return {"type": "integer", "minimum": 0, "maximum": 10**field.length - 1} | (
            {"enum": numbers} if numbers else {}
        )
    if field.type == "F":
        return {"oneOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _pattern(field)}]}
    made: dict[str, Any] = {"type": "string", "pattern": _pattern(field), "maxLength": field.length}
    if field.exact or field.type in ("DATE", "DTIME"):
        made["minLength"] = field.length
    return made | ({"enum": list(field.values)} if field.values else {})


def _pattern(field: Field) -> str:
    text = TEXTS[field.type].pattern
    return f"^{text[:-1]}{{{field.length}}}$" if field.exact and text.endswith("+") else f"^{text}$"


def parameters(name: str) -> list[OpenApiParameter]:
    """The header that every call has, and the parameters of a GET."""
    made = [
        OpenApiParameter(
            TRAN_ID_HEADER, str, OpenApiParameter.HEADER, required=True, pattern=_pattern(TRAN_ID),
            description="AN(25): 기관코드(10) + 생성주체(1) + 부여번호(14); repeated in the answer",
        )
    ]  # fmt: skip
    call = SERVED[name]
    if call.method == "GET":
        made += [
            OpenApiParameter(key, _one(field, False), required=field.required)
            for key, field in call.request.items()
        ]
    return made


def body(name: str) -> dict[str, Any]:
    return schema(SERVED[name].request, closed=True)


def answer(name: str) -> OpenApiResponse:
    return OpenApiResponse(schema(SERVED[name].answer), "rsp_code 00000")


def refusal(words: str) -> OpenApiResponse:
    return OpenApiResponse(schema(RSP), words)
