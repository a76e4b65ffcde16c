"""WRITES OAuth2 clients, and shapes allauth's OAuth2/OIDC server: our issuer, our key, our scopes, no identity."""

import datetime
import uuid

from allauth.idp.oidc.adapter import DefaultOIDCAdapter
from allauth.idp.oidc.models import Client, PrivateKey
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from consents.models import Person
from providers.models import ApiClient, Organization
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
        data["grant_types_supported"] = ["authorization_code", "client_credentials", "refresh_token"]
        data["response_types_supported"] = ["code"]
        # Grants are made by joining a service on the portal, never by an authorization request (draft 03 §5, §7.1).
        data["grant_management_endpoint"] = f"{settings.PORTAL_URL}/api/v1/grants"
        data["grant_management_actions_supported"] = ["query", "revoke"]
        data["grant_management_action_required"] = False
        data["service_documentation"] = f"{settings.PORTAL_URL}/api/docs/"
        del data["device_authorization_endpoint"]


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
    by=None,
    at: datetime.datetime | None = None,
) -> ApiClient:
    """The OAuth2 client of an organization's server (client credentials). `secret` must be machine-made, 256 bits: it is
    kept under a fast hash. `redirect_uris` are where consent requests may send the person back to.

    Raises ValidationError for an unknown scope or a short secret, IntegrityError where the organization has a client."""
    _check_scopes(scopes, ORGANIZATION_SCOPES)
    if len(secret) < 32:
        raise ValidationError("a client secret is made by a machine and has at least 32 characters")
    client = _client(
        client_id, name=name, type=Client.Type.CONFIDENTIAL, secret=make_password(secret, hasher="machine_sha256"),
        redirect_uris=redirect_uris, scopes=scopes,
    )  # fmt: skip
    client.set_grant_types([Client.GrantType.CLIENT_CREDENTIALS])
    client.set_default_scopes(list(scopes))
    with transaction.atomic():
        client.save(force_insert=True)
        return ApiClient.objects.create(
            organization=organization, client=client, created_at=at or timezone.now()
        )


def create_app_client(
    *, name: str, redirect_uris, scopes=("me", "openid"), client_id: str | None = None, by=None
) -> Client:
    """A public client for an application that a person uses (authorization code + PKCE, rotated refresh tokens).

    Raises ValidationError for an unknown scope."""
    _check_scopes(scopes, PERSON_SCOPES)
    client = _client(
        client_id,
        name=name,
        type=Client.Type.PUBLIC,
        secret=make_password(None),
        redirect_uris=redirect_uris,
        scopes=scopes,
    )
    client.set_grant_types([Client.GrantType.AUTHORIZATION_CODE, Client.GrantType.REFRESH_TOKEN])
    client.save(force_insert=True)
    return client


def _client(client_id: str | None, *, redirect_uris, scopes, **fields) -> Client:
    known = {"id": client_id} if client_id else {}
    client = Client(**known, **fields)
    client.set_redirect_uris(list(redirect_uris))
    client.set_scopes(list(scopes))
    client.set_response_types([Client.ResponseType.CODE])
    return client


def _check_scopes(scopes, allowed) -> None:
    if unknown := sorted(set(scopes) - set(allowed)):
        raise ValidationError(f"unknown scope: {', '.join(unknown)}")
