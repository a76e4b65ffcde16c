"""Django's handle on what happens between people and services."""

from django.apps import AppConfig


class ConsentsConfig(AppConfig):
    name = "consents"
    default_auto_field = "django.db.models.BigAutoField"
