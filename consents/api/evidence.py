"""The JSON door for signed evidence: stopped, erased, or lawfully kept (JWS `deletion-evidence+jwt`)."""

import datetime
import hashlib
import uuid

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import IntegrityError
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, answers, messages
from consents.api import documents, receipts, shapes
from consents.api.idempotency import once
from consents.api.operator import OrganizationDoor
from consents.api.problems import JWTParser, Problem
from consents.models import Consent, Delivery, Evidence
from providers import keysets, signing
from providers.models import Channel, ChannelKey

LEEWAY = datetime.timedelta(seconds=signing.FUTURE_LEEWAY)
CLOCKS_APART = datetime.timedelta(seconds=60)


class ReportClaim(shapes.Strict):
    sha256 = shapes.Text(max_length=64, validators=[RegexValidator(r"\A[0-9a-f]{64}\Z")])
    url = shapes.Text(
        max_length=500, required=False, default="", allow_blank=True, help_text="never fetched by the portal"
    )


class Moment(serializers.Field):
    """Epoch seconds, as elsewhere in a JWT, or RFC 3339."""

    def to_internal_value(self, data) -> datetime.datetime:
        if isinstance(data, str):
            return shapes.Instant().run_validation(data)
        if isinstance(data, bool) or not isinstance(data, int | float) or not 0 <= data < 10**11:
            raise serializers.ValidationError(_("초 단위 시각이나 RFC 3339로 적어 주세요."))
        return datetime.datetime.fromtimestamp(data, datetime.UTC)


class Claims(shapes.Strict):
    """What the organization signs. `iss`, `aud` and `iat` are checked with the signature."""

    iss = shapes.Text(max_length=10)
    aud = serializers.JSONField()
    iat = serializers.JSONField()
    exp = serializers.JSONField(required=False)
    nbf = serializers.JSONField(required=False)
    jti = shapes.Text(max_length=100, validators=[RegexValidator(r"\A[A-Za-z0-9._~-]+\Z")])
    txn = shapes.Identifier()
    delivery = shapes.Identifier(required=False)
    subscription = shapes.Identifier()
    consent = shapes.Identifier(required=False)
    consents = serializers.ListField(child=shapes.Identifier(), max_length=200, required=False)
    scopes = serializers.ListField(child=shapes.Text(max_length=40), max_length=200, required=False)
    version = shapes.Whole(min_value=1, max_value=2**31 - 1)
    status = serializers.ChoiceField(Evidence.Status.choices)
    method = serializers.ChoiceField(["deleted", "anonymised"], required=False)
    completed_at = Moment()
    basis = shapes.Text(max_length=240, required=False)
    retain_until = shapes.Day(required=False)
    report = ReportClaim(required=False)

    def validate(self, claims):
        now = timezone.now()
        wrong = {}
        if claims["completed_at"] > now + LEEWAY:
            wrong["completed_at"] = [_("앞날일 수 없어요.")]
        if claims["status"] == Evidence.Status.RETAINED:
            wrong |= {
                name: [_("retained에는 꼭 있어야 해요.")]
                for name in ("basis", "retain_until")
                if not claims.get(name)
            }
            if claims.get("retain_until") and claims["retain_until"] <= now.date():
                wrong["retain_until"] = [_("지난 날이에요.")]
        if claims["status"] == Evidence.Status.ERASED and not claims.get("report", {}).get("url"):
            wrong["report"] = [_("지웠다면 그 증거의 지문과 주소가 꼭 있어야 해요.")]
        if wrong:
            raise serializers.ValidationError(wrong)
        return claims


def organization_keys(organization, *, at: datetime.datetime) -> dict:
    """The public keys that the organization registered: its key set, and those of its open channel that are in use. Where
    both have a key of one name, the set counts."""
    keys = ChannelKey.objects.filter(
        Q(retired_at__isnull=True) | Q(retired_at__gt=at), kind=ChannelKey.Kind.JWK, active_from__lte=at,
        channel__organization=organization, channel__state=Channel.State.OPEN,
    )  # fmt: skip
    of_channel = {key.kid: {**(key.jwk or {}), "kid": key.kid} for key in keys}
    of_set = {key["kid"]: key for key in keysets.current(organization, at=at)}
    return {"keys": list((of_channel | of_set).values())}


class SignedDoor(OrganizationDoor):
    """A door that takes what an organization signed. Its keys are fetched anew where they must be, before any transaction."""

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        kid = _kid(request.data) if request.method == "POST" else None
        if kid is not None:
            keysets.refresh(request.organization, kid, at=timezone.now())


def _kid(compact: object) -> str | None:
    """The name of the key that a JWS says it was signed with; None where that cannot be read."""
    try:
        raw = compact if isinstance(compact, str | bytes) else b""
        kid = signing.json_object(signing.compact_parts(raw)[0]).get("kid")
    except signing.BadSignature:
        return None
    return kid if isinstance(kid, str) else None


