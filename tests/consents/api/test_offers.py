"""What operators offer over the API: services, and terms that are published for good."""

import copy
import datetime

import pytest
from django.utils import timezone

from consents.api import examples
from consents.models import EntryIndex
from providers import registry
from providers.models import Service, Terms
from tests import factories

from .conftest import Caller, of, problem

pytestmark = pytest.mark.django_db


@pytest.fixture
def operator(db):
    return factories.OperatorFactory()


@pytest.fixture
def server(operator):
    return of(operator)


@pytest.fixture
def bank(db):
    return factories.OrganizationFactory(code="BKNEUT9001")


def test_from_nothing_to_a_service_that_can_be_joined(server, operator, bank, person):
    made = server.put("services/stepping-stone-01", examples.OFFER)
    assert made.status_code == 201 and made.json()["state"] == "registered"
    assert problem(Caller().get("services/stepping-stone-01"), 404, "not-found"), "not yet"
    published = server.post("services/stepping-stone-01/terms", examples.VERSION, Idempotency_Key="v1")
    assert published.status_code == 201, published.content
    assert published.json()["version"] == 1 and published.json()["digest_ko"].startswith("sha256:")
    shown = Caller().get("services/stepping-stone-01").json()
    assert shown["state"] == "live" and shown["terms"] == published.json()
    assert factories.joined(person, Service.objects.get(client_id="stepping-stone-01")).state == "active"
    again = server.post("services/stepping-stone-01/terms", examples.VERSION, Idempotency_Key="v1")
    assert again.json() == published.json() and Terms.objects.count() == 1
    assert EntryIndex.objects.filter(typ="terms.published").count() == 1


def test_the_same_again_changes_nothing_and_another_word_does(server, unchanged):
    server.put("services/stepping-stone-01", examples.OFFER)
    with unchanged():
        same = server.put("services/stepping-stone-01", examples.OFFER)
    assert same.status_code == 200
    before = Service.objects.get().changed_at
    other = server.put("services/stepping-stone-01", examples.OFFER | {"summary_en": "Another line"})
    assert other.json()["summary_en"] == "Another line" and Service.objects.get().changed_at > before


def test_names_that_people_agreed_to_stay(server, bank, unchanged):
    server.put("services/stepping-stone-01", examples.OFFER)
    server.post("services/stepping-stone-01/terms", examples.VERSION)
    with unchanged():
        renamed = examples.OFFER | {"name_ko": "다른 이름"}
        problem(server.put("services/stepping-stone-01", renamed), 409, "name-is-agreed")


@pytest.mark.parametrize(
    "name", ["Kakao Bank", "KAKAO-BANK", "Ka kao\u0301 Bank", "KakaoBank.", "Kaka0 Bank", "카카오 뱅크", "\uce74\uce74\uc624\ubc45\ud06c!"]
)  # fmt: skip
@pytest.mark.parametrize("part", ["name_ko", "name_en"])
def test_another_companys_name_is_taken(server, unchanged, part, name):
    """T11: a name that could be read as another firm's or its service's is refused, in words."""
    factories.ServiceFactory(name_ko="카카오뱅크", name_en="Kakao Bank", state="paused")
    with unchanged():
        told = problem(
            server.put("services/stepping-stone-01", examples.OFFER | {part: name}), 409, "name-is-taken"
        )
    assert "이름" in told["title"]


def test_whose_name_may_be_taken(server, operator, unchanged):
    """Another firm's own name may not; one's own may, and that of a service that is closed."""
    factories.OrganizationFactory(name_ko="두루미금융", name_en="Durumi Finance")
    factories.ServiceFactory(name_ko="옛 서비스", name_en="Gone", state="closed")
    factories.ServiceFactory(organization=operator, name_ko="우리 것", name_en="Ours")
    with unchanged():
        problem(
            server.put("services/stepping-stone-01", examples.OFFER | {"name_en": "Durumi-finance"}),
            409,
            "name-is-taken",
        )
    for place, name in enumerate(("Gone", "Ours", operator.name_en)):
        assert (
            server.put(f"services/stepping-stone-{place}", examples.OFFER | {"name_en": name}).status_code
            == 201
        )
    with unchanged():
        later = server.put("services/stepping-stone-0", examples.OFFER | {"name_ko": "두루미 금융"})
        problem(later, 409, "name-is-taken")


def test_a_closed_service_stays_as_it_was(server, bank, unchanged):
    server.put("services/stepping-stone-01", examples.OFFER)
    server.post("services/stepping-stone-01/terms", examples.VERSION)
    Service.objects.update(state="closed")
    with unchanged():
        changed = examples.OFFER | {"summary_en": "Another line"}
        problem(server.put("services/stepping-stone-01", changed), 409, "closed")
        next_one = examples.VERSION | {"change_kind": "typo", "change_reason_ko": "오타"}
        problem(server.post("services/stepping-stone-01/terms", next_one), 409, "closed")


def test_a_service_is_new_for_a_while(server, bank, client):
    server.put("services/stepping-stone-01", examples.OFFER)
    server.post("services/stepping-stone-01/terms", examples.VERSION)
    assert "새로 등록" in client.get("/services/stepping-stone-01/").content.decode()
    Service.objects.update(opened_on=timezone.localdate() - datetime.timedelta(days=31))
    assert "새로 등록" not in client.get("/services/stepping-stone-01/").content.decode()


