"""WRITES the way out of a Delivery: owe, claim, send, record, give up. What comes back is in `answers`.

The row is the queue. A worker claims due rows under a lease, sends outside any transaction, and records the outcome
only if the lease is still its own: an acknowledgement that came first is never overwritten.
"""

import datetime
import time
import uuid
from typing import Any

import structlog
from celery import current_app
from django.db import OperationalError, connection, transaction
from django.db.models import Value, prefetch_related_objects
from django.db.models.functions import Least, Now
from psycopg.errors import LockNotAvailable

from consents import checks, health, ledger, locks, messages, routes
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Delivery
from consents.parties import RANK, Duty, duties, needed
from consents.retries import RETRY_AFTER, Change, consequence
from consents.sending import Attempt, Sender
from providers import policy
from providers.models import Organization
from providers.wires import SENT, Outcome

__all__ = ["RANK", "RETRY_AFTER", "Duty", "duties", "needed"]  # decided in `parties` and `retries`

log = structlog.get_logger(__name__)

IN_FLIGHT = 256  # messages under way from one worker
RUN_SECONDS = 5.0  # after which a run begins nothing new, so that other jobs get their turn
LONGEST_STRAGGLE = 15.0  # seconds more, while somebody is slow to answer
PAUSE = 0.1  # seconds between two looks at what has become due while answers are awaited
WAITING = (Delivery.State.QUEUED, Delivery.State.RETRYING)
DELIVER_TASK = "consents.jobs.deliver"


class AlreadyWaiting(Exception):
    """The message is on its way: sending it once more would only overtake itself."""


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
    for row in rows:
        if row.next_at:
            # By whichever clock is behind: a web process that lives in the future must not keep a stop waiting.
            row.next_at = Least(Value(row.next_at), Now())
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
    """A stop waits behind older messages to the same party: let these be tried now, from the front of the schedule; but who
    asked us to slow down (429) is not hurried."""
    older = Delivery.objects.select_for_update(no_key=True).filter(
        subscription=subscription, pk__lt=before, state=Delivery.State.RETRYING
    )
    older = older.exclude(http_status=429)
    keys = list(older.order_by("pk").values_list("pk", flat=True))
    Delivery.objects.filter(pk__in=keys).update(next_at=at, attempts=0)


# --- claim, send, record ---------------------------------------------------------------------------------------------

