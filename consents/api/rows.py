"""Rows that come in by the hundred: a JSON array, NDJSON or CSV, up to 1,000 in 1 MB."""

from collections.abc import Iterable

from django.utils.translation import gettext as _
from rest_framework.parsers import BaseParser

from consents import reports
from consents.api.problems import Problem, StrictJSONParser, read
from providers.plainjson import strict_json

LARGEST = 1_048_576  # bytes
MOST = 1_000


class ArrayParser(StrictJSONParser):
    """A JSON array. As StrictJSONParser, but up to 1 MB, and a NUL or lone surrogate spoils its own row only."""

    largest, storable = LARGEST, False


class LinesParser(BaseParser):
    """One JSON object a line (NDJSON), UTF-8; a line that is no JSON stands as None."""

    media_type = "application/x-ndjson"

    def parse(self, stream, media_type=None, parser_context=None):
        raw = read(stream, parser_context, LARGEST)
        return [_line(line) for line in raw.split(b"\n") if line.strip()]


def _line(line: bytes) -> object:
    try:
        return strict_json(line, storable=False)
    except ValueError:
        return None


class CsvParser(BaseParser):
    """CSV with the names of the columns in the first row, UTF-8; each row as names and texts."""

    media_type = "text/csv"
    columns: Iterable[str] = ()

    def parse(self, stream, media_type=None, parser_context=None):
        text = read(stream, parser_context, LARGEST).decode("utf-8-sig", "replace")
        first, *lines = text.split("\n")
        try:
            header = reports.header_of(first, self.columns)
        except reports.NotAReport as error:
            raise Problem("malformed-body", detail=f"CSV {error}") from error
        return [dict(row) for _number, row in reports.cells(enumerate(lines, start=2), header)]


def parsers(columns: Iterable[str]) -> list[type[BaseParser]]:
    """For a door whose rows have these names."""
    return [ArrayParser, LinesParser, type("RowsParser", (CsvParser,), {"columns": tuple(columns)})]


def given(request) -> list:
    """The rows that came. Raises Problem invalid-request where they are none, or too many."""
    found = request.data
    if not isinstance(found, list) or not 0 < len(found) <= MOST:
        raise Problem(
            "invalid-request",
            errors=[{"pointer": "#", "detail": _("1개부터 1,000개까지의 목록이어야 해요.")}],
        )
    return found
