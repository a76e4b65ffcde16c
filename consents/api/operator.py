"""JSON doors of operators' and sources' servers: consent requests, consents, deliveries."""

import functools
import uuid

from django.conf import settings
from django.db.models import Exists, F, OuterRef
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, answers, polling, requests
from consents.actors import Actor
from consents.api import documents, limits, receipts, shapes
from consents.api.authentication import Operator, Organization
from consents.api.doors import Door, results
from consents.api.gym import of_trials
from consents.api.idempotency import once
from consents.api.paging import PageQuery, page
from consents.models import Consent, ConsentRequest, Delivery, EntryIndex
from consents.queries import lodged as lodged_queries
from providers.models import Service

# Entries by which an organization's answers are logged.
ANSWERS = ("delivery.received", "delivery.stopped", "delivery.erased", "erasure.refused")


class OrganizationDoor(Door):
    """A door for an organization's server. Which organization it is comes from the token's client, never from the request."""

    permission_classes = [Organization]
    scope = "deliveries:ack"

    @property
    def actor(self) -> Actor:
        return Actor.organization(self.request.organization)  # type: ignore[attr-defined]


class OperatorDoor(OrganizationDoor):
    permission_classes = [Operator]


def own_rows(handler):
    """A GET whose reads the database keeps to the caller's own rows, whatever filter is forgotten in it."""

    @functools.wraps(handler)
    def kept(self, request, *args, **kwargs):
        with access.rows_of(request.organization):
            return handler(self, request, *args, **kwargs)

    return kept


# --- consent requests ----------------------------------------------------------------------------------------------------


class ConsentRequests(OperatorDoor):
    scope = "requests:write"

    @extend_schema(
        operation_id="lodge_consent_request", summary=_("사람을 보내기 전에 동의 요청 등록하기"),
        tags=["operator"], request=shapes.Lodging, responses={201: documents.Lodged},
        examples=[
            OpenApiExample(
                "with a way back", request_only=True,
                value={
                    "service": "norudoyogwan-01", "redirect_uri": "https://app.example.com/back", "state": "af0ifjsldkj",
                    "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "code_challenge_method": "S256",
                },
            )
        ],
    )  # fmt: skip
    @once
    def post(self, request):
        """Send the person's browser to `authorize_url`. What they decide comes back to `redirect_uri`, and as a delivery.
        It has to be opened within `expires_in` seconds (10 minutes: AUTH_CODE_TTL_MINUTES of the dated policy); whoever
        has opened it has `decide_in` seconds from then (60 minutes: REQUEST_READING_MINUTES), and GET shows the new
        `expires_at`. Without a `code_challenge` no `code` comes back (`returns_code`): nothing would tie it to who asked."""
        asked = self.read(shapes.Lodging)
        service = get_object_or_404(Service, client_id=asked["service"], organization=request.organization)
        at = timezone.now()
        lodged = requests.lodge(
            organization=request.organization, service=service, redirect_uri=asked["redirect_uri"],
            client_state=asked["state"], code_challenge=asked["code_challenge"], by=self.actor, at=at,
        )  # fmt: skip
        answer = {
            "id": lodged.pk,
            "authorize_url": settings.PORTAL_URL + reverse("consent_request", args=[lodged.pk]),
            "expires_in": int((lodged.expires_at - at).total_seconds()),
            "expires_at": lodged.expires_at,
            "decide_in": 60 * requests.minutes(at=at).deciding,
            "returns_code": lodged.returns_code,
            "receipt": receipts.of_request("request.lodged", lodged),
        }
        headers = {"Location": f"/api/v1/consent-requests/{lodged.pk}"}
        return Response(documents.Lodged(answer).data, 201, headers=headers)


class OneConsentRequest(OperatorDoor):
    scope = "requests:write"

    @extend_schema(
        operation_id="consent_request", summary=_("동의 요청이 어떻게 됐는지"), tags=["operator"],
        responses=documents.ConsentRequest,
    )  # fmt: skip
    @own_rows
    def get(self, request, pk):
        """`subscription` is there once it was granted; `items` say what of it, each on its own."""
        own = ConsentRequest.objects.of(request.organization).select_related("service")
        lodged = get_object_or_404(own, pk=pk)
        if lodged.state == ConsentRequest.State.PENDING and not lodged.is_open(at=timezone.now()):
            lodged.state = ConsentRequest.State.EXPIRED  # shown only; the clock's job writes it
        return Response(documents.ConsentRequest(lodged, context=_seen(lodged)).data)


def _seen(lodged: ConsentRequest) -> dict:
    asked = lodged_queries.items(lodged)
    return {"items": asked, "outcome": lodged_queries.outcome(lodged, asked)}


