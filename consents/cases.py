"""WRITES cases: a difference between what somebody says and what the log says, opened once and closed with a reason."""

import datetime
import uuid
from typing import Any

from django.db import transaction

from consents.actors import Actor
from consents.models import Case, Consent, Person, Subscription
from providers.models import Organization


class AlreadySettled(Exception):
    """Somebody has settled the case before."""


def open_case(
    kind: str,
    organization: Organization,
    *,
    matter: str,
    stated: dict[str, Any],
    known: dict[str, Any],
    person: Person | None = None,
    subscription: Subscription | None = None,
    consent: Consent | None = None,
    by: Actor,
    at: datetime.datetime,
) -> tuple[Case, bool]:
    """The open case of this kind about `matter`, and whether it is a new one. Twice, also at once, is once."""
    with transaction.atomic():
        return Case.objects.get_or_create(
            kind=kind,
            organization=organization,
            matter=matter[:160],
            settled_at=None,
            defaults={
                "person": person,
                "subscription": subscription,
                "consent": consent,
                "stated": stated,
                "known": known,
                "opened_at": at,
            },
        )


def close(case: Case, *, verb: str, reason: str, by: Actor, at: datetime.datetime) -> Case:
    """Settle the locked row in memory and in the table. Raises AlreadySettled."""
    if not Case.objects.filter(pk=case.pk, settled_at=None).update(
        verb=verb, reason=reason[:300], settled_at=at, settled_by_id=_person_of(by)
    ):
        raise AlreadySettled(str(case.pk))
    case.refresh_from_db()
    return case


def _person_of(by: Actor) -> uuid.UUID | None:
    """Whoever acted; nobody where a server or a job did."""
    try:
        return uuid.UUID(by.id)
    except ValueError:
        return None
