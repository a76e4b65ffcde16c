"""The DPoP header of a request (RFC 9449): checked at this address, with a nonce of ours, once."""

import datetime

from django.conf import settings
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from consents import turnstile
from providers import dpop
from providers.dpop import BadProof, NonceWanted

__all__ = ["BadProof", "NonceWanted", "fresh_nonce", "remedy", "signer"]

REMEMBERED = datetime.timedelta(seconds=2 * dpop.WINDOW + dpop.NONCE_LASTS)

# What to do about it, where a bound token was refused.
REMEDIES = {
    "bearer": _("이 토큰은 열쇠에 묶여 있어요. Authorization: DPoP로, 그 열쇠로 서명한 증명을 DPoP 머리글에 넣어 보내 주세요."),
    "unbound": _("이 토큰은 열쇠에 묶여 있지 않아요. Authorization: Bearer로 보내 주세요."),
    "renew": _("새 토큰을 받아, DPoP 증명과 함께 Authorization: DPoP로 보내 주세요."),
    "missing": _("DPoP 증명이 없어요. 토큰이 묶인 열쇠로 서명한 증명을 DPoP 머리글에 넣어 주세요."),
    "unreadable": _("DPoP 증명을 확인하지 못했어요. typ은 dpop+jwt, jwk는 공개 열쇠로, jti를 넣어 서명하고, 머리글에 하나만 보내 주세요."),
    "method": _("DPoP 증명의 htm이 이 요청의 메서드와 달라요. 지금 쓰는 메서드를 htm에 넣어 새로 서명해 주세요."),
    "address": _("DPoP 증명의 htu가 이 요청의 주소와 달라요. 물음표 앞까지의 주소를 htu에 넣어 새로 서명해 주세요."),
    "old": _("DPoP 증명이 너무 오래됐어요. iat에 지금 시각을 넣어, 요청마다 새로 서명해 주세요. 60초까지 받아요."),
    "ahead": _("DPoP 증명의 iat가 앞날이에요. 시계를 맞추고 새로 서명해 주세요. 10초까지만 앞설 수 있어요."),
    "token": _("DPoP 증명의 ath가 이 토큰과 달라요. 토큰의 SHA-256을 base64url로 적어 ath에 넣어 주세요."),
    "nonce": _("DPoP 증명에 쓸 수 있는 nonce가 없어요. 이 답의 DPoP-Nonce를 nonce에 넣어 새로 서명해 주세요."),
    "used": _("이미 쓴 DPoP 증명이에요. 요청마다 새 jti로 새로 서명해 주세요."),
    "key": _("DPoP 증명을 다른 열쇠로 서명했어요. 토큰을 받을 때 쓴 열쇠로 서명해 주세요."),
}  # fmt: skip


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
        raise BadProof("jti was used before", "used")
    return proof.jkt


def remedy(fault: str) -> str:
    return str(REMEDIES[fault])


def fresh_nonce() -> str:
    return dpop.new_nonce(now=int(timezone.now().timestamp()))
