"""The Korean wire against the published shapes, over real HTTP, and against everything that is not one."""

import asyncio
import copy
import hashlib
import json
import re
import string
from datetime import UTC, datetime

import pytest
from aiohttp import web
from hypothesis import HealthCheck, example, given
from hypothesis import settings as effort
from hypothesis import strategies as st

from providers import outbound
from providers.wires import (
    ABSENT,
    ACTIVE,
    BLOCKED,
    CHECK,
    GONE,
    KEY,
    REFUSED,
    RETRY,
    SENT,
    STOPPED,
    STOPPING,
    UNKNOWN,
    BadInbound,
    Endpoint,
    Message,
    Reference,
    korea,
    korea_fields,
    korea_line,
)
from providers.wires.korea_fields import FIELDS, problem
from tests.providers.loopback import serving, speaking
from tests.providers.wires.broken import broken

NOW = int(datetime(2026, 11, 22, 3, 10, 1, tzinfo=UTC).timestamp())
JTI = "01a2013b-6740-7a01-8f00-00000000c0de"
ORG, PORTAL, SECRET = "ZVXXXX0000", "ZZPORT0000", "s3cret-of-ours"
CI = "pretend/CI+of+somebody" + "A" * 64 + "=="
DETAILS = {"org_code": ORG, "portal_code": PORTAL, "client_id": "portal-0001"}
TOKEN = {"token_type": "Bearer", "access_token": "token-1", "expires_in": 600, "scope": "manage"}
FINE = {"rsp_code": "00000", "rsp_msg": "성공"}

# As published: the two examples of 지원-103 and 지원-105, and one of 지원-106 made from its table.
CONSENTS = {
    "rsp_code": "00000", "rsp_msg": "성공", "is_member": True, "service_cnt": 1, "service_list": [
        {"client_id": "svc-0001", "consent_cnt": 2, "consent_list": [
            {"org_code": "A1BANK0000", "scope": "bank.list bank.deposit bank.loan", "consent_date": "20260110", "consent_end_date": "20270110"},
            {"org_code": "D1CARD0000", "scope": "card.list card.card card.point", "consent_date": "20260110", "consent_end_date": "20270110"}]}]}  # fmt: skip
AGREEMENTS = {
    "rsp_code": "00000", "rsp_msg": "성공", "prov_consent_cnt": 1, "prov_consent_list": [
        {"prov_consent_num": "PC-20260110-0001", "prov_consent_status": "01", "is_once": False,
         "revoke_info": "철회하면 보험 비교 상담을 받을 수 없습니다.", "prov_service_name": "보험 비교", "prov_consent_name": "제3자 제공 동의(선택)",
         "prov_consent_dtime": "20260110101500", "snd_org_code": "ZVXXXX0000", "consent_rcv_name": "가나다보험",
         "prov_consent_purpose": "보험 상품 안내", "prov_consent_period": "동의일로부터 1년"}]}  # fmt: skip
DETAIL = {
    "rsp_code": "00000", "rsp_msg": "성공", "next_page": "", "prov_cnt": 1, "prov_list": [
        {"snd_org_code": "ZVXXXX0000", "prov_rcv_name": "가나다보험", "prov_purpose": "보험 상품 안내", "prov_period": "1년",
         "prov_asset": "보험 가입 목록", "is_reward": False, "prov_dtime": "20261101093000"}]}  # fmt: skip
NOBODY = {"rsp_code": "00000", "rsp_msg": "성공", "is_member": False}
PATHS = {
    "지원-101": "/mgmts/oauth/2.0/token",
    "지원-102": "/v2/mgmts/status",
    "지원-103": "/v2/mgmts/consents",
    "지원-105": "/v2/mgmts/agreements",
    "지원-106": "/v2/mgmts/agreements/detail",
    "지원-107": "/v2/mgmts/agreements/revoke",
    "전송요구-004": "/consents/revoke",
    "전송요구-005": "/consents/req-result",
}
SAMPLES = {
    "지원-101": TOKEN,
    "지원-102": {**FINE, "availability": "01"},
    "지원-103": CONSENTS,
    "지원-105": AGREEMENTS,
    "지원-106": DETAIL,
    "지원-107": FINE,
    "전송요구-004": FINE,
    "전송요구-005": FINE,
}


class Operator:
    """What a company answers, by call, and what it was asked."""

    def __init__(self, **answers):
        self.answers = {PATHS["지원-101"]: TOKEN, **{PATHS[name]: answer for name, answer in answers.items()}}
        self.asked = []

    def calls(self, name):
        return [row for row in self.asked if row["path"] == PATHS.get(name, name)]

    async def answer(self, request):
        body = await request.read()
        given = dict(request.query) if request.method == "GET" else body
        if request.content_type == "application/json":
            given = json.loads(body)
        elif body:
            given = dict(await request.post())
        self.asked.append(
            {"path": request.path, "method": request.method, "given": given, "headers": request.headers}
        )
        answer = self.answers.get(request.path, web.Response(status=404))
        if callable(answer):
            answer = answer(len(self.calls(request.path)))
        if isinstance(answer, dict):
            answer = (200, answer)
        if isinstance(answer, tuple):
            status, content, *more = answer
            raw = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
            headers = {"x-api-tran-id": request.headers["x-api-tran-id"], **(more[0] if more else {})}
            answer = web.Response(status=status, body=raw, headers={k: v for k, v in headers.items() if v})
        return answer


def digest(content):
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()


def visit(settings, operator, work, server=serving, **details):
    """Run `work(session, endpoint)` with the operator up."""
    korea.forget_tokens()

    async def run():
        handler = operator.answer if isinstance(operator, Operator) else operator
        async with server(handler) as port, outbound.open_session() as session:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            endpoint = Endpoint(settings.SANDBOX_URL, details={**DETAILS, **details}, credential=SECRET)
            return await work(session, endpoint)

    return asyncio.run(run())


