"""A person's own numbers: the one place where the home page, the speed bump and the API count."""

from dataclasses import dataclass

from django.db.models import Count, Q

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
