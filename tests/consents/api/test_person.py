"""The person's doors: what they answer, and what they refuse without changing anything."""

import datetime
import json
import uuid

import pytest
from django.test import Client
from django.utils import timezone

from consents import clock, jobs
from consents.models import Consent, IdempotencyKey, Notice, Subscription
from providers import dpop, signing
from providers.models import Terms
from tests import factories

from .conftest import Caller, of, payload_of, problem, token

pytestmark = pytest.mark.django_db


def joining(service, **other) -> dict:
    terms = Terms.objects.get(service=service, state="published")
    required = terms.items.get(required=True)
    return {
        "terms": str(terms.pk),
        "language": "ko",
        "items": [{"item": required.pk, "riders": ["memo"]}],
    } | other


def test_the_summary_counts_operators_and_says_which_only_still_hold(mine, person, subscription, me):
    from consents import lifecycle

    other = factories.joined(person)
    lifecycle.leave(other, erase=True, by=me, at=timezone.now())
    assert mine.get("me/summary").json() == {
        "operators_holding": 2, "receiving": 1, "held_after_end": 1, "subscriptions": 1, "notices": 0,
    }  # fmt: skip


def test_subscriptions_come_in_pages_newest_first(mine, person):
    made = [str(factories.joined(person).pk) for _ in range(3)]
    first = mine.get("me/subscriptions?limit=2").json()
    second = mine.get(f"me/subscriptions?limit=2&cursor={first['next']}").json()
    assert [row["id"] for row in first["results"] + second["results"]] == made[::-1]
    assert second["next"] is None


def test_a_cursor_of_another_list_or_of_nobody_is_refused(mine, person):
    for _ in range(2):
        factories.joined(person)
    foreign = mine.get("me/history?limit=1").json()["next"]
    for cursor in [foreign, "x", "a:b:c", "9" * 200]:
        problem(mine.get(f"me/subscriptions?cursor={cursor}"), 400, "bad-cursor")


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "colour=red", "limit=1&limit=2", "state=gone", f"cursor={'x' * 201}"],
)
def test_a_wrong_parameter_is_named(mine, query):
    body = problem(mine.get(f"me/subscriptions?{query}"), 400, "invalid-request")
    assert body["errors"][0]["parameter"] == query.partition("=")[0]


def test_one_subscription_shows_its_consents_and_deliveries(mine, subscription):
    shown = mine.get(f"me/subscriptions/{subscription.pk}").json()
    assert shown["holds"] is True and len(shown["consents"]) == 4
    assert {row["organization"]["code"] for row in shown["deliveries"]} >= {subscription.operator.code}


def test_joining_gives_a_subscription_and_a_signed_receipt(mine, person, service):
    answer = mine.post(f"services/{service.slug}/subscriptions", joining(service))
    assert answer.status_code == 201, answer.content
    act = answer.json()
    made = Subscription.objects.get(person=person)
    assert answer["Location"] == f"/api/v1/me/subscriptions/{made.pk}"
    assert act["id"] == str(made.pk) and act["state"] == "active"
    assert made.consents.get().riders == ["memo"]
    claims = signing.verify_jws(
        act["receipt"], jwks=signing.public_jwks(), typ="consent-receipt+jwt", issuer="http://127.0.0.1:8000",
        audience=None, now=int(timezone.now().timestamp()),
    )  # fmt: skip
    assert claims["txn"] == act["txn"] and claims["mmd"] == 300 and len(claims["leaf"]) == 44


@pytest.mark.parametrize(
    ("change", "status", "slug"),
    [
        ({"terms": None}, 400, "invalid-request"),
        ({"terms": "x"}, 400, "invalid-request"),
        ({"terms": str(uuid.uuid4())}, 409, "terms-changed"),
        ({"version": 9}, 409, "terms-changed"),
        ({"version": "1"}, 400, "invalid-request"),
        ({"language": "fr"}, 400, "invalid-request"),
        ({"items": []}, 400, "invalid-request"),
        ({"items": {}}, 400, "invalid-request"),
        ({"items": [{"item": "1"}]}, 400, "invalid-request"),
        ({"items": [{"item": 2**40}]}, 400, "not-offered"),
        ({"items": [{"item": 1, "rider": []}]}, 400, "invalid-request"),
        ({"state": "active"}, 400, "invalid-request"),
        ({"person": "me"}, 400, "invalid-request"),
        ({"until_on": "2020-01-01"}, 400, "not-offered"),
        ({"until_on": "20300101"}, 400, "invalid-request"),
    ],
)
def test_a_join_that_is_not_right_changes_nothing(mine, service, unchanged, change, status, slug):
    with unchanged():
        problem(mine.post(f"services/{service.slug}/subscriptions", joining(service, **change)), status, slug)


