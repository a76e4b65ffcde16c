"""The log read in tree order: each entry's bytes are checked, its disclosures decrypted and matched, and noted."""

import base64
import binascii
import datetime
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
from cryptography.exceptions import InvalidTag
from django.db import connection

from consents.ledger import disclosures, entries
from providers import vault

from .findings import Findings

BATCH = 4096  # entries in memory

# The batch first, whatever the planner thinks of tables that have just been filled.
_LEAVES = """
WITH batch AS MATERIALIZED (
  SELECT leaf_index AS place, event_id, leaf_hash FROM ledger.leaf WHERE leaf_index > %s ORDER BY leaf_index LIMIT %s
)
SELECT place, batch.event_id, entry, event_type, batch.leaf_hash, false FROM batch LEFT JOIN ledger.event USING (event_id)
ORDER BY place
"""
_WAITING = """
WITH batch AS MATERIALIZED (
  SELECT place, event_id FROM ledger.pending WHERE place > %s ORDER BY place LIMIT %s
)
SELECT place, batch.event_id, entry, event_type, event.leaf_hash, leaf.event_id IS NOT NULL
FROM batch LEFT JOIN ledger.event USING (event_id) LEFT JOIN ledger.leaf USING (event_id) ORDER BY place
"""
_ASTRAY = """
SELECT event_id FROM ledger.event WHERE NOT EXISTS (SELECT 1 FROM ledger.leaf WHERE leaf.event_id = event.event_id)
AND NOT EXISTS (SELECT 1 FROM ledger.pending WHERE pending.event_id = event.event_id)
"""
_VALUES = "SELECT event_id, name, digest, ciphertext, subject_key_id FROM ledger.disclosure WHERE event_id = ANY(%s)"
_KEYS = "SELECT id, wrapped FROM consents_personkey WHERE id = ANY(%s)"
_NOTE = "COPY replay_said FROM STDIN (FORMAT BINARY)"
_NOTE_TYPES = ("int8", "text", "text", "text", "text", "text", "text", "text", "text", "jsonb")
_LISTS = {
    "hnd": 0,
    "ids": 0,
    "ovt": 0,
    "dlv": 4,
}  # fields that the fold takes apart, and how long their parts are


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of the ledger")


_JSON = json.JSONDecoder(parse_float=_no_number, parse_constant=_no_number)  # made once: millions are read


class Wrong(Exception):
    """The entry is not what the log may contain; `what` is wrong, `said` is what stands there."""

    def __init__(self, what: str, said: Any = None):
        super().__init__(what)
        self.what, self.said = what, said


@dataclass(slots=True)
class Counts:
    entries: int = 0
    shredded: int = 0


def read(found: Findings, *, progress: Callable[[int], object]) -> Counts:
    """Note every entry that can be read in `replay_said`; what is wrong goes into `found`."""
    counts = Counts()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    for batch in _batches():
        known = _disclosed([event_id for _place, event_id, *_ in batch])
        rows = []
        for _place, event_id, entry, event_type, leaf_hash in batch:
            counts.entries += 1
            try:
                said = _read(event_id, entry, event_type, leaf_hash, known.get(event_id, {}))
            except Wrong as wrong:
                found.add("entry", event_id, wrong.what, wrong.said, None)
                continue
            if said is None:
                counts.shredded += 1
            else:
                rows.append(_row(counts.entries, event_id, event_type, said))
        _note(rows)
        progress(len(batch))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = on")
        cursor.execute(_ASTRAY)
        for (event_id,) in cursor.fetchall():
            counts.entries += 1
            found.add("entry", event_id, "is neither in the tree nor waiting for it", None, None)
    return counts


def _batches() -> Iterator[list[tuple]]:
    """(place, event_id, entry, event_type, leaf_hash): first what is in the tree, then what waits for it."""
    for statement in (_LEAVES, _WAITING):
        last = -1
        while batch := _fetched(statement, (last, BATCH)):
            last = batch[-1][0]
            # Enqueued again by a restored dump: what has its leaf was read there.
            yield [row[:5] for row in batch if not row[5]]


def _fetched(statement: str, params: tuple) -> list[tuple]:
    # Django's own cursor puts values into the statement and answers in text: twice the work for millions of rows.
    with psycopg.Cursor(connection.connection) as cursor:
        return cursor.execute(statement, params, binary=True).fetchall()