def consent(number, kind="transfer", source="A1BANK0000"):
    return {"id": f"c-{number}", "kind": kind, "source": source}


def stop(event="consent-withdrawn", consents=None, references=None, **facts):
    data = {
        "service": "svc-0001",
        "consents": [consent(1)] if consents is None else consents,
        "delete_data": False,
        **facts,
    }
    given = [Reference("ci", CI), Reference("request", "RO_1", "c-1")] if references is None else references
    return Message(JTI, json.dumps({"type": event, "data": data}).encode(), tuple(given))


PROVISION = stop(
    consents=[consent(1, "third_party", None)],
    references=[Reference("ci", CI), Reference("provision", "PC-20260110-0001", "c-1")],
)


def send(settings, operator, message, total=3.0, server=serving, **details):
    async def work(session, endpoint):
        return await korea.send(session, message=message, endpoint=endpoint, now=NOW, total=total)

    return visit(settings, operator, work, server, **details)


def read_back(settings, operator, message, **details):
    async def work(session, endpoint):
        return await korea.read_back(session, message=message, endpoint=endpoint, now=NOW, total=3)

    return visit(settings, operator, work, **details)


def listed(settings, operator, **details):
    async def work(session, endpoint):
        references = [Reference("ci", CI)]
        return await korea.list_remote(session, references=references, endpoint=endpoint, now=NOW, total=3)

    return visit(settings, operator, work, **details)


# --- one call each ---------------------------------------------------------------------------------------------------------


def test_a_third_party_consent_is_ended_by_its_number(settings):
    operator = Operator(**{"지원-107": FINE})
    outcome = send(settings, operator, PROVISION)
    assert (outcome.verdict, outcome.status, outcome.digest) == (SENT, 200, digest(FINE))
    assert outcome.handle == korea.tran_id(PORTAL, JTI)
    token, call = operator.asked
    assert token["given"] == {
        "grant_type": "client_credentials",
        "client_id": "portal-0001",
        "client_secret": SECRET,
        "scope": "manage",
    }
    assert call["path"] == "/v2/mgmts/agreements/revoke" and call["method"] == "POST"
    assert call["given"] == {"org_code": ORG, "prov_consent_num": "PC-20260110-0001"}
    assert call["headers"]["Authorization"] == "Bearer token-1"
    assert call["headers"]["x-api-tran-id"] == outcome.handle
    assert call["headers"]["Content-Type"] == "application/json; charset=UTF-8"


@pytest.mark.parametrize("delete", [True, False])
def test_a_transfer_request_is_ended_by_its_transaction(settings, delete):
    operator = Operator(**{"전송요구-004": FINE})
    outcome = send(settings, operator, stop(delete_data=delete))
    assert outcome.verdict == SENT
    assert operator.calls("전송요구-004")[0]["given"] == {"tx_id": "RO_1", "user_ci": CI, "is_delete": delete}


def test_the_unsettled_address_is_used_only_where_it_is_switched_on(settings):
    operator = Operator(**{"전송요구-004": FINE})
    operator.answers["/v2/mgmts/consents/revoke"] = FINE
    assert send(settings, operator, stop(), consents_revoke="on").verdict == SENT
    assert [row["path"] for row in operator.asked] == [PATHS["지원-101"], "/v2/mgmts/consents/revoke"]
    assert send(settings, operator, stop(), consents_revoke="off").verdict == SENT
    assert operator.asked[-1]["path"] == "/consents/revoke"


def test_the_whole_subscription_ends_everything_that_has_a_name(settings):
    operator = Operator(**{"전송요구-004": FINE, "지원-107": FINE})
    message = stop(
        "subscription-ended",
        [
            consent(1),
            consent(2, source="D1CARD0000"),
            consent(3, "third_party", None),
            consent(4, "use", None),
        ],
        [
            Reference("request", "RO_2", "c-2"),
            Reference("request", "RO_1", "c-1"),
            Reference("provision", "PC-3", "c-3"),
            Reference("ci", CI),
        ],
        delete_data=True,
    )
    outcome = send(settings, operator, message)
    assert outcome.verdict == SENT and len(operator.calls("지원-101")) == 1
    assert {row["given"]["tx_id"] for row in operator.calls("전송요구-004")} == {"RO_1", "RO_2"}
    assert [row["given"]["prov_consent_num"] for row in operator.calls("지원-107")] == ["PC-3"]
    ids = {row["headers"]["x-api-tran-id"] for row in operator.asked[1:]}
    assert ids == {korea.tran_id(PORTAL, JTI, step) for step in ("", "1", "2")}
    assert outcome.digest == hashlib.sha256("\n".join([digest(FINE)] * 3).encode()).hexdigest()


@pytest.mark.parametrize(
    ("message", "missing", "sent"),
    [
        (stop(references=[]), "request of consent c-1", []),
        (stop(references=[Reference("request", "RO_1", "c-1")]), "ci", []),
        # A transaction of the whole subscription would end more than the person asked for.
        (stop(references=[Reference("request", "RO_9"), Reference("ci", CI)]), "request of consent c-1", []),
        (stop(references=[Reference("request", "RO_2", "c-2"), Reference("ci", CI)]), "request of consent c-1", []),
        (stop(consents=[consent(1, "third_party")], references=[Reference("ci", CI)]), "provision of consent c-1", []),
        (stop(consents=[consent(1, "marketing")], references=[Reference("ci", CI)]), "request of consent c-1", []),
        (stop("subscription-ended", [], []), "request", []),
        (stop("subscription-ended", [consent(1), consent(2)]), "request of consent c-2", ["RO_1"]),
        (stop("subscription-ended", [consent(1), consent(2, "third_party")]), "provision of consent c-2", ["RO_1"]),
        (stop("erasure-requested", [consent(1), consent(2)]), "request of consent c-2", ["RO_1"]),
        (stop("consent-withdrawn", [consent(1), consent(2)]), "request of consent c-2", ["RO_1"]),
    ],
)  # fmt: skip
def test_what_is_missing_is_named_and_the_rest_is_ended(settings, message, missing, sent):
    operator = Operator(**{"전송요구-004": FINE, "지원-107": FINE})
    outcome = send(settings, operator, message)
    assert outcome.verdict == REFUSED and outcome.detail == f"no reference: {missing}"
    assert [row["given"]["tx_id"] for row in operator.calls("전송요구-004")] == sent
    assert CI not in repr(outcome) and not operator.calls("지원-107")


