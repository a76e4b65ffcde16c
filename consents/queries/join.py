"""Reads of the way into a service: the speed bump and the ask."""

import datetime
from dataclasses import dataclass
from urllib.parse import urlsplit

from dateutil.relativedelta import relativedelta
from django.urls import reverse
from django.utils.translation import ngettext

from consents import lifecycle, requests, speedbump
from consents.models import ConsentRequest, Notice, Person, Subscription
from consents.queries import public, scopes
from consents.queries.person import summary
from consents.templatetags.portal import loc
from providers import policy
from providers.models import Scope, Service, TermsItem

USUAL_MONTHS = 12  # what is preselected; the law's upper bound until 2025 (CONSENT_MAX_MONTHS_V1)
OFFERED_MONTHS = (3, 6, 12, 24, 36, 60)


@dataclass(frozen=True, slots=True)
class Running:
    """One live subscription on the speed bump, as a card that can be ended right there."""

    id: object
    subscription: Subscription
    scopes: list[Scope]
    overlap: bool
    dormant: int
    warnings: list[str]

    @property
    def marked(self) -> bool:
        return self.overlap or bool(self.dormant) or bool(self.warnings)


@dataclass(frozen=True, slots=True)
class SpeedBump:
    """The live list before a join. `total` operators hold, of which `receiving` now and `held` after the end;
    `joined` is the person's live subscription to this very service."""

    level: str
    total: int
    receiving: int
    held: int
    rows: list[Running]
    reasons: list[str]
    joined: Subscription | None

    @property
    def overlaps(self) -> int:
        return sum(row.overlap for row in self.rows)

    @property
    def dormants(self) -> int:
        return sum(bool(row.dormant) for row in self.rows)


# Said on the card of the subscription itself, not once more above the list.
_ON_THE_CARD = {Notice.Kind.LICENCE, Notice.Kind.EXPIRING, Notice.Kind.TERMS}
# The number and the badges say it already.
_SHOWN_OTHERWISE = {Notice.Kind.COUNT, Notice.Kind.DORMANT}


def operators_holding(person: Person) -> int:
    """How many hold the person's data at this moment."""
    return summary(person).operators_holding


def speed_bump(*, person: Person, service: Service, at: datetime.datetime) -> SpeedBump:
    """The speed bump finished for its page: what overlaps, is unused or has a warning comes first."""
    bump = speedbump.bump(person=person, service=service, at=at)
    known = scopes.catalogue() if bump.rows else []
    rows = [_running(row, bump.reasons, known) for row in bump.rows]
    receiving = len({row.subscription.operator_id for row in rows})
    own = [row.subscription for row in rows if row.subscription.service_id == service.pk]
    above = [
        loc_text(r) for r in bump.reasons if r.kind not in _SHOWN_OTHERWISE and r.kind not in _ON_THE_CARD
    ]
    return SpeedBump(
        level=bump.level, total=bump.operators_holding, receiving=receiving, held=bump.operators_holding - receiving,
        rows=sorted(rows, key=lambda row: not row.marked), reasons=above, joined=own[0] if own else None,
    )  # fmt: skip


def loc_text(reason: speedbump.Reason) -> str:
    """The sentence of a reason in the language of the page."""
    return loc(reason, "text")


def _running(row: speedbump.Row, reasons, known: list[Scope]) -> Running:
    subscription = row.subscription
    codes = {code for consent in row.consents for code in consent.scopes}
    riders = {rider for consent in row.consents for rider in consent.riders}
    return Running(
        id=subscription.pk,
        subscription=subscription,
        scopes=scopes.shortened(scopes.in_words(codes, riders, known)),
        overlap=row.overlap,
        dormant=row.dormant,
        warnings=[loc_text(r) for r in reasons if r.subscription is subscription and r.kind in _ON_THE_CARD],
    )


# --- the ask ------------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Ask:
    """What is asked of this person: required and optional apart. `too_young` says that some optional items are not shown
    because of the person's age; what is not shown counts as declined."""

    offer: public.Offer
    digest: str
    language: str
    required: list[public.Asked]
    optional: list[public.Asked]
    rows: list[TermsItem]
    months: list[tuple[int, str]]
    usual_months: int
    too_young: bool


def ask(service: Service, *, person: Person, language: str, at: datetime.datetime) -> Ask | None:
    """The published terms as one person is asked about them; None where nothing is published."""
    today = lifecycle.day(at)
    offer = public.offer(service, on=today)
    if offer.terms is None:
        return None
    young = _is_young(person, today)
    grown_up = {TermsItem.Kind.MARKETING, TermsItem.Kind.THIRD_PARTY}
    rows = [row for row in offer.rows if not (young and row.kind in grown_up)]
    shown = {row.pk for row in rows}
    items = [item for item in offer.items if item.id in shown]
    longest = max(row.valid_months for row in rows)
    months = [n for n in OFFERED_MONTHS if n < longest] + [longest]
    return Ask(
        offer=offer,
        digest=offer.terms.digest_en if language == "en" else offer.terms.digest_ko,
        language=language,
        required=[item for item in items if item.required],
        optional=[item for item in items if not item.required],
        rows=rows,
        months=[(n, ngettext("%(n)d개월", "%(n)d개월", n) % {"n": n}) for n in months],
        usual_months=min(USUAL_MONTHS, longest),
        too_young=len(rows) < len(offer.rows),
    )


def _is_young(person: Person, today: datetime.date) -> bool:
    if person.born_on is None:
        return False
    return relativedelta(today, person.born_on).years <= policy.number("YOUTH_MAX_AGE", on=today)


# --- a request lodged by an operator --------------------------------------------------------------------------------------------


def return_link(lodged: ConsentRequest) -> dict | None:
    """Where the operator wants the person back: the address, its host by name, and whether a code goes along, which is made
    when the person leaves; None where there is none to show."""
    address = requests.return_address(lodged)
    if not address:
        return None
    parts = urlsplit(address)
    with_code = lodged.state == ConsentRequest.State.GRANTED and bool(lodged.code_challenge)
    return {
        "url": address,
        "host": parts.netloc,
        "origin": f"{parts.scheme}://{parts.netloc}",
        "with_code": with_code and not lodged.redeemed_at,
    }


def receipt_url(lodged: ConsentRequest) -> str:
    """The receipt of what a granted request led to."""
    return reverse("receipt", args=[lodged.subscription_id]) if lodged.subscription_id else ""
