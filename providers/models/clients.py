"""How an organization's programs sign in here: OAuth2 clients, their secrets, and the public keys it signs with."""

from allauth.idp.oidc.models import Client
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .organizations import Organization


class ApiClient(models.Model):
    """An OAuth2 client of an organization: the one its server signs in with, or an application that people use. The
    organization behind a token always comes from this row."""

    class Kind(models.TextChoices):
        SERVER = "server", _("우리 서버")
        APP = "app", _("사람이 쓰는 앱")

    class Method(models.TextChoices):
        SECRET = "secret", _("클라이언트 비밀")
        KEY = "private_key_jwt", _("서명한 증명(private_key_jwt)")
        NONE = "none", _("비밀 없음(PKCE)")

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="api_clients")
    client = models.OneToOneField(Client, on_delete=models.PROTECT, related_name="organization_link")
    kind = models.CharField(max_length=6, choices=Kind, default=Kind.SERVER)
    method = models.CharField(max_length=16, choices=Method, default=Method.SECRET)
    dpop = models.BooleanField(
        default=False, help_text="tokens are bound to a key of the client's (RFC 9449)"
    )
    created_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="to the minute")
    retired_at = models.DateTimeField(null=True, blank=True)

    live: "list[ClientSecret]"  # where it was looked up together with its secrets

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="organization_has_one_server_client",
                fields=["organization"],
                condition=Q(kind="server", retired_at__isnull=True),
            ),
            models.CheckConstraint(
                name="only_an_app_signs_in_without_a_secret",
                condition=Q(kind="app", method="none") | (Q(kind="server") & ~Q(method="none")),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}"


class ClientSecret(models.Model):
    """A secret of a server's client, as a hash. Two may be live at once, so that one can be exchanged without an outage."""

    link = models.ForeignKey(ApiClient, on_delete=models.CASCADE, related_name="secrets")
    name = models.CharField(
        max_length=20, unique=True, help_text="what it is called; says nothing of the secret"
    )
    digest = models.CharField(max_length=200)
    place = models.PositiveSmallIntegerField(help_text="1 or 2: there is no third")
    created_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True, blank=True, help_text="to the minute")
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="client_has_two_secrets_at_most",
                fields=["link", "place"],
                condition=Q(retired_at__isnull=True),
            ),
            models.CheckConstraint(name="secret_has_place_one_or_two", condition=Q(place__in=[1, 2])),
            models.CheckConstraint(
                name="secret_is_a_hash", condition=Q(digest__startswith="machine_sha256$")
            ),
        ]

    def __str__(self) -> str:
        return self.name


class KeySet(models.Model):
    """The public keys (RFC 7517) an organization signs its evidence and its sign-ins with: given by value, or fetched from
    its address and kept here."""

    organization = models.OneToOneField(Organization, on_delete=models.PROTECT, related_name="key_set")
    address = models.CharField(max_length=2048, blank=True)
    keys = models.JSONField(default=list, help_text="public JWKs, each with its kid")
    registered_at = models.DateTimeField()
    fetched_at = models.DateTimeField(null=True, blank=True)
    tried_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=60, blank=True, help_text="why the last fetch failed")

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="key_set_has_keys_or_an_address", condition=~Q(address="") | ~Q(keys=[])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}"
