"""The demo's last year, told day by day through the domain's own functions.

Acts go through a calendar (a heap by moment), so that the log is in the order in which things happened. Every message
owed is settled as a well-behaved partner would: acknowledged within seconds, stopped within minutes, erased within
days, each with evidence signed by that partner's own key. A few partners are late on purpose.
"""

import datetime
import hashlib
import heapq
import itertools
import json
import random
import uuid
from collections.abc import Callable
from typing import Any

from dateutil.relativedelta import relativedelta
from django.conf import settings
from joserfc import jws

from consents import answers, inbound, lifecycle, propagation, publishing, reconciliation, speedbump
from consents.actors import Actor
from consents.demo import files, flows
from consents.ledger.entries import SEOUL
from consents.models import Consent, Delivery, EndReason, Evidence, Person, Subscription
from providers import datafiles
from providers.models import Organization, Service, Terms, TermsItem
from providers.wires import SENT, Outcome

SYSTEM = Actor.system("demo")
LATE = {"IVSADA9003": "error", "INARAE9004": "silent"}  # sources whose faults the sandbox keeps switched on
DEAF = {code for code, fault in LATE.items() if fault == "silent"}
SEVEN = (
    "durumi-ledger",
    "durumi-week",
    "neuti-view",
    "score-care",
    "health-record",
    "safe-commute",
    "pension-check",
)


class Calendar:
    """Acts by moment; what lies after `now` never happens."""

    def __init__(self, now: datetime.datetime):
        self.now, self._order = now, itertools.count()
        self._heap: list[tuple[datetime.datetime, int, Callable[[datetime.datetime], object]]] = []

    def add(self, at: datetime.datetime, act: Callable[[datetime.datetime], object]) -> None:
        if at <= self.now:
            heapq.heappush(self._heap, (at, next(self._order), act))

    def play(self, progress: Callable[[], None]) -> None:
        while self._heap:
            at, _order, act = heapq.heappop(self._heap)
            act(at)
            progress()


