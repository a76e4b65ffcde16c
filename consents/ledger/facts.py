"""Which fields an entry about a subscription, a consent, an erasure or a delivery discloses: enough to rebuild the row.

What changes with an act stands in every entry; what never changes after the beginning stands there only: what a message is
about and what it is to reach stands in the entry of its act, by `jti`. `sbv` is the
subscription's version and last day after the act, `ids` are the rows whose erasure the entry moves, `hnd` the
organizations that confirm by hand, `ovt` the deliveries that an end made pointless, `bgn` when it really began.
"""

import uuid
from collections.abc import Iterable
from typing import Any

from consents.models import Consent, Delivery, Evidence, Subscription
from providers.models import TermsItem

from .append import Fact


def of_subscription(
    typ: str, subscription: Subscription, *, reason: str = "", owed=(), overtaken: Iterable[uuid.UUID] = ()
) -> Fact:
    joined = typ == "subscription.joined"
    return Fact(
        typ,
        person=subscription.person,
        operator=subscription.operator,
        subscription=subscription,
        reason=reason,
        fields={
            "sbs": subscription.pk, "svc": subscription.service.client_id, "opr": subscription.operator.code,
            "trm": subscription.text_digest, "lng": subscription.language, "org": subscription.origin,
            "prd": subscription.until_on, "ver": subscription.version, **_duties(owed),
            **({"bgn": subscription.joined_at, "tms": subscription.terms_id} if joined else {}),
            **_some(ovt=list(overtaken)),
        },
    )  # fmt: skip


def of_consent(
    typ: str, consent: Consent, *, reason: str = "", owed=(), overtaken: Iterable[uuid.UUID] = ()
) -> Fact:
    subscription = consent.subscription
    return Fact(
        typ,
        person=consent.person,
        operator=subscription.operator,
        party=consent.source or consent.recipient,
        subscription=subscription,
        consent=consent,
        reason=reason,
        fields={
            "con": consent.pk, "sbs": subscription.pk, "opr": subscription.operator.code, "knd": consent.kind,
            "itm": consent.terms_item_id, "src": consent.source.code if consent.source else None,
            "rcp": consent.recipient.code if consent.recipient else None, "scp": consent.scopes, "rid": consent.riders,
            "cyc": consent.cycle, "pur": consent.purpose_ko, "prd": consent.until_on, "ret": consent.retained_until,
            "pai": consent.paid, "req": consent.required, "trm": subscription.text_digest, "lng": subscription.language,
            "ver": consent.version, "sbv": [subscription.version, subscription.until_on], **_duties(owed),
            **_begun(typ, consent), **({"pun": consent.paused_until} if typ == "consent.paused" else {}),
            **_some(ovt=list(overtaken)),
        },
    )  # fmt: skip


def _begun(typ: str, consent: Consent) -> dict[str, Any]:
    if typ != "consent.granted":
        return {}
    words = [consent.purpose_en, consent.retention_ko, consent.retention_en]
    return {"bgn": consent.granted_at, "wrd": words}


def of_declined(subscription: Subscription, item: TermsItem) -> Fact:
    return Fact(
        "consent.declined",
        person=subscription.person,
        operator=subscription.operator,
        party=item.source or item.recipient,
        subscription=subscription,
        fields={
            "sbs": subscription.pk, "opr": subscription.operator.code, "knd": item.kind, "itm": item.pk,
            "src": item.source.code if item.source else None, "rcp": item.recipient.code if item.recipient else None,
            "scp": item.scopes, "trm": subscription.text_digest, "lng": subscription.language,
        },
    )  # fmt: skip


def of_erasure(
    subscription: Subscription, *, asked: Iterable[uuid.UUID], consent: Consent | None = None, owed=()
) -> Fact:
    """`asked` are the ids of the subscription and consents that this request reaches and none before did."""
    return Fact(
        "erasure.requested",
        person=subscription.person,
        operator=subscription.operator,
        subscription=subscription,
        consent=consent,
        fields={
            "sbs": subscription.pk, "con": consent.pk if consent else None, "opr": subscription.operator.code,
            "ver": subscription.version, "ids": list(asked), **_duties(owed),
        },
    )  # fmt: skip


def of_delivery(typ: str, delivery: Delivery, *, state: str, **fields) -> Fact:
    return of_message(
        typ,
        delivery,
        operator=delivery.subscription.operator_id,
        code=delivery.organization.code,
        state=state,
        **fields,
    )


def of_message(typ: str, message: Any, *, operator: uuid.UUID, code: str, state: str, **fields) -> Fact:
    """The same for whoever holds a delivery's columns and keys only; `code` is its organization's."""
    return Fact(
        typ,
        person=message.person_id,
        operator=operator,
        party=message.organization_id,
        subscription=message.subscription_id,
        consent=message.consent_id,
        jti=message.jti,
        fields={
            "jti": message.jti, "opr": code, "sta": state, **({"con": message.consent_id} if message.consent_id else {}), **fields,
        },
    )  # fmt: skip


def of_settlement(
    delivery: Delivery, evidence: Evidence, *, settled: Iterable[uuid.UUID], basis: str = ""
) -> Fact:
    """An erasure's outcome: confirmed, or with a legal `basis` refused; `settled` are the ids of the rows it settles."""
    subscription = delivery.subscription
    return Fact(
        "erasure.confirmed" if evidence.status == Evidence.Status.ERASED else "erasure.refused",
        person=subscription.person,
        operator=subscription.operator,
        party=delivery.organization,
        subscription=subscription,
        consent=delivery.consent,
        jti=delivery.jti,
        fields={
            "sbs": subscription.pk, "con": delivery.consent_id, "opr": delivery.organization.code,
            "evd": evidence.digest, "mth": evidence.means, "bas": basis or None, "jti": delivery.jti,
            "ids": list(settled),
        },
    )  # fmt: skip


def _duties(owed) -> dict[str, Any]:
    by_hand = [duty.organization.code for duty in owed if duty.by_hand]
    return {"dlv": [duty.disclosed() for duty in owed], **_some(hnd=by_hand)}


def _some(**fields: list) -> dict[str, list]:
    """Fields that are rarely needed are left out where they would be empty."""
    return {name: value for name, value in fields.items() if value}
