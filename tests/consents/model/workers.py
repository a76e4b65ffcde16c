"""What workers and wires do: workers are slow or die, wires lose messages and answers."""

from dataclasses import dataclass

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from consents import propagation, routes
from consents.ledger.sequencer import Sequencer
from consents.models import Claimed, Delivery, LedgerEntry
from consents.sending import Attempt
from providers import policy
from providers.models import Channel
from providers.wires import RETRY, Message, Outcome, classify

from . import shapes
from .both import SYSTEM, BothSides, number
from .shapes import WAITING, No

# What one try comes to: does the message arrive, and what does the worker hear.
WIRE = {
    "ok": (True, lambda: classify(200, {})),
    "answer lost": (True, lambda: Outcome(RETRY, detail="timeout")),
    "timeout": (False, lambda: Outcome(RETRY, detail="timeout")),
    "500": (False, lambda: classify(500, {})),
    "400": (False, lambda: classify(400, {})),
    "410": (False, lambda: classify(410, {})),
    "weak answer": (True, lambda: classify(200, {}, wire="revocation")),
}
outcomes = st.sampled_from(["ok", "ok", "ok", *WIRE])


@dataclass
class Hand:
    """One delivery in a worker's hands: the row as it was claimed, its letter, and what the worker heard."""

    row: Claimed
    delivery: shapes.Delivery | None  # None for a replay
    letter: Message
    was: str
    heard: Outcome | None = None


class Workers(BothSides):
    def claim(self, limit: int) -> list[Hand]:
        """What a worker takes, each of which it may take."""
        rows = propagation.claim(at=self.now, limit=limit)
        letters = routes.letters(rows)
        hands = []
        for row in rows:
            key = self.seen.names[row.subscription_id], row.version, row.organization_code
            delivery = None if row.replay_of_id else self.model.deliveries[key]
            if delivery and not self.model.may_be_claimed(delivery):
                self.fail("claims_in_order", delivery)
            hands.append(Hand(row, delivery, letters[row.pk], row.state))
        for hand in hands:
            if hand.delivery:
                self.model.claim(hand.delivery, hand.row.lease_token)
        return hands

    def send(self, hand: Hand, outcome: str) -> None:
        arrives, heard = WIRE[outcome]
        if arrives:
            self.receivers.take(hand.row.organization_code, hand.letter.jti, hand.letter.body.decode())
        hand.heard = heard()

    def record(self, hand: Hand) -> None:
        row, verdict = hand.row, hand.heard.verdict
        counts = bool(propagation.record_all([Attempt(row, hand.heard, self.channel(row))], at=self.now))
        code = row.organization_code
        (self.gone.add if verdict == "gone" else self.gone.discard if verdict != RETRY else len)(code)
        if hand.delivery is None:
            return
        expected = self.model.record(
            hand.delivery, row.lease_token, verdict, attempts=row.attempts, was=hand.was
        )
        if counts != expected:
            self.fail("lease_decides", f"{hand.delivery.key}: the model says {expected}")

    def channel(self, row: Claimed) -> object:
        return Channel.objects.get(organization=row.organization_id, state="open").pk

    @precondition(lambda self: self.waiting())
    @rule(limit=st.sampled_from([1, 3, 50]), wire=st.lists(outcomes, min_size=1, max_size=4))
    def deliver(self, limit, wire):
        for n, hand in enumerate(self.claim(limit)):
            self.send(hand, wire[n % len(wire)])
            self.record(hand)

    def waiting(self) -> list[shapes.Delivery]:
        return [d for d in self.model.deliveries.values() if d.state in WAITING]

    @precondition(lambda self: self.waiting())
    @rule(limit=st.sampled_from([1, 3]), outcome=outcomes, sends=st.booleans())
    def slow_worker_takes(self, limit, outcome, sends):
        """It has claimed, perhaps sent, and not recorded: it may do that later, too late, or never."""
        for hand in self.claim(limit):
            if sends:
                self.send(hand, outcome)
            self.hands.append(hand)

    @precondition(lambda self: self.hands)
    @rule(n=number, outcome=outcomes)
    def slow_worker_records(self, n, outcome):
        hand = self.hands.pop(n % len(self.hands))
        if hand.heard is None:
            self.send(hand, outcome)
        self.record(hand)

    @precondition(lambda self: self.model.deliveries)
    @rule(n=number)
    def sent_once_more(self, n):
        """Somebody has a message sent again: the same message, so that nothing happens twice."""
        delivery = self.one(self.model.deliveries.values(), n)
        if delivery.organization not in self.world.wired:
            return
        row = Delivery.objects.get(pk=self.seen.delivery_pks[delivery.key])
        under_way = Delivery.objects.filter(replay_of=row, state__in=WAITING).exists()

        def expected():
            if delivery.state in WAITING or under_way:
                raise No("AlreadyWaiting")

        self.act(expected, lambda: propagation.replay(row, by=SYSTEM, at=self.now))

    @rule()
    def restart(self):
        """Every process dies: what workers had in their hands is forgotten, and all that lives in memory."""
        self.hands.clear()
        self.sequencer = Sequencer()
        policy.forget()

    @rule()
    def sequence(self):
        report = self.sequencer.run()
        if report.size != LedgerEntry.objects.count():
            self.fail("ledger_matches", f"{report} of {LedgerEntry.objects.count()} entries")
