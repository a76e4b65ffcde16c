"""WRITES what the other side says when we ask whether a stop was done: checks, what follows from them, and findings.

An acknowledgement is a promise; a read-back looks. Due rows are claimed by moving `check_at` on, asked outside any
transaction, and recorded only if nobody moved them meanwhile: two runs at once ask nobody twice.
"""

import asyncio
import dataclasses
import datetime
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from django.db import connection, transaction

from consents import cases, checks, contradictions, ledger, locks, routes, speedbump
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Case, Check, Consent, Delivery, Notice, Subscription
from consents.parties import RANK
from consents.speedbump import Reason
from consents.steps import advance, deadline, write_entry
from providers import outbound, policy
from providers.wires import ABSENT, ACTIVE, STOPPED, STOPPING, UNKNOWN, Reading

log = structlog.get_logger(__name__)

BY = Actor.system(checks.LOOKED)
AT_ONCE = 40  # rows of one round
PER_ORGANIZATION = 4  # at once: who hangs holds a round up for one time-out, not for several
RUN_SECONDS = 10.0  # after which a run begins nothing new
BACKFILL = 1000  # rows of one run
MEANS = "readback"

_CLAIM = """
WITH open AS (
  SELECT c.organization_id FROM providers_channel c LEFT JOIN consents_breaker b ON b.channel_id = c.id
  WHERE c.state = 'open' AND c.protocol = ANY(%(protocols)s)
    AND (b.state IS NULL OR b.state <> 'disabled' AND (b.open_until IS NULL OR b.open_until <= %(at)s))
), due AS (
  SELECT found.id, found.check_at FROM open CROSS JOIN LATERAL (
    SELECT id, check_at FROM consents_delivery
    WHERE organization_id = open.organization_id AND check_at <= %(at)s ORDER BY check_at, id LIMIT %(each)s) AS found
  ORDER BY found.check_at, found.id LIMIT %(limit)s
), picked AS (
  SELECT id FROM consents_delivery WHERE id IN (SELECT id FROM due) AND check_at <= %(at)s FOR UPDATE SKIP LOCKED
)
UPDATE consents_delivery d SET check_at = %(until)s FROM picked WHERE d.id = picked.id RETURNING d.id
"""

_BACKFILL = """
WITH missed AS (
  SELECT id FROM consents_delivery
  WHERE check_at IS NULL AND checks = 0 AND goal <> 'received' AND NOT overtaken AND replay_of_id IS NULL
    AND state IN ('sent', 'received', 'checking', 'stopped', 'erased')
  ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE consents_delivery d
SET check_at = CASE WHEN d.closed_at IS NULL THEN greatest(%(at)s, coalesce(d.sent_at, d.created_at) + %(first)s)
  ELSE %(at)s + random() * %(week)s END
FROM missed WHERE d.id = missed.id
"""


def run(
    *, now: Callable[[], datetime.datetime], rounds: int = 10, seconds: float = RUN_SECONDS
) -> list[Check]:
    """Ask about what is due, at most `rounds` batches, and begin none after `seconds`. Returns the checks that found something
    wrong for the first time. One run at a time: whoever is slow to answer occupies one process of all, and no more."""
    until, found = time.monotonic() + seconds, []
    with locks.alone(locks.READ_BACK) as alone:
        if not alone:
            return []
        backfill(at=now())
        for _round in range(rounds):
            batch = claim(at=now(), limit=AT_ONCE) if time.monotonic() < until else []
            if not batch:
                break
            for delivery, reading in ask(batch, now=now):
                check = record(delivery, reading, by=BY, at=now())
                if check is not None and check.is_news:  # type: ignore[attr-defined]  # set by record
                    found.append(check)
    return found


def backfill(*, at: datetime.datetime, limit: int = BACKFILL) -> int:
    """Give a first check to stops that have none: what was only sent, and what stood before there were checks; within the
    week where nothing is open any more."""
    week = datetime.timedelta(days=policy.number("CHECK_EVERY_DAYS", on=at.date()))
    bounds: dict[str, Any] = {"at": at, "first": checks.rungs(on=at.date())[0], "week": week, "limit": limit}
    with connection.cursor() as cursor:
        cursor.execute(_BACKFILL, bounds)
        return cursor.rowcount


