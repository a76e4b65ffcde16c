"""WRITES promises: what a receipt says, and which leaves must be in the published tree by when.

A receipt (JWS `consent-receipt+jwt`) promises that its leaf is under a cosigned checkpoint MERGE_DELAY_SECONDS after its
`iat`. Older than that and absent, it is proof of misbehaviour (RFC 6962 §3). Its signature is deterministic: the receipt
of an entry is the same bytes whenever it is asked for, so that nothing of it needs to be stored in clear.
"""

import base64
import datetime
import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.conf import settings
from django.db.models import Value
from django.db.models.functions import Greatest, Now

from consents.actors import Actor
from consents.models import EntryIndex, LedgerEntry, Promise
from providers import policy, signing

from . import disclosures
from .entries import SEOUL, Sealed

# The pairwise name of a person is between them and one operator: nobody else gets it with a receipt of theirs.
PAIRWISE = frozenset({"sub"})


def due_at(at: datetime.datetime) -> datetime.datetime:
    """By when an entry accepted at `at` must be under the published checkpoint."""
    return at + datetime.timedelta(seconds=merge_delay(at))


def merge_delay(at: datetime.datetime) -> int:
    """Seconds, as they were promised on that day."""
    return policy.number("MERGE_DELAY_SECONDS", on=at.astimezone(SEOUL).date())


def keep(acts: Iterable[Sequence[Sealed]], *, by: Actor, at: datetime.datetime) -> None:
    """Remember what is promised for acts: the first entry of each. What the system does by itself is promised to nobody.

    The delay runs from whichever clock is ahead: a web process that lives in the past makes no promise that is broken as soon
    as it is given."""
    if by.kind == "system":
        return
    due = Greatest(Value(due_at(at)), Now() + datetime.timedelta(seconds=merge_delay(at)))
    Promise.objects.bulk_create(
        Promise(event_id=act[0].event_id, leaf_hash=act[0].leaf_hash, due_at=due) for act in acts if act
    )


def receipts(
    entries: Iterable[EntryIndex], *, withheld: frozenset[str] = frozenset()
) -> dict[uuid.UUID, str]:
    """The receipt of each entry, by event id. Three queries, whatever the number.

    `sd` holds the disclosures that can still be read, by field name, without those `withheld`."""
    entries = list(entries)
    ids = [entry.event_id for entry in entries]
    leaves = dict(LedgerEntry.objects.filter(event_id__in=ids).values_list("event_id", "leaf_hash"))
    known = disclosures.readable(ids)
    return {
        entry.event_id: signing.sign_receipt(
            _claims(entry, leaf=bytes(leaves[entry.event_id]), known=known[entry.event_id], withheld=withheld)
        )
        for entry in entries
    }


def receipt(entry: EntryIndex, *, withheld: frozenset[str] = frozenset()) -> str:
    return receipts([entry], withheld=withheld)[entry.event_id]


def _claims(
    entry: EntryIndex, *, leaf: bytes, known: dict[str, str], withheld: frozenset[str]
) -> dict[str, Any]:
    return {
        "iss": settings.PORTAL_URL,
        "iat": int(entry.at.timestamp()),
        "jti": str(entry.event_id),
        "act": entry.typ,
        "leaf": base64.b64encode(leaf).decode("ascii"),
        "log": settings.LEDGER_ORIGIN,
        "mmd": merge_delay(entry.at),
        "sd": [known[name] for name in sorted(known) if name not in withheld],
        **({"txn": str(entry.txn)} if entry.txn else {}),
    }
