"""A small SQLite file behind two threads, one that writes and one that reads, so that the server never waits for it."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS holding (
  organization TEXT NOT NULL, subscription TEXT NOT NULL, consent TEXT NOT NULL, subject TEXT NOT NULL,
  service TEXT NOT NULL, kind TEXT NOT NULL, source TEXT NOT NULL, scopes TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('active', 'paused', 'stopped', 'erased')),
  data_present INTEGER NOT NULL, version INTEGER NOT NULL,
  PRIMARY KEY (organization, subscription, consent)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holding_subject ON holding (subject, organization);
CREATE INDEX IF NOT EXISTS holding_state ON holding (organization, state);
CREATE TABLE IF NOT EXISTS ending (
  organization TEXT NOT NULL, subscription TEXT NOT NULL, PRIMARY KEY (organization, subscription)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS message (
  organization TEXT NOT NULL, jti TEXT NOT NULL, txn TEXT NOT NULL, type TEXT NOT NULL, subject TEXT NOT NULL,
  subscription TEXT NOT NULL, at REAL NOT NULL, arrivals INTEGER NOT NULL, effects INTEGER NOT NULL, result TEXT NOT NULL,
  PRIMARY KEY (organization, jti)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS message_at ON message (at);
CREATE TABLE IF NOT EXISTS duty (
  organization TEXT NOT NULL, jti TEXT NOT NULL, step INTEGER NOT NULL, state TEXT NOT NULL, due_at REAL NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0, content TEXT NOT NULL, report TEXT NOT NULL DEFAULT '', error TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (organization, jti, step)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS duty_due ON duty (due_at) WHERE state = 'open';
CREATE TABLE IF NOT EXISTS secret (
  organization TEXT NOT NULL, secret TEXT NOT NULL, PRIMARY KEY (organization, secret)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS fault (
  organization TEXT PRIMARY KEY, fault TEXT NOT NULL, value REAL NOT NULL, remaining INTEGER) WITHOUT ROWID;
"""


class Database:
    """Functions that take a connection run in its thread; those given to `write` in one transaction."""

    def __init__(self, path: Path):
        self.path = path
        self._writer = ThreadPoolExecutor(1, "sandbox-writer")
        self._reader = ThreadPoolExecutor(1, "sandbox-reader")
        self._connections: dict[str, sqlite3.Connection] = {}

    async def open(self) -> None:
        await self._run(self._writer, self._connect, "writer")
        await self._run(self._writer, self._connections["writer"].executescript, SCHEMA)
        await self._run(self._reader, self._connect, "reader")

    async def close(self) -> None:
        for name, executor in (("reader", self._reader), ("writer", self._writer)):
            await self._run(executor, self._connections[name].close)
            executor.shutdown()

    async def write(self, work: Callable[..., T], *args) -> T:
        return await self._run(self._writer, self._transaction, work, args)

    async def read(self, work: Callable[..., T], *args) -> T:
        return await self._run(self._reader, lambda: work(self._connections["reader"], *args))

    def _connect(self, name: str) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=10)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        self._connections[name] = connection

    def _transaction(self, work: Callable[..., T], args: tuple) -> T:
        connection = self._connections["writer"]
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection, *args)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result

    @staticmethod
    async def _run(executor: ThreadPoolExecutor, work: Callable[..., T], *args) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work, *args)
