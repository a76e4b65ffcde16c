"""WRITES what the other side calls a person's consents: kept sealed, found by a keyed digest, opened only to be sent.

Some of these open doors (a token), some name a person (a CI): neither stands in clear in a row, a log line or an entry.
"""

import datetime
import hashlib
import hmac
import uuid
from collections import defaultdict
from collections.abc import Iterable

import structlog
from django.db import transaction
from django.db.models import Q, Value
from django.db.models.functions import Greatest

from consents import reports
from consents.actors import Actor
from consents.models import Claimed, Consent, Delivery, Identity, Person, Reference, Subscription
from providers import vault, wires
from providers.models import Organization
from providers.wires import asking, korea, revocation

# What the wires end things by, and who somebody is in Korea.
KINDS = ("arrangement", "consent", "grant", *revocation.HINTS, korea.PROVISION, korea.REQUEST, "ci")
LONGEST = asking.LONGEST_NAME

log = structlog.get_logger(__name__)


class Taken(Exception):
    """The name is another thing's already, or the CI another person's."""


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
    """Keep the name `organization` gives to a subscription, a consent, or (with neither) the person. Twice is once; what waited
    for a name is tried now. Raises Taken."""
    digest = digest_of(kind, identifier)
    subscription_id = consent.subscription_id if consent else subscription.pk if subscription else None
    about = {
        "person_id": person.pk,
        "subscription_id": subscription_id,
        "consent_id": consent.pk if consent else None,
    }
    if kind == "ci" and _is_somebody_else(person, identifier):
        raise Taken(kind)
    with transaction.atomic():
        reference, new = Reference.objects.get_or_create(
            organization=organization,
            kind=kind,
            digest=digest,
            defaults={
                **about,
                "sealed": vault.seal(identifier.encode(), aad=_place(organization.pk, kind, digest)),
                "created_at": at,
            },
        )
        if any(getattr(reference, name) != value for name, value in about.items()):
            raise Taken(kind)
        if new:
            _try_now(reference, at=at)
    return reference


def _is_somebody_else(person: Person, ci: str) -> bool:
    known = Identity.objects.filter(person=person).first()
    return known is not None and known.digest != reports.person_digest(ci)


def _try_now(reference: Reference, *, at: datetime.datetime) -> None:
    """What could not be sent to this organization about this person, given up or not; nobody is working on it just now."""
    waiting = Delivery.objects.filter(
        organization=reference.organization, person=reference.person, state__in=["dead", "retrying"],
        closed_at__isnull=True, lease__isnull=True,
    )  # fmt: skip
    if reference.subscription_id:
        waiting = waiting.filter(subscription=reference.subscription_id)
    ids = list(waiting.exclude(next_at__lte=at).values_list("pk", flat=True))
    Delivery.objects.filter(pk__in=ids, state__in=["dead", "retrying"]).update(
        next_at=Greatest(Value(at), "not_before")
    )


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
    return {row.pk: _all_opened(row, found[row.organization_id, row.person_id]) for row in rows}


def _all_opened(row: Delivery | Claimed, known: list[Reference]) -> tuple[wires.Reference, ...]:
    """All or none: where one cannot be opened, people must look at this message, and the others' go on."""
    try:
        return tuple(
            _opened(reference)
            for reference in known
            if reference.subscription_id in (None, row.subscription_id)
            and (row.consent_id is None or reference.consent_id in (None, row.consent_id))
        )
    except vault.BadSeal:
        log.exception("a reference cannot be opened", jti=str(row.jti))
        return ()


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