@pytest.mark.parametrize(
    "message",
    [
        stop("subscription-ended", [consent(1), consent(2)], [Reference("request", "RO_1"), Reference("ci", CI)]),
        stop("erasure-requested", [consent(1)], [Reference("request", "RO_1"), Reference("ci", CI)]),
        stop("erasure-requested", [consent(1), consent(2, "third_party"), consent(3, "use")]),
        stop("operator-ended", []),
    ],
)  # fmt: skip
def test_what_covers_everything_is_enough(settings, message):
    operator = Operator(**{"전송요구-004": FINE})
    assert send(settings, operator, message).verdict == SENT
    assert [row["given"]["tx_id"] for row in operator.calls("전송요구-004")] == ["RO_1"]


@pytest.mark.parametrize("event", ["consent-granted", "consent-amended", "consent-paused", "consent-resumed"])
def test_what_the_api_has_no_call_for_is_refused(settings, event):
    operator = Operator()
    outcome = send(settings, operator, stop(event))
    assert outcome.verdict == REFUSED and event in outcome.detail and operator.asked == []


def test_more_things_than_one_message_may_end(settings):
    references = [Reference("ci", CI), *(Reference("request", f"RO_{n}", "c-1") for n in range(101))]
    outcome = send(settings, Operator(), stop(references=references))
    assert outcome.verdict == REFUSED and "101" in outcome.detail


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([SENT, SENT], SENT),
        ([SENT, CHECK], CHECK),
        ([CHECK, REFUSED], REFUSED),
        ([REFUSED, RETRY], RETRY),
    ],
)
def test_of_several_answers_the_one_with_work_left_counts(settings, answers, verdict):
    codes = {SENT: "00000", CHECK: "99999", REFUSED: "40303", RETRY: "50001"}
    operator = Operator()
    operator.answers[PATHS["전송요구-004"]] = lambda n: {"rsp_code": codes[answers[n - 1]], "rsp_msg": "말"}
    references = [
        Reference("ci", CI),
        Reference("request", "RO_1", "c-1"),
        Reference("request", "RO_2", "c-2"),
    ]
    message = stop(consents=[consent(1), consent(2)], references=references)
    assert send(settings, operator, message).verdict == verdict


# --- codes -------------------------------------------------------------------------------------------------------------------

CODES = {
    # code: (class under its own HTTP status and under 200, that status)
    "00000": (SENT, 200),
    "40001": (REFUSED, 400), "40002": (REFUSED, 400),
    "40101": (KEY, 401), "40102": (REFUSED, 401), "40103": (CHECK, 401), "40104": (REFUSED, 401),
    "40105": (REFUSED, 401), "40106": (CHECK, 401),
    "40301": (REFUSED, 403), "40302": (RETRY, 403), "40303": (REFUSED, 403), "40304": (REFUSED, 403),
    "40305": (REFUSED, 403),
    "40401": (REFUSED, 404), "40402": (CHECK, 404), "40403": (CHECK, 404), "40404": (CHECK, 404),
    "40501": (REFUSED, 405),
    "42901": (RETRY, 429), "42902": (RETRY, 429),
    "50001": (RETRY, 500), "50002": (RETRY, 500), "50003": (RETRY, 500), "50004": (RETRY, 500), "50005": (RETRY, 500),
    "50006": (RETRY, 500), "50007": (RETRY, 500), "50008": (RETRY, 500), "50009": (RETRY, 500),
    "99999": (CHECK, 200),
}  # fmt: skip
BARE = {  # no code at all
    200: RETRY, 202: RETRY, 204: RETRY, 301: RETRY, 302: RETRY, 400: REFUSED, 401: KEY, 403: REFUSED, 404: REFUSED,
    405: REFUSED, 408: RETRY, 410: GONE, 429: RETRY, 500: RETRY, 502: RETRY, 503: RETRY,
}  # fmt: skip


def judged(status, body, headers=None, name="지원-107"):
    tran = korea.tran_id(PORTAL, JTI)
    raw = body if isinstance(body, bytes) else json.dumps(body, ensure_ascii=False).encode()
    found = {"x-api-tran-id": tran} if headers is None else headers
    reply = outbound.Reply(status, found, raw, hashlib.sha256(raw).hexdigest())
    return korea_line.read(reply, name, FIELDS[name], tran, NOW)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 405, 429, 500, 503])
def test_each_code_has_one_meaning_under_every_status(code, status):
    answer = judged(status, {"rsp_code": code, "rsp_msg": "말"})
    expected = CODES[code][0]
    if code == "00000" and status != 200:
        expected = BARE[status]  # a success under an error is none
    assert answer.outcome.verdict == expected
    assert answer.outcome.status == status and len(answer.outcome.digest) == 64
    assert answer.good == (code == "00000" and status == 200)


@pytest.mark.parametrize("status", BARE)
@pytest.mark.parametrize(
    "body", [b"", b"<html>", {}, {"rsp_code": "12"}, {"rsp_code": 0}, {"rsp_code": ["00000"]}]
)
def test_a_status_without_a_code(status, body):
    assert judged(status, body).outcome.verdict == BARE[status]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_a_redirect_says_nothing_whatever_it_carries(code, status):
    outcome = judged(status, {"rsp_code": code, "rsp_msg": "말"}).outcome
    assert outcome.verdict == RETRY and "redirect" in outcome.detail


