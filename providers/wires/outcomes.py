"""What an answer to one attempt means: one table for every wire (status or code of the answer → class)."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime

# What became of one attempt.
SENT = "sent"  # the other side took it
RECEIVED = "received"  # it names the message as one that it has
CHECK = "check"  # it answered, but the answer proves little: read back before believing
RETRY = "retry"  # try again later
KEY = "key"  # it does not know our key or credential yet: wait for a change
BLOCKED = "blocked"  # our own policy forbids the address
REFUSED = "refused"  # it will never take this: a person must look
GONE = "gone"  # the address was switched off by its owner

LONGEST_WAIT = 3600  # seconds; a longer Retry-After is cut

# A row is looked for by the answer's own code, by its status, by its hundred; first under the wire, then under "".
# A redirect is never followed (where it points may be inside our network): it fails like an error until somebody mends it.
TABLE: dict[str, dict[str, str]] = {
    "": {
        "invalid_key": KEY,  # RFC 8935 §2.4
        "authentication_failed": KEY,
        "2xx": SENT,
        "3xx": RETRY,
        "408": RETRY,
        "410": GONE,
        "425": RETRY,
        "429": RETRY,
        "4xx": REFUSED,
    },
    # RFC 8935 §2.4: who sends is not let in, which HTTP says with 401 as well.
    "push": {"401": KEY},
    # RFC 6749 §5.2, where a bearer token is fetched.
    "token": {"401": KEY, "invalid_client": KEY, "unauthorized_client": KEY},
    # RFC 7009 §2.2 answers 200 for a token it never knew as well.
    "revocation": {"2xx": CHECK, "401": KEY, "invalid_client": KEY, "unsupported_token_type": REFUSED},
    # FAPI Grant Management §6.6: 404 is a grant they do not know, 401 a token of ours that is not good. 410 is the
    # grant, not the address.
    "grants": {"204": SENT, "2xx": CHECK, "401": KEY, "404": CHECK, "410": CHECK},
    # CDR: 422 Invalid Consent Arrangement; its client authentication is OAuth's.
    "cdr": {"204": SENT, "2xx": CHECK, "401": KEY, "invalid_client": KEY, "422": CHECK},
    # UK Open Banking: DELETE of a consent that is not there any more is 400 with a code, at some banks 404 or 410.
    "uk": {
        "204": SENT,
        "UK.OBIE.Resource.NotFound": CHECK,  # v3.1
        "U011": CHECK,  # v4.0
        "2xx": CHECK,
        "401": KEY,
        "400": REFUSED,
        "404": CHECK,
        "410": CHECK,
    },
    # Korean standard API: `rsp_code` says more than the status. What is already ended is read back before it is believed.
    "korea": {
        "00000": SENT,
        "99999": CHECK,  # "not a valid token" on a stop: ended, or never there
        "40001": REFUSED,  # a parameter
        "40002": REFUSED,  # a header
        "40101": KEY,  # our token
        "40102": REFUSED,  # our network address is not on their list
        "40103": CHECK,  # revoked token
        "40104": REFUSED,  # no right to this call
        "40105": REFUSED,  # no right to this asset
        "40106": CHECK,  # the transfer request has run out
        "40301": REFUSED,
        "40302": RETRY,  # limited for a while
        "40303": REFUSED,  # they do not know our organization code
        "40304": REFUSED,  # older than five years
        "40305": REFUSED,  # an asset that is not in order
        "40401": REFUSED,  # no such address
        "40402": CHECK,  # no such asset
        "40403": CHECK,  # no such customer
        "40404": CHECK,  # a closed asset
        "40501": REFUSED,
        "42901": RETRY,
        "42902": RETRY,
        **{f"5000{last}": RETRY for last in range(1, 10)},
        # their token endpoint, RFC 6749 §5.2
        "invalid_client": KEY,
        "unauthorized_client": KEY,
        "server_error": RETRY,
        "temporarily_unavailable": RETRY,
        **dict.fromkeys(("invalid_request", "invalid_grant", "invalid_scope", "access_denied"), REFUSED),
        "unsupported_grant_type": REFUSED,
        "2xx": RETRY,  # a 200 without a code we know says nothing
        "401": KEY,
    },
}  # fmt: skip
_ERR_CODES = {
    "invalid_key",
    "authentication_failed",
    "invalid_request",
    "invalid_issuer",
    "invalid_audience",
    "access_denied",
}  # RFC 8935 §2.4


@dataclass(frozen=True)
class Outcome:
    """One attempt's result. `detail` is short, plain and free of the other side's text; `retry_after` is in seconds;
    `digest` is the SHA-256 of the answer's body, in hexadecimal; `handle` what the other side will call this stop."""

    verdict: str
    status: int | None = None
    detail: str = ""
    retry_after: int | None = None
    digest: str = ""
    handle: str = ""


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    wire: str = "",
    code: str | None = None,
    digest: str = "",
    now: int | None = None,
) -> Outcome:
    """What an HTTP answer means to `wire`. `code` is the answer's own code where the wire has read one (default: the `err`
    of a 400, RFC 8935 §2.4). `now` (epoch seconds) is only needed to read a Retry-After that is a date."""
    if code is None:
        code = _error_code(body) if status == 400 else ""
    verdict = _row(wire, status, code)
    detail = f"HTTP {status} {code}".rstrip() + (" redirect" if 300 <= status < 400 else "")
    wait = None
    if verdict == RETRY and not 300 <= status < 400:
        wait = _retry_after(headers, int(time.time()) if now is None else now)
    return Outcome(verdict, status, detail, wait, digest)


def _row(wire: str, status: int, code: str) -> str:
    for rows in (TABLE[wire], TABLE[""]):
        for key in (code, str(status), f"{status // 100}xx"):
            if key and key in rows:
                return rows[key]
    return RETRY  # 1xx, 5xx and numbers that no standard knows


def _error_code(body: bytes) -> str:
    try:
        answer = json.loads(body)
        code = answer.get("err")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return code if isinstance(code, str) and code in _ERR_CODES else ""


def _retry_after(headers: Mapping[str, str], now: int) -> int | None:
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "").strip()
    if text.isascii() and text.isdigit():
        return min(int(text.lstrip("0")[:12] or "0"), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(int(at.timestamp()) - now, 0), LONGEST_WAIT)
