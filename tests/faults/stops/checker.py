"""Judges a history: what people were answered, what the operators did, and what the database holds must agree.

Master invariant: every accepted withdrawal takes effect at every party exactly once, has exactly one entry in the log, no
effect is without an accepted or unanswered act, and what has ended never comes back. Lost, doubled and late are counted
apart: late is what came, and what still waits.
"""

from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.faults.stops.history import read
from tests.faults.stops.rig import World, Wrong

SOON = 10.0  # seconds from the answer to the effect; longer is late, and no fault
ENTRY = {"withdraw": "consent.withdrawn", "end": "subscription.ended"}


@dataclass
class Report:
    """Figures, and in `complaints` what is broken."""

    acts: int = 0
    accepted: int = 0
    ambiguous: int = 0
    parties: int = 0
    posts: int = 0
    refused: int = 0
    refusals: dict[str, int] = field(default_factory=dict)  # in the operators' words
    lost: int = 0
    doubled: int = 0
    late: int = 0
    p50: float = 0.0
    p99: float = 0.0
    complaints: list[str] = field(default_factory=list)
    delays: dict[str, list[tuple[float, float]]] = field(default_factory=dict, repr=False)

    def figures(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name not in ("complaints", "delays")}

    def must_hold(self) -> "Report":
        if self.complaints:
            shown = "\n".join(self.complaints[:12])
            raise Wrong(f"{len(self.complaints)} complaints; {self.figures()}\n{shown}")
        return self


def judge(world: World) -> Report:
    """After rest: everything that the history of this world says against its plan and its database."""
    return Judge(world).judge()


