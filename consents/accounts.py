"""WRITES people: who signs up as what (allauth's adapter), and what they change about themselves."""

import datetime
from types import SimpleNamespace
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from consents.actors import Actor
from consents.models import Member, Person


class AccountAdapter(DefaultAccountAdapter):
    """Everybody who signs up by themselves is a consumer; other roles are given, never chosen."""

    def populate_username(self, request, user):
        """There are no user names: people sign in by e-mail or passkey."""

    def save_user(self, request, user, form, commit=True):
        user = super().save_user(request, user, form, commit=False)
        user.born_on = form.cleaned_data.get("born_on")
        user.language = request.LANGUAGE_CODE if request.LANGUAGE_CODE in Person.Language.values else "ko"
        if commit:
            user.save()
        return user

    def render_mail(self, template_prefix, email, context, headers=None):
        """Letters come from the portal by its name, not by its host."""
        site = SimpleNamespace(name=str(_("방지턱")), domain=urlsplit(settings.PORTAL_URL).netloc)
        return super().render_mail(template_prefix, email, {**context, "current_site": site}, headers)

    def get_phone(self, user):
        """The portal keeps no telephone numbers."""
        return


def display(person: Person) -> str:
    """How a person is greeted: by name where there is one."""
    return person.name or person.email


def update_profile(
    *, person: Person, name: str, language: str, warn_at: int | None, by: Actor, at: datetime.datetime
) -> Person:
    """Change what a person may change about themselves; `warn_at` None follows the policy again."""
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        person.name, person.language, person.warn_at = name, language, warn_at
        person.save(update_fields=["name", "language", "warn_at"])
    return person


def appoint(*, person: Person, role: str, organization=None, by: Actor, at: datetime.datetime) -> Member:
    """Make an account a regulator's or an organization's. A person with subscriptions stays a consumer: raises ValueError."""
    with transaction.atomic():
        if person.subscriptions.exists():
            raise ValueError("an account with subscriptions is a consumer's")
        return Member.objects.create(person=person, role=role, organization=organization)
