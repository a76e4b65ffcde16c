"""WRITES the lives of subscriptions and consents, for one person: join, amend, pause, resume, withdraw, leave, erase, expire.

Every function is one transaction of three writes: the rows, their ledger entries, the deliveries they owe. `by` is the
actor, `at` an aware moment. What has ended never comes back: the functions refuse, and so does the database.
"""

import datetime
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from dateutil.relativedelta import relativedelta
from django.db import IntegrityError, transaction

from consents import ledger, messages, propagation, speedbump
from consents.actors import Actor
from consents.ledger import facts
from consents.ledger.entries import SEOUL
from consents.models import Consent, EndReason, Erasure, Person, Subscription
from providers import policy
from providers.models import Service, Terms, TermsItem
from providers.models.organizations import OPEN_STATUSES


class Refused(Exception):
    """The act is not possible now; the class says why."""


class AlreadyEnded(Refused):
    """The subscription or consent has ended. Ended is for ever."""


class AlreadyJoined(Refused):
    """The person has a live subscription to this service."""


class NotOpen(Refused):
    """The operator's licence or the service's state does not allow new consents."""


class TermsChanged(Refused):
    """The terms that were shown are not the published ones any more."""


class RequiredDeclined(Refused):
    """A required item was not agreed to."""


class NotOffered(Refused):
    """The item, scope, rider or date is not part of what the terms ask."""


class TooYoung(Refused):
    """Below the age of self-use, or the item is not for the person's age."""


class NotActive(Refused):
    """Only an active consent can be paused, only a paused one resumed."""


class NothingToErase(Refused):
    """Still running, already asked for, or already confirmed."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One item the person agreed to, with the riders switched on."""

    item: TermsItem
    riders: tuple[str, ...] = ()


def day(at: datetime.datetime) -> datetime.date:
    """The date in Seoul of a moment."""
    return at.astimezone(SEOUL).date()


# --- join --------------------------------------------------------------------------------------------------------------


def join(
    *,
    person: Person,
    service: Service,
    terms: Terms,
    choices: Iterable[Choice],
    language: str,
    by: Actor,
    at: datetime.datetime,
    until_on: datetime.date | None = None,
    origin: str = Subscription.Origin.PORTAL,
) -> Subscription:
    """Begin a subscription with the chosen items; whatever else the terms ask is recorded as declined.

    `until_on` may shorten the validity. Raises NotOpen, TermsChanged, RequiredDeclined, NotOffered, TooYoung,
    AlreadyJoined. The law's seven items of each transfer (신용정보법 제33조의2⑤) are copied onto the consent."""
    chosen = {choice.item.pk: choice for choice in choices}
    with transaction.atomic():
        items = _check_join(person, service, terms, chosen, at=at)
        subscription = Subscription(
            person=person, service=service, operator=service.organization, terms=terms, language=language,
            text_digest=terms.digest_en if language == "en" else terms.digest_ko, origin=origin, joined_at=at,
            until_on=day(at), last_used_on=day(at),
        )  # fmt: skip
        consents = [_consent(subscription, chosen[item.pk], until_on=until_on, at=at) for item in items if item.pk in chosen]
        subscription.until_on = max(consent.until_on for consent in consents)
        try:
            with transaction.atomic():
                subscription.save(force_insert=True)
        except IntegrityError as error:
            raise AlreadyJoined(service.slug) from error
        Consent.objects.bulk_create(consents)
        declined = [item for item in items if item.pk not in chosen]
        _joined(subscription, consents, declined, by=by, at=at)
    return subscription


def _check_join(person, service, terms, chosen, *, at) -> list[TermsItem]:
    if service.state != Service.State.LIVE or service.organization.status_on(day(at)) not in OPEN_STATUSES:
        raise NotOpen(service.slug)
    current = Terms.objects.filter(service=service, state=Terms.State.PUBLISHED).first()
    if current is None or current.pk != terms.pk:
        raise TermsChanged(service.slug)
    items = list(terms.items.select_related("source", "recipient"))
    if set(chosen) - {item.pk for item in items}:
        raise NotOffered("an item that these terms do not ask for")
    if any(item.required and item.pk not in chosen for item in items):
        raise RequiredDeclined(service.slug)
    if not any(item.pk in chosen for item in items if item.kind == TermsItem.Kind.TRANSFER):
        raise RequiredDeclined("at least one source")
    for choice in chosen.values():
        if set(choice.riders) - set(choice.item.riders):
            raise NotOffered("a rider that this item does not offer")
    _check_age(person, chosen.values(), at=at)
    return items


