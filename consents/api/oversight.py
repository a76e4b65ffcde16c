"""JSON doors of the regulator: cases, by a token with the scope `oversight:read` or by the portal's own pages."""

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents.api import shapes
from consents.api.authentication import BrowserAuthentication, Regulator, TokenAuthentication
from consents.api.doors import Door, results
from consents.api.paging import PageQuery, page
from consents.models import Case
from providers import signing


class OversightDoor(Door):
    """A door for a regulator. Subjects are pseudonyms."""

    scope = "oversight:read"
    authentication_classes = [TokenAuthentication, BrowserAuthentication]
    permission_classes = [Regulator]


class CasesQuery(PageQuery):
    organization = shapes.Text(max_length=10, required=False, help_text="organization code")
    kind = serializers.ChoiceField(Case.Kind.choices, required=False)
    state = serializers.ChoiceField([("open", "open"), ("settled", "settled")], required=False)


class CaseDocument(serializers.Serializer):
    id = serializers.UUIDField()
    kind = serializers.ChoiceField(Case.Kind.choices)
    organization = serializers.CharField(source="organization.code")
    subject = serializers.SerializerMethodField(help_text="pseudonym; empty where nobody is concerned")
    subscription = serializers.UUIDField(source="subscription_id", allow_null=True)
    consent = serializers.UUIDField(source="consent_id", allow_null=True)
    stated = serializers.JSONField(help_text="what they say")
    known = serializers.JSONField(help_text="what the log says")
    opened_at = shapes.Instant()
    verb = serializers.ChoiceField(Case.Verb.choices)
    reason = serializers.CharField()
    settled_at = shapes.Instant(allow_null=True)

    def get_subject(self, case: Case) -> str:
        if not case.person_id:
            return ""
        towards = case.subscription.operator_id if case.subscription else case.organization_id
        return signing.pseudonym(str(towards), str(case.person_id))


class Reconciliation(OversightDoor):
    @extend_schema(
        operation_id="oversight_reconciliation", summary=_("회사들의 말과 기록이 다른 일"), tags=["regulator"],
        parameters=[CasesQuery], responses=results(CaseDocument, "CasePage"),
    )  # fmt: skip
    def get(self, request):
        """Newest first. `stated` is one side's word, `known` what the log says; neither names a person."""
        query = self.query(CasesQuery)
        rows = Case.objects.select_related("organization", "subscription")
        if "organization" in query:
            rows = rows.filter(organization__code=query["organization"])
        if "kind" in query:
            rows = rows.filter(kind=query["kind"])
        if "state" in query:
            rows = rows.filter(settled_at__isnull=query["state"] == "open")
        # Ids are UUIDv7: their order is that of opening.
        found, following = page(rows, order="-id", name="cases", query=query)
        return Response({"results": CaseDocument(found, many=True).data, "next": following})
