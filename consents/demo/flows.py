"""What flowed in the demo's year: transfers by the cycle of every consent, and the weekly counts of both sides.

One person's data flows once more after they had left, and one of their consents stops carrying an item.
"""

import datetime

from consents import transfers
from consents.actors import Actor
from consents.models import Consent
from providers.models import Organization

STAR = "haneul@portal.example"
LEFT, NARROWED = "shopping-insight", "durumi-ledger"


def report(*, at: datetime.datetime) -> None:
    """Every operator reports the year it had, in the order in which it happened."""
    rows: dict[Organization, list[transfers.Row]] = {}
    consents = Consent.objects.filter(kind=Consent.Kind.TRANSFER).exclude(cycle="").order_by("pk")
    for consent in consents.select_related("subscription__operator", "subscription__service", "person"):
        rows.setdefault(consent.subscription.operator, []).extend(_of(consent, at=at))
    for operator, told in rows.items():
        told.sort(key=lambda row: (row.at, row.key))
        by = Actor.organization(operator)
        for start in range(0, len(told), transfers.MOST):
            transfers.report(told[start : start + transfers.MOST], organization=operator, by=by, at=at)


def _of(consent: Consent, *, at: datetime.datetime) -> list[transfers.Row]:
    weeks = datetime.timedelta(weeks=int(consent.cycle[2]))
    end = min(filter(None, [consent.ended_at, consent.paused_at, at]))
    moments, moment = [], consent.granted_at + datetime.timedelta(minutes=7)
    while moment < end:
        moments.append(moment)
        moment += weeks
    slug = consent.subscription.service.slug if consent.person.email == STAR else ""
    if slug == LEFT and consent.ended_at:
        moments.append(min(consent.ended_at + datetime.timedelta(days=11, hours=3), at))
    narrow = slug == NARROWED and len(consent.scopes) > 1
    return [
        transfers.Row(
            f"{consent.pk}-{n}", consent.subscription_id, moment, consent.pk,
            scopes=tuple(consent.scopes[:-1] if narrow and n > len(moments) - 3 else consent.scopes),
        )
        for n, moment in enumerate(moments, 1)
    ]  # fmt: skip
