"""WRITES what organizations say they hold of a person: asked when the person wants it and every night; differences become cases.

A list is one side's word. It opens cases and tells the person; nothing that was agreed changes by it.
"""

import asyncio
import datetime
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Max, Q

from consents import cases, contradictions, locks, readback, references, routes, speedbump, transfers
from consents.actors import Actor
from consents.models import (
    Case,
    Check,
    Consent,
    Delivery,
    Inquiry,
    Notice,
    Person,
    Reference,
    Subscription,
)
from consents.speedbump import Reason
from providers import outbound, policy, wires
from providers.models import Channel, Organization
from providers.wires import ABSENT, ACTIVE, STOPPED, Listing, RemoteConsent

log = structlog.get_logger(__name__)

BY = Actor.system("discover")
AT_ONCE = 40
PER_ORGANIZATION = 4  # at once: who hangs holds a round up for one time-out, not for several
RUN_SECONDS = 10.0  # after which a run begins nothing new
ENROL = 2000  # pairs of one run
MOST_DIFFERENCES = 50  # cases of one list: more than that is one mistake, not fifty

_CLAIM = """
WITH open AS (
  SELECT c.organization_id FROM providers_channel c LEFT JOIN consents_breaker b ON b.channel_id = c.id
  WHERE c.state = 'open' AND c.protocol = ANY(%(protocols)s)
    AND (b.state IS NULL OR b.state <> 'disabled' AND (b.open_until IS NULL OR b.open_until <= %(at)s))
), due AS (
  SELECT found.id, found.due_at FROM open CROSS JOIN LATERAL (
    SELECT id, due_at FROM consents_inquiry
    WHERE organization_id = open.organization_id AND due_at <= %(at)s ORDER BY due_at, id LIMIT %(each)s) AS found
  ORDER BY found.due_at, found.id LIMIT %(limit)s
), picked AS (
  SELECT id FROM consents_inquiry WHERE id IN (SELECT id FROM due) AND due_at <= %(at)s FOR UPDATE SKIP LOCKED
)
UPDATE consents_inquiry i SET due_at = %(until)s FROM picked WHERE i.id = picked.id RETURNING i.id
"""

# Whoever has a live or held subscription of a person, sends for it or receives from it, and was never asked about them.
_ENROL = """
INSERT INTO consents_inquiry (person_id, organization_id, outcome, held, differences, due_at)
SELECT person_id, organization_id, 'waiting', 0, 0, %(at)s + random() * %(every)s FROM (
  SELECT s.person_id, s.operator_id AS organization_id FROM consents_subscription s
  WHERE s.operator_id = ANY(%(organizations)s) AND NOT (s.state = 'ended' AND s.erasure = 'confirmed')
  UNION
  SELECT c.person_id, side.organization_id
  FROM consents_consent c CROSS JOIN LATERAL (VALUES (c.source_id), (c.recipient_id)) AS side (organization_id)
  WHERE c.state <> 'ended' AND side.organization_id = ANY(%(organizations)s)
) AS pair
WHERE NOT EXISTS (
  SELECT 1 FROM consents_inquiry i WHERE i.person_id = pair.person_id AND i.organization_id = pair.organization_id)
LIMIT %(limit)s
ON CONFLICT DO NOTHING
"""


