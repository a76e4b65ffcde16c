"""What the portal should do, without a database: every act, and what must be seen after it."""

import datetime
from collections import Counter
from dataclasses import dataclass, field

from dateutil.relativedelta import relativedelta

from .shapes import OPEN, RANK, WAITING, Consent, Delivery, No, Service, Subscription

SEOUL = datetime.timezone(datetime.timedelta(hours=9))
LEASE = datetime.timedelta(seconds=45)
CYCLES = ("1/1w", "1/2w", "1/3w", "1/4w")
TRIES = 14  # a message is offered so often, then a human looks


@dataclass
class Model:
    """The whole portal. Every act gets what the portal's own act gets, and raises No before it has changed anything."""

    services: dict[str, Service]
    wired: set[str]
    now: datetime.datetime
    subscriptions: dict[tuple, Subscription] = field(default_factory=dict)
    deliveries: dict[tuple, Delivery] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    notices: list[list] = field(default_factory=list)  # person, service, subscription's key, answer
    lookups: Counter = field(default_factory=Counter)
    stops: dict[tuple, dict[str, tuple]] = field(
        default_factory=dict
    )  # (subscription, version): who must do what

    @property
    def today(self) -> datetime.date:
        return self.now.astimezone(SEOUL).date()

    def snapshot(self) -> dict[str, dict]:
        return {
            "subscriptions": {key: s.shown() for key, s in self.subscriptions.items()},
            "consents": {
                (key, c.about): c.shown() for key, s in self.subscriptions.items() for c in s.consents.values()
            },
            "deliveries": {key: d.shown() for key, d in self.deliveries.items()},
            "notices": Counter((person, service, answer) for person, service, _key, answer in self.notices),
            "lookups": Counter(self.lookups),
        }  # fmt: skip

    # --- beginning -------------------------------------------------------------------------------------------------------

    def of(self, person: str, service: str) -> list[Subscription]:
        return [s for key, s in self.subscriptions.items() if key[:2] == (person, service)]

    def live_of(self, person: str, service: str) -> Subscription | None:
        return next((s for s in self.of(person, service) if s.state == "active"), None)

    def join(
        self, person: str, service: str, *, terms: int, about: list[str], until: datetime.date | None
    ) -> None:
        offer = self.services[service]
        if offer.licence not in OPEN:
            raise No("NotOpen")
        if terms != offer.terms:
            raise No("TermsChanged")
        chosen = [item for item in offer.items if item.about in about]
        if any(item.required and item not in chosen for item in offer.items):
            raise No("RequiredDeclined")
        if until is not None and until <= self.today:
            raise No("NotOffered")
        if self.live_of(person, service):
            raise No("AlreadyJoined")
        consents = {
            item.about: Consent(item.about, item.kind, min(filter(None, [until, self.today + relativedelta(months=item.months)])),
                                item.scopes, (), item.cycle, item)
            for item in chosen
        }  # fmt: skip
        subscription = self._begun(
            person, service, "portal", max(c.until for c in consents.values()), self.today
        )
        subscription.consents = consents
        self._owe(subscription, list(consents.values()), event="consent-granted")

    def _begun(self, person, service, origin, until, used) -> Subscription:
        key = (person, service, len(self.of(person, service)))
        self.subscriptions[key] = Subscription(key, self.services[service].operator, origin, until, used)
        return self.subscriptions[key]

    # --- middle ----------------------------------------------------------------------------------------------------------

    def amend(self, s: Subscription, c: Consent, *, scopes=None, cycle=None, until=None) -> None:
        self._must_live(c)
        offered = c.item
        if c.kind == "transfer" and scopes == []:
            raise No("NotOffered")
        if scopes is not None and set(scopes) - set(offered.scopes if offered else c.scopes):
            raise No("NotOffered")
        most = offered.cycle if offered else c.cycle
        rarer = CYCLES[CYCLES.index(most) :] if most in CYCLES else ()
        if cycle is not None and cycle not in {"", c.cycle, *rarer}:
            raise No("NotOffered")
        if until is not None:
            latest = self.today + relativedelta(months=offered.months if offered else 12)
            too_soon = until > c.until and self.today < c.until - relativedelta(months=1)
            if not self.today < until <= latest or too_soon:
                raise No("NotOffered")
            if until > c.until:
                self._must_be_licensed(s)
        c.scopes = c.scopes if scopes is None else tuple(scopes)
        c.cycle = c.cycle if cycle is None else cycle
        c.until = until or c.until
        s.until = max(s.until, c.until)
        self._change(s, c, "consent-amended")

    def pause(self, s: Subscription, c: Consent, *, until: datetime.date | None = None) -> None:
        self._must_live(c)
        if c.state != "active":
            raise No("NotActive")
        if until is not None and until <= self.today:
            raise No("NotOffered")
        c.state, c.paused_until = "paused", until
        self._change(s, c, "consent-paused")

    def resume(self, s: Subscription, c: Consent) -> None:
        self._must_live(c)
        if c.state != "paused":
            raise No("NotActive")
        self._must_be_licensed(s)
        c.state, c.paused_until = "active", None
        self._change(s, c, "consent-resumed")

    def _must_be_licensed(self, s: Subscription) -> None:
        if self._licence(s) not in OPEN:
            raise No("NotOpen")

    def _licence(self, s: Subscription) -> str:
        return self.services[s.key[1]].licence

    def _must_live(self, row: Subscription | Consent) -> None:
        if row.state == "ended":
            raise No("AlreadyEnded")

    def _change(self, s, c, event, *, stop=False, erase=False, by="") -> None:
        s.version += 1
        c.version += 1
        self._owe(s, [c], event=event, stop=stop, erase=erase, by=by, consent=c.about, overtake=stop)

    # --- end -------------------------------------------------------------------------------------------------------------

    def withdraw(
        self, s: Subscription, c: Consent, *, erase: bool, by: str = "", reason="person_withdrew"
    ) -> None:
        self._must_live(c)
        self._end(c, reason, erase)
        self._change(s, c, "consent-withdrawn", stop=True, erase=erase, by=by)

    def leave(self, s: Subscription, *, erase: bool, by="", reason="person_left", quiet=False) -> None:
        self._must_live(s)
        live = s.live
        held = [*live, *(c for c in s.consents.values() if c not in live and c.erasure != "confirmed")]
        for c in live:
            self._end(c, reason, erase)
            c.version += 1
        self._end(s, reason, erase)
        s.ended_on = self.today
        s.version += 1
        if erase:
            self._ask(held)
        if not quiet:
            self._owe(
                s, held if erase else live, event="subscription-ended", stop=True, erase=erase, by=by, overtake=True
            )  # fmt: skip
        for notice in self.notices:
            if notice[2] == s.key and not notice[3]:
                notice[3] = "ended"

    def erase(self, s: Subscription) -> None:
        if s.state != "ended" or s.erasure != "not_requested":
            raise No("NothingToErase")
        s.erasure = "requested"
        s.version += 1
        held = [c for c in s.consents.values() if c.erasure != "confirmed"]
        self._ask(held)
        self._owe(s, held, event="erasure-requested", stop=True, erase=True, only="erased")

    def erase_consent(self, s: Subscription, c: Consent) -> None:
        if c.state != "ended" or c.erasure != "not_requested":
            raise No("NothingToErase")
        c.erasure = "requested"
        s.version += 1
        self._owe(s, [c], event="erasure-requested", stop=True, erase=True, only="erased", consent=c.about)

    def close_account(self, person: str) -> None:
        self.closed.add(person)
        for s in [s for key, s in self.subscriptions.items() if key[0] == person]:
            if s.state == "active":
                self.leave(s, erase=True, reason="account_closed")
            elif s.erasure == "not_requested":
                self.erase(s)

    def finish_closing(self) -> None:
        for s in self.subscriptions.values():
            if s.key[0] in self.closed and s.state == "active":
                self.leave(s, erase=True, reason="account_closed")

    def _end(self, row, reason: str, erase: bool) -> None:
        row.state, row.reason = "ended", reason
        if isinstance(row, Consent):
            row.paused_until = None
        if erase:
            row.erasure = "requested"

    def _ask(self, consents: list[Consent]) -> None:
        for c in consents:
            c.erasure = "requested" if c.erasure == "not_requested" else c.erasure

    def calendar(self) -> None:
        """What the daily job ends, pauses and resumes."""
        today = self.today
        everything = list(self.subscriptions.values())
        for s in everything:
            if s.state == "active" and s.until < today:
                self.leave(s, erase=False, reason="expired", quiet=True)
        for c in [c for s in everything for c in s.live if c.until < today]:
            self._end(c, "expired", False)
            c.version += 1
        for s in everything:
            if s.state == "active" and s.used <= today - relativedelta(months=12):
                self.leave(s, erase=True, reason="inactive")
        for s in everything:
            if s.state == "active" and s.used <= today - relativedelta(months=6):
                for c in s.live:
                    if c.state == "active" and c.kind == "transfer" and c.cycle:
                        self.pause(s, c)
        for s in everything:
            for c in s.live:
                over = c.state == "paused" and c.paused_until and c.paused_until <= today
                if over and self._licence(s) in OPEN:
                    self.resume(s, c)

    # --- what operators report -----------------------------------------------------------------------------------------------

    def report(self, person: str, service: str, rows: list[dict]) -> None:
        """`rows`: source, joined (a day), end (a day), scopes, used (a day or None)."""
        ended = [s.ended_on for s in self.of(person, service) if s.state == "ended"]
        for row in rows:
            s = self.live_of(person, service)
            if s is None and any(day >= row["joined"] for day in ended):
                self._mismatch(person, service, None)
                continue
            if s is None:
                s = self._begun(person, service, "reported", row["end"], row["used"] or row["joined"])
            c = s.consents.get(row["source"])
            if c is None and s.origin == "reported":
                s.consents[row["source"]] = Consent(
                    row["source"], "transfer", row["end"], tuple(sorted(row["scopes"])), (), "1/1w", None
                )
                s.until = max(s.until, row["end"])
            elif (
                c is None or c.state == "ended" or set(row["scopes"]) - set(c.scopes) or row["end"] > c.until
            ):
                self._mismatch(person, service, s.key)
            elif row["used"] and s.used < row["used"]:
                s.used = row["used"]

    def _mismatch(self, person, service, key) -> None:
        if not any(n[:2] == [person, service] and not n[3] for n in self.notices):
            self.notices.append([person, service, key, ""])

    # --- the way out -------------------------------------------------------------------------------------------------------

    def duties(
        self, s: Subscription, consents: list[Consent], *, stop: bool, erase: bool
    ) -> dict[str, tuple]:
        """Role, goal and consents by organization: everybody who must act on these consents."""
        most = "erased" if erase else "stopped"
        found = {s.operator: ("operator", most if stop else "received", [c.about for c in consents])}
        for c in consents:
            if c.kind == "transfer":
                found[c.about] = ("source", "stopped" if stop else "received", [c.about])
            elif c.kind == "third_party" and stop:
                found[c.about] = ("recipient", most, [c.about])
        return found

    def _owe(
        self, s: Subscription, consents, *, event, stop=False, erase=False, by="", only="", consent=None, overtake=False
    ) -> None:  # fmt: skip
        owed = {
            organization: duty
            for organization, duty in self.duties(s, consents, stop=stop, erase=erase).items()
            if organization != by and (not only or duty[1] == only)
        }
        before = [d for d in self.deliveries.values() if d.key[0] == s.key]
        if overtake and owed:
            for d in before:
                alone = consent is None or set(d.consents) <= {consent}
                if d.state in {*WAITING, "dead"} and d.goal == "received" and alone:
                    d.state, d.overtaken, d.closed, d.lease = "checking", True, True, None
        if stop:
            self.stops[s.key, s.version] = owed
            if owed:
                for d in before:
                    d.attempts = 0 if d.state == "retrying" else d.attempts
        for organization, (role, goal, about) in owed.items():
            key = (s.key, s.version, organization)
            state = "queued" if organization in self.wired else "manual"
            number = len({d.key[:2] for d in self.deliveries.values()} - {key[:2]})
            self.deliveries[key] = Delivery(key, role, goal, event, about, state, number, consent=consent)

    def may_be_claimed(self, d: Delivery) -> bool:
        """Waiting or given up, in nobody's hands, and nothing older waits for the same organization about the same subscription."""
        free = d.lease is None or d.leased_until < self.now
        older = (
            e for e in self.deliveries.values()
            if e.key[0] == d.key[0] and e.organization == d.organization and e.number < d.number and e.state in WAITING
        )  # fmt: skip
        return d.state in {*WAITING, "dead"} and free and not any(older)

    def claim(self, d: Delivery, token: object) -> None:
        d.lease, d.leased_until = token, self.now + LEASE
        d.attempts += 1

    def record(self, d: Delivery, token: object, verdict: str, *, attempts: int, was: str) -> bool:
        """Whether what came of a try counts: only where the lease is still the worker's own. `was`: the state it claimed."""
        if d.lease != token or d.state not in {*WAITING, "dead"}:
            return False
        d.lease = None
        given_up = was == "dead" or verdict == "refused" or (verdict != "gone" and attempts >= TRIES)
        d.state = {"sent": "sent", "check": "checking"}.get(verdict, "dead" if given_up else "retrying")
        return True

    # --- the way back ------------------------------------------------------------------------------------------------------

    def acknowledge(self, d: Delivery) -> None:
        if RANK.get(d.state, 0) < RANK["received"]:
            d.forward("received")

    def complete(self, d: Delivery, status: str) -> None:
        if d.goal == "received":
            raise No("WrongOrder")
        if status == "retained":
            if d.goal != "erased" or d.state == "erased" or d.refused:
                raise No("WrongOrder")
            if RANK.get(d.state, 0) < RANK["stopped"]:
                d.forward("stopped")
            d.refused = d.closed = True
        elif RANK.get(d.state, 0) >= RANK[status]:
            raise No("WrongOrder")
        else:
            d.forward(status)
        if d.goal == "erased" and status in ("erased", "retained"):
            self._settle(d, confirmed=status == "erased")

    def _settle(self, d: Delivery, *, confirmed: bool) -> None:
        """The operator's word counts for all it was asked, but not for third parties who answer for themselves; theirs
        counts for their own part of an end."""
        s = self.subscriptions[d.key[0]]
        asked = {"requested", "refused"} if confirmed else {"requested"}
        outcome = "confirmed" if confirmed else "refused"
        themselves = {
            e.organization
            for e in self.deliveries.values()
            if e.key[:2] == d.key[:2] and e.role == "recipient"
        }
        if d.role == "operator":
            if d.consent is None:
                about = [c for c in s.consents.values() if c.about not in themselves]
                about += [s] if s.erasure in asked else []
            else:
                about = [s.consents[d.consent]]
        else:
            about = [s.consents[d.organization]] if d.consent is None else []
        for row in about:
            row.erasure = outcome if row.erasure in asked else row.erasure
