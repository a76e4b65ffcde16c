"""WRITES the log's entries about organizations: terms published and retired, licences decided, channels opened,
rotated and retired.

`providers.registry` changes the rows and knows no log; these functions put both into one transaction.
"""

import datetime
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import rfc8785
from django.db import transaction

from consents import ledger
from consents.actors import Actor
from consents.ledger import Fact
from providers import offers, registry, signing
from providers.models import Channel, ChannelKey, Licence, Service, Terms


def publish(terms: Terms, *, by: Actor, at: datetime.datetime) -> Terms:
    """Publish a draft; the version before is retired. Raises what registry.publish_terms raises."""
    with transaction.atomic():
        before = Terms.objects.filter(service=terms.service, state=Terms.State.PUBLISHED).first()
        terms = registry.publish_terms(terms=terms, by=by, at=at)
        note_terms([terms], by=by, at=at, retired=[before] if before else [])
    return terms


def publish_version(
    service: Service,
    *,
    given: Mapping[str, Any],
    items: Iterable[Mapping[str, Any]],
    by: Actor,
    at: datetime.datetime,
) -> Terms:
    """The next version of a service's terms, published at once; with its first the service opens. All of it or nothing.

    Raises offers.UnknownPart, offers.NotFirst and what registry.publish_terms raises."""
    with transaction.atomic():
        terms = publish(offers.draft(service, given=given, items=items, by=by, at=at), by=by, at=at)
        offers.open_service(service, by=by, at=at)
    return terms


def note_terms(
    published: Iterable[Terms], *, by: Actor, at: datetime.datetime, retired: Iterable[Terms] = ()
) -> None:
    """Log versions that were just published or retired."""
    facts = [_of_terms("terms.published", terms) for terms in published]
    facts += [_of_terms("terms.retired", terms) for terms in retired]
    ledger.append(facts, by=by, at=at)


def note_licences(decisions: Iterable[Licence], *, by: Actor, at: datetime.datetime) -> None:
    """Log decisions that were just recorded."""
    ledger.append([_of_licence(decision) for decision in decisions], by=by, at=at)


def note_channels(
    opened: Iterable[Channel], *, by: Actor, at: datetime.datetime, retired: Iterable[Channel] = ()
) -> None:
    """Log channels that were just opened, after those that were retired for them."""
    facts = [_of_channel("channel.retired", channel) for channel in retired]
    facts += [_of_channel("channel.opened", channel) for channel in opened]
    ledger.append(facts, by=by, at=at)


class KeyChanged(ValueError):
    """The key to be replaced is not the one in use any more."""


def rotate(channel: Channel, *, kid: str, by: Actor, at: datetime.datetime) -> str:
    """Give a channel a new signing secret instead of the one named `kid`, and log that; the secret (`whsec_…`) is told
    this once. Raises KeyChanged, registry.ChannelRetired."""
    secret = signing.new_webhook_secret()
    with transaction.atomic():
        Channel.objects.select_for_update().get(pk=channel.pk)
        used = channel.keys.filter(kind=ChannelKey.Kind.HMAC, retired_at__isnull=True)
        if not kid or kid not in used.values_list("kid", flat=True):
            raise KeyChanged(kid)
        key = registry.rotate_key(channel=channel, secret=secret, by=by, at=at)
        ledger.append([_of_channel("channel.rotated", channel, after=key.kid)], by=by, at=at)
    return secret


def _of_terms(typ: str, terms: Terms) -> Fact:
    organization = terms.service.organization
    return Fact(
        typ,
        operator=organization,
        party=organization,
        fields={
            "opr": organization.code,
            "svc": terms.service.client_id,
            "trm": f"{terms.version}",
            "dig": [terms.digest_ko, terms.digest_en],
            "after": terms.change_kind,
        },
    )


def _of_licence(decision: Licence) -> Fact:
    organization = decision.organization
    return Fact(
        "licence.decided",
        operator=organization,
        party=organization,
        reason=decision.status,
        fields={
            "opr": organization.code,
            "after": decision.status,
            "before": decision.effective_on,
            "who": decision.source,
        },
    )


def _of_channel(typ: str, channel: Channel, *, after: str = "") -> Fact:
    """Protocol and the digest of protocol, address and settings: what was used can be shown later, and is not in clear."""
    organization = channel.organization
    used = rfc8785.dumps([channel.protocol, channel.address, channel.details])
    return Fact(
        typ,
        operator=organization if organization.is_operator else None,
        party=organization,
        fields={
            "opr": organization.code,
            "after": after or channel.protocol,
            "dig": f"sha256:{hashlib.sha256(used).hexdigest()}",
        },
    )
