"""WRITES the health of channels: a breaker that every worker shares, and the verification events that test it.

Closed → open after so many failures in a row, or when half of the last twenty failed; an open one is probed when its time
is over and opens twice as long if the probe fails. A channel whose owner answered 410 is disabled until it is changed.
"""

import asyncio
import datetime
import secrets
import uuid
from collections.abc import Callable

import structlog
from django.db import connection, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Greatest

from consents import messages, routes
from consents.models import Breaker, Delivery, Outgoing
from providers import outbound, policy, wires
from providers.models import Channel

log = structlog.get_logger(__name__)

WINDOW = 20  # tries that are remembered
RETEST = datetime.timedelta(minutes=10)  # after a verification event that was not answered
# What says something about the channel. A refusal is an answer: the channel works.
_GOOD = {wires.SENT, wires.RECEIVED, wires.CHECK, wires.REFUSED}
_BAD = {wires.RETRY, wires.KEY, wires.BLOCKED}


def note(outcomes: dict[uuid.UUID, list[str]], *, at: datetime.datetime) -> None:
    """Take in the verdicts of a batch, by channel, oldest first. A channel that has recovered gets its dead messages back.

    Only a channel that is not well, or that fails, has a row that is locked: health costs nothing while all goes well."""
    if not outcomes:
        return
    with connection.cursor() as cursor:  # for every batch of every worker: not worth composing anew
        cursor.execute(
            "SELECT channel_id FROM consents_breaker WHERE channel_id = ANY (%s)", [list(outcomes)]
        )
        known = {channel for (channel,) in cursor.fetchall()}
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
        _recovered(channel, at=at)


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


def _recovered(channel: uuid.UUID, *, at: datetime.datetime) -> int:
    """The endpoint is well again: what waits for it, given up or not, is tried now. Returns how many messages."""
    waiting = Outgoing.objects.filter(
        delivery__state__in=["dead", "retrying"],
        organization__channels=channel,
        next_at__gt=at,
        delivery__lease__isnull=True,
    )
    ids = list(waiting.order_by("pk").values_list("pk", flat=True)[:10_000])
    # Also what was tried daily for long enough and stands in no queue any more.
    left = Delivery.objects.filter(
        organization__channels=channel, state="dead", next_at__isnull=True, closed_at__isnull=True
    )
    ids += left.order_by("pk").values_list("pk", flat=True)[:10_000]
    waiting_on = Q(next_at__gt=at) | Q(next_at__isnull=True)
    return Delivery.objects.filter(waiting_on, pk__in=ids).update(next_at=Greatest(Value(at), "not_before"))


def verify_due(*, now: Callable[[], datetime.datetime], limit: int = 50) -> int:
    """Send a verification event (SSF 1.0: a random `state` that must come back) to every channel that was not tested for a
    day, and as a probe to those whose breaker has waited long enough. Returns how many were asked; safe to run twice."""
    channels = due_for_verification(at=now(), limit=limit)
    if not channels:
        return 0
    for channel, outcome in asyncio.run(_challenge(channels, now)):
        _verified(channel, outcome.verdict, at=now())
    return len(channels)


async def _challenge(channels: list[Channel], now) -> list[tuple[Channel, wires.Outcome]]:
    async def one(session: outbound.Session, channel: Channel) -> tuple[Channel, wires.Outcome]:
        route = routes.route(channel)
        try:
            outcome = await route.wire.challenge(
                session, jti=str(messages.new_id()), state=secrets.token_urlsafe(24), endpoint=route.endpoint,
                now=int(now().timestamp()),
            )  # fmt: skip
        except Exception as error:  # a bug counts as a failed test, or it would be tried for ever
            log.exception("challenge failed", channel=str(channel.pk))
            outcome = wires.Outcome(wires.RETRY, detail=type(error).__name__)
        return channel, outcome

    async with outbound.open_session() as session:
        return await asyncio.gather(*(one(session, channel) for channel in channels))


def due_for_verification(*, at: datetime.datetime, limit: int) -> list[Channel]:
    """Open channels whose protocol has a verification event and whose time has come; the longest untested first."""
    every = datetime.timedelta(hours=policy.number("VERIFY_EVERY_HOURS", on=at.date()))
    breaker = Q(breaker__isnull=True) | Q(breaker__state=Breaker.State.CLOSED)
    untested = Q(breaker__verified_at__isnull=True) | Q(breaker__verified_at__lte=at - every)
    rested = (
        Q(breaker__isnull=True)
        | Q(breaker__changed_at__lte=at - RETEST)
        | Q(breaker__verified_at__isnull=False)
    )
    probe = Q(breaker__state=Breaker.State.OPEN, breaker__open_until__lte=at)
    able = [protocol for protocol, wire in routes.WIRES.items() if hasattr(wire, "challenge")]
    return list(
        Channel.objects.filter(
            breaker & untested & rested | probe, state=Channel.State.OPEN, protocol__in=able
        )
        .prefetch_related("keys")
        .order_by(F("breaker__verified_at").asc(nulls_first=True), "id")[:limit]
    )


def _verified(channel: Channel, verdict: str, *, at: datetime.datetime) -> None:
    """Take in the answer to a verification event. One that was not answered counts as a failed try; an answer that does not
    repeat the state is a failure too, because whoever sits there is not who we think."""
    good = verdict == wires.SENT
    _note(channel.pk, [wires.SENT if good else wires.GONE if verdict == wires.GONE else wires.RETRY], at=at)
    changes = {"verified_at": at} if good else {"changed_at": at}
    Breaker.objects.filter(channel=channel).update(**changes)
