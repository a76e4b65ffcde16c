"""Papers a person can keep: the receipt of a join (ISO/IEC TS 27560 in W3C DPV terms) and the certificate of an end.

Builders are pure: they turn rows that were already read into JSON. `signed` puts the portal's signature on it, so that
anybody with the published keys can check the paper without asking the portal.
"""

import base64
import datetime
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import rfc8785
import segno
from django.conf import settings

from consents.messages import instant
from consents.models import Consent, Delivery, EndReason, EntryIndex, Evidence, Subscription
from providers import signing
from providers.models import Organization, Scope

SCHEMA = "ISO/IEC TS 27560:2023"
# Inline, so that a reader needs no network: the few 27560 names DPV has no word for are mapped to general ones.
CONTEXT = {
    "dpv": "https://w3id.org/dpv#",
    "dct": "http://purl.org/dc/terms/",
    "schema": "https://schema.org/",
    "sec": "https://w3id.org/security#",
    "schema_version": "schema:schemaVersion",
    "record_id": "dpv:hasIdentifier",
    "receipt_id": "schema:identifier",
    "digest": "schema:sha256",
    "sensitivity": "dpv:hasSensitivityLevel",
    "jws": "sec:jws",
}
_PERSONS_OWN = {EndReason.PERSON_LEFT, EndReason.PERSON_WITHDREW, EndReason.ACCOUNT_CLOSED}


# --- receipt -----------------------------------------------------------------------------------------------------------


def receipt(
    subscription: Subscription,
    consents: Iterable[Consent],
    *,
    scopes: Mapping[uuid.UUID, list[Scope]],
    version: int | None,
) -> dict[str, Any]:
    """The consent record of a subscription as JSON-LD, in the language that was agreed in.

    `scopes` are the plain-word rows by consent id, `version` the number of the terms (None where an operator only
    reported the subscription). Fields: ISO/IEC TS 27560:2023; words: W3C DPV 2."""
    language = subscription.language
    receipt_id = uuid.uuid5(subscription.pk, f"receipt {subscription.version}")
    return {
        "@context": CONTEXT,
        "@id": f"urn:uuid:{receipt_id}",
        "@type": "dpv:ConsentRecord",
        "dct:conformsTo": "https://w3id.org/dpv/guides/consent-27560",
        "schema_version": SCHEMA,
        "record_id": f"urn:uuid:{subscription.pk}",
        "receipt_id": f"urn:uuid:{receipt_id}",
        "dct:issued": instant(subscription.joined_at),
        "dct:language": language,
        "dpv:hasDataSubject": {
            "@type": "dpv:DataSubject",
            "@id": f"urn:uuid:{subscription.person.subject_id}",
        },
        "dpv:hasNotice": {
            "@type": "dpv:ConsentNotice",
            "dct:title": _in(subscription.service, "name", language),
            "dct:identifier": subscription.service.client_id,
            "dct:hasVersion": version,
            "dct:language": language,
            "digest": subscription.text_digest,
        },
        "dpv:hasDataController": _organization(subscription.operator, "dpv:DataController", language),
        "dpv:hasProcess": [
            _process(subscription, consent, scopes.get(consent.pk, []), language) for consent in consents
        ],
        "dpv:hasConsentStatus": _status(subscription, subscription.joined_at),
    }


def _process(
    subscription: Subscription, consent: Consent, scopes: list[Scope], language: str
) -> dict[str, Any]:
    recipient = consent.recipient or subscription.operator
    process: dict[str, Any] = {
        "@id": f"urn:uuid:{consent.pk}",
        "@type": "dpv:Process",
        "dct:type": consent.kind,
        "dpv:hasPurpose": {"@type": "dpv:Purpose", "dct:description": _in(consent, "purpose", language)},
        "dpv:hasPersonalData": [
            {
                "@type": "dpv:PersonalData",
                "dct:title": _in(scope, "name", language),
                "sensitivity": scope.sensitivity,
            }
            for scope in scopes
        ],
        "schema:scope": consent.scopes,
        "schema:additionalProperty": consent.riders,
        "dpv:hasDataController": _organization(subscription.operator, "dpv:DataController", language),
        "dpv:hasRecipient": _organization(recipient, "dpv:Recipient", language),
        "dpv:hasFrequency": consent.cycle or "on-open",
        "dpv:hasDuration": {"@type": "dpv:UntilTimeDuration", "schema:endDate": consent.until_on.isoformat()},
        "dpv:hasStorageCondition": {
            "@type": "dpv:StorageDuration",
            "dct:description": _in(consent, "retention", language),
            "schema:endDate": consent.retained_until.isoformat() if consent.retained_until else None,
        },
        "dpv:hasNecessity": "dpv:Required" if consent.required else "dpv:Optional",
        "schema:isPaid": consent.paid,
        "dpv:hasLegalBasis": "dpv:ExplicitlyExpressedConsent",
        "dpv:hasConsentStatus": _status(consent, consent.granted_at),
    }
    if consent.source:
        process["dpv:hasDataSource"] = _organization(consent.source, "dpv:DataSource", language)
    return process


