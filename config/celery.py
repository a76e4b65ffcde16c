"""Jobs: Celery rings the doorbell; what is due stands in the tables, so a lost message costs one beat at most."""

import gc
import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


def broker_url(address: str) -> str:
    """REDIS_URL as kombu spells it: unix:///path?db=N becomes redis+socket:///path?virtual_host=N."""
    if not address.startswith("unix://"):
        return address
    path, _, query = address.removeprefix("unix://").partition("?")
    number = query.removeprefix("db=") or "0"
    return f"redis+socket://{path}?virtual_host={number}"


def _defaults() -> dict[str, Any]:
    from django.conf import settings

    return {
        "broker_url": broker_url(settings.REDIS_URL),
        "broker_connection_retry_on_startup": True,
        # The doorbell must not keep a person waiting: a dead broker is noticed at once, a frozen one after two seconds.
        # The worker's own reconnecting has its own patience (broker_connection_max_retries).
        "broker_transport_options": {"max_retries": 0, "socket_connect_timeout": 1, "socket_timeout": 2},
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_backend": None,
        "task_ignore_result": True,
        # A job that dies half way is run again; every job is safe to run twice.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_hijack_root_logger": False,
        "task_always_eager": False,
        "timezone": settings.TIME_ZONE,
        "beat_max_loop_interval": 1,
    }


app = Celery("portal")
app.add_defaults(_defaults)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(related_name="jobs")


@worker_process_init.connect
def settle(**_: Any) -> None:
    """What was loaded stays until the process ends: not looked through again for garbage while thousands of rows come and go."""
    gc.collect()
    gc.freeze()
