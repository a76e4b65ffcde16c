"""The OAuth2 doors that allauth leaves open: every public key, limits, own tokens only, proofs, PKCE with S256."""

import contextlib
import datetime
import functools
import json
from urllib.parse import urlsplit

from allauth.account.adapter import get_adapter
from allauth.core.internal.httpkit import add_query_params, extract_basic_auth
from allauth.idp.oidc import app_settings, views
from allauth.idp.oidc.internal.oauthlib.utils import (
    convert_response,
    extract_params,
    get_validator_context,
    respond_json_error,
)
from allauth.idp.oidc.internal.resources import get_resources
from csp.constants import SELF
from django.conf import settings
from django.db import transaction
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.response import TemplateResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe
from oauthlib.oauth2.rfc6749.errors import FatalClientError, OAuth2Error

from consents import access, clients, turnstile
from consents.api import dpop, limits, oauth_server
from consents.api.authentication import dpop_challenge
from consents.limits import Budget
from providers import signing

PER_MINUTE = 1200  # requests of one client; failed ones of one address
LARGEST_FORM = 16_384  # bytes
FORM = "application/x-www-form-urlencoded"
CHALLENGE = 'Basic realm="portal", charset="UTF-8"'  # how a client signs in (RFC 6749 §5.2)


def _by(*methods: str):
    """A door for these methods; others are told so as everything is told there."""

    def mark(view):
        @functools.wraps(view)
        def door(request):
            if request.method in methods:
                return view(request)
            refusal = _error("invalid_request", f"use {' or '.join(methods)}", status=405)
            refusal["Allow"] = ", ".join(methods)
            return refusal

        return door

    return mark


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
@_by("POST")
def token(request):
    """Tokens for a client that says who it is (RFC 6749 §3.2), bound to a key where it proves to have one (RFC 9449)."""
    return _answer(request, "create_token_response", proof=True)


@access.public
@csrf_exempt
@_by("POST")
def revoke(request):
    """A client's own tokens end (RFC 7009)."""
    return _answer(request, "create_revocation_response")


@access.public
@csrf_exempt
@_by("POST")
def introspect(request):
    """What a client's own token is good for (RFC 7662); of any other it is told that it is not active."""
    get_validator_context().supported_auth_methods = app_settings.INTROSPECTION_AUTH_METHODS
    return _answer(request, "create_introspect_response")


@access.public
@csrf_exempt
@_by("GET", "HEAD", "POST")
def userinfo(request):
    """allauth's userinfo, for tokens that are not bound or come with their proof."""
    scheme, _space, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "dpop":
        try:
            oauth_server.bind_to(dpop.signer(request, token=value.strip()))
        except dpop.BadProof as error:
            return _bad_proof(error, status=401)
        request.META["HTTP_AUTHORIZATION"] = f"Bearer {value.strip()}"
    try:
        return convert_response(*oauth_server.server().create_userinfo_response(*extract_params(request)))
    except OAuth2Error as error:
        response = respond_json_error(request, error)
        if response.status_code == 401 and scheme.lower() == "dpop":
            response["WWW-Authenticate"] = dpop_challenge(error.error)
        return response


def _answer(request, endpoint: str, *, proof: bool = False) -> HttpResponse:
    """One request of a client, on its own account (`_budget`), of which every answer tells what is left."""
    at, address = timezone.now(), get_adapter().get_client_ip(request)
    refusal = _malformed(request)
    budget = _guest("", address, at) if refusal else _budget(request, address, at)
    response = (refusal or _done(request, endpoint, proof=proof)) if not budget.is_spent else None
    if response is not None and response.status_code == 401:
        failed = turnstile.take("token:failed", address, most=PER_MINUTE, at=at)
        budget, response = (failed, None) if failed.is_spent else (budget, response)
    response = response or _waiting(budget)
    if response.status_code == 401:
        response["WWW-Authenticate"] = CHALLENGE
    for name, value in limits.headers(budget).items():
        response[name] = value
    return response


def _done(request, endpoint: str, *, proof: bool) -> HttpResponse:
    """What the server answers, and to a proof the nonce of the next."""
    try:
        if proof:
            oauth_server.check_grant_type(request.POST.get("grant_type", ""))
        oauth_server.bind_to(dpop.signer(request) if proof else None)
        get_validator_context().requested_resources = get_resources(request)
        alone = request.POST.get("grant_type") == oauth_server.SERVERS  # writes one row
        with contextlib.nullcontext() if alone else transaction.atomic():
            answer = getattr(oauth_server.server(), endpoint)(*extract_params(request))
    except dpop.BadProof as error:
        return _bad_proof(error, status=400)
    except OAuth2Error as error:
        return _error(error.error, error.description or "", status=error.status_code)
    response = convert_response(*answer)
    if proof and oauth_server.bound_to():
        response["DPoP-Nonce"] = dpop.fresh_nonce()
    return response


def _budget(request, address: str, at: datetime.datetime) -> Budget:
    """One more of whoever comes. Who signs in is counted as that client, wherever they come from; who does not, as who they say they are at their
    address. So one client's flood refuses no other, not even at the same address, and nobody uses up somebody else's
    share by guessing at their secret from elsewhere."""
    claimed = _claimed_client(request)
    for kind, who in (("token:client", claimed), ("token:guest", _at(claimed, address))):
        if spent := turnstile.shut(kind, who, most=PER_MINUTE, at=at):
            return spent
    if client := oauth_server.sign_in(request, at=at):
        return turnstile.take("token:client", client.pk, most=PER_MINUTE, at=at)
    return _guest(claimed, address, at)


