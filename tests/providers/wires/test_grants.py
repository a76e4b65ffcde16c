"""FAPI Grant Management: the draft's own example, and a bearer token bought from oauthlib's server."""

import pytest
from aiohttp import web
from oauthlib.oauth2 import BackendApplicationServer, RequestValidator

from providers.wires import (
    ABSENT,
    ACTIVE,
    CHECK,
    KEY,
    REFUSED,
    RETRY,
    SENT,
    UNKNOWN,
    Reference,
    bearer,
    grants,
)
from tests.providers.wires.asked import JTI, NOW, Asked, Server, message, run

# The example of the draft, §6.3–6.5; its token.
GRANT = Reference("grant", "TSdqirmAxDa0_-DB_1bASQ")
TOKEN = "2YotnFZFEjr1zCsicMWpAA"
BOUGHT = {"details": {"token_address": "{base}/token", "client_id": "s6BhdRkqt3"}, "credential": "gX1fBat3bV"}


def test_the_requests_of_the_draft(settings):
    server = Server([204, (200, {"scopes": [{"scope": "openid"}]}), 404])
    arguments = {"path": "/grants", "credential": TOKEN}
    outcome = run(settings, server, grants.send, message(GRANT), **arguments)
    assert (outcome.verdict, outcome.status) == (SENT, 204)
    active = run(settings, server, grants.read_back, message(GRANT), **arguments)
    absent = run(settings, server, grants.read_back, message(GRANT), **arguments)
    assert (active.says, absent.says, absent.status) == (ACTIVE, ABSENT, 404)
    assert len(active.digest) == 64 and active.digest != absent.digest
    assert [asked.method for asked in server.asked] == ["DELETE", "GET", "GET"]
    for asked in server.asked:
        assert asked.path == "/grants/TSdqirmAxDa0_-DB_1bASQ" and asked.body == b""
        assert asked.headers["Authorization"] == f"Bearer {TOKEN}"
        assert asked.headers["x-fapi-interaction-id"] == JTI


SHOWN = {"scopes": [{"scope": "openid"}], "claims": [], "authorization_details": []}


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((200, SHOWN), ACTIVE), (404, ABSENT), (410, ABSENT), (204, UNKNOWN), (401, UNKNOWN), (403, UNKNOWN), (302, UNKNOWN),
        (503, UNKNOWN), (200, UNKNOWN), ((200, "<html>sign in</html>", {"Content-Type": "text/html"}), UNKNOWN), ((200, {}), UNKNOWN),
        ((200, [SHOWN]), UNKNOWN), ((200, "null"), UNKNOWN), ((503, SHOWN), UNKNOWN),
    ],
)  # fmt: skip
def test_each_answer_to_a_reading(settings, answer, says):
    """Nobody is accused of a grant that came back because a sign-in page answered."""
    assert run(settings, Server([answer]), grants.read_back, message(GRANT), credential="t").says == says


def test_nobody_can_list_grants():
    assert not hasattr(grants, "list_remote")


@pytest.mark.parametrize("name", ["..", ".", "", "x" * 2000, "...."])
def test_a_name_that_leads_elsewhere_is_not_called(settings, name):
    server = Server()
    outcome = run(settings, server, grants.send, message(Reference("grant", name)), path="/g", credential="t")
    assert (outcome.verdict, server.asked) == (REFUSED, [])
    reading = run(settings, server, grants.read_back, message(Reference("grant", name)), credential="t")
    assert (reading.says, server.asked) == (UNKNOWN, [])


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("../x", "/g/..%2Fx"),
        ("a/b?c=d", "/g/a%2Fb%3Fc=d"),
        ("가 %", "/g/%EA%B0%80%20%25"),
        ("a#b", "/g/a%23b"),
    ],
)
def test_a_name_stays_one_piece_of_the_path(settings, name, path):
    server = Server()
    run(settings, server, grants.send, message(Reference("grant", name)), path="/g/", credential="t")
    assert server.asked[0].path == path


