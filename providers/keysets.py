"""WRITES the public keys that organizations register: given by value, or fetched from an address of theirs.

A fetched set is kept and used as it is for FRESH; then, or when somebody signs with a key it does not hold, it is fetched
again, once in APART at most, whoever asks. While the address does not answer the old set is good for STALE, no longer: a
key that was dropped there must stop working here.
"""

import asyncio
import datetime
import json
import threading
from collections.abc import Mapping

import structlog
from django.db.models import Q

from providers import outbound
from providers.models import KeySet, Organization
from providers.plainjson import strict_json
from providers.signing import KEY_OF_ALGORITHM, BadSignature, key_for

log = structlog.get_logger(__name__)

MOST_KEYS = 20
LARGEST = 32_768  # bytes
LONGEST_KID = 64
TOTAL = 5.0  # seconds for the whole answer
APART = datetime.timedelta(seconds=60)
FRESH = datetime.timedelta(hours=1)
STALE = datetime.timedelta(hours=24)
KEPT = ("kty", "crv", "x", "y", "n", "e", "kid", "use", "alg", "key_ops")
PRIVATE = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"}


class BadKeys(ValueError):
    """Not a set of public keys that could be used; says why."""


def checked(jwks: object) -> list[dict]:
    """The keys for signatures in a JWK set (RFC 7517), with the members that matter. Raises BadKeys.

    A private key is refused aloud: whoever pasted it must know that it is burnt. Keys for encryption are left out."""
    found = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(found, list) or not found:
        raise BadKeys("a JWK set has a list of keys")
    if len(found) > MOST_KEYS:
        raise BadKeys(f"more than {MOST_KEYS} keys")
    if any(not isinstance(key, Mapping) for key in found):
        raise BadKeys("a key is not an object")
    if any(PRIVATE & key.keys() for key in found):
        raise BadKeys("there is a private key in it")
    keys = [_usable(key) for key in found if key.get("use", "sig") == "sig"]
    if not keys:
        raise BadKeys("no key is for signatures")
    kids = [key["kid"] for key in keys]
    if len(set(kids)) < len(kids):
        raise BadKeys("two keys have the same kid")
    return keys


def _usable(key: Mapping) -> dict:
    kid, kty = key.get("kid"), key.get("kty")
    if not isinstance(kid, str) or not 0 < len(kid) <= LONGEST_KID or not kid.isprintable():
        raise BadKeys(f"each key needs a kid of at most {LONGEST_KID} characters")
    algorithms = [
        name
        for name, (kind, curve) in KEY_OF_ALGORITHM.items()
        if kind == kty and curve in (None, key.get("crv"))
    ]
    kept = {name: key[name] for name in KEPT if name in key}
    algorithm = next((name for name in algorithms if key.get("alg", name) == name), None)
    if algorithm is None:
        raise BadKeys(f"{kid}: the kind of key or its algorithm is not used here")
    try:
        key_for({"keys": [kept]}, kid, algorithm)
    except BadSignature as error:
        raise BadKeys(f"{kid}: {error}") from error
    return kept


def read(text: str | bytes) -> list[dict]:
    """The keys in a JWK set as text. Raises BadKeys."""
    raw = text.encode() if isinstance(text, str) else text
    if len(raw) > LARGEST:
        raise BadKeys(f"larger than {LARGEST} bytes")
    try:
        return checked(strict_json(raw))
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, BadKeys) else BadKeys("not plain JSON") from error


def register(
    organization: Organization, *, keys: list[dict], address: str = "", by=None, at: datetime.datetime
) -> KeySet:
    """What an organization signs with from now on, instead of what it had registered before. `keys` are `checked`; where
    there is an `address` they are what was found there."""
    fetched = at if address else None
    values = {
        "address": address,
        "keys": keys,
        "registered_at": at,
        "fetched_at": fetched,
        "tried_at": fetched,
        "problem": "",
    }
    return KeySet.objects.update_or_create(organization=organization, defaults=values)[0]


def remove(organization: Organization, *, by=None, at: datetime.datetime) -> bool:
    """Forget what was registered. False: there was nothing."""
    return bool(KeySet.objects.filter(organization=organization).delete()[0])


def current(organization: Organization, *, at: datetime.datetime) -> list[dict]:
    """The registered keys, as they are known now; none where their address has not answered for STALE. One query."""
    known = KeySet.objects.filter(organization=organization).first()
    return known.keys if known and is_good(known, at=at) else []


def is_good(known: KeySet, *, at: datetime.datetime) -> bool:
    """Whether the keys may be used: given by value, or seen at their address not too long ago."""
    return not known.address or (known.fetched_at is not None and at - known.fetched_at <= STALE)


def refresh(organization: Organization, kid: object, *, at: datetime.datetime) -> bool:
    """Fetch the set again where `kid` is not in it or it is older than FRESH; whether that was done. Not inside a
    transaction: this waits for somebody else's server, TOTAL seconds at most."""
    known = KeySet.objects.filter(organization=organization).exclude(address="").first()
    if known is None:
        return False
    has = any(key["kid"] == kid for key in known.keys)
    if has and known.fetched_at and at - known.fetched_at <= FRESH:
        return False
    due = KeySet.objects.filter(Q(tried_at__isnull=True) | Q(tried_at__lte=at - APART), pk=known.pk)
    if not due.update(tried_at=at):  # somebody else has just asked
        return False
    try:
        keys, problem = fetch(known.address), ""
    except BadKeys as error:
        keys, problem = None, str(error)[:60]
        log.warning("a key set could not be fetched", organization=organization.code, reason=problem)
    same = KeySet.objects.filter(pk=known.pk, address=known.address)
    if keys is None:
        same.update(problem=problem)
    else:
        same.update(keys=keys, fetched_at=at, problem="")
    return keys is not None


def fetch(address: str) -> list[dict]:
    """The keys at an address. Raises BadKeys, also where it does not answer."""
    found: list[bytes] = []
    problems: list[str] = []

    async def ask() -> None:
        try:
            async with outbound.open_session() as session:
                reply = await outbound.send(
                    session, method="GET", url=address, headers={"Accept": "application/jwk-set+json, application/json"},
                    total=TOTAL,
                )  # fmt: skip
        except outbound.Unreachable as error:
            problems.append(f"no answer: {error.reason}")
        except outbound.Refused as error:
            problems.append(f"refused: {error}")
        else:
            if reply.status == 200:
                found.append(reply.body)
            else:
                problems.append(f"no answer: status {reply.status}")

    thread = threading.Thread(target=lambda: asyncio.run(ask()), name="key set")
    thread.start()
    thread.join()
    if not found:
        raise BadKeys(problems[0] if problems else "no answer")
    return read(found[0])


def text(keys: list[dict]) -> str:
    """A set of keys as it is shown and pasted."""
    return json.dumps({"keys": keys}, indent=1, ensure_ascii=False)
