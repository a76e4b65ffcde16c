"""The files that a visitor lets the server check, because the browser cannot."""

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from .strict import StrictForm

LARGEST = 1_000_000  # bytes; a certificate with a hundred proofs has fewer


def _bounded(file):
    if file.size > LARGEST:
        raise ValidationError(_("파일이 너무 커요. verify.py로 확인해 주세요."))


class VerifyForm(StrictForm):
    proof = forms.FileField(
        label=_("증명 파일이나 확인서(JSON)"),
        allow_empty_file=True,
        validators=[_bounded],
        error_messages={"required": _("확인할 파일을 골라 주세요.")},
    )
    policy = forms.FileField(
        label=_("내가 받은 기준 파일"),
        required=False,
        allow_empty_file=True,
        validators=[_bounded],
        help_text=_(
            "감독기관에서 직접 받은 policy.txt가 있으면 골라 주세요. 없으면 이 포털이 가진 것으로 확인해요."
        ),
    )

    def clean(self):
        """A file under another name, or two of one, are refused as fields are."""
        cleaned = super().clean()
        files = self.files
        if set(files) - set(self.fields) or any(len(files.getlist(name)) > 1 for name in files):
            raise ValidationError(_("한 칸에 파일 하나만 골라 주세요."))
        return cleaned
