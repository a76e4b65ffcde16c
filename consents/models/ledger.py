"""The append-only log (schema `ledger`, made by SQL) and the erasable index that searches it."""

from django.db import models

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
    person = models.ForeignKey(Person, on_delete=models.PROTECT, null=True, related_name="entries")
    operator = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    party = models.ForeignKey(Organization, on_delete=models.PROTECT, null=True, related_name="+")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, null=True, related_name="entries"
    )
    consent = models.ForeignKey(Consent, on_delete=models.PROTECT, null=True, related_name="entries")
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
