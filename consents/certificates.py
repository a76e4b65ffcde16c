"""The certificate of an end: what can be shown about it, with every party's own words, its proofs, and a QR code.

Pure: rows that were already read become JSON. The signed statement stays the same until something in it changes; the
proofs beside it are made afresh and need no signature of ours: each is checked against the log's policy. What no proof
shows (names, the day of joining) is our word, and verify.py says so.
"""

import base64
import datetime
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

import segno
from django.conf import settings

from consents import receipts
from consents.messages import instant
from consents.models import Delivery, EntryIndex, Evidence, Subscription
from providers import signing

STEPS = ("created", "sent", "received", "stopped", "erased", "refused", "due", "closed")


def statement(
    subscription: Subscription,
    told: Iterable[tuple[Delivery, list[Evidence], Collection[str]]],
    entries: Iterable[tuple[EntryIndex, bytes]],
) -> dict[str, Any]:
    """What can be shown about the end of a subscription: who was told, who answered, what is still open.

    `told` has each stop with what its party stated, and which steps it never said because we saw them; `entries` the ledger entries of these acts with their leaf hashes."""
    parties = [_told(delivery, statements, seen) for delivery, statements, seen in told]
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


def _told(delivery: Delivery, statements: list[Evidence], seen: Collection[str]) -> dict[str, Any]:
    reached = {f"{step}_at": _instant(getattr(delivery, f"{step}_at")) for step in STEPS}
    if "received" in seen:  # a message that was received cannot be seen: it is their word or none
        reached["received_at"] = None
    return {
        "id": delivery.organization.code,
        **_names(delivery.organization),
        "role": delivery.role,
        "event": delivery.event,
        "goal": delivery.goal,
        "state": delivery.state,
        "jti": str(delivery.jti),
        "txn": str(delivery.txn),
        **reached,
        "seen_by_portal": sorted(seen),
        "refusal": delivery.refusal,
        "statements": [
            {
                "id": statement.jti,
                "status": statement.status,
                "means": statement.means,
                "digest": statement.digest,
                "stated_at": instant(statement.stated_at),
                "received_at": instant(statement.received_at),
            }
            for statement in statements
        ],
    }


def with_proofs(
    stated: Mapping[str, Any],
    proofs: Mapping[UUID, str | None],
    evidence: Iterable[Evidence],
    *,
    size: int | None,
    compact: str,
) -> dict[str, Any]:
    """The file a person keeps: the statement with the log's proof of each entry, every party's own document (whose
    digests the statement names), and the statement signed.

    `size` is the number of leaves of the published log that the proofs are for, `compact` the signed statement. Proofs,
    documents, size and signature are not under the digest; verify.py takes them away again to check it."""
    entries = [{**entry, "proof": proofs.get(UUID(entry["id"]))} for entry in stated["log"]["entries"]]
    return {
        **stated,
        "log": {**stated["log"], "size": size, "entries": entries},
        "evidence": [
            {
                "id": one.jti,
                "organization": one.organization.code,
                "digest": one.digest,
                "document": one.document,
            }
            for one in evidence
        ],
        "digest": receipts.digest(stated),
        "jws": compact,
        "keys": receipts.keys_address(),
        "verify": verify_address(stated),
    }


def verify_address(stated: Mapping[str, Any]) -> str:
    """Where anybody can check the file, with the digest behind the `#`, which no browser sends; nothing personal."""
    return f"{settings.PORTAL_URL}/verify/#{receipts.digest(stated)}"


def signed(stated: Mapping[str, Any], *, subject: UUID, at: datetime.datetime) -> str:
    """The statement inside a compact JWS (claim `certificate`, `typ` ending-certificate+jwt)."""
    return signing.sign_certificate(receipts.claims(stated, subject=subject, name="certificate", at=at))


def qr_svg(content: str) -> str:
    """An inline SVG without style attributes, as the content security policy wants it."""
    return segno.make_qr(content, error="m").svg_inline(
        svgclass="qr", lineclass=None, omitsize=True, border=4, light="#fff"
    )


def _names(thing) -> dict[str, str]:
    return {"name_ko": thing.name_ko, "name_en": thing.name_en}


def _instant(moment: datetime.datetime | None) -> str | None:
    return instant(moment) if moment else None
