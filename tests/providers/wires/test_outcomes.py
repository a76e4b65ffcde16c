"""The one table, row by row: status or code of an answer → class, each with where that is written."""

import pytest

from providers.wires import CHECK, GONE, KEY, REFUSED, RETRY, SENT
from providers.wires.outcomes import TABLE, classify

# Everywhere: RFC 9110 §15, RFC 8470 §5.2 (425), RFC 6585 §4 (429).
EVERYWHERE = {
    **dict.fromkeys((300, 301, 302, 303, 304, 307, 308), RETRY),  # never followed
    **dict.fromkeys((402, 405, 406, 409, 411, 412, 413, 414, 415, 418, 431, 451), REFUSED),
    **dict.fromkeys((408, 425, 429), RETRY),
    **dict.fromkeys((500, 501, 502, 503, 504, 520, 599), RETRY),
    **dict.fromkeys((100, 199, 600, 999), RETRY),
}
ERR = ("invalid_request", "invalid_issuer", "invalid_audience", "access_denied")
EXPECTED = {
    # the native wire: Standard Webhooks 1.0.0 (any 2xx is received, 410 switches off), and RFC 8935 §2.4 in a 400
    "": {
        200: SENT, 201: SENT, 202: SENT, 204: SENT, 400: REFUSED, 401: REFUSED, 403: REFUSED, 404: REFUSED, 410: GONE,
        422: REFUSED, (400, "invalid_key"): KEY, (400, "authentication_failed"): KEY, **{(400, err): REFUSED for err in ERR},
    },
    # the Korean standard API's table of codes, each under its own status; a success needs both
    "korea": {
        200: RETRY, 202: RETRY, 204: RETRY, 400: REFUSED, 401: KEY, 403: REFUSED, 404: REFUSED, 410: GONE, 422: REFUSED,
        (200, "00000"): SENT, (200, "99999"): CHECK, (400, "40001"): REFUSED, (400, "40002"): REFUSED, (401, "40101"): KEY,
        (401, "40102"): REFUSED, (401, "40103"): CHECK, (401, "40104"): REFUSED, (401, "40105"): REFUSED, (401, "40106"): CHECK,
        (403, "40301"): REFUSED, (403, "40302"): RETRY, (403, "40303"): REFUSED, (403, "40304"): REFUSED, (403, "40305"): REFUSED,
        (404, "40401"): REFUSED, (404, "40402"): CHECK, (404, "40403"): CHECK, (404, "40404"): CHECK, (405, "40501"): REFUSED,
        (429, "42901"): RETRY, (429, "42902"): RETRY, **{(500, f"5000{last}"): RETRY for last in range(1, 10)},
        # its token endpoint, RFC 6749 §5.2
        (401, "invalid_client"): KEY, (400, "unauthorized_client"): KEY, (500, "server_error"): RETRY,
        (503, "temporarily_unavailable"): RETRY, (400, "unsupported_grant_type"): REFUSED,
        **{(400, err): REFUSED for err in ("invalid_request", "invalid_grant", "invalid_scope", "access_denied")},
    },
    # RFC 8935 §2.2, §2.3, §2.4
    "push": {
        200: SENT, 201: SENT, 202: SENT, 204: SENT, 400: REFUSED, 401: KEY, 403: REFUSED, 404: REFUSED, 410: GONE,
        422: REFUSED, (400, "invalid_key"): KEY, (400, "authentication_failed"): KEY, (400, "invalid_request"): REFUSED,
        (400, "invalid_issuer"): REFUSED, (400, "invalid_audience"): REFUSED, (400, "access_denied"): REFUSED,
    },
    # RFC 6749 §5.2
    "token": {
        400: REFUSED, 401: KEY, 403: REFUSED, 404: REFUSED, 410: GONE, 422: REFUSED, (400, "invalid_client"): KEY,
        (401, "invalid_client"): KEY, (400, "unauthorized_client"): KEY, (400, "invalid_scope"): REFUSED,
        (400, "unsupported_grant_type"): REFUSED, (400, "invalid_grant"): REFUSED, (400, "invalid_request"): REFUSED,
    },
    # RFC 7009 §2.2, §2.2.1
    "revocation": {
        200: CHECK, 202: CHECK, 204: CHECK, 400: REFUSED, 401: KEY, 403: REFUSED, 404: REFUSED, 410: GONE, 422: REFUSED,
        (400, "unsupported_token_type"): REFUSED, (400, "invalid_request"): REFUSED, (400, "invalid_client"): KEY,
        (401, "invalid_client"): KEY,
    },
    # FAPI Grant Management §6.5, §6.6
    "grants": {
        200: CHECK, 202: CHECK, 204: SENT, 400: REFUSED, 401: KEY, 403: REFUSED, 404: CHECK, 410: CHECK, 422: REFUSED,
    },
    # CDR Arrangement Revocation End Point, response codes; client authentication is that of RFC 6749 §5.2
    "cdr": {
        200: CHECK, 202: CHECK, 204: SENT, 400: REFUSED, 401: KEY, 403: REFUSED, 404: REFUSED, 410: GONE, 422: CHECK,
        (400, "invalid_client"): KEY, (401, "invalid_client"): KEY,
    },
    # UK Read/Write Data API profile, status codes and error codes
    "uk": {
        200: CHECK, 202: CHECK, 204: SENT, 400: REFUSED, 401: KEY, 403: REFUSED, 404: CHECK, 410: CHECK, 422: REFUSED,
        (400, "UK.OBIE.Resource.NotFound"): CHECK, (400, "U011"): CHECK,
    },
}  # fmt: skip
ROWS = [
    (wire, *(key if isinstance(key, tuple) else (key, "")), verdict)
    for wire, rows in EXPECTED.items()
    for key, verdict in (EVERYWHERE | rows).items()
]


@pytest.mark.parametrize(("wire", "status", "code", "verdict"), ROWS)
def test_each_row(wire, status, code, verdict):
    outcome = classify(status, {"Retry-After": "30"}, wire=wire, code=code, digest="d")
    assert (outcome.verdict, outcome.status, outcome.digest) == (verdict, status, "d")
    assert outcome.detail.startswith(f"HTTP {status}") and code in outcome.detail
    waits = verdict == RETRY and not 300 <= status < 400
    assert outcome.retry_after == (30 if waits else None)


def test_every_row_of_the_table_is_tested():
    assert EXPECTED.keys() == TABLE.keys()
    for wire, rows in EXPECTED.items():
        tested = {str(key) if isinstance(key, int) else key[1] for key in EVERYWHERE | rows}
        assert {row for row in TABLE[wire] if not row.endswith("xx")} <= tested
        assert all(200 <= key < 300 or key >= 400 for key in rows if isinstance(key, int))
