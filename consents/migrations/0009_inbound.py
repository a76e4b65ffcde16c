import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("consents", "0008_gym"), ("providers", "0003_wires")]

    operations = [
        migrations.CreateModel(
            name="InboundMessage",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("jti", models.CharField(help_text="the id it is known by over there", max_length=256)),
                ("digest", models.CharField(help_text="SHA-256 of its bytes, hexadecimal", max_length=64)),
                ("at", models.DateTimeField()),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="inbound_messages",
                        to="providers.organization",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.UniqueConstraint(
                        fields=("organization", "jti"), name="inbound_message_counts_once"
                    )
                ],
            },
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                condition=models.Q(("closed_at__isnull", True), ("received_at__isnull", True)),
                fields=["organization", "id"],
                name="unanswered_in_order",
            ),
        ),
    ]
