"""WRITES the ladder of a stop that is late: each step once, by the policy in effect on the day the stop was accepted.

The law says at once and names no number of days, so the numbers are policy (방지턱 운영 기준). Who is told: the person sees
every step in the tracker; the duty contact gets a letter, the regulator's list the rest; the person a notice at the end.
"""

import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from consents import speedbump, steps
from consents.actors import Actor
from consents.cautions import Reason
from consents.models import Breaker, Delivery, Escalation, Notice
from providers import policy

Step = Escalation.Step
BATCH = 1_000

# step → the rule that says when, its unit, and what has not happened by then. The first two are about the transport: what waits
# in an inbox for people lies there already. A letter says so at once, and the third step tells more people.
_ON_A_WIRE = Q(sent_at__isnull=True) & ~Q(state="manual")
LADDER: tuple[tuple[str, str, str, Q], ...] = (
    (Step.NOT_SENT, "SENT_WITHIN_MINUTES", "minutes", _ON_A_WIRE),
    (Step.DUTY_CONTACT, "DUTY_CONTACT_MINUTES", "minutes", _ON_A_WIRE),
    (Step.NOT_RECEIVED, "RECEIVED_REGULATOR_HOURS", "hours", Q(received_at__isnull=True)),
    (Step.NOT_STOPPED, "STOPPED_WITHIN_HOURS", "hours", Q(stopped_at__isnull=True)),
    (
        Step.NOT_ERASED,
        "ERASED_WITHIN_DAYS",
        "days",
        Q(goal="erased", erased_at__isnull=True, refused_at__isnull=True),
    ),
)


def is_for_duty_contact(escalation: Escalation) -> bool:
    """Whether this step is a letter that something could not be told: to the duty contact, and where the first letter with its
    link was not answered, to every admin as well."""
    return escalation.step == (Step.NOT_RECEIVED if is_by_hand(escalation) else Step.DUTY_CONTACT)


def is_by_hand(escalation: Escalation) -> bool:
    return escalation.delivery.state == Delivery.State.MANUAL


def raise_due(*, by: Actor, at: datetime.datetime) -> list[Escalation]:
    """Take every late stop one step further; returns the steps that are new. Safe to run twice at once."""
    fresh = _raise(Step.LETTER, Q(state=Delivery.State.MANUAL, received_at__isnull=True), by=by, at=at)
    _give_up(by=by, at=at)
    for step, rule, unit, missing in LADDER:
        fresh += _raise(step, missing & _late(rule, unit, at=at), by=by, at=at)
    return fresh + _raise(Step.DEAD, Q(state=Delivery.State.DEAD), by=by, at=at)


def _late(rule: str, unit: str, *, at: datetime.datetime) -> Q:
    """Accepted longer ago than the rule allowed on that day: what is changed later moves no clock that runs."""
    late, until = Q(pk__in=[]), Q()
    for effective_on, value in policy.dated(rule):
        begins = datetime.datetime.combine(effective_on, datetime.time(), datetime.UTC)
        wait = datetime.timedelta(**{unit: value})
        late |= until & Q(created_at__gte=begins, created_at__lte=at - wait)
        until = Q(created_at__lt=begins)
    return late


def _give_up(*, by: Actor, at: datetime.datetime) -> None:
    """Tries end by their schedule. Who is not called at all (410, or they fetch by poll and do not) has none: what reached
    nobody is for people after the same time. It can still be fetched."""
    uncalled = Q(organization__channels__protocol="poll") | Q(
        organization__channels__breaker__state=Breaker.State.DISABLED
    )
    waiting = Delivery.objects.filter(
        uncalled, _late("DEAD_AFTER_MINUTES", "minutes", at=at), organization__channels__state="open",
        outgoing__in_order=True, outgoing__stop_since__isnull=False, lease__isnull=True, replay_of__isnull=True,
    )  # fmt: skip
    while keys := list(waiting.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            steps.give_up(keys, by=by, at=at)


def _raise(step: str, late: Q, *, by: Actor, at: datetime.datetime) -> list[Escalation]:
    told = Escalation.objects.filter(delivery=OuterRef("pk"), step=step)
    stops = Delivery.objects.filter(
        late, ~Exists(told), closed_at__isnull=True, overtaken=False, replay_of__isnull=True
    )
    stops = stops.exclude(goal=Delivery.Goal.RECEIVED)
    fresh: list[Escalation] = []
    while keys := list(stops.order_by("pk").values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            # Whoever holds the rows writes the steps: a second run waits here and then finds them told.
            rows = stops.filter(pk__in=keys).select_for_update(no_key=True, of=("self",)).order_by("pk")
            made = [Escalation(delivery=row, step=step, at=at) for row in rows.select_related(*_RELATED)]
            Escalation.objects.bulk_create(made)
            for one in made:
                _tell_the_person(one, by=by, at=at)
        fresh += made
    return fresh


_RELATED = ("organization", "subscription__service", "subscription__operator", "person")


def _tell_the_person(escalation: Escalation, *, by: Actor, at: datetime.datetime) -> None:
    """The last step is worth a warning of its own; the ones before it stand in the tracker."""
    if escalation.step != Step.NOT_ERASED:
        return
    delivery = escalation.delivery
    name, service = delivery.organization, delivery.subscription.service
    days = policy.number("ERASED_WITHIN_DAYS", on=delivery.created_at.date())
    reason = Reason(
        kind=Notice.Kind.OVERDUE,
        matter=f"overdue {delivery.jti}",
        text_ko=f"{name.name_ko}에 {service.name_ko} 정보를 지워 달라고 한 지 {days}일이 지났는데 지웠다는 증거가 오지 않았어요.",
        text_en=f"{days} days after you asked, {name.name_en} has not shown that it erased your data from {service.name_en}.",
        subscription=delivery.subscription,
        urgent=True,
    )
    speedbump.raise_notice(delivery.person, reason, by=by, at=at)
