"""The app of organizations, what they offer, and the wires that reach them."""

from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "providers"
    label = "providers"
    verbose_name = "회사·기관"
    default_auto_field = "django.db.models.BigAutoField"
