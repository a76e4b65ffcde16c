"""Search in Korean text: pg_trgm, which every PostgreSQL since 13 lets the owner of a database add."""

from django.contrib.postgres.operations import TrigramExtension
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = []

    operations = [TrigramExtension()]
