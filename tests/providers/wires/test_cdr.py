"""Australia's CDR in both directions, read and written by PyJWT."""

from urllib.parse import urlencode

import jwt
import pytest

from providers import signing
from providers.wires import CHECK, KEY, REFUSED, RETRY, SENT, BadInbound, Endpoint, Reference, cdr
from tests.providers.wires.asked import EC, JTI, JWKS, NOW, OTHER_RSA, RSA, Server, jwk, message, run

# The examples of the standard.
ARRANGEMENT = Reference("arrangement", "5a1bf696-ee03-408b-b315-97955415d1f0")
TO_HOLDER = {
    "details": {"party": "holder", "client_id": "s6BhdRkqt3", "audience": "https://data.holder.com.au"}
}
TO_RECIPIENT = {"details": {"party": "recipient", "client_id": "dataholderbrand-123"}}
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def read(compact: str, audience: str) -> dict:
    """By PyJWT, with the key we publish for PS256."""
    header = jwt.get_unverified_header(compact)
    (key,) = [key for key in signing.public_jwks()["keys"] if key["alg"] == "PS256"]
    assert header == {"alg": "PS256", "typ": "JWT", "kid": key["kid"]}
    options = {"verify_iat": False, "verify_exp": False}
    return jwt.decode(compact, jwt.PyJWK(key).key, ["PS256"], audience=audience, options=options)


def test_a_holder_is_told_with_a_client_assertion(settings):
    server = Server([204])
    outcome = run(settings, server, cdr.send, message(ARRANGEMENT), path="/arrangements/revoke", **TO_HOLDER)
    assert (outcome.verdict, outcome.status) == (SENT, 204)
    (asked,) = server.asked
    assert (asked.method, asked.path) == ("POST", "/arrangements/revoke")
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert asked.headers["x-fapi-interaction-id"] == JTI and "Authorization" not in asked.headers
    form = asked.form
    claims = read(form.pop("client_assertion"), "https://data.holder.com.au")
    assert form == {
        "client_id": "s6BhdRkqt3",
        "client_assertion_type": TYPE,
        "cdr_arrangement_id": "5a1bf696-ee03-408b-b315-97955415d1f0",
    }
    assert claims.pop("jti")
    assert claims == {
        "iss": "s6BhdRkqt3", "sub": "s6BhdRkqt3", "aud": "https://data.holder.com.au", "iat": NOW, "exp": NOW + 300,
    }  # fmt: skip


def test_a_recipient_is_told_with_a_self_signed_token(settings):
    server = Server([204])
    outcome = run(
        settings, server, cdr.send, message(ARRANGEMENT), path="/arrangements/revoke", **TO_RECIPIENT
    )
    assert outcome.verdict == SENT
    (asked,) = server.asked
    scheme, _, token = asked.headers["Authorization"].partition(" ")
    assert scheme == "Bearer" and asked.form.keys() == {"cdr_arrangement_jwt"}
    where = f"{settings.SANDBOX_URL}/arrangements/revoke"  # the resource path
    bearer, named = read(token, where), read(asked.form["cdr_arrangement_jwt"], where)
    assert named.pop("cdr_arrangement_id") == ARRANGEMENT.identifier
    assert bearer.pop("jti") != named.pop("jti")
    assert bearer == named and bearer.keys() == {"iss", "sub", "aud", "iat", "exp"}
    assert bearer["iss"] == bearer["sub"] == "dataholderbrand-123"


@pytest.mark.parametrize("endpoint", [TO_HOLDER, TO_RECIPIENT])
def test_each_attempt_is_signed_anew(settings, endpoint):
    """ "These tokens MUST only be used once": a retry with the old jti would be refused."""
    server = Server([503, 204])
    for _ in range(2):
        run(settings, server, cdr.send, message(ARRANGEMENT), **endpoint)
    first, second = ({v for v in (*a.form.values(), a.headers.get("Authorization")) if v and "ey" in v} for a in server.asked)  # fmt: skip
    assert first and second and not first & second


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (204, SENT),
        (200, CHECK),
        ((422, {"errors": [{"code": "urn:au-cds:error:cds-all:Authorisation/InvalidArrangement"}]}), CHECK),
        ((400, {"error": "invalid_client"}), KEY),
        ((401, {"error": "invalid_client"}), KEY),
        ((400, {"errors": [{"code": "urn:au-cds:error:cds-all:Field/Missing"}]}), REFUSED),
        (403, REFUSED),
        (503, RETRY),
    ],
)
def test_each_answer(settings, answer, verdict):
    for endpoint in (TO_HOLDER, TO_RECIPIENT):
        assert run(settings, Server([answer]), cdr.send, message(ARRANGEMENT), **endpoint).verdict == verdict


