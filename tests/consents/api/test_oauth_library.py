"""Somebody else's OAuth2 client (authlib) walks the whole way through the running portal, over real HTTP."""

import re
import secrets
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from authlib.integrations.requests_client import OAuth2Session
from authlib.oauth2.rfc7523 import PrivateKeyJWT
from django.utils import timezone
from joserfc.jwk import ECKey

from consents import clients, oauth
from consents.actors import Actor
from providers import keysets
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)
BY = Actor.system("test")
BACK = "https://my.example/back"


@pytest.fixture
def portal(live_server, settings, monkeypatch):
    """The portal's address, and its metadata as a client finds it."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # loopback
    settings.PORTAL_URL = live_server.url
    return live_server.url


@pytest.fixture
def found(portal) -> dict:
    told = requests.get(f"{portal}/.well-known/oauth-authorization-server", timeout=10).json()
    assert told == requests.get(f"{portal}/.well-known/openid-configuration", timeout=10).json()
    assert told["issuer"] == portal
    assert all(told[name].startswith(portal) for name in told if name.endswith(("_endpoint", "_uri")))
    return told


@pytest.fixture
def server(db):
    return clients.make(
        factories.OperatorFactory(), scopes=["deliveries:ack", "consents:read"], by=BY, at=timezone.now()
    )


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_server_gets_introspects_and_revokes_a_token(found, portal, server, method):
    link, secret = server
    session = OAuth2Session(link.client_id, secret, token_endpoint_auth_method=method)
    token = session.fetch_token(
        found["token_endpoint"], grant_type="client_credentials", scope="deliveries:ack"
    )
    assert token["token_type"] == "Bearer" and token["expires_in"] == 600
    assert session.get(f"{portal}/api/v1/deliveries").status_code == 200
    assert session.get(f"{portal}/api/v1/consents").status_code == 403
    told = session.introspect_token(found["introspection_endpoint"], token["access_token"]).json()
    assert told["active"] and told["client_id"] == link.client_id and told["exp"] - told["iat"] == 600
    other = clients.make(factories.OperatorFactory(), scopes=["deliveries:ack"], by=BY, at=timezone.now())
    theirs = OAuth2Session(other[0].client_id, other[1], token_endpoint_auth_method=method)
    assert theirs.introspect_token(found["introspection_endpoint"], token["access_token"]).json() == {
        "active": False
    }
    assert theirs.revoke_token(found["revocation_endpoint"], token["access_token"]).status_code == 200
    assert session.get(f"{portal}/api/v1/deliveries").status_code == 200
    assert session.revoke_token(found["revocation_endpoint"], token["access_token"]).status_code == 200
    assert session.get(f"{portal}/api/v1/deliveries").status_code == 401
    told = session.introspect_token(found["introspection_endpoint"], token["access_token"]).json()
    assert told == {"active": False}


def test_a_server_signs_in_by_its_key(found, portal, server):
    link, _secret = server
    key = ECKey.generate_key("P-256", parameters={"kid": "k1"})
    clients.register_keys(
        link.organization,
        keys=keysets.checked({"keys": [key.as_dict(private=False)]}),
        by=BY,
        at=timezone.now(),
    )
    clients.change(
        link, scopes=["deliveries:ack"], redirect_uris=[], method="private_key_jwt", dpop=False, by=BY, at=timezone.now()
    )  # fmt: skip
    session = OAuth2Session(link.client_id, key, token_endpoint_auth_method="private_key_jwt")
    session.register_client_auth_method(
        PrivateKeyJWT(found["issuer"], alg="ES256", headers={"kid": "k1"}, claims={"exp": _in_a_minute()})
    )
    session.fetch_token(found["token_endpoint"], grant_type="client_credentials")
    assert session.get(f"{portal}/api/v1/deliveries").status_code == 200


def _in_a_minute() -> int:
    return int(timezone.now().timestamp()) + 59


def test_a_person_lets_an_application_in_and_it_refreshes_and_leaves(found, portal, client, person):
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    app = oauth.create_app_client(name="내 앱", redirect_uris=[BACK], scopes=["me", "openid", "profile"])
    session = OAuth2Session(
        app.pk,
        scope="me openid",
        redirect_uri=BACK,
        code_challenge_method="S256",
        token_endpoint_auth_method="none",
    )
    verifier = secrets.token_urlsafe(48)
    url, state = session.create_authorization_url(found["authorization_endpoint"], code_verifier=verifier)
    back = _allow(portal, url, client.cookies["sid"].value)
    answer = parse_qs(urlsplit(back).query)
    assert back.startswith(BACK) and answer["state"] == [state] and answer["iss"] == [found["issuer"]]
    token = session.fetch_token(found["token_endpoint"], authorization_response=back, code_verifier=verifier)
    assert set(token["scope"].split()) == {"me", "openid"}
    assert session.get(f"{portal}/api/v1/me/summary").json()["operators_holding"] == 0
    assert session.get(found["userinfo_endpoint"]).json()["sub"] == str(person.subject_id)
    _check_identity(token["id_token"], found, app, person)
    first, refresh = token["access_token"], token["refresh_token"]
    fresh = session.refresh_token(found["token_endpoint"], refresh_token=refresh)
    assert fresh["access_token"] != first and fresh["refresh_token"] != refresh
    assert session.get(f"{portal}/api/v1/me/summary").status_code == 200
    gone = session.revoke_token(found["revocation_endpoint"], fresh["refresh_token"], "refresh_token")
    assert gone.status_code == 200
    assert session.get(f"{portal}/api/v1/me/summary").status_code == 401
    with pytest.raises(Exception, match="invalid_grant"):
        session.refresh_token(found["token_endpoint"], refresh_token=fresh["refresh_token"])


def _allow(portal: str, url: str, sid: str) -> str:
    """What the person's browser does: read the page, press the button; the address that it is sent to."""
    browser = requests.Session()
    browser.cookies.set("sid", sid)
    page = browser.get(url, timeout=10)
    assert page.status_code == 200, page.text
    fields = {
        name: re.search(rf'name="{name}" value="([^"]+)"', page.text)[1]
        for name in ("request", "csrfmiddlewaretoken")
    }
    answer = browser.post(
        f"{portal}/identity/o/authorize", data=fields | {"scopes": ["me", "openid"], "action": "grant"},
        headers={"Referer": url}, allow_redirects=False, timeout=10,
    )  # fmt: skip
    assert answer.status_code == 302, answer.text
    return answer.headers["Location"]


def _check_identity(compact: str, found: dict, app, person) -> None:
    """The ID token by another library, with the published keys."""
    import jwt

    key = jwt.PyJWKClient(found["jwks_uri"]).get_signing_key_from_jwt(compact)
    claims = jwt.decode(compact, key, algorithms=["RS256"], audience=app.pk, issuer=found["issuer"])
    assert claims["sub"] == str(person.subject_id)