def _status(row: Subscription | Consent, given_at: datetime.datetime) -> list[dict[str, Any]]:
    """Given, and what became of it. Withdrawn is the person's own act, revoked somebody else's, expired the calendar's."""
    events = [
        {
            "@type": "dpv:ConsentGiven",
            "dpv:isIndicatedAtTime": instant(given_at),
            "dpv:isIndicatedBy": "dpv:DataSubject",
        }
    ]
    if row.ended_at:
        kind = (
            "dpv:ConsentExpired" if row.end_reason == EndReason.EXPIRED
            else "dpv:ConsentWithdrawn" if row.end_reason in _PERSONS_OWN
            else "dpv:ConsentRevoked"
        )  # fmt: skip
        events.append(
            {"@type": kind, "dpv:isIndicatedAtTime": instant(row.ended_at), "dct:description": row.end_reason}
        )
    return events


# --- certificate of an end -----------------------------------------------------------------------------------------------


def certificate(
    subscription: Subscription,
    told: Iterable[tuple[Delivery, list[Evidence]]],
    entries: Iterable[tuple[EntryIndex, bytes]],
) -> dict[str, Any]:
    """What can be shown about the end of a subscription: who was told, who answered, what is still open.

    `told` pairs each stop with what its party stated; `entries` the ledger entries of these acts with their leaf hashes."""
    parties = [_told(delivery, statements) for delivery, statements in told]
    return {
        "type": "certificate-of-ending",
        "subject": str(subscription.person.subject_id),
        "subscription": str(subscription.pk),
        "service": {"id": subscription.service.client_id, **_names(subscription.service)},
        "operator": {"id": subscription.operator.code, **_names(subscription.operator)},
        "joined_at": instant(subscription.joined_at),
        "ended_at": _instant(subscription.ended_at),
        "reason": subscription.end_reason,
        "erasure": {
            "state": subscription.erasure,
            "requested_at": _instant(subscription.erasure_requested_at),
            "confirmed_at": _instant(subscription.erasure_confirmed_at),
            "refusal": subscription.erasure_refusal,
        },
        "parties": parties,
        "open": sum(party["closed_at"] is None for party in parties),
        "log": {
            "origin": settings.LEDGER_ORIGIN,
            "entries": [
                {"id": str(entry.event_id), "typ": entry.typ, "leaf": base64.b64encode(leaf).decode()}
                for entry, leaf in entries
            ],
        },
    }


def _told(delivery: Delivery, statements: list[Evidence]) -> dict[str, Any]:
    steps = ("created", "sent", "received", "stopped", "erased", "refused", "due", "closed")
    return {
        "id": delivery.organization.code,
        **_names(delivery.organization),
        "role": delivery.role,
        "event": delivery.event,
        "goal": delivery.goal,
        "state": delivery.state,
        "jti": str(delivery.jti),
        "txn": str(delivery.txn),
        **{f"{step}_at": _instant(getattr(delivery, f"{step}_at")) for step in steps},
        "refusal": delivery.refusal,
        "statements": [
            {
                "status": statement.status,
                "means": statement.means,
                "digest": statement.digest,
                "stated_at": instant(statement.stated_at),
                "received_at": instant(statement.received_at),
            }
            for statement in statements
        ],
    }


def digest(paper: Mapping[str, Any]) -> str:
    """`sha256:` of the canonical JSON (RFC 8785): the same as long as nothing in the paper changes."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps(dict(paper))).hexdigest()


# --- signature and picture -------------------------------------------------------------------------------------------------


def signed(paper: Mapping[str, Any], *, subject: uuid.UUID, name: str, at: datetime.datetime) -> str:
    """The paper inside a compact JWS (claim `name`), with issuer, subject, and the moment of issue."""
    claims = {"iss": settings.PORTAL_URL, "sub": str(subject), "iat": int(at.timestamp()), name: dict(paper)}
    return signing.sign_receipt(claims | {"jti": str(uuid.uuid5(subject, digest(paper)))})


def signed_digest(paper: Mapping[str, Any], *, at: datetime.datetime) -> str:
    """A JWS small enough for a QR code: the digest of a certificate, and its outcome."""
    claims = {
        "iss": settings.PORTAL_URL,
        "iat": int(at.timestamp()),
        "type": paper["type"],
        "subscription": paper["subscription"],
        "ended_at": paper["ended_at"],
        "erasure": paper["erasure"]["state"],
        "open": paper["open"],
        "digest": digest(paper),
    }
    return signing.sign_receipt(claims)


def keys_address() -> str:
    """Where the public keys are that a paper is checked with."""
    return f"{settings.PORTAL_URL}/.well-known/jwks.json"


def qr_svg(content: str) -> str:
    """An inline SVG without style attributes, as the content security policy wants it."""
    code = segno.make_qr(content, error="l")
    return code.svg_inline(svgclass="qr", lineclass=None, omitsize=True, border=4, light="#fff")


def _organization(organization: Organization, kind: str, language: str) -> dict[str, str]:
    return {
        "@type": kind,
        "dct:identifier": organization.code,
        "schema:name": _in(organization, "name", language),
    }


def _names(thing) -> dict[str, str]:
    return {"name_ko": thing.name_ko, "name_en": thing.name_en}


def _in(thing, name: str, language: str) -> str:
    return getattr(thing, f"{name}_{language}") or getattr(thing, f"{name}_ko")


def _instant(moment: datetime.datetime | None) -> str | None:
    return instant(moment) if moment else None
