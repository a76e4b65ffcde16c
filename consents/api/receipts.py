"""The signed receipt of an act: which entry says it, and the promise that the log will hold it."""

import base64

from django.conf import settings

from consents.ledger.entries import SEOUL
from consents.models import EntryIndex, LedgerEntry
from providers import policy, signing


def of(typ: str, subscription, *, consent=None) -> dict:
    """`txn` and `receipt` of the newest entry of this type about a subscription, or about a consent in it. Two queries."""
    about = {"consent": consent} if consent else {"subscription": subscription, "consent": None}
    entry = EntryIndex.objects.filter(typ=typ, **about).latest("seq")
    leaf = LedgerEntry.objects.values_list("leaf_hash", flat=True).get(event_id=entry.event_id)
    claims = {
        "iss": settings.PORTAL_URL,
        "iat": int(entry.at.timestamp()),
        "jti": str(entry.event_id),
        "txn": str(entry.txn),
        "act": typ,
        "leaf": base64.b64encode(bytes(leaf)).decode("ascii"),
        "log": settings.LEDGER_ORIGIN,
        "mmd": policy.number("MERGE_DELAY_SECONDS", on=entry.at.astimezone(SEOUL).date()),
    }
    return {"txn": entry.txn, "receipt": signing.sign_receipt(claims)}
