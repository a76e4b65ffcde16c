"""WRITES the steps that a delivery takes on an organization's word, and what each step sets: who is due next, and by when.

`received` is taken here, for one or for many at once, because it comes in through every door: a call, a poll, the answer to the
message itself. Stopped and erased need signed evidence and are in `answers`.
"""

import datetime
import uuid
from collections.abc import Collection, Iterable

from django.db import connection, transaction
from django.db.models import Value
from django.db.models.functions import Coalesce

from consents import checks, ledger
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Delivery, Reissue, Subscription
from consents.parties import RANK
from providers import policy


def deadline(step: str, *, created_at, goal: str) -> datetime.datetime:
    """When the next step of a delivery is due (dated policy)."""
    on = created_at.date()
    if step == "received":
        return created_at + datetime.timedelta(minutes=policy.number("RECEIVED_ESCALATE_MINUTES", on=on))
    if step == "stopped":
        return created_at + datetime.timedelta(hours=policy.number("STOPPED_WITHIN_HOURS", on=on))
    return created_at + datetime.timedelta(days=policy.number("ERASED_WITHIN_DAYS", on=on))


def advance(delivery: Delivery, state: str, *, at: datetime.datetime) -> None:
    """Move the unsaved row to `state`, filling in the steps that were jumped over, and take it out of the queue."""
    reached = RANK[state]
    for step in RANK:
        if RANK[step] <= reached and getattr(delivery, f"{step}_at") is None:
            setattr(delivery, f"{step}_at", at)
    delivery.state, delivery.last_error = state, ""
    delivery.next_at = None
    checks.schedule(delivery, at=at)
    done = reached >= RANK[delivery.goal]
    delivery.closed_at = at if done else delivery.closed_at
    following = {"sent": "received", "received": "stopped", "stopped": "erased"}.get(state, "received")
    delivery.due_at = (
        None if done else deadline(following, created_at=delivery.created_at, goal=delivery.goal)
    )


def write_entry(delivery: Delivery, typ: str, *, state: str, by: Actor, at, **fields) -> None:
    fact = facts.of_delivery(typ, delivery, state=state, **fields)
    ledger.append([fact], by=by, at=at, txn=delivery.txn)


def acknowledge_all(
    jtis: Collection[uuid.UUID], *, organization, by: Actor, at: datetime.datetime
) -> set[uuid.UUID]:
    """The organization says that it has received these messages, in one transaction. Early and double answers are fine.

    Returns the ids that are none of this organization's."""
    if not jtis:
        return set()
    own = first_ids(jtis)
    found = receive([own.get(jti, jti) for jti in jtis], organization=organization, by=by, at=at)
    known = {row.jti for row in found}
    return {jti for jti in jtis if own.get(jti, jti) not in known}


def first_ids(jtis: Collection[uuid.UUID]) -> dict[uuid.UUID, uuid.UUID]:
    """By ids under which a message was signed anew, or that only its replay has: the deliveries' own. One query."""
    anew = Reissue.objects.filter(jti__in=jtis).values_list("jti", "delivery__jti")
    replays = Delivery.objects.filter(jti__in=jtis, replay_of__isnull=False)
    return dict(anew.union(replays.values_list("jti", "replay_of__jti")))


def receive(
    firsts: Collection[uuid.UUID], *, organization, by: Actor, at: datetime.datetime
) -> list[Delivery]:
    """The same by the deliveries' own ids; returns those of this organization."""
    with transaction.atomic():
        rows = locked(firsts, organization)
        close_replays(rows, by=by, at=at)
        moved = [row for row in rows if RANK.get(row.state, 0) < RANK["received"]]
        said = moved + first_word(rows, by=by, at=at)
        acts: dict[uuid.UUID, list[ledger.Fact]] = {}
        for row in moved:
            advance(row, Delivery.State.RECEIVED, at=at)
        for row in said:
            fact = facts.of_delivery("delivery.received", row, state=row.state)
            acts.setdefault(row.txn, []).append(fact)
        _write_received(moved, at=at)
        ledger.append_acts(acts.items(), by=by, at=at)
    return rows


