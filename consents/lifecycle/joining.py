"""WRITES the beginning: a person joins a service with the items they chose."""

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from dateutil.relativedelta import relativedelta
from django.db import IntegrityError, transaction

from consents import ledger, messages, propagation
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Consent, Person, Subscription
from providers import policy
from providers.models import Service, Terms, TermsItem

from .refusals import AlreadyJoined, NotOffered, NotOpen, RequiredDeclined, TermsChanged, TooYoung
from .rows import check_licence, day


@dataclass(frozen=True, slots=True)
class Choice:
    """One item the person agreed to, with the riders switched on."""

    item: TermsItem
    riders: tuple[str, ...] = ()


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
        subscription, consents = begun(
            person, service, terms, [chosen[item.pk] for item in items if item.pk in chosen], language=language,
            until_on=until_on, origin=origin, at=at,
        )  # fmt: skip
        try:
            with transaction.atomic():
                subscription.save(force_insert=True)
        except IntegrityError as error:
            raise AlreadyJoined(service.slug) from error
        Consent.objects.bulk_create(consents)
        declined = [item for item in items if item.pk not in chosen]
        _joined(subscription, consents, declined, by=by, at=at)
    return subscription


def begun(
    person: Person, service: Service, terms: Terms, choices: Iterable[Choice], *, language: str,
    until_on: datetime.date | None, origin: str, at: datetime.datetime,
) -> tuple[Subscription, list[Consent]]:  # fmt: skip
    """The unsaved rows of a join that was checked."""
    subscription = Subscription(
        person=person, service=service, operator=service.organization, terms=terms, language=language,
        text_digest=terms.digest_en if language == "en" else terms.digest_ko, origin=origin, joined_at=at,
        until_on=day(at), last_used_on=day(at),
    )  # fmt: skip
    consents = [_consent(subscription, choice, until_on=until_on, at=at) for choice in choices]
    subscription.until_on = max(consent.until_on for consent in consents)
    return subscription, consents


def _check_join(person, service, terms, chosen, *, at) -> list[TermsItem]:
    if service.state != Service.State.LIVE:
        raise NotOpen(service.slug)
    check_licence(service.organization, at=at)
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
    entries = ledger.append(told(subscription, consents, declined, owed), by=by, at=at, txn=txn)
    propagation.owe(
        owed,
        event=messages.CONSENT_GRANTED,
        subscription=subscription,
        txn=txn,
        at=at,
        leaf_hash=entries[0].leaf_hash,
    )


def told(subscription, consents, declined, owed) -> list[ledger.Fact]:
    """What the log says of a join."""
    said = [facts.of_subscription("subscription.joined", subscription, owed=owed)]
    said += [facts.of_consent("consent.granted", consent) for consent in consents]
    return said + [facts.of_declined(subscription, item) for item in declined]
