"""Clients with two secrets, applications of organizations, and the public keys that organizations register."""

import datetime
import secrets

import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


def keep_secrets(apps, schema_editor):
    """The one secret that each client had becomes its first; those of another hash cannot be used any more."""
    ApiClient, ClientSecret = (
        apps.get_model("providers", "ApiClient"),
        apps.get_model("providers", "ClientSecret"),
    )
    for link in ApiClient.objects.select_related("client").iterator():
        if link.client.secret.startswith("machine_sha256$"):
            ClientSecret.objects.create(
                link=link, name=f"s-{secrets.token_hex(4)}", digest=link.client.secret, place=1,
                created_at=link.created_at, expires_at=link.created_at + datetime.timedelta(days=730),
            )  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [
        ("allauth_idp_oidc", "0003_client_allow_uri_wildcards"),
        ("providers", "0004_decisions_of_one_day"),
    ]
    operations = [
        migrations.CreateModel(
            name="ClientSecret",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        help_text="what it is called; says nothing of the secret", max_length=20, unique=True
                    ),
                ),
                ("digest", models.CharField(max_length=200)),
                ("place", models.PositiveSmallIntegerField(help_text="1 or 2: there is no third")),
                ("created_at", models.DateTimeField()),
                ("expires_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField(blank=True, help_text="to the minute", null=True)),
                ("retired_at", models.DateTimeField(blank=True, null=True)),
                (
                    "link",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="secrets",
                        to="providers.apiclient",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="KeySet",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("address", models.CharField(blank=True, max_length=2048)),
                ("keys", models.JSONField(default=list, help_text="public JWKs, each with its kid")),
                ("registered_at", models.DateTimeField()),
                ("fetched_at", models.DateTimeField(blank=True, null=True)),
                ("tried_at", models.DateTimeField(blank=True, null=True)),
                (
                    "problem",
                    models.CharField(blank=True, help_text="why the last fetch failed", max_length=60),
                ),
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="key_set",
                        to="providers.organization",
                    ),
                ),
            ],
        ),
        migrations.AddField(
            "apiclient",
            "dpop",
            models.BooleanField(
                default=False, help_text="tokens are bound to a key of the client's (RFC 9449)"
            ),
        ),
        migrations.AddField(
            "apiclient",
            "kind",
            models.CharField(
                choices=[("server", "우리 서버"), ("app", "사람이 쓰는 앱")], default="server", max_length=6
            ),
        ),
        migrations.AddField(
            "apiclient",
            "last_used_at",
            models.DateTimeField(blank=True, help_text="to the minute", null=True),
        ),
        migrations.AddField(
            "apiclient",
            "method",
            models.CharField(
                choices=[
                    ("secret", "클라이언트 비밀"),
                    ("private_key_jwt", "서명한 증명(private_key_jwt)"),
                    ("none", "비밀 없음(PKCE)"),
                ],
                default="secret",
                max_length=16,
            ),
        ),
        migrations.AddField("apiclient", "retired_at", models.DateTimeField(blank=True, null=True)),
        migrations.AlterField(
            "apiclient",
            "organization",
            models.ForeignKey(
                on_delete=django.db.models.deletion.PROTECT,
                related_name="api_clients",
                to="providers.organization",
            ),
        ),
        migrations.AddConstraint(
            "apiclient",
            models.UniqueConstraint(
                name="organization_has_one_server_client",
                fields=["organization"],
                condition=Q(kind="server", retired_at__isnull=True),
            ),
        ),
        migrations.AddConstraint(
            "apiclient",
            models.CheckConstraint(
                name="only_an_app_signs_in_without_a_secret",
                condition=Q(kind="app", method="none") | (Q(kind="server") & ~Q(method="none")),
            ),
        ),
        migrations.AddConstraint(
            "clientsecret",
            models.UniqueConstraint(
                name="client_has_two_secrets_at_most",
                fields=["link", "place"],
                condition=Q(retired_at__isnull=True),
            ),
        ),
        migrations.AddConstraint(
            "clientsecret",
            models.CheckConstraint(name="secret_has_place_one_or_two", condition=Q(place__in=[1, 2])),
        ),
        migrations.AddConstraint(
            "clientsecret",
            models.CheckConstraint(
                name="secret_is_a_hash", condition=Q(digest__startswith="machine_sha256$")
            ),
        ),
        migrations.AddConstraint(
            "keyset",
            models.CheckConstraint(
                name="key_set_has_keys_or_an_address",
                condition=~Q(address="") | ~Q(keys=[]),
            ),
        ),
        migrations.RunPython(keep_secrets, migrations.RunPython.noop),
    ]