def _check_age(person: Person, choices, *, at) -> None:
    """From 14 on people use it themselves; under 19 without marketing and third parties (MyData 2.0)."""
    if person.born_on is None:
        return
    age = relativedelta(day(at), person.born_on).years
    if age < policy.number("MIN_AGE", on=day(at)):
        raise TooYoung(str(age))
    minors = {TermsItem.Kind.MARKETING, TermsItem.Kind.THIRD_PARTY}
    if age < 19 and any(choice.item.kind in minors for choice in choices):
        raise TooYoung("marketing and third parties from 19")


def _consent(subscription, choice: Choice, *, until_on, at) -> Consent:
    item = choice.item
    latest = day(at) + relativedelta(months=item.valid_months)
    longest = day(at) + relativedelta(years=policy.number("JOIN_MAX_YEARS_V2", on=day(at)))
    end = min(until_on or latest, latest, longest)
    if end <= day(at):
        raise NotOffered("an end date in the past")
    return Consent(
        person=subscription.person, subscription=subscription, terms_item=item, kind=item.kind, required=item.required,
        source=item.source, recipient=item.recipient, scopes=item.scopes, riders=sorted(choice.riders), cycle=item.cycle,
        purpose_ko=item.purpose_ko, purpose_en=item.purpose_en, until_on=end,
        retained_until=None if item.retention_days is None else end + datetime.timedelta(days=item.retention_days),
        retention_ko=item.retention_ko, retention_en=item.retention_en, paid=item.paid, granted_at=at,
    )  # fmt: skip


def _joined(subscription, consents, declined, *, by, at) -> None:
    txn = messages.new_id()
    owed = propagation.duties(subscription, consents, stop=False, erase=False, by=by)
    said = [facts.of_subscription("subscription.joined", subscription, owed=owed)]
    said += [facts.of_consent("consent.granted", consent) for consent in consents]
    said += [facts.of_declined(subscription, item) for item in declined]
    entries = ledger.append(said, by=by, at=at, txn=txn)
    propagation.owe(
        owed, event=messages.CONSENT_GRANTED, subscription=subscription, txn=txn, at=at, leaf_hash=entries[0].leaf_hash
    )


# --- while it runs -----------------------------------------------------------------------------------------------------


def amend(
    consent: Consent,
    *,
    by: Actor,
    at: datetime.datetime,
    scopes: list[str] | None = None,
    riders: list[str] | None = None,
    cycle: str | None = None,
    until_on: datetime.date | None = None,
) -> Consent:
    """Change a running consent under the same id, within what its terms item offers. What is None stays.

    A later end is possible only in the last month (RENEW_WINDOW_MONTHS) and never beyond the item's validity counted
    from today. Raises AlreadyEnded, NotOffered."""
    with transaction.atomic():
        consent = _locked(consent)
        offered = consent.terms_item
        _check_amendment(consent, offered, scopes=scopes, riders=riders, cycle=cycle, until_on=until_on, at=at)
        consent.scopes = consent.scopes if scopes is None else scopes
        consent.riders = consent.riders if riders is None else sorted(riders)
        consent.cycle = consent.cycle if cycle is None else cycle
        consent.until_on = until_on or consent.until_on
        subscription = consent.subscription
        subscription.until_on = max(subscription.until_on, consent.until_on)
        _change(consent, "consent.amended", messages.CONSENT_AMENDED, by=by, at=at)
    return consent


