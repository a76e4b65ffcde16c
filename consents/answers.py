"""WRITES what organizations answer: received, stopped, erased, or lawfully kept; and what that means for an erasure."""

import datetime
import uuid

from django.db import transaction
from django.db.models import Q

from consents import checks, contradictions, ledger, messages
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Delivery, Evidence
from consents.parties import RANK
from consents.steps import advance, close_replays, first_ids, first_word, locked, receive, write_entry


class UnknownDelivery(Exception):
    """No such delivery for this organization."""


class WrongOrder(Exception):
    """The statement goes backwards, or speaks of something that was not asked."""


class IdReused(Exception):
    """The evidence id was used before for other bytes."""


def acknowledge(jti: uuid.UUID, *, organization, by: Actor, at: datetime.datetime) -> Delivery:
    """The organization says it has received the message. Early and double answers are fine.

    Raises UnknownDelivery when the id is not one of this organization's."""
    first = first_id(jti)
    found = receive([first], organization=organization, by=by, at=at)
    if not found:
        raise UnknownDelivery(str(jti))
    return found[0]


def note_result(
    delivery: Delivery, *, organization, code: str, digest: str, by: Actor, at: datetime.datetime
) -> Delivery:
    """The organization reports what came of a stop, unsigned: that it heard of it is believed, that it stopped is not.

    Kept are its `code` and, in the log, the `digest` of what it sent (`sha256:…`); it is asked at once (read-back) what is
    true. Raises UnknownDelivery."""
    with transaction.atomic():
        delivery = _own(delivery.jti, organization)
        if RANK.get(delivery.state, 0) < RANK["received"]:
            _forward(delivery, Delivery.State.RECEIVED, at=at)
        spoken = first_word([delivery], by=by, at=at)
        if (
            spoken or delivery.state == Delivery.State.RECEIVED
        ):  # also a second report, which may say otherwise
            write_entry(delivery, "delivery.received", state=delivery.state, by=by, at=at, evd=digest)
        delivery.last_error, delivery.check_at = f"result {code}"[:300], at
        delivery.save(update_fields=["last_error", "check_at"])
    return delivery


def complete(
    delivery_jti: uuid.UUID,
    *,
    organization,
    evidence: Evidence,
    basis: str = "",
    by: Actor,
    at: datetime.datetime,
) -> Delivery:
    """The organization proves that it stopped, erased, or lawfully keeps (status `retained`, with `basis`).

    `evidence` is an unsaved row; it is saved with the change. Raises UnknownDelivery, or WrongOrder when the
    statement goes backwards, nothing was to be stopped, or erasing was never asked but is refused. Who signed that it
    erased, and was found out, is asked again by another message: what it signs under the old id answers that one."""
    with transaction.atomic():
        delivery = _own(delivery_jti, organization)
        if anew := contradictions.asked_anew(delivery):
            delivery = _own(anew, organization)
        close_replays([delivery], by=by, at=at)
        if delivery.goal == Delivery.Goal.RECEIVED:
            raise WrongOrder("nothing was to be stopped")
        if evidence.status == Evidence.Status.RETAINED:
            _refuse(delivery, basis=basis, at=at)
        elif RANK.get(delivery.state, 0) < RANK[evidence.status]:
            _forward(delivery, evidence.status, at=at)
        elif not _only_seen(delivery, evidence.status):
            raise WrongOrder(f"the delivery is already {delivery.state}")
        evidence.delivery, evidence.organization, evidence.received_at = delivery, organization, at
        evidence.save(force_insert=True)
        if evidence.status != Evidence.Status.RETAINED:
            write_entry(
                delivery,
                f"delivery.{evidence.status}",
                state=evidence.status,
                by=by,
                at=at,
                evd=evidence.digest,
            )
        # Who was asked to stop only (every source) may say that it erased too; that settles nobody else's erasure.
        if delivery.goal == Delivery.Goal.ERASED and evidence.status in {
            Evidence.Status.ERASED,
            Evidence.Status.RETAINED,
        }:
            _settle_erasure(delivery, evidence, basis=basis, by=by, at=at)
        if delivery.event == messages.ERASURE_REQUESTED and evidence.status == Evidence.Status.ERASED:
            _look_again(delivery, at=at)
    return delivery


def _look_again(delivery: Delivery, *, at: datetime.datetime) -> None:
    """What was signed before, and may have been found undone, is looked at along with it."""
    soonest = checks.soonest(at=at)
    before = Delivery.objects.filter(
        subscription=delivery.subscription_id, organization=delivery.organization_id, pk__lt=delivery.pk
    )
    before.filter(state=Delivery.State.ERASED, check_at__gt=soonest).update(check_at=soonest)


def _own(jti: uuid.UUID, organization) -> Delivery:
    found = locked([first_id(jti)], organization)
    if not found:
        raise UnknownDelivery(str(jti))
    return found[0]


def first_id(jti: uuid.UUID) -> uuid.UUID:
    """The delivery's own id, where its message was signed anew, or sent once more, under this one."""
    return first_ids([jti]).get(jti, jti)


def _forward(delivery: Delivery, state: str, *, at) -> None:
    advance(delivery, state, at=at)
    delivery.save()


def _only_seen(delivery: Delivery, status: str) -> bool:
    """Whether it stands there by our own look, so that saying it is no step backwards: their word is kept beside it."""
    return delivery.state == status and status in checks.seen(checks.looked([delivery.pk])[delivery.pk])


def _refuse(delivery: Delivery, *, basis: str, at) -> None:
    if (
        delivery.goal != Delivery.Goal.ERASED
        or delivery.state == Delivery.State.ERASED
        or delivery.refused_at
    ):
        raise WrongOrder("erasing was not asked, or has been answered already")
    keep_refusal(delivery, basis=basis, at=at)
    delivery.save()


def keep_refusal(delivery: Delivery, *, basis: str, at: datetime.datetime) -> None:
    """The unsaved row says: stopped, and lawfully kept."""
    if RANK.get(delivery.state, 0) < RANK["stopped"]:
        advance(delivery, Delivery.State.STOPPED, at=at)
    delivery.refused_at = delivery.closed_at = at
    delivery.refusal, delivery.due_at = basis[:300], None


def _settle_erasure(delivery: Delivery, evidence: Evidence, *, basis: str, by: Actor, at) -> None:
    """Write the erasure's outcome on the rows it was asked for."""
    confirmed = evidence.status == Evidence.Status.ERASED
    changes = (
        {"erasure": "confirmed", "erasure_confirmed_at": at}
        if confirmed
        else {"erasure": "refused", "erasure_refusal": basis[:300]}
    )
    asked = Q(erasure="requested") | Q(erasure="refused") if confirmed else Q(erasure="requested")
    settled: list[uuid.UUID] = []
    for rows in contradictions.reached(delivery):
        ids = list(rows.filter(asked).order_by("pk").values_list("pk", flat=True))
        rows.model.objects.filter(pk__in=ids).update(**changes)
        settled += ids
    fact = facts.of_settlement(delivery, evidence, settled=settled, basis=basis)
    ledger.append([fact], by=by, at=at, txn=delivery.txn)
