"""A worker that takes in uploaded files and nothing else, in a process of its own: its memory can be read, and it can be killed.

Prints a JSON object when nothing waits any more: rows, seconds, and megabytes at its peak above those before the first row."""

import json
import resource
import sys
import time
from pathlib import Path


def main() -> None:
    import django

    django.setup()
    from django.utils import timezone

    from consents import intake
    from consents.models import Upload

    Upload.objects.first()  # the connection and its caches belong to the base
    base = _peak()
    begun, rows = time.perf_counter(), 0
    while found := intake.run(now=timezone.now, seconds=3600):
        rows += found
    seconds = time.perf_counter() - begun
    peak = _peak()
    told = {"rows": rows, "seconds": seconds, "peak_mb": (peak - base) / 1024, "base_mb": base / 1024}
    sys.stdout.write(json.dumps(told) + "\n")


def _peak() -> int:
    """The most memory that this program has had, in kilobytes; where the system only knows that of its process, that."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    main()
