"""The Korean support API that we serve: every field of its table, broken in every way there is; and what it is for."""

import copy
import datetime
import json
from decimal import Decimal
from urllib.parse import urlencode

import pytest
from allauth.idp.oidc.models import Token
from django.test import Client
from django.utils import timezone

from consents import counts, oauth
from consents.api import dpop
from consents.api import oauth as doors
from consents.api.mydata import mark
from consents.models import Case, WeeklyCount
from providers import datafiles, registry
from providers.models import DirectoryEntry, Organization, Service
from providers.wires.korea_fields import KOREA, problem
from providers.wires.korea_served import SERVED
from tests import factories
from tests.providers.wires.broken import broken, put

from .conftest import SECRET, TRAN, Caller, of, token

pytestmark = pytest.mark.django_db
URLS = {name: f"/mydata{call.path}" for name, call in SERVED.items()}
FORM = "application/x-www-form-urlencoded"


def last_week() -> datetime.date:
    """The Sunday of the last whole week."""
    today = timezone.now().astimezone(KOREA).date()
    return today - datetime.timedelta(days=today.isoweekday() % 7 + 7)


def statistics(code: str, **of_row) -> dict:
    """A week with one organization, in the form that 지원-004 and 005 share."""
    first = last_week()
    slot = {
        "tm_slot": "01",
        "rsp_avg": "12.5",
        "rsp_total": 125,
        "rsp_stdev": "0.031",
        "success_api_cnt": 9,
        "fail_api_cnt": 1,
    }
    row = {
        "org_code": code, **of_row, "consent_new": 1, "consent_revoke": 0, "consent_own": 3, "api_type_cnt": 1,
        "api_type_list": [{"api_type": "BA01", "tm_slot_cnt": 1, "tm_slot_list": [slot]}],
    }  # fmt: skip
    days = [f"{first + datetime.timedelta(days=n):%Y%m%d}" for n in range(7)]
    return {
        "type": "1", "inquiry_date": f"{first + counts.WEEK:%Y%m%d}", "stat_date_cnt": 7,
        "stat_date_list": [{"stat_date": day, "org_cnt": 1, "org_list": [copy.deepcopy(row)]} for day in days],
    }  # fmt: skip


# One honest request a call. Codes are those of the fixtures.
OPERATOR, SOURCE = "ZVOPER0000", "ZVBANK0000"
SAMPLES = {
    "지원-001": {"grant_type": "client_credentials", "client_id": "op-server", "client_secret": SECRET, "scope": "manage"},
    "지원-002": {"search_timestamp": 0, "limit": 5, "next_page": mark("지원-002", "A")},
    "지원-003": {"search_timestamp": 0, "limit": 5, "next_page": mark("지원-003", "A")},
    "지원-004": {"client_id": "svc-0001", **statistics(SOURCE)},
    "지원-005": statistics(OPERATOR, client_id="svc-0001"),
}  # fmt: skip
for day in SAMPLES["지원-004"]["stat_date_list"]:
    day |= {"svr_usr_cnt": 10, "trsms_dem_cnt": 4}


@pytest.fixture
def parties(db):
    """An operator with one service, and a source."""
    from consents import oauth

    operator = factories.OperatorFactory(code=OPERATOR, registration_number="1234567890")
    source = factories.OrganizationFactory(code=SOURCE)
    factories.offered(organization=operator, client_id="svc-0001")
    for organization, name in ((operator, "op-server"), (source, "source-server")):
        oauth.create_client(
            organization=organization, name=name, secret=SECRET, client_id=name, scopes=list(oauth.ORGANIZATION_SCOPES),
            redirect_uris=[f"https://{name}.example/{n}" for n in range(5)],
        )  # fmt: skip
    return operator, source


def call(
    name: str,
    given,
    *,
    caller: Caller | None = None,
    tran: str | None = TRAN,
    raw: str | None = None,
    **headers,
):
    """As an institution would: the form, the query or the JSON of the call."""
    given_headers = {"x-api-tran-id": tran} if tran is not None else {}
    caller = caller or of(Organization.objects.get(code=SOURCE if name == "지원-005" else OPERATOR))
    headers = (
        caller.headers | given_headers | {key.replace("_", "-"): value for key, value in headers.items()}
    )
    url = URLS[name]
    if name == "지원-001":
        return Client().post(
            url, urlencode(given) if raw is None else raw, content_type=FORM, headers=given_headers
        )
    if SERVED[name].method == "GET":
        return Client().get(url, query_params=given, headers=headers)
    return Client().post(
        url, json.dumps(given) if raw is None else raw, content_type="application/json", headers=headers
    )


