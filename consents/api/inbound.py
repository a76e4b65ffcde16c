"""JSON doors through which the other side tells us that something has ended over there, each in its own protocol.

Who speaks is proved by their signature (CDR, UK), by their token (Korea), or by both (RFC 8935). What cannot be proved is
refused without saying what we know; what is proved counts once, however often it comes.
"""

import base64
import re
import uuid
from collections.abc import Callable

import structlog
from allauth.account.adapter import get_adapter
from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.parsers import BaseParser
from rest_framework.response import Response

from consents import inbound, routes
from consents.actors import Actor
from consents.api import limits, problems
from consents.api.authentication import Anyone
from consents.api.doors import Door
from consents.api.evidence import SignedDoor, organization_keys
from consents.api.operator import OrganizationDoor
from consents.api.problems import LARGEST_JSON, JWTParser, Problem
from providers import plainjson
from providers.models import Channel
from providers.wires import BadInbound, Endpoint, Inbound, cdr, korea, korea_line, push, uk

log = structlog.get_logger(__name__)

PER_MINUTE = 600  # of one address, or of one organization
MOST_CHANNELS = 5  # that are tried for one issuer
INTERACTION = re.compile(r"[A-Za-z0-9-]{1,64}")
# Consumer Data Standards, Error Codes: 422 Invalid Consent Arrangement
INVALID_ARRANGEMENT = {
    "code": "urn:au-cds:error:cds-all:Authorisation/InvalidArrangement",
    "title": "Invalid Consent Arrangement",
}
NO_BODY = OpenApiResponse(description="taken")


class RawParser(BaseParser):
    """The body as bytes, for what reads it itself."""

    def parse(self, stream, media_type=None, parser_context=None):
        return problems.read(stream, parser_context, LARGEST_JSON)


class FormParser(RawParser):
    media_type = "application/x-www-form-urlencoded"


class RawJSONParser(RawParser):
    media_type = "application/json"


class SetParser(JWTParser):
    media_type = "application/secevent+jwt"


class Signed(Door):
    """A door for whoever holds a registered key: the signature in the message says who it is."""

    permission_classes = [Anyone]
    authentication_classes = []

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        limits.hold("inbound", get_adapter().get_client_ip(request._request), most=PER_MINUTE)


# --- Australia, UK: by the key that signs -------------------------------------------------------------------------------


class ArrangementRevocation(Signed):
    parser_classes = [FormParser]

    @extend_schema(
        operation_id="revoke_arrangement", summary=_("호주 CDR: 공유 약정이 끝났다고 알리기"), tags=["operator", "source"],
        request={"application/x-www-form-urlencoded": OpenApiTypes.OBJECT}, auth=[],
        responses={204: NO_BODY, 422: problems.described("unknown-arrangement")},
    )  # fmt: skip
    def post(self, request):
        """CDR Arrangement Revocation End Point. A holder sends `cdr_arrangement_jwt` and a self-signed bearer token, a recipient
        `client_assertion` and `cdr_arrangement_id`; PS256, `aud` this address or its base, good for an hour at most, `jti` once.
        422 for an arrangement that is none of this sender's."""
        raw, at = _raw(request), timezone.now()
        audience = {_here(request), settings.PORTAL_URL, f"{settings.PORTAL_URL}/api/v1"}
        try:
            channel, message = _genuine(
                Channel.Protocol.CDR, _form_issuer(raw),
                lambda endpoint: cdr.verify_inbound(
                    request.headers, raw, endpoint=endpoint, audience=audience, now=int(at.timestamp())
                ),
            )  # fmt: skip
        except BadInbound as error:
            raise Problem("unauthorized") from error  # whatever it was that failed
        sender = channel.organization
        try:
            inbound.ended(sender, message, kind="arrangement", raw=raw, by=Actor.organization(sender), at=at)
        except inbound.Unknown as error:
            raise Problem("unknown-arrangement") from error
        return Response(status=204)

    def handle_exception(self, exc):
        response = super().handle_exception(exc)
        if response.status_code == 422:  # the standard's own form of an error, which must be given
            response.data["errors"] = [INVALID_ARRANGEMENT | {"detail": response.data["detail"]}]
            response.content_type = "application/json"
        return response


