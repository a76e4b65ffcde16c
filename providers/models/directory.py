"""What other institutions copy of an organization beside its name and licence: how to reach its servers, and who relays for it."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .organizations import Organization


class DirectoryEntry(models.Model):
    """The optional facts of 지원-002. What nobody has told us is empty."""

    class AuthType(models.TextChoices):
        UNIFIED = "01", _("통합인증만")
        BOTH = "03", _("통합인증과 개별인증")

    organization = models.OneToOneField(
        Organization, on_delete=models.CASCADE, primary_key=True, related_name="directory"
    )
    corporate_number = models.CharField(max_length=13, blank=True, help_text="법인등록번호")
    address = models.CharField(max_length=200, blank=True)
    domain = models.CharField(max_length=253, blank=True)
    domain_ips = ArrayField(models.CharField(max_length=45), default=list, blank=True)
    relay_code = models.CharField(max_length=10, blank=True, help_text="기관코드 of who relays for it")
    auth_type = models.CharField(max_length=2, choices=AuthType, blank=True)
    ips = ArrayField(
        models.CharField(max_length=45), default=list, blank=True, help_text="from which it calls"
    )
    quiet_times = ArrayField(
        models.CharField(max_length=9),
        default=list,
        blank=True,
        help_text="np_time: HHMM-HHMM for regular transfers",
    )

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="corporate_number_is_thirteen_digits",
                condition=Q(corporate_number="") | Q(corporate_number__regex=r"^[0-9]{13}$"),
            ),
            models.CheckConstraint(
                name="relay_code_is_an_organization_code",
                condition=Q(relay_code="") | Q(relay_code__regex=r"^[A-Z0-9]{10}$"),
            ),
            models.CheckConstraint(name="auth_type_is_known", condition=Q(auth_type__in=["", "01", "03"])),
            models.CheckConstraint(name="three_quiet_times_at_most", condition=Q(quiet_times__len__lte=3)),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}"
