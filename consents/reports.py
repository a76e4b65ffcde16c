"""What operators report about holdings: reads their rows, and says of each what it states or why it is refused."""

import csv
import datetime
import functools
import hashlib
import hmac
import json
import re
import unicodedata
import uuid
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dateutil.relativedelta import relativedelta
from django.utils.translation import gettext_lazy as _

from providers import policy, vault

COLUMNS = (
    "subject", "service_client_id", "joined_on", "source_org_code", "scopes", "purpose", "cycle", "end_date", "retained_until",
    "last_used_on",
)  # fmt: skip
_KNOWN = frozenset(COLUMNS)
UNTIL_ERASED = "99991231"  # the standard API's sentinel: kept until the person leaves or asks
LONGEST_CELL = 2_000
CYCLES = {"": "", "1/w": "1/1w", "1/1w": "1/1w", "1/2w": "1/2w", "1/3w": "1/3w", "1/4w": "1/4w"}


# Why a row is refused, by the code that stays the same; values are filled in.
REASONS = {
    "unreadable": _("읽을 수 없는 줄이에요. 따옴표와 쉼표, 줄바꿈을 확인해 주세요."),
    "unknown-column": _("모르는 칸이에요."),
    "missing": _("빠져 있어요."),
    "not-text": _("글자여야 해요."),
    "too-long": _("%(most)s자보다 길어요."),
    "not-utf8": _("UTF-8이 아니에요. UTF-8로 저장해 주세요."),
    "invisible": _("줄바꿈처럼 보이지 않는 글자가 들어 있어요."),
    "empty": _("비어 있어요."),
    "not-a-subject": _("포털이 준 번호(UUID)나 88자 연계정보(CI)여야 해요."),
    "not-a-date": _("2026-11-22나 20261122처럼 쓴 날짜여야 해요."),
    "not-a-day": _("달력에 없는 날이에요."),
    "future": _("오늘(%(today)s)보다 뒤예요."),
    "end-date": _("joined_on보다 뒤이고 %(latest)s까지여야 해요."),
    "ended": _("지난 날이에요. 지금 이어지는 것만 알려 주세요."),
    "last-use": _("joined_on과 오늘(%(today)s) 사이여야 해요."),
    "cycle": _("%(known)s 가운데 하나이거나 비어 있어야 해요."),
    "retained": _("end_date보다 앞서요."),
    "unknown-scope": _("%(scope)s은(는) 목록에 없는 정보 항목이에요."),
    "not-own-service": _("이 회사의 서비스가 아니에요."),
    "unknown-source": _("모르는 정보제공자예요."),
    "unknown-person": _("포털에 없는 사람이에요."),
}


# Why a file as a whole cannot be read.
FAULTS = {
    "lacks": _("첫 줄에 없는 칸이 있어요: %(missing)s. 첫 줄은 %(columns)s여야 해요."),
    "twice": _("첫 줄에 같은 칸이 두 번 있어요. 하나만 남겨 주세요."),
    "ours": _("%(line)s줄 다음을 넣다가 우리 쪽에 문제가 생겼어요(%(name)s). 다시 보내 주세요."),
}


class NotAReport(ValueError):
    """The file as a whole cannot be read, as a code of FAULTS with its values; its words say what to do, in the language of
    whoever reads them."""

    def __init__(self, code: str, **values: str):
        super().__init__(code)
        self.code, self.values = code, values

    def __str__(self) -> str:
        return str(FAULTS[self.code]) % self.values


class Refused(ValueError):
    """One row cannot go in: which column, and why, as a code of REASONS with its values."""

    def __init__(self, column: str, code: str, **values: Any):
        super().__init__(f"{column}: {code}")
        self.column, self.code = column, code
        self.values = {name: str(value) for name, value in values.items()}

    @property
    def reason(self) -> str:
        """In the language of whoever reads it."""
        return words(self.code, self.values)


def words(code: str, values: Mapping[str, str]) -> str:
    return str(REASONS[code]) % values


@dataclass(frozen=True, slots=True)
class Holding:
    """One row: data of one source that flows to one service for one person, named by our `subject` or by the digest of a CI."""

    number: int
    subject: uuid.UUID | None
    client_id: str
    joined_on: datetime.date
    source: str
    scopes: tuple[str, ...]
    purpose: str
    cycle: str
    end_date: datetime.date
    retained_until: datetime.date | None
    last_used_on: datetime.date | None
    digest: str = ""


