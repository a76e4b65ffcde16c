"""The portal's signing keys, and every signature it makes or checks: SETs, receipts, webhooks, evidence.

How they are rotated is in `keyring`.
"""

import base64
import functools
import hashlib
import hmac
import json
import re
import secrets as randomness
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from django.conf import settings
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, RSAKey

from providers.plainjson import strict_json
from providers.vault import BadSeal, MachineSecretHasher, derived_key, key_file, pseudonym, seal, unseal

__all__ = [
    "BadSeal",
    "BadSignature",
    "MachineSecretHasher",
    "derived_key",
    "kid_of",
    "new_key",
    "new_webhook_secret",
    "pseudonym",
    "public_jwks",
    "seal",
    "sign_certificate",
    "sign_receipt",
    "sign_set",
    "strict_json",
    "unseal",
    "verify_jws",
    "verify_webhook",
    "webhook_headers",
    "webhook_public_key",
    "webhook_secret",
]

SET_TYP = "secevent+jwt"  # RFC 8417 §2.3
RECEIPT_TYP = "consent-receipt+jwt"
CERTIFICATE_TYP = (
    "ending-certificate+jwt"  # of its own, so that neither passes for the other (RFC 8725 §3.11)
)
EVIDENCE_TYP = "deletion-evidence+jwt"

LARGEST_JWS = 16_384  # bytes
FUTURE_LEEWAY = 10  # seconds; FAPI 2.0 §5.3.2.1
WEBHOOK_TOLERANCE = 300  # seconds; Standard Webhooks 1.0.0

# One key type per algorithm: a token may not choose how its key is read (RFC 8725 §3.1).
KEY_OF_ALGORITHM = {
    "ES256": ("EC", "P-256"),
    "PS256": ("RSA", None),
    "RS256": ("RSA", None),
    "Ed25519": ("OKP", "Ed25519"),
    "EdDSA": ("OKP", "Ed25519"),
}
FORBIDDEN_HEADERS = {"jku", "x5u", "jwk", "x5c", "crit", "b64"}


class BadSignature(Exception):
    """A message that is not what it claims to be. `reason` is one word: form, alg, kid, key, signature, typ, iss, aud,
    iat, exp, nbf, id, timestamp."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail or reason)
        self.reason = reason


# Keys


def new_key() -> bytes:
    """A fresh private key (P-256) for SETs or receipts, as PEM."""
    return _pem(generate_private_key(SECP256R1()))


def kid_of(pem: bytes) -> str:
    """The RFC 7638 thumbprint of a key of `new_key`, which is its name in our JWKS."""
    return _ec_key(pem)[1]


def _new_ed25519() -> bytes:
    return _pem(Ed25519PrivateKey.generate())


def _new_rsa() -> bytes:
    return _pem(rsa.generate_private_key(65537, 2048))


def _pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@functools.lru_cache(maxsize=64)
def _ec_key(pem: bytes) -> tuple[ECKey, str]:
    key = ECKey.import_key(pem)
    return key, key.thumbprint()


@functools.lru_cache(maxsize=8)
def _rsa_key(pem: bytes) -> tuple[RSAKey, str]:
    key = RSAKey.import_key(pem)
    return key, key.thumbprint()


@functools.lru_cache(maxsize=8)
def _ed25519_key(pem: bytes) -> Ed25519PrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("the key file is not an Ed25519 key")
    return key


# JWS


def sign_set(claims: dict) -> str:
    """A Security Event Token (RFC 8417), compact, ES256."""
    return _sign("set", SET_TYP, claims)


def sign_receipt(claims: dict) -> str:
    """A consent receipt, compact JWS, ES256 with a key that signs papers only.

    The signature is deterministic (RFC 6979): the same claims give the same bytes, so that a receipt can be asked for
    again instead of being stored."""
    return _sign_paper(RECEIPT_TYP, claims)


def sign_certificate(claims: dict) -> str:
    """A certificate of ending, as `sign_receipt` signs receipts."""
    return _sign_paper(CERTIFICATE_TYP, claims)


def _sign_paper(typ: str, claims: dict) -> str:
    pem = key_file("receipt.pem", new_key)
    header, payload = _to_sign(pem, typ, claims)
    content = f"{_base64url(json.dumps(header, separators=(',', ':')).encode())}.{_base64url(payload)}"
    key = load_pem_private_key(pem, None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TypeError("the key file is not an EC key")
    signature = key.sign(content.encode("ascii"), ECDSA(hashes.SHA256(), deterministic_signing=True))
    halves = b"".join(half.to_bytes(32, "big") for half in decode_dss_signature(signature))
    return f"{content}.{_base64url(halves)}"


def sign_cdr(claims: dict) -> str:
    """A client assertion or self-signed token for Australia's CDR, whose security profile wants PS256 (FAPI 1.0 Advanced
    §8.6), with an RSA key of its own. `typ` is JWT, as in the standard's examples."""
    key, kid = _rsa_key(key_file("cdr.pem", _new_rsa))
    header = {"alg": "PS256", "kid": kid, "typ": "JWT"}
    return jws.serialize_compact(header, _payload(claims), key, algorithms=["PS256"])


