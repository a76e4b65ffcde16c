"""WRITES notices: what a person is told before joining and in between, and what they did about it.

Nothing here ever blocks: a cap on the number of services was considered by the regulator in 2021 and dropped; what it
asked for is that the person is told before joining, and can end the others on the spot.
"""

import datetime
from dataclasses import dataclass, field

from django.db import transaction

from consents import ledger
from consents.actors import Actor
from consents.cautions import (
    INFORM,
    RULES,
    RULES_BEFORE,
    SOFT,
    STRONG,
    Facts,
    Reason,
    flows,
    gather,
    level,
    unused_months,
)
from consents.ledger import Fact
from consents.models import Consent, Notice, Person, Subscription
from providers.models import Service, Terms, TermsItem

__all__ = [
    "INFORM",
    "SOFT",
    "STRONG",
    "Bump",
    "Reason",
    "Row",
    "answer",
    "bump",
    "level",
    "raise_due",
    "raise_notice",
    "settle",
    "take_back",
]

PEOPLE_PER_BATCH = 200
# Raised by what happened, not by a rule: they stay until somebody answers, or what raised them takes them back.
OF_EVENTS = {
    Notice.Kind.MISMATCH,
    Notice.Kind.AFTER_STOP,
    Notice.Kind.REVIVED,
    Notice.Kind.LOST,
    Notice.Kind.OVERDUE,
}


@dataclass(slots=True)
class Row:
    """One live subscription on the speed bump."""

    subscription: Subscription
    overlap: bool = False
    dormant: int = 0  # months without use; 0 when used lately
    consents: list[Consent] = field(default_factory=list)  # the live ones


@dataclass(slots=True)
class Bump:
    """What a person sees before joining one more service."""

    level: str
    operators_holding: int
    subscriptions: int
    rows: list[Row] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)


def bump(*, person: Person, service: Service, at: datetime.datetime) -> Bump:
    """The live list with what overlaps and what is unused, the level, and reasons about this very service."""
    facts = next(gather([person], at=at))
    wanted = _asked(service)
    rows = [
        Row(
            row,
            _overlaps(row, facts.consents[row.pk], service, wanted),
            unused_months(row, facts),
            facts.consents[row.pk],
        )
        for row in facts.live
    ]
    reasons = [reason for rule in (*RULES_BEFORE, *RULES) for reason in rule(facts, service)]
    return Bump(
        level(person, len(facts.operators), at=at), len(facts.operators), len(facts.live), rows, reasons
    )


def _asked(service: Service) -> set[tuple]:
    """(source, scope) pairs that the service's published terms ask for, without mere lists."""
    items = TermsItem.objects.filter(
        terms__service=service, terms__state=Terms.State.PUBLISHED, kind=TermsItem.Kind.TRANSFER
    )
    return {(item.source_id, scope) for item in items for scope in item.scopes if not scope.endswith(".list")}


def _overlaps(row: Subscription, consents, service: Service, wanted: set[tuple]) -> bool:
    return row.service.purpose_code == service.purpose_code or bool(flows(consents) & wanted)


# --- notices -----------------------------------------------------------------------------------------------------------


def raise_due(*, by: Actor, at: datetime.datetime) -> dict[str, int]:
    """The daily job: raise what is new, close what no longer holds. Safe to run twice at once. Returns counts."""
    done = {"people": 0, "raised": 0, "gone": 0}
    last = None
    while True:
        people = Person.objects.filter(is_active=True, subscriptions__isnull=False).distinct().order_by("pk")
        batch = list((people.filter(pk__gt=last) if last else people)[:PEOPLE_PER_BATCH])
        if not batch:
            return done
        for facts in gather(batch, at=at):
            raised, gone = _review(facts, by=by, at=at)
            done["raised"] += raised
            done["gone"] += gone
        done["people"] += len(batch)
        last = batch[-1].pk


