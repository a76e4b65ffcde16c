"""WRITES what organizations tell us unasked: something has ended over there, or what came of a stop of ours.

Whoever calls has checked who speaks (a wire's `verify_inbound`). Here each message counts once, and means only what its
organization may end: its own flow as a source, its own service as an operator, what it receives as a third party.
"""

import datetime
import hashlib
import uuid

import structlog
from django.db import transaction
from django.db.models import Q

from consents import answers, lifecycle, references
from consents.actors import Actor
from consents.ledger.entries import SEOUL
from consents.models import Consent, Delivery, EndReason, InboundMessage, Reference, Subscription
from providers import policy, registry, wires
from providers.models import Organization, Service

log = structlog.get_logger(__name__)

# Kinds of identifiers that are our own; a partner may use its own name of a consent as well.
OUR_CONSENT, OUR_SUBSCRIPTION = "our consent", "our subscription"
BATCH = 1000  # messages that are forgotten in one statement
FORGOTTEN = 100_000  # messages that are forgotten in one run
Ending = tuple[Consent | Subscription, str]  # and why


class Unknown(Exception):
    """Nothing of ours that this organization could mean by it. Another organization's is as unknown as what never was."""


class Reused(Exception):
    """The id was used before for other bytes."""


def ended(
    organization: Organization,
    message: wires.Inbound,
    *,
    kind: str,
    raw: bytes,
    by: Actor,
    at: datetime.datetime,
) -> bool:
    """The other side has ended what it calls `message.identifier` (a reference of this kind, or our own id): so it ends here.

    One transaction. False for a message that came before, and nothing is changed. Raises Unknown, Reused."""
    with transaction.atomic():
        if not _is_new(organization, message.jti, raw, at=at):
            return False
        endings = _meant(organization, kind, message.identifier)
        if not endings:
            log.warning("inbound names nothing", organization=organization.code, code=message.happened)
            raise Unknown(message.identifier)
        for what, reason in endings:
            lifecycle.ended_by(what, reason=reason, by=by, at=at)
    return True


def result(
    organization: Organization,
    message: wires.Inbound,
    *,
    kind: str,
    raw: bytes,
    by: Actor,
    at: datetime.datetime,
) -> bool:
    """What came of the newest stop of ours that it calls `message.identifier`: noted, and asked back at once.

    False for a message that came before. Raises Unknown, Reused."""
    with transaction.atomic():
        if not _is_new(organization, message.jti, raw, at=at):
            return False
        delivery = _stop(organization, kind, message.identifier)
        if delivery is None:
            log.warning("inbound names nothing", organization=organization.code, code=message.happened)
            raise Unknown(message.identifier)
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        answers.note_result(
            delivery, organization=organization, code=message.result, digest=digest, by=by, at=at
        )
    return True


def heard(
    organization: Organization, message: wires.Inbound, *, raw: bytes, by: Actor, at: datetime.datetime
) -> bool:
    """A message that changes nothing (a test of the line). False where it came before. Raises Reused."""
    with transaction.atomic():
        return _is_new(organization, message.jti, raw, at=at)


# --- said by their own server or admin ---------------------------------------------------------------------------------

# What an organization may give as its reason, by its part in what it ends.
REASONS: dict[str, tuple[str, ...]] = {
    EndReason.SOURCE_LEFT: (EndReason.SOURCE_LEFT, EndReason.ACCOUNT_CLOSED),
    EndReason.OPERATOR_CLOSED: (EndReason.OPERATOR_CLOSED, EndReason.ACCOUNT_CLOSED),
}
CLOSED_AT_ONCE = 200  # subscriptions of closed services that end in one run


class WrongReason(ValueError):
    """Not a reason that this organization can have."""


def end(
    organization: Organization,
    *,
    kind: str,
    identifier: str,
    reason: str = "",
    by: Actor,
    at: datetime.datetime,
) -> int:
    """The organization ends what it calls so, by our id: a consent, or of a subscription what it may end. How many ended; 0 where
    all of it had ended before. Everybody else is told, the person gets a notice, the organization is not called back.

    Raises Unknown, WrongReason."""
    with transaction.atomic():
        endings = _meant(organization, kind, identifier)
        if not endings:
            raise Unknown(identifier)
        return _end_all(endings, reason=reason, by=by, at=at)


def end_customer(
    organization: Organization, *, subject: uuid.UUID, service: Service | None = None, reason: str = "", by: Actor,
    at: datetime.datetime,
) -> int:  # fmt: skip
    """The customer whom messages call `subject` has left: an operator ends their live subscriptions (of this service only, where
    one is named), a source what it sends of them. How many ended. Raises Unknown, WrongReason."""
    live = Subscription.objects.live().filter(person__subject_id=subject)
    own = live.filter(operator=organization)
    if service is not None:
        own = own.filter(service=service)
    endings: list[Ending] = [(row, EndReason.OPERATOR_CLOSED) for row in own.order_by("pk")]
    if service is None:
        flows = Consent.objects.live().filter(source=organization, subscription__in=live)
        flows = flows.exclude(subscription__operator=organization)
        endings += [
            (row, EndReason.SOURCE_LEFT) for row in flows.select_related("subscription").order_by("pk")
        ]
    if not endings:
        raise Unknown(str(subject))
    with transaction.atomic():
        return _end_all(endings, reason=reason, by=by, at=at)