def test_a_join_without_the_required_items_twice_or_too_young_changes_nothing(
    mine, person, service, unchanged
):
    asked = joining(service)
    optional = Terms.objects.get(pk=asked["terms"]).items.filter(required=False).first()
    with unchanged():
        declined = asked | {"items": [{"item": optional.pk}]}
        problem(mine.post(f"services/{service.slug}/subscriptions", declined), 400, "required-declined")
        riders = asked | {"items": [{"item": asked["items"][0]["item"], "riders": ["merchant"]}]}
        problem(mine.post(f"services/{service.slug}/subscriptions", riders), 400, "not-offered")
        problem(mine.post("services/nowhere/subscriptions", asked), 404, "not-found")
    assert mine.post(f"services/{service.slug}/subscriptions", asked).status_code == 201
    with unchanged():
        problem(mine.post(f"services/{service.slug}/subscriptions", asked), 409, "already-joined")
    person.born_on = timezone.now().date() - datetime.timedelta(days=365 * 10)
    person.save()
    other = factories.offered()
    with unchanged():
        problem(mine.post(f"services/{other.slug}/subscriptions", joining(other)), 403, "too-young")


@pytest.mark.parametrize("erase", [True, False])
def test_ending_says_whether_it_erases(mine, subscription, erase):
    act = mine.post(f"me/subscriptions/{subscription.pk}/end", {"erase": erase}).json()
    assert act["state"] == "ended" and act["erasure"] == ("requested" if erase else "not_requested")
    assert payload_of(act["receipt"])["act"] == "subscription.ended"
    problem(mine.post(f"me/subscriptions/{subscription.pk}/end", {"erase": erase}), 409, "already-ended")


@pytest.mark.parametrize(
    "body",
    [{}, {"erase": None}, {"erase": "true"}, {"erase": 1}, {"erase": True, "state": "x"}, [], "x", None, 7],
)
def test_ending_needs_one_clear_word_about_erasing(mine, subscription, unchanged, body):
    with unchanged():
        problem(
            mine.post(f"me/subscriptions/{subscription.pk}/end", json.dumps(body)), 400, "invalid-request"
        )


def test_erasing_is_asked_for_after_the_end_once(mine, subscription):
    problem(mine.post(f"me/subscriptions/{subscription.pk}/erase"), 409, "nothing-to-erase")
    mine.post(f"me/subscriptions/{subscription.pk}/end", {"erase": False})
    assert mine.post(f"me/subscriptions/{subscription.pk}/erase").json()["erasure"] == "requested"
    problem(mine.post(f"me/subscriptions/{subscription.pk}/erase"), 409, "nothing-to-erase")


def test_several_end_with_a_result_each(mine, person, subscription):
    foreign = factories.joined(factories.PersonFactory())
    ended = factories.joined(person)
    mine.post(f"me/subscriptions/{ended.pk}/end", {"erase": False})
    ids = [str(subscription.pk), str(foreign.pk), str(ended.pk)]
    answer = mine.post("me/subscriptions:end", {"subscriptions": ids, "erase": True})
    results = answer.json()["results"]
    assert [row["status"] for row in results] == [200, 404, 409]
    assert results[0]["act"]["receipt"] and results[1]["problem"]["title"]
    foreign.refresh_from_db()
    assert foreign.state == "active"


@pytest.mark.parametrize(
    "ids", [[], None, "all", ["x"], [str(uuid.uuid4())] * 2, [str(uuid.uuid4()) for _ in range(101)]]
)
def test_an_empty_or_wrong_list_never_means_all(mine, subscription, unchanged, ids):
    with unchanged():
        problem(
            mine.post("me/subscriptions:end", {"subscriptions": ids, "erase": True}), 400, "invalid-request"
        )


