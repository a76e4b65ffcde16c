"""What went wrong, as problem details (RFC 9457); and the JSON that is accepted at all."""

import re

import structlog
from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.db import OperationalError
from django.http import Http404
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiResponse
from rest_framework import exceptions
from rest_framework.exceptions import APIException
from rest_framework.parsers import BaseParser
from rest_framework.response import Response

from consents import answers, counting, inbound, lifecycle, polling, references, requests, uploads
from providers import signing, wires

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
LARGEST_JSON = 65_536  # bytes
LARGEST_JWT = 16_384  # bytes
DEEPEST = 20
WAIT = 5  # seconds, where we cannot answer now

# slug: status, title, what to do about it. The slug is the fragment of the type's address.
TYPES = {
    "invalid-request": (400, _("요청 내용이 맞지 않아요."), _("errors의 pointer가 가리키는 곳을 고쳐 주세요.")),
    "malformed-body": (400, _("본문을 읽지 못했어요."), _("UTF-8 JSON 하나를 보내 주세요. 이름이 겹치거나 20겹보다 깊으면 안 돼요.")),
    "bad-cursor": (400, _("다음 쪽 표시(cursor)가 맞지 않아요."), _("앞 쪽의 next를 그대로 쓰거나 첫 쪽부터 다시 읽어 주세요.")),
    "bad-signature": (400, _("서명을 확인하지 못했어요."), _("등록한 열쇠로, 우리 주소를 aud로 해서 서명해 주세요.")),
    "required-declined": (400, _("꼭 필요한 동의가 빠졌어요."), _("필수 항목을 모두 넣어 주세요. 선택 항목은 빼도 돼요.")),
    "not-offered": (400, _("약관이 묻지 않는 것이 들어 있어요."), _("게시된 약관의 항목만 고를 수 있어요.")),
    "bad-code": (400, _("code를 쓸 수 없어요."), _("code는 한 번, 1분 안에, 받은 클라이언트가 code_verifier와 redirect_uri를 맞춰 내야 해요.")),
    "not-registered": (400, _("등록되지 않은 주소예요."), _("미리 등록한 주소를 글자 그대로 보내 주세요.")),
    "unauthorized": (401, _("누구인지 알 수 없어요."), _("새 토큰을 받아 Authorization: Bearer로 보내 주세요.")),
    "forbidden": (403, _("할 수 없는 일이에요."), _("이 계정이나 세션으로는 할 수 없어요.")),
    "insufficient-scope": (403, _("토큰에 필요한 권한이 없어요."), _("필요한 scope로 토큰을 다시 받아 주세요.")),
    "too-young": (403, _("나이 때문에 동의할 수 없어요."), _("14살부터 쓸 수 있고, 19살이 되기 전에는 광고와 제3자 제공에 동의할 수 없어요.")),
    "not-found": (404, _("찾는 것이 없어요."), _("없거나 다른 사람·회사의 것이에요.")),
    "method-not-allowed": (405, _("이 주소에서 쓸 수 없는 방법이에요."), _("Allow 머리글에 쓸 수 있는 방법이 있어요.")),
    "not-acceptable": (406, _("그 형식으로는 답할 수 없어요."), _("Accept에 application/json을 넣어 주세요.")),
    "already-ended": (409, _("이미 끝났어요."), _("끝난 것은 되살아나지 않아요. 다시 가입하면 새로 시작해요.")),
    "already-joined": (409, _("이미 가입해 있어요."), _("한 서비스에는 한 번만 가입할 수 있어요.")),
    "not-open": (409, _("지금은 가입하거나 다시 이을 수 없어요."), _("회사의 허가나 서비스 상태 때문에 새로 동의를 받거나 다시 이을 수 없어요.")),
    "terms-changed": (409, _("약관이 그사이 바뀌었어요."), _("새 약관을 보여 주고 다시 물어 주세요.")),
    "name-is-agreed": (409, _("이름을 바꿀 수 없어요."), _("게시된 약관에 이 이름으로 동의한 사람이 있어요. 새 서비스를 등록해 주세요.")),
    "name-is-taken": (409, _("다른 회사나 서비스의 이름과 같거나 비슷해 보여요."), _("띄어쓰기, 대소문자, 닮은 글자만 다른 이름도 쓸 수 없어요. 다른 이름으로 다시 해 주세요.")),
    "closed": (409, _("닫은 서비스예요."), _("닫은 서비스는 고치거나 다시 열 수 없어요. 새 client_id로 등록해 주세요.")),
    "change-is-material": (409, _("내용이 바뀐 약관이에요."), _("change_kind를 material로 보내 주세요. 가입한 사람에게 다시 물어요.")),
    "not-active": (409, _("지금 상태에서는 할 수 없어요."), _("멈추기는 연결된 동의에만, 다시 잇기는 멈춘 동의에만 할 수 있어요.")),
    "nothing-to-erase": (409, _("지워 달라고 할 것이 없어요."), _("아직 끝나지 않았거나 이미 요청했어요.")),
    "wrong-order": (409, _("되돌아가는 답은 받을 수 없어요."), _("전달 상태는 앞으로만 가요.")),
    "outdated-version": (409, _("지난 판에 대한 답이에요."), _("전달에 적힌 version으로 다시 서명해 주세요.")),
    "message-id-reused": (409, _("같은 jti로 다른 내용이 이미 왔어요."), _("메시지마다 새 jti를 써 주세요.")),
    "already-waiting": (409, _("이미 보내는 중이에요."), _("보내는 중이거나 업무함에서 기다리는 전달은 다시 보내지 않아요.")),
    "unknown-consent": (400, _("끝낼 수 있는 동의가 아니에요."), _("없거나 다른 회사의 것이에요.")),
    "unknown-arrangement": (422, _("알지 못하는 약정이에요(Invalid Consent Arrangement)."), _("없거나 다른 회사의 것이에요.")),
    "name-in-use": (409, _("이미 다른 것의 이름이에요."), _("한 이름은 한 동의, 한 가입, 한 사람에만 붙어요.")),
    "evidence-id-reused": (409, _("같은 jti로 다른 증거가 이미 있어요."), _("증거마다 새 jti를 써 주세요.")),
    "wrong-place": (409, _("이어지는 조각이 아니에요."), _("GET으로 받은 곳(received)을 보고 거기서부터 보내 주세요.")),
    "already-complete": (409, _("다 받은 파일이에요."), _("더 보낼 것이 있으면 새로 시작해 주세요.")),
    "too-many-uploads": (409, _("아직 끝나지 않은 파일이 많아요."), _("GET /uploads에서 끝나지 않은 파일을 찾아 마저 보내거나, DELETE /uploads/{id}로 그만둔 뒤에 다시 해 주세요.")),
    "already-begun": (409, _("이미 넣기 시작한 파일이에요."), _("받는 중이거나 차례를 기다리는 파일만 그만둘 수 있어요.")),
    "idempotency-key-reused": (409, _("같은 Idempotency-Key로 다른 요청이 있었어요."), _("요청마다 새 열쇠를 써 주세요.")),
    "not-yet": (409, _("아직 공개된 기록부에 없어요."), _("Retry-After에 적힌 초 뒤에 다시 해 주세요. 그때까지 넣기로 약속했어요.")),
    "too-large": (413, _("본문이 너무 커요."), _("JSON은 64 kB, 증거는 16 kB까지예요.")),
    "unsupported-media-type": (415, _("받지 않는 형식이에요."), _("Content-Type을 확인해 주세요.")),
    "too-many-requests": (429, _("요청이 너무 잦아요."), _("Retry-After에 적힌 초만큼 기다려 주세요.")),
    "try-again": (503, _("지금은 받지 못해요."), _("Retry-After에 적힌 초 뒤에 같은 요청을 다시 보내 주세요.")),
    "nothing-to-try": (409, _("이 연결에는 시험할 것이 없어요."), _("업무함과 회사가 가져가는 연결, 닫힌 연결은 시험하지 않아요.")),
    "log-unreadable": (503, _("공개된 기록부를 지금 읽지 못해요."), _("기록은 그대로 있어요. 조금 뒤에 다시 해 주세요.")),
    "server-error": (500, _("우리 쪽에 문제가 생겼어요."), _("같은 Idempotency-Key로 잠시 뒤 다시 해 주세요.")),
}  # fmt: skip

