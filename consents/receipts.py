"""The consent record of a join (ISO/IEC TS 27560 in W3C DPV terms) as JSON-LD, tied to the log; and how a paper is signed.

Pure: rows that were already read become JSON. `signed` puts the portal's signature on it, so that anybody with the
published keys can check the paper without asking the portal.

Fields follow the DPV guide to 27560 (https://w3id.org/dpv/guides/consent-27560). Where an operator stores what it
received is not ours to know: the record says "elsewhere", and the jurisdiction whose licence it holds.
"""

import base64
import datetime
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import rfc8785
from django.conf import settings

from consents.messages import instant
from consents.models import Consent, EndReason, EntryIndex, Subscription
from providers import signing
from providers.models import Organization, Scope

SCHEMA = "ISO/IEC TS 27560:2023"
# Inline, so that a reader needs no network: the few 27560 names DPV has no word for are mapped to general ones.
CONTEXT = {
    "dpv": "https://w3id.org/dpv#",
    "loc": "https://w3id.org/dpv/loc#",
    "dct": "http://purl.org/dc/terms/",
    "schema": "https://schema.org/",
    "sec": "https://w3id.org/security#",
    "schema_version": "schema:schemaVersion",
    "record_id": "dpv:hasIdentifier",
    "receipt_id": "schema:identifier",
    "digest": "schema:sha256",
    "sensitivity": "dpv:hasSensitivityLevel",
    "jws": "sec:jws",
    "tlog": "https://c2sp.org/tlog-proof#",
}
PROFILE = "https://w3id.org/dpv/schema/dpv-27560#record"
LAW = {
    "ko": "신용정보의 이용 및 보호에 관한 법률 제33조의2",
    "en": "Credit Information Use and Protection Act (Korea), Article 33-2",
}
_PERSONS_OWN = {EndReason.PERSON_LEFT, EndReason.PERSON_WITHDREW, EndReason.ACCOUNT_CLOSED}


# --- receipt -----------------------------------------------------------------------------------------------------------


def receipt(
    subscription: Subscription,
    consents: Iterable[Consent],
    *,
    scopes: Mapping[uuid.UUID, list[Scope]],
    version: int | None,
    joined: tuple[EntryIndex, bytes] | None,
    merge_delay: int,
) -> dict[str, Any]:
    """The consent record of a subscription as JSON-LD, in the language that was agreed in.

    `scopes` are the plain-word rows by consent id, `version` the number of the terms (None where an operator only
    reported the subscription), `joined` the log's entry of the join and its leaf hash, `merge_delay` the seconds within
    which it was promised to stand in the log. Fields: ISO/IEC TS 27560:2023; words: W3C DPV 2."""
    language, consents = subscription.language, list(consents)
    receipt_id = uuid.uuid5(subscription.pk, f"receipt {subscription.version}")
    return {
        "@context": CONTEXT,
        "@id": f"urn:uuid:{receipt_id}",
        "@type": "dpv:ConsentRecord",
        "dct:conformsTo": PROFILE,
        "schema_version": SCHEMA,
        "record_id": f"urn:uuid:{subscription.pk}",
        "receipt_id": f"urn:uuid:{receipt_id}",
        "dct:identifier": str(subscription.pk),
        "dct:issued": instant(subscription.joined_at),
        "dct:publisher": settings.PORTAL_URL,
        "dct:language": language,
        "dpv:hasDataSubject": {
            "@type": "dpv:DataSubject",
            "@id": f"urn:uuid:{subscription.person.subject_id}",
        },
        "dpv:hasNotice": {
            "@type": "dpv:ConsentNotice",
            "@id": f"{settings.PORTAL_URL}/me/subscriptions/{subscription.pk}/terms/",
            "dct:title": _in(subscription.service, "name", language),
            "dct:identifier": subscription.service.client_id,
            "dct:hasVersion": version,
            "dct:language": language,
            "digest": subscription.text_digest,
        },
        "dpv:hasDataController": _organization(subscription.operator, "dpv:DataController", language),
        "dpv:hasJurisdiction": "loc:KR",
        "dpv:hasApplicableLaw": LAW[language],
        "dpv:hasEntity": _entities(subscription, consents, language),
        "dpv:hasConsentControl": _control(subscription, "dpv:WithdrawConsent", "end"),
        "dpv:hasRight": _control(subscription, "dpv:DataSubjectRight", "erase"),
        "dpv:hasProcess": [
            _process(subscription, consent, scopes.get(consent.pk, []), language) for consent in consents
        ],
        "dpv:hasConsentStatus": _status(subscription, subscription.joined_at),
        "tlog:entry": _place(joined, merge_delay=merge_delay),
    }