def _disclosed(event_ids: list[uuid.UUID]) -> dict[uuid.UUID, dict[str, tuple[str, str | None]]]:
    """By entry and field: the digest beside the ciphertext, and the disclosure; None where its key is destroyed."""
    rows = _fetched(_VALUES, (event_ids,))
    wrapped = _fetched(_KEYS, (list({row[4] for row in rows if row[4]}),))
    keys = {key_id: vault.unseal(sealed, aad=key_id.bytes) for key_id, sealed in wrapped}
    keys[None] = disclosures.public_key_bytes()
    known: dict[uuid.UUID, dict[str, tuple[str, str | None]]] = {}
    for event_id, name, digest, ciphertext, key_id in rows:
        key, disclosure = keys.get(key_id), None
        if key is not None:
            try:
                disclosure = disclosures.decrypt(key, event_id=event_id, name=name, ciphertext=ciphertext)
            except (vault.BadSeal, InvalidTag, UnicodeError):
                disclosure = ""  # no digest matches this
        known.setdefault(event_id, {})[name] = (digest, disclosure)
    return known


def _read(event_id, entry, event_type, leaf_hash, known) -> dict[str, Any] | None:
    """Names and values of an entry after every check; None for what was shredded. Raises Wrong."""
    if entry is None:
        raise Wrong("is in the tree, but not in the log")
    if hashlib.sha256(b"\x00" + entry).digest() != leaf_hash:
        raise Wrong("is not what its leaf says")
    public = _public(entry)
    if (public["id"], public["typ"]) != (str(event_id), event_type):
        raise Wrong("stands under another id or type", [public["id"], public["typ"]])
    digests = set(public["_sd"])
    if not known or all(disclosure is None for _digest, disclosure in known.values()):
        return None
    said = {
        name: _value(event_type, name, digest, disclosure, digests)
        for name, (digest, disclosure) in known.items()
    }
    if len(digests) != len(said):
        raise Wrong("misses disclosures", f"{len(said)} of {len(digests)}")
    _check_shapes(said, public["day"])
    return said


def _public(entry: bytes) -> dict[str, Any]:
    try:
        public = json.loads(entry)
        bare = {"typ": public["typ"], "event_id": uuid.UUID(public["id"]), "digests": public["_sd"]}
        again = entries.encode(day=datetime.date.fromisoformat(public["day"]), **bare)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Wrong("is no entry", type(error).__name__) from error
    if again != entry or public["typ"] not in entries.FIELDS:
        raise Wrong("is no entry", "not in its one form, or of no known type")
    return public


def _value(typ: str, name: str, digest: str, disclosure: str | None, digests: set[str]) -> Any:
    if not disclosure or digest not in digests or entries.digest(disclosure) != digest:
        raise Wrong(f"does not contain what {name} discloses")
    if name not in entries.FIELDS[typ]:
        raise Wrong("has no such field", name)
    try:
        content = base64.urlsafe_b64decode(disclosure + "===").decode()
        salt, named, value = _JSON.decode(content)
        if "\\u" in content and any("\0" in text or not text.encode() for text in _texts(value) if text):
            raise Wrong(f"discloses as {name} what no column can hold")
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise Wrong(f"has a disclosure of {name} that cannot be read") from error
    if named != name or not isinstance(salt, str) or len(salt) != 22:
        raise Wrong(f"discloses something else as {name}", named)
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        yield from _texts([*value.keys(), *value.values()])


def _check_shapes(said: dict[str, Any], day: str) -> None:
    """What the fold takes for granted: a moment of that day, lists of texts, a version with its last day."""
    try:
        at = datetime.datetime.fromisoformat(said["at"])
        if at.astimezone(entries.SEOUL).date().isoformat() != day:
            raise Wrong("is of another day than what it discloses", said["at"])
        for name, length in _LISTS.items():
            for part in said.get(name) or []:
                if length and (len(part) != length or any(not isinstance(word, str) for word in part)):
                    raise Wrong(f"has another shape in {name}", part)
                if not length and not isinstance(part, str):
                    raise Wrong(f"has another shape in {name}", part)
        if "sbv" in said and len(said["sbv"]) != 2:
            raise Wrong("has another shape in sbv", said["sbv"])
    except (KeyError, TypeError, ValueError) as error:
        raise Wrong("discloses values of another shape", type(error).__name__) from error


def _row(place: int, event_id: uuid.UUID, typ: str, said: dict[str, Any]) -> tuple:
    texts = (said.get(name) for name in ("at", "txn", "sub", "sbs", "con", "jti"))
    return place, str(event_id), typ, *(None if text is None else str(text) for text in texts), said


def _note(rows: list[tuple]) -> None:
    with connection.connection.cursor() as cursor, cursor.copy(_NOTE) as copy:
        copy.set_types(_NOTE_TYPES)
        for row in rows:
            copy.write_row(row)