def _check_amendment(consent, offered, *, scopes, riders, cycle, until_on, at) -> None:
    if consent.kind == Consent.Kind.TRANSFER and scopes == []:
        raise NotOffered("nothing left to send: withdraw instead")
    allowed_scopes = set(offered.scopes) if offered else set(consent.scopes)
    if scopes is not None and set(scopes) - allowed_scopes:
        raise NotOffered("a scope that the terms do not ask for")
    if riders is not None and set(riders) - set(offered.riders if offered else consent.riders):
        raise NotOffered("a rider that the terms do not offer")
    if cycle is not None and cycle not in {"", consent.cycle, *_rarer(offered.cycle if offered else consent.cycle)}:
        raise NotOffered("a cycle more frequent than the terms ask for")
    if until_on is None:
        return
    months = offered.valid_months if offered else policy.number("CONSENT_MAX_MONTHS_V1", on=day(at))
    window = relativedelta(months=policy.number("RENEW_WINDOW_MONTHS", on=day(at)))
    if until_on <= day(at) or until_on > day(at) + relativedelta(months=months):
        raise NotOffered("an end date outside the validity")
    if until_on > consent.until_on and day(at) < consent.until_on - window:
        raise NotOffered("renewal is possible in the last month only")


def _rarer(cycle: str) -> list[str]:
    weeks = ["1/1w", "1/2w", "1/3w", "1/4w"]
    return weeks[weeks.index(cycle) :] if cycle in weeks else []


def pause(consent: Consent, *, by: Actor, at: datetime.datetime, until_on: datetime.date | None = None, reason: str = "") -> Consent:
    """Data stops flowing until it is resumed, or until a day. Raises AlreadyEnded, NotActive, NotOffered (day in the past)."""
    with transaction.atomic():
        consent = _locked(consent)
        if consent.state != Consent.State.ACTIVE:
            raise NotActive(str(consent.pk))
        if until_on is not None and until_on <= day(at):
            raise NotOffered("a pause that ends in the past")
        consent.state, consent.paused_at, consent.paused_until = Consent.State.PAUSED, at, until_on
        _change(consent, "consent.paused", messages.CONSENT_PAUSED, by=by, at=at, stop=True, reason=reason)
    return consent


def resume(consent: Consent, *, by: Actor, at: datetime.datetime) -> Consent:
    """Data flows again. Raises AlreadyEnded, NotActive."""
    with transaction.atomic():
        consent = _locked(consent)
        if consent.state != Consent.State.PAUSED:
            raise NotActive(str(consent.pk))
        consent.state, consent.paused_at, consent.paused_until = Consent.State.ACTIVE, None, None
        _change(consent, "consent.resumed", messages.CONSENT_RESUMED, by=by, at=at)
    return consent


def _change(consent, typ, event, *, by, at, stop=False, erase=False, reason="") -> None:
    """Save a changed consent, log it, and tell everyone concerned."""
    subscription = consent.subscription
    subscription.version += 1
    consent.version += 1
    subscription.save()
    consent.save()
    txn = messages.new_id()
    owed = propagation.duties(subscription, [consent], stop=stop, erase=erase, by=by)
    said = [facts.of_consent(typ, consent, reason=reason, owed=owed)]
    if erase:
        said.append(facts.of_erasure(subscription, consent=consent))
    entries = ledger.append(said, by=by, at=at, txn=txn)
    propagation.owe(
        owed, event=event, subscription=subscription, txn=txn, at=at, leaf_hash=entries[0].leaf_hash, reason=reason,
        consent=consent,
    )  # fmt: skip


# --- ending ------------------------------------------------------------------------------------------------------------


def withdraw(
    consent: Consent, *, erase: bool, by: Actor, at: datetime.datetime, reason: str = EndReason.PERSON_WITHDREW
) -> Consent:
    """End one consent (전송요구 철회, 신용정보법 제33조의2⑦): data stops; what was received stays unless `erase`.

    The subscription goes on, and the operator still holds. Raises AlreadyEnded."""
    with transaction.atomic():
        consent = _locked(consent)
        _end_consent(consent, reason=reason, erase=erase, at=at)
        _change(consent, "consent.withdrawn", messages.CONSENT_WITHDRAWN, by=by, at=at, stop=True, erase=erase, reason=reason)
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
        subscription = _locked_subscription(subscription)
        if subscription.state == Subscription.State.ENDED:
            raise AlreadyEnded(str(subscription.pk))
        live = list(_consents(subscription).live())
        for consent in live:
            _end_consent(consent, reason=reason, erase=erase, at=at)
            consent.version += 1
            consent.save()
        subscription.state, subscription.ended_at, subscription.end_reason = Subscription.State.ENDED, at, reason
        subscription.version += 1
        if erase:
            _ask_erasure(subscription, at=at)
        subscription.save()
        told = _still_held(subscription, live) if erase else live
        owed = [] if quiet else propagation.duties(subscription, told, stop=True, erase=erase, by=by)
        _log_end(subscription, live, owed, reason=reason, erase=erase, by=by, at=at)
        speedbump.settle(subscription, by=by, at=at)
    return subscription


