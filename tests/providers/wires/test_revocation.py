"""RFC 7009 and RFC 7662, against the server side of oauthlib."""

import json
from urllib.parse import unquote_plus

import pytest
from aiohttp import web
from oauthlib.oauth2 import IntrospectEndpoint, RequestValidator, RevocationEndpoint

from providers.wires import (
    ACTIVE,
    CHECK,
    KEY,
    REFUSED,
    RETRY,
    STOPPED,
    UNKNOWN,
    Reference,
    revocation,
)
from tests.providers.wires.asked import Asked, Server, message, run

# The example of RFC 7009 §2.1; client and secret are those of RFC 6749 §2.3.1.
TOKEN = Reference("token", "45ghiukldjahdnhzdauz")
CLIENT, SECRET = "s6BhdRkqt3", "gX1fBat3bV"
EXAMPLE = {"details": {"client_id": CLIENT}, "credential": SECRET}


class Authority(RequestValidator):
    """Tokens of one client, in a set."""

    def __init__(self, live: set[str], client=CLIENT, secret=SECRET):
        self.live, self.known = live, (client, secret)

    def client_authentication_required(self, request, *args, **kwargs):
        return True

    def authenticate_client(self, request, *args, **kwargs):
        basic = Asked("", "", dict(request.headers), b"").basic
        return tuple(unquote_plus(part) for part in basic.split(":")) == self.known

    def revoke_token(self, token, token_type_hint, request, *args, **kwargs):
        self.live.discard(token)

    def introspect_token(self, token, token_type_hint, request, *args, **kwargs):
        return {"scope": "bank.list"} if token in self.live else None


class Provider:
    """An authorization server by oauthlib: /revoke and /introspect."""

    def __init__(self, *live: str, types=None, **client):
        self.authority = Authority(set(live), **client)
        self.revoke = RevocationEndpoint(self.authority, supported_token_types=types)
        self.introspect = IntrospectEndpoint(self.authority)
        self.asked = []

    async def answer(self, request):
        body = (await request.read()).decode()
        self.asked.append((request.path, body))
        arguments = (str(request.url), "POST", body, dict(request.headers))
        if request.path == "/revoke":
            headers, text, status = self.revoke.create_revocation_response(*arguments)
        else:
            headers, text, status = self.introspect.create_introspect_response(*arguments)
        return web.Response(status=status, text=text or "", headers=headers)


def test_the_request_of_the_standard_byte_for_byte(settings):
    server = Server([200])
    outcome = run(settings, server, revocation.send, message(TOKEN), path="/revoke", **EXAMPLE)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/revoke")
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert asked.headers["Authorization"] == "Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW"
    assert asked.body == b"token=45ghiukldjahdnhzdauz&token_type_hint=refresh_token"
    assert (outcome.verdict, outcome.status) == (CHECK, 200) and len(outcome.digest) == 64


def test_a_token_is_revoked_and_read_back(settings):
    provider = Provider(TOKEN.identifier, "other")
    endpoint = {**EXAMPLE, "details": {"client_id": CLIENT, "introspect": "{base}/introspect"}}

    def act(function):
        return run(settings, provider, function, message(TOKEN), path="/revoke", **endpoint)

    assert act(revocation.read_back).says == ACTIVE
    assert act(revocation.send).verdict == CHECK
    assert provider.authority.live == {"other"}
    stopped = act(revocation.read_back)
    assert (stopped.says, stopped.status, len(stopped.digest)) == (STOPPED, 200, 64)


def test_an_unknown_token_is_answered_like_a_known_one(settings):
    """§2.2: which is why 200 proves so little."""
    assert (
        run(settings, Provider(), revocation.send, message(TOKEN), path="/revoke", **EXAMPLE).verdict == CHECK
    )


def test_a_secret_with_foreign_characters_arrives_whole(settings):
    provider = Provider("t", client="a:b%", secret="p +/&=ü한")
    endpoint = {"details": {"client_id": "a:b%"}, "credential": "p +/&=ü한"}
    run(settings, provider, revocation.send, message(Reference("token", "t")), path="/revoke", **endpoint)
    assert provider.authority.live == set()


def test_the_refresh_token_goes_first_and_each_once(settings):
    provider = Provider("a", "b", "c")
    references = [Reference("access_token", "a"), Reference("token", "b"), Reference("arrangement", "x")]
    outcome = run(
        settings, provider, revocation.send, message(*references, references[1], Reference("token", "c")),
        path="/revoke", **EXAMPLE,
    )  # fmt: skip
    assert outcome.verdict == CHECK and provider.authority.live == set()
    assert [body for _, body in provider.asked] == [
        "token=b&token_type_hint=refresh_token",
        "token=c&token_type_hint=refresh_token",
        "token=a&token_type_hint=access_token",
    ]


