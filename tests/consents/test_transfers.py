"""Transfers as they are reported: once each, only one's own; data after a stop and a lost scope are told, nothing agreed changes."""

import datetime
import uuid

import pytest
from django.core import mail as outbox

from consents import lifecycle, mail, reconciliation, speedbump, transfers
from consents.actors import Actor
from consents.models import Case, Consent, EntryIndex, Subscription, Transfer
from consents.queries import holdings, oversight
from consents.queries import transfers as queries
from providers import datafiles
from tests import factories

pytestmark = pytest.mark.django_db
MINUTE, HOUR, DAY = (datetime.timedelta(**{unit: 1}) for unit in ("minutes", "hours", "days"))
SLACK = 10 * MINUTE


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "transfer-keys"


@pytest.fixture
def subscription(person, now):
    return factories.joined(person, factories.offered(), now - 40 * DAY)


@pytest.fixture
def consent(subscription):
    return subscription.consents.filter(kind="transfer", required=True).select_related("source").get()


def row(about, at, /, **changes) -> transfers.Row:
    given = {
        "key": str(uuid.uuid4()), "subscription": about.subscription_id, "at": at, "consent": about.pk,
        "scopes": tuple(about.scopes),
    }  # fmt: skip
    return transfers.Row(**given | changes)


def told(*rows, organization, at) -> list[transfers.Answer]:
    return transfers.report(rows, organization=organization, by=Actor.organization(organization), at=at)


def results(answers) -> list[str]:
    return [answer.errors[0][1] if answer.errors else answer.result for answer in answers]


# --- once, and one's own -----------------------------------------------------------------------------------------------------


def test_a_transfer_moves_when_data_last_flowed(subscription, consent, now):
    operator = subscription.operator
    assert results(told(row(consent, now - DAY), row(consent, now - 3 * DAY), organization=operator, at=now)) == [
        "created", "created",
    ]  # fmt: skip
    subscription.refresh_from_db()
    assert subscription.last_transfer_at == now - DAY and subscription.last_used_on < (now - 9 * DAY).date()
    told(row(consent, now - 9 * DAY), organization=operator, at=now)
    subscription.refresh_from_db()
    assert subscription.last_transfer_at == now - DAY, "never back"


def test_what_the_person_asked_for_is_use(subscription, consent, now):
    told(row(consent, now - DAY, regular=False), organization=subscription.operator, at=now)
    subscription.refresh_from_db()
    assert subscription.last_used_on == (now - DAY).date()


def test_the_same_key_is_one_transfer(subscription, consent, now):
    one = row(consent, now - DAY)
    operator = subscription.operator
    assert results(told(one, one, organization=operator, at=now)) == ["created", "known"]
    assert results(told(one, organization=operator, at=now + DAY)) == ["known"]
    other = transfers.Row(**{name: getattr(one, name) for name in one.__slots__} | {"at": now - 2 * DAY})
    assert results(told(other, organization=operator, at=now)) == ["used"]
    assert Transfer.objects.count() == 1
    source = consent.source
    assert results(told(one, organization=source, at=now)) == ["created"], "keys are each reporter's own"


def test_nobody_reports_for_others(subscription, consent, person, now):
    stranger = factories.OperatorFactory()
    assert results(told(row(consent, now), organization=stranger, at=now)) == ["not_found"]
    second = subscription.consents.filter(kind="transfer", required=False).select_related("source").get()
    assert results(told(row(second, now), organization=consent.source, at=now)) == ["not_found"]
    assert results(
        told(row(consent, now, consent=uuid.uuid4()), organization=subscription.operator, at=now)
    ) == ["not_found"]
    assert Transfer.objects.count() == 0


def test_a_source_says_which_without_the_consents_number(subscription, consent, now):
    plain = row(consent, now, consent=None, source=consent.source.code)
    assert results(told(plain, organization=subscription.operator, at=now)) == ["created"]
    assert Transfer.objects.get().consent == consent


def test_neither_tomorrow_nor_before_it_was_agreed(subscription, consent, now):
    rows = [
        row(consent, now + SLACK + MINUTE),
        row(consent, consent.granted_at - SLACK - MINUTE),
        row(consent, now + SLACK),
    ]
    assert results(told(*rows, organization=subscription.operator, at=now)) == [
        "future",
        "before_consent",
        "created",
    ]


