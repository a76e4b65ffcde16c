"""Reads of the public pages: the register of operators, the services and what they ask."""

import datetime
from dataclasses import dataclass, field
from urllib.parse import urlencode

from dateutil.relativedelta import relativedelta
from django.core.cache import caches
from django.db import connection
from django.db.models import Count, OuterRef, Q, QuerySet, Subquery
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.safestring import SafeString
from django.utils.translation import get_language

from consents.models import Subscription
from consents.queries import scopes
from providers import policy, wording
from providers.models import Licence, Organization, Scope, Service, Terms, TermsItem
from providers.models.organizations import OPEN_STATUSES

PAGE = 20
NEW_FOR = datetime.timedelta(days=30)  # a service is shown as new
LEAGUE_DAYS = 365
LEAGUE_REMEMBERED = 300  # seconds


@dataclass(frozen=True, slots=True)
class Spread:
    """Half of the answers came within `median`, nineteen of twenty within `p95`."""

    median: datetime.timedelta
    p95: datetime.timedelta


@dataclass(frozen=True, slots=True)
class League:
    """How fast one organization answered the stops of the last LEAGUE_DAYS, and how many of them are late now (percent).

    None: fewer than MINIMUM_CELL such answers, which would say more about people than about the organization."""

    operator: Organization
    stops: int
    received: Spread | None
    stopped: Spread | None
    erased: Spread | None
    late: int | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the register."""

    organization: Organization
    status: str
    decided_on: datetime.date | None
    service_count: int


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a keyset-paged list, and the addresses of the next and the first page where there are such."""

    rows: list
    next_url: str | None
    first_url: str | None


@dataclass(slots=True)
class Asked:
    """One item as the consent card shows it."""

    id: int
    kind: str
    required: bool
    title_ko: str
    title_en: str
    source_name: str
    recipient_name: str
    scopes: list[Scope]
    cycle: str
    until_on: datetime.date
    purpose_ko: str
    purpose_en: str
    retention_ko: str
    retention_en: str
    paid: bool
    grade: str
    riders: list[dict]
    risk: dict | None = None
    readability: dict | None = None
    state: str = ""
    text_html: str = ""


@dataclass(slots=True)
class Offer:
    """What a service asks at present, finished for a page in one language."""

    terms: Terms | None
    terms_html: SafeString | str = ""
    items: list[Asked] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)
    rows: list[TermsItem] = field(default_factory=list)


# --- home and register ---------------------------------------------------------------------------------------------------


def home(*, on: datetime.date) -> dict:
    """Numbers and six services that can be joined."""
    live = Service.objects.filter(state=Service.State.LIVE)
    services = _with_operator_status(live, on=on).filter(operator_status__in=OPEN_STATUSES)
    return {
        "operator_count": Organization.objects.operators().count(),
        "service_count": live.count(),
        "services": list(services.order_by("-opened_on", "slug")[:6]),
    }


def operators(
    *, on: datetime.date, query: str = "", status: str = "", kind: str = "", sector: str = "", after: str = ""
) -> Page:
    """The register by name, filtered. `after` is the code of the last operator seen; an unknown one starts afresh."""
    decided = Licence.objects.filter(organization=OuterRef("pk"), effective_on__lte=on)
    rows = (
        Organization.objects.operators()
        .with_licence_status(on=on)
        .annotate(
            decided_on=Subquery(
                decided.order_by("-effective_on", "-decided_on", "-id").values("decided_on")[:1]
            ),
            service_count=Count("services"),
        )
    )
    if query:
        rows = rows.filter(Q(name_ko__icontains=query) | Q(name_en__icontains=query) | Q(code__iexact=query))
    if status:
        rows = rows.filter(licence_status=status)
    if kind:
        rows = rows.filter(is_fictional=kind == "fictional")
    if sector:
        rows = rows.filter(sector=sector)
    chosen = {"query": query, "status": status, "kind": kind, "sector": sector}
    found = _page(rows, "operators", chosen, key="code", after=after)
    lines = [Listed(row, row.licence_status or "", row.decided_on, row.service_count) for row in found.rows]
    return Page(lines, found.next_url, found.first_url)


