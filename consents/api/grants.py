"""The JSON door of Grant Management for OAuth 2.0 (FAPI draft 03): a consent is a grant, its id the `grant_id`."""

import datetime

from django.db.models import Q
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import permissions
from rest_framework.response import Response

from consents import access, lifecycle
from consents.actors import Actor
from consents.api import documents, limits
from consents.api.authentication import needs
from consents.api.doors import Door
from consents.ledger.entries import SEOUL
from consents.models import Consent, EndReason, EntryIndex
from consents.oauth import GRANT_QUERY, GRANT_REVOKE

PER_MINUTE = 600  # of one caller


class Party(permissions.BasePermission):
    """A token with the scope of the method: an organization's own, or one that a person gave to an application."""

    def has_permission(self, request, view) -> bool:
        if request.auth is None:
            return False
        needs(view.scope_of(request.method), request=request)
        return request.organization is not None or access.role(request.user) == access.PERSON


class Grant(Door):
    permission_classes = [Party]
    http_method_names = ["get", "head", "delete"]

    def scope_of(self, method: str) -> str:
        return GRANT_REVOKE if method == "DELETE" else GRANT_QUERY

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        caller = request.organization or request.user
        limits.hold("grants", str(caller.pk), most=PER_MINUTE)

    @extend_schema(
        operation_id="grant", summary=_("동의 하나의 상태(FAPI 권한 관리)"), tags=["operator", "source", "person"],
        responses=documents.Grant,
    )  # fmt: skip
    def get(self, request, pk):
        """A running or paused consent of the caller's: as its person, its operator or its source. 404 for one that has ended,
        for another's, and for one that never was: which of these is told to nobody (the draft's 403 would tell)."""
        consent = self._own(pk)
        news = EntryIndex.objects.filter(consent=consent).order_by("-seq").values_list("at", flat=True)
        ends = datetime.datetime.combine(consent.until_on, datetime.time(), SEOUL) + datetime.timedelta(
            days=1
        )
        shown = {"consent": consent, "updated": news.first() or consent.granted_at, "ends": ends}
        return Response(documents.Grant(shown).data)

    @extend_schema(
        operation_id="revoke_grant", summary=_("동의 하나 끝내기(FAPI 권한 관리)"), tags=["operator", "source", "person"],
        responses={204: OpenApiResponse(description="ended for good")},
    )  # fmt: skip
    def delete(self, request, pk):
        """Ends the consent for good and tells everybody else; whoever asked is not called back. What was received is not erased
        by this. 404 where there is nothing to end (any more), as with GET."""
        consent, at = self._own(pk), timezone.now()
        own = request.organization
        try:
            if own is None:
                lifecycle.withdraw(consent, erase=False, by=Actor.person(request.user), at=at)
            elif not lifecycle.ended_by(
                consent, reason=_reason(own, consent), by=Actor.organization(own), at=at
            ):
                raise Http404
        except lifecycle.AlreadyEnded as error:  # by somebody else in the same moment
            raise Http404 from error
        return Response(status=204)

    def _own(self, pk) -> Consent:
        own = self.request.organization  # type: ignore[attr-defined]
        whose = Q(person=self.request.user.pk)
        if own is not None:
            access.party_consent(own, pk)
            whose = Q(subscription__operator=own) | Q(source=own)
        related = ("source", "recipient", "subscription__service", "subscription__operator")
        return get_object_or_404(Consent.objects.live().select_related(*related).filter(whose), pk=pk)


def _reason(organization, consent: Consent) -> str:
    if consent.subscription.operator_id == organization.pk:
        return EndReason.OPERATOR_CLOSED
    return EndReason.SOURCE_LEFT
