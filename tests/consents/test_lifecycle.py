"""The lives of subscriptions and consents: what each act writes, and what is refused."""

import datetime

import pytest
from django.db import IntegrityError, connection, transaction

from consents import answers, ledger, lifecycle, propagation
from consents.actors import Actor
from consents.models import Consent, Delivery, EntryIndex, Erasure, Evidence, Subscription
from tests import factories

pytestmark = pytest.mark.django_db
SYSTEM = Actor.system("test")


def typs(subscription) -> list[str]:
    return list(
        EntryIndex.objects.filter(subscription=subscription).order_by("seq").values_list("typ", flat=True)
    )


def evidence(status: str, n: str = "1") -> Evidence:
    return Evidence(
        jti=f"{status}-{n}", status=status, means="desk", digest="sha256:" + "0" * 64, document="{}",
        stated_at=datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC),
    )  # fmt: skip


def operator_says(subscription, status: str, *, at):
    delivery = subscription.deliveries.filter(role="operator").latest("pk")
    return answers.complete(
        delivery.jti, organization=subscription.operator, evidence=evidence(status), basis="상법 33조" if status == "retained" else "",
        by=Actor.organization(subscription.operator), at=at,
    )  # fmt: skip


def test_a_join_writes_rows_entries_and_one_delivery_per_party(person, now):
    subscription = factories.joined(person, at=now)
    assert subscription.state == "active" and subscription.holds
    assert subscription.consents.count() == 4
    assert typs(subscription) == ["subscription.joined"] + ["consent.granted"] * 4
    parties = sorted(subscription.deliveries.values_list("role", "goal"))
    assert parties == [("operator", "received"), ("source", "received"), ("source", "received")]


def test_what_was_declined_is_on_record(person, now):
    subscription = factories.joined(person, at=now, optional=False)
    assert subscription.consents.count() == 1
    assert typs(subscription).count("consent.declined") == 3


def test_the_entry_discloses_what_happened_and_nothing_in_clear(person, now):
    subscription = factories.joined(person, at=now, optional=False)
    event = EntryIndex.objects.get(subscription=subscription, typ="consent.granted").event_id
    facts = ledger.disclosed([event])[event]
    assert facts["con"] == str(subscription.consents.get().pk)
    assert facts["opr"] == subscription.operator.code and facts["scp"] == ["bank.list", "bank.deposit"]
    assert facts["sub"].startswith("p_") and facts["at"].endswith("Z")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT convert_from(entry, 'UTF8'), leaf_hash, sha256('\\x00'::bytea || entry) FROM ledger.event WHERE event_id = %s",
            [event],
        )
        entry, leaf, computed = cursor.fetchone()
    assert leaf == computed
    for secret in (
        str(person.pk),
        str(person.subject_id),
        subscription.operator.code,
        str(subscription.pk),
        person.email,
    ):
        assert secret not in entry


def test_joining_twice_is_refused(person, now):
    subscription = factories.joined(person, at=now)
    with pytest.raises(lifecycle.AlreadyJoined):
        factories.joined(person, subscription.service, at=now)
    assert Subscription.objects.filter(person=person).count() == 1


def test_a_required_item_cannot_be_left_out(person, now):
    service = factories.offered()
    terms = service.terms.get()
    optional = terms.items.filter(required=False, kind="transfer").first()
    with pytest.raises(lifecycle.RequiredDeclined):
        lifecycle.join(
            person=person,
            service=service,
            terms=terms,
            choices=[lifecycle.Choice(optional)],
            language="ko",
            by=SYSTEM,
            at=now,
        )


def test_items_of_other_terms_and_riders_not_offered_are_refused(person, now):
    service, other = factories.offered(), factories.offered()
    terms = service.terms.get()
    items = [lifecycle.Choice(item) for item in terms.items.all()]
    foreign = lifecycle.Choice(other.terms.get().items.first())
    for choices in (items + [foreign], [lifecycle.Choice(items[0].item, riders=("merchant",)), *items[1:]]):
        with pytest.raises(lifecycle.NotOffered):
            lifecycle.join(
                person=person, service=service, terms=terms, choices=choices, language="ko", by=SYSTEM, at=now
            )
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "status", ["suspended", "cancelled", "held", "preliminary", "refused", "surrendered", "applied"]
)
def test_only_a_licensed_operator_receives_new_consents(person, now, status):
    service = factories.offered()
    factories.LicenceFactory(
        organization=service.organization, status=status, decided_on="2026-11-01", effective_on="2026-11-02"
    )
    with pytest.raises(lifecycle.NotOpen):
        factories.joined(person, service, at=now)


def test_superseded_terms_cannot_be_agreed_to(person, now):
    service = factories.offered()
    old = service.terms.get()
    factories.TermsFactory(service=service)
    with pytest.raises(lifecycle.TermsChanged):
        lifecycle.join(
            person=person,
            service=service,
            terms=old,
            choices=[lifecycle.Choice(i) for i in old.items.all()],
            language="ko",
            by=SYSTEM,
            at=now,
        )


