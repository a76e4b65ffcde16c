"""Who asks for a token and what it is bound to: allauth's OAuth2 server with the portal's own client authentication.

A client signs in by one of two live secrets (header or form), or by a signed assertion of its own (RFC 7523); tokens may be
bound to a key (RFC 9449). Codes, refresh and identity stay allauth's.
"""

import datetime
import functools
import hashlib
import hmac
import re
import uuid
from collections.abc import Iterable

import structlog
from allauth.core import context
from allauth.core.internal.httpkit import extract_basic_auth
from allauth.idp.oidc import app_settings
from allauth.idp.oidc.internal.oauthlib.request_validator import OAuthLibRequestValidator
from allauth.idp.oidc.internal.oauthlib.server import generate_access_token, generate_refresh_token
from allauth.idp.oidc.internal.oauthlib.utils import get_validator_context
from allauth.idp.oidc.models import Client, Token
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone
from oauthlib.common import Request
from oauthlib.oauth2.rfc6749.errors import (
    AccessDeniedError,
    ConsentRequired,
    InvalidRequestError,
    InvalidScopeError,
    LoginRequired,
    OAuth2Error,
    UnsupportedGrantTypeError,
)
from oauthlib.openid import Server

from consents import access, clients, oauth, turnstile
from consents.requests import CHALLENGE
from providers import dpop, keysets, signing
from providers.models import ApiClient

log = structlog.get_logger(__name__)

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SERVERS = Client.GrantType.CLIENT_CREDENTIALS
ASSERTION_LASTS = 60  # seconds from iat to exp, at most (FAPI 2.0)
ASSERTION_TYPES = (None, "JWT", "client-authentication+jwt")
LONGEST_ID = 256
CODE_REMEMBERED = 600  # seconds in which a code that comes again ends what it gave


# What an account may let an application do; who they are, anybody may tell.
IDENTITY = {"openid", "profile"}
ALLOWED = {
    access.PERSON: IDENTITY | {"me", oauth.GRANT_QUERY, oauth.GRANT_REVOKE},
    access.REGULATOR: IDENTITY | {"oversight:read"},
    access.OPERATOR_ADMIN: IDENTITY,
}
PROMPTS = {"none", "login", "consent", "select_account"}  # OIDC Core §3.1.2.1


class BadProof(OAuth2Error):
    error = "invalid_dpop_proof"


class NotSupported(OAuth2Error):
    """A request for authorization comes in its own parameters only (OIDC Core §6)."""

    def __init__(self, parameter: str, request: Request):
        super().__init__(description=f"{parameter} is not supported", request=request)
        self.error = f"{parameter}_not_supported"


@functools.cache
def server() -> Server:
    """The server; what belongs to one request is kept with the request."""
    made = Server(
        Validator(),
        token_generator=generate_access_token,
        refresh_token_generator=_new_refresh_token,
        token_expires_in=app_settings.ACCESS_TOKEN_EXPIRES_IN,
    )
    for grant in (made.auth_grant, made.openid_connect_auth):
        grant.custom_validators.pre_auth.append(_check_form)
        grant.custom_validators.post_auth[:0] = [_check_scopes, _check_prompt]
    return made


def check_grant_type(grant_type: str) -> None:
    """Raises UnsupportedGrantTypeError for one that the metadata does not name, InvalidRequestError where it is missing."""
    if not grant_type:
        raise InvalidRequestError("grant_type is missing")
    if grant_type not in oauth.GRANT_TYPES:
        raise UnsupportedGrantTypeError()


