"""WRITES the end: one consent is withdrawn, a subscription is left, what was received is to be erased."""

import datetime
import uuid

from django.db import transaction

from consents import ledger, messages, propagation, speedbump
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Consent, EndReason, Erasure, Notice, Subscription

from .refusals import AlreadyEnded, NothingToErase
from .rows import consent_by_id, consents_of, locked_consent, locked_subscription
from .running import change


def withdraw(
    consent: Consent,
    *,
    erase: bool,
    by: Actor,
    at: datetime.datetime,
    reason: str = EndReason.PERSON_WITHDREW,
) -> Consent:
    """End one consent (전송요구 철회, 신용정보법 제33조의2⑦): data stops; what was received stays unless `erase`.

    The subscription goes on, and the operator still holds. Raises AlreadyEnded."""
    with transaction.atomic():
        consent = locked_consent(consent)
        end_consent(consent, reason=reason, erase=erase, at=at)
        change(
            consent,
            "consent.withdrawn",
            messages.CONSENT_WITHDRAWN,
            by=by,
            at=at,
            stop=True,
            erase=erase,
            reason=reason,
        )
    return consent


def leave(
    subscription: Subscription,
    *,
    erase: bool,
    by: Actor,
    at: datetime.datetime,
    reason: str = EndReason.PERSON_LEFT,
    quiet: bool = False,
) -> Subscription:
    """End a subscription (탈퇴): withdraw every consent in it and, with `erase`, ask for all data to be destroyed.

    `quiet` tells nobody: for a natural expiry, whose date everyone knows. Raises AlreadyEnded."""
    with transaction.atomic():
        subscription = locked_subscription(subscription)
        if subscription.state == Subscription.State.ENDED:
            raise AlreadyEnded(str(subscription.pk))
        live = list(consents_of(subscription).live())
        asked = end_rows(subscription, live, reason=reason, erase=erase, at=at)
        for consent in live:
            consent.save()
        subscription.save()
        held = _still_held(subscription, live) if erase else live
        if erase:
            asked += _ask_for_the_rest(held, at=at)
        owed = [] if quiet else propagation.duties(subscription, held, stop=True, erase=erase, by=by)
        _log_end(subscription, live, owed, asked, reason=reason, by=by, at=at)
        speedbump.settle(subscription, by=by, at=at)
    return subscription


def ended_by(what: Consent | Subscription, *, reason: str, by: Actor, at: datetime.datetime) -> bool:
    """The other side has ended it (`reason` source_left or operator_closed): everybody else is told, and so is the person.

    Nothing is asked to be erased: the person decides that. False where it had ended before, and nothing is changed."""
    with transaction.atomic():
        try:
            if isinstance(what, Consent):
                fresh: Consent | Subscription = withdraw(what, erase=False, by=by, at=at, reason=reason)
            else:
                fresh = leave(what, erase=False, by=by, at=at, reason=reason)
        except AlreadyEnded:
            return False
        subscription = fresh.subscription if isinstance(fresh, Consent) else fresh
        speedbump.raise_notice(subscription.person, _lost(fresh, subscription, by=by), by=by, at=at)
    return True


def _lost(what: Consent | Subscription, subscription: Subscription, *, by: Actor) -> speedbump.Reason:
    parties = [what.source, what.recipient] if isinstance(what, Consent) else []
    who = next(
        (party for party in parties if party and party.pk == by.organization_id), subscription.operator
    )
    service = subscription.service
    if closed := what == subscription and service.state == service.State.CLOSED:
        words = f"회사가 서비스를 닫아서 가입이 끝났어요: {who.name_ko} · {service.name_ko}"
        words_en = f"The company has closed the service, which ended your subscription: {who.name_en} · {service.name_en}"
    else:
        words = f"상대가 끝냈어요: {who.name_ko} · {service.name_ko}"
        words_en = f"Ended by the other side: {who.name_en} · {service.name_en}"
    return speedbump.Reason(
        Notice.Kind.LOST,
        words,
        words_en,
        subscription=subscription,
        matter=f"{Notice.CLOSED if closed else Notice.ENDED} {what.pk}",
    )


def end_rows(subscription, live: list[Consent], *, reason: str, erase: bool, at) -> list[uuid.UUID]:
    """End the unsaved rows of a subscription and its live consents; returns the ids of those asked to be erased."""
    for consent in live:
        consent.subscription = subscription
        end_consent(consent, reason=reason, erase=erase, at=at)
        consent.version += 1
    subscription.state = Subscription.State.ENDED
    subscription.ended_at, subscription.end_reason = at, reason
    subscription.version += 1
    if not erase:
        return []
    ask_erasure(subscription, at=at)
    return [subscription.pk, *(consent.pk for consent in live)]


