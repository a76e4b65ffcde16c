"""WRITES a made-up city by COPY, on every processor at once: all of it is committed together, or none.

Each worker fills its tables in one transaction of its own and then waits; when all are ready, and what else belongs to the
seed is done, all commit. Constraints and triggers are those of every other write.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import Any

from django.db import connection, models, transaction
from joserfc.jwk import ECKey

from consents.ledger.append import write

from . import workers, world

BATCH = 100  # people in memory of one worker
_TYPES = {
    "timestamp with time zone": "timestamptz", "boolean": "bool", "bigint": "int8", "integer": "int4", "smallint": "int2",
}  # fmt: skip


class Failed(RuntimeError):
    """A worker could not finish; nothing of the city is there."""


def processes() -> int:
    return min(8, os.cpu_count() or 1)


def settle(
    people: range,
    *,
    seed: int,
    now,
    keys: dict[str, ECKey],
    progress: Callable[[int], object] = lambda n: None,
) -> None:
    """Make these people in the caller's transaction and process."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        market = world.Market.open(keys=keys, now=now)
        for start in range(people.start, people.stop, BATCH):
            part = range(start, min(start + BATCH, people.stop))
            _copy_all(world.lives(part, seed=seed, market=market))
            progress(len(part))


@contextmanager
def settling(
    people: int, *, seed: int, now, keys: dict[str, ECKey], progress: Callable[[int], object]
) -> Iterator[None]:
    """Make people 1 … `people` beside what the block does; they are committed when it ends well. Raises Failed."""
    spawn = multiprocessing.get_context("spawn")
    shares = [
        range(1 + people * n // processes(), 1 + people * (n + 1) // processes()) for n in range(processes())
    ]
    jwks = {code: key.as_dict(private=True) for code, key in keys.items()}
    hired: list[tuple[Any, Connection]] = []
    try:
        for share in shares:
            ours, theirs = spawn.Pipe()
            worker = spawn.Process(target=workers.work, args=(theirs, share, seed, now, jwks), daemon=True)
            worker.start()
            theirs.close()
            hired.append((worker, ours))
        yield
        _await_all([ours for _worker, ours in hired], progress)
        for _worker, ours in hired:
            ours.send("commit")
        for worker, _ours in hired:
            worker.join()
            if worker.exitcode:
                raise Failed(f"a worker ended with {worker.exitcode} while it committed")
    finally:
        for worker, ours in hired:
            ours.close()  # who has not been told to commit rolls back
            worker.join()


def analyze() -> None:
    """Tell the planner what is there now: it has seen empty tables only."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def _await_all(pipes: list[Connection], progress: Callable[[int], object]) -> None:
    working: list[Any] = list(pipes)
    while working:
        ready: list[Any] = wait(working)
        for pipe in ready:
            try:
                told = pipe.recv()
            except EOFError as error:
                raise Failed("a worker has died: see its message above; nothing was kept") from error
            if told == "ready":
                working.remove(pipe)
            else:
                progress(told)


def _copy_all(made: world.Made) -> None:
    _number(made.deliveries)
    for rows in (
        made.people,
        made.emails,
        made.keys,
        made.subscriptions,
        made.consents,
        made.deliveries,
        made.evidence,
    ):
        _copy(rows)
    write(made.log)


def _number(deliveries: list) -> None:
    """Ids from the table's own counter: evidence names them before the rows are there."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval('consents_delivery_id_seq') FROM generate_series(1, %s)", [len(deliveries)]
        )
        for delivery, (number,) in zip(deliveries, cursor.fetchall(), strict=True):
            delivery.pk = number


def _copy(rows: list) -> None:
    if not rows:
        return
    fields = [
        field
        for field in rows[0]._meta.concrete_fields
        if not (isinstance(field, models.AutoField) and getattr(rows[0], field.attname) is None)
    ]
    names = ", ".join(f'"{field.column}"' for field in fields)
    types = [_type(field.db_type(connection)) for field in fields]
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {rows[0]._meta.db_table} ({names}) FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(types)
        for row in rows:
            copy.write_row([_value(field, row) for field in fields])


def _type(db_type: str) -> str:
    """The database's short name of a column's type."""
    bare, array = db_type.removesuffix("[]"), "[]" if db_type.endswith("[]") else ""
    return _TYPES.get(bare, bare.partition("(")[0]) + array


def _value(field: models.Field, row: models.Model) -> Any:
    # A delivery gets its number after its evidence was made.
    if field.is_relation and field.attname == "delivery_id":
        return row.delivery.pk  # type: ignore[attr-defined]
    value = getattr(row, field.attname)
    return str(value) if isinstance(value, str) else value
