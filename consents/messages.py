"""What an organization is told: one signed fact (SET, RFC 8417) and the native body around it. Pure but for the signature."""

import base64
import datetime
import json
import uuid
from dataclasses import dataclass

from django.conf import settings

from providers import policy, signing
from providers.ids import uuid7

CONSENT_GRANTED = "consent-granted"
CONSENT_AMENDED = "consent-amended"
CONSENT_PAUSED = "consent-paused"
CONSENT_RESUMED = "consent-resumed"
CONSENT_WITHDRAWN = "consent-withdrawn"
SUBSCRIPTION_ENDED = "subscription-ended"
ERASURE_REQUESTED = "erasure-requested"


@dataclass(frozen=True, slots=True)
class Content:
    body: str
    set_compact: str


def new_id() -> uuid.UUID:
    """A new `txn` or `jti`."""
    return uuid7()


def instant(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def compose(
    duty, *, event: str, subscription, txn, at: datetime.datetime, leaf_hash: bytes, reason: str
) -> Content:
    """The message of one duty. The plain fields are a projection of the SET; `leaf` ties it to the ledger entry."""
    complete_by = at + datetime.timedelta(days=policy.number("ERASED_WITHIN_DAYS", on=at.date()))
    facts = {
        "subscription": str(subscription.pk),
        "subject": str(subscription.person.subject_id),
        "service": subscription.service.client_id,
        "consents": [_consent(consent) for consent in duty.consents],
        "reason": reason,
        "role": duty.role,
        "delete_data": duty.goal == "erased",
        "effective_at": instant(at),
        "complete_by": instant(complete_by),
        "version": subscription.version,
    }
    claims = {
        "iss": settings.PORTAL_URL,
        "aud": duty.organization.code,
        "iat": int(at.timestamp()),
        "jti": str(duty.jti),
        "txn": str(txn),
        "toe": int(at.timestamp()),
        "sub_id": {"format": "opaque", "id": str(subscription.pk)},
        "events": {
            f"{settings.PORTAL_URL}/secevent/{event}": facts
            | {
                "event_timestamp": int(at.timestamp()),
                "initiating_entity": "user" if reason.startswith("person") else "system",
                "leaf": {"log": settings.LEDGER_ORIGIN, "hash": base64.b64encode(leaf_hash).decode()},
            }
        },
    }
    compact = signing.sign_set(claims)
    body = {
        "type": event,
        "timestamp": instant(at),
        "data": {"txn": str(txn), "jti": str(duty.jti), **facts, "set": compact},
    }
    return Content(json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True), compact)


def about(body: str) -> set[str]:
    """The ids of the consents that a native body speaks of."""
    return {consent["id"] for consent in json.loads(body)["data"]["consents"]}


def _consent(consent) -> dict:
    return {
        "id": str(consent.pk),
        "kind": consent.kind,
        "source": consent.source.code if consent.source_id else None,
        "recipient": consent.recipient.code if consent.recipient_id else None,
        "scopes": consent.scopes,
        "riders": consent.riders,
        "cycle": consent.cycle,
        "until": consent.until_on.isoformat(),
    }
