"""An operator reports what it holds since before the portal; the person finds it here, and makes it stop."""

import csv

from django.core.management import call_command

from consents import reports
from tests import factories
from tests.journeys.conftest import number


def test_what_an_operator_reports_can_be_left_and_never_comes_back(partners, browser_of, tmp_path):
    service, person = factories.offered(), factories.PersonFactory()
    operator = service.organization
    source = factories.OrganizationFactory()
    partners.connect_everybody()
    visitor = browser_of(person)
    assert number(visitor.open("/me/")) == 0

    file = tmp_path / "holdings.csv"
    row = [
        person.subject_id, service.client_id, "2026-03-02", source.code, "bank.list bank.deposit", "가계부", "1/w",
        "2027-03-02", reports.UNTIL_ERASED, "2026-11-01",
    ]  # fmt: skip
    with file.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([reports.COLUMNS, row])
    call_command("import_holdings", str(file), organization=operator.code)
    assert number(visitor.open("/me/")) == 1
    assert "99991231" not in visitor.page.html and "9999" not in visitor.page.text

    visitor.follow(service.name_ko)
    address = visitor.page.url
    visitor.follow("그만두기")
    visitor.press("그만두기", within="/end/")
    partners.settle()
    assert "지웠다고 서명했어요" in visitor.open(address).text
    assert number(visitor.open("/me/")) == 0
    told = {row["organization"] for row in partners.effects() if row["type"] == "subscription-ended"}
    assert told == {operator.code, source.code}
    assert "지웠다고 서명함" in visitor.open(f"{address}certificate/").text

    # The same report again revives nothing: the person is told that it contradicts the log.
    call_command("import_holdings", str(file), organization=operator.code)
    assert number(visitor.open("/me/")) == 0
    assert not partners.deliver()
    page = visitor.open("/me/notices/")
    assert service.name_ko in page.text and "우리 기록과 달라요" in page.text
