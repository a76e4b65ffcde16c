"""WRITES transfers as operators and sources report them, and what follows: last use, data after a stop, a scope that was lost.

A report is one side's word. It moves "last transferred" forward and can raise an alarm, also that what was signed as erased is
there again; it never changes what was agreed.
"""

import datetime
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.db import connection, transaction
from django.db.models import F, Q, Window
from django.db.models.functions import DenseRank, TruncDate
from django.utils.translation import gettext_lazy as _

from consents import cases, contradictions, ledger, messages, silences, speedbump
from consents.actors import Actor
from consents.ledger import Fact
from consents.ledger.entries import SEOUL
from consents.models import Case, Consent, Notice, Subscription, Transfer
from consents.speedbump import Reason
from providers import policy
from providers.models import Organization

MOST = 1000  # rows of one report
# Why a row is refused.
REASONS = {
    "not_found": _("우리 쪽 가입이나 동의가 아니에요."),
    "future": _("앞날일 수 없어요."),
    "before_consent": _("동의하기 전의 때예요."),
    "used": _("이 key로 다른 전송을 알린 적이 있어요."),
}
ASKED_AGAIN = Actor.system("accessed-after-stop")  # who asks for an erasure again, whoever has reported
HISTORY = 20  # newest days with regular transfers of a consent that are looked at for what was lost


@dataclass(frozen=True, slots=True)
class Row:
    """One transfer as it is reported; `key` is the reporter's own id of it."""

    key: str
    subscription: uuid.UUID
    at: datetime.datetime
    consent: uuid.UUID | None = None
    source: str = ""  # organization code; not needed where the consent says it
    scopes: tuple[str, ...] = ()
    regular: bool = True


@dataclass(slots=True)
class Answer:
    """What became of one row: created, known (the same was reported before) or refused, with where and why."""

    key: str
    result: str
    after_stop: bool = False
    errors: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Known:
    """What the rows speak of, read once."""

    subscriptions: dict[uuid.UUID, Subscription]
    consents: dict[uuid.UUID, list[Consent]]  # by subscription
    before: dict[str, Transfer]  # by key


def report(
    rows: Sequence[Row], *, organization: Organization, by: Actor, at: datetime.datetime
) -> list[Answer]:
    """Take in at most MOST rows of one reporter in one transaction; an answer for each, in order. The same again is no change.

    Eleven queries, whatever the number of rows, and a few more for each subscription with something wrong."""
    if len(rows) > MOST:
        raise ValueError(f"more than {MOST} rows")
    slack = datetime.timedelta(minutes=policy.number("TRANSFER_SLACK_MINUTES", on=_day(at)))
    with transaction.atomic():
        _one_report_at_a_time(organization)
        known = _known(rows, organization)
        answers, fresh = [], []
        for row in rows:
            answer, transfer = _judge(row, known, organization, slack=slack, at=at)
            answers.append(answer)
            if transfer is not None:
                known.before[row.key] = transfer
                fresh.append(transfer)
        Transfer.objects.bulk_create(fresh)
        _move_on(fresh)
        _after_stop([transfer for transfer in fresh if transfer.after_stop], slack=slack, by=by, at=at)
        silences.over(fresh, by=by, at=at)
        _lost(fresh, by=by, at=at)
        _beyond(fresh, by=by, at=at)
    return answers


def _one_report_at_a_time(organization: Organization) -> None:
    # Two requests with the same keys at once: the second finds what the first wrote.
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"transfers {organization.pk}"]
        )


def _known(rows: Sequence[Row], organization: Organization) -> _Known:
    own = Q(operator=organization) | Q(consents__source=organization) | Q(consents__recipient=organization)
    ids = Subscription.objects.filter(own, pk__in={row.subscription for row in rows}).values("pk")
    # Locked, so that "last transferred" is not written over; in one order.
    subscriptions = Subscription.objects.select_for_update(no_key=True, of=("self",)).filter(pk__in=ids)
    found = {
        row.pk: row for row in subscriptions.select_related("service", "operator", "person").order_by("pk")
    }
    consents: dict[uuid.UUID, list[Consent]] = defaultdict(list)
    mine = Consent.objects.filter(subscription__in=found).select_related("source", "recipient")
    for consent in mine.order_by("granted_at", "pk"):
        consent.subscription = found[consent.subscription_id]
        consents[consent.subscription_id].append(consent)
    before = Transfer.objects.filter(organization=organization, key__in={row.key for row in rows})
    return _Known(found, consents, {row.key: row for row in before.select_related("source")})


