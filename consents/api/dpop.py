"""The DPoP header of a request (RFC 9449): checked at this address, with a nonce of ours, once."""

import datetime

from django.conf import settings
from django.utils import timezone

from consents import turnstile
from providers import dpop
from providers.dpop import BadProof, NonceWanted

__all__ = ["BadProof", "NonceWanted", "fresh_nonce", "signer"]

REMEMBERED = datetime.timedelta(seconds=2 * dpop.WINDOW + dpop.NONCE_LASTS)


def signer(request, *, token: str | None = None) -> str | None:
    """The thumbprint of the key that proves this request; None where there is no DPoP header. Raises BadProof, NonceWanted."""
    header = request.headers.get("DPoP")
    if header is None:
        return None
    at = timezone.now()
    now = int(at.timestamp())
    proof = dpop.verify(
        header, method=request.method, now=now, token=token, is_ours=lambda nonce: dpop.is_fresh(nonce, now=now),
        addresses={request.build_absolute_uri(request.path), settings.PORTAL_URL + request.path},
    )  # fmt: skip
    if not turnstile.spend("dpop", proof.jkt, proof.jti, until=at + REMEMBERED, at=at):
        raise BadProof("jti was used before")
    return proof.jkt


def fresh_nonce() -> str:
    return dpop.new_nonce(now=int(timezone.now().timestamp()))