@pytest.mark.parametrize(
    ("references", "details", "missing"),
    [
        ([], TO_HOLDER["details"], "the message names no arrangement"),
        ([ARRANGEMENT], {"party": "holder"}, "no client_id is stored for this channel"),
        ([ARRANGEMENT], {"client_id": "a"}, "no party is stored for this channel"),
        ([ARRANGEMENT], {"client_id": "a", "party": "other"}, "no party is stored for this channel"),
    ],
)
def test_what_is_missing_is_said(settings, references, details, missing):
    server = Server()
    outcome = run(settings, server, cdr.send, message(*references), details=details)
    assert (outcome.verdict, outcome.detail, server.asked) == (REFUSED, missing, [])


def test_it_can_be_neither_listed_nor_read_back():
    assert not hasattr(cdr, "list_remote") and not hasattr(cdr, "read_back")


# Inbound. The claims are the standard's example, at another moment.

CALLED, OURS = "https://adr.example.com/arrangements/revoke", "https://adr.example.com"
CLAIMS = {
    "iss": "dataholderbrand-123",
    "sub": "dataholderbrand-123",
    "aud": CALLED,
    "iat": NOW,
    "exp": NOW + 300,
    "jti": "dba86502-7cf5-4719-9638-c5339a0ddb06",
}
THEM = Endpoint("https://dh.example.com", details={"issuer": "dataholderbrand-123"}, jwks=JWKS)


def signed(key=RSA, alg="PS256", header=None, drop=(), **claims) -> str:
    """By PyJWT, so that the signer is not our own code."""
    body = {name: value for name, value in {**CLAIMS, **claims}.items() if name not in drop}
    return jwt.encode(body, key, alg, {"kid": "r1", "typ": "JWT", **(header or {})})


def named(**more) -> str:
    return signed(**{"jti": "arrangement-1", "cdr_arrangement_id": ARRANGEMENT.identifier, **more})


def from_holder(token=None, arrangement=None, **form):
    fields = {"cdr_arrangement_jwt": named() if arrangement is None else arrangement, **form}
    headers = {"authorization": f"Bearer {signed() if token is None else token}"}
    return verify(headers, urlencode(fields).encode())


def from_recipient(assertion=None, **form):
    fields = {
        "client_id": "dataholderbrand-123",
        "client_assertion_type": TYPE,
        "client_assertion": signed() if assertion is None else assertion,
        "cdr_arrangement_id": ARRANGEMENT.identifier,
        **form,
    }
    return verify(
        {}, urlencode({name: value for name, value in fields.items() if value is not None}).encode()
    )


def verify(headers, body, endpoint=THEM):
    return cdr.verify_inbound(headers, body, endpoint=endpoint, audience=[CALLED, OURS], now=NOW)


def test_a_holder_tells_us():
    inbound = from_holder()
    assert (inbound.jti, inbound.issuer, inbound.happened, inbound.identifier, inbound.at) == (
        "arrangement-1", "dataholderbrand-123", "ended", ARRANGEMENT.identifier, NOW,
    )  # fmt: skip


def test_a_recipient_tells_us():
    inbound = from_recipient()
    assert (inbound.jti, inbound.identifier) == (CLAIMS["jti"], ARRANGEMENT.identifier)
    assert from_recipient(client_id=None).issuer == "dataholderbrand-123"  # RFC 7521 §4.2: optional


@pytest.mark.parametrize(
    "change",
    [{"aud": OURS}, {"aud": ["https://other.example", CALLED]}, {"drop": ("iat",)}, {"header": {"typ": None}},
     {"key": EC, "alg": "ES256", "header": {"kid": "e1"}}],
)  # fmt: skip
def test_what_the_standard_leaves_open_is_accepted(change):
    assert from_holder(signed(**change), named(**change)).identifier == ARRANGEMENT.identifier
    assert from_recipient(signed(**change)).identifier == ARRANGEMENT.identifier


