"""A file of rows, sent from the desk."""

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents.models import Upload

from .sealed import LARGEST
from .strict import StrictForm

FORMATS = {".csv": Upload.Format.CSV, ".ndjson": Upload.Format.NDJSON, ".jsonl": Upload.Format.NDJSON}


class UploadForm(StrictForm):
    kind = forms.ChoiceField(label=gettext_lazy("무엇을 알리나요"), choices=Upload.Kind.choices)
    file = forms.FileField(
        label=gettext_lazy("파일"),
        help_text=gettext_lazy(
            "CSV(.csv)나 NDJSON(.ndjson), UTF-8, 50 MB와 1,000,000줄까지. 더 크면 API로 나눠 보내 주세요."
        ),
        widget=forms.ClearableFileInput(attrs={"accept": ".csv,.ndjson,.jsonl"}),
    )

    def __init__(self, *args, operator: bool, **options):
        super().__init__(*args, **options)
        if not operator:  # a source holds what it has always held; it reports what it sends
            self.fields["kind"].choices = [(Upload.Kind.TRANSFERS.value, Upload.Kind.TRANSFERS.label)]  # type: ignore[attr-defined]

    def clean_file(self):
        file = self.cleaned_data["file"]
        if file.size > LARGEST:
            raise forms.ValidationError(_("50 MB보다 커요. API로 나눠 보내 주세요."))
        if self.format_of(file.name) is None:
            raise forms.ValidationError(_("이름이 .csv나 .ndjson으로 끝나는 파일을 골라 주세요."))
        return file

    @staticmethod
    def format_of(name: str) -> str | None:
        return next((form for end, form in FORMATS.items() if name.lower().endswith(end)), None)