@pytest.mark.parametrize("code", ["00001", "4O101", "zzzzz", "50010", "41001"])
def test_a_code_that_nobody_published(code):
    assert judged(200, {"rsp_code": code, "rsp_msg": "말"}).outcome.verdict == RETRY
    assert judged(400, {"rsp_code": code, "rsp_msg": "말"}).outcome.verdict == REFUSED


@pytest.mark.parametrize(
    ("code", "headers", "seconds"),
    [
        ("50008", {}, 1800),
        ("50009", {}, 1800),
        ("50009", {"Retry-After": "60"}, 60),
        ("42901", {"Retry-After": "99999"}, 3600),
        ("50001", {}, None),
        ("99999", {"Retry-After": "5"}, None),
    ],
)
def test_when_to_try_again(code, headers, seconds):
    given = {**headers, "x-api-tran-id": korea.tran_id(PORTAL, JTI)}
    assert judged(500, {"rsp_code": code, "rsp_msg": ""}, given).outcome.retry_after == seconds


def test_a_code_through_the_whole_wire(settings):
    for code, (verdict, status) in CODES.items():
        operator = Operator()
        content = {"rsp_code": code, "rsp_msg": "말"}
        operator.answers[PATHS["지원-107"]] = (status, content)
        outcome = send(settings, operator, PROVISION)
        assert (outcome.verdict, outcome.status, outcome.digest) == (verdict, status, digest(content)), code


# --- the token -------------------------------------------------------------------------------------------------------------------


def test_a_token_is_used_until_it_expires(settings):
    operator = Operator(**{"지원-107": FINE})

    async def work(session, endpoint):
        for at in (NOW, NOW + 569, NOW + 570, NOW + 571):
            outcome = await korea.send(session, message=PROVISION, endpoint=endpoint, now=at, total=3)
            assert outcome.verdict == SENT

    visit(settings, operator, work)
    assert len(operator.calls("지원-101")) == 2 and len(operator.calls("지원-107")) == 4


@pytest.mark.parametrize("code", ["40101", "40103"])
def test_a_refused_token_is_fetched_anew_once(settings, code):
    operator = Operator()
    operator.answers[PATHS["지원-101"]] = lambda n: {**TOKEN, "access_token": f"token-{n}"}
    operator.answers[PATHS["지원-107"]] = lambda n: (
        (401, {"rsp_code": code, "rsp_msg": ""}) if n == 1 else FINE
    )
    assert send(settings, operator, PROVISION).verdict == SENT
    assert [row["headers"]["Authorization"] for row in operator.calls("지원-107")] == [
        "Bearer token-1",
        "Bearer token-2",
    ]
    ids = {row["headers"]["x-api-tran-id"] for row in operator.calls("지원-107")}
    assert ids == {korea.tran_id(PORTAL, JTI)}

    operator.answers[PATHS["지원-107"]] = (401, {"rsp_code": code, "rsp_msg": ""})
    operator.asked.clear()
    assert send(settings, operator, PROVISION).verdict == CODES[code][0]
    assert len(operator.calls("지원-101")) == 2 and len(operator.calls("지원-107")) == 2


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ((401, {"error": "invalid_client"}), KEY),
        ((400, {"error": "invalid_client"}), KEY),
        ((400, {"error": "unauthorized_client"}), KEY),
        ((400, {"error": "invalid_scope"}), REFUSED),
        ((400, {"error": "unsupported_grant_type"}), REFUSED),
        ((503, {"error": "temporarily_unavailable"}), RETRY),
        ((401, {"rsp_code": "40101", "rsp_msg": ""}), KEY),
        ((401, {"rsp_code": "40102", "rsp_msg": ""}), REFUSED),
        ((404, b""), REFUSED),
        ((500, b"oops"), RETRY),
        ((200, b""), RETRY),
        ((200, {**TOKEN, "token_type": "mac"}), RETRY),
        ((200, {**TOKEN, "expires_in": "600"}), RETRY),
        ((200, {**TOKEN, "access_token": "two\nlines"}), RETRY),
        ((200, {**TOKEN, "access_token": "토큰"}), RETRY),
        ((200, {**TOKEN, "rsp_code": "50004", "rsp_msg": "말"}), RETRY),
        ((200, TOKEN, {"x-api-tran-id": ""}), RETRY),
        ((302, b"", {"Location": "http://169.254.169.254/"}), RETRY),
    ],
)
def test_without_a_token_nothing_is_sent(settings, answer, verdict):
    operator = Operator(**{"지원-107": FINE})
    operator.answers[PATHS["지원-101"]] = answer
    outcome = send(settings, operator, PROVISION)
    assert outcome.verdict == verdict and not operator.calls("지원-107")
    assert SECRET not in repr(outcome)


def test_no_secret_no_call(settings):
    operator = Operator()

    async def work(session, endpoint):
        bare = Endpoint(endpoint.address, details=DETAILS)
        return await korea.send(session, message=PROVISION, endpoint=bare, now=NOW)

    assert visit(settings, operator, work).verdict == KEY and operator.asked == []


@pytest.mark.parametrize("name", ["org_code", "portal_code", "client_id"])
def test_a_channel_without_its_settings_is_refused(settings, name):
    outcome = send(settings, Operator(), PROVISION, **{name: ""})
    assert outcome.verdict == REFUSED and name in outcome.detail


@pytest.mark.parametrize(
    ("reference", "detail"),
    [
        (Reference("provision", "P" * 51, "c-1"), "prov_consent_num: longer than 50"),
        (Reference("provision", "한글", "c-1"), "prov_consent_num: not aN"),
    ],
)
def test_a_request_that_breaks_the_table_is_not_sent(settings, reference, detail):
    message = stop(consents=[consent(1, "third_party")], references=[reference])
    outcome = send(settings, Operator(), message)
    assert outcome.verdict == REFUSED and detail in outcome.detail