@pytest.mark.parametrize("iat", [0, -(10**300)])
def test_a_moment_that_cannot_be_is_none(iat):
    assert from_recipient(signed(iat=iat)).at is None


HS = jwt.encode(CLAIMS, "x" * 40, "HS256", {"kid": "r1"})  # the standard's sample header
NONE = jwt.encode(CLAIMS, None, "none", {"kid": "r1"})
WRONG = [
    ("alg", HS),
    ("alg", NONE),
    ("alg", signed(alg="RS256")),
    ("key", signed(header={"kid": "e1"})),
    ("key", signed(key=EC, alg="ES256")),
    ("kid", signed(header={"kid": "r9"})),
    ("signature", signed(key=OTHER_RSA)),
    ("typ", signed(header={"typ": "secevent+jwt"})),
    ("typ", signed(header={"typ": "deletion-evidence+jwt"})),
    ("form", signed(header={"jku": "https://evil.example"})),
    ("form", signed(header={"jwk": jwk(OTHER_RSA, "r1")})),
    ("form", signed(header={"x5c": ["AA"]})),
    ("iss", signed(iss="brand-2", sub="brand-2")),
    ("iss", signed(sub="brand-2")),
    ("iss", signed(drop=("sub",))),
    ("aud", signed(aud="https://adr.example.com/other")),
    ("aud", signed(drop=("aud",))),
    ("exp", signed(drop=("exp",))),
    ("exp", signed(exp=NOW)),
    ("exp", signed(exp=NOW + 3601)),
    ("iat", signed(iat=NOW + 11)),
    ("form", signed(drop=("jti",))),
    ("form", signed(jti="")),
    ("form", signed(jti=["a"])),
    ("form", "a.b.c"),
]


@pytest.mark.parametrize(("reason", "token"), WRONG)
def test_a_token_that_is_not_exactly_right_is_refused(reason, token):
    for act in (
        lambda: from_holder(token),
        lambda: from_holder(arrangement=token),
        lambda: from_recipient(token),
    ):
        with pytest.raises(BadInbound) as refusal:
            act()
        assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        ({}, b"\xff=%ff"),
        ({}, b"a=%FF"),
        ({}, b"no form at all"),
        ({}, b"&".join(b"a%d=1" % n for n in range(30))),
        ({}, b"a=" + b"x" * 70_000),
        ({}, urlencode({"cdr_arrangement_id": ARRANGEMENT.identifier}).encode()),
        ({}, urlencode({"cdr_arrangement_jwt": named()}).encode()),
        ({"Authorization": "Basic x"}, urlencode({"cdr_arrangement_jwt": named()}).encode()),
        ({"Authorization": "Bearer"}, urlencode({"cdr_arrangement_jwt": named()}).encode()),
        (
            {"Authorization": f"Bearer {signed()}"},
            urlencode([("cdr_arrangement_jwt", named()), ("cdr_arrangement_jwt", named())]).encode(),
        ),
    ],
)
def test_a_form_that_is_not_one_is_refused(headers, body):
    with pytest.raises(BadInbound) as refusal:
        verify(headers, body)
    assert refusal.value.reason == "form"


@pytest.mark.parametrize(
    "act",
    [
        lambda: from_holder(arrangement=signed()),
        lambda: from_holder(arrangement=named(cdr_arrangement_id="")),
        lambda: from_holder(arrangement=named(cdr_arrangement_id=["a"])),
        lambda: from_holder(arrangement=named(cdr_arrangement_id="x" * 257)),
        lambda: from_holder(client_assertion=signed(), client_assertion_type=TYPE),
        lambda: from_recipient(cdr_arrangement_id=None),
        lambda: from_recipient(client_assertion_type="other"),
        lambda: from_recipient(client_assertion_type=None),
        lambda: from_recipient(client_id="brand-2"),
    ],
)
def test_what_names_nothing_or_somebody_else_is_refused(act):
    with pytest.raises(BadInbound) as refusal:
        act()
    assert refusal.value.reason in {"form", "iss"}


def test_nobody_is_known_without_an_issuer():
    nobody = Endpoint("https://dh.example.com", jwks=JWKS)
    headers = {"Authorization": f"Bearer {signed(iss='', sub='')}"}
    with pytest.raises(BadInbound, match="no issuer"):
        verify(headers, urlencode({"cdr_arrangement_jwt": named(iss="", sub="")}).encode(), nobody)
