"""WRITES scratch uploads: how fast a million rows of holdings go in, in how much memory, and that a killed worker changes nothing.

The limit is a bare COPY of the same rows into a table with the same key: no rules, no digests, no order, no refusals.
"""

import base64
import contextlib
import datetime
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection
from django.utils import timezone

from consents import reports, uploads
from consents.actors import Actor
from consents.models import Person, Upload, UploadRefusal, WaitingHolding
from providers import datafiles
from providers.models import Organization, Scope, Service

from . import Result, scratch

PER_SECOND, MEMORY_MB = 10_000, 300
BAD_EVERY = 100
PEOPLE, MATCHED = 4_000, 16_000  # of the rows about people who are here
SOURCES = 4
BY = Actor.system("bench")


def run(*, count: int, rounds: int, leaves: int, say) -> Result:
    """`count` rows about strangers with 1 % bad ones; again with a worker killed halfway; then rows about people who are here."""
    with scratch.folders(), scratch.database():
        service, sources = prepare()
        wanted = [number + 2 for number in range(count) if number % BAD_EVERY == BAD_EVERY - 1]
        say(f"{count:,} rows about people who are not here")
        upload, receiving = _sent(service, Rows(strangers(count, service, sources)))
        whole = _taken()
        state, exact = _state(), _refused(upload) == wanted
        _clear()
        say("the same with a worker that is killed halfway")
        killed, _seconds = _sent(service, Rows(strangers(count, service, sources)))
        at = _kill_halfway(killed, count)
        _taken()
        same = _state() == state and _refused(killed) == wanted
        _clear()
        say(f"{MATCHED:,} rows about people who are here, twice")
        people = _people()
        new = _taken_of(service, here(people, service, sources))
        again = _taken_of(service, here(people, service, sources))
        limit = _bare(count, service, sources)
    ours = count / (whole["seconds"] + receiving)
    detail = {
        "rows": count, "taking_in_per_s": round(count / whole["seconds"]), "receiving_s": round(receiving, 1),
        "peak_mb_over_base": round(whole["peak_mb"]), "base_mb": round(whole["base_mb"]), "refused_exactly": exact,
        "killed_at_row": at, "same_state_after_kill": same, "matched_new_per_s": round(new), "matched_known_per_s": round(again),
    }  # fmt: skip
    holds = ours >= PER_SECOND and whole["peak_mb"] < MEMORY_MB and exact and same
    return Result(
        "holdings", round(ours), round(limit), round(ours / limit, 3), "rows/s",
        f"≥ {PER_SECOND:,}/s received and taken in, < {MEMORY_MB} MB over the base, bad rows named exactly, the same after kill -9",
        holds, detail,
    )  # fmt: skip


def prepare() -> tuple[Service, list[Organization]]:
    """An operator with one service, and sources."""
    datafiles.load_scopes()
    at = timezone.localdate()
    operator = Organization.objects.create(
        code="BENCH00000", name_ko="재기", name_en="Bench", sector="fintech", is_operator=True
    )
    service = Service.objects.create(
        organization=operator, client_id="bench-01", slug="bench", name_ko="재기", name_en="Bench", state="live", opened_on=at,
        purpose_code="asset",
    )  # fmt: skip
    sources = [
        Organization.objects.create(
            code=f"BENCHS{n:04}", name_ko=f"출처 {n}", name_en=f"Source {n}", sector="bank", is_source=True
        )
        for n in range(SOURCES)
    ]
    return service, sources


def strangers(
    count: int, service: Service, sources: list[Organization], *, bad: bool = True
) -> Iterator[str]:
    """Lines of CSV, SOURCES a person, who is named by a CI; every hundredth is wrong in one of several ways."""
    yield ",".join(reports.COLUMNS)
    for number in range(count):
        ci = base64.b64encode(hashlib.sha512(f"person {number // SOURCES}".encode()).digest()).decode()
        wrong = number % BAD_EVERY == BAD_EVERY - 1 if bad else False
        yield _line(ci, number, service, sources, wrong=wrong)


