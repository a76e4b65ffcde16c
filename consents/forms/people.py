"""Sign-up."""

import datetime

from dateutil.relativedelta import relativedelta
from django import forms
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from providers import policy


class SignupForm(forms.Form):
    """Beside the e-mail address: the birth date, because the law sets an age (MyData 2.0: from 14)."""

    born_on = forms.DateField(
        label=gettext_lazy("생년월일"),
        help_text=gettext_lazy("만 14세부터 쓸 수 있어요. 나이를 확인하는 데만 써요."),
        widget=forms.DateInput(attrs={"type": "date", "autocomplete": "bday"}),
    )

    def clean_born_on(self) -> datetime.date:
        born_on, today = self.cleaned_data["born_on"], timezone.localdate()
        if born_on > today or born_on.year < today.year - 130:
            raise forms.ValidationError(_("생년월일을 다시 확인해 주세요."))
        youngest = policy.number("MIN_AGE", on=today)
        if relativedelta(today, born_on).years < youngest:
            raise forms.ValidationError(_("만 %(age)s세부터 쓸 수 있어요.") % {"age": youngest})
        return born_on

    def signup(self, request, user):
        """allauth's hook; everything was saved by the adapter."""
