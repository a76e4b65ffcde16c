"""WRITES how often somebody has come, and which ids are spent. Both in PostgreSQL: what keeps attackers out must hold while
the broker is down or emptied (T19, T34). Nobody is counted inside the transaction of an act: what is counted stays so.

Whoever was refused is remembered until their window ends (`shut`), so that a flood need not cost a query each time.
"""

import datetime
import hashlib
import math

from django.db import connection

from consents.limits import Budget
from consents.models import SpentId, Turn

WINDOW = 60  # seconds
MOST_SHUT = 10_000
_shut: dict[str, datetime.datetime] = {}  # digest → until when, in this process

_COUNT_SQL = """
INSERT INTO consents_turn AS known (digest, began_at, count) VALUES (%(digest)s, %(at)s, 1)
ON CONFLICT (digest) DO UPDATE SET
  began_at = CASE WHEN known.began_at > %(old)s THEN known.began_at ELSE %(at)s END,
  count = CASE WHEN known.began_at > %(old)s THEN known.count + 1 ELSE 1 END
RETURNING count, began_at
"""
_SPEND_SQL = """
INSERT INTO consents_spentid AS known (digest, until) VALUES (%(digest)s, %(until)s)
ON CONFLICT (digest) DO UPDATE SET until = EXCLUDED.until WHERE known.until <= %(at)s
RETURNING 1
"""


def too_often(kind: str, who: str, *, most: int, at: datetime.datetime) -> bool:
    """Counts one more of this kind; whether that is more than `most` in WINDOW seconds."""
    return take(kind, who, most=most, at=at).is_spent


def take(kind: str, who: str, *, most: int, at: datetime.datetime) -> Budget:
    """Counts one more of this kind; what is left of `most` in WINDOW seconds."""
    digest, window = _digest(kind, who), datetime.timedelta(seconds=WINDOW)
    with connection.cursor() as cursor:
        cursor.execute(_COUNT_SQL, {"digest": digest, "at": at, "old": at - window})
        count, began_at = cursor.fetchone()
    if count > most:
        if len(_shut) >= MOST_SHUT:
            forget_shut()
        _shut[digest] = began_at + window
    return Budget(kind, most, most - count, _seconds(began_at + window - at))


def shut(kind: str, who: str, *, most: int, at: datetime.datetime) -> Budget | None:
    """What is left for whom this process has refused in the window that still lasts: nothing. Costs nothing, and counts
    nothing; None for everybody else."""
    until = _shut.get(_digest(kind, who))
    return Budget(kind, most, -1, _seconds(until - at)) if until is not None and at < until else None


def _seconds(left: datetime.timedelta) -> int:
    """Whole ones, and at least one."""
    return max(math.ceil(left.total_seconds()), 1)


def spend(kind: str, who: str, one: str, *, until: datetime.datetime, at: datetime.datetime) -> bool:
    """Use an id once. False: it was used before. Two at the same moment: one of them is told True."""
    with connection.cursor() as cursor:
        cursor.execute(_SPEND_SQL, {"digest": _digest(kind, who, one), "until": until, "at": at})
        return cursor.fetchone() is not None


def forget_shut() -> None:
    """Ask the database about everybody again, in this process."""
    _shut.clear()


def forget_old(*, at: datetime.datetime, limit: int = 5000) -> int:
    """Remove what counts no longer, at most `limit` rows of each. Returns how many."""
    turns = Turn.objects.filter(began_at__lte=at - datetime.timedelta(seconds=WINDOW)).order_by("began_at")
    ids = SpentId.objects.filter(until__lte=at).order_by("until")
    gone = Turn.objects.filter(pk__in=turns.values("pk")[:limit]).delete()[0]
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM portal_cache WHERE expires <= %s", [at])
        gone += cursor.rowcount
    return gone + SpentId.objects.filter(pk__in=ids.values("pk")[:limit]).delete()[0]


def _digest(*parts: str) -> str:
    """Parts may hold anything a stranger sends: their lengths keep one from running into the next."""
    whole = "|".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()
