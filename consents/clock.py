"""One clock for all: the database's. A process whose own clock is wrong neither sends early, nor gives up, nor expires.

Web processes date what people do by their own clock, so a wrong one is told at /readyz and what is due is due by the
database's: see `skew` and `propagation.owe`.
"""

import datetime
import time
from collections.abc import Callable

from django.db import connection
from django.utils import timezone


def now() -> datetime.datetime:
    """The database's time. One query."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        return cursor.fetchone()[0]


def running() -> Callable[[], datetime.datetime]:
    """A clock that was set by the database and runs on by itself, whatever is done to this machine's time. One query."""
    began, start = now(), time.monotonic()
    return lambda: began + datetime.timedelta(seconds=time.monotonic() - start)


def skew() -> datetime.timedelta:
    """How far this process's clock is ahead of the database's (negative: behind). One query."""
    before = timezone.now()
    theirs = now()
    return before + (timezone.now() - before) / 2 - theirs
