"""How organizations are reached, and with which keys."""

from django.db import models
from django.db.models import Q, Value
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7

from .organizations import Organization


class Channel(models.Model):
    """How an organization is reached (연결). One is open at a time."""

    class Protocol(models.TextChoices):
        NATIVE = "native", _("서명된 웹훅")
        PUSH = "push", _("보안 이벤트 보내기(RFC 8935)")
        POLL = "poll", _("회사가 가져감(RFC 8936)")
        KOREA = "korea", _("마이데이터 지원 API")
        REVOCATION = "revocation", _("토큰 폐기(RFC 7009)")
        GRANTS = "grants", _("FAPI 권한 관리")
        CDR = "cdr", _("호주 CDR 동의 철회")
        UK = "uk", _("영국 오픈뱅킹 동의 삭제")
        DESK = "desk", _("업무함(사람이 확인)")

    class State(models.TextChoices):
        TESTING = "testing", _("시험 중")
        OPEN = "open", _("열림")
        RETIRED = "retired", _("닫힘")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="channels")
    protocol = models.CharField(max_length=12, choices=Protocol)
    address = models.CharField(max_length=2048, blank=True)
    details = models.JSONField(
        default=dict,
        db_default=Value({}, models.JSONField()),
        blank=True,
        help_text="the protocol's own settings, as its wire names them; no secrets",
    )
    state = models.CharField(max_length=8, choices=State, default=State.TESTING)
    opened_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="organization_has_one_open_channel", fields=["organization"], condition=Q(state="open")
            ),
            models.CheckConstraint(
                name="channel_has_an_address_where_we_call",
                condition=Q(protocol__in=["desk", "poll"]) | ~Q(address=""),
            ),
            models.CheckConstraint(
                name="open_channel_knows_since_when", condition=~Q(state="open") | Q(opened_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.protocol}"


class ChannelKey(models.Model):
    """One key of a channel: our shared secret for signing to them (hmac), what signs us in there (credential), or their
    public key (jwk)."""

    class Kind(models.TextChoices):
        HMAC = "hmac", "HMAC"
        CREDENTIAL = "credential", "credential"
        JWK = "jwk", "JWK"

    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="keys")
    kind = models.CharField(max_length=10, choices=Kind)
    kid = models.CharField(max_length=64)
    sealed_secret = models.BinaryField(null=True, blank=True, help_text="AES-256-GCM; not for jwk")
    jwk = models.JSONField(null=True, blank=True, help_text="public JWK; jwk only")
    active_from = models.DateTimeField()
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="channel_key_id_is_unique", fields=["channel", "kid"]),
            models.CheckConstraint(
                name="channel_key_is_a_secret_or_a_jwk",
                condition=Q(kind__in=["hmac", "credential"], sealed_secret__isnull=False, jwk__isnull=True)
                | Q(kind="jwk", sealed_secret__isnull=True, jwk__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.kid
