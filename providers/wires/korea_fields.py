"""The fields of the Korean support API, each call's request and answer in one table, and what breaks them.

Types and lengths are those of the published tables (금융분야 마이데이터 표준 API, support API and 전송요구 between institutions).
Where no length is published, ours is marked so. The same table serves a caller and a server.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

KOREA = timezone(timedelta(hours=9))
MOST_ROWS = 500  # rows in one list; `limit` may not ask for more
OK = "00000"
AVAILABILITY = {"01": "up", "02": "down", "03": "maintenance", "99": "other"}  # 지원-102
PROVISION = {"01": "normal", "02": "revoking", "03": "revoked", "04": "work finished"}  # 지원-105

_TEXTS = {
    "A": re.compile(r"[A-Za-z]+"),
    "AN": re.compile(r"[A-Z0-9]+"),
    # "letters and digits"; identifiers in the published examples also hold these three signs
    "aN": re.compile(r"[A-Za-z0-9._-]+"),
    "aNS": re.compile(r"[\x20-\x7e]+"),
    "B64": re.compile(r"[A-Za-z0-9+/]+={0,2}"),
    "AH": re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]+"),
    "N": re.compile(r"[0-9]+"),  # as a text: codes and parameters of a GET
    "DATE": re.compile(r"[0-9]{8}"),
    "DTIME": re.compile(r"[0-9]{14}"),
}


@dataclass(frozen=True)
class Field:
    """One field: its type, its longest length (`exact`: the only one), and when it must be there.

    `when` names a Boolean beside it: the field must be there if that is true and must not if it is false. A list (`rows`)
    must have as many rows as the number named by `count` says; an empty one may be left out."""

    type: str
    length: int = 0
    required: bool = True
    exact: bool = False
    values: tuple[str, ...] = ()
    when: str = ""
    rows: Mapping[str, "Field"] = field(default_factory=dict)
    count: str = ""


@dataclass(frozen=True)
class Call:
    """One call: how it is made, what is asked, what a success (`rsp_code` 00000) answers."""

    method: str
    path: str
    request: Mapping[str, Field]
    answer: Mapping[str, Field]


def _text(kind: str, length: int, **more) -> Field:
    return Field(kind, length, **more)


def _rows(rows: Mapping[str, Field], count: str, **more) -> Field:
    return Field("rows", MOST_ROWS, rows=rows, count=count, **more)


_ORG = _text("aN", 10, exact=True)
_CI = _text("B64", 100)
_NUMBER = _text("aN", 50)  # prov_consent_num: organization code and the operator's own number
_TX = _text("aNS", 74)
_DATE, _DTIME, _TRUTH = Field("DATE", 8), Field("DTIME", 14), Field("Boolean")
RSP: Mapping[str, Field] = {"rsp_code": _text("aN", 5, exact=True), "rsp_msg": _text("AH", 450)}
TRAN_ID = _text("AN", 25, exact=True)

FIELDS: dict[str, Call] = {
    "지원-101": Call(
        "POST",
        "/mgmts/oauth/2.0/token",
        {
            "grant_type": _text("aNS", 18, values=("client_credentials",)),
            "client_id": _text("aN", 50),
            "client_secret": _text("aNS", 50),
            "scope": _text("A", 6, values=("manage",)),
        },
        {  # an OAuth answer (RFC 6749 §5.1), which need not carry rsp_code
            "rsp_code": _text("aN", 5, exact=True, required=False),
            "rsp_msg": _text("AH", 450, required=False),
            "token_type": _text("A", 6, values=("Bearer", "bearer")),
            "access_token": _text("aNS", 1500),
            "expires_in": Field("N", 9),
            "scope": _text("aNS", 128, required=False),
        },
    ),
    "지원-102": Call(
        "GET",
        "/{version}/mgmts/status",
        {"org_code": _ORG},
        {**RSP, "availability": _text("aN", 2, values=tuple(AVAILABILITY))},
    ),
    "지원-103": Call(
        "POST",
        "/{version}/mgmts/consents",
        {"org_code": _ORG, "user_ci": _CI},
        {
            **RSP,
            "is_member": _TRUTH,
            "service_cnt": Field("N", 3, when="is_member"),
            "service_list": _rows(
                {
                    "client_id": _text("aN", 50),
                    "consent_cnt": Field("N", 3),
                    "consent_list": _rows(
                        {
                            "org_code": _ORG,
                            "scope": _text("aNS", 200),
                            "consent_date": _DATE,
                            "consent_end_date": _DATE,
                        },
                        "consent_cnt",
                    ),
                },
                "service_cnt",
                when="is_member",
            ),
        },
    ),
    "지원-105": Call(
        "POST",
        "/v2/mgmts/agreements",
        {"org_code": _ORG, "user_ci": _CI},
        {
            **RSP,
            "prov_consent_cnt": Field("N", 3),
            "prov_consent_list": _rows(
                {
                    "prov_consent_num": _NUMBER,
                    "prov_consent_status": _text("aN", 2, values=tuple(PROVISION)),
                    "is_once": _TRUTH,
                    "prov_revoke_dtime": Field("DTIME", 14, required=False),
                    "revoke_info": _text("AH", 300, required=False),
                    "prov_service_name": _text("AH", 300),  # ours
                    "prov_consent_name": _text("AH", 300),  # ours
                    "prov_consent_dtime": _DTIME,
                    "snd_org_code": _ORG,
                    "consent_rcv_name": _text("AH", 500),  # ours
                    "prov_consent_purpose": _text("AH", 1000),
                    "prov_consent_period": _text("AH", 300),  # ours
                },
                "prov_consent_cnt",
            ),
        },
    ),
    "지원-106": Call(
        "POST",
        "/v2/mgmts/agreements/detail",
        {
            "org_code": _ORG,
            "prov_consent_num": _NUMBER,
            "from_dtime": _DTIME,
            "to_dtime": _DTIME,
            "limit": Field("N", 3),
            "next_page": _text("aNS", 1000, required=False),
        },
        {
            **RSP,
            "next_page": _text("aNS", 1000, required=False),
            "prov_cnt": Field("N", 3),
            "prov_list": _rows(
                {
                    "snd_org_code": _ORG,
                    "prov_rcv_name": _text("AH", 500),  # ours
                    "prov_purpose": _text("AH", 1000),
                    "prov_period": _text("AH", 300),  # ours
                    "prov_asset": _text("AH", 5000),
                    "is_reward": _TRUTH,
                    "prov_dtime": _DTIME,
                },
                "prov_cnt",
            ),
        },
    ),
    "지원-107": Call(
        "POST", "/v2/mgmts/agreements/revoke", {"org_code": _ORG, "prov_consent_num": _NUMBER}, RSP
    ),
    "전송요구-003": Call(
        "POST",
        "/consents/result",
        {
            "type": _text("aN", 2, values=("01", "02")),
            "result_code": _text("aN", 5, exact=True),
            "result_msg": _text("AH", 450),
            "tx_id": _TX,
            "user_ci": _CI,
        },
        RSP,
    ),
    "전송요구-004": Call(
        "POST", "/consents/revoke", {"tx_id": _TX, "user_ci": _CI, "is_delete": _TRUTH}, RSP
    ),
    "전송요구-005": Call(
        "POST",
        "/consents/req-result",
        {"type": _text("aN", 2, values=("01", "02")), "tx_id": _TX, "user_ci": _CI},
        RSP,
    ),
}


def problem(fields: Mapping[str, Field], given: object) -> str:
    """What breaks the table first, as `name: what`, or an empty text. Never holds a value: some are secret.

    A field that is not in the table is none of our business: the standard grows by adding some."""
    if not isinstance(given, dict):
        return "not an object"
    for name, wanted in fields.items():
        value = given.get(name)
        absent = value is None or value == ""
        if wanted.when and given.get(wanted.when) is False:
            if value:
                return f"{name}: must not be there"
            continue
        if wanted.type == "rows":
            found = _rows_problem(wanted, given.get(wanted.count), [] if value is None else value)
        elif absent:
            found = "missing" if wanted.required else ""
        else:
            found = _value_problem(wanted, value)
        if found:
            return f"{name}: {found}"
    return ""


def _rows_problem(wanted: Field, count: object, rows: object) -> str:
    if not isinstance(rows, list):
        return "not a list"
    if len(rows) > wanted.length:
        return f"more than {wanted.length} rows"
    if len(rows) != count:
        return f"another number of rows than {wanted.count} says"
    return next(
        (f"row {n}, {found}" for n, row in enumerate(rows) if (found := problem(wanted.rows, row))), ""
    )


def _value_problem(wanted: Field, value: Any) -> str:
    if wanted.type == "Boolean":
        return "" if isinstance(value, bool) else "not true or false"
    if wanted.type == "N":
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**wanted.length
        return "" if fits else f"not a number of at most {wanted.length} digits"
    if not isinstance(value, str):
        return "not a text"
    if len(value) > wanted.length or (wanted.exact and len(value) < wanted.length):
        return f"longer than {wanted.length}" if len(value) > wanted.length else f"not {wanted.length} long"
    if not _TEXTS[wanted.type].fullmatch(value):
        return f"not {wanted.type}"
    if wanted.values and value not in wanted.values:
        return "a value that the table does not know"
    if wanted.type in {"DATE", "DTIME"} and moment(value) is None:
        return "no such day or time"
    return ""


def moment(text: str) -> datetime | None:
    """A DATE (midnight) or DTIME in Korean time, or None where the calendar or the clock has none."""
    try:
        return datetime.strptime(text, "%Y%m%d" if len(text) == 8 else "%Y%m%d%H%M%S").replace(tzinfo=KOREA)
    except ValueError:
        return None


def dtime(at: float) -> str:
    """Epoch seconds as DTIME in Korean time."""
    return datetime.fromtimestamp(at, KOREA).strftime("%Y%m%d%H%M%S")