# Who has something waiting is found by hopping along an index; then each one's oldest, as many as may still be under way there.
# An open breaker lets one probe through when its time is over, and stops that were due for the longest opening. Who fetches
# by poll, or answered 410, is not called.
_CLAIM_SQL = """
WITH RECURSIVE waiting AS (
  (SELECT organization_id FROM consents_delivery
   WHERE state IN ('queued', 'retrying', 'dead') AND next_at IS NOT NULL ORDER BY organization_id LIMIT 1)
  UNION ALL
  SELECT (SELECT d.organization_id FROM consents_delivery d
          WHERE d.state IN ('queued', 'retrying', 'dead') AND d.next_at IS NOT NULL AND d.organization_id > w.organization_id
          ORDER BY d.organization_id LIMIT 1)
  FROM waiting w WHERE w.organization_id IS NOT NULL
), allowed AS (
  SELECT w.organization_id, COALESCE(b.state, 'closed') AS health,
    CASE WHEN b.state = 'open' THEN 1 ELSE %(each)s END - (
      SELECT count(*) FROM consents_delivery u
      WHERE u.organization_id = w.organization_id AND u.lease_until >= %(at)s) AS places,
    CASE WHEN b.state = 'open' AND b.open_until > %(at)s THEN %(at)s - %(longest)s ELSE %(at)s END AS due_by
  FROM waiting w
  LEFT JOIN providers_channel c ON c.organization_id = w.organization_id AND c.state = 'open'
  LEFT JOIN consents_breaker b ON b.channel_id = c.id
  WHERE w.organization_id IS NOT NULL AND c.protocol IS DISTINCT FROM 'poll' AND b.state IS DISTINCT FROM 'disabled'
), picked AS (
  SELECT d.id FROM allowed a CROSS JOIN LATERAL (
    SELECT d.id, d.next_at FROM consents_delivery d
    WHERE d.organization_id = a.organization_id AND d.state IN ('queued', 'retrying', 'dead')
      AND d.next_at <= %(at)s AND (d.lease_until IS NULL OR d.lease_until < %(at)s)
      AND (a.due_by = %(at)s OR (d.goal <> 'received' AND COALESCE(d.sent_at, d.created_at) <= a.due_by))
      AND NOT EXISTS (
        SELECT 1 FROM consents_delivery e
        WHERE e.subscription_id = d.subscription_id AND e.organization_id = d.organization_id
          AND e.id < d.id AND e.state IN ('queued', 'retrying'))
    ORDER BY d.next_at, d.id LIMIT GREATEST(a.places, 0)
  ) d ORDER BY d.next_at, d.id LIMIT %(limit)s
), held AS (
  SELECT d.id FROM consents_delivery d
  WHERE d.id = ANY (ARRAY(SELECT id FROM picked)) AND d.state IN ('queued', 'retrying', 'dead') AND d.next_at <= %(at)s
    AND (d.lease_until IS NULL OR d.lease_until < %(at)s)
  ORDER BY d.id FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE consents_delivery d
SET lease_token = gen_random_uuid(), lease_until = %(until)s, attempts = d.attempts + 1
FROM held WHERE d.id = held.id
RETURNING d.id, d.lease_token
"""
# Whoever stands still inside a claim is put out by the database, so that the others can go on.
_CLAIM_PATIENCE = "SET LOCAL lock_timeout = '4s'; SET LOCAL idle_in_transaction_session_timeout = '2s'"
# What a worker needs of a delivery to send it, to record what came of it, and to write the entry that says so.
_CARRIED = (
    "jti", "txn", "person_id", "subscription_id", "subscription__operator_id", "consent_id", "organization_id",
    "organization__code", "role", "event", "goal", "state", "body", "overtaken", "replay_of_id", "handle", "attempts",
    "created_at", "sent_at", "dead_at", "lease_token",
)  # fmt: skip


def claim(*, at: datetime.datetime, limit: int) -> list[Delivery]:
    """Lease up to `limit` due rows to this worker, oldest first, in order per subscription and party, and never more of one
    organization than may be under way there at once, whichever worker has them."""
    on = at.date()
    bounds: dict[str, Any] = {
        "at": at,
        "until": at + datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=on)),
        "limit": limit,
        "each": policy.number("IN_FLIGHT_PER_CHANNEL", on=on),
        "longest": datetime.timedelta(minutes=policy.number("BREAKER_LONGEST_MINUTES", on=on)),
    }
    inside_another = connection.in_atomic_block
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            if not inside_another:  # which would keep these limits after the claim
                cursor.execute(_CLAIM_PATIENCE)
            # One claim at a time, so that "how many are under way there" is true when it is used.
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.DELIVERY_CLAIM])
            cursor.execute(_CLAIM_SQL, bounds)
            tokens = dict(cursor.fetchall())
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        log.warning("claim waits for another worker")  # which is ended by the database when it stands still
        return []
    if not tokens:
        return []
    rows = list(
        Delivery.objects.filter(pk__in=tokens)
        .select_related("organization", "subscription")
        .only(*_CARRIED)
        .order_by("next_at", "pk")
    )
    prefetch_related_objects([row for row in rows if row.replay_of_id], "replay_of")
    return [row for row in rows if row.lease_token == tokens[row.pk]]


