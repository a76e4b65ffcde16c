"""What people type on the way into a service: which ones to end first, and what they agree to."""

import datetime
import uuid

from dateutil.relativedelta import relativedelta
from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

from consents import lifecycle

from .strict import StrictForm

MOST_AT_ONCE = 100


class TickBox(forms.CheckboxInput):
    """Hands over what was sent as it is; Django's own takes every word for a yes."""

    def value_from_datadict(self, data, files, name):
        return data.get(name)


class Tick(forms.BooleanField):
    """A checkbox that takes only what a browser sends for one."""

    widget = TickBox

    def __init__(self, **kwargs):
        super().__init__(**{"required": False, **kwargs})

    def to_python(self, value):
        if value in (False, None, ""):
            return False
        if value in (True, "on"):
            return True
        raise ValidationError(_("켜거나 끄는 칸이에요."), code="invalid")


class Ids(forms.Field):
    """Ticked rows, by id: at most MOST_AT_ONCE, each once."""

    widget = forms.MultipleHiddenInput

    def to_python(self, value):
        try:
            found = list(dict.fromkeys(uuid.UUID(one) for one in value or []))
        except ValueError:
            raise ValidationError(
                _("고른 것을 알아볼 수 없어요. 화면을 새로 고쳐 주세요."), code="invalid"
            ) from None
        if len(found) > MOST_AT_ONCE:
            raise ValidationError(_("한 번에 끝낼 수 있는 수를 넘었어요."), code="many")
        return found


class EndForm(StrictForm):
    """On the speed bump: end one (`end`) or those ticked (`subscription` with `end_chosen`)."""

    many = frozenset({"subscription"})

    end = forms.UUIDField(required=False)
    end_chosen = forms.CharField(required=False, max_length=1)
    subscription = Ids(required=False)
    erase = Tick()

    def clean(self):
        cleaned = super().clean()
        one, ticked = cleaned.get("end"), cleaned.get("subscription") or []
        cleaned["chosen"] = [one] if one else ticked
        if not self.errors and not cleaned["chosen"]:
            raise ValidationError(_("그만둘 곳을 하나도 고르지 않았어요."), code="empty")
        return cleaned


class AskForm(StrictForm):
    """The answer to one ask: optional items and riders by their own switches. Built from what the page showed."""

    terms = forms.UUIDField(widget=forms.HiddenInput)
    digest = forms.CharField(widget=forms.HiddenInput, max_length=71)
    language = forms.ChoiceField(widget=forms.HiddenInput, choices=[("ko", "ko"), ("en", "en")])
    seen = forms.CharField(widget=forms.HiddenInput, max_length=400)
    reviewed = Tick(widget=forms.HiddenInput)
    request = forms.UUIDField(widget=forms.HiddenInput, required=False)
    months = forms.TypedChoiceField(label=_("얼마 동안 이어 갈까요?"), coerce=int)

    def __init__(self, *args, asked, strong: bool, **kwargs):
        super().__init__(*args, **kwargs)
        self.asked = asked
        self.fields["months"].choices = asked.months  # type: ignore[attr-defined]  # a ChoiceField
        for row in asked.rows:
            if not row.required:
                self.fields[f"item-{row.pk}"] = Tick()
            for code in row.riders:
                self.fields[f"rider-{row.pk}-{code}"] = Tick()
        if strong:
            self.fields["sure"] = Tick(
                label=_("목록을 살펴봤고, 그래도 가입할게요."),
                required=True,
                error_messages={"required": _("한 번 더 확인하는 칸을 골라 주세요.")},
            )

    def is_about_what_was_shown(self) -> bool:
        """Whether the page that came back showed the terms that are published now, in its language."""
        terms = self.asked.offer.terms
        digests = {"ko": terms.digest_ko, "en": terms.digest_en}
        return self.data.get("terms") == str(terms.pk) and self.data.get("digest") == digests.get(
            str(self.data.get("language"))
        )

    def choices(self) -> list[lifecycle.Choice]:
        """The required items, and the optional ones switched on, each with the riders switched on."""
        given = self.cleaned_data
        return [
            lifecycle.Choice(row, tuple(code for code in row.riders if given[f"rider-{row.pk}-{code}"]))
            for row in self.asked.rows
            if row.required or given[f"item-{row.pk}"]
        ]

    def ticked(self) -> list[int]:
        """Ids of optional items switched on, for a form that comes back."""
        return [row.pk for row in self.asked.rows if self.data.get(f"item-{row.pk}") == "on"]

    def show_riders(self) -> None:
        """Puts the switched-on riders back onto the cards, for a form that comes back."""
        for item in [*self.asked.required, *self.asked.optional]:
            for rider in item.riders:
                rider["on"] = self.data.get(f"rider-{item.id}-{rider['code']}") == "on"

    def chosen_months(self) -> int:
        """The duration to show as chosen: the person's own, else the usual shorter one."""
        given = self.data.get("months", "")
        offered = {str(n): n for n, _label in self.asked.months}
        return offered.get(given, self.asked.usual_months)

    def until_on(self, at: datetime.datetime) -> datetime.date:
        return lifecycle.day(at) + relativedelta(months=self.cleaned_data["months"])