# --- transaction ids --------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=60), st.text(max_size=5))
def test_a_transaction_id_has_its_form_and_depends_on_nothing_else(jti, step):
    found = korea.tran_id(
        PORTAL, jti.encode("utf-8", "replace").decode(), step.encode("utf-8", "replace").decode()
    )
    assert re.fullmatch(r"ZZPORT0000S[0-9A-Z]{14}", found) and len(found) == 25


def test_transaction_ids_do_not_collide():
    assert korea.tran_id(PORTAL, JTI) == "ZZPORT0000S" + _in_base_36(hashlib.sha256(JTI.encode()).digest())
    ids = {korea.tran_id(PORTAL, f"{n:032x}", step) for n in range(20_000) for step in ("", "1")}
    assert len(ids) == 40_000


def _in_base_36(raw):
    number, signs = int.from_bytes(raw, "big"), ""
    for _ in range(14):
        signs += (string.digits + string.ascii_uppercase)[number % 36]
        number //= 36
    return signs


@pytest.mark.parametrize(
    ("status", "echo", "verdict"),
    [
        (200, "Z" * 25, RETRY),
        (200, "", RETRY),
        (404, "Z" * 25, RETRY),  # whoever is meant by this answer, it is not us
        (404, "", CHECK),
    ],
)
def test_an_answer_repeats_our_transaction_id(status, echo, verdict):
    code = "00000" if status == 200 else "40403"
    answer = judged(status, {"rsp_code": code, "rsp_msg": "말"}, {"x-api-tran-id": echo})
    assert answer.outcome.verdict == verdict and not answer.good


# --- reading back --------------------------------------------------------------------------------------------------------------------


def agreement(status, **more):
    found = copy.deepcopy(AGREEMENTS)
    found["prov_consent_list"][0].update(prov_consent_status=status, **more)
    return found


@pytest.mark.parametrize(
    ("answer", "says", "at"),
    [
        (agreement("01"), ACTIVE, None),
        (agreement("02"), STOPPING, None),
        (agreement("03"), STOPPED, None),
        (agreement("03", prov_revoke_dtime="20261122121000"), STOPPED, NOW - 1),
        (agreement("01", prov_revoke_dtime="20261122121000"), ACTIVE, None),
        (agreement("04"), UNKNOWN, None),
        (agreement("05"), UNKNOWN, None),
        ({**FINE, "prov_consent_cnt": 0, "prov_consent_list": []}, ABSENT, None),
        ({**FINE, "prov_consent_cnt": 0}, ABSENT, None),
        ({**FINE, "prov_consent_cnt": 1, "prov_consent_list": []}, UNKNOWN, None),
        ((404, {"rsp_code": "40403", "rsp_msg": "말"}), UNKNOWN, None),
        ((503, b""), UNKNOWN, None),
    ],
)
def test_a_provision_is_read_from_its_status(settings, answer, says, at):
    reading = read_back(settings, Operator(**{"지원-105": answer}), PROVISION)
    assert (reading.says, reading.at) == (says, at)
    assert len(reading.digest) == 64 and CI not in repr(reading)


@pytest.mark.parametrize("order", [("03", "01"), ("01", "03")])
def test_of_two_rows_with_one_number_the_one_in_force_counts(settings, order):
    rows = [agreement(status)["prov_consent_list"][0] for status in order]
    answer = {**FINE, "prov_consent_cnt": 2, "prov_consent_list": rows}
    assert read_back(settings, Operator(**{"지원-105": answer}), PROVISION).says == ACTIVE


def test_status_04_is_not_shown_as_erased(settings):
    reading = read_back(settings, Operator(**{"지원-105": agreement("04")}), PROVISION)
    assert reading.says == UNKNOWN and "not explained" in reading.detail


def transfers(scope="bank.list bank.deposit", client_id="svc-0001", org_code="A1BANK0000"):
    row = {"org_code": org_code, "scope": scope, "consent_date": "20260110", "consent_end_date": "20270110"}
    service = {"client_id": client_id, "consent_cnt": 1, "consent_list": [row]}
    return {**FINE, "is_member": True, "service_cnt": 1, "service_list": [service]}


WHOLE = stop("subscription-ended")


@pytest.mark.parametrize(
    ("message", "answer", "says"),
    [
        (stop(), CONSENTS, ACTIVE),
        (stop(consents=[consent(1, source="C1INSU0000")]), CONSENTS, ABSENT),
        (stop(service="svc-0002"), CONSENTS, ABSENT),
        (stop(), NOBODY, ABSENT),
        (stop(), transfers("bank.list"), STOPPED),
        (stop(), {**FINE, "is_member": True, "service_cnt": 0}, ABSENT),
        (WHOLE, CONSENTS, ACTIVE),
        (WHOLE, transfers(org_code="C1INSU0000"), ACTIVE),
        (WHOLE, transfers(client_id="svc-0002"), ABSENT),
        (WHOLE, NOBODY, ABSENT),
        (stop(), (500, {"rsp_code": "50001", "rsp_msg": "말"}), UNKNOWN),
        (stop(), (200, b"garbage"), UNKNOWN),
        (stop(), (404, {"rsp_code": "40403", "rsp_msg": "말"}), UNKNOWN),
    ],
)
def test_a_transfer_is_read_from_the_list(settings, message, answer, says):
    operator = Operator(**{"지원-103": answer, "전송요구-005": FINE})
    reading = read_back(settings, operator, message)
    assert reading.says == says
    asked_again = [row["given"] for row in operator.calls("전송요구-005")]
    wanted = [{"type": "02", "tx_id": "RO_1", "user_ci": CI}]
    assert asked_again == (wanted if says in {ACTIVE, UNKNOWN} else [])


