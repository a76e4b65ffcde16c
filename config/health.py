"""Whether the portal lives, whether it can serve, and whether its database understands Korean."""

import datetime
import functools
from collections.abc import Callable, Sequence
from typing import Any

import redis
import structlog
from django.conf import settings
from django.core import checks
from django.db import DatabaseError, connections, transaction
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from consents import access, clock
from consents.queries import integrity

log = structlog.get_logger(__name__)

CLOCK_ALARM, CLOCK_TOLERANCE = datetime.timedelta(seconds=1), datetime.timedelta(seconds=10)
SIMILAR = "SELECT similarity('자율', '자율')"


@access.public
@never_cache
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """The process lives. Asks nothing else, so that a broken database does not get the web restarted."""
    return JsonResponse({"status": "ok"})


@access.public
@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """The portal can serve: 200, or 503 naming what is missing. Says no more than that to a stranger."""
    findings = {name: _finding(part) for name, part in PARTS.items()}
    ready = set(findings.values()) == {"ok"}
    return JsonResponse(
        {"status": "ok" if ready else "unavailable", **findings, "witness": _witness()},
        status=200 if ready else 503,
    )


def _finding(part: Callable[[], bool]) -> str:
    try:
        return "ok" if part() else "failed"
    except (DatabaseError, redis.RedisError, OSError):
        return "failed"


def _database() -> bool:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
        return cursor.fetchone() == (1,)


def _migrations() -> bool:
    return _migrated.cache_info().currsize > 0 or _migrated()


@functools.cache
def _migrated() -> bool:
    executor = MigrationExecutor(connections["default"])
    if executor.migration_plan(executor.loader.graph.leaf_nodes()):
        raise DatabaseError(
            "migrations are waiting"
        )  # an exception is not cached: the next question asks again
    return True


def _korean() -> bool:
    with connections["default"].cursor() as cursor:
        cursor.execute(SIMILAR)
        return cursor.fetchone() == (1.0,)


def _broker() -> bool:
    with redis.from_url(settings.REDIS_URL, socket_timeout=2, socket_connect_timeout=2) as client:
        return bool(client.ping())


def _ledger() -> bool:
    """No check of the log has found anything, and nothing waits for its place longer than was promised."""
    _waiting, oldest = integrity.pending()
    found = any(row.findings for row in integrity.newest_checks())
    return not found and not integrity.is_overdue(oldest, at=timezone.now())


def _clock() -> bool:
    """This process dates what people do; ten seconds beside the database others would call it a replay (FAPI 2.0 §5.3.2.1)."""
    skew = abs(clock.skew())
    if skew > CLOCK_ALARM:
        log.warning("this clock is not the database's", seconds=round(skew.total_seconds(), 1))
    return skew <= CLOCK_TOLERANCE


def _witness() -> str:
    """Being unwitnessed is said and is no reason for 503: people must be able to withdraw while the regulator's witness
    is away. What they do is promised and ordered; it is published when the witness is back."""
    try:
        return "late" if integrity.witnessing_now().late(at=timezone.now()) else "ok"
    except (DatabaseError, OSError):
        return "unknown"


PARTS: dict[str, Callable[[], bool]] = {
    "database": _database,
    "migrations": _migrations,
    "korean": _korean,
    "broker": _broker,
    "ledger": _ledger,
    "clock": _clock,
}


@checks.register(checks.Tags.database)
def korean_search(
    app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[checks.CheckMessage]:
    """Refuse a database whose pg_trgm finds nothing in Hangul, as one made with LC_CTYPE=C."""
    findings: list[checks.CheckMessage] = []
    for alias in databases or ():
        try:
            with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
                # Asked before the first migration too, so the extension may have to be lent for the question.
                cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
                cursor.execute(SIMILAR)
                (similarity,) = cursor.fetchone()
                transaction.set_rollback(True, using=alias)
        except DatabaseError as problem:
            findings.append(
                checks.Error(
                    f"The database cannot search Korean text: {problem}".strip(), hint=HINT, id="portal.E001"
                )
            )
            continue
        if similarity != 1:
            findings.append(
                checks.Error("The database finds nothing in Korean text.", hint=HINT, id="portal.E002")
            )
    return findings


HINT = (
    "Make the database with pg_trgm available and a UTF-8 character type, for instance CREATE DATABASE portal "
    "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C.UTF-8'."
)
