"""What the regulator types: filters of the log (the same for pages and API), and the grounds for a reveal."""

import datetime
import re

import django_filters
from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import (
    MaxLengthValidator,
    MaxValueValidator,
    MinLengthValidator,
    MinValueValidator,
    RegexValidator,
)
from django.db.models import Q
from django.utils.functional import lazy
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents import inspection
from consents.ledger import entries
from consents.models import EntryIndex
from consents.queries.official import ACTORS, GOALS, SENTENCES
from providers.models import Organization

from .strict import StrictForm, visible

_YEARS = [
    MinValueValidator(
        datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC), gettext_lazy("2000년 뒤의 때를 써 주세요.")
    ),
    MaxValueValidator(
        datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC), gettext_lazy("2100년 앞의 때를 써 주세요.")
    ),
]
_MOMENT = {"invalid": gettext_lazy("2026-11-22T09:00처럼 써 주세요.")}
_WITH_CODE = re.compile(r"\(([A-Z0-9]{10})\)\s*$")
_GROUPS = {
    "subscription": gettext_lazy("가입"),
    "consent": gettext_lazy("동의·연동"),
    "erasure": gettext_lazy("삭제"),
    "delivery": gettext_lazy("전달"),
    "transfer": gettext_lazy("전송"),
    "request": gettext_lazy("동의 요청"),
    "terms": gettext_lazy("약관"),
    "licence": gettext_lazy("허가"),
    "channel": gettext_lazy("연결"),
    "notice": gettext_lazy("알림"),
    "record": gettext_lazy("조회"),
    "key": gettext_lazy("열쇠"),
    "person": gettext_lazy("계정"),
}


def types() -> list[tuple[str, list[tuple[str, str]]]]:
    """Every ledger type, grouped by what it speaks of."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for typ in entries.FIELDS:
        groups.setdefault(typ.partition(".")[0], []).append((typ, f"{SENTENCES[typ]} ({typ})"))
    return [(str(_GROUPS[name]), choices) for name, choices in groups.items()]


class OrganizationField(forms.CharField):
    """An organization by its code, its exact name, or both as the list offers them: `이름 (CODE)`."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, max_length=140, **kwargs)

    def clean(self, value):
        text = super().clean(value)
        if not text:
            return None
        if with_code := _WITH_CODE.search(text):
            text = with_code[1]
        found = list(Organization.objects.filter(Q(code=text) | Q(name_ko=text) | Q(name_en=text))[:2])
        if not found:
            raise ValidationError(
                _("그런 회사·기관이 없어요. 이름을 목록에서 고르거나 코드 10자리를 써 주세요."),
                code="unknown",
            )
        if len(found) > 1:
            raise ValidationError(
                _("이름이 같은 곳이 여럿이에요. 코드 10자리를 써 주세요."), code="ambiguous"
            )
        return found[0]


class OrganizationFilter(django_filters.Filter):
    field_class = OrganizationField


class _EntryForm(StrictForm):
    also = frozenset({"after"})

    def clean(self):
        cleaned = super().clean()
        since, until = cleaned.get("since"), cleaned.get("until")
        if since and until and since >= until:
            self.add_error("until", _("끝이 시작보다 뒤여야 해요."))
        return cleaned


def _moment_field() -> forms.DateTimeInput:
    return forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M")


class EntryFilters(django_filters.FilterSet):
    """Search of the log. `since` is included, `until` is not; without an offset they are Seoul time. `form.errors` says
    in words what is wrong; unknown and doubled parameters are errors."""

    operator = OrganizationFilter(
        label=gettext_lazy("마이데이터 회사"),
        widget=forms.TextInput(attrs={"list": "operators", "autocomplete": "off"}),
    )
    party = OrganizationFilter(
        label=gettext_lazy("상대(정보제공자·제3자)"),
        widget=forms.TextInput(attrs={"list": "parties", "autocomplete": "off"}),
    )
    typ = django_filters.ChoiceFilter(
        choices=lazy(types, list)(), label=gettext_lazy("종류"), empty_label=gettext_lazy("모두"),
        error_messages={"invalid_choice": gettext_lazy("그런 종류의 기록은 없어요: %(value).40s")},
    )  # fmt: skip
    since = django_filters.DateTimeFilter(
        field_name="at",
        lookup_expr="gte",
        error_messages=_MOMENT,
        label=gettext_lazy("언제부터(서울 시각)"),
        validators=_YEARS,
        widget=_moment_field(),
    )
    until = django_filters.DateTimeFilter(
        field_name="at",
        lookup_expr="lt",
        error_messages=_MOMENT,
        label=gettext_lazy("언제 전까지"),
        validators=_YEARS,
        widget=_moment_field(),
    )
    subject = django_filters.CharFilter(
        label=gettext_lazy("정보주체(가명 p_…)"),
        validators=[
            RegexValidator(r"^p_[A-Z2-7]{26}\Z", gettext_lazy("가명은 p_ 다음에 대문자·숫자 26자예요."))
        ],
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    subscription = django_filters.UUIDFilter(
        label=gettext_lazy("가입 번호"),
        error_messages={"invalid": gettext_lazy("번호는 8-4-4-4-12자리예요.")},
    )
    consent = django_filters.UUIDFilter(
        label=gettext_lazy("동의 번호"),
        error_messages={"invalid": gettext_lazy("번호는 8-4-4-4-12자리예요.")},
    )
    txn = django_filters.UUIDFilter(
        label=gettext_lazy("행위 번호(txn)"),
        error_messages={"invalid": gettext_lazy("번호는 8-4-4-4-12자리예요.")},
    )
    actor = django_filters.ChoiceFilter(
        field_name="actor_kind", choices=list(ACTORS.items()), label=gettext_lazy("누가"), empty_label=gettext_lazy("모두"),
        error_messages={"invalid_choice": gettext_lazy("고를 수 없는 값이에요: %(value).40s")},
    )  # fmt: skip

    class Meta:
        model = EntryIndex
        form = _EntryForm
        fields: list[str] = []


class OverdueForm(StrictForm):
    """Narrows the list of late obligations."""

    also = frozenset({"after"})

    organization = OrganizationField(
        required=False,
        label=gettext_lazy("회사·기관"),
        widget=forms.TextInput(attrs={"list": "parties", "autocomplete": "off"}),
    )
    goal = forms.ChoiceField(
        required=False,
        label=gettext_lazy("어디까지 해야 하나"),
        choices=[("", gettext_lazy("모두")), *GOALS.items()],
        error_messages={"invalid_choice": gettext_lazy("고를 수 없는 값이에요: %(value).40s")},
    )


def _length(bounds: tuple[int, int]) -> list:
    least, most = bounds
    return [
        MinLengthValidator(
            least, gettext_lazy("%(limit_value)d자보다 길게 써 주세요. 지금은 %(show_value)d자예요.")
        ),
        MaxLengthValidator(
            most, gettext_lazy("%(limit_value)d자까지 쓸 수 있어요. 지금은 %(show_value)d자예요.")
        ),
        visible,
    ]


class RevealForm(StrictForm):
    """Why the regulator must know who this is."""

    case = forms.CharField(
        label=gettext_lazy("사건 번호"), validators=_length(inspection.CASE_LENGTH),
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )  # fmt: skip
    reason = forms.CharField(
        label=gettext_lazy("이유"), validators=_length(inspection.REASON_LENGTH), widget=forms.Textarea(attrs={"rows": 3}),
        help_text=gettext_lazy("정보주체가 이 글을 그대로 봐요. 10자에서 300자까지 써 주세요."),
    )  # fmt: skip
