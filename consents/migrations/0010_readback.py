import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models
from django.db.models import Q

NEVER_CHECKED = Q(
    check_at__isnull=True,
    checks=0,
    overtaken=False,
    replay_of__isnull=True,
    state__in=["sent", "received", "checking", "stopped", "erased"],
) & ~Q(goal="received")


class Migration(migrations.Migration):
    dependencies = [("consents", "0009_inbound"), ("providers", "0003_wires")]

    operations = [
        migrations.RemoveIndex(model_name="delivery", name="deliveries_to_check"),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(
                name="deliveries_to_check",
                fields=["organization", "check_at", "id"],
                condition=Q(check_at__isnull=False),
            ),
        ),
        migrations.AddIndex(
            model_name="delivery",
            index=models.Index(name="deliveries_never_checked", fields=["id"], condition=NEVER_CHECKED),
        ),
        migrations.AddIndex(
            model_name="case",
            index=models.Index(name="cases_by_opening", fields=["-opened_at", "-id"]),
        ),
        migrations.CreateModel(
            name="Inquiry",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "outcome",
                    models.CharField(
                        choices=[
                            ("waiting", "답을 기다림"),
                            ("complete", "답함"),
                            ("partial", "일부만 답함"),
                            ("silent", "답하지 않음"),
                            ("unable", "물어볼 길이 없음"),
                        ],
                        default="waiting",
                        max_length=8,
                    ),
                ),
                (
                    "held",
                    models.PositiveIntegerField(default=0, help_text="live permissions that they listed"),
                ),
                (
                    "differences",
                    models.PositiveIntegerField(default=0, help_text="from what stands here"),
                ),
                (
                    "requested_at",
                    models.DateTimeField(blank=True, help_text="when the person last asked", null=True),
                ),
                ("answered_at", models.DateTimeField(blank=True, null=True)),
                ("due_at", models.DateTimeField(blank=True, help_text="when it is asked next", null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="inquiries",
                        to="providers.organization",
                    ),
                ),
                (
                    "person",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="inquiries",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "indexes": [
                    models.Index(
                        name="inquiries_to_make",
                        fields=["organization", "due_at", "id"],
                        condition=Q(due_at__isnull=False),
                    )
                ],
                "constraints": [
                    models.UniqueConstraint(
                        name="person_is_asked_about_once", fields=["person", "organization"]
                    )
                ],
            },
        ),
    ]