# Facts of the domain and how they are told. The first class that fits counts.
OF_DOMAIN = {
    lifecycle.AlreadyEnded: "already-ended",
    lifecycle.AlreadyJoined: "already-joined",
    lifecycle.NotOpen: "not-open",
    lifecycle.TermsChanged: "terms-changed",
    lifecycle.RequiredDeclined: "required-declined",
    lifecycle.NotOffered: "not-offered",
    lifecycle.TooYoung: "too-young",
    lifecycle.NotActive: "not-active",
    lifecycle.NothingToErase: "nothing-to-erase",
    requests.NotOwnService: "not-found",
    requests.NotRegistered: "not-registered",
    requests.BadCode: "bad-code",
    requests.Closed: "already-ended",
    answers.UnknownDelivery: "not-found",
    answers.WrongOrder: "wrong-order",
    answers.IdReused: "evidence-id-reused",
    references.Taken: "name-in-use",
    signing.BadSignature: "bad-signature",
    inbound.Unknown: "not-found",
    inbound.Reused: "message-id-reused",
    wires.BadInbound: "bad-signature",
    polling.AlreadyWaiting: "already-waiting",
    counting.BadCode: "not-found",
    uploads.NotNow: "already-complete",
    uploads.Begun: "already-begun",
    uploads.WrongPlace: "wrong-place",
    uploads.TooMuch: "too-large",
    uploads.TooManyOpen: "too-many-uploads",
    OperationalError: "try-again",
    RequestDataTooBig: "too-large",
    Http404: "not-found",
    PermissionDenied: "forbidden",
    SuspiciousOperation: "invalid-request",
}
OF_STATUS = {
    400: "invalid-request", 401: "unauthorized", 403: "forbidden", 404: "not-found", 405: "method-not-allowed",
    406: "not-acceptable", 413: "too-large", 415: "unsupported-media-type", 429: "too-many-requests",
}  # fmt: skip


