"""P11: stops a second from act to *received* by one Celery worker under a steady load.

The acts are written as a mass ending writes them, many rows a statement, so that this process does not set the pace; their
messages are claimed, signed, sent and recorded by a real worker through a real broker. The organizations take up to a hundred
messages in one request and name in their answer those that they have. The limit is the load that was offered.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings
from django.db import connection

from consents import propagation
from consents.models import Delivery

from . import Result, percentile, scratch
from .stops import TAKERS, TOGETHER, fill, prepare, receiving

PER_SECOND, CALM = 1_000, 100  # stops offered a second, in the two phases
SECONDS, CALM_SECONDS = 30, 20
WITHIN = 10.0  # seconds from act to received, p99
BEAT = 0.1  # seconds between two writes of the load
PATIENCE = 120.0  # seconds for what is still on its way at the end
BROKER_DATABASE = 13  # of Valkey: nobody else's worker hears these doorbells


def celery(*, count: int, rounds: int, leaves: int, say) -> Result:
    """P11. `count` bounds the stops of the first phase; `rounds` is not asked for: one long phase says more than short ones."""
    seconds = max(1, min(SECONDS, count // PER_SECOND))
    with scratch.folders(), scratch.database(), receiving() as address:
        template = prepare(say, address=address, organizations=TAKERS, together=TOGETHER)
        with _worker():
            say(f"{seconds} s of {PER_SECOND:,} stops a second")
            busy = _phase(template, PER_SECOND, seconds)
            say(f"{CALM_SECONDS} s of {CALM} stops a second")
            calm = _phase(template, CALM, min(CALM_SECONDS, seconds))
    reached, late, calm_late = busy["per_s"], busy["p99_s"], calm["p99_s"]
    return Result(
        "celery", round(reached), PER_SECOND, round(reached / PER_SECOND, 3), "stops/s",
        f"≥ {PER_SECOND:,}/s from act to received, p99 < {WITHIN:.0f} s there and at {CALM}/s",
        reached >= 0.97 * PER_SECOND and late < WITHIN and calm_late < WITHIN,
        {f"at_{PER_SECOND}_per_s": busy, f"at_{CALM}_per_s": calm, "seconds_each": [seconds, CALM_SECONDS]},
    )  # fmt: skip


def _phase(template: int, per_second: int, seconds: int) -> dict[str, float]:
    """Offer so many stops a second, wait until all are received; how many a second were, and how late, in seconds."""
    first = Delivery.objects.order_by("-pk").values_list("pk", flat=True)[0]
    begun, offered = time.monotonic(), 0
    while (passed := time.monotonic() - begun) < seconds:
        due = int(passed * per_second) - offered
        if due:
            fill(template, due, organizations=TAKERS, age="0 seconds")
            propagation.ring()
            offered += due
        time.sleep(BEAT)
    waiting = Delivery.objects.filter(pk__gt=first, received_at__isnull=True)
    until = time.monotonic() + PATIENCE
    while (left := waiting.count()) and time.monotonic() < until:
        time.sleep(0.2)
    if left:
        raise RuntimeError(f"{left} of {offered} stops were not received within {PATIENCE:.0f} s")
    rows = list(Delivery.objects.filter(pk__gt=first))
    ends = [row.received_at for row in rows if row.received_at]
    span = (max(ends) - min(row.created_at for row in rows)).total_seconds()
    waits = [(row.received_at - row.created_at).total_seconds() for row in rows if row.received_at]
    return {
        "per_s": round(len(rows) / span), "p50_s": round(percentile(waits, 0.5), 2),
        "p99_s": round(percentile(waits, 0.99), 2),
    }  # fmt: skip


@contextlib.contextmanager
def _worker() -> Iterator[None]:
    """The worker of the demo with its beat, at the scratch database and a broker of its own."""
    given = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(given._replace(path=f"/{connection.settings_dict['NAME']}"))
    broker = _own_broker(settings.REDIS_URL)
    environment = {
        **os.environ, "DATABASE_URL": database, "REDIS_URL": broker, "SANDBOX_URL": settings.SANDBOX_URL,
        "LEDGER_DIR": str(settings.LEDGER_DIR), "SIGNER_DIR": str(settings.SIGNER_DIR), "LOG_LEVEL": "WARNING",
    }  # fmt: skip
    command = [sys.executable, "-m", "celery", "-A", "config", "worker", "-B", "-c", "2", "-l", "warning"]
    schedule = ["-s", str(settings.LEDGER_DIR.parent / "beat"), "--without-gossip", "--without-mingle"]
    process = subprocess.Popen(
        [*command, *schedule], cwd=settings.BASE_DIR, env=environment, start_new_session=True
    )
    try:
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _own_broker(address: str) -> str:
    if address.startswith("unix://"):
        return f"{address.partition('?')[0]}?db={BROKER_DATABASE}"
    return re.sub(r"(/\d*)?$", f"/{BROKER_DATABASE}", address, count=1)