class Validator(OAuthLibRequestValidator):
    """What allauth decides, except for who a client is, which tokens are its own, and which key a token is bound to."""

    # --- who it is ---------------------------------------------------------------------------------------------------

    def authenticate_client(self, request: Request, *args, **kwargs) -> bool:
        """Whoever signed in before this began (`sign_in`)."""
        client = _kept().get("client")
        if client is not None:
            self._use_client(request, client)
        return client is not None

    def client_authentication_required(self, request: Request, *args, **kwargs) -> bool:
        """Also of whoever brings an assertion, right or wrong."""
        asserted = getattr(request, "client_assertion", None) or getattr(
            request, "client_assertion_type", None
        )
        return bool(asserted) or super().client_authentication_required(request, *args, **kwargs)

    def _lookup_client(self, request: Request, client_id: str) -> Client | None:
        return _found(client_id)

    # --- what it gets ------------------------------------------------------------------------------------------------

    def validate_grant_type(self, client_id, grant_type, client, request: Request, *args, **kwargs) -> bool:
        link = clients.link_of(request.client)
        if link is not None and link.dpop and bound_to() is None:
            raise BadProof("this client's tokens are bound: send a DPoP proof")
        return super().validate_grant_type(client_id, grant_type, client, request, *args, **kwargs)

    def validate_refresh_token(self, refresh_token, client, request: Request, *args, **kwargs) -> bool:
        """Each works once, also when it comes twice in the same moment; a bound one with its key only (RFC 9449 §5)."""
        own = Token.objects.select_for_update().filter(client=client, type=Token.Type.REFRESH_TOKEN)
        kept = own.by_value(refresh_token).first()
        if kept is None:
            oauth.end_family(client, oauth.owner_of(refresh_token, client), at=timezone.now())
        if kept is None or not super().validate_refresh_token(
            refresh_token, client, request, *args, **kwargs
        ):
            return False
        wanted = oauth.key_of(kept)
        return wanted is None or hmac.compare_digest(wanted, bound_to() or "")

    def validate_code(self, client_id, code, client, request: Request, *args, **kwargs) -> bool:
        """Spent as soon as it is shown, with whatever verifier. One that comes again may be a thief's: what it gave ends
        (RFC 6749 §4.1.2)."""
        known = super().validate_code(client_id, code, client, request, *args, **kwargs)
        good = known and _spend_code(request)
        if not good and (owner := cache.get(_spent_code(request.client.pk, code))):
            oauth.end_family(request.client, uuid.UUID(owner), at=timezone.now())
        return good

    def save_bearer_token(self, token: dict, request: Request, *args, **kwargs) -> None:
        if request.grant_type == "authorization_code":
            _remember_code(request)
        if request.grant_type == SERVERS:
            oauth.keep(
                self._prep_access_token(get_validator_context(), token, request),
                scopes=request.scopes,
                at=timezone.now(),
            )
        else:
            super().save_bearer_token(token, request, *args, **kwargs)
        if bound_to():
            token["token_type"] = "DPoP"  # noqa: S105
        if (link := clients.link_of(request.client)) is not None:
            clients.note_use(link, _kept().get("secret"), at=timezone.now())

    def _prep_access_token(self, ctx, token: dict, request: Request) -> Token:
        made = super()._prep_access_token(ctx, token, request)
        return _bound(made)

    def _prep_refresh_token(self, ctx, refresh_token: str, request: Request) -> Token:
        """Only an application's: a server's key is its client's own, and it gets no refresh tokens."""
        return _bound(super()._prep_refresh_token(ctx, refresh_token, request))

    # --- before anybody sees a page ----------------------------------------------------------------------------------

    def validate_user_match(self, id_token_hint, scopes, claims, request: Request) -> bool:
        """A visitor signs in first; then it is asked again."""
        if claims and not isinstance(claims, dict):
            raise InvalidRequestError("claims is no object", request=request)
        visitor = not context.request.user.is_authenticated
        return visitor or super().validate_user_match(id_token_hint, scopes, claims, request)

    # --- what it may know and end ------------------------------------------------------------------------------------

    def revoke_token(self, token, token_type_hint, request: Request, *args, **kwargs) -> None:
        """The hint is only a hint."""
        oauth.revoke(token, client=request.client, at=timezone.now())

    def validate_bearer_token(self, token, scopes, request: Request) -> bool:
        """At the userinfo endpoint: a bound token needs its proof there too."""
        if not super().validate_bearer_token(token, scopes, request):
            return False
        kept = Token.objects.lookup(Token.Type.ACCESS_TOKEN, token) if isinstance(token, str) else None
        return kept is None or oauth.key_of(kept) == bound_to()


# --- signing in ------------------------------------------------------------------------------------------------------


def sign_in(request, *, at: datetime.datetime) -> Client | None:
    """The client that this request proves to be, remembered for the server. Outside every transaction: keys may have to be
    fetched, and what was spent stays so."""
    named, secret = extract_basic_auth(request.headers)
    asserted = request.POST.get("client_assertion") or request.POST.get("client_assertion_type")
    ways = [bool(named), bool(request.POST.get("client_secret")), bool(asserted)]
    if sum(ways) != 1:
        return None  # or more than one (RFC 6749 §2.3)
    if asserted:
        client = _by_assertion(request, at)
    else:
        client = _by_secret(
            named or request.POST.get("client_id", ""), secret or request.POST.get("client_secret", ""), at
        )
    _kept()["client"] = client
    return client


def _by_secret(client_id: str, secret: str, at: datetime.datetime) -> Client | None:
    client = _found(client_id)
    _kept()["secret"] = genuine = clients.secret_of(client, secret, at=at)
    return client if genuine else None


def _by_assertion(request, at: datetime.datetime) -> Client | None:
    """RFC 7523 §3 as FAPI 2.0 has it: `iss` = `sub` = the client, `aud` the issuer alone, a minute at most, `jti` once."""
    if request.POST.get("client_assertion_type") != ASSERTION:
        return None
    compact = request.POST.get("client_assertion", "")
    try:
        header, claims = (signing.json_object(part) for part in signing.compact_parts(compact)[:2])
        client = _found(claims.get("sub"))
        link = clients.link_of(client)
        if link is None or link.method != ApiClient.Method.KEY:
            return None
        keysets.refresh(link.organization, header.get("kid"), at=at)
        keys = {"keys": keysets.current(link.organization, at=at)}
        signing.verify_jws(
            compact, jwks=keys, typ=ASSERTION_TYPES, issuer=link.client_id, audience=settings.PORTAL_URL,
            now=int(at.timestamp()), algorithms=dpop.ALGORITHMS,
        )  # fmt: skip
    except signing.BadSignature as error:
        log.info("a client's assertion was refused", reason=error.reason)
        return None
    named = request.POST.get("client_id") or link.client_id
    return client if named == link.client_id and _is_first(claims, link.client_id, at=at) else None


