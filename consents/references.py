"""WRITES what the other side calls a person's consents: kept sealed, found by a keyed digest, opened only to be sent.

Some of these open doors (a token), some name a person (a CI): neither stands in clear in a row, a log line or an entry.
"""

import datetime
import hashlib
import hmac
import uuid
from collections import defaultdict
from collections.abc import Iterable

from django.db.models import Q

from consents.actors import Actor
from consents.models import Claimed, Consent, Delivery, Person, Reference, Subscription
from providers import vault, wires
from providers.models import Organization


def note(
    organization: Organization,
    person: Person,
    *,
    kind: str,
    identifier: str,
    subscription: Subscription | None = None,
    consent: Consent | None = None,
    by: Actor,
    at: datetime.datetime,
) -> Reference:
    """Keep the name `organization` gives to a subscription, a consent, or (with neither) the person. Twice is once."""
    digest = digest_of(kind, identifier)
    reference, _ = Reference.objects.get_or_create(
        organization=organization,
        kind=kind,
        digest=digest,
        defaults={
            "person": person,
            "subscription": subscription or (consent.subscription if consent else None),
            "consent": consent,
            "sealed": vault.seal(identifier.encode(), aad=_place(organization.pk, kind, digest)),
            "created_at": at,
        },
    )
    return reference


def named(organization: Organization, kind: str, identifier: str) -> Reference | None:
    """Which of our rows an organization means by `identifier`; None where we never heard of it."""
    related = ("person", "subscription__service", "subscription__operator", "consent__source")
    return (
        Reference.objects.filter(organization=organization, kind=kind, digest=digest_of(kind, identifier))
        .select_related(*related)
        .first()
    )


def of_deliveries(deliveries: Iterable[Delivery | Claimed]) -> dict[int, tuple[wires.Reference, ...]]:
    """What each delivery needs to be understood over there, opened: one query. Keys are those of the deliveries."""
    rows = list(deliveries)
    found = defaultdict(list)
    asked = Q(
        organization__in={row.organization_id for row in rows}, person__in={row.person_id for row in rows}
    )
    for reference in Reference.objects.filter(asked).order_by("id") if rows else ():
        found[reference.organization_id, reference.person_id].append(reference)
    return {
        row.pk: tuple(
            _opened(reference)
            for reference in found[row.organization_id, row.person_id]
            if reference.subscription_id in (None, row.subscription_id)
            and (row.consent_id is None or reference.consent_id in (None, row.consent_id))
        )
        for row in rows
    }


def digest_of(kind: str, identifier: str) -> str:
    """The keyed digest a reference is found by: of no use without our key, whatever the identifier."""
    key = vault.derived_key("reference")
    return hmac.digest(key, f"{kind}|{identifier}".encode(), hashlib.sha256).hex()


def opened(reference: Reference) -> str:
    """The identifier in clear."""
    place = _place(reference.organization_id, reference.kind, reference.digest)
    return vault.unseal(bytes(reference.sealed), aad=place).decode()


def _opened(reference: Reference) -> wires.Reference:
    consent = str(reference.consent_id or "")
    return wires.Reference(kind=reference.kind, identifier=opened(reference), consent=consent)


def _place(organization: uuid.UUID, kind: str, digest: str) -> bytes:
    return f"reference|{organization}|{kind}|{digest}".encode()