def refused(answer, status: int, code: str) -> dict:
    assert answer.status_code == status, answer.content
    body = answer.json()
    assert (
        body["rsp_code"] == code
        and problem({name: SERVED["지원-004"].answer[name] for name in ("rsp_code", "rsp_msg")}, body) == ""
    )
    return body


# --- the table ----------------------------------------------------------------------------------------------------------------


def _is_text_all_the_same(name: str, what: str, value) -> bool:
    """In a form and in a query everything is a text: a number that is one stays one, and a list cannot be sent."""
    if what != "wrong type":
        return False
    return name == "지원-001" or (
        SERVED[name].method == "GET" and (value in ("1", 1) or isinstance(value, bool | list | dict))
    )


BREAKS = [
    pytest.param(name, place, value, id=f"{name} {'.'.join(map(str, place))} {what} {n}")
    for name, call_ in SERVED.items()
    for n, (place, what, value) in enumerate(broken(call_.request, SAMPLES[name]))
    if not _is_text_all_the_same(name, what, value)
]


def test_the_samples_keep_to_the_table_and_are_taken(parties):
    for name, sample in SAMPLES.items():
        assert problem(SERVED[name].request, sample, strict=True) == "", name
        answer = call(name, sample)
        assert answer.status_code == 200, answer.content
        assert answer["x-api-tran-id"] == TRAN
        assert problem(SERVED[name].answer, answer.json(), strict=True) == "", name
        assert answer.json()["rsp_code"] == "00000"


def test_whatever_breaks_the_table_is_refused_and_changes_nothing(parties, unchanged, subtests):
    """Three thousand requests in one test: one world serves them all."""
    callers = {code: of(Organization.objects.get(code=code)) for code in (OPERATOR, SOURCE)}
    with unchanged():
        for name, place, value in (param.values for param in BREAKS):
            content = put(copy.deepcopy(SAMPLES[name]), place, value)
            caller = callers[SOURCE if name == "지원-005" else OPERATOR]
            with subtests.test(name, place=place, value=str(value)[:30]):
                body = refused(call(name, content, caller=caller), 400, "40001")
                assert str(value) not in body["rsp_msg"] or value in (None, [], {}, 1, True, "1", -1)
                if name == "지원-001":
                    assert body["error"] in ("invalid_request", "unsupported_grant_type", "invalid_scope")


def test_fields_that_are_not_in_the_table_are_refused(parties, unchanged):
    with unchanged():
        for name, sample in SAMPLES.items():
            refused(call(name, sample | {"organization": "X"}), 400, "40001")
        for name in ("지원-004", "지원-005"):
            deep = copy.deepcopy(SAMPLES[name])
            deep["stat_date_list"][0]["org_list"][0]["reported_at"] = "x"
            refused(call(name, deep), 400, "40001")


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("tran", [None, "", "x" * 25, "A" * 24, "A" * 26, "A" * 24 + "é"])
def test_every_call_has_its_transaction_id(parties, unchanged, name, tran):
    with unchanged():
        body = refused(call(name, SAMPLES[name], tran=tran), 400, "40002")
    assert "x-api-tran-id: must be 25 characters" in body["rsp_msg"]


@pytest.mark.parametrize("name", [name for name in SERVED if name != "지원-001"])
def test_who_may_call(parties, app, person, unchanged, name):
    operator, source = parties
    party = source if name == "지원-005" else operator
    narrow = of(party, "deliveries:ack")
    with unchanged():
        answer = call(name, SAMPLES[name], caller=Caller())
        refused(answer, 401, "40101")
        assert answer["WWW-Authenticate"].startswith("Bearer")
        refused(call(name, SAMPLES[name], caller=Caller("nonsense")), 401, "40101")
        refused(call(name, SAMPLES[name], caller=narrow), 401, "40104")
        refused(call(name, SAMPLES[name], caller=Caller(token(app, person, ["me"]))), 401, "40104")


