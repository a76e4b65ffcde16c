"""WRITES changes of how an organization is reached: asked by one admin, approved by another, proved by the new address,
told to the old contact, and live a notice period later. Until then the old channel receives everything.

`go_live` is the one way by which an organization's channel opens outside of seeds, and it asks for a valid badge of the
gym where the protocol has trials. Who could change where stops are sent could make them vanish: hence two people, a fresh
sign-in (asked for by the doors) and the notice.
"""

import asyncio
import datetime
import secrets
import threading
from collections.abc import Callable, Mapping

import structlog
from django.db import connection, transaction

from consents import gym, messages, propagation, publishing, routes, trials
from consents.actors import Actor
from consents.ledger.entries import SEOUL
from consents.models import ChannelChange, Person
from providers import outbound, policy, registry, signing
from providers.models import Channel, Organization
from providers.wires import SENT

log = structlog.get_logger(__name__)

State = ChannelChange.State
UNCALLED = (Channel.Protocol.DESK, Channel.Protocol.POLL)  # we call nobody
LASTS = datetime.timedelta(days=14)  # then a change that went nowhere is dropped
AT_ONCE = 20
PROVING = 7306  # advisory lock


class ChangePending(ValueError):
    """Another change of this organization is under way: finish or withdraw it first."""


class BadAddress(ValueError):
    """The address is missing, not wanted, or one that outbound refuses; says why."""


class NotNow(ValueError):
    """The change is not in the state for this: somebody was faster, or it is over."""


class SamePerson(ValueError):
    """Whoever asked for a change cannot approve it."""


class NoBadge(ValueError):
    """The channel has no valid badge of the gym for its address and protocol."""


# --- asking, approving, withdrawing --------------------------------------------------------------------------------------


@transaction.atomic
def ask(
    organization: Organization,
    *,
    protocol: str,
    address: str = "",
    details: Mapping[str, str] | None = None,
    credential: str = "",
    member: Person,
    by: Actor,
    at: datetime.datetime,
) -> tuple[ChannelChange, str]:
    """Ask for another channel. Answers the change, and the new signing secret (`whsec_…`, told this once; empty where the
    protocol has none). Raises BadAddress, ChangePending."""
    _judge(protocol, address)
    Organization.objects.select_for_update().get(pk=organization.pk)
    if organization.channel_changes.filter(closed_at__isnull=True).exists():
        raise ChangePending(organization.code)
    secret = signing.new_webhook_secret() if protocol == Channel.Protocol.NATIVE else ""
    channel = registry.prepare_channel(
        organization=organization, protocol=protocol, address=address, details=details, credential=credential,
        secret=secret or None, by=by, at=at,
    )  # fmt: skip
    change = ChannelChange.objects.create(
        organization=organization, channel=channel, asked_by=member, asked_at=at
    )
    return change, secret


def _judge(protocol: str, address: str) -> None:
    if protocol in UNCALLED:
        if address:
            raise BadAddress("this protocol has no address")
        return
    try:
        outbound.check_address(address)
    except outbound.Refused as refusal:
        raise BadAddress(str(refusal)) from refusal


@transaction.atomic
def approve(change: ChannelChange, *, member: Person, by: Actor, at: datetime.datetime) -> ChannelChange:
    """The second pair of eyes. Raises SamePerson, NotNow."""
    change = _locked(change)
    if change.state != State.ASKED:
        raise NotNow(change.state)
    if change.asked_by_id == member.pk:
        raise SamePerson
    change.state, change.approved_by, change.approved_at = State.APPROVED, member, at
    change.save(update_fields=["state", "approved_by", "approved_at"])
    return change


@transaction.atomic
def withdraw(change: ChannelChange, *, by: Actor, at: datetime.datetime) -> ChannelChange:
    """Give a change up, in whatever state before it is live: the old channel stays as it was. Raises NotNow."""
    change = _locked(change)
    if change.closed_at is not None:
        raise NotNow(change.state)
    change.state, change.closed_at = State.DROPPED, at
    change.save(update_fields=["state", "closed_at"])
    registry.retire_channel(channel=change.channel, by=by, at=at)
    return change


def _locked(change: ChannelChange) -> ChannelChange:
    rows = ChannelChange.objects.select_for_update(of=("self",)).select_related("channel__organization")
    return rows.get(pk=change.pk)


# --- what the clock does -------------------------------------------------------------------------------------------------


