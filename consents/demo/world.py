"""A city's people and what became of their consents, made in memory by the builders that the portal's own acts use.

Each person comes from a dice of their own, named by seed and number: the same seed gives the same people, subscriptions,
dates and states, however the work is divided. Ids, salts and keys are random, as they must be. Most subscriptions were
reported by operators, as in a country that has used MyData for years; the others were joined here, with every message,
answer and proof. Moments count back from the morning of `today`.
"""

import datetime
import hashlib
import json
import random
import secrets
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from allauth.account.models import EmailAddress
from dateutil.relativedelta import relativedelta
from django.conf import settings
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from joserfc import jws
from joserfc.jwk import ECKey

from consents import answers, ledger, messages, propagation, reconciliation, steps
from consents.actors import Actor
from consents.ledger import facts
from consents.ledger.append import Keys, Rows, prepare
from consents.ledger.entries import SEOUL
from consents.lifecycle import Choice, day, ending, joining, running
from consents.models import Consent, Delivery, EndReason, Evidence, Person, PersonKey, Subscription
from consents.reports import Holding
from providers import datafiles, vault
from providers.ids import uuid7
from providers.models import Channel, Organization, Service, Terms, TermsItem
from providers.models.organizations import OPEN_STATUSES

from . import cast

YEAR = datetime.timedelta(days=365)
# How many services somebody has had: half of the people at most four, a few a dozen. Five on average.
SUBSCRIPTIONS = {0: 6, 1: 10, 2: 12, 3: 14, 4: 13, 5: 11, 6: 10, 7: 7, 8: 6, 10: 6, 12: 5}
PER_PERSON = sum(number * weight for number, weight in SUBSCRIPTIONS.items()) / sum(SUBSCRIPTIONS.values())
REPORTED = 0.8
# What becomes of a subscription in its first year; the rest goes on.
FATES = {
    "left": 6,
    "left_kept": 3,
    "withdrew": 4,
    "paused": 2,
    "stuck": 1,
    "refused": 1,
    "expired": 1,
    "asked_later": 1,
}
FATES_OF_REPORTED = {"left": 2, "left_kept": 1}


@dataclass(frozen=True, slots=True)
class Market:
    """What can be joined all year: services with one version of terms, of operators who were always licensed."""

    terms: list[tuple[Service, Terms, list[TermsItem]]]
    by_hand: frozenset
    keys: dict[str, ECKey]
    today: datetime.datetime

    @classmethod
    def open(cls, *, keys: dict[str, ECKey], now: datetime.datetime) -> "Market":
        today = now.astimezone(SEOUL).replace(hour=0, minute=0, second=0, microsecond=0)
        found = []
        services = Service.objects.filter(organization__is_fictional=True, organization__is_operator=True)
        for service in services.exclude(slug__in=_closing()).select_related("organization").order_by("slug"):
            versions = list(service.terms.exclude(state=Terms.State.DRAFT))
            began = (today - YEAR).date()
            if len(versions) == 1 and _licensed(service.organization, began, today.date()):
                items = list(versions[0].items.select_related("source", "recipient").order_by("position"))
                found.append((service, versions[0], items))
        wired = Channel.objects.filter(state=Channel.State.OPEN).exclude(protocol=Channel.Protocol.DESK)
        organizations = Organization.objects.exclude(pk__in=wired.values("organization_id"))
        return cls(found, frozenset(organizations.values_list("pk", flat=True)), keys, today)


def _closing() -> list[str]:
    return [
        row["slug"] for row in datafiles.fictional()["services"] if row["state"] != "live" or row["history"]
    ]


def _licensed(operator: Organization, first: datetime.date, last: datetime.date) -> bool:
    return operator.status_on(first) in OPEN_STATUSES and operator.status_on(last) in OPEN_STATUSES