def told(subscription, live, owed, asked, *, reason: str, overtaken=()) -> list[ledger.Fact]:
    """What the log says of an end."""
    typ = "consent.expired" if reason == EndReason.EXPIRED else "consent.withdrawn"
    ended = facts.of_subscription(
        "subscription.ended", subscription, reason=reason, owed=owed, overtaken=overtaken
    )
    said = [ended, *(facts.of_consent(typ, consent, reason=reason) for consent in live)]
    return [*said, facts.of_erasure(subscription, asked=asked)] if asked else said


def _log_end(subscription, live, owed, asked, *, reason, by, at) -> None:
    txn = messages.new_id()
    overtaken = propagation.overtake(subscription, by=by, at=at) if owed else []
    said = told(subscription, live, owed, asked, reason=reason, overtaken=overtaken)
    entries = ledger.append(said, by=by, at=at, txn=txn)
    if owed:
        propagation.owe(
            owed, event=messages.SUBSCRIPTION_ENDED, subscription=subscription, txn=txn, at=at,
            leaf_hash=entries[0].leaf_hash, reason=reason,
        )  # fmt: skip


def erase(subscription: Subscription, *, by: Actor, at: datetime.datetime) -> Subscription:
    """Ask, after an end, for what was received to be destroyed (삭제 요구). Raises NothingToErase."""
    with transaction.atomic():
        subscription = locked_subscription(subscription)
        if subscription.state != Subscription.State.ENDED or subscription.erasure != Erasure.NOT_REQUESTED:
            raise NothingToErase(str(subscription.pk))
        ask_erasure(subscription, at=at)
        subscription.version += 1
        subscription.save()
        held = _still_held(subscription, [])
        asked = [subscription.pk, *_ask_for_the_rest(held, at=at)]
        txn = messages.new_id()
        owed = [
            duty
            for duty in propagation.duties(subscription, held, stop=True, erase=True, by=by)
            if duty.goal == "erased" and duty.role != "source"
        ]
        entries = ledger.append(
            [facts.of_erasure(subscription, asked=asked, owed=owed)], by=by, at=at, txn=txn
        )
        propagation.owe(
            owed, event=messages.ERASURE_REQUESTED, subscription=subscription, txn=txn, at=at,
            leaf_hash=entries[0].leaf_hash, reason=subscription.end_reason,
        )  # fmt: skip
    return subscription


def erase_consent(consent: Consent, *, by: Actor, at: datetime.datetime) -> Consent:
    """Ask, after the end of one consent, for what came through it to be destroyed. Raises NothingToErase."""
    with transaction.atomic():
        locked_subscription(consent.subscription)
        consent = consent_by_id(consent.pk)
        subscription = consent.subscription
        if consent.state != Consent.State.ENDED or consent.erasure != Erasure.NOT_REQUESTED:
            raise NothingToErase(str(consent.pk))
        ask_erasure(consent, at=at)
        subscription.version += 1
        subscription.save()
        consent.save()
        txn = messages.new_id()
        owed = [
            d
            for d in propagation.duties(subscription, [consent], stop=True, erase=True, by=by)
            if d.goal == "erased"
        ]
        entries = ledger.append(
            [facts.of_erasure(subscription, asked=[consent.pk], consent=consent, owed=owed)],
            by=by,
            at=at,
            txn=txn,
        )
        propagation.owe(
            owed, event=messages.ERASURE_REQUESTED, subscription=subscription, txn=txn, at=at,
            leaf_hash=entries[0].leaf_hash, reason=consent.end_reason, consent=consent,
        )  # fmt: skip
    return consent


def end_consent(consent: Consent, *, reason: str, erase: bool, at) -> None:
    consent.state, consent.ended_at, consent.end_reason = Consent.State.ENDED, at, reason
    consent.paused_until = None
    if erase:
        ask_erasure(consent, at=at)


def ask_erasure(row: Subscription | Consent, *, at) -> None:
    row.erasure, row.erasure_requested_at = Erasure.REQUESTED, at


def _ask_for_the_rest(consents: list[Consent], *, at) -> list[uuid.UUID]:
    """Erase all: what was withdrawn before without erasing belongs to it. Returns the ids of those."""
    rest = [consent for consent in consents if consent.erasure == Erasure.NOT_REQUESTED]
    for consent in rest:
        ask_erasure(consent, at=at)
        consent.save()
    return [consent.pk for consent in rest]


def _still_held(subscription, live: list[Consent]) -> list[Consent]:
    """The consents just ended, and those ended before whose data has not been confirmed erased."""
    known = {consent.pk for consent in live}
    return live + [
        consent
        for consent in consents_of(subscription)
        .filter(state=Consent.State.ENDED)
        .exclude(erasure=Erasure.CONFIRMED)
        if consent.pk not in known
    ]
