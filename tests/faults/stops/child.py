"""What the portal's own web and worker processes run under in these experiments: they die where they are told to, their
clocks may be wrong, a fault may be put in (see mutants). The portal's code knows nothing of it: it is patched here, before
the first request and before the pool forks.

As a program: a Celery worker. A moment is armed by a file `FAULTS/<child or any>.<moment>`, which whoever comes there first
takes away; then the process dies with all its group (SIGKILL), or freezes (SIGSTOP).
"""

import contextlib
import datetime
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

LONGEST_HOLD = 15.0  # seconds that an act waits for its commit


def armed(moment: str) -> bool:
    for name in (os.environ["CHILD"], "any"):
        with contextlib.suppress(FileNotFoundError):
            (Path(os.environ["FAULTS"]) / f"{name}.{moment}").unlink()
            return True
    return False


def strike(moment: str) -> None:
    """Dies or freezes here, once, if this moment is armed."""
    if armed(moment):
        os.killpg(os.getpgrp(), signal.SIGSTOP if moment.startswith("frozen") else signal.SIGKILL)


def hold() -> None:
    """Keeps the transaction open until the file `release` is there."""
    if armed("held"):
        deadline = time.monotonic() + LONGEST_HOLD
        while not (Path(os.environ["FAULTS"]) / "release").exists() and time.monotonic() < deadline:
            time.sleep(0.02)


def turn_clock(seconds: float) -> None:
    """This process's clock is wrong by so much; what only measures a time that passes is not."""
    from django.utils import timezone

    now, epoch, shift = timezone.now, time.time, datetime.timedelta(seconds=seconds)
    timezone.now = lambda: now() + shift
    time.time = lambda: epoch() + seconds


def patch() -> None:
    """In a process where Django is set up."""
    from django.db import connection

    from consents import propagation
    from providers import outbound, vault

    ports = {("127.0.0.1", int(port)) for port in os.environ["OPERATOR_PORTS"].split(",")}
    outbound._pretended = lambda: ports  # each mock operator is a host of its own
    # A rotated key is seen at once, as it is by a process that was started again.
    vault._key_file = vault._key_file.__wrapped__
    if shift := float(os.environ.get("CLOCK_SHIFT", "0")):
        turn_clock(shift)
    if name := os.environ.get("MUTANT"):
        from tests.faults.stops import mutants

        mutants.apply(name)

    claim, record, owe, ring = propagation.claim, propagation.record_all, propagation.owe, propagation.ring

    def frozen_in_the_middle(execute: Any, sql: Any, *more: Any) -> Any:
        answer = execute(sql, *more)
        if "INSERT INTO consents_lease" in str(sql):
            strike("frozen_claiming")
        return answer

    def claims(**options: Any) -> list:
        with connection.execute_wrapper(frozen_in_the_middle):
            rows = claim(**options)
        if rows:
            strike("claimed")
        return rows

    def records(attempts: list, **options: Any) -> set:
        if any(attempt.outcome.verdict == "sent" for attempt in attempts):
            strike("sent")
            strike("frozen")
        written = record(attempts, **options)
        if written:
            strike("recorded")
        return written

    def owes(owed: list, **options: Any) -> list:
        rows = owe(owed, **options)
        strike("uncommitted")
        hold()
        return rows

    def rings() -> None:
        strike("committed")
        ring()

    propagation.claim, propagation.record_all, propagation.owe, propagation.ring = (
        claims,
        records,
        owes,
        rings,
    )


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    patch()
    from celery.__main__ import main as celery

    sys.argv[0] = "celery"
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(celery())


if __name__ == "__main__":
    main()
