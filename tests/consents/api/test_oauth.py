"""The OAuth2 server: tokens for servers and for people's applications, and what nobody can do with them."""

import base64
import hashlib
import json
import re
import secrets
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from allauth.idp.oidc.models import Client as OAuthClient
from allauth.idp.oidc.models import Token
from django.core.exceptions import ValidationError
from django.test import Client
from django.utils import timezone

from consents import clients, oauth
from consents.api import oauth as doors
from providers import signing
from tests import factories

from .conftest import SECRET, Caller, token

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"
TOKEN, REVOKE = "/identity/o/api/token", "/identity/o/api/revoke"
BACK = "https://my.example/back"


@pytest.fixture
def organization(db):
    return factories.OperatorFactory()


@pytest.fixture
def server(organization):
    """The OAuth2 client of an organization."""
    return oauth.create_client(
        organization=organization, name="서버", secret=SECRET, scopes=list(oauth.ORGANIZATION_SCOPES)
    ).client


def grant(client, **fields):
    return post(
        TOKEN, {"grant_type": "client_credentials", "client_id": client.pk, "client_secret": SECRET} | fields
    )


def post(path, fields, **headers):
    body = urlencode({name: value for name, value in fields.items() if value is not None})
    return Client().post(path, body, content_type=FORM, headers=headers)


def basic(client, secret=SECRET) -> str:
    return "Basic " + base64.b64encode(f"{client.pk}:{secret}".encode()).decode()


def test_a_server_gets_a_short_lived_token_for_its_scopes(server, organization):
    granted = grant(server, scope="deliveries:ack").json()
    assert (
        granted["expires_in"] == 600
        and granted["scope"] == "deliveries:ack"
        and "refresh_token" not in granted
    )
    assert Caller(granted["access_token"]).get("deliveries").status_code == 200
    assert Caller(granted["access_token"]).get("consents").status_code == 403
    by_header = post(TOKEN, {"grant_type": "client_credentials"}, Authorization=basic(server)).json()
    assert set(by_header["scope"].split()) == set(oauth.ORGANIZATION_SCOPES)


def test_secrets_are_kept_hashed_and_cheap(server):
    kept = server.organization_link.secrets.get()
    assert kept.digest.startswith("machine_sha256$") and SECRET not in kept.digest
    assert not server.check_secret(SECRET), "the library's own secret opens nothing"
    at = timezone.now()
    assert clients.secret_of(clients.find(server.pk), SECRET, at=at) == kept
    assert clients.secret_of(clients.find(server.pk), SECRET + "x", at=at) is None


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"client_secret": "wrong" * 9}, 401), ({"client_secret": None}, 401), ({"client_id": "nobody"}, 401),
        ({"scope": "me"}, 400), ({"scope": "everything"}, 400), ({"grant_type": "password"}, 400), ({"grant_type": None}, 400),
        ({"client_id": "a\x00b"}, 400), ({"client_secret": "\x00"}, 400),
    ],
)  # fmt: skip
def test_a_wrong_token_request_gives_nothing(server, fields, status):
    answer = grant(server, **fields)
    assert answer.status_code == status, answer.content
    assert answer.json()["error"] and not Token.objects.exists()


def test_token_requests_of_another_form_are_refused(server):
    assert Client().post(TOKEN, "{}", content_type="application/json").status_code == 400
    assert Client().post(TOKEN, "a=" + "b" * 20_000, content_type=FORM).status_code == 413
    assert Client().post(TOKEN, "a=" + "b" * 10_000_000, content_type=FORM).status_code == 413
    assert Client().post(TOKEN, "scope=a&scope=b", content_type=FORM).status_code == 400
    assert Client().get(TOKEN).status_code == 405
    both = post(
        TOKEN, {"grant_type": "client_credentials", "client_id": "other"}, Authorization=basic(server)
    )
    assert both.json()["error"] == "invalid_request"


def test_too_many_tokens_have_to_wait(server, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 2)
    assert [grant(server).status_code for _ in range(3)] == [200, 200, 429]
    waiting = grant(server)
    assert waiting["Retry-After"] == "60" and waiting.json()["error"] == "temporarily_unavailable"