def first_word(rows: Iterable[Delivery], *, by: Actor, at: datetime.datetime) -> list[Delivery]:
    """Of these locked rows those that our own look had moved on, and whose organization speaks now for the first time: that it
    received the message is its word, and counts from now. The caller tells the log."""
    looked = [row.pk for row in rows if row.checks and RANK.get(row.state, 0) >= RANK["received"]]
    if not looked:
        return []
    silent = {pk for pk, row in checks.looked(looked).items() if "received" in checks.seen(row)}
    Delivery.objects.filter(pk__in=silent).update(received_at=at)
    spoken = [row for row in rows if row.pk in silent]
    for row in spoken:
        row.received_at = at
    return spoken


_RECEIVED_SQL = """
UPDATE consents_delivery d
SET state = 'received', sent_at = COALESCE(d.sent_at, %(at)s), received_at = %(at)s, last_error = '', next_at = NULL,
  check_at = t.check_at, due_at = t.due_at, closed_at = t.closed_at
FROM unnest(%(ids)s::bigint[], %(check)s::timestamptz[], %(due)s::timestamptz[], %(closed)s::timestamptz[])
  AS t (id, check_at, due_at, closed_at)
WHERE d.id = t.id
"""


def _write_received(rows: list[Delivery], *, at: datetime.datetime) -> None:
    """The columns that `advance` has set on these rows, in one statement."""
    with connection.cursor() as cursor:
        cursor.execute(
            _RECEIVED_SQL,
            {
                "at": at,
                "ids": [row.pk for row in rows],
                "check": [row.check_at for row in rows],
                "due": [row.due_at for row in rows],
                "closed": [row.closed_at for row in rows],
            },
        )


def give_up(keys: Collection[int], *, by: Actor, at: datetime.datetime) -> None:
    """These deliveries are for people from now on, those that still wait; they are offered by poll as before."""
    rows = list(
        Delivery.objects.select_for_update(no_key=True, of=("self",))
        .filter(pk__in=keys)
        .select_related("organization", "subscription__operator", "subscription__person", "consent")
        .order_by("pk")
    )
    late = [row for row in rows if row.state in {Delivery.State.QUEUED, Delivery.State.RETRYING}]
    following = at + datetime.timedelta(days=1)
    Delivery.objects.filter(pk__in=[row.pk for row in late]).update(
        state=Delivery.State.DEAD, dead_at=Coalesce("dead_at", Value(at)), next_at=following
    )
    acts: dict[uuid.UUID, list[ledger.Fact]] = {}
    for row in late:
        acts.setdefault(row.txn, []).append(facts.of_delivery("delivery.dead", row, state="dead"))
    ledger.append_acts(acts.items(), by=by, at=at)


def locked(firsts: Collection[uuid.UUID], organization) -> list[Delivery]:
    """This organization's deliveries of these ids, locked. Two queries."""
    own = Delivery.objects.filter(jti__in=firsts, organization=organization)
    # Subscriptions are locked first, as in lifecycle, and all in the order of their keys: no deadlock.
    subscriptions = Subscription.objects.select_for_update(no_key=True, of=("self",))
    list(subscriptions.filter(pk__in=own.values("subscription")).order_by("pk").values_list("pk"))
    related = ("organization", "subscription__operator", "subscription__person", "consent")
    return list(own.select_for_update(no_key=True, of=("self",)).select_related(*related).order_by("pk"))


def close_replays(deliveries: list[Delivery], *, by: Actor, at: datetime.datetime) -> None:
    """The answer to a message answers its replays."""
    Delivery.objects.filter(replay_of__in=deliveries, closed_at__isnull=True).update(
        state=Delivery.State.RECEIVED, sent_at=Coalesce("sent_at", Value(at)), received_at=at, closed_at=at,
        next_at=None,
    )  # fmt: skip
