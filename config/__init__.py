"""Composition: settings, addresses, jobs, health, and the embedded servers; the only package that imports everything."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
