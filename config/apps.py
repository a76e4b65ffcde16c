"""Django's handle on the composition package."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        from config import health  # noqa: F401  (registers its check)