# --- after the stop ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended(subscription, consent, me, now):
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    consent.refresh_from_db()
    return consent


def test_clocks_may_differ_by_ten_minutes(ended, subscription, person, now):
    answers = told(row(ended, now + SLACK), organization=subscription.operator, at=now + DAY)
    assert not answers[0].after_stop and Case.objects.count() == 0


def test_data_after_a_stop_is_told_to_the_person_and_the_regulator(ended, subscription, person, now):
    flowed = now + SLACK + MINUTE
    [answer] = told(row(ended, flowed), organization=ended.source, at=now + DAY)
    assert answer.after_stop and Transfer.objects.get().after_stop
    notice = person.notices.get(kind="after_stop")
    assert notice.urgent and notice.answer == ""
    case = Case.objects.get()
    assert (case.kind, case.organization, case.person) == ("after_stop", subscription.operator, person)
    entry = EntryIndex.objects.get(typ="transfer.contradicted")
    values = {value.name: value.value for value in oversight.entry(entry.event_id).values}
    assert values["flw"] == flowed and values["src"].code == ended.source.code
    told(row(ended, flowed + MINUTE), organization=subscription.operator, at=now + DAY)
    assert Case.objects.count() == person.notices.filter(kind="after_stop").count() == 1
    assert EntryIndex.objects.filter(typ="transfer.contradicted").count() == 2
    speedbump.raise_due(by=Actor.system("warn"), at=now + DAY)
    assert person.notices.get(kind="after_stop").answer == "", "the daily review leaves it alone"


def test_the_admins_of_whom_it_reached_get_a_letter_for_each_new_case(ended, subscription, now):
    reader = factories.MemberFactory(organization=subscription.operator).person
    factories.MemberFactory(organization=ended.source)
    for days, letters in ((1, 1), (2, 0)):
        told(row(ended, now + days * DAY), organization=ended.source, at=now + days * DAY)
        assert mail.tell_after_stop(at=now + days * DAY) == letters
    [letter] = outbox.outbox
    assert letter.to == [reader.email] and "끝난 동의로 정보가 오갔다" in letter.body


def test_it_never_brings_anything_back(ended, subscription, now):
    told(row(ended, now + DAY, regular=False), organization=subscription.operator, at=now + 2 * DAY)
    subscription.refresh_from_db()
    ended.refresh_from_db()
    assert subscription.state == ended.state == "ended"
    assert subscription.last_used_on < now.date()


def test_a_later_consent_of_the_same_source_makes_it_lawful(ended, subscription, person, now):
    again = factories.joined(person, subscription.service, now + DAY)
    fresh = again.consents.filter(kind="transfer", required=True).get()
    assert not told(row(fresh, now + 2 * DAY), organization=subscription.operator, at=now + 2 * DAY)[
        0
    ].after_stop


def test_a_transfer_from_before_the_stop_that_is_told_later_is_no_alarm(ended, subscription, now):
    assert not told(row(ended, now - DAY), organization=subscription.operator, at=now + DAY)[0].after_stop


# --- less, or more, than was agreed ---------------------------------------------------------------------------------------------


def regular(consent, now, *carried):
    rows = [row(consent, now - (len(carried) - n) * DAY, scopes=scopes) for n, scopes in enumerate(carried)]
    told(*rows, organization=consent.subscription.operator, at=now)


def test_an_item_that_stops_coming_is_told(consent, person, now):
    everything, less = ("bank.list", "bank.deposit"), ("bank.list",)
    regular(consent, now, everything, less, less)
    assert not person.notices.filter(kind="lost").exists(), "two cycles may be a coincidence"
    regular(consent, now + DAY, less)
    assert person.notices.get(kind="lost").urgent is False
    regular(consent, now + 2 * DAY, less)
    assert person.notices.filter(kind="lost").count() == 1


