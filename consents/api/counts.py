"""The JSON door for weekly counts (지원-004 of operators, 지원-005 of sources), up to 1,000 rows a request."""

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import counts
from consents.api import shapes
from consents.api.idempotency import once
from consents.api.operator import OrganizationDoor
from consents.api.problems import Problem, pointers
from consents.api.rows import ArrayParser

REASONS = {
    "not_found": _("우리 서비스나 우리가 보내는 곳이 아니에요."),
    "no_sunday": _("일요일이어야 해요."),
    "not_over": _("아직 끝나지 않은 주예요."),
}
LARGEST = 2**31 - 1


class CountRow(shapes.Strict):
    week_on = shapes.Day(help_text="the Sunday the week begins with")
    service = shapes.Text(max_length=50, help_text="client_id")
    source = shapes.Text(max_length=10, help_text="organization code")  # type: ignore[assignment]
    consent_new = shapes.Whole(min_value=0, max_value=LARGEST, help_text="new or changed in the week")
    consent_revoke = shapes.Whole(min_value=0, max_value=LARGEST, help_text="ended in the week")
    consent_own = shapes.Whole(min_value=0, max_value=LARGEST, help_text="valid at its end")


class CountProblem(serializers.Serializer):
    pointer = serializers.CharField()
    detail = serializers.CharField()


class CountResult(serializers.Serializer):
    result = serializers.ChoiceField(["kept", "refused"])
    errors = CountProblem(many=True)  # type: ignore[assignment]


class CountResults(serializers.Serializer):
    results = CountResult(many=True)


class WeeklyCounts(OrganizationDoor):
    scope = "transfers:write"
    parser_classes = [ArrayParser]

    @extend_schema(
        operation_id="report_weekly_counts", summary=_("한 주의 동의 수 알리기"), tags=["operator", "source"],
        request=CountRow(many=True), responses=CountResults,
    )  # fmt: skip
    @once
    def post(self, request):
        """An array of 1 to 1,000 rows, each judged on its own; the same week again replaces it. Operators send on Sunday,
        sources on Monday, for the Sunday to Saturday before. What differs from the log becomes a case."""
        given = request.data
        if not isinstance(given, list) or not 0 < len(given) <= counts.MOST:
            raise Problem(
                "invalid-request",
                errors=[{"pointer": "#", "detail": str(_("1개부터 1,000개까지의 목록이어야 해요."))}],
            )
        checked = [CountRow(data=row) for row in given]
        rows = [_row(row.validated_data) for row in checked if row.is_valid()]
        told = iter(counts.report(rows, organization=request.organization, by=self.actor, at=timezone.now()))
        results = [
            _told(next(told))
            if not row.errors
            else {"result": "refused", "errors": pointers(row.errors)[:10]}
            for row in checked
        ]
        return Response({"results": results})


def _row(given: dict) -> counts.Row:
    numbers = counts.Numbers(given["consent_new"], given["consent_revoke"], given["consent_own"])
    return counts.Row(given["week_on"], given["service"], given["source"], numbers)


def _told(answer: "str | counts.Refused") -> dict:
    if isinstance(answer, str):
        return {"result": answer, "errors": []}
    return {
        "result": "refused",
        "errors": [{"pointer": f"#/{answer.place}", "detail": str(REASONS[answer.reason])}],
    }
