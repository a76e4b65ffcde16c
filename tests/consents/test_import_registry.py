"""The licence register comes in by file: good rows in, bad rows named, the same file again no change."""

import csv
import datetime
import io
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from providers import register, registry
from providers.models import DirectoryEntry, Licence, Organization
from providers.wires.korea_served import SERVED

AT = datetime.datetime(2026, 11, 22, 3, 0, tzinfo=datetime.UTC)
REAL = Path(registry.__file__).parent / "data" / "registry.csv"
HEADER = ",".join(register.COLUMNS)
GOOD = "FTTEST0001,시험핀,Test Fin,fintech,operator,licensed,2021-01-27,20210127,시험 출처"

pytestmark = pytest.mark.django_db


def run(path, *options):
    out = io.StringIO()
    call_command("import_registry", str(path), *options, stdout=out)
    return out.getvalue()


@pytest.fixture
def file(tmp_path):
    def write(*lines, header=HEADER, encoding="utf-8"):
        path = tmp_path / "register.csv"
        path.write_bytes("\n".join([header, *lines, ""]).encode(encoding))
        return path

    return write


def refused(path):
    with path.with_name(f"{path.name}.refused.csv").open(encoding="utf-8", newline="") as lines:
        return [(int(row["row"]), row["column"], row["reason"]) for row in csv.DictReader(lines)]


def state():
    return list(Organization.objects.order_by("pk").values()), list(Licence.objects.order_by("pk").values())


def test_the_shipped_register_goes_in_whole():
    assert run(REAL).startswith("39 rows added, 0 already known, 0 refused")
    assert Licence.objects.filter(status="licensed", decided_on=datetime.date(2021, 1, 27)).count() == 28
    assert set(Licence.objects.filter(status="held").values_list("organization__name_ko", flat=True)) == {
        "하나은행", "하나카드", "하나금융투자", "삼성카드", "경남은행", "핀크", "카카오페이",
    }  # fmt: skip
    assert (
        Organization.objects.get(name_ko="카카오페이").status_on(datetime.date(2021, 5, 12)) == "preliminary"
    )
    assert not Organization.objects.filter(is_fictional=True).exists()
    assert not REAL.with_name("registry.csv.refused.csv").exists()


def test_the_same_file_twice_changes_nothing():
    run(REAL)
    before = state()
    assert run(REAL).startswith("0 rows added, 39 already known, 0 refused")
    assert state() == before


def test_a_dry_run_keeps_nothing():
    assert "39 rows added" in run(REAL, "--dry-run")
    assert state() == ([], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_hindrance(file, encoding):
    assert run(file(GOOD, encoding=encoding)).startswith("1 rows added")
    licence = Licence.objects.get()
    assert (licence.decided_on, licence.effective_on) == (
        datetime.date(2021, 1, 27),
        datetime.date(2021, 1, 27),
    )


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("org_code", GOOD.replace("FTTEST0001", "fttest0001")),
        ("org_code", GOOD.replace("FTTEST0001", "FT1")),
        ("name_ko", GOOD.replace("시험핀", "")),
        ("name_ko", GOOD.replace("시험핀", "=HYPERLINK(1)")),
        ("name_ko", GOOD.replace("시험핀", "가" * 81)),
        ("name_ko", GOOD.replace("시험핀", "시험\x00핀")),
        ("name_ko", GOOD.replace("시험핀", "시험\u202e핀")),
        ("name_en", GOOD.replace("Test Fin", "@SUM(A1)")),
        ("sector", GOOD.replace("fintech", "space")),
        ("role", GOOD.replace("operator", "king")),
        ("licence_status", GOOD.replace("licensed", "perhaps")),
        ("licence_status", GOOD.replace("licensed", "")),
        ("decided_on", GOOD.replace("2021-01-27", "27.01.2021")),
        ("decided_on", GOOD.replace("2021-01-27", "2021-02-30")),
        ("decided_on", GOOD.replace("2021-01-27", "2099-01-01")),
        ("decided_on", GOOD.replace("2021-01-27", "２０２１-01-27")),
        ("effective_on", GOOD.replace("20210127", "20210126")),
        ("effective_on", GOOD.replace("20210127", "99991231")),
        ("source", GOOD.replace("시험 출처", "")),
        ("source", "FTTEST0001,시험핀,Test Fin,fintech"),
        ("", GOOD + ",한 칸 더"),
        ("licence_status", GOOD.replace("operator", "source")),
    ],
)
def test_a_bad_row_is_refused_by_number_and_the_others_go_in(file, column, bad):
    good = GOOD.replace("FTTEST0001", "FTTEST0002")
    path = file(good, "", bad)
    assert run(path).startswith("1 rows added, 0 already known, 1 refused")
    [(number, named, reason)] = refused(path)
    assert number == 4 and reason
    assert named == column or (column == "source" and named == "role")
    assert list(Organization.objects.values_list("code", flat=True)) == ["FTTEST0002"]


def test_bytes_that_are_not_utf_8_refuse_their_row_only(file):
    path = file(GOOD)
    path.write_bytes(path.read_bytes() + GOOD.replace("FTTEST0001", "FTTEST0002").encode("cp949") + b"\n")
    assert run(path).startswith("1 rows added, 0 already known, 1 refused")
    assert refused(path)[0][:2] == (3, "name_ko")


def test_one_code_does_not_stand_for_two_organizations(file):
    path = file(GOOD, GOOD.replace("시험핀", "다른핀"))
    assert run(path).startswith("1 rows added, 0 already known, 1 refused")
    assert refused(path)[0][:2] == (3, "name_ko")


