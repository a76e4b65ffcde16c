"""Ids that are spent, and how often somebody has come."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consents", "0014_uploads")]
    operations = [
        migrations.CreateModel(
            name="SpentId",
            fields=[
                (
                    "digest",
                    models.CharField(
                        help_text="SHA-256 of its kind, owner and id",
                        max_length=64,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("until", models.DateTimeField()),
            ],
            options={"indexes": [models.Index(fields=["until"], name="spent_ids_by_end")]},
        ),
        migrations.CreateModel(
            name="Turn",
            fields=[
                (
                    "digest",
                    models.CharField(
                        help_text="SHA-256 of the kind and of who it is",
                        max_length=64,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("began_at", models.DateTimeField()),
                ("count", models.PositiveIntegerField()),
            ],
            options={"indexes": [models.Index(fields=["began_at"], name="turns_by_age")]},
        ),
        migrations.RunSQL("ALTER TABLE consents_turn SET UNLOGGED", "ALTER TABLE consents_turn SET LOGGED"),
    ]