@dataclass(slots=True)
class Made:
    """Unsaved rows, table by table, and the entries that tell of them."""

    people: list[Person] = field(default_factory=list)
    emails: list[EmailAddress] = field(default_factory=list)
    keys: list[PersonKey] = field(default_factory=list)
    subscriptions: list[Subscription] = field(default_factory=list)
    consents: list[Consent] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    log: Rows = field(default_factory=Rows)


class Life:
    """One invented person. Acts are told in the order in which they happened to each subscription."""

    def __init__(self, number: int, *, seed: int, market: Market, made: Made):
        self.dice = random.Random(f"{seed}/{number}")  # noqa: S311 - a story, not a secret
        self.market, self.made, self.number = market, made, number
        self.person = self._person()
        self.keys: Keys = {self.person.pk: self._key()}
        self.actor = Actor.person(self.person)

    def _person(self) -> Person:
        dice = self.dice
        person = Person(
            email=f"city{self.number}@portal.example", name=dice.choice(cast.FAMILY) + dice.choice(cast.GIVEN),
            subject_id=uuid.UUID(int=dice.getrandbits(128), version=4), language="en" if dice.random() < 0.03 else "ko",
            born_on=datetime.date(dice.randint(1945, 2004), dice.randint(1, 12), dice.randint(1, 28)),
            password=UNUSABLE_PASSWORD_PREFIX + secrets.token_hex(20), joined_at=self.market.today - YEAR,
        )  # fmt: skip
        self.made.people.append(person)
        self.made.emails.append(EmailAddress(user=person, email=person.email, verified=True, primary=True))
        return person

    def _key(self) -> tuple[uuid.UUID, bytes]:
        key, plain = PersonKey(id=uuid7(), person=self.person), secrets.token_bytes(32)
        key.wrapped = vault.seal(plain, aad=key.id.bytes)
        self.made.keys.append(key)
        return key.id, plain

    # --- the year ------------------------------------------------------------------------------------------------------

    def live(self) -> None:
        """The person's year, subscription by subscription."""
        dice = self.dice
        wanted = dice.choices(list(SUBSCRIPTIONS), weights=list(SUBSCRIPTIONS.values()))[0]
        for service, terms, items in dice.sample(self.market.terms, k=min(wanted, len(self.market.terms))):
            at = self._moment(days=dice.randint(40, 340))
            if dice.random() < REPORTED:
                self._is_reported(service, items, at)
            else:
                self._joins(service, terms, items, at)

    def _moment(self, *, days: float) -> datetime.datetime:
        at = self.market.today - datetime.timedelta(days=days)
        return at + datetime.timedelta(hours=8, seconds=self.dice.randint(0, 13 * 3600))

    def _later(self, at: datetime.datetime, *, spare: int = 4) -> datetime.datetime:
        """A moment between `at` and now that leaves some days for answers."""
        gone = (self.market.today - at).days
        return self._moment(days=self.dice.randint(spare, max(spare, gone - 2)))

    def _fate(self, fates: dict[str, int]) -> str:
        names = [*fates, ""]
        return self.dice.choices(names, weights=[*fates.values(), 100 - sum(fates.values())])[0]

    def _is_reported(self, service: Service, items: list[TermsItem], at: datetime.datetime) -> None:
        operator, sources = (
            service.organization,
            [(item, item.source) for item in items if item.source and item.required],
        )
        heard = at + datetime.timedelta(days=self.dice.randint(1, 20))
        rows = [
            Holding(
                number=0, subject=self.person.subject_id, client_id=service.client_id, joined_on=day(at),
                source=source.code, scopes=tuple(item.scopes), purpose=item.purpose_ko, cycle=item.cycle,
                end_date=day(at) + relativedelta(months=12), retained_until=None,
                last_used_on=day(heard) - datetime.timedelta(days=1),
            )
            for item, source in sources
        ]  # fmt: skip
        subscription = reconciliation.held_subscription(rows[0], self.person, service, at=heard)
        consents = [
            reconciliation.held_consent(row, subscription, source, at=heard)
            for row, (_item, source) in zip(rows, sources, strict=True)
        ]
        self._keep(subscription, consents)
        self._say(reconciliation.told([subscription], consents), by=Actor.organization(operator), at=heard)
        self._goes_on(subscription, consents, self._fate(FATES_OF_REPORTED), heard)

    def _joins(self, service: Service, terms: Terms, items: list[TermsItem], at: datetime.datetime) -> None:
        dice = self.dice
        chosen = [item for item in items if item.required or dice.random() < 0.35]
        choices = [
            Choice(item, riders=tuple(r for r in item.riders if dice.random() < 0.15)) for item in chosen
        ]
        fate = self._fate(FATES)
        until_on = day(at) + datetime.timedelta(days=30) if fate == "expired" else None
        origin = Subscription.Origin.REQUEST if dice.random() < 0.2 else Subscription.Origin.PORTAL
        subscription, consents = joining.begun(
            self.person, service, terms, choices, language=self.person.language, until_on=until_on, origin=origin, at=at
        )  # fmt: skip
        self._keep(subscription, consents)
        owed = self._duties(subscription, consents)
        declined = [item for item in items if item not in chosen]
        said = joining.told(subscription, consents, declined, owed)
        self._act(said, owed, messages.CONSENT_GRANTED, subscription, by=self.actor, at=at)
        self._goes_on(subscription, consents, fate, at + datetime.timedelta(days=1))

    def _goes_on(self, subscription, consents: list[Consent], fate: str, at: datetime.datetime) -> None:
        last = self._later(at) if fate in ("", "paused", "withdrew") else at
        subscription.last_used_on = max(subscription.last_used_on, day(last))
        if fate == "expired":
            expired = datetime.datetime.combine(
                subscription.until_on + datetime.timedelta(days=1), datetime.time(0, 10), tzinfo=SEOUL
            )
            self._ends(subscription, consents, expired, erase=False, reason=EndReason.EXPIRED)
        elif fate in ("left", "left_kept", "stuck", "refused"):
            self._ends(subscription, consents, self._later(at), erase=fate != "left_kept", fate=fate)
        elif fate == "asked_later":
            left = at + datetime.timedelta(days=self.dice.randint(0, 20))
            self._ends(subscription, consents, left, erase=False)
            self._asks(subscription, consents, self._later(left + datetime.timedelta(days=6)))
        elif fate:
            self._changes(subscription, consents, fate, self._later(at))

    # --- acts: what lifecycle does, on rows in memory ----------------------------------------------------------------------

    def _changes(self, subscription, consents: list[Consent], fate: str, at: datetime.datetime) -> None:
        """One optional source is withdrawn, or one is paused."""
        flowing = [
            c for c in consents if c.kind == Consent.Kind.TRANSFER and not (c.required and fate == "withdrew")
        ]
        if not flowing:
            return
        reason: str
        consent, erase = self.dice.choice(flowing), fate == "withdrew" and self.dice.random() < 0.5
        if fate == "withdrew":
            typ, event, reason = "consent.withdrawn", messages.CONSENT_WITHDRAWN, EndReason.PERSON_WITHDREW
            ending.end_consent(consent, reason=reason, erase=erase, at=at)
        else:
            typ, event, reason = "consent.paused", messages.CONSENT_PAUSED, ""
            until = day(self.market.today) + datetime.timedelta(days=21)
            consent.state, consent.paused_at, consent.paused_until = Consent.State.PAUSED, at, until
        subscription.version += 1
        consent.version += 1
        owed = self._duties(subscription, [consent], stop=fate == "withdrew", erase=erase)
        said = running.told(consent, typ, owed, erase=erase, reason=reason)
        self._act(said, owed, event, subscription, by=self.actor, at=at, reason=reason, consent=consent)

    def _ends(
        self, subscription, consents, at, *, erase: bool, reason: str = EndReason.PERSON_LEFT, fate: str = ""
    ) -> None:
        asked = ending.end_rows(subscription, consents, reason=reason, erase=erase, at=at)
        quiet = reason == EndReason.EXPIRED
        owed = [] if quiet else self._duties(subscription, consents, stop=True, erase=erase)
        said = ending.told(subscription, consents, owed, asked, reason=reason)
        by = Actor.system("expire") if quiet else self.actor
        self._act(
            said, owed, messages.SUBSCRIPTION_ENDED, subscription, by=by, at=at, reason=reason, fate=fate
        )

    def _asks(self, subscription, consents: list[Consent], at: datetime.datetime) -> None:
        """After the end: now erase it too."""
        for row in (subscription, *consents):
            ending.ask_erasure(row, at=at)
        subscription.version += 1
        asked = [subscription.pk, *(consent.pk for consent in consents)]
        owed = [d for d in self._duties(subscription, consents, stop=True, erase=True) if d.goal == "erased"]
        said = [facts.of_erasure(subscription, asked=asked, owed=owed)]
        reason = subscription.end_reason
        self._act(said, owed, messages.ERASURE_REQUESTED, subscription, by=self.actor, at=at, reason=reason)

    def _duties(self, subscription, consents, *, stop=False, erase=False) -> list[propagation.Duty]:
        owed = propagation.needed(subscription, consents, stop=stop, erase=erase, by=self.actor)
        for duty in owed:
            duty.by_hand = duty.organization.pk in self.market.by_hand
        return owed

    def _keep(self, subscription, consents: Iterable[Consent]) -> None:
        self.made.subscriptions.append(subscription)
        self.made.consents += consents

    def _say(self, said: list[ledger.Fact], *, by: Actor, at, txn: uuid.UUID | None = None) -> bytes:
        sealed = prepare(said, by=by, at=at, txn=txn or messages.new_id(), keys=self.keys, rows=self.made.log)
        return sealed[0].leaf_hash

    def _act(self, said, owed, event, subscription, *, by, at, reason="", consent=None, fate="") -> None:
        """Tell the act, owe what it owes, and let the organizations answer."""
        txn = messages.new_id()
        leaf_hash = self._say(said, by=by, at=at, txn=txn)
        rows = propagation.composed(
            owed, event=event, subscription=subscription, txn=txn, at=at, leaf_hash=leaf_hash, reason=reason,
            consent=consent,
        )  # fmt: skip
        self.made.deliveries += rows
        for delivery in rows:
            self._answers(delivery, rows, at, fate)

    # --- what partners answer ------------------------------------------------------------------------------------------------

    def _answers(self, delivery: Delivery, act: list[Delivery], at: datetime.datetime, fate: str) -> None:
        if fate == "stuck" and delivery.role == Delivery.Role.OPERATOR:
            return  # nothing has reached them yet
        dice, who = self.dice, Actor.organization(delivery.organization)
        at += datetime.timedelta(seconds=1)
        if delivery.state == Delivery.State.QUEUED:
            self._moves(delivery, Delivery.State.SENT, by=Actor.system("deliver"), at=at)
        else:
            at += datetime.timedelta(hours=dice.randint(2, 20))
        at += datetime.timedelta(seconds=dice.randint(2, 40))
        self._moves(delivery, Delivery.State.RECEIVED, by=who, at=at)
        if delivery.goal == Delivery.Goal.RECEIVED:
            return
        at += datetime.timedelta(seconds=dice.randint(20, 400))
        self._proves(delivery, act, Evidence.Status.STOPPED, who, at)
        if delivery.goal == Delivery.Goal.ERASED:
            kept = fate == "refused" and delivery.role == Delivery.Role.OPERATOR
            at += datetime.timedelta(hours=dice.randint(1, 50))
            self._proves(delivery, act, Evidence.Status.RETAINED if kept else Evidence.Status.ERASED, who, at)

    def _moves(self, delivery: Delivery, state: str, *, by: Actor, at, **fields) -> None:
        steps.advance(delivery, state, at=at)
        if state == Delivery.State.SENT:
            delivery.attempts, delivery.http_status = 1, 200
        fact = facts.of_delivery(f"delivery.{state}", delivery, state=state, **fields)
        self._say([fact], by=by, at=at, txn=delivery.txn)

    def _proves(self, delivery: Delivery, act: list[Delivery], status: str, who: Actor, at) -> None:
        evidence, basis = self._evidence(delivery, status, at), ""
        if status == Evidence.Status.RETAINED:
            basis = "상법 제33조(상업장부 등의 보존) 10년"
            answers.keep_refusal(delivery, basis=basis, at=at)
        else:
            self._moves(delivery, status, by=who, at=at, evd=evidence.digest)
        if delivery.goal == Delivery.Goal.ERASED and status != Evidence.Status.STOPPED:
            settled = self._settles(delivery, act, status, basis, at)
            fact = facts.of_settlement(delivery, evidence, settled=settled, basis=basis)
            self._say([fact], by=who, at=at, txn=delivery.txn)

    def _settles(self, delivery: Delivery, act, status: str, basis: str, at) -> list[uuid.UUID]:
        """The rows that an outcome settles: what answers._settle_erasure finds in the database."""
        told = {row.organization_id for row in act if row.role == Delivery.Role.RECIPIENT}
        rows: list = [c for c in self.made.consents if c.subscription_id == delivery.subscription_id]
        if delivery.consent_id:
            rows = [c for c in rows if c.pk == delivery.consent_id]
        if delivery.role == Delivery.Role.RECIPIENT:
            rows = [c for c in rows if c.recipient_id == delivery.organization_id and not delivery.consent_id]
        elif delivery.consent_id is None:
            own = Consent.Kind.THIRD_PARTY
            rows = [c for c in rows if not (c.kind == own and c.recipient_id in told)]
            rows.append(delivery.subscription)
        rows = [row for row in rows if row.erasure == "requested"]
        for row in rows:
            if status == Evidence.Status.ERASED:
                row.erasure, row.erasure_confirmed_at = "confirmed", at
            else:
                row.erasure, row.erasure_refusal = "refused", basis
        return [row.pk for row in rows]

    def _evidence(self, delivery: Delivery, status: str, at: datetime.datetime) -> Evidence:
        report = hashlib.sha256(f"{delivery.jti} {status}".encode()).hexdigest()
        key = self.market.keys.get(delivery.organization.code)
        claims: dict[str, Any] = {
            "iss": delivery.organization.code, "aud": settings.PORTAL_URL, "iat": int(at.timestamp()), "jti": str(uuid.uuid4()),
            "txn": str(delivery.txn), "delivery": str(delivery.jti), "subscription": str(delivery.subscription_id),
            "version": delivery.version, "status": status, "completed_at": int(at.timestamp()), "report": {"sha256": report},
        }  # fmt: skip
        document, means = json.dumps(claims, sort_keys=True), str(Evidence.Means.DESK)
        if key is not None and delivery.organization_id not in self.market.by_hand:
            header = {"alg": "ES256", "kid": key.thumbprint(), "typ": "deletion-evidence+jwt"}
            document, means = (
                jws.serialize_compact(header, document.encode(), key, algorithms=["ES256"]),
                "signed",
            )
        evidence = Evidence(
            jti=claims["jti"], organization=delivery.organization, delivery=delivery, status=status, means=means,
            document=document, digest="sha256:" + hashlib.sha256(document.encode()).hexdigest(), stated_at=at, received_at=at,
        )  # fmt: skip
        self.made.evidence.append(evidence)
        return evidence


def lives(numbers: Iterable[int], *, seed: int, market: Market) -> Made:
    """The rows of these people."""
    made = Made()
    for number in numbers:
        Life(number, seed=seed, market=market, made=made).live()
    return made