def test_a_bound_token_is_told_what_it_needs(parties):
    caller = of(parties[0])
    bound = Token.objects.get()
    oauth.bind(bound, "x")
    bound.save()
    body = refused(call("지원-002", SAMPLES["지원-002"], caller=caller), 401, "40101")
    assert body["rsp_msg"] == f"잘못된 토큰 ({dpop.remedy('bearer')})"


def test_what_is_no_call(parties):
    operator, _ = parties
    caller = of(operator)
    refused(caller.get("/mydata/v2/mgmts/nothing"), 404, "40401")
    refused(caller.get("/mydata/"), 404, "40401")
    refused(caller.client.post(URLS["지원-002"], headers=caller.headers), 405, "40501")
    refused(call("지원-004", {}, raw="{"), 400, "40001")
    refused(call("지원-004", {}, raw='{"type":"1","type":"1"}'), 400, "40001")
    refused(call("지원-004", {}, raw=" " * 5_000_000), 413, "40001")
    wrong_kind = caller.client.post(
        URLS["지원-004"], "a", content_type="text/plain", headers=caller.usual("/mydata/")
    )
    refused(wrong_kind, 415, "40001")
    doubled = Client().get(
        URLS["지원-002"] + "?search_timestamp=0&search_timestamp=0",
        headers=caller.headers | {"x-api-tran-id": TRAN},
    )
    refused(doubled, 400, "40001")


# --- 지원-001 --------------------------------------------------------------------------------------------------------------------


def test_a_token_opens_the_support_api_and_no_other_door(parties):
    given = call("지원-001", SAMPLES["지원-001"]).json()
    assert given["token_type"] == "Bearer" and given["scope"] == "manage" and given["expires_in"] > 0
    caller = Caller(given["access_token"])
    assert call("지원-002", SAMPLES["지원-002"], caller=caller).status_code == 200
    assert caller.get("deliveries").status_code == 403


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"client_secret": "x" * 43}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"scope": "me"}, 400, "invalid_scope"),
        ({"scope": ""}, 400, "invalid_request"),
    ],
)
def test_who_gets_no_token(parties, change, status, error):
    answer = call("지원-001", SAMPLES["지원-001"] | change)
    assert answer.status_code == status and answer.json()["error"] == error
    assert answer.json()["rsp_code"] in ("40001", "40101") and answer["x-api-tran-id"] == TRAN


def test_answers_about_tokens_are_kept_nowhere_and_counted_by_client(parties, monkeypatch):
    """As at our own token endpoint: RFC 6749 §5.1, and what is left is the client's."""
    monkeypatch.setattr(doors, "PER_MINUTE", 3)
    sample = SAMPLES["지원-001"]
    first, wrong = call("지원-001", sample), call("지원-001", sample | {"client_secret": "x" * 43})
    others = [
        call("지원-001", sample | {"scope": "me"}), call("지원-001", sample, tran=None), call("지원-001", sample, raw="a=1&a=2"),
        call("지원-001", sample, raw="scope=" + "a" * 20_000),
    ]  # fmt: skip
    assert [one.status_code for one in others] == [400, 400, 400, 429], "nobody's share at this address"
    assert wrong["WWW-Authenticate"].startswith("Basic ")
    for answer in (first, wrong, *others):
        assert (answer["Cache-Control"], answer["Pragma"]) == ("no-store", "no-cache")
        assert answer["RateLimit-Policy"].startswith(
            '"token:client";q=3' if answer is first else '"token:guest";q=3'
        )
    again = [call("지원-001", sample), call("지원-001", sample), call("지원-001", sample)]
    assert [one.status_code for one in again] == [200, 200, 429] and again[2].json()["rsp_code"] == "42902"
    other = call("지원-001", sample | {"client_id": "source-server"})
    assert other.status_code == 200 and other["RateLimit"].startswith('"token:client";r=2;')


# --- the proxy's certificate ---------------------------------------------------------------------------------------------------