def _log_end(subscription, live, owed, *, reason, erase, by, at) -> None:
    txn = messages.new_id()
    typ = "consent.expired" if reason == EndReason.EXPIRED else "consent.withdrawn"
    said = [facts.of_subscription("subscription.ended", subscription, reason=reason, owed=owed)]
    said += [facts.of_consent(typ, consent, reason=reason) for consent in live]
    if erase:
        said.append(facts.of_erasure(subscription))
    entries = ledger.append(said, by=by, at=at, txn=txn)
    if owed:
        propagation.owe(
            owed, event=messages.SUBSCRIPTION_ENDED, subscription=subscription, txn=txn, at=at,
            leaf_hash=entries[0].leaf_hash, reason=reason,
        )  # fmt: skip


def erase(subscription: Subscription, *, by: Actor, at: datetime.datetime) -> Subscription:
    """Ask, after an end, for what was received to be destroyed (삭제 요구). Raises NothingToErase."""
    with transaction.atomic():
        subscription = _locked_subscription(subscription)
        if subscription.state != Subscription.State.ENDED or subscription.erasure != Erasure.NOT_REQUESTED:
            raise NothingToErase(str(subscription.pk))
        _ask_erasure(subscription, at=at)
        subscription.version += 1
        subscription.save()
        held = _still_held(subscription, [])
        for consent in held:
            if consent.erasure == Erasure.NOT_REQUESTED:
                _ask_erasure(consent, at=at)
                consent.save()
        txn = messages.new_id()
        owed = [
            duty
            for duty in propagation.duties(subscription, held, stop=True, erase=True, by=by)
            if duty.goal == "erased" and duty.role != "source"
        ]
        entries = ledger.append([facts.of_erasure(subscription, owed=owed)], by=by, at=at, txn=txn)
        propagation.owe(
            owed, event=messages.ERASURE_REQUESTED, subscription=subscription, txn=txn, at=at,
            leaf_hash=entries[0].leaf_hash, reason=subscription.end_reason,
        )  # fmt: skip
    return subscription


def erase_consent(consent: Consent, *, by: Actor, at: datetime.datetime) -> Consent:
    """Ask, after the end of one consent, for what came through it to be destroyed. Raises NothingToErase."""
    with transaction.atomic():
        _locked_subscription(consent.subscription)
        consent = _consents_by_id(consent.pk)
        subscription = consent.subscription
        if consent.state != Consent.State.ENDED or consent.erasure != Erasure.NOT_REQUESTED:
            raise NothingToErase(str(consent.pk))
        _ask_erasure(consent, at=at)
        subscription.version += 1
        subscription.save()
        consent.save()
        txn = messages.new_id()
        owed = [d for d in propagation.duties(subscription, [consent], stop=True, erase=True, by=by) if d.goal == "erased"]
        entries = ledger.append([facts.of_erasure(subscription, consent=consent, owed=owed)], by=by, at=at, txn=txn)
        propagation.owe(
            owed, event=messages.ERASURE_REQUESTED, subscription=subscription, txn=txn, at=at,
            leaf_hash=entries[0].leaf_hash, reason=consent.end_reason, consent=consent,
        )  # fmt: skip
    return consent


def _end_consent(consent: Consent, *, reason: str, erase: bool, at) -> None:
    consent.state, consent.ended_at, consent.end_reason = Consent.State.ENDED, at, reason
    consent.paused_until = None
    if erase:
        _ask_erasure(consent, at=at)


def _ask_erasure(row: Subscription | Consent, *, at) -> None:
    row.erasure, row.erasure_requested_at = Erasure.REQUESTED, at


