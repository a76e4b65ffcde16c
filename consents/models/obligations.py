"""What is owed to organizations: one message per act and party, how it fares, and the evidence they answer with."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7
from providers.models import Channel, Organization

from .agreements import Consent, Subscription
from .owned import OwnedQuerySet
from .people import Person


class Delivery(models.Model):
    """One message owed to one organization until it is acknowledged and completed (전달).

    While it is to be tried, `next_at` says when, and the database keeps a slim row of it in the queue (`Outgoing`)."""

    class State(models.TextChoices):
        QUEUED = "queued", _("보낼 준비")
        SENT = "sent", _("보냄")
        RECEIVED = "received", _("받았다고 함")
        STOPPED = "stopped", _("멈췄다고 함")
        ERASED = "erased", _("지웠다고 서명함")
        RETRYING = "retrying", _("다시 보내는 중")
        CHECKING = "checking", _("확인하는 중")
        DEAD = "dead", _("사람이 처리해야 함")
        MANUAL = "manual", _("업무함에서 기다림")

    class Role(models.TextChoices):
        OPERATOR = "operator", _("마이데이터 회사")
        SOURCE = "source", _("내 정보를 가지고 있는 곳")
        RECIPIENT = "recipient", _("정보를 건네받은 곳")

    class Goal(models.TextChoices):
        RECEIVED = "received", _("받으면 끝")
        STOPPED = "stopped", _("멈추면 끝")
        ERASED = "erased", _("지우면 끝")

    id = models.BigAutoField(primary_key=True)
    jti = models.UUIDField(unique=True, default=uuid7, editable=False, help_text="one per act and party")
    txn = models.UUIDField(help_text="one per act")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="deliveries")
    # Without indexes of their own, as the organization: each begins one of those below.
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    consent = models.ForeignKey(
        Consent, on_delete=models.PROTECT, null=True, blank=True, related_name="deliveries"
    )
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="deliveries", db_index=False
    )
    role = models.CharField(max_length=9, choices=Role)
    event = models.CharField(max_length=30)
    goal = models.CharField(max_length=8, choices=Goal)
    state = models.CharField(max_length=8, choices=State, default=State.QUEUED)
    version = models.PositiveIntegerField(help_text="the subscription's version after the act")
    body = models.TextField(help_text="native body, sent as these bytes on every attempt")
    set_compact = models.TextField(help_text="the signed SET (RFC 8417) inside the body")
    overtaken = models.BooleanField(default=False, help_text="a later stop made this grant pointless")
    replay_of = models.ForeignKey(
        "self", on_delete=models.CASCADE, null=True, blank=True, related_name="replays",
        help_text="the delivery whose message is sent once more; what is answered is written there",
    )  # fmt: skip
    handle = models.CharField(
        max_length=100, blank=True, default="", db_default="", help_text="what the other side calls this stop"
    )
    check_at = models.DateTimeField(null=True, blank=True, help_text="when the other side is asked next")
    checks = models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="how often the other side was asked"
    )
    offered_at = models.DateTimeField(null=True, blank=True, help_text="last handed over by poll (RFC 8936)")
    dead_at = models.DateTimeField(null=True, blank=True, help_text="when trying by schedule ended")
    attempts = models.PositiveSmallIntegerField(default=0)
    next_at = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(
        null=True,
        blank=True,
        help_text="they asked for so much time, or our policy does: nothing hurries the next try",
    )
    key_fault_at = models.DateTimeField(
        null=True, blank=True, help_text="since when each try was answered that our key is not known"
    )
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True, blank=True)
    received_at = models.DateTimeField(null=True, blank=True)
    stopped_at = models.DateTimeField(null=True, blank=True)
    erased_at = models.DateTimeField(null=True, blank=True)
    refused_at = models.DateTimeField(null=True, blank=True)
    refusal = models.CharField(max_length=300, blank=True)
    due_at = models.DateTimeField(
        null=True, blank=True, help_text="deadline of the next step; null when nothing is owed"
    )
    closed_at = models.DateTimeField(
        null=True, blank=True, help_text="goal reached, or refused with a legal basis"
    )

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(
                name="act_is_told_to_each_party_once",
                fields=["txn", "organization"],
                condition=Q(replay_of__isnull=True),
            ),
            models.CheckConstraint(
                name="dead_delivery_knows_since_when", condition=~Q(state="dead") | Q(dead_at__isnull=False)
            ),
            models.CheckConstraint(
                name="sent_delivery_knows_when", condition=~Q(state="sent") | Q(sent_at__isnull=False)
            ),
            models.CheckConstraint(
                name="received_delivery_knows_when",
                condition=~Q(state="received") | Q(received_at__isnull=False),
            ),
            models.CheckConstraint(
                name="stopped_delivery_knows_when",
                condition=~Q(state="stopped") | Q(stopped_at__isnull=False),
            ),
            models.CheckConstraint(
                name="erased_delivery_knows_when", condition=~Q(state="erased") | Q(erased_at__isnull=False)
            ),
            models.CheckConstraint(
                name="waiting_delivery_knows_its_next_try",
                condition=~Q(state__in=["queued", "retrying"]) | Q(next_at__isnull=False),
            ),
        ]
        indexes = [
            # read-back
            models.Index(
                name="deliveries_to_check",
                fields=["organization", "check_at", "id"],
                condition=Q(check_at__isnull=False),
            ),
            models.Index(
                name="deliveries_never_checked",
                fields=["id"],
                condition=Q(
                    check_at__isnull=True,
                    checks=0,
                    overtaken=False,
                    replay_of__isnull=True,
                    sent_at__isnull=False,
                )
                & ~Q(goal="received"),
            ),
            # polling.offer: what one organization has not acknowledged, oldest first
            models.Index(
                name="unanswered_in_order",
                fields=["organization", "id"],
                condition=Q(received_at__isnull=True, closed_at__isnull=True),
            ),
            # overdue list of the regulator and the desk's inbox
            models.Index(
                name="open_obligations",
                fields=["organization", "due_at"],
                condition=Q(closed_at__isnull=True),
            ),
            models.Index(name="open_by_deadline", fields=["due_at"], condition=Q(closed_at__isnull=True)),
            models.Index(name="deliveries_of_a_subscription", fields=["subscription", "id"]),
            # the desk's delivery log
            models.Index(name="deliveries_of_an_organization", fields=["organization", "-created_at", "-id"]),
        ]

    def __str__(self) -> str:
        return str(self.jti)


class Reissue(models.Model):
    """A delivery's message signed anew under a new id, because the key it was signed with is not ours alone any more."""

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="reissues")
    jti = models.UUIDField(unique=True)
    body = models.TextField(help_text="native body, sent as these bytes from now on")
    set_compact = models.TextField(help_text="the signed SET inside it, with `replaces`")
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return str(self.jti)