class RedeemCode(OperatorDoor):
    scope = "requests:write"

    @extend_schema(
        operation_id="redeem_consent_request", summary=_("돌아온 브라우저의 code를 동의 결과로 바꾸기"), tags=["operator"],
        request=shapes.Redeeming, responses=documents.RedeemedRequest,
        examples=[
            OpenApiExample(
                "the code that came back", request_only=True,
                value={
                    "code": "V2QHBqPJZ5yKGuT1gMTYZ1hRHnTlqTUVIS6nRXGDd14", "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
                    "redirect_uri": "https://app.example.com/back",
                },
            )
        ],
    )  # fmt: skip
    @once
    def post(self, request):
        """The `code` that the browser brought works once, for 60 seconds, with the verifier of the lodged challenge and the
        same `redirect_uri`. It says that this browser is the one that was asked, and whose `subject` it is."""
        shown = self.read(shapes.Redeeming)
        lodged = requests.redeem(
            shown["code"], code_verifier=shown["code_verifier"], redirect_uri=shown["redirect_uri"],
            organization=request.organization, by=self.actor, at=timezone.now(),
        )  # fmt: skip
        return Response(documents.RedeemedRequest(lodged, context=_seen(lodged)).data)


# --- consents ------------------------------------------------------------------------------------------------------------


class ConsentsQuery(PageQuery):
    state = serializers.ChoiceField(Consent.State.choices, required=False)
    updated_since = shapes.Instant(required=False, help_text="those with a fact in the log since then")


def _own_consents(organization):
    rows = Consent.objects.of(organization).select_related("source", "recipient", "subscription__service")
    return rows.annotate(subject=F("person__subject_id"))  # the rest of a person is nothing an operator reads


class Consents(OperatorDoor):
    scope = "consents:read"

    @extend_schema(
        operation_id="consents", summary=_("우리 서비스에 준 동의"), tags=["operator"], parameters=[ConsentsQuery],
        responses=results(documents.OperatorConsent, "ConsentPage"),
    )  # fmt: skip
    @own_rows
    def get(self, request):
        """Oldest first. A person is only their random `subject`."""
        query = self.query(ConsentsQuery)
        rows = _own_consents(request.organization)
        if "state" in query:
            rows = rows.filter(state=query["state"])
        if "updated_since" in query:
            news = EntryIndex.objects.filter(consent=OuterRef("pk"), at__gte=query["updated_since"])
            rows = rows.filter(Exists(news))
        found, following = page(
            rows, order="id", name=f"consents of {request.organization.code}", query=query
        )
        return Response({"results": documents.OperatorConsent(found, many=True).data, "next": following})


class OneConsent(OperatorDoor):
    scope = "consents:read"

    @extend_schema(
        operation_id="consent", summary=_("우리 서비스에 준 동의 하나"), tags=["operator"],
        responses=documents.OperatorConsent,
    )  # fmt: skip
    @own_rows
    def get(self, request, pk):
        """404 for another operator's."""
        return Response(
            documents.OperatorConsent(get_object_or_404(_own_consents(request.organization), pk=pk)).data
        )


# --- deliveries ----------------------------------------------------------------------------------------------------------


class DeliveriesQuery(PageQuery):
    state = serializers.ChoiceField(Delivery.State.choices, required=False)


class Deliveries(OrganizationDoor):
    @extend_schema(
        operation_id="deliveries", summary=_("우리에게 온 전달"), tags=["operator", "source"],
        parameters=[DeliveriesQuery], responses=results(documents.Message, "MessagePage"),
    )  # fmt: skip
    @own_rows
    def get(self, request):
        """Oldest first, each with its signed SET. Keep `jti` for 30 days: a message may come more than once."""
        query = self.query(DeliveriesQuery)
        rows = Delivery.objects.of(request.organization).filter(replay_of__isnull=True)
        if "state" in query:
            rows = rows.filter(state=query["state"])
        found, following = page(
            rows, order="id", name=f"deliveries of {request.organization.code}", query=query
        )
        return Response({"results": documents.Message(found, many=True).data, "next": following})


class Acknowledge(OrganizationDoor):
    @extend_schema(
        operation_id="acknowledge_delivery", summary=_("전달을 받았다고 답하기"), tags=["operator", "source"],
        request=shapes.Nothing, responses=documents.Ack,
    )  # fmt: skip
    @of_trials
    @once
    def post(self, request, jti: uuid.UUID):
        """Early and double acknowledgements are fine; the answer is the state now, and the receipt of the last answer."""
        self.read(shapes.Nothing)
        own = access.addressed_delivery(request.organization, jti)
        delivery = answers.acknowledge(
            own.jti, organization=request.organization, by=self.actor, at=timezone.now()
        )
        receipt = receipts.of_answer(delivery.jti, request.organization, ANSWERS)
        return Response(
            documents.Ack({"jti": delivery.jti, "state": delivery.state, "receipt": receipt}).data
        )


class Replay(OrganizationDoor):
    @extend_schema(
        operation_id="replay_delivery", summary=_("전달 다시 보내 달라고 하기"), tags=["operator", "source"],
        request=shapes.Nothing, responses={202: documents.Replayed},
    )  # fmt: skip
    @once
    def post(self, request, jti: uuid.UUID):
        """The same message under the same `jti` goes out once more, through the channel as it is now. Who has kept the id
        does nothing twice. 409 while it is on its way or waits at the desk; at most 10 a minute."""
        self.read(shapes.Nothing)
        first = access.organization_delivery(request.organization, jti)
        limits.hold("replay", request.organization.code, most=polling.REPLAYS_PER_MINUTE)
        again = polling.send_again(first, by=self.actor, at=timezone.now())
        shown = {"jti": (first.replay_of or first).jti, "replay": again.jti, "state": again.state}
        return Response(documents.Replayed(shown).data, 202)
