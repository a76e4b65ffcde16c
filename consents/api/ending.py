"""The JSON doors of the other side's own ends: the customer left, or the service closes. Everybody else is told; never an echo."""

from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, inbound
from consents.api import shapes
from consents.api.idempotency import once
from consents.api.operator import OperatorDoor, OrganizationDoor
from consents.api.problems import Problem
from providers.models import Service


class OwnEnding(shapes.Strict):
    reason = serializers.ChoiceField(
        ["source_left", "operator_closed", "account_closed"],
        required=False,
        help_text="a source: source_left (without a reason) or account_closed; an operator: operator_closed or account_closed",
    )


class OwnEnded(serializers.Serializer):
    ended = serializers.IntegerField(help_text="consents and subscriptions that ended by this call")


class ServiceClosed(serializers.Serializer):
    client_id = serializers.CharField()
    state = serializers.CharField()
    ending = serializers.IntegerField(help_text="subscriptions that are ended now, a few hundred at a time")


class EndDoor(OrganizationDoor):
    kind = inbound.OUR_CONSENT

    def end(self, request, pk) -> Response:
        asked, own = self.read(OwnEnding), request.organization
        if self.kind == inbound.OUR_CONSENT:
            access.party_consent(own, pk)
        elif not access.has_part_in(own, pk):
            raise Problem("not-found")
        try:
            ended = inbound.end(
                own, kind=self.kind, identifier=str(pk), reason=asked.get("reason", ""), by=self.actor, at=timezone.now(),
            )  # fmt: skip
        except inbound.WrongReason as error:
            words = str(_("이 회사가 들 수 있는 까닭이 아니에요."))
            raise Problem("invalid-request", errors=[{"pointer": "#/reason", "detail": words}]) from error
        if not ended:
            raise Problem("already-ended")
        return Response({"ended": ended})


class EndConsent(EndDoor):
    @extend_schema(
        operation_id="end_consent", summary=_("우리 쪽에서 연동 하나 끝내기"), tags=["operator", "source"], request=OwnEnding,
        responses=OwnEnded,
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """A source ends what it sends ("the customer left us"), an operator or a third party what it receives. It counts at once: the
        others get `consent-withdrawn`, the person a notice, the log an entry. You are not called back. What was
        received stays until the person asks for it to be erased."""
        return self.end(request, pk)


class EndSubscription(EndDoor):
    kind = inbound.OUR_SUBSCRIPTION

    @extend_schema(
        operation_id="end_own_subscription", summary=_("우리 쪽에서 가입 하나 끝내기"), tags=["operator", "source"], request=OwnEnding,
        responses=OwnEnded,
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """An operator ends all of it, a source or a third party its own part. As `end_consent`."""
        return self.end(request, pk)


class CloseService(OperatorDoor):
    scope = "requests:write"

    @extend_schema(
        operation_id="close_service", summary=_("서비스 닫기"), tags=["operator"], request=shapes.Nothing, responses={202: ServiceClosed},
    )  # fmt: skip
    @once
    def post(self, request, slug):
        """For ever: nobody can join any more, and every subscription ends with `operator_closed` within minutes. Sources and third
        parties get `subscription-ended`, each person a notice and the choice to have everything erased. `slug` is the
        service's client_id. Again is no change."""
        self.read(shapes.Nothing)
        service = get_object_or_404(Service, client_id=slug, organization=request.organization)
        ending = inbound.close_service(service, by=self.actor, at=timezone.now())
        return Response(
            {"client_id": service.client_id, "state": Service.State.CLOSED, "ending": ending}, 202
        )