class Reference(models.Model):
    """The other side's own name for what a person agreed there: an arrangement, a grant, a token, a provision, their CI.

    Sealed, because some of these open doors; found again by a keyed digest."""

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="references")
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="references")
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, null=True, blank=True, related_name="references"
    )
    consent = models.ForeignKey(
        Consent, on_delete=models.PROTECT, null=True, blank=True, related_name="references"
    )
    kind = models.CharField(max_length=12, help_text="as the wire names it: token, grant, arrangement, ci …")
    digest = models.CharField(max_length=64, help_text="HMAC-SHA256 of the identifier, hexadecimal")
    sealed = models.BinaryField(help_text="AES-256-GCM of the identifier")
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="reference_is_known_once", fields=["organization", "kind", "digest"]
            ),
        ]
        indexes = [models.Index(name="references_of_a_person", fields=["person", "organization"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.digest[:8]}"


class Check(models.Model):
    """One read-back: what the other side said about a stop when we asked (확인). Never changed."""

    class Says(models.TextChoices):
        ACTIVE = "active", _("아직 살아 있다고 함")
        STOPPING = "stopping", _("끝내는 중이라고 함")
        STOPPED = "stopped", _("끝났다고 함")
        ABSENT = "absent", _("그런 동의가 없다고 함")
        UNKNOWN = "unknown", _("알 수 없음")

    class Finding(models.TextChoices):
        NONE = "", _("이상 없음")
        STILL_ACTIVE = "still_active", _("끊었는데 아직 살아 있음")
        CAME_BACK = "came_back", _("멈췄다가 되살아남")

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="checked")
    says = models.CharField(max_length=8, choices=Says)
    finding = models.CharField(max_length=12, choices=Finding, blank=True, default="")
    http_status = models.PositiveSmallIntegerField(null=True, blank=True)
    detail = models.CharField(max_length=300, blank=True)
    digest = models.CharField(
        max_length=64, blank=True, help_text="SHA-256 of the answer, which nobody signed"
    )
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(name="checks_of_a_delivery", fields=["delivery", "-id"])]

    def __str__(self) -> str:
        return f"{self.delivery_id} {self.says}"


