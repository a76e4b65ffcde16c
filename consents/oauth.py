"""WRITES OAuth2 clients, and shapes allauth's OAuth2/OIDC server: our issuer, our key, our scopes, no identity."""

import base64
import datetime
import secrets
import uuid

from allauth.idp.oidc.adapter import DefaultOIDCAdapter
from allauth.idp.oidc.models import Client, PrivateKey, Token
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from consents.models import Person
from providers import dpop, vault
from providers.models import ApiClient, ClientSecret, Organization
from providers.vault import key_file

GRANT_QUERY, GRANT_REVOKE = "grant_management_query", "grant_management_revoke"  # the FAPI draft's own names

# What a token may do; the names are shown to the person who is asked.
ORGANIZATION_SCOPES = {
    "requests:write": _("동의 요청을 등록하기"),
    "consents:read": _("우리 서비스의 동의를 보기"),
    "holdings:write": _("누가 가입해 있는지 알리기"),
    "transfers:write": _("정보를 주고받은 일을 알리기"),
    "deliveries:ack": _("전달을 받았다고, 멈췄다고, 지웠다고 답하기"),
    GRANT_QUERY: _("동의 하나의 상태를 보기"),
    GRANT_REVOKE: _("동의 하나를 끝내기"),
    "manage": _("한국 지원 API(지원-001…005)를 쓰기"),
}
PERSON_SCOPES = {
    "me": _("내 가입과 동의를 보고, 바꾸고, 끝내기"),
    "oversight:read": _("감독 기록을 보기(감독자만)"),
    "openid": _("나를 알아보는 임의의 번호(이름도 이메일도 아니에요)"),
    "profile": _("내 이름과 쓰는 말"),
    GRANT_QUERY: _("동의 하나의 상태를 보기"),
    GRANT_REVOKE: _("동의 하나를 끝내기"),
}
SCOPES = ORGANIZATION_SCOPES | PERSON_SCOPES
GRANT_TYPES = ("authorization_code", "client_credentials", "refresh_token")

SECRET_LASTS = datetime.timedelta(days=365)


