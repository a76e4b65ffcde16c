"""Cases as the regulator and an organization see them: what they say, what the log says, and what became of it."""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _

from consents import counts, settling
from consents.models import Case, Check, Consent, Delivery, Inquiry, Person, WeeklyCalls, WeeklyCount
from consents.templatetags.portal import moment
from providers import signing
from providers.models import Organization

from . import official, paging

COUNTED = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One case in a list. `subject` is a pseudonym, empty where nobody is concerned."""

    case: Case
    organization: Organization
    service: Any
    subject: str


@dataclass(frozen=True, slots=True)
class Account:
    """One line of the two accounts: what it is about, what they say, what the log says."""

    label: str
    stated: str
    known: str


@dataclass(frozen=True, slots=True)
class Detail:
    row: Row
    accounts: list[Account]
    verbs: list[str]
    checks: list[Check]


def listed(
    *, organization: Organization | None = None, kind: str = "", state: str = "open", after: str = ""
) -> paging.Page:
    """A page of Rows, newest first. One query. Raises paging.BadCursor."""
    return _page(_rows(organization=organization, kind=kind, state=state), after)


def _rows(*, organization: Organization | None, kind: str, state: str) -> QuerySet[Case]:
    rows = Case.objects.select_related("organization", "subscription__service")
    if organization is not None:
        rows = rows.filter(organization=organization)
    if kind:
        rows = rows.filter(kind=kind)
    if state == "open":
        rows = rows.filter(settled_at__isnull=True)
    elif state == "settled":
        rows = rows.filter(settled_at__isnull=False)
    return rows


def _page(rows: QuerySet[Case], after: str) -> paging.Page:
    if after:
        at, number = _decode(after)
        rows = rows.filter(opened_at__lte=at).filter(Q(opened_at__lt=at) | Q(pk__lt=number))
    found = list(rows.order_by("-opened_at", "-pk")[: paging.SIZE + 1])
    if len(found) <= paging.SIZE:
        return paging.Page([_row(case) for case in found], None)
    last = found[paging.SIZE - 1]
    return paging.Page(
        [_row(case) for case in found[: paging.SIZE]], paging.encode(last.opened_at, last.pk.int)
    )


def _decode(cursor: str) -> tuple[datetime.datetime, uuid.UUID]:
    moment, _dash, number = cursor.partition("-")
    if not (number.isascii() and number.isdigit() and len(number) < 40):
        raise paging.BadCursor(cursor[:60])
    at, _zero = paging.decode(f"{moment}-0")
    try:
        return at, uuid.UUID(int=int(number))
    except ValueError as error:
        raise paging.BadCursor(cursor[:60]) from error


def _row(case: Case) -> Row:
    subscription = case.subscription
    subject = ""
    if case.person_id:
        towards = subscription.operator_id if subscription else case.organization_id
        subject = signing.pseudonym(str(towards), str(case.person_id))
    return Row(case, case.organization, subscription.service if subscription else None, subject)


def detail(case: Case) -> Detail:
    """Both sides' accounts line by line, the verbs that can settle it, and our last looks. Two queries at most."""
    names = [name for name in _LABELS if name in case.stated or name in case.known]
    accounts = [
        Account(str(_LABELS[name]), _text(name, case.stated.get(name)), _text(name, case.known.get(name)))
        for name in names
    ]
    looks = Check.objects.filter(
        delivery__subscription=case.subscription_id, delivery__organization=case.organization_id
    )
    checks = list(looks.order_by("-pk")[:10]) if case.subscription_id else []
    return Detail(_row(case), accounts, settling.possible(case) if case.settled_at is None else [], checks)


def open_of(organization: Organization) -> int:
    """How many cases wait for an organization, counted up to COUNTED."""
    rows = Case.objects.filter(organization=organization, settled_at__isnull=True)
    return rows.values("pk")[: COUNTED + 1].count()


_LABELS = {
    "says": _("지금 상태"),
    "state": _("기록의 상태"),
    "finding": _("되물어 본 결과"),
    "claimed": _("스스로 밝힌 상태"),
    "checked_at": _("되물은 때"),
    "event": _("알린 일"),
    "delivery": _("전달 번호"),
    "ended_at": _("끝난 때"),
    "reason": _("끝난 까닭"),
    "reported_by": _("알려 온 곳"),
    "at": _("정보가 오간 때"),
    "key": _("알려 온 번호"),
    "service": _("서비스"),
    "source": _("정보를 보내는 곳(정보제공자)"),
    "recipient": _("정보를 건네받는 곳"),
    "scopes": _("정보 항목"),
    "since_on": _("시작한 날"),
    "granted_at": _("시작한 때"),
    "until_on": _("끝나는 날"),
    "week_on": _("주"),
    "new": _("새로 생김"),
    "revoked": _("끝남"),
    "own": _("주말에 유효함"),
}


