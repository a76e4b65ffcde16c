"""What a pretend organization holds, and what one message does to it: once, whatever arrives twice."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

ACTIVE, PAUSED, STOPPED, ERASED = "active", "paused", "stopped", "erased"
STATES = (ACTIVE, PAUSED, STOPPED, ERASED)
COLUMNS = [  # in the order of the table
    "organization",
    "subscription",
    "consent",
    "subject",
    "service",
    "kind",
    "source",
    "scopes",
    "state",
    "data_present",
    "version",
]

GRANTS = {"consent-granted", "consent-amended"}
WHOLE_SUBSCRIPTION = {"subscription-ended", "operator-ended"}
STOPS = {"consent-withdrawn"} | WHOLE_SUBSCRIPTION

# The steps a message owes the portal, in this order; the last is the fault of the same name.
ACK, PROVE_STOPPED, PROVE_ERASED, RESURRECT = 1, 2, 3, 9


@dataclass(frozen=True)
class Plan:
    """How an organization deals with one message: its role, its fault, and when it gets round to each step."""

    role: str  # operator, source or recipient
    keeps_data: bool = False
    answers: bool = True
    acknowledges: bool = True  # with a call of its own; not where the answer names what was received
    resurrects_after: float | None = None
    delays: tuple[float, float] = (1.0, 2.0)  # seconds until it proves stopped and erased


def receive(db: sqlite3.Connection, organization: str, message: dict, plan: Plan, at: float) -> str:
    """Take one verified message. `done`, `kept` (it lies) or `nothing` (too old, or nothing to do); `again` for a
    message that came before: that has no second effect."""
    key = [organization, message["jti"]]
    known = db.execute("SELECT result FROM message WHERE organization = ? AND jti = ?", key).fetchone()
    before = _touched(db, organization, message)
    if known:
        db.execute("UPDATE message SET arrivals = arrivals + 1 WHERE organization = ? AND jti = ?", key)
        result = "again"
    else:
        result = "kept" if plan.keeps_data else _apply(db, organization, message, plan)
        row = [*key, message["txn"], message["type"], message["subject"], message["subscription"], at]
        db.execute(
            "INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, 1, ?, ?)", [*row, int(result == "done"), result]
        )
        if plan.resurrects_after is not None and message["type"] in STOPS | {"erasure-requested"}:
            _owe(db, key, RESURRECT, at + plan.resurrects_after, [dict(held) for held in before])
    if plan.answers:
        _owe_answers(db, key, message, plan, [held["consent"] for held in before], at)
    return result


def _touched(db: sqlite3.Connection, organization: str, message: dict) -> list[sqlite3.Row]:
    """The holdings that the message is about."""
    rows = db.execute(
        "SELECT * FROM holding WHERE organization = ? AND subscription = ?",
        [organization, message["subscription"]],
    ).fetchall()
    named = {consent["id"] for consent in message["consents"]}
    if message["type"] in WHOLE_SUBSCRIPTION or not named:
        return rows
    return [row for row in rows if row["consent"] in named]


def _apply(db: sqlite3.Connection, organization: str, message: dict, plan: Plan) -> str:
    kind, changed = message["type"], 0
    if kind in WHOLE_SUBSCRIPTION:
        db.execute("INSERT OR IGNORE INTO ending VALUES (?, ?)", [organization, message["subscription"]])
    if kind in STOPS:
        # A stop is final and comes into force however late it arrives; one that overtook its grant leaves a mark.
        changed += _mark_unseen(db, organization, message)
        changed += _move(db, organization, message, STOPPED, (ACTIVE, PAUSED))
    elif kind in GRANTS:
        changed += sum(_grant(db, organization, message, consent) for consent in message["consents"])
    elif kind in {"consent-paused", "operator-suspended"}:
        changed += _move(db, organization, message, PAUSED, (ACTIVE,), newer=True)
    elif kind == "consent-resumed":
        changed += _move(db, organization, message, ACTIVE, (PAUSED,), newer=True)
    if _erases(message, plan):
        changed += _erase(db, organization, message)
    return "done" if changed else "nothing"


def _erases(message: dict, plan: Plan) -> bool:
    """A source keeps its own data: it only stops sending."""
    asked = message["type"] == "erasure-requested" or (message["type"] in STOPS and message["delete_data"])
    return asked and plan.role != "source"


def _grant(db: sqlite3.Connection, organization: str, message: dict, consent: dict) -> int:
    subscription = message["subscription"]
    if db.execute(
        "SELECT 1 FROM ending WHERE organization = ? AND subscription = ?", [organization, subscription]
    ).fetchone():
        return 0
    values = [organization, subscription, consent["id"], message["subject"], message["service"]]
    values += [
        consent["kind"],
        consent["source"],
        json.dumps(consent["scopes"]),
        ACTIVE,
        1,
        message["version"],
    ]
    return db.execute(
        "INSERT INTO holding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET scopes = excluded.scopes, kind = excluded.kind, source = excluded.source, "
        "version = excluded.version WHERE state IN ('active', 'paused') AND version < excluded.version",
        values,
    ).rowcount


def _mark_unseen(db: sqlite3.Connection, organization: str, message: dict) -> int:
    rows = [
        [
            *(organization, message["subscription"], consent["id"], message["subject"], message["service"]),
            *(consent["kind"], consent["source"], "[]", STOPPED, 0, message["version"]),
        ]
        for consent in message["consents"]
    ]
    statement = "INSERT OR IGNORE INTO holding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
    return db.executemany(statement, rows).rowcount if rows else 0


def _move(
    db: sqlite3.Connection,
    organization: str,
    message: dict,
    to: str,
    since: tuple[str, ...],
    newer: bool = False,
) -> int:
    changed = 0
    for row in _touched(db, organization, message):
        if row["state"] in since and not (newer and message["version"] <= row["version"]):
            version = max(message["version"], row["version"])
            changed += db.execute(
                "UPDATE holding SET state = ?, version = ? WHERE organization = ? AND subscription = ? AND consent = ?",
                [to, version, organization, message["subscription"], row["consent"]],
            ).rowcount
    return changed


def _erase(db: sqlite3.Connection, organization: str, message: dict) -> int:
    return sum(
        db.execute(
            "UPDATE holding SET state = 'erased', data_present = 0, scopes = '[]' "
            "WHERE organization = ? AND subscription = ? AND consent = ? AND state <> 'erased'",
            [organization, message["subscription"], row["consent"]],
        ).rowcount
        for row in _touched(db, organization, message)
    )


def _owe_answers(
    db: sqlite3.Connection, key: list[str], message: dict, plan: Plan, held: list[str], at: float
) -> None:
    if plan.acknowledges:
        _owe(db, key, ACK, at, {})
    named = sorted({*held, *(consent["id"] for consent in message["consents"])})
    facts = {name: message[name] for name in ("txn", "subscription", "version")} | {"consents": named}
    if message["type"] in STOPS:
        _owe(db, key, PROVE_STOPPED, at + plan.delays[0], facts | {"status": "stopped"})
    if _erases(message, plan):
        _owe(db, key, PROVE_ERASED, at + plan.delays[1], facts | {"status": "erased"})


def _owe(db: sqlite3.Connection, key: list[str], step: int, due_at: float, content: object) -> None:
    db.execute(
        "INSERT OR IGNORE INTO duty (organization, jti, step, state, due_at, content) VALUES (?, ?, ?, 'open', ?, ?)",
        [*key, step, due_at, json.dumps(content)],
    )


def bring_back(db: sqlite3.Connection, rows: list[dict]) -> None:
    """The fault `resurrects`: what was erased is there again."""
    load(db, [{**row, "state": ACTIVE, "data_present": 1} for row in rows])


def load(db: sqlite3.Connection, rows: Iterable[dict]) -> int:
    """Put rows in as they are, over what is there."""
    values = [[row[column] for column in COLUMNS] for row in rows]
    db.executemany("INSERT OR REPLACE INTO holding VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    return len(values)


def find(
    db: sqlite3.Connection, organization: str, subject: str, subscription: str, limit: int
) -> list[dict]:
    asked = {"organization": organization, "subject": subject, "subscription": subscription}
    asked = {column: value for column, value in asked.items() if value}
    where = " AND ".join(f"{column} = ?" for column in asked) or "1"
    rows = db.execute(
        f"SELECT * FROM holding WHERE {where} ORDER BY organization, subscription, consent LIMIT ?",  # noqa: S608 - our names
        [*asked.values(), limit],
    )
    return [
        {**row, "scopes": json.loads(row["scopes"]), "data_present": bool(row["data_present"])}
        for row in map(dict, rows)
    ]


def messages(db: sqlite3.Connection, organization: str, jti: str, limit: int) -> list[dict]:
    """The last messages, newest first, with the number of their arrivals and effects."""
    rows = db.execute(
        "SELECT * FROM message WHERE (?1 = '' OR organization = ?1) AND (?2 = '' OR jti = ?2) ORDER BY at DESC LIMIT ?3",
        [organization, jti, limit],
    )
    return [dict(row) for row in rows]


def totals(db: sqlite3.Connection) -> dict:
    row = db.execute(
        "SELECT count(*) AS messages, total(arrivals) AS arrivals, total(effects) AS effects FROM message"
    ).fetchone()
    waiting = db.execute("SELECT count(*) FROM duty WHERE state = 'open'").fetchone()[0]
    refused = db.execute("SELECT count(*) FROM duty WHERE state = 'refused'").fetchone()[0]
    numbers = zip(("messages", "arrivals", "effects"), map(int, row), strict=True)
    return {**dict(numbers), "duties_open": waiting, "duties_refused": refused}


def counts(db: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Organization → state → number of holdings."""
    found: dict[str, dict[str, int]] = {}
    for row in db.execute(
        "SELECT organization, state, count(*) AS n FROM holding GROUP BY organization, state"
    ):
        found.setdefault(row["organization"], {})[row["state"]] = row["n"]
    return found


def forget_all(db: sqlite3.Connection) -> None:
    for statement in ("DELETE FROM holding", "DELETE FROM ending", "DELETE FROM message", "DELETE FROM duty"):
        db.execute(statement)
