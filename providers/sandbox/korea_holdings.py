"""What the pretend organizations' Korean API shows of the holdings, and what a stop that comes over it does to them.

Names over there: a person's CI is the base64 of the subject the organization knows them by (nobody's real CI is here); a
prov_consent_num is the id of a third-party consent; a tx_id is `RO_` and the id of a consent or of a subscription.
"""

import base64
import json
import sqlite3
import time
from datetime import datetime, timedelta, timezone

from . import holdings

KOREA = timezone(timedelta(hours=9))
SINCE, UNTIL = "20260110", "20270110"  # the holdings know no dates: every consent is from this day to that
FIRST_PROVISION = datetime(2026, 1, 10, 10, 15, tzinfo=KOREA)
WEEK = timedelta(days=7)
MOST_ROWS = 500

# Steps of a duty, beside those of holdings: the stop comes into force, then its result is told (전송요구-003).
STOP, RESULT = 4, 5

SCHEMA = """CREATE TABLE IF NOT EXISTS kr_stop (
  organization TEXT NOT NULL, consent TEXT NOT NULL, says TEXT NOT NULL CHECK (says IN ('02', '03')),
  revoked_at REAL, PRIMARY KEY (organization, consent)) WITHOUT ROWID"""

_LIVE = (holdings.ACTIVE, holdings.PAUSED)


def prepare(db: sqlite3.Connection) -> None:
    db.execute(SCHEMA)


def subject_of(ci: str) -> str:
    """The subject in a pretend CI; empty for anybody else's."""
    try:
        return base64.b64decode(ci, validate=True).decode("utf-8")
    except ValueError:
        return ""


# What it shows


def consents(db: sqlite3.Connection, organization: str, subject: str) -> dict:
    """지원-103: transfer requests in force, a service each."""
    live = [row for row in _of(db, organization, subject) if row["state"] in _LIVE]
    if not live:
        return {"is_member": False}
    services: dict[str, list[dict]] = {}
    for row in live:
        listed = services.setdefault(row["service"], [])
        if row["kind"] == "transfer":
            scope = " ".join(json.loads(row["scopes"]))
            listed.append(
                {
                    "org_code": row["source"],
                    "scope": scope,
                    "consent_date": SINCE,
                    "consent_end_date": UNTIL,
                }
            )
    rows = [
        {"client_id": service, "consent_cnt": len(listed), "consent_list": listed}
        for service, listed in services.items()
    ]
    return {"is_member": True, "service_cnt": len(rows), "service_list": rows}


def agreements(db: sqlite3.Connection, organization: str, subject: str) -> dict:
    """지원-105: third-party consents, whatever became of them."""
    asked = _stops(db, organization)
    rows = []
    for row in _of(db, organization, subject):
        if row["kind"] != "third_party":
            continue
        stop = asked.get(row["consent"])
        status = "03"
        if row["state"] in _LIVE:
            status = "02" if stop and stop["says"] == "02" else "01"
        shown = {
            "prov_consent_num": row["consent"],
            "prov_consent_status": status,
            "is_once": False,
            "revoke_info": "철회하면 이 서비스를 더 쓸 수 없어요.",
            "prov_service_name": row["service"],
            "prov_consent_name": "제3자 제공 동의(선택)",
            "prov_consent_dtime": f"{SINCE}101500",
            "snd_org_code": organization,
            "consent_rcv_name": row["source"] or "제3자",
            "prov_consent_purpose": "상품 안내",
            "prov_consent_period": "동의일로부터 1년",
        }
        if status == "03" and stop and stop["revoked_at"]:
            shown["prov_revoke_dtime"] = _dtime(stop["revoked_at"])
        rows.append(shown)
    return {"prov_consent_cnt": len(rows), "prov_consent_list": rows}