def _place(joined: tuple[EntryIndex, bytes] | None, *, merge_delay: int) -> dict[str, Any] | None:
    """Where the log says that this was agreed. None for what an operator reported about the time before the log."""
    if joined is None:
        return None
    entry, leaf = joined
    return {
        "@id": f"urn:uuid:{entry.event_id}",
        "dct:type": entry.typ,
        "tlog:origin": settings.LEDGER_ORIGIN,
        "tlog:leafHash": base64.b64encode(leaf).decode("ascii"),
        "tlog:mergeDelay": merge_delay,
    }


def _control(subscription: Subscription, kind: str, page: str) -> dict[str, str]:
    return {
        "@type": kind,
        "dpv:isExercisedAt": f"{settings.PORTAL_URL}/me/subscriptions/{subscription.pk}/{page}/",
    }


def _entities(subscription: Subscription, consents: list[Consent], language: str) -> list[dict[str, Any]]:
    """Every organization in it once, with how it is reached, where the register knows."""
    roles: dict[str, tuple[Organization, list[str]]] = {}

    def add(organization: Organization | None, role: str) -> None:
        if organization is not None:
            known = roles.setdefault(organization.code, (organization, []))[1]
            known.extend([] if role in known else [role])

    add(subscription.operator, "dpv:DataController")
    for consent in consents:
        add(consent.source, "dpv:DataSource")
        add(consent.recipient, "dpv:ThirdParty")
    return [
        {
            "@id": f"{settings.PORTAL_URL}/operators/{organization.code}/",
            "@type": ["dpv:Organisation", *types],
            "dpv:hasIdentifier": organization.code,
            "dpv:hasName": _in(organization, "name", language),
            "schema:contactPoint": {
                "@type": "schema:ContactPoint",
                "schema:email": organization.duty_contact or None,
            },
        }
        for organization, types in roles.values()
    ]


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
        "dpv:hasStorageCondition": [
            {
                "@type": "dpv:StorageDuration",
                "dct:description": _in(consent, "retention", language),
                "schema:endDate": consent.retained_until.isoformat() if consent.retained_until else None,
            },
            {"@type": "dpv:StorageLocation", "dpv:hasLocation": "dpv:RemoteLocation"},
        ],
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
    events: list[dict[str, Any]] = [
        {
            "@type": "dpv:ConsentGiven",
            "dpv:isIndicatedAtTime": instant(given_at),
            "dpv:isIndicatedBy": "dpv:DataSubject",
            "dpv:hasDuration": {
                "@type": "dpv:UntilTimeDuration",
                "schema:endDate": row.until_on.isoformat(),
            },
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


# --- signature -------------------------------------------------------------------------------------------------


def digest(paper: Mapping[str, Any]) -> str:
    """`sha256:` of the canonical JSON (RFC 8785): the same as long as nothing in the paper changes."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps(dict(paper))).hexdigest()


def signed(paper: Mapping[str, Any], *, subject: uuid.UUID, at: datetime.datetime) -> str:
    """The record inside a compact JWS (claim `receipt`)."""
    return signing.sign_receipt(claims(paper, subject=subject, name="receipt", at=at))


def claims(
    paper: Mapping[str, Any], *, subject: uuid.UUID, name: str, at: datetime.datetime
) -> dict[str, Any]:
    """What is signed: the paper as claim `name`, with issuer, subject, and the moment of issue."""
    return {
        "iss": settings.PORTAL_URL,
        "sub": str(subject),
        "iat": int(at.timestamp()),
        "jti": str(uuid.uuid5(subject, digest(paper))),
        name: dict(paper),
    }


def keys_address() -> str:
    """Where the public keys are that a paper is checked with."""
    return f"{settings.PORTAL_URL}/.well-known/jwks.json"


def _organization(organization: Organization, kind: str, language: str) -> dict[str, str]:
    return {
        "@type": kind,
        "dct:identifier": organization.code,
        "schema:name": _in(organization, "name", language),
    }


def _in(thing, name: str, language: str) -> str:
    return getattr(thing, f"{name}_{language}") or getattr(thing, f"{name}_ko")
