"""WRITES the way out of a Delivery: owe, claim, send, record, give up. What comes back is in `answers`.

The rows are the queue (`Outgoing` follows `Delivery`). A worker claims due rows under a lease, sends outside any transaction, and records the outcome
only if the lease is still its own: an acknowledgement that came first is never overwritten.
"""

import datetime
import time
import uuid
from collections.abc import Iterable
from typing import Any

import structlog
from celery import current_app
from django.db import OperationalError, connection, transaction
from django.db.models import Value
from django.db.models.functions import Least, Now
from psycopg.errors import LockNotAvailable

from consents import checks, health, ledger, locks, messages, routes
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Claimed, Delivery
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
        state=Delivery.State.CHECKING, overtaken=True, next_at=None, due_at=None, closed_at=at
    )
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
# by poll, or answered 410, is not called. A claim waits for no row: what somebody else is changing is left to the next.
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
  SELECT w.organization_id, CASE WHEN b.state = 'open' THEN 1 ELSE %(each)s END - COALESCE(u.n, 0) AS places,
    CASE WHEN b.state = 'open' AND b.open_until > %(at)s THEN %(at)s - %(longest)s ELSE %(at)s END AS due_by
  FROM waiting w
  LEFT JOIN under_way u ON u.organization_id = w.organization_id
  LEFT JOIN providers_channel c ON c.organization_id = w.organization_id AND c.state = 'open'
  LEFT JOIN consents_breaker b ON b.channel_id = c.id
  WHERE w.organization_id IS NOT NULL AND c.protocol IS DISTINCT FROM 'poll' AND b.state IS DISTINCT FROM 'disabled'
), picked AS MATERIALIZED (
  SELECT o.delivery_id FROM allowed a CROSS JOIN LATERAL (
    SELECT o.delivery_id, o.next_at FROM consents_outgoing o
    WHERE o.organization_id = a.organization_id AND o.next_at <= %(at)s
      AND (a.due_by = %(at)s OR o.stop_since <= a.due_by)
      AND (%(only)s::bigint IS NULL OR o.delivery_id = %(only)s)
      AND o.delivery_id NOT IN (SELECT delivery_id FROM busy)
      AND NOT EXISTS (
        SELECT 1 FROM consents_outgoing e
        WHERE e.subscription_id = o.subscription_id AND e.organization_id = o.organization_id
          AND e.delivery_id < o.delivery_id AND e.in_order)
    ORDER BY o.next_at, o.delivery_id LIMIT GREATEST(a.places, 0)
  ) o ORDER BY o.next_at, o.delivery_id LIMIT %(limit)s
), held AS MATERIALIZED (
  SELECT o.delivery_id, o.organization_id FROM consents_outgoing o
  WHERE o.delivery_id = ANY (ARRAY(SELECT delivery_id FROM picked)) AND o.next_at <= %(at)s
  FOR UPDATE SKIP LOCKED
), over AS MATERIALIZED (
  SELECT delivery_id FROM consents_lease WHERE until < %(at)s FOR UPDATE SKIP LOCKED
), again AS (
  UPDATE consents_lease l SET token = gen_random_uuid(), until = %(until)s, tries = l.tries + 1
  FROM over JOIN held USING (delivery_id) WHERE l.delivery_id = over.delivery_id
  RETURNING l.delivery_id, l.token, l.tries
), fresh AS (
  INSERT INTO consents_lease (delivery_id, organization_id, token, until, tries)
  SELECT delivery_id, organization_id, gen_random_uuid(), %(until)s, 1 FROM held
  WHERE delivery_id NOT IN (SELECT delivery_id FROM consents_lease)
  RETURNING delivery_id, token, tries
), forgotten AS (
  DELETE FROM consents_lease l USING over
  WHERE l.delivery_id = over.delivery_id AND NOT EXISTS (SELECT 1 FROM consents_outgoing o WHERE o.delivery_id = l.delivery_id)
)
SELECT d.id, d.jti, d.txn, d.person_id, d.subscription_id, s.operator_id, d.consent_id, d.organization_id, o.code, d.role,
  d.event, d.goal, d.state, d.version, d.body, d.overtaken, d.replay_of_id, d.handle, d.attempts + l.tries,
  extract(epoch FROM d.created_at)::float8, d.dead_at, l.token::text
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
    """Lease up to `limit` due rows to this worker, oldest first, in order per subscription and party, and never more of one
    organization than may be under way there at once, whichever worker has them. `only` is the key of the one that is wanted."""
    on = at.date()
    bounds: dict[str, Any] = {
        "at": at,
        "until": at + datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=on)),
        "limit": limit,
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


def record(delivery: Claimed, outcome: Outcome, *, at: datetime.datetime) -> bool:
    """Write what came of one try, if the lease is still ours. False: somebody else was faster, nothing written."""
    return bool(record_all([Attempt(delivery, outcome)], at=at))


