"""RFC 8935: the SET itself, and 202."""

import jwt
import pytest

from providers import signing
from providers.wires import KEY, REFUSED, RETRY, SENT, push
from tests.providers.wires.asked import JTI, NOW, Server, message, run

STATE = "VGhpcyBpcyBhbiBleGFtcGxlIHN0YXRlIHZhbHVlLgo="  # the example of SSF 1.0 §8.1.4.1


def read(compact: str, audience: str) -> dict:
    """By PyJWT, with the published key of the token's kid."""
    header = jwt.get_unverified_header(compact)
    assert header["typ"] == "secevent+jwt" and header["alg"] == "ES256"
    (key,) = [key for key in signing.public_jwks()["keys"] if key["kid"] == header["kid"]]
    return jwt.decode(
        compact, jwt.PyJWK(key).key, ["ES256"], audience=audience, options={"verify_iat": False}
    )


def test_the_stored_set_is_the_body(settings):
    compact = signing.sign_set({"iss": "https://consent.example.kr", "aud": "md0001", "jti": JTI})
    server = Server([202])
    outcome = run(settings, server, push.send, message(compact=compact), path="/sets", credential="tok.en-1")
    assert (outcome.verdict, outcome.status, outcome.detail) == (SENT, 202, "HTTP 202")
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/sets", compact.encode())  # §2.1
    assert read(asked.body.decode(), "md0001")["jti"] == JTI
    assert asked.headers["Content-Type"] == "application/secevent+jwt"
    assert asked.headers["Accept"] == "application/json"
    assert asked.headers["Authorization"] == "Bearer tok.en-1"


def test_without_a_credential_nothing_is_claimed(settings):
    server = Server([202])
    assert run(settings, server, push.send, message()).verdict == SENT
    assert "Authorization" not in server.asked[0].headers


@pytest.mark.parametrize("status", [200, 201, 204])
def test_another_2xx_counts_with_a_word_about_it(settings, status):
    outcome = run(settings, Server([status]), push.send, message())
    assert (outcome.verdict, outcome.detail) == (SENT, f"HTTP {status}, not 202")


@pytest.mark.parametrize(
    ("err", "verdict"),
    [
        ("invalid_request", REFUSED),
        ("invalid_key", KEY),  # Figure 3 of §2.3
        ("invalid_issuer", REFUSED),
        ("invalid_audience", REFUSED),
        ("authentication_failed", KEY),
        ("access_denied", REFUSED),
        ("setData", REFUSED),  # a word of older drafts
    ],
)
def test_each_error_code_has_its_meaning(settings, err, verdict):
    answer = {"err": err, "description": "Key ID 12345 has been revoked."}
    outcome = run(
        settings, Server([(400, answer, {"Content-Language": "en"})]), push.send, message(), credential="tok"
    )
    assert outcome.verdict == verdict and "12345" not in outcome.detail
    assert outcome.detail == ("HTTP 400" if err == "setData" else f"HTTP 400 {err}")


def test_a_busy_receiver_says_when(settings):
    outcome = run(settings, Server([(503, "", {"Retry-After": "7"})]), push.send, message())
    assert (outcome.verdict, outcome.retry_after) == (RETRY, 7)


def challenge(settings, server, **endpoint):
    async def act(session, *, message, endpoint, now, total):
        return await push.challenge(
            session, jti=message.jti, state=STATE, endpoint=endpoint, now=now, total=total
        )

    return run(settings, server, act, message(), path="/sets", **endpoint)


def test_a_challenge_is_a_verification_event(settings):
    server = Server([202])
    outcome = challenge(
        settings, server, details={"audience": "receiver.example.com", "stream_id": "f67e39a0"}
    )
    assert outcome.verdict == SENT
    assert read(server.asked[0].body.decode(), "receiver.example.com") == {
        "iss": "https://consent.example.kr",
        "aud": "receiver.example.com",
        "iat": NOW,
        "jti": JTI,
        "sub_id": {"format": "opaque", "id": "f67e39a0"},
        "events": {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": STATE}},
    }


def test_a_challenge_without_settings_is_for_the_address(settings):
    server = Server([202])
    challenge(settings, server)
    assert read(server.asked[0].body.decode(), f"{settings.SANDBOX_URL}/sets")["jti"] == JTI


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (200, REFUSED),  # a page that answers everything with 200 has verified nothing
        (204, REFUSED),
        ((400, {"err": "invalid_key"}), KEY),
        (404, REFUSED),
        (500, RETRY),
    ],
)
def test_a_challenge_wants_202(settings, answer, verdict):
    outcome = challenge(settings, Server([answer]))
    assert outcome.verdict == verdict and outcome.detail
