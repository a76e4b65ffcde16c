"""The doors for transfers and weekly counts, and the regulator's list of cases."""

import datetime
import json

import pytest
from django.core import mail as outbox
from django.utils import timezone

from consents import cases, lifecycle
from consents.actors import Actor
from consents.models import Case, Transfer, WeeklyCount
from tests import factories
from tests.consents.api.conftest import Caller, of, token

pytestmark = pytest.mark.django_db
NDJSON = "application/x-ndjson"


@pytest.fixture
def consent(subscription):
    return subscription.consents.filter(kind="transfer", required=True).select_related("source").get()


def row(consent, **changes) -> dict:
    given = {
        "key": "2026-0001", "subscription": str(consent.subscription_id), "consent": str(consent.pk),
        "scopes": consent.scopes, "regular": True, "at": timezone.now().isoformat(),
    }  # fmt: skip
    return given | changes


def test_rows_are_judged_one_by_one(operator, consent):
    bad = [
        row(consent, key="b", at="yesterday"), row(consent, key="c", at="2020-01-01T00:00:00Z"), row(consent, key="d", more=1),
        row(consent, key="e", subscription="7"), "text", None, row(consent, key=5),
    ]  # fmt: skip
    answer = operator.post("transfers", [row(consent), *bad])
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [one["result"] for one in results] == ["created"] + ["refused"] * 7
    assert [one["key"] for one in results] == ["2026-0001", "b", "c", "d", "e", "", "", ""]
    assert all(one["errors"] for one in results[1:])
    assert results[1]["errors"][0]["pointer"] == "#/at"
    assert Transfer.objects.count() == 1


def test_lines_are_taken_too(operator, consent):
    lines = "\n".join([json.dumps(row(consent)), "{broken", json.dumps(row(consent, key="2"))])
    answer = operator.post("transfers", lines, content_type=NDJSON)
    assert [one["result"] for one in answer.json()["results"]] == ["created", "refused", "created"]


def test_the_same_again_changes_nothing(operator, consent):
    body = [row(consent)]
    first = operator.post("transfers", body, Idempotency_Key="k")
    assert operator.post("transfers", body, Idempotency_Key="k").json() == first.json()
    assert operator.post("transfers", body).json()["results"][0]["result"] == "known"
    assert Transfer.objects.count() == 1


@pytest.mark.parametrize("body", [[], {}, [{}] * 1001, 7])
def test_one_to_a_thousand_rows(operator, body):
    assert operator.post("transfers", body).status_code == 400


def test_a_report_that_is_too_large_is_not_read(operator):
    assert operator.post("transfers", '["' + "x" * 1_100_000 + '"]').status_code == 413


def test_what_flowed_after_the_stop_is_told_to_the_admins(consent, django_capture_on_commit_callbacks):
    reader = factories.MemberFactory(organization=consent.subscription.operator).person
    at = timezone.now()
    lifecycle.leave(consent.subscription, erase=False, by=Actor.person(consent.person), at=at)
    flowed = at + datetime.timedelta(minutes=10, milliseconds=1)  # a moment more than clocks may differ by
    with django_capture_on_commit_callbacks(execute=True):
        [answer] = (
            of(consent.source).post("transfers", [row(consent, at=flowed.isoformat())]).json()["results"]
        )
    assert answer["after_stop"] and [letter.to for letter in outbox.outbox] == [[reader.email]]


def test_sources_report_too_and_strangers_learn_nothing(consent):
    assert of(consent.source).post("transfers", [row(consent)]).json()["results"][0]["result"] == "created"
    stranger = of(factories.OperatorFactory()).post("transfers", [row(consent)]).json()["results"][0]
    unknown = of(consent.source).post(
        "transfers", [row(consent, key="x", subscription="0" * 8 + "-0000-7000-8000-" + "0" * 12)]
    )
    assert stranger["result"] == "refused"
    assert stranger["errors"] == unknown.json()["results"][0]["errors"]


def test_it_needs_its_scope(service, consent):
    assert of(service.organization, "deliveries:ack").post("transfers", [row(consent)]).status_code == 403


def test_weekly_counts_go_in_and_differences_are_cases(operator, service, consent):
    today = timezone.localdate()
    sunday = today - datetime.timedelta(days=today.isoweekday() % 7 + 7)
    given = {
        "week_on": sunday.isoformat(), "service": service.client_id, "source": consent.source.code, "consent_new": 0,
        "consent_revoke": 0, "consent_own": 0,
    }  # fmt: skip
    bad = [
        given | {"week_on": (sunday + datetime.timedelta(days=1)).isoformat()},
        given | {"consent_own": -1},
        given | {"service": "x"},
    ]
    answer = operator.post("weekly-counts", [given, *bad])
    assert [one["result"] for one in answer.json()["results"]] == ["kept", "refused", "refused", "refused"]
    assert WeeklyCount.objects.count() == 1 and not Case.objects.exists()
    operator.post("weekly-counts", [given | {"consent_own": 3}])
    assert WeeklyCount.objects.get().consents_own == 3 and Case.objects.get().kind == "counts"


def test_the_regulator_reads_cases_behind_pseudonyms(
    app, service, person, subscription, django_assert_max_num_queries
):
    for n in range(3):
        cases.open_case(
            "ended_here" if n else "counts", service.organization, matter=str(n), stated={"says": "active"}, known={},
            person=person if n else None, subscription=subscription if n else None, by=Actor.system("test"), at=timezone.now(),
        )  # fmt: skip
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    caller = Caller(token(app, regulator, ["oversight:read"]))
    first = caller.get("oversight/reconciliation?limit=2").json()
    assert [one["kind"] for one in first["results"]] == ["ended_here", "ended_here"] and first["next"]
    rest = caller.get(f"oversight/reconciliation?limit=2&cursor={first['next']}").json()
    assert [(one["kind"], one["subject"]) for one in rest["results"]] == [("counts", "")] and rest[
        "next"
    ] is None
    text = json.dumps(first)
    assert first["results"][0]["subject"]
    for secret in (person.email, person.name, str(person.pk), str(person.subject_id)):
        assert secret not in text
    assert len(caller.get("oversight/reconciliation?kind=counts&state=open").json()["results"]) == 1
    assert caller.get("oversight/reconciliation?kind=nothing").status_code == 400
    with django_assert_max_num_queries(12):
        caller.get("oversight/reconciliation")


def test_nobody_else_reads_cases(app, person, mine, operator):
    assert mine.get("oversight/reconciliation").status_code == 403
    assert operator.get("oversight/reconciliation").status_code == 403
    assert Caller().get("oversight/reconciliation").status_code == 401
    assert Caller(token(app, person, ["oversight:read"])).get("oversight/reconciliation").status_code == 403
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    assert Caller(token(app, regulator, ["openid"])).get("oversight/reconciliation").status_code == 403
