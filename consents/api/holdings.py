"""The JSON door for holdings: what an operator holds of whom, up to 1,000 rows a request."""

from collections.abc import Mapping

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import reconciliation, reports
from consents.api import examples, rows
from consents.api.idempotency import once
from consents.api.operator import OperatorDoor
from consents.reconciliation import Market, Refusal, Report

OUTCOMES = ["created", "updated", "unchanged", "mismatched", "waiting", "refused"]


class HoldingRow(serializers.Serializer):
    """One person, service and source. Dates: 2026-11-22 or 20261122."""

    subject = serializers.CharField(
        help_text="the id the portal gave (UUID), or the person's CI (88 characters), which is never kept"
    )
    service_client_id = serializers.CharField()
    joined_on = serializers.CharField()
    source_org_code = serializers.CharField()
    scopes = serializers.CharField(help_text="separated by spaces, or a list")
    purpose = serializers.CharField()
    cycle = serializers.CharField(required=False, help_text="1/1w to 1/4w, or empty")
    end_date = serializers.CharField()
    retained_until = serializers.CharField(required=False, help_text="99991231: until erased")
    last_used_on = serializers.CharField(required=False)


class RowProblem(serializers.Serializer):
    pointer = serializers.CharField(help_text="into the row")
    code = serializers.ChoiceField(sorted(reports.REASONS))
    detail = serializers.CharField()


class HoldingResult(serializers.Serializer):
    number = serializers.IntegerField(help_text="which of the rows, from 1")
    result = serializers.ChoiceField(OUTCOMES)
    replaced = serializers.BooleanField(
        help_text="of a waiting row: it took the place of what was said before of that person, service and source"
    )
    errors = RowProblem(many=True, help_text="all that is wrong with the row")  # type: ignore[assignment]


_EXAMPLE = {
    "subject": "0b6c0b34-2f0e-4b0e-9f5c-3d2f8a1c9e77", "service_client_id": "norudoyogwan-01", "joined_on": "2026-05-01",
    "source_org_code": "BKNEUT9001", "scopes": "bank.list bank.deposit", "purpose": "가계부", "cycle": "1/1w",
    "end_date": "2027-05-01", "retained_until": "99991231", "last_used_on": "2026-11-01",
}  # fmt: skip
EXAMPLES = [_EXAMPLE, _EXAMPLE | {"source_org_code": "ZZNONE0000"}]
ANSWER = {
    "results": [
        {"number": 1, "result": "created", "replaced": False, "errors": []},
        {
            "number": 2, "result": "refused", "replaced": False,
            "errors": [{"pointer": "#/source_org_code", "code": "unknown-source", "detail": "모르는 정보제공자예요."}],
        },
    ]
}  # fmt: skip


class HoldingResults(serializers.Serializer):
    results = HoldingResult(many=True)


class Holdings(OperatorDoor):
    scope = "holdings:write"
    parser_classes = rows.parsers(reports.COLUMNS)

    @extend_schema(
        operation_id="report_holdings", summary=_("가지고 있는 것 알리기"), tags=["operator"],
        request={"application/json": HoldingRow(many=True), "application/x-ndjson": OpenApiTypes.STR, "text/csv": OpenApiTypes.STR},
        responses=HoldingResults,
        examples=[
            *examples.of_rows("two holdings", EXAMPLES, reports.COLUMNS),
            OpenApiExample("one taken in, one not", response_only=True, value=ANSWER),
        ],
    )  # fmt: skip
    @once
    def post(self, request):
        """An array of 1 to 1,000 rows (or NDJSON, or CSV), each judged on its own: `created`, `updated` (a later use),
        `unchanged` (said before), `mismatched` (it contradicts what stands here: nothing is changed, the person is told),
        `waiting` (nobody here has that CI yet; a later word about the same service and source takes the place of the one
        before, and says so: `replaced`) or `refused`, with all that is wrong with it. Nothing that has ended comes back by a report. For more
        rows there is `/uploads`. The answer is 200 whatever became of the rows."""
        given = rows.given(request)
        report = Report(told={})
        with transaction.atomic():
            reconciliation.take_in(
                enumerate(map(_row, given), start=1), report, market=Market.of(request.organization), by=self.actor, at=timezone.now()
            )  # fmt: skip
        refused = {row.number: row for row in report.refused}
        results = [_told(number, refused.get(number), report) for number in range(1, len(given) + 1)]
        return Response({"results": results})


def _row(raw: object) -> Mapping:
    """What is no object stands under an empty name, as a line of a file that cannot be read."""
    return raw if isinstance(raw, dict) else {"": str(raw)[:200]}


def _told(number: int, refusal: Refusal | None, report: Report) -> dict:
    if refusal is None:
        assert report.told is not None
        replaced = number in report.replaced
        return {"number": number, "result": report.told[number], "replaced": replaced, "errors": []}
    errors = [
        {
            "pointer": f"#/{column[:60]}" if column else "#",
            "code": code,
            "detail": reports.words(code, values),
        }
        for column, code, values in refusal.faults
    ]
    return {"number": number, "result": "refused", "replaced": False, "errors": errors}