def test_who_has_no_licence_any_more_is_not_resumed(mine, subscription):
    consent = subscription.consents.filter(kind="transfer").first()
    mine.post(f"me/consents/{consent.pk}/pause")
    today = timezone.localdate()
    factories.LicenceFactory(
        organization=subscription.operator, status="suspended", decided_on=today, effective_on=today
    )
    said = problem(mine.post(f"me/consents/{consent.pk}/resume"), 409, "not-open")
    assert "다시 이을 수 없어요" in said["title"]
    consent.refresh_from_db()
    assert consent.state == "paused"


def test_a_consent_pauses_resumes_and_is_withdrawn(mine, subscription):
    consent = subscription.consents.filter(kind="transfer").first()
    path = f"me/consents/{consent.pk}"
    until = (timezone.now() + datetime.timedelta(days=9)).date().isoformat()
    assert mine.post(f"{path}/pause", {"until_on": until}).json()["state"] == "paused"
    problem(mine.post(f"{path}/pause"), 409, "not-active")
    assert mine.post(f"{path}/resume").json()["state"] == "active"
    act = mine.post(f"{path}/withdraw", {"erase": True}).json()
    assert (act["state"], act["erasure"]) == ("ended", "requested")
    for deed, body in [("withdraw", {"erase": True}), ("pause", {}), ("resume", {})]:
        problem(mine.post(f"{path}/{deed}", body), 409, "already-ended")
    problem(mine.post(f"{path}/pause", {"until_on": "2020-01-01"}), 409, "already-ended")


def test_history_tells_facts_and_who_held_on_a_day(mine, person, subscription):
    facts = mine.get("me/history").json()
    assert facts["results"][0]["at"].endswith("Z") and facts["holders"] == []
    assert {row["typ"] for row in facts["results"]} >= {"subscription.joined", "consent.granted"}
    today = (timezone.now() + datetime.timedelta(hours=9)).date()
    assert len(mine.get(f"me/history?on={today}").json()["holders"]) == 1
    assert mine.get(f"me/history?on={today - datetime.timedelta(days=2)}").json()["holders"] == []
    problem(mine.get("me/history?on=yesterday"), 400, "invalid-request")


def test_notices_are_listed(mine, person):
    Notice.objects.create(
        person=person,
        kind="count",
        matter="5",
        reason_ko="다섯 곳이 가지고 있어요.",
        reason_en="Five hold it.",
        raised_at=timezone.now(),
    )
    assert mine.get("me/notices").json()["results"][0]["reason_en"] == "Five hold it."


def test_the_export_holds_everything_in_a_fixed_number_of_queries(
    mine, person, subscription, django_assert_max_num_queries
):
    factories.joined(factories.PersonFactory())
    for _ in range(3):
        factories.joined(person)
    with django_assert_max_num_queries(14):
        answer = mine.get("me/export")
    export = answer.json()
    assert "attachment" in answer["Content-Disposition"]
    assert export["person"]["email"] == person.email and len(export["subscriptions"]) == 4
    joined = next(row for row in export["entries"] if row["typ"] == "subscription.joined")
    assert joined["disclosed"]["org"] == "portal"


READS = ["me/summary", "me/subscriptions", "me/subscriptions/{own}", "me/history", "me/notices", "me/export"]
WRITES = [
    ("me/subscriptions/{own}/end", {"erase": True}),
    ("me/subscriptions/{own}/erase", {}),
    ("me/subscriptions:end", {"subscriptions": ["{own}"], "erase": True}),
    ("me/consents/{consent}/withdraw", {"erase": True}),
    ("me/consents/{consent}/pause", {}),
    ("me/consents/{consent}/resume", {}),
    ("services/x/subscriptions", {}),
]


def _filled(text, subscription):
    return text.replace("{own}", str(subscription.pk)).replace(
        "{consent}", str(subscription.consents.first().pk)
    )


@pytest.mark.parametrize("path", READS)
def test_nobody_else_reads_what_is_mine(app, person, subscription, service, path):
    path = _filled(path, subscription)
    answer = Caller().get(path)
    problem(answer, 401, "unauthorized")
    assert (
        answer["WWW-Authenticate"] == 'Bearer realm="portal", DPoP algs="' + " ".join(dpop.ALGORITHMS) + '"'
    )
    wrong = Caller("not-a-token").get(path)
    problem(wrong, 401, "unauthorized")
    assert 'error="invalid_token"' in wrong["WWW-Authenticate"]
    narrow = Caller(token(app, person, ["openid"])).get(path)
    problem(narrow, 403, "insufficient-scope")
    assert 'scope="me"' in narrow["WWW-Authenticate"]
    problem(of(service.organization).get(path), 403, "insufficient-scope")
    member = factories.MemberFactory(role="regulator", organization=None).person
    problem(Caller(token(app, member, ["me"])).get(path), 403, "forbidden")
    for kind in ("rt", "ac", "ia"):
        problem(Caller(token(app, person, ["me"], type=kind)).get(path), 401, "unauthorized")
    problem(Caller(token(app, person, ["me"], lasts=-1)).get(path), 401, "unauthorized")
    person.is_active = False
    person.save()
    problem(Caller(token(app, person, ["me"])).get(path), 401, "unauthorized")


