"""WRITES the health of channels: a breaker that every worker shares, and the verification events that test it.

Closed → open after so many failures in a row, or when half of the last twenty failed; an open one is probed when its time
is over and opens twice as long if the probe fails. A channel whose owner answered 410 is disabled until it is changed.
"""

import datetime
import uuid

import structlog
from django.db import transaction
from django.db.models import Q

from consents.models import Breaker, Delivery
from providers import policy, wires
from providers.models import Channel

log = structlog.get_logger(__name__)

WINDOW = 20  # tries that are remembered
# What says something about the channel. A refusal is an answer: the channel works.
_GOOD = {wires.SENT, wires.CHECK, wires.REFUSED}
_BAD = {wires.RETRY, wires.KEY, wires.BLOCKED}


def note(outcomes: dict[uuid.UUID, list[str]], *, at: datetime.datetime) -> None:
    """Take in the verdicts of a batch, by channel, oldest first. A channel that has recovered gets its dead messages back.

    Only a channel that is not well, or that fails, has a row that is locked: health costs nothing while all goes well."""
    if not outcomes:
        return
    known = set(Breaker.objects.filter(channel__in=outcomes).values_list("channel_id", flat=True))
    for channel, verdicts in sorted(outcomes.items()):
        if channel in known or any(verdict not in _GOOD for verdict in verdicts):
            _note(channel, verdicts, at=at)


@transaction.atomic
def _note(channel: uuid.UUID, verdicts: list[str], *, at: datetime.datetime) -> None:
    Breaker.objects.get_or_create(channel_id=channel, defaults={"changed_at": at})
    breaker = Breaker.objects.select_for_update().get(channel=channel)
    before = breaker.state
    for verdict in verdicts:
        if verdict == wires.GONE:
            breaker.state, breaker.open_until = Breaker.State.DISABLED, None
        elif verdict in _GOOD:
            _succeeded(breaker)
        elif verdict in _BAD:
            _failed(breaker, at=at)
    if breaker.state != before:
        breaker.changed_at = at
        log.warning("breaker", channel=str(channel), state=breaker.state, wait=breaker.wait)
    breaker.save()
    if breaker.state == Breaker.State.CLOSED and before != Breaker.State.CLOSED:
        recovered(channel, at=at)


def _succeeded(breaker: Breaker) -> None:
    breaker.in_row, breaker.recent = 0, (breaker.recent + ".")[-WINDOW:]
    if breaker.state != Breaker.State.CLOSED:
        breaker.state, breaker.open_until, breaker.wait = Breaker.State.CLOSED, None, 0
        breaker.recent = "."  # what failed before the opening says nothing about now


def _failed(breaker: Breaker, *, at: datetime.datetime) -> None:
    on = at.date()
    breaker.in_row += 1
    breaker.recent = (breaker.recent + "x")[-WINDOW:]
    if breaker.state == Breaker.State.DISABLED:
        return
    if breaker.state == Breaker.State.OPEN:
        if breaker.open_until and breaker.open_until > at:
            return  # was on its way when the breaker opened
        longest = policy.number("BREAKER_LONGEST_MINUTES", on=on) * 60
        _open(breaker, min(breaker.wait * 2, longest), at=at)
    elif breaker.in_row >= policy.number("BREAKER_FAILURES", on=on) or (
        len(breaker.recent) == WINDOW and breaker.recent.count("x") * 2 >= WINDOW
    ):
        _open(breaker, policy.number("BREAKER_OPEN_SECONDS", on=on), at=at)


def _open(breaker: Breaker, seconds: int, *, at: datetime.datetime) -> None:
    breaker.state, breaker.wait = Breaker.State.OPEN, seconds
    breaker.open_until = at + datetime.timedelta(seconds=seconds)


def recovered(channel: uuid.UUID, *, at: datetime.datetime) -> int:
    """The endpoint is well again: what waits for it, given up or not, is tried now. Returns how many messages."""
    waiting = Delivery.objects.filter(
        Q(state="dead") | Q(state="retrying"),
        organization__channels=channel,
        next_at__gt=at,
        lease_until__isnull=True,
    )
    ids = list(waiting.order_by("id").values_list("pk", flat=True)[:10_000])
    return Delivery.objects.filter(pk__in=ids, next_at__gt=at).update(next_at=at)


def due_for_verification(*, at: datetime.datetime, limit: int) -> list[Channel]:
    """Open channels that were not tested for a day, and those whose breaker waits for a probe; oldest first."""
    every = datetime.timedelta(hours=policy.number("VERIFY_EVERY_HOURS", on=at.date()))
    asked = (
        Q(breaker__isnull=True)
        | Q(breaker__verified_at__isnull=True)
        | Q(breaker__verified_at__lte=at - every)
        | Q(breaker__state=Breaker.State.OPEN, breaker__open_until__lte=at)
    )
    rested = Q(breaker__isnull=True) | Q(breaker__open_until__isnull=True) | Q(breaker__open_until__lte=at)
    return list(
        Channel.objects.filter(asked & rested, state=Channel.State.OPEN)
        .exclude(breaker__state=Breaker.State.DISABLED)
        .prefetch_related("keys")
        .order_by("breaker__verified_at", "id")[:limit]
    )


def verified(channel: Channel, verdict: str, *, at: datetime.datetime) -> None:
    """Take in the answer to a verification event. A failed one counts as a failed try and is asked again later."""
    _note(channel.pk, [verdict], at=at)
    if verdict in _GOOD:
        Breaker.objects.filter(channel=channel).update(verified_at=at)
