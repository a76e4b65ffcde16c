"""Pages by keyset: a cursor names the last row seen, so a page costs the same at any depth and new rows move nothing."""

import datetime
import re
import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q, QuerySet, UUIDField

SIZE = 20
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_CURSOR = re.compile(r"(\d{1,17})-(\d{1,18}|u\d{1,39})", re.ASCII)
LARGEST_UUID = 2**128 - 1


class BadCursor(ValueError):
    """The cursor is not one of ours."""


@dataclass(frozen=True, slots=True)
class Page:
    """`next` is the cursor of the following page, None on the last one."""

    rows: list[Any]
    next: str | None


def page(
    rows: QuerySet, *, moment: str, number: str, after: str = "", newest_first: bool = True, size: int = SIZE
) -> Page:
    """One page ordered by the field `moment`, then by the unique field `number`, an integer or a UUID. Raises BadCursor."""
    if after:
        at, pk = decode(after)
        meta = rows.model._meta
        field = meta.pk if number == "pk" else meta.get_field(number)
        if isinstance(pk, uuid.UUID) != isinstance(field, UUIDField):  # a cursor of another list
            raise BadCursor(after[:60])
        side = "lt" if newest_first else "gt"
        # The first condition bounds the index scan, the second leaves out what was already seen at that very moment.
        rows = rows.filter(**{f"{moment}__{side}e": at}).filter(
            Q(**{f"{moment}__{side}": at}) | Q(**{f"{number}__{side}": pk})
        )
    order = [F(moment).desc(), F(number).desc()] if newest_first else [F(moment).asc(), F(number).asc()]
    found = list(rows.order_by(*order)[: size + 1])
    if len(found) <= size:
        return Page(found, None)
    last = found[size - 1]
    return Page(found[:size], encode(getattr(last, moment), getattr(last, number)))


def encode(at: datetime.datetime, pk: int | uuid.UUID) -> str:
    number = f"u{pk.int}" if isinstance(pk, uuid.UUID) else f"{pk}"
    return f"{(at - _EPOCH) // datetime.timedelta(microseconds=1)}-{number}"


def decode(cursor: str) -> tuple[datetime.datetime, int | uuid.UUID]:
    """Raises BadCursor."""
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise BadCursor(cursor[:60])
    at, number = _EPOCH + datetime.timedelta(microseconds=int(found[1])), found[2]
    if not number.startswith("u"):
        return at, int(number)
    if int(number[1:]) > LARGEST_UUID:
        raise BadCursor(cursor[:60])
    return at, uuid.UUID(int=int(number[1:]))


def links(request, following: Page) -> dict[str, str | None]:
    """`next_url` and `first_url` for the pagination component: this address with its filters, and another cursor."""
    kept = request.GET.copy()
    came_from = kept.pop("after", None)
    first = f"?{kept.urlencode()}" if kept else request.path
    kept["after"] = following.next or ""
    return {
        "next_url": f"?{kept.urlencode()}" if following.next else None,
        "first_url": first if came_from else None,
    }
