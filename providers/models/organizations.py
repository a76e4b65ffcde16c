"""Organizations and the decisions about their licences."""

import datetime

from django.db import models
from django.db.models import F, OuterRef, Q, Subquery
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7


class Sector(models.TextChoices):
    """Industry of an organization (업권), after the standard API's list, widened to general MyData."""

    BANK = "bank", _("은행")
    SAVINGS = "savings", _("저축은행")
    MUTUAL = "mutual", _("상호금융")
    CARD = "card", _("카드")
    CAPITAL = "capital", _("할부금융")
    INVEST = "invest", _("금융투자")
    INSU = "insu", _("보험")
    EFIN = "efin", _("전자금융")
    FINTECH = "fintech", _("핀테크")
    TELECOM = "telecom", _("통신")
    PUBLIC = "public", _("공공")
    HEALTH = "health", _("의료·건강")
    TRANSPORT = "transport", _("교통")
    SHOPPING = "shopping", _("쇼핑")
    ENERGY = "energy", _("에너지")
    OTHER = "other", _("기타")


class LicenceStatus(models.TextChoices):
    """Status of an operator's licence (신용정보법 제4조, 제14조). Only the first two may receive new consents."""

    LICENSED = "licensed", _("본허가")
    CONDITIONAL = "conditional", _("조건부 허가")
    APPLIED = "applied", _("신청")
    PRELIMINARY = "preliminary", _("예비허가")
    HELD = "held", _("심사 보류")
    SUSPENDED = "suspended", _("업무정지")
    REFUSED = "refused", _("불허")
    CANCELLED = "cancelled", _("허가 취소")
    SURRENDERED = "surrendered", _("자격 반납")


OPEN_STATUSES = (LicenceStatus.LICENSED, LicenceStatus.CONDITIONAL)
ENDING_STATUSES = (LicenceStatus.CANCELLED, LicenceStatus.SURRENDERED, LicenceStatus.REFUSED)


class OrganizationQuerySet(models.QuerySet):
    def operators(self):
        return self.filter(is_operator=True)

    def sources(self):
        return self.filter(is_source=True)

    def with_licence_status(self, *, on: datetime.date):
        """Adds `licence_status`: the status of the latest decision in effect on that day, or None."""
        latest = (
            Licence.objects.filter(organization=OuterRef("pk"), effective_on__lte=on)
            .order_by("-effective_on", "-decided_on", "-id")
            .values("status")[:1]
        )
        return self.annotate(licence_status=Subquery(latest))


class Organization(models.Model):
    """A company or public body (회사·기관). May act as operator, as source, or both."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    code = models.CharField(max_length=10, unique=True)
    name_ko = models.CharField(max_length=80)
    name_en = models.CharField(max_length=120)
    sector = models.CharField(max_length=12, choices=Sector)
    is_operator = models.BooleanField(default=False)
    is_source = models.BooleanField(default=False)
    is_fictional = models.BooleanField(default=False)
    duty_contact = models.EmailField(blank=True)
    registration_number = models.CharField(
        max_length=10, blank=True, default="", db_default="",
        help_text="사업자등록번호; the SERIALNUMBER of its certificate. One firm may have several organization codes",
    )  # fmt: skip
    registered_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False, help_text="what others copy of it")

    objects = OrganizationQuerySet.as_manager()

    class Meta:
        ordering = ["name_ko"]
        constraints = [
            models.CheckConstraint(
                name="organization_code_is_ten_letters_or_digits", condition=Q(code__regex=r"^[A-Z0-9]{10}$")
            ),
            models.CheckConstraint(
                name="registration_number_is_ten_digits",
                condition=Q(registration_number="") | Q(registration_number__regex=r"^[0-9]{10}$"),
            ),
            models.CheckConstraint(name="organization_has_names", condition=~Q(name_ko="") & ~Q(name_en="")),
        ]

    def __str__(self) -> str:
        return self.name_ko

    @property
    def api_client(self):
        """The OAuth2 client that its server signs in with; None where there is none, or it was retired. One query."""
        live = self.api_clients.filter(kind="server", retired_at__isnull=True)
        return live.select_related("client").first()

    def status_on(self, on: datetime.date) -> str | None:
        """Licence status in effect on a day; None where no decision is known."""
        latest = (
            self.licences.filter(effective_on__lte=on).order_by("-effective_on", "-decided_on", "-id").first()
        )
        return latest.status if latest else None


class Licence(models.Model):
    """One dated decision about an operator (허가). Decisions are added, never changed; of those of one day the last counts.

    `nth` tells apart a decision that comes back on the same day: suspended, licensed, suspended for the second time."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="licences")
    status = models.CharField(max_length=12, choices=LicenceStatus)
    decided_on = models.DateField()
    effective_on = models.DateField()
    nth = models.PositiveSmallIntegerField(default=1, db_default=1)
    source = models.CharField(max_length=300)
    note = models.CharField(max_length=500, blank=True)
    note_en = models.CharField(max_length=500, blank=True, default="", db_default="")

    class Meta:
        ordering = ["-effective_on", "-decided_on", "-id"]
        constraints = [
            models.UniqueConstraint(
                name="licence_decision_is_recorded_once",
                fields=["organization", "status", "decided_on", "effective_on", "nth"],
            ),
            models.CheckConstraint(
                name="licence_takes_effect_on_or_after_its_decision",
                condition=Q(effective_on__gte=F("decided_on")),
            ),
            models.CheckConstraint(name="licence_names_its_source", condition=~Q(source="")),
            models.CheckConstraint(
                name="licence_status_is_known", condition=Q(status__in=LicenceStatus.values)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.status} {self.effective_on}"
