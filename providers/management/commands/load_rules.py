"""Bring what the portal decides by in line with this version."""

from django.core.management.base import BaseCommand

from providers import datafiles


class Command(BaseCommand):
    help = (
        "Brings the dated rules (deadlines, limits, schedules) and the catalogue of scopes in line with the files of this "
        "version. Run it after every migration: without a rule, what is decided by it stops. Rows that are not in the files "
        "stay as they are, and a second run changes nothing. The demo does this by itself."
    )

    def handle(self, **options):
        rules, scopes = datafiles.load_policy(), datafiles.load_scopes()
        self.stdout.write(f"{rules} dated rules, {scopes} scopes")