@pytest.mark.parametrize(
    ("references", "endpoint", "missing"),
    [
        ([], {"credential": "t"}, "the message names no grant"),
        ([GRANT], {}, "no credential is stored for this channel"),
        ([GRANT], {"details": {"token_address": ""}}, "no credential is stored for this channel"),
        ([GRANT], {**BOUGHT, "details": {"token_address": "{base}/token"}}, "no client_id is stored for this channel"),
        ([GRANT], {"path": "/g?a=b", "credential": "t"}, "the grant's name does not fit into an address"),
    ],
)  # fmt: skip
def test_what_is_missing_is_said_and_nothing_sent(settings, references, endpoint, missing):
    server = Server()
    outcome = run(settings, server, grants.send, message(*references), **endpoint)
    assert (outcome.verdict, outcome.detail, server.asked) == (REFUSED, missing, [])


# Client credentials


class Authority(RequestValidator):
    """One client, and tokens that can be dropped."""

    def __init__(self):
        self.live, self.scopes = set(), set()

    def authenticate_client(self, request, *args, **kwargs):
        basic = Asked("", "", dict(request.headers), b"").basic
        request.client = type("Client", (), {"client_id": "s6BhdRkqt3"})()
        return basic == "s6BhdRkqt3:gX1fBat3bV"

    def client_authentication_required(self, request, *args, **kwargs):
        return True

    def validate_grant_type(self, client_id, grant_type, client, request, *args, **kwargs):
        return grant_type == "client_credentials"

    def validate_scopes(self, client_id, scopes, client, request, *args, **kwargs):
        self.scopes = set(scopes)
        return self.scopes <= {"grant_management_query", "grant_management_revoke", "mine"}

    def get_default_scopes(self, client_id, request, *args, **kwargs):
        return []

    def save_bearer_token(self, token, request, *args, **kwargs):
        self.live.add(token["access_token"])

    def validate_bearer_token(self, token, scopes, request):
        return token in self.live


class Bank:
    """oauthlib's authorization server in front of a grant."""

    def __init__(self, lasts=3600):
        self.authority = Authority()
        self.oauth = BackendApplicationServer(self.authority, token_expires_in=lasts)
        self.asked = []

    async def answer(self, request):
        body = (await request.read()).decode()
        self.asked.append(request.path)
        arguments = (str(request.url), request.method, body, dict(request.headers))
        if request.path == "/token":
            headers, text, status = self.oauth.create_token_response(*arguments)
            return web.Response(status=status, text=text, headers=headers)
        valid, _ = self.oauth.verify_request(*arguments, scopes=[])
        return web.Response(status=204 if valid else 401)


def stop(settings, bank, now=NOW, **endpoint):
    async def act(session, *, message, endpoint, now, total):
        return await grants.send(session, message=message, endpoint=endpoint, now=moment, total=total)

    moment = now
    return run(settings, bank, act, message(GRANT), path="/grants", **{**BOUGHT, **endpoint})


# The loopback port is another at each run, and so would be the key of a kept token.
@pytest.fixture
def one_address(monkeypatch):
    monkeypatch.setattr(bearer, "_key", lambda endpoint, scope: f"{endpoint.credential} {scope}")


def test_a_token_is_bought_once_and_kept_until_shortly_before_its_end(settings, one_address):
    bank = Bank()
    assert stop(settings, bank).verdict == SENT
    assert bank.authority.scopes == {"grant_management_query", "grant_management_revoke"}
    assert stop(settings, bank, now=NOW + 3569).verdict == SENT
    assert bank.asked == ["/token", "/grants/TSdqirmAxDa0_-DB_1bASQ", "/grants/TSdqirmAxDa0_-DB_1bASQ"]
    assert stop(settings, bank, now=NOW + 3570).verdict == SENT
    assert bank.asked.count("/token") == 2


def test_a_token_that_died_early_is_bought_again_once(settings, one_address):
    bank = Bank()
    stop(settings, bank)
    bank.authority.live.clear()
    assert stop(settings, bank).verdict == SENT
    assert bank.asked.count("/token") == 2
    bank.authority.validate_bearer_token = lambda *arguments: False
    outcome = stop(settings, bank)
    assert (outcome.verdict, outcome.status, bank.asked.count("/token")) == (KEY, 401, 3)