def deliver_due(*, now, limit: int = IN_FLIGHT, seconds: float = RUN_SECONDS) -> int:
    """Send what is due until nothing is; after `seconds` nothing new is begun. `now` is a clock (a callable). Returns how many
    messages were tried.

    What one organization is slow to answer keeps nothing else waiting: others are claimed and recorded meanwhile."""
    tried, until = 0, time.monotonic() + seconds
    batch = claim(at=now(), limit=limit)
    if not batch:
        return 0
    on = now().date()
    with Sender(now=now, most=limit, per_host=policy.number("IN_FLIGHT_PER_CHANNEL", on=on)) as sender:
        while batch or sender.under_way:
            if batch:
                tried += len(batch)
                reached = routes.routes(row.organization_id for row in batch)
                sender.start(batch, reached, routes.letters(batch))
            if sender.under_way and (done := sender.arrived(wait=PAUSE)):
                record_all(done, at=now())
            # While somebody is slow this process is taken anyway: it goes on with everybody else's messages, for a while.
            going = time.monotonic() < (until + LONGEST_STRAGGLE if sender.stragglers else until)
            batch = claim(at=now(), limit=sender.free) if going and sender.free else []
    return tried


def record(delivery: Delivery, outcome: Outcome, *, at: datetime.datetime) -> bool:
    """Write what came of one try, if the lease is still ours. False: somebody else was faster, nothing written."""
    return bool(record_all([Attempt(delivery, outcome)], at=at))


_RECORD_SQL = """
WITH tried AS (
  SELECT * FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[], %(states)s::text[], %(next)s::timestamptz[], %(sent)s::timestamptz[],
    %(dead)s::timestamptz[], %(closed)s::timestamptz[], %(status)s::int[], %(errors)s::text[], %(handles)s::text[])
    AS t (id, token, state, next_at, sent_at, dead_at, closed_at, http_status, last_error, handle)
), held AS (
  SELECT d.id FROM consents_delivery d JOIN tried t ON t.id = d.id
  WHERE d.lease_token IS NOT DISTINCT FROM t.token AND d.state IN ('queued', 'retrying', 'dead')
  ORDER BY d.id FOR NO KEY UPDATE OF d
)
UPDATE consents_delivery d
SET state = t.state, next_at = t.next_at, sent_at = COALESCE(d.sent_at, t.sent_at), dead_at = COALESCE(d.dead_at, t.dead_at),
  closed_at = COALESCE(d.closed_at, t.closed_at), http_status = t.http_status, last_error = t.last_error,
  handle = CASE WHEN t.handle <> '' THEN t.handle ELSE d.handle END, lease_until = NULL, lease_token = NULL
FROM tried t JOIN held h ON h.id = t.id
WHERE d.id = t.id AND d.lease_token IS NOT DISTINCT FROM t.token AND d.state IN ('queued', 'retrying', 'dead')
RETURNING t.id, t.token
"""


def record_all(attempts: list[Attempt], *, at: datetime.datetime) -> set[int]:
    """Write what came of several tries in one transaction, of those whose lease is still ours. Returns their keys.

    What they say about the health of their channels is noted after that, on its own."""
    if not attempts:
        return set()
    tried = [(attempt, consequence(attempt.delivery, attempt.outcome, at=at)) for attempt in attempts]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            _RECORD_SQL,
            {
                "ids": [attempt.delivery.pk for attempt in attempts],
                "tokens": [attempt.delivery.lease_token for attempt in attempts],
                "states": [change.state for _, change in tried],
                "next": [change.next_at for _, change in tried],
                "sent": [at if change.typ == "delivery.sent" else None for _, change in tried],
                "dead": [at if change.state == Delivery.State.DEAD else None for _, change in tried],
                "closed": [change.closed_at for _, change in tried],
                "status": [attempt.outcome.status for attempt in attempts],
                "errors": [attempt.outcome.detail[:300] for attempt in attempts],
                "handles": [attempt.outcome.handle[:100] for attempt in attempts],
            },
        )
        # By token, not by key: two tries of one row may come in together, of which only the later lease counts.
        held = set(cursor.fetchall())
        written = [
            (one.delivery, change)
            for one, change in tried
            if (one.delivery.pk, one.delivery.lease_token) in held
        ]
        _write_entries(written, at=at)
    health.note(_heard(attempts), at=at)
    return {delivery.pk for delivery, _ in written}