def read(path: Path) -> Iterator[tuple[int, Mapping]]:
    """Row number (as an editor or a spreadsheet shows it) and row, streamed. CSV by header, or NDJSON by the file's name.

    UTF-8 with or without a byte order mark. Raises OSError, NotAReport."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
        if path.suffix in (".ndjson", ".jsonl"):
            yield from objects(enumerate(file, start=1))
            return
        header = header_of(file.readline())
        yield from cells(enumerate(file, start=2), header)


def objects(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, Mapping]]:
    """Numbered lines of JSON as rows; one that is none stands under an empty name."""
    for number, line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=lambda name: name)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else {"": line[:200]}


def header_of(line: str, columns: Iterable[str] = COLUMNS) -> list[str]:
    """The names of the columns. Raises NotAReport."""
    header = [name.strip() for name in _split(line) or []]
    if missing := [name for name in columns if name not in header]:
        raise NotAReport("lacks", missing=", ".join(missing), columns=",".join(columns))
    if len(set(header)) != len(header):
        raise NotAReport("twice")
    return header


def cells(lines: Iterable[tuple[int, str]], header: list[str]) -> Iterator[tuple[int, Mapping]]:
    """Numbered lines of CSV as rows. A line is a row: no cell may hold a line break, so that a stray quote spoils one row only."""
    for number, line in lines:
        found = _split(line)
        if found is None:
            yield number, {"": line[:200]}
        elif len(found) > len(header):
            yield number, {"": "more cells than the header"}
        elif found and (found[0].strip() or any(cell.strip() for cell in found)):
            yield number, dict(zip(header, found, strict=False))


def _split(line: str) -> list[str] | None:
    """The cells of a line; None where its quotes do not fit."""
    try:
        return next(csv.reader([line.rstrip("\r\n")], strict=True), [])
    except csv.Error:
        return None


def holding(number: int, row: Mapping, *, today: datetime.date, codes: set[str]) -> Holding:
    """What a row states, or Refused. `codes` are the known scope codes. Nothing in a row can lie in the future but its end."""
    if unknown := _unknown(row):
        raise unknown[0]
    cells = _clean(row) or Cells(row)
    subject, digest = _subject(cells["subject"])
    return Holding(
        number=number,
        subject=subject,
        digest=digest,
        client_id=_filled(cells, "service_client_id"),
        joined_on=_joined(cells, today),
        source=_filled(cells, "source_org_code"),
        scopes=_scopes(cells["scopes"], codes),
        purpose=_filled(cells, "purpose")[:200],
        cycle=_cycle(cells),
        end_date=_end(cells, today),
        retained_until=_retained(cells, today),
        last_used_on=_last_use(cells, today),
    )


def faults(
    row: Mapping, *, today: datetime.date, codes: set[str], services: Container[str], sources: Container[str]
) -> list[Refused]:
    """All that is wrong with a row: one fault a column, which may keep another column from being judged. First the form of
    each, then what it says; a line that cannot be read has no columns."""
    found = {fault.column: fault for fault in _unknown(row)}
    if "" in found:
        return [found[""]]
    cells = Cells(row)
    checks: tuple[Callable[[], object], ...] = (
        *(functools.partial(cells.__getitem__, name) for name in COLUMNS),
        lambda: _subject(cells["subject"]),
        lambda: _known(cells, "service_client_id", services, "not-own-service"),
        lambda: _joined(cells, today),
        lambda: _known(cells, "source_org_code", sources, "unknown-source"),
        lambda: _scopes(cells["scopes"], codes),
        lambda: _filled(cells, "purpose"),
        lambda: _cycle(cells),
        lambda: _end(cells, today),
        lambda: _retained(cells, today),
        lambda: _last_use(cells, today),
    )
    for check in checks:
        try:
            check()
        except Refused as fault:
            found.setdefault(fault.column, fault)
    return list(found.values())


def _unknown(row: Mapping) -> list[Refused]:
    """The columns of a row that no report has."""
    if row.keys() <= _KNOWN:
        return []
    names = sorted(str(name) for name in row if name not in _KNOWN)
    return [Refused(seen(name[:60]), "unknown-column" if name else "unreadable") for name in names]


class Cells(dict):
    """The cells of a row, each looked at when it is asked for; Refused every time for one that is none."""

    def __init__(self, row: Mapping):
        super().__init__()
        self._row = row

    def __missing__(self, name: str) -> str:
        self[name] = found = _cell(self._row, name)
        return found


def _clean(row: Mapping) -> dict[str, str] | None:
    """The cells of a row in which nothing needs a second look, as of nearly every row of a million; else None."""
    try:
        text = "".join(row.values())
    except TypeError:
        return None
    plain = text.isascii() or (unicodedata.is_normalized("NFC", text) and "\ufffd" not in text)
    if len(row) != len(COLUMNS) or len(text) > LONGEST_CELL or not text.isprintable() or not plain:
        return None
    return {name: value.strip() for name, value in row.items()}


def _joined(cells: Mapping[str, str], today: datetime.date) -> datetime.date:
    joined_on = _day(cells, "joined_on")
    if joined_on > today:
        raise Refused("joined_on", "future", today=today)
    return joined_on


def _end(cells: Mapping[str, str], today: datetime.date) -> datetime.date:
    joined_on, end_date = _joined(cells, today), _day(cells, "end_date")
    longest = _later(joined_on, policy.number("JOIN_MAX_YEARS_V2", on=today))
    if not joined_on < end_date <= longest:
        raise Refused("end_date", "end-date", latest=longest)
    if end_date < today:
        raise Refused("end_date", "ended")
    return end_date


def _last_use(cells: Mapping[str, str], today: datetime.date) -> datetime.date | None:
    if not cells["last_used_on"]:
        return None
    last_used_on = _day(cells, "last_used_on")
    if not _joined(cells, today) <= last_used_on <= today:
        raise Refused("last_used_on", "last-use", today=today)
    return last_used_on


def _cycle(cells: Mapping[str, str]) -> str:
    if cells["cycle"] not in CYCLES:
        raise Refused("cycle", "cycle", known=", ".join(filter(None, CYCLES)))
    return CYCLES[cells["cycle"]]


def _cell(row: Mapping, name: str) -> str:
    value = row.get(name)
    if value is None:
        if name in ("cycle", "retained_until", "last_used_on"):
            return ""
        raise Refused(name, "missing")
    if isinstance(value, list) and name == "scopes":
        value = " ".join(map(str, value))
    if not isinstance(value, str):
        raise Refused(name, "not-text")
    if len(value) > LONGEST_CELL:
        raise Refused(name, "too-long", most=LONGEST_CELL)
    if "�" in value:
        raise Refused(name, "not-utf8")
    if any(unicodedata.category(character).startswith("C") for character in value):
        raise Refused(name, "invisible")
    return unicodedata.normalize("NFC", value).strip()


def seen(name: str) -> str:
    """Of a name that somebody made up what can be shown and kept."""
    return "".join(sign if sign.isprintable() else "?" for sign in name)


def _filled(cells: Mapping[str, str], name: str) -> str:
    if not cells[name]:
        raise Refused(name, "empty")
    return cells[name]


def _known(cells: Mapping[str, str], name: str, known: Container[str], code: str) -> None:
    if _filled(cells, name) not in known:
        raise Refused(name, code)


_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def _subject(text: str) -> tuple[uuid.UUID | None, str]:
    """Our own id of the person, or the digest of their CI, which goes no further than this in clear."""
    if _UUID.fullmatch(text):
        return uuid.UUID(text), ""
    if is_ci(text):
        return None, person_digest(text)
    raise Refused("subject", "not-a-subject")


_CI = re.compile(r"[A-Za-z0-9+/]{86}==", re.ASCII)  # 64 bytes in base64 (연계정보)


def is_ci(text: str) -> bool:
    """Whether it has the form of a CI."""
    return _CI.fullmatch(text) is not None


def person_digest(ci: str) -> str:
    """The keyed digest by which a person is found whom an organization knows by their CI. The CI itself is kept nowhere; the
    key is another one than that of what organizations call things, so that the two cannot be compared."""
    return hmac.digest(vault.derived_key("person by ci"), ci.encode(), hashlib.sha256).hex()


def _day(cells: Mapping[str, str], name: str) -> datetime.date:
    found = _date(cells[name])
    if isinstance(found, str):
        raise Refused(name, found)
    return found


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{8}", re.ASCII)


@functools.lru_cache(maxsize=20_000)
def _date(text: str) -> datetime.date | str:
    """The day, or the code of what is wrong with it."""
    if not _DATE.fullmatch(text):
        return "not-a-date"
    digits = text.replace("-", "")
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return "not-a-day"


@functools.lru_cache(maxsize=20_000)
def _later(day: datetime.date, years: int) -> datetime.date:
    return day + relativedelta(years=years)


def _retained(cells: Mapping[str, str], today: datetime.date) -> datetime.date | None:
    if cells["retained_until"].replace("-", "") in ("", UNTIL_ERASED):
        return None
    retained = _day(cells, "retained_until")
    if retained < _end(cells, today):
        raise Refused("retained_until", "retained")
    return retained


def _scopes(text: str, codes: set[str]) -> tuple[str, ...]:
    scopes = _sorted(text)
    if not scopes:
        raise Refused("scopes", "empty")
    if unknown := [scope for scope in scopes if scope not in codes]:
        raise Refused("scopes", "unknown-scope", scope=unknown[0][:60])
    return scopes


@functools.lru_cache(maxsize=4_000)
def _sorted(text: str) -> tuple[str, ...]:
    return tuple(sorted(set(text.split())))