class EventNotifications(Signed):
    parser_classes = [JWTParser]

    @extend_schema(
        operation_id="notify_event", summary=_("영국 오픈뱅킹: 은행에서 동의를 거뒀다고 알리기"), tags=["source"],
        request={"application/jwt": OpenApiTypes.STR}, responses={202: NO_BODY}, auth=[],
        parameters=[OpenApiParameter("x-fapi-interaction-id", str, OpenApiParameter.HEADER, description="echoed")],
    )  # fmt: skip
    def post(self, request):
        """A SET with the event consent-authorization-revoked, PS256 by the bank's registered key, `aud` our client id there. Every
        other event of theirs is taken, and changes nothing."""
        raw, at = _raw(request), timezone.now()
        try:
            channel, message = _genuine(
                Channel.Protocol.UK, claimed_issuer(raw.decode("ascii")),
                lambda endpoint: uk.verify_inbound(raw, endpoint=endpoint, now=int(at.timestamp())),
            )  # fmt: skip
        except BadInbound as error:
            raise Problem("bad-signature") from error
        sender = channel.organization
        by = Actor.organization(sender)
        if message.happened == "other":
            inbound.heard(sender, message, raw=raw, by=by, at=at)
        else:
            inbound.ended(sender, message, kind="consent", raw=raw, by=by, at=at)
        return Response(status=202)

    def finalize_response(self, request, response, *args, **kwargs):
        response = super().finalize_response(request, response, *args, **kwargs)
        given = request.headers.get("x-fapi-interaction-id", "")
        response["x-fapi-interaction-id"] = given if INTERACTION.fullmatch(given) else str(uuid.uuid4())
        return response


def _genuine(protocol: str, issuer: str, judge: Callable[[Endpoint], Inbound]) -> tuple[Channel, Inbound]:
    """The open channel whose keys prove the message, and what it says. An issuer's name proves nothing: two channels may
    claim it, and each has its own keys. Raises BadInbound."""
    named = Channel.objects.filter(
        state=Channel.State.OPEN, protocol=protocol, details__issuer=issuer
    ).select_related("organization")
    reason = BadInbound("iss", "nobody signs by this name")
    for channel in named.prefetch_related("keys").order_by("pk")[:MOST_CHANNELS] if issuer else ():
        try:
            return channel, judge(routes.endpoint(channel))
        except BadInbound as error:
            reason = error
    log.warning("inbound refused", code=reason.reason)
    raise reason


