"""Logs as JSON lines with an allow-list of fields: nothing personal, no line breaks from outside."""

import structlog
from structlog.typing import Processor

FIELDS = {
    "event", "level", "timestamp", "logger", "request", "code", "request_id", "correlation_id", "task", "task_id", "exception",
    "count", "jti", "organization", "verdict", "http_status", "seconds", "job", "port",
}  # fmt: skip


def only_known_fields(logger, name, event: dict) -> dict:
    """Drops every field that nobody decided to log, so that no e-mail, token or body slips in."""
    return {key: value for key, value in event.items() if key in FIELDS or key.startswith("_")}


_shared: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure() -> None:
    structlog.configure(
        # What the level leaves out is dropped before any work is done for it.
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def configuration(level: str) -> dict:
    """Django's LOGGING: every record, ours or a library's, becomes one JSON line on standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "json": {
                "()": structlog.stdlib.ProcessorFormatter,
                "foreign_pre_chain": _shared,
                "processors": [
                    only_known_fields,
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.JSONRenderer(ensure_ascii=False),
                ],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {"django.server": {"handlers": ["stderr"], "level": "WARNING", "propagate": False}},
    }