def claim(*, at: datetime.datetime, limit: int) -> list[Delivery]:
    """Up to `limit` due rows, a few of each organization that can be asked and is not known to be down. Theirs until the
    lease ends: then somebody else asks."""
    until = at + datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=at.date()))
    protocols = [name for name, wire in routes.WIRES.items() if hasattr(wire, "read_back")]
    bounds: dict[str, Any] = {
        "at": at,
        "until": until,
        "limit": limit,
        "each": PER_ORGANIZATION,
        "protocols": protocols,
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLAIM, bounds)
        ids = [pk for (pk,) in cursor.fetchall()]
    rows = Delivery.objects.filter(pk__in=ids, check_at=until)
    return list(rows.select_related("organization", "replay_of", "consent").order_by("pk"))


def ask(batch: list[Delivery], *, now: Callable[[], datetime.datetime]) -> Iterable[tuple[Delivery, Reading]]:
    """What each other side says. Whatever goes wrong is UNKNOWN, never an exception."""
    known, letters = routes.routes(row.organization_id for row in batch), routes.letters(batch)

    async def one(session, delivery: Delivery) -> Reading:
        route = known.get(delivery.organization_id)
        if route is None or not route.can("read_back"):
            return Reading(UNKNOWN, detail="no channel that can be asked")
        try:
            return await route.wire.read_back(
                session, message=letters[delivery.pk], endpoint=route.endpoint, now=int(now().timestamp())
            )
        except Exception as error:  # one wire's bug must not keep the others from being asked
            log.exception("read-back failed", jti=str(delivery.jti))
            return Reading(UNKNOWN, detail=type(error).__name__)

    async def everything() -> list[Reading]:
        async with outbound.open_session() as session:
            return await asyncio.gather(*(one(session, delivery) for delivery in batch))

    by_own_id = {pk for pk, route in known.items() if getattr(route.wire, "NAMES_OUR_IDS", False)}
    for delivery, reading in zip(batch, asyncio.run(everything()), strict=True):
        if reading.says == ACTIVE and delivery.organization_id not in by_own_id and _given_again(delivery):
            reading = Reading(UNKNOWN, reading.status, "agreed again since", reading.digest)
        yield delivery, reading


def _given_again(delivery: Delivery) -> bool:
    """Whether what they show as live may be what the person agreed to later: their lists do not tell one from the other."""
    live = Consent.objects.live().filter(
        person=delivery.person_id, subscription__service__subscriptions=delivery.subscription_id
    )
    if consent := delivery.consent:
        live = live.filter(kind=consent.kind, source=consent.source_id, recipient=consent.recipient_id)
    elif delivery.role == Delivery.Role.SOURCE:
        live = live.filter(source=delivery.organization_id)
    return live.exists()


# --- what follows --------------------------------------------------------------------------------------------------------


def record(delivery: Delivery, reading: Reading, *, by: Actor, at: datetime.datetime) -> Check | None:
    """Write the answer and what follows from it, if the row is still as it was claimed. None: somebody was faster.

    Sets `is_news` on the check: it found something wrong that the one before did not, or that was signed as erased since."""
    with transaction.atomic():
        # The subscription first, as everywhere: one order of locks, no deadlock.
        Subscription.objects.select_for_update(no_key=True).get(pk=delivery.subscription_id)
        row = (
            Delivery.objects.select_for_update(no_key=True, of=("self",))
            .select_related(
                "organization", "subscription__operator", "subscription__service", "subscription__person",
                "consent__source", "consent__recipient",
            )
            .get(pk=delivery.pk)
        )  # fmt: skip
        if row.check_at != delivery.check_at:
            return None
        before = list(Check.objects.filter(delivery=row).order_by("-pk")[:50])
        finding = _finding(row, reading, before, at=at)
        check = Check.objects.create(
            delivery=row, says=reading.says, finding=finding, http_status=reading.status, digest=reading.digest,
            detail=reading.detail[:300], at=at,
        )  # fmt: skip
        was_wrong = bool(_last_word(before) and _last_word(before).finding)  # type: ignore[union-attr]
        again = contradictions.seen(row, at=_asked_at(delivery.check_at or at)) if finding else []
        check.is_news = bool(finding) and (not was_wrong or bool(again))  # type: ignore[attr-defined]
        _move(row, reading, by=by, at=at)
        row.checks = min(row.checks + 1, 32_767)
        row.check_at = checks.following(row, at=at, wrong=bool(finding))
        row.save()
        if finding:
            _open_case(row, check, by=by, at=at)
        if check.is_news:  # type: ignore[attr-defined]
            _tell(row, check, again, by=by, at=at)
            contradictions.ask_again(row.subscription, again, organization=row.organization, by=by, at=at)
        elif was_wrong and reading.says in {STOPPED, ABSENT}:
            speedbump.take_back(row.person, Notice.Kind.REVIVED, _matter(row), by=by, at=at)
    log.info("read back", jti=str(row.jti), organization=row.organization.code, says=reading.says)
    return check


