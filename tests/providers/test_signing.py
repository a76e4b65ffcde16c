"""A signature is good only for what, whom and when it was made."""

import base64
import json
import stat
import subprocess
import sys
from datetime import UTC, datetime

import jwt
import pytest
import standardwebhooks
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from providers import signing, vault

NOW = 1_795_317_001
CLAIMS = {"iss": "md0001", "aud": "https://consent.example.kr", "iat": NOW, "jti": "e-1"}
RULES = {
    "typ": signing.EVIDENCE_TYP,
    "issuer": "md0001",
    "audience": "https://consent.example.kr",
    "now": NOW,
}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


EC, OTHER_EC = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)


def public(key, **extra) -> dict:
    kind = {ec.EllipticCurvePrivateKey: "EC", rsa.RSAPrivateKey: "RSA"}
    kty = next((kty for cls, kty in kind.items() if isinstance(key, cls)), "OKP")
    return {**JWKRegistry.import_key(pem(key), kty).as_dict(private=False), "kid": "k1", **extra}


def token(claims=CLAIMS, key=EC, alg="ES256", **header) -> str:
    """A token by PyJWT, so that the signer is not our own code."""
    return jwt.encode(claims, key, alg, {"kid": "k1", "typ": signing.EVIDENCE_TYP, **header})


def signed_raw(header: bytes, payload: bytes) -> str:
    """ES256 over bytes that no JSON library would write."""
    content = f"{b64(header)}.{b64(payload)}"
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(content.encode(), EC)
    return f"{content}.{b64(signature)}"


HEADER = json.dumps({"alg": "ES256", "kid": "k1", "typ": signing.EVIDENCE_TYP}).encode()
JWKS = {"keys": [public(EC)]}


def test_keys_are_private_files_made_once(keys):
    first = signing.sign_set({"iss": "a"})
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in keys.iterdir()}
    assert files == {"set.pem": 0o600}
    assert jwt.get_unverified_header(first)["kid"] == jwt.get_unverified_header(signing.sign_set({}))["kid"]


def test_processes_that_start_at_once_agree_on_a_key(keys):
    program = (
        "import sys; from django.conf import settings; settings.configure(PORTAL_KEYS_DIR=sys.argv[1]);"
        "from providers import signing; print(signing.pseudonym('a', 'b'), signing.webhook_public_key())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, keys], stdout=subprocess.PIPE) for _ in range(4)
    ]
    said = {process.communicate(timeout=60)[0] for process in started}
    assert len(said) == 1 and said != {b""}
    assert sorted(path.name for path in keys.iterdir()) == ["subject.key", "webhook.pem"]


def test_a_set_reads_the_same_to_pyjwt():
    compact = signing.sign_set({"iss": "https://consent.example.kr", "aud": "md0001", "이름": "값"})
    key = next(
        k for k in signing.public_jwks()["keys"] if k["kid"] == jwt.get_unverified_header(compact)["kid"]
    )
    assert jwt.get_unverified_header(compact) == {"alg": "ES256", "kid": key["kid"], "typ": "secevent+jwt"}
    read = jwt.decode(compact, jwt.PyJWK(key).key, ["ES256"], audience="md0001")
    assert read["이름"] == "값"


def test_receipts_have_a_key_of_their_own():
    a, b = (
        jwt.get_unverified_header(sign({"iss": "x"})) for sign in (signing.sign_set, signing.sign_receipt)
    )
    assert a["kid"] != b["kid"] and b["typ"] == "consent-receipt+jwt"
    paper = jwt.get_unverified_header(signing.sign_certificate({"iss": "x"}))
    assert paper["kid"] == b["kid"] and paper["typ"] == "ending-certificate+jwt"
    published = [k for k in signing.public_jwks()["keys"] if k["alg"] == "ES256"]
    assert {k["kid"] for k in published} == {a["kid"], b["kid"]}
    assert all(set(k) == {"kty", "crv", "x", "y", "kid", "use", "alg"} for k in published)


