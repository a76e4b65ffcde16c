"""Subscriptions, the consents inside them, and the requests that operators lodge."""

import datetime
import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Organization, Service, Terms, TermsItem
from providers.models.catalogue import Rider

from .owned import OwnedQuerySet
from .people import Person

KINDS = TermsItem.Kind


class EndReason(models.TextChoices):
    """Why something ended or stopped; the codes go over the wire and into the ledger."""

    PERSON_LEFT = "person_left", _("내가 그만뒀어요")
    PERSON_WITHDREW = "person_withdrew", _("내가 연동을 끊었어요")
    EXPIRED = "expired", _("기간이 끝났어요")
    SUPERSEDED = "superseded", _("새 약관으로 바뀌었어요")
    INACTIVE = "inactive", _("오래 쓰지 않았어요")
    OPERATOR_CLOSED = "operator_closed", _("회사가 서비스를 닫았어요")
    LICENCE_SUSPENDED = "licence_suspended", _("회사의 업무가 정지됐어요")
    LICENCE_ENDED = "licence_ended", _("회사의 허가가 끝났어요")
    SOURCE_LEFT = "source_left", _("정보를 주던 곳이 끝냈어요")
    ACCOUNT_CLOSED = "account_closed", _("계정을 닫았어요")
    SECURITY = "security", _("안전을 위해 끝냈어요")
    ERROR = "error", _("잘못 만들어졌어요")


class Erasure(models.TextChoices):
    """What became of data already received (삭제 요구). Forward only."""

    NOT_REQUESTED = "not_requested", _("지워 달라고 하지 않음")
    REQUESTED = "requested", _("지우는 중")
    CONFIRMED = "confirmed", _("지웠다고 확인함")
    REFUSED = "refused", _("법 때문에 못 지운다고 함")


_ERASURE_FIELDS_AGREE = (
    Q(erasure="not_requested", erasure_requested_at__isnull=True, erasure_confirmed_at__isnull=True)
    | Q(erasure="requested", erasure_requested_at__isnull=False, erasure_confirmed_at__isnull=True)
    | Q(erasure="confirmed", erasure_requested_at__isnull=False, erasure_confirmed_at__isnull=False)
    | (Q(erasure="refused", erasure_requested_at__isnull=False) & ~Q(erasure_refusal=""))
)


class SubscriptionQuerySet(OwnedQuerySet):
    owner = "operator"

    def live(self):
        return self.filter(state=Subscription.State.ACTIVE)

    def holding(self):
        """Those whose operator holds the person's data: active, or ended and erasure not confirmed."""
        return self.exclude(state=Subscription.State.ENDED, erasure=Erasure.CONFIRMED)

    def held_after_end(self):
        return self.filter(state=Subscription.State.ENDED).exclude(erasure=Erasure.CONFIRMED)


