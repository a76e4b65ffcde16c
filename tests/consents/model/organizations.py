"""What organizations answer: early, late, twice, in the wrong order, and for somebody else."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from consents import answers
from consents.actors import Actor
from consents.models import Delivery, Evidence
from providers.models import Organization

from . import shapes
from .both import BothSides, number
from .shapes import No


class Organizations(BothSides):
    def party(self, delivery: shapes.Delivery) -> Organization:
        """The organization, which knows what it answers: from the wire, or from its inbox here."""
        row = Delivery.objects.select_related("organization").get(pk=self.seen.delivery_pks[delivery.key])
        self.receivers.take(row.organization.code, str(row.jti), row.body)
        return row.organization

    def late(self) -> list[shapes.Delivery]:
        """What was told before something it speaks of ended: an answer that comes only now must not undo the end."""

        def has_ended(d: shapes.Delivery) -> bool:
            consents = self.model.subscriptions[d.key[0]].consents
            return any(consents[about].state == "ended" for about in d.consents)

        return [d for d in self.model.deliveries.values() if d.goal == "received" and has_ended(d)]

    @precondition(lambda self: self.model.deliveries)
    @rule(n=number, late=st.booleans(), twice=st.booleans())
    def acknowledge(self, n, late, twice):
        open_ = [d for d in self.model.deliveries.values() if not d.closed]
        delivery = self.one((late and self.late()) or open_ or self.model.deliveries.values(), n)
        for _time in range(1 + twice):
            self.receive(delivery)

    def receive(self, delivery: shapes.Delivery) -> None:
        organization = self.party(delivery)
        self.act(
            lambda: self.model.acknowledge(delivery),
            lambda: answers.acknowledge(
                self.seen.jtis[delivery.key], organization=organization, by=Actor.organization(organization), at=self.now
            ),
        )  # fmt: skip

    @precondition(lambda self: self.model.deliveries)
    @rule(n=number, status=st.sampled_from(["stopped", "erased", "erased", "retained"]), twice=st.booleans())
    def prove(self, n, status, twice):
        stops = [d for d in self.model.deliveries.values() if d.goal != "received"]
        delivery = self.one(
            [d for d in stops if not d.closed] * 2 + stops or self.model.deliveries.values(), n
        )
        for _time in range(1 + twice):
            self.complete(delivery, status)

    def complete(self, delivery: shapes.Delivery, status: str) -> None:
        organization = self.party(delivery)
        self.evidence += 1
        evidence = Evidence(
            jti=f"e{self.evidence}",
            status=status,
            means="desk",
            digest="sha256:0",
            document="{}",
            stated_at=self.now,
        )
        self.act(
            lambda: self.model.complete(delivery, status),
            lambda: answers.complete(
                self.seen.jtis[delivery.key], organization=organization, evidence=evidence, by=Actor.organization(organization),
                basis="상법 제33조" if status == "retained" else "", at=self.now,
            ),
        )  # fmt: skip

    @precondition(lambda self: self.model.deliveries)
    @rule(n=number, m=number, proves=st.booleans())
    def answer_for_somebody_else(self, n, m, proves):
        delivery = self.one(self.model.deliveries.values(), n)
        other = self.one(Organization.objects.exclude(code=delivery.organization).order_by("code"), m)
        jti, by = self.seen.jtis[delivery.key], Actor.organization(other)
        evidence = Evidence(
            jti="f", status="erased", means="desk", digest="sha256:0", document="{}", stated_at=self.now
        )

        def expected():
            raise No("UnknownDelivery")

        def real():
            if proves:
                answers.complete(jti, organization=other, evidence=evidence, by=by, at=self.now)
            else:
                answers.acknowledge(jti, organization=other, by=by, at=self.now)

        self.act(expected, real)