def _end_all(endings: list[Ending], *, reason: str, by: Actor, at: datetime.datetime) -> int:
    if reason and any(reason not in REASONS[own] for _what, own in endings):
        raise WrongReason(reason)
    return sum(lifecycle.ended_by(what, reason=reason or own, by=by, at=at) for what, own in endings)


def close_service(service: Service, *, by: Actor, at: datetime.datetime) -> int:
    """The operator closes a service: nobody joins from now on, and whoever is subscribed is ended by and by (`end_closed`), with a
    message to every source and a notice to the person. How many that is. Again is no change."""
    with transaction.atomic():
        registry.close_service(service=service, by=by, at=at)
        return Subscription.objects.live().filter(service=service).count()


def end_closed(*, at: datetime.datetime, limit: int = CLOSED_AT_ONCE) -> int:
    """End at most `limit` subscriptions of closed services, each in a transaction of its own; safe to run twice at once. How many."""
    closed = (
        Subscription.objects.live().filter(service__state=Service.State.CLOSED).select_related("operator")
    )
    return sum(
        lifecycle.ended_by(
            row,
            reason=EndReason.OPERATOR_CLOSED,
            by=Actor.organization(row.operator),
            at=max(at, row.joined_at),
        )
        for row in closed.order_by("pk")[:limit]
    )


def _is_new(organization: Organization, jti: str, raw: bytes, *, at: datetime.datetime) -> bool:
    """Whether this is the first time. Of two at the same moment the second waits for the first. Raises Reused."""
    digest = hashlib.sha256(raw).hexdigest()
    known, new = InboundMessage.objects.get_or_create(
        organization=organization, jti=jti, defaults={"digest": digest, "at": at}
    )
    if known.digest != digest:
        log.warning("inbound id reused", organization=organization.code)
        raise Reused(jti)
    return new


def forget_old(*, at: datetime.datetime, limit: int = FORGOTTEN) -> int:
    """Forget messages older than INBOUND_MEMORY_DAYS, in batches, at most `limit` a run. Returns how many.

    Whoever sends one again after that changes nothing: what it ended has ended for ever. Rows come in the order of time, so
    the oldest are looked at by their key and nothing else is read."""
    day = at.astimezone(SEOUL).date()
    until = at - datetime.timedelta(days=policy.number("INBOUND_MEMORY_DAYS", on=day))
    gone = 0
    while gone < limit:
        oldest = InboundMessage.objects.order_by("pk").values_list("pk", flat=True)[
            : min(BATCH, limit - gone)
        ]
        done = InboundMessage.objects.filter(pk__in=list(oldest), at__lt=until).delete()[0]
        gone += done
        if not done:
            break
    return gone


def _meant(organization: Organization, kind: str, identifier: str) -> list[Ending]:
    """What ends, and why: all of it is this organization's to end."""
    consent, subscription = _by_our_id(kind, identifier)
    if consent is None and subscription is None:
        reference = references.named(organization, "consent" if kind == OUR_CONSENT else kind, identifier)
        if reference is None:
            return []
        consent, subscription = reference.consent, reference.subscription
    if consent is not None:
        reason = _reason(organization, consent)
        return [(consent, reason)] if reason else []
    if subscription is None:
        return []
    if subscription.operator_id == organization.pk:
        return [(subscription, EndReason.OPERATOR_CLOSED)]
    flows = Consent.objects.filter(
        Q(source=organization) | Q(recipient=organization), subscription=subscription
    )
    return [
        (flow, _reason(organization, flow)) for flow in flows.select_related("subscription").order_by("pk")
    ]


def _reason(organization: Organization, consent: Consent) -> str:
    """Why a consent ends when this organization ends it; empty where it has no part in it."""
    if consent.subscription.operator_id == organization.pk or consent.recipient_id == organization.pk:
        return EndReason.OPERATOR_CLOSED
    return EndReason.SOURCE_LEFT if consent.source_id == organization.pk else ""


def _by_our_id(kind: str, identifier: str) -> tuple[Consent | None, Subscription | None]:
    try:
        pk = uuid.UUID(identifier)
    except ValueError:
        return None, None
    if kind == OUR_CONSENT:
        return Consent.objects.select_related("subscription").filter(pk=pk).first(), None
    if kind == OUR_SUBSCRIPTION:
        return None, Subscription.objects.filter(pk=pk).first()
    return None, None


def ci_of(organization: Organization, kind: str, identifier: str) -> str | None:
    """The CI by which this organization knows the person that a reference of theirs is about."""
    reference = references.named(organization, kind, identifier)
    if reference is None:
        return None
    named = Reference.objects.filter(organization=organization, person=reference.person, kind="ci").first()
    return references.opened(named) if named else None


def _stop(organization: Organization, kind: str, identifier: str) -> Delivery | None:
    """The newest stop owed to this organization for what it calls `identifier`."""
    reference = references.named(organization, kind, identifier)
    if reference is None or reference.subscription is None:
        return None
    stops = Delivery.objects.filter(
        organization=organization, subscription=reference.subscription, replay_of__isnull=True
    ).exclude(goal=Delivery.Goal.RECEIVED)
    if reference.consent is not None:
        stops = stops.filter(Q(consent=reference.consent) | Q(consent__isnull=True))
    return stops.order_by("-pk").first()
