"""What an operator's or source's admin states about a delivery, and the filters of the delivery log."""

import datetime
import hashlib
import re

import rfc8785
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, URLValidator
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents.actors import Actor
from consents.ledger.entries import plain
from consents.models import Delivery, Evidence
from consents.queries.official import EVENTS

from .strict import StrictForm, visible

_DIGEST = RegexValidator(
    re.compile(r"^(sha256:)?[0-9a-f]{64}\Z"),
    gettext_lazy("지문은 16진수 64자예요(SHA-256). 소문자로 써 주세요."),
)


class StepForm(StrictForm):
    """One statement about one delivery. `kind` says which; templates read it, as `form.step` is the field."""

    step = forms.CharField(widget=forms.HiddenInput, max_length=8)
    back = forms.ChoiceField(
        choices=[("desk", "desk"), ("desk_delivery", "desk_delivery")],
        required=False,
        widget=forms.HiddenInput,
    )

    def __init__(self, step: str, *args, **kwargs):
        kwargs |= {"auto_id": f"{step}-%s", "initial": {"step": step, "back": "desk_delivery"}}
        super().__init__(*args, **kwargs)
        self.kind = step


class ReceivedForm(StepForm):
    pass


class StatementForm(StepForm):
    note = forms.CharField(
        label=gettext_lazy("메모"), required=False, max_length=500, validators=[visible],
        widget=forms.Textarea(attrs={"rows": 2}), help_text=gettext_lazy("사람의 이름이나 연락처는 쓰지 마세요."),
    )  # fmt: skip

    def statement(self, delivery: Delivery, *, by: Actor, at: datetime.datetime, link: str = "") -> Evidence:
        """The unsaved evidence: who confirmed what and when, as canonical JSON (RFC 8785) under its SHA-256, and by which one-time
        link (its digest), where it was by one.

        Its id follows from delivery, status and how often that was said before, so that the same confirmation sent twice
        is refused by the database."""
        before = delivery.evidence.filter(status=self.kind).count()
        given = {
            name: plain(value)
            for name, value in self.cleaned_data.items()
            if value and name not in {"step", "back"}
        }
        document = rfc8785.dumps(
            {
                "v": 1, "delivery": str(delivery.jti), "organization": delivery.organization.code, "status": self.kind,
                "confirmed_by": by.id, "stated_at": plain(at), **given,
                **({"link": link} if link else {}),
            }
        )  # fmt: skip
        return Evidence(
            jti=f"{delivery.jti}:{self.kind}" + (f":{before + 1}" if before else ""),
            status=self.kind,
            means=Evidence.Means.DESK,
            digest=f"sha256:{hashlib.sha256(document).hexdigest()}",
            document=document.decode(),
            report_url=self.cleaned_data.get("report_url", ""),
            stated_at=at,
        )

    @property
    def basis(self) -> str:
        """Why the data is lawfully kept, and until when; empty for other statements."""
        return ""


class StoppedForm(StatementForm):
    pass


class ErasedForm(StatementForm):
    field_order = ["step", "back", "report_digest", "report_url", "note"]

    report_digest = forms.CharField(
        label=gettext_lazy("삭제 증적 파일의 지문(SHA-256)"), required=False, max_length=71, validators=[_DIGEST],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )  # fmt: skip
    report_url = forms.URLField(
        label=gettext_lazy("삭제 증적 주소"), required=False, max_length=500, assume_scheme="https",
        validators=[URLValidator(schemes=["https"], message=gettext_lazy("https:// 로 시작하는 주소를 써 주세요."))],
        help_text=gettext_lazy("포털은 이 주소를 열어 보지 않고, 그대로 기록해요."),
    )  # fmt: skip


class RetainedForm(StatementForm):
    field_order = ["step", "back", "legal_basis", "retained_until", "note"]

    legal_basis = forms.CharField(
        label=gettext_lazy("법적 근거"), max_length=200, min_length=5, validators=[visible],
        help_text=gettext_lazy("법 이름과 조항을 써 주세요. 정보주체가 이 글을 그대로 봐요."),
    )  # fmt: skip
    retained_until = forms.DateField(
        label=gettext_lazy("언제까지 보관하나요"),
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )

    def clean_retained_until(self) -> datetime.date:
        until, today = self.cleaned_data["retained_until"], timezone.localdate()
        if until <= today:
            raise ValidationError(_("오늘보다 뒤의 날을 써 주세요."))
        if until.year > today.year + 30:
            raise ValidationError(_("30년 안의 날을 써 주세요."))
        return until

    @property
    def basis(self) -> str:
        return f"{self.cleaned_data['legal_basis']} (~ {self.cleaned_data['retained_until'].isoformat()})"


FORMS = {"received": ReceivedForm, "stopped": StoppedForm, "erased": ErasedForm, "retained": RetainedForm}


def step_form(step: str, data=None) -> StepForm:
    """The form of one step. Raises KeyError for a step that does not exist."""
    return FORMS[step](step, data)


class DeliveryFilters(StrictForm):
    """Filters of the delivery log."""

    also = frozenset({"after"})

    state = forms.ChoiceField(
        label=gettext_lazy("상태"), required=False, choices=[("", gettext_lazy("모두")), *Delivery.State.choices],
        error_messages={"invalid_choice": gettext_lazy("고를 수 없는 값이에요: %(value).40s")},
    )  # fmt: skip
    event = forms.ChoiceField(
        label=gettext_lazy("알린 일"), required=False, choices=[("", gettext_lazy("모두")), *EVENTS.items()],
        error_messages={"invalid_choice": gettext_lazy("고를 수 없는 값이에요: %(value).40s")},
    )  # fmt: skip
    jti = forms.UUIDField(
        label=gettext_lazy("전달 번호(jti)"),
        required=False,
        error_messages={"invalid": gettext_lazy("번호는 8-4-4-4-12자리예요.")},
    )
