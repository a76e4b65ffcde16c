"""The doors of operators' and sources' servers."""

import datetime
import uuid

import pytest
from django.utils import timezone

from consents.models import ConsentRequest, Delivery
from tests import factories

from .conftest import Caller, of, problem, token

pytestmark = pytest.mark.django_db
BACK = "https://operator.example/back"


@pytest.fixture
def lodger(service):
    from consents import oauth

    oauth.create_client(
        organization=service.organization,
        name="서버",
        secret="s" * 43,
        scopes=list(oauth.ORGANIZATION_SCOPES),
        redirect_uris=[BACK],
    )
    return of(service.organization)


def test_what_is_compared_letter_by_letter_is_not_trimmed(lodger, service):
    lodged = {"service": service.client_id, "redirect_uri": BACK, "state": " a b "}
    made = lodger.post("consent-requests", lodged)
    assert ConsentRequest.objects.get(pk=made.json()["id"]).client_state == " a b "
    for other in (f" {BACK}", f"{BACK}\t", f"{BACK}\n"):
        assert lodger.post("consent-requests", lodged | {"redirect_uri": other}).status_code == 400


@pytest.mark.parametrize(("language", "words"), [("ko", "base64url 글자"), ("en", "43 base64url characters")])
def test_a_challenge_is_there_and_well_made(lodger, service, language, words):
    lodged = {"service": service.client_id, "redirect_uri": BACK}
    method = {"code_challenge_method": "S256"}
    for wrong in (
        method,
        method | {"code_challenge": ""},
        {"code_challenge": "x" * 42},
        {"code_challenge": "x" * 42 + "="},
    ):
        answer = lodger.post("consent-requests", lodged | wrong, Accept_Language=language)
        (told,) = problem(answer, 400, "invalid-request")["errors"]
        assert told["pointer"] == "#/code_challenge" and words in told["detail"] and "43" in told["detail"]
    assert lodger.post("consent-requests", lodged | method | {"code_challenge": "x" * 43}).status_code == 201


@pytest.mark.parametrize(
    ("language", "words"), [("ko", "이 가운데 하나여야 해요"), ("en", "has to be one of these")]
)
def test_who_sends_another_form_is_told_which_are_taken(operator, language, words):
    def told(path):
        answer = operator.post(path, "x", content_type="text/plain", Accept_Language=language)
        return problem(answer, 415, "unsupported-media-type")["detail"]

    assert words in told("consent-requests") and told("consent-requests").count("/") == 1
    assert "application/json, application/x-ndjson, text/csv" in told("holdings")


def test_what_is_wrong_with_the_whole_body_points_at_the_whole(operator):
    for path in ("holdings", "transfers", "weekly-counts", "consent-requests"):
        (told,) = problem(
            operator.post(path, [] if path != "consent-requests" else [1]), 400, "invalid-request"
        )["errors"]
        assert told["pointer"] == "#", path


def test_an_acknowledgement_moves_a_delivery_and_may_come_twice(operator, stopped):
    path = f"deliveries/{stopped.jti}/ack"
    first = operator.post(path).json()
    assert set(first) == {"jti", "state", "receipt"}
    assert (first["jti"], first["state"]) == (str(stopped.jti), "received")
    assert operator.post(path, b"").json() == first  # the receipt, too, to the byte
    stopped.refresh_from_db()
    assert stopped.received_at


def test_a_foreign_delivery_does_not_exist(stopped, unchanged):
    other = of(factories.OperatorFactory())
    with unchanged():
        unknown = problem(other.post(f"deliveries/{uuid.uuid4()}/ack"), 404, "not-found")
        foreign = problem(other.post(f"deliveries/{stopped.jti}/ack"), 404, "not-found")
        problem(other.post("deliveries/1/ack"), 404, "not-found")
    assert unknown == foreign
    assert other.get("deliveries").json() == {"results": [], "next": None}


def test_deliveries_come_oldest_first_with_their_signed_set(operator, service, stopped):
    rows = operator.get("deliveries").json()["results"]
    assert [row["event"] for row in rows] == ["consent-granted", "subscription-ended"]
    assert rows[1]["set"].count(".") == 2 and rows[1]["goal"] == "erased"
    assert operator.get("deliveries?state=erased").json()["results"] == []
    problem(operator.get("deliveries?state=lost"), 400, "invalid-request")


def test_an_operator_reads_the_consents_given_to_it_alone(operator, subscription, person):
    rows = operator.get("consents").json()["results"]
    assert len(rows) == 4 and {row["subject"] for row in rows} == {str(person.subject_id)}
    assert str(person.pk) not in str(rows) and person.email not in str(rows)
    one = rows[0]["id"]
    assert operator.get(f"consents/{one}").json()["id"] == one
    stranger = of(factories.OperatorFactory())
    problem(stranger.get(f"consents/{one}"), 404, "not-found")
    assert stranger.get("consents").json()["results"] == []
    source = of(subscription.consents.filter(kind="transfer").first().source)
    problem(source.get(f"consents/{one}"), 403, "forbidden")