class EvidenceDoor(SignedDoor):
    parser_classes = [JWTParser]

    @extend_schema(
        operation_id="prove", summary=_("멈췄다는, 지웠다는 서명한 증거 내기"), tags=["operator", "source"],
        request={"application/jwt": OpenApiTypes.STR}, responses={200: documents.ReceivedEvidence, 201: documents.ReceivedEvidence},
        examples=[
            OpenApiExample(
                "a compact JWS", media_type="application/jwt", request_only=True,
                value="eyJhbGciOiJFUzI1NiIsImtpZCI6IjEiLCJ0eXAiOiJkZWxldGlvbi1ldmlkZW5jZStqd3QifQ.eyJpc3MiOiJ…….…",
            )
        ],
    )  # fmt: skip
    @once
    def post(self, request):
        """A JWS of type `deletion-evidence+jwt` by a registered key (ES256, PS256, RS256, Ed25519), `iss` the
        organization's code, `aud` this portal. Claims: `jti txn delivery subscription version status method
        completed_at basis retain_until report{sha256,url}`. The same bytes again are 200; the same `jti` with other
        bytes, a step backwards, or an older `version` is 409; `retained` needs `basis` and `retain_until`."""
        if not isinstance(request.data, str) or not request.data:
            raise Problem("malformed-body")
        organization, at = request.organization, timezone.now()
        claims = self._claims(request.data, organization, at=at)
        digest = "sha256:" + hashlib.sha256(request.data.encode("ascii")).hexdigest()
        if known := _known(organization, claims["jti"], digest):
            return Response(_shown(known), 200)
        delivery = _delivery(organization, claims)
        evidence = Evidence(
            jti=claims["jti"], status=claims["status"], means=Evidence.Means.SIGNED, digest=digest, document=request.data,
            report_url=claims.get("report", {}).get("url", ""), stated_at=claims["completed_at"],
        )  # fmt: skip
        try:
            answers.complete(
                delivery.jti,
                organization=organization,
                evidence=evidence,
                basis=_basis(claims),
                by=self.actor,
                at=at,
            )
        except (answers.WrongOrder, IntegrityError):
            # The same evidence may have come twice at once; whoever was second gets the first one's answer.
            if known := _known(organization, claims["jti"], digest):
                return Response(_shown(known), 200)
            raise
        headers = {"Location": f"/api/v1/evidence/{evidence.jti}"}
        return Response(_shown(evidence), 201, headers=headers)

    def _claims(self, compact: str, organization, *, at: datetime.datetime) -> dict:
        claims = signing.verify_jws(
            compact, jwks=organization_keys(organization, at=at), typ=signing.EVIDENCE_TYP, issuer=organization.code,
            audience=settings.PORTAL_URL, now=int(at.timestamp()),
        )  # fmt: skip
        checked = Claims(data=claims)
        checked.is_valid(raise_exception=True)
        return checked.validated_data


class OneEvidence(OrganizationDoor):
    @extend_schema(
        operation_id="evidence", summary=_("우리가 낸 증거 하나"), tags=["operator", "source"],
        responses=documents.ReceivedEvidence,
    )  # fmt: skip
    def get(self, request, jti):
        """By its own `jti`."""
        if "\x00" in jti:  # which the database would not even look for
            raise Problem("not-found")
        return Response(_shown(access.own_evidence(request.organization, jti)))


# How each status is logged.
_TYPES = {"stopped": "delivery.stopped", "erased": "delivery.erased", "retained": "erasure.refused"}


def _shown(evidence: Evidence) -> dict:
    """The evidence and the receipt of its entry: the same bytes each time it is asked for."""
    receipt = receipts.of_answer(evidence.delivery.jti, evidence.organization, [_TYPES[evidence.status]])
    return documents.ReceivedEvidence(evidence, context={"receipt": receipt}).data


def _known(organization, jti: str, digest: str) -> Evidence | None:
    """The evidence already kept under this id. Raises IdReused when its bytes are others."""
    known = Evidence.objects.of(organization).filter(jti=jti).select_related("delivery").first()
    if known and known.digest != digest:
        raise answers.IdReused(jti)
    return known


def _delivery(organization, claims: dict) -> Delivery:
    """The delivery it speaks of: one of the organization's own, of that act and subscription, not an older version."""
    about = {"txn": claims["txn"], "subscription": claims["subscription"]}
    if claims.get("delivery"):
        about["jti"] = answers.first_id(uuid.UUID(str(claims["delivery"])))
    delivery = access.delivery_about(organization, about)
    if claims["version"] < delivery.version:
        raise Problem("outdated-version")
    if claims["version"] > delivery.version:
        raise serializers.ValidationError({"version": [_("이 전달이 알린 판이 아니에요.")]})
    if claims["completed_at"] < delivery.created_at - CLOCKS_APART:
        raise serializers.ValidationError({"completed_at": [_("멈추라고 하기 전의 시각이에요.")]})
    _check_consents(delivery, claims)
    return delivery


def _check_consents(delivery: Delivery, claims: dict) -> None:
    """What is signed about some of the consents proves nothing about the rest; another's consents do not exist."""
    listed = {str(one) for one in claims.get("consents", ())}
    named = listed | ({str(claims["consent"])} if claims.get("consent") else set())
    if named and Consent.objects.filter(subscription=delivery.subscription_id, pk__in=named).count() < len(
        named
    ):
        raise Problem("not-found")
    if "consents" in claims and messages.about(delivery.body) - listed:
        raise serializers.ValidationError({"consents": [_("이 전달이 말한 동의를 모두 적어 주세요.")]})


def _basis(claims: dict) -> str:
    if claims["status"] != Evidence.Status.RETAINED:
        return ""
    return f"{claims['basis']} ({claims['retain_until']:%Y-%m-%d})"
