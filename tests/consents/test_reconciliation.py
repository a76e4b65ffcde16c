"""Operators' holdings reports: what goes in, what is refused by number, and that nothing is ever revived."""

import csv
import datetime
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from consents import lifecycle, reports
from consents.models import EntryIndex, Notice, Subscription
from tests import factories

pytestmark = pytest.mark.django_db
TODAY = datetime.date(2026, 11, 22)


@pytest.fixture
def operator():
    return factories.OperatorFactory()


@pytest.fixture
def service(operator):
    return factories.offered(organization=operator)


@pytest.fixture
def source():
    return factories.OrganizationFactory()


def row(person, service, source, **changes) -> dict:
    base = {
        "subject": str(person.subject_id), "service_client_id": service.client_id, "joined_on": "2026-05-01",
        "source_org_code": source.code, "scopes": "bank.list bank.deposit", "purpose": "가계부", "cycle": "1/w",
        "end_date": "20270501", "retained_until": "99991231", "last_used_on": "2026-11-01",
    }  # fmt: skip
    return base | changes


def write(path, rows) -> str:
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        lines = csv.DictWriter(file, reports.COLUMNS)
        lines.writeheader()
        lines.writerows(rows)
    return str(path)


def snapshot() -> list:
    with connection.cursor() as cursor:
        found = []
        for table in (
            "consents_subscription",
            "consents_consent",
            "consents_entryindex",
            "consents_notice",
            "consents_delivery",
            "ledger.event",
        ):
            cursor.execute(
                f"SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
            )
            found.append(cursor.fetchone())
    return found


def test_a_report_goes_in_once(tmp_path, person, operator, service, source, capsys):
    other = factories.OrganizationFactory()
    path = write(tmp_path / "h.csv", [row(person, service, source), row(person, service, other)])
    call_command("import_holdings", path, organization=operator.code)
    subscription = Subscription.objects.get(person=person)
    assert (subscription.origin, subscription.consents.count(), str(subscription.until_on)) == (
        "reported",
        2,
        "2027-05-01",
    )
    consent = subscription.consents.first()
    assert (consent.retained_until, consent.cycle) == (None, "1/1w")
    assert subscription.deliveries.count() == 0, "everybody concerned knows already"
    assert EntryIndex.objects.filter(subscription=subscription).count() == 3
    before = snapshot()
    call_command("import_holdings", path, organization=operator.code)
    assert snapshot() == before
    assert "2 already known" in capsys.readouterr().out


def test_a_dry_run_keeps_nothing(tmp_path, person, operator, service, source):
    before = snapshot()
    call_command(
        "import_holdings",
        write(tmp_path / "h.csv", [row(person, service, source)]),
        organization=operator.code,
        dry_run=True,
    )
    assert snapshot() == before


def test_ndjson_says_the_same(tmp_path, person, operator, service, source):
    path = tmp_path / "h.ndjson"
    path.write_text(
        json.dumps(row(person, service, source), ensure_ascii=False) + "\nnonsense\n", encoding="utf-8"
    )
    call_command("import_holdings", str(path), organization=operator.code)
    assert Subscription.objects.filter(person=person).exists()
    assert '"2"' in (tmp_path / "h.ndjson.refused.csv").read_text()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("subject", "me"), ("subject", ""), ("subject", "0b6c0b34-2f0e-4b0e-9f5c-3d2f8a1c9e77"), ("service_client_id", "another"), ("joined_on", "2026-02-30"),
        ("joined_on", "20991231"), ("joined_on", "yesterday"), ("source_org_code", "NOBODY0000"), ("scopes", ""), ("scopes", "bank.everything"),
        ("purpose", ""), ("cycle", "1/d"), ("end_date", "99991231"), ("end_date", "2026-11-21"), ("end_date", "2040-01-01"),
        ("retained_until", "2026-12-01"), ("last_used_on", "2026-12-31"), ("last_used_on", "2025-01-01"), ("purpose", "a\u202eb"), ("purpose", "x" * 3000),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_and_the_others_go_in(tmp_path, person, operator, service, source, column, value):
    good = factories.PersonFactory()
    path = write(
        tmp_path / "h.csv", [row(person, service, source, **{column: value}), row(good, service, source)]
    )
    call_command("import_holdings", path, organization=operator.code)
    assert list(Subscription.objects.values_list("person", flat=True)) == [good.pk]
    with open(path + ".refused.csv", encoding="utf-8") as file:
        refused = list(csv.DictReader(file))
    assert [(r["row"], r["column"]) for r in refused] == [("2", column)] and refused[0]["reason"]


def test_a_report_can_never_revive_what_has_ended(tmp_path, person, me, operator, service, source, now):
    subscription = factories.joined(person, service, at=now - datetime.timedelta(days=100))
    lifecycle.leave(subscription, erase=True, by=me, at=now - datetime.timedelta(days=3))
    path = write(tmp_path / "h.csv", [row(person, service, source, joined_on="2026-08-20")])
    call_command("import_holdings", path, organization=operator.code)
    subscription.refresh_from_db()
    assert subscription.state == "ended" and Subscription.objects.count() == 1
    notice = Notice.objects.get(person=person)
    assert notice.kind == "mismatch" and notice.urgent
    before = snapshot()
    call_command("import_holdings", path, organization=operator.code)
    assert snapshot() == before


def test_a_report_never_widens_what_was_agreed_here(tmp_path, person, operator, service, now):
    subscription = factories.joined(person, service, at=now, optional=False)
    consent = subscription.consents.get()
    path = write(
        tmp_path / "h.csv",
        [
            row(
                person,
                service,
                consent.source,
                joined_on="2026-11-22",
                scopes="bank.deposit bank.loan",
                last_used_on="",
            )
        ],
    )
    call_command("import_holdings", path, organization=operator.code)
    consent.refresh_from_db()
    assert consent.scopes == ["bank.list", "bank.deposit"] and subscription.consents.count() == 1
    assert Notice.objects.get().kind == "mismatch"


def test_the_last_use_moves_forward_only(tmp_path, person, operator, service, source):
    for used, expected in (
        ("2026-09-01", "2026-09-01"),
        ("2026-11-01", "2026-11-01"),
        ("2026-10-01", "2026-11-01"),
    ):
        call_command(
            "import_holdings",
            write(tmp_path / "h.csv", [row(person, service, source, last_used_on=used)]),
            organization=operator.code,
        )
        assert str(Subscription.objects.get().last_used_on) == expected


def test_another_operators_service_is_refused(tmp_path, person, service, source):
    stranger = factories.OperatorFactory()
    call_command(
        "import_holdings",
        write(tmp_path / "h.csv", [row(person, service, source)]),
        organization=stranger.code,
    )
    assert not Subscription.objects.exists()


@pytest.mark.parametrize("content", ["", "subject,joined_on\n", 'subject,"\n'])
def test_a_file_that_is_no_report_is_one_clear_line(tmp_path, operator, content):
    path = tmp_path / "h.csv"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError, match=r"column|CSV"):
        call_command("import_holdings", str(path), organization=operator.code)


def test_an_unknown_organization_or_file_is_one_clear_line(tmp_path, operator):
    for path, code in ((tmp_path / "none.csv", operator.code), (tmp_path / "none.csv", "NOBODY0000")):
        with pytest.raises(CommandError):
            call_command("import_holdings", str(path), organization=code)