def test_consents_are_found_by_state_and_by_when_something_happened(operator, subscription, me):
    from consents import lifecycle

    consent = subscription.consents.filter(kind="transfer").first()
    since = timezone.now()
    lifecycle.pause(consent, by=me, at=timezone.now())
    moment = since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for query in ("state=paused", f"updated_since={moment}"):
        assert [row["id"] for row in operator.get(f"consents?{query}").json()["results"]] == [str(consent.pk)]
    problem(operator.get("consents?updated_since=2026-11-22"), 400, "invalid-request")
    problem(operator.get("consents?updated_since=2026-11-22T00:00:00"), 400, "invalid-request")


def test_a_request_is_lodged_once_and_tells_where_to_send_the_person(lodger, service):
    asked = {"service": service.client_id, "redirect_uri": BACK, "state": "xyz"}
    first = lodger.post("consent-requests", asked, Idempotency_Key="r")
    assert first.status_code == 201, first.content
    lodged = ConsentRequest.objects.get()
    assert first.json() == lodger.post("consent-requests", asked, Idempotency_Key="r").json()
    assert first.json()["authorize_url"] == f"http://127.0.0.1:8000/requests/{lodged.pk}/"
    made = first.json()
    assert (made["expires_in"], made["decide_in"], made["returns_code"]) == (600, 3600, False)
    seen = lodger.get(f"consent-requests/{lodged.pk}").json()
    assert (seen["expires_at"], seen["opened"], seen["returns_code"]) == (made["expires_at"], False, False)
    assert seen["state"] == "pending" and seen["service"] == service.client_id
    problem(of(factories.OperatorFactory()).get(f"consent-requests/{lodged.pk}"), 404, "not-found")


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"service": "nobody"}, 404, "not-found"),
        ({"service": ""}, 400, "invalid-request"),
        ({"service": None}, 400, "invalid-request"),
        ({"service": 7}, 400, "invalid-request"),
        ({"redirect_uri": "https://evil.example/"}, 400, "not-registered"),
        ({"redirect_uri": BACK + "/"}, 400, "not-registered"),
        ({"redirect_uri": "x" * 501}, 400, "invalid-request"),
        ({"state": "x" * 201}, 400, "invalid-request"),
        ({"person": "someone"}, 400, "invalid-request"),
    ],
)
def test_a_wrong_request_is_not_lodged(lodger, service, unchanged, change, status, slug):
    with unchanged():
        problem(
            lodger.post("consent-requests", {"service": service.client_id, "redirect_uri": BACK} | change),
            status,
            slug,
        )


def test_another_operators_service_does_not_exist(service, unchanged):
    other = of(factories.OperatorFactory())
    with unchanged():
        problem(other.post("consent-requests", {"service": service.client_id}), 404, "not-found")


CALLS = [
    ("get", "deliveries", "deliveries:ack"),
    ("post", "deliveries/{jti}/ack", "deliveries:ack"),
    ("get", "consents", "consents:read"),
    ("get", "consents/{consent}", "consents:read"),
    ("post", "consent-requests", "requests:write"),
    ("get", "consent-requests/{jti}", "requests:write"),
    ("post", "evidence", "deliveries:ack"),
    ("get", "evidence/1", "deliveries:ack"),
]


@pytest.mark.parametrize(("method", "path", "scope"), CALLS)
def test_only_an_organization_with_the_scope_comes_in(
    app, person, service, stopped, unchanged, method, path, scope
):
    path = path.format(jti=stopped.jti, consent=stopped.subscription.consents.first().pk)
    others = [
        name
        for name in ("requests:write", "consents:read", "holdings:write", "deliveries:ack")
        if name != scope
    ]
    narrow, own_app = of(service.organization, *others), Caller(token(app, person, ["me"]))
    # A person's token from an organization's own client is the person's, never the organization's.
    personal = Caller(token(service.organization.api_client.client, person, [scope]))
    nobody = Caller(token(app, None, [scope]))
    with unchanged():
        problem(getattr(Caller(), method)(path), 401, "unauthorized")
        problem(getattr(narrow, method)(path), 403, "insufficient-scope")
        problem(getattr(own_app, method)(path), 403, "insufficient-scope")
        for caller in (personal, nobody):
            answer = getattr(caller, method)(path)
            problem(answer, 403, "forbidden")


@pytest.mark.parametrize("path", ["deliveries/{jti}/ack", "consent-requests"])
def test_bad_bodies_from_servers_change_nothing(operator, stopped, unchanged, path):
    path = path.format(jti=stopped.jti)
    with unchanged():
        problem(operator.post(path, {"state": "erased"}), 400, "invalid-request")
        problem(operator.post(path, "[]"), 400, "invalid-request")
        problem(operator.post(path, b"{"), 400, "malformed-body")
        problem(operator.post(path, b" " * 10_000_000), 413, "too-large")
        problem(operator.post(path, "a", content_type="text/plain"), 415, "unsupported-media-type")
    assert Delivery.objects.get(pk=stopped.pk).state == "manual"


# --- what became of a request -------------------------------------------------------------------------------------------------


