"""What one try does to a delivery: the schedule of retries, when to give up, and how the dead go on. Pure.

Verdicts are those of `providers.wires.outcomes`, and `by_hand` where nobody is reached over a wire at present.
"""

import dataclasses
import datetime
import random

from consents.models import Claimed, Delivery
from providers import policy
from providers.wires import Outcome

# Seconds after each failed try: Standard Webhooks' table (75 h 35 min) with extra early tries, because a stop should not
# wait five minutes after one reset. Each is spread by ±20 %.
RETRY_AFTER = (5, 15, 60, 120, 300, 900, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
KEY_FAULT_RETRIES_FOR = datetime.timedelta(hours=1)
KEY_FAULT_WAIT = 900  # seconds at most: a receiver that fetches our keys anew is not left for hours
BLOCKED_WAIT = datetime.timedelta(minutes=10)
A_DAY = datetime.timedelta(days=1)


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What one try does to a delivery: its state, its next try, before which nothing may hurry it, and the entry that says so."""

    state: str
    next_at: datetime.datetime | None = None
    typ: str | None = None
    closed_at: datetime.datetime | None = None
    not_before: datetime.datetime | None = None


def consequence(delivery: Claimed, outcome: Outcome, *, at: datetime.datetime) -> Change:
    """What follows from one try of a claimed delivery."""
    State = Delivery.State
    match outcome.verdict:
        case "sent":
            return Change(State.SENT, typ="delivery.sent", closed_at=at if delivery.replay_of_id else None)
        case "received":
            return _received(delivery, at=at)
        case "check":
            return Change(State.CHECKING, closed_at=at if delivery.replay_of_id else None)
        case "by_hand" if delivery.state != State.DEAD:
            return Change(State.MANUAL)
    if delivery.state == State.DEAD:
        return Change(State.DEAD, next_at=_tomorrow(delivery, at=at))
    match outcome.verdict:
        case "refused":
            return _given_up(delivery, at=at)
        # Switched off by its owner: it stays open for poll and people, and is tried when the channel is changed.
        case "gone":
            return Change(State.RETRYING, next_at=at + A_DAY)
        case "blocked":
            return _blocked(delivery, at=at)
        case "key":
            return _unknown_key(delivery, at=at)
    if delivery.attempts > len(RETRY_AFTER):
        return _given_up(delivery, at=at)
    wait = _spread(RETRY_AFTER[delivery.attempts - 1])
    if not outcome.retry_after:
        return Change(State.RETRYING, next_at=at + wait)
    asked = at + datetime.timedelta(seconds=outcome.retry_after)
    return Change(State.RETRYING, next_at=max(at + wait, asked), not_before=asked)


def _spread(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=seconds * random.uniform(0.8, 1.2))  # noqa: S311 - spreads load, guards nothing


def _blocked(delivery: Claimed, *, at: datetime.datetime) -> Change:
    """Nothing was sent: tried again when somebody may have mended the address, and given to people as late as all others."""
    minutes = policy.number("DEAD_AFTER_MINUTES", on=at.date())
    if at.timestamp() - delivery.owed_since >= minutes * 60:
        return _given_up(delivery, at=at)
    following = at + BLOCKED_WAIT
    return Change(Delivery.State.RETRYING, next_at=following, not_before=following)


def _unknown_key(delivery: Claimed, *, at: datetime.datetime) -> Change:
    """They may not have fetched our newest key yet, or we not their newest credential: for an hour that is waited for."""
    until = (delivery.key_fault_at or at) + KEY_FAULT_RETRIES_FOR
    if at >= until:
        return _given_up(delivery, at=at)
    planned = RETRY_AFTER[min(delivery.attempts, len(RETRY_AFTER)) - 1]
    following = at + _spread(min(planned, KEY_FAULT_WAIT))
    return Change(Delivery.State.RETRYING, next_at=min(following, until))


def _received(delivery: Claimed, *, at: datetime.datetime) -> Change:
    """As if they had acknowledged it right after taking it."""
    done = delivery.replay_of_id is not None or delivery.goal == Delivery.Goal.RECEIVED
    return Change(Delivery.State.RECEIVED, typ="delivery.received", closed_at=at if done else None)


def _given_up(delivery: Claimed, *, at: datetime.datetime) -> Change:
    """Needs a human. Still offered by poll, tried once a day, and when the endpoint is well again."""
    return Change(Delivery.State.DEAD, next_at=at + A_DAY, typ="delivery.dead")


def _tomorrow(delivery: Claimed, *, at: datetime.datetime) -> datetime.datetime | None:
    days = policy.number("DEAD_RETRY_DAYS", on=at.date())
    following = at + A_DAY
    since = delivery.dead_at or at
    return following if following <= since + datetime.timedelta(days=days) else None