def provided(db: sqlite3.Connection, organization: str, asked: dict, now: float) -> dict | None:
    """지원-106: a provision every week while the consent is in force. None where there is no such consent."""
    row = _third_party(db, organization, asked["prov_consent_num"])
    if row is None:
        return None
    stop = _stops(db, organization).get(row["consent"])
    end = now if row["state"] in _LIVE else (stop and stop["revoked_at"]) or 0
    first, last = max(_at(asked["from_dtime"]), FIRST_PROVISION.timestamp()), min(_at(asked["to_dtime"]), end)
    skipped = max(0, -int(-(first - FIRST_PROVISION.timestamp()) // WEEK.total_seconds()))
    moments, at = [], FIRST_PROVISION + skipped * WEEK
    while at.timestamp() <= last:
        moments.append(at)
        at += WEEK
    start, size = int(asked.get("next_page") or 0), min(int(asked["limit"]), MOST_ROWS)
    shown = [
        {
            "snd_org_code": organization,
            "prov_rcv_name": row["source"] or "제3자",
            "prov_purpose": "상품 안내",
            "prov_period": "1년",
            "prov_asset": "가입 상품 목록",
            "is_reward": False,
            "prov_dtime": f"{moment:%Y%m%d%H%M%S}",
        }
        for moment in moments[start : start + size]
    ]
    following = str(start + size) if start + size < len(moments) else ""
    return {"next_page": following, "prov_cnt": len(shown), "prov_list": shown}


# What a stop does


def end_provision(
    db: sqlite3.Connection, organization: str, tran: str, number: str, plan: holdings.Plan, at: float
) -> str:
    """지원-107: the code of the answer. It is only taken here; it comes into force by a duty."""
    row = _third_party(db, organization, number)
    if row is None:
        return "40402"
    return _end(db, organization, tran, "지원-107", [row], plan, at, {})


def end_transfer(
    db: sqlite3.Connection, organization: str, tran: str, asked: dict, plan: holdings.Plan, at: float
) -> str:
    """전송요구-004: likewise, and the result is told afterwards."""
    rows = _transaction(db, organization, asked)
    if not rows:
        return "40403"
    result = {"tx_id": asked["tx_id"], "user_ci": asked["user_ci"]}
    return _end(db, organization, tran, "전송요구-004", rows, plan, at, result, delete=asked["is_delete"])


def tell_again(
    db: sqlite3.Connection, organization: str, tran: str, asked: dict, answers: bool, at: float
) -> str:
    """전송요구-005: the result once more, if there is one by now."""
    rows = _transaction(db, organization, asked)
    if not rows:
        return "40403"
    if answers and all(row["state"] not in _LIVE for row in rows):
        _owe(db, organization, tran, RESULT, at, {"tx_id": asked["tx_id"], "user_ci": asked["user_ci"]})
    return "00000"


def finish(db: sqlite3.Connection, organization: str, content: dict) -> None:
    """The stop comes into force: 02 becomes 03, and what was to be deleted is."""
    state, present = (holdings.ERASED, 0) if content["delete"] else (holdings.STOPPED, 1)
    for consent in content["consents"]:
        db.execute(
            "UPDATE holding SET state = ?, data_present = ? WHERE organization = ? AND consent = ? "
            "AND state IN ('active', 'paused')",
            [state, present, organization, consent],
        )
        db.execute(
            "UPDATE kr_stop SET says = '03', revoked_at = ? WHERE organization = ? AND consent = ?",
            [time.time(), organization, consent],
        )


def _end(
    db: sqlite3.Connection,
    organization: str,
    tran: str,
    kind: str,
    rows: list[sqlite3.Row],
    plan: holdings.Plan,
    at: float,
    result: dict,
    *,
    delete: bool = False,
) -> str:
    key = [organization, tran]
    again = db.execute("SELECT 1 FROM message WHERE organization = ? AND jti = ?", key).fetchone()
    if again:
        db.execute("UPDATE message SET arrivals = arrivals + 1 WHERE organization = ? AND jti = ?", key)
        return "00000"
    live = [row for row in rows if row["state"] in _LIVE]
    known = [
        "kept" if plan.keeps_data else "done" if live else "nothing",
        int(bool(live) and not plan.keeps_data),
    ]
    db.execute(
        "INSERT INTO message VALUES (?, ?, '', ?, ?, ?, ?, 1, ?, ?)",
        [*key, kind, rows[0]["subject"], rows[0]["subscription"], at, known[1], known[0]],
    )
    if not live:
        return "99999"
    if not plan.keeps_data:
        named = [row["consent"] for row in live]
        db.executemany(
            "INSERT OR REPLACE INTO kr_stop VALUES (?, ?, '02', NULL)", [[organization, one] for one in named]
        )
        if plan.answers:
            _owe(db, organization, tran, STOP, at + plan.delays[0], {"consents": named, "delete": delete})
            if plan.resurrects_after is not None:
                back = [dict(row) for row in live]
                due = at + plan.delays[0] + plan.resurrects_after
                _owe(db, organization, tran, holdings.RESURRECT, due, back)
    if result and plan.answers:
        _owe(db, organization, tran, RESULT, at + plan.delays[0], result)
    return "00000"


def _owe(
    db: sqlite3.Connection, organization: str, tran: str, step: int, due_at: float, content: object
) -> None:
    db.execute(
        "INSERT OR IGNORE INTO duty (organization, jti, step, state, due_at, content) VALUES (?, ?, ?, 'open', ?, ?)",
        [organization, tran, step, due_at, json.dumps(content)],
    )


def _of(db: sqlite3.Connection, organization: str, subject: str) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT * FROM holding WHERE organization = ? AND subject = ? ORDER BY subscription, consent LIMIT ?",
        [organization, subject, MOST_ROWS],
    ).fetchall()


def _third_party(db: sqlite3.Connection, organization: str, number: str) -> sqlite3.Row | None:
    return db.execute(
        "SELECT * FROM holding WHERE organization = ? AND consent = ? AND kind = 'third_party'",
        [organization, number],
    ).fetchone()


def _transaction(db: sqlite3.Connection, organization: str, asked: dict) -> list[sqlite3.Row]:
    name = asked["tx_id"].removeprefix("RO_")
    return [
        row
        for row in _of(db, organization, subject_of(asked["user_ci"]))
        if row["consent"] == name or (row["subscription"] == name and row["kind"] != "third_party")
    ]


def _stops(db: sqlite3.Connection, organization: str) -> dict[str, sqlite3.Row]:
    rows = db.execute("SELECT * FROM kr_stop WHERE organization = ?", [organization])
    return {row["consent"]: row for row in rows}


def _dtime(at: float) -> str:
    return f"{datetime.fromtimestamp(at, KOREA):%Y%m%d%H%M%S}"


def _at(dtime: str) -> float:
    return datetime.strptime(dtime, "%Y%m%d%H%M%S").replace(tzinfo=KOREA).timestamp()
