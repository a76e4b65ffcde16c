"""UK Open Banking: DELETE and GET of a consent, and a bank's signed event."""

import copy

import jwt
import pytest

from providers.wires import (
    ABSENT,
    ACTIVE,
    CHECK,
    KEY,
    REFUSED,
    SENT,
    STOPPED,
    UNKNOWN,
    BadInbound,
    Endpoint,
    Reference,
    uk,
)
from tests.providers.wires.asked import EC, JTI, JWKS, NOW, OTHER_RSA, RSA, Server, jwk, message, run

CONSENT = Reference("consent", "urn-alphabank-intent-88379")
BASE = "/open-banking/v3.1/aisp"
PATH = f"{BASE}/account-access-consents/urn-alphabank-intent-88379"


def test_a_consent_is_deleted_and_read_back(settings):
    """The resource's examples: 204, and a GET whose Data.Status says what became of it."""
    data = {
        "ConsentId": "urn-alphabank-intent-88379",
        "Status": "Authorised",
        "Permissions": ["ReadBalances"],
    }
    token = (200, {"access_token": "2YotnFZFEjr1zCsicMWpAA", "token_type": "Bearer", "expires_in": 3600})
    server = Server([token, 204, token, (200, {"Data": data, "Risk": {}})])
    endpoint = {
        "details": {"token_address": "{base}/token", "client_id": "c"},
        "credential": "s",
        "path": BASE,
    }
    outcome = run(settings, server, uk.send, message(CONSENT), **endpoint)
    reading = run(settings, server, uk.read_back, message(CONSENT), **endpoint)
    assert (outcome.verdict, reading.says, reading.detail) == (SENT, ACTIVE, "HTTP 200 Authorised")
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("POST", "/token"), ("DELETE", PATH), ("POST", "/token"), ("GET", PATH),
    ]  # fmt: skip
    assert server.asked[0].form == {"grant_type": "client_credentials", "scope": "accounts"}
    for asked in server.asked[1::2]:
        assert asked.headers["Authorization"] == "Bearer 2YotnFZFEjr1zCsicMWpAA"
        assert asked.headers["x-fapi-interaction-id"] == JTI


def not_found(code):
    return 400, {"Code": "400 BadRequest", "Message": "x", "Errors": [{"ErrorCode": code, "Message": "gone"}]}


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (204, SENT),
        (200, CHECK),
        (not_found("UK.OBIE.Resource.NotFound"), CHECK),
        (not_found("U011"), CHECK),
        (not_found("UK.OBIE.Field.Invalid"), REFUSED),
        ((400, {"Errors": "U011"}), REFUSED),
        ((400, {"Errors": [["U011"], {"ErrorCode": ["U011"]}, None]}), REFUSED),
        (404, CHECK),
        (410, CHECK),
        (401, KEY),
        (403, REFUSED),
    ],
)
def test_each_answer_to_a_delete(settings, answer, verdict):
    outcome = run(settings, Server([answer]), uk.send, message(CONSENT), credential="t")
    assert outcome.verdict == verdict and "gone" not in outcome.detail


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        *[((200, {"Data": {"Status": word}}), ACTIVE) for word in ("Authorised", "AwaitingAuthorisation", "AUTH", "AWAU")],
        *[((200, {"Data": {"Status": word}}), STOPPED) for word in ("Revoked", "Rejected", "Expired", "Consumed", "CANC", "RJCT", "EXPD")],
        ((200, {"Data": {"Status": "<script>"}}), UNKNOWN),
        ((200, {"Data": {"Status": ["Revoked"]}}), UNKNOWN),
        ((200, {"Data": [{"Status": "Revoked"}]}), UNKNOWN),
        ((200, {}), UNKNOWN),
        ((200, "Revoked"), UNKNOWN),
        ((201, {"Data": {"Status": "Revoked"}}), UNKNOWN),
        (not_found("UK.OBIE.Resource.NotFound"), ABSENT),
        (not_found("U011"), ABSENT),
        (not_found("UK.OBIE.Header.Invalid"), UNKNOWN),
        (404, ABSENT),
        (401, UNKNOWN),
        (403, UNKNOWN),
        (503, UNKNOWN),
    ],
)  # fmt: skip
def test_each_status_of_a_reading(settings, answer, says):
    reading = run(settings, Server([answer]), uk.read_back, message(CONSENT), credential="t")
    assert reading.says == says and "<" not in reading.detail and len(reading.digest) == 64


