"""What organizations report in bulk, and the people it is about who have not come yet."""

import datetime

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Organization, Service

from .owned import OwnedQuerySet
from .people import Person


class Identity(models.Model):
    """That a person proved who they are: the keyed digest of their CI (연계정보), never the CI."""

    person = models.OneToOneField(Person, on_delete=models.CASCADE, related_name="identity")
    digest = models.CharField(max_length=64, unique=True, help_text="HMAC-SHA256 of the CI, hexadecimal")
    provider = models.CharField(max_length=30, help_text="who vouches for it")
    verified_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(name="identity_is_a_digest", condition=Q(digest__regex="^[0-9a-f]{64}$")),
        ]

    def __str__(self) -> str:
        return self.provider


class WaitingHolding(models.Model):
    """What an operator says it holds of somebody whom the portal does not know yet; no fact of the log before they come."""

    pk = models.CompositePrimaryKey("digest", "service", "source")
    digest = models.CharField(max_length=64, help_text="as Identity.digest")
    # The key finds rows; nobody looks for those of a service or a source. Neither is ever deleted, and a check of both for each
    # row of a million costs as much as the row.
    service = models.ForeignKey(
        Service, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    source = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="+", db_index=False, db_constraint=False
    )
    joined_on = models.DateField()
    scopes = ArrayField(models.CharField(max_length=40))
    purpose = models.CharField(max_length=200)
    cycle = models.CharField(max_length=5, blank=True)
    end_date = models.DateField()
    retained_until = models.DateField(null=True, blank=True)
    last_used_on = models.DateField(null=True, blank=True)
    reported_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="waiting_holding_has_scopes_and_an_end",
                condition=Q(scopes__len__gte=1) & Q(end_date__gt=F("joined_on")),
            ),
        ]

    def __str__(self) -> str:
        return self.digest[:8]


class Upload(models.Model):
    """One file of rows that an organization sends, in pieces if it likes, and what became of it."""

    class Kind(models.TextChoices):
        HOLDINGS = "holdings", _("가지고 있는 것")
        TRANSFERS = "transfers", _("주고받은 것")

    class Format(models.TextChoices):
        CSV = "csv", "CSV"
        NDJSON = "ndjson", "NDJSON"

    class State(models.TextChoices):
        RECEIVING = "receiving", _("받는 중")
        WAITING = "waiting", _("차례를 기다림")
        RUNNING = "running", _("넣는 중")
        DONE = "done", _("끝남")
        FAILED = "failed", _("읽지 못함")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="uploads")
    member = models.ForeignKey(
        Person, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", help_text="at the desk"
    )
    kind = models.CharField(max_length=9, choices=Kind)
    format = models.CharField(max_length=6, choices=Format)
    state = models.CharField(max_length=9, choices=State, default=State.RECEIVING)
    received = models.BigIntegerField(default=0, help_text="bytes that are here")
    total = models.BigIntegerField(
        null=True, blank=True, help_text="bytes of the whole, once a piece has told"
    )
    lines = models.BigIntegerField(default=0, help_text="line ends in them")
    read_to = models.BigIntegerField(default=0, help_text="bytes whose rows are in")
    line = models.BigIntegerField(default=0, help_text="number of the last line read")
    header = models.JSONField(default=list, blank=True)
    created = models.PositiveIntegerField(default=0)
    updated = models.PositiveIntegerField(default=0)
    unchanged = models.PositiveIntegerField(default=0)
    mismatched = models.PositiveIntegerField(default=0)
    waiting = models.PositiveIntegerField(default=0)
    refused = models.PositiveIntegerField(default=0)
    fault = models.CharField(max_length=300, blank=True, help_text="why it could not be read, in English")
    faults = models.PositiveSmallIntegerField(default=0, help_text="times in a row that a batch failed")
    opened_at = models.DateTimeField()
    touched_at = models.DateTimeField(help_text="when the last piece came, or the last batch went in")
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                name="upload_is_read_as_far_as_it_is_here",
                condition=Q(read_to__gte=0) & Q(read_to__lte=F("received")),
            ),
            models.CheckConstraint(
                name="upload_is_no_longer_than_it_said",
                condition=Q(total__isnull=True) | Q(total__gte=F("received")),
            ),
            models.CheckConstraint(
                name="upload_finishes_with_a_date",
                condition=Q(state__in=["done", "failed"], finished_at__isnull=False)
                | ~Q(state__in=["done", "failed"]) & Q(finished_at__isnull=True),
            ),
        ]
        indexes = [
            models.Index(
                name="uploads_to_take_in",
                fields=["touched_at"],
                condition=Q(state__in=["waiting", "running"]),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.pk}"

    @property
    def rows(self) -> int:
        """How many rows have been looked at."""
        return self.created + self.updated + self.unchanged + self.mismatched + self.waiting + self.refused

    @property
    def percent(self) -> int:
        return 100 if self.state == self.State.DONE else 100 * self.read_to // max(self.received, 1)

    @property
    def is_open(self) -> bool:
        return self.finished_at is None


class UploadPart(models.Model):
    """A piece of a file, sealed: its rows may name people by their CI. Goes when its rows are in."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="parts", db_index=False)
    start = models.BigIntegerField(help_text="where it begins in the file, in bytes")
    size = models.PositiveIntegerField()
    sealed = models.BinaryField()

    class Meta:
        constraints = [
            models.UniqueConstraint(name="upload_part_is_there_once", fields=["upload", "start"]),
        ]

    def __str__(self) -> str:
        return f"{self.upload_id} {self.start}"


class UploadRefusal(models.Model):
    """A row that did not go in: which one, which column, and why, as a code with its values. Nothing of what stood there.
    Among the values, `also` is what else is wrong with it: a list of column, code and values."""

    upload = models.ForeignKey(Upload, on_delete=models.CASCADE, related_name="refusals", db_index=False)
    number = models.BigIntegerField(help_text="of the line, as an editor shows it")
    column = models.CharField(max_length=60, blank=True)
    code = models.CharField(max_length=20)
    values = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["number"]
        constraints = [
            models.UniqueConstraint(name="upload_row_is_refused_once", fields=["upload", "number"]),
        ]

    def __str__(self) -> str:
        return f"{self.number} {self.code}"


class CountingCode(models.Model):
    """A code by which one company may ask once, within minutes, how many hold this person's data."""

    WAY_BACK = datetime.timedelta(days=1)  # so long the page with the way back is there

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    person = models.ForeignKey(Person, on_delete=models.CASCADE, related_name="counting_codes")
    digest = models.CharField(max_length=64, unique=True, help_text="keyed, hexadecimal")
    made_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True, blank=True)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    service = models.ForeignKey(Service, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    return_uri = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="counting_code_is_used_by_a_company",
                condition=Q(used_at__isnull=True, organization__isnull=True)
                | Q(used_at__isnull=False, organization__isnull=False),
            ),
            models.CheckConstraint(
                name="counting_code_expires_after_it_is_made", condition=Q(expires_at__gt=F("made_at"))
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)
