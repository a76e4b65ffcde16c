"""An act on both sides, the model's and the portal's, and what must hold after each."""

import datetime
import uuid
from collections import Counter
from types import SimpleNamespace

from django.db import transaction
from django.http import Http404
from django.test import override_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from consents import access, answers, lifecycle, propagation
from consents.actors import Actor
from consents.ledger import replay
from consents.ledger.sequencer import Sequencer
from consents.models import Person

from .seen import Seen, difference
from .shapes import OPEN, Consent, No, Subscription
from .world import Receivers, World

SYSTEM = Actor.system("model")
HOUR = datetime.timedelta(hours=1)
number = st.integers(0, 1_000)
REFUSALS = (
    lifecycle.Refused, answers.WrongOrder, answers.UnknownDelivery, propagation.AlreadyWaiting, Http404,
)  # fmt: skip


class Broken(AssertionError):
    """An invariant does not hold."""

    def __init__(self, invariant: str, what: object = ""):
        super().__init__(f"{invariant}: {what}")
        self.invariant = invariant


class BothSides(RuleBasedStateMachine):
    """Each act is done by the model and by the portal, and both must refuse it alike."""

    world: World
    folder = None  # where the log of an example lies
    replay_every = 15
    rules_run: Counter = Counter()

    def __init__(self):
        super().__init__()
        self.rules_run["walks"] += 1
        self.model, self.receivers, self.failed = self.world.model(), Receivers(), False
        self.steps, self.hands, self.gone, self.evidence = 0, [], set(), 0
        self.known: dict[str, dict] = {"subscriptions": {}, "consents": {}}
        home = self.folder / uuid.uuid4().hex
        self.places = override_settings(
            LEDGER_DIR=home / "ledger",
            SIGNER_DIR=home / "signer",
            LEDGER_POLICY=home / "ledger" / "policy.txt",
        )
        self.places.enable()
        self.undo = transaction.atomic()
        self.undo.__enter__()
        self.sequencer = Sequencer()
        self.seen = Seen(self.world)

    @property
    def now(self) -> datetime.datetime:
        return self.model.now

    def act(self, expected, real) -> None:
        """Do the same on both sides."""
        refusal = ""
        try:
            expected()
        except No as no:
            refusal = str(no)
        self.failed = True  # until it went well: nothing is drained after an error of the portal
        got = ""
        try:
            with transaction.atomic():
                real()
        except REFUSALS as refused:
            got = type(refused).__name__
        self.failed = False
        self.rules_run[f"refused: {got}" if got else "done"] += 1
        if got != refusal:
            self.all_holds()
            self.fail("same_refusal", f"the model says {refusal or 'yes'}, the portal {got or 'yes'}")

    def fail(self, invariant: str, what: object) -> None:
        self.failed = True
        raise Broken(invariant, what)

    def one(self, rows, n: int):
        rows = list(rows)
        return rows[n % len(rows)]

    def person(self, name: str) -> Person:
        return Person.objects.get(pk=self.world.people[name])

    def actor(self, s: Subscription) -> Actor:
        return Actor("person", str(self.world.people[s.key[0]]))

    def row(self, thing):
        """The portal's row of something of the model, as a door finds it for its owner."""
        if isinstance(thing, Subscription):
            request = SimpleNamespace(user=self.person(thing.key[0]))
            return access.own_subscription(request, self.seen.subscription_pks[thing.key])
        s, c = thing
        request = SimpleNamespace(user=self.person(s.key[0]))
        return access.own_consent(request, self.seen.consent_pks[s.key, c.about])

    def consents(self, *states: str) -> list[tuple[Subscription, Consent]]:
        """Consents in one of these states first, and then the others: most acts should be possible, not all."""
        everything = [(s, c) for s in self.model.subscriptions.values() for c in s.consents.values()]
        wanted = [(s, c) for s, c in everything if c.state in states]
        return wanted * 3 + everything if wanted else everything

    def subscriptions(self, state: str) -> list[Subscription]:
        everything = list(self.model.subscriptions.values())
        return [s for s in everything if s.state == state] * 3 + everything

    # --- what must hold ------------------------------------------------------------------------------------------------------

    @invariant()
    def all_holds(self):
        self.steps += 1
        self.seen = Seen(self.world)
        now = self.seen.rows
        self.at_most_one_active(now)
        self.ended_stays_ended(now)
        self.no_active_under_dead_licence(now)
        self.every_end_has_one_delivery_per_party(now)
        self.effect_at_most_once()
        for table, expected in self.model.snapshot().items():
            if now[table] != expected:
                self.fail("snapshot", difference(table, expected, now[table]))
        self.known = now
        if self.replay_every and self.steps % self.replay_every == 0:
            self.ledger_matches()

    def at_most_one_active(self, now) -> None:
        active = Counter(
            key[:2] for key, (_origin, state, *_more) in now["subscriptions"].items() if state == "active"
        )
        if self.seen.again or any(count > 1 for count in active.values()):
            self.fail("at_most_one_active", self.seen.again or active)

    def ended_stays_ended(self, now) -> None:
        """The state, the last day and the reason of what was seen ended, whatever came after."""
        places = {"subscriptions": (1, 2, 4), "consents": (0, 1, 2)}
        for table, (state, until, reason) in places.items():
            for key, row in self.known[table].items():
                after = now[table].get(key, (None,) * 10)
                if row[state] == "ended" and (after[state], after[until], after[reason]) != (
                    "ended",
                    row[until],
                    row[reason],
                ):
                    self.fail("ended_stays_ended", f"{key}: {row} became {after}")

    def no_active_under_dead_licence(self, now) -> None:
        """Nothing is agreed to while the operator's licence is dead. (What an operator says it holds is no agreement.)"""
        for key, (origin, *_more) in now["subscriptions"].items():
            licence = self.model.services[key[1]].licence
            if key not in self.known["subscriptions"] and origin != "reported" and licence not in OPEN:
                self.fail("no_active_under_dead_licence", key)

    def every_end_has_one_delivery_per_party(self, now) -> None:
        told: dict = {}
        for subscription, version, organization in now["deliveries"]:
            told.setdefault((subscription, version), set()).add(organization)
        for stop, owed in self.model.stops.items():
            if told.get(stop, set()) != set(owed):
                self.fail(
                    "every_end_has_one_delivery_per_party", f"{stop}: {told.get(stop)} and not {set(owed)}"
                )

    def effect_at_most_once(self) -> None:
        if again := [effect for effect, count in self.receivers.effects.items() if count > 1]:
            self.fail("effect_at_most_once", again)

    def ledger_matches(self) -> None:
        report = replay.run()
        if not report.ok:
            self.fail("ledger_matches", report)