def claimed_issuer(compact: str) -> str:
    """The `iss` that a token claims, before anything is checked: only to find whose keys to check it with. Empty if none."""
    try:
        payload = compact.split(".")[1]
        claims = plainjson.strict_json(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (IndexError, ValueError):
        return ""
    issuer = claims.get("iss") if isinstance(claims, dict) else None
    return issuer if isinstance(issuer, str) and len(issuer) <= 500 else ""


_TOKEN = re.compile(rb"(?:^|&)(?:cdr_arrangement_jwt|client_assertion)=([A-Za-z0-9_.-]+)")


def _form_issuer(raw: bytes) -> str:
    """Raises Problem malformed-body for what is not one of the two forms."""
    found = _TOKEN.search(raw)
    if found is None:
        raise Problem("malformed-body")
    return claimed_issuer(found[1].decode("ascii"))


def _raw(request) -> bytes:
    """What was sent. Raises Problem malformed-body where that is nothing."""
    sent = request.data
    if not isinstance(sent, bytes | str) or not sent:
        raise Problem("malformed-body")
    return sent.encode("ascii") if isinstance(sent, str) else sent


def _here(request) -> str:
    return settings.PORTAL_URL + request.path


# --- Korea, RFC 8935: by the token --------------------------------------------------------------------------------------


class KnownDoor(OrganizationDoor):
    """A door for a server with our token, whose refusals are also told in its own protocol's words (`told`)."""

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        limits.hold("inbound", request.organization.code, most=PER_MINUTE)

    def handle_exception(self, exc):
        response = super().handle_exception(exc)
        response.data |= self.told(response.status_code, exc)
        return response

    def told(self, status: int, error: Exception) -> dict[str, str]:
        raise NotImplementedError


class KoreanResult(KnownDoor):
    parser_classes = [RawJSONParser]
    # rsp_code by status, from the table of the Korean standard API.
    CODES = {
        400: "40001",
        401: "40101",
        403: "40104",
        404: "40403",
        409: "40001",
        413: "40001",
        415: "40002",
        429: "42902",
    }

    @extend_schema(
        operation_id="stop_result", summary=_("전송요구-003: 멈추기의 결과 알리기"), tags=["operator"],
        request={"application/json": OpenApiTypes.OBJECT}, responses={200: OpenApiTypes.OBJECT},
    )  # fmt: skip
    def post(self, request):
        """`{type: "02", result_code, result_msg, tx_id, user_ci}` with `x-api-tran-id`. The report is kept with its digest and
        believed only as far as that the stop was received; what is true we ask back at once."""
        raw, at, own = _raw(request), timezone.now(), request.organization
        channel = (
            Channel.objects.filter(
                organization=own, state=Channel.State.OPEN, protocol=Channel.Protocol.KOREA
            )
            .prefetch_related("keys")
            .first()
        )
        if channel is None:
            raise Problem("not-found")
        try:
            message = korea.verify_inbound(
                request.headers,
                raw,
                endpoint=routes.endpoint(channel),
                ci_of=lambda tx_id: inbound.ci_of(own, korea.REQUEST, tx_id),
            )
        except BadInbound as error:
            foreign = error.reason in ("unknown", "person")  # which of the two is nobody's business
            raise Problem("not-found" if foreign else "malformed-body") from error
        inbound.result(own, message, kind=korea.REQUEST, raw=raw, by=self.actor, at=at)
        return Response({"rsp_code": "00000", "rsp_msg": "성공"})

    def told(self, status, error):
        cause = error.__cause__
        no_id = isinstance(cause, BadInbound) and cause.reason == "id"
        code = "40002" if no_id else self.CODES.get(status, "50001")
        return {"rsp_code": code, "rsp_msg": problems.title_of(status)}

    def finalize_response(self, request, response, *args, **kwargs):
        """Every answer repeats the caller's transaction id, a refusal too."""
        response = super().finalize_response(request, response, *args, **kwargs)
        if tran := korea_line.given_id(request.headers):
            response[korea_line.TRAN_ID] = tran
        return response


class Sets(SignedDoor, KnownDoor):
    parser_classes = [SetParser]
    # RFC 8935 §2.4 by the one word of a signature's check.
    ERRORS = {
        "kid": "invalid_key", "key": "invalid_key", "alg": "invalid_key", "signature": "invalid_key",
        "iss": "invalid_issuer", "aud": "invalid_audience",
    }  # fmt: skip

    @extend_schema(
        operation_id="push_set", summary=_("우리 쪽에서 끝났다고 알리기(RFC 8935)"), tags=["operator", "source"],
        request={"application/secevent+jwt": OpenApiTypes.STR},
        responses={202: NO_BODY, 400: problems.described("unknown-consent")},
    )  # fmt: skip
    def post(self, request):
        """A SET (`typ: secevent+jwt`) by a registered key, `iss` the organization's code, `aud` this portal, one event:
        `<portal>/secevent/consent-withdrawn` with `consent` (our id, or the name the organization gave us), or
        `<portal>/secevent/subscription-ended` with `subscription` (an operator ends all of it, a source what it sends). The end counts at once and everybody else is told; the
        sender is not called back. The same SET again is 202 and changes nothing; its `jti` with another content is 409.
        Refusals also carry `err` and `description` (§2.3)."""
        raw, at = _raw(request), timezone.now()
        own = request.organization
        message = push.verify_inbound(
            raw, issuer=own.code, jwks=organization_keys(own, at=at), now=int(at.timestamp())
        )
        if message.happened == "verification":
            inbound.heard(own, message, raw=raw, by=self.actor, at=at)
            return Response(status=202)
        try:
            kind = {"consent": inbound.OUR_CONSENT, "subscription": inbound.OUR_SUBSCRIPTION}[message.about]
            inbound.ended(own, message, kind=kind, raw=raw, by=self.actor, at=at)
        except inbound.Unknown as error:
            raise Problem("unknown-consent") from error
        return Response(status=202)

    def told(self, status, error):
        word = "authentication_failed" if status == 401 else "access_denied" if status == 403 else ""
        word = word or self.ERRORS.get(getattr(error, "reason", ""), "invalid_request")
        return {"err": word, "description": problems.title_of(status)}

    def handle_exception(self, exc):
        response = super().handle_exception(exc)
        if response.status_code == 400:
            response.content_type = (
                "application/json"  # §2.3; the members of problem details are there as well
            )
        return response