def test_the_same_receipt_is_the_same_bytes_and_reads_to_pyjwt():
    claims = {"iss": "https://consent.example.kr", "이름": "값", "sd": ["x"] * 30}
    compact = signing.sign_receipt(claims)
    assert compact == signing.sign_receipt(dict(reversed(claims.items())))
    assert compact.split(".")[:2] != signing.sign_receipt(claims | {"sd": []}).split(".")[:2]
    key = next(
        k for k in signing.public_jwks()["keys"] if k["kid"] == jwt.get_unverified_header(compact)["kid"]
    )
    assert jwt.decode(compact, jwt.PyJWK(key).key, ["ES256"]) == claims


def test_what_the_cdr_wants_is_ps256_with_an_rsa_key_of_its_own(keys):
    compact = signing.sign_cdr({"iss": "brand-1", "aud": "https://holder.example", "exp": NOW + 300})
    (key,) = [k for k in signing.public_jwks()["keys"] if k["alg"] == "PS256"]
    assert set(key) == {"kty", "n", "e", "kid", "use", "alg"} and (keys / "cdr.pem").exists()
    assert jwt.get_unverified_header(compact) == {"alg": "PS256", "kid": key["kid"], "typ": "JWT"}
    with time_machine.travel(datetime.fromtimestamp(NOW, UTC)):
        read = jwt.decode(compact, jwt.PyJWK(key).key, ["PS256"], audience="https://holder.example")
    assert read["iss"] == "brand-1"


def test_a_retired_key_stays_published(keys):
    old = jwt.get_unverified_header(signing.sign_set({}))["kid"]
    (keys / "set.pem").rename(keys / "set.2026-11.pem")
    vault._key_file.cache_clear()
    new = jwt.get_unverified_header(signing.sign_set({}))["kid"]
    assert new != old and {old, new} <= {k["kid"] for k in signing.public_jwks()["keys"]}


def test_our_set_verifies_with_the_vector(vector):
    jose = vector("jose.json")
    for name in ("our_set", "our_set_es256"):
        claims = signing.verify_jws(
            jose[name]["compact"],
            jwks={"keys": [jose[name]["jwk"]]},
            typ="secevent+jwt",
            issuer="https://consent.example.kr",
            audience="https://md0001.example/sets",
            now=NOW,
        )
        assert claims == jose["our_set"]["claims"]
    assert ECKey.import_key(jose["our_set_es256"]["jwk"]).thumbprint() == jose["our_set_es256"]["jwk"]["kid"]
    assert OKPKey.import_key(jose["rfc8037_a4"]["jwk"]).thumbprint() == jose["rfc8037_a4"]["thumbprint"]
    assert RSAKey.import_key(jose["rfc7638"]["jwk"]).thumbprint() == jose["rfc7638"]["thumbprint"]


@pytest.mark.parametrize(
    ("key", "alg", "jwk_alg"),
    [
        (EC, "ES256", None),
        (EC, "ES256", "ES256"),
        (RSA, "PS256", None),
        (RSA, "RS256", "RS256"),
        (ED, "EdDSA", None),
        (ED, "EdDSA", "Ed25519"),
    ],
)
def test_each_allowed_algorithm_is_read(key, alg, jwk_alg):
    jwks = {"keys": [public(key, **({"alg": jwk_alg} if jwk_alg else {}))]}
    for compact in (token(key=key, alg=alg), token(key=key, alg=alg).encode()):
        assert signing.verify_jws(compact, jwks=jwks, **RULES) == CLAIMS


def without(name):
    return {key: value for key, value in CLAIMS.items() if key != name}


HS = jwt.encode(CLAIMS, "x" * 40, "HS256", {"kid": "k1", "typ": signing.EVIDENCE_TYP})
NONE = jwt.encode(CLAIMS, None, "none", {"kid": "k1", "typ": signing.EVIDENCE_TYP})
GOOD = token()
SPARE_BITS = GOOD[:-1] + {"A": "B", "Q": "R", "g": "h", "w": "x"}[GOOD[-1]]