def test_the_certificate_that_the_proxy_saw_is_the_organizations(parties, settings, unchanged):
    settings.MTLS_SERIAL_HEADER = "X-Client-Cert-Serial"
    right, sample = {"X_Client_Cert_Serial": "123-45-67890"}, SAMPLES["지원-002"]
    assert call("지원-002", sample, **right).status_code == 200
    with unchanged():
        refused(call("지원-002", sample), 403, "40303")
        refused(call("지원-002", sample, X_Client_Cert_Serial="1234567891"), 403, "40303")
        # an organization without a number has no certificate
        refused(call("지원-005", SAMPLES["지원-005"], X_Client_Cert_Serial=""), 403, "40303")
        no_token = call("지원-001", SAMPLES["지원-001"])
        assert no_token.status_code == 401 and no_token.json()["error"] == "invalid_client"


# --- 지원-002, 003 ------------------------------------------------------------------------------------------------------------------


def everything(name: str, caller, **query) -> list[dict]:
    """All pages."""
    found, page = [], {}
    for _ in range(50):
        answer = call(name, {"search_timestamp": 0, **query, **page}, caller=caller).json()
        assert problem(SERVED[name].answer, answer, strict=True) == ""
        found += answer["org_list"]
        if not answer.get("next_page"):
            return found
        page = {"next_page": answer["next_page"]}
    raise AssertionError("no end")


@pytest.mark.parametrize("name", ["지원-002", "지원-003"])
def test_a_page_that_was_never_given_is_refused(parties, name):
    other = {"지원-002": "지원-003", "지원-003": "지원-002"}[name]
    for given in ("A", OPERATOR, "zzz", "x:y:z", mark(other, "A"), mark(name, "A")[:-1]):
        body = refused(call(name, {"search_timestamp": 0, "next_page": given}), 400, "40001")
        assert body["rsp_msg"].endswith("(next_page: not one that this call gave)")


@pytest.mark.parametrize("name", ["지원-004", "지원-005"])
def test_an_hour_is_one_of_the_day_and_told_once(parties, unchanged, name):
    def sent(*slots: str, twice: bool = False):
        given = copy.deepcopy(SAMPLES[name])
        (kind,) = given["stat_date_list"][3]["org_list"][0]["api_type_list"]
        kind["tm_slot_list"] = [kind["tm_slot_list"][0] | {"tm_slot": slot} for slot in slots]
        kind["tm_slot_cnt"] = len(slots)
        if twice:
            row = given["stat_date_list"][3]["org_list"][0]
            row |= {"api_type_cnt": 2, "api_type_list": [kind, copy.deepcopy(kind)]}
        return call(name, given)

    with unchanged():
        for slot in ("24", "99", "1", "aa", "-1"):
            assert "tm_slot" in refused(sent("00", slot), 400, "40001")["rsp_msg"]
        for answer in (sent("07", "07"), sent("07", "08", twice=True)):
            assert "tm_slot: twice" in refused(answer, 400, "40001")["rsp_msg"]
    assert sent(*[f"{hour:02}" for hour in range(24)]).status_code == 200


def test_the_register_whole_page_by_page(parties):
    operator, _source = parties
    ended = factories.OperatorFactory(code="ZVGONE0000")
    day = timezone.localdate()
    registry.record_decision(
        organization=ended,
        status="cancelled",
        decided_on=day,
        effective_on=day,
        source="시험",
        at=timezone.now(),
    )
    caller = of(operator)
    rows = everything("지원-002", caller, limit=1)
    assert [row["org_code"] for row in rows] == sorted(row["org_code"] for row in rows)
    assert rows == everything("지원-002", caller)
    by_code = {row["org_code"]: row for row in rows}
    assert "ZVGONE0000" not in by_code
    assert by_code[OPERATOR] | {"org_name": ""} == {
        "op_type": "I", "org_code": OPERATOR, "org_type": "03", "is_rcv_org": True, "org_name": "", "org_regno": "1234567890",
        "serial_num": "1234567890", **({"industry": by_code[OPERATOR]["industry"]} if "industry" in by_code[OPERATOR] else {}),
    }  # fmt: skip
    assert by_code[SOURCE]["org_type"] == "01" and by_code[SOURCE]["is_rcv_org"] is False


