"""The machine: everybody's acts, and at the end of an example everything that is owed."""

from providers import policy

from .both import HOUR
from .offices import Offices
from .organizations import Organizations
from .people import People
from .seen import firsts
from .workers import Workers
from .world import sql


class Portal(People, Offices, Workers, Organizations):
    """The portal, with all that happens to it."""

    def teardown(self):
        try:
            if not self.failed:
                self.drain()
        finally:
            self.undo.__exit__(RuntimeError, RuntimeError("as if it had never been"), None)
            self.places.disable()
            policy.forget()

    def drain(self) -> None:
        """All wires work again, the latest answers come in, and people look at what needs them: then every stop is done,
        everywhere, once."""
        self.hands.clear()
        idle = 0
        for _round in range(60):
            self.model.now += 25 * HOUR
            hands = self.claim(50)
            for hand in hands:
                self.send(hand, "ok")
                self.record(hand)
            idle = 0 if hands else idle + 1
            if idle > 1:
                break
        if left := [d.key for d in self.waiting() if d.organization not in self.gone]:
            self.fail("everything_is_delivered", left)
        self.all_holds()
        for delivery in self.late():
            self.receive(delivery)
        self.all_holds()
        for delivery in list(self.model.deliveries.values()):
            if delivery.goal != "received" and not delivery.closed:
                self.complete(delivery, delivery.goal)
        self.all_holds()
        self.every_stop_has_its_effect()
        self.ledger_matches()
        sql("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")

    def every_stop_has_its_effect(self) -> None:
        acts = {
            key: str(txn)
            for key, txn in zip(
                self.seen.delivery_pks,
                firsts().values_list("txn", flat=True),
                strict=True,
            )
        }
        for stop, owed in self.model.stops.items():
            for organization, (_role, _goal, about) in owed.items():
                if self.receivers.effects[acts[*stop, organization], organization] != 1:
                    self.fail("every_stop_has_its_effect", (*stop, organization))
                for consent in about:
                    pk = str(self.seen.consent_pks[stop[0], consent])
                    if self.receivers.flows.get((organization, pk), (0, True))[1]:
                        self.fail("every_stop_has_its_effect", (*stop, organization, consent))
