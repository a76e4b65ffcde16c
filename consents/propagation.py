"""WRITES the way out of a Delivery: owe, claim, send. What comes of a try is in `recording`, what comes back in `answers`.

The rows are the queue (`Outgoing` follows `Delivery`). A worker claims due rows under a lease, sends outside any transaction,
and records the outcome only if the lease is still its own: an acknowledgement that came first is never overwritten.
"""

import datetime
import time
import uuid
from typing import Any

import structlog
from celery import current_app
from django.db import OperationalError, connection, transaction
from django.db.models import Q, Value
from django.db.models.functions import Greatest, Least, Now
from psycopg.errors import LockNotAvailable

from consents import locks, messages, routes
from consents.actors import Actor
from consents.models import Claimed, Delivery
from consents.parties import RANK, Duty, duties, needed
from consents.recording import record, record_all
from consents.retries import RETRY_AFTER
from consents.sending import MOST_AT_ONCE, SHARE, Sender
from consents.steps import deadline
from providers import policy
from providers.models import Organization

__all__ = ["RANK", "RETRY_AFTER", "Duty", "duties", "needed", "record", "record_all"]  # decided elsewhere

log = structlog.get_logger(__name__)

IN_FLIGHT = 256  # requests under way from one worker
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


def overtake(subscription, *, consent=None, by: Actor, at) -> list[uuid.UUID]:
    """An end makes undelivered news about grants pointless, given up or not: of one `consent` what is about nothing else.
    The version number protects those already on their way.

    Returns the `jti` of these deliveries, for the entry of the end."""
    Goal, States = Delivery.Goal, [*WAITING, Delivery.State.DEAD]
    news = Delivery.objects.select_for_update(no_key=True, of=("self",)).filter(
        Q(replay_of__isnull=True) | Q(replay_of__goal=Goal.RECEIVED),  # a stop that is sent once more stays one
        subscription=subscription, state__in=States, goal=Goal.RECEIVED,
    )  # fmt: skip
    rows = news.order_by("pk").values_list("pk", "jti", "replay_of", "body")
    pointless = {
        pk: None if again else jti
        for pk, jti, again, body in rows
        if consent is None or messages.about(body) <= {str(consent.pk)}
    }
    Delivery.objects.filter(pk__in=pointless).update(
        state=Delivery.State.CHECKING, overtaken=True, next_at=None, due_at=None, closed_at=at
    )
    return [jti for jti in pointless.values() if jti]  # the log knows of no replays


def _pull_forward(subscription, *, before: int, at) -> None:
    """A stop waits behind older messages to the same party: let these be tried now, from the front of the schedule; but who
    asked us to slow down (429, Retry-After) is not hurried."""
    older = Delivery.objects.select_for_update(no_key=True).filter(
        subscription=subscription, pk__lt=before, state=Delivery.State.RETRYING
    )
    older = older.exclude(http_status=429)
    keys = list(older.order_by("pk").values_list("pk", flat=True))
    Delivery.objects.filter(pk__in=keys).update(next_at=Greatest(Value(at), "not_before"), attempts=0)


# --- claim, send, record ---------------------------------------------------------------------------------------------