def _judge(
    row: Row, known: _Known, organization: Organization, *, slack: datetime.timedelta, at: datetime.datetime
) -> tuple[Answer, Transfer | None]:
    def refused(place: str, why: str) -> tuple[Answer, None]:
        return Answer(row.key, "refused", errors=[(place, why)]), None

    subscription = known.subscriptions.get(row.subscription)
    if subscription is None:
        return refused("subscription", "not_found")
    mine = [
        consent
        for consent in known.consents[subscription.pk]
        if organization.pk in (subscription.operator_id, consent.source_id, consent.recipient_id)
        and (row.consent is None or consent.pk == row.consent)
        and (not row.source or (consent.source is not None and consent.source.code == row.source))
    ]
    if not mine:
        return refused("consent" if row.consent else "source", "not_found")
    if row.at > at + slack:
        return refused("at", "future")
    if row.at < min(consent.granted_at for consent in mine) - slack:
        return refused("at", "before_consent")
    consent, after_stop = _consent_at(mine, row.at, slack=slack)
    if before := known.before.get(row.key):
        if not _same(before, row, consent):
            return refused("key", "used")
        return Answer(row.key, "known", before.after_stop), None
    return Answer(row.key, "created", after_stop), Transfer(
        organization=organization, key=row.key, person_id=subscription.person_id, subscription=subscription,
        consent=consent, source=consent.source, recipient=consent.recipient or subscription.operator,
        scopes=list(row.scopes), regular=row.regular, after_stop=after_stop, at=row.at, reported_at=at,
    )  # fmt: skip


def _consent_at(
    consents: list[Consent], moment: datetime.datetime, *, slack: datetime.timedelta
) -> tuple[Consent, bool]:
    """The consent under which data flowed at that moment, and whether it had ended by then. Transfers before others: these
    are what carries data."""
    ranked = sorted(consents, key=lambda one: (one.kind != Consent.Kind.TRANSFER, one.granted_at))
    for consent in ranked:
        if consent.granted_at - slack <= moment and (
            consent.ended_at is None or moment <= consent.ended_at + slack
        ):
            return consent, False
    ended = [consent for consent in ranked if consent.ended_at and consent.ended_at < moment]
    last = max(ended or ranked, key=lambda one: one.ended_at or one.granted_at)
    return last, bool(ended)


def _same(before: Transfer, row: Row, consent: Consent) -> bool:
    return (
        before.subscription_id == row.subscription
        and before.consent_id == consent.pk
        and before.at == row.at
        and before.regular == row.regular
        and list(before.scopes) == list(row.scopes)
    )


def _move_on(fresh: Iterable[Transfer]) -> None:
    """When data last flowed, and (where the person themselves asked for it) when they last used the service. Never back."""
    touched: dict[uuid.UUID, Subscription] = {}
    for transfer in fresh:
        row = touched.setdefault(transfer.subscription_id, transfer.subscription)
        row.last_transfer_at = max(filter(None, [row.last_transfer_at, transfer.at]))
        if not transfer.regular and not transfer.after_stop:
            row.last_used_on = max(filter(None, [row.last_used_on, _day(transfer.at)]))
    Subscription.objects.bulk_update(touched.values(), ["last_transfer_at", "last_used_on"])


# --- data after a stop -------------------------------------------------------------------------------------------------


def _after_stop(
    caught: list[Transfer], *, slack: datetime.timedelta, by: Actor, at: datetime.datetime
) -> None:
    """The log, the person and the regulator. One notice and one case for what flows between two parties of a subscription."""
    if not caught:
        return
    undone = [contradictions.flowed(transfer, at=transfer.at - slack) for transfer in caught]
    said = [_fact(transfer, again) for transfer, again in zip(caught, undone, strict=True)]
    ledger.append(said, by=by, at=at, txn=messages.new_id())
    for transfer, again in zip(caught, undone, strict=True):
        contradictions.ask_again(
            transfer.subscription, again, organization=transfer.recipient, by=ASKED_AGAIN, at=at
        )
    newest: dict[tuple, Transfer] = {}
    for transfer in caught:
        pair = (transfer.subscription_id, transfer.source_id, transfer.recipient_id)
        if pair not in newest or newest[pair].at < transfer.at:
            newest[pair] = transfer
    for transfer in newest.values():
        _tell_after_stop(transfer, by=by, at=at)


def _fact(transfer: Transfer, again: list[uuid.UUID]) -> Fact:
    """`again` are the rows that were signed as erased before it, and whose erasure is asked again."""
    subscription = transfer.subscription
    return Fact(
        "transfer.contradicted",
        person=subscription.person,
        operator=subscription.operator,
        party=transfer.source or transfer.recipient,
        subscription=subscription,
        consent=transfer.consent,
        fields={
            "sbs": subscription.pk, "con": transfer.consent_id, "opr": subscription.operator.code,
            "src": transfer.source.code if transfer.source else None, "rcp": transfer.recipient.code,
            "scp": transfer.scopes, "flw": transfer.at, "rpt": transfer.organization.code,
            **({"ids": again} if again else {}),
        },
    )  # fmt: skip


