"""What a pretend organization still owes the portal: acknowledgements and evidence, sent until the portal has them."""

import asyncio
import contextlib
import hashlib
import json
import logging
import random
import sqlite3
import time
import uuid

from . import holdings, korea_holdings
from .database import Database
from .parties import Parties, Party
from .portal import Later, Never, Portal, evidence

log = logging.getLogger(__name__)

AT_ONCE = 8
BATCH = 64
LONGEST_PAUSE = 60.0  # seconds between two tries
MOST_MISSES = 8  # tries of an answer that the portal says it knows nothing about


class Duties:
    """A loop over the table `duty`: it outlives a portal that is down, and a restart of its own."""

    def __init__(self, database: Database, parties: Parties, portal: Portal, own_address: str):
        self._database, self._parties, self._portal = database, parties, portal
        self._own_address = own_address
        self._bell = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE)

    def ring(self) -> None:
        """There is something new to do."""
        self._bell.set()

    async def run(self) -> None:
        while True:
            self._bell.clear()
            rows, next_at = await self._database.read(_due, time.time())
            if rows:
                await asyncio.gather(*(self._fulfil(row) for row in rows))
                continue
            pause = min(max(next_at - time.time(), 0.01), 1.0) if next_at else 1.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._bell.wait()

    async def _fulfil(self, row: dict) -> None:
        key = [row["organization"], row["jti"], row["step"]]
        async with self._places:
            try:
                await self._do(row)
            except Never as error:
                await self._database.write(_close, key, "refused", str(error))
            except Later as error:
                await self._again(row, key, str(error), error.wait)
            except Exception as error:
                log.exception("a duty of the sandbox failed")
                await self._again(row, key, type(error).__name__, 0.0)
            else:
                await self._database.write(_close, key, "done", "")

    async def _again(self, row: dict, key: list, reason: str, wait: float) -> None:
        if "HTTP 404" in reason and row["tries"] >= MOST_MISSES:
            await self._database.write(_close, key, "refused", reason)
            return
        pause = max(min(2.0 ** min(row["tries"], 10), LONGEST_PAUSE), min(wait, LONGEST_PAUSE))
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, hides nothing
        await self._database.write(_postpone, key, time.time() + pause, reason)

    async def _do(self, row: dict) -> None:
        if row["step"] == holdings.RESURRECT:
            await self._database.write(holdings.bring_back, json.loads(row["content"]))
            return
        if row["step"] == korea_holdings.STOP:
            await self._database.write(korea_holdings.finish, row["organization"], json.loads(row["content"]))
            return
        party = self._parties.get(row["organization"])
        if party is None:
            raise Later("no such organization at present")
        if row["step"] == holdings.ACK:
            await self._portal.acknowledge(party, row["jti"])
            return
        content = json.loads(row["content"])
        if row["step"] == korea_holdings.RESULT:
            await self._portal.tell_result(party, row["jti"], content)
            return
        if "compact" not in content:
            # Signed once and kept: a repeated evidence is the same, byte for byte.
            content, report = self._signed(party, row["jti"], content)
            await self._database.write(
                _keep_signed, [party.code, row["jti"], row["step"]], json.dumps(content), report
            )
        await self._portal.prove(party, content["compact"], content["jti"])

    def _signed(self, party: Party, delivery: str, facts: dict) -> tuple[dict, str]:
        now, jti = int(time.time()), str(uuid.uuid4())
        status = facts["status"]
        report = json.dumps(
            {"organization": party.code, "delivery": delivery, "completed_at": now, **facts}, sort_keys=True
        )
        claims = {
            "iss": party.code,
            "aud": self._portal.address,
            "iat": now,
            "jti": jti,
            "delivery": delivery,
            **facts,
            "completed_at": now,
            "report": {
                "sha256": hashlib.sha256(report.encode()).hexdigest(),
                "url": f"{self._own_address}/{party.code}/reports/{delivery}/{status}",
            },
        }
        if status == "erased":
            claims["method"] = "deleted"
        return {"compact": evidence(party, claims), "jti": jti}, report


def _due(db: sqlite3.Connection, now: float) -> tuple[list[dict], float | None]:
    """Open duties whose time has come and whose earlier step is done, and when the next one comes."""
    rows = db.execute(
        "SELECT * FROM duty AS d WHERE state = 'open' AND due_at <= ? AND (step = ? OR NOT EXISTS ("
        " SELECT 1 FROM duty AS e WHERE e.organization = d.organization AND e.jti = d.jti AND e.step < d.step"
        " AND e.state = 'open')) ORDER BY due_at LIMIT ?",
        [now, holdings.RESURRECT, BATCH],
    ).fetchall()
    following = db.execute(
        "SELECT min(due_at) FROM duty WHERE state = 'open' AND due_at > ?", [now]
    ).fetchone()[0]
    return [dict(row) for row in rows], following


def _close(db: sqlite3.Connection, key: list, state: str, error: str) -> None:
    db.execute(
        "UPDATE duty SET state = ?, error = ? WHERE organization = ? AND jti = ? AND step = ?",
        [state, error, *key],
    )


def _postpone(db: sqlite3.Connection, key: list, due_at: float, error: str) -> None:
    db.execute(
        "UPDATE duty SET due_at = ?, tries = tries + 1, error = ? WHERE organization = ? AND jti = ? AND step = ?",
        [due_at, error, *key],
    )


def _keep_signed(db: sqlite3.Connection, key: list, content: str, report: str) -> None:
    db.execute(
        "UPDATE duty SET content = ?, report = ? WHERE organization = ? AND jti = ? AND step = ?",
        [content, report, *key],
    )


def report(db: sqlite3.Connection, organization: str, jti: str, status: str) -> str | None:
    """The report whose digest an evidence carries."""
    step = {"stopped": holdings.PROVE_STOPPED, "erased": holdings.PROVE_ERASED}.get(status, 0)
    row = db.execute(
        "SELECT report FROM duty WHERE organization = ? AND jti = ? AND step = ? AND report <> ''",
        [organization, jti, step],
    ).fetchone()
    return row["report"] if row else None
