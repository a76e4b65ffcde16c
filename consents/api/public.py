"""JSON doors that need no sign-in: the register of operators, services and their terms, kinds of data."""

from django.db.models import Prefetch
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import lifecycle
from consents.api import documents, shapes
from consents.api.authentication import Anyone
from consents.api.doors import Door, results
from consents.api.paging import PageQuery, page
from providers.models import Organization, Scope, Service, Terms, TermsItem
from providers.models.organizations import Sector


class PublicDoor(Door):
    authentication_classes = []
    permission_classes = [Anyone]


class OperatorsQuery(PageQuery):
    sector = serializers.ChoiceField(Sector.choices, required=False)


class Operators(PublicDoor):
    @extend_schema(
        operation_id="operators", summary=_("마이데이터 회사와 허가"), tags=["public"], parameters=[OperatorsQuery],
        responses=results(documents.Operator, "OperatorPage"), auth=[],
    )  # fmt: skip
    def get(self, request):
        """With the licence status in effect today; null where no decision is known."""
        query = self.query(OperatorsQuery)
        rows = Organization.objects.operators().with_licence_status(on=lifecycle.day(timezone.now()))
        if "sector" in query:
            rows = rows.filter(sector=query["sector"])
        found, following = page(rows, order="code", name="operators", query=query)
        return Response({"results": documents.Operator(found, many=True).data, "next": following})


class ServicesQuery(PageQuery):
    operator = shapes.Text(max_length=10, required=False, help_text="an operator's code")


class Services(PublicDoor):
    @extend_schema(
        operation_id="services", summary=_("가입할 수 있는 서비스"), tags=["public"], parameters=[ServicesQuery],
        responses=results(documents.Service, "ServicePage"), auth=[],
    )  # fmt: skip
    def get(self, request):
        """Those that have been opened, closed ones too."""
        query = self.query(ServicesQuery)
        rows = Service.objects.exclude(state=Service.State.REGISTERED).select_related("organization")
        if "operator" in query:
            rows = rows.filter(organization__code=query["operator"])
        found, following = page(rows, order="slug", name="services", query=query)
        return Response({"results": documents.Service(found, many=True).data, "next": following})


def service_shown(slug: str) -> dict:
    """A service that has been opened, with the terms that are published now. Three queries. Raises Http404."""
    service = get_object_or_404(
        Service.objects.exclude(state=Service.State.REGISTERED).select_related("organization"), slug=slug
    )
    items = Prefetch(
        "items", TermsItem.objects.select_related("source", "recipient").order_by("position"), "listed"
    )
    published = (
        Terms.objects.filter(service=service, state=Terms.State.PUBLISHED).prefetch_related(items).first()
    )
    terms = documents.TermsDetail(published).data if published else None
    return documents.Service(service).data | {"terms": terms}


class Scopes(PublicDoor):
    @extend_schema(
        operation_id="scopes", summary=_("쉬운 말로 적은 정보 항목"), tags=["public"], parameters=[PageQuery],
        responses=results(documents.Scope, "ScopePage"), auth=[],
    )  # fmt: skip
    def get(self, request):
        """Sensitivity is 1 to 5."""
        found, following = page(Scope.objects.all(), order="item", name="scopes", query=self.query(PageQuery))
        return Response({"results": documents.Scope(found, many=True).data, "next": following})
