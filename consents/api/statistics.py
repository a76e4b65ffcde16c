"""Weekly statistics by the Korean support API (지원-004 of operators, 005 of sources). They land where /weekly-counts does: all
of a week or nothing, and the same week again replaces it."""

import datetime
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework.response import Response

from consents import counts
from consents.api import examples, korea_schema, problems
from consents.api.mydata import KoreanDoor, Wrong
from providers.models import Service
from providers.wires.korea_fields import moment

LARGEST = 4_194_304  # bytes: a week with a hundred organizations, hour by hour
REASONS = {"no_sunday": "stat_date: no Sunday to Saturday", "not_over": "stat_date: the week is not over"}


class StatisticsParser(problems.StrictJSONParser):
    largest = LARGEST


class Statistics(KoreanDoor):
    """A week's numbers, all of it or nothing; the same week again replaces it."""

    parser_classes = [StatisticsParser]

    def keep(self, rows: list[counts.Row]) -> Response:
        organization = self.request.organization  # type: ignore[attr-defined]
        with transaction.atomic():
            told = counts.report(rows, organization=organization, by=self.actor, at=timezone.now())
            refused = next((answer for answer in told if isinstance(answer, counts.Refused)), None)
            if refused is not None:
                place = REASONS.get(refused.reason)
                raise Wrong("40001", place) if place else Wrong("40303", "org_code")
        return self.answered()


class OfOperators(Statistics):
    call = "지원-004"

    @extend_schema(
        operation_id="mydata_statistics_mydata", summary=_("지원-004: 마이데이터사업자 통계 전송"), tags=["korea"],
        parameters=korea_schema.parameters(call), request={"application/json": korea_schema.body(call)},
        responses=korea_schema.answer(call),
        examples=[OpenApiExample("a week", request_only=True, value=examples.week(client_id="durumi-ledger-01", org_code="BKNEUT9001"))],
    )  # fmt: skip
    def post(self, request):
        """`consent_new` and `consent_revoke` are added up over the week, `consent_own` is that of its last day. Numbers about
        calls are kept as they come, one week a `type`."""
        asked = self.asked()
        if not request.organization.is_operator:
            raise Wrong("40104", "not an operator")
        if not Service.objects.filter(
            client_id=asked["client_id"], organization=request.organization
        ).exists():
            raise Wrong("40001", "client_id: not a service of yours")
        week_on, numbers = week(asked)
        measured = calls(asked)
        return self.keep(
            [
                counts.Row(week_on, asked["client_id"], key[0], total, measured[key])
                for key, total in numbers.items()
            ]
        )


class OfSources(Statistics):
    call = "지원-005"

    @extend_schema(
        operation_id="mydata_statistics_provider", summary=_("지원-005: 정보제공자 통계 전송"), tags=["korea"],
        parameters=korea_schema.parameters(call), request={"application/json": korea_schema.body(call)},
        responses=korea_schema.answer(call),
        examples=[OpenApiExample("a week", request_only=True, value=examples.week(org_code="FTDURU9001"))],
    )  # fmt: skip
    def post(self, request):
        """As 지원-004 from the other side. `client_id` tells the services of one operator apart where it has several."""
        asked = self.asked()
        if not request.organization.is_source:
            raise Wrong("40104", "not a provider")
        week_on, numbers = week(asked)
        known, measured = _clients(numbers), calls(asked)
        rows = [
            counts.Row(
                week_on, client or known[code], request.organization.code, total, measured[code, client]
            )
            for (code, client), total in numbers.items()
        ]
        return self.keep(rows)


