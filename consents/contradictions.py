"""WRITES an erasure that is asked again: it was signed as done, and what was signed as erased is still there.

Until somebody signs for it anew, the organization counts among those that hold the person's data. What was asked, and
when, stays as it was; whoever calls tells the log which rows these are (`ids`), in the same transaction.
"""

import datetime
import uuid

from django.db.models import QuerySet

from consents.models import Consent, Delivery, Erasure, Subscription, Transfer


def seen(delivery: Delivery, *, at: datetime.datetime) -> list[uuid.UUID]:
    """Our look of that moment has found what `delivery` should have ended. Returns the ids of the rows asked again.

    A source may keep what is its own: what it shows says nothing about erasing."""
    if delivery.role == Delivery.Role.SOURCE:
        return []
    consents, subscriptions = reached(delivery)
    if delivery.role == Delivery.Role.OPERATOR:  # one consent that lives on is enough to hold
        subscriptions = Subscription.objects.filter(pk=delivery.subscription_id)
    return _ask_again(consents, subscriptions, at=at)


def flowed(transfer: Transfer, *, at: datetime.datetime) -> list[uuid.UUID]:
    """Data has reached `transfer.recipient` at that moment, after the stop. Returns the ids of the rows asked again."""
    consents = Consent.objects.filter(transfers=transfer)
    subscriptions = Subscription.objects.filter(pk=transfer.subscription_id, operator=transfer.recipient_id)
    return _ask_again(consents, subscriptions, at=at)


def _ask_again(consents, subscriptions, *, at: datetime.datetime) -> list[uuid.UUID]:
    """Of these rows those that were confirmed before that moment."""
    again: list[uuid.UUID] = []
    for rows in (consents, subscriptions):
        said = rows.filter(erasure=Erasure.CONFIRMED, erasure_confirmed_at__lt=at)
        ids = list(said.order_by("pk").values_list("pk", flat=True))
        rows.model.objects.filter(pk__in=ids).update(erasure=Erasure.REQUESTED, erasure_confirmed_at=None)
        again += ids
    return again


def reached(delivery: Delivery) -> tuple[QuerySet[Consent], QuerySet[Subscription]]:
    """The rows whose erasure this organization's word settles. Only the operator's word settles a subscription."""
    by_operator = delivery.role == Delivery.Role.OPERATOR
    consents = Consent.objects.filter(subscription=delivery.subscription_id)
    if delivery.consent_id:
        consents = consents.filter(pk=delivery.consent_id) if by_operator else consents.none()
    elif delivery.role == Delivery.Role.RECIPIENT:
        consents = consents.filter(recipient=delivery.organization_id)
    else:
        consents = consents.exclude(kind=Consent.Kind.THIRD_PARTY, recipient__in=_told(delivery))
    whole = by_operator and delivery.consent_id is None
    subscriptions = Subscription.objects.filter(pk=delivery.subscription_id)
    return consents, subscriptions if whole else subscriptions.none()


def is_asked_again(delivery: Delivery) -> bool:
    """Whether it was signed as erased, and what it should have erased has been found there since."""
    if (delivery.goal, delivery.state) != (Delivery.Goal.ERASED, Delivery.State.ERASED):
        return False
    return any(rows.filter(erasure=Erasure.REQUESTED).exists() for rows in reached(delivery))


def _told(delivery: Delivery):
    """Third parties that answer for themselves in this act."""
    return Delivery.objects.filter(txn=delivery.txn, role=Delivery.Role.RECIPIENT).values("organization_id")
