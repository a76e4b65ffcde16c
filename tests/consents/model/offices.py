"""What the calendar, the licence register, operators in their reports and the regulator do."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from consents import accounts, inspection, lifecycle, publishing, reconciliation
from consents.actors import Actor
from consents.models import EntryIndex
from providers import registry
from providers.models import Organization, Service, Terms

from .both import HOUR, SYSTEM, BothSides, number
from .shapes import DAY
from .world import PEOPLE, SERVICES


class Offices(BothSides):
    @rule(hours=st.sampled_from([0.02, 0.02, 1, 20, 24 * 4, 24 * 40, 24 * 200]), job=st.booleans())
    def time_passes(self, hours, job):
        self.model.now += hours * HOUR
        if job:
            self.act(self.model.calendar, lambda: lifecycle.expire_due(by=SYSTEM, at=self.now))
            self.act(self.model.finish_closing, lambda: accounts.finish_closing(by=SYSTEM, at=self.now))

    @rule(
        service=st.sampled_from(SERVICES),
        status=st.sampled_from(["suspended", "licensed", "licensed", "conditional", "cancelled"]),
    )
    def licence_decided(self, service, status):
        offer = self.model.services[service]

        def real():
            organization = Organization.objects.get(code=offer.operator)
            decision = registry.record_decision(
                organization=organization, status=status, decided_on=self.model.today, effective_on=self.model.today,
                source="시험을 위해 지어낸 결정", at=self.now,
            )  # fmt: skip
            publishing.note_licences([decision], by=SYSTEM, at=self.now)

        self.act(lambda: setattr(offer, "licence", status), real)

    @rule(service=st.sampled_from(SERVICES))
    def new_terms(self, service):
        offer = self.model.services[service]
        if offer.terms == 2:
            return
        self.act(
            lambda: setattr(offer, "terms", 2),
            lambda: publishing.publish(
                Terms.objects.get(service=self.world.services[service], version=2), by=SYSTEM, at=self.now
            ),
        )

    @rule(
        person=st.sampled_from(PEOPLE), service=st.sampled_from(SERVICES), sources=st.integers(1, 2), wide=st.booleans(),
        joined=st.sampled_from([0, 2, 2, 50, 150]), end=st.sampled_from([100, 300, 500]), used=st.booleans(),
    )  # fmt: skip
    def operator_reports(self, person, service, sources, wide, joined, end, used):
        """Also of what has ended: an attempt to bring it back."""
        offer, today = self.model.services[service], self.model.today
        scopes = ["bank.list", "bank.deposit"] + ["bank.invest"] * wide
        rows = [
            {"source": code, "joined": today - joined * DAY, "end": today + end * DAY, "scopes": scopes, "used": today if used else None}
            for code in offer.sources[:sources]
        ]  # fmt: skip

        def real():
            subject = str(self.person(person).subject_id)
            client = Service.objects.get(pk=self.world.services[service]).client_id
            stated = [
                {
                    "subject": subject, "service_client_id": client, "joined_on": row["joined"].isoformat(), "source_org_code": row["source"],
                    "scopes": " ".join(scopes), "purpose": "가계부", "cycle": "1/w", "end_date": row["end"].strftime("%Y%m%d"),
                    "retained_until": "99991231", "last_used_on": row["used"].isoformat() if row["used"] else "",
                }
                for row in rows
            ]  # fmt: skip
            organization = Organization.objects.get(code=offer.operator)
            report = reconciliation.report_holdings(
                enumerate(stated, 1),
                organization=organization,
                by=Actor.organization(organization),
                at=self.now,
            )
            assert not report.refused

        self.act(lambda: self.model.report(person, service, rows), real)

    @precondition(lambda self: self.model.subscriptions)
    @rule(n=number)
    def regulator_looks(self, n):
        s = self.one(self.model.subscriptions.values(), n)

        def real():
            entry = (
                EntryIndex.objects.filter(subscription=self.seen.subscription_pks[s.key])
                .order_by("-seq")
                .first()
            )
            by = Actor("regulator", str(self.world.regulator))
            found = inspection.reveal(
                event_id=entry.event_id, case="2026-001", reason="민원을 확인하려고 봐요", by=by, at=self.now
            )
            assert found.pk == self.world.people[s.key[0]]

        self.act(lambda: self.model.lookups.update([s.key[0]]), real)