def test_leaving_ends_every_consent_and_tells_everyone(person, me, now):
    subscription = factories.joined(person, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    subscription.refresh_from_db()
    assert (subscription.state, subscription.end_reason, subscription.erasure) == (
        "ended",
        "person_left",
        "requested",
    )
    assert subscription.holds, "holds until erasure is confirmed"
    assert set(subscription.consents.values_list("state", "erasure")) == {("ended", "requested")}
    told = subscription.deliveries.filter(event="subscription-ended")
    assert sorted(told.values_list("role", "goal")) == [
        ("operator", "erased"), ("recipient", "erased"), ("source", "stopped"), ("source", "stopped"),
    ]  # fmt: skip
    assert typs(subscription)[-6:] == ["subscription.ended", *["consent.withdrawn"] * 4, "erasure.requested"]


def test_only_the_operators_confirmation_ends_holding(person, me, now):
    subscription = factories.joined(person, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    source = subscription.deliveries.filter(role="source").last()
    answers.complete(
        source.jti, organization=source.organization, evidence=evidence("stopped"), by=SYSTEM, at=now
    )
    subscription.refresh_from_db()
    assert subscription.holds
    operator_says(subscription, "erased", at=now)
    subscription.refresh_from_db()
    assert subscription.erasure == Erasure.CONFIRMED and not subscription.holds
    assert not Subscription.objects.holding().filter(pk=subscription.pk).exists()


def test_a_lawful_refusal_is_shown_as_one_and_still_counts(person, me, now):
    subscription = factories.joined(person, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    operator_says(subscription, "retained", at=now)
    subscription.refresh_from_db()
    assert (subscription.erasure, subscription.erasure_refusal) == ("refused", "상법 33조")
    assert subscription.holds and "erasure.refused" in typs(subscription)


def test_withdrawing_is_not_erasing_and_not_leaving(person, me, now):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.withdraw(consent, erase=False, by=me, at=now)
    consent.refresh_from_db()
    subscription.refresh_from_db()
    assert (consent.state, consent.erasure, subscription.state) == ("ended", "not_requested", "active")
    told = subscription.deliveries.filter(event="consent-withdrawn").values_list("organization_id", "goal")
    assert set(told) == {(subscription.operator_id, "stopped"), (consent.source_id, "stopped")}
    lifecycle.erase_consent(consent, by=me, at=now)
    consent.refresh_from_db()
    assert consent.erasure == "requested"


def test_leaving_without_erasing_can_be_followed_by_erasing_once(person, me, now):
    subscription = factories.joined(person, at=now)
    with pytest.raises(lifecycle.NothingToErase):
        lifecycle.erase(subscription, by=me, at=now)
    lifecycle.leave(subscription, erase=False, by=me, at=now)
    lifecycle.erase(subscription, by=me, at=now)
    asked = subscription.deliveries.filter(event="erasure-requested")
    assert set(asked.values_list("role", "goal")) == {("operator", "erased"), ("recipient", "erased")}
    with pytest.raises(lifecycle.NothingToErase):
        lifecycle.erase(subscription, by=me, at=now)


def test_ended_is_for_ever(person, me, now):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    for act in (
        lambda: lifecycle.leave(subscription, erase=True, by=me, at=now),
        lambda: lifecycle.withdraw(consent, erase=True, by=me, at=now),
        lambda: lifecycle.pause(consent, by=me, at=now),
        lambda: lifecycle.resume(consent, by=me, at=now),
        lambda: lifecycle.amend(consent, until_on=now.date() + datetime.timedelta(days=30), by=me, at=now),
    ):
        with pytest.raises(lifecycle.AlreadyEnded):
            act()


@pytest.mark.parametrize(
    "change",
    [
        "state = 'active', ended_at = NULL, end_reason = '', erasure = 'not_requested', erasure_requested_at = NULL",
        "until_on = until_on + 365",
        "ended_at = now()",
        "end_reason = 'error'",
        "version = 1",
    ],
)
def test_the_database_refuses_to_revive_or_extend(person, me, now, change):
    subscription = factories.joined(person, at=now)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    lifecycle_version = "version = version - 1"
    for table in ("consents_subscription", "consents_consent"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {change if change != 'version = 1' else lifecycle_version}")


def test_the_database_refuses_to_delete_agreements(person, now):
    factories.joined(person, at=now)
    for table in ("consents_consent", "consents_subscription"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table}")


def test_pause_and_resume(person, me, now):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.pause(consent, until_on=now.date() + datetime.timedelta(days=3), by=me, at=now)
    with pytest.raises(lifecycle.NotActive):
        lifecycle.pause(consent, by=me, at=now)
    later = now + datetime.timedelta(days=3)
    assert lifecycle.expire_due(by=SYSTEM, at=later)["resumed"] == 1
    assert lifecycle.expire_due(by=SYSTEM, at=later)["resumed"] == 0
    consent.refresh_from_db()
    assert consent.state == "active"
    assert [t for t in typs(subscription) if t in ("consent.paused", "consent.resumed")] == [
        "consent.paused",
        "consent.resumed",
    ]


def test_an_amendment_stays_within_what_the_terms_ask(person, me, now):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.amend(consent, scopes=["bank.list"], riders=["memo"], cycle="1/4w", by=me, at=now)
    consent.refresh_from_db()
    assert (consent.scopes, consent.riders, consent.cycle, consent.version) == (
        ["bank.list"],
        ["memo"],
        "1/4w",
        2,
    )
    for wider in ({"scopes": ["bank.loan"]}, {"riders": ["merchant"]}, {"scopes": []}):
        with pytest.raises(lifecycle.NotOffered):
            lifecycle.amend(consent, by=me, at=now, **wider)


def test_renewal_only_in_the_last_month(person, me, now):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    with pytest.raises(lifecycle.NotOffered):
        lifecycle.amend(consent, until_on=consent.until_on + datetime.timedelta(days=1), by=me, at=now)
    near = now + datetime.timedelta(days=345)
    lifecycle.amend(consent, until_on=near.date() + datetime.timedelta(days=300), by=me, at=near)
    consent.refresh_from_db()
    assert consent.until_on == near.date() + datetime.timedelta(days=300)


def test_expiry_ends_quietly(person, now):
    subscription = factories.joined(person, at=now)
    before = Delivery.objects.count()
    counts = lifecycle.expire_due(by=SYSTEM, at=now + datetime.timedelta(days=367))
    subscription.refresh_from_db()
    assert counts["expired"] == 1 and subscription.end_reason == "expired" and subscription.holds
    assert Delivery.objects.count() == before
    assert "consent.expired" in typs(subscription)


def test_six_months_without_use_stop_the_regular_flow_and_twelve_end_and_erase(person, now):
    subscription = factories.joined(person, at=now)
    assert lifecycle.expire_due(by=SYSTEM, at=now + datetime.timedelta(days=185))["inactive_paused"] == 2
    counts = lifecycle.expire_due(by=SYSTEM, at=now + datetime.timedelta(days=365))
    subscription.refresh_from_db()
    assert counts["inactive_ended"] == 1
    assert (subscription.end_reason, subscription.erasure) == ("inactive", "requested")


def test_the_side_that_started_a_stop_is_not_called_back(person, now):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    lifecycle.withdraw(
        consent, erase=False, by=Actor.organization(consent.source), at=now, reason="source_left"
    )
    told = subscription.deliveries.filter(event="consent-withdrawn").values_list("role", flat=True)
    assert list(told) == ["operator"]


def test_from_fourteen_and_without_third_parties_under_nineteen(now):
    child = factories.PersonFactory(born_on=datetime.date(2013, 1, 1))
    with pytest.raises(lifecycle.TooYoung):
        factories.joined(child, at=now, optional=False)
    youth = factories.PersonFactory(born_on=datetime.date(2011, 1, 1))
    with pytest.raises(lifecycle.TooYoung):
        factories.joined(youth, at=now)
    assert factories.joined(youth, at=now, optional=False).state == "active"


def test_a_failing_ledger_leaves_nothing_behind(person, me, now, monkeypatch):
    subscription = factories.joined(person, at=now)
    entries = EntryIndex.objects.count()

    def broken(*args, **kwargs):
        raise RuntimeError("the log is full")

    monkeypatch.setattr(propagation, "owe", broken)
    with pytest.raises(RuntimeError):
        lifecycle.leave(subscription, erase=True, by=me, at=now)
    subscription.refresh_from_db()
    assert subscription.state == "active" and EntryIndex.objects.count() == entries
    assert Consent.objects.filter(state="ended").count() == 0


# --- licences -----------------------------------------------------------------------------------------------------------------


def decided(operator, status, at) -> None:
    on = lifecycle.day(at)
    factories.LicenceFactory(organization=operator, status=status, decided_on=on, effective_on=on)


@pytest.mark.parametrize("status", ["suspended", "cancelled", "surrendered"])
def test_nothing_goes_on_with_who_has_no_licence_any_more(person, me, now, status):
    subscription = factories.joined(person, at=now)
    consent = subscription.consents.filter(kind="transfer").first()
    later = now + datetime.timedelta(days=2)
    lifecycle.pause(consent, until_on=lifecycle.day(later), by=me, at=now)
    decided(subscription.operator, status, now)
    with pytest.raises(lifecycle.NotOpen):
        lifecycle.resume(consent, by=me, at=later)
    assert lifecycle.expire_due(by=Actor.system("expire"), at=later)["resumed"] == 0
    consent.refresh_from_db()
    assert consent.state == "paused"
    near = datetime.datetime.combine(consent.until_on, datetime.time(12), tzinfo=datetime.UTC)
    near -= datetime.timedelta(days=10)
    with pytest.raises(lifecycle.NotOpen):
        lifecycle.amend(consent, until_on=consent.until_on + datetime.timedelta(days=30), by=me, at=near)
    sooner = consent.until_on - datetime.timedelta(days=3)
    assert lifecycle.amend(consent, until_on=sooner, by=me, at=near).until_on == sooner, "less is possible"
    decided(subscription.operator, "licensed", later)
    assert lifecycle.expire_due(by=Actor.system("expire"), at=later)["resumed"] == 1
