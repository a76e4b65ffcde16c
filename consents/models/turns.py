"""What may happen once, and how often somebody has come: kept in PostgreSQL, so that it holds while the cache is down."""

from django.db import models


class SpentId(models.Model):
    """An id that was used and may not be used again before `until`, when what carried it is worthless anyway: the `jti` of
    a client's assertion or of a DPoP proof."""

    digest = models.CharField(primary_key=True, max_length=64, help_text="SHA-256 of its kind, owner and id")
    until = models.DateTimeField()

    class Meta:
        indexes = [models.Index(name="spent_ids_by_end", fields=["until"])]

    def __str__(self) -> str:
        return self.digest


class Turn(models.Model):
    """How often somebody has come since the window began. The table is not logged: a crash of the server forgets a minute,
    and no count costs a write to disk."""

    digest = models.CharField(
        primary_key=True, max_length=64, help_text="SHA-256 of the kind and of who it is"
    )
    began_at = models.DateTimeField()
    count = models.PositiveIntegerField()

    class Meta:
        indexes = [models.Index(name="turns_by_age", fields=["began_at"])]

    def __str__(self) -> str:
        return self.digest
