"""What can be asked for: scopes, services, and the terms they publish."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7

from .organizations import Organization, Sector


class Rider(models.TextChoices):
    """The three sensitive riders that need their own switch (표준 API `is_consent_*`)."""

    MEMO = "memo", _("입출금 메모(적요)")
    MERCHANT = "merchant", _("가맹점 이름")
    CATEGORY = "category", _("구매 분류")


class Scope(models.Model):
    """One kind of data (정보 항목) in plain words. Several items can share one standard scope code."""

    item = models.CharField(primary_key=True, max_length=3)
    sector = models.CharField(max_length=12, choices=Sector)
    codes = ArrayField(models.CharField(max_length=40), help_text="standard scope codes, e.g. bank.deposit")
    rider = models.CharField(max_length=8, choices=Rider, blank=True)
    name_ko = models.CharField(max_length=80)
    name_en = models.CharField(max_length=120)
    plain_ko = models.CharField(max_length=200)
    plain_en = models.CharField(max_length=200)
    sensitivity = models.PositiveSmallIntegerField()
    flags = ArrayField(models.CharField(max_length=1), default=list, blank=True, help_text="S s U T B F P")
    cycle_class = models.CharField(max_length=10, blank=True)
    fields = models.CharField(max_length=400, blank=True)
    ref = models.CharField(max_length=120)
    position = models.PositiveSmallIntegerField()

    class Meta:
        ordering = ["position"]
        constraints = [
            models.CheckConstraint(
                name="scope_sensitivity_is_one_to_five", condition=Q(sensitivity__gte=1, sensitivity__lte=5)
            ),
            models.CheckConstraint(name="scope_has_a_code", condition=Q(codes__len__gte=1)),
        ]

    def __str__(self) -> str:
        return self.item


class Service(models.Model):
    """What a person joins at an operator (서비스); one `client_id` each."""

    class State(models.TextChoices):
        REGISTERED = "registered", _("준비 중")
        LIVE = "live", _("운영 중")
        PAUSED = "paused", _("잠시 멈춤")
        CLOSING = "closing", _("종료 예정")
        CLOSED = "closed", _("종료")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="services")
    client_id = models.CharField(max_length=50, unique=True)
    slug = models.SlugField(max_length=60, unique=True)
    name_ko = models.CharField(max_length=80)
    name_en = models.CharField(max_length=120)
    summary_ko = models.CharField(max_length=200)
    summary_en = models.CharField(max_length=200)
    benefit_ko = models.CharField(max_length=300)
    benefit_en = models.CharField(max_length=300)
    loss_ko = models.CharField(max_length=300, help_text="what stops working when it ends")
    loss_en = models.CharField(max_length=300)
    purpose_code = models.CharField(max_length=20, db_index=True)
    state = models.CharField(max_length=10, choices=State, default=State.REGISTERED)
    opened_on = models.DateField()
    app_schemes = ArrayField(
        models.CharField(max_length=100),
        default=list,
        db_default=[],
        blank=True,
        help_text="that open its apps",
    )
    registered_at = models.DateTimeField(db_default=Now(), editable=False)
    changed_at = models.DateTimeField(db_default=Now(), editable=False, help_text="what others copy of it")

    class Meta:
        ordering = ["name_ko"]
        constraints = [
            models.CheckConstraint(
                name="service_state_is_known",
                condition=Q(state__in=["registered", "live", "paused", "closing", "closed"]),
            ),
        ]

    def __str__(self) -> str:
        return self.name_ko


class Terms(models.Model):
    """One published version of what a service asks for (약관, 동의서). Published terms never change."""

    class State(models.TextChoices):
        DRAFT = "draft", _("초안")
        PUBLISHED = "published", _("게시됨")
        RETIRED = "retired", _("지난 약관")

    class Change(models.TextChoices):
        FIRST = "first", _("첫 약관")
        TYPO = "typo", _("오타 고침")
        CLARIFICATION = "clarification", _("설명 보충")
        MATERIAL = "material", _("내용 변경")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="terms")
    version = models.PositiveIntegerField()
    state = models.CharField(max_length=10, choices=State, default=State.DRAFT)
    published_at = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)
    change_kind = models.CharField(max_length=14, choices=Change, default=Change.FIRST)
    change_reason_ko = models.CharField(max_length=300, blank=True)
    change_reason_en = models.CharField(max_length=300, blank=True)
    summary_ko = models.CharField(max_length=300)
    summary_en = models.CharField(max_length=300)
    text_ko = models.TextField()
    text_en = models.TextField()
    digest_ko = models.CharField(max_length=71, blank=True, help_text="sha256: of the exact text shown")
    digest_en = models.CharField(max_length=71, blank=True)

    class Meta:
        ordering = ["service", "-version"]
        verbose_name_plural = "terms"
        constraints = [
            models.UniqueConstraint(
                name="terms_version_is_unique_per_service", fields=["service", "version"]
            ),
            models.UniqueConstraint(
                name="service_has_one_published_terms", fields=["service"], condition=Q(state="published")
            ),
            models.CheckConstraint(
                name="published_terms_have_date_and_digests",
                condition=Q(state="draft")
                | (
                    Q(published_at__isnull=False)
                    & Q(digest_ko__startswith="sha256:", digest_en__startswith="sha256:")
                ),
            ),
            models.CheckConstraint(
                name="later_terms_say_what_changed",
                condition=Q(change_kind="first") | ~Q(change_reason_ko=""),
            ),
            models.CheckConstraint(
                name="terms_state_is_known", condition=Q(state__in=["draft", "published", "retired"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.service_id} v{self.version}"


class TermsItem(models.Model):
    """One thing asked (동의 항목), with the seven items the law demands (신용정보법 제33조의2⑤, 시행령 제28조의3⑧)."""

    class Kind(models.TextChoices):
        TRANSFER = "transfer", _("정보 가져오기")
        USE = "use", _("정보 이용")
        THIRD_PARTY = "third_party", _("다른 회사에 주기")
        MARKETING = "marketing", _("광고·마케팅")

    terms = models.ForeignKey(Terms, on_delete=models.CASCADE, related_name="items")
    position = models.PositiveSmallIntegerField()
    kind = models.CharField(max_length=11, choices=Kind)
    required = models.BooleanField()
    source = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="asked_items"
    )
    recipient = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="receiving_items"
    )
    title_ko = models.CharField(max_length=120)
    title_en = models.CharField(max_length=160)
    scopes = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    riders = ArrayField(models.CharField(max_length=8, choices=Rider), default=list, blank=True)
    cycle = models.CharField(
        max_length=5, blank=True, help_text="1/1w…1/4w; empty: only when the person opens it"
    )
    valid_months = models.PositiveSmallIntegerField()
    purpose_ko = models.CharField(max_length=200)
    purpose_en = models.CharField(max_length=200)
    retention_days = models.PositiveIntegerField(
        null=True,
        blank=True,
        help_text="days after the end; null: until the person leaves or asks (99991231)",
    )
    retention_ko = models.CharField(max_length=200)
    retention_en = models.CharField(max_length=200)
    paid = models.BooleanField(default=False, help_text="is_reward: money is paid for the data")
    grade = models.CharField(
        max_length=2, blank=True, help_text="official 정보활용 동의등급 01–05; optional items only"
    )

    class Meta:
        ordering = ["terms", "position"]
        constraints = [
            models.UniqueConstraint(name="terms_item_position_is_unique", fields=["terms", "position"]),
            models.UniqueConstraint(
                name="terms_ask_each_source_once", fields=["terms", "source"], condition=Q(kind="transfer")
            ),
            models.CheckConstraint(
                name="transfer_item_names_its_source_and_scopes",
                condition=~Q(kind="transfer") | (Q(source__isnull=False) & Q(scopes__len__gte=1)),
            ),
            models.CheckConstraint(
                name="only_transfer_items_have_a_source",
                condition=Q(kind="transfer") | Q(source__isnull=True),
            ),
            models.CheckConstraint(
                name="only_third_party_items_have_a_recipient",
                condition=Q(kind="third_party", recipient__isnull=False)
                | (~Q(kind="third_party") & Q(recipient__isnull=True)),
            ),
            models.CheckConstraint(
                name="marketing_and_third_party_are_optional",
                condition=Q(required=False) | ~Q(kind__in=["marketing", "third_party"]),
            ),
            models.CheckConstraint(
                name="grade_is_for_optional_items",
                condition=Q(grade="") | Q(required=False, grade__in=["01", "02", "03", "04", "05"]),
            ),
            models.CheckConstraint(
                name="cycle_is_one_to_four_weeks", condition=Q(cycle__in=["", "1/1w", "1/2w", "1/3w", "1/4w"])
            ),
            models.CheckConstraint(
                name="valid_for_one_month_to_five_years",
                condition=Q(valid_months__gte=1, valid_months__lte=60),
            ),
        ]

    def __str__(self) -> str:
        return self.title_ko