class Judge:
    def __init__(self, world: World) -> None:
        self.world, self.plan, self.report = world, world.plan, Report()
        self.events = list(read(world.path, world.journal))
        self.ended: dict[str, list[dict]] = defaultdict(list)
        for event in self.events:
            if event["f"] in ENTRY:
                self.ended[event["k"]].append(event)
        self.effects: dict[tuple[str, str], list[dict]] = defaultdict(list)  # (act, party)
        self.deliveries: dict[str, list[tuple]] = defaultdict(list)  # by txn
        self.entries: dict[tuple[str, str], list[str]] = defaultdict(list)  # (type, id) → txns

    def complain(self, text: str) -> None:
        self.report.complaints.append(text)

    def judge(self) -> Report:
        self._read_effects()
        self._read_database()
        for act in self.ended:
            self._act(act)
        self._strays()
        self._waiting()
        self._journal()
        self._looks()
        self._log()
        self._jobs()
        delays = sorted(delay for found in self.report.delays.values() for _, delay in found)
        if delays:
            self.report.p50, self.report.p99 = (
                round(delays[int(len(delays) * part)], 2) for part in (0.5, 0.99)
            )
        return self.report

    # --- what there is ---------------------------------------------------------------------------------------------------

    def _read_effects(self) -> None:
        for event in self.events:
            self.report.posts += event["f"] == "post"
            if event["f"] == "refused":
                self.report.refused += 1
                self.report.refusals[event["v"]] = self.report.refusals.get(event["v"], 0) + 1
            if event["f"] == "effect":
                told = event["v"]
                act = told["subscription"] if told["event"] == "subscription-ended" else told["consents"][0]
                self.effects[act, event["p"]].append(event)

    def _read_database(self) -> None:
        first_delivery, first_entry = self.world.first
        rows = self.world.sql(
            "SELECT d.txn::text, o.code, d.jti::text, d.state, d.attempts FROM consents_delivery d "
            "JOIN providers_organization o ON o.id = d.organization_id WHERE d.id > %s AND d.replay_of_id IS NULL",
            [first_delivery],
        )
        for txn, *rest in rows:
            self.deliveries[txn].append(tuple(rest))
        self.jtis = {row[2]: row for row in rows}
        self.subscriptions = dict(
            self.world.sql("SELECT jti::text, subscription_id::text FROM consents_delivery")
        )
        self.breakers = self.world.sql("SELECT channel_id FROM consents_breaker")
        entries = self.world.sql(
            "SELECT i.typ, i.consent_id::text, i.subscription_id::text, i.txn::text, i.jti::text, i.seq, e.event_type "
            "FROM consents_entryindex i LEFT JOIN ledger.event e USING (event_id) WHERE i.seq > %s ORDER BY i.seq",
            [first_entry],
        )
        self.answers: dict[str, list[str]] = defaultdict(list)
        for typ, consent, subscription, txn, jti, _seq, logged in entries:
            if logged != typ:
                self.complain(f"the index says {typ}, the log says {logged}")
            self.entries[typ, consent if typ == "consent.withdrawn" else subscription].append(txn)
            if typ.startswith("delivery."):
                self.answers[jti].append(typ.removeprefix("delivery."))
        self.states = dict(
            self.world.sql(
                "SELECT id::text, state FROM consents_consent UNION ALL SELECT id::text, state FROM consents_subscription"
            )
        )

    # --- what must hold --------------------------------------------------------------------------------------------------

    def _act(self, act: str) -> None:
        events = self.ended[act]
        f = events[0]["f"]
        answers = [event for event in events if event["type"] == "ok"]
        unknown = any(event["type"] == "info" for event in events)
        expected = (self.plan["consents"] if f == "withdraw" else self.plan["subscriptions"])[act]["parties"]
        done = self.states[act] == "ended"
        txns = self.entries[ENTRY[f], act]
        self.report.acts += 1
        self.report.accepted += bool(answers)
        self.report.ambiguous += unknown and not answers
        if answers and not done:
            self.complain(f"{f} {act} was accepted and is {self.states[act]}")
        if len(txns) > 1:
            self.complain(f"{f} {act} has {len(txns)} entries in the log")
        if not answers and not unknown and done:
            self.complain(f"{f} {act} was refused and has ended")
        if bool(txns) != done:
            self.complain(f"{f} {act} is {self.states[act]} with {len(txns)} entries in the log")

        if not answers and not done:
            for party in expected:
                if self.effects[act, party]:
                    self.complain(f"{party} acted on {f} {act}, which never happened")
            return
        owed = [row[0] for txn in txns for row in self.deliveries[txn]]
        if sorted(owed) != sorted(expected):
            self.complain(f"{f} {act} is owed to {sorted(owed)}, not to {expected}")
        for party in expected:
            self._party(f, act, party, txns, answers)

    def _party(self, f: str, act: str, party: str, txns: list[str], answers: list[dict]) -> None:
        self.report.parties += 1
        effects = self.effects[act, party]
        if not effects:
            rows = [row for txn in txns for row in self.deliveries[txn] if row[0] == party]
            if any(row[2] in ("queued", "retrying") for row in rows):
                self.report.late += 1
            else:
                self.report.lost += 1
                self.complain(f"lost: {party} never heard of {f} {act} ({rows})")
        elif len(effects) > 1:
            self.report.doubled += 1
            self.complain(f"doubled: {party} acted {len(effects)} times on {f} {act}")
        elif answers:
            delay = effects[0]["t"] - answers[0]["t"]
            self.report.delays.setdefault(party, []).append((answers[0]["t"], delay))
            self.report.late += delay > SOON

    def _strays(self) -> None:
        for (act, party), effects in self.effects.items():
            if act not in self.ended:
                self.complain(f"{party} acted on {act}, which nobody asked for")
            for effect in effects:
                if effect["k"] not in self.jtis:
                    self.complain(f"{party} acted on the message {effect['k']}, which no act owes")

    def _waiting(self) -> None:
        for attempts, count in self.world.waiting():
            tried = f"after {attempts} attempts" if attempts else "and were never tried"
            self.complain(f"{count} messages still wait {tried}")
        given_up = [row for row in self.jtis.values() if row[3] == "dead"]
        if given_up:
            self.complain(f"{len(given_up)} messages were given up")

    def _journal(self) -> None:
        """Order within a subscription, Retry-After kept, and silence once an acknowledgement was answered."""
        versions: dict[tuple[str, str], int] = defaultdict(int)
        resting: dict[tuple[str, str], float] = {}
        asked: dict[tuple[str, str], float] = {}
        heard: dict[tuple[str, str], float] = {}
        for event in self.events:
            place = (event["p"], event["k"])
            if event["f"] == "effect":
                key = (event["p"], event["v"]["subscription"])
                if event["v"]["version"] < versions[key]:
                    self.complain(
                        f"out of order: {event['p']} heard version {event['v']['version']} too late"
                    )
                versions[key] = max(versions[key], event["v"]["version"])
            elif event["f"] == "later":
                # Where the answer took longer than the lease, a second worker was sent off before it was given.
                if event["t"] - asked.get(place, event["t"]) < self.world.lease - 1:
                    resting[place] = event["t"] + event["v"]
            elif event["f"] == "ack":
                heard[place] = event["t"]
            elif event["f"] == "post":
                asked[place] = event["t"]
                if event["t"] < resting.get(place, 0) - 0.3 and not self._hurried(event):
                    self.complain(f"Retry-After of {event['p']} was not kept for {event['k']}")
                if event["t"] > heard.get(place, float("inf")) + self.world.lease + 2:
                    self.complain(f"{event['p']} was told {event['k']} again after its acknowledgement")

    def _hurried(self, post: dict) -> bool:
        """Whether a later act of the same subscription pulled this message forward, or the way was found well again: then
        what waits is tried at once."""
        subscription = self.subscriptions.get(post["k"])
        lately = [event for event in self.events if 0 < post["t"] - event["t"] < 4]
        mine = {subscription, *self.plan["subscriptions"].get(subscription, {}).get("consents", [])}
        if any(event["f"] in ENTRY and event["k"] in mine for event in lately):
            return True
        return bool(self.breakers) and any(
            event["f"] == "effect" and event["p"] == post["p"] for event in lately
        )

    def _looks(self) -> None:
        for event in self.events:
            if event["f"] == "look" and event["v"] != "ended":
                self.complain(f"{event['k']} was accepted and then shown as {event['v']}")

    def _log(self) -> None:
        """Each step of a delivery stands in the log once, and none after a later one."""
        rank = {"sent": 0, "received": 1, "stopped": 2, "erased": 3}
        for jti, steps in self.answers.items():
            known = [step for step in steps if step in rank]
            if len(set(known)) < len(known):
                self.complain(f"the log says of {jti}: {', '.join(steps)}")
            elif sorted(known, key=rank.__getitem__) != known:
                self.complain(f"the log goes backwards about {jti}: {', '.join(steps)}")

    def _jobs(self) -> None:
        """What the database had to refuse a job. A crash is no refusal."""
        for name in self.world.workers:
            for path in sorted((self.world.home / "log").glob(f"{name}*.log")):
                for line in path.read_text(errors="replace").splitlines():
                    if "raised unexpected: IntegrityError" in line:
                        self.complain(f"{name} was refused: {line.partition('IntegrityError')[2][:120]}")