def test_one_client_cannot_revoke_anothers_token(server, app, person):
    other = oauth.create_client(
        organization=factories.OperatorFactory(), name="다른 서버", secret=SECRET, scopes=["deliveries:ack"]
    ).client
    theirs, mine = token(server, None, ["deliveries:ack"]), token(app, person, ["me"])
    for value in (theirs, mine):
        for hint in (None, "access_token", "refresh_token"):
            answer = post(REVOKE, {"token": value, "token_type_hint": hint}, Authorization=basic(other))
            assert answer.status_code == 200  # as for a token that never was (RFC 7009 §2.2)
    assert post(REVOKE, {"token": theirs, "client_id": app.pk}).status_code == 200
    mixed = post(REVOKE, {"token": theirs, "client_id": app.pk}, Authorization=basic(server, "wrong" * 9))
    assert mixed.status_code == 400
    assert post(REVOKE, {"token": theirs}, Authorization=basic(server, "wrong" * 9)).status_code == 401
    assert Token.objects.count() == 2
    assert post(REVOKE, {"token": theirs}, Authorization=basic(server)).status_code == 200
    assert Token.objects.count() == 1
    assert Caller(theirs).get("deliveries").status_code == 401


def authorize(browser, app, verifier, **other):
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code", "client_id": app.pk, "redirect_uri": BACK, "scope": "me openid", "state": "s1",
        "code_challenge": challenge, "code_challenge_method": "S256",
    } | other  # fmt: skip
    return browser.get(
        "/identity/o/authorize", {name: value for name, value in asked.items() if value is not None}
    )


def test_a_person_lets_an_application_in_by_code_and_pkce(signed_in, person, app):
    verifier = secrets.token_urlsafe(48)
    page = authorize(signed_in, app, verifier)
    assert page.status_code == 200, page.content
    assert "https://my.example" in page["Content-Security-Policy"]
    html = page.content.decode()
    assert "내 가입과 동의를 보고" in html
    request_info = re.search(r'name="request" value="([^"]+)"', html)[1]
    granted = signed_in.post(
        "/identity/o/authorize", {"request": request_info, "scopes": ["me", "openid"], "action": "grant"}
    )
    assert granted.status_code == 302, granted.content
    back = parse_qs(urlsplit(granted["Location"]).query)
    assert granted["Location"].startswith(BACK) and back["state"] == ["s1"]
    exchange = {
        "grant_type": "authorization_code", "client_id": app.pk, "redirect_uri": BACK, "code": back["code"][0],
        "code_verifier": verifier,
    }  # fmt: skip
    tokens = post(TOKEN, exchange).json()
    assert Caller(tokens["access_token"]).get("me/summary").status_code == 200
    assert Caller(tokens["refresh_token"]).get("me/summary").status_code == 401
    assert Caller(tokens["id_token"]).get("me/summary").status_code == 401
    identity = json.loads(base64.urlsafe_b64decode(tokens["id_token"].split(".")[1] + "=="))
    assert identity["sub"] == str(person.subject_id) and person.email not in str(identity)


def let_in(browser, app) -> tuple[dict, dict]:
    """What an application was given for a code, and the exchange that got it."""
    exchange = code_for(browser, app)
    return post(TOKEN, exchange).json(), exchange


def code_for(browser, app) -> dict:
    """A fresh code, and all that belongs to its exchange."""
    verifier = secrets.token_urlsafe(48)
    html = authorize(browser, app, verifier).content.decode()
    asked = {
        "request": re.search(r'name="request" value="([^"]+)"', html)[1],
        "scopes": ["me"],
        "action": "grant",
    }
    back = parse_qs(urlsplit(browser.post("/identity/o/authorize", asked)["Location"]).query)
    return {
        "grant_type": "authorization_code", "client_id": app.pk, "redirect_uri": BACK, "code": back["code"][0],
        "code_verifier": verifier,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"code_verifier": "x" * 64}, {"code_verifier": None}, {"redirect_uri": "https://my.example/other"}],
)
def test_a_code_is_spent_by_whatever_is_shown_with_it(signed_in, app, wrong):
    exchange = code_for(signed_in, app)
    refused = post(TOKEN, exchange | wrong)
    assert refused.status_code == 400 and "error" in refused.json()
    again = post(TOKEN, exchange)
    assert again.status_code == 400 and again.json()["error"] == "invalid_grant"
    assert not Token.objects.exists()


def test_another_client_does_not_spend_a_code(signed_in, app):
    other = oauth.create_app_client(name="Other", redirect_uris=[BACK], scopes=["me", "openid"])
    exchange = code_for(signed_in, app)
    assert post(TOKEN, exchange | {"client_id": other.pk}).status_code == 400
    assert post(TOKEN, exchange).status_code == 200


@pytest.mark.parametrize(
    "kind",
    ["password", "implicit", "urn:ietf:params:oauth:grant-type:device_code", "x", "CLIENT_CREDENTIALS"],
)
def test_a_grant_that_is_not_offered_is_told_so(server, kind):
    for sent in ({}, {"username": "a", "password": "b"}, {"code": "x"}, {"client_secret": "wrong" * 9}):
        answer = grant(server, grant_type=kind, **sent)
        assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_grant_type")
    assert grant(server, grant_type=None).json()["error"] == "invalid_request"