def nobody(request) -> Budget:
    """One more, at its address, of whoever sent what no client would."""
    return _guest("", get_adapter().get_client_ip(request), timezone.now())


def _guest(claimed: str, address: str, at: datetime.datetime) -> Budget:
    guest = _at(claimed, address)
    spent = turnstile.shut("token:guest", guest, most=PER_MINUTE, at=at)
    return spent or turnstile.take("token:guest", guest, most=PER_MINUTE, at=at)


def _at(claimed: str, address: str) -> str:
    return f"{claimed} {address}"


@access.public
@csrf_exempt  # allauth checks it itself, except for the first POST of a client, which changes nothing
@require_http_methods(["GET", "HEAD", "POST"])
def authorization(request):
    """allauth's authorization page, for whoever may see it (`_sent_back`)."""
    sent = request.GET if request.method != "POST" else request.POST
    if any("\x00" in value for name in sent for value in sent.getlist(name)):
        return _refused_page(request, "invalid_request")
    if request.method != "POST":
        if not _is_registered(request.GET.get("client_id", ""), request.GET.get("redirect_uri", "")):
            return _refused_page(request, "client_id, redirect_uri")
        if (refusal := _sent_back(request)) is not None:
            return refusal
    elif oauth_server.is_beyond(
        request.user, request.POST.getlist("scopes")
    ):  # a page that another account opened
        request.POST = request.POST.copy()
        request.POST["action"] = "cancel"
    response = views.authorization(request)
    location = response.headers.get("Location", "")
    if location and not location.startswith("/"):  # back to the client: from whom it comes (RFC 9207)
        response["Location"] = add_query_params(location, {"iss": settings.PORTAL_URL})
    if isinstance(response, TemplateResponse):
        context = response.context_data or {}
        link = clients.link_of(clients.find(context["client"].pk))
        context["owner"] = link.organization if link else None
        # Browsers hold the redirect after the form to the page's own policy, so the client's addresses belong in it.
        origins = {_origin(uri) for uri in context["client"].get_redirect_uris()}
        response._csp_update = {"form-action": [SELF, *sorted(origins)]}  # type: ignore[attr-defined]
    elif response.status_code == 200:
        response.status_code = 400  # allauth shows its error page as a success
    return response


@access.public
@csrf_exempt
def nowhere(request):
    """Endpoints of allauth that the portal does not offer (device flow)."""
    raise Http404


def _sent_back(request) -> HttpResponse | None:
    """What is wrong with a request for authorization, told to the client before anybody signs in or sees a page (RFC 6749
    §4.1.2.1, RFC 7636 §4.4.1, OIDC Core §3.1.2.6). Its return address was found among the registered ones."""
    try:
        oauth_server.server().validate_authorization_request(*extract_params(request))
    except (FatalClientError, ValueError):
        return _refused_page(request, "invalid_request")
    except OAuth2Error as error:
        told = dict(error.twotuples) | {"iss": settings.PORTAL_URL}
        if request.GET.get("state"):
            told["state"] = request.GET["state"]
        back = add_query_params(request.GET["redirect_uri"], told)
        return HttpResponse(status=302, headers={"Location": back, "Cache-Control": "no-store"})
    return None


def _is_registered(client_id: str, redirect_uri: str) -> bool:
    """Return addresses are compared letter by letter (RFC 9700 §2.1); the port of a loopback address may differ (RFC 8252
    §7.3), which allauth looks after."""
    client = clients.find(client_id)
    if client is None:
        return False
    return redirect_uri in client.get_redirect_uris() or redirect_uri.startswith(
        ("http://127.0.0.1:", "http://[::1]:")
    )


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
    """Whoever they say they are; what is in an assertion counts by its own words, which nobody has checked yet."""
    named = extract_basic_auth(request.headers)[0] or request.POST.get("client_id", "")
    if named or not request.POST.get("client_assertion"):
        return named
    try:
        claims = signing.json_object(signing.compact_parts(request.POST["client_assertion"])[1])
    except signing.BadSignature:
        return ""
    return str(claims.get("sub"))[:100]


def _waiting(budget: Budget) -> JsonResponse:
    return _error("temporarily_unavailable", "too many requests", status=429, retry_after=budget.seconds)


def _bad_proof(error: dpop.BadProof, *, status: int) -> JsonResponse:
    """RFC 9449 §8 at the token endpoint, §9 where a token is used."""
    code = "use_dpop_nonce" if isinstance(error, dpop.NonceWanted) else "invalid_dpop_proof"
    response = _error(code, str(error), status=status)
    response["DPoP-Nonce"] = dpop.fresh_nonce()
    if status == 401:
        response["WWW-Authenticate"] = dpop_challenge(code)
    return response


def _error(code: str, words: str, *, status: int = 400, retry_after: int | None = None) -> JsonResponse:
    told = {"error": code} | ({"error_description": words} if words else {})
    response = JsonResponse(told, status=status)
    response["Cache-Control"], response["Pragma"] = "no-store", "no-cache"
    if retry_after:
        response["Retry-After"] = str(retry_after)
    return response
