"""The data files are complete, speak both languages, and load twice without a change."""

import csv
import datetime
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from django.core.management import call_command

from providers import datafiles, policy, registry, wording
from providers.models import Licence, Organization, PolicyRule, Scope, Service, Terms, TermsItem

DATA = Path(registry.__file__).parent / "data"
AT = datetime.datetime(2026, 11, 22, 3, 0, tzinfo=datetime.UTC)

SCOPES = json.loads((DATA / "scopes.json").read_text(encoding="utf-8"))
FICTIONAL = datafiles.fictional()
ORGANIZATIONS = {row["code"]: row for row in FICTIONAL["organizations"]}
SERVICES = FICTIONAL["services"]
VERSIONS = [(service, terms) for service in SERVICES for terms in [*service["history"], service["terms"]]]
ITEMS = [(service, terms, item) for service, terms in VERSIONS for item in terms["items"]]
CODES = {code for scope in SCOPES for code in scope["codes"]}


def table(name: str) -> list[dict[str, str]]:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def texts(thing, found=()):
    """Every pair of a Korean and an English text, at any depth."""
    found = list(found)
    if isinstance(thing, dict):
        found += [(name, thing[name], thing[f"{name[:-3]}_en"]) for name in thing if name.endswith("_ko")]
        for value in thing.values():
            found += texts(value)
    if isinstance(thing, list):
        for value in thing:
            found += texts(value)
    return found


# Scopes


def test_the_catalogue_has_every_item():
    counts = {
        "B": 15,
        "C": 10,
        "V": 5,
        "I": 7,
        "E": 7,
        "K": 2,
        "G": 1,
        "T": 3,
        "L": 2,
        "P": 6,
        "H": 6,
        "M": 2,
        "N": 1,
    }
    assert [scope["item"] for scope in SCOPES] == [
        f"{letter}{number:02}" for letter, count in counts.items() for number in range(1, count + 1)
    ]
    assert len(SCOPES) == 67
    assert [scope["position"] for scope in SCOPES] == list(range(1, 68))


def test_every_scope_has_a_code_a_level_and_known_marks():
    for scope in SCOPES:
        assert scope["codes"] and all(re.fullmatch(r"[a-z0-9]+\.[a-z_]+", code) for code in scope["codes"]), (
            scope["item"]
        )
        assert 1 <= scope["sensitivity"] <= 5
        assert set(scope["flags"]) <= set("SsUTBFP")
        assert scope["cycle_class"] in ("", "basic", "additional", "both")
        assert scope["ref"] and scope["fields"]


def test_the_three_riders_have_items_of_their_own():
    riders = {scope["item"]: scope["rider"] for scope in SCOPES if scope["rider"]}
    assert riders == {"B05": "memo", "V04": "memo", "C03": "merchant", "E06": "category"}


def test_plain_words_name_no_raw_field():
    for scope in SCOPES:
        assert not re.search(r"[a-z]_[a-z]", scope["plain_ko"] + scope["plain_en"]), scope["item"]
        assert scope["plain_ko"].endswith("요."), scope["item"]


@pytest.mark.parametrize("data", [SCOPES, FICTIONAL], ids=["scopes", "fictional"])
def test_every_text_is_there_in_both_languages(data):
    for name, korean, english in texts(data):
        if name == "change_reason_ko" and not korean and not english:
            continue
        assert korean.strip() and english.strip() and korean != english, (name, korean, english)
        assert re.search("[가-힣]", korean), korean
        assert not re.search("[가-힣]", english), english
        assert "99991231" not in korean + english


# Policy


def test_the_rules_with_numbers_are_all_there():
    expected = {
        "CONSENT_MAX_MONTHS_V1": 12, "JOIN_MAX_YEARS_V2": 5, "RENEW_WINDOW_MONTHS": 1, "LIST_CONSENT_DAYS": 7,
        "REGULAR_CYCLE_MIN_WEEKS_V2": 1, "REGULAR_CYCLE_MAX_WEEKS_V2": 4, "INACTIVE_STOP_MONTHS": 6,
        "INACTIVE_DELETE_MONTHS": 12, "PROCESSING_RECORD_YEARS": 3, "ANNUAL_NOTICE_PER_YEAR": 1, "MIN_AGE": 14,
        "SOFT_WARN_AT": 3, "STRONG_WARN_AT": 5, "RECEIVED_WITHIN_MINUTES": 1, "RECEIVED_ESCALATE_MINUTES": 15,
        "STOPPED_WITHIN_HOURS": 24, "ERASED_WITHIN_DAYS": 7, "DORMANT_MONTHS": 5, "PACE_JOINS": 3, "PACE_DAYS": 7,
        "EXPIRING_DAYS": 30, "STILL_HELD_DAYS": 7, "COOLING_HOURS": 24, "OVERLAP_OPERATORS": 2,
        "MERGE_DELAY_SECONDS": 300, "LEASE_SECONDS": 45, "HTTP_TOTAL_SECONDS": 15,
    }  # fmt: skip
    rules = {row["key"]: int(row["value"]) for row in table("policy.csv")}
    assert {key: rules.get(key) for key in expected} == expected


