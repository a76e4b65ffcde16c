"""What the pretend identity provider of the demo asks."""

import base64
import datetime
import hashlib

from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents.identities import Vouched

from .strict import StrictForm, visible


class PretendForm(StrictForm):
    """Name and birth date; whoever says the same is the same. Believed in the demo only."""

    name = forms.CharField(label=gettext_lazy("이름"), max_length=60, validators=[visible])
    born_on = forms.DateField(
        label=gettext_lazy("생년월일"), widget=forms.DateInput(attrs={"type": "date", "autocomplete": "bday"})
    )

    def clean_born_on(self) -> datetime.date:
        born_on = self.cleaned_data["born_on"]
        if born_on > timezone.localdate():
            raise forms.ValidationError(_("생년월일을 다시 확인해 주세요."))
        return born_on

    def vouched(self) -> Vouched:
        return pretend(self.cleaned_data["name"], self.cleaned_data["born_on"])


def pretend(name: str, born_on: datetime.date) -> Vouched:
    """What the pretend provider vouches for: an invented CI, the same for the same person every time."""
    digest = hashlib.sha512(f"pretend CI|{name.strip()}|{born_on.isoformat()}".encode()).digest()
    return Vouched("pretend", base64.b64encode(digest).decode())
