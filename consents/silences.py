"""Regular flows that have fallen silent, and who is told: the consent is in force, data came with every cycle, now none does.

What is only lost in part shows in the transfers that still come (transfers.py); here nothing comes that could show it, so
the calendar looks. Told once for each silence; whatever comes later takes it back. Nothing about the agreement changes.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator

from django.db import transaction
from django.db.models import F, Window
from django.db.models.functions import RowNumber

from consents import messages, speedbump
from consents.actors import Actor
from consents.ledger.entries import SEOUL
from consents.models import Consent, Delivery, Notice, Subscription, Transfer
from consents.speedbump import Reason
from providers import policy

BATCH = 500  # consents that are looked at together
HISTORY = 20  # newest regular transfers of a consent: both sides report each, and several may come on a day
SINCE = " silent since "


def raise_due(*, by: Actor, at: datetime.datetime) -> int:
    """Look at every regular flow, in batches; returns how many people are told for the first time. Twice is once."""
    told, last = 0, None
    while batch := _batch(after=last):
        for consent, since in _silent(batch, at=at):
            told += _tell(consent, since, by=by, at=at)
        last = batch[-1].pk
    return told


def over(fresh: Iterable[Transfer], *, by: Actor, at: datetime.datetime) -> None:
    """What has come since takes the notice back. One query, and a few for each silence that is over."""
    newest: dict = {}
    for transfer in fresh:
        if transfer.regular and not transfer.after_stop:
            newest[transfer.consent_id] = max(
                _day(transfer.at), newest.get(transfer.consent_id, datetime.date.min)
            )
    subscriptions = {transfer.subscription_id for transfer in fresh}
    told = Notice.objects.filter(
        subscription__in=subscriptions, kind=Notice.Kind.LOST, answer="", matter__contains=SINCE
    )
    for notice in told.select_related("person") if newest else ():
        pk, _, since = notice.matter.partition(SINCE)
        came = next((day for consent, day in newest.items() if str(consent) == pk), None)
        if came and came.isoformat() > since:
            speedbump.take_back(notice.person, notice.kind, notice.matter, by=by, at=at)


def _batch(*, after) -> list[Consent]:
    """Flows by the calendar that have carried something, in the order of their keys."""
    rows = Consent.objects.filter(state=Consent.State.ACTIVE, kind=Consent.Kind.TRANSFER).exclude(cycle="")
    rows = rows.filter(subscription__last_transfer_at__isnull=False)
    return list((rows.filter(pk__gt=after) if after else rows).order_by("pk")[:BATCH])


def _silent(batch: list[Consent], *, at: datetime.datetime) -> Iterator[tuple[Consent, datetime.date]]:
    """Of these those that came regularly and have missed SILENT_CYCLES cycles, and since when. Two queries."""
    cycles = policy.number("SILENT_CYCLES", on=_day(at))
    place = Window(RowNumber(), partition_by=F("consent"), order_by=[F("at").desc(), F("pk").desc()])
    regular = Transfer.objects.filter(consent__in=batch, regular=True, after_stop=False).annotate(place=place)
    came: dict = defaultdict(set)
    for pk, moment in regular.filter(place__lte=HISTORY).values_list("consent", "at"):
        came[pk].add(_day(moment))
    resumed = _resumed(batch)
    for consent in batch:
        patience = datetime.timedelta(weeks=_weeks(consent.cycle) * cycles)
        days = sorted(came[consent.pk], reverse=True)[:cycles]
        was_regular = len(days) == cycles and days[0] - days[-1] <= patience
        if was_regular and max(days[0], resumed.get(consent.pk, days[0])) + patience < _day(at):
            yield consent, days[0]


def _resumed(batch: list[Consent]) -> dict:
    """When a pause of these ended: while it lasted nothing could come."""
    told = Delivery.objects.filter(
        subscription__in={consent.subscription_id for consent in batch}, event=messages.CONSENT_RESUMED
    )
    ordered = told.order_by("created_at").values_list("consent", "created_at")
    return {consent: _day(moment) for consent, moment in ordered}


def _weeks(cycle: str) -> int:
    """`1/2w` is once in two weeks."""
    return int(cycle.removeprefix("1/").removesuffix("w"))


def _tell(consent: Consent, since: datetime.date, *, by: Actor, at: datetime.datetime) -> bool:
    """Whether it is news. Under the subscription's lock: what has just ended or been paused is not missed."""
    matter = f"{consent.pk}{SINCE}{since.isoformat()}"
    with transaction.atomic():
        held = Subscription.objects.select_for_update(no_key=True, of=("self",)).select_related(
            "service", "operator", "person"
        )
        subscription = held.get(pk=consent.subscription_id)
        fresh = (
            Consent.objects.filter(pk=consent.pk, state=Consent.State.ACTIVE).select_related("source").first()
        )
        known = Notice.objects.filter(person=consent.person_id, kind=Notice.Kind.LOST, matter=matter)
        if fresh is None or known.exists():
            return False
        reason = _reason(subscription, fresh, since, matter)
        speedbump.raise_notice(subscription.person, reason, by=by, at=at)
    return True


def _reason(subscription: Subscription, consent: Consent, since: datetime.date, matter: str) -> Reason:
    service, source = subscription.service, consent.source
    return Reason(
        Notice.Kind.LOST,
        f"{service.name_ko}: {source.name_ko if source else ''}에서 정기적으로 오던 정보가 {since.year}년 {since.month}월 "
        f"{since.day}일 뒤로 오지 않아요. 동의는 그대로예요.",
        f"{service.name_en}: what came regularly from {source.name_en if source else ''} has not arrived since "
        f"{since.day} {since:%b %Y}. Your consent is unchanged.",
        subscription=subscription,
        matter=matter,
    )


def _day(moment: datetime.datetime) -> datetime.date:
    return moment.astimezone(SEOUL).date()
