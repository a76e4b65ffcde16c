"""PostgreSQL's advisory locks: every number in one place, because two meanings of one would wait for each other."""

import contextlib
from collections.abc import Iterator

from django.db import connections

LEDGER_ORDER = 7301  # held while entries are given their places
SEQUENCER, MONITOR = 7302, 7304  # one run at a time
GYM_CLAIM = 7305
UPLOADS = 7306
OVERSIGHT_APPS = 7307
DELIVERY_CLAIM, READ_BACK, DISCOVERY = 0x6A71, 0x6A72, 0x6A73


@contextlib.contextmanager
def alone(number: int, *, using: str = "default") -> Iterator[bool]:
    """Whether nobody else runs. The database lets go when this connection ends, also by kill -9."""
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [number])
        (free,) = cursor.fetchone()
    try:
        yield free
    finally:
        if free:
            with connections[using].cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [number])