def test_somebody_elses_service_does_not_exist(server, bank, unchanged):
    other = factories.offered()
    taken = factories.ServiceFactory(slug="taken-01")  # whose address a new client_id would get
    with unchanged():
        for client_id in (other.client_id, taken.slug):
            problem(server.put(f"services/{client_id}", examples.OFFER), 404, "not-found")
        problem(server.post(f"services/{other.client_id}/terms", examples.VERSION), 404, "not-found")
        problem(server.post("services/nobody/terms", examples.VERSION), 404, "not-found")


@pytest.mark.parametrize(
    "change",
    [
        {"name_ko": ""}, {"name_ko": "x" * 81}, {"name_en": "K\u0430kao"}, {"name_en": "\u202egnat"},
        {"summary_ko": None}, {"purpose_code": "spying"}, {"state": "live"}, {"organization": "X"}, {"slug": "x"}, {"name_ko": 7},
    ],
)  # fmt: skip
def test_an_offer_that_is_none(server, unchanged, change):
    with unchanged():
        problem(server.put("services/stepping-stone-01", examples.OFFER | change), 400, "invalid-request")


@pytest.mark.parametrize("client_id", ["Upper", "a_b", "-a", "a-", "a" * 51])
def test_a_client_id_that_is_none(server, unchanged, client_id):
    with unchanged():
        problem(server.put(f"services/{client_id}", examples.OFFER), 404, "not-found")


def broken():
    """One thing wrong in each: a place, and what is put there."""
    for name in ("title_ko", "purpose_en", "retention_ko"):
        yield f"items/0/{name}", ""
    yield from [
        ("items/0/source", "NOBODY0001"), ("items/0/source", ""), ("items/0/scopes", []), ("items/0/scopes", ["bank.nothing"]),
        ("items/0/kind", "third_party"), ("items/0/valid_months", 61), ("items/0/valid_months", 0), ("items/0/cycle", "1/9w"),
        ("items/0/riders", ["everything"]), ("items/1/required", True), ("items/0/grade", "02"), ("items/0/state", "x"),
        ("items/1/recipient", "BKNEUT9001"), ("items", []), ("text_ko", ""), ("text_ko", "x" * 100_001), ("text_en", "\u202e"),
        ("summary_ko", ""), ("change_kind", "big"), ("version", 7), ("published_at", "2020-01-01T00:00:00Z"),
    ]  # fmt: skip


@pytest.mark.parametrize(("place", "value"), list(broken()))
def test_terms_that_are_none(server, bank, unchanged, place, value):
    server.put("services/stepping-stone-01", examples.OFFER)
    wrong = copy.deepcopy(examples.VERSION)
    *path, last = place.split("/")
    at = wrong
    for step in path:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    with unchanged():
        told = problem(server.post("services/stepping-stone-01/terms", wrong), 400, "invalid-request")
    assert any(error["pointer"].startswith(f"#/{'/'.join(path[:2])}") for error in told["errors"]), told


def test_a_source_is_asked_once(server, bank, unchanged):
    server.put("services/stepping-stone-01", examples.OFFER)
    twice = examples.VERSION | {"items": [examples.VERSION["items"][0]] * 2}
    with unchanged():
        problem(server.post("services/stepping-stone-01/terms", twice), 400, "invalid-request")


def test_a_material_change_is_called_one(server, bank, unchanged):
    server.put("services/stepping-stone-01", examples.OFFER)
    server.post("services/stepping-stone-01/terms", examples.VERSION)
    longer = copy.deepcopy(examples.VERSION) | {"change_kind": "typo", "change_reason_ko": "오타를 고쳤어요."}
    longer["items"][0]["purpose_ko"] = "광고에도 쓰려고 받아요."
    with unchanged():
        problem(server.post("services/stepping-stone-01/terms", longer), 409, "change-is-material")
        problem(server.post("services/stepping-stone-01/terms", examples.VERSION), 409, "terms-changed")
        silent = longer | {"change_kind": "material", "change_reason_ko": " "}
        problem(server.post("services/stepping-stone-01/terms", silent), 400, "invalid-request")
    told = server.post("services/stepping-stone-01/terms", longer | {"change_kind": "material"})
    assert told.status_code == 201 and told.json()["version"] == 2
    assert Terms.objects.get(version=1).state == "retired"


def test_who_may_offer(server, bank, app, person, unchanged):
    server.put("services/stepping-stone-01", examples.OFFER)
    source, narrow = of(bank), of(factories.OperatorFactory(), "deliveries:ack")
    with unchanged():
        problem(Caller().put("services/x", examples.OFFER), 401, "unauthorized")
        problem(source.put("services/x", examples.OFFER), 403, "forbidden")
        problem(narrow.put("services/x", examples.OFFER), 403, "insufficient-scope")
        problem(source.post("services/stepping-stone-01/terms", examples.VERSION), 403, "forbidden")


def test_an_operator_without_a_licence_may_prepare_but_nobody_can_join(operator, server, bank):
    day = timezone.localdate()
    registry.record_decision(
        organization=operator,
        status="suspended",
        decided_on=day,
        effective_on=day,
        source="시험",
        at=timezone.now(),
    )
    server.put("services/stepping-stone-01", examples.OFFER)
    assert server.post("services/stepping-stone-01/terms", examples.VERSION).status_code == 201
    asked = {"service": "stepping-stone-01"}
    problem(server.post("consent-requests", asked), 409, "not-open")
