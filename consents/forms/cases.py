"""How cases are looked for, and how one is settled."""

from django import forms
from django.utils.translation import gettext_lazy as _

from consents.models import Case

from .oversight import OrganizationField, _length
from .strict import StrictForm

LONGEST = 300
_CHOICE = {"invalid_choice": _("고를 수 없는 값이에요: %(value).40s")}


class CaseFilters(StrictForm):
    also = frozenset({"after"})

    organization = OrganizationField(
        required=False,
        label=_("회사·기관"),
        widget=forms.TextInput(attrs={"list": "parties", "autocomplete": "off"}),
    )
    kind = forms.ChoiceField(
        required=False,
        label=_("무엇이 다른가"),
        choices=[("", _("모두")), *Case.Kind.choices],
        error_messages=_CHOICE,
    )
    state = forms.ChoiceField(
        required=False, label=_("정했는지"), error_messages=_CHOICE,
        choices=[("", _("아직 정하지 않음")), ("settled", _("정함")), ("all", _("모두"))],
    )  # fmt: skip

    def clean_state(self):
        return self.cleaned_data["state"] or "open"


class SettleForm(StrictForm):
    """One verb and why; the verbs are those that can settle the case."""

    verb = forms.ChoiceField(label=_("어떻게 할까요"), widget=forms.RadioSelect)
    reason = forms.CharField(
        label=_("까닭"), validators=_length((10, LONGEST)), widget=forms.Textarea(attrs={"rows": 3}),
        help_text=_("감독자와 회사가 함께 봐요. 사람의 이름은 쓰지 마세요."),
    )  # fmt: skip

    def __init__(self, verbs: list[str], *args, **kwargs):
        super().__init__(*args, **kwargs)
        words = dict(Case.Verb.choices)
        self.fields["verb"].choices = [(verb, words[verb]) for verb in verbs]  # type: ignore[attr-defined]
