"""Uploaded files of one organization: which there are, how far each is, which rows were refused and why."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from django.utils import translation

from consents import access, reports
from consents.models import Upload, UploadRefusal
from consents.transfers import REASONS
from consents.uploads import UNREAD
from providers.models import Organization

from . import paging

COUNTS = ("created", "updated", "unchanged", "mismatched", "waiting", "refused")
SHOWN = 20  # refused rows on a page
_CHUNK = 1_000  # of the file of refused rows


@access.only_own
def uploads(organization: Organization, *, after: str = "") -> paging.Page:
    """A page of its files, newest first. One query. Raises paging.BadCursor."""
    rows = Upload.objects.of(organization)
    return paging.page(rows, moment="opened_at", number="pk", after=after)


def progress(upload: Upload) -> dict[str, Any]:
    """What a page shows of one file. No query."""
    return {
        "upload": upload,
        "counts": [(name, getattr(upload, name)) for name in COUNTS],
        "percent": upload.percent,
        "fault": fault(upload),
        "droppable": upload.state in UNREAD,
    }


def fault(upload: Upload) -> str:
    """Why the file could not be read, in the language of whoever reads it; empty where it could."""
    try:
        code, values = json.loads(upload.fault)
    except ValueError:  # words of before there were codes
        return upload.fault
    return str(reports.NotAReport(code, **values))


def refusals(upload: Upload, *, beyond: int = 0) -> tuple[list[dict[str, Any]], int | None]:
    """Refused rows after the number `beyond`, in order, and the number to go on from. One query."""
    found = list(upload.refusals.filter(number__gt=beyond)[: SHOWN + 1])
    rows = [shown(row) for row in found[:SHOWN]]
    return rows, rows[-1]["number"] if len(found) > SHOWN else None


def shown(row: UploadRefusal) -> dict[str, Any]:
    return {
        "number": row.number,
        "column": row.column,
        "code": row.code,
        "reason": reason(row.code, row.values),
        "faults": [(column, reason(code, values)) for column, code, values in faults(row)],
    }


def faults(row: UploadRefusal) -> list[tuple[str, str, dict]]:
    """All that is wrong with a row, as column, code and values; the first is the row's own."""
    also = [(fault["column"], fault["code"], fault["values"]) for fault in row.values.get("also", ())]
    return [(row.column, row.code, row.values), *also]


def reason(code: str, values: dict[str, str]) -> str:
    """Why a row was refused, in the language of whoever reads it."""
    if code == "words":
        return values.get(translation.get_language() or "ko", values["ko"])
    return str(REASONS[code]) if code in REASONS else reports.words(code, values)


def refused_lines(upload: Upload) -> Iterator[str]:
    """The refused rows as CSV, a line for each fault, a thousand rows at a time in memory, in the language of whoever asked."""
    language = translation.get_language() or "ko"
    yield "number,column,code,reason\r\n"
    last = -1
    while found := list(upload.refusals.filter(number__gt=last)[:_CHUNK]):
        last = found[-1].number
        out = io.StringIO()
        with translation.override(language):
            csv.writer(out, quoting=csv.QUOTE_ALL).writerows(
                [row.number, _safe(column), code, reason(code, values)]
                for row in found
                for column, code, values in faults(row)
            )
        yield out.getvalue()


def _safe(text: str) -> str:
    """No formula where a spreadsheet opens it: a column's name may be anything that somebody sent."""
    return f"'{text}" if text[:1] in "=+-@\t\r" and text else text
