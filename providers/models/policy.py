"""Numbers of the rules, dated, never constants in code."""

from django.db import models
from django.db.models import Q


class PolicyRule(models.Model):
    """One number of one rule from one day on, with the source that says so."""

    key = models.CharField(max_length=60)
    value = models.BigIntegerField()
    unit = models.CharField(max_length=20)
    effective_on = models.DateField()
    source = models.CharField(max_length=300)
    note = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["key", "-effective_on"]
        constraints = [
            models.UniqueConstraint(name="policy_rule_has_one_value_per_day", fields=["key", "effective_on"]),
            models.CheckConstraint(name="policy_rule_names_its_source", condition=~Q(source="")),
        ]

    def __str__(self) -> str:
        return f"{self.key}={self.value}"
