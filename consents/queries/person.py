"""A person's own numbers: the one place where the home page, the speed bump and the API count."""

import datetime
from dataclasses import dataclass

from django.db.models import Count, Q

from consents.ledger import erasing
from consents.models import Notice, Person, Subscription


@dataclass(frozen=True, slots=True)
class Summary:
    """`operators_holding` is the number of the home page: distinct operators that hold the person's data. It is the sum
    of `receiving` (at least one active subscription) and `held_after_end`. `subscriptions` are the active ones,
    `notices` those not yet answered."""

    operators_holding: int
    receiving: int
    held_after_end: int
    subscriptions: int
    notices: int


def summary(person: Person) -> Summary:
    """The person's numbers now. Two queries."""
    active = Q(state=Subscription.State.ACTIVE)
    counts = (
        Subscription.objects.filter(person=person)
        .holding()
        .aggregate(
            operators_holding=Count("operator", distinct=True),
            receiving=Count("operator", distinct=True, filter=active),
            subscriptions=Count("pk", filter=active),
        )
    )
    notices = Notice.objects.filter(person=person, answer=Notice.Answer.NONE).count()
    return Summary(
        **counts, held_after_end=counts["operators_holding"] - counts["receiving"], notices=notices
    )


@dataclass(frozen=True, slots=True)
class Leaving:
    """What closing the account would do: `services` end; records are kept `until`, None where there are none."""

    services: int
    until: datetime.datetime | None


def leaving(person: Person, *, at: datetime.datetime) -> Leaving:
    """Two queries. The ends are records themselves, so that the hold begins with them."""
    services = Subscription.objects.filter(person=person).live().count()
    return Leaving(services, erasing.hold_from(at) if services else erasing.held_until(person))