class Subscription(models.Model):
    """Person × service, from join to leave (가입 / 탈퇴). This is what is counted. Never back to active."""

    class State(models.TextChoices):
        ACTIVE = "active", _("가입 중")
        ENDED = "ended", _("끝남")

    class Origin(models.TextChoices):
        PORTAL = "portal", _("이 포털에서 가입")
        REQUEST = "request", _("회사의 요청으로 가입")
        REPORTED = "reported", _("회사가 알려 옴")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="subscriptions")
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="subscriptions")
    operator = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="subscriptions")
    terms = models.ForeignKey(Terms, on_delete=models.PROTECT, null=True, blank=True, related_name="+")
    language = models.CharField(max_length=2, default="ko")
    text_digest = models.CharField(max_length=71, blank=True, help_text="sha256: of the exact text shown")
    state = models.CharField(max_length=6, choices=State, default=State.ACTIVE)
    origin = models.CharField(max_length=8, choices=Origin, default=Origin.PORTAL)
    joined_at = models.DateTimeField()
    until_on = models.DateField()
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=17, choices=EndReason, blank=True)
    erasure = models.CharField(max_length=13, choices=Erasure, default=Erasure.NOT_REQUESTED)
    erasure_requested_at = models.DateTimeField(null=True, blank=True)
    erasure_confirmed_at = models.DateTimeField(null=True, blank=True)
    erasure_refusal = models.CharField(max_length=300, blank=True)
    last_used_on = models.DateField(null=True, blank=True)
    last_transfer_at = models.DateTimeField(null=True, blank=True)
    version = models.PositiveIntegerField(
        default=1, help_text="one more with every act; receivers ignore older"
    )

    objects = SubscriptionQuerySet.as_manager()

    class Meta:
        ordering = ["-joined_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                name="person_joins_a_service_once_at_a_time",
                fields=["person", "service"],
                condition=Q(state="active"),
            ),
            models.CheckConstraint(
                name="subscription_ends_with_date_and_reason",
                condition=Q(state="active", ended_at__isnull=True, end_reason="")
                | (Q(state="ended", ended_at__isnull=False) & ~Q(end_reason="")),
            ),
            models.CheckConstraint(
                name="subscription_ends_after_it_began",
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("joined_at")),
            ),
            models.CheckConstraint(
                name="subscription_is_erased_only_after_its_end",
                condition=Q(erasure="not_requested") | Q(state="ended"),
            ),
            models.CheckConstraint(name="subscription_erasure_fields_agree", condition=_ERASURE_FIELDS_AGREE),
        ]
        indexes = [
            # The number on /me/ and in /me/summary: index-only count of a person's holding operators.
            models.Index(
                name="holding_of_a_person",
                fields=["person", "operator", "state"],
                condition=~Q(state="ended", erasure="confirmed"),
            ),
            models.Index(name="live_of_an_operator", fields=["operator", "id"], condition=Q(state="active")),
            models.Index(name="live_by_last_use", fields=["last_used_on"], condition=Q(state="active")),
            models.Index(name="live_by_until", fields=["until_on"], condition=Q(state="active")),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def holds(self) -> bool:
        return self.state == self.State.ACTIVE or self.erasure != Erasure.CONFIRMED


class ConsentQuerySet(OwnedQuerySet):
    owner = "subscription__operator"

    def live(self):
        return self.exclude(state=Consent.State.ENDED)


class Consent(models.Model):
    """One revocable permission inside a subscription (전송요구 / 동의). Ended is for ever."""

    Kind = TermsItem.Kind

    class State(models.TextChoices):
        ACTIVE = "active", _("연결됨")
        PAUSED = "paused", _("잠시 멈춤")
        ENDED = "ended", _("끊음")

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="consents")
    subscription = models.ForeignKey(Subscription, on_delete=models.PROTECT, related_name="consents")
    terms_item = models.ForeignKey(
        TermsItem, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    kind = models.CharField(max_length=11, choices=TermsItem.Kind)
    required = models.BooleanField()
    source = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="sending_consents"
    )
    recipient = models.ForeignKey(
        Organization, on_delete=models.PROTECT, null=True, blank=True, related_name="receiving_consents"
    )
    scopes = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    riders = ArrayField(models.CharField(max_length=8, choices=Rider), default=list, blank=True)
    cycle = models.CharField(max_length=5, blank=True)
    purpose_ko = models.CharField(max_length=200)
    purpose_en = models.CharField(max_length=200)
    until_on = models.DateField()
    retained_until = models.DateField(
        null=True, blank=True, help_text="null: until the person leaves or asks"
    )
    retention_ko = models.CharField(max_length=200, blank=True)
    retention_en = models.CharField(max_length=200, blank=True)
    paid = models.BooleanField(default=False)
    state = models.CharField(max_length=6, choices=State, default=State.ACTIVE)
    granted_at = models.DateTimeField()
    paused_at = models.DateTimeField(null=True, blank=True)
    paused_until = models.DateField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    end_reason = models.CharField(max_length=17, choices=EndReason, blank=True)
    erasure = models.CharField(max_length=13, choices=Erasure, default=Erasure.NOT_REQUESTED)
    erasure_requested_at = models.DateTimeField(null=True, blank=True)
    erasure_confirmed_at = models.DateTimeField(null=True, blank=True)
    erasure_refusal = models.CharField(max_length=300, blank=True)
    version = models.PositiveIntegerField(default=1)

    objects = ConsentQuerySet.as_manager()

    class Meta:
        ordering = ["subscription", "id"]
        constraints = [
            models.UniqueConstraint(
                name="source_sends_once_per_subscription",
                fields=["subscription", "source"],
                condition=Q(kind="transfer") & ~Q(state="ended"),
            ),
            models.UniqueConstraint(
                name="terms_item_is_agreed_once",
                fields=["subscription", "terms_item"],
                condition=~Q(state="ended"),
            ),
            models.CheckConstraint(
                name="transfer_consent_names_its_source_and_scopes",
                condition=~Q(kind="transfer") | (Q(source__isnull=False) & Q(scopes__len__gte=1)),
            ),
            models.CheckConstraint(
                name="third_party_consent_names_its_recipient",
                condition=~Q(kind="third_party") | Q(recipient__isnull=False),
            ),
            models.CheckConstraint(
                name="consent_state_and_dates_agree",
                condition=Q(state="active", ended_at__isnull=True, end_reason="", paused_at__isnull=True)
                | Q(state="paused", ended_at__isnull=True, end_reason="", paused_at__isnull=False)
                | (Q(state="ended", ended_at__isnull=False) & ~Q(end_reason="")),
            ),
            models.CheckConstraint(
                name="consent_ends_after_it_was_given",
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("granted_at")),
            ),
            models.CheckConstraint(
                name="consent_is_erased_only_after_its_end",
                condition=Q(erasure="not_requested") | Q(state="ended"),
            ),
            models.CheckConstraint(name="consent_erasure_fields_agree", condition=_ERASURE_FIELDS_AGREE),
            models.CheckConstraint(
                name="consent_cycle_is_one_to_four_weeks",
                condition=Q(cycle__in=["", "1/1w", "1/2w", "1/3w", "1/4w"]),
            ),
            models.CheckConstraint(
                name="pause_end_belongs_to_a_pause",
                condition=Q(paused_until__isnull=True) | ~Q(state="active"),
            ),
        ]
        indexes = [
            models.Index(
                name="live_consents_of_a_person", fields=["person", "source"], condition=~Q(state="ended")
            ),
            models.Index(name="live_consents_by_end", fields=["until_on"], condition=~Q(state="ended")),
            models.Index(name="pauses_by_end", fields=["paused_until"], condition=Q(state="paused")),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class ConsentRequest(models.Model):
    """What an operator lodged before sending the person over. Decided once."""

    class State(models.TextChoices):
        PENDING = "pending", _("대기 중")
        GRANTED = "granted", _("동의함")
        DECLINED = "declined", _("거절함")
        EXPIRED = "expired", _("시간이 지남")

    # Wholly random, because a browser carries it: whoever has it first may answer.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="consent_requests")
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="consent_requests")
    terms = models.ForeignKey(Terms, on_delete=models.PROTECT, related_name="+")
    redirect_uri = models.CharField(max_length=500, blank=True)
    client_state = models.CharField(max_length=200, blank=True)
    code_challenge = models.CharField(
        max_length=43, blank=True, default="", db_default="", help_text="PKCE, S256 (RFC 7636)"
    )
    state = models.CharField(max_length=8, choices=State, default=State.PENDING)
    lodged_at = models.DateTimeField()
    expires_at = models.DateTimeField()
    decided_at = models.DateTimeField(null=True, blank=True)
    person = models.ForeignKey(
        Person, on_delete=models.PROTECT, null=True, blank=True, related_name="consent_requests"
    )
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, null=True, blank=True, related_name="consent_requests"
    )
    # What the person's browser brings back: SHA-256 of a code that works once, for a minute.
    code_digest = models.CharField(max_length=64, blank=True, default="", db_default="")
    code_until = models.DateTimeField(null=True, blank=True)
    redeemed_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="code_belongs_to_a_granted_request",
                condition=Q(code_digest="", code_until__isnull=True)
                | Q(state="granted", code_until__isnull=False) & ~Q(code_digest="") & ~Q(code_challenge=""),
            ),
            models.CheckConstraint(
                name="redeemed_code_is_gone", condition=Q(redeemed_at__isnull=True) | Q(code_digest="")
            ),
            models.UniqueConstraint(
                name="code_is_of_one_request", fields=["code_digest"], condition=~Q(code_digest="")
            ),
            models.CheckConstraint(
                name="consent_request_is_decided_with_a_date",
                condition=Q(state="pending", decided_at__isnull=True)
                | ~Q(state="pending") & Q(decided_at__isnull=False),
            ),
            models.CheckConstraint(
                name="granted_request_names_its_subscription",
                condition=~Q(state="granted") | Q(subscription__isnull=False, person__isnull=False),
            ),
            models.CheckConstraint(
                name="consent_request_expires_after_lodging", condition=Q(expires_at__gt=F("lodged_at"))
            ),
        ]
        indexes = [
            models.Index(
                name="pending_requests_by_expiry", fields=["expires_at"], condition=Q(state="pending")
            ),
        ]

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def returns_code(self) -> bool:
        """Only PKCE ties a code to whoever asked for it."""
        return bool(self.code_challenge)

    def is_open(self, *, at: datetime.datetime) -> bool:
        """A closed service is asked for by nobody any more, however little time has gone."""
        pending = self.state == self.State.PENDING and at < self.expires_at
        return pending and self.service.state != Service.State.CLOSED