def test_every_field_of_the_table_is_served(parties):
    """Of an organization of which all is known; of services too. What no row ever says would be a field for show."""
    operator, source = parties
    Organization.objects.filter(pk=source.pk).update(registration_number="1234567891", sector="bank")
    DirectoryEntry.objects.create(
        organization=source, corporate_number="1101111234567", address="서울 어딘가 1", domain="api.bank.example", domain_ips=["203.0.113.4"],
        relay_code="TCRELAY001", auth_type="03", ips=["198.51.100.7", "2001:db8::7"], quiet_times=["0000-0600"],
    )  # fmt: skip
    Service.objects.update(app_schemes=["op://", "op-two://"])
    caller = of(operator)
    rows = {row["org_code"]: row for row in everything("지원-002", caller)}
    assert set(rows[SOURCE]) == set(SERVED["지원-002"].answer["org_list"].rows)
    assert (
        rows[SOURCE]["org_type"] == "02"
        and rows[SOURCE]["ip_cnt"] == 2
        and rows[SOURCE]["np_time_list"] == [{"np_time": "0000-0600"}]
    )
    ((service,),) = [row["service_list"] for row in everything("지원-003", caller)]
    told = SERVED["지원-003"].answer["org_list"].rows["service_list"].rows
    assert set(told) - set(service) == {"client_secret"}, "which we keep as a hash"
    assert service["app_scheme_list"] == [{"app_scheme": "op://"}, {"app_scheme": "op-two://"}]


def test_the_invented_organizations_tell_all_of_it(db):
    datafiles.load_policy(), datafiles.load_scopes(), datafiles.load_fictional(at=timezone.now())
    rows = everything("지원-002", of(Organization.objects.get(code="FTDURU9001")), limit=500)
    told = {name for row in rows for name in row}
    assert told == set(SERVED["지원-002"].answer["org_list"].rows)
    codes = {row["org_code"] for row in rows}
    assert {row["relay_org_code"] for row in rows if "relay_org_code" in row} <= codes


def test_only_what_has_changed_since(parties):
    operator, source = parties
    old = timezone.now() - datetime.timedelta(days=30)
    Organization.objects.update(registered_at=old, changed_at=old)
    since = int((timezone.now() - datetime.timedelta(days=1)).astimezone(KOREA).strftime("%Y%m%d%H%M%S"))
    caller = of(operator)
    assert everything("지원-002", caller, search_timestamp=since) == []
    gone, new = factories.OperatorFactory(code="ZVGONE0000"), factories.OrganizationFactory(code="ZVNEWX0000")
    Organization.objects.filter(pk=gone.pk).update(registered_at=old, changed_at=old)
    day = timezone.localdate()
    registry.record_decision(
        organization=gone,
        status="cancelled",
        decided_on=day,
        effective_on=day,
        source="시험",
        at=timezone.now(),
    )
    row = {name: getattr(source, name) for name in ("name_ko", "name_en", "sector")}
    line = row | {
        "org_code": SOURCE, "role": "both", "licence_status": "licensed", "decided_on": "2021-01-27", "effective_on": "2021-01-27",
        "source": "시험", "registration_number": "123-45-67891",
    }  # fmt: skip
    report = registry.import_register([line], at=timezone.now())
    assert (report.created, report.refused) == (1, [])
    told = {row["org_code"]: row["op_type"] for row in everything("지원-002", caller, search_timestamp=since)}
    assert told == {gone.code: "D", new.code: "I", SOURCE: "M"}


def test_services_with_their_addresses_and_no_secret(parties, django_assert_max_num_queries):
    operator, _ = parties
    factories.offered(organization=operator, client_id="svc-0002", name_ko="가" * 80)
    caller = of(operator)
    (row,) = [row for row in everything("지원-003", caller) if row["org_code"] == OPERATOR]
    assert [service["client_id"] for service in row["service_list"]] == ["svc-0001", "svc-0002"]
    assert len(row["service_list"][1]["service_name"]) == 30
    first = row["service_list"][0]
    assert first["redirect_uri_cnt"] == 4 and first["redirect_uri_list"][0] == {
        "redirect_uri": "https://op-server.example/0"
    }
    assert "client_secret" not in json.dumps(row)
    for n in range(5):
        factories.offered(organization=factories.OperatorFactory(code=f"ZVMORE000{n}"))
    with django_assert_max_num_queries(8):
        call("지원-003", {"search_timestamp": 0}, caller=caller)


