"""Traces: who looked at whom and why, when data flowed, what organizations count, and where accounts differ."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Organization, Service

from .agreements import Consent, Subscription
from .owned import OwnedQuerySet
from .people import Person


class Lookup(models.Model):
    """One reveal of a person's identity to a regulator; the person sees it in their history."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="lookups")
    by = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="+")
    event_id = models.UUIDField(help_text="the log entry whose subject was revealed")
    case = models.CharField(max_length=60)
    reason = models.CharField(max_length=300)
    at = models.DateTimeField()

    class Meta:
        ordering = ["-at"]
        constraints = [
            models.CheckConstraint(name="lookup_has_case_and_reason", condition=~Q(case="") & ~Q(reason="")),
        ]

    def __str__(self) -> str:
        return self.case


class Transfer(models.Model):
    """One transfer of data under a consent, as the operator or the source reports it (전송 내역)."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="transfers", help_text="who reports it"
    )
    key = models.CharField(max_length=100, help_text="the reporter's own id of the transfer")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="transfers")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="transfers")
    consent = models.ForeignKey(
        Consent, on_delete=models.PROTECT, null=True, blank=True, related_name="transfers"
    )
    source = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    recipient = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    scopes = models.JSONField(default=list)
    regular = models.BooleanField(
        default=True, help_text="sent by the calendar, not because the person looked"
    )
    after_stop = models.BooleanField(default=False, help_text="data flowed after the consent had ended")
    at = models.DateTimeField(help_text="when data flowed, as reported")
    reported_at = models.DateTimeField()

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [
            models.UniqueConstraint(name="transfer_is_reported_once", fields=["organization", "key"]),
            models.CheckConstraint(name="transfer_has_a_key", condition=~Q(key="")),
        ]
        indexes = [
            models.Index(name="transfers_of_a_subscription", fields=["subscription", "-at"]),
            models.Index(name="transfers_of_a_person", fields=["person", "-at", "-id"]),
        ]

    def __str__(self) -> str:
        return self.key


class Inquiry(models.Model):
    """What one organization holds of one person: when it is asked next, and what came of the last time (물어보기)."""

    class Outcome(models.TextChoices):
        WAITING = "waiting", _("답을 기다림")
        COMPLETE = "complete", _("답함")
        PARTIAL = "partial", _("일부만 답함")
        SILENT = "silent", _("답하지 않음")
        UNABLE = "unable", _("물어볼 길이 없음")

    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="inquiries")
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="inquiries")
    outcome = models.CharField(max_length=8, choices=Outcome, default=Outcome.WAITING)
    held = models.PositiveIntegerField(default=0, help_text="live permissions that they listed")
    differences = models.PositiveIntegerField(default=0, help_text="from what stands here")
    requested_at = models.DateTimeField(null=True, blank=True, help_text="when the person last asked")
    answered_at = models.DateTimeField(null=True, blank=True)
    due_at = models.DateTimeField(null=True, blank=True, help_text="when it is asked next")

    class Meta:
        constraints = [
            models.UniqueConstraint(name="person_is_asked_about_once", fields=["person", "organization"]),
        ]
        indexes = [
            models.Index(
                name="inquiries_to_make",
                fields=["organization", "due_at", "id"],
                condition=Q(due_at__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.outcome}"


class WeeklyCount(models.Model):
    """One side's numbers of a week for a service and a source (지원-004 by operators, 005 by sources); Sunday to Saturday."""

    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="weekly_counts", help_text="who reports it"
    )
    week_on = models.DateField(help_text="the Sunday the week begins with")
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="weekly_counts")
    source = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="+")
    consents_new = models.PositiveIntegerField(help_text="new or changed in the week (consent_new)")
    consents_revoked = models.PositiveIntegerField(help_text="ended in the week (consent_revoke)")
    consents_own = models.PositiveIntegerField(help_text="valid at its end (consent_own)")
    reported_at = models.DateTimeField()

    class Meta:
        ordering = ["-week_on", "id"]
        constraints = [
            models.UniqueConstraint(
                name="week_is_counted_once_per_side",
                fields=["organization", "week_on", "service", "source"],
            ),
            models.CheckConstraint(name="week_begins_on_a_sunday", condition=Q(week_on__week_day=1)),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.week_on}"


