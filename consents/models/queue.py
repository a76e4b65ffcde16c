"""What is still to be sent, kept slim beside the deliveries: the database writes it whenever a delivery is owed or moves."""

import datetime
import uuid
from dataclasses import dataclass

from django.db import models
from django.db.models import Q

from providers.models import Organization

from .agreements import Subscription
from .obligations import Delivery


class Outgoing(models.Model):
    """One row for each delivery that is to be tried (again). Written by a trigger on Delivery alone, so that the two never
    disagree; read by whoever claims. A national day's ending puts millions of rows here, which must move cheaply."""

    delivery = models.OneToOneField(
        Delivery, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="outgoing"
    )
    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    subscription = models.ForeignKey(
        Subscription, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    next_at = models.DateTimeField()
    in_order = models.BooleanField(help_text="later messages about the subscription wait for it")
    stop_since = models.DateTimeField(
        null=True, help_text="when the stop was owed; null for news about grants"
    )

    class Meta:
        verbose_name_plural = "outgoing"
        indexes = [
            # propagation.claim: the oldest due of each organization
            models.Index(name="outgoing_by_organization", fields=["organization", "next_at", "delivery"]),
            # propagation.claim: order within one subscription and party
            models.Index(
                name="outgoing_in_order",
                fields=["subscription", "organization", "delivery"],
                condition=Q(in_order=True),
            ),
        ]

    def __str__(self) -> str:
        return str(self.delivery_id)


class Lease(models.Model):
    """A delivery in one worker's hands until the lease ends; then it is anybody's. A handful of rows for each worker."""

    delivery = models.OneToOneField(
        Delivery, on_delete=models.CASCADE, primary_key=True, db_constraint=False, related_name="lease"
    )
    organization = models.ForeignKey(
        Organization, on_delete=models.CASCADE, db_constraint=False, db_index=False, related_name="+"
    )
    token = models.UUIDField()
    until = models.DateTimeField()
    tries = models.PositiveSmallIntegerField(help_text="that nothing was heard of, and this one")

    def __str__(self) -> str:
        return f"{self.delivery_id} until {self.until:%H:%M:%S}"


@dataclass(slots=True)
class Claimed:
    """A delivery as one worker holds it, under one lease: what it takes to send it, to record what comes of it, and to write
    the entry that says so. `attempts` counts this one; `owed_since` are seconds since 1970."""

    pk: int
    jti: uuid.UUID
    txn: uuid.UUID
    person_id: uuid.UUID
    subscription_id: uuid.UUID
    operator_id: uuid.UUID
    consent_id: uuid.UUID | None
    organization_id: uuid.UUID
    organization_code: str
    role: str
    event: str
    goal: str
    state: str
    version: int
    body: str
    overtaken: bool
    replay_of_id: int | None
    handle: str
    attempts: int
    owed_since: float
    dead_at: datetime.datetime | None
    key_fault_at: datetime.datetime | None
    lease_token: str