def test_what_is_missing_is_said(settings):
    server = Server()
    for act in (uk.send, uk.read_back):
        for given, endpoint in ((message(), {"credential": "t"}), (message(CONSENT), {})):
            answer = run(settings, server, act, given, **endpoint)
            assert answer.detail in {
                "the message names no consent",
                "no credential is stored for this channel",
            }
    assert not server.asked


# The bank's event: the example of the Event Notification API v3.1, "Consent Authorisation Revoked".

REVOKED = "urn:uk:org:openbanking:events:consent-authorization-revoked"
SUBJECT = {
    "subject_type": "http://openbanking.org.uk/rid_http://openbanking.org.uk/rty",
    "http://openbanking.org.uk/rid": "aac-1234-007",
    "http://openbanking.org.uk/rty": "account-access-consent",
    "http://openbanking.org.uk/rlk": [
        {
            "version": "v3.1",
            "link": "https://examplebank.com/api/open-banking/v3.1/aisp/account-access-consents/aac-1234-007",
        }
    ],
}
EXAMPLE = {
    "iss": "https://examplebank.com/",
    "iat": 1516239022,
    "jti": "b460a07c-4962-43d1-85ee-9dc10fbb8f6c",
    "sub": "https://examplebank.com/api/open-banking/v3.1/aisp/account-access-consents/aac-1234-007",
    "aud": "7umx5nTR33811QyQfi",
    "events": {"urn:uk:org:openbanking:events:resource-update": {"subject": SUBJECT}, REVOKED: {}},
    "txn": "dfc51628-3479-4b81-ad60-210b43d02306",
    "toe": 1516239022,
}
BANK = Endpoint(
    "https://examplebank.com/open-banking/v3.1/aisp",
    details={"client_id": "7umx5nTR33811QyQfi", "issuer": "https://examplebank.com/"},
    jwks=JWKS,
)


def signed(claims=EXAMPLE, key=RSA, alg="PS256", **header) -> str:
    """By PyJWT, so that the signer is not our own code."""
    return jwt.encode(claims, key, alg, {"kid": "r1", "typ": "JWT", **header})


def test_the_example_of_the_standard_is_understood():
    inbound = uk.verify_inbound(signed().encode(), endpoint=BANK, now=NOW)
    assert (inbound.jti, inbound.issuer, inbound.happened, inbound.identifier, inbound.at) == (
        "b460a07c-4962-43d1-85ee-9dc10fbb8f6c", "https://examplebank.com/", "ended", "aac-1234-007", 1516239022,
    )  # fmt: skip


@pytest.mark.parametrize("name", [REVOKED, "UK.OBIE.Consent-Authorization-Revoked", "UK.OBIE.Consent-Access-Revoked"])  # fmt: skip
@pytest.mark.parametrize("typ", ["JWT", "secevent+jwt", None])
def test_every_name_and_typ_of_the_event(name, typ):
    claims = {**EXAMPLE, "events": {name: {"reason": "customer", "subject": SUBJECT}}, "toe": None}
    inbound = uk.verify_inbound(signed(claims, typ=typ), endpoint=BANK, now=NOW)
    assert (inbound.identifier, inbound.reason, inbound.at) == ("aac-1234-007", "customer", None)


def changed(**claims):
    return {**copy.deepcopy(EXAMPLE), **claims}


@pytest.mark.parametrize("toe", [None, "1516239022", True, 0, -(10**300), 10**300, NOW + 11, [1]])
def test_a_moment_that_cannot_be_is_none(toe):
    assert uk.verify_inbound(signed(changed(toe=toe)), endpoint=BANK, now=NOW).at is None