_MOMENTS = {"checked_at", "ended_at", "granted_at", "at"}


def _text(name: str, value: Any) -> str:
    if value in (None, "", []):
        return ""
    if name == "reason":
        return str(official.REASONS.get(value, value))
    if name == "event":
        return str(official.EVENTS.get(value, value))
    if name == "finding":
        return str(official.REASONS.get(value, value))
    if name in _MOMENTS:
        at = parse_datetime(str(value))
        return moment(at) if at else str(value)
    if name == "claimed":
        return str(dict(Delivery.State.choices).get(value, value))
    if name == "state":
        return str(dict(Consent.State.choices).get(value, value))
    if name == "says":
        return str(dict(Check.Says.choices).get(value, value))
    return ", ".join(value) if isinstance(value, list) else str(value)


# --- the three columns -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Week:
    """One service and source in one week: what the operator, the source and the log say; None where a side is silent."""

    week_on: datetime.date
    service: Any
    source: Organization
    operator_says: counts.Numbers | None
    source_says: counts.Numbers | None
    log_says: counts.Numbers
    operator_calls: list[WeeklyCalls]  # how calls fared, as each side measured them
    source_calls: list[WeeklyCalls]

    @property
    def differs(self) -> bool:
        return any(said not in (None, self.log_says) for said in (self.operator_says, self.source_says))


def weeks(*, after: str = "") -> paging.Page:
    """A page of Weeks, the newest first. Four queries and one for each week on the page. Raises paging.BadCursor."""
    rows = WeeklyCount.objects.select_related("service__organization", "source", "organization")
    pairs = (
        rows.order_by("-week_on", "service", "source").values_list("week_on", "service", "source").distinct()
    )
    start = _offset(after)
    keys = list(pairs[start : start + paging.SIZE + 1])
    shown = keys[: paging.SIZE]
    wanted = Q(pk__in=[])
    for week_on, service, source in shown:
        wanted |= Q(week_on=week_on, service=service, source=source)
    said: dict[tuple, dict[bool, WeeklyCount]] = {}
    calls = Prefetch("calls", WeeklyCalls.objects.defer("days"))
    for count in rows.filter(wanted).prefetch_related(calls):
        key = (count.week_on, count.service_id, count.source_id)
        said.setdefault(key, {})[count.organization_id == count.service.organization_id] = count
    ours = counts.known({key[0] for key in shown}, {key[1] for key in shown}, {key[2] for key in shown})
    found = [_week(said[key], ours.get(key, counts.Numbers(0, 0, 0))) for key in shown]
    return paging.Page(found, str(start + paging.SIZE) if len(keys) > paging.SIZE else None)


def _offset(after: str) -> int:
    if not after:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) < 7):
        raise paging.BadCursor(after[:60])
    return int(after)


def _week(said: dict[bool, WeeklyCount], here: counts.Numbers) -> Week:
    any_side = next(iter(said.values()))
    by_operator, by_source = said.get(True), said.get(False)
    return Week(
        week_on=any_side.week_on, service=any_side.service, source=any_side.source,
        operator_says=counts.numbers(by_operator) if by_operator else None,
        source_says=counts.numbers(by_source) if by_source else None, log_says=here,
        operator_calls=list(by_operator.calls.all()) if by_operator else [],
        source_calls=list(by_source.calls.all()) if by_source else [],
    )  # fmt: skip


# --- what a person asked -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """How far the person's question has come. `rows` are Inquiries of the last request; `waiting` how many are open."""

    rows: list[Inquiry]
    waiting: int
    requested_at: datetime.datetime | None


def asked(person: Person) -> Asked:
    """Who was asked on the person's wish, and what came of it. One query."""
    rows = list(
        Inquiry.objects.filter(person=person, requested_at__isnull=False)
        .select_related("organization")
        .order_by("organization__name_ko")[:200]
    )
    last = max((row.requested_at for row in rows if row.requested_at), default=None)
    return Asked(rows, sum(row.outcome == Inquiry.Outcome.WAITING for row in rows), last)
