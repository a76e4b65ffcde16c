"""The JSON door where an organization says what it calls a consent, a subscription or a person: in many protocols nothing can be
ended without that name."""

from django.core.validators import RegexValidator
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, references, reports
from consents.api import shapes
from consents.api.idempotency import once
from consents.api.operator import OrganizationDoor
from consents.api.problems import Problem
from consents.models import Subscription

VISIBLE = RegexValidator(r"^[\x21-\x7e]+\Z", _("눈에 보이는 ASCII로 써 주세요."))
ABOUT = ("consent", "subscription", "subject")


class Naming(shapes.Strict):
    kind = serializers.ChoiceField(
        list(references.KINDS),
        help_text="arrangement (CDR), consent (UK), grant (FAPI), token and access_token (RFC 7009), provision (지원-107), "
        "request (전송요구-004, tx_id), ci (the person)",
    )
    identifier = shapes.Text(
        max_length=references.LONGEST,
        trim_whitespace=False,
        validators=[VISIBLE],
        help_text="kept sealed, told to nobody else",
    )
    consent = shapes.Identifier(required=False)
    subscription = shapes.Identifier(required=False, help_text="where one name stands for all of it")
    subject = shapes.Identifier(required=False, help_text="the person; with ci only")

    def validate(self, asked):
        about = [name for name in ABOUT if name in asked]
        if len(about) != 1:
            raise serializers.ValidationError(
                {"consent": [_("consent, subscription, subject 가운데 하나만 써 주세요.")]}
            )
        if (asked["kind"] == "ci") != (about == ["subject"]):
            raise serializers.ValidationError(
                {"kind": [_("ci는 subject에만, 나머지는 consent나 subscription에만 붙여요.")]}
            )
        if asked["kind"] == "ci" and not reports.is_ci(asked["identifier"]):
            raise serializers.ValidationError({"identifier": [_("CI의 꼴이 아니에요.")]})
        return asked


class Named(serializers.Serializer):
    kind = serializers.CharField()
    consent = serializers.UUIDField(allow_null=True)
    subscription = serializers.UUIDField(allow_null=True)
    subject = serializers.UUIDField()


class References(OrganizationDoor):
    @extend_schema(
        operation_id="name", summary=_("우리가 부르는 이름 알리기"), tags=["operator", "source"], request=Naming,
        responses={201: Named},
        examples=[
            OpenApiExample(
                "an arrangement", request_only=True,
                value={
                    "kind": "arrangement", "identifier": "5a1bf696-ee03-408b-b315-97955415d1f0",
                    "consent": "01a2013b-6740-7a01-8f00-00000000c0de",
                },
            )
        ],
    )  # fmt: skip
    @once
    def post(self, request):
        """For channels in which we end something by the name that you gave it (CDR, UK, FAPI, RFC 7009, 한국 지원 API). A stop that
        could not be sent for want of a name goes out at once. Only what is yours can be named, and only for yourself. The same
        again is no change; a name that is another thing's already is 409."""
        asked, own = self.read(Naming), request.organization
        consent = access.party_consent(own, asked["consent"]) if "consent" in asked else None
        subscription = _part_in(own, asked["subscription"]) if "subscription" in asked else None
        whose = consent or subscription
        person = whose.person if whose else access.customer(own, asked["subject"])
        noted = references.note(
            own, person, kind=asked["kind"], identifier=asked["identifier"], subscription=subscription,
            consent=consent, by=self.actor, at=timezone.now(),
        )  # fmt: skip
        about = {"consent": noted.consent_id, "subscription": noted.subscription_id}
        return Response(Named({"kind": noted.kind, "subject": person.subject_id, **about}).data, 201)


def _part_in(organization, pk) -> Subscription:
    if not access.has_part_in(organization, pk):
        raise Problem("not-found")
    return Subscription.objects.select_related("person").get(pk=pk)