class TooSoon(Exception):
    """The person has asked a moment ago; `again_at` is when they may ask again."""

    def __init__(self, again_at: datetime.datetime):
        super().__init__(again_at.isoformat())
        self.again_at = again_at


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that does not agree; `matter` says what about, so that it is one case."""

    kind: str
    matter: str
    stated: dict
    known: dict
    consent: Consent | None = None
    missing: tuple[str, ...] = ()


# --- who is asked, and when --------------------------------------------------------------------------------------------


def request(person: Person, *, by: Actor, at: datetime.datetime) -> int:
    """The person wants to know: everybody who may hold something of theirs is asked now. Returns how many.

    Raises TooSoon within ASK_AGAIN_MINUTES of the last time."""
    wait = datetime.timedelta(minutes=policy.number("ASK_AGAIN_MINUTES", on=at.date()))
    with transaction.atomic():
        Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        last = Inquiry.objects.filter(person=person).aggregate(last=Max("requested_at"))["last"]
        if last is not None and at < last + wait:
            raise TooSoon(last + wait)
        able = _able()
        parties = list(_parties(person))
        rows = [
            Inquiry(
                person=person,
                organization_id=pk,
                requested_at=at,
                outcome=Inquiry.Outcome.WAITING if pk in able else Inquiry.Outcome.UNABLE,
                due_at=at if pk in able else None,
            )
            for pk in parties
        ]
        Inquiry.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["person", "organization"],
            update_fields=["requested_at", "outcome", "due_at"],
        )  # fmt: skip
    return len(rows)


def _parties(person: Person) -> set:
    found = set(person.subscriptions.values_list("operator", flat=True))
    for pair in person.consents.values_list("source", "recipient"):
        found |= set(pair)
    return found - {None}


def _able() -> set:
    """Organizations that can be asked for a list, by their open channel."""
    open_now = Channel.objects.filter(state=Channel.State.OPEN, protocol__in=_protocols())
    return set(open_now.values_list("organization_id", flat=True))


def _protocols() -> list[str]:
    return [name for name, wire in routes.WIRES.items() if hasattr(wire, "list_remote")]


def enrol(*, at: datetime.datetime, limit: int = ENROL) -> int:
    """Add pairs of a person and an organization that are not asked about yet, spread over the time to the next round."""
    every = datetime.timedelta(hours=policy.number("DISCOVER_EVERY_HOURS", on=at.date()))
    bounds: dict[str, Any] = {"at": at, "every": every, "organizations": list(_able()), "limit": limit}
    with connection.cursor() as cursor:
        cursor.execute(_ENROL, bounds)
        return cursor.rowcount


def claim(*, at: datetime.datetime, limit: int) -> list[Inquiry]:
    """Up to `limit` due inquiries, a few of each organization; somebody else's turn when the lease ends."""
    until = at + datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=at.date()))
    bounds: dict[str, Any] = {
        "at": at,
        "until": until,
        "limit": limit,
        "each": PER_ORGANIZATION,
        "protocols": _protocols(),
    }
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CLAIM, bounds)
        ids = [pk for (pk,) in cursor.fetchall()]
    rows = Inquiry.objects.filter(pk__in=ids, due_at=until)
    return list(rows.select_related("organization", "person").order_by("pk"))


def run(*, now: Callable[[], datetime.datetime], rounds: int = 10, seconds: float = RUN_SECONDS) -> int:
    """Ask about whoever is due, at most `rounds` batches, and begin none after `seconds`; returns how many answers came in.
    One run at a time: whoever is slow to answer occupies one process of all, and no more."""
    until, asked = time.monotonic() + seconds, 0
    with locks.alone(locks.DISCOVERY) as alone:
        for _round in range(rounds if alone else 0):
            batch = claim(at=now(), limit=AT_ONCE) if time.monotonic() < until else []
            if not batch:
                break
            for inquiry, listing in ask(batch, now=now):
                asked += record(inquiry, listing, by=BY, at=now())
    return asked


def ask(batch: list[Inquiry], *, now: Callable[[], datetime.datetime]) -> Iterator[tuple[Inquiry, Listing]]:
    """What each organization lists. Whatever goes wrong is an incomplete list, never an exception."""
    known = routes.routes(row.organization_id for row in batch)
    names = {row.pk: _names(row) for row in batch}

    async def one(session, inquiry: Inquiry) -> Listing:
        route = known.get(inquiry.organization_id)
        if route is None or not route.can("list_remote"):
            return Listing(False, detail="no channel that can be asked")
        try:
            return await route.wire.list_remote(
                session, references=names[inquiry.pk], endpoint=route.endpoint, now=int(now().timestamp())
            )
        except Exception as error:  # one wire's bug must not keep the others from being asked
            log.exception("list failed", organization=inquiry.organization.code)
            return Listing(False, detail=type(error).__name__)

    async def everything() -> list[Listing]:
        async with outbound.open_session() as session:
            return await asyncio.gather(*(one(session, inquiry) for inquiry in batch))

    yield from zip(batch, asyncio.run(everything()), strict=True)