def _heard(attempts: list[Attempt]) -> dict[uuid.UUID, list[str]]:
    """Verdicts by channel, oldest first. What did not go well has a line of its own in the service's log; the rest is counted."""
    heard: dict[uuid.UUID, list[str]] = {}
    for attempt in attempts:
        if attempt.channel:
            heard.setdefault(attempt.channel, []).append(attempt.outcome.verdict)
        if attempt.outcome.verdict != SENT:
            log.info(
                "delivery tried", jti=str(attempt.delivery.jti), organization=attempt.delivery.organization.code,
                verdict=attempt.outcome.verdict, http_status=attempt.outcome.status,
            )  # fmt: skip
    log.info("deliveries tried", n=len(attempts))
    return heard


def _write_entries(written: list[tuple[Delivery, Change]], *, at: datetime.datetime) -> None:
    """One entry for each that moved. A replay moves nothing: its first delivery has the entries."""
    acts: dict[uuid.UUID, list] = {}
    for row, change in written:
        if change.typ and row.replay_of_id is None:
            acts.setdefault(row.txn, []).append(facts.of_delivery(change.typ, row, state=change.state))
    if acts:
        ledger.append_acts(acts.items(), by=Actor.system("deliver"), at=at)


def reroute(organization: Organization, *, by: Actor, at: datetime.datetime) -> int:
    """A channel of the organization has opened or changed: what waits there for a human or a later try is sent now.

    Returns how many messages."""
    waiting = Delivery.objects.select_for_update(no_key=True).filter(
        organization=organization, state__in=[*WAITING, Delivery.State.DEAD, Delivery.State.MANUAL],
        lease_until__isnull=True, overtaken=False,
    )  # fmt: skip
    with transaction.atomic():
        keys = list(waiting.order_by("pk").values_list("pk", flat=True))
        rows = Delivery.objects.filter(pk__in=keys)
        rows.filter(state=Delivery.State.MANUAL).update(state=Delivery.State.QUEUED, next_at=at)
        rows.exclude(next_at__lte=at).update(next_at=at)
        transaction.on_commit(ring, robust=True)
    log.info("deliveries rerouted", organization=organization.code, n=len(keys), by=by.kind)
    return len(keys)


def replay(delivery: Delivery, *, by: Actor, at: datetime.datetime) -> Delivery:
    """Send a message once more: a new row with the same body under the same message id, so that it has no second effect.

    What is answered to it is written on the first. Raises AlreadyWaiting where it is on its way anyway."""
    first = delivery.replay_of or delivery
    with transaction.atomic():
        first = (
            Delivery.objects.select_for_update(no_key=True).select_related("organization").get(pk=first.pk)
        )
        again = Delivery.objects.filter(replay_of=first, state__in=WAITING)
        if first.state in WAITING or again.exists():
            raise AlreadyWaiting(str(first.jti))
        row = Delivery.objects.create(
            jti=messages.new_id(), replay_of=first, txn=first.txn, person_id=first.person_id,
            subscription_id=first.subscription_id, consent_id=first.consent_id, organization=first.organization,
            role=first.role, goal=Delivery.Goal.RECEIVED, event=first.event, version=first.version, body=first.body,
            set_compact=first.set_compact, handle=first.handle, state=Delivery.State.QUEUED, next_at=at, created_at=at,
        )  # fmt: skip
        transaction.on_commit(ring, robust=True)
    log.info("delivery replayed", jti=str(first.jti), by=by.kind)
    return row


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
    delivery.next_at = delivery.lease_until = delivery.lease_token = None
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
