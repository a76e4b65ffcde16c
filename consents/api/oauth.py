"""The OAuth2 doors that allauth leaves open: every public key, limits, own tokens only, PKCE with S256."""

import json
import secrets
from urllib.parse import urlsplit

from allauth.account.adapter import get_adapter
from allauth.core.internal.httpkit import extract_basic_auth
from allauth.idp.oidc import views
from allauth.idp.oidc.models import Token
from csp.constants import SELF
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consents import access, limits
from providers import signing

PER_MINUTE = 600
LARGEST_FORM = 16_384  # bytes
FORM = "application/x-www-form-urlencoded"


@access.public
@require_safe
def jwks(request):
    """The public keys of ID tokens, SETs and receipts in one set (RFC 7517)."""
    ours = [{"use": "sig", "alg": "RS256"} | key for key in json.loads(views.jwks(request).content)["keys"]]
    response = JsonResponse({"keys": ours + signing.public_jwks()["keys"]})
    response["Access-Control-Allow-Origin"] = "*"
    response["Cache-Control"] = "public, max-age=3600"
    return response


@access.public
@csrf_exempt
@require_POST
def token(request):
    """allauth's token endpoint, at most PER_MINUTE times a minute for one client and for one address."""
    refusal = _malformed(request)
    if refusal is None:
        client_id, address = _claimed_client(request), get_adapter().get_client_ip(request)
        if limits.too_often("token:client", client_id, most=PER_MINUTE) or limits.too_often(
            "token:address", address, most=PER_MINUTE
        ):
            refusal = _error("temporarily_unavailable", "too many requests", status=429, retry_after=60)
    return refusal or views.token(request)


@access.public
@csrf_exempt
@require_POST
def revoke(request):
    """allauth's revocation (RFC 7009), for a client's own tokens: another's token is treated like one that never was."""
    refusal = _malformed(request)
    if refusal is not None:
        return refusal
    found = Token.objects.by_value(request.POST.get("token", "")).first()
    if found is not None and found.client_id != _claimed_client(request):
        request.POST = request.POST.copy()
        request.POST["token"] = secrets.token_urlsafe(32)
    return views.revoke(request)


@access.public
@csrf_exempt  # allauth checks it itself, except for the first POST of a client, which changes nothing
@require_http_methods(["GET", "HEAD", "POST"])
def authorization(request):
    """allauth's authorization page; PKCE with S256 is required of everybody (RFC 9700 §2.1.1)."""
    sent = request.GET if request.method != "POST" else request.POST
    if any("\x00" in value for name in sent for value in sent.getlist(name)):
        return _refused_page(request, "invalid_request")
    first = request.method != "POST"
    if first and (
        not request.GET.get("code_challenge") or request.GET.get("code_challenge_method") != "S256"
    ):
        return _refused_page(request, "code_challenge, code_challenge_method=S256")
    response = views.authorization(request)
    if isinstance(response, TemplateResponse):
        # Browsers hold the redirect after the form to the page's own policy, so the client's addresses belong in it.
        origins = {_origin(uri) for uri in (response.context_data or {})["client"].get_redirect_uris()}
        response._csp_update = {"form-action": [SELF, *sorted(origins)]}  # type: ignore[attr-defined]
    elif response.status_code == 200:
        response.status_code = 400  # allauth shows its error page as a success
    return response


@access.public
@csrf_exempt
def nowhere(request):
    """Endpoints of allauth that the portal does not offer (device flow)."""
    raise Http404


def _refused_page(request, reason: str) -> HttpResponse:
    words = {"error": None, "error_form": None, "reason": reason}
    return render(request, "idp/oidc/error.html", words, status=400)


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


def _malformed(request) -> JsonResponse | None:
    """A refusal for a request that no client of ours would send."""
    if request.content_type != FORM:
        return _error("invalid_request", f"send {FORM}")
    try:
        too_large = int(request.META.get("CONTENT_LENGTH") or 0) > LARGEST_FORM
    except ValueError:
        too_large = True
    if too_large:
        return _error("invalid_request", "the form is too large", status=413)
    header_client, header_secret = extract_basic_auth(request.headers)
    values = [value for name in request.POST for value in [name, *request.POST.getlist(name)]]
    if any("\x00" in value for value in [*values, header_client or "", header_secret or ""]):
        return _error("invalid_request", "NUL")
    if any(len(request.POST.getlist(name)) > 1 for name in request.POST):
        return _error("invalid_request", "a parameter was given twice")
    if header_client and request.POST.get("client_id", header_client) != header_client:
        return _error("invalid_request", "two clients in one request")
    return None


def _claimed_client(request) -> str:
    return extract_basic_auth(request.headers)[0] or request.POST.get("client_id", "")


def _error(code: str, words: str, *, status: int = 400, retry_after: int | None = None) -> JsonResponse:
    response = JsonResponse({"error": code, "error_description": words}, status=status)
    response["Cache-Control"] = "no-store"
    if retry_after:
        response["Retry-After"] = str(retry_after)
    return response