def _names(inquiry: Inquiry) -> list[wires.Reference]:
    """What the person is called over there: our own name for them, and theirs."""
    subject = wires.Reference("subject", str(inquiry.person.subject_id))
    theirs = Reference.objects.filter(person=inquiry.person_id, organization=inquiry.organization_id)
    return [
        subject,
        *(
            wires.Reference(row.kind, references.opened(row), str(row.consent_id or ""))
            for row in theirs.order_by("pk")[:100]
        ),
    ]


# --- what differs ------------------------------------------------------------------------------------------------------


def record(inquiry: Inquiry, listing: Listing, *, by: Actor, at: datetime.datetime) -> bool:
    """Write what came of one question, if nobody asked meanwhile; differences become cases. Returns whether it counted."""
    every = datetime.timedelta(hours=policy.number("DISCOVER_EVERY_HOURS", on=at.date()))
    following = at + every * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing
    with transaction.atomic():
        row = Inquiry.objects.select_for_update(no_key=True).get(pk=inquiry.pk)
        if row.due_at != inquiry.due_at:
            return False
        answered = listing.complete or bool(listing.consents)
        found = differences(inquiry.person, inquiry.organization, listing, at=at) if answered else []
        for difference in found[:MOST_DIFFERENCES]:
            _open(inquiry, difference, by=by, at=at)
        _undo(inquiry, found, listing, by=by, at=at)
        Outcome = Inquiry.Outcome
        row.outcome = (
            Outcome.COMPLETE if listing.complete else Outcome.PARTIAL if answered else Outcome.SILENT
        )
        row.answered_at = at if answered else row.answered_at
        row.held = sum(consent.state == ACTIVE for consent in listing.consents)
        row.differences, row.due_at = len(found), following
        row.save()
    return True


@dataclass(slots=True)
class _Ours:
    """What stands here between a person and an organization."""

    by_id: dict[str, Consent] = field(default_factory=dict)
    by_flow: dict[tuple[str, str], list[Consent]] = field(default_factory=dict)
    moving: set = field(default_factory=set)  # subscriptions about which messages are still on their way


def differences(
    person: Person, organization: Organization, listing: Listing, *, at: datetime.datetime
) -> list[Difference]:
    """Every difference between a list and what stands here. What changed lately, or is still being told, is none yet.

    Three queries and one for each name of theirs."""
    grace = datetime.timedelta(hours=policy.number("DISCOVER_GRACE_HOURS", on=at.date()))
    ours = _ours(person, organization, since=at - grace)
    found: list[Difference] = []
    seen: set = set()
    for remote in listing.consents:
        consent = _match(remote, ours, organization)
        if consent is not None:
            seen.add(consent.pk)
        found += _compare(remote, consent, ours, organization, since=at - grace)
    if listing.complete:
        for consent in ours.by_id.values():
            if consent.pk not in seen and _is_wanted(consent, listing, ours, since=at - grace):
                found.append(_missing(consent, ABSENT))
    return found


def _ours(person: Person, organization: Organization, *, since: datetime.datetime) -> _Ours:
    own = Q(subscription__operator=organization) | Q(source=organization) | Q(recipient=organization)
    rows = Consent.objects.filter(own, person=person).select_related(
        "subscription__service", "subscription__operator", "source", "recipient"
    )
    ours = _Ours()
    for consent in rows.order_by("granted_at", "pk"):
        ours.by_id[str(consent.pk)] = consent
        source = consent.source.code if consent.source else ""
        ours.by_flow.setdefault((consent.subscription.service.client_id, source), []).append(consent)
    told = Delivery.objects.filter(person=person, organization=organization, created_at__gt=since)
    ours.moving = set(told.filter(closed_at__isnull=True).values_list("subscription_id", flat=True))
    return ours


