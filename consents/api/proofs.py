"""JSON doors of the person's own proofs: the receipt of a fact, and what shows that it stands in the published log."""

from django.http import HttpResponse
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access
from consents.api import documents, problems, shapes
from consents.api.person import PersonDoor
from consents.api.problems import Problem
from consents.queries import proofs


class EntryReceipt(serializers.Serializer):
    id = serializers.UUIDField()
    standing = serializers.ChoiceField(
        ["in", "promised", "late", "unknown"], help_text="whether it is in the log yet"
    )
    at = shapes.Instant(help_text="in the log since, or promised until")
    receipt = serializers.CharField(help_text=documents.RECEIPT)


class Receipt(PersonDoor):
    @extend_schema(
        operation_id="me_entry_receipt", summary=_("기록 하나의 영수증"), tags=["person"], responses=EntryReceipt,
    )  # fmt: skip
    def get(self, request, event_id):
        """The same bytes each time. 404 for a fact about somebody else."""
        entry = access.own_entry(request, event_id)
        standing = proofs.standings([entry])[entry.event_id]
        shown = {
            "id": event_id,
            "standing": standing.code,
            "at": standing.at,
            "receipt": proofs.receipt(entry),
        }
        return Response(EntryReceipt(shown).data)


class Proof(PersonDoor):
    @extend_schema(
        operation_id="me_entry_proof", summary=_("기록 하나가 기록부에 있다는 증명"), tags=["person"],
        responses={(200, "text/plain"): OpenApiTypes.STR, 409: problems.described("not-yet"), 503: problems.described("log-unreadable")},
    )  # fmt: skip
    def get(self, request, event_id):
        """A `.tlog-proof` (C2SP) with the fact's disclosures and salts: whoever has it can read and show them. 409
        `not-yet` until the fact stands under the published checkpoint; `Retry-After` says when that is promised."""
        entry = access.own_entry(request, event_id)
        try:
            text = proofs.proof(entry)
        except proofs.Unreadable as error:
            raise Problem("log-unreadable") from error
        if text is None:
            raise Problem("not-yet", headers={"Retry-After": str(proofs.wait(entry))})
        headers = {"Content-Disposition": f'attachment; filename="{event_id}.tlog-proof"'}
        return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=headers)