def test_a_type_they_cannot_revoke_is_for_a_person(settings):
    """§2.2.1, as oauthlib says it."""
    outcome = run(
        settings, Provider("t", types=["access_token"]), revocation.send, message(TOKEN), path="/revoke", **EXAMPLE
    )  # fmt: skip
    assert (outcome.verdict, outcome.detail) == (REFUSED, "HTTP 400 unsupported_token_type")


def test_a_wrong_secret_waits_for_a_change(settings):
    outcome = run(
        settings, Provider("t"), revocation.send, message(TOKEN), path="/revoke",
        details={"client_id": CLIENT}, credential="wrong",
    )  # fmt: skip
    assert (outcome.verdict, outcome.detail) == (KEY, "HTTP 401 invalid_client")


def test_the_worst_answer_is_that_of_the_message(settings):
    many = [Reference("token", name) for name in "abc"]
    server = Server([200, (400, {"error": "unsupported_token_type"}), 200])
    assert run(settings, server, revocation.send, message(*many), **EXAMPLE).verdict == REFUSED
    assert len(server.asked) == 3
    server = Server([200, (503, "", {"Retry-After": "9"}), 200])
    outcome = run(settings, server, revocation.send, message(*many), **EXAMPLE)
    assert (outcome.verdict, outcome.retry_after, len(server.asked)) == (RETRY, 9, 2)  # §2.2.1


@pytest.mark.parametrize(
    ("references", "endpoint", "missing"),
    [
        ([], EXAMPLE, "the message names no token"),
        ([Reference("grant", "g")], EXAMPLE, "the message names no token"),
        ([TOKEN], {**EXAMPLE, "details": {}}, "no client_id is stored for this channel"),
        ([TOKEN], {**EXAMPLE, "credential": ""}, "no credential is stored for this channel"),
    ],
)
def test_what_is_missing_is_said_and_nothing_sent(settings, references, endpoint, missing):
    server = Server()
    outcome = run(settings, server, revocation.send, message(*references), **endpoint)
    assert (outcome.verdict, outcome.detail, server.asked) == (REFUSED, missing, [])
    endpoint = {**endpoint, "details": {**endpoint["details"], "introspect": "{base}/i"}}
    reading = run(settings, server, revocation.read_back, message(*references), **endpoint)
    assert (reading.says, reading.detail, server.asked) == (UNKNOWN, missing, [])


def test_without_introspection_nothing_is_known(settings):
    reading = run(settings, Server(), revocation.read_back, message(TOKEN), **EXAMPLE)
    assert (reading.says, reading.detail) == (UNKNOWN, "no introspection address is stored")


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ([(200, {"active": False})], STOPPED),  # RFC 7662 §2.2
        ([(200, {"active": True, "username": "x"})], ACTIVE),
        ([(200, {"active": "false"})], UNKNOWN),
        ([(200, {"active": None})], UNKNOWN),
        ([(200, {"active": 0})], UNKNOWN),
        ([(200, {"active": 1})], UNKNOWN),
        ([(200, {})], UNKNOWN),
        ([(200, [False])], UNKNOWN),
        ([(200, '{"active":false,"active":true}')], UNKNOWN),
        ([(200, "<html>")], UNKNOWN),
        ([(401, {"active": False})], UNKNOWN),
        ([(404, "")], UNKNOWN),
        ([(500, "")], UNKNOWN),
        ([(200, {"active": False}), (200, {"active": True})], ACTIVE),
        ([(200, {"active": False}), 500], UNKNOWN),
        ([(200, {"active": False}), (200, {"active": False})], STOPPED),
    ],
)
def test_only_a_plain_answer_is_believed(settings, answers, says):
    references = [Reference("token", name) for name in "ab"[: len(answers)]]
    endpoint = {**EXAMPLE, "details": {"client_id": CLIENT, "introspect": "{base}/i"}}
    reading = run(settings, Server(answers), revocation.read_back, message(*references), **endpoint)
    assert reading.says == says and len(reading.digest) == 64


def test_no_secret_is_in_what_is_kept(settings):
    outcome = run(settings, Server([(400, {"error": TOKEN.identifier})]), revocation.send, message(TOKEN), **EXAMPLE)  # fmt: skip
    assert not {TOKEN.identifier, SECRET} & set(repr(outcome).replace("'", " ").split())
    assert TOKEN.identifier not in repr(message(TOKEN)) and json.dumps(outcome.detail) == '"HTTP 400"'