class Problem(APIException):
    """One of TYPES. `errors` are {"pointer"|"parameter": place, "detail": words}."""

    def __init__(self, slug: str, detail="", errors=(), headers=None):
        self.slug = slug
        self.status_code = TYPES[slug][0]
        self.words = str(detail)
        self.errors = list(errors)
        self.headers = dict(headers or {})


def address(slug: str) -> str:
    return f"{settings.PORTAL_URL}/api/docs/problems#{slug}"


def body(slug: str, detail="", errors=()) -> dict:
    """The problem document, in the language of the request."""
    status, title, remedy = TYPES[slug]
    told = {"type": address(slug), "title": str(title), "status": status, "detail": str(detail or remedy)}
    return told | ({"errors": list(errors)} if errors else {})


def exception_handler(error, context) -> Response:
    """Every failure of an API view as problem details; what nobody foresaw is logged and told without its inside."""
    request = context.get("request")
    detail, headers = "", {}
    if isinstance(error, Problem):
        slug, detail, errors, headers = error.slug, error.words, error.errors, error.headers
    elif isinstance(error, exceptions.ParseError):
        slug, detail, errors = "malformed-body", str(error.detail), []
    elif isinstance(error, exceptions.ValidationError):
        slug, detail, errors = "invalid-request", "", pointers(error.detail)
    elif isinstance(error, APIException) and error.status_code in OF_STATUS:
        slug, detail, errors = OF_STATUS[error.status_code], _taken(error, context.get("view")), []
        headers = _headers(error)
    else:
        slug, errors = slug_of(error), []
        if TYPES[slug][0] == 503:
            headers = {"Retry-After": str(WAIT)}
        if isinstance(error, uploads.WrongPlace):
            detail = f"{TYPES[slug][2]} (received: {error.received})"
        if reason := getattr(error, "reason", ""):  # one word of a signature's check
            detail = f"{TYPES[slug][2]} ({reason})"
    if slug == "server-error":
        log.exception("api failed", exc_info=error)
        got_request_exception.send(sender=exception_handler, request=getattr(request, "_request", request))
    return Response(body(slug, detail, errors), TYPES[slug][0], headers=headers, content_type=CONTENT_TYPE)


