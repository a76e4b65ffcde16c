"""What happened, as one JSON line an event: when, who, what, about what, and how it ended.

`type` is `invoke`, `ok` (the answer was received: accepted), `fail` (surely not done) or `info` (unknown, or told by a
bystander). Written by the load, the nemesis and the mock operators; read by the checker alone.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class History:
    """One process's pen; its threads share it."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def write(self, p: str, f: str, k: str, type: str, v: Any = None) -> None:
        line = json.dumps({"t": round(time.time(), 4), "p": p, "f": f, "k": k, "type": type, "v": v})
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> None:
        self._file.close()


def read(*paths: Path) -> Iterator[dict[str, Any]]:
    """All events of these files in the order of their times."""
    events = []
    for path in paths:
        # A writer that was killed may have left half a line; nobody was answered because of it.
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
    yield from sorted(events, key=lambda event: event["t"])