def test_whatever_is_still_in_force_is_found(settings):
    message = stop(
        "subscription-ended",
        [consent(1), consent(2, "third_party", None)],
        [
            Reference("ci", CI),
            Reference("request", "RO_1", "c-1"),
            Reference("provision", "PC-20260110-0001", "c-2"),
        ],
    )
    for status, list_, says in [
        ("03", NOBODY, STOPPED),
        ("02", NOBODY, STOPPING),
        ("01", NOBODY, ACTIVE),
        ("03", CONSENTS, ACTIVE),
        ("04", CONSENTS, ACTIVE),
        ("04", NOBODY, UNKNOWN),
    ]:
        operator = Operator(**{"지원-105": agreement(status), "지원-103": list_, "전송요구-005": FINE})
        assert read_back(settings, operator, message).says == says
        assert len(operator.asked) <= 4


@pytest.mark.parametrize(
    ("message", "detail"),
    [
        (stop(references=[]), "ci"),
        (stop(consents=[consent(1, "use")], references=[Reference("ci", CI)]), "nothing"),
    ],
)
def test_what_cannot_be_asked_is_unknown(settings, message, detail):
    operator = Operator()
    reading = read_back(settings, operator, message)
    assert reading.says == UNKNOWN and detail in reading.detail and operator.asked == []


@pytest.mark.parametrize(
    ("answer", "says"),
    [(FINE, STOPPING), ((200, {"rsp_code": "99999", "rsp_msg": "말"}), UNKNOWN), ((500, b""), UNKNOWN)],
)
def test_they_are_asked_to_send_the_result_again(settings, answer, says):
    operator = Operator(**{"전송요구-005": answer})

    async def work(session, endpoint):
        return await korea.ask_again(session, message=stop(), endpoint=endpoint, now=NOW)

    assert visit(settings, operator, work).says == says
    assert read_back(settings, operator, stop(consents=[consent(1, "use", None)])).says == says


# --- lists ---------------------------------------------------------------------------------------------------------------------------


def test_the_published_lists_are_read(settings):
    operator = Operator(**{"지원-103": CONSENTS, "지원-105": AGREEMENTS})
    found = listed(settings, operator)
    assert found.complete and len(found.digest) == 64
    bank, card, provided = found.consents
    assert (bank.identifier, bank.service, bank.source, bank.state) == (
        "svc-0001:A1BANK0000",
        "svc-0001",
        "A1BANK0000",
        ACTIVE,
    )
    assert bank.scopes == ("bank.list", "bank.deposit", "bank.loan")
    assert (bank.since_on, bank.until_on) == ("2026-01-10", "2027-01-10") and card.source == "D1CARD0000"
    assert (provided.identifier, provided.recipient, provided.since_on) == (
        "PC-20260110-0001",
        "가나다보험",
        "2026-01-10",
    )
    assert operator.calls("지원-103")[0]["given"] == {"org_code": ORG, "user_ci": CI}


def test_an_old_operator_is_asked_the_old_way(settings):
    operator = Operator()
    operator.answers["/v1/mgmts/consents"] = CONSENTS
    found = listed(settings, operator, version="v1")
    assert found.complete and len(found.consents) == 2
    assert [row["path"] for row in operator.asked] == [PATHS["지원-101"], "/v1/mgmts/consents"]


@pytest.mark.parametrize("name", ["지원-103", "지원-105"])
@pytest.mark.parametrize("answer", [(500, b""), (200, b"{}"), (200, {**FINE, "is_member": True})])
def test_half_a_list_is_not_complete(settings, name, answer):
    operator = Operator(**{"지원-103": CONSENTS, "지원-105": AGREEMENTS, name: answer})
    found = listed(settings, operator)
    assert not found.complete and found.detail
    assert len(found.consents) == (1 if name == "지원-103" else 2)


def test_a_list_without_a_person(settings):
    async def work(session, endpoint):
        return await korea.list_remote(session, references=[], endpoint=endpoint, now=NOW)

    found = visit(settings, Operator(), work)
    assert not found.complete and "ci" in found.detail


def test_an_answer_longer_than_we_read_is_no_list(settings):
    rows = [{**AGREEMENTS["prov_consent_list"][0], "prov_consent_purpose": "가" * 900} for _ in range(40)]
    operator = Operator(
        **{"지원-103": CONSENTS, "지원-105": {**FINE, "prov_consent_cnt": 40, "prov_consent_list": rows}}
    )
    found = listed(settings, operator)
    assert not found.complete and "64 KiB" in found.detail


def flowed(settings, operator, limit=100):
    async def work(session, endpoint):
        return await korea.provisions(
            session,
            number="PC-20260110-0001",
            endpoint=endpoint,
            from_at=NOW - 86_400,
            to_at=NOW,
            now=NOW,
            limit=limit,
            total=5,
        )

    return visit(settings, operator, work)


def page(next_page="", dtime="20261101093000", **more):
    row = {**DETAIL["prov_list"][0], "prov_dtime": dtime, **more}
    return {**DETAIL, "next_page": next_page, "prov_list": [row]}


def test_when_data_last_flowed(settings):
    pages = [page("p2"), page("p3", "20261102000000"), page("", "20261031235959")]
    operator = Operator()
    operator.answers[PATHS["지원-106"]] = lambda n: pages[n - 1]
    found = flowed(settings, operator, limit=9_999)
    assert found.complete and len(found.rows) == 3
    assert found.last_at == int(datetime(2026, 11, 1, 15, tzinfo=UTC).timestamp())
    assert found.rows[0].recipient == "가나다보험" and found.rows[0].asset == "보험 가입 목록"
    first, second, third = (row["given"] for row in operator.calls("지원-106"))
    assert first == {
        "org_code": ORG,
        "prov_consent_num": "PC-20260110-0001",
        "from_dtime": "20261121121001",
        "to_dtime": "20261122121001",
        "limit": 500,
    }
    assert (second["next_page"], third["next_page"]) == ("p2", "p3")


