"""How often somebody may knock: counted in windows of a minute in the cache. Without the cache there is no limit, because
withdrawals must keep flowing."""

import hashlib

import structlog
from django.core.cache import cache

log = structlog.get_logger(__name__)

WINDOW = 60  # seconds


def too_often(kind: str, who: str, *, most: int) -> bool:
    """Counts one more of this kind; whether that is more than `most` in this minute."""
    name = f"{kind}:{hashlib.sha256(who.encode()).hexdigest()}"
    try:
        cache.add(name, 0, timeout=WINDOW)
        return cache.incr(name) > most
    except Exception as error:  # the cache is down, or the key expired between the two calls
        log.warning("no limit", exception=type(error).__name__)
        return False
