"""Filters of the public lists."""

from django import forms
from django.utils.translation import gettext_lazy as _

from providers.models.organizations import LicenceStatus, Sector

from .strict import visible


class _Filters(forms.Form):
    # An unknown parameter is nobody's harm here: links to public pages come with tracking marks of others.
    query = forms.CharField(required=False, max_length=60, validators=[visible])
    sector = forms.ChoiceField(required=False, choices=[("", _("모두")), *Sector.choices])
    after = forms.CharField(required=False, max_length=60)


class OperatorFilters(_Filters):
    status = forms.ChoiceField(required=False, choices=[("", _("모두")), *LicenceStatus.choices])
    kind = forms.ChoiceField(required=False, choices=[("", ""), ("real", ""), ("fictional", "")])


class ServiceFilters(_Filters):
    purpose = forms.SlugField(required=False, max_length=20)