def _clients(numbers: "dict[tuple[str, str], counts.Numbers]") -> dict[str, str]:
    """The one service of each operator that was named by its code alone. Raises Wrong where there are none or several, or
    where a client_id belongs to somebody else. One query."""
    codes = {code for code, _client in numbers}
    found: dict[str, list[str]] = {code: [] for code in codes}
    for client_id, code in Service.objects.filter(organization__code__in=codes).values_list(
        "client_id", "organization__code"
    ):
        found[code].append(client_id)
    for code, client in numbers:
        if not found[code]:
            raise Wrong("40303", "org_code")
        if client and client not in found[code]:
            raise Wrong("40001", "client_id: not a service of this organization")
        if not client and len(found[code]) > 1:
            raise Wrong("40001", "client_id: the organization has several services")
    return {code: clients[0] for code, clients in found.items()}


def week(asked: dict[str, Any]) -> "tuple[datetime.date, dict[tuple[str, str], counts.Numbers]]":
    """The Sunday the week begins with, and the week's numbers by organization and client_id (which may be empty).

    Raises Wrong where the days are not Sunday to Saturday, or `inquiry_date` is neither that Sunday nor the next: which of
    the two is meant has not been published."""
    days = {_day(day["stat_date"]): day["org_list"] for day in asked["stat_date_list"]}
    first = min(days)
    whole = {first + datetime.timedelta(days=n) for n in range(7)}
    if first.isoweekday() != 7 or set(days) != whole:
        raise Wrong("40001", "stat_date_list: not the seven days from a Sunday to a Saturday")
    if _day(asked["inquiry_date"]) not in (first, first + counts.WEEK):
        raise Wrong("40001", "inquiry_date: not the Sunday of that week or the next")
    numbers: dict[tuple[str, str], counts.Numbers] = {}
    for day in sorted(days):
        seen = set()
        for row in days[day] or ():
            key = (row["org_code"], row.get("client_id") or "")
            if key in seen:
                raise Wrong("40001", "org_code: twice on one day")
            seen.add(key)
            before = numbers.get(key, counts.Numbers(0, 0, 0))
            numbers[key] = counts.Numbers(
                before.new + row["consent_new"], before.revoked + row["consent_revoke"], row["consent_own"]
            )
    return first, numbers


def calls(asked: dict[str, Any]) -> "dict[tuple[str, str], counts.Calls]":
    """How calls fared, by organization and client_id: what was measured hour by hour, and its sums. Raises Wrong."""
    days: dict[tuple[str, str], list[dict[str, Any]]] = {}
    in_order = sorted(asked["stat_date_list"], key=lambda day: day["stat_date"])
    for day in in_order:
        for row in day["org_list"] or ():
            kept = days.setdefault((row["org_code"], row.get("client_id") or ""), [])
            if row.get("api_type_list"):
                _check_slots(row["api_type_list"])
                kept.append({"date": day["stat_date"], "types": row["api_type_list"]})
    last = in_order[-1]
    people, askers = last.get("svr_usr_cnt"), last.get("trsms_dem_cnt")
    return {key: _sums(asked["type"], kept, people, askers) for key, kept in days.items()}


def _check_slots(told: list[dict[str, Any]]) -> None:
    """An hour of one kind of API is told once. Raises Wrong."""
    seen = [(one.get("api_type"), slot["tm_slot"]) for one in told for slot in one.get("tm_slot_list") or ()]
    if len(set(seen)) < len(seen):
        raise Wrong("40001", "tm_slot: twice for one api_type")


def _sums(kind: str, days: list[dict[str, Any]], people: int | None, askers: int | None) -> "counts.Calls":
    slots = [slot for day in days for told in day["types"] for slot in told.get("tm_slot_list") or ()]
    succeeded = sum(slot["success_api_cnt"] for slot in slots)
    failed = sum(slot["fail_api_cnt"] for slot in slots)
    spent = sum(
        Decimal(str(slot["rsp_avg"])) * (slot["success_api_cnt"] + slot["fail_api_cnt"]) for slot in slots
    )
    mean = round(Decimal(spent) / (succeeded + failed), 3) if succeeded + failed else None
    return counts.Calls(kind, succeeded, failed, mean, days, people, askers)


def _day(text: str) -> datetime.date:
    at = moment(text)
    assert at is not None, "the table has checked it"
    return at.date()