# Who has something waiting is found by hopping along an index; then each one's oldest, as many as may still be under way there.
# An open breaker lets one probe through when its time is over, and stops that were due for the longest opening. Who fetches
# by poll, or answered 410, is not called. Who takes many in one request has so many more places. A claim waits for no row: what somebody else is changing is left to the next.
_CLAIM_SQL = """
WITH RECURSIVE waiting AS (
  (SELECT organization_id FROM consents_outgoing ORDER BY organization_id LIMIT 1)
  UNION ALL
  SELECT (SELECT o.organization_id FROM consents_outgoing o
          WHERE o.organization_id > w.organization_id ORDER BY o.organization_id LIMIT 1)
  FROM waiting w WHERE w.organization_id IS NOT NULL
), busy AS MATERIALIZED (
  SELECT delivery_id, organization_id FROM consents_lease WHERE until >= %(at)s
), under_way AS MATERIALIZED (
  SELECT organization_id, count(*) AS n FROM busy GROUP BY organization_id
), allowed AS MATERIALIZED (
  SELECT w.organization_id, CASE WHEN b.state = 'open' THEN 1 ELSE %(each)s * t.together END - COALESCE(u.n, 0) AS places,
    CASE WHEN t.together > 1 THEN 1 ELSE %(share)s END AS weight,
    CASE WHEN b.state = 'open' AND b.open_until > %(at)s THEN %(at)s - %(longest)s ELSE %(at)s END AS due_by
  FROM waiting w
  LEFT JOIN under_way u ON u.organization_id = w.organization_id
  LEFT JOIN providers_channel c ON c.organization_id = w.organization_id AND c.state = 'open'
  LEFT JOIN consents_breaker b ON b.channel_id = c.id
  CROSS JOIN LATERAL (SELECT CASE WHEN c.details->>'together' ~ '^[1-9][0-9]{0,2}$' THEN (c.details->>'together')::int ELSE 1 END) t (together)
  WHERE w.organization_id IS NOT NULL AND c.protocol IS DISTINCT FROM 'poll' AND b.state IS DISTINCT FROM 'disabled'
), picked AS MATERIALIZED (
  SELECT delivery_id FROM (SELECT o.delivery_id, sum(a.weight) OVER (ORDER BY o.next_at, o.delivery_id) AS load FROM allowed a CROSS JOIN LATERAL (
    SELECT o.delivery_id, o.next_at FROM consents_outgoing o
    WHERE o.organization_id = a.organization_id AND o.next_at <= %(at)s
      AND (a.due_by = %(at)s OR o.stop_since <= a.due_by)
      AND (%(only)s::bigint IS NULL OR o.delivery_id = %(only)s)
      AND o.delivery_id NOT IN (SELECT delivery_id FROM busy)
      AND NOT EXISTS (
        SELECT 1 FROM consents_outgoing e
        WHERE e.subscription_id = o.subscription_id AND e.organization_id = o.organization_id
          AND e.delivery_id < o.delivery_id AND e.in_order)
    ORDER BY o.next_at, o.delivery_id LIMIT GREATEST(LEAST(a.places, %(load)s / a.weight, %(most)s), 0)
  ) o) p WHERE load <= %(load)s ORDER BY load LIMIT %(most)s
), held AS MATERIALIZED (
  SELECT o.delivery_id, o.organization_id FROM consents_outgoing o
  WHERE o.delivery_id = ANY (ARRAY(SELECT delivery_id FROM picked)) AND o.next_at <= %(at)s
  FOR UPDATE SKIP LOCKED
), over AS MATERIALIZED (
  SELECT delivery_id FROM consents_lease WHERE until < %(at)s FOR UPDATE SKIP LOCKED
), again AS (
  UPDATE consents_lease l SET token = %(token)s, until = %(until)s, tries = l.tries + 1
  FROM over JOIN held USING (delivery_id) WHERE l.delivery_id = over.delivery_id
  RETURNING l.delivery_id, l.token, l.tries
), fresh AS (
  INSERT INTO consents_lease (delivery_id, organization_id, token, until, tries)
  SELECT delivery_id, organization_id, %(token)s, %(until)s, 1 FROM held
  WHERE delivery_id NOT IN (SELECT delivery_id FROM consents_lease)
  RETURNING delivery_id, token, tries
), forgotten AS (
  DELETE FROM consents_lease l USING over
  WHERE l.delivery_id = over.delivery_id AND NOT EXISTS (SELECT 1 FROM consents_outgoing o WHERE o.delivery_id = l.delivery_id)
)
SELECT d.id, d.jti, d.txn, d.person_id, d.subscription_id, s.operator_id, d.consent_id, d.organization_id, o.code, d.role,
  d.event, d.goal, d.state, d.version, d.body, d.overtaken, d.replay_of_id, d.handle, d.attempts + l.tries,
  extract(epoch FROM d.created_at)::float8, d.dead_at, d.key_fault_at, l.token::text
FROM (SELECT * FROM fresh UNION ALL SELECT * FROM again) l
JOIN consents_delivery d ON d.id = l.delivery_id
JOIN consents_subscription s ON s.id = d.subscription_id
JOIN providers_organization o ON o.id = d.organization_id
ORDER BY d.next_at, d.id
"""
# In one line, because the driver remembers how it read a statement only where that has less than 4,096 characters.
_CLAIM_SQL = " ".join(_CLAIM_SQL.split())
# Whoever stands still inside a claim is put out by the database, so that the others can go on.
_CLAIM_PATIENCE = "SET LOCAL lock_timeout = '4s'; SET LOCAL idle_in_transaction_session_timeout = '2s'"


