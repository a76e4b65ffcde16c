"""Facts about organizations by themselves: which licence counts on a day, which terms stand, what is kept for ever."""

import datetime

import pytest
from django.db.models import ProtectedError

from consents.models import Subscription
from providers import policy
from providers.models import Licence, Organization, PolicyRule, Scope, Service, Terms
from providers.models.organizations import ENDING_STATUSES, OPEN_STATUSES, LicenceStatus
from tests import factories

pytestmark = pytest.mark.django_db
DAY = datetime.timedelta(days=1)
ON = datetime.date(2026, 11, 22)


def decide(organization, status, *, effective_on, decided_on=None):
    return factories.LicenceFactory(
        organization=organization,
        status=status,
        decided_on=decided_on or effective_on,
        effective_on=effective_on,
    )


def status(organization, on) -> tuple:
    """By the property and by the annotation: they must never disagree."""
    annotated = Organization.objects.with_licence_status(on=on).get(pk=organization.pk).licence_status
    assert annotated == organization.status_on(on)
    return annotated


# --- licences ----------------------------------------------------------------------------------------------------------------


def test_without_a_decision_there_is_no_licence():
    assert status(factories.OperatorFactory(licence=False), ON) is None


def test_a_decision_counts_from_the_day_it_takes_effect():
    operator = factories.OperatorFactory()
    decide(operator, "suspended", decided_on=ON - 9 * DAY, effective_on=ON)
    assert status(operator, ON - DAY) == "licensed"
    assert status(operator, ON) == status(operator, ON + DAY) == "suspended"


def test_the_latest_effective_decision_wins_whatever_was_recorded_last():
    operator = factories.OperatorFactory()
    decide(operator, "suspended", effective_on=ON - 10 * DAY)
    decide(operator, "licensed", effective_on=ON - 5 * DAY)
    decide(operator, "held", effective_on=ON - 20 * DAY)
    assert status(operator, ON) == "licensed"
    assert status(operator, ON - 6 * DAY) == "suspended"
    assert status(operator, ON - 15 * DAY) == "held"


def test_of_two_that_take_effect_on_one_day_the_later_decided_counts():
    operator = factories.OperatorFactory()
    decide(operator, "conditional", decided_on=ON - DAY, effective_on=ON)
    decide(operator, "suspended", decided_on=ON - 3 * DAY, effective_on=ON)
    assert status(operator, ON) == "conditional"


def test_of_two_decided_on_one_day_the_later_recorded_counts():
    operator = factories.OperatorFactory()
    decide(operator, "conditional", effective_on=ON)
    decide(operator, "suspended", effective_on=ON)
    assert status(operator, ON) == "suspended"


def test_every_status_opens_ends_or_waits():
    assert set(OPEN_STATUSES) == {"licensed", "conditional"}
    assert set(ENDING_STATUSES) == {"cancelled", "surrendered", "refused"}
    assert not set(OPEN_STATUSES) & set(ENDING_STATUSES)
    assert set(LicenceStatus.values) - set(OPEN_STATUSES) - set(ENDING_STATUSES) == {
        "applied", "preliminary", "held", "suspended",
    }  # fmt: skip


def test_operators_and_sources_may_be_the_same_company():
    both = factories.OperatorFactory(is_source=True)
    only = factories.OrganizationFactory()
    assert set(Organization.objects.operators()) == {both}
    assert set(Organization.objects.sources()) == {both, only}


# --- what is never deleted -----------------------------------------------------------------------------------------------------


def test_what_people_agreed_to_cannot_be_pulled_away(person, now):
    subscription = factories.joined(person, at=now)
    item = subscription.terms.items.first()
    for row in (subscription.operator, subscription.service, subscription.terms, person, item.source):
        with pytest.raises(ProtectedError):
            row.delete()
    assert Subscription.objects.filter(pk=subscription.pk).exists()


def test_ids_rise_with_time():
    """UUIDv7: rows are in the order in which they were made, and keyset pages need nothing else."""
    ids = [factories.OrganizationFactory().pk for _ in range(20)]
    assert ids == sorted(ids) and {pk.version for pk in ids} == {7}


# --- terms and services ----------------------------------------------------------------------------------------------------------


def test_a_new_version_retires_the_old_one():
    service = factories.offered()
    first = service.terms.get()
    second = factories.TermsFactory(service=service)
    first.refresh_from_db()
    assert (first.state, second.state) == ("retired", "published")
    assert list(service.terms.values_list("version", flat=True)) == [2, 1]
    assert first.digest_ko and first.retired_at


def test_the_digest_is_that_of_the_text_in_its_language():
    """One other letter is another digest; the other language keeps its own."""
    service = factories.offered()
    first = service.terms.get()
    again = factories.TermsFactory(service=service, text_ko=first.text_ko.replace("우리가", "저희가"))
    same = factories.offered().terms.get()
    assert len({first.digest_ko, first.digest_en, again.digest_ko}) == 3
    assert all(
        digest.startswith("sha256:") and len(digest) == 71 for digest in (same.digest_ko, same.digest_en)
    )


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (lambda: factories.OrganizationFactory(name_ko="모퉁이은행"), "모퉁이은행"),
        (lambda: factories.ServiceFactory(name_ko="골목 가계부"), "골목 가계부"),
        (lambda: Scope(item="B04"), "B04"),
        (lambda: PolicyRule(key="MIN_AGE", value=14), "MIN_AGE=14"),
    ],
)  # fmt: skip
def test_rows_name_themselves(row, told):
    assert str(row()) == told


def test_no_row_names_a_person():
    """What ends in logs and error reports is an id."""
    person = factories.PersonFactory(name="김하나", email="hana@example.com")
    assert str(person) == str(person.pk)
    for model in (Licence, Service, Terms):
        assert "person" not in {field.name for field in model._meta.get_fields() if not field.auto_created}


# --- numbers ---------------------------------------------------------------------------------------------------------------------


def test_a_number_is_that_of_its_day():
    PolicyRule.objects.create(key="TEST_DAYS", value=7, unit="days", effective_on=ON, source="시험")
    PolicyRule.objects.create(
        key="TEST_DAYS", value=5, unit="days", effective_on=ON + 10 * DAY, source="시험"
    )
    assert [policy.number("TEST_DAYS", on=ON + n * DAY) for n in (0, 9, 10, 400)] == [7, 7, 5, 5]
    with pytest.raises(policy.UnknownRule):
        policy.number("TEST_DAYS", on=ON - DAY)
    with pytest.raises(policy.UnknownRule):
        policy.number("NO_SUCH_RULE", on=ON)


def test_a_number_is_asked_for_a_day_not_a_moment(now):
    with pytest.raises(TypeError):
        policy.number("MIN_AGE", on=now)
