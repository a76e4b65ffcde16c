"""Traces of looking: who at the regulator saw whose identity, when and why."""

from django.db import models
from django.db.models import Q

from providers.ids import uuid7

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