def _review(facts: Facts, *, by: Actor, at: datetime.datetime) -> tuple[int, int]:
    reasons = {(reason.kind, reason.matter): reason for rule in RULES for reason in rule(facts)}
    with transaction.atomic():
        # One reviewer at a time per person: the second finds nothing left to raise.
        Person.objects.select_for_update(no_key=True).get(pk=facts.person.pk)
        # Of several about one matter the newest counts.
        rows = Notice.objects.filter(person=facts.person).order_by("raised_at", "pk")
        known = {(n.kind, n.matter): n for n in rows}
        open_now = {key: n for key, n in known.items() if n.answer == ""}
        # An answered warning is not repeated while its matter is the same, unless it had gone away in between.
        silent = {key for key, n in known.items() if n.answer in {Notice.Answer.KEPT, Notice.Answer.ENDED}}
        fresh = [reason for key, reason in reasons.items() if key not in open_now and key not in silent]
        gone = [n for key, n in open_now.items() if key not in reasons and n.kind not in OF_EVENTS]
        for reason in fresh:
            raise_notice(facts.person, reason, by=by, at=at)
        for notice in gone:
            _close(notice, Notice.Answer.GONE, by=by, at=at)
    return len(fresh), len(gone)


def raise_notice(person: Person, reason: Reason, *, by: Actor, at: datetime.datetime) -> Notice:
    """Record one warning; an open one about the same matter stays the only one."""
    notice, created = Notice.objects.get_or_create(
        person=person, kind=reason.kind, matter=reason.matter, answer="",
        defaults={
            "subscription": reason.subscription, "reason_ko": reason.text_ko, "reason_en": reason.text_en,
            "urgent": reason.urgent, "raised_at": at,
        },
    )  # fmt: skip
    if created:
        _log("notice.raised", notice, by=by, at=at)
    return notice


def answer(*, notice: Notice, answer: str, by: Actor, at: datetime.datetime) -> Notice:
    """What the person did about a notice (kept, ended); the first answer stands."""
    with transaction.atomic():
        notice = (
            Notice.objects.select_for_update(no_key=True, of=("self",))
            .select_related("person", "subscription__operator")
            .get(pk=notice.pk)
        )
        if notice.answer == "":
            _close(notice, answer, by=by, at=at)
    return notice


def settle(subscription: Subscription, *, by: Actor, at: datetime.datetime) -> None:
    """The subscription has ended: its open notices are answered by that."""
    open_now = Notice.objects.filter(subscription=subscription, answer="").select_related("person")
    for notice in open_now.order_by("raised_at", "pk"):
        _close(notice, Notice.Answer.ENDED, by=by, at=at)


def take_back(person: Person, kind: str, matter: str, *, by: Actor, at: datetime.datetime) -> None:
    """What this notice warned of is over: it closes by itself."""
    open_now = Notice.objects.filter(person=person, kind=kind, matter=matter, answer="")
    for notice in open_now.select_related("person", "subscription__operator"):
        _close(notice, Notice.Answer.GONE, by=by, at=at)


def _close(notice: Notice, value: str, *, by: Actor, at: datetime.datetime) -> None:
    """The first answer stands, also where two come at once."""
    if Notice.objects.filter(pk=notice.pk, answer="").update(answer=value, answered_at=at):
        notice.answer, notice.answered_at = value, at
        _log("notice.answered", notice, by=by, at=at)


def _log(typ: str, notice: Notice, *, by: Actor, at: datetime.datetime) -> None:
    subscription = notice.subscription
    ledger.append(
        [
            Fact(
                typ,
                person=notice.person,
                operator=subscription.operator if subscription else None,
                subscription=subscription,
                reason=notice.kind,
                fields={
                    "knd": notice.kind,
                    "nid": notice.pk,
                    "sbs": subscription.pk if subscription else None,
                    **({"ans": notice.answer} if typ == "notice.answered" else {}),
                },
            )
        ],
        by=by,
        at=at,
    )
