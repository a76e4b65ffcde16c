"""Who must act because of one act, and how far: the operator, the sources, the third parties; never who started it."""

import dataclasses
import uuid
from collections.abc import Iterable

from consents import messages
from consents.actors import Actor
from consents.models import Consent, Delivery
from providers.models import Channel, Organization

RANK = {"sent": 1, "received": 2, "stopped": 3, "erased": 4}


@dataclasses.dataclass(slots=True)
class Duty:
    """What one organization must do because of one act."""

    organization: Organization
    role: str
    goal: str
    consents: list[Consent] = dataclasses.field(default_factory=list)
    by_hand: bool = False
    jti: uuid.UUID = dataclasses.field(default_factory=messages.new_id)

    def disclosed(self) -> list[str]:
        """How the duty stands in the ledger entry of the act."""
        return [str(self.jti), self.organization.code, self.role, self.goal]


def duties(subscription, consents: Iterable[Consent], *, stop: bool, erase: bool, by: Actor) -> list[Duty]:
    """One duty per organization that must act on these consents; never the one that started it (no echo).

    A source can only stop sending; the operator and third parties erase when that was asked. Third parties hear of
    stops only: before, the operator is the one who tells them. Who has no open channel of its own confirms by hand."""
    found = needed(subscription, consents, stop=stop, erase=erase, by=by)
    reachable = wired(duty.organization.pk for duty in found)
    for duty in found:
        duty.by_hand = duty.organization.pk not in reachable
    return found


def wired(organizations: Iterable[uuid.UUID]) -> set[uuid.UUID]:
    """Those of these organizations (ids) that have an open channel other than the desk."""
    channels = Channel.objects.filter(organization__in=list(organizations), state=Channel.State.OPEN)
    return set(channels.exclude(protocol=Channel.Protocol.DESK).values_list("organization_id", flat=True))


def needed(subscription, consents: Iterable[Consent], *, stop: bool, erase: bool, by: Actor) -> list[Duty]:
    """The duties as `duties` gives them, before anybody looked at the channels."""
    Goal = Delivery.Goal
    ending = Goal.ERASED if erase else Goal.STOPPED
    found: dict[object, Duty] = {}

    def need(organization, role, goal, concerned):
        if organization.pk == by.organization_id:
            return
        duty = found.setdefault(organization.pk, Duty(organization, role, goal))
        if RANK[goal] > RANK[duty.goal]:
            duty.goal = goal
        duty.consents += [consent for consent in concerned if consent not in duty.consents]

    consents = list(consents)
    need(subscription.operator, Delivery.Role.OPERATOR, ending if stop else Goal.RECEIVED, consents)
    for consent in consents:
        if consent.source_id:
            need(consent.source, Delivery.Role.SOURCE, Goal.STOPPED if stop else Goal.RECEIVED, [consent])
        if consent.recipient_id and stop:
            need(consent.recipient, Delivery.Role.RECIPIENT, ending, [consent])
    return list(found.values())