def prove_due(*, now: Callable[[], datetime.datetime]) -> int:
    """Send the verification event to the new address of every approved change that may be used; returns how many answered.

    One process at a time, so that nobody is asked twice in the same moment."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [PROVING])
        if not cursor.fetchone()[0]:
            return 0
        try:
            return sum(_prove(change, now=now) for change in _approved())
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [PROVING])


def _approved() -> list[ChannelChange]:
    rows = ChannelChange.objects.filter(state=State.APPROVED).select_related("channel__organization")
    return list(rows.prefetch_related("channel__keys").order_by("approved_at", "pk")[:AT_ONCE])


def _prove(change: ChannelChange, *, now: Callable[[], datetime.datetime]) -> bool:
    if not is_tried(change.channel, at=now()):
        return False
    try:
        if not _answers(change.channel, at=now()):
            return False
    except Exception:  # one organization's fault keeps nobody else waiting
        log.exception("a new address could not be verified", organization=change.organization_id)
        return False
    proved = ChannelChange.objects.filter(pk=change.pk, state=State.APPROVED)
    return bool(proved.update(state=State.PROVED, proved_at=now()))


def _answers(channel: Channel, *, at: datetime.datetime) -> bool:
    """Whether the address repeats a random state. What has no challenge in its protocol was answered for in the gym."""
    if channel.protocol not in routes.WIRES:
        return channel.protocol in UNCALLED
    route = routes.route(channel)
    if not route.can("challenge"):
        return True
    verdicts: list[str] = []

    async def challenge() -> None:
        async with outbound.open_session() as session:
            outcome = await route.wire.challenge(
                session, jti=str(messages.new_id()), state=secrets.token_urlsafe(32), endpoint=route.endpoint,
                now=int(at.timestamp()),
            )  # fmt: skip
            verdicts.append(outcome.verdict)

    thread = threading.Thread(target=lambda: asyncio.run(challenge()), name="challenge")
    thread.start()
    thread.join()
    return verdicts == [SENT]


def untold() -> list[ChannelChange]:
    """Proved changes whose notice has not gone out."""
    rows = ChannelChange.objects.filter(state=State.PROVED, live_from__isnull=True)
    return list(rows.select_related("channel", "organization").order_by("proved_at", "pk")[:AT_ONCE])


def note_told(change: ChannelChange, *, by: Actor, at: datetime.datetime) -> bool:
    """The notice is out: from now on CHANNEL_NOTICE_HOURS must pass. False: that was noted before."""
    hours = policy.number("CHANNEL_NOTICE_HOURS", on=at.astimezone(SEOUL).date())
    told = ChannelChange.objects.filter(pk=change.pk, state=State.PROVED, live_from__isnull=True)
    return bool(told.update(live_from=at + datetime.timedelta(hours=hours)))


def go_live_due(*, by: Actor, at: datetime.datetime) -> dict[str, int]:
    """Open what has waited long enough and drop what went nowhere; `live` and `dropped` say how many. Safe twice at once."""
    due = ChannelChange.objects.filter(state=State.PROVED, live_from__lte=at).order_by("live_from", "pk")
    live = sum(_try_live(change, by=by, at=at) for change in due[:AT_ONCE])
    old = ChannelChange.objects.filter(closed_at__isnull=True, asked_at__lte=at - LASTS).order_by("asked_at")
    dropped = 0
    for change in old[:AT_ONCE]:
        try:
            withdraw(change, by=by, at=at)
            dropped += 1
        except NotNow:
            continue
    return {"live": live, "dropped": dropped}


def _try_live(change: ChannelChange, *, by: Actor, at: datetime.datetime) -> bool:
    try:
        return go_live(change, by=by, at=at)
    except (NoBadge, BadAddress, registry.ChannelRetired) as problem:
        log.warning(
            "a channel cannot go live",
            organization=str(change.organization_id),
            reason=type(problem).__name__,
        )
        return False


@transaction.atomic
def go_live(change: ChannelChange, *, by: Actor, at: datetime.datetime) -> bool:
    """Retire the old channel and open the new one, with their entries in the log. False: it is not its time, or done.

    Raises NoBadge, BadAddress."""
    change = _locked(change)
    if change.state != State.PROVED or change.live_from is None or change.live_from > at:
        return False
    _judge(change.channel.protocol, change.channel.address)
    if not is_tried(change.channel, at=at):
        raise NoBadge(str(change.channel_id))
    opened, before = registry.open_prepared(channel=change.channel, by=by, at=at)
    publishing.note_channels([opened], retired=[before] if before else [], by=by, at=at)
    change.state, change.closed_at = State.LIVE, at
    change.save(update_fields=["state", "closed_at"])
    propagation.reroute(change.organization, by=by, at=at)
    return True


def is_tried(channel: Channel, *, at: datetime.datetime) -> bool:
    """Whether a channel may be used as far as the gym goes: a valid badge, or a protocol that calls nobody."""
    if channel.protocol in UNCALLED:
        return True
    return bool(trials.names(channel.protocol)) and gym.badge(channel, at=at) is not None
