"""The JSON door for transfers: what operators and sources sent and received, up to 1,000 rows a request."""

from collections.abc import Mapping
from functools import partial

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import mail, reports, transfers
from consents.api import examples, rows, shapes
from consents.api.idempotency import once
from consents.api.operator import OrganizationDoor
from consents.api.problems import pointers
from consents.transfers import REASONS

COLUMNS = ("key", "subscription", "consent", "source", "scopes", "regular", "at")  # of a CSV


class TransferRow(shapes.Strict):
    key = shapes.Text(max_length=100, help_text="the reporter's own id of this transfer")
    subscription = shapes.Identifier()
    consent = shapes.Identifier(required=False, allow_null=True)
    source = shapes.Text(  # type: ignore[assignment]
        max_length=10,
        required=False,
        allow_blank=True,
        help_text="organization code; not needed with `consent`",
    )
    scopes = serializers.ListField(child=shapes.Text(max_length=40), max_length=100, required=False)
    regular = shapes.Flag(
        required=False, help_text="by the calendar (true) or because the person looked (false)"
    )
    at = shapes.Instant(help_text="when data flowed")


class TransferProblem(serializers.Serializer):
    pointer = serializers.CharField()
    detail = serializers.CharField()


class TransferResult(serializers.Serializer):
    key = serializers.CharField()
    result = serializers.ChoiceField(["created", "known", "refused"])
    after_stop = serializers.BooleanField(
        help_text="the consent had ended by then; the person and the regulator are told"
    )
    errors = TransferProblem(many=True)  # type: ignore[assignment]


EXAMPLE = {
    "key": "2026-11-22/0001", "subscription": "01930000-0000-7000-8000-000000000001", "source": "BKNEUT9001",
    "scopes": ["bank.list", "bank.deposit"], "regular": True, "at": "2026-11-22T03:00:00Z",
}  # fmt: skip


class TransferResults(serializers.Serializer):
    results = TransferResult(many=True)


class Transfers(OrganizationDoor):
    scope = "transfers:write"
    parser_classes = rows.parsers(COLUMNS)

    @extend_schema(
        operation_id="report_transfers", summary=_("정보를 주고받은 일 알리기"), tags=["operator", "source"],
        request={"application/json": TransferRow(many=True), "application/x-ndjson": OpenApiTypes.STR, "text/csv": OpenApiTypes.STR},
        responses=TransferResults,
        examples=examples.of_rows("one transfer", [EXAMPLE], COLUMNS),
    )  # fmt: skip
    @once
    def post(self, request):
        """An array of 1 to 1,000 rows (or NDJSON, or CSV with the same names in its first row), each judged on its own: `created`, `known` (the same `key` with the same
        content, which is no change) or `refused` with its reasons. The answer is 200 whatever became of the rows."""
        given = [
            of_cells(row) if request.content_type.startswith("text/csv") else row
            for row in rows.given(request)
        ]
        judged = [shaped(row) for row in given]
        good = [row for row in judged if isinstance(row, transfers.Row)]
        at = timezone.now()
        told = transfers.report(good, organization=request.organization, by=self.actor, at=at)
        if any(answer.after_stop for answer in told):
            transaction.on_commit(partial(mail.tell_after_stop, at=at), robust=True)
        answers = iter(told)
        results = [
            _told(next(answers)) if isinstance(row, transfers.Row) else {"key": _key(raw), **row}
            for row, raw in zip(judged, given, strict=True)
        ]
        return Response({"results": results})


def of_cells(row: Mapping) -> dict:
    """A row of CSV as the JSON that says the same; a line that could not be read stays what it is."""
    found = {name: value for name, value in row.items() if value != ""}
    if "scopes" in found:
        found["scopes"] = found["scopes"].split()
    if found.get("regular") in ("true", "false"):
        found["regular"] = found["regular"] == "true"
    return found


def shaped(raw: object) -> "transfers.Row | dict":
    checked = TransferRow(data=raw)
    if not checked.is_valid():
        return {"result": "refused", "after_stop": False, "errors": pointers(checked.errors)[:10]}
    row = checked.validated_data
    return transfers.Row(
        key=row["key"], subscription=row["subscription"], at=row["at"], consent=row.get("consent"),
        source=row.get("source", ""), scopes=tuple(row.get("scopes", ())), regular=row.get("regular", True),
    )  # fmt: skip


def _key(raw: object) -> str:
    key = raw.get("key") if isinstance(raw, dict) else None
    return reports.seen(key[:100]) if isinstance(key, str) else ""


def _told(answer: transfers.Answer) -> dict:
    errors = [{"pointer": f"#/{place}", "detail": str(REASONS[why])} for place, why in answer.errors]
    return {"key": answer.key, "result": answer.result, "after_stop": answer.after_stop, "errors": errors}
