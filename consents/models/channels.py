"""What becomes of the ways to organizations: trial runs in the gym, and changes that need a second pair of eyes."""

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Channel, Organization

from .owned import OwnedQuerySet
from .people import Person


class ChannelChange(models.Model):
    """A new address, protocol or setting of an organization's channel on its way to being used.

    Asked by one admin, approved by another of the same organization, proved by a challenge answered at the new address,
    live a notice period later; until then the old channel receives everything."""

    class State(models.TextChoices):
        ASKED = "asked", _("승인을 기다림")
        APPROVED = "approved", _("승인됨")
        PROVED = "proved", _("새 주소가 답함")
        LIVE = "live", _("쓰는 중")
        DROPPED = "dropped", _("그만둠")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="channel_changes")
    channel = models.ForeignKey(
        Channel,
        on_delete=models.PROTECT,
        related_name="changes",
        help_text="the new channel, testing until it is live",
    )
    state = models.CharField(max_length=8, choices=State, default=State.ASKED)
    asked_by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    asked_at = models.DateTimeField()
    approved_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    approved_at = models.DateTimeField(null=True, blank=True)
    proved_at = models.DateTimeField(null=True, blank=True)
    live_from = models.DateTimeField(null=True, blank=True, help_text="earliest moment it may be used")
    closed_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-asked_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="channel_change_is_approved_by_somebody_else",
                condition=Q(approved_by__isnull=True) | ~Q(approved_by=F("asked_by")),
            ),
            models.CheckConstraint(
                name="approved_channel_change_knows_by_whom",
                condition=Q(state__in=["asked", "dropped"])
                | Q(approved_by__isnull=False, approved_at__isnull=False),
            ),
            models.UniqueConstraint(
                name="organization_changes_one_channel_at_a_time",
                fields=["organization"],
                condition=Q(closed_at__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.state}"


class GymRun(models.Model):
    """One dated trial of a channel: what was tried, and how the other side behaved (훈련장). Never changed once finished."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="gym_runs")
    channel = models.ForeignKey(Channel, on_delete=models.PROTECT, related_name="gym_runs")
    address = models.CharField(
        max_length=2048, help_text="as it was tried: another address needs another run"
    )
    asked_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    asked_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    results = models.JSONField(default=list, help_text="one object a trial: name, passed, detail")
    passed = models.BooleanField(default=False)
    valid_until = models.DateTimeField(null=True, blank=True, help_text="how long the badge counts")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-asked_at", "-id"]
        constraints = [
            models.CheckConstraint(
                name="passed_gym_run_is_finished",
                condition=Q(passed=False) | Q(finished_at__isnull=False, valid_until__isnull=False),
            ),
        ]
        indexes = [models.Index(name="gym_runs_of_a_channel", fields=["channel", "-asked_at"])]

    def __str__(self) -> str:
        return f"{self.channel_id} {self.asked_at}"


class GymMessage(models.Model):
    """One message that a trial run sent, so that its acknowledgement is known from a real one. Belongs to nobody's
    subscription."""

    jti = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    run = models.ForeignKey(GymRun, on_delete=models.PROTECT, related_name="messages")
    trial = models.CharField(max_length=20)
    asked = models.PositiveSmallIntegerField(default=0, help_text="how often its acknowledgement arrived")

    def __str__(self) -> str:
        return f"{self.trial} {self.jti}"
