"""What can be wrong with a pretend organization, switched while the server runs."""

import math
import sqlite3

from .database import Database

NONE = "none"
SLOW = "slow"
ERROR = "error"
DROP_BEFORE = "drop_before"
DROP_AFTER_EFFECT = "drop_after_effect"
SILENT = "silent"
LIES = "lies"
RESURRECTS = "resurrects"
TRUSTING = "trusting"

# Name → what it is called on the page, and what its number means.
FAULTS = {
    NONE: ("정상", "Works", "", ""),
    SLOW: ("늦게 답해요", "Answers late", "초", "seconds"),
    ERROR: ("오류 500을 답해요", "Answers 500", "처음 몇 번 (0은 항상)", "first so many times (0: always)"),
    DROP_BEFORE: (
        "받기 전에 끊어요",
        "Hangs up before acting",
        "처음 몇 번 (0은 항상)",
        "first so many times (0: always)",
    ),
    DROP_AFTER_EFFECT: (
        "처리하고 답 없이 끊어요",
        "Acts, then hangs up",
        "처음 몇 번 (0은 항상)",
        "first so many times (0: always)",
    ),
    SILENT: ("받고 나서 아무 말이 없어요", "Takes it, then says nothing", "", ""),
    LIES: ("멈췄다면서 계속 가지고 있어요", "Says stopped, keeps the data", "", ""),
    RESURRECTS: ("지운 뒤 되살아나요", "Erases, then it is back", "초 뒤", "seconds later"),
    TRUSTING: ("서명을 확인하지 않아요", "Checks no signature", "", ""),
}
COUNTED = {ERROR, DROP_BEFORE, DROP_AFTER_EFFECT}
LARGEST = 86_400


class Faults:
    """The fault of each organization, in memory and kept over restarts."""

    def __init__(self, database: Database):
        self._database = database
        self._known: dict[str, tuple[str, float, int | None]] = {}

    async def load(self) -> None:
        rows = await self._database.read(_rows)
        self._known = {row["organization"]: (row["fault"], row["value"], row["remaining"]) for row in rows}

    def all(self) -> dict[str, dict]:
        return {
            code: {"fault": fault, "value": value, "remaining": left}
            for code, (fault, value, left) in self._known.items()
        }

    async def switch(self, organization: str, fault: str, value: float) -> None:
        """ValueError for a fault or number that means nothing."""
        if fault not in FAULTS or not math.isfinite(value) or not 0 <= value <= LARGEST:
            raise ValueError("no such fault, or a number below 0 or above one day")
        remaining = int(value) if fault in COUNTED and value else None
        if fault == NONE:
            self._known.pop(organization, None)
        else:
            self._known[organization] = (fault, value, remaining)
        await self._database.write(_keep, organization, fault, value, remaining)

    async def take(self, organization: str) -> tuple[str, float]:
        """The fault that the next message meets; a fault with a count is used up by one."""
        fault, value, remaining = self._known.get(organization, (NONE, 0.0, None))
        if remaining is None:
            return fault, value
        if remaining <= 1:
            self._known.pop(organization)
            await self._database.write(_keep, organization, NONE, 0.0, None)
        else:
            self._known[organization] = (fault, value, remaining - 1)
            await self._database.write(_keep, organization, fault, value, remaining - 1)
        return fault, value

    def now(self, organization: str) -> tuple[str, float]:
        """The fault that is switched on, without using it up."""
        fault, value, _remaining = self._known.get(organization, (NONE, 0.0, None))
        return fault, value

    async def clear(self) -> None:
        self._known.clear()
        await self._database.write(_clear)


def _rows(db: sqlite3.Connection) -> list[sqlite3.Row]:
    return db.execute("SELECT * FROM fault").fetchall()


def _keep(db: sqlite3.Connection, organization: str, fault: str, value: float, remaining: int | None) -> None:
    db.execute("DELETE FROM fault WHERE organization = ?", [organization])
    if fault != NONE:
        db.execute("INSERT INTO fault VALUES (?, ?, ?, ?)", [organization, fault, value, remaining])


def _clear(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM fault")
