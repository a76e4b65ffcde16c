"""Faults that are put into the portal on purpose. Each must be found, by the invariant that it breaks."""

from dataclasses import replace

from consents import answers, parties, routes
from consents.models import Consent
from providers.ids import uuid7

from .world import sql


def without(guard: str) -> None:
    """The database's own refusal is taken away, so that only the machine can notice; the test's transaction brings it back."""
    sql(f"SET CONSTRAINTS ALL IMMEDIATE; {guard}; SET CONSTRAINTS ALL DEFERRED")


def double_grant(monkeypatch) -> None:
    """Nothing keeps a person from joining a service that they are in already."""
    without("DROP INDEX person_joins_a_service_once_at_a_time")


def resurrection(monkeypatch) -> None:
    """A late acknowledgement of the grant makes its consents active, whatever has happened to them since."""
    without("ALTER TABLE consents_consent DISABLE TRIGGER a_ended_stays_ended")
    right = answers.acknowledge

    def wrong(jti, **more):
        delivery = right(jti, **more)
        if delivery.event == "consent-granted":
            Consent.objects.filter(subscription=delivery.subscription_id, state="ended").update(
                state="active", paused_at=None, paused_until=None, ended_at=None, end_reason="", erasure="not_requested",
                erasure_requested_at=None, erasure_confirmed_at=None, erasure_refusal="",
            )  # fmt: skip
        return delivery

    monkeypatch.setattr(answers, "acknowledge", wrong)


def lost_party(monkeypatch) -> None:
    """Third parties are told only where erasing was asked."""
    right = parties.needed

    def wrong(subscription, consents, *, stop, erase, by):
        found = right(subscription, consents, stop=stop, erase=erase, by=by)
        return [duty for duty in found if erase or duty.role != "recipient"]

    monkeypatch.setattr(parties, "needed", wrong)


def missing_idempotency(monkeypatch) -> None:
    """Every try goes out under an id of its own, so that nobody can tell a second try from a second message."""
    right = routes.letters
    monkeypatch.setattr(
        routes, "letters", lambda rows: {pk: replace(m, jti=str(uuid7())) for pk, m in right(rows).items()}
    )


# A fault and the invariant that it breaks.
FAULTS = [
    (double_grant, "at_most_one_active"),
    (resurrection, "ended_stays_ended"),
    (lost_party, "every_end_has_one_delivery_per_party"),
    (missing_idempotency, "effect_at_most_once"),
]
