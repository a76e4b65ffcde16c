"""When the other side is asked what became of a stop: 1 minute, 1 hour and 1 day after each step, then weekly; and which
steps are nobody's word but what we saw.

`schedule` is for whoever moves a delivery, `following` for whoever has just asked, `with_looks` and `seen` for whoever tells.
"""

import datetime
from collections.abc import Iterable

from django.db.models import Exists, OuterRef, QuerySet

from consents.models import Delivery, EntryIndex, Erasure
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

LOOKED = "read_back"  # who the log says took a step, where that was our own look
# What an organization says of itself; the other states tell how far our own trying has come.
SAID = {Delivery.State.RECEIVED, Delivery.State.STOPPED, Delivery.State.ERASED}


def with_looks(deliveries: QuerySet[Delivery]) -> QuerySet[Delivery]:
    """Adds for `seen` whether a step was taken by our own look, as the log says."""
    entries = EntryIndex.objects.filter(txn=OuterRef("txn"), jti=OuterRef("jti"))
    ours = entries.filter(actor_kind="system", actor_id=LOOKED)
    said = entries.exclude(actor_kind="system", actor_id=LOOKED)
    return deliveries.annotate(
        looked_received=Exists(ours.filter(typ__in=["delivery.received", "delivery.stopped"]))
        & ~Exists(said.filter(typ="delivery.received")),
        looked_stopped=Exists(ours.filter(typ="delivery.stopped"))
        & ~Exists(said.filter(typ="delivery.stopped")),
    )


def looked(keys: Iterable[int]) -> dict[int, Delivery]:
    """Rows `with_looks` by their keys, for whoever has a page of them. One query."""
    rows = with_looks(Delivery.objects.filter(pk__in=list(keys))).only("pk", "state")
    return {row.pk: row for row in rows}


def seen(delivery: Delivery) -> frozenset[str]:
    """The steps of a row `with_looks` that its organization never said: we asked, and saw them."""
    return frozenset(step for step in ("received", "stopped") if getattr(delivery, f"looked_{step}"))


def shown_state(delivery: Delivery) -> str:
    """The state of a row `with_looks` under which pages tell it: what we saw is not called somebody's word."""
    return f"seen_{delivery.state}" if delivery.state in seen(delivery) else delivery.state


def said_state(delivery: Delivery) -> str:
    """The state of a row `with_looks` as far as its organization has said it; empty where it never said a word."""
    if delivery.state not in SAID:
        return ""
    if delivery.state not in seen(delivery):
        return delivery.state
    return "" if "received" in seen(delivery) else Delivery.State.RECEIVED


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
