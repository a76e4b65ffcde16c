"""WRITES the log's entries about organizations: terms published and retired, licences decided, channels opened.

`providers.registry` changes the rows and knows no log; these functions put both into one transaction.
"""

import datetime
from collections.abc import Iterable

from django.db import transaction

from consents import ledger
from consents.actors import Actor
from consents.ledger import Fact
from providers import registry
from providers.models import Channel, Licence, Terms


def publish(terms: Terms, *, by: Actor, at: datetime.datetime) -> Terms:
    """Publish a draft; the version before is retired. Raises what registry.publish_terms raises."""
    with transaction.atomic():
        before = Terms.objects.filter(service=terms.service, state=Terms.State.PUBLISHED).first()
        terms = registry.publish_terms(terms=terms, by=by, at=at)
        note_terms([terms], by=by, at=at, retired=[before] if before else [])
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


def note_channels(opened: Iterable[Channel], *, by: Actor, at: datetime.datetime) -> None:
    """Log channels that were just opened."""
    ledger.append([_of_channel(channel) for channel in opened], by=by, at=at)


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


def _of_channel(channel: Channel) -> Fact:
    organization = channel.organization
    return Fact(
        "channel.opened",
        operator=organization if organization.is_operator else None,
        party=organization,
        fields={"opr": organization.code, "after": channel.protocol},
    )
