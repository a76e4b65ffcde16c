"""People, what they agreed, what is owed to them, and the log of it all."""

from .agreements import Consent, ConsentRequest, EndReason, Erasure, Subscription
from .idempotency import IdempotencyKey
from .ledger import (
    Cosignature,
    Disclosure,
    EntryIndex,
    Leaf,
    LedgerEntry,
    PersonKey,
    Promise,
    SignedCheckpoint,
    Verification,
)
from .notices import Notice
from .obligations import Delivery, Evidence
from .people import Member, Person
from .traces import Lookup

__all__ = [
    "Consent",
    "ConsentRequest",
    "Cosignature",
    "Delivery",
    "Disclosure",
    "EndReason",
    "EntryIndex",
    "Erasure",
    "Evidence",
    "IdempotencyKey",
    "Leaf",
    "LedgerEntry",
    "Lookup",
    "Member",
    "Notice",
    "Person",
    "PersonKey",
    "Promise",
    "SignedCheckpoint",
    "Subscription",
    "Verification",
]
