"""WRITES the way out of a Delivery: owe, claim, send, record, give up. What comes back is in `answers`.

The row is the queue. A worker claims due rows under a lease, sends outside any transaction, and records the outcome
only if the lease is still its own: an acknowledgement that came first is never overwritten.
"""

import asyncio
import dataclasses
import datetime
import queue
import random
import threading
import uuid
from collections.abc import Iterable, Iterator

import structlog
from celery import current_app
from django.db import connection, transaction

from consents import ledger, messages
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Consent, Delivery
from providers import outbound, policy
from providers.models import Channel, Organization
from providers.registry import channel_secrets
from providers.wires import Endpoint, Message, Outcome, native

log = structlog.get_logger(__name__)

# Seconds after each failed try: Standard Webhooks' table (75 h 35 min) with extra early tries, because a stop should not
# wait five minutes after one reset. Each is spread by ±20 %.
RETRY_AFTER = (5, 15, 60, 120, 300, 900, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
KEY_FAULT_RETRIES_FOR = datetime.timedelta(hours=1)
BLOCKED_WAIT = datetime.timedelta(minutes=10)
PER_ORGANIZATION = 8
WAITING = (Delivery.State.QUEUED, Delivery.State.RETRYING)
RANK = {"sent": 1, "received": 2, "stopped": 3, "erased": 4}
DELIVER_TASK = "consents.jobs.deliver"


@dataclasses.dataclass(slots=True)
class Duty:
    """What one organization must do because of one act."""

    organization: Organization
    role: str
    goal: str
    consents: list[Consent] = dataclasses.field(default_factory=list)
    by_hand: bool = False
    jti: uuid.UUID = dataclasses.field(default_factory=messages.new_id)

    def disclosed(self) -> list[str]:
        """How the duty stands in the ledger entry of the act."""
        return [str(self.jti), self.organization.code, self.role, self.goal]


def duties(subscription, consents: Iterable[Consent], *, stop: bool, erase: bool, by: Actor) -> list[Duty]:
    """One duty per organization that must act on these consents; never the one that started it (no echo).

    A source can only stop sending; the operator and third parties erase when that was asked. Third parties hear of
    stops only: before, the operator is the one who tells them. Who has no open channel of its own confirms by hand."""
    found = needed(subscription, consents, stop=stop, erase=erase, by=by)
    wired = set(
        Channel.objects.filter(
            organization__in=[duty.organization.pk for duty in found], state=Channel.State.OPEN
        )
        .exclude(protocol=Channel.Protocol.DESK)
        .values_list("organization_id", flat=True)
    )
    for duty in found:
        duty.by_hand = duty.organization.pk not in wired
    return found


def needed(subscription, consents: Iterable[Consent], *, stop: bool, erase: bool, by: Actor) -> list[Duty]:
    """The duties as `duties` gives them, before anybody looked at the channels."""
    Goal = Delivery.Goal
    ending = Goal.ERASED if erase else Goal.STOPPED
    found: dict[object, Duty] = {}

    def need(organization, role, goal, concerned):
        if organization.pk == by.organization_id:
            return
        duty = found.setdefault(organization.pk, Duty(organization, role, goal))
        if RANK[goal] > RANK[duty.goal]:
            duty.goal = goal
        duty.consents += [consent for consent in concerned if consent not in duty.consents]

    consents = list(consents)
    need(subscription.operator, Delivery.Role.OPERATOR, ending if stop else Goal.RECEIVED, consents)
    for consent in consents:
        if consent.source_id:
            need(consent.source, Delivery.Role.SOURCE, Goal.STOPPED if stop else Goal.RECEIVED, [consent])
        if consent.recipient_id and stop:
            need(consent.recipient, Delivery.Role.RECIPIENT, ending, [consent])
    return list(found.values())


def owe(
    owed: list[Duty],
    *,
    event: str,
    subscription,
    txn: uuid.UUID,
    at,
    leaf_hash: bytes,
    reason: str = "",
    consent=None,
) -> list[Delivery]:
    """Write one delivery per duty, in the transaction of the act, and ring the doorbell when it commits."""
    rows = composed(
        owed, event=event, subscription=subscription, txn=txn, at=at, leaf_hash=leaf_hash, reason=reason,
        consent=consent,
    )  # fmt: skip
    Delivery.objects.bulk_create(rows)
    if any(duty.goal != Delivery.Goal.RECEIVED for duty in owed):
        _pull_forward(subscription, before=min(row.pk for row in rows), at=at)
    transaction.on_commit(ring, robust=True)
    return rows


def composed(
    owed: list[Duty],
    *,
    event: str,
    subscription,
    txn: uuid.UUID,
    at,
    leaf_hash: bytes,
    reason: str = "",
    consent=None,
) -> list[Delivery]:
    """The unsaved rows of these duties, each with its signed message."""
    rows = []
    for duty in owed:
        content = messages.compose(
            duty, event=event, subscription=subscription, txn=txn, at=at, leaf_hash=leaf_hash, reason=reason
        )
        rows.append(
            Delivery(
                jti=duty.jti,
                txn=txn,
                person_id=subscription.person_id,
                subscription=subscription,
                consent=consent,
                organization=duty.organization,
                role=duty.role,
                goal=duty.goal,
                event=event,
                version=subscription.version,
                body=content.body,
                set_compact=content.set_compact,
                state=Delivery.State.MANUAL if duty.by_hand else Delivery.State.QUEUED,
                next_at=None if duty.by_hand else at,
                created_at=at,
                due_at=deadline("received", created_at=at, goal=duty.goal),
            )
        )
    return rows


def ring() -> None:
    """Tell a worker that something is due. Losing this costs at most one beat, so a dead broker is only logged."""
    try:
        current_app.send_task(DELIVER_TASK, expires=5, retry=False)
    except Exception as error:  # any broker fault: the sweep finds the row a second later
        log.warning("doorbell not heard", exception=type(error).__name__)


def overtake(subscription, *, by: Actor, at) -> list[uuid.UUID]:
    """An end makes undelivered news about grants pointless; the version number protects those already on their way.

    Returns the `jti` of these deliveries, for the entry of the end."""
    pointless = dict(
        Delivery.objects.select_for_update(no_key=True)
        .filter(subscription=subscription, state__in=WAITING, goal=Delivery.Goal.RECEIVED)
        .order_by("pk")
        .values_list("pk", "jti")
    )
    Delivery.objects.filter(pk__in=pointless).update(
        state=Delivery.State.CHECKING, overtaken=True, next_at=None, due_at=None, closed_at=at,
        lease_until=None, lease_token=None,
    )  # fmt: skip
    return list(pointless.values())


def _pull_forward(subscription, *, before: int, at) -> None:
    """A stop waits behind older messages to the same party: let these be tried now, from the front of the schedule."""
    Delivery.objects.filter(subscription=subscription, pk__lt=before, state=Delivery.State.RETRYING).update(
        next_at=at, attempts=0
    )


# --- claim, send, record ---------------------------------------------------------------------------------------------

_CLAIM = """
WITH due AS (
  SELECT d.id, d.next_at, row_number() OVER (PARTITION BY d.organization_id ORDER BY d.next_at, d.id) AS place
  FROM consents_delivery d
  WHERE d.state IN ('queued', 'retrying') AND d.next_at <= %(at)s AND (d.lease_until IS NULL OR d.lease_until < %(at)s)
    AND NOT EXISTS (
      SELECT 1 FROM consents_delivery e
      WHERE e.subscription_id = d.subscription_id AND e.organization_id = d.organization_id
        AND e.id < d.id AND e.state IN ('queued', 'retrying'))
), picked AS (
  SELECT d.id FROM consents_delivery d
  WHERE d.id IN (SELECT id FROM due WHERE place <= %(each)s ORDER BY next_at LIMIT %(limit)s)
    AND d.state IN ('queued', 'retrying') AND (d.lease_until IS NULL OR d.lease_until < %(at)s)
  FOR UPDATE SKIP LOCKED
)
UPDATE consents_delivery d
SET lease_token = gen_random_uuid(), lease_until = %(until)s, attempts = d.attempts + 1
FROM picked WHERE d.id = picked.id
RETURNING d.id, d.lease_token
"""


def claim(*, at: datetime.datetime, limit: int) -> list[Delivery]:
    """Lease up to `limit` due rows to this worker, oldest first, in order per subscription and party."""
    lease = datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=at.date()))
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLAIM, {"at": at, "until": at + lease, "limit": limit, "each": PER_ORGANIZATION})
        tokens = dict(cursor.fetchall())
    rows = Delivery.objects.filter(pk__in=tokens).select_related("organization").order_by("next_at")
    return [row for row in rows if row.lease_token == tokens[row.pk]]