class Escalation(models.Model):
    """One step up the ladder because a deadline passed: told once, to whom the policy names."""

    class Step(models.TextChoices):
        LETTER = "letter", _("업무함에서 기다린다고 담당자에게 편지로 알림")
        NOT_SENT = "not_sent", _("1분이 지나도 전하지 못함")
        DUTY_CONTACT = "duty_contact", _("담당자에게 다른 길로 알림")
        NOT_RECEIVED = "not_received", _("하루가 지나도 받았다는 답이 없음")
        NOT_STOPPED = "not_stopped", _("하루가 지나도 멈췄다는 답이 없음")
        NOT_ERASED = "not_erased", _("기한이 지나도 지웠다는 증거가 없음")
        DEAD = "dead", _("정해진 만큼 다시 보냈지만 전하지 못함")

    delivery = models.ForeignKey(Delivery, on_delete=models.CASCADE, related_name="escalations")
    step = models.CharField(max_length=12, choices=Step)
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(name="escalation_is_told_once", fields=["delivery", "step"]),
        ]

    def __str__(self) -> str:
        return f"{self.delivery_id} {self.step}"


class Breaker(models.Model):
    """The health of one channel, shared by every worker: too many failures open it, a probe closes it again."""

    class State(models.TextChoices):
        CLOSED = "closed", _("정상")
        OPEN = "open", _("잠시 멈춤")
        DISABLED = "disabled", _("상대가 주소를 닫음")

    channel = models.OneToOneField(
        Channel, on_delete=models.CASCADE, primary_key=True, related_name="breaker"
    )
    state = models.CharField(max_length=8, choices=State, default=State.CLOSED)
    in_row = models.PositiveIntegerField(default=0, help_text="failures since the last success")
    recent = models.CharField(max_length=20, blank=True, help_text="the last 20 tries, newest last: . or x")
    wait = models.PositiveIntegerField(default=0, help_text="seconds of the present opening")
    open_until = models.DateTimeField(null=True, blank=True)
    verified_at = models.DateTimeField(null=True, blank=True, help_text="last verification event it answered")
    changed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.CheckConstraint(
                name="open_breaker_knows_until_when", condition=~Q(state="open") | Q(open_until__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.channel_id} {self.state}"


class Evidence(models.Model):
    """A statement by an organization that it stopped, erased, or lawfully keeps; kept with its digest."""

    class Status(models.TextChoices):
        STOPPED = "stopped", _("멈춤")
        ERASED = "erased", _("지움")
        RETAINED = "retained", _("법에 따라 보관")

    class Means(models.TextChoices):
        SIGNED = "signed", _("회사 서버가 서명함")
        DESK = "desk", _("담당자가 업무함에서 확인함")

    jti = models.CharField(max_length=100)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="evidence")
    delivery = models.ForeignKey(Delivery, on_delete=models.PROTECT, related_name="evidence")
    status = models.CharField(max_length=8, choices=Status)
    means = models.CharField(max_length=6, choices=Means)
    digest = models.CharField(max_length=71, help_text="sha256: of the bytes received")
    document = models.TextField(help_text="compact JWS, or JSON of the desk's confirmation")
    report_url = models.CharField(max_length=500, blank=True, help_text="never fetched by the portal")
    stated_at = models.DateTimeField(help_text="when they say it was done")
    received_at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "evidence"
        constraints = [
            models.UniqueConstraint(
                name="evidence_id_is_used_once_per_organization", fields=["organization", "jti"]
            ),
            models.CheckConstraint(name="evidence_has_a_digest", condition=Q(digest__startswith="sha256:")),
        ]

    def __str__(self) -> str:
        return self.jti