def _sign(purpose: str, typ: str, claims: dict) -> str:
    pem = key_file(f"{purpose}.pem", new_key)
    header, payload = _to_sign(pem, typ, claims)
    return jws.serialize_compact(header, payload, _ec_key(pem)[0], algorithms=["ES256"])


def _to_sign(pem: bytes, typ: str, claims: dict) -> tuple[dict, bytes]:
    return {"alg": "ES256", "kid": _ec_key(pem)[1], "typ": typ}, _payload(claims)


def _payload(claims: dict) -> bytes:
    text = json.dumps(claims, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def public_jwks() -> dict:
    """The public keys that others check our JWS with (RFC 7517): those in use, the next ones, and the retired ones that
    still lie in the folder. `kid` is the RFC 7638 thumbprint."""
    keys: dict[str, dict] = {}
    for purpose in ("set", "receipt"):
        for pem in _published(purpose, new_key):
            key, kid = _ec_key(pem)
            keys[kid] = {**key.as_dict(private=False), "kid": kid, "use": "sig", "alg": "ES256"}
    for pem in _published("cdr", _new_rsa):
        rsa_key, kid = _rsa_key(pem)
        keys[kid] = {**rsa_key.as_dict(private=False), "kid": kid, "use": "sig", "alg": "PS256"}
    return {"keys": list(keys.values())}


def _published(purpose: str, make: Callable[[], bytes]) -> list[bytes]:
    folder = Path(settings.PORTAL_KEYS_DIR)
    return [
        key_file(f"{purpose}.pem", make),
        *(path.read_bytes() for path in sorted(folder.glob(f"{purpose}.*.pem"))),
    ]


def verify_jws(
    compact: str | bytes,
    *,
    jwks: Mapping,
    typ: str | Collection[str | None],
    issuer: str,
    audience: str | Collection[str] | None,
    now: int,
    algorithms: Collection[str] = tuple(KEY_OF_ALGORITHM),
    required: str = "iat",
) -> dict:
    """The claims of a JWS that somebody else signed, or BadSignature.

    The key comes from `jwks` by `kid` alone; nothing in the token can bring a key or choose how one is read.
    `now` is epoch seconds. Where a protocol knows several, `typ` and `audience` list what is allowed (None: no `typ` at
    all). `required` is the moment that must be there: `iat`, or `exp` where the protocol leaves `iat` open.
    Rules: RFC 7515, RFC 8725, `iat` at most ten seconds ahead, no duplicate members."""
    head, payload, signature, signed = compact_parts(compact)
    header = json_object(head)
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in KEY_OF_ALGORITHM or algorithm not in algorithms:
        raise BadSignature("alg", "the algorithm is not allowed")
    if FORBIDDEN_HEADERS & header.keys():
        raise BadSignature("form", "the header brings or points to a key, or asks for an extension")
    allowed = [typ] if isinstance(typ, str) else list(typ)
    if header.get("typ") not in allowed or ("typ" in header and header["typ"] is None):
        raise BadSignature("typ", f"typ is not {' or '.join(map(str, allowed))}")

    key = key_for(jwks, header.get("kid"), algorithm)
    try:
        genuine = jws.JWSRegistry.algorithms[algorithm].verify(signed, signature, key)
    except (JoseError, ValueError, TypeError) as error:
        raise BadSignature("signature") from error
    if not genuine:
        raise BadSignature("signature", "the signature does not match")

    claims = json_object(payload)
    if claims.get("iss") != issuer:
        raise BadSignature("iss", "the issuer is another one")
    # None: meant for whoever holds it, as a receipt is.
    names = {audience} if audience is None or isinstance(audience, str) else set(audience)
    audiences = claims.get("aud")
    given = audiences if isinstance(audiences, list) else [audiences]
    if not any(one in names for one in given if one is None or isinstance(one, str)):
        raise BadSignature("aud", "meant for somebody else")
    if claims.get(required) is None:
        raise BadSignature(required, f"{required} is missing")
    issued = _moment(claims, "iat")
    if issued is not None and issued > now + FUTURE_LEEWAY:
        raise BadSignature("iat", "iat is in the future")
    starts, expires = _moment(claims, "nbf"), _moment(claims, "exp")
    if starts is not None and starts > now + FUTURE_LEEWAY:
        raise BadSignature("nbf", "not valid yet")
    if expires is not None and expires <= now:
        raise BadSignature("exp", "no longer valid")
    return claims


def compact_parts(compact: str | bytes) -> tuple[bytes, bytes, bytes, bytes]:
    if len(compact) > LARGEST_JWS:
        raise BadSignature("form", "larger than 16 kB")
    try:
        raw = compact.encode("ascii") if isinstance(compact, str) else bytes(compact)
        head, payload, signature = raw.split(b".")
        return _unbase64url(head), _unbase64url(payload), _unbase64url(signature), head + b"." + payload
    except ValueError as error:
        raise BadSignature("form", "not a compact JWS") from error


def _unbase64url(text: bytes) -> bytes:
    decoded = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    # Python skips foreign characters and spare bits; one value must have one spelling.
    if base64.urlsafe_b64encode(decoded).rstrip(b"=") != text:
        raise ValueError("not canonical base64url")
    return decoded


def json_object(raw: bytes) -> dict:
    try:
        value = strict_json(raw)
    except ValueError as error:
        raise BadSignature("form", "not plain JSON") from error
    if not isinstance(value, dict):
        raise BadSignature("form", "not a JSON object")
    return value


def _moment(claims: dict, name: str) -> int | float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadSignature(name, f"{name} is not a number")
    return value


def key_for(jwks: object, kid: object, algorithm: str):
    keys = jwks.get("keys") if isinstance(jwks, Mapping) else None
    keys = keys if isinstance(keys, list) else []
    found = [key for key in keys if isinstance(key, dict) and key.get("kid") == kid]
    if not isinstance(kid, str) or len(found) != 1:
        raise BadSignature("kid", "no such key")
    wanted = found[0]
    kty, curve = KEY_OF_ALGORITHM[algorithm]
    declared = str(wanted.get("alg", algorithm))
    operations = wanted.get("key_ops", ["verify"])
    if wanted.get("kty") != kty or (curve and wanted.get("crv") != curve):
        raise BadSignature("key", "the key is of another type than the algorithm")
    if declared != algorithm and {declared, algorithm} != {
        "Ed25519",
        "EdDSA",
    }:  # two names of one thing, RFC 9864
        raise BadSignature("key", "the key is for another algorithm")
    if wanted.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise BadSignature("key", "the key is not for signatures")
    material = {name: wanted[name] for name in ("kty", "crv", "x", "y", "n", "e") if name in wanted}
    try:
        if kty == "RSA" and int.from_bytes(_unbase64url(wanted["n"].encode()), "big").bit_length() < 2048:
            raise ValueError("the RSA key is shorter than 2048 bits")
        return JWKRegistry.import_key(material)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadSignature("key", "the key cannot be used") from error


# Standard Webhooks 1.0.0

_ID = re.compile(r"[A-Za-z0-9_-]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,11}", re.ASCII)


def webhook_headers(*, message_id: str, timestamp: int, body: bytes, secrets: list[bytes]) -> dict[str, str]:
    """The three headers of one attempt: a `v1` for each secret (two while one is being rotated) and our `v1a`.

    `timestamp` is the time of this attempt, in epoch seconds; `body` the very bytes that will be sent."""
    if not _ID.fullmatch(message_id):
        raise ValueError("a message id holds letters, digits, - and _ only")
    content = _signed_content(message_id, str(int(timestamp)), body)
    signatures = [f"v1,{_base64(_hmac(secret, content))}" for secret in secrets]
    signatures.append(f"v1a,{_base64(_webhook_key().sign(content))}")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(timestamp)),
        "webhook-signature": " ".join(signatures),
    }


