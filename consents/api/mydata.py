"""The Korean support API that we serve below /mydata: each request is held against its table (korea_served), and refused with
a code of the standard. Here: what all calls have, the token (지원-001) and the register (지원-002, 003)."""

import datetime
import json
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.core import signing
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import APIException
from rest_framework.parsers import BaseParser
from rest_framework.response import Response

from consents.api import korea_schema, limits, oauth, problems
from consents.api.authentication import Anyone, Organization
from consents.api.doors import Described, Door
from consents.api.operator import OrganizationDoor
from consents.limits import Budget
from consents.queries import directory
from providers.models import ApiClient
from providers.wires.korea_fields import KOREA, TRAN_ID, from_query, moment, problem
from providers.wires.korea_served import SERVED

PER_MINUTE = 600  # of one organization
OVERLAP = datetime.timedelta(minutes=1)  # told again next time: what was being written while we read

# rsp_code: HTTP status, words of the standard
CODES = {
    "40001": (400, "잘못된 파라미터"),
    "40002": (400, "헤더값 없음"),
    "40101": (401, "잘못된 토큰"),
    "40104": (401, "API 권한 없음"),
    "40303": (403, "기관코드 확인 불가"),
    "40401": (404, "존재하지 않는 URL"),
    "40501": (405, "허용되지 않는 메소드"),
    "42902": (429, "클라이언트 일시 제한"),
    "50001": (500, "시스템장애"),
}
OF_STATUS = {401: "40101", 403: "40104", 404: "40401", 405: "40501", 429: "42902", 500: "50001", 503: "50001"}
OAUTH_ERRORS = {"grant_type": "unsupported_grant_type", "scope": "invalid_scope"}


class Wrong(APIException):
    """A refusal with a code of the standard. `detail` names a field and never a value."""

    def __init__(self, code: str, detail: str = ""):
        super().__init__(detail)
        self.code, self.place = code, detail
        self.status_code = CODES[code][0]


def told(code: str, place: str = "") -> dict[str, str]:
    words = CODES[code][1]
    return {"rsp_code": code, "rsp_msg": f"{words} ({place})"[:450] if place else words}


def refusal(error: Exception, context: dict) -> Response:
    """Every failure in the form of the standard; those of all doors keep their status and headers."""
    if isinstance(error, Wrong):
        return Response(told(error.code, error.place), error.status_code)
    usual = problems.exception_handler(error, context)
    code = OF_STATUS.get(usual.status_code, "40001")
    status = CODES[code][0] if code == "40104" else usual.status_code
    headers = {
        name: usual[name] for name in ("Retry-After", "WWW-Authenticate", "Allow") if usual.has_header(name)
    }
    place = getattr(error, "words", "") if code == "40101" else ""  # what is wrong with a proof (RFC 9449)
    return Response(told(code, place), status, headers=headers)


class KoreanDescribed(Described):
    def refused_with(self, status: int):
        return korea_schema.refusal(f"rsp_code {OF_STATUS.get(status, '40001')}"), ["application/json"]

    def failures(self) -> list[int]:
        return sorted({*super().failures(), 401, 403})


class KoreanDoor(OrganizationDoor):
    """One call of the table SERVED: signed in with scope `manage`, with an x-api-tran-id that the answer repeats."""

    scope = "manage"
    permission_classes = [Organization]
    schema = KoreanDescribed()
    call = ""

    def get_exception_handler(self) -> Callable:
        return refusal

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        organization = getattr(request, "organization", None)
        if organization is not None:
            if not has_certificate(request, organization):
                raise Wrong("40303", "certificate")
            limits.hold("mydata", organization.code, most=PER_MINUTE)
        if not tran_id(request) and hasattr(self, request.method.lower()):
            raise Wrong("40002", f"{korea_schema.TRAN_ID_HEADER}: must be 25 characters, A-Z and 0-9")

    def asked(self) -> dict[str, Any]:
        """The request, as its table has it. Raises Wrong 40001."""
        fields = SERVED[self.call].request
        given = self.request.data
        if self.request.method == "GET":
            given = _single(self.request.query_params)
            given = from_query(fields, given)
        if wrong := problem(fields, given, strict=True):
            raise Wrong("40001", wrong)
        return given

    def answered(self, fields: dict[str, Any] | None = None) -> Response:
        return Response({"rsp_code": "00000", "rsp_msg": "성공", **(fields or {})})

    def finalize_response(self, request, response, *args, **kwargs):
        response = super().finalize_response(request, response, *args, **kwargs)
        if tran := tran_id(request):
            response[korea_schema.TRAN_ID_HEADER] = tran
        return response


