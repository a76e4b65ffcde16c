"""Proof of possession at the application layer (DPoP, RFC 9449): a signed note that whoever shows a token has its key."""

import base64
import hashlib
import hmac
from collections.abc import Callable, Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from joserfc import jws
from joserfc.errors import JoseError

from providers.signing import FUTURE_LEEWAY, BadSignature, compact_parts, json_object, key_for
from providers.vault import derived_key

TYP = "dpop+jwt"
ALGORITHMS = ("ES256", "PS256", "Ed25519", "EdDSA")  # FAPI 2.0 §5.4; also for the assertions of clients
WINDOW = 60  # seconds that a proof's `iat` may be past; ahead of us FUTURE_LEEWAY, as for everything that is signed
NONCE_LASTS = 300  # seconds
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}
LONGEST_ID = 256


class BadProof(ValueError):
    """The proof proves nothing: says why, and in one word what its sender has to change."""

    def __init__(self, words: str, fault: str = "unreadable"):
        super().__init__(words)
        self.fault = fault


class NonceWanted(BadProof):
    """The proof is right so far, and has no nonce of ours that is still good (RFC 9449 §8, §9)."""


@dataclass(frozen=True, slots=True)
class Proof:
    """`jkt` is the thumbprint of the key that signed (RFC 7638), `jti` the proof's own id, which may come once."""

    jkt: str
    jti: str


def verify(
    compact: str,
    *,
    method: str,
    addresses: Collection[str],
    now: int,
    token: str | None = None,
    is_ours: Callable[[str], bool] | None = None,
) -> Proof:
    """The proof for one request (RFC 9449 §4.3). `addresses` are the names this address has, `token` the access token that
    comes along, `is_ours` says whether a nonce is one of ours. Raises BadProof, NonceWanted."""
    try:
        head, payload, signature, signed = compact_parts(compact)
        header, claims = json_object(head), json_object(payload)
        jkt = _signer(header, signature, signed)
    except BadSignature as error:
        raise BadProof(str(error)) from error
    jti, issued = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not 0 < len(jti) <= LONGEST_ID:
        raise BadProof("jti is missing or too long")
    if claims.get("htm") != method:
        raise BadProof("htm is another method", "method")
    if _bare(claims.get("htu")) not in {_bare(address) for address in addresses}:
        raise BadProof("htu is another address", "address")
    if isinstance(issued, bool) or not isinstance(issued, int | float) or not issued >= now - WINDOW:
        raise BadProof("iat is missing or too long ago", "old")
    if issued > now + FUTURE_LEEWAY:
        raise BadProof("iat is in the future", "ahead")
    if token is not None and not hmac.compare_digest(str(claims.get("ath")).encode(), ath(token).encode()):
        raise BadProof("ath does not fit the token", "token")
    nonce = claims.get("nonce")
    if is_ours is not None and not (isinstance(nonce, str) and is_ours(nonce)):
        raise NonceWanted("a nonce of ours is needed", "nonce")
    return Proof(jkt=jkt, jti=jti)


def _signer(header: dict, signature: bytes, signed: bytes) -> str:
    """The thumbprint of the key in the header, whose signature fits."""
    algorithm, jwk = header.get("alg"), header.get("jwk")
    if header.get("typ") != TYP:
        raise BadProof(f"typ is not {TYP}")
    if algorithm not in ALGORITHMS:
        raise BadProof("the algorithm is not allowed")
    if not isinstance(jwk, dict) or PRIVATE & jwk.keys():
        raise BadProof("jwk is missing or not a public key")
    if {"jku", "x5u", "x5c", "crit", "b64"} & header.keys():
        raise BadProof("the header points to a key, or asks for an extension")
    key = key_for({"keys": [jwk | {"kid": "own"}]}, "own", algorithm)
    try:
        genuine = jws.JWSRegistry.algorithms[algorithm].verify(signed, signature, key)
    except (JoseError, ValueError, TypeError) as error:
        raise BadProof("the signature cannot be checked") from error
    if not genuine:
        raise BadProof("the signature does not match")
    return key.thumbprint()


def _bare(address: object) -> str:
    """An address without query and fragment, in one spelling (RFC 9449 §4.3, RFC 3986 §6.2.2 and 6.2.3)."""
    try:
        parts = urlsplit(address if isinstance(address, str) else "")
        port = parts.port
    except ValueError:
        return ""
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    host = (parts.hostname or "") + (f":{port}" if port not in (None, usual) else "")
    return f"{parts.scheme}://{host}{parts.path or '/'}" if host else ""


def ath(token: str) -> str:
    """base64url of the token's SHA-256: ties a proof to it (RFC 9449 §4.2)."""
    return _base64url(hashlib.sha256(token.encode()).digest())


def new_nonce(*, now: int) -> str:
    """A nonce that every process of ours knows as its own, without keeping it."""
    moment = now.to_bytes(6, "big")
    return _base64url(moment + _mark(moment))


def is_fresh(nonce: str, *, now: int) -> bool:
    """Whether we gave this nonce in the last NONCE_LASTS seconds."""
    try:
        raw = base64.urlsafe_b64decode(nonce + "=" * (-len(nonce) % 4))
    except ValueError:
        return False
    moment, mark = raw[:6], raw[6:]
    return (
        hmac.compare_digest(mark, _mark(moment)) and 0 <= now - int.from_bytes(moment, "big") <= NONCE_LASTS
    )


def _mark(moment: bytes) -> bytes:
    return hmac.digest(derived_key("dpop nonce"), moment, hashlib.sha256)[:16]


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