def operator(code: str, *, on: datetime.date) -> dict:
    """One operator with its decisions, newest first, and its services. Raises Http404."""
    found = get_object_or_404(Organization.objects.operators().with_licence_status(on=on), code=code)
    services = list(found.services.exclude(state=Service.State.REGISTERED).order_by("name_ko", "slug"))
    for service in services:
        service.organization = found
    return {
        "organization": found,
        "status": found.licence_status or "",
        "licences": list(found.licences.all()),
        "services": services,
    }


# --- services ---------------------------------------------------------------------------------------------------------------


def services(*, query: str = "", purpose: str = "", sector: str = "", after: str = "") -> Page:
    """Services that are or were open, by name, filtered. `after` is the slug of the last one seen."""
    rows = Service.objects.exclude(state=Service.State.REGISTERED).select_related("organization")
    if query:
        names = ("name_ko", "name_en", "organization__name_ko", "organization__name_en")
        words = Q()
        for name in names:
            words |= Q(**{f"{name}__icontains": query})
        rows = rows.filter(words)
    if purpose:
        rows = rows.filter(purpose_code=purpose)
    if sector:
        rows = rows.filter(organization__sector=sector)
    return _page(
        rows, "services", {"query": query, "purpose": purpose, "sector": sector}, key="slug", after=after
    )


def purposes() -> list[str]:
    """Purpose codes in use."""
    return list(Service.objects.order_by("purpose_code").values_list("purpose_code", flat=True).distinct())


def find_service(slug: str, *, on: datetime.date) -> Service:
    """A service with its organization, `operator_status`, the licence on that day, and whether it `is_new` (T11).
    Raises Http404."""
    found = get_object_or_404(_with_operator_status(Service.objects.all(), on=on), slug=slug)
    found.is_new = on < found.opened_on + NEW_FOR
    return found


def is_open(service: Service) -> bool:
    """Whether state and licence allow new consents; `service` comes from `find_service`."""
    return service.state == Service.State.LIVE and service.operator_status in OPEN_STATUSES  # type: ignore[attr-defined]  # annotated


def own_subscription_url(person, service: Service) -> str | None:
    """The page of a person's live subscription to a service; None for everybody else."""
    pk = (
        Subscription.objects.live()
        .filter(person=person, service=service)
        .values_list("pk", flat=True)
        .first()
        if person.is_authenticated
        else None
    )
    return reverse("subscription", args=[pk]) if pk else None


def offer(service: Service, *, on: datetime.date) -> Offer:
    """The published terms: items with plain words, validity counted from a day, and the exact text that the digest is
    taken over. Three queries."""
    terms = Terms.objects.filter(service=service, state=Terms.State.PUBLISHED).first()
    if terms is None:
        return Offer(None)
    terms.service = service
    rows = list(terms.items.select_related("source", "recipient").order_by("position"))
    known = scopes.catalogue()
    language = "en" if get_language() == "en" else "ko"
    return Offer(
        terms,
        terms_html=wording.render(wording.terms_text(terms, language, items=rows)),
        items=[_asked(row, service, known, language, on=on) for row in rows],
        scopes=scopes.in_words((code for row in rows for code in row.scopes), (), known),
        rows=rows,
    )


def _asked(
    row: TermsItem, service: Service, known: list[Scope], language: str, *, on: datetime.date
) -> Asked:
    def name(organization) -> str:
        return getattr(organization, f"name_{language}") or organization.name_ko

    return Asked(
        id=row.pk, kind=row.kind, required=row.required, title_ko=row.title_ko, title_en=row.title_en,
        source_name=name(row.source) if row.source else "",
        recipient_name=name(row.recipient or service.organization),
        scopes=scopes.in_words(row.scopes, (), known), cycle=row.cycle, until_on=on + relativedelta(months=row.valid_months),
        purpose_ko=row.purpose_ko, purpose_en=row.purpose_en,
        retention_ko=row.retention_ko, retention_en=row.retention_en, paid=row.paid, grade=row.grade,
        riders=[{"code": code, "on": False} for code in row.riders],
    )  # fmt: skip


# --- league table --------------------------------------------------------------------------------------------------------------

