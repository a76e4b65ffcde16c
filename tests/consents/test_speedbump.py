"""The rules that turn facts into warnings: each where it begins and just before, and what becomes of a notice."""

import datetime

import pytest
from dateutil.relativedelta import relativedelta
from django.db import connection
from django.test.utils import CaptureQueriesContext

from consents import cautions, ledger, lifecycle, reconciliation, speedbump
from consents.actors import Actor
from consents.models import EntryIndex, Notice, Subscription
from providers.models import PolicyRule
from tests import factories

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("test")
DAY = datetime.timedelta(days=1)


def raise_due(at):
    return speedbump.raise_due(by=SYSTEM, at=at)


def kinds(person) -> list[str]:
    """Kinds of the open notices."""
    return sorted(Notice.objects.filter(person=person, answer="").values_list("kind", flat=True))


def reasons(person, at, kind) -> list[cautions.Reason]:
    raise_due(at)
    return list(Notice.objects.filter(person=person, kind=kind, answer=""))


def joined(person, at, *, months_ago=2, **service):
    """Joined long enough ago that pace says nothing, for a purpose of its own."""
    service.setdefault("purpose_code", f"p{Subscription.objects.count()}")
    return factories.joined(person, factories.offered(**service), at - relativedelta(months=months_ago))


def operator_of(subscription, at, status="cancelled"):
    return factories.LicenceFactory(
        organization=subscription.operator,
        status=status,
        decided_on=at.date() - 2 * DAY,
        effective_on=at.date() - DAY,
    )


# --- the level -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "operators", "level"),
    [
        (None, 0, "inform"), (None, 2, "inform"), (None, 3, "soft"), (None, 4, "soft"), (None, 5, "strong"), (None, 40, "strong"),
        (1, 1, "soft"), (1, 0, "inform"), (2, 1, "inform"), (4, 3, "inform"), (8, 5, "inform"), (8, 7, "inform"), (8, 8, "strong"),
    ],
)  # fmt: skip
def test_the_level_by_policy_or_by_the_persons_own_threshold(now, own, operators, level):
    person = factories.PersonFactory(warn_at=own)
    assert cautions.level(person, operators, at=now) == level


def test_a_new_number_counts_from_its_day(now):
    PolicyRule.objects.create(
        key="SOFT_WARN_AT", value=2, unit="operators", effective_on=now.date() + DAY, source="시험"
    )
    person = factories.PersonFactory()
    assert cautions.level(person, 2, at=now) == "inform"
    assert cautions.level(person, 2, at=now + 2 * DAY) == "soft"


def test_who_left_but_did_not_erase_counts(person, me, now):
    """`holds`: the operator has the data until it confirms."""
    rows = [joined(person, now) for _ in range(3)]
    service = factories.offered()
    lifecycle.leave(rows[0], erase=True, by=me, at=now)
    bump = speedbump.bump(person=person, service=service, at=now)
    assert (bump.level, bump.operators_holding, bump.subscriptions, len(bump.rows)) == ("soft", 3, 2, 2)
    Subscription.objects.filter(pk=rows[0].pk).update(erasure="confirmed", erasure_confirmed_at=now)
    bump = speedbump.bump(person=person, service=service, at=now)
    assert (bump.level, bump.operators_holding) == ("inform", 2)


def test_one_operator_with_two_services_holds_once(person, now):
    operator = factories.OperatorFactory()
    for _ in range(3):
        joined(person, now, organization=operator)
    bump = speedbump.bump(person=person, service=factories.offered(), at=now)
    assert (bump.operators_holding, bump.subscriptions, bump.level) == (1, 3, "inform")


# --- the bump before a join ----------------------------------------------------------------------------------------------------


def test_the_list_marks_what_overlaps_and_what_is_unused(person, now):
    same_purpose = joined(person, now, purpose_code="loans")
    unused = joined(person, now, months_ago=8)
    used = joined(person, now)
    bump = speedbump.bump(person=person, service=factories.offered(purpose_code="loans"), at=now)
    rows = {row.subscription.pk: row for row in bump.rows}
    assert (rows[same_purpose.pk].overlap, rows[unused.pk].overlap, rows[used.pk].overlap) == (
        True,
        False,
        False,
    )
    assert (rows[unused.pk].dormant, rows[used.pk].dormant) == (8, 0)


