"""WRITES what came of tries: many in one transaction, each only if its lease is still ours.

What they say about the health of their channels is noted after that, on its own.
"""

import datetime
import uuid
from collections.abc import Iterable
from typing import Any

import structlog
from django.db import connection, transaction

from consents import checks, health, ledger, steps
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Claimed, Delivery
from consents.retries import Change, consequence
from consents.sending import Attempt
from providers.models import Organization
from providers.wires import KEY, RECEIVED, REFUSED, SENT, Outcome

log = structlog.get_logger(__name__)


def record(delivery: Claimed, outcome: Outcome, *, at: datetime.datetime) -> bool:
    """Write what came of one try, if the lease is still ours. False: somebody else was faster, nothing written."""
    return bool(record_all([Attempt(delivery, outcome)], at=at))


# All rows are locked in order before the first is written.
_RECORD_SQL = """
WITH tried AS MATERIALIZED (
  SELECT t.id, t.token, t.next_at, t.due_at, k.* FROM unnest(%(ids)s::bigint[], %(tokens)s::uuid[], %(kinds)s::int[], %(next)s::timestamptz[], %(due)s::timestamptz[])
    AS t (id, token, kind, next_at, due_at)
  JOIN unnest(%(states)s::text[], %(typs)s::text[], %(closed)s::timestamptz[], %(check)s::timestamptz[], %(status)s::int[],
    %(errors)s::text[], %(handles)s::text[], %(not_before)s::timestamptz[], %(key_faults)s::bool[]) WITH ORDINALITY
    AS k (state, typ, closed_at, check_at, http_status, last_error, handle, not_before, key_fault, kind) ON k.kind = t.kind + 1
), ended AS (
  DELETE FROM consents_lease l USING tried t WHERE l.delivery_id = t.id AND l.token = t.token RETURNING t.*, l.tries
), held AS MATERIALIZED (
  SELECT d.id FROM consents_delivery d WHERE d.id = ANY (ARRAY(SELECT id FROM ended)) ORDER BY d.id FOR NO KEY UPDATE
)
UPDATE consents_delivery d
SET state = t.state, next_at = t.next_at, not_before = t.not_before,
  key_fault_at = CASE WHEN t.key_fault THEN COALESCE(d.key_fault_at, %(at)s) END,
  sent_at = COALESCE(d.sent_at, CASE WHEN t.typ IN ('delivery.sent', 'delivery.received') THEN %(at)s END),
  received_at = COALESCE(d.received_at, CASE WHEN t.typ = 'delivery.received' THEN %(at)s END),
  due_at = CASE WHEN t.typ = 'delivery.received' THEN t.due_at ELSE d.due_at END,
  dead_at = COALESCE(d.dead_at, CASE WHEN t.state = 'dead' THEN %(at)s END), closed_at = COALESCE(d.closed_at, t.closed_at),
  check_at = COALESCE(d.check_at, t.check_at), http_status = t.http_status, last_error = t.last_error,
  handle = CASE WHEN t.handle <> '' THEN t.handle ELSE d.handle END, attempts = d.attempts + t.tries
FROM ended t
WHERE d.id = t.id AND d.state IN ('queued', 'retrying', 'dead') AND (SELECT count(*) FROM held) > 0
RETURNING d.id, t.token::text
"""
# In one line, because the driver remembers how it read a statement only where that has less than 4,096 characters.
_RECORD_SQL = " ".join(_RECORD_SQL.split())


def record_all(attempts: list[Attempt], *, at: datetime.datetime) -> set[int]:
    """Write what came of several tries, of those whose lease is still ours. Returns their keys."""
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
    _answer_firsts([row for row, change in written if change.state == RECEIVED and row.replay_of_id], at=at)
    health.note(_heard(attempts), at=at)
    return {delivery.pk for delivery, _ in written}


def _columns(tried: list[tuple[Attempt, Change]], *, at: datetime.datetime) -> dict[str, Any]:
    """The parameters of `_RECORD_SQL`. Most tries of a batch came out alike: what they came to is said once for each kind."""
    kinds: dict[tuple, int] = {}
    soonest = checks.soonest(at=at)
    places = [kinds.setdefault(_kind(one, change, soonest), len(kinds)) for one, change in tried]
    names = ("states", "typs", "closed", "check", "status", "errors", "handles", "not_before", "key_faults")
    return {
        "ids": _array(one.delivery.pk for one, _ in tried),
        "tokens": _array(one.delivery.lease_token for one, _ in tried),
        "kinds": _array(places),
        "next": _array(change.next_at.isoformat() if change.next_at else "NULL" for _, change in tried),
        "due": _array(_due(one.delivery, change) for one, change in tried),
        **dict(zip(names, map(list, zip(*kinds, strict=True)), strict=True)),
    }


def _kind(one: Attempt, change: Change, soonest: datetime.datetime) -> tuple:
    outcome = one.outcome
    return (
        change.state, change.typ, change.closed_at, soonest if _is_asked(one.delivery, change) else None, outcome.status,
        outcome.detail[:300], outcome.handle[:100], change.not_before, outcome.verdict == KEY,
    )  # fmt: skip


def _due(delivery: Claimed, change: Change) -> str:
    """Until when a message that was received must have been acted upon."""
    if change.state != Delivery.State.RECEIVED or change.closed_at:
        return "NULL"
    since = datetime.datetime.fromtimestamp(delivery.owed_since, datetime.UTC)
    return steps.deadline("stopped", created_at=since, goal=delivery.goal).isoformat()


def _array(values: Iterable[Any]) -> str:
    """A PostgreSQL array of what needs no quotes, at a tenth of what the driver takes for it."""
    return "{" + ",".join(map(str, values)) + "}"


def _is_asked(delivery: Claimed, change: Change) -> bool:
    """Whether the other side is asked what became of it; never about a replay, whose first is asked about."""
    asked = change.state in checks.ASKED and delivery.goal != Delivery.Goal.RECEIVED
    return asked and not delivery.overtaken and delivery.replay_of_id is None


def _heard(attempts: list[Attempt]) -> dict[uuid.UUID, list[str]]:
    """Verdicts by channel, oldest first. The service's log has a line for each organization and what it came to there."""
    heard: dict[uuid.UUID, list[str]] = {}
    lines: dict[tuple, list[Attempt]] = {}
    for attempt in attempts:
        outcome = attempt.outcome
        sent = outcome.verdict != REFUSED or outcome.status is not None  # what we never sent says nothing
        if attempt.channel and sent:
            heard.setdefault(attempt.channel, []).append(outcome.verdict)
        if outcome.verdict not in {SENT, RECEIVED}:
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


def _answer_firsts(replays: list[Claimed], *, at: datetime.datetime) -> None:
    """Whoever has a replay has the message: the first delivery, which has the entries, is received."""
    firsts: dict[uuid.UUID, list[int]] = {}
    for replay in replays:
        firsts.setdefault(replay.organization_id, []).append(replay.replay_of_id or 0)
    for organization in Organization.objects.filter(pk__in=firsts):
        ids = Delivery.objects.filter(pk__in=firsts[organization.pk]).values_list("jti", flat=True)
        steps.receive(list(ids), organization=organization, by=Actor.organization(organization), at=at)
