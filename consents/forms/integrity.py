"""What the regulator types about the log: two sizes to compare, and why a finding may be laid aside."""

from django import forms
from django.core.validators import MaxLengthValidator, MinLengthValidator
from django.utils.translation import gettext_lazy as _

from .strict import StrictForm, visible

_SIZE = {
    "required": _("체크포인트의 크기를 써 주세요."),
    "invalid": _("체크포인트의 크기를 숫자로 써 주세요."),
    "min_value": _("1보다 작을 수 없어요."),
    "max_value": _("그렇게 큰 체크포인트는 없어요."),
}


class ConsistencyForm(StrictForm):
    old = forms.IntegerField(label=_("작은 쪽 크기"), min_value=1, max_value=2**63 - 1, error_messages=_SIZE)
    new = forms.IntegerField(label=_("큰 쪽 크기"), min_value=1, max_value=2**63 - 1, error_messages=_SIZE)
    download = forms.BooleanField(required=False, widget=forms.HiddenInput)

    def clean(self):
        kept = super().clean()
        if kept.get("old") and kept.get("new") and kept["old"] > kept["new"]:
            kept["old"], kept["new"] = kept["new"], kept["old"]
        return kept


class AcknowledgeForm(StrictForm):
    reason = forms.CharField(
        label=_("무엇을 알아봤나요"), widget=forms.Textarea(attrs={"rows": 3}),
        validators=[MinLengthValidator(10), MaxLengthValidator(300), visible],
    )  # fmt: skip