def test_the_same_source_and_scope_overlap_but_mere_lists_do_not(person, now):
    bank = factories.OrganizationFactory()

    def offer(scopes):
        terms = factories.TermsFactory(
            service=factories.ServiceFactory(purpose_code=f"x{len(scopes)}{scopes[-1]}"),
            items=[{"source": bank, "scopes": scopes}],
        )
        return terms.service

    mine = factories.joined(person, offer(["bank.list", "bank.deposit"]), now - 60 * DAY)
    same = speedbump.bump(person=person, service=offer(["bank.deposit"]), at=now)
    assert [row.subscription.pk for row in same.rows if row.overlap] == [mine.pk]
    lists = speedbump.bump(person=person, service=offer(["bank.list", "bank.irp"]), at=now)
    assert not [row for row in lists.rows if row.overlap]


def test_a_paused_or_withdrawn_consent_does_not_overlap_when_ended(person, me, now):
    bank = factories.OrganizationFactory()
    terms = factories.TermsFactory(items=[{"source": bank}, {"required": False}], service__purpose_code="a")
    mine = factories.joined(person, terms.service, now - 60 * DAY)
    lifecycle.withdraw(mine.consents.get(source=bank), erase=False, by=me, at=now)
    other = factories.TermsFactory(items=[{"source": bank}], service__purpose_code="b").service
    assert not [row for row in speedbump.bump(person=person, service=other, at=now).rows if row.overlap]


def test_a_broad_ask_is_said_before_the_join_only(person, now):
    for _ in range(4):
        factories.TermsFactory(items=[{"scopes": ["bank.deposit"]}], service__purpose_code="one")
    greedy = factories.TermsFactory(
        items=[{"scopes": ["bank.list", "bank.deposit", "bank.loan", "card.list"]}],
        service__purpose_code="one",
    ).service
    modest = factories.TermsFactory(items=[{"scopes": ["bank.deposit"]}], service__purpose_code="one").service
    said = {
        service: [r.kind for r in speedbump.bump(person=person, service=service, at=now).reasons]
        for service in (greedy, modest)
    }
    assert said == {greedy: ["broad"], modest: []}


def test_the_bump_asks_a_fixed_number_of_queries(person, now):
    service = factories.offered()

    def queries():
        with CaptureQueriesContext(
            connection,
        ) as seen:
            speedbump.bump(person=person, service=service, at=now)
        return len(seen)

    joined(person, now)
    speedbump.bump(person=person, service=service, at=now)
    one = queries()
    for _ in range(6):
        joined(person, now)
    assert queries() == one <= 12


# --- each rule, where it begins --------------------------------------------------------------------------------------------------


def test_count(person, now):
    rows = [joined(person, now) for _ in range(2)]
    assert not reasons(person, now, "count")
    rows.append(joined(person, now))
    (notice,) = reasons(person, now, "count")
    assert notice.matter == "soft" and "3곳" in notice.reason_ko and "3 companies" in notice.reason_en


def test_pace(person, now):
    for days in (6, 3):
        factories.joined(person, factories.offered(purpose_code=f"q{days}"), now - days * DAY)
    factories.joined(person, factories.offered(purpose_code="q8"), now - 8 * DAY)
    assert not reasons(person, now, "pace")
    factories.joined(person, factories.offered(purpose_code="q1"), now - DAY)
    assert len(reasons(person, now, "pace")) == 1


def test_overlap_by_source(person, now):
    bank = factories.OrganizationFactory(name_ko="모퉁이은행")
    for purpose in "ab":
        assert not reasons(person, now, "overlap")
        terms = factories.TermsFactory(items=[{"source": bank}], service__purpose_code=purpose)
        factories.joined(person, terms.service, now - 60 * DAY)
    (notice,) = reasons(person, now, "overlap")
    assert (
        "모퉁이은행" in notice.reason_ko
        and "2곳" in notice.reason_ko
        and notice.matter == f"source {bank.code}"
    )


def test_overlap_by_purpose(person, now):
    joined(person, now, purpose_code="loans")
    assert not reasons(person, now, "overlap")
    joined(person, now, purpose_code="loans")
    (notice,) = reasons(person, now, "overlap")
    assert notice.matter == "purpose loans"


