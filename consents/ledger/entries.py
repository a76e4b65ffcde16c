"""The bytes of an entry: RFC 8785 JSON over salted digests, one per field (RFC 9901). Pure functions.

entry      = JCS({"_sd": [digests, sorted], "_sd_alg": "sha-256", "day": day in Seoul, "id": uuid4, "typ": type, "v": 1})
disclosure = base64url(JCS([salt, name, value])), salt = base64url(16 random bytes), fresh per field
digest     = base64url(SHA-256(ASCII(disclosure)))
leaf hash  = SHA-256(0x00 || entry)
"""

import binascii
import datetime
import functools
import hashlib
import json
import secrets
import unicodedata
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import rfc8785

SEOUL = ZoneInfo("Asia/Seoul")
MAX_BYTES = 65_535  # tlog-tiles frames an entry with a 16-bit length
MAX_SAFE_INTEGER = 2**53 - 1

_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_quoted = json.encoder.encode_basestring
_URL_SAFE = bytes.maketrans(b"+/", b"-_")

_ACT = frozenset({"at", "by", "sub", "opr", "txn", "rsn", "ver", "dlv", "hnd"})
_CONSENT = _ACT | {
    "con",
    "sbs",
    "knd",
    "itm",
    "src",
    "rcp",
    "scp",
    "rid",
    "cyc",
    "pur",
    "prd",
    "ret",
    "pai",
    "req",
    "trm",
    "lng",
    "sbv",
    "bgn",
    "pun",
    "wrd",
    "ovt",
}
_SUBSCRIPTION = _ACT | {"sbs", "svc", "trm", "lng", "org", "prd", "bgn", "tms", "ovt"}
_ERASURE = _ACT | {"sbs", "con", "evd", "mth", "bas", "prd", "jti", "ids"}
# `sbs`, `evt`, `rol` and `gol` stand in entries of the first months only: the entry of the act says the same by `jti`.
_DELIVERY = frozenset(
    {"at", "by", "jti", "txn", "opr", "sbs", "con", "sta", "evt", "rol", "gol", "evd", "rsn", "mth", "ids"}
)
_REQUEST = _ACT | {"req", "svc", "trm", "prd", "sbs"}
_CHANGE = frozenset({"at", "by", "opr", "who", "dig", "before", "after", "rsn", "svc", "trm"})
_READ = frozenset({"at", "by", "act", "sub", "cas", "rsn", "cnt", "eid"})

FIELDS: Mapping[str, frozenset[str]] = {
    "subscription.joined": _SUBSCRIPTION,
    "subscription.ended": _SUBSCRIPTION,
    **dict.fromkeys(
        [
            "consent.granted",
            "consent.declined",
            "consent.amended",
            "consent.paused",
            "consent.resumed",
            "consent.withdrawn",
            "consent.expired",
        ],
        _CONSENT,
    ),
    **dict.fromkeys(["erasure.requested", "erasure.confirmed", "erasure.refused"], _ERASURE),
    **dict.fromkeys(
        [
            "delivery.sent",
            "delivery.received",
            "delivery.stopped",
            "delivery.erased",
            "delivery.dead",
            "delivery.contradicted",
        ],
        _DELIVERY,
    ),
    **dict.fromkeys(["request.lodged", "request.declined", "request.expired"], _REQUEST),
    **dict.fromkeys(
        [
            "terms.published",
            "terms.retired",
            "licence.decided",
            "channel.opened",
            "channel.rotated",
            "channel.retired",
        ],
        _CHANGE,
    ),
    **dict.fromkeys(["notice.raised", "notice.answered"], _ACT | {"knd", "sbs", "nid", "ans"}),
    **dict.fromkeys(["record.looked_up", "record.revealed", "record.exported"], _READ),
    **dict.fromkeys(["key.added", "key.retired"], frozenset({"at", "kid", "by"})),
    "transfer.contradicted": frozenset(
        {"at", "by", "txn", "sub", "opr", "sbs", "con", "src", "rcp", "scp", "flw", "rpt", "ids"}
    ),
    "person.erased": frozenset({"at", "cnt", "law", "by"}),
}