def claim(*, at: datetime.datetime, limit: int, only: int | None = None) -> list[Claimed]:
    """Lease due rows to this worker, oldest first: up to `limit` of those that travel alone, SHARE times as many of those that
    travel together, MOST_AT_ONCE in all. In order per subscription and party, and never more of one organization than may be under way there at
    once, whichever worker has them. `only` is the key of the one that is wanted."""
    on = at.date()
    bounds: dict[str, Any] = {
        "at": at,
        "until": at + datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=on)),
        "load": limit * SHARE,
        "share": SHARE,
        "most": MOST_AT_ONCE,
        "token": uuid.uuid4(),
        "only": only,
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
            return [Claimed(*row) for row in cursor.fetchall()]
    except OperationalError as error:
        if not isinstance(error.__cause__, LockNotAvailable):
            raise
        log.warning("claim waits for another worker")  # which is ended by the database when it stands still
        return []


def deliver_due(*, now, limit: int = IN_FLIGHT, seconds: float = RUN_SECONDS) -> int:
    """Send what is due until nothing is; after `seconds` nothing new is begun. `now` is a clock (a callable). Returns how many
    messages were tried.

    What one organization is slow to answer keeps nothing else waiting: others are claimed and recorded meanwhile."""
    tried, until = 0, time.monotonic() + seconds
    batch = claim(at=now(), limit=limit)
    if not batch:
        return 0
    on, lately = now().date(), routes.Lately()
    with Sender(now=now, most=limit, per_host=policy.number("IN_FLIGHT_PER_CHANNEL", on=on)) as sender:
        while batch or sender.under_way:
            if batch:
                tried += len(batch)
                reached = lately.routes(row.organization_id for row in batch)
                sender.start(batch, reached, routes.letters(batch, reached))
            if sender.under_way and (done := sender.arrived(wait=PAUSE)):
                record_all(done, at=now())
            # While somebody is slow this process is taken anyway: it goes on with everybody else's messages, for a while.
            going = time.monotonic() < (until + LONGEST_STRAGGLE if sender.stragglers else until)
            batch = claim(at=now(), limit=sender.free) if going and sender.free else []
    return tried


def reroute(organization: Organization, *, by: Actor, at: datetime.datetime) -> int:
    """A channel of the organization has opened or changed: what waits there for a human or a later try is sent now.

    Returns how many messages."""
    waiting = Delivery.objects.select_for_update(no_key=True, of=("self",)).filter(
        organization=organization, state__in=[*WAITING, Delivery.State.DEAD, Delivery.State.MANUAL],
        lease__isnull=True, overtaken=False,
    )  # fmt: skip
    with transaction.atomic():
        keys = list(waiting.order_by("pk").values_list("pk", flat=True))
        rows = Delivery.objects.filter(pk__in=keys)
        rows.filter(state=Delivery.State.MANUAL).update(state=Delivery.State.QUEUED, next_at=at)
        rows.exclude(next_at__lte=at).update(next_at=at)
        transaction.on_commit(ring, robust=True)
    log.info("deliveries rerouted", organization=organization.code, count=len(keys))
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