@pytest.mark.parametrize(
    ("unused", "warned"), [({"months": 5, "days": -1}, False), ({"months": 5}, True), ({"months": 11}, True)]
)
def test_dormant_a_month_before_transfers_stop(person, now, unused, warned):
    subscription = joined(person, now, months_ago=11)
    used_on = lifecycle.day(now) - relativedelta(**unused)
    Subscription.objects.filter(pk=subscription.pk).update(last_used_on=used_on)
    assert bool(reasons(person, now, "dormant")) is warned


def items(*scopes, **item):
    return {"items": [{"scopes": list(scopes), **item}]}


def test_sensitive_mix_at_one_operator(person, now):
    operator = factories.OperatorFactory()
    for number, scope in enumerate(("health.checkup", "bank.deposit")):
        assert not reasons(person, now, "sensitive")
        terms = factories.TermsFactory(
            service__organization=operator, service__purpose_code=f"s{number}", **items(scope)
        )
        factories.joined(person, terms.service, now - 60 * DAY)
    (notice,) = reasons(person, now, "sensitive")
    assert notice.matter == f"mix {operator.code}"


def test_very_sensitive_data_at_two(person, now):
    from providers.models import Scope

    deep = Scope.objects.filter(sensitivity=5, rider="").first().codes[0]
    for number in range(2):
        assert not reasons(person, now, "sensitive")
        terms = factories.TermsFactory(service__purpose_code=f"s{number}", **items(deep))
        factories.joined(person, terms.service, now - 60 * DAY)
    assert [notice.matter for notice in reasons(person, now, "sensitive")] == ["deep"]


@pytest.mark.parametrize("status", ["suspended", "cancelled", "surrendered", "refused", "held"])
def test_licence(person, now, status):
    subscription = joined(person, now)
    assert not reasons(person, now, "licence")
    operator_of(subscription, now, status)
    (notice,) = reasons(person, now, "licence")
    assert notice.urgent and notice.subscription == subscription


def test_a_conditional_licence_is_a_licence(person, now):
    operator_of(joined(person, now), now, "conditional")
    assert not reasons(person, now, "licence")


@pytest.mark.parametrize(("days", "warned"), [(31, False), (30, True), (0, True), (-1, False)])
def test_expiring(person, now, days, warned):
    subscription = joined(person, now)
    Subscription.objects.filter(pk=subscription.pk).update(until_on=lifecycle.day(now) + days * DAY)
    assert bool(reasons(person, now, "expiring")) is warned


def test_terms_changed_materially(person, now):
    subscription = joined(person, now)
    factories.TermsFactory(service=subscription.service)
    (notice,) = reasons(person, now, "terms")
    assert notice.subscription == subscription


def test_still_held(person, me, now):
    waits, silent = joined(person, now), joined(person, now)
    lifecycle.leave(waits, erase=True, by=me, at=now - 7 * DAY)
    lifecycle.leave(silent, erase=False, by=me, at=now - 8 * DAY)
    (notice,) = reasons(person, now, "still_held")
    assert (notice.subscription, notice.urgent) == (
        silent,
        False,
    ) and "지워 달라고 할 수 있어요" in notice.reason_ko
    late = {n.subscription_id: n for n in reasons(person, now + DAY, "still_held")}
    assert late[waits.pk].urgent and "확인이 없어요" in late[waits.pk].reason_ko
    Subscription.objects.filter(pk=waits.pk).update(erasure="confirmed", erasure_confirmed_at=now)
    assert [n.subscription_id for n in reasons(person, now + DAY, "still_held")] == [silent.pk]