def tran_id(request) -> str:
    """The caller's transaction id; empty where it is missing or malformed."""
    given = request.headers.get(korea_schema.TRAN_ID_HEADER, "")
    return "" if problem({"id": TRAN_ID}, {"id": given}) else given


def has_certificate(request, organization) -> bool:
    """Where a proxy tells whose certificate it has verified (MTLS_SERIAL_HEADER: its SERIALNUMBER, which is the
    business registration number), it must be this organization's. True where no proxy was named."""
    if not settings.MTLS_SERIAL_HEADER:
        return True
    shown = request.headers.get(settings.MTLS_SERIAL_HEADER, "").replace("-", "")
    return bool(shown) and shown == organization.registration_number


def _single(given: QueryDict) -> dict[str, str]:
    doubled = [name for name in given if len(given.getlist(name)) > 1]
    if doubled:
        raise Wrong("40001", "a parameter is given twice")
    return {name: str(given[name]) for name in given}


# --- 지원-001 -------------------------------------------------------------------------------------------------------------


class TokenForm(BaseParser):
    media_type = oauth.FORM

    def parse(self, stream, media_type=None, parser_context=None):
        return QueryDict(problems.read(stream, parser_context, oauth.LARGEST_FORM), encoding="utf-8")


class Token(KoreanDoor):
    call = "지원-001"
    authentication_classes = []
    permission_classes = [Anyone]
    parser_classes = [TokenForm]

    def counted(self, request) -> Budget | None:
        """Only what asks for no token: our own token endpoint counts the rest, client by client."""
        return super().counted(request) if request.method != "POST" else None

    def finalize_response(self, request, response, *args, **kwargs):
        if request.method == "POST" and not response.has_header(
            "RateLimit"
        ):  # refused before anybody looked who it is
            self.budget = oauth.nobody(request._request)
            if self.budget.is_spent:
                response = Response(told("42902"), 429, headers={"Retry-After": str(self.budget.seconds)})
        response = super().finalize_response(request, response, *args, **kwargs)
        response["Cache-Control"], response["Pragma"] = "no-store", "no-cache"  # RFC 6749 §5.1
        return response

    @extend_schema(
        operation_id="mydata_token", summary=_("지원-001: 접근토큰 발급"), tags=["korea"], auth=[],
        parameters=korea_schema.parameters(call), request={oauth.FORM: korea_schema.body(call)},
        responses=korea_schema.answer(call),
    )  # fmt: skip
    def post(self, request):
        """The client_id and client_secret are those of the organization's server; its client needs the scope `manage`."""
        if not isinstance(request.data, QueryDict):
            return _no_token("40001", "not a form", "invalid_request")
        given = _single(request.data)
        if wrong := problem(SERVED[self.call].request, given, strict=True):
            name = wrong.partition(":")[0]
            error = OAUTH_ERRORS.get(name, "invalid_request") if given.get(name) else "invalid_request"
            return _no_token("40001", wrong, error)
        link = ApiClient.objects.filter(client_id=given["client_id"]).select_related("organization").first()
        if link is not None and not has_certificate(request, link.organization):
            return _no_token("40101", "", "invalid_client", status=401)
        return _as_told(oauth.token(request._request))