_RECORD_SQL = """
WITH tried AS MATERIALIZED (
  SELECT t.id, t.token, t.next_at, k.* FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[], %(kinds)s::int[], %(next)s::timestamptz[])
    AS t (id, token, kind, next_at)
  JOIN unnest(%(states)s::text[], %(typs)s::text[], %(closed)s::timestamptz[], %(check)s::timestamptz[], %(status)s::int[],
    %(errors)s::text[], %(handles)s::text[]) WITH ORDINALITY
    AS k (state, typ, closed_at, check_at, http_status, last_error, handle, kind) ON k.kind = t.kind + 1
), ended AS (
  DELETE FROM consents_lease l USING tried t WHERE l.delivery_id = t.id AND l.token = t.token RETURNING t.*, l.tries
), held AS MATERIALIZED (
  SELECT d.id FROM consents_delivery d WHERE d.id = ANY (ARRAY(SELECT id FROM ended)) ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE consents_delivery d
SET state = t.state, next_at = t.next_at, sent_at = COALESCE(d.sent_at, CASE WHEN t.typ = 'delivery.sent' THEN %(at)s END),
  dead_at = COALESCE(d.dead_at, CASE WHEN t.state = 'dead' THEN %(at)s END), closed_at = COALESCE(d.closed_at, t.closed_at),
  check_at = COALESCE(d.check_at, t.check_at), http_status = t.http_status, last_error = t.last_error,
  handle = CASE WHEN t.handle <> '' THEN t.handle ELSE d.handle END, attempts = d.attempts + t.tries
FROM ended t
WHERE d.id = t.id AND d.state IN ('queued', 'retrying', 'dead') AND (SELECT count(*) FROM held) > 0  -- locked in order, before all
RETURNING d.id, t.token::text
"""


def record_all(attempts: list[Attempt], *, at: datetime.datetime) -> set[int]:
    """Write what came of several tries in one transaction, of those whose lease is still ours. Returns their keys.

    What they say about the health of their channels is noted after that, on its own."""
    if not attempts:
        return set()
    tried = [(attempt, consequence(attempt.delivery, attempt.outcome, at=at)) for attempt in attempts]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_RECORD_SQL, {"at": at, **_columns(tried, at=at)})
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


def _columns(tried: list[tuple[Attempt, Change]], *, at: datetime.datetime) -> dict[str, Any]:
    """The parameters of `_RECORD_SQL`. Most tries of a batch came out alike: what they came to is said once for each kind."""
    kinds: dict[tuple, int] = {}
    places = [kinds.setdefault(_kind(one, change, at=at), len(kinds)) for one, change in tried]
    names = ("states", "typs", "closed", "check", "status", "errors", "handles")
    return {
        "ids": _array(one.delivery.pk for one, _ in tried),
        "tokens": _array(one.delivery.lease_token for one, _ in tried),
        "kinds": _array(places),
        "next": _array(change.next_at.isoformat() if change.next_at else "NULL" for _, change in tried),
        **dict(zip(names, map(list, zip(*kinds, strict=True)), strict=True)),
    }


def _kind(one: Attempt, change: Change, *, at: datetime.datetime) -> tuple:
    outcome = one.outcome
    return (
        change.state, change.typ, change.closed_at, _first_check(one.delivery, change, at=at), outcome.status,
        outcome.detail[:300], outcome.handle[:100],
    )  # fmt: skip


def _array(values: Iterable[Any]) -> str:
    """A PostgreSQL array of what needs no quotes, at a tenth of what the driver takes for it."""
    return "{" + ",".join(map(str, values)) + "}"


def _first_check(delivery: Claimed, change: Change, *, at: datetime.datetime) -> datetime.datetime | None:
    """When the other side is asked for the first time; never about a replay, whose first is asked about."""
    asked = change.state in checks.ASKED and not delivery.overtaken and delivery.replay_of_id is None
    return checks.first(delivery, at=at) if asked else None


def _heard(attempts: list[Attempt]) -> dict[uuid.UUID, list[str]]:
    """Verdicts by channel, oldest first. The service's log has a line for each organization and what it came to there."""
    heard: dict[uuid.UUID, list[str]] = {}
    lines: dict[tuple, list[Attempt]] = {}
    for attempt in attempts:
        outcome = attempt.outcome
        if attempt.channel:
            heard.setdefault(attempt.channel, []).append(outcome.verdict)
        if outcome.verdict != SENT:
            line = attempt.delivery.organization_code, outcome.verdict, outcome.status
            lines.setdefault(line, []).append(attempt)
    for (code, verdict, status), some in lines.items():
        log.info(
            "delivery tried", organization=code, verdict=verdict, http_status=status, count=len(some),
            jti=str(some[0].delivery.jti),
        )  # fmt: skip
    log.info("deliveries tried", count=len(attempts))
    return heard


def _write_entries(written: list[tuple[Claimed, Change]], *, at: datetime.datetime) -> None:
    """One entry for each that moved. A replay moves nothing: its first delivery has the entries."""
    acts: dict[uuid.UUID, list] = {}
    for row, change in written:
        if change.typ and row.replay_of_id is None:
            fact = facts.of_message(
                change.typ, row, operator=row.operator_id, code=row.organization_code, state=change.state
            )
            acts.setdefault(row.txn, []).append(fact)
    if acts:
        ledger.append_acts(acts.items(), by=Actor.system("deliver"), at=at)


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
