"""The channel's screen: what is used, the change under way step by step, and changes that are over."""

import datetime
from dataclasses import dataclass

from consents import channels, gym
from consents.models import ChannelChange, GymRun, Person
from providers.models import Channel, ChannelKey, Organization

from . import paging


@dataclass(frozen=True, slots=True)
class Pending:
    """The change under way, its badge if it needs one, and what the visitor can do about it."""

    change: ChannelChange
    badge: GymRun | None
    needs_badge: bool
    can_approve: bool


@dataclass(frozen=True, slots=True)
class Screen:
    """`channel` is in use; `kids` are its signing keys, newest first, with those that end soon."""

    channel: Channel | None
    badge: GymRun | None
    kids: list[ChannelKey]
    pending: Pending | None
    admins: int


def screen(organization: Organization, visitor: Person, *, at: datetime.datetime) -> Screen:
    """Six queries at most."""
    channel = Channel.objects.filter(organization=organization, state=Channel.State.OPEN).first()
    pending = (
        ChannelChange.objects.filter(organization=organization, closed_at__isnull=True)
        .select_related("channel", "asked_by", "approved_by")
        .first()
    )
    found = gym.badges([one for one in (channel, pending and pending.channel) if one], at=at)
    kids: list[ChannelKey] = []
    if channel:
        keys = ChannelKey.objects.filter(channel=channel, kind=ChannelKey.Kind.HMAC).exclude(
            retired_at__lte=at
        )
        kids = list(keys.order_by("-active_from", "-pk")[:5])
    return Screen(
        channel=channel,
        badge=found.get(channel.pk) if channel else None,
        kids=kids,
        pending=_pending(pending, visitor, found.get(pending.channel_id)) if pending else None,
        admins=organization.members.filter(person__is_active=True).count(),
    )


def _pending(change: ChannelChange, visitor: Person, badge: GymRun | None) -> Pending:
    return Pending(
        change=change,
        badge=badge,
        needs_badge=change.channel.protocol not in channels.UNCALLED,
        can_approve=change.state == ChannelChange.State.ASKED and change.asked_by_id != visitor.pk,
    )


def closed(organization: Organization, *, after: str = "") -> paging.Page:
    """A page of changes that are over, newest first. Raises paging.BadCursor."""
    rows = ChannelChange.objects.filter(organization=organization, closed_at__isnull=False)
    rows = rows.select_related("channel", "asked_by", "approved_by")
    return paging.page(rows, moment="asked_at", number="pk", after=after)
