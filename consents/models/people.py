"""Who signs in: persons, and members who act for an organization or the regulator."""

import uuid

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Organization


class PersonManager(BaseUserManager["Person"]):
    def create_user(self, email: str, password: str | None = None, **fields):
        """A new signed-in human. Without a password the person signs in by mailed code or passkey."""
        person = self.model(email=self.normalize_email(email).lower(), **fields)
        person.set_password(password)
        person.save(using=self._db)
        return person

    def get_by_natural_key(self, email):
        return self.get(email=email.lower())


class Person(AbstractBaseUser):
    """A signed-in human (정보주체). Only the random `subject_id` ever leaves the portal."""

    class Language(models.TextChoices):
        KO = "ko", "한국어"
        EN = "en", "English"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(_("이메일"), unique=True)
    name = models.CharField(_("이름"), max_length=60, blank=True)
    subject_id = models.UUIDField(unique=True, default=uuid.uuid4, editable=False)
    language = models.CharField(_("언어"), max_length=2, choices=Language, default=Language.KO)
    born_on = models.DateField(_("생년월일"), null=True, blank=True)
    warn_at = models.PositiveSmallIntegerField(
        _("알림 기준"), null=True, blank=True, help_text="own threshold of the speed bump; null: policy"
    )
    is_active = models.BooleanField(default=True)
    joined_at = models.DateTimeField(auto_now_add=True)
    closed_at = models.DateTimeField(null=True, blank=True)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = []

    objects = PersonManager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="person_threshold_is_one_to_fifty",
                condition=Q(warn_at__isnull=True) | Q(warn_at__gte=1, warn_at__lte=50),
            ),
            models.CheckConstraint(name="person_language_is_known", condition=Q(language__in=["ko", "en"])),
            models.CheckConstraint(
                name="closed_person_cannot_sign_in", condition=Q(closed_at__isnull=True) | Q(is_active=False)
            ),
        ]
        indexes = [
            # ledger.erasing: whose account is closed and whose records may have to go
            models.Index(name="closed_accounts", fields=["closed_at"], condition=Q(closed_at__isnull=False)),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class Member(models.Model):
    """Someone who works for an operator or source, or for the regulator. Such an account is never a consumer."""

    class Role(models.TextChoices):
        OPERATOR_ADMIN = "operator_admin", _("사업자 담당자")
        REGULATOR = "regulator", _("감독자")

    person = models.OneToOneField(Person, on_delete=models.PROTECT, related_name="member")
    role = models.CharField(max_length=14, choices=Role)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="members"
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="operator_admin_has_an_organization_and_regulator_has_none",
                condition=Q(role="operator_admin", organization__isnull=False)
                | Q(role="regulator", organization__isnull=True),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.person_id} {self.role}"