@pytest.mark.parametrize(("path", "body"), WRITES)
def test_nobody_else_changes_what_is_mine(app, person, subscription, service, unchanged, path, body):
    path, body = _filled(path, subscription), json.loads(_filled(json.dumps(body), subscription))
    stranger = factories.PersonFactory()
    narrow, member = Caller(token(app, person, ["openid"])), factories.MemberFactory().person
    foreign, server = Caller(token(app, stranger, ["me"])), of(service.organization)
    admin = Caller(token(app, member, ["me"]))
    with unchanged():
        problem(Caller().post(path, body), 401, "unauthorized")
        problem(narrow.post(path, body), 403, "insufficient-scope")
        problem(server.post(path, body), 403, "insufficient-scope")
        problem(admin.post(path, body), 403, "forbidden")
        answer = foreign.post(path, body)
        if path.endswith(":end"):
            assert answer.json()["results"][0]["status"] == 404
        else:
            assert answer.status_code in (400, 404), answer.content


@pytest.mark.parametrize(("path", "body"), WRITES)
def test_bad_bodies_are_refused_everywhere_and_change_nothing(mine, subscription, unchanged, path, body):
    path = _filled(path, subscription)
    with unchanged():
        problem(
            mine.post(path, {"is_admin": True, **json.loads(_filled(json.dumps(body), subscription))}),
            400,
            "invalid-request",
        )
        problem(mine.post(path, b'{"erase": true, "erase": false}'), 400, "malformed-body")
        problem(mine.post(path, b'{"erase": NaN}'), 400, "malformed-body")
        problem(mine.post(path, b'{"erase"'), 400, "malformed-body")
        problem(mine.post(path, '{"erase": "\\u0000"}'), 400, "malformed-body")
        problem(mine.post(path, "{}".encode("utf-16")), 400, "malformed-body")
        problem(mine.post(path, b'{"a":' + b"[" * 30_000 + b"]" * 30_000 + b"}"), 400, "malformed-body")
        problem(mine.post(path, b"[" * 21 + b"]" * 21), 400, "malformed-body")
        problem(mine.post(path, b" " * 70_000), 413, "too-large")
        problem(mine.post(path, b'"' + b"a" * 10_000_000 + b'"'), 413, "too-large")
        problem(
            mine.post(path, "erase=true", content_type="application/x-www-form-urlencoded"),
            415,
            "unsupported-media-type",
        )
        problem(mine.post(path, "<erase/>", content_type="text/xml"), 415, "unsupported-media-type")


def test_the_browser_needs_its_csrf_token(person, subscription):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    path = f"/api/v1/me/subscriptions/{subscription.pk}/end"
    assert browser.get("/api/v1/me/summary").json()["subscriptions"] == 1
    problem(browser.post(path, '{"erase": true}', content_type="application/json"), 403, "forbidden")
    session = browser.session
    session["_csrftoken"] = "a" * 32
    session.save()
    answer = browser.post(
        path, '{"erase": true}', content_type="application/json", headers={"X-CSRFToken": "a" * 32}
    )
    assert answer.status_code == 200, answer.content


def test_the_same_key_does_a_thing_once(mine, service, person):
    asked = joining(service)
    first = mine.post(f"services/{service.slug}/subscriptions", asked, Idempotency_Key="join-1")
    again = mine.post(f"services/{service.slug}/subscriptions", asked, Idempotency_Key="join-1")
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json() and again["Location"] == first["Location"]
    assert again["Idempotent-Replayed"] == "true" and "Idempotent-Replayed" not in first
    assert Subscription.objects.filter(person=person).count() == 1