def _still_held(subscription, live: list[Consent]) -> list[Consent]:
    """The consents just ended, and those ended before whose data has not been confirmed erased."""
    known = {consent.pk for consent in live}
    return live + [
        consent
        for consent in _consents(subscription).filter(state=Consent.State.ENDED).exclude(erasure=Erasure.CONFIRMED)
        if consent.pk not in known
    ]


# --- the clock -----------------------------------------------------------------------------------------------------------


def expire_due(*, by: Actor, at: datetime.datetime, limit: int = 500) -> dict[str, int]:
    """What the calendar ends, at most `limit` rows of each kind a run; safe to run twice at once. Returns counts.

    Resumes pauses that are over; ends consents and subscriptions past their last day (nobody is called: all know the
    date); pauses regular transfers of services unused for INACTIVE_STOP_MONTHS; ends and erases after
    INACTIVE_DELETE_MONTHS (MyData 2.0, 2025-06-19)."""
    today = day(at)
    stop_before = today - relativedelta(months=policy.number("INACTIVE_STOP_MONTHS", on=today))
    erase_before = today - relativedelta(months=policy.number("INACTIVE_DELETE_MONTHS", on=today))
    live = Subscription.objects.live()
    running = Consent.objects.filter(state=Consent.State.ACTIVE, kind=Consent.Kind.TRANSFER).exclude(cycle="")
    return {
        "expired": _each(
            live.filter(until_on__lt=today), limit,
            lambda row: leave(row, erase=False, by=by, at=at, reason=EndReason.EXPIRED, quiet=True),
        ),
        "consents_expired": _each(
            Consent.objects.live().filter(until_on__lt=today), limit, lambda row: _expire_consent(row, by=by, at=at)
        ),
        "inactive_ended": _each(
            live.filter(last_used_on__lte=erase_before), limit,
            lambda row: leave(row, erase=True, by=by, at=at, reason=EndReason.INACTIVE),
        ),
        "inactive_paused": _each(
            running.filter(subscription__state="active", subscription__last_used_on__lte=stop_before), limit,
            lambda row: pause(row, by=by, at=at, reason=EndReason.INACTIVE),
        ),
        "resumed": _each(
            Consent.objects.filter(state=Consent.State.PAUSED, paused_until__lte=today), limit,
            lambda row: resume(row, by=by, at=at),
        ),
    }  # fmt: skip


def _each(rows, limit: int, act) -> int:
    """Do `act` to each row in its own transaction; one that somebody else was faster with is skipped."""
    done = 0
    for row in rows.select_related(None).order_by("pk")[:limit]:
        try:
            act(row)
        except Refused:
            continue
        done += 1
    return done


def _expire_consent(consent: Consent, *, by: Actor, at: datetime.datetime) -> None:
    with transaction.atomic():
        consent = _locked(consent)
        _end_consent(consent, reason=EndReason.EXPIRED, erase=False, at=at)
        consent.version += 1
        consent.save()
        ledger.append([facts.of_consent("consent.expired", consent, reason=EndReason.EXPIRED)], by=by, at=at, txn=messages.new_id())


# --- locks ----------------------------------------------------------------------------------------------


def _locked_subscription(subscription: Subscription) -> Subscription:
    """Fresh and locked: one lock per subscription orders everything that happens to it."""
    return (
        Subscription.objects.select_for_update(no_key=True, of=("self",))
        .select_related("person", "service", "operator", "terms")
        .get(pk=subscription.pk)
    )


def _consents(subscription):
    return Consent.objects.filter(subscription=subscription).select_related("source", "recipient", "person", "subscription")


def _consents_by_id(pk: uuid.UUID) -> Consent:
    related = ("source", "recipient", "terms_item", "person", "subscription__person", "subscription__service", "subscription__operator")
    return Consent.objects.select_related(*related).get(pk=pk)


def _locked(consent: Consent) -> Consent:
    """A live consent, fresh, under its subscription's lock. Raises AlreadyEnded."""
    _locked_subscription(consent.subscription)
    fresh = _consents_by_id(consent.pk)
    if fresh.state == Consent.State.ENDED:
        raise AlreadyEnded(str(fresh.pk))
    return fresh