def test_a_changed_secret_is_another_token(settings):
    bank = Bank()
    assert stop(settings, bank).verdict == SENT
    outcome = stop(settings, bank, credential="wrong")
    assert (outcome.verdict, outcome.detail) == (KEY, "token: HTTP 401 invalid_client")
    key = bearer._key
    one, other = (bearer.Endpoint("", details={"token_address": "a"}, credential=c) for c in "ab")
    assert key(one, "s") != key(other, "s") != key(other, "t") and "a" * 9 not in key(one, "s")


def test_a_scope_of_theirs_is_asked_for(settings):
    bank = Bank()
    stop(settings, bank, details={**BOUGHT["details"], "scope": "mine"})
    assert bank.authority.scopes == {"mine"}
    outcome = stop(settings, bank, details={**BOUGHT["details"], "scope": "other"})
    assert (outcome.verdict, outcome.detail) == (REFUSED, "token: HTTP 400 invalid_scope")


def test_an_empty_token_address_is_none(settings):
    server = Server()
    assert stop(settings, server, details={"token_address": ""}).verdict == SENT
    assert server.asked[0].headers["Authorization"] == "Bearer gX1fBat3bV"


def test_a_short_token_is_used_and_not_kept(settings):
    assert stop(settings, Bank(lasts=30)).verdict == SENT
    assert not bearer._kept


def test_kept_tokens_are_bounded():
    for number in range(bearer.MOST_TOKENS + 10):
        bearer._keep(str(number), "t", NOW)
    assert len(bearer._kept) == bearer.MOST_TOKENS and "9" not in bearer._kept


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ((200, {"access_token": "x y", "token_type": "Bearer"}), RETRY),
        ((200, {"access_token": "x\ny", "token_type": "Bearer"}), RETRY),
        ((200, {"access_token": "", "token_type": "Bearer"}), RETRY),
        ((200, {"access_token": 5, "token_type": "Bearer"}), RETRY),
        ((200, {"access_token": "x" * 5000, "token_type": "Bearer"}), RETRY),
        ((200, {"access_token": "x", "token_type": "DPoP"}), RETRY),
        ((200, {"access_token": "x"}), RETRY),
        ((200, "<html>"), RETRY),
        ((202, ""), RETRY),
        ((302, "", {"Location": "http://169.254.169.254/"}), RETRY),
        ((400, {"error": "invalid_client"}), KEY),
        ((400, {"error": "unauthorized_client"}), KEY),
        ((400, {"error": "unsupported_grant_type"}), REFUSED),
        ((403, ""), REFUSED),
        ((429, "", {"Retry-After": "5"}), RETRY),
        ((500, ""), RETRY),
    ],
)
def test_without_a_token_nothing_is_ended(settings, answer, verdict):
    server = Server([answer])
    outcome = stop(settings, server)
    assert outcome.verdict == verdict and outcome.detail.startswith("token: ")
    assert outcome.retry_after == (5 if answer[0] == 429 else None)
    assert [asked.path for asked in server.asked] == ["/token"] and not bearer._kept


def test_a_token_address_may_not_lie_inside(settings):
    server = Server()
    outcome = stop(
        settings, server, details={**BOUGHT["details"], "token_address": "https://127.0.0.1/token"}
    )
    assert (outcome.verdict, server.asked) == ("blocked", [])


def test_a_repeated_grant_that_is_gone_is_read_back_before_it_is_believed(settings):
    many = [GRANT, Reference("grant", "b")]
    outcome = run(settings, Server([204, 404]), grants.send, message(*many), credential="t")
    assert (outcome.verdict, outcome.status) == (CHECK, 404)
    reading = run(settings, Server([404, (200, SHOWN)]), grants.read_back, message(*many), credential="t")
    assert (reading.says, len(reading.digest)) == (ACTIVE, 64)