def test_pages_have_an_end(settings):
    operator = Operator()
    operator.answers[PATHS["지원-106"]] = lambda n: page(f"p{n}")
    found = flowed(settings, operator)
    assert not found.complete and len(found.rows) == 20 and len(operator.calls("지원-106")) == 20
    operator.answers[PATHS["지원-106"]] = lambda n: page("always")
    found = flowed(settings, operator)
    assert not found.complete and "circle" in found.detail and len(found.rows) == 2


def test_a_page_that_is_too_long_is_asked_for_in_pieces(settings):
    long = {
        **DETAIL,
        "prov_cnt": 20,
        "prov_list": [{**DETAIL["prov_list"][0], "prov_asset": "가" * 4_000}] * 20,
    }
    operator = Operator()
    operator.answers[PATHS["지원-106"]] = lambda n: long if n < 3 else page()
    found = flowed(settings, operator)
    assert found.complete and len(found.rows) == 1
    assert [row["given"]["limit"] for row in operator.calls("지원-106")] == [100, 25, 6]
    operator.answers[PATHS["지원-106"]] = long
    found = flowed(settings, operator)
    assert not found.complete and "64 KiB" in found.detail


@pytest.mark.parametrize(
    ("answer", "verdict", "words"),
    [
        ({**FINE, "availability": "01"}, SENT, ""),
        ({**FINE, "availability": "02"}, RETRY, "down"),
        ({**FINE, "availability": "03"}, RETRY, "maintenance"),
        ({**FINE, "availability": "99"}, RETRY, "other"),
        ({**FINE, "availability": "04"}, RETRY, ""),
        ({**FINE}, RETRY, ""),
        ((503, b""), RETRY, ""),
    ],
)
def test_how_they_are(settings, answer, verdict, words):
    operator = Operator(**{"지원-102": answer})

    async def work(session, endpoint):
        return await korea.challenge(session, jti="j", state="s", endpoint=endpoint, now=NOW)

    outcome = visit(settings, operator, work)
    assert outcome.verdict == verdict and words in outcome.detail
    (asked,) = operator.calls("지원-102")
    assert asked["given"] == {"org_code": ORG} and asked["headers"]["x-api-tran-id"] == korea.tran_id(
        DETAILS["portal_code"], "j", "s"
    )


# --- the result they send ------------------------------------------------------------------------------------------------------------

RESULT = {"type": "02", "result_code": "00000", "result_msg": "성공", "tx_id": "RO_1", "user_ci": CI}
THEIRS = f"{ORG}M00000000000001"
AT_ORG = Endpoint("https://op.example", details=DETAILS)


def arrived(content, tran=THEIRS, **more):
    raw = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
    return korea.verify_inbound({"X-Api-Tran-Id": tran}, raw, endpoint=AT_ORG, **more)


@pytest.mark.parametrize(
    ("code", "verdict"), [("00000", SENT), ("99999", CHECK), ("40403", CHECK), ("50001", RETRY)]
)
def test_a_result_is_taken(code, verdict):
    found = arrived({**RESULT, "result_code": code}, ci_of={"RO_1": CI}.get)
    assert (found.jti, found.issuer, found.happened) == (THEIRS, ORG, "result")
    assert (found.identifier, found.result, found.reason) == ("RO_1", code, verdict)
    assert CI not in repr(found)


@pytest.mark.parametrize(
    ("content", "tran", "reason"),
    [
        (RESULT, "", "id"),
        (RESULT, "Z" * 25, "id"),
        (RESULT, THEIRS + "1", "id"),
        (RESULT, THEIRS[:-1] + "é", "id"),
        (b"[]", THEIRS, "form"),
        (b"\xff", THEIRS, "form"),
        (b'{"type":"02","type":"02"}', THEIRS, "form"),
        ({**RESULT, "type": "01"}, THEIRS, "type"),
        ({**RESULT, "type": "03"}, THEIRS, "form"),
        *[
            ({name: value for name, value in RESULT.items() if name != left}, THEIRS, "form")
            for left in RESULT
        ],
        ({**RESULT, "tx_id": "R" * 75}, THEIRS, "form"),
        ({**RESULT, "tx_id": "RO_2"}, THEIRS, "unknown"),
        ({**RESULT, "user_ci": "b3RoZXI="}, THEIRS, "person"),
    ],
)
def test_what_is_no_result_is_refused(content, tran, reason):
    with pytest.raises(BadInbound) as refusal:
        arrived(content, tran, ci_of={"RO_1": CI}.get)
    assert refusal.value.reason == reason and CI not in str(refusal.value)


# --- the table ---------------------------------------------------------------------------------------------------------------------


BREAKS = [
    pytest.param(name, place, value, id=f"{name} {'.'.join(map(str, place))} {what} {n}")
    for name in SAMPLES
    for n, (place, what, value) in enumerate(broken(FIELDS[name].answer, SAMPLES[name]))
]


@pytest.mark.parametrize("name", SAMPLES)
def test_the_published_shapes_keep_to_the_table(name):
    assert problem(FIELDS[name].answer, SAMPLES[name]) == ""
    assert judged(200, SAMPLES[name], name=name).good
    extra = {**SAMPLES[name], "a_field_of_next_year": {"deep": [1]}}
    assert problem(FIELDS[name].answer, extra) == "" and judged(200, extra, name=name).good


@pytest.mark.parametrize(("name", "place", "value"), BREAKS)
def test_whatever_breaks_the_table_is_tried_again_and_never_believed(name, place, value):
    content = copy.deepcopy(SAMPLES[name])
    at = content
    for step in place[:-1]:
        at = at[step]
    if value is None:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    answer = judged(200, content, name=name)
    assert answer.outcome.verdict == RETRY and not answer.good and not answer.fields
    assert problem(FIELDS[name].answer, content)


