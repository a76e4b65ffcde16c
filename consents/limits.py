"""How often somebody may knock: counted in windows of a minute in the cache. Without the cache there is no limit, because
withdrawals must keep flowing."""

import hashlib
import time
from dataclasses import dataclass

import structlog
from django.core.cache import caches

log = structlog.get_logger(__name__)

WINDOW = 60  # seconds


def too_often(kind: str, who: str, *, most: int) -> bool:
    """Counts one more of this kind; whether that is more than `most` in this minute."""
    name = f"{kind}:{hashlib.sha256(who.encode()).hexdigest()}"
    try:
        caches["comfort"].add(name, 0, timeout=WINDOW)
        return caches["comfort"].incr(name) > most
    except Exception as error:  # the cache is down, or the key expired between the two calls
        log.warning("no limit", exception=type(error).__name__)
        return False


@dataclass(frozen=True, slots=True)
class Budget:
    """What somebody has left of a limit: `left` of `most` requests, and `seconds` until all of them are there again."""

    name: str
    most: int
    left: int
    seconds: int

    @property
    def is_spent(self) -> bool:
        return self.left < 0


def take(name: str, who: str, *, most: int) -> Budget | None:
    """Counts one more in this minute of the clock; None while the cache is down, when nobody is held."""
    minute, gone = divmod(int(time.time()), WINDOW)
    key = f"budget:{name}:{minute}:{hashlib.sha256(who.encode()).hexdigest()}"
    try:
        caches["comfort"].add(key, 0, timeout=2 * WINDOW)
        return Budget(name, most, most - caches["comfort"].incr(key), WINDOW - gone)
    except Exception as error:
        log.warning("no limit", exception=type(error).__name__)
        return None