def test_the_same_key_for_something_else_is_a_conflict(mine, service, subscription, unchanged):
    other = factories.offered()
    mine.post(f"services/{other.slug}/subscriptions", joining(other), Idempotency_Key="k")
    consent = subscription.consents.first()
    with unchanged():
        changed = joining(other, language="en")
        problem(
            mine.post(f"services/{other.slug}/subscriptions", changed, Idempotency_Key="k"),
            409,
            "idempotency-key-reused",
        )
        problem(
            mine.post(f"me/consents/{consent.pk}/pause", Idempotency_Key="k"), 409, "idempotency-key-reused"
        )
        for wrong in ("", "x" * 256, "two words"):
            problem(
                mine.post(f"me/consents/{consent.pk}/pause", Idempotency_Key=wrong), 400, "invalid-request"
            )


def test_a_failed_act_leaves_its_key_free_and_keys_of_others_are_theirs(app, mine, subscription):
    path = f"me/subscriptions/{subscription.pk}/end"
    problem(mine.post(path, {}, Idempotency_Key="k"), 400, "invalid-request")
    assert mine.post(path, {"erase": True}, Idempotency_Key="k").status_code == 200
    other = factories.joined(factories.PersonFactory())
    stranger = Caller(token(app, other.person, ["me"]))
    assert (
        stranger.post(f"me/subscriptions/{other.pk}/end", {"erase": True}, Idempotency_Key="k").status_code
        == 200
    )


def test_a_key_is_forgotten_after_a_day(mine, person, subscription, monkeypatch):
    consent = Consent.objects.filter(subscription=subscription, kind="transfer").first()
    mine.post(f"me/consents/{consent.pk}/pause", Idempotency_Key="k")
    IdempotencyKey.objects.update(created_at=timezone.now() - datetime.timedelta(hours=25))
    assert mine.post(f"me/consents/{consent.pk}/resume", Idempotency_Key="k").json()["state"] == "active"
    monkeypatch.setattr(clock, "now", lambda: timezone.now() + datetime.timedelta(days=2))
    assert jobs.expire()["answers"] == 1


# --- receipts and proofs of single facts ---------------------------------------------------------------------------------------


def test_a_fact_is_receipted_at_once_and_proved_when_it_is_published(mine, person, subscription):
    from consents.ledger import notes, proofs
    from consents.models import EntryIndex, LedgerEntry
    from tests.consents.surface import publish

    entry = EntryIndex.objects.get(typ="subscription.joined")
    receipt = mine.get(f"me/entries/{entry.event_id}/receipt").json()
    assert set(receipt) == {"id", "standing", "at", "receipt"} and receipt["standing"] == "promised"
    assert payload_of(receipt["receipt"])["jti"] == str(entry.event_id)
    early = mine.get(f"me/entries/{entry.event_id}/proof")
    problem(early, 409, "not-yet")
    assert 60 <= int(early["Retry-After"]) <= 301
    publish()
    given = mine.get(f"me/entries/{entry.event_id}/proof")
    assert given["Content-Type"] == "text/plain; charset=utf-8" and given["X-Request-Id"]
    assert given["Cache-Control"] == "no-store, private"
    leaf = bytes(LedgerEntry.objects.get(pk=entry.event_id).leaf_hash)
    notes.Proof.parse(given.content.decode()).verify(leaf, proofs.policy())
    again = mine.get(f"me/entries/{entry.event_id}/receipt").json()
    assert again["standing"] == "in" and again["receipt"] == receipt["receipt"]


def test_another_persons_fact_has_no_receipt_and_no_proof(mine):
    from consents.models import EntryIndex

    factories.joined(factories.PersonFactory())
    foreign = EntryIndex.objects.filter(typ="subscription.joined").latest("seq").event_id
    for event_id in (foreign, uuid.uuid4()):
        for what in ("receipt", "proof"):
            problem(mine.get(f"me/entries/{event_id}/{what}"), 404, "not-found")


def test_a_log_that_cannot_be_read_is_said_to_the_program(mine, subscription, published_log):
    from consents.models import EntryIndex

    published_log.mkdir(parents=True, exist_ok=True)
    (published_log / "checkpoint").write_text("not a checkpoint")
    (published_log / "policy.txt").write_text("neither a policy")
    event_id = EntryIndex.objects.get(typ="subscription.joined").event_id
    problem(mine.get(f"me/entries/{event_id}/proof"), 503, "log-unreadable")
    assert mine.get(f"me/entries/{event_id}/receipt").json()["standing"] == "unknown"
