"""Who is calling: an access token of our own OAuth2 server, or the person's browser; and what they may do."""

import hmac

from allauth.idp.oidc.models import Token
from django.contrib.auth.models import AnonymousUser
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, permissions
from rest_framework.exceptions import AuthenticationFailed

from consents import access
from consents.api import dpop
from consents.api.problems import Problem
from consents.oauth import ORGANIZATION_SCOPES, PERSON_SCOPES, SCOPES, key_of
from providers.dpop import ALGORITHMS

REALM = 'Bearer realm="portal"'


class TokenAuthentication(authentication.BaseAuthentication):
    """Access tokens (RFC 6750), from the header alone; one that is bound to a key needs the key's proof (RFC 9449).
    `request.user` is the Person or AnonymousUser; `request.organization` comes from the token's client and only where no
    person stands behind the token."""

    def authenticate(self, request):
        request.organization = None
        scheme, _space, value = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() not in ("bearer", "dpop"):
            return None
        token = (
            # Access tokens only: an ID token or a refresh token is no credential here.
            Token.objects.valid()
            .filter(type=Token.Type.ACCESS_TOKEN)
            .by_value(value.strip())
            .select_related("client__organization_link__organization", "user")
            .first()
        )
        if token is None or token.client is None or (token.user is not None and not token.user.is_active):
            raise _refused("renew" if scheme.lower() == "dpop" else "")
        _check_key(request._request, token, scheme.lower(), value.strip())
        if token.get_resources() and not _is_meant_for(request, token):
            raise _refused("renew" if key_of(token) is not None else "")
        if token.user is None:
            link = getattr(token.client, "organization_link", None)
            request.organization = link.organization if link else None
        return token.user or AnonymousUser(), token

    def authenticate_header(self, request) -> str:
        return f"{REALM}, {dpop_challenge()}"


def dpop_challenge(error: str = "", **told: str) -> str:
    """How a bound token is shown, and what was wrong (RFC 9449 §7.1)."""
    known = ({"error": error} if error else {}) | told | {"algs": " ".join(ALGORITHMS)}
    return "DPoP " + ", ".join(f'{name}="{value}"' for name, value in known.items())


def _refused(fault: str) -> Problem:
    """Whoever has a bound token, or came as if, is told of DPoP and what to do about it."""
    words = dpop_challenge("invalid_token") if fault else f'{REALM}, error="invalid_token"'
    detail = dpop.remedy(fault) if fault else ""
    return Problem("unauthorized", detail, headers={"WWW-Authenticate": words})


def _check_key(request, token: Token, scheme: str, value: str) -> None:
    """A bound token comes under the scheme DPoP with a proof by its own key, any other under Bearer. Raises Problem."""
    bound = key_of(token)
    if (bound is not None) != (scheme == "dpop"):
        raise _refused("unbound" if bound is None else "bearer")
    if bound is None:
        return
    try:
        signer = dpop.signer(request, token=value)
    except dpop.BadProof as error:
        code = "use_dpop_nonce" if isinstance(error, dpop.NonceWanted) else "invalid_dpop_proof"
        raise _proof_wanted(code, error.fault) from error
    if signer is None:
        raise _proof_wanted("invalid_dpop_proof", "missing")
    if not hmac.compare_digest(signer, bound):
        raise _proof_wanted("invalid_token", "key")


def _proof_wanted(code: str, fault: str) -> Problem:
    """What is wrong with the proof, and a nonce for the next one (RFC 9449 §7.1, §9)."""
    headers = {"WWW-Authenticate": dpop_challenge(code), "DPoP-Nonce": dpop.fresh_nonce()}
    return Problem("unauthorized", dpop.remedy(fault), headers=headers)


def _is_meant_for(request, token: Token) -> bool:
    """RFC 8707: a token for named resources opens nothing else."""
    here = request.build_absolute_uri(request.path)
    return any(
        here == resource or here.startswith(resource.rstrip("/") + "/") for resource in token.get_resources()
    )


class BrowserAuthentication(authentication.SessionAuthentication):
    """The signed-in browser, for pages of our own; every change needs the CSRF token."""

    def authenticate(self, request):
        try:
            return super().authenticate(request)
        except AuthenticationFailed:
            return None


class Anyone(permissions.AllowAny):
    """The public."""


class Nobody(permissions.BasePermission):
    """The default: a view that names nobody is for nobody."""

    def has_permission(self, request, view) -> bool:
        return False


def needs(scope: str, *, request) -> None:
    """Raises Problem insufficient-scope unless the token carries it; a browser's session carries all of its person's."""
    if isinstance(request.auth, Token) and scope not in request.auth.get_scopes():
        header = f'{REALM}, error="insufficient_scope", scope="{scope}"'
        if key_of(request.auth) is not None:
            header = dpop_challenge("insufficient_scope", scope=scope)
        raise Problem("insufficient-scope", headers={"WWW-Authenticate": header})


class Consumer(permissions.BasePermission):
    """A person who is a consumer, by session or by a token with the scope `me`."""

    def has_permission(self, request, view) -> bool:
        if not request.user.is_authenticated:
            if request.auth is None:
                return False
            needs("me", request=request)
            raise Problem("forbidden")
        needs("me", request=request)
        return access.role(request.user) == access.PERSON


class Regulator(permissions.BasePermission):
    """A regulator, by session or by a token with the scope `oversight:read`."""

    def has_permission(self, request, view) -> bool:
        if not request.user.is_authenticated:
            if request.auth is None:
                return False
            needs(view.scope, request=request)
            raise Problem("forbidden")
        needs(view.scope, request=request)
        return access.role(request.user) == access.REGULATOR


class Organization(permissions.BasePermission):
    """An organization's server whose token carries the view's `scope`."""

    def has_permission(self, request, view) -> bool:
        if request.auth is None:
            return False
        needs(view.scope, request=request)
        return request.organization is not None


class Operator(Organization):
    """An organization's server, where the organization acts as operator."""

    def has_permission(self, request, view) -> bool:
        return super().has_permission(request, view) and request.organization.is_operator


# --- how the schema tells it -------------------------------------------------------------------------------------------


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = TokenAuthentication
    name = "oauth2"

    def get_security_requirement(self, auto_schema):
        return {self.name: [auto_schema.view.scope_of(auto_schema.method)]}

    def get_security_definition(self, auto_schema):
        return {
            "type": "oauth2",
            "flows": {
                "clientCredentials": {
                    "tokenUrl": "/identity/o/api/token",
                    "scopes": {name: str(SCOPES[name]) for name in ORGANIZATION_SCOPES},
                },
                "authorizationCode": {
                    "authorizationUrl": "/identity/o/authorize",
                    "tokenUrl": "/identity/o/api/token",
                    "refreshUrl": "/identity/o/api/token",
                    "scopes": {
                        name: str(SCOPES[name]) for name in PERSON_SCOPES if name not in ("openid", "profile")
                    },
                },
            },
        }


class BrowserScheme(OpenApiAuthenticationExtension):
    target_class = BrowserAuthentication
    name = "browser"

    def get_security_definition(self, auto_schema):
        return {
            "type": "apiKey",
            "in": "cookie",
            "name": "sid",
            "description": "The portal's own pages; POST needs X-CSRFToken.",
        }