def _taken(error: APIException, view) -> str:
    """Of a body that cannot be read here: what can."""
    if not isinstance(error, exceptions.UnsupportedMediaType) or view is None:
        return ""
    kinds = ", ".join(dict.fromkeys(parser.media_type for parser in view.parser_classes))
    return gettext("Content-Type은 이 가운데 하나여야 해요: %(kinds)s.") % {"kinds": kinds}


def title_of(status: int) -> str:
    """A sentence for a status, where a protocol wants words of its own."""
    slug = "message-id-reused" if status == 409 else OF_STATUS.get(status, "server-error")
    return str(TYPES[slug][1])


def described(slug: str) -> OpenApiResponse:
    """A refusal as the schema tells it, beside those that every door has."""
    from consents.api.documents import Problem as Document

    return OpenApiResponse(Document, str(TYPES[slug][1]))


def slug_of(error: Exception) -> str:
    """The problem type of a domain fact; server-error for what is none."""
    return next((slug for kind, slug in OF_DOMAIN.items() if isinstance(error, kind)), "server-error")


def _headers(error: APIException) -> dict[str, str]:
    headers = {}
    if challenge := getattr(error, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if wait := getattr(error, "wait", None):
        headers["Retry-After"] = str(int(wait))
    return headers


def pointers(detail, place: str = "#") -> list[dict]:
    """DRF's nested errors as JSON pointers (RFC 6901, as URI fragments)."""
    if isinstance(detail, dict):
        return [
            found
            for name, inner in detail.items()
            for found in pointers(
                inner, place if name == "non_field_errors" else f"{place}/{_escaped(str(name))}"
            )
        ]
    if isinstance(detail, list):
        found = []
        for number, inner in enumerate(detail):
            if isinstance(inner, dict | list):
                found += pointers(inner, f"{place}/{number}")
            else:
                found.append({"pointer": place, "detail": str(inner)})
        return found
    return [{"pointer": place, "detail": str(detail)}]


def _escaped(name: str) -> str:
    shown = re.sub(r"[^\w.~/-]", "?", name[:60], flags=re.ASCII)
    return shown.replace("~", "~0").replace("/", "~1")


# --- bodies ------------------------------------------------------------------------------------------------------------

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


def read(stream, parser_context, largest: int) -> bytes:
    """The body, never more than `largest` bytes in memory. Raises Problem too-large."""
    try:
        announced = int(parser_context["request"].META.get("CONTENT_LENGTH") or 0)
    except ValueError as error:
        raise Problem("malformed-body") from error
    if announced > largest:
        raise Problem("too-large")
    raw = stream.read(largest + 1)
    if len(raw) > largest:
        raise Problem("too-large")
    return raw


class StrictJSONParser(BaseParser):
    """One UTF-8 JSON document of at most 64 kB and 20 levels, without doubled names, NaN or NUL."""

    media_type = "application/json"
    largest = LARGEST_JSON
    storable = True  # False: its door looks for what cannot be kept row by row

    def parse(self, stream, media_type=None, parser_context=None):
        raw = read(stream, parser_context, self.largest)
        try:
            text = raw.decode("utf-8")
            _check_depth(text)
            return signing.strict_json(text, storable=self.storable)
        except ValueError as error:
            raise Problem("malformed-body") from error


def _check_depth(text: str) -> None:
    depth = 0
    for sign in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if sign in "[{" else -1
        if depth > DEEPEST:
            raise ValueError("nested too deeply")


class JWTParser(BaseParser):
    """One compact JWS of at most 16 kB, as text."""

    media_type = "application/jwt"

    def parse(self, stream, media_type=None, parser_context=None):
        raw = read(stream, parser_context, LARGEST_JWT)
        try:
            return raw.decode("ascii")
        except ValueError as error:
            raise Problem("malformed-body") from error