def test_the_table_names_the_place_and_no_value():
    content = copy.deepcopy(CONSENTS)
    content["service_list"][0]["consent_list"][1]["consent_date"] = "a secret"
    assert problem(FIELDS["지원-103"].answer, content) == (
        "service_list: row 0, consent_list: row 1, consent_date: not DATE"
    )
    assert (
        problem(FIELDS["지원-103"].answer, {**NOBODY, "service_cnt": 1}) == "service_cnt: must not be there"
    )
    assert problem(FIELDS["지원-103"].answer, {**NOBODY, "service_cnt": 0, "service_list": []}) == ""
    assert "more than 500" in problem(
        FIELDS["지원-105"].answer, {**FINE, "prov_consent_cnt": 501, "prov_consent_list": [{}] * 501}
    )
    assert problem(FIELDS["지원-103"].request, {"org_code": ORG, "user_ci": CI}) == ""


# --- answers that are none -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b'"00000"', b"\xff\xfe", b"[" * 60_000, b'{"rsp_code":"00000"', b'{"rsp_code":NaN}',
        b'{"rsp_code":"00000","rsp_code":"00000","rsp_msg":"x"}', b'{"rsp_code":"00000","rsp_msg":"\\ud800"}',
        b'{"rsp_code":"00000","rsp_msg":"\\u0000"}', b"9" * 5_000, b"<html>00000</html>", b"x" * 70_000,
    ],
)  # fmt: skip
def test_garbage_is_tried_again(settings, body):
    operator = Operator(**{"지원-107": (200, body), "지원-105": (200, body)})
    outcome = send(settings, operator, PROVISION)
    assert outcome.verdict == RETRY and len(outcome.detail) < 300 and outcome.digest
    assert read_back(settings, operator, PROVISION).says == UNKNOWN


def test_a_redirect_is_not_followed(settings):
    operator = Operator(**{"지원-107": (302, b"", {"Location": "/elsewhere"})})
    outcome = send(settings, operator, PROVISION)
    assert outcome.verdict == RETRY and "redirect" in outcome.detail and not operator.calls("/elsewhere")


def test_a_hanging_operator_costs_the_time_it_was_given_and_no_more(settings):
    async def hang(request):
        await asyncio.sleep(30)

    started = asyncio.run(_clock())
    outcome = send(settings, hang, PROVISION, total=0.4)
    assert (outcome.verdict, outcome.detail) == (RETRY, "timeout")
    assert asyncio.run(_clock()) - started < 5


async def _clock():
    return asyncio.get_running_loop().time()


def test_an_operator_that_hangs_after_signing_in(settings):
    operator = Operator()

    async def answer(request):
        if request.path != PATHS["지원-101"]:
            await asyncio.sleep(30)
        return await operator.answer(request)

    assert send(settings, answer, PROVISION, total=0.5).detail == "timeout"


def test_an_answer_that_drips_is_cut_off(settings):
    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(100):
            writer.write(b"{")
            await writer.drain()
            await asyncio.sleep(0.05)

    outcome = send(settings, drip, PROVISION, total=0.5, server=speaking)
    assert (outcome.verdict, outcome.detail) == (RETRY, "timeout")


def test_hanging_up_is_tried_again(settings):
    async def hang_up(request):
        request.transport.abort()

    assert send(settings, hang_up, PROVISION).verdict == RETRY


def test_a_forbidden_address_is_blocked():
    async def run():
        korea.forget_tokens()
        async with outbound.open_session() as session:
            endpoint = Endpoint("https://127.0.0.1", details=DETAILS, credential=SECRET)
            return await korea.send(session, message=PROVISION, endpoint=endpoint, now=NOW)

    outcome = asyncio.run(run())
    assert outcome.verdict == BLOCKED and outcome.status is None


def test_secrets_are_in_no_text():
    endpoint = Endpoint("https://op.example", details=DETAILS, credential=SECRET)
    assert SECRET not in repr(endpoint) and CI not in repr(stop())


# --- fuzz ------------------------------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**20), 10**20), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=30)
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=8
)  # fmt: skip
DIGITS = st.text("0123456789", min_size=8, max_size=8) | st.text(max_size=15)


@effort(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=st.integers(100, 999), code=ANYTHING, message=ANYTHING)
@example(status=200, code="00000", message="성공")
def test_any_code_is_an_answer(status, code, message):
    answer = judged(status, json.dumps({"rsp_code": code, "rsp_msg": message}).encode())
    assert (
        answer.outcome.verdict in {SENT, CHECK, RETRY, KEY, REFUSED, GONE}
        and len(answer.outcome.detail) < 300
    )
    assert answer.good == (200 <= status < 300 and code == "00000" and not problem(korea_fields.RSP, {"rsp_code": code, "rsp_msg": message}))  # fmt: skip


@effort(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLES)),
    body=st.binary(max_size=200) | ANYTHING.map(lambda v: json.dumps(v).encode()),
)
def test_any_body_is_an_answer(name, body):
    assert judged(200, body, name=name).outcome.verdict in {RETRY, CHECK, REFUSED, KEY}


@effort(max_examples=300, deadline=None)
@given(since=DIGITS, until=DIGITS, at=st.text("0123456789", min_size=14, max_size=14))
@example("00010101", "99991231", "00010101000000")
def test_any_date_is_read_or_refused(since, until, at):
    content = copy.deepcopy(CONSENTS)
    content["service_list"][0]["consent_list"][0].update(consent_date=since, consent_end_date=until)
    answer = judged(200, content, name="지원-103")
    if answer.good:
        datetime.strptime(since, "%Y%m%d"), datetime.strptime(until, "%Y%m%d")
    status = judged(200, agreement("03", prov_revoke_dtime=at, prov_consent_dtime=at), name="지원-105")
    if status.good:
        assert korea._status(status.fields["prov_consent_list"][0], status).says == STOPPED
        assert isinstance(korea._status(status.fields["prov_consent_list"][0], status).at, int)
