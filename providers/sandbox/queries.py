"""The two questions that the portal asks: what became of a stop, and what is held of a person. Answered truthfully.

An organization that says "stopped" and keeps the data tells so here: its answer comes from what it holds, not from what it
said. That is how a real one is found out too.
"""

import json
import sqlite3

from . import holdings

STATUS, HOLDINGS = "status-query", "holdings-query"
QUESTIONS = {STATUS, HOLDINGS}
MOST = 200  # consents in one answer


def is_query(raw: bytes) -> bool:
    """What a body that nobody has checked yet claims to be."""
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return isinstance(body, dict) and body.get("type") in QUESTIONS


def question(kind: str, data: dict) -> dict:
    """The fields of a question, each with its type checked. ValueError where one is missing."""
    name = "subscription" if kind == STATUS else "subject"
    if not isinstance(data.get(name), str) or not 0 < len(data[name]) <= 200:
        raise ValueError(f"data.{name} is missing or not a short text")
    consents = data.get("consents", [])
    if not isinstance(consents, list) or not all(isinstance(consent, str) for consent in consents):
        raise ValueError("data.consents is not a list of texts")
    return {"type": kind, name: data[name], "consents": consents}


def answer(db: sqlite3.Connection, organization: str, asked: dict) -> dict:
    """What this organization holds: the named consents of a subscription, or everything of a person."""
    if asked["type"] == HOLDINGS:
        rows = holdings.find(db, organization, asked["subject"], "", MOST)
        listed = [_listed(row) for row in rows]
        return {"subject": asked["subject"], "complete": len(rows) < MOST, "consents": listed}
    rows = holdings.find(db, organization, "", asked["subscription"], MOST)
    named = [row for row in rows if not asked["consents"] or row["consent"] in asked["consents"]]
    states = [{"id": row["consent"], "state": row["state"]} for row in named]
    return {"subscription": asked["subscription"], "consents": states}


def _listed(row: dict) -> dict:
    kept = {name: row[name] for name in ("subscription", "service", "kind", "source", "scopes", "state")}
    return {"id": row["consent"], **kept}
