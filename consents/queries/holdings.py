"""The home page: who holds what, since when, and how it flows."""

import uuid
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _

from consents.models import Consent, Erasure, Notice, Person, Subscription
from consents.queries import scopes, transfers
from consents.templatetags.portal import day, loc
from providers.models import Scope

PAGE = 20
STATES = ("holding", "active", "held", "all")
SORTS = ("joined", "until", "used", "sensitivity")


class UnknownRow(LookupError):
    """The cursor of a page is not one of the person's rows."""


@dataclass(slots=True)
class Holding:
    """One subscription as a card: `state` is receiving, held (ended, erasure not confirmed) or gone."""

    id: uuid.UUID
    subscription: Subscription
    held: list[tuple[Consent, list[Scope]]]
    service_name: str
    operator_name: str
    state: str
    scopes: list[Scope]
    sensitivity: int
    joined_at: object
    until_on: object
    last_used_on: object
    last_transfer_at: object
    transfers: int  # of the last 30 days
    url: str
    warnings: list[str] = field(default_factory=list)

    @property
    def can_end(self) -> bool:
        return self.state == "receiving"


@dataclass(slots=True)
class Page:
    """One page of the list, the flow picture of everything held, and the cursor of the next page."""

    rows: list[Holding]
    flow: list[dict]
    next_after: uuid.UUID | None
    total: int

    @property
    def can_end(self) -> bool:
        return any(row.can_end for row in self.rows)


def state_of(subscription: Subscription) -> str:
    """receiving, held or gone, as the badges of the pages name it."""
    if subscription.state == Subscription.State.ACTIVE:
        return "receiving"
    return "gone" if subscription.erasure == Erasure.CONFIRMED else "held"


def holdings(
    person: Person, *, state: str = "holding", sort: str = "joined", after: uuid.UUID | None = None
) -> Page:
    """The person's subscriptions, filtered, sorted and cut to one page. Five queries, whatever the number of rows.

    Raises UnknownRow when `after` is not in the list (it may have changed since)."""
    known = scopes.catalogue()
    rows = _rows(person, Subscription.objects.filter(person=person), known)
    flow = _flow(rows)
    wanted = _sorted([row for row in rows if _matches(row, state)], sort)
    start = 0
    if after is not None:
        places = [place for place, row in enumerate(wanted) if row.id == after]
        if not places:
            raise UnknownRow(str(after))
        start = places[0] + 1
    page = wanted[start : start + PAGE]
    more = start + PAGE < len(wanted)
    for row in page:
        row.scopes = scopes.shortened(row.scopes)
    return Page(page, flow, page[-1].id if more else None, len(wanted))


def chosen(person: Person, ids: Iterable[uuid.UUID]) -> list[Holding]:
    """The person's own among these ids, oldest first: what several endings at once would touch."""
    rows = _rows(person, Subscription.objects.filter(person=person, pk__in=list(ids)), scopes.catalogue())
    return _sorted(rows, "joined")[::-1]


def _rows(person: Person, subscriptions, known: list[Scope]) -> list[Holding]:
    found = list(subscriptions.select_related("service", "operator").order_by("-joined_at", "-id"))
    consents: dict = defaultdict(list)
    for consent in Consent.objects.filter(person=person, subscription__in=found).select_related("source"):
        consents[consent.subscription_id].append(consent)
    warnings: dict = defaultdict(list)
    own = Notice.objects.filter(person=person, answer="", subscription__in=found)
    for notice in own.exclude(kind=Notice.Kind.STILL_HELD):  # `_what_is_left` says that, and more exactly
        warnings[notice.subscription_id].append(loc(notice, "reason"))
    flowed = transfers.lately(person, at=timezone.now())
    return [
        _row(
            subscription, consents[subscription.pk], warnings[subscription.pk], known, flowed.get(subscription.pk, 0)
        )
        for subscription in found
    ]  # fmt: skip