def test_every_rule_has_a_day_a_unit_and_a_source():
    rows = table("policy.csv")
    assert max(Counter((row["key"], row["effective_on"]) for row in rows).values()) == 1
    for row in rows:
        assert datetime.date.fromisoformat(row["effective_on"]) >= datetime.date(2021, 2, 4), row
        assert row["unit"] and row["source"], row


# The invented world


def test_there_are_fourteen_operators_and_thirty_five_sources():
    operators = [row for row in ORGANIZATIONS.values() if row["is_operator"]]
    assert len(operators) == 14
    assert sum(row["is_source"] for row in ORGANIZATIONS.values()) == 35
    assert len({row["sector"] for row in operators}) >= 5
    assert sum(row["is_operator"] and row["is_source"] for row in ORGANIZATIONS.values()) >= 3
    assert len(ORGANIZATIONS) == len(FICTIONAL["organizations"])
    status = Counter(
        max(row["licences"], key=lambda licence: licence["effective_on"])["status"] for row in operators
    )
    assert status == {"licensed": 10, "conditional": 1, "suspended": 1, "surrendered": 1, "held": 1}


def test_no_invented_name_is_a_real_one():
    real = {row["name_ko"] for row in table("registry.csv")} | {
        row["name_en"] for row in table("registry.csv")
    }
    assert not real & {row[name] for row in ORGANIZATIONS.values() for name in ("name_ko", "name_en")}
    assert not {row["org_code"] for row in table("registry.csv")} & ORGANIZATIONS.keys()


def test_every_operator_has_a_service_and_names_are_unique():
    assert {service["operator"] for service in SERVICES} == {
        code for code, row in ORGANIZATIONS.items() if row["is_operator"]
    }
    for name in ("client_id", "slug", "name_ko", "name_en"):
        assert max(Counter(service[name] for service in SERVICES).values()) == 1
    assert all(re.fullmatch(r"[a-z0-9-]{20,50}", service["client_id"]) for service in SERVICES)


def test_items_point_at_scopes_and_organizations_that_exist():
    for service, _, item in ITEMS:
        assert set(item["scopes"]) <= CODES, (service["slug"], item["scopes"])
        if item["kind"] == "transfer":
            assert ORGANIZATIONS[item["source"]]["is_source"] and item["source"] != service["operator"]
        if item["kind"] == "third_party":
            assert item["recipient"] in ORGANIZATIONS and item["recipient"] != service["operator"]


def test_every_transfer_says_the_seven_things_of_the_law():
    for service, _, item in ITEMS:
        if item["kind"] != "transfer":
            continue
        where = (service["slug"], item["title_ko"])
        assert item["source"], where  # from whom
        assert any(not code.endswith(".list") for code in item["scopes"]), where  # what, more than a list
        assert service["operator"] in ORGANIZATIONS, where  # to whom
        assert item["cycle"] in ("", "1/1w", "1/2w", "1/3w", "1/4w"), where  # regular or not, how often
        assert 1 <= item["valid_months"] <= 60, where  # until when
        assert item["purpose_ko"] and item["purpose_en"], where  # what for
        assert item["retention_ko"] and item["retention_en"], where  # how long kept


def test_every_service_asks_for_the_needed_and_leaves_the_rest_open():
    for service, terms in VERSIONS:
        kinds = Counter((item["kind"], item["required"]) for item in terms["items"])
        assert 2 <= kinds["transfer", True] + kinds["transfer", False] <= 4, service["slug"]
        assert kinds["transfer", True] >= 1 and kinds["use", True] == 1, service["slug"]
        assert kinds["third_party", True] == kinds["marketing", True] == 0, service["slug"]
        assert kinds["third_party", False] <= 2 and kinds["marketing", False] <= 1, service["slug"]
        assert all(not item["grade"] or not item["required"] for item in terms["items"])


def test_riders_are_offered_only_where_the_data_has_them():
    having = {
        "memo": {"bank.deposit", "invest.account"},
        "merchant": {"card.card", "efin.prepaid", "efin.paid", "telecom.mgmt"},
        "category": {"efin.prepaid", "efin.paid"},
    }
    for service, _, item in ITEMS:
        for rider in item["riders"]:
            assert having[rider] & set(item["scopes"]), (service["slug"], rider)