def test_a_closed_service_is_told_once_as_gone(parties):
    operator, _ = parties
    caller = of(operator)
    since = int((timezone.now() - datetime.timedelta(minutes=5)).astimezone(KOREA).strftime("%Y%m%d%H%M%S"))
    old = timezone.now() - datetime.timedelta(days=30)
    Service.objects.update(registered_at=old, changed_at=old)
    registry.set_service_states({Service.objects.get(client_id="svc-0001").slug: "closed"})
    assert everything("지원-003", caller) == []
    (row,) = everything("지원-003", caller, search_timestamp=since)
    assert row["service_list"][0]["op_type"] == "D"


@pytest.mark.parametrize("stamp", [1, 20261301000000, 20260230000000, 202601010000])
def test_a_moment_that_is_none(parties, stamp):
    refused(call("지원-002", {"search_timestamp": stamp}), 400, "40001")


@pytest.mark.parametrize("limit", [0, 501])
def test_a_page_has_one_to_five_hundred_rows(parties, limit):
    refused(call("지원-002", {"search_timestamp": 0, "limit": limit}), 400, "40001")


# --- 지원-004, 005 ------------------------------------------------------------------------------------------------------------------


def test_a_week_lands_where_weekly_counts_do(parties):
    operator, source = parties
    assert call("지원-004", SAMPLES["지원-004"]).json() == {"rsp_code": "00000", "rsp_msg": "성공"}
    assert call("지원-005", SAMPLES["지원-005"]).json()["rsp_code"] == "00000"
    for count in WeeklyCount.objects.all():
        assert (count.week_on, count.source, count.service.client_id) == (last_week(), source, "svc-0001")
        assert (count.consents_new, count.consents_revoked, count.consents_own) == (7, 0, 3)
    assert {count.organization for count in WeeklyCount.objects.all()} == {operator, source}
    assert Case.objects.filter(kind="counts").count() == 2, "the log says 0"


def test_how_calls_fared_is_kept_and_shown_where_the_week_is(parties, person):
    """The numbers of 지원-004 and 005 about calls: all of them for the regulator's token, their sums on the page."""
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    sent = copy.deepcopy(SAMPLES["지원-004"])
    slow = sent["stat_date_list"][0]["org_list"][0]["api_type_list"][0]["tm_slot_list"][0]
    slow |= {"rsp_avg": 500, "fail_api_cnt": 41}
    for kind in ("1", "2"):
        assert call("지원-004", sent | {"type": kind}).status_code == 200
    assert call("지원-005", SAMPLES["지원-005"]).status_code == 200
    one, other = WeeklyCount.objects.order_by("pk")
    assert [calls.kind for calls in one.calls.all()] == ["1", "2"] and other.calls.get().people is None
    calls = one.calls.first()
    assert (calls.succeeded, calls.failed, calls.people, calls.askers) == (63, 47, 10, 4)
    assert calls.mean == Decimal("234.091")  # 50 calls of 500 and 60 of 12.5
    assert calls.days[0] == {
        "date": sent["stat_date_list"][0]["stat_date"],
        "types": sent["stat_date_list"][0]["org_list"][0]["api_type_list"],
    }
    assert len(calls.days) == 7

    reader = Caller(
        token(
            oauth.create_app_client(name="감독", redirect_uris=["https://r.example/"]),
            regulator,
            ["oversight:read"],
        )
    )
    [_newest, listed] = reader.get("oversight/weekly-counts").json()["results"]
    assert listed["calls"][0] == {
        "kind": "1",
        "succeeded": 63,
        "failed": 47,
        "mean": "234.091",
        "people": 10,
        "askers": 4,
    }
    assert (listed["organization"], listed["source"], listed["consent_own"]) == (OPERATOR, SOURCE, 3)
    assert reader.get(f"oversight/weekly-counts/{listed['id']}").json()["calls"][0]["days"] == calls.days
    assert of(parties[0]).get("oversight/weekly-counts").status_code == 403

    browser = Client()
    browser.force_login(regulator)
    factories.prove(browser, regulator)
    page = browser.get("/oversight/reconciliation/counts/").content.decode()
    assert "정기적 전송: 성공 63, 실패 47, 평균 234.091" in page and "비정기적 전송" in page
    assert "성공 63, 실패 7, 평균 12.500" in page

    again = copy.deepcopy(SAMPLES["지원-004"])
    for day in again["stat_date_list"]:
        del day["org_list"][0]["api_type_list"], day["org_list"][0]["api_type_cnt"]
    assert call("지원-004", again).status_code == 200
    first, second = one.calls.all()
    assert (first.succeeded, first.mean, first.days) == (0, None, []) and second.succeeded == 63