class OIDCAdapter(DefaultOIDCAdapter):
    """The portal's own OAuth2/OIDC server: only the random `subject_id` names a person."""

    scope_display = SCOPES

    def get_issuer(self) -> str:
        return settings.PORTAL_URL

    def list_private_keys(self, *, did_activate=None, is_active=None) -> list[PrivateKey]:
        return [PrivateKey(pem=key_file("oidc.pem", _new_rsa).decode("ascii"))]

    def get_user_sub(self, client: Client, user: Person) -> str:
        return str(user.subject_id)

    def get_user_by_sub(self, client: Client, sub: str) -> Person | None:
        try:
            subject_id = uuid.UUID(sub)
        except ValueError:
            return None
        return Person.objects.filter(subject_id=subject_id, is_active=True).first()

    def get_claims(self, purpose, user, client, scopes, email=None, **kwargs) -> dict:
        claims = {"sub": self.get_user_sub(client, user)}
        if "profile" in scopes:
            claims |= {"name": user.name, "locale": user.language}
        return claims

    def populate_server_metadata(self, data: dict) -> None:
        data["scopes_supported"] = list(SCOPES)
        data["grant_types_supported"] = list(GRANT_TYPES)
        data["response_types_supported"], data["response_modes_supported"] = ["code"], ["query"]
        # Grants are made by joining a service on the portal, never by an authorization request (draft 03 §5, §7.1).
        data["grant_management_endpoint"] = f"{settings.PORTAL_URL}/api/v1/grants"
        data["grant_management_actions_supported"] = ["query", "revoke"]
        data["grant_management_action_required"] = False
        methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
        data["token_endpoint_auth_methods_supported"] = [*methods, "none"]
        data["token_endpoint_auth_signing_alg_values_supported"] = list(dpop.ALGORITHMS)
        for endpoint in ("introspection", "revocation"):
            data[f"{endpoint}_endpoint_auth_methods_supported"] = methods + ["none"] * (
                endpoint == "revocation"
            )
            data[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = list(dpop.ALGORITHMS)
        data["authorization_response_iss_parameter_supported"] = True
        data["request_parameter_supported"] = data["request_uri_parameter_supported"] = False
        data["dpop_signing_alg_values_supported"] = list(dpop.ALGORITHMS)
        data["service_documentation"] = f"{settings.PORTAL_URL}/api/docs/"
        del data["device_authorization_endpoint"]

    def populate_introspection_response(self, *, response: dict, token: Token) -> None:
        """`token_type` is how the token is presented (RFC 7662 §2.2 after RFC 6749 §5.1), `cnf` the key it is bound to."""
        del response["token_type"]
        bound = key_of(token)
        if token.type == Token.Type.ACCESS_TOKEN:
            response["token_type"] = "DPoP" if bound else "Bearer"
        if bound:
            response["cnf"] = {"jkt": bound}


def key_of(token: Token) -> str | None:
    """The thumbprint of the key that a token is bound to (RFC 9449 §6), None for a bearer token."""
    return (token.data or {}).get("cnf", {}).get("jkt")


def bind(token: Token, jkt: str) -> None:
    """The token that is about to be kept works with this key only."""
    token.data = (token.data or {}) | {"cnf": {"jkt": jkt}}


def _new_rsa() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def create_client(
    *,
    organization: Organization,
    name: str,
    secret: str,
    scopes,
    redirect_uris=(),
    client_id: str | None = None,
    lasts: datetime.timedelta = SECRET_LASTS,
    by=None,
    at: datetime.datetime | None = None,
) -> ApiClient:
    """The OAuth2 client of an organization's server (client credentials). `secret` must be machine-made, 256 bits: it is
    kept under a fast hash. `redirect_uris` are where consent requests may send the person back to.

    Raises ValidationError for an unknown scope or a short secret, IntegrityError where the organization has a client."""
    check_scopes(scopes, ORGANIZATION_SCOPES)
    if len(secret) < 32:
        raise ValidationError("a client secret is made by a machine and has at least 32 characters")
    at = at or timezone.now()
    client = _client(
        client_id, Client.Type.CONFIDENTIAL, name=name, redirect_uris=redirect_uris, scopes=scopes
    )
    client.set_grant_types([Client.GrantType.CLIENT_CREDENTIALS])
    client.set_default_scopes(list(scopes))
    with transaction.atomic():
        client.save(force_insert=True)
        link = ApiClient.objects.create(organization=organization, client=client, created_at=at)
        add_secret(link, secret=secret, place=1, expires_at=at + lasts, by=by, at=at)
    return link


def add_secret(
    link: ApiClient, *, secret: str, place: int, expires_at: datetime.datetime, by=None, at: datetime.datetime
) -> ClientSecret:
    """Keep the hash of a machine-made secret. Raises IntegrityError where another secret has the place."""
    return ClientSecret.objects.create(
        link=link, name=f"s-{secrets.token_hex(4)}", digest=make_password(secret, hasher="machine_sha256"),
        place=place, created_at=at, expires_at=expires_at,
    )  # fmt: skip


def create_app_client(
    *,
    name: str,
    redirect_uris,
    scopes=("me", "openid"),
    client_id: str | None = None,
    organization: Organization | None = None,
    by=None,
    at: datetime.datetime | None = None,
) -> Client:
    """A public client for an application that a person uses (authorization code + PKCE, rotated refresh tokens); of an
    organization's own where one is named.

    Raises ValidationError for an unknown scope."""
    check_scopes(scopes, PERSON_SCOPES)
    client = _client(client_id, Client.Type.PUBLIC, name=name, redirect_uris=redirect_uris, scopes=scopes)
    client.set_grant_types([Client.GrantType.AUTHORIZATION_CODE, Client.GrantType.REFRESH_TOKEN])
    with transaction.atomic():
        client.save(force_insert=True)
        if organization is not None:
            ApiClient.objects.create(
                organization=organization, client=client, kind=ApiClient.Kind.APP, method=ApiClient.Method.NONE,
                created_at=at or timezone.now(),
            )  # fmt: skip
    return client


def _client(client_id: str | None, kind: str, *, name: str, redirect_uris, scopes) -> Client:
    """The library's own secret opens nothing: secrets are ClientSecrets, of which there may be two."""
    known = {"id": client_id} if client_id else {}
    client = Client(**known, name=name, type=kind, secret=make_password(None))
    client.set_redirect_uris(list(redirect_uris))
    client.set_scopes(list(scopes))
    client.set_response_types([Client.ResponseType.CODE])
    return client


def check_scopes(scopes, allowed) -> None:
    """Raises ValidationError for a scope that is not among `allowed`."""
    if unknown := sorted(set(scopes) - set(allowed)):
        raise ValidationError(f"unknown scope: {', '.join(unknown)}")


def disconnect(client: Client, *, person: Person | None = None, by=None, at: datetime.datetime) -> int:
    """Revoke a client's tokens, or only those it has for one person. Returns how many."""
    tokens = Token.objects.filter(client=client)
    return (tokens if person is None else tokens.filter(user=person)).delete()[0]


def refresh_token_of(client: Client, person: Person, random: str) -> str:
    """A refresh token that says, to us only, whose it is: one that was used up and comes again can end what followed it."""
    sealed = vault.seal(person.pk.bytes, aad=_refreshes(client))
    return f"{base64.urlsafe_b64encode(sealed).decode().rstrip('=')}.{random}"


def owner_of(refresh_token: str, client: Client) -> uuid.UUID | None:
    """The key of the person whom a refresh token of this client was for, whether or not it still works; None where it is not
    one of ours."""
    sealed = str(refresh_token).partition(".")[0]
    try:
        return uuid.UUID(bytes=vault.unseal(base64.urlsafe_b64decode(sealed + "==="), aad=_refreshes(client)))
    except (vault.BadSeal, ValueError):
        return None


def _refreshes(client: Client) -> bytes:
    return f"refresh token|{client.pk}".encode()


def end_family(client: Client, person: uuid.UUID | None, *, by=None, at: datetime.datetime) -> int:
    """A code or refresh token that was used up came again: somebody has a copy, and nobody knows who. Everything that the
    client has for that person ends (RFC 9700 §4.14.2). Returns how many tokens."""
    return Token.objects.filter(client=client, user=person).delete()[0] if person else 0


def keep(token: Token, *, scopes, by=None, at: datetime.datetime) -> None:
    """Keep a server's token: one row, which needs no transaction around it."""
    token.set_scopes(list(scopes))
    token.save(force_insert=True)


def revoke(value: str, *, client: Client, by=None, at: datetime.datetime) -> None:
    """End a client's own token; another's is treated like one that never was (RFC 7009 §2.1, §2.2). With a refresh token
    goes everything that the client has for that person."""
    own = Token.objects.filter(client=client, type__in=[Token.Type.ACCESS_TOKEN, Token.Type.REFRESH_TOKEN])
    for found in own.by_value(value):
        if found.type == Token.Type.REFRESH_TOKEN:
            own.filter(user=found.user_id).delete()
        found.delete()


def forget_expired(*, by=None, at: datetime.datetime, limit: int = 10_000) -> int:
    """Remove tokens that have expired, at most `limit` a run. Returns how many."""
    old = Token.objects.filter(expires_at__lte=at).order_by("expires_at").values("pk")[:limit]
    return Token.objects.filter(pk__in=old).delete()[0]