def test_one_operator_holds_health_and_money():
    sectors = {}
    for service, _, item in ITEMS:
        sectors.setdefault(service["operator"], set()).update(code.split(".")[0] for code in item["scopes"])
    assert any({"health", "bank"} <= found for found in sectors.values())


def test_three_services_ask_for_the_same_scope_of_the_same_source():
    asked = Counter(
        (item["source"], code)
        for service in SERVICES
        for item in service["terms"]["items"]
        if item["kind"] == "transfer"
        and ORGANIZATIONS[service["operator"]]["licences"][-1]["status"] == "licensed"
        for code in item["scopes"]
        if not code.endswith(".list")
    )
    assert sum(count >= 3 for count in asked.values()) >= 2


def test_the_full_text_has_every_heading_and_says_that_stopping_does_not_erase():
    for service, terms in VERSIONS:
        for language, sentence in (("ko", "저절로 지워지지 않아요"), ("en", "does not erase")):
            text = terms[f"text_{language}"]
            assert len(re.findall("^## ", text, re.MULTILINE)) >= 11, service["slug"]
            assert sentence in text
            for item in terms["items"]:
                if item["source"]:
                    assert ORGANIZATIONS[item["source"]][f"name_{language}"] in text


def test_two_services_have_a_material_second_version():
    second = [service for service in SERVICES if service["history"]]
    assert len(second) == 2
    for service in second:
        assert [service["history"][0]["version"], service["terms"]["version"]] == [1, 2]
        assert service["terms"]["change_kind"] == "material" and service["terms"]["change_reason_ko"]


# Loading


@pytest.fixture
def loaded(db):
    datafiles.load_scopes(at=AT)
    datafiles.load_policy(at=AT)
    datafiles.load_fictional(at=AT)
    yield
    policy.forget()


def rows():
    return [
        list(model.objects.order_by("pk").values())
        for model in (Organization, Licence, Scope, Service, Terms, TermsItem, PolicyRule)
    ]


def test_loading_twice_changes_nothing(loaded):
    before = rows()
    datafiles.load_scopes(at=AT)
    datafiles.load_policy(at=AT)
    datafiles.load_fictional(at=AT)
    assert rows() == before
    assert Scope.objects.count() == 67 and Organization.objects.count() == len(ORGANIZATIONS)


def test_a_new_portal_gets_its_rules_and_scopes_by_one_command(db, capsys):
    PolicyRule.objects.filter(key="DEAD_AFTER_MINUTES").delete()
    Scope.objects.all().delete()
    policy.forget()
    call_command("load_rules")
    assert policy.number("DEAD_AFTER_MINUTES", on=AT.date()) == 4535 and Scope.objects.count() == 67
    assert "67 scopes" in capsys.readouterr().out
    before = rows()
    call_command("load_rules")
    assert rows() == before


def test_loaded_rows_pass_the_models_own_rules(loaded):
    for model in (Organization, Licence, Scope, Service, TermsItem, PolicyRule):
        for row in model.objects.all():
            row.full_clean(exclude=["flags"])  # C06 has none, which the form would call empty


def test_each_service_has_one_published_terms_with_digests(loaded):
    for service in Service.objects.prefetch_related("terms"):
        published = [terms for terms in service.terms.all() if terms.state == "published"]
        assert len(published) == 1
        assert published[0].digest_ko == wording.text_digest(published[0], "ko") != published[0].digest_en
    retired = Terms.objects.filter(state="retired")
    assert retired.count() == 2 and all(terms.retired_at for terms in retired)


def test_a_number_is_the_one_of_its_day(loaded):
    assert policy.number("CONSENT_MAX_MONTHS_V1", on=datetime.date(2026, 11, 22)) == 12
    with pytest.raises(policy.UnknownRule):
        policy.number("JOIN_MAX_YEARS_V2", on=datetime.date(2020, 6, 18))
    assert policy.number("JOIN_MAX_YEARS_V2", on=datetime.date(2025, 6, 18)) == 1
    assert policy.number("JOIN_MAX_YEARS_V2", on=datetime.date(2025, 6, 19)) == 5
    PolicyRule.objects.create(
        key="JOIN_MAX_YEARS_V2",
        value=3,
        unit="years",
        effective_on=datetime.date(2027, 1, 1),
        source="a test",
    )
    policy.forget()
    assert policy.number("JOIN_MAX_YEARS_V2", on=datetime.date(2026, 12, 31)) == 5
    assert policy.number("JOIN_MAX_YEARS_V2", on=datetime.date(2027, 1, 1)) == 3


def test_an_unknown_rule_is_an_error(loaded):
    with pytest.raises(policy.UnknownRule):
        policy.number("NO_SUCH_RULE", on=datetime.date(2026, 11, 22))