class Story:
    def __init__(self, *, now: datetime.datetime, dice: random.Random, keys: dict):
        self.now, self.dice, self.keys = now, dice, keys
        self.calendar = Calendar(now)
        self.planned: set[int] = set()
        self.services = {
            s.slug: s
            for s in Service.objects.filter(organization__is_fictional=True).select_related("organization")
        }

    # --- acts ----------------------------------------------------------------------------------------------------------

    def joins(
        self, person: Person, slug: str, at: datetime.datetime, *, generous: float = 0.5, then=None
    ) -> None:
        """The person joins at that moment, agreeing to some optional items; `then` continues with the subscription."""

        def act(at):
            service = self.services[slug]
            terms = Terms.objects.get(service=service, state=Terms.State.PUBLISHED)
            minor = relativedelta(at.date(), person.born_on).years < 19
            choices = [
                lifecycle.Choice(item, riders=tuple(r for r in item.riders if self.dice.random() < 0.15))
                for item in terms.items.select_related("source", "recipient")
                if item.required or self._agrees(item, minor, generous)
            ]
            try:
                subscription = lifecycle.join(
                    person=person, service=service, terms=terms, choices=choices, language=person.language,
                    by=Actor.person(person), at=at,
                )  # fmt: skip
            except lifecycle.Refused:
                return  # joined already, or the operator had no licence that day: as it would have been
            self.settle(subscription, at)
            if then:
                then(subscription)

        self.calendar.add(at, act)

    def _agrees(self, item: TermsItem, minor: bool, generous: float) -> bool:
        rare = item.kind in (TermsItem.Kind.MARKETING, TermsItem.Kind.THIRD_PARTY)
        return not (rare and minor) and self.dice.random() < (generous * 0.4 if rare else generous)

    def leaves(
        self,
        subscription,
        at,
        *,
        erase: bool = True,
        reason: str = EndReason.PERSON_LEFT,
        by: Actor | None = None,
    ) -> None:
        def act(at):
            try:
                lifecycle.leave(
                    subscription,
                    erase=erase,
                    by=by or Actor.person(subscription.person),
                    at=at,
                    reason=reason,
                )
            except lifecycle.AlreadyEnded:
                return
            self.settle(subscription, at)

        self.calendar.add(at, act)

    def withdraws(self, subscription, at, *, erase: bool) -> None:
        def act(at):
            consent = subscription.consents.live().filter(kind="transfer", required=False).first()
            if consent is not None:
                lifecycle.withdraw(consent, erase=erase, by=Actor.person(subscription.person), at=at)
                self.settle(subscription, at)

        self.calendar.add(at, act)

    def pauses(self, subscription, at) -> None:
        def act(at):
            consent = subscription.consents.live().filter(state="active", kind="transfer").first()
            if consent is not None:
                until = (self.now + datetime.timedelta(days=21)).date()
                lifecycle.pause(consent, until_on=until, by=Actor.person(subscription.person), at=at)
                self.settle(subscription, at)

        self.calendar.add(at, act)

    def uses(self, subscription, *, until: datetime.datetime) -> None:
        """The operator reports the last use and the last transfer."""
        last = max(subscription.joined_at, until)
        moved = min(
            last + datetime.timedelta(days=self.dice.randint(0, 6), minutes=self.dice.randint(1, 600)),
            self.now,
        )
        self.calendar.add(
            moved,
            lambda _at: reconciliation.note_use(
                subscription, used_on=last.astimezone(SEOUL).date(), transferred_at=moved
            ),
        )

    # --- what partners answer --------------------------------------------------------------------------------------------

    def settle(self, subscription: Subscription, at: datetime.datetime) -> None:
        """Plan the answers to what the last act owes."""
        for delivery in subscription.deliveries.filter(created_at=at).select_related("organization"):
            if delivery.pk in self.planned:
                continue
            self.planned.add(delivery.pk)
            late = LATE.get(delivery.organization.code) if delivery.goal != Delivery.Goal.RECEIVED else None
            if delivery.state != Delivery.State.MANUAL:
                failed = (
                    Outcome(verdict="retry", status=500, detail="HTTP 500")
                    if late == "error"
                    else Outcome(verdict=SENT, status=200)
                )
                self.calendar.add(at + datetime.timedelta(seconds=1), self._record(delivery, failed))
            if not late:
                self._answers(delivery, at)

    def _record(self, delivery: Delivery, outcome: Outcome):
        def tried(at: datetime.datetime) -> None:
            for row in propagation.claim(at=at, limit=1, only=delivery.pk):
                propagation.record(row, outcome, at=at)

        return tried

    def _answers(self, delivery: Delivery, at: datetime.datetime) -> None:
        by_hand = delivery.state == Delivery.State.MANUAL
        slow = datetime.timedelta(hours=self.dice.randint(2, 20)) if by_hand else datetime.timedelta()
        who = Actor.organization(delivery.organization)
        heard = at + slow + datetime.timedelta(seconds=self.dice.randint(2, 40))
        self.calendar.add(
            heard,
            lambda at: answers.acknowledge(delivery.jti, organization=delivery.organization, by=who, at=at),
        )
        if delivery.goal == Delivery.Goal.RECEIVED:
            return
        stopped = heard + datetime.timedelta(seconds=self.dice.randint(20, 400))
        self.calendar.add(stopped, lambda at: self._prove(delivery, "stopped", who, at))
        if delivery.goal == Delivery.Goal.ERASED:
            erased = stopped + datetime.timedelta(
                hours=self.dice.randint(1, 50), minutes=self.dice.randint(0, 59)
            )
            self.calendar.add(erased, lambda at: self._prove(delivery, "erased", who, at))

    def _prove(self, delivery: Delivery, status: str, who: Actor, at: datetime.datetime) -> None:
        evidence = self._evidence(delivery, status, at)
        answers.complete(delivery.jti, organization=delivery.organization, evidence=evidence, by=who, at=at)

    def _evidence(self, delivery: Delivery, status: str, at: datetime.datetime) -> Evidence:
        """Evidence as the partner would send it: signed by its server, or confirmed by its clerk at the desk."""
        report = hashlib.sha256(f"{delivery.jti} {status}".encode()).hexdigest()
        address = f"https://{delivery.organization.code.lower()}.example/reports/{report[:16]}"
        claims: dict[str, Any] = {
            "iss": delivery.organization.code, "aud": settings.PORTAL_URL, "iat": int(at.timestamp()), "jti": str(uuid.uuid4()),
            "txn": str(delivery.txn), "delivery": str(delivery.jti), "subscription": str(delivery.subscription_id),
            "version": delivery.version, "status": status, "method": "deleted", "completed_at": int(at.timestamp()),
            "report": {"sha256": report, "url": address},
        }  # fmt: skip
        if delivery.state == Delivery.State.MANUAL:
            document, means = json.dumps(claims, sort_keys=True), Evidence.Means.DESK
        else:
            key = self.keys[delivery.organization.code]
            header = {"alg": "ES256", "kid": key.thumbprint(), "typ": "deletion-evidence+jwt"}
            document, means = (
                jws.serialize_compact(header, json.dumps(claims).encode(), key, algorithms=["ES256"]),
                Evidence.Means.SIGNED,
            )
        return Evidence(
            jti=claims["jti"], status=status, means=means, document=document, report_url=address, stated_at=at,
            digest="sha256:" + hashlib.sha256(document.encode()).hexdigest(),
        )  # fmt: skip

    # --- the year ------------------------------------------------------------------------------------------------------

    def ago(self, **delta) -> datetime.datetime:
        """A working hour of a day in the past."""
        moment = (self.now - relativedelta(**delta)).astimezone(SEOUL)
        return min(
            moment.replace(
                hour=self.dice.randint(8, 21),
                minute=self.dice.randint(0, 59),
                second=self.dice.randint(0, 59),
            ),
            self.now,
        )

    def stars(self, people: dict[str, Person]) -> None:
        """The people with a story of their own."""
        if seven := people.get("seven"):
            months = {
                "durumi-ledger": 11,
                "durumi-week": 9,
                "neuti-view": 8,
                "score-care": 7,
                "health-record": 5,
                "safe-commute": 3,
                "pension-check": 2,
            }
            for slug, month in months.items():
                unused = slug in ("neuti-view", "score-care")
                last = self.ago(months=month, days=-3) if unused else self.ago(days=self.dice.randint(1, 20))
                extra = {"days": 12} if slug == "durumi-ledger" else {}
                self.joins(
                    seven, slug, self.ago(months=month, **extra), generous=0.9,
                    then=lambda s, last=last: self.uses(s, until=last),
                )  # fmt: skip
            self.joins(
                seven,
                "shopping-insight",
                self.ago(months=6),
                then=lambda s: self.leaves(s, self.ago(days=24)),
            )
            self.joins(
                seven,
                "phone-plan",
                self.ago(months=4),
                then=lambda s: self.leaves(s, self.ago(days=40), erase=False),
            )
        if youth := people.get("youth"):
            self.joins(
                youth, "safe-commute", self.ago(months=2), then=lambda s: self.uses(s, until=self.ago(days=2))
            )
        if kept := people.get("kept"):
            self.joins(
                kept,
                "insurance-check",
                self.ago(months=9),
                generous=0.9,
                then=lambda s: self.uses(s, until=self.ago(days=5)),
            )
            self.joins(
                kept,
                "spare-change",
                self.ago(months=10),
                then=lambda s: self.leaves(s, self.ago(days=70), erase=False),
            )

    def crowd(self, people: list[Person]) -> None:
        """Everybody else: 0 to 12 joins, a fifth of them unused for long, some left, some stuck."""
        slugs = sorted(self.services)
        for n, person in enumerate(people):
            for slug in self.dice.sample(
                slugs, k=min(12, int(self.dice.paretovariate(1.1)) if n % 9 else 12 if n == 9 else 0)
            ):
                roll = self.dice.random()
                months, days = self.dice.randint(1, 10), self.dice.randint(0, 25)
                if roll < 0.10:
                    months, days = 11, self.dice.randint(5, 27)  # expires within thirty days
                self.joins(person, slug, self.ago(months=months, days=days), then=self._fate(roll, months))
        for person in people[3:5]:  # stuck at a source that does not answer
            self.joins(
                person,
                "pension-check",
                self.ago(months=6),
                generous=1.0,
                then=lambda s: self.leaves(s, self.ago(days=self.dice.randint(3, 9))),
            )

    def _fate(self, roll: float, months: int):
        def fate(subscription):
            dormant = 0.30 < roll < 0.50 and months >= 6
            self.uses(
                subscription,
                until=subscription.joined_at if dormant else self.ago(days=self.dice.randint(0, 45)),
            )
            if 0.50 < roll < 0.62:
                self.leaves(subscription, self.ago(days=self.dice.randint(1, 28)))
            elif 0.62 < roll < 0.66:
                self.leaves(subscription, self.ago(days=self.dice.randint(10, 28)), erase=False)
            elif 0.66 < roll < 0.72:
                self.withdraws(
                    subscription, self.ago(days=self.dice.randint(1, 28)), erase=self.dice.random() < 0.5
                )
            elif 0.72 < roll < 0.76:
                self.pauses(subscription, self.ago(days=self.dice.randint(1, 9)))

        return fate

    def market(self) -> None:
        """What happens to services and licences in that year."""
        for row in datafiles.fictional()["services"]:
            published = datetime.datetime.fromisoformat(f"{row['terms']['published_on']}T09:00:00+09:00")
            self.calendar.add(
                max(published, self.now - relativedelta(years=1)),
                self._publishes,
            )
        for organization in Organization.objects.filter(is_fictional=True, is_operator=True):
            for licence in organization.licences.all():
                morning = datetime.datetime.combine(licence.effective_on, datetime.time(0, 5), tzinfo=SEOUL)
                if morning > self.now - relativedelta(years=1):
                    self.calendar.add(morning, self._decides(licence))
                if licence.status in ("surrendered", "cancelled"):
                    self.calendar.add(morning, self._closes(organization))
                elif licence.status == "suspended":
                    self.calendar.add(morning, self._suspends(organization))

    def _publishes(self, at: datetime.datetime) -> None:
        before = set(Terms.objects.filter(state=Terms.State.PUBLISHED).values_list("pk", flat=True))
        datafiles.load_fictional(until=at.astimezone(SEOUL).date(), at=at)
        terms = Terms.objects.select_related("service__organization")
        retired = terms.filter(pk__in=before, state=Terms.State.RETIRED)
        published = terms.filter(state=Terms.State.PUBLISHED).exclude(pk__in=before)
        publishing.note_terms(published, by=SYSTEM, at=at, retired=retired)

    def _decides(self, licence):
        return lambda at: publishing.note_licences([licence], by=SYSTEM, at=at)

    def _closes(self, organization):
        def act(at):
            for subscription in (
                Subscription.objects.live().filter(operator=organization).select_related("person")
            ):
                lifecycle.leave(subscription, erase=True, by=SYSTEM, at=at, reason=EndReason.LICENCE_ENDED)
                self.settle(subscription, at)

        return act

    def _suspends(self, organization):
        def act(at):
            for subscription in Subscription.objects.live().filter(operator=organization):
                for consent in subscription.consents.live().filter(state="active"):
                    lifecycle.pause(consent, by=SYSTEM, at=at, reason=EndReason.LICENCE_SUSPENDED)
                    self.settle(subscription, at)

        return act

    def reports(self, people: list[Person]) -> None:
        """An operator without a licence reports what it collected before the law; one report contradicts our records."""

        def row(person, client_id, source, scopes, joined, **changes):
            base = {
                "subject": str(person.subject_id), "service_client_id": client_id, "joined_on": joined.date().isoformat(),
                "source_org_code": source, "scopes": scopes, "purpose": "자산을 한눈에 보여 드려요.", "cycle": "1/w",
                "end_date": (joined + relativedelta(months=12)).date().isoformat(), "retained_until": "99991231",
                "last_used_on": (self.now - datetime.timedelta(days=20)).date().isoformat(),
            }  # fmt: skip
            return base | changes

        def act(at):
            operator = Organization.objects.get(code="EMDALG9001")
            client_id = self.services["dalgureum-view"].client_id
            rows = [
                row(p, client_id, "BKNEUT9001", "bank.list bank.deposit", at - relativedelta(months=4))
                for p in people[6:12]
            ]
            reconciliation.report_holdings(
                enumerate(rows, 1), organization=operator, by=Actor.organization(operator), at=at
            )

        def contradict(at):
            for ended in Subscription.objects.filter(state="ended", person__in=people[12:]).select_related(
                "service", "person", "operator"
            )[:2]:
                source = ended.consents.filter(kind="transfer").first().source
                stale = row(ended.person, ended.service.client_id, source.code, "bank.list", ended.joined_at)
                reconciliation.report_holdings(
                    [(1, stale)], organization=ended.operator, by=Actor.organization(ended.operator), at=at
                )

        self.calendar.add(self.ago(days=14), act)
        self.calendar.add(self.ago(days=1), contradict)

    def flows(self) -> None:
        """What flowed in that year, as the operators report it on the last day."""
        self.calendar.add(self.now, lambda at: flows.report(at=at))

    def goes(self, people: list[Person]) -> None:
        """A bank says that a customer has closed the account there: what it sent has ended."""

        def act(at):
            live = Consent.objects.live().filter(kind="transfer", person__in=people, granted_at__lt=at)
            consent = live.select_related("source", "subscription__person").order_by("pk").first()
            if consent is not None:
                said = {
                    "kind": inbound.OUR_CONSENT,
                    "identifier": str(consent.pk),
                    "reason": EndReason.ACCOUNT_CLOSED,
                }
                inbound.end(consent.source, **said, by=Actor.organization(consent.source), at=at)
                self.settle(consent.subscription, at)

        self.calendar.add(self.ago(days=9), act)

    def files(self) -> None:
        """An operator's file about people who are not here yet: one of them is, and has only to say who she is."""
        self.calendar.add(self.ago(days=2), lambda at: files.report(at=at))

    def warn(self) -> None:
        """The daily job has run now and then."""
        for days in (60, 21, 2, 0):
            self.calendar.add(
                self.now - datetime.timedelta(days=days), lambda at: speedbump.raise_due(by=SYSTEM, at=at)
            )
