import django.db.models.deletion
import providers.ids
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consents", "0007_stops")]

    operations = [
        migrations.CreateModel(
            name="GymMessage",
            fields=[
                (
                    "jti",
                    models.UUIDField(
                        default=providers.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("trial", models.CharField(max_length=20)),
                (
                    "asked",
                    models.PositiveSmallIntegerField(
                        default=0, help_text="how often its acknowledgement arrived"
                    ),
                ),
                (
                    "run",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="messages",
                        to="consents.gymrun",
                    ),
                ),
            ],
        ),
    ]
