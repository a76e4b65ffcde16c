"""WRITES an erasure that is asked again: it was signed as done, and what was signed as erased is still there.

Until somebody signs for it anew, the organization counts among those that hold the person's data. What was asked, and
when, stays as it was; whoever calls tells the log which rows these are (`ids`), and asks the organization again
(`ask_again`), in the same transaction.
"""

import datetime
import uuid
from collections.abc import Collection, Iterable

from django.db.models import QuerySet

from consents import ledger, messages, parties, propagation
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Check, Consent, Delivery, Erasure, Subscription, Transfer
from providers.models import Organization


def seen(delivery: Delivery, *, at: datetime.datetime) -> list[uuid.UUID]:
    """Our look of that moment has found what `delivery` should have ended. Returns the ids of the rows asked again.

    A source may keep what is its own: what it shows says nothing about erasing."""
    if delivery.role == Delivery.Role.SOURCE:
        return []
    consents, subscriptions = reached(delivery)
    if delivery.role == Delivery.Role.OPERATOR:  # one consent that lives on is enough to hold
        subscriptions = Subscription.objects.filter(pk=delivery.subscription_id)
    return _undo(consents, subscriptions, at=at)


def listed(consents: Iterable[Consent], look: Check, *, by: Actor, at: datetime.datetime) -> list[uuid.UUID]:
    """These ended consents of one subscription were listed as live when we asked at that moment. `look` says so, unsaved, of
    the stop that was signed as erased, and is kept where it contradicts that. Returns the ids of the rows asked again."""
    organization = look.delivery.organization_id
    held = [one.pk for one in consents if organization in (one.subscription.operator_id, one.recipient_id)]
    about = Consent.objects.filter(pk__in=held)
    subscriptions = Subscription.objects.filter(consents__in=held, operator=organization).distinct()
    if any(_said(rows, at=at).exists() for rows in (about, subscriptions)):
        look.save()
    return _undo(about, subscriptions, at=at)


def flowed(transfer: Transfer, *, at: datetime.datetime) -> list[uuid.UUID]:
    """Data has reached `transfer.recipient` at that moment, after the stop. Returns the ids of the rows asked again."""
    consents = Consent.objects.filter(transfers=transfer)
    subscriptions = Subscription.objects.filter(pk=transfer.subscription_id, operator=transfer.recipient_id)
    return _undo(consents, subscriptions, at=at)


def _undo(consents, subscriptions, *, at: datetime.datetime) -> list[uuid.UUID]:
    """Of these rows those that were confirmed before that moment."""
    again: list[uuid.UUID] = []
    for rows in (consents, subscriptions):
        ids = list(_said(rows, at=at).order_by("pk").values_list("pk", flat=True))
        rows.model.objects.filter(pk__in=ids).update(erasure=Erasure.REQUESTED, erasure_confirmed_at=None)
        again += ids
    return again


def _said(rows: QuerySet, *, at: datetime.datetime) -> QuerySet:
    """What was signed as erased before that moment."""
    return rows.filter(erasure=Erasure.CONFIRMED, erasure_confirmed_at__lt=at)


def ask_again(
    subscription: Subscription,
    ids: Collection[uuid.UUID],
    *,
    organization: Organization,
    by: Actor,
    at: datetime.datetime,
) -> None:
    """Owe the organization a message about these rows, an act with deadlines of its own: it can sign for them there that they
    are erased now, or lawfully kept. `subscription` is locked."""
    consents = list(
        Consent.objects.filter(pk__in=ids).select_related("source", "recipient").order_by("granted_at", "pk")
    )
    whole = subscription.pk in ids or organization.pk != subscription.operator_id
    parts = [(None, consents)] if whole else [(one, [one]) for one in consents]
    for consent, about in parts if ids else ():
        _owe(subscription, about, consent, organization=organization, by=by, at=at)


def _owe(
    subscription: Subscription,
    about: list[Consent],
    consent: Consent | None,
    *,
    organization: Organization,
    by: Actor,
    at: datetime.datetime,
) -> None:
    Role = Delivery.Role
    role = Role.OPERATOR if organization.pk == subscription.operator_id else Role.RECIPIENT
    signed = Delivery.objects.filter(
        subscription=subscription, organization=organization, event=messages.ERASURE_REQUESTED,
        state=Delivery.State.ERASED,
    )  # fmt: skip
    # Whose server signs each time for what is not so would be asked each time anew, for ever: then its people are asked.
    by_hand = signed.count() > 1 or not parties.wired([organization.pk])
    duty = parties.Duty(organization, role, Delivery.Goal.ERASED, about, by_hand)
    subscription.version += 1
    subscription.save(update_fields=["version"])
    txn = messages.new_id()
    said = facts.of_erasure(subscription, asked=[], consent=consent, owed=[duty])
    [entry] = ledger.append([said], by=by, at=at, txn=txn)
    propagation.owe(
        [duty], event=messages.ERASURE_REQUESTED, subscription=subscription, txn=txn, at=at,
        leaf_hash=entry.leaf_hash, reason=(consent or subscription).end_reason, consent=consent,
    )  # fmt: skip


def asked_anew(delivery: Delivery) -> uuid.UUID | None:
    """The id of the open message by which the organization was asked again for the very rows it had signed as erased here."""
    if (delivery.goal, delivery.state) != (Delivery.Goal.ERASED, Delivery.State.ERASED):
        return None
    later = Delivery.objects.filter(
        subscription=delivery.subscription_id, organization=delivery.organization_id, pk__gt=delivery.pk,
        event=messages.ERASURE_REQUESTED, goal=Delivery.Goal.ERASED, closed_at__isnull=True,
        consent=delivery.consent_id, replay_of__isnull=True,
    )  # fmt: skip
    return later.order_by("pk").values_list("jti", flat=True).last()


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


def _told(delivery: Delivery):
    """Third parties of the subscription that were told to erase: they answer for themselves."""
    told = Delivery.objects.filter(subscription=delivery.subscription_id, role=Delivery.Role.RECIPIENT)
    return told.filter(goal=Delivery.Goal.ERASED).values("organization_id")
