"""When the other side is asked what became of a stop: 1 minute, 1 hour and 1 day after each step, then weekly. Pure.

`schedule` is for whoever moves a delivery, `following` for whoever has just asked.
"""

import datetime

from consents.models import Delivery, Erasure
from providers import policy

ASKED = frozenset(
    {
        Delivery.State.SENT,
        Delivery.State.RECEIVED,
        Delivery.State.CHECKING,
        Delivery.State.STOPPED,
        Delivery.State.ERASED,
    }
)


def schedule(delivery: Delivery, *, at: datetime.datetime) -> None:
    """Note on the unsaved row, which has just moved, when it is checked next. Grants and what was overtaken never are."""
    if is_asked(delivery):
        delivery.check_at = soonest(at=at)


def soonest(*, at: datetime.datetime) -> datetime.datetime:
    """When the first check after a step at `at` is due."""
    return at + rungs(on=at.date())[0]


def following(delivery: Delivery, *, at: datetime.datetime, wrong: bool = False) -> datetime.datetime | None:
    """When the next check is due after one at `at`: the next rung after the last step, then weekly while the data is held,
    or while the last answer was `wrong`. None: never again."""
    since = max(filter(None, _steps(delivery)), default=delivery.created_at)
    on = at.date()
    for rung in rungs(on=on):
        if since + rung > at:
            return since + rung
    if wrong or is_held(delivery):
        return at + datetime.timedelta(days=policy.number("CHECK_EVERY_DAYS", on=on))
    return None


def rungs(*, on: datetime.date) -> tuple[datetime.timedelta, ...]:
    return (
        datetime.timedelta(minutes=policy.number("CHECK_FIRST_MINUTES", on=on)),
        datetime.timedelta(hours=policy.number("CHECK_SECOND_HOURS", on=on)),
        datetime.timedelta(hours=policy.number("CHECK_THIRD_HOURS", on=on)),
    )


def is_asked(delivery: Delivery) -> bool:
    return delivery.goal != Delivery.Goal.RECEIVED and not delivery.overtaken and delivery.state in ASKED


def is_held(delivery: Delivery) -> bool:
    """Whether what came through this consent, or this subscription, is there as far as anybody has shown."""
    subscription, consent = delivery.subscription, delivery.consent
    confirmed = {subscription.erasure, consent.erasure if consent else None}
    return Erasure.CONFIRMED not in confirmed


def _steps(delivery: Delivery) -> tuple[datetime.datetime | None, ...]:
    return delivery.sent_at, delivery.received_at, delivery.stopped_at, delivery.erased_at
