"""WRITES what was handed over by poll (RFC 8936), and what a receiver says it could not read.

Polling is open to every organization beside its channel: whatever is not acknowledged yet is offered, oldest first, and
again after POLL_AGAIN_SECONDS. Only an acknowledgement (`answers`) ends that; what was offered was not necessarily read.
"""

import datetime
import uuid

import structlog
from django.db import transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from consents import propagation, routes, steps
from consents.actors import Actor
from consents.models import Delivery
from consents.propagation import AlreadyWaiting
from providers import policy
from providers.models import ApiClient, Organization

__all__ = ["AlreadyWaiting", "note_unreadable", "offer", "send_again", "waiting"]

log = structlog.get_logger(__name__)

REPLAYS_PER_MINUTE = 10  # that one organization may ask for
LONGEST_ERROR = 300  # characters that are kept of what a receiver says


def _unanswered(organization: Organization) -> QuerySet[Delivery]:
    """Not acknowledged, however far the push has come; what a later stop made pointless is closed and left out."""
    return Delivery.objects.filter(
        organization=organization, received_at__isnull=True, closed_at__isnull=True
    )


def _due(organization: Organization, *, at: datetime.datetime) -> QuerySet[Delivery]:
    """What may be offered now: nothing that was offered a moment ago, and nothing that follows such a message about the
    same subscription, because these are read in order."""
    again = at - datetime.timedelta(seconds=policy.number("POLL_AGAIN_SECONDS", on=at.date()))
    before = _unanswered(organization).filter(
        subscription=OuterRef("subscription"), pk__lt=OuterRef("pk"), offered_at__gt=again
    )
    rested = Q(offered_at__isnull=True) | Q(offered_at__lte=again)
    return _unanswered(organization).filter(rested & ~Exists(before)).order_by("pk")


def waiting(organization: Organization, *, at: datetime.datetime) -> bool:
    """Whether a poll would be given anything now. One query."""
    return _due(organization, at=at).exists()


def offer(
    organization: Organization, *, most: int, by: Actor, at: datetime.datetime
) -> tuple[dict[str, str], bool]:
    """Up to `most` signed messages by their `jti`, oldest first, and whether there are more. A replay is offered under the
    id of its first."""
    with transaction.atomic():
        # One poll of an organization at a time, or two of its servers could be given one subscription's messages crosswise.
        ApiClient.objects.select_for_update(no_key=True, of=("self",)).get(
            organization=organization, kind=ApiClient.Kind.SERVER, retired_at__isnull=True
        )
        rows = list(_due(organization, at=at).select_related("replay_of")[: most + 1])
        given = rows[:most]
        Delivery.objects.filter(pk__in=[row.pk for row in given]).update(offered_at=at)
    newest = routes.reissued(given)
    said = [newest.get(row.replay_of_id or row.pk) or row.replay_of or row for row in given]
    return {str(one.jti): one.set_compact for one in said}, len(rows) > most


def note_unreadable(
    jti: uuid.UUID,
    *,
    organization: Organization,
    code: str,
    description: str,
    by: Actor,
    at: datetime.datetime,
) -> bool:
    """The receiver could not read or verify this message (RFC 8936 §2.6): kept for its admin to see, and offered again.

    False, and nothing kept, where the id is none of this organization's or was acknowledged already."""
    words = f"{code}: {description}" if description else code
    own = steps.first_ids([jti]).get(jti, jti)
    noted = Delivery.objects.filter(organization=organization, received_at__isnull=True, jti=own).update(
        last_error=words[:LONGEST_ERROR]
    )
    if noted:
        log.warning("message unreadable", jti=str(jti), organization=organization.code, code=code)
    return bool(noted)


def send_again(delivery: Delivery, *, by: Actor, at: datetime.datetime) -> Delivery:
    """An organization asks for a message once more: a new row, the same message. Raises AlreadyWaiting where it is on its way
    or waits at the desk."""
    if (delivery.replay_of or delivery).state == Delivery.State.MANUAL:
        raise AlreadyWaiting(str(delivery.jti))
    return propagation.replay(delivery, by=by, at=at)
