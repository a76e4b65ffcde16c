"""Pages by keyset: a cursor names the last row seen, so a page costs the same at any depth and new rows move nothing."""

import datetime
import re
from dataclasses import dataclass
from typing import Any

from django.db.models import F, Q, QuerySet

SIZE = 20
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_CURSOR = re.compile(r"(\d{1,17})-(\d{1,18})", re.ASCII)


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
    """One page ordered by the field `moment`, then by the unique field `number`. Raises BadCursor."""
    if after:
        at, pk = decode(after)
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


def encode(at: datetime.datetime, pk: int) -> str:
    return f"{(at - _EPOCH) // datetime.timedelta(microseconds=1)}-{pk}"


def decode(cursor: str) -> tuple[datetime.datetime, int]:
    """Raises BadCursor."""
    found = _CURSOR.fullmatch(cursor)
    if not found:
        raise BadCursor(cursor[:60])
    return _EPOCH + datetime.timedelta(microseconds=int(found[1])), int(found[2])


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
