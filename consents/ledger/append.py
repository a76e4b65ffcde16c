"""WRITES ledger entries. The only way in; refuses to run outside a transaction."""

import datetime
import secrets
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from consents.actors import Actor
from providers import policy, vault

from . import disclosures, entries, promises

_EVENT = "COPY ledger.event (event_id, entry, event_type) FROM STDIN (FORMAT BINARY)"
_EVENT_TYPES = ("uuid", "bytea", "text")
_DISCLOSURE = "COPY ledger.disclosure (event_id, name, digest, ciphertext, subject_key_id, retain_until) FROM STDIN (FORMAT BINARY)"
_DISCLOSURE_TYPES = ("uuid", "text", "text", "bytea", "uuid", "timestamptz")
_INDEX = (
    "COPY consents_entryindex (event_id, typ, at, txn, person_id, operator_id, party_id, subscription_id, consent_id, jti, subject, "
    "actor_kind, actor_id, reason) FROM STDIN (FORMAT BINARY)"
)
_INDEX_TYPES = ("uuid", "text", "timestamptz", *("uuid",) * 7, *("text",) * 4)

# Id and bytes of the data key by person id; under None the key of what belongs to no person.
Keys = dict[Any, tuple[uuid.UUID | None, bytes]]


class OutsideTransaction(RuntimeError):
    """An entry must commit together with the rows it speaks of."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that happened. The references, rows or their keys, are what search and history use; `fields` go into the entry."""

    typ: str
    person: Any = None
    operator: Any = None
    party: Any = None
    subscription: Any = None
    consent: Any = None
    jti: uuid.UUID | None = None
    reason: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def append(
    facts: Sequence[Fact], *, by: Actor, at: datetime.datetime, txn: uuid.UUID | None = None
) -> list[entries.Sealed]:
    """Write entries, their encrypted disclosures and their index rows, in the caller's transaction; promise the first.

    `txn` names the act they belong to. Every entry discloses `at` and `by`, and `sub` (the pairwise pseudonym)
    where a person and an operator are known. Raises OutsideTransaction, or entries.UnknownField.
    """
    return append_acts([(txn, facts)], by=by, at=at)


def append_acts(
    acts: Iterable[tuple[uuid.UUID | None, Sequence[Fact]]], *, by: Actor, at: datetime.datetime
) -> list[entries.Sealed]:
    """The same for several acts at once: each comes with its `txn`, and is promised its own first entry."""
    if not connection.in_atomic_block:
        raise OutsideTransaction("ledger.append needs the transaction of the change it records")
    acts = list(acts)
    keys: Keys = {None: (None, disclosures.public_key_bytes())}
    keys |= disclosures.person_keys({_key(fact.person) for _, facts in acts for fact in facts if fact.person})
    rows, random, keep = Rows(), vault.drawn(), retained_until(at)
    sealed = [
        prepare(facts, by=by, at=at, txn=txn, keys=keys, rows=rows, random=random, keep_until=keep)
        for txn, facts in acts
    ]
    write(rows)
    promises.keep(sealed, by=by, at=at)
    return [entry for act in sealed for entry in act]


@dataclass(slots=True)
class Rows:
    """What entries are made of before they are written: rows of ledger.event and ledger.disclosure, and of the index."""

    events: list[tuple] = field(default_factory=list)
    disclosures: list[tuple] = field(default_factory=list)
    index: list[tuple] = field(default_factory=list)


def prepare(
    facts: Sequence[Fact],
    *,
    by: Actor,
    at: datetime.datetime,
    txn: uuid.UUID | None,
    keys: Keys,
    rows: Rows,
    random: Callable[[int], bytes] = secrets.token_bytes,
    keep_until: datetime.datetime | None = None,
) -> list[entries.Sealed]:
    """Seal entries and add what is to be written to `rows`. `keys` has one for everybody in `facts`."""
    sealed = []
    keep_until = keep_until or retained_until(at)
    for fact in facts:
        person = _key(fact.person)
        subject = pseudonym(person, _key(fact.operator))
        fields = _fields(fact, by=by, at=at, txn=txn, subject=subject)
        entry = entries.seal(fact.typ, at=at, fields=fields, random=random)
        key_id, key = keys[person]
        rows.events.append((entry.event_id, entry.entry, entry.typ))
        encrypted = disclosures.encrypt_all(
            key, event_id=entry.event_id, disclosures=entry.disclosures, random=random
        )
        rows.disclosures += [
            (entry.event_id, name, entry.digests[name], ciphertext, key_id, keep_until)
            for name, ciphertext in encrypted.items()
        ]
        rows.index.append(_index_row(fact, entry, by=by, at=at, txn=txn, subject=subject))
        sealed.append(entry)
    return sealed


def write(rows: Rows) -> None:
    """Entries and disclosures into the log, and what is searched into the index."""
    with connection.cursor() as cursor:
        _copy(cursor, _EVENT, _EVENT_TYPES, rows.events)
        _copy(cursor, _DISCLOSURE, _DISCLOSURE_TYPES, rows.disclosures)
        _copy(cursor, _INDEX, _INDEX_TYPES, rows.index)


def _copy(cursor, statement: str, types: tuple[str, ...], rows: list[tuple]) -> None:
    with cursor.copy(statement) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def pseudonym(person: uuid.UUID | None, operator: uuid.UUID | None) -> str:
    """The person's name towards one operator: pairwise, so that two operators cannot compare."""
    return vault.pseudonym(str(operator), str(person)) if person and operator else ""


def _key(row: Any) -> Any:
    return getattr(row, "pk", row)


def _fields(fact: Fact, *, by: Actor, at, txn, subject: str) -> dict[str, Any]:
    allowed = entries.FIELDS.get(fact.typ, frozenset())
    # A step of a delivery belongs to the act whose entry names its `jti`.
    act = None if fact.typ.startswith("delivery.") else txn
    known = {"at": at, "by": by.kind, "txn": act, "rsn": fact.reason or None, "sub": subject or None}
    automatic = {name: value for name, value in known.items() if value is not None and name in allowed}
    return automatic | fact.fields


def _index_row(fact: Fact, entry: entries.Sealed, *, by: Actor, at, txn, subject: str) -> tuple:
    """In the order of `_INDEX`."""
    references = (fact.person, fact.operator, fact.party, fact.subscription, fact.consent)
    return (
        entry.event_id, fact.typ, at, txn, *map(_key, references), fact.jti, subject, by.kind, str(by.id), fact.reason,
    )  # fmt: skip


def retained_until(at: datetime.datetime) -> datetime.datetime:
    """End of the legal hold: processing records are kept three years (신용정보법 제20조②)."""
    years = policy.number("PROCESSING_RECORD_YEARS", on=at.astimezone(entries.SEOUL).date())
    return at + datetime.timedelta(days=366 * years)