def test_a_source_comes_in_without_a_licence_and_may_become_an_operator_too(file):
    source = "FTTEST0001,시험핀,Test Fin,fintech,source,,,,"
    assert run(file(source, GOOD, source)).startswith("2 rows added, 1 already known, 0 refused")
    organization = Organization.objects.get()
    assert organization.is_source and organization.is_operator


def test_the_refused_file_holds_no_formula_and_goes_when_all_is_well(file):
    path = file(GOOD.replace("시험핀", "=1+1"))
    run(path)
    assert "'=1+1" in path.with_name("register.csv.refused.csv").read_text(encoding="utf-8")
    run(file(GOOD))
    assert not path.with_name("register.csv.refused.csv").exists()


@pytest.mark.parametrize(
    "header", ["", "org_code,name_ko", HEADER.replace("source", "origin"), HEADER + ",source"]
)
def test_a_wrong_header_is_one_line_of_error_and_no_change(file, header):
    with pytest.raises(CommandError) as error:
        run(file(GOOD, header=header))
    assert "\n" not in str(error.value) and "column" in str(error.value)
    assert state() == ([], [])


def test_a_file_that_cannot_be_read_is_one_line_of_error(tmp_path, file):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(CommandError, match="cannot read"):
            run(path)
    with pytest.raises(CommandError, match="check the quotes"):
        run(file(GOOD, '"FTTEST0002,never closed'))
    assert state() == ([], [])


def test_an_oversized_file_is_refused_before_it_is_read(file, monkeypatch):
    monkeypatch.setattr(register, "LARGEST_FILE", 1024 * 1024)
    with pytest.raises(CommandError, match="larger than 1 MB"):
        run(file(GOOD, "x" * 1024 * 1024))


def test_a_huge_cell_is_one_line_of_error(file):
    with pytest.raises(CommandError, match="can be read"):
        run(file(GOOD, "x" * 200_000))


def test_rows_given_in_code_are_judged_the_same():
    cells = dict(zip(register.COLUMNS, GOOD.split(","), strict=True))
    report = registry.import_register([cells, {**cells, "org_code": ""}], at=AT)
    assert (report.created, report.unchanged) == (1, 0)
    assert [(number, column) for number, column, _ in report.refused] == [(3, "org_code")]
    assert [licence.status for licence in report.licences] == ["licensed"]


# --- what 지원-002 tells beside name and licence --------------------------------------------------------------------------

FACTS = {
    "registration_number": "123-45-67890", "corp_regno": "110111-1234567", "address": "서울 어딘가 1", "domain": "API.Test.example",
    "domain_ip_list": "203.0.113.4 2001:DB8::4", "relay_org_code": "TCRELAY001", "auth_type": "03", "ip_list": "198.51.100.7",
    "np_time_list": "2330-0330 0400-0630",
}  # fmt: skip


def with_facts(**changed):
    facts = FACTS | changed
    return f"{HEADER},{','.join(facts)}", f"{GOOD},{','.join(facts.values())}"


def test_the_optional_columns_go_in_and_the_newest_word_counts(file):
    header, line = with_facts()
    assert run(file(GOOD)).startswith("1 rows added")
    before = Organization.objects.get(code="FTTEST0001").changed_at
    assert run(file(line, header=header)).startswith("1 rows added, 0 already known, 0 refused")
    entry = DirectoryEntry.objects.get(organization__code="FTTEST0001")
    assert (entry.corporate_number, entry.domain, entry.relay_code) == (
        "1101111234567",
        "api.test.example",
        "TCRELAY001",
    )
    assert (entry.domain_ips, entry.ips) == (["203.0.113.4", "2001:db8::4"], ["198.51.100.7"])
    assert entry.quiet_times == ["2330-0330", "0400-0630"] and entry.auth_type == "03"
    assert Organization.objects.get(code="FTTEST0001").changed_at > before
    assert run(file(line, header=header)).startswith("0 rows added, 1 already known, 0 refused")
    moved = with_facts(address="부산 어딘가 2", domain="")[1]
    assert run(file(moved, header=header)).startswith("1 rows added")
    entry.refresh_from_db()
    assert (entry.address, entry.domain) == ("부산 어딘가 2", "api.test.example"), (
        "an empty cell says nothing"
    )
    assert run(file(GOOD)).startswith("0 rows added, 1 already known")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("corp_regno", "110111"), ("address", "가" * 201), ("domain", "https://a.example"), ("domain", "a"), ("domain", "-a.example"),
        ("domain_ip_list", "203.0.113.4;203.0.113.5"), ("domain_ip_list", "203.0.113.400"), ("relay_org_code", "short"), ("auth_type", "02"),
        ("ip_list", "everywhere"), ("np_time_list", "0000-0500"), ("np_time_list", "0015-0630"), ("np_time_list", "2430-0630"),
        ("np_time_list", "0000-0200 0300-0500 0600-0700 0800-0900"),
    ],
)  # fmt: skip
def test_a_fact_that_cannot_be_is_refused_by_its_column(file, column, value):
    header, line = with_facts(**{column: value})
    path = file(line, header=header)
    assert "1 refused" in run(path)
    assert [name for _number, name, _reason in refused(path)] == [column]
    assert not DirectoryEntry.objects.exists()


def test_what_the_register_takes_the_table_of_the_api_takes():
    """One field is as long here as there."""
    table = SERVED["지원-002"].answer["org_list"].rows
    for name, column in register.FACTS.items():
        field, model = table[name], DirectoryEntry._meta.get_field(column)
        length = field.rows[name.removesuffix("_list")].length if field.rows else field.length
        assert getattr(model, "base_field", model).max_length == length, name
    assert tuple(DirectoryEntry.AuthType.values) == table["auth_type"].values