def test_the_same_week_again_replaces_it(parties):
    call("지원-004", SAMPLES["지원-004"])
    again = copy.deepcopy(SAMPLES["지원-004"])
    again["stat_date_list"][6]["org_list"][0]["consent_own"] = 9
    again["type"] = "3"
    assert call("지원-004", again).status_code == 200
    assert WeeklyCount.objects.get().consents_own == 9


def test_numbers_that_need_no_counting_fields(parties):
    """Names of counts are optional: the lists say it themselves."""
    plain = copy.deepcopy(SAMPLES["지원-004"])
    for day in plain["stat_date_list"]:
        del day["org_cnt"], day["svr_usr_cnt"], day["trsms_dem_cnt"]
        for row in day["org_list"]:
            del row["api_type_cnt"], row["api_type_list"]
    assert call("지원-004", plain).status_code == 200


def test_inquiry_may_be_the_first_sunday_or_the_next(parties):
    for inquiry in (last_week(), last_week() + counts.WEEK):
        assert (
            call("지원-004", SAMPLES["지원-004"] | {"inquiry_date": f"{inquiry:%Y%m%d}"}).status_code == 200
        )
    monday = last_week() + datetime.timedelta(days=8)
    refused(call("지원-004", SAMPLES["지원-004"] | {"inquiry_date": f"{monday:%Y%m%d}"}), 400, "40001")


def moved(sample: dict, days: int) -> dict:
    """The same week, some days later."""
    content = copy.deepcopy(sample)
    for day in content["stat_date_list"]:
        at = datetime.datetime.strptime(day["stat_date"], "%Y%m%d") + datetime.timedelta(days=days)
        day["stat_date"] = f"{at:%Y%m%d}"
    at = datetime.datetime.strptime(content["inquiry_date"], "%Y%m%d") + datetime.timedelta(days=days)
    return content | {"inquiry_date": f"{at:%Y%m%d}"}


def test_a_week_that_is_none(parties, unchanged):
    sample = SAMPLES["지원-004"]
    with unchanged():
        for days in (1, 7, 14):
            refused(call("지원-004", moved(sample, days)), 400, "40001")
        twice = copy.deepcopy(sample)
        twice["stat_date_list"][3]["stat_date"] = twice["stat_date_list"][2]["stat_date"]
        refused(call("지원-004", twice), 400, "40001")
        doubled = copy.deepcopy(sample)
        doubled["stat_date_list"][0]["org_list"] *= 2
        doubled["stat_date_list"][0]["org_cnt"] = 2
        refused(call("지원-004", doubled), 400, "40001")


def test_all_of_a_week_or_nothing(parties, unchanged):
    mixed = copy.deepcopy(SAMPLES["지원-004"])
    stranger = copy.deepcopy(mixed["stat_date_list"][6]["org_list"][0]) | {"org_code": "ZVNONE0000"}
    mixed["stat_date_list"][6] |= {
        "org_cnt": 2,
        "org_list": [*mixed["stat_date_list"][6]["org_list"], stranger],
    }
    with unchanged():
        refused(call("지원-004", mixed), 403, "40303")


def test_each_side_sends_its_own(parties, unchanged):
    operator, source = parties
    factories.offered(client_id="not-ours")
    with unchanged():
        refused(call("지원-004", SAMPLES["지원-004"], caller=of(source)), 401, "40104")
        refused(call("지원-004", SAMPLES["지원-004"] | {"client_id": "not-ours"}), 400, "40001")
        refused(call("지원-005", SAMPLES["지원-005"], caller=of(operator)), 401, "40104")
        refused(call("지원-005", statistics(OPERATOR, client_id="not-ours")), 400, "40001")
        refused(call("지원-005", statistics("ZVNONE0000")), 403, "40303")


def test_an_operator_with_one_service_needs_no_client_id(parties, unchanged):
    operator, _ = parties
    assert call("지원-005", statistics(OPERATOR)).status_code == 200
    factories.offered(organization=operator, client_id="svc-0002")
    with unchanged():
        body = refused(call("지원-005", statistics(OPERATOR)), 400, "40001")
    assert "client_id" in body["rsp_msg"]
