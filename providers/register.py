"""The public licence register as a file: reads its rows, and says of each what it states or why it is refused."""

import csv
import datetime
import io
import ipaddress
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from providers.models import Licence, Organization
from providers.models.organizations import LicenceStatus, Sector

COLUMNS = (
    "org_code", "name_ko", "name_en", "sector", "role", "licence_status", "decided_on", "effective_on", "source",
)  # fmt: skip
# Named as 지원-002 names them; lists are separated by spaces. An empty cell says nothing.
FACTS = {
    "corp_regno": "corporate_number", "address": "address", "domain": "domain", "domain_ip_list": "domain_ips",
    "relay_org_code": "relay_code", "auth_type": "auth_type", "ip_list": "ips", "np_time_list": "quiet_times",
}  # fmt: skip
OPTIONAL = ("registration_number", *FACTS)
ROLES = ("operator", "source", "both")
LARGEST_FILE = 10 * 1024 * 1024  # bytes; ten thousand organizations are below 2 MB

_LONGEST = {
    "name_ko": Organization._meta.get_field("name_ko").max_length or 0,
    "name_en": Organization._meta.get_field("name_en").max_length or 0,
    "source": Licence._meta.get_field("source").max_length or 0,
    "address": 200, "domain": 253, "domain_ip_list": 2000, "ip_list": 2000,
}  # fmt: skip
_DOMAIN = re.compile(r"(?=.{4,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}")
_HALF_HOUR = r"(?:[01][0-9]|2[0-3])[03]0"
_QUIET = re.compile(rf"({_HALF_HOUR})-({_HALF_HOUR}|2400)")
QUIET_MINUTES = 360  # which regular transfers must have at least, if they have a time of their own


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
    facts: Mapping[str, str | list[str]] = field(
        default_factory=dict
    )  # of its DirectoryEntry; only what is told


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
        facts={FACTS[name]: _fact(name, cells[name]) for name in FACTS if cells.get(name)},
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


def _fact(name: str, cell: str) -> str | list[str]:
    """One of FACTS, checked; those of lists as lists."""
    if name == "corp_regno":
        return _matching(
            name, cell.replace("-", ""), r"[0-9]{13}", "must be thirteen digits, like 110111-1234567"
        )
    if name == "relay_org_code":
        return _matching(name, cell, r"[A-Z0-9]{10}", "must be exactly ten of A-Z and 0-9")
    if name == "auth_type":
        return _matching(name, cell, r"01|03", "must be 01 (unified only) or 03 (both)")
    if name == "domain":
        return _matching(name, cell.lower(), _DOMAIN.pattern, "must be a host's name, like api.example.kr")
    if name == "np_time_list":
        return _quiet(name, cell.split())
    return [_address(name, one) for one in cell.split()] if name.endswith("ip_list") else cell


def _matching(name: str, value: str, pattern: str, otherwise: str) -> str:
    if not re.fullmatch(pattern, value):
        raise Refused(name, otherwise)
    return value


def _address(name: str, text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise Refused(name, "must be IP addresses, separated by spaces") from None


def _quiet(name: str, times: list[str]) -> list[str]:
    """Three windows at most, six hours together, in half hours."""
    found = [_QUIET.fullmatch(time) for time in times]
    minutes = 0
    for match in found:
        if match is None:
            raise Refused(name, "must be times like 0000-0600, in half hours, separated by spaces")
        begin, end = (int(time[:2]) * 60 + int(time[2:]) for time in match.groups())
        minutes += (end - begin) % 1440 or 1440
    if len(times) > 3 or minutes < QUIET_MINUTES:
        raise Refused(name, "must be at most three times of six hours together")
    return times


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