@dataclass(frozen=True, slots=True)
class Sealed:
    """One finished entry: its public bytes, its leaf hash, and disclosures and digests by field name."""

    event_id: uuid.UUID
    typ: str
    entry: bytes
    leaf_hash: bytes
    disclosures: dict[str, str]
    digests: dict[str, str]


class UnknownField(ValueError):
    """The type is not a ledger type, or the field does not belong to it."""


def b64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).translate(_URL_SAFE, b"=").decode("ascii")


def plain(value: Any) -> Any:
    """A value as it goes into a disclosure: NFC strings, UTC times with six decimals, no floats, safe integers."""
    if isinstance(value, str):
        return value if value.isascii() else unicodedata.normalize("NFC", value)
    if isinstance(value, uuid.UUID):
        return str(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, datetime.datetime):
        return _instant(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, int):
        return value if abs(value) <= MAX_SAFE_INTEGER else str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} does not belong in the ledger")


@functools.lru_cache(maxsize=64)  # all entries of a batch are of one moment
def _instant(moment: datetime.datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError("a ledger time needs its time zone")
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@functools.lru_cache(maxsize=64)
def _day(moment: datetime.datetime) -> datetime.date:
    return moment.astimezone(SEOUL).date()


def disclose(name: str, value: Any, salt: bytes) -> str:
    """The disclosure of one field: base64url of the canonical [salt, name, value]."""
    value = plain(value)
    try:
        return b64(f'["{b64(salt)}",{_quoted(name)},{_canonical(value)}]'.encode())
    except UnicodeEncodeError:
        return b64(rfc8785.dumps([b64(salt), name, value]))  # says what is wrong


def _canonical(value: Any) -> str:
    """RFC 8785 by the standard library's faster encoder, which writes the same where no object needs its keys sorted."""
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, dict | list) and "{" in str(value):
        return rfc8785.dumps(value).decode()
    return _encoded(value)


def digest(disclosure: str) -> str:
    return b64(hashlib.sha256(disclosure.encode("ascii")).digest())


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def encode(*, typ: str, day: datetime.date, event_id: uuid.UUID, digests: list[str]) -> bytes:
    """The entry's bytes; the only thing of it that anybody can see."""
    public: dict[str, Any] = {
        "_sd": sorted(digests),
        "_sd_alg": "sha-256",
        "day": day.isoformat(),
        "id": str(event_id),
        "typ": typ,
        "v": 1,
    }
    entry = _encoded(public).encode() if typ.isascii() else rfc8785.dumps(public)
    if len(entry) > MAX_BYTES:
        raise ValueError(f"entry of {len(entry)} bytes is longer than {MAX_BYTES}")
    return entry


def seal(
    typ: str,
    *,
    at: datetime.datetime,
    fields: Mapping[str, Any],
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> Sealed:
    """A new entry about a moment, with fresh salts. Raises UnknownField for a type or field that is not agreed."""
    allowed = FIELDS.get(typ)
    if allowed is None:
        raise UnknownField(f"{typ} is not a ledger type")
    if unknown := sorted(set(fields) - allowed):
        raise UnknownField(f"{typ} has no field {', '.join(unknown)}")
    noise = random(16 * (len(fields) + 1))  # asked once: 16 bytes for each salt, and for the id
    salts = [noise[n : n + 16] for n in range(16, len(noise), 16)]
    disclosures = {
        name: disclose(name, value, salt) for (name, value), salt in zip(fields.items(), salts, strict=True)
    }
    digests = {name: digest(disclosure) for name, disclosure in disclosures.items()}
    event_id = uuid.UUID(bytes=noise[:16], version=4)
    entry = encode(typ=typ, day=_day(at), event_id=event_id, digests=list(digests.values()))
    return Sealed(event_id, typ, entry, leaf_hash(entry), disclosures, digests)
