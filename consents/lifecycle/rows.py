"""The rows an act is about: fresh, and under one lock per subscription, which orders everything that happens to it."""

import datetime
import uuid

from consents.ledger.entries import SEOUL
from consents.models import Consent, Subscription
from providers.models import Organization
from providers.models.organizations import OPEN_STATUSES

from .refusals import AlreadyEnded, NotOpen


def day(at: datetime.datetime) -> datetime.date:
    """The date in Seoul of a moment."""
    return at.astimezone(SEOUL).date()


def check_licence(operator: Organization, *, at: datetime.datetime) -> None:
    """Raises NotOpen where the operator's licence is suspended, has ended, or never was."""
    if operator.status_on(day(at)) not in OPEN_STATUSES:
        raise NotOpen(operator.code)


def locked_subscription(subscription: Subscription) -> Subscription:
    """Fresh and locked: one lock per subscription orders everything that happens to it."""
    return (
        Subscription.objects.select_for_update(no_key=True, of=("self",))
        .select_related("person", "service", "operator", "terms")
        .get(pk=subscription.pk)
    )


def consents_of(subscription):
    return Consent.objects.filter(subscription=subscription).select_related(
        "source", "recipient", "person", "subscription"
    )


def consent_by_id(pk: uuid.UUID) -> Consent:
    related = (
        "source",
        "recipient",
        "terms_item",
        "person",
        "subscription__person",
        "subscription__service",
        "subscription__operator",
    )
    return Consent.objects.select_related(*related).get(pk=pk)


def locked_consent(consent: Consent) -> Consent:
    """A live consent, fresh, under its subscription's lock. Raises AlreadyEnded."""
    locked_subscription(consent.subscription)
    fresh = consent_by_id(consent.pk)
    if fresh.state == Consent.State.ENDED:
        raise AlreadyEnded(str(fresh.pk))
    return fresh