def _match(remote: RemoteConsent, ours: _Ours, organization: Organization) -> Consent | None:
    """By our own id, by a name they gave it, by service and source, or by who it is handed to (지원-105 names no service): then the
    live one, else the last."""
    if consent := ours.by_id.get(remote.identifier):
        return consent
    for kind in ("consent", "arrangement", "grant", "provision"):
        reference = references.named(organization, kind, remote.identifier) if remote.identifier else None
        if reference is not None and reference.consent_id:
            return ours.by_id.get(str(reference.consent_id))
    same = ours.by_flow.get((remote.service, remote.source), []) if remote.service else []
    if not same and remote.recipient:
        same = [consent for consent in ours.by_id.values() if _is_handed_to(consent, remote.recipient)]
    live = [consent for consent in same if consent.state != Consent.State.ENDED]
    return (live or same)[-1] if same else None


def _is_handed_to(consent: Consent, name: str) -> bool:
    other = consent.recipient
    return other is not None and name in (other.code, other.name_ko, other.name_en)


def _compare(
    remote: RemoteConsent,
    consent: Consent | None,
    ours: _Ours,
    organization: Organization,
    *,
    since: datetime.datetime,
) -> Iterable[Difference]:
    if consent is None:
        if remote.state == ACTIVE:
            yield Difference(
                Case.Kind.UNKNOWN_HERE,
                f"{remote.service} {remote.source} {remote.identifier}",
                _stated(remote),
                {},
            )
    elif consent.state == Consent.State.ENDED:
        if remote.state == ACTIVE and _is_settled(consent, ours, since=since):
            known = {"ended_at": str(consent.ended_at), "reason": consent.end_reason}
            matter = f"{consent.subscription_id} {organization.code}"  # as a read-back names it
            yield Difference(Case.Kind.ENDED_HERE, matter, _stated(remote), known, consent)
    elif not _is_settled(consent, ours, since=since):
        return
    elif remote.state in {STOPPED, ABSENT}:
        if consent.state == Consent.State.ACTIVE:
            yield _missing(consent, remote.state)
    elif remote.state == ACTIVE:
        yield from _other_terms(remote, consent)


def _other_terms(remote: RemoteConsent, consent: Consent) -> Iterable[Difference]:
    missing = tuple(sorted(set(consent.scopes) - set(remote.scopes))) if remote.scopes else ()
    more = sorted(set(remote.scopes) - set(consent.scopes))
    longer = remote.until_on and remote.until_on != consent.until_on.isoformat()
    if more or missing or longer:
        known = {"scopes": consent.scopes, "until_on": consent.until_on.isoformat()}
        yield Difference(Case.Kind.DIFFERS, str(consent.pk), _stated(remote), known, consent, missing)


def _missing(consent: Consent, says: str) -> Difference:
    known = {"state": consent.state, "granted_at": str(consent.granted_at), "scopes": consent.scopes}
    return Difference(Case.Kind.MISSING_THERE, str(consent.pk), {"says": says}, known, consent)


def _is_wanted(consent: Consent, listing: Listing, ours: _Ours, *, since: datetime.datetime) -> bool:
    """Whether a complete list must show it. What has ended need not be there, nor, in a list of what is valid, what is paused."""
    told = listing.kinds is None or consent.kind in listing.kinds
    return told and consent.state == Consent.State.ACTIVE and _is_settled(consent, ours, since=since)