def test_a_mismatch_is_raised_by_a_report_and_not_closed_by_the_daily_job(person, me, now):
    subscription = joined(person, now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    row = {
        "subject": str(person.subject_id), "service_client_id": subscription.service.client_id, "joined_on": "2026-05-01",
        "source_org_code": subscription.consents.filter(kind="transfer").first().source.code, "scopes": "bank.deposit",
        "purpose": "가계부", "cycle": "1/w", "end_date": "2027-05-01", "retained_until": "99991231", "last_used_on": "2026-11-01",
    }  # fmt: skip
    for _ in range(2):
        reconciliation.report_holdings([(1, row)], organization=subscription.operator, by=SYSTEM, at=now)
    raise_due(now + DAY)
    assert kinds(person) == ["mismatch"]
    subscription.refresh_from_db()
    assert subscription.state == "ended"


# --- notices -------------------------------------------------------------------------------------------------------------------


def test_a_notice_is_raised_once_while_it_holds(person, now):
    for _ in range(3):
        joined(person, now)
    assert raise_due(now)["raised"] == 1
    assert raise_due(now + DAY) == {"people": 1, "raised": 0, "gone": 0}
    assert EntryIndex.objects.filter(person=person, typ="notice.raised").count() == 1


def test_a_kept_notice_stays_silent_while_its_matter_is_the_same(person, me, now):
    subscription = joined(person, now, months_ago=7)
    (notice,) = reasons(person, now, "dormant")
    speedbump.answer(notice=notice, answer="kept", by=me, at=now)
    raise_due(now + DAY)
    assert kinds(person) == [] and subscription.state == "active"


def test_the_first_answer_stands(person, me, now):
    joined(person, now, months_ago=7)
    (notice,) = reasons(person, now, "dormant")
    speedbump.answer(notice=notice, answer="kept", by=me, at=now)
    again = speedbump.answer(notice=notice, answer="ended", by=me, at=now + DAY)
    assert (again.answer, again.answered_at) == ("kept", now)
    assert EntryIndex.objects.filter(typ="notice.answered").count() == 1


def test_what_no_longer_holds_goes_away_and_may_come_back(person, now):
    subscription = joined(person, now, months_ago=7)
    assert reasons(person, now, "dormant")
    Subscription.objects.filter(pk=subscription.pk).update(last_used_on=lifecycle.day(now))
    assert raise_due(now + DAY)["gone"] == 1 and kinds(person) == []
    Subscription.objects.filter(pk=subscription.pk).update(
        last_used_on=lifecycle.day(now) - relativedelta(months=6)
    )
    assert raise_due(now + 2 * DAY)["raised"] == 1
    assert raise_due(now + 3 * DAY)["raised"] == 0, "the new one is open: it is not raised again"
    Subscription.objects.filter(pk=subscription.pk).update(last_used_on=lifecycle.day(now))
    assert raise_due(now + 4 * DAY)["gone"] == 1, "and it goes away like the first"
    assert list(Notice.objects.order_by("raised_at").values_list("answer", flat=True)) == ["gone", "gone"]


def test_ending_answers_the_notices_of_that_subscription(person, me, now):
    subscription, other = joined(person, now, months_ago=7), joined(person, now, months_ago=8)
    assert len(reasons(person, now, "dormant")) == 2
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    assert Notice.objects.get(subscription=subscription).answer == "ended"
    assert Notice.objects.get(subscription=other).answer == ""


def test_raising_and_answering_are_in_the_log(person, me, now):
    joined(person, now, months_ago=7)
    (notice,) = reasons(person, now, "dormant")
    speedbump.answer(notice=notice, answer="kept", by=me, at=now)
    rows = EntryIndex.objects.filter(person=person, typ__startswith="notice.").order_by("seq")
    said = ledger.disclosed([row.event_id for row in rows])
    assert [(row.typ, said[row.event_id]["knd"], said[row.event_id].get("ans")) for row in rows] == [
        ("notice.raised", "dormant", None), ("notice.answered", "dormant", "kept"),
    ]  # fmt: skip


def test_nobody_else_is_warned(person, now):
    for _ in range(3):
        joined(person, now)
    other, gone = factories.PersonFactory(), factories.PersonFactory(is_active=False)
    for _ in range(3):
        joined(gone, now)
    assert raise_due(now)["people"] == 1
    assert not Notice.objects.exclude(person=person).exists() and other.notices.count() == 0


def test_a_crowd_is_worked_through_in_batches(now, monkeypatch):
    monkeypatch.setattr(speedbump, "PEOPLE_PER_BATCH", 2)
    service = factories.offered()
    for _ in range(5):
        factories.joined(factories.PersonFactory(), service, now - relativedelta(months=7))
    assert raise_due(now) == {"people": 5, "raised": 5, "gone": 0}


def test_every_kind_has_a_rule_or_a_reason_for_none():
    """The others come with what happened: reports, read-backs, transfers, deadlines."""
    named = {rule.__name__ for rule in (*cautions.RULES, *cautions.RULES_BEFORE)}
    assert named | {str(kind) for kind in speedbump.OF_EVENTS} == set(Notice.Kind.values)
