"""One module per protocol; here is what they share: a message, where it goes, and how an answer is read."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime

# What became of one attempt.
SENT = "sent"  # the other side took it
CHECK = "check"  # it answered, but the answer proves little: read back before believing
RETRY = "retry"  # try again later
KEY = "key"  # it does not know our key or credential yet: wait for a change
BLOCKED = "blocked"  # our own policy forbids the address
REFUSED = "refused"  # it will never take this: a person must look
GONE = "gone"  # the address was switched off by its owner

LONGEST_WAIT = 3600  # seconds; a longer Retry-After is cut

_LATER = {408, 425, 429}
_KEY_ERRORS = {"invalid_key", "authentication_failed"}  # RFC 8935 §2.4
_ERRORS = _KEY_ERRORS | {"invalid_request", "invalid_issuer", "invalid_audience", "access_denied"}


@dataclass(frozen=True)
class Message:
    """One delivery as it was stored: the bytes never change between attempts."""

    jti: str
    body: bytes


@dataclass(frozen=True)
class Endpoint:
    """Where a message goes, and the secrets it is signed with: two while one is being rotated."""

    address: str
    secrets: list[bytes] = field(repr=False)


@dataclass(frozen=True)
class Outcome:
    """One attempt's result. `detail` is short, plain and free of the other side's text; `retry_after` is in seconds;
    `digest` is the SHA-256 of the answer's body, in hexadecimal."""

    verdict: str
    status: int | None = None
    detail: str = ""
    retry_after: int | None = None
    digest: str = ""


def classify(
    status: int, headers: Mapping[str, str], body: bytes, *, digest: str = "", now: int | None = None
) -> Outcome:
    """What an HTTP answer means. `now` (epoch seconds) is only needed to read a Retry-After that is a date."""
    error = _error_code(body) if status == 400 else ""
    detail = f"HTTP {status} {error}".rstrip()
    if 200 <= status < 300:
        return Outcome(SENT, status, detail, None, digest)
    if error in _KEY_ERRORS:
        return Outcome(KEY, status, detail, None, digest)
    if status == 410:
        return Outcome(GONE, status, detail, None, digest)
    if 300 <= status < 400:
        # Never followed: where it points may be inside our network. It fails like an error until somebody mends it.
        return Outcome(RETRY, status, f"{detail} redirect", None, digest)
    if status in _LATER or not 400 <= status < 500:
        return Outcome(
            RETRY, status, detail, _retry_after(headers, int(time.time()) if now is None else now), digest
        )
    return Outcome(REFUSED, status, detail, None, digest)


def _error_code(body: bytes) -> str:
    try:
        answer = json.loads(body)
        code = answer.get("err")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return code if isinstance(code, str) and code in _ERRORS else ""


def _retry_after(headers: Mapping[str, str], now: int) -> int | None:
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text[:12]), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(int(at.timestamp()) - now, 0), LONGEST_WAIT)
