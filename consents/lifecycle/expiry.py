"""WRITES what the calendar ends."""

import datetime

from dateutil.relativedelta import relativedelta
from django.db import transaction

from consents import ledger, messages
from consents.actors import Actor
from consents.ledger import facts
from consents.models import Consent, EndReason, Subscription
from providers import policy
from providers.models import Organization
from providers.models.organizations import OPEN_STATUSES

from .ending import end_consent, leave
from .refusals import Refused
from .rows import day, locked_consent
from .running import pause, resume


def expire_due(*, by: Actor, at: datetime.datetime, limit: int = 500) -> dict[str, int]:
    """What the calendar ends, at most `limit` rows of each kind a run; safe to run twice at once. Returns counts.

    Resumes pauses that are over, where the operator is licensed; ends consents and subscriptions past their last day (nobody is called: all know the
    date); pauses regular transfers of services unused for INACTIVE_STOP_MONTHS; ends and erases after
    INACTIVE_DELETE_MONTHS (MyData 2.0, 2025-06-19)."""
    today = day(at)
    stop_before = today - relativedelta(months=policy.number("INACTIVE_STOP_MONTHS", on=today))
    erase_before = today - relativedelta(months=policy.number("INACTIVE_DELETE_MONTHS", on=today))
    licensed = Organization.objects.with_licence_status(on=today).filter(licence_status__in=OPEN_STATUSES)
    live = Subscription.objects.live()
    running = Consent.objects.filter(state=Consent.State.ACTIVE, kind=Consent.Kind.TRANSFER).exclude(cycle="")
    return {
        "expired": _each(
            live.filter(until_on__lt=today), limit,
            lambda row: leave(row, erase=False, by=by, at=at, reason=EndReason.EXPIRED, quiet=True),
        ),
        "consents_expired": _each(
            Consent.objects.live().filter(until_on__lt=today), limit, lambda row: _expire_consent(row, by=by, at=at)
        ),
        "inactive_ended": _each(
            live.filter(last_used_on__lte=erase_before), limit,
            lambda row: leave(row, erase=True, by=by, at=at, reason=EndReason.INACTIVE),
        ),
        "inactive_paused": _each(
            running.filter(subscription__state="active", subscription__last_used_on__lte=stop_before), limit,
            lambda row: pause(row, by=by, at=at, reason=EndReason.INACTIVE),
        ),
        "resumed": _each(
            Consent.objects.filter(
                state=Consent.State.PAUSED, paused_until__lte=today, subscription__operator__in=licensed.values("pk")
            ),
            limit, lambda row: resume(row, by=by, at=at),
        ),
    }  # fmt: skip


def _each(rows, limit: int, act) -> int:
    """Do `act` to each row in its own transaction; one that somebody else was faster with is skipped."""
    done = 0
    for row in rows.select_related(None).order_by("pk")[:limit]:
        try:
            act(row)
        except Refused:
            continue
        done += 1
    return done


def _expire_consent(consent: Consent, *, by: Actor, at: datetime.datetime) -> None:
    with transaction.atomic():
        consent = locked_consent(consent)
        end_consent(consent, reason=EndReason.EXPIRED, erase=False, at=at)
        consent.version += 1
        consent.save()
        ledger.append(
            [facts.of_consent("consent.expired", consent, reason=EndReason.EXPIRED)],
            by=by,
            at=at,
            txn=messages.new_id(),
        )