def about(**subject):
    return {"events": {REVOKED: {"subject": {**SUBJECT, **subject}}}}


RID, RTY = "http://openbanking.org.uk/rid", "http://openbanking.org.uk/rty"


@pytest.mark.parametrize(
    ("reason", "token"),
    [
        ("alg", jwt.encode(EXAMPLE, "x" * 40, "HS256", {"kid": "r1"})),  # the standard's sample says HS256
        ("alg", jwt.encode(EXAMPLE, None, "none", {"kid": "r1"})),
        ("alg", signed(alg="RS256")),
        ("alg", signed(key=EC, alg="ES256", kid="e1")),
        ("key", signed(kid="e1")),
        ("kid", signed(kid="r2")),
        ("signature", signed(key=OTHER_RSA)),
        ("typ", signed(typ="at+jwt")),
        ("typ", signed(typ="deletion-evidence+jwt")),
        ("form", signed(jku="https://evil.example/jwks")),
        ("form", signed(jwk=jwk(OTHER_RSA, "r1"))),
        ("iss", signed(changed(iss="https://other.example/"))),
        ("iss", signed(changed(iss=""))),
        ("aud", signed(changed(aud="somebody"))),
        ("aud", signed(changed(aud=""))),
        ("iat", signed(changed(iat="1516239022"))),
        ("iat", signed(changed(iat=NOW + 11))),
        ("exp", signed(changed(exp=NOW))),
        ("form", signed(changed(jti=""))),
        ("form", signed(changed(jti=7))),
        ("event", signed(changed(events={}))),
        ("event", signed(changed(events=REVOKED))),
        ("event", signed(changed(events=[REVOKED]))),
        ("event", signed(changed(events=None))),
        ("event", signed(changed(events={REVOKED: None}))),
        ("event", signed(changed(events={REVOKED: {"subject": "aac-1234-007"}}))),
        ("event", signed(changed(**about(**{RTY: ["account-access-consent"]})))),
        ("event", signed(changed(**about(**{RTY: None})))),
        ("event", signed(changed(**about(**{RID: ""})))),
        ("event", signed(changed(**about(**{RID: ["a"]})))),
        ("event", signed(changed(**about(**{RID: "x" * 129})))),
        ("form", ""),
        ("form", b"\xff"),
        ("form", "a.b.c"),
    ],
)  # fmt: skip
def test_an_event_that_is_not_exactly_right_is_refused(reason, token):
    with pytest.raises(BadInbound) as refusal:
        uk.verify_inbound(token, endpoint=BANK, now=NOW)
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    "claims",
    [
        {"events": {"urn:uk:org:openbanking:events:resource-update": {"subject": SUBJECT}}},
        {"events": {"UK.OBIE.Account-Access-Consent-Linked-Account-Update": {"subject": SUBJECT}}},
        about(**{RTY: "domestic-vrp-consents"}),
    ],
)
def test_another_event_of_the_bank_is_heard_and_ends_nothing(claims):
    inbound = uk.verify_inbound(signed(changed(**claims)), endpoint=BANK, now=NOW)
    assert (inbound.happened, inbound.identifier, inbound.jti) == ("other", "", EXAMPLE["jti"])


def test_an_event_needs_an_issuer_and_keys_that_we_know():
    nobody = Endpoint(BANK.address, details={"client_id": "7umx5nTR33811QyQfi"}, jwks=JWKS)
    with pytest.raises(BadInbound, match="no issuer"):
        uk.verify_inbound(signed(changed(iss="")), endpoint=nobody, now=NOW)
    keyless = Endpoint(BANK.address, details=BANK.details)
    with pytest.raises(BadInbound) as refusal:
        uk.verify_inbound(signed(), endpoint=keyless, now=NOW)
    assert refusal.value.reason == "kid"
    token = signed(changed(aud="https://consent.example.kr"))
    assert uk.verify_inbound(token, endpoint=BANK, now=NOW, audience=["https://consent.example.kr"]).jti