def webhook_public_key() -> str:
    """`whpk_…`, for receivers that would rather check our Ed25519 signature than keep a secret."""
    return "whpk_" + _base64(_webhook_key().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))


def new_webhook_secret() -> str:
    """A fresh `whsec_…` for one endpoint (32 random bytes)."""
    return "whsec_" + _base64(randomness.token_bytes(32))


def webhook_secret(text: str) -> bytes:
    """The bytes of a `whsec_…`; ValueError unless they are 24 to 64."""
    secret = base64.b64decode(text.removeprefix("whsec_"), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError("a webhook secret has 24 to 64 bytes")
    return secret


def verify_webhook(
    headers: Mapping[str, str],
    body: bytes,
    *,
    secrets: Iterable[bytes],
    public_key: str | None = None,
    now: int,
    tolerance: int = WEBHOOK_TOLERANCE,
) -> None:
    """Return if one signature in the headers was made with one of `secrets` or with `public_key` (`whpk_…`).

    Raises BadSignature and nothing else, whatever the headers hold. `now` is epoch seconds."""
    given = {str(name).lower(): value for name, value in headers.items()}
    message_id, timestamp, line = (given.get(f"webhook-{part}") for part in ("id", "timestamp", "signature"))
    if not isinstance(message_id, str) or not _ID.fullmatch(message_id):
        raise BadSignature("id", "webhook-id is missing or malformed")
    if not isinstance(timestamp, str) or not _TIMESTAMP.fullmatch(timestamp):
        raise BadSignature("timestamp", "webhook-timestamp is missing or malformed")
    if abs(now - int(timestamp)) > tolerance:
        raise BadSignature("timestamp", "webhook-timestamp is too far from now")
    if not isinstance(line, str):
        raise BadSignature("signature", "webhook-signature is missing")

    content = _signed_content(message_id, timestamp, body)
    expected = [_hmac(secret, content) for secret in secrets]
    genuine = False
    for version, value in _signatures(line):
        if version == "v1":
            for one in expected:
                genuine |= hmac.compare_digest(one, value)
        elif version == "v1a" and public_key:
            genuine |= _ed25519_matches(public_key, value, content)
    if not genuine:
        raise BadSignature("signature", "no signature matches")


def _signatures(line: str) -> list[tuple[str, bytes]]:
    found = []
    for item in line.split(" ", 16)[:16]:  # nobody rotates sixteen keys at once
        version, _, text = item.partition(",")
        try:
            found.append((version, base64.b64decode(text.encode("ascii"), validate=True)))
        except ValueError:  # binascii.Error and UnicodeEncodeError are ValueErrors
            continue
    return found


def _ed25519_matches(public_key: str, signature: bytes, content: bytes) -> bool:
    try:
        raw = base64.b64decode(public_key.removeprefix("whpk_"), validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, content)
    except (InvalidSignature, ValueError):
        return False
    return True


def _signed_content(message_id: str, timestamp: str, body: bytes) -> bytes:
    return f"{message_id}.{timestamp}.".encode() + body


def _webhook_key() -> Ed25519PrivateKey:
    return _ed25519_key(key_file("webhook.pem", _new_ed25519))


def _hmac(secret: bytes, content: bytes) -> bytes:
    return hmac.digest(secret, content, hashlib.sha256)


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
