"""Forms that ignore nothing in silence: an unknown or doubled field is an error (T15)."""

import re

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

# Characters that turn text around or hide it: never wanted in what others will read (T16, T18).
_HIDDEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")


def visible(text: str) -> None:
    """Refuses control characters and marks that change the direction of text."""
    if _HIDDEN.search(text):
        raise ValidationError(gettext_lazy("보이지 않는 글자가 들어 있어요. 지우고 다시 써 주세요."))


class StrictForm(forms.Form):
    """`also` names parameters that belong to the page and not to the form; `many` fields that may come several times."""

    also: frozenset[str] = frozenset({"csrfmiddlewaretoken"})
    many: frozenset[str] = frozenset()

    def clean(self):
        cleaned = super().clean()
        known = {self.add_prefix(name) for name in self.fields} | self.also
        if unknown := sorted(set(self.data) - known):
            names = ", ".join(name[:40] for name in unknown[:3])
            self.add_error(
                None, ValidationError(_("모르는 칸이 있어요: %(names)s") % {"names": names}, code="unknown")
            )
        doubled = [name for name in (known - self.many) & set(self.data) if len(_values(self.data, name)) > 1]
        if doubled:
            self.add_error(
                None,
                ValidationError(
                    _("같은 칸이 두 번 있어요: %(names)s") % {"names": ", ".join(sorted(doubled)[:3])},
                    code="doubled",
                ),
            )
        return cleaned


def _values(data, name: str) -> list:
    return data.getlist(name) if hasattr(data, "getlist") else [data[name]]
