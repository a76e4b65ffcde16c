"""The public licence register as a file: reads its rows, and says of each what it states or why it is refused."""

import csv
import datetime
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from providers.models import Licence, Organization
from providers.models.organizations import LicenceStatus, Sector

COLUMNS = (
    "org_code", "name_ko", "name_en", "sector", "role", "licence_status", "decided_on", "effective_on", "source",
)  # fmt: skip
OPTIONAL = ("registration_number",)
ROLES = ("operator", "source", "both")
LARGEST_FILE = 10 * 1024 * 1024  # bytes; ten thousand organizations are below 2 MB

_LONGEST = {
    "name_ko": Organization._meta.get_field("name_ko").max_length or 0,
    "name_en": Organization._meta.get_field("name_en").max_length or 0,
    "source": Licence._meta.get_field("source").max_length or 0,
}


class NotARegister(ValueError):
    """The file as a whole cannot be read as a register; the message says what to do."""


class Refused(ValueError):
    """One row cannot go in: which column, and why."""

    def __init__(self, column: str, reason: str):
        super().__init__(f"{column}: {reason}")
        self.column = column
        self.reason = reason


@dataclass(frozen=True)
class Entry:
    """What one row states: an organization and, for an operator, one decision about its licence."""

    org_code: str
    name_ko: str
    name_en: str
    sector: str
    is_operator: bool
    is_source: bool
    status: str = ""
    decided_on: datetime.date | None = None
    effective_on: datetime.date | None = None
    source: str = ""
    registration_number: str = ""


def read(path: Path) -> Iterator[dict[str | None, str]]:
    """The rows below the header, in order; a blank line is an empty row, so that numbers stay those of a spreadsheet.

    UTF-8 with or without a byte order mark. Raises OSError, and NotARegister: too large, a column missing, bad quotes."""
    with path.open("rb") as file:
        raw = file.read(LARGEST_FILE + 1)
    if len(raw) > LARGEST_FILE:
        raise NotARegister(
            f"{path} is larger than {LARGEST_FILE // 1024 // 1024} MB: split it into smaller files"
        )
    # A byte that is not UTF-8 becomes U+FFFD, which `entry` refuses in its row: one bad cell does not stop the others.
    lines = csv.reader(io.StringIO(raw.decode("utf-8-sig", errors="replace"), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        missing = [name for name in COLUMNS if name not in header]
        if missing:
            raise NotARegister(
                f"{path} lacks the column {', '.join(missing)}: the first row must be {','.join(COLUMNS)}"
            )
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise NotARegister(f"{path} has the column {', '.join(twice)} twice: keep one")
        return iter([_row(header, cells) for cells in lines])
    except csv.Error as error:
        raise NotARegister(
            f"{path} is not a CSV file that can be read ({error}): check the quotes"
        ) from error


def _row(header: list[str], cells: list[str]) -> dict[str | None, str]:
    if not any(cell.strip() for cell in cells):
        return {}
    row: dict[str | None, str] = dict(zip(header, cells, strict=False))
    if len(cells) > len(header):
        row[None] = cells[len(header)]
    return row


def entry(row: Mapping, *, today: datetime.date) -> Entry:
    """What a row states, or Refused. A decision cannot be later than `today`; taking effect can."""
    cells = {name: _cell(row, name) for name in (*COLUMNS, *(name for name in OPTIONAL if name in row))}
    if None in row:
        raise Refused("", "has more cells than the header: put quotes around a cell that holds a comma")
    if not re.fullmatch(r"[A-Z0-9]{10}", cells["org_code"]):
        raise Refused("org_code", "must be exactly ten of A-Z and 0-9")
    for name in ("name_ko", "name_en"):
        if not cells[name]:
            raise Refused(name, "is empty")
    if cells["sector"] not in Sector.values:
        raise Refused("sector", f"must be one of {', '.join(Sector.values)}")
    if cells["role"] not in ROLES:
        raise Refused("role", f"must be one of {', '.join(ROLES)}")
    number = cells.get("registration_number", "").replace("-", "")
    if number and not re.fullmatch(r"[0-9]{10}", number):
        raise Refused("registration_number", "must be ten digits, like 123-45-67890")
    organization = Entry(
        org_code=cells["org_code"],
        name_ko=cells["name_ko"],
        name_en=cells["name_en"],
        sector=cells["sector"],
        is_operator=cells["role"] != "source",
        is_source=cells["role"] != "operator",
        source=cells["source"],
        registration_number=number,
    )
    return (
        _with_decision(organization, cells, today)
        if organization.is_operator
        else _without_decision(organization, cells)
    )


def _cell(row: Mapping, name: str) -> str:
    value = row.get(name)
    if value is None:
        raise Refused(name, "is missing: the row is shorter than the header")
    if "�" in value:
        raise Refused(name, "is not UTF-8: save the file as UTF-8")
    if value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        raise Refused(name, "starts like a spreadsheet formula")
    # Control and format characters (C*) hide in names, break logs and turn text around.
    if any(unicodedata.category(character).startswith("C") for character in value):
        raise Refused(name, "holds a character that cannot be seen, such as a line break")
    value = unicodedata.normalize("NFC", value).strip()
    if len(value) > _LONGEST.get(name, 100):
        raise Refused(name, f"is longer than {_LONGEST.get(name, 100)} characters")
    return value


def _with_decision(organization: Entry, cells: dict[str, str], today: datetime.date) -> Entry:
    if cells["licence_status"] not in LicenceStatus.values:
        raise Refused("licence_status", f"must be one of {', '.join(LicenceStatus.values)}")
    decided_on = _day(cells, "decided_on")
    effective_on = _day(cells, "effective_on")
    if decided_on > today:
        raise Refused("decided_on", f"is later than today ({today})")
    if effective_on < decided_on:
        raise Refused("effective_on", "is earlier than decided_on")
    if not cells["source"]:
        raise Refused("source", "is empty: say where this decision can be read")
    return replace(
        organization, status=cells["licence_status"], decided_on=decided_on, effective_on=effective_on
    )


def _without_decision(organization: Entry, cells: dict[str, str]) -> Entry:
    for name in ("licence_status", "decided_on", "effective_on"):
        if cells[name]:
            raise Refused(name, "must be empty: only an operator has a licence")
    return organization


def _day(cells: dict[str, str], name: str) -> datetime.date:
    match = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})|([0-9]{4})([0-9]{2})([0-9]{2})", cells[name])
    if not match:
        raise Refused(name, "must be a date like 2021-01-27 or 20210127")
    try:
        day = datetime.date(*(int(part) for part in match.groups() if part))
    except ValueError:
        raise Refused(name, "is not a day of the calendar") from None
    if not 1990 <= day.year <= 2100:
        raise Refused(name, "must lie between 1990 and 2100")
    return day
