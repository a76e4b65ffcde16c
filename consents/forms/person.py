"""What a person types on their own pages."""

import uuid

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents.forms.strict import StrictForm, visible
from consents.models import Person
from consents.queries import holdings

MOST_AT_ONCE = 50
_LOST = gettext_lazy("어디서부터 볼지 알아보지 못했어요. 처음부터 다시 봐 주세요.")


class HoldingsForm(StrictForm):
    """Filter and order of the list on the home page."""

    also = frozenset({"after"})
    state = forms.ChoiceField(
        label=gettext_lazy("무엇을 볼까요"), required=False,
        choices=[
            ("holding", gettext_lazy("내 정보를 가진 곳 모두")), ("active", gettext_lazy("지금 받고 있는 곳")),
            ("held", gettext_lazy("그만뒀지만 아직 지우지 않은 곳")), ("all", gettext_lazy("다 지운 곳까지 모두")),
        ],
    )  # fmt: skip
    sort = forms.ChoiceField(
        label=gettext_lazy("어떤 순서로"), required=False,
        choices=[
            ("joined", gettext_lazy("최근에 가입한 것부터")), ("until", gettext_lazy("곧 끝나는 것부터")),
            ("used", gettext_lazy("오래 안 쓴 것부터")), ("sensitivity", gettext_lazy("민감한 정보가 많은 것부터")),
        ],
    )  # fmt: skip

    def clean_state(self) -> str:
        return self.cleaned_data["state"] or holdings.STATES[0]

    def clean_sort(self) -> str:
        return self.cleaned_data["sort"] or holdings.SORTS[0]


class CursorForm(forms.Form):
    """Where a page goes on: the id of the last row seen."""

    after = forms.UUIDField(required=False, error_messages={"invalid": _LOST})


class HistoryForm(StrictForm):
    """Filter of the history; `on` asks who held the data on that day."""

    also = frozenset({"on"})
    kind = forms.ChoiceField(
        label=gettext_lazy("무슨 일"), required=False,
        choices=[
            ("", gettext_lazy("모두")), ("subscription", gettext_lazy("가입과 그만두기")), ("consent", gettext_lazy("동의와 연동")),
            ("erasure", gettext_lazy("지우기")), ("delivery", gettext_lazy("회사에 전한 것과 답")), ("notice", gettext_lazy("알림")),
            ("record", gettext_lazy("내 기록을 본 사람")),
        ],
    )  # fmt: skip
    operator = forms.CharField(label=gettext_lazy("어느 회사"), required=False, max_length=10)
    after = forms.IntegerField(
        required=False, min_value=1, max_value=2**62,
        error_messages={"invalid": _LOST, "min_value": _LOST, "max_value": _LOST},
    )  # fmt: skip

    def __init__(self, *args, operators, **kwargs):
        super().__init__(*args, **kwargs)
        self.operators = {organization.code: organization for organization in operators}

    def clean_operator(self):
        code = self.cleaned_data["operator"]
        if code and code not in self.operators:
            raise forms.ValidationError(_("내 내역에 없는 회사예요."))
        return self.operators.get(code)


class DayForm(StrictForm):
    """One day, today at the latest."""

    also = frozenset({"kind", "operator", "after"})
    on = forms.DateField(
        label=gettext_lazy("날짜"),
        input_formats=["%Y-%m-%d"],
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )

    def clean_on(self):
        on = self.cleaned_data["on"]
        if on > timezone.localdate() or on.year < 2000:
            raise forms.ValidationError(_("2000년부터 오늘 사이의 날을 골라 주세요."))
        return on


class EndForm(StrictForm):
    """An end, with or without erasing. `next` is where the person came from."""

    erase = forms.BooleanField(required=False)
    next = forms.CharField(required=False, max_length=300)


class EndSeveralForm(StrictForm):
    """Several ends at once. Ticking nothing is an error, never "all"."""

    also = frozenset({"csrfmiddlewaretoken", "subscription"})
    many = frozenset({"subscription"})

    erase = forms.BooleanField(required=False)
    step = forms.ChoiceField(choices=[("ask", "ask"), ("confirm", "confirm")], required=False)
    next = forms.CharField(required=False, max_length=300)

    def clean(self):
        cleaned = super().clean() or {}
        ids = self.data.getlist("subscription")  # type: ignore[attr-defined]  # a QueryDict, always
        if not ids:
            raise forms.ValidationError(_("아무것도 고르지 않았어요. 그만둘 서비스를 하나 이상 골라 주세요."))
        if len(set(ids)) > MOST_AT_ONCE:
            raise forms.ValidationError(_("한 번에 %(n)d개까지 고를 수 있어요.") % {"n": MOST_AT_ONCE})
        try:
            cleaned["subscriptions"] = {uuid.UUID(one) for one in ids}
        except ValueError as error:
            raise forms.ValidationError(_("고른 서비스를 알아보지 못했어요.")) from error
        return cleaned


class PauseForm(StrictForm):
    """A pause; with a day, it ends by itself."""

    until_on = forms.DateField(required=False, input_formats=["%Y-%m-%d"])


class NothingForm(StrictForm):
    """A button without fields."""


class AnswerForm(StrictForm):
    """What to do about a notice: leave things as they are."""

    answer = forms.ChoiceField(choices=[("kept", "kept")])


class ProfileForm(StrictForm):
    """What a person may change about themselves."""

    name = forms.CharField(
        label=gettext_lazy("이름"), required=False, max_length=60, validators=[visible],
        help_text=gettext_lazy("화면에서 부를 때만 써요. 밖으로 나가지 않아요."),
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
    )  # fmt: skip
    language = forms.ChoiceField(label=gettext_lazy("편지를 받을 언어"), choices=Person.Language.choices)
    warn_at = forms.IntegerField(
        label=gettext_lazy("몇 곳부터 미리 알려 드릴까요"), required=False, min_value=1, max_value=50,
        help_text=gettext_lazy("이만큼의 회사가 내 정보를 가지면, 새로 가입하기 전에 목록을 먼저 보여 드려요. 비워 두면 3곳부터예요."),
    )  # fmt: skip


class CloseForm(StrictForm):
    """The end of the account, confirmed by a tick of one's own."""

    step = forms.ChoiceField(choices=[("close", "close")], widget=forms.HiddenInput, initial="close")
    sure = forms.BooleanField(
        label=gettext_lazy("네, 모두 그만두고 계정을 닫을게요. 되돌릴 수 없어요."),
        error_messages={"required": gettext_lazy("계정을 닫으려면 여기에 표시해 주세요.")},
    )