def _tell_after_stop(transfer: Transfer, *, by: Actor, at: datetime.datetime) -> None:
    subscription, source = transfer.subscription, transfer.source
    ended_at = transfer.consent.ended_at if transfer.consent else subscription.ended_at
    when = transfer.at.astimezone(SEOUL)
    matter = f"{subscription.pk} {source.code if source else ''} {transfer.recipient.code}"
    name = subscription.service
    speedbump.raise_notice(
        subscription.person,
        Reason(
            Notice.Kind.AFTER_STOP,
            f"{name.name_ko}: 그만두게 한 뒤인 {when.year}년 {when.month}월 {when.day}일에 정보가 오갔다고 해요. 감독자에게 알렸어요.",
            f"{name.name_en}: data is reported to have flowed on {when.day} {when:%b %Y}, after you stopped it. The regulator has been told.",
            subscription=subscription,
            matter=matter[:120],
            urgent=True,
        ),
        by=by,
        at=at,
    )
    cases.open_case(
        Case.Kind.AFTER_STOP, transfer.recipient, matter=matter,
        stated={
            "reported_by": transfer.organization.code, "source": source.code if source else "", "at": transfer.at.isoformat(),
            "scopes": transfer.scopes, "key": transfer.key,
        },
        known={"ended_at": ended_at.isoformat() if ended_at else "", "reason": _reason(transfer)},
        person=subscription.person, subscription=subscription, consent=transfer.consent, by=by, at=at,
    )  # fmt: skip


def _reason(transfer: Transfer) -> str:
    return transfer.consent.end_reason if transfer.consent else transfer.subscription.end_reason


# --- what was lost, and what was never agreed --------------------------------------------------------------------------


def _lost(fresh: Iterable[Transfer], *, by: Actor, at: datetime.datetime) -> None:
    """A scope that regular transfers carried before and that the last few no longer do, though the consent is in force."""
    cycles = policy.number("LOST_CYCLES", on=_day(at))
    consents = {
        transfer.consent_id: transfer.consent
        for transfer in fresh
        if transfer.regular and transfer.consent and transfer.consent.state == Consent.State.ACTIVE
    }
    if not consents:
        return
    # By the day: both sides report each transfer, and one may report it item by item. No items are no word about items.
    place = Window(DenseRank(), partition_by=F("consent"), order_by=TruncDate("at", tzinfo=SEOUL).desc())
    newest = Transfer.objects.filter(consent__in=consents, regular=True, after_stop=False).exclude(scopes=[])
    carried: dict = defaultdict(lambda: defaultdict(set))
    told = newest.annotate(place=place).filter(place__lte=HISTORY).order_by("consent", "place")
    for consent, day, scopes in told.values_list("consent", "place", "scopes"):
        carried[consent][day] |= set(scopes)
    for pk, days in carried.items():
        flows = list(days.values())
        lately, before = flows[:cycles], flows[cycles:]
        missing = (set(consents[pk].scopes) & set().union(*before)) - set().union(*lately)
        if len(lately) == cycles and missing:
            raise_lost(consents[pk], missing, by=by, at=at)


def raise_lost(consent: Consent, missing: Iterable[str], *, by: Actor, at: datetime.datetime) -> None:
    """Tell the person that less is flowing than they agreed to. Nothing about the agreement changes."""
    service, codes = consent.subscription.service, sorted(missing)
    matter = f"{consent.pk} {' '.join(codes)}"[:120]
    answered = Notice.objects.filter(person=consent.person_id, kind=Notice.Kind.LOST, matter=matter)
    if answered.exclude(answer=Notice.Answer.GONE).exists():
        return
    source_ko = consent.source.name_ko if consent.source else ""
    source_en = consent.source.name_en if consent.source else ""
    speedbump.raise_notice(
        consent.subscription.person,
        Reason(
            Notice.Kind.LOST,
            f"{service.name_ko}: {source_ko}에서 오던 정보 가운데 {len(codes)}가지가 더는 오지 않아요. 동의는 그대로예요.",
            f"{service.name_en}: {len(codes)} of the items from {source_en} no longer arrive. Your consent is unchanged.",
            subscription=consent.subscription,
            matter=matter,
        ),
        by=by,
        at=at,
    )


def _beyond(fresh: Iterable[Transfer], *, by: Actor, at: datetime.datetime) -> None:
    """More was carried than was agreed: a case for the regulator."""
    seen: set[tuple] = set()
    for transfer in fresh:
        consent = transfer.consent
        more = sorted(set(transfer.scopes) - set(consent.scopes)) if consent else []
        matter = f"{consent.pk} {' '.join(more)}" if consent else ""
        if not consent or not more or (matter,) in seen:
            continue
        seen.add((matter,))
        cases.open_case(
            Case.Kind.DIFFERS, transfer.recipient, matter=matter,
            stated={"reported_by": transfer.organization.code, "scopes": transfer.scopes, "at": transfer.at.isoformat()},
            known={"scopes": consent.scopes}, person=transfer.subscription.person, subscription=transfer.subscription,
            consent=consent, by=by, at=at,
        )  # fmt: skip


def _day(moment: datetime.datetime) -> datetime.date:
    return moment.astimezone(SEOUL).date()
