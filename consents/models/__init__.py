"""People, what they agreed, what is owed to them, and the log of it all."""

from .agreements import Consent, ConsentRequest, EndReason, Erasure, Subscription
from .idempotency import IdempotencyKey
from .ledger import Disclosure, EntryIndex, LedgerEntry, PersonKey
from .notices import Notice
from .obligations import Delivery, Evidence
from .people import Member, Person
from .traces import Lookup

__all__ = [
    "Consent",
    "ConsentRequest",
    "Delivery",
    "Disclosure",
    "EndReason",
    "EntryIndex",
    "Erasure",
    "Evidence",
    "IdempotencyKey",
    "LedgerEntry",
    "Lookup",
    "Member",
    "Notice",
    "Person",
    "PersonKey",
    "Subscription",
]