def _asked_at(lease_until: datetime.datetime) -> datetime.datetime:
    """When the lease began: what was signed while we were asking is not held against anybody."""
    lease = policy.number("LEASE_SECONDS", on=lease_until.date())
    return lease_until - datetime.timedelta(seconds=lease)


def _last_word(before: list[Check]) -> Check | None:
    """The newest check that said something."""
    return next((check for check in before if check.says != UNKNOWN), None)


def _finding(delivery: Delivery, reading: Reading, before: list[Check], *, at: datetime.datetime) -> str:
    """What is wrong: it came back after we had seen it gone, or it never stopped though they said so or had time enough."""
    if reading.says != ACTIVE:
        return ""
    if any(check.says in {STOPPED, ABSENT} for check in before):
        return Check.Finding.CAME_BACK
    claimed = RANK.get(delivery.state, 0) >= RANK["stopped"]
    limit = deadline("stopped", created_at=delivery.created_at, goal=delivery.goal)
    return Check.Finding.STILL_ACTIVE if claimed or at >= limit else ""


def _move(delivery: Delivery, reading: Reading, *, by: Actor, at: datetime.datetime) -> None:
    """*Stopped* is their signed word or our own look; *erased* is never taken from a look."""
    reached = {STOPPED: "stopped", ABSENT: "stopped", STOPPING: "received"}.get(reading.says)
    open_states = {Delivery.State.SENT, Delivery.State.RECEIVED, Delivery.State.CHECKING}
    if reached is None or delivery.state not in open_states or RANK.get(delivery.state, 0) >= RANK[reached]:
        return
    advance(delivery, reached, at=at)
    write_entry(
        delivery, f"delivery.{reached}", state=reached, by=by, at=at, mth=MEANS, **_evidence(reading.digest)
    )


def _evidence(digest: str) -> dict[str, str]:
    return {"evd": f"sha256:{digest}"} if digest else {}


def _matter(delivery: Delivery) -> str:
    return f"{delivery.subscription_id} {delivery.organization.code}"


def _tell(
    delivery: Delivery, check: Check, again: list[uuid.UUID], *, by: Actor, at: datetime.datetime
) -> None:
    """The log and the person: once for each time it goes wrong. `again` are the rows whose erasure is asked again."""
    log_finding(check, again, by=by, at=at)
    subscription, organization = delivery.subscription, delivery.organization
    came_back = check.finding == Check.Finding.CAME_BACK
    speedbump.raise_notice(
        delivery.person,
        Reason(
            Notice.Kind.REVIVED,
            f"{subscription.service.name_ko}: {organization.name_ko}에 다시 물어보니 "
            + ("멈췄던 연동이 되살아나 있어요." if came_back else "아직 멈추지 않았어요.")
            + (" 지웠다던 정보도 다시 세요." if again else "")
            + " 감독자에게 알렸고, 계속 확인할게요.",
            f"{subscription.service.name_en}: we asked {organization.name_en} again, and what you stopped is "
            + ("back." if came_back else "still there.")
            + (" What they signed as erased counts again." if again else "")
            + " The regulator has been told, and we keep checking.",
            subscription=subscription,
            matter=_matter(delivery),
            urgent=True,
        ),
        by=by,
        at=at,
    )


def log_finding(check: Check, again: list[uuid.UUID], *, by: Actor, at: datetime.datetime) -> None:
    """The log's entry of a look that found something wrong; `again` as for `_tell`."""
    delivery = check.delivery
    fact = facts.of_delivery(
        "delivery.contradicted", delivery, state=delivery.state, mth=MEANS, **_evidence(check.digest),
        **({"ids": again} if again else {}),
    )  # fmt: skip
    fact = dataclasses.replace(fact, reason=check.finding)
    ledger.append([fact], by=by, at=at, txn=delivery.txn)


def _open_case(delivery: Delivery, check: Check, *, by: Actor, at: datetime.datetime) -> None:
    """As long as it is wrong a case is open: whoever has settled one finds the next look in a new one."""
    said = checks.said_state(checks.looked([delivery.pk])[delivery.pk])
    subscription, organization = delivery.subscription, delivery.organization
    cases.open_case(
        Case.Kind.ENDED_HERE,
        organization,
        matter=_matter(delivery),
        stated={"says": check.says, "finding": check.finding, "claimed": said, "checked_at": at.isoformat()},
        known={"event": delivery.event, "ended_at": delivery.created_at.isoformat(), "delivery": str(delivery.jti)},
        person=delivery.person, subscription=subscription, consent=delivery.consent, by=by, at=at,
    )  # fmt: skip