def test_items_told_one_by_one_or_not_at_all_are_not_lost(consent, person, now):
    operator = consent.subscription.operator
    for days in range(8, 3, -1):
        rows = [
            row(consent, now - days * DAY, scopes=(code,)) for code in consent.scopes for _twice in (1, 2)
        ]
        told(*rows, organization=operator, at=now)
    told(*(row(consent, now - days * DAY, scopes=()) for days in (3, 2, 1)), organization=operator, at=now)
    assert len(consent.scopes) > 1 and not person.notices.filter(kind="lost").exists()


def test_what_never_came_or_was_never_agreed_is_not_lost(consent, person, now):
    regular(consent, now, *[("bank.list",)] * 6)
    regular(consent, now + DAY, ("bank.list", "bank.other"), *[("bank.list",)] * 4)
    assert not person.notices.filter(kind="lost").exists()


def test_an_operator_that_reports_less_tells_it_itself(person, now):
    service = factories.offered()
    source = factories.OrganizationFactory()
    base = {
        "subject": str(person.subject_id), "service_client_id": service.client_id, "joined_on": "2026-03-01",
        "source_org_code": source.code, "scopes": "bank.list bank.deposit", "purpose": "가계부", "cycle": "1/w",
        "end_date": "2027-03-01", "retained_until": "99991231", "last_used_on": "2026-10-01",
    }  # fmt: skip
    by = Actor.organization(service.organization)
    datafiles.load_scopes()
    for scopes in ("bank.list bank.deposit", "bank.list"):
        reconciliation.report_holdings(
            [(1, base | {"scopes": scopes})], organization=service.organization, by=by, at=now
        )
    assert person.notices.filter(kind="lost").count() == 1
    assert Subscription.objects.get(service=service).consents.get().scopes == ["bank.deposit", "bank.list"]


def test_more_than_was_agreed_is_a_case(consent, now):
    regular(consent, now, ("bank.list", "bank.loan"))
    case = Case.objects.get()
    assert case.kind == "differs" and "bank.loan" in case.matter


# --- what is seen, and what it costs ------------------------------------------------------------------------------------------------


def test_both_sides_telling_of_one_transfer_are_not_two(
    subscription, consent, person, now, django_assert_num_queries
):
    for organization in (subscription.operator, consent.source):
        told(*(row(consent, now - n * DAY) for n in (1, 8, 15)), organization=organization, at=now)
    told(row(consent, now - 35 * DAY), organization=subscription.operator, at=now)
    assert queries.lately(person, at=now) == {subscription.pk: 3}
    with django_assert_num_queries(1):
        [flow] = queries.of_subscription(subscription, at=now)
    assert (flow.times, flow.last_at, flow.after_stop) == (3, now - DAY, 0)
    [flow] = queries.of_person(person, at=now)
    assert flow.times == 4


def test_the_home_page_counts_each_flow_as_its_page_does(subscription, consent, person, now):
    other = Consent.objects.get(pk=consent.pk)
    other.pk, other.source, other.terms_item = uuid.uuid4(), factories.OrganizationFactory(), None
    other.save(force_insert=True)
    told(*(row(consent, now - n * DAY) for n in (1, 2, 3)), organization=subscription.operator, at=now)
    told(*(row(other, now - n * DAY) for n in (1, 2)), organization=other.source, at=now)
    assert sum(flow.times for flow in queries.of_subscription(subscription, at=now)) == 5
    assert queries.lately(person, at=now) == {subscription.pk: 5}


def test_the_home_page_costs_one_query_more(subscription, person, django_assert_num_queries):
    with django_assert_num_queries(5):
        holdings.holdings(person)


def test_a_hundred_rows_cost_what_one_costs(consent, now, django_assert_max_num_queries):
    operator = consent.subscription.operator
    with django_assert_max_num_queries(14):
        told(*(row(consent, now - n * MINUTE) for n in range(100)), organization=operator, at=now)


def test_dormant_says_that_data_still_flows(subscription, consent, person, now):
    Subscription.objects.filter(pk=subscription.pk).update(last_used_on=(now - 170 * DAY).date())
    told(row(consent, now - DAY), organization=subscription.operator, at=now)
    speedbump.raise_due(by=Actor.system("warn"), at=now)
    assert "그래도" in person.notices.get(kind="dormant").reason_ko
