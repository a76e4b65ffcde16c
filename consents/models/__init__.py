"""People, what they agreed, what is owed to them, and the log of it all."""

from .agreements import Consent, ConsentRequest, EndReason, Erasure, Subscription
from .channels import ChannelChange, GymMessage, GymRun
from .idempotency import IdempotencyKey, InboundMessage
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
from .obligations import Breaker, Check, Delivery, Escalation, Evidence, Reference, Reissue
from .people import Member, Person
from .queue import Claimed, Lease, Outgoing
from .traces import Case, Inquiry, Lookup, Transfer, WeeklyCalls, WeeklyCount
from .turns import SpentId, Turn
from .uploads import CountingCode, Identity, Upload, UploadPart, UploadRefusal, WaitingHolding

__all__ = [
    "Breaker",
    "Case",
    "ChannelChange",
    "Check",
    "Claimed",
    "Consent",
    "ConsentRequest",
    "Cosignature",
    "CountingCode",
    "Delivery",
    "Disclosure",
    "EndReason",
    "EntryIndex",
    "Erasure",
    "Escalation",
    "Evidence",
    "GymMessage",
    "GymRun",
    "IdempotencyKey",
    "Identity",
    "InboundMessage",
    "Inquiry",
    "Leaf",
    "Lease",
    "LedgerEntry",
    "Lookup",
    "Member",
    "Notice",
    "Outgoing",
    "Person",
    "PersonKey",
    "Promise",
    "Reference",
    "Reissue",
    "SignedCheckpoint",
    "SpentId",
    "Subscription",
    "Transfer",
    "Turn",
    "Upload",
    "UploadPart",
    "UploadRefusal",
    "Verification",
    "WaitingHolding",
    "WeeklyCalls",
    "WeeklyCount",
]
