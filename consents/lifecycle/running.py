"""WRITES the middle: a running consent is amended, paused, resumed."""

import datetime

from dateutil.relativedelta import relativedelta
from django.db import transaction

from consents import ledger, messages, propagation
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Consent
from providers import policy

from .refusals import NotActive, NotOffered
from .rows import check_licence, day, locked_consent


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
    from today, and of an operator that is licensed. Raises AlreadyEnded, NotOffered, NotOpen."""
    with transaction.atomic():
        consent = locked_consent(consent)
        offered = consent.terms_item
        _check_amendment(
            consent, offered, scopes=scopes, riders=riders, cycle=cycle, until_on=until_on, at=at
        )
        consent.scopes = consent.scopes if scopes is None else scopes
        consent.riders = consent.riders if riders is None else sorted(riders)
        consent.cycle = consent.cycle if cycle is None else cycle
        consent.until_on = until_on or consent.until_on
        subscription = consent.subscription
        subscription.until_on = max(subscription.until_on, consent.until_on)
        change(consent, "consent.amended", messages.CONSENT_AMENDED, by=by, at=at)
    return consent


def _check_amendment(consent, offered, *, scopes, riders, cycle, until_on, at) -> None:
    if consent.kind == Consent.Kind.TRANSFER and scopes == []:
        raise NotOffered("nothing left to send: withdraw instead")
    allowed_scopes = set(offered.scopes) if offered else set(consent.scopes)
    if scopes is not None and set(scopes) - allowed_scopes:
        raise NotOffered("a scope that the terms do not ask for")
    if riders is not None and set(riders) - set(offered.riders if offered else consent.riders):
        raise NotOffered("a rider that the terms do not offer")
    if cycle is not None and cycle not in {
        "",
        consent.cycle,
        *_rarer(offered.cycle if offered else consent.cycle),
    }:
        raise NotOffered("a cycle more frequent than the terms ask for")
    if until_on is None:
        return
    months = offered.valid_months if offered else policy.number("CONSENT_MAX_MONTHS_V1", on=day(at))
    window = relativedelta(months=policy.number("RENEW_WINDOW_MONTHS", on=day(at)))
    if until_on <= day(at) or until_on > day(at) + relativedelta(months=months):
        raise NotOffered("an end date outside the validity")
    if until_on > consent.until_on:
        if day(at) < consent.until_on - window:
            raise NotOffered("renewal is possible in the last month only")
        check_licence(consent.subscription.operator, at=at)


def _rarer(cycle: str) -> list[str]:
    weeks = ["1/1w", "1/2w", "1/3w", "1/4w"]
    return weeks[weeks.index(cycle) :] if cycle in weeks else []


def pause(
    consent: Consent,
    *,
    by: Actor,
    at: datetime.datetime,
    until_on: datetime.date | None = None,
    reason: str = "",
) -> Consent:
    """Data stops flowing until it is resumed, or until a day. Raises AlreadyEnded, NotActive, NotOffered (day in the past)."""
    with transaction.atomic():
        consent = locked_consent(consent)
        if consent.state != Consent.State.ACTIVE:
            raise NotActive(str(consent.pk))
        if until_on is not None and until_on <= day(at):
            raise NotOffered("a pause that ends in the past")
        consent.state, consent.paused_at, consent.paused_until = Consent.State.PAUSED, at, until_on
        change(consent, "consent.paused", messages.CONSENT_PAUSED, by=by, at=at, reason=reason)
    return consent


def resume(consent: Consent, *, by: Actor, at: datetime.datetime) -> Consent:
    """Data flows again. Raises AlreadyEnded, NotActive, or NotOpen while the operator is not licensed: it stays paused."""
    with transaction.atomic():
        consent = locked_consent(consent)
        if consent.state != Consent.State.PAUSED:
            raise NotActive(str(consent.pk))
        check_licence(consent.subscription.operator, at=at)
        consent.state, consent.paused_at, consent.paused_until = Consent.State.ACTIVE, None, None
        change(consent, "consent.resumed", messages.CONSENT_RESUMED, by=by, at=at)
    return consent


def change(consent, typ, event, *, by, at, stop=False, erase=False, reason="") -> None:
    """Save a changed consent, log it, and tell everyone concerned."""
    subscription = consent.subscription
    subscription.version += 1
    consent.version += 1
    subscription.save()
    consent.save()
    txn = messages.new_id()
    owed = propagation.duties(subscription, [consent], stop=stop, erase=erase, by=by)
    overtaken = propagation.overtake(subscription, consent=consent, by=by, at=at) if stop and owed else []
    said = told(consent, typ, owed, erase=erase, reason=reason, overtaken=overtaken)
    entries = ledger.append(said, by=by, at=at, txn=txn)
    propagation.owe(
        owed, event=event, subscription=subscription, txn=txn, at=at, leaf_hash=entries[0].leaf_hash, reason=reason,
        consent=consent,
    )  # fmt: skip


def told(consent, typ, owed, *, erase: bool, reason: str, overtaken=()) -> list[ledger.Fact]:
    """What the log says of a changed consent."""
    said = [facts.of_consent(typ, consent, reason=reason, owed=owed, overtaken=overtaken)]
    if erase:
        said.append(facts.of_erasure(consent.subscription, asked=[consent.pk], consent=consent))
    return said
