"""WRITES the codes by which a person lets one company see how many hold their data, while signing up there.

The regulator announced it in February 2021: whoever is about to join is told how many they have joined already, and can end those
they no longer need on the spot. A code is good once and for minutes, and says nothing but the number.
"""

import datetime
import hashlib
import hmac
import secrets

from django.db import transaction

from consents import lifecycle, requests
from consents.actors import Actor
from consents.models import CountingCode, Person
from providers import policy, vault
from providers.models import Organization

LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # none that looks like another
LENGTH = 10  # letters: 49 random bits, good for minutes, a few tries a minute


class BadCode(lifecycle.Refused):
    """No such code now: it never was, was used before, or is too old. Which of them is nobody's business."""


def make(person: Person, *, by: Actor, at: datetime.datetime) -> tuple[str, CountingCode]:
    """A new code of the person, and its row; those before are good no more."""
    code = "".join(secrets.choice(LETTERS) for _ in range(LENGTH))
    minutes = policy.number("AUTH_CODE_TTL_MINUTES", on=lifecycle.day(at))
    with transaction.atomic():
        CountingCode.objects.filter(person=person, used_at=None).delete()
        row = CountingCode.objects.create(
            person=person,
            digest=_digest(code),
            made_at=at,
            expires_at=at + datetime.timedelta(minutes=minutes),
        )
    return f"{code[:5]}-{code[5:]}", row


def redeem(
    code: str, *, organization: Organization, return_uri: str, by: Actor, at: datetime.datetime
) -> CountingCode:
    """Use a code; its person may be counted now. Raises BadCode, requests.NotRegistered for a way back that is not the
    organization's own, and then the code is still good."""
    if return_uri and not requests.is_registered(return_uri, organization):
        raise requests.NotRegistered(return_uri[:200])
    with transaction.atomic():
        row = (
            CountingCode.objects.select_for_update(of=("self",))
            .select_related("person")
            .filter(digest=_digest(code), used_at=None, expires_at__gt=at, person__closed_at=None)
            .first()
        )
        if row is None:
            raise BadCode("a code")
        row.used_at, row.organization, row.return_uri = at, organization, return_uri
        row.save(update_fields=["used_at", "organization", "return_uri"])
    return row


def forget_old(*, at: datetime.datetime, limit: int = 5000) -> int:
    """Forget codes whose way back is closed. Returns how many."""
    old = (
        CountingCode.objects.filter(expires_at__lt=at - CountingCode.WAY_BACK)
        .order_by("expires_at")
        .values("pk")[:limit]
    )
    return CountingCode.objects.filter(pk__in=list(old.values_list("pk", flat=True))).delete()[0]


def _digest(code: str) -> str:
    """As it is typed: with or without the dash, in any case."""
    plain = "".join(sign for sign in code.upper() if sign.isalnum())
    return hmac.digest(vault.derived_key("counting code"), plain.encode(), hashlib.sha256).hex()
