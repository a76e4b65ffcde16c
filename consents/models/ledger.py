"""The append-only log (schema `ledger`, made by SQL) and the erasable index that searches it."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Organization

from .agreements import Consent, Subscription
from .people import Person


class LedgerEntry(models.Model):
    """One fact in the append-only log (기록): the leaf's bytes, with nothing personal in clear."""

    event_id = models.UUIDField(primary_key=True)
    entry = models.BinaryField()
    leaf_hash = models.BinaryField(help_text="computed by PostgreSQL itself: sha256(0x00 || entry)")
    event_type = models.TextField()
    created_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'ledger"."event'

    def __str__(self) -> str:
        return str(self.event_id)


class Disclosure(models.Model):
    """Salt and value of one field of one entry, encrypted; the only erasable part of the log."""

    pk = models.CompositePrimaryKey("event_id", "name")
    event_id = models.UUIDField()
    name = models.TextField()
    digest = models.TextField()
    ciphertext = models.BinaryField()
    subject_key_id = models.UUIDField(null=True)
    retain_until = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'ledger"."disclosure'

    def __str__(self) -> str:
        return f"{self.event_id} {self.name}"


class Leaf(models.Model):
    """The place of an entry in the tree."""

    leaf_index = models.BigIntegerField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    leaf_hash = models.BinaryField()
    sequenced_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'ledger"."leaf'

    def __str__(self) -> str:
        return str(self.leaf_index)


class SignedCheckpoint(models.Model):
    """A size and root that the signer signed (체크포인트); `note` is the signed note without cosignatures."""

    tree_size = models.BigIntegerField(primary_key=True)
    root_hash = models.BinaryField()
    note = models.TextField()
    signed_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'ledger"."checkpoint'

    def __str__(self) -> str:
        return str(self.tree_size)


class Cosignature(models.Model):
    """One witness's timed signature over a checkpoint."""

    pk = models.CompositePrimaryKey("tree_size", "key_name", "key_id", "cosigned_at")
    tree_size = models.BigIntegerField()
    key_name = models.TextField()
    key_id = models.BinaryField()
    cosigned_at = models.BigIntegerField(help_text="epoch seconds, as the witness signed them")
    line = models.TextField()
    received_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'ledger"."cosignature'

    def __str__(self) -> str:
        return f"{self.key_name} {self.tree_size}"


class Promise(models.Model):
    """A leaf that a receipt has promised and that has not yet been seen in the published tree."""

    event_id = models.UUIDField(primary_key=True)
    leaf_hash = models.BinaryField()
    due_at = models.DateTimeField()

    class Meta:
        managed = False
        db_table = 'ledger"."promise'

    def __str__(self) -> str:
        return str(self.event_id)


class Verification(models.Model):
    """One check of the log and what it found; the newest of each kind is what /readyz and the integrity page show."""

    class Kind(models.TextChoices):
        MONITOR = "monitor", _("공개된 타일만으로 확인")
        NIGHTLY = "nightly", _("데이터베이스 전체 다시 계산")
        SEQUENCER = "sequencer", _("기록에 번호 매기기")
        WITNESS = "witness", _("증인 확인")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=9, choices=Kind)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    size = models.BigIntegerField(help_text="leaves looked at")
    root_hash = models.CharField(max_length=64, blank=True, help_text="hexadecimal")
    findings = models.JSONField(
        default=list, help_text="what is wrong, as {code, detail}; empty: all is well"
    )

    class Meta:
        ordering = ["-finished_at"]
        indexes = [models.Index(name="verifications_by_kind", fields=["kind", "-finished_at"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.size}"

    @property
    def holds(self) -> bool:
        return not self.findings


class PersonKey(models.Model):
    """The data key under which a person's disclosures are encrypted; destroying it shreds them."""

    id = models.UUIDField(primary_key=True)
    person = models.OneToOneField(Person, on_delete=models.PROTECT, related_name="data_key")
    wrapped = models.BinaryField()

    def __str__(self) -> str:
        return str(self.pk)


class EntryIndex(models.Model):
    """What search, history and tracker read: an erasable projection of one entry's disclosures."""

    seq = models.BigAutoField(primary_key=True)
    event_id = models.UUIDField(unique=True)
    typ = models.CharField(max_length=30)
    at = models.DateTimeField()
    txn = models.UUIDField(null=True)
    # Without indexes of their own: each begins one of those below, and every entry pays for every index.
    person = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, related_name="entries", db_index=False
    )
    operator = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, related_name="+", db_index=False
    )
    party = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, related_name="+", db_index=False
    )
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, null=True, related_name="entries", db_index=False
    )
    consent = models.ForeignKey(
        Consent, on_delete=models.PROTECT, null=True, related_name="entries", db_index=False
    )
    jti = models.UUIDField(null=True)
    subject = models.CharField(max_length=28, blank=True, help_text="pairwise pseudonym p_…")
    actor_kind = models.CharField(max_length=12)
    actor_id = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=40, blank=True)

    class Meta:
        ordering = ["-seq"]
        indexes = [
            # history of a person; tracker of a subscription; every filter of the regulator's search, by keyset
            models.Index(name="entries_of_a_person", fields=["person", "-at", "-seq"]),
            models.Index(name="entries_of_a_subscription", fields=["subscription", "-at", "-seq"]),
            models.Index(name="entries_by_type", fields=["typ", "-at", "-seq"]),
            models.Index(name="entries_by_operator", fields=["operator", "-at", "-seq"]),
            models.Index(name="entries_by_party", fields=["party", "-at", "-seq"]),
            models.Index(name="entries_by_consent", fields=["consent", "-at", "-seq"]),
            models.Index(name="entries_by_subject", fields=["subject", "-at", "-seq"]),
            models.Index(name="entries_by_time", fields=["-at", "-seq"]),
            models.Index(name="entries_by_act", fields=["txn"]),
            models.Index(name="entries_by_actor", fields=["actor_kind", "actor_id", "-at", "-seq"]),
        ]

    def __str__(self) -> str:
        return f"{self.typ} {self.event_id}"