def deliver_due(*, now, limit: int = 50, rounds: int = 20) -> int:
    """Send what is due until nothing is, at most `rounds` batches. `now` is a clock (a callable). Returns messages tried."""
    tried = 0
    for _round in range(rounds):
        batch = claim(at=now(), limit=limit)
        if not batch:
            break
        for delivery, outcome in _send(batch, endpoints(batch), now=now):
            record(delivery, outcome, at=now())
        tried += len(batch)
    return tried


def endpoints(batch: list[Delivery]) -> dict[uuid.UUID, Endpoint]:
    """Address and secrets by organization, for those with an open native channel."""
    channels = Channel.objects.filter(
        organization__in={row.organization_id for row in batch},
        state=Channel.State.OPEN,
        protocol=Channel.Protocol.NATIVE,
    ).prefetch_related("keys")
    return {c.organization_id: Endpoint(address=c.address, secrets=channel_secrets(c)) for c in channels}


def _send(batch, addresses, *, now) -> Iterator[tuple[Delivery, Outcome]]:
    """Outcomes as they arrive: a slow party does not keep the others' answers from being recorded."""
    arrived: queue.SimpleQueue = queue.SimpleQueue()

    async def one(session, delivery):
        endpoint = addresses.get(delivery.organization_id)
        if endpoint is None:
            arrived.put((delivery, Outcome(verdict="gone", detail="no open channel")))
            return
        message = Message(jti=str(delivery.jti), body=delivery.body.encode())
        try:
            arrived.put(
                (
                    delivery,
                    await native.send(
                        session, message=message, endpoint=endpoint, now=int(now().timestamp())
                    ),
                )
            )
        except (
            Exception
        ) as error:  # every exception counts as a try, or a bug would become an endless hot loop
            log.exception("wire failed", jti=str(delivery.jti))
            arrived.put((delivery, Outcome(verdict="retry", detail=type(error).__name__)))

    async def everything():
        async with outbound.open_session() as session:
            await asyncio.gather(*(one(session, delivery) for delivery in batch))

    def run():
        try:
            asyncio.run(everything())
        finally:
            arrived.put(None)

    sender = threading.Thread(target=run, name="outbound")
    sender.start()
    while (answer := arrived.get()) is not None:
        yield answer
    sender.join()


