"""What anybody may read, how errors look, and the API's own description."""

import json

import pytest
from django.core.management import call_command
from django.test import Client

from consents.api import problems
from tests import factories

from .conftest import Caller, problem

pytestmark = pytest.mark.django_db


def test_operators_services_and_scopes_are_public_and_paged(service):
    visitor = Caller()
    operators = visitor.get("operators").json()["results"]
    assert operators[0]["code"] == service.organization.code and operators[0]["licence_status"] == "licensed"
    assert visitor.get("services").json()["results"][0]["slug"] == service.slug
    assert visitor.get("services?operator=NOBODY").json()["results"] == []
    seen, cursor = [], ""
    while cursor is not None:
        page = visitor.get(f"scopes?limit=50{f'&cursor={cursor}' if cursor else ''}").json()
        seen += [row["item"] for row in page["results"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen)) > 50


def test_a_service_shows_the_terms_a_join_must_name(service, django_assert_max_num_queries):
    with django_assert_max_num_queries(4):
        shown = Caller().get(f"services/{service.slug}").json()
    assert shown["terms"]["digest_ko"].startswith("sha256:") and len(shown["terms"]["items"]) == 4
    problem(Caller().get("services/nowhere"), 404, "not-found")
    bare = factories.ServiceFactory()
    assert Caller().get(f"services/{bare.slug}").json()["terms"] is None


@pytest.mark.parametrize("path", ["operators", "services", "scopes"])
def test_lists_refuse_what_they_do_not_know(path):
    problem(Caller().get(f"{path}?colour=red"), 400, "invalid-request")
    problem(Caller().get(f"{path}?cursor=x"), 400, "bad-cursor")
    problem(Caller().post(path), 405, "method-not-allowed")


def test_every_refusal_is_a_problem_document(mine):
    problem(Caller().get("nowhere"), 404, "not-found")
    problem(Client().get("/api/v2/anything"), 404, "not-found")
    problem(Client().delete("/api/v1/operators"), 405, "method-not-allowed")
    problem(Client().options("/api/v1/operators"), 405, "method-not-allowed")
    problem(Client().get("/api/v1/operators", headers={"Accept": "text/html"}), 406, "not-acceptable")
    problem(mine.get("me/subscriptions/not-a-uuid"), 404, "not-found")


def test_a_fault_of_ours_tells_nothing_of_its_inside(monkeypatch):
    from consents.api import public

    def fail(*args, **kwargs):
        raise RuntimeError("secret inside")

    monkeypatch.setattr(public, "page", fail)
    answer = Client(raise_request_exception=False).get("/api/v1/scopes")
    problem(answer, 500, "server-error")
    assert b"secret inside" not in answer.content


def test_problems_speak_the_language_of_the_caller():
    english = Client().get("/api/v1/nowhere", headers={"Accept-Language": "en"})
    assert english["Content-Language"] == "en"


def test_a_request_id_is_echoed_when_it_is_harmless():
    def answered(given):
        return Client().get("/api/v1/scopes", headers={"X-Request-Id": given})["X-Request-Id"]

    assert answered("abc-1.2~3") == "abc-1.2~3"
    for given in ("", "x" * 65, "a b", "é", "a<b>"):
        assert answered(given) not in ("", given) and len(answered(given)) == 36


def test_the_schema_is_valid_and_complete(tmp_path):
    file = tmp_path / "openapi.json"
    call_command(
        "spectacular", "--validate", "--fail-on-warn", "--format", "openapi-json", "--file", str(file)
    )
    schema = json.loads(file.read_text())
    assert schema["openapi"].startswith("3.1")
    assert set(schema["components"]["securitySchemes"]) == {"oauth2", "browser"}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            promised = {"400", "429"} | ({"404"} if "{" in path else set())
            promised |= {"401", "403"} if operation.get("security") else set()
            promised |= {"409", "413", "415"} if method == "post" else set()
            assert promised <= operation["responses"].keys(), (method, path)
    served = Client().get("/api/v1/schema/")
    assert served.json()["info"]["title"] and served["Content-Type"] == "application/json"


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_pages_about_the_api_list_everything(language):
    headers = {"Accept-Language": language}
    html = Client().get("/api/docs/", headers=headers).content.decode()
    for path in ("/me/summary", "/evidence", "/operators", "deliveries:ack"):
        assert path in html
    listed = Client().get("/api/docs/problems", headers=headers).content.decode()
    assert all(f'id="{slug}"' in listed for slug in problems.TYPES)
