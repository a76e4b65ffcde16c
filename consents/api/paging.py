"""Pages by cursor: `{"results": […], "next": "…" | null}`, never a total. A page costs the same at any depth."""

import uuid
from typing import Any

from django.core import signing
from django.db.models import QuerySet
from rest_framework import serializers

from consents.api.problems import Problem
from consents.api.shapes import Query, Text

LARGEST = 100


class PageQuery(Query):
    """The parameters of every list."""

    cursor = Text(max_length=200, required=False, help_text="`next` of the page before")
    limit = serializers.IntegerField(min_value=1, max_value=LARGEST, default=20)


def page(rows: QuerySet, *, order: str, name: str, query: dict) -> tuple[list[Any], str | None]:
    """The rows after the cursor and the cursor of the next page. `order` is one unique field, `-` in front for newest
    first; `name` ties a cursor to its list. Raises Problem bad-cursor."""
    field, side = order.lstrip("-"), "lt" if order.startswith("-") else "gt"
    cursor = query.get("cursor")
    if cursor:
        rows = rows.filter(**{f"{field}__{side}": _opened(cursor, name)})
    found = list(rows.order_by(order)[: query["limit"] + 1])
    if len(found) <= query["limit"]:
        return found, None
    found = found[:-1]
    return found, _sealed(getattr(found[-1], field), name)


def _sealed(value, name: str) -> str:
    return signing.dumps(str(value) if isinstance(value, uuid.UUID) else value, salt=f"page of {name}")


def _opened(cursor: str, name: str):
    try:
        return signing.loads(cursor, salt=f"page of {name}")
    except signing.BadSignature as error:
        raise Problem("bad-cursor") from error
