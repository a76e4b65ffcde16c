"""The register as other institutions copy it (지원-002, 지원-003): organizations and services, whole or since a moment.

A row says I where it is new since then, M where it changed, D where it is no longer in force; copying one twice is no
harm. What takes effect on a day (a licence that ends) is told on the whole of that day, because only days are known.
"""

import datetime
from dataclasses import dataclass
from typing import Any

from django.db.models import Exists, OuterRef, Prefetch, Q, QuerySet, Subquery

from consents.ledger.entries import SEOUL
from providers.models import ApiClient, DirectoryEntry, Licence, Organization, Service
from providers.models.organizations import ENDING_STATUSES, Sector

PAGE = 500  # organizations
MOST_REDIRECTS = 4  # of one service, as published
LONGEST_SERVICE_NAME = 30
# Industries of the standard API; the other sectors have no code in it.
INDUSTRIES = {
    Sector.BANK: "bank", Sector.SAVINGS: "bank", Sector.MUTUAL: "bank", Sector.CARD: "card", Sector.CAPITAL: "capital",
    Sector.INVEST: "invest", Sector.INSU: "insu", Sector.EFIN: "efin", Sector.FINTECH: "efin", Sector.TELECOM: "telecom",
    Sector.PUBLIC: "public",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Part:
    """One page of the register; `after` is the code to go on from, or empty."""

    rows: list[dict[str, Any]]
    after: str


def organizations(
    *, since: datetime.datetime | None, after: str, limit: int = PAGE, at: datetime.datetime
) -> Part:
    """지원-002: operators and sources by their code. One query."""
    found = _registered(at).filter(code__gt=after)
    if since is None:
        found = found.filter(is_over=False)  # type: ignore[misc]  # annotated in _registered
    else:
        found = found.filter(Q(changed_at__gte=since) | Q(decided_on__gte=since.astimezone(SEOUL).date()))
    return _part(found.select_related("directory"), limit, lambda row: _organization(row, since))


def services(
    *, since: datetime.datetime | None, after: str, limit: int = PAGE, at: datetime.datetime
) -> Part:
    """지원-003: the services of each operator, with where people may be sent back to. Three queries."""
    told = Service.objects.exclude(state=Service.State.REGISTERED)
    told = told.exclude(state=Service.State.CLOSED) if since is None else told.filter(changed_at__gte=since)
    found = (
        _registered(at)
        .filter(Exists(told.filter(organization=OuterRef("pk"))), code__gt=after)
        .prefetch_related(
            Prefetch("services", told.order_by("client_id"), "told"),
            Prefetch(
                "api_clients",
                ApiClient.objects.filter(retired_at__isnull=True).select_related("client").order_by("id"),
                "live_clients",
            ),
        )
    )
    return _part(found, limit, lambda row: _services(row, since))


def _registered(at: datetime.datetime) -> QuerySet[Organization]:
    """Organizations that have a part in this, with whether that is over: an operator whose licence has ended, and no source."""
    on = at.astimezone(SEOUL).date()
    latest = Licence.objects.filter(organization=OuterRef("pk"), effective_on__lte=on)
    latest = latest.order_by("-effective_on", "-decided_on", "-id")
    ended = Q(is_source=False, licence_status__in=ENDING_STATUSES)
    return (
        Organization.objects.filter(Q(is_operator=True) | Q(is_source=True))
        .with_licence_status(on=on)
        .annotate(decided_on=Subquery(latest.values("effective_on")[:1]), is_over=Q(ended))
        .order_by("code")
    )


def _part(found: QuerySet[Organization], limit: int, told) -> Part:
    rows = list(found[: limit + 1])
    after = rows[limit - 1].code if len(rows) > limit else ""
    return Part([told(row) for row in rows[:limit]], after)


def _op(row, since: datetime.datetime | None, *, is_over: bool) -> str:
    if is_over:
        return "D"
    return "I" if since is None or row.registered_at >= since else "M"


def _organization(row, since: datetime.datetime | None) -> dict[str, Any]:
    known = {
        "org_regno": row.registration_number,
        "serial_num": row.registration_number,
        "industry": INDUSTRIES.get(row.sector, ""),
        **_facts(getattr(row, "directory", None)),
    }
    return {
        "op_type": _op(row, since, is_over=row.is_over),
        "org_code": row.code,
        "org_type": _type(row, relayed="relay_org_code" in known),
        "is_rcv_org": row.is_operator,
        "org_name": row.name_ko,
        **{name: value for name, value in known.items() if value},
    }


def _type(row, *, relayed: bool) -> str:
    if not row.is_source:
        return "03"
    return "02" if relayed else "01"


def _facts(entry: DirectoryEntry | None) -> dict[str, Any]:
    """What is known of an organization's servers; a list comes with its number."""
    if entry is None:
        return {}
    lists = {"domain_ip": entry.domain_ips, "ip": entry.ips, "np_time": entry.quiet_times}
    found: dict[str, Any] = {
        "corp_regno": entry.corporate_number, "address": entry.address, "domain": entry.domain,
        "relay_org_code": entry.relay_code, "auth_type": entry.auth_type,
    }  # fmt: skip
    for name, values in lists.items():
        found |= {f"{name}_cnt": len(values), f"{name}_list": [{name: value} for value in values]}
    return found


def _services(row, since: datetime.datetime | None) -> dict[str, Any]:
    known = [address for link in row.live_clients for address in link.client.get_redirect_uris()]
    addresses = list(dict.fromkeys(known))[:MOST_REDIRECTS]
    told = [
        {
            "service_name": service.name_ko[:LONGEST_SERVICE_NAME],
            "op_type": _op(service, since, is_over=service.state == Service.State.CLOSED),
            "client_id": service.client_id,
            "redirect_uri_cnt": len(addresses),
            "redirect_uri_list": [{"redirect_uri": address} for address in addresses],
            **_schemes(service),
        }
        for service in row.told
    ]
    return {"org_code": row.code, "service_cnt": len(told), "service_list": told}


def _schemes(service: Service) -> dict[str, Any]:
    if not service.app_schemes:
        return {}
    told = [{"app_scheme": scheme} for scheme in service.app_schemes]
    return {"app_scheme_cnt": len(told), "app_scheme_list": told}