def _no_token(code: str, place: str, error: str, *, status: int = 400) -> Response:
    words = told(code, place)
    headers = {"WWW-Authenticate": oauth.CHALLENGE} if status == 401 else {}
    return Response({"error": error, "error_description": words["rsp_msg"], **words}, status, headers=headers)


def _as_told(answer) -> Response:
    """The answer of our own token endpoint (RFC 6749) with the code of the standard beside it."""
    content = json.loads(answer.content)
    if answer.status_code == 200:
        kept = ("token_type", "access_token", "expires_in", "scope")
        content = {name: content[name] for name in kept} | {"rsp_code": "00000", "rsp_msg": "성공"}
    else:
        content |= told(OF_STATUS.get(answer.status_code, "40001"))
    names = ("Retry-After", "WWW-Authenticate", "RateLimit", "RateLimit-Policy")
    headers = {name: answer[name] for name in names if answer.has_header(name)}
    return Response(content, answer.status_code, headers=headers)


# --- 지원-002, 지원-003 -----------------------------------------------------------------------------------------------------


class Register(KoreanDoor):
    """One page of the register, whole or since `search_timestamp`."""

    part = staticmethod(directory.organizations)

    def listed(self) -> Response:
        asked, at = self.asked(), timezone.now()
        limit = asked.get("limit", directory.PAGE)
        if not 1 <= limit <= directory.PAGE:
            raise Wrong("40001", f"limit: not between 1 and {directory.PAGE}")
        found = self.part(
            since=_since(asked["search_timestamp"]), after=opened(self.call, asked.get("next_page", "")),
            limit=limit, at=at,
        )  # fmt: skip
        now = (at - OVERLAP).astimezone(KOREA).strftime("%Y%m%d%H%M%S")
        page = {"next_page": mark(self.call, found.after)} if found.after else {}
        return self.answered(
            {"search_timestamp": int(now), **page, "org_cnt": len(found.rows), "org_list": found.rows}
        )


def mark(call: str, after: str) -> str:
    """The `next_page` of a call: where to go on, in a form that only we can make."""
    return signing.dumps(after, salt=f"next_page of {call}")


def opened(call: str, given: str) -> str:
    """Where a `next_page` goes on; empty for the first page. Raises Wrong for one that we never gave."""
    try:
        return signing.loads(given, salt=f"next_page of {call}") if given else ""
    except signing.BadSignature as error:
        raise Wrong("40001", "next_page: not one that this call gave") from error


def _since(given: int) -> datetime.datetime | None:
    if given == 0:
        return None
    at = moment(str(given)) if len(str(given)) == 14 else None
    if at is None:
        raise Wrong("40001", "search_timestamp: no such day or time")
    return at


class Organizations(Register):
    call = "지원-002"

    @extend_schema(
        operation_id="mydata_orgs", summary=_("지원-002: 기관정보 조회"), tags=["korea"],
        parameters=korea_schema.parameters(call), responses=korea_schema.answer(call),
    )  # fmt: skip
    def get(self, request):
        """`search_timestamp` is 0 the first time and what the last answer said after that: then only what has changed."""
        return self.listed()


class Services(Register):
    call = "지원-003"
    part = staticmethod(directory.services)

    @extend_schema(
        operation_id="mydata_services", summary=_("지원-003: 서비스정보 조회"), tags=["korea"],
        parameters=korea_schema.parameters(call), responses=korea_schema.answer(call),
    )  # fmt: skip
    def get(self, request):
        """Without `client_secret`: we keep secrets as hashes only and tell nobody another's."""
        return self.listed()


# --- the rest ---------------------------------------------------------------------------------------------------------------


class Nowhere(Door):
    """Whatever is not an address of the support API."""

    authentication_classes = []
    permission_classes = [Anyone]
    schema = None  # type: ignore[assignment]
    http_method_names = ["get", "head", "post", "put", "patch", "delete", "options", "trace"]

    def get_exception_handler(self) -> Callable:
        return refusal

    def initial(self, request, *args, **kwargs):
        raise Wrong("40401")
