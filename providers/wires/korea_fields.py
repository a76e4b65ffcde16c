"""The fields of the Korean support API, each call's request and answer in one table, and what breaks them.

Types and lengths are those of the published tables (금융분야 마이데이터 표준 API, support API and 전송요구 between institutions).
Where no length is published, ours is marked so. The same table serves a caller and a server: these are the calls that we make
at others (지원-101…107, 전송요구-003…005); those that others make at us stand in korea_served.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

KOREA = timezone(timedelta(hours=9))
MOST_ROWS = 500  # rows in one list; `limit` may not ask for more
OK = "00000"
UP = "up"
AVAILABILITY = {"01": UP, "02": "down", "03": "maintenance", "99": "other"}  # 지원-102
PROVISION = {"01": "normal", "02": "revoking", "03": "revoked", "04": "work finished"}  # 지원-105

TEXTS = {
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
    "F": re.compile(r"[0-9]{1,15}(\.[0-9]{1,3})?"),  # F(18,3), as a text or as a number
}
_UNKNOWN = "a value that the table does not know"
_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")


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


def text(kind: str, length: int, **more) -> Field:
    return Field(kind, length, **more)


def rows(rows: Mapping[str, Field], count: str, **more) -> Field:
    return Field("rows", MOST_ROWS, rows=rows, count=count, **more)


ORG = text("aN", 10, exact=True)
_CI = text("B64", 100)
_NUMBER = text("aN", 50)  # prov_consent_num: organization code and the operator's own number
_TX = text("aNS", 74)
DATE, DTIME, TRUTH = Field("DATE", 8), Field("DTIME", 14), Field("Boolean")
RSP: Mapping[str, Field] = {"rsp_code": text("aN", 5, exact=True), "rsp_msg": text("AH", 450)}
TRAN_ID = text("AN", 25, exact=True)

FIELDS: dict[str, Call] = {
    "지원-101": Call(
        "POST",
        "/mgmts/oauth/2.0/token",
        {
            "grant_type": text("aNS", 18, values=("client_credentials",)),
            "client_id": text("aN", 50),
            "client_secret": text("aNS", 50),
            "scope": text("A", 6, values=("manage",)),
        },
        {  # an OAuth answer (RFC 6749 §5.1), which need not carry rsp_code
            "rsp_code": text("aN", 5, exact=True, required=False),
            "rsp_msg": text("AH", 450, required=False),
            "token_type": text("A", 6, values=("Bearer", "bearer")),
            "access_token": text("aNS", 1500),
            "expires_in": Field("N", 9),
            "scope": text("aNS", 128, required=False),
        },
    ),
    "지원-102": Call(
        "GET",
        "/{version}/mgmts/status",
        {"org_code": ORG},
        {**RSP, "availability": text("aN", 2, values=tuple(AVAILABILITY))},
    ),
    "지원-103": Call(
        "POST",
        "/{version}/mgmts/consents",
        {"org_code": ORG, "user_ci": _CI},
        {
            **RSP,
            "is_member": TRUTH,
            "service_cnt": Field("N", 3, when="is_member"),
            "service_list": rows(
                {
                    "client_id": text("aN", 50),
                    "consent_cnt": Field("N", 3),
                    "consent_list": rows(
                        {
                            "org_code": ORG,
                            "scope": text("aNS", 200),
                            "consent_date": DATE,
                            "consent_end_date": DATE,
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
        {"org_code": ORG, "user_ci": _CI},
        {
            **RSP,
            "prov_consent_cnt": Field("N", 3),
            "prov_consent_list": rows(
                {
                    "prov_consent_num": _NUMBER,
                    "prov_consent_status": text("aN", 2, values=tuple(PROVISION)),
                    "is_once": TRUTH,
                    "prov_revoke_dtime": Field("DTIME", 14, required=False),
                    "revoke_info": text("AH", 300, required=False),
                    "prov_service_name": text("AH", 300),  # ours
                    "prov_consent_name": text("AH", 300),  # ours
                    "prov_consent_dtime": DTIME,
                    "snd_org_code": ORG,
                    "consent_rcv_name": text("AH", 500),  # ours
                    "prov_consent_purpose": text("AH", 1000),
                    "prov_consent_period": text("AH", 300),  # ours
                },
                "prov_consent_cnt",
            ),
        },
    ),
    "지원-106": Call(
        "POST",
        "/v2/mgmts/agreements/detail",
        {
            "org_code": ORG,
            "prov_consent_num": _NUMBER,
            "from_dtime": DTIME,
            "to_dtime": DTIME,
            "limit": Field("N", 3),
            "next_page": text("aNS", 1000, required=False),
        },
        {
            **RSP,
            "next_page": text("aNS", 1000, required=False),
            "prov_cnt": Field("N", 3),
            "prov_list": rows(
                {
                    "snd_org_code": ORG,
                    "prov_rcv_name": text("AH", 500),  # ours
                    "prov_purpose": text("AH", 1000),
                    "prov_period": text("AH", 300),  # ours
                    "prov_asset": text("AH", 5000),
                    "is_reward": TRUTH,
                    "prov_dtime": DTIME,
                },
                "prov_cnt",
            ),
        },
    ),
    "지원-107": Call(
        "POST", "/v2/mgmts/agreements/revoke", {"org_code": ORG, "prov_consent_num": _NUMBER}, RSP
    ),
    "전송요구-003": Call(
        "POST",
        "/consents/result",
        {
            "type": text("aN", 2, values=("01", "02")),
            "result_code": text("aN", 5, exact=True),
            "result_msg": text("AH", 450),
            "tx_id": _TX,
            "user_ci": _CI,
        },
        RSP,
    ),
    "전송요구-004": Call("POST", "/consents/revoke", {"tx_id": _TX, "user_ci": _CI, "is_delete": TRUTH}, RSP),
    "전송요구-005": Call(
        "POST",
        "/consents/req-result",
        {"type": text("aN", 2, values=("01", "02")), "tx_id": _TX, "user_ci": _CI},
        RSP,
    ),
}


def problem(fields: Mapping[str, Field], given: object, *, strict: bool = False) -> str:
    """What breaks the table first, as `name: what`, or an empty text. Never holds a value: some are secret.

    A field that is not in the table is none of our business when others answer us: the standard grows by adding some.
    `strict` refuses it: what others send us must be what we read."""
    if not isinstance(given, dict):
        return "not an object"
    if strict and (unknown := [name for name in given if name not in fields]):
        return f"{unknown[0] if _NAME.fullmatch(unknown[0]) else 'a field'}: not in the table"
    for name, wanted in fields.items():
        value = given.get(name)
        absent = value is None or value == ""
        if wanted.when and given.get(wanted.when) is False:
            if value:
                return f"{name}: must not be there"
            continue
        if wanted.type == "rows":
            count = given.get(wanted.count)
            uncounted = count is None and not fields[wanted.count].required
            rows = [] if value is None else value
            found = _rows_problem(wanted, None if uncounted else count, rows, uncounted, strict)
        elif absent:
            found = "missing" if wanted.required else ""
        else:
            found = _value_problem(wanted, value)
        if found:
            return f"{name}: {found}"
    return ""


def _rows_problem(wanted: Field, count: object, rows: object, uncounted: bool, strict: bool) -> str:
    if not isinstance(rows, list):
        return "not a list"
    if len(rows) > wanted.length:
        return f"more than {wanted.length} rows"
    if not uncounted and len(rows) != count:
        return f"another number of rows than {wanted.count} says"
    problems = (problem(wanted.rows, row, strict=strict) for row in rows)
    return next((f"row {n}, {found}" for n, found in enumerate(problems) if found), "")


def _value_problem(wanted: Field, value: Any) -> str:
    if wanted.type == "Boolean":
        return "" if isinstance(value, bool) else "not true or false"
    if wanted.type == "N" and not wanted.exact:
        fits = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**wanted.length
        if not fits:
            return f"not a number of at most {wanted.length} digits"
        return "" if not wanted.values or str(value) in wanted.values else _UNKNOWN
    if wanted.type == "F" and isinstance(value, int | float) and not isinstance(value, bool):
        value = f"{value:.3f}" if math.isfinite(value) else ""
    if not isinstance(value, str):
        return "not a text"
    if len(value) > wanted.length or (wanted.exact and len(value) < wanted.length):
        return f"longer than {wanted.length}" if len(value) > wanted.length else f"not {wanted.length} long"
    if not TEXTS[wanted.type].fullmatch(value):
        return f"not {wanted.type}"
    if wanted.values and value not in wanted.values:
        return _UNKNOWN
    if wanted.type in {"DATE", "DTIME"} and moment(value) is None:
        return "no such day or time"
    return ""


def moment(text: str) -> datetime | None:
    """A DATE (midnight) or DTIME in Korean time, or None where the calendar or the clock has none."""
    try:
        return datetime.strptime(text, "%Y%m%d" if len(text) == 8 else "%Y%m%d%H%M%S").replace(tzinfo=KOREA)
    except ValueError:
        return None


def from_query(fields: Mapping[str, Field], given: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a GET as the table has them: numbers that came as digits are numbers again."""
    return {
        name: int(value)
        if name in fields and fields[name].type == "N" and re.fullmatch(r"[0-9]{1,18}", value)
        else value
        for name, value in given.items()
    }


def dtime(at: float) -> str:
    """Epoch seconds as DTIME in Korean time."""
    return datetime.fromtimestamp(at, KOREA).strftime("%Y%m%d%H%M%S")