def _found(client_id: object) -> Client | None:
    """One query a request, whoever asks."""
    known = _kept().setdefault("clients", {})
    if client_id not in known:
        known[client_id] = clients.find(client_id) if isinstance(client_id, str) else None
    return known[client_id]


def _check_form(request: Request) -> dict:
    """What makes a request for authorization one that we understand: each parameter once, PKCE with S256 (RFC 9700 §2.1.1),
    whose challenge is exactly 43 signs of base64url (RFC 7636 §4.2), and the answer in the query."""
    named = {name for name, _value in request.uri_query_params}
    for parameter in ("request", "request_uri"):
        if parameter in named:
            raise NotSupported(parameter, request)
    if set(request.duplicate_params) - {"resource"}:
        raise InvalidRequestError("a parameter was given twice", request=request)
    if request.code_challenge_method != "S256" or not CHALLENGE.fullmatch(request.code_challenge or ""):
        raise InvalidRequestError(
            "code_challenge_method=S256 and a code_challenge of 43 signs are required", request=request
        )
    if request.response_mode not in (None, "query"):
        raise InvalidRequestError("response_mode is query", request=request)
    if request.max_age is not None and not re.fullmatch(r"[0-9]{1,9}", request.max_age, re.ASCII):
        raise InvalidRequestError("max_age is a number of seconds", request=request)
    if set((request.prompt or "").split()) - PROMPTS:
        raise InvalidRequestError("prompt has a value that is not known", request=request)
    return {}


def is_beyond(user, scopes: Iterable[str]) -> bool:
    """Whether this account can never have one of the scopes. A visitor's role is not known yet."""
    role = access.role(user)
    return role is not None and bool(set(scopes) - ALLOWED[role])


def _check_scopes(request: Request) -> dict:
    """Who asks for nothing gets nothing; and nobody is asked for what their account can never have."""
    if not request.scopes:
        raise InvalidScopeError("scope is missing", request=request)
    if is_beyond(context.request.user, request.scopes):
        raise AccessDeniedError("this account cannot have that scope", request=request)
    return {}


def _check_prompt(request: Request) -> dict:
    """Who asks for no page gets none (OIDC Core §3.1.2.6). Nobody is let in without the person seeing it, whatever they
    agreed to before."""
    prompts = (request.prompt or "").split()
    if "none" not in prompts:
        return {}
    if len(prompts) > 1:
        raise InvalidRequestError("prompt=none stands alone", request=request)
    signed_in = context.request.user.is_authenticated
    raise (ConsentRequired if signed_in else LoginRequired)(request=request)


def _spend_code(request: Request) -> bool:
    """A code works once, also when it comes twice in the same moment, or after the cache was emptied (T19)."""
    at = timezone.now()
    until = at + datetime.timedelta(seconds=2 * app_settings.AUTHORIZATION_CODE_EXPIRES_IN)
    return turnstile.spend("code", request.client.pk, request.code, until=until, at=at)


def _remember_code(request: Request) -> None:
    """For whom it was, so that what it gave can end."""
    cache.set(_spent_code(request.client.pk, request.code), str(request.user.pk), CODE_REMEMBERED)


def _spent_code(client_id: str, code: str) -> str:
    return "spent-code:" + hashlib.sha256(f"{client_id}|{code}".encode()).hexdigest()


def _new_refresh_token(request: Request, refresh_token: bool = False) -> str:
    return oauth.refresh_token_of(request.client, request.user, generate_refresh_token(request))


def _is_first(claims: dict, client_id: str, *, at: datetime.datetime) -> bool:
    """`sub`, `exp` and `jti` are right, and the `jti` was not seen before. The rest is verified already."""
    jti, issued, ends = claims.get("jti"), claims.get("iat"), claims.get("exp")
    if claims.get("sub") != client_id or not isinstance(claims.get("aud"), str):
        return False
    if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_ID or not isinstance(ends, int | float):
        return False
    if not isinstance(issued, int | float) or not 0 < ends - issued <= ASSERTION_LASTS:
        return False
    until = at + datetime.timedelta(seconds=2 * ASSERTION_LASTS)
    return turnstile.spend("assertion", client_id, jti, until=until, at=at)


def _kept() -> dict:
    """What is remembered for the length of this request."""
    if not hasattr(context.request, "_oauth"):
        context.request._oauth = {}
    return context.request._oauth


def bind_to(jkt: str | None) -> None:
    """The tokens of this request are bound to this key, whose proof was checked."""
    _kept()["jkt"] = jkt


def bound_to() -> str | None:
    return _kept().get("jkt")


def _bound(token: Token) -> Token:
    if jkt := bound_to():
        oauth.bind(token, jkt)
    return token