def _is_settled(consent: Consent, ours: _Ours, *, since: datetime.datetime) -> bool:
    """Long enough as it is, and nobody is still being told."""
    if consent.subscription_id in ours.moving:
        return False
    if consent.state == Consent.State.ENDED:
        return consent.ended_at is not None and consent.ended_at <= since
    return consent.granted_at <= since


def _stated(remote: RemoteConsent) -> dict:
    return {
        "service": remote.service, "source": remote.source, "recipient": remote.recipient, "scopes": list(remote.scopes),
        "since_on": remote.since_on, "until_on": remote.until_on, "says": remote.state,
    }  # fmt: skip


def _undo(
    inquiry: Inquiry, found: list[Difference], listing: Listing, *, by: Actor, at: datetime.datetime
) -> None:
    """What was signed as erased before we asked, and is listed as live, counts again and is asked for again."""
    lease = datetime.timedelta(seconds=policy.number("LEASE_SECONDS", on=at.date()))
    asked_at = (inquiry.due_at or at) - lease
    live: dict[Any, list[Consent]] = defaultdict(list)
    for difference in found:
        if difference.kind == Case.Kind.ENDED_HERE and difference.consent:
            live[difference.consent.subscription_id].append(difference.consent)
    related = ("service", "operator", "person")
    locked = Subscription.objects.select_for_update(no_key=True, of=("self",)).select_related(*related)
    for subscription in locked.filter(pk__in=live).order_by("pk"):
        told = Delivery.objects.filter(subscription=subscription, organization=inquiry.organization)
        signed = told.filter(erased_at__isnull=False).select_related("organization", "subscription")
        if stop := signed.order_by("pk").last():
            look = Check(
                delivery=stop, says=ACTIVE, finding=Check.Finding.STILL_ACTIVE, http_status=listing.status,
                digest=listing.digest, detail=listing.detail[:300], at=at,
            )  # fmt: skip
            again = contradictions.listed(live[subscription.pk], look, by=by, at=asked_at)
            if again:
                readback.log_finding(look, again, by=by, at=at)
            contradictions.ask_again(subscription, again, organization=inquiry.organization, by=by, at=at)


def _open(inquiry: Inquiry, difference: Difference, *, by: Actor, at: datetime.datetime) -> None:
    consent = difference.consent
    subscription = consent.subscription if consent else None
    _case, is_new = cases.open_case(
        difference.kind, inquiry.organization, matter=difference.matter, stated=difference.stated, known=difference.known,
        person=inquiry.person, subscription=subscription, consent=consent, by=by, at=at,
    )  # fmt: skip
    if not is_new:
        return
    if difference.missing and consent is not None:
        consent.subscription.person = inquiry.person
        transfers.raise_lost(consent, difference.missing, by=by, at=at)
    words_ko, words_en = _WORDS[difference.kind]
    name = inquiry.organization
    speedbump.raise_notice(
        inquiry.person,
        Reason(
            Notice.Kind.MISMATCH,
            f"{name.name_ko}에 물어보니, {words_ko} 내 동의는 그대로예요.",
            f"We asked {name.name_en}: {words_en} Your consents are unchanged.",
            subscription=subscription,
            matter=f"{difference.kind} {name.code} {subscription.pk if subscription else difference.matter}"[
                :120
            ],
            urgent=difference.kind == Case.Kind.ENDED_HERE,
        ),
        by=by,
        at=at,
    )


_WORDS: dict[str, tuple[str, str]] = {
    Case.Kind.UNKNOWN_HERE: (
        "우리 기록에 없는 연동을 가지고 있다고 해요.",
        "they hold something that is not in our records.",
    ),
    Case.Kind.ENDED_HERE: ("끝낸 연동이 아직 살아 있다고 해요.", "what you ended is still live there."),
    Case.Kind.MISSING_THERE: (
        "우리 기록에 있는 연동이 없다고 해요.",
        "they do not know one of your consents.",
    ),
    Case.Kind.DIFFERS: ("항목이나 기간이 우리 기록과 달라요.", "items or dates differ from our records."),
}
