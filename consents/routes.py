"""How organizations are reached: their open channel as an endpoint, a delivery as a message, the wire of a protocol."""

import functools
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from django.db.models import prefetch_related_objects

from consents import references
from consents.models import Claimed, Delivery, Reissue
from providers import registry, wires
from providers.models import Channel, ChannelKey
from providers.wires import cdr, grants, korea, native, push, revocation, uk

# Protocols whose messages we carry. Poll is carried by the other side, the desk by people.
WIRES: dict[str, ModuleType] = {
    Channel.Protocol.NATIVE: native,
    Channel.Protocol.PUSH: push,
    Channel.Protocol.KOREA: korea,
    Channel.Protocol.REVOCATION: revocation,
    Channel.Protocol.GRANTS: grants,
    Channel.Protocol.CDR: cdr,
    Channel.Protocol.UK: uk,
}


@dataclass(frozen=True)
class Route:
    """An open channel, where it leads, and the wire it speaks."""

    channel: Channel
    wire: ModuleType

    @functools.cached_property
    def endpoint(self) -> wires.Endpoint:
        """Made by the first who sends there: what cannot be opened any more (a secret) fails that try, and nobody else's."""
        return endpoint(self.channel)

    def carries(self, event: str) -> bool:
        """Whether the protocol has a word for such an event. Of others its people are told, in their inbox."""
        return event in getattr(self.wire, "CARRIES", {event})

    @functools.cached_property
    def together(self) -> int:
        """How many messages one request may carry there."""
        return together(self.channel.protocol, self.channel.details)

    def can(self, verb: str) -> bool:
        """Whether the protocol has `read_back`, `list_remote`, `challenge` …"""
        return hasattr(self.wire, verb)


def routes(organizations: Iterable[uuid.UUID]) -> dict[uuid.UUID, Route]:
    """The route to each organization that has one: two queries. Who is reached by poll or by hand has none."""
    channels = Channel.objects.filter(
        organization__in=set(organizations), state=Channel.State.OPEN, protocol__in=WIRES
    ).prefetch_related("keys")
    return {channel.organization_id: route(channel) for channel in channels}


class Lately:
    """Routes as they were a moment ago: one run writes to the same organizations again and again, and looking up and opening
    their secrets each time cost a third of it. A channel that is changed is followed within `SECONDS`."""

    SECONDS = 1.0

    def __init__(self) -> None:
        self._known: dict[uuid.UUID, Route | None] = {}
        self._since = time.monotonic()

    def routes(self, organizations: Iterable[uuid.UUID]) -> dict[uuid.UUID, Route]:
        now = time.monotonic()
        if now - self._since > self.SECONDS:
            self._known, self._since = {}, now
        wanted = set(organizations)
        if unknown := wanted - self._known.keys():
            self._known |= dict.fromkeys(unknown) | routes(unknown)
        return {one: known for one in wanted if (known := self._known[one]) is not None}


def together(protocol: str, details: Mapping[str, str]) -> int:
    """How many messages one request of a protocol with these settings may carry."""
    wire = WIRES[protocol]
    try:
        return wire.together(details) if hasattr(wire, "together") else 1
    except ValueError:
        return 1  # a setting that nobody checked must not keep a stop from going out


def route(channel: Channel) -> Route:
    """The route of a channel in whatever state; KeyError for a protocol we do not carry."""
    prefetch_related_objects([channel], "keys")  # the endpoint is made where no database is asked
    return Route(channel, WIRES[channel.protocol])


def endpoint(channel: Channel) -> wires.Endpoint:
    return wires.Endpoint(
        address=channel.address,
        secrets=registry.channel_secrets(channel),
        details=channel.details,
        credential=registry.channel_credential(channel),
        jwks=public_keys(channel),
    )


def public_keys(channel: Channel) -> dict[str, Any]:
    """The JWKS an organization signs with, as it was registered for this channel. Uses prefetched keys."""
    keys = [key for key in channel.keys.all() if key.kind == ChannelKey.Kind.JWK and key.retired_at is None]
    return {"keys": [{**(key.jwk or {}), "kid": key.kid} for key in keys]}


def letters(
    deliveries: Iterable[Delivery | Claimed], reached: Mapping[uuid.UUID, Route] | None = None
) -> dict[int, wires.Message]:
    """Each delivery as the message its wire sends, by primary key: three queries at most. A replay goes out under the id of the
    first, and what was signed anew under its newest id.

    Where the routes are known, nobody's own names are opened for a wire that speaks of ours."""
    rows = list(deliveries)
    known = references.of_deliveries(row for row in rows if not _names_our_ids(row, reached or {}))
    newest = reissued(rows)
    firsts = {row.replay_of_id for row in rows if row.replay_of_id}
    ids = dict(Delivery.objects.filter(pk__in=firsts).values_list("pk", "jti")) if firsts else {}
    found = {}
    for row in rows:
        anew = newest.get(row.replay_of_id or row.pk)
        jti = anew.jti if anew else ids.get(row.replay_of_id or 0, row.jti)
        body = anew.body if anew else row.body
        found[row.pk] = wires.Message(
            jti=str(jti), body=body.encode(), references=known.get(row.pk, ()), handle=row.handle
        )
    return found


def _names_our_ids(row: Delivery | Claimed, reached: Mapping[uuid.UUID, Route]) -> bool:
    route = reached.get(row.organization_id)
    return route is not None and getattr(route.wire, "NAMES_OUR_IDS", False)


def reissued(deliveries: Iterable[Delivery | Claimed]) -> dict[int, Reissue]:
    """The newest signing of each message that was signed anew, by the delivery's primary key: one query."""
    firsts = {row.replay_of_id or row.pk for row in deliveries}
    return {one.delivery_id: one for one in Reissue.objects.filter(delivery__in=firsts).order_by("pk")}