class WeeklyCalls(models.Model):
    """How calls fared in that week, as the side that counts measured them: one row a kind of call, kept as it was sent."""

    class Kind(models.TextChoices):
        REGULAR = "1", _("정기적 전송")
        ASKED = "2", _("비정기적 전송")
        LISTS = "3", _("목록 조회")

    count = models.ForeignKey(WeeklyCount, on_delete=models.CASCADE, related_name="calls")
    kind = models.CharField(max_length=1, choices=Kind)
    succeeded = models.BigIntegerField()
    failed = models.BigIntegerField()
    mean = models.DecimalField(
        max_digits=18,
        decimal_places=3,
        null=True,
        help_text="rsp_avg over all calls; null where there were none",
    )
    people = models.PositiveIntegerField(null=True, help_text="svr_usr_cnt of the last day")
    askers = models.PositiveIntegerField(null=True, help_text="trsms_dem_cnt of the last day")
    days = models.JSONField(help_text="day by day and hour by hour: date, types of api_type and slots")

    class Meta:
        ordering = ["kind"]
        constraints = [
            models.UniqueConstraint(name="calls_are_told_once_a_kind", fields=["count", "kind"]),
            models.CheckConstraint(
                name="calls_are_not_negative", condition=Q(succeeded__gte=0) & Q(failed__gte=0)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count_id} {self.kind}"


class Case(models.Model):
    """One difference between what somebody says and what the ledger says, until it is settled by one of three verbs."""

    class Kind(models.TextChoices):
        UNKNOWN_HERE = "unknown_here", _("회사에는 있고 우리 기록에는 없음")
        ENDED_HERE = "ended_here", _("우리 기록에서는 끝났는데 회사에는 살아 있음")
        MISSING_THERE = "missing_there", _("우리 기록에는 살아 있는데 회사에는 없음")
        DIFFERS = "differs", _("항목이나 기간이 서로 다름")
        COUNTS = "counts", _("주간 집계가 기록과 다름")
        AFTER_STOP = "after_stop", _("그만둔 뒤에 정보가 오감")

    class Verb(models.TextChoices):
        NONE = "", _("아직 정하지 않음")
        ADOPT = "adopt", _("기록에 받아들임")
        SEND_AGAIN = "send_again", _("다시 알림")
        DISPUTE = "dispute", _("다툼으로 남김")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=13, choices=Kind)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="cases")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="cases")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, null=True, blank=True, related_name="cases"
    )
    consent = models.ForeignKey(
        Consent, on_delete=models.PROTECT, null=True, blank=True, related_name="cases"
    )
    matter = models.CharField(max_length=160, help_text="what it is about, so that it is opened once")
    stated = models.JSONField(default=dict, help_text="what they say; no identity")
    known = models.JSONField(default=dict, help_text="what the ledger says")
    opened_at = models.DateTimeField()
    verb = models.CharField(max_length=10, choices=Verb, blank=True, default="")
    reason = models.CharField(max_length=300, blank=True)
    settled_by = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    settled_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-opened_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                name="case_is_open_once_per_matter",
                fields=["organization", "kind", "matter"],
                condition=Q(settled_at__isnull=True),
            ),
            models.CheckConstraint(
                name="settled_case_knows_how",
                condition=Q(verb="", settled_at__isnull=True) | ~Q(verb="") & Q(settled_at__isnull=False),
            ),
        ]
        indexes = [
            models.Index(
                name="open_cases", fields=["organization", "-opened_at"], condition=Q(settled_at__isnull=True)
            ),
            models.Index(name="cases_by_opening", fields=["-opened_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.matter}"
