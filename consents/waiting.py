"""WRITES holdings of people whom the portal does not know: kept under the digest of their CI until they come.

Nobody agreed to anything here and nobody can be told, so that it is no fact of the log yet (decision 11). The newest report
of the same service and source takes the place of the one before: it is one side's word about a stranger.
"""

import datetime
import uuid
from collections.abc import Iterable, Mapping, Sequence

from django.db import connection

from consents.actors import Actor
from consents.models import WaitingHolding
from consents.reports import Holding
from providers.models import Organization, Service

FORGOTTEN = 20_000  # rows of one statement

# What a report states, in front of the tables that it is compared with; the rows are gone with the transaction.
_REPORTED_SQL = """
CREATE TEMPORARY TABLE IF NOT EXISTS reported (
  number bigint, digest text, subject uuid, service_id uuid, source_id uuid, joined_on date, scopes text[], purpose text,
  cycle text, end_date date, retained_until date, last_used_on date
) ON COMMIT DELETE ROWS
"""
_COPY_SQL = "COPY reported FROM STDIN"
# Writes nothing where the same stands there already; says of the rest that it is new.
_KEEP_SQL = """
WITH kept AS (
INSERT INTO consents_waitingholding AS held (digest, service_id, source_id, joined_on, scopes, purpose, cycle, end_date,
  retained_until, last_used_on, reported_at)
SELECT digest, service_id, source_id, joined_on, scopes, purpose, cycle, end_date, retained_until, last_used_on, %s
FROM reported
ORDER BY digest, service_id, source_id  -- one order for all: two reports never wait for each other in a circle
ON CONFLICT (digest, service_id, source_id) DO UPDATE SET
  joined_on = excluded.joined_on, scopes = excluded.scopes, purpose = excluded.purpose, cycle = excluded.cycle,
  end_date = excluded.end_date, retained_until = excluded.retained_until, last_used_on = excluded.last_used_on,
  reported_at = excluded.reported_at
WHERE (held.joined_on, held.scopes, held.purpose, held.cycle, held.end_date, held.retained_until, held.last_used_on)
  IS DISTINCT FROM (excluded.joined_on, excluded.scopes, excluded.purpose, excluded.cycle, excluded.end_date,
  excluded.retained_until, excluded.last_used_on)
RETURNING digest, service_id, source_id, held.xmax <> 0 AS replaced)
SELECT number, replaced FROM kept JOIN reported USING (digest, service_id, source_id)
"""


def keep(
    rows: Sequence[Holding],
    *,
    services: Mapping[str, Service],
    sources: Mapping[str, Organization],
    by: Actor,
    at: datetime.datetime,
) -> dict[int, bool]:
    """Keep what these rows state; the numbers of those that said something new, and whether it took the place of another word
    about the same. In the caller's transaction; three statements,
    and as many more for each time the same holding stands among the rows again."""
    news: dict[int, bool] = {}
    rest = list(rows)
    while rest:
        first: dict[tuple, Holding] = {}
        later: list[Holding] = []
        for row in rest:
            key = (row.digest, services[row.client_id].pk, sources[row.source].pk)
            if first.setdefault(key, row) is not row:
                later.append(row)
        with connection.cursor() as cursor:
            lay_out(cursor, first.values(), services=services, sources=sources)
            cursor.execute(_KEEP_SQL, [at])
            news.update(cursor.fetchall())
        rest = later
    return news


def lay_out(
    cursor, rows: Iterable[Holding], *, services: Mapping[str, Service], sources: Mapping[str, Organization]
) -> None:
    """Fill the transaction's table `reported` with these rows and nothing else."""
    cursor.execute(_REPORTED_SQL)
    cursor.execute("TRUNCATE reported")
    with cursor.copy(_COPY_SQL) as copy:
        copy.write("".join(_line(row, services[row.client_id].pk, sources[row.source].pk) for row in rows))


def _line(row: Holding, service: uuid.UUID, source: uuid.UUID) -> str:
    """A row in COPY's text format. Nothing in it but `purpose` can hold a sign that means something there."""
    purpose = row.purpose.replace("\\", "\\\\")
    return (
        f"{row.number}\t{row.digest}\t{row.subject or _NULL}\t{service}\t{source}\t{row.joined_on}\t{{{','.join(row.scopes)}}}"
        f"\t{purpose}\t{row.cycle}\t{row.end_date}\t{row.retained_until or _NULL}\t{row.last_used_on or _NULL}\n"
    )


_NULL = "\\N"


def of(digest: str, *, limit: int) -> list[WaitingHolding]:
    """What waits for whoever has this digest, oldest report first; locked."""
    rows = WaitingHolding.objects.select_for_update(of=("self",)).filter(digest=digest)
    return list(rows.select_related("service__organization", "source").order_by("reported_at", "pk")[:limit])


def take_away(rows: Iterable[WaitingHolding], *, by: Actor, at: datetime.datetime) -> None:
    """They wait no longer."""
    WaitingHolding.objects.filter(pk__in=[row.pk for row in rows]).delete()


def forget_ended(*, by: Actor, at: datetime.datetime, today: datetime.date, limit: int = FORGOTTEN) -> int:
    """Forget at most `limit` whose last day is over: it is no holding any more. Returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(
            "DELETE FROM consents_waitingholding WHERE ctid = ANY(ARRAY("
            "SELECT ctid FROM consents_waitingholding WHERE end_date < %s LIMIT %s FOR UPDATE SKIP LOCKED))",
            [today, limit],
        )
        return cursor.rowcount
