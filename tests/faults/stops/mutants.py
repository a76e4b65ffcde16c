"""Faults put into the portal on purpose, one at a time (MUTANT names it): an experiment that holds under one is no experiment.

Applied in the processes of the experiments only. Each stands on the functions that propagation is known by, not on how they
are written.
"""

import asyncio
import dataclasses
import functools

from django.db import transaction
from django.db.models import Max
from django.utils import timezone

from consents import parties, propagation, routes
from consents.models import Delivery, Lease
from providers import outbound


def send_before_commit() -> None:
    """F02: the message leaves while the act may still be rolled back."""
    right = propagation.owe

    def owe(owed, **options):
        rows = right(owed, **options)
        reached, letters = routes.routes(row.organization_id for row in rows), routes.letters(rows)

        async def send():
            async with outbound.open_session() as session:
                for row in rows:
                    route, at = reached[row.organization_id], int(timezone.now().timestamp())
                    await route.wire.send(session, message=letters[row.pk], endpoint=route.endpoint, now=at)

        asyncio.run(send())
        return rows

    propagation.owe = owe


def forgets_the_source() -> None:
    """F01: only the operator and third parties are told."""
    right = parties.needed

    @functools.wraps(right)
    def needed(*args, **options):
        return [duty for duty in right(*args, **options) if duty.role != "source"]

    parties.needed = needed


def silence_is_an_answer() -> None:
    """F06: a call that brought no answer counts as one that arrived."""
    right = propagation.record_all

    def record_all(attempts, **options):
        for attempt in attempts:
            if attempt.outcome.verdict == "retry" and attempt.outcome.status is None:
                attempt.outcome = dataclasses.replace(attempt.outcome, verdict="sent")
        return right(attempts, **options)

    propagation.record_all = record_all


def watermark() -> None:
    """F02: claims what is newer than what was claimed before, instead of what waits."""
    right = propagation.claim

    def claim(**options):
        seen = max(
            Delivery.objects.filter(attempts__gt=0).aggregate(last=Max("pk"))["last"] or 0,
            Lease.objects.aggregate(last=Max("pk"))["last"] or 0,
        )
        rows = right(**options)
        passed = [row.pk for row in rows if row.pk < seen and row.attempts == 1]
        Lease.objects.filter(pk__in=passed).delete()
        return [row for row in rows if row.pk not in passed]

    propagation.claim = claim


def no_lease_token() -> None:
    """F01: whoever comes last writes what came of it, though somebody else has taken the row meanwhile."""
    right = propagation.record_all

    def record_all(attempts, *, at):
        with transaction.atomic():
            for attempt in attempts:
                row = attempt.delivery
                Delivery.objects.filter(pk=row.pk).update(state="queued", next_at=at)
                Lease.objects.update_or_create(
                    pk=row.pk,
                    defaults={
                        "token": row.lease_token,
                        "until": at,
                        "tries": 1,
                        "organization_id": row.organization_id,
                    },
                )
            return right(attempts, at=at)

    propagation.record_all = record_all


def apply(name: str) -> None:
    globals()[name]()
