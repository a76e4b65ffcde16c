"""JSON doors of the regulator: cases, by a token with the scope `oversight:read` or by the portal's own pages."""

from django.db.models import Prefetch
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents.api import shapes
from consents.api.authentication import BrowserAuthentication, Regulator, TokenAuthentication
from consents.api.doors import Door, results
from consents.api.paging import PageQuery, page
from consents.models import Case, WeeklyCalls, WeeklyCount
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


class CallsDocument(serializers.ModelSerializer):
    mean = serializers.DecimalField(
        max_digits=18,
        decimal_places=3,
        allow_null=True,
        help_text="of all calls, in the unit in which it was sent",
    )

    class Meta:
        model = WeeklyCalls
        fields = ["kind", "succeeded", "failed", "mean", "people", "askers"]


class MeasuredDocument(CallsDocument):
    class Meta(CallsDocument.Meta):
        fields = [*CallsDocument.Meta.fields, "days"]


class WeekDocument(serializers.ModelSerializer):
    """One side's numbers of one week."""

    organization = serializers.CharField(source="organization.code", help_text="who counted")
    service = serializers.CharField(source="service.client_id")
    source = serializers.CharField(source="source.code")  # type: ignore[assignment]
    consent_new = serializers.IntegerField(source="consents_new")
    consent_revoke = serializers.IntegerField(source="consents_revoked")
    consent_own = serializers.IntegerField(source="consents_own")
    calls = CallsDocument(many=True)
    reported_at = shapes.Instant()

    class Meta:
        model = WeeklyCount
        fields = [
            "id", "week_on", "organization", "service", "source", "consent_new", "consent_revoke", "consent_own", "calls", "reported_at",
        ]  # fmt: skip


class MeasuredWeek(WeekDocument):
    calls = MeasuredDocument(many=True)


_WEEKS = WeeklyCount.objects.select_related("organization", "service", "source")


class Weeks(OversightDoor):
    @extend_schema(
        operation_id="oversight_weekly_counts", summary=_("회사와 정보제공자가 센 한 주의 수"), tags=["regulator"],
        parameters=[PageQuery], responses=results(WeekDocument, "WeekPage"),
    )  # fmt: skip
    def get(self, request):
        """As each side sent them, the newest first: consents, and how calls fared (`kind` 1 regular, 2 not regular, 3 lists)."""
        rows = _WEEKS.prefetch_related(Prefetch("calls", WeeklyCalls.objects.defer("days")))
        found, following = page(rows, order="-id", name="weekly counts", query=self.query(PageQuery))
        return Response({"results": WeekDocument(found, many=True).data, "next": following})


class OneWeek(OversightDoor):
    @extend_schema(
        operation_id="oversight_weekly_count",
        summary=_("한 주의 수 하나와 시간대별 호출"),
        tags=["regulator"],
        responses=MeasuredWeek,
    )
    def get(self, request, pk):
        """With `days`: calls by day, kind of API and hour, as they were measured."""
        return Response(MeasuredWeek(get_object_or_404(_WEEKS.prefetch_related("calls"), pk=pk)).data)


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
