"""What operators report about holdings: reads their rows, and says of each what it states or why it is refused."""

import csv
import datetime
import json
import re
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dateutil.relativedelta import relativedelta

from providers import policy

COLUMNS = (
    "subject", "service_client_id", "joined_on", "source_org_code", "scopes", "purpose", "cycle", "end_date", "retained_until",
    "last_used_on",
)  # fmt: skip
UNTIL_ERASED = "99991231"  # the standard API's sentinel: kept until the person leaves or asks
LONGEST_CELL = 2_000
CYCLES = {"": "", "1/w": "1/1w", "1/1w": "1/1w", "1/2w": "1/2w", "1/3w": "1/3w", "1/4w": "1/4w"}


class NotAReport(ValueError):
    """The file as a whole cannot be read; the message says what to do."""


class Refused(ValueError):
    """One row cannot go in: which column, and why."""

    def __init__(self, column: str, reason: str):
        super().__init__(f"{column}: {reason}")
        self.column, self.reason = column, reason


@dataclass(frozen=True, slots=True)
class Holding:
    """One row: data of one source that flows to one service for one person."""

    number: int
    subject: uuid.UUID
    client_id: str
    joined_on: datetime.date
    source: str
    scopes: tuple[str, ...]
    purpose: str
    cycle: str
    end_date: datetime.date
    retained_until: datetime.date | None
    last_used_on: datetime.date | None


def read(path: Path) -> Iterator[tuple[int, Mapping]]:
    """Row number (as an editor or a spreadsheet shows it) and row, streamed. CSV by header, or NDJSON by the file's name.

    UTF-8 with or without a byte order mark. Raises OSError, NotAReport."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        if path.suffix in (".ndjson", ".jsonl"):
            yield from _objects(file)
        else:
            yield from _cells(file, path)


def _objects(file) -> Iterator[tuple[int, Mapping]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda name: name)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else {"": line[:200]}


def _cells(file, path: Path) -> Iterator[tuple[int, Mapping]]:
    lines = csv.reader(file, strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise NotAReport(
                f"{path} lacks the column {', '.join(missing)}: the first row must be {','.join(COLUMNS)}"
            )
        if len(set(header)) != len(header):
            raise NotAReport(f"{path} has a column twice: keep one")
        for cells in lines:
            if any(cell.strip() for cell in cells):
                extra = {"": "more cells than the header"} if len(cells) > len(header) else {}
                yield lines.line_num, {**dict(zip(header, cells, strict=False)), **extra}
    except csv.Error as error:
        raise NotAReport(
            f"{path}, line {lines.line_num}: not a CSV row that can be read ({error}): check the quotes"
        ) from error


def holding(number: int, row: Mapping, *, today: datetime.date, codes: set[str]) -> Holding:
    """What a row states, or Refused. `codes` are the known scope codes. Nothing in a row can lie in the future but its end."""
    if unknown := sorted(str(name) for name in set(row) - set(COLUMNS)):
        raise Refused(unknown[0], "is not a column of this file, or the row cannot be read")
    cells = {name: _cell(row, name) for name in COLUMNS}
    joined_on = _day(cells, "joined_on")
    end_date = _day(cells, "end_date")
    last_used_on = _day(cells, "last_used_on") if cells["last_used_on"] else None
    if joined_on > today:
        raise Refused("joined_on", f"is later than today ({today})")
    longest = joined_on + relativedelta(years=policy.number("JOIN_MAX_YEARS_V2", on=today))
    if not joined_on < end_date <= longest:
        raise Refused("end_date", f"must be after joined_on and not later than {longest}")
    if end_date < today:
        raise Refused("end_date", "has passed: report holdings that are live")
    if last_used_on and not joined_on <= last_used_on <= today:
        raise Refused("last_used_on", f"must be between joined_on and today ({today})")
    if cells["cycle"] not in CYCLES:
        raise Refused("cycle", f"must be one of {', '.join(filter(None, CYCLES))}, or empty")
    return Holding(
        number=number,
        subject=_subject(cells["subject"]),
        client_id=_filled(cells, "service_client_id"),
        joined_on=joined_on,
        source=_filled(cells, "source_org_code"),
        scopes=_scopes(cells["scopes"], codes),
        purpose=_filled(cells, "purpose")[:200],
        cycle=CYCLES[cells["cycle"]],
        end_date=end_date,
        retained_until=_retained(cells, end_date),
        last_used_on=last_used_on,
    )


def _cell(row: Mapping, name: str) -> str:
    value = row.get(name)
    if value is None:
        if name in ("cycle", "retained_until", "last_used_on"):
            return ""
        raise Refused(name, "is missing")
    if isinstance(value, list) and name == "scopes":
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        raise Refused(name, "must be text")
    if len(value) > LONGEST_CELL:
        raise Refused(name, f"is longer than {LONGEST_CELL} characters")
    if "�" in value:
        raise Refused(name, "is not UTF-8: save the file as UTF-8")
    if any(unicodedata.category(character).startswith("C") for character in value):
        raise Refused(name, "holds a character that cannot be seen, such as a line break")
    return unicodedata.normalize("NFC", value).strip()


def _filled(cells: Mapping[str, str], name: str) -> str:
    if not cells[name]:
        raise Refused(name, "is empty")
    return cells[name]


def _subject(text: str) -> uuid.UUID:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", text):
        raise Refused("subject", "must be the subject id that the portal gave, a UUID")
    return uuid.UUID(text)


def _day(cells: Mapping[str, str], name: str) -> datetime.date:
    text = cells[name]
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}", text, re.ASCII):
        raise Refused(name, "must be a date such as 2026-11-22 or 20261122")
    digits = text.replace("-", "")
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        raise Refused(name, "is not a day of the calendar") from None


def _retained(cells: Mapping[str, str], end_date: datetime.date) -> datetime.date | None:
    if cells["retained_until"].replace("-", "") in ("", UNTIL_ERASED):
        return None
    retained = _day(cells, "retained_until")
    if retained < end_date:
        raise Refused("retained_until", "is earlier than end_date")
    return retained


def _scopes(text: str, codes: set[str]) -> tuple[str, ...]:
    scopes = tuple(sorted(set(text.split())))
    if not scopes:
        raise Refused("scopes", "is empty")
    if unknown := [scope for scope in scopes if scope not in codes]:
        raise Refused("scopes", f"{unknown[0]} is not a scope of the catalogue")
    return scopes
