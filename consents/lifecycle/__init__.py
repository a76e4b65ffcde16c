"""The lives of subscriptions and consents, for one person: join, amend, pause, resume, withdraw, leave, erase, expire.

Every act is one transaction of three writes: the rows, their ledger entries, the deliveries they owe. `by` is the
actor, `at` an aware moment. What has ended never comes back: the acts refuse, and so does the database.
"""

from .ending import ended_by, erase, erase_consent, leave, withdraw
from .expiry import expire_due
from .joining import Choice, join
from .refusals import (
    AlreadyEnded,
    AlreadyJoined,
    NotActive,
    NothingToErase,
    NotOffered,
    NotOpen,
    Refused,
    RequiredDeclined,
    TermsChanged,
    TooYoung,
)
from .rows import day
from .running import amend, pause, resume

__all__ = [
    "AlreadyEnded",
    "AlreadyJoined",
    "Choice",
    "NotActive",
    "NotOffered",
    "NotOpen",
    "NothingToErase",
    "Refused",
    "RequiredDeclined",
    "TermsChanged",
    "TooYoung",
    "amend",
    "day",
    "ended_by",
    "erase",
    "erase_consent",
    "expire_due",
    "join",
    "leave",
    "pause",
    "resume",
    "withdraw",
]