@pytest.mark.parametrize(
    ("reason", "compact"),
    [
        ("alg", HS),
        ("alg", NONE),
        ("alg", token(key=ec.generate_private_key(ec.SECP384R1()), alg="ES384")),
        ("signature", token(key=OTHER_EC)),
        ("signature", GOOD[: GOOD.rindex(".") + 1]),
        ("key", token(key=RSA, alg="RS256")),
        ("key", token(key=ED, alg="EdDSA")),
        ("kid", token(kid="k2")),
        ("kid", signed_raw(b'{"alg":"ES256","typ":"deletion-evidence+jwt"}', b"{}")),
        ("kid", signed_raw(b'{"alg":"ES256","kid":["k1"],"typ":"deletion-evidence+jwt"}', b"{}")),
        ("typ", token(typ="JWT")),
        ("typ", token(typ="secevent+jwt")),
        ("form", token(jku="https://evil.example/jwks")),
        ("form", token(x5u="https://evil.example/cert")),
        ("form", token(jwk=public(EC))),
        ("form", token(crit=["exp"])),
        ("iss", token({**CLAIMS, "iss": "md0002"})),
        ("iss", token(without("iss"))),
        ("aud", token({**CLAIMS, "aud": "https://other.example"})),
        ("aud", token(without("aud"))),
        ("aud", token({**CLAIMS, "aud": ["https://other.example"]})),
        ("iat", token(without("iat"))),
        ("iat", token({**CLAIMS, "iat": NOW + 11})),
        ("iat", signed_raw(HEADER, json.dumps({**CLAIMS, "iat": "soon"}).encode())),
        ("iat", token({**CLAIMS, "iat": True})),
        ("exp", token({**CLAIMS, "exp": NOW})),
        ("nbf", token({**CLAIMS, "nbf": NOW + 60})),
        ("form", signed_raw(HEADER, b'{"iss":"md0001","iss":"md0002"}')),
        ("form", signed_raw(HEADER[:-1] + b',"alg":"ES256"}', b"{}")),
        ("form", signed_raw(HEADER, b'{"iat":NaN}')),
        ("form", signed_raw(HEADER, b'{"iat":1e999}')),
        ("form", signed_raw(HEADER, b'{"iss":"\\u0000"}')),
        ("form", signed_raw(HEADER, b'{"iss":"\\ud800"}')),
        ("form", signed_raw(HEADER, b"[" * 9_000)),
        ("form", signed_raw(HEADER, b'{"iat":' + b"9" * 9_000 + b"}")),
        ("form", signed_raw(HEADER, b"[]")),
        ("form", signed_raw(HEADER, b"\xff")),
        ("form", token({**CLAIMS, "x": "y" * 20_000})),
        ("form", SPARE_BITS),
        ("form", GOOD + "="),
        ("form", GOOD + "\n"),
        ("form", GOOD + ".x"),
        ("form", "é.é.é"),
        ("form", ""),
        ("form", b"\x00\xff"),
    ],
)
def test_a_token_that_is_not_exactly_right_is_refused(reason, compact):
    with pytest.raises(signing.BadSignature) as refusal:
        signing.verify_jws(compact, jwks=JWKS, **RULES)
    assert refusal.value.reason == reason


def test_ten_seconds_ahead_are_forgiven():
    assert signing.verify_jws(token({**CLAIMS, "iat": NOW + 10}), jwks=JWKS, **RULES)
    assert signing.verify_jws(token({**CLAIMS, "aud": ["x", CLAIMS["aud"]]}), jwks=JWKS, **RULES)


def test_a_protocol_may_leave_open_what_it_says_is_open():
    """CDR: `iat` is optional and `exp` is not; the typ is JWT or none; two names of the audience."""
    rules = {
        **RULES,
        "typ": ("JWT", None),
        "audience": ("https://a.example", CLAIMS["aud"]),
        "required": "exp",
        "algorithms": ("PS256",),
    }
    jwks = {"keys": [public(EC), public(RSA, kid="r")]}
    claims = {**without("iat"), "exp": NOW + 60}

    def verify(claims=claims, typ="JWT", key=RSA, alg="PS256", kid="r"):
        signed = jwt.encode(claims, key, alg, {"kid": kid, "typ": typ})
        return signing.verify_jws(signed, jwks=jwks, **rules)

    assert verify() == verify(typ=None) == claims
    for reason, change in {
        "typ": {"typ": "secevent+jwt"},
        "alg": {"key": EC, "alg": "ES256", "kid": "k1"},
        "exp": {"claims": {**CLAIMS}},
        "iat": {"claims": {**claims, "iat": NOW + 11}},
        "aud": {"claims": {**claims, "aud": [["https://a.example"]]}},
    }.items():
        with pytest.raises(signing.BadSignature) as refusal:
            verify(**change)
        assert refusal.value.reason == reason


