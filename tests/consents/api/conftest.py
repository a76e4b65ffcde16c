"""Fixtures of the API tests: callers with tokens, and a database that can be compared with itself."""

import base64
import contextlib
import datetime
import hashlib
import json
import secrets

import pytest
from allauth.idp.oidc.models import Token
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.utils import timezone
from joserfc import jws
from joserfc.jwk import ECKey

from consents import oauth
from consents.models import Delivery
from providers import registry
from providers.models import ChannelKey
from tests import factories

SECRET = "s" * 43
TRAN = "ZVXXXX0000M00000000000001"


@pytest.fixture(autouse=True)
def own_keys_and_cache(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "api-keys"
    cache.clear()


class Caller:
    """Speaks JSON with a bearer token, or with none."""

    def __init__(self, token: str | None = None):
        self.client = Client(raise_request_exception=True)
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def url(self, path: str) -> str:
        """Below /api/v1/, unless it begins at the root."""
        return path if path.startswith("/") else f"/api/v1/{path}"

    def get(self, path, **headers):
        return self.client.get(self.url(path), headers=self.usual(path) | headers)

    def usual(self, path: str) -> dict[str, str]:
        """The Korean support API wants a transaction id in every call."""
        return self.headers | ({"x-api-tran-id": TRAN} if path.startswith("/mydata/") else {})

    def put(self, path, data, *, content_type="application/json", **headers):
        return self.post(path, data, content_type=content_type, verb="put", **headers)

    def post(self, path, data=None, *, content_type="application/json", verb="post", **headers):
        sent = data if isinstance(data, str | bytes) else json.dumps({} if data is None else data)
        return getattr(self.client, verb)(
            self.url(path),
            sent,
            content_type=content_type,
            headers=self.usual(path) | {name.replace("_", "-"): value for name, value in headers.items()},
        )


def token(client, user=None, scopes=(), *, type=Token.Type.ACCESS_TOKEN, lasts=3600) -> str:
    value = secrets.token_urlsafe(32)
    row = Token(
        client=client, user=user, type=type, expires_at=timezone.now() + datetime.timedelta(seconds=lasts)
    )
    row.set_value(value)
    row.set_scopes(list(scopes))
    row.save()
    return value


@pytest.fixture
def app(db):
    """A public client, as an application of a person's own."""
    return oauth.create_app_client(name="내 앱", redirect_uris=["https://my.example/back"])


@pytest.fixture
def mine(app, person):
    """The person's application."""
    return Caller(token(app, person, ["me"]))


def of(organization, *scopes) -> Caller:
    """The server of an organization."""
    scopes = scopes or tuple(oauth.ORGANIZATION_SCOPES)
    link = getattr(organization, "api_client", None) or oauth.create_client(
        organization=organization,
        name=organization.name_en,
        secret=SECRET,
        scopes=list(oauth.ORGANIZATION_SCOPES),
    )
    return Caller(token(link.client, None, scopes))


@pytest.fixture
def service(db):
    return factories.offered()


@pytest.fixture
def subscription(person, service):
    return factories.joined(person, service)


@pytest.fixture
def operator(service):
    return of(service.organization)


@pytest.fixture
def stopped(subscription, service, me) -> Delivery:
    """What the operator owes after the person left and asked for erasure."""
    from consents import lifecycle

    lifecycle.leave(subscription, erase=True, by=me, at=timezone.now())
    return Delivery.objects.get(organization=service.organization, event="subscription-ended")


class Signer:
    """An organization that signs evidence with a registered key."""

    def __init__(self, organization, *, kid="key-1"):
        self.organization, self.kid = organization, kid
        self.key = ECKey.generate_key("P-256")
        channel = factories.ChannelFactory(organization=organization)
        self.public = self.key.as_dict(private=False) | {"kid": kid}
        registry.add_public_key(
            channel=channel,
            kid=kid,
            jwk=self.key.as_dict(private=False),
            at=timezone.now() - datetime.timedelta(days=1),
        )

    def claims(self, about, /, status="stopped", **other) -> dict:
        now = int(timezone.now().timestamp())
        claims = {
            "iss": self.organization.code, "aud": "http://127.0.0.1:8000", "iat": now, "jti": secrets.token_hex(8),
            "txn": str(about.txn), "delivery": str(about.jti), "subscription": str(about.subscription_id),
            "version": about.version, "status": status, "completed_at": now,
            "report": {"sha256": hashlib.sha256(b"report").hexdigest(), "url": "https://operator.example/report"},
        }  # fmt: skip
        claims |= other
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims, **header) -> str:
        header = {"alg": "ES256", "kid": self.kid, "typ": "deletion-evidence+jwt"} | header
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        return jws.serialize_compact(header, payload, self.key, algorithms=["ES256"])

    def retire(self):
        ChannelKey.objects.filter(kid=self.kid).update(
            retired_at=timezone.now() - datetime.timedelta(hours=1)
        )


@pytest.fixture
def signer(service):
    return Signer(service.organization)


def everything() -> dict[str, str]:
    """A digest of every row that matters, table by table; how often somebody came does not."""
    tables = [
        name
        for name in connection.introspection.table_names()
        if name.startswith(("consents_", "providers_")) and name != "consents_turn"
    ]
    found = {}
    with connection.cursor() as cursor:
        for table in [*(f'"{name}"' for name in tables), "ledger.event", "ledger.disclosure"]:
            cursor.execute(
                f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
            )
            found[table] = cursor.fetchone()[0]
    return found


@pytest.fixture
def unchanged():
    @contextlib.contextmanager
    def watch():
        before = everything()
        yield
        after = everything()
        assert after == before, [table for table in after if after[table] != before[table]]

    return watch


def problem(response, status: int, slug: str) -> dict:
    """The problem document of a refused request, of the form that is promised."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert body["type"].endswith(f"/api/docs/problems#{slug}"), body
    assert body["status"] == status and body["title"] and body["detail"]
    assert response["X-Request-Id"]
    return body


def payload_of(compact: str) -> dict:
    return json.loads(base64.urlsafe_b64decode(compact.split(".")[1] + "=="))
