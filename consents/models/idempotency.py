"""What came before: answers kept for a day, and messages that organizations send us, so that neither is done twice."""

from django.db import models
from django.db.models import Q

from providers.models import Organization


class IdempotencyKey(models.Model):
    """One `Idempotency-Key` of one caller, with the answer to give again. Rows older than a day are removed."""

    actor = models.CharField(max_length=120, help_text="client:<id> or person:<id>")
    key = models.CharField(max_length=255)
    method = models.CharField(max_length=7)
    path = models.CharField(max_length=500)
    digest = models.CharField(max_length=64, help_text="SHA-256 of the body, hexadecimal")
    status = models.PositiveSmallIntegerField(null=True, blank=True)
    body = models.JSONField(null=True, blank=True)
    location = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="idempotency_key_is_used_once_per_caller", fields=["actor", "key"]),
            models.CheckConstraint(name="idempotency_key_is_not_empty", condition=~Q(key="") & ~Q(actor="")),
        ]
        indexes = [models.Index(name="idempotency_keys_by_age", fields=["created_at"])]

    def __str__(self) -> str:
        return self.key


class InboundMessage(models.Model):
    """A message of an organization that had its effect here, so that it has none again. Kept for INBOUND_MEMORY_DAYS:
    emptying a cache or restarting opens no window for a replay."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="inbound_messages")
    jti = models.CharField(max_length=256, help_text="the id it is known by over there")
    digest = models.CharField(max_length=64, help_text="SHA-256 of its bytes, hexadecimal")
    at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="inbound_message_counts_once", fields=["organization", "jti"]),
        ]

    def __str__(self) -> str:
        return self.jti