@pytest.mark.parametrize("typ", [None, ["JWT"], {}, 1])
def test_a_typ_that_is_there_is_a_word(typ):
    header = json.dumps({"alg": "ES256", "kid": "k1", "typ": typ}).encode()
    with pytest.raises(signing.BadSignature) as refusal:
        signing.verify_jws(
            signed_raw(header, json.dumps(CLAIMS).encode()), jwks=JWKS, **{**RULES, "typ": ("JWT", None)}
        )
    assert refusal.value.reason == "typ"


@pytest.mark.parametrize(
    "jwks",
    [
        None,
        {},
        {"keys": 5},
        {"keys": ["k1"]},
        {"keys": [public(EC), public(OTHER_EC)]},
        {"keys": [public(EC, use="enc")]},
        {"keys": [public(EC, key_ops=["sign"])]},
        {"keys": [public(EC, key_ops=7)]},
        {"keys": [public(EC, alg="ES384")]},
        {"keys": [public(EC, alg=["ES256"])]},
        {"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": "AA", "y": "AA"}]},
        {"keys": [{"kty": "EC", "crv": "P-256", "kid": "k1", "x": 1, "y": 2}]},
        {"keys": [{"kty": "oct", "kid": "k1", "k": "AAAA"}]},
    ],
)
def test_a_bad_key_set_is_a_bad_signature_and_nothing_else(jwks):
    with pytest.raises(signing.BadSignature):
        signing.verify_jws(GOOD, jwks=jwks, **RULES)


def test_a_short_rsa_key_is_refused():
    short = rsa.generate_private_key(65537, 1024)
    content = f"{b64(HEADER.replace(b'ES256', b'RS256'))}.{b64(json.dumps(CLAIMS).encode())}"
    signature = jwt.algorithms.RSAAlgorithm(jwt.algorithms.RSAAlgorithm.SHA256).sign(content.encode(), short)
    jwk = {
        **json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(short.public_key())),
        "kid": "k1",
        "key_ops": ["verify"],
    }
    with pytest.raises(signing.BadSignature) as refusal:
        signing.verify_jws(f"{content}.{b64(signature)}", jwks={"keys": [jwk]}, **RULES)
    assert refusal.value.reason == "key"


def test_the_public_webhook_example_is_reproduced(vector):
    example = vector("standard_webhooks.json")["public_v1"]
    headers = signing.webhook_headers(
        message_id=example["id"],
        timestamp=example["timestamp"],
        body=example["body"].encode(),
        secrets=[signing.webhook_secret(example["secret"])],
    )
    assert headers["webhook-signature"].split(" ")[0] == example["signature"]


def test_our_webhook_vector_is_reproduced(vector, keys):
    ours = vector("standard_webhooks.json")["ours"]
    keys.mkdir()
    seed = bytes.fromhex(ours["ed25519_seed_hex"])
    (keys / "webhook.pem").write_bytes(pem(ed25519.Ed25519PrivateKey.from_private_bytes(seed)))
    secret = signing.webhook_secret(ours["secret"])
    body = ours["body"].encode()
    headers = signing.webhook_headers(
        message_id=ours["id"], timestamp=ours["timestamp"], body=body, secrets=[secret]
    )
    assert headers["webhook-signature"] == f"{ours['v1']} {ours['v1a']}"
    assert signing.webhook_public_key() == ours["whpk"]
    signing.verify_webhook(headers, body, secrets=[], public_key=ours["whpk"], now=ours["timestamp"])


def test_while_a_secret_rotates_the_old_and_the_new_both_fit():
    old, new = signing.new_webhook_secret(), signing.new_webhook_secret()
    body = b'{"a":1}'
    headers = signing.webhook_headers(
        message_id="m-1", timestamp=NOW, body=body, secrets=[signing.webhook_secret(s) for s in (old, new)]
    )
    assert [part[:3] for part in headers["webhook-signature"].split(" ")] == ["v1,", "v1,", "v1a"]
    with time_machine.travel(datetime.fromtimestamp(NOW, UTC)):
        for secret in (old, new):
            signing.verify_webhook(headers, body, secrets=[signing.webhook_secret(secret)], now=NOW)
            first_two = " ".join(headers["webhook-signature"].split(" ")[:2])
            standardwebhooks.Webhook(secret).verify(body, {**headers, "webhook-signature": first_two})


