"""Warnings to a person, each with its reason, and what the person did."""

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from providers.ids import uuid7

from .agreements import Subscription
from .people import Person


class Notice(models.Model):
    """One warning (알림). Raised once per subject matter while unanswered."""

    class Kind(models.TextChoices):
        COUNT = "count", _("여러 곳이 내 정보를 가지고 있어요")
        PACE = "pace", _("짧은 동안 많이 가입했어요")
        OVERLAP = "overlap", _("같은 정보가 여러 곳으로 가요")
        DORMANT = "dormant", _("오래 쓰지 않았어요")
        SENSITIVE = "sensitive", _("민감한 정보가 한곳에 모였어요")
        BROAD = "broad", _("비슷한 서비스보다 많이 가져가요")
        LICENCE = "licence", _("회사의 허가가 바뀌었어요")
        EXPIRING = "expiring", _("곧 기간이 끝나요")
        TERMS = "terms", _("약관이 바뀌었어요")
        STILL_HELD = "still_held", _("그만뒀는데 아직 지우지 않았어요")
        MISMATCH = "mismatch", _("회사의 기록이 우리 기록과 달라요")
        AFTER_STOP = "after_stop", _("그만둔 뒤에 정보가 오갔어요")
        REVIVED = "revived", _("멈췄다던 연동이 살아 있어요")
        LOST = "lost", _("오가던 정보가 줄었어요")
        OVERDUE = "overdue", _("약속한 기한이 지났어요")

    class Answer(models.TextChoices):
        NONE = "", _("아직 답하지 않음")
        KEPT = "kept", _("그대로 둠")
        ENDED = "ended", _("끝냄")
        GONE = "gone", _("더는 해당 없음")

    # How the matter of a LOST begins where somebody ended it: the service was closed, or they only ended this.
    CLOSED, ENDED = "closed", "ended"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    person = models.ForeignKey(Person, on_delete=models.PROTECT, related_name="notices")
    kind = models.CharField(max_length=10, choices=Kind)
    subscription = models.ForeignKey(
        Subscription, on_delete=models.PROTECT, null=True, blank=True, related_name="notices"
    )
    matter = models.CharField(max_length=120, help_text="what it is about, so that it is raised once")
    reason_ko = models.CharField(max_length=300)
    reason_en = models.CharField(max_length=300)
    urgent = models.BooleanField(default=False)
    raised_at = models.DateTimeField()
    answered_at = models.DateTimeField(null=True, blank=True)
    answer = models.CharField(max_length=5, choices=Answer, blank=True, default="")

    class Meta:
        ordering = ["-raised_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                name="notice_is_open_once_per_matter",
                fields=["person", "kind", "matter"],
                condition=Q(answer=""),
            ),
            models.CheckConstraint(
                name="answered_notice_knows_when",
                condition=Q(answer="", answered_at__isnull=True)
                | ~Q(answer="") & Q(answered_at__isnull=False),
            ),
            models.CheckConstraint(
                name="notice_gives_its_reason", condition=~Q(reason_ko="") & ~Q(reason_en="")
            ),
        ]
        indexes = [models.Index(name="open_notices", fields=["person", "-raised_at"], condition=Q(answer=""))]

    def __str__(self) -> str:
        return f"{self.kind} {self.person_id}"

    @property
    def heading(self) -> str:
        """What it is, in a few words: whoever ended something is named before what that leads to."""
        if self.kind == self.Kind.LOST and self.matter.startswith(f"{self.CLOSED} "):
            return str(_("회사가 서비스를 닫았어요"))
        if self.kind == self.Kind.LOST and self.matter.startswith(f"{self.ENDED} "):
            return str(_("상대가 끝냈어요"))
        return self.get_kind_display()