def record(delivery: Delivery, outcome: Outcome, *, at: datetime.datetime) -> bool:
    """Write what came of one try, if the lease is still ours. False: somebody else was faster, nothing written."""
    changes, typ = _consequence(delivery, outcome, at=at)
    with transaction.atomic():
        changed = Delivery.objects.filter(
            pk=delivery.pk, lease_token=delivery.lease_token, state__in=WAITING
        ).update(
            **changes,
            http_status=outcome.status,
            last_error=(outcome.detail or "")[:300],
            lease_until=None,
            lease_token=None,
        )
        if changed and typ:
            write_entry(delivery, typ, state=changes["state"], by=Actor.system("deliver"), at=at)
    log.info(
        "delivery tried", jti=str(delivery.jti), organization=delivery.organization.code, verdict=outcome.verdict,
        http_status=outcome.status,
    )  # fmt: skip
    return bool(changed)


def _consequence(delivery: Delivery, outcome: Outcome, *, at) -> tuple[dict, str | None]:
    State = Delivery.State
    match outcome.verdict:
        case "sent":
            return {"state": State.SENT, "sent_at": at, "next_at": None}, "delivery.sent"
        case "check":
            return {"state": State.CHECKING, "next_at": None}, None
        case "refused" | "gone":
            return {"state": State.DEAD, "next_at": None}, "delivery.dead"
        case "blocked":
            return {"state": State.RETRYING, "next_at": at + BLOCKED_WAIT}, None
        case "key" if at - delivery.created_at > KEY_FAULT_RETRIES_FOR:
            return {"state": State.DEAD, "next_at": None}, "delivery.dead"
    if delivery.attempts > len(RETRY_AFTER):
        return {"state": State.DEAD, "next_at": None}, "delivery.dead"
    wait = RETRY_AFTER[delivery.attempts - 1] * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing
    wait = max(wait, outcome.retry_after or 0)
    return {"state": State.RETRYING, "next_at": at + datetime.timedelta(seconds=wait)}, None


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
    delivery.state = state
    delivery.next_at = delivery.lease_until = delivery.lease_token = None
    delivery.last_error = ""
    done = reached >= RANK[delivery.goal]
    delivery.closed_at = at if done else delivery.closed_at
    following = {"sent": "received", "received": "stopped", "stopped": "erased"}.get(state, "received")
    delivery.due_at = (
        None if done else deadline(following, created_at=delivery.created_at, goal=delivery.goal)
    )


def write_entry(delivery: Delivery, typ: str, *, state: str, by: Actor, at, **fields) -> None:
    fact = facts.of_delivery(typ, delivery, state=state, **fields)
    ledger.append([fact], by=by, at=at, txn=delivery.txn)
