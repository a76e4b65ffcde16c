"""The signed receipt of an act: which entry says it, and the promise that the log will hold it."""

from collections.abc import Iterable
from uuid import UUID

from consents.ledger import promises
from consents.models import EntryIndex
from consents.queries import proofs


def of(typ: str, subscription, *, consent=None) -> dict:
    """`txn` and `receipt` of the newest entry of this type about a subscription, or about a consent in it. Four queries."""
    about = {"consent": consent} if consent else {"subscription": subscription, "consent": None}
    entry = EntryIndex.objects.filter(typ=typ, **about).latest("seq")
    return {"txn": entry.txn, "receipt": promises.receipt(entry)}


def of_answer(jti: UUID, organization, typs: Iterable[str]) -> str | None:
    """The receipt of an organization's newest answer of these types to one message; None where the log has none."""
    entry = EntryIndex.objects.filter(jti=jti, party=organization, typ__in=typs).order_by("seq").last()
    if entry is None:
        return None
    return proofs.receipt_for(entry, organization)


def of_request(typ: str, lodged) -> str:
    """The receipt of what was done with a consent request."""
    return promises.receipt(EntryIndex.objects.filter(jti=lodged.pk, typ=typ).latest("seq"))
