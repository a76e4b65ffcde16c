"""WRITES people: who signs up as what (allauth's adapter), and what they change about themselves."""

import datetime
import ipaddress
import uuid
from types import SimpleNamespace
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.account.models import EmailAddress
from allauth.idp.oidc.models import Token
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from consents import lifecycle, turnstile
from consents.actors import Actor
from consents.ledger import erasing
from consents.models import (
    CountingCode,
    EndReason,
    Erasure,
    IdempotencyKey,
    Identity,
    Member,
    Person,
    Subscription,
)

FROM_A_NETWORK = 120  # sign-ins by password a minute
FROM_EVERYBODY = 30_000


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

    def pre_authenticate(self, request, **credentials):
        """Besides allauth's limits of one account and one address: those of a network and of everybody (T34)."""
        at, network = timezone.now(), _network(self.get_client_ip(request))
        if turnstile.too_often("login:network", network, most=FROM_A_NETWORK, at=at) or turnstile.too_often(
            "login:all", "", most=FROM_EVERYBODY, at=at
        ):
            raise self.validation_error("too_many_login_attempts")
        super().pre_authenticate(request, **credentials)

    def get_phone(self, user):
        """The portal keeps no telephone numbers."""
        return


def _network(address: str) -> str:
    """The /24 of an IPv4 address, the /56 of an IPv6 one: what one attacker has at least."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # a socket without one
        return address
    return str(ipaddress.ip_network(f"{ip}/{24 if ip.version == 4 else 56}", strict=False))


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


class NotAConsumer(ValueError):
    """An organization's or the regulator's account is closed by whoever gave it."""


def close(person: Person, *, by: Actor, at: datetime.datetime) -> datetime.datetime | None:
    """Close an account: end everything, have everything erased, and keep only what the law demands, without a name.

    E-mail, name, birth date and every way to sign in go at once; what remains is a random id. Answers until when the
    records are kept (신용정보법 제20조②), None where there are none; then consents.jobs.erase destroys them.
    Closing twice changes nothing. Raises NotAConsumer."""
    with transaction.atomic():
        person = Person.objects.select_for_update(no_key=True).get(pk=person.pk)
        if person.closed_at is not None:
            return erasing.held_until(person)
        if Member.objects.filter(person=person).exists():
            raise NotAConsumer("members do not close their account themselves")
        for subscription in person.subscriptions.order_by("id"):
            _end(subscription, by=by, at=at)
        _forget_identity(person, by=by, at=at)
    return erasing.held_until(person)


def finish_closing(*, by: Actor, at: datetime.datetime, limit: int = 500) -> int:
    """End what reached a closed account all the same: a join in the same instant, an operator's late report."""
    late = Subscription.objects.live().filter(person__closed_at__isnull=False).order_by("pk")[:limit]
    return sum(_end(subscription, by=by, at=at) for subscription in late)


def _end(subscription: Subscription, *, by: Actor, at: datetime.datetime) -> bool:
    """End it and have everything erased, or have erased what ended before; False where both are done already."""
    try:
        if subscription.state == Subscription.State.ACTIVE:
            reason = EndReason.ACCOUNT_CLOSED
            lifecycle.leave(subscription, erase=True, by=by, at=at, reason=reason)
        elif subscription.erasure == Erasure.NOT_REQUESTED:
            lifecycle.erase(subscription, by=by, at=at)
        else:
            return False
    except (lifecycle.AlreadyEnded, lifecycle.NothingToErase):  # somebody else was faster
        return False
    return True


def _forget_identity(person: Person, *, by: Actor, at: datetime.datetime) -> None:
    """What says who the person is and how they sign in; `.invalid` is an address that nobody can have (RFC 6761)."""
    EmailAddress.objects.filter(user=person).delete()
    Authenticator.objects.filter(user=person).delete()
    Token.objects.filter(user=person).delete()
    IdempotencyKey.objects.filter(actor=f"person:{person.pk}").delete()
    Identity.objects.filter(person=person).delete()
    CountingCode.objects.filter(person=person).delete()
    erasing.forget_sessions(person, by=by, at=at)
    person.email, person.name, person.born_on, person.warn_at = (
        f"{uuid.uuid4()}@closed.invalid",
        "",
        None,
        None,
    )
    person.set_unusable_password()
    person.last_login, person.is_active, person.closed_at = None, False, at
    person.save()