def decided(lodger, service, person, me, items=None, **asked):
    from consents import lifecycle, requests

    made = lodger.post(
        "consent-requests", {"service": service.client_id, "redirect_uri": BACK} | asked
    ).json()
    lodged = ConsentRequest.objects.get(pk=made["id"])
    terms = service.terms.get(state="published")
    wanted = terms.items.all() if items == "all" else terms.items.filter(required=True)
    choices = [lifecycle.Choice(item) for item in wanted]
    requests.accept(
        lodged, person=person, terms=terms, choices=choices, language="ko", by=me, at=timezone.now()
    )
    return lodged


def test_opening_a_request_sets_another_end_and_says_so(lodger, service, person, me, time_machine):
    """The times come from the dated policy: half an hour after lodging, what was opened in time can still be decided."""
    from consents import requests
    from tests.consents.test_requests import CHALLENGE

    start = timezone.now().replace(microsecond=0)
    time_machine.move_to(start, tick=False)
    asked = {"service": service.client_id, "redirect_uri": BACK, "code_challenge": CHALLENGE}
    made = lodger.post("consent-requests", asked).json()
    assert made["returns_code"] and made["expires_at"] == moment(start, minutes=10)
    time_machine.move_to(start + datetime.timedelta(minutes=9), tick=False)
    requests.take_up(ConsentRequest.objects.get(), person=person, by=me, at=timezone.now())
    time_machine.move_to(start + datetime.timedelta(minutes=40), tick=False)
    seen = lodger.get(f"consent-requests/{made['id']}").json()
    assert (seen["state"], seen["opened"], seen["returns_code"]) == ("pending", True, True)
    assert seen["expires_at"] == moment(start, minutes=69)


def moment(start, *, minutes: int) -> str:
    return (start + datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@pytest.mark.parametrize(("items", "outcome"), [("all", "granted"), (None, "partly_granted")])
def test_what_was_agreed_to_is_told_item_by_item(lodger, service, person, me, items, outcome):
    lodged = decided(lodger, service, person, me, items)
    seen = lodger.get(f"consent-requests/{lodged.pk}").json()
    assert (seen["state"], seen["outcome"]) == ("granted", outcome)
    assert len(seen["items"]) == 4 and seen["subscription"] == str(
        ConsentRequest.objects.get().subscription_id
    )
    for item in seen["items"]:
        assert item["granted"] is (item["required"] or items == "all")
        assert (item["consent"] is not None) is item["granted"]


def test_outcomes_of_what_was_not_granted(lodger, service, person, me):
    from consents import requests

    def lodge():
        made = lodger.post("consent-requests", {"service": service.client_id})
        return ConsentRequest.objects.get(pk=made.json()["id"])

    pending, declined, expired = lodge(), lodge(), lodge()
    requests.decline(declined, person=person, by=me, at=timezone.now())
    ConsentRequest.objects.filter(pk=expired.pk).update(
        lodged_at="2020-01-01T00:00:00Z", expires_at="2020-01-01T00:10:00Z"
    )
    for lodged, outcome, granted in (
        (pending, "pending", None),
        (declined, "declined", False),
        (expired, "expired", None),
    ):
        seen = lodger.get(f"consent-requests/{lodged.pk}").json()
        assert seen["outcome"] == outcome and {item["granted"] for item in seen["items"]} == {granted}


def test_a_code_is_redeemed_once_by_its_own_client(lodger, service, person, me, unchanged):
    from consents import requests
    from tests.consents.test_requests import CHALLENGE, VERIFIER, code_of

    lodged = decided(lodger, service, person, me, code_challenge=CHALLENGE, code_challenge_method="S256")
    code = code_of(requests.send_back(lodged, person=person, by=me, at=timezone.now()))
    shown = {"code": code, "code_verifier": VERIFIER, "redirect_uri": BACK}
    stranger = of(factories.OperatorFactory())
    with unchanged():
        problem(lodger.post("consent-requests/redeem", shown | {"redirect_uri": BACK + "/"}), 400, "bad-code")
        problem(stranger.post("consent-requests/redeem", shown), 400, "bad-code")
        problem(lodger.post("consent-requests/redeem", shown | {"code_verifier": "x" * 43}), 400, "bad-code")
    done = lodger.post("consent-requests/redeem", shown)
    assert done.status_code == 200, done.content
    assert done.json()["subject"] == str(person.subject_id) and done.json()["outcome"] == "partly_granted"
    assert person.email not in done.content.decode()
    with unchanged():
        problem(lodger.post("consent-requests/redeem", shown), 400, "bad-code")


@pytest.mark.parametrize(
    "change",
    [
        {"code_challenge": "x"}, {"code_challenge": "x" * 44}, {"code_challenge": "x" * 43, "redirect_uri": ""},
        {"code_challenge": "x" * 43, "code_challenge_method": "plain"}, {"code_challenge": None},
    ],
)  # fmt: skip
def test_a_challenge_that_is_none_is_not_lodged(lodger, service, unchanged, change):
    with unchanged():
        asked = {"service": service.client_id, "redirect_uri": BACK} | change
        problem(lodger.post("consent-requests", asked), 400, "invalid-request")