def _row(
    subscription: Subscription,
    consents: list[Consent],
    warnings: list[str],
    known: list[Scope],
    flowed: int,
) -> Holding:
    held = [consent for consent in consents if _is_held(subscription, consent)]
    codes = {code for consent in held for code in consent.scopes}
    riders = {rider for consent in held for rider in consent.riders}
    words = scopes.in_words(codes, riders, known)
    state = state_of(subscription)
    return Holding(
        id=subscription.pk,
        subscription=subscription,
        held=[(consent, scopes.in_words(consent.scopes, consent.riders, known)) for consent in held],
        service_name=loc(subscription.service, "name"),
        operator_name=loc(subscription.operator, "name"),
        state=state,
        scopes=words,
        sensitivity=max((scope.sensitivity for scope in words), default=0),
        joined_at=subscription.joined_at,
        until_on=subscription.ended_at or subscription.until_on,
        last_used_on=subscription.last_used_on,
        last_transfer_at=subscription.last_transfer_at,
        transfers=flowed,
        url=reverse("subscription", args=[subscription.pk]),
        warnings=warnings + _what_is_left(subscription, state),
    )


def _is_held(subscription: Subscription, consent: Consent) -> bool:
    """What came through this consent is still with the operator, as far as anybody has shown."""
    return subscription.holds and consent.erasure != Erasure.CONFIRMED


def _what_is_left(subscription: Subscription, state: str) -> list[str]:
    """Why an ended subscription still counts."""
    if state != "held":
        return []
    on = day(subscription.ended_at)
    return [
        {
            Erasure.NOT_REQUESTED: _("%(day)s에 그만뒀지만 지워 달라고 하지 않았어요."),
            Erasure.REQUESTED: _("%(day)s에 그만뒀고, 지웠다는 답을 기다리고 있어요."),
            Erasure.REFUSED: _("%(day)s에 그만뒀지만, 법 때문에 지우지 못한다고 했어요."),
        }[Erasure(subscription.erasure)]
        % {"day": on}
    ]


def _matches(row: Holding, state: str) -> bool:
    return {
        "holding": row.state != "gone",
        "active": row.state == "receiving",
        "held": row.state == "held",
        "all": True,
    }[state]


def _sorted(rows: list[Holding], sort: str) -> list[Holding]:
    """Newest first; soonest end first; longest unused first; most sensitive first. Ties by id, so that pages are stable."""
    keys = {
        "joined": lambda row: (-row.joined_at.timestamp(), row.id.int),
        "until": lambda row: (row.subscription.until_on, row.id.int),
        "used": lambda row: (row.last_used_on is not None, str(row.last_used_on), row.id.int),
        "sensitivity": lambda row: (-row.sensitivity, -row.joined_at.timestamp(), row.id.int),
    }
    return sorted(rows, key=keys[sort])


def _flow(rows: list[Holding]) -> list[dict]:
    """One row for each pair of source and operator that holds; dashed (`held`) where nothing flows any more."""
    pairs: dict = {}
    for row in rows:
        if row.state == "gone":
            continue
        for consent, words in row.held:
            if consent.source_id is None:
                continue
            pair = pairs.setdefault(
                (consent.source_id, row.subscription.operator_id),
                {
                    "source": loc(consent.source, "name"),
                    "operator": row.operator_name,
                    "operator_url": row.url,
                    "scopes": {},
                    "sensitivity": 1,
                    "held": True,
                },
            )
            for scope in words:
                pair["scopes"][loc(scope, "name")] = scope
                pair["sensitivity"] = max(pair["sensitivity"], scope.sensitivity)
            pair["held"] = pair["held"] and consent.state == Consent.State.ENDED
    for pair in pairs.values():
        sorted_words = sorted(
            pair.pop("scopes").values(), key=lambda scope: (-scope.sensitivity, scope.position)
        )
        pair["items"] = ", ".join(loc(scope, "name") for scope in sorted_words)
    return sorted(pairs.values(), key=lambda pair: (pair["source"], pair["operator"]))
