"""One subscription: its consents as cards, its stops, its facts; what ending it means; and the papers about it."""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from consents import receipts
from consents.ledger import promises
from consents.models import Consent, EntryIndex, Erasure, Notice, Subscription
from consents.queries import history, proofs, scopes, transfers
from consents.queries.holdings import state_of
from consents.queries.tracker import Tracker, tracker
from consents.templatetags.portal import loc
from providers.models import Scope

FACTS = 8  # on the page itself; the rest is in the history


@dataclass(frozen=True, slots=True)
class Screen:
    """Everything on the page of one subscription. `running` and `ended` are dictionaries for consent_card.html."""

    state: str
    running: list[dict[str, Any]]
    ended: list[dict[str, Any]]
    tracker: Tracker
    facts: history.Page
    notices: list[Notice]
    flow: list[transfers.Flow]


@dataclass(frozen=True, slots=True)
class Ending:
    """What the screen before an end says: what they hold and where it came from."""

    scopes: list[Scope]
    sources: list[str]
    recipients: list[str]
    live: list[Consent]


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of a join; `event_id` and `standing` of the entry that says so (None: reported by an operator)."""

    document: dict[str, Any]
    keys: str
    items: list[dict[str, Any]]
    event_id: uuid.UUID | None
    standing: proofs.Standing | None


def screen(subscription: Subscription, *, at: datetime.datetime) -> Screen:
    """Eight queries, whatever the number of consents, stops, facts and transfers."""
    known = scopes.catalogue()
    items = [_card(subscription, consent, known) for consent in _consents(subscription)]
    return Screen(
        state=state_of(subscription),
        running=[item for item in items if item["state"] != Consent.State.ENDED],
        ended=[item for item in items if item["state"] == Consent.State.ENDED],
        tracker=tracker(subscription, at=at),
        facts=history.of_subscription(subscription, most=FACTS),
        notices=list(Notice.objects.filter(subscription=subscription, answer="")),
        flow=transfers.of_subscription(subscription, at=at),
    )


def ending(subscription: Subscription, *, only: Consent | None = None) -> Ending:
    """What leaving the service, or withdrawing `only` one consent, touches. Two queries."""
    consents = [consent for consent in _consents(subscription) if only is None or consent.pk == only.pk]
    held = [consent for consent in consents if consent.erasure != Erasure.CONFIRMED]
    codes = {code for consent in held for code in consent.scopes}
    riders = {rider for consent in held for rider in consent.riders}
    return Ending(
        scopes=scopes.in_words(codes, riders, scopes.catalogue()),
        sources=_names(consent.source for consent in held),
        recipients=_names(consent.recipient for consent in held),
        live=[consent for consent in consents if consent.state != Consent.State.ENDED],
    )


def receipt(subscription: Subscription) -> Receipt:
    """The receipt of a join, tied to the log's entry of it. Four queries."""
    known, consents = scopes.catalogue(), list(_consents(subscription))
    words = {consent.pk: scopes.in_words(consent.scopes, consent.riders, known) for consent in consents}
    version = subscription.terms.version if subscription.terms else None
    entry = (
        EntryIndex.objects.filter(subscription=subscription, typ="subscription.joined")
        .order_by("seq")
        .first()
    )
    standing = proofs.standings([entry])[entry.event_id] if entry else None
    joined = (entry, standing.leaf) if entry and standing else None
    document = receipts.receipt(
        subscription, consents, scopes=words, version=version, joined=joined,
        merge_delay=promises.merge_delay(subscription.joined_at),
    )  # fmt: skip
    return Receipt(
        document=document,
        keys=receipts.keys_address(),
        items=[_card(subscription, consent, known) for consent in consents],
        event_id=entry.event_id if entry else None,
        standing=standing,
    )


def _consents(subscription: Subscription):
    """Transfers first, and what has ended last."""
    order = {kind: place for place, kind in enumerate(Consent.Kind.values)}
    found = Consent.objects.filter(subscription=subscription).select_related(
        "source", "recipient", "terms_item"
    )
    return sorted(found, key=lambda consent: (consent.state == "ended", order[consent.kind], consent.pk))


def _card(subscription: Subscription, consent: Consent, known: list[Scope]) -> dict[str, Any]:
    item = consent.terms_item
    return {
        "id": consent.pk,
        "kind": consent.kind,
        "required": consent.required,
        "title_ko": item.title_ko if item else _reported_title(consent, "ko"),
        "title_en": item.title_en if item else _reported_title(consent, "en"),
        "source_name": loc(consent.source, "name") if consent.source_id else "",
        "recipient_name": loc(consent.recipient or subscription.operator, "name"),
        "scopes": scopes.in_words(consent.scopes, consent.riders, known),
        "cycle": consent.cycle,
        "until_on": consent.ended_at or consent.until_on,
        "purpose_ko": consent.purpose_ko,
        "purpose_en": consent.purpose_en,
        "retention_ko": consent.retention_ko,
        "retention_en": consent.retention_en,
        "paid": consent.paid,
        "grade": item.grade if item else "",
        "riders": [
            {"code": code, "on": code in consent.riders} for code in (item.riders if item else consent.riders)
        ],
        "state": consent.state,
        "text_html": "",
        "consent": consent,
    }


def _reported_title(consent: Consent, language: str) -> str:
    """A subscription that an operator reported has no terms with a title of its own."""
    other = consent.source or consent.recipient
    name = getattr(other, f"name_{language}") if other else ""
    return name or _("회사가 알려 온 동의")


def _names(organizations) -> list[str]:
    return list(dict.fromkeys(loc(organization, "name") for organization in organizations if organization))