def here(people: list[str], service: Service, sources: list[Organization]) -> Iterator[str]:
    yield ",".join(reports.COLUMNS)
    for number in range(MATCHED):
        yield _line(people[number // SOURCES], number, service, sources)


def _line(
    subject: str, number: int, service: Service, sources: list[Organization], *, wrong: bool = False
) -> str:
    today = timezone.localdate()
    joined = today - datetime.timedelta(days=30 + number % 300)
    end = today + datetime.timedelta(days=30 + number % 300)
    cells = [
        subject, service.client_id, joined.isoformat(), sources[number % SOURCES].code, _scopes(), "가계부와 자산 관리", "1/1w",
        end.isoformat(), reports.UNTIL_ERASED, joined.isoformat(),
    ]  # fmt: skip
    if wrong:
        column, value = [
            (0, "nobody"),
            (1, "theirs"),
            (2, "2026-02-30"),
            (4, "bank.nothing"),
            (7, "20991231"),
            (5, '"'),
        ][number // BAD_EVERY % 6]
        cells[column] = value
    return ",".join(cells)


_codes: list[str] = []


def _scopes() -> str:
    if not _codes:
        _codes.extend(
            code for codes in Scope.objects.values_list("codes", flat=True)[:3] for code in codes[:1]
        )
    return " ".join(_codes)


class Rows:
    """Lines as a stream of bytes, made while they are read."""

    def __init__(self, lines: Iterable[str]):
        self._lines, self._rest = iter(lines), b""

    def read(self, size: int) -> bytes:
        parts, length = [self._rest], len(self._rest)
        while length < size and (line := next(self._lines, None)) is not None:
            parts.append(line.encode() + b"\n")
            length += len(parts[-1])
        found = b"".join(parts)
        self._rest = found[size:]
        return found[:size]


def _sent(service: Service, rows: Rows) -> tuple[Upload, float]:
    """The file is received; how long that took, without making it up."""
    at, seconds, made = timezone.now(), 0.0, []
    while piece := rows.read(uploads.PIECE):
        made.append(piece)
    upload = uploads.start(service.organization, kind="holdings", format="csv", by=BY, at=at)
    begun, begin = time.perf_counter(), 0
    for piece in made:
        upload = uploads.receive(upload, _Once(piece), begin=begin, by=BY, at=at)
        begin += len(piece)
    uploads.complete(upload, by=BY, at=at)
    seconds = time.perf_counter() - begun
    return upload, seconds


class _Once:
    def __init__(self, data: bytes):
        self._data = data

    def read(self, size: int) -> bytes:
        found, self._data = self._data[:size], self._data[size:]
        return found


@contextlib.contextmanager
def _worker() -> Iterator[subprocess.Popen]:
    given = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(given._replace(path=f"/{connection.settings_dict['NAME']}"))
    environment = {
        **os.environ,
        "DATABASE_URL": database,
        "LEDGER_DIR": str(settings.LEDGER_DIR),
        "LOG_LEVEL": "ERROR",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "consents.benchmarks.taker"], stdout=subprocess.PIPE, text=True, cwd=settings.BASE_DIR,
        env={**environment, "DJANGO_SETTINGS_MODULE": "config.settings"},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _taken() -> dict[str, float]:
    with _worker() as process:
        assert process.stdout is not None
        told = process.stdout.readline()
    if not told:
        raise RuntimeError("the worker ended without an answer")
    return json.loads(told)


def _kill_halfway(upload: Upload, count: int) -> int:
    """Kills a worker as soon as it has looked at half of the rows; at which row that was."""
    with _worker() as process:
        while process.poll() is None:
            upload.refresh_from_db()
            if upload.rows >= count // 2:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                return upload.rows
            time.sleep(0.02)
    raise RuntimeError("the worker was done before it could be killed")


def _state() -> str:
    """What waits, to the byte, but for the moment in which it was reported."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), md5(string_agg(row::text, '|' ORDER BY digest, source_id)) FROM (SELECT digest, service_id,"
            " source_id, joined_on, scopes, purpose, cycle, end_date, retained_until, last_used_on FROM consents_waitingholding) AS row"
        )
        return str(cursor.fetchone())


def _refused(upload: Upload) -> list[int]:
    return list(
        UploadRefusal.objects.filter(upload=upload).order_by("number").values_list("number", flat=True)
    )


def _clear() -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"TRUNCATE {WaitingHolding._meta.db_table}")


def _people() -> list[str]:
    made = Person.objects.bulk_create(
        [Person(email=f"bench{n}@bench.example") for n in range(PEOPLE)], batch_size=1000
    )
    return [str(person.subject_id) for person in made]


def _taken_of(service: Service, lines: Iterable[str]) -> float:
    """Rows a second."""
    _sent(service, Rows(lines))
    told = _taken()
    return told["rows"] / told["seconds"]


def _bare(count: int, service: Service, sources: list[Organization]) -> float:
    """The limit: the same rows by COPY into a table with the same columns and the same key."""
    count = min(count, 200_000)
    lines = [line.split(",") for line in strangers(count, service, sources, bad=False)][1:]
    ids = {source.code: source.pk for source in sources}
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE bare (digest varchar(64), service_id uuid, source_id uuid, joined_on date, scopes text, purpose text,"
            " cycle text, end_date date, PRIMARY KEY (digest, service_id, source_id))"
        )
        begun = time.perf_counter()
        with cursor.copy("COPY bare FROM STDIN") as copy:
            for cells in lines:
                copy.write_row(
                    (
                        cells[0][:64],
                        service.pk,
                        ids[cells[3]],
                        cells[2],
                        cells[4],
                        cells[5],
                        cells[6],
                        cells[7],
                    )
                )
    return count / (time.perf_counter() - begun)