SECRET = bytes(range(32))


def test_a_webhook_is_good_for_five_minutes_and_one_body():
    headers = signing.webhook_headers(message_id="m-1", timestamp=NOW, body=b"x", secrets=[SECRET])
    for now in (NOW - 300, NOW, NOW + 300):
        signing.verify_webhook({k.upper(): v for k, v in headers.items()}, b"x", secrets=[SECRET], now=now)
    for now in (NOW - 301, NOW + 301):
        with pytest.raises(signing.BadSignature, match="too far"):
            signing.verify_webhook(headers, b"x", secrets=[SECRET], now=now)
    for headers_given, body, secrets in (
        (headers, b"y", [SECRET]),
        ({**headers, "webhook-id": "m-2"}, b"x", [SECRET]),
        ({**headers, "webhook-timestamp": str(NOW + 1)}, b"x", [SECRET]),
        (headers, b"x", [bytes(32)]),
        (headers, b"x", []),
    ):
        with pytest.raises(signing.BadSignature):
            signing.verify_webhook(headers_given, body, secrets=secrets, now=NOW)


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\r\nb", "가", "x" * 257])
def test_an_id_that_could_blur_the_signed_content_is_not_sent(message_id):
    with pytest.raises(ValueError, match="message id"):
        signing.webhook_headers(message_id=message_id, timestamp=NOW, body=b"", secrets=[SECRET])


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text() | st.just("m-1"),
    st.text() | st.just(str(NOW)) | st.from_regex(r"[0-9]{1,30}"),
    st.text()
    | st.lists(st.sampled_from(["v1,", "v1a,", "v1,AAAA", "v1a,AAAA", ",", "v2,é", "v1,====="])).map(
        " ".join
    ),
)
def test_a_malformed_header_is_a_bad_signature_and_nothing_else(message_id, timestamp, line):
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": line}
    with pytest.raises(signing.BadSignature):
        signing.verify_webhook(headers, b"x", secrets=[SECRET], public_key="whpk_é", now=NOW)


@pytest.mark.parametrize("text", ["whsec_AAAA", "whsec_!!", "whsec_", "whsec_" + "A" * 200])
def test_a_weak_secret_is_refused(text):
    with pytest.raises(ValueError):
        signing.webhook_secret(text)


def test_a_seal_opens_only_where_it_belongs():
    sealed = signing.seal(b"secret", aad=b"event|name")
    assert b"secret" not in sealed and signing.unseal(memoryview(sealed), aad=b"event|name") == b"secret"
    assert signing.seal(b"secret", aad=b"event|name") != sealed
    broken = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for value, aad, key in [
        (sealed, b"other", None),
        (broken, b"event|name", None),
        (sealed[:20], b"event|name", None),
        (b"", b"event|name", None),
        (b"\x02" + sealed[1:], b"event|name", None),
        (sealed, b"event|name", bytes(32)),
    ]:
        with pytest.raises(signing.BadSeal):
            signing.unseal(value, aad=aad, key=key)
    own = bytes(range(32))
    assert signing.unseal(signing.seal(b"x", aad=b"", key=own), aad=b"", key=own) == b"x"


def test_a_pseudonym_is_pairwise_and_says_nothing():
    one = signing.pseudonym("MD0001", "person")
    assert one == signing.pseudonym("MD0001", "person") and one.startswith("p_") and len(one) == 28
    assert len({one, signing.pseudonym("MD0002", "person"), signing.pseudonym("MD0001", "other")}) == 3
    for parts in [(), ("a|b", "c")]:
        with pytest.raises(ValueError, match="pseudonym"):
            signing.pseudonym(*parts)


def test_a_machine_secret_is_hashed_fast_and_salted():
    hasher = signing.MachineSecretHasher()
    encoded = hasher.encode("client secret", "salt")
    assert hasher.verify("client secret", encoded) and not hasher.verify("client secreT", encoded)
    assert encoded != hasher.encode("client secret", "pepper") and "client secret" not in encoded
    assert signing.derived_key("a") == signing.derived_key("a") != signing.derived_key("b")