def told(answer) -> dict:
    """What a client is told at its return address."""
    assert answer.status_code == 302 and answer["Location"].startswith(BACK + "?"), answer.content
    return {name: value[0] for name, value in parse_qs(urlsplit(answer["Location"]).query).items()}


@pytest.mark.parametrize("scope", ["me", "me openid"])
def test_who_asks_for_no_page_gets_none(client, app, person, scope):
    """Also where an application, this one or another, has tokens of the person's already."""
    whole = {"state": "s1", "iss": "http://127.0.0.1:8000"}
    visitor = told(authorize(client, app, "v" * 50, prompt="none", scope=scope))
    assert visitor.items() >= (whole | {"error": "login_required"}).items()
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    other = oauth.create_app_client(name="Other", redirect_uris=[BACK], scopes=["me", "openid"])
    for known in (None, other, app):
        if known:
            token(known, person, ["me", "openid"])
        answer = told(authorize(client, app, "v" * 50, prompt="none", scope=scope))
        assert answer.items() >= (whole | {"error": "consent_required"}).items() and "code" not in answer
    both = told(authorize(client, app, "v" * 50, prompt="none login", scope=scope))
    assert both["error"] == "invalid_request" and both["state"] == "s1"


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": None}, {"code_challenge": ""}, {"code_challenge": "short"}, {"code_challenge": "a" * 42},
        {"code_challenge": "a" * 44}, {"code_challenge": "a" * 128}, {"code_challenge": "a" * 42 + "+"},
        {"code_challenge": "a" * 43 + "\n"}, {"code_challenge": "가" * 43}, {"code_challenge_method": "plain"},
        {"code_challenge_method": None}, {"code_challenge_method": "s256"}, {"response_mode": "fragment"},
        {"prompt": ["none", "login"]}, {"claims": "[1]"}, {"claims": "{"}, {"response_type": None},
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", ["client", "signed_in"])
def test_a_malformed_request_goes_back_before_any_page(app, change, who, request):
    answer = told(authorize(request.getfixturevalue(who), app, "v" * 50, **change))
    assert answer["error"] == "invalid_request" and answer["state"] == "s1"
    assert answer["iss"] == "http://127.0.0.1:8000"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"scope": None}, "invalid_scope"), ({"scope": ""}, "invalid_scope"), ({"scope": " "}, "invalid_scope"),
        ({"prompt": "whatever"}, "invalid_request"), ({"prompt": "consent whatever"}, "invalid_request"),
        ({"max_age": "soon"}, "invalid_request"), ({"max_age": "-1"}, "invalid_request"), ({"max_age": "1.5"}, "invalid_request"),
        ({"max_age": ""}, "invalid_request"), ({"request": "e30.e30."}, "request_not_supported"),
        ({"request_uri": "https://my.example/r"}, "request_uri_not_supported"), ({"request": ""}, "request_not_supported"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("who", ["client", "signed_in"])
def test_what_is_not_understood_goes_back_before_any_page(app, change, error, who, request):
    answer = told(authorize(request.getfixturevalue(who), app, "v" * 50, **change))
    assert (answer["error"], answer["state"], answer["iss"]) == (error, "s1", "http://127.0.0.1:8000")


def test_known_prompts_and_ages_lead_to_the_page_and_through_it(signed_in, app):
    for other in ({"prompt": "consent"}, {"prompt": "select_account"}, {"max_age": "3600"}, {}):
        page = authorize(signed_in, app, "v" * 50, **other)
        assert page.status_code == 200
        back = told(let(signed_in, page, ["me", "openid"]))
        assert back["code"] and back["state"] == "s1"


def let(browser, page, scopes):
    """What comes of the form of a page."""
    signed = re.search(r'name="request" value="([^"]+)"', page.content.decode())[1]
    return browser.post("/identity/o/authorize", {"request": signed, "scopes": scopes, "action": "grant"})


def account(role: str):
    """A browser in which somebody with this role is signed in."""
    person = factories.PersonFactory()
    if role != "person":
        factories.MemberFactory(
            person=person, **({} if role == "desk" else {"role": "regulator", "organization": None})
        )
    browser = Client()
    browser.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    return browser


@pytest.mark.parametrize(
    ("role", "scope", "shown"),
    [
        ("person", "oversight:read", False), ("desk", "oversight:read", False), ("regulator", "oversight:read", True),
        ("regulator", "me", False), ("desk", "me", False), ("person", "me", True), ("regulator", "me oversight:read", False),
        ("person", "openid me oversight:read", False), ("person", "openid", True), ("desk", "openid", True),
        ("regulator", "grant_management_query", False), ("desk", "grant_management_revoke", False),
        ("person", "grant_management_query grant_management_revoke", True),
    ],
)  # fmt: skip
def test_nobody_is_asked_for_what_their_account_can_never_have(role, scope, shown):
    wide = oauth.create_app_client(name="Wide", redirect_uris=[BACK], scopes=list(oauth.PERSON_SCOPES))
    answer = authorize(account(role), wide, "v" * 50, scope=scope)
    if shown:
        assert answer.status_code == 200
        return
    back = told(answer)
    assert back["error"] == "access_denied" and back["state"] == "s1" and "iss" in back


def test_a_page_that_another_account_opened_gives_nothing(db):
    """The form of a regulator's page, sent from a person's browser."""
    wide = oauth.create_app_client(name="Wide", redirect_uris=[BACK], scopes=list(oauth.PERSON_SCOPES))
    page = authorize(account("regulator"), wide, "v" * 50, scope="oversight:read")
    for role in ("person", "desk"):
        back = told(let(account(role), page, ["oversight:read"]))
        assert back["error"] == "access_denied" and "code" not in back
    assert "code" in told(let(account("regulator"), page, ["oversight:read"]))


def test_who_fails_to_sign_in_is_told_how(server):
    for path in (TOKEN, REVOKE, "/identity/o/api/introspect"):
        fields = {"grant_type": "client_credentials", "token": "x"}
        by_header = post(path, fields, Authorization=basic(server, "wrong" * 9))
        by_form = post(path, fields | {"client_id": server.pk, "client_secret": "wrong" * 9})
        for answer in (by_header, by_form):
            assert answer.status_code == 401 and answer.json()["error"] == "invalid_client"
            assert answer["WWW-Authenticate"].startswith('Basic realm="')


def test_another_method_is_told_which_one(db):
    for path in (TOKEN, REVOKE, "/identity/o/api/introspect"):
        for verb in ("get", "put", "delete", "head"):
            answer = getattr(Client(), verb)(path)
            assert (answer.status_code, answer["Allow"]) == (405, "POST")
            assert answer["Content-Type"] == "application/json"
        assert Client().get(path).json() == {"error": "invalid_request", "error_description": "use POST"}
    answer = Client().put("/identity/o/api/userinfo")
    assert (answer.status_code, answer["Allow"]) == (405, "GET, HEAD, POST") and answer.json()["error"]


def test_no_answer_about_tokens_is_kept(server):
    for answer in (
        grant(server),
        grant(server, scope="me"),
        grant(server, client_secret="x" * 43),
        Client().get(TOKEN),
    ):
        assert answer["Cache-Control"] == "no-store" and answer["Pragma"] == "no-cache"


def test_what_nobody_can_read_is_no_fault_of_ours(client, app):
    for query in (
        "code_challenge=%ff&state=%00",
        "state=%zz",
        "state=\xff",
        "claims=%7B%7D&id_token_hint=x",
        "state=a;b",
    ):
        asked = urlencode({"client_id": app.pk, "redirect_uri": BACK, "response_type": "code"})
        assert client.get(f"/identity/o/authorize?{asked}&{query}").status_code in (302, 400)


def refreshed(app, tokens: dict):
    return post(
        TOKEN, {"grant_type": "refresh_token", "client_id": app.pk, "refresh_token": tokens["refresh_token"]}
    )


def works(tokens: dict) -> bool:
    return Caller(tokens["access_token"]).get("me/summary").status_code == 200


def test_a_code_that_comes_again_ends_what_it_gave(signed_in, app):
    tokens, exchange = let_in(signed_in, app)
    assert works(tokens)
    assert post(TOKEN, exchange).status_code == 400
    assert not works(tokens) and refreshed(app, tokens).status_code == 400


def test_a_refresh_token_that_comes_again_ends_what_followed_it(signed_in, app):
    tokens, _ = let_in(signed_in, app)
    fresh = refreshed(app, tokens).json()
    assert works(fresh)
    assert refreshed(app, tokens).status_code == 400
    assert not works(fresh) and refreshed(app, fresh).status_code == 400


@pytest.mark.parametrize("value", ["x", "", "AAAA.x", "가.나", "=" * 60 + ".x"])
def test_an_invented_refresh_token_ends_nothing(signed_in, app, value):
    tokens, _ = let_in(signed_in, app)
    assert refreshed(app, {"refresh_token": value}).status_code == 400
    assert works(tokens)


def test_another_clients_refresh_token_ends_nothing(signed_in, app):
    other = oauth.create_app_client(name="Other", redirect_uris=[BACK], scopes=["me", "openid"])
    tokens, _ = let_in(signed_in, app)
    assert refreshed(other, tokens).status_code == 400
    assert works(tokens) and refreshed(app, tokens).status_code == 200


@pytest.mark.parametrize(
    "change",
    [
        {"redirect_uri": "https://evil.example/"}, {"redirect_uri": None}, {"client_id": "nobody"}, {"client_id": "\x00"},
    ],
)  # fmt: skip
def test_an_authorization_that_is_not_right_goes_nowhere(signed_in, app, change):
    answer = authorize(signed_in, app, "v" * 50, **change)
    assert answer.status_code == 400 and "Location" not in answer


def test_a_refusal_and_a_wrong_scope_go_back_to_the_application(signed_in, app):
    wrong = authorize(signed_in, app, "v" * 50, scope="deliveries:ack")
    assert wrong.status_code == 302 and "error=invalid_scope" in wrong["Location"]
    html = authorize(signed_in, app, "v" * 50).content.decode()
    request_info = re.search(r'name="request" value="([^"]+)"', html)[1]
    no = signed_in.post("/identity/o/authorize", {"request": request_info, "action": "cancel"})
    assert no.status_code == 302 and "error=access_denied" in no["Location"]
    forged = signed_in.post("/identity/o/authorize", {"request": "x:y", "scopes": ["me"], "action": "grant"})
    assert forged.status_code == 403


def test_a_visitor_signs_in_first(client, app):
    answer = authorize(client, app, "v" * 50)
    assert answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


def test_all_public_keys_are_in_one_place(client):
    answer = client.get("/.well-known/jwks.json")
    keys = answer.json()["keys"]
    assert {key["kid"] for key in signing.public_jwks()["keys"]} < {key["kid"] for key in keys}
    assert {key["kty"] for key in keys} == {"RSA", "EC"}
    assert all(key["use"] == "sig" and key["alg"] and not {"d", "p", "q"} & key.keys() for key in keys)
    assert answer["Cache-Control"] == "public, max-age=3600"


def test_every_answer_to_a_client_tells_what_is_left(server, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 4)
    answers = [
        grant(server), post(REVOKE, {"token": "x"}, Authorization=basic(server)),
        post("/identity/o/api/introspect", {"token": "x"}, Authorization=basic(server)), grant(server, scope="everything"),
    ]  # fmt: skip
    for gone, answer in enumerate(answers, 1):
        assert answer["RateLimit-Policy"] == '"token:client";q=4;w=60'
        assert re.fullmatch(rf'"token:client";r={4 - gone};t=\d+', answer["RateLimit"])
    refused = grant(server)
    assert refused.status_code == 429 and '"token:client";r=0;t=' in refused["RateLimit"]
    assert 1 <= int(refused["Retry-After"]) <= 60 and refused["RateLimit"].endswith(
        f"t={refused['Retry-After']}"
    )
    for stranger in (
        grant(server, client_id="nobody"), Client().post(TOKEN, "{}", content_type="application/json"),
        Client().post(TOKEN, "a=" + "b" * 10_000_000, content_type=FORM),
    ):  # fmt: skip
        assert stranger.status_code in (400, 401, 413) and stranger["RateLimit"].startswith(
            '"token:guest";r='
        )


def test_the_metadata_has_both_names_and_offers_only_what_there_is(client):
    told = client.get("/.well-known/openid-configuration").json()
    assert told == client.get("/.well-known/oauth-authorization-server").json()
    assert told["response_modes_supported"] == ["query"]
    assert told["request_parameter_supported"] is told["request_uri_parameter_supported"] is False
    assert told["issuer"] == "http://127.0.0.1:8000" and told["response_types_supported"] == ["code"]
    assert set(told["scopes_supported"]) == set(oauth.SCOPES)
    assert client.post("/identity/o/api/device/code").status_code == 404
    assert client.get("/identity/o/device").status_code == 404


def test_clients_are_made_with_known_scopes_and_real_secrets(organization, db):
    for secret, scopes in [("short", ["deliveries:ack"]), (SECRET, ["me"]), (SECRET, ["all"])]:
        with pytest.raises(ValidationError):
            oauth.create_client(organization=organization, name="x", secret=secret, scopes=scopes)
    with pytest.raises(ValidationError):
        oauth.create_app_client(name="x", redirect_uris=[BACK], scopes=["deliveries:ack"])
    assert not OAuthClient.objects.exists()
