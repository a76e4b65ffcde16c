"""Which fields an entry about a subscription, a consent or an erasure discloses: enough to rebuild the row from the log."""

from consents.models import Consent, Subscription
from providers.models import TermsItem

from .append import Fact


def of_subscription(typ: str, subscription: Subscription, *, reason: str = "", owed=()) -> Fact:
    return Fact(
        typ,
        person=subscription.person,
        operator=subscription.operator,
        subscription=subscription,
        reason=reason,
        fields={
            "sbs": subscription.pk, "svc": subscription.service.client_id, "opr": subscription.operator.code,
            "trm": subscription.text_digest, "lng": subscription.language, "org": subscription.origin,
            "prd": subscription.until_on, "ver": subscription.version, "dlv": [duty.disclosed() for duty in owed],
        },
    )  # fmt: skip


def of_consent(typ: str, consent: Consent, *, reason: str = "", owed=()) -> Fact:
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
            "ver": consent.version, "dlv": [duty.disclosed() for duty in owed],
        },
    )  # fmt: skip


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


def of_erasure(subscription: Subscription, *, consent: Consent | None = None, owed=()) -> Fact:
    return Fact(
        "erasure.requested",
        person=subscription.person,
        operator=subscription.operator,
        subscription=subscription,
        consent=consent,
        fields={
            "sbs": subscription.pk, "con": consent.pk if consent else None, "opr": subscription.operator.code,
            "ver": subscription.version, "dlv": [duty.disclosed() for duty in owed],
        },
    )  # fmt: skip