_SPREAD = """
  percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY extract(epoch FROM {step}_at - created_at))
    FILTER (WHERE {step}_at IS NOT NULL AND {whose}), count({step}_at) FILTER (WHERE {whose})"""
# That a message was received is its organization's word: what our own look moved on is not counted there (Check).
_LEAGUE = f"""
    SELECT organization_id, count(*), count(*) FILTER (WHERE closed_at IS NULL AND due_at < %(at)s),
      {_SPREAD.format(step="received", whose="true")}, {_SPREAD.format(step="stopped", whose="true")},
      {_SPREAD.format(step="erased", whose="goal = 'erased'")}
      FROM (
        SELECT d.organization_id, d.goal, d.created_at, d.due_at, d.closed_at, d.stopped_at, d.erased_at,
          CASE WHEN look.id IS NULL THEN d.received_at END AS received_at
          FROM consents_delivery d LEFT JOIN consents_check look ON look.delivery_id = d.id AND look.at = d.received_at
         WHERE d.goal <> 'received' AND d.replay_of_id IS NULL AND d.created_at > %(since)s) AS stop
     GROUP BY organization_id
"""  # noqa: S608 - our own names


def league(*, at: datetime.datetime) -> list[League]:
    """Organizations that were told to stop lately: the smallest share of what is late first, then the quickest; who was told
    too seldom to be judged comes last. Remembered for a while, because it reads every stop of LEAGUE_DAYS."""
    rows = caches["comfort"].get("league")
    if rows is None:
        with connection.cursor() as cursor:
            cursor.execute(_LEAGUE, {"at": at, "since": at - datetime.timedelta(days=LEAGUE_DAYS)})
            rows = cursor.fetchall()
        caches["comfort"].set("league", rows, LEAGUE_REMEMBERED)
    least = policy.number("MINIMUM_CELL", on=at.date())
    known = Organization.objects.in_bulk([row[0] for row in rows]) if rows else {}
    return sorted((_judged(known[row[0]], row[1:], least) for row in rows if row[0] in known), key=_rank)


def judged(*, at: datetime.datetime) -> list[League]:
    """The league table as it is listed: those that were told often enough to be judged."""
    return [line for line in league(at=at) if line.late is not None]


def _judged(organization: Organization, row: tuple, least: int) -> League:
    stops, late, *steps = row
    received, stopped, erased = (
        Spread(*(datetime.timedelta(seconds=float(value)) for value in values)) if count >= least else None
        for values, count in zip(steps[::2], steps[1::2], strict=True)
    )
    share = round(100 * late / stops) if stops >= least else None
    return League(organization, stops, received, stopped, erased, share)


def _rank(line: League) -> tuple:
    never = datetime.timedelta.max
    quick = [spread.median if spread else never for spread in (line.erased, line.stopped, line.received)]
    return (line.late is None, line.late or 0, *quick, line.operator.code)


# --- paging ----------------------------------------------------------------------------------------------------------------------


def _with_operator_status(rows: QuerySet, *, on: datetime.date) -> QuerySet:
    latest = Licence.objects.filter(organization=OuterRef("organization_id"), effective_on__lte=on)
    status = latest.order_by("-effective_on", "-decided_on", "-id").values("status")[:1]
    return rows.select_related("organization").annotate(operator_status=Subquery(status))


def _page(rows: QuerySet, url_name: str, chosen: dict[str, str], *, key: str, after: str) -> Page:
    """PAGE rows by Korean name, after the row whose unique `key` is `after`."""
    chosen = {name: value for name, value in chosen.items() if value}
    if after:
        last = rows.model.objects.filter(**{key: after}).values_list("name_ko", flat=True).first()
        if last is not None:
            rows = rows.filter(Q(name_ko__gt=last) | Q(name_ko=last, **{f"{key}__gt": after}))
    found = list(rows.order_by("name_ko", key)[: PAGE + 1])
    address = reverse(url_name)

    def url(**more) -> str:
        query = urlencode(chosen | more)
        return f"{address}?{query}" if query else address

    following = url(after=getattr(found[PAGE - 1], key)) if len(found) > PAGE else None
    return Page(found[:PAGE], following, url() if after else None)
