"""WRITES people's data keys. Salts and values are encrypted under a key per person, to be shredded one day."""

import base64
import json
import secrets
import uuid
from collections.abc import Callable, Collection
from typing import Any

from consents.models import Disclosure, PersonKey
from providers import vault
from providers.ids import uuid7


def _aad(event_id: uuid.UUID, name: str) -> bytes:
    return event_id.bytes + name.encode("ascii")


def encrypt_all(
    key: bytes,
    *,
    event_id: uuid.UUID,
    disclosures: dict[str, str],
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> dict[str, bytes]:
    """Each disclosure of an entry, by field name, so that it opens in its own place only."""
    values = ((text.encode("ascii"), _aad(event_id, name)) for name, text in disclosures.items())
    sealed = vault.seal_all(values, key=key, random=random)
    return dict(zip(disclosures, sealed, strict=True))


def decrypt(key: bytes, *, event_id: uuid.UUID, name: str, ciphertext: bytes) -> str:
    return vault.unseal(ciphertext, aad=_aad(event_id, name), key=key).decode("ascii")


def person_keys(people: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[uuid.UUID, bytes]]:
    """Id and clear bytes of each person's data key, by person id; made at the first use. At most three queries."""
    keys = _known_keys(people)
    fresh = []
    for person in sorted(set(people) - keys.keys()):
        key = PersonKey(id=uuid7(), person_id=person)
        key.wrapped = vault.seal(secrets.token_bytes(32), aad=key.id.bytes)
        fresh.append(key)
    if fresh:
        PersonKey.objects.bulk_create(fresh, ignore_conflicts=True)
        keys |= _known_keys([key.person_id for key in fresh])
    return keys


def _known_keys(people: Collection[uuid.UUID]) -> dict[uuid.UUID, tuple[uuid.UUID, bytes]]:
    rows = list(PersonKey.objects.filter(person__in=people).values_list("person_id", "id", "wrapped"))
    clear = vault.unseal_all((bytes(wrapped), key_id.bytes) for _, key_id, wrapped in rows)
    return {person: (key_id, key) for (person, key_id, _), key in zip(rows, clear, strict=True)}


def public_key_bytes() -> bytes:
    """The key for disclosures that belong to no person (terms, licences, channels)."""
    return vault.derived_key("ledger disclosures without a person")


def decode(disclosure: str) -> tuple[str, Any]:
    """Name and value of a disclosure."""
    _salt, name, value = json.loads(base64.urlsafe_b64decode(disclosure + "=" * (-len(disclosure) % 4)))
    return name, value


def readable(event_ids: list[uuid.UUID]) -> dict[uuid.UUID, dict[str, str]]:
    """Disclosures by field name, by event id; what was shredded is missing. Two queries, whatever the number."""
    rows = list(Disclosure.objects.filter(event_id__in=event_ids))
    wrapped = PersonKey.objects.in_bulk({row.subject_key_id for row in rows if row.subject_key_id})
    keys = {key_id: vault.unseal(bytes(row.wrapped), aad=key_id.bytes) for key_id, row in wrapped.items()}
    found: dict[uuid.UUID, dict[str, str]] = {event_id: {} for event_id in event_ids}
    for row in rows:
        key = public_key_bytes() if row.subject_key_id is None else keys.get(row.subject_key_id)
        if key is not None:
            found[row.event_id][row.name] = decrypt(
                key, event_id=row.event_id, name=row.name, ciphertext=bytes(row.ciphertext)
            )
    return found


def disclosed(event_ids: list[uuid.UUID]) -> dict[uuid.UUID, dict[str, Any]]:
    """Names and values of entries, by event id; what was shredded is missing. Two queries, whatever the number."""
    return {
        event_id: dict(decode(disclosure) for disclosure in known.values())
        for event_id, known in readable(event_ids).items()
    }
