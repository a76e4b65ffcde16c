"""What the OpenAPI document promises of every operation, and what every answer carries: examples, statuses, limits."""

import datetime

import pytest
from django.core.cache import caches
from django.test import Client, RequestFactory
from drf_spectacular.generators import SchemaGenerator
from jsonschema import Draft202012Validator
from rest_framework.response import Response

from consents.api import problems
from consents.api.authentication import Anyone
from consents.api.doors import Door

from .conftest import problem

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module")
def document() -> dict:
    return SchemaGenerator().get_schema(request=None, public=True)


def operations(document) -> list[tuple[str, str, dict]]:
    return [
        (method, path, operation)
        for path, found in document["paths"].items()
        for method, operation in found.items()
        if method in ("get", "put", "post", "delete", "patch")
    ]


def shown(content: dict) -> list:
    """Every example of one media type."""
    found = [example["value"] for example in content.get("examples", {}).values()]
    return found + ([content["example"]] if "example" in content else [])


def test_every_operation_has_examples_that_keep_to_its_schema(document, subtests):
    for method, path, operation in operations(document):
        contents = [
            ("request", kind, content)
            for kind, content in operation.get("requestBody", {}).get("content", {}).items()
        ]
        for status, response in operation["responses"].items():
            contents += [(status, kind, content) for kind, content in response.get("content", {}).items()]
        for where, kind, content in contents:
            with subtests.test(f"{method} {path}", where=where, kind=kind):
                examples = shown(content)
                assert examples, "no example"
                if kind.endswith("jwt") or "schema" not in content:
                    continue
                schema = content["schema"] | {"components": document["components"]}
                for example in examples:
                    errors = list(Draft202012Validator(schema).iter_errors(example))
                    assert not errors, (example, errors[0].message, list(errors[0].path))


@pytest.mark.parametrize("path", ["holdings", "transfers"])
def test_the_example_rows_are_rows(document, path, operator, service):
    """As they stand, the door reads each of them: what it has against them is whom they are about."""
    contents = document["paths"][f"/api/v1/{path}"]["post"]["requestBody"]["content"]
    for kind, content in contents.items():
        (rows,) = shown(content)
        answer = operator.post(path, rows, content_type=kind)
        assert answer.status_code == 200, answer.content
        for row in answer.json()["results"]:
            assert row["errors"] and {one["pointer"] for one in row["errors"]} <= {
                "#/service_client_id", "#/source_org_code", "#/subject", "#/scopes", "#/subscription", "#/source",
            }, (kind, row)  # fmt: skip


def test_the_example_answer_fits_its_rows(document):
    told = document["paths"]["/api/v1/holdings"]["post"]["responses"]["200"]["content"]["application/json"]
    (answer,) = shown(told)
    for row in answer["results"]:
        assert bool(row["errors"]) == (row["result"] == "refused")


def test_every_operation_tells_its_refusals(document, subtests):
    for method, path, operation in operations(document):
        with subtests.test(f"{method} {path}"):
            told = operation["responses"].keys()
            wanted = {"400", "429"} | ({"404"} if "{" in path else set())
            wanted |= {"401", "403"} if operation.get("security") else set()
            wanted |= {"409", "413", "415"} if method in ("post", "put") else set()
            assert wanted <= told
            assert operation["summary"] and operation["description"], "said what it is for"
            for status, response in operation["responses"].items():
                assert {"X-Request-Id", "RateLimit", "RateLimit-Policy"} <= response["headers"].keys(), status
                assert "Retry-After" in response["headers"] or status not in ("429", "503")


def test_every_problem_type_has_its_place(document):
    html = Client().get("/api/docs/problems").content.decode()
    for slug, (status, title, remedy) in problems.TYPES.items():
        assert f'id="{slug}"' in html and str(title) in html and str(remedy) in html and str(status) in html


# --- limits ---------------------------------------------------------------------------------------------------------------------


def test_every_answer_tells_what_is_left(operator, mine):
    for answer, name in (
        (operator.get("deliveries"), "organization"),
        (mine.get("me/summary"), "person"),
        (Client().get("/api/v1/scopes"), "visitor"),
    ):
        most = int(answer["RateLimit-Policy"].partition(";q=")[2].partition(";")[0])
        assert answer["RateLimit-Policy"] == f'"{name}";q={most};w=60'
        assert answer["RateLimit"].startswith(f'"{name}";r={most - 1};t=')
    for path in ("deliveries", "services/%00", "services/ghost", "no/such/thing"):
        assert Client().get(f"/api/v1/{path}")["RateLimit"].startswith('"visitor"'), "a refusal too"


def test_whoever_comes_too_often_waits_and_nobody_else(operator, mine, settings):
    settings.API_PER_MINUTE = {"organization": 2, "person": 2, "visitor": 2}
    caches["comfort"].clear()
    assert [operator.get("deliveries").status_code for _ in range(2)] == [200, 200]
    refused = operator.get("deliveries")
    problem(refused, 429, "too-many-requests")
    assert 1 <= int(refused["Retry-After"]) <= 60 and ";r=0;" in refused["RateLimit"]
    assert mine.get("me/summary").status_code == 200
    visitors = [Client().get("/api/v1/scopes", headers={"X-Forwarded-For": f"10.0.0.{n}"}) for n in range(3)]
    assert [answer.status_code for answer in visitors] == [200, 200, 429], (
        "a header of one's own changes nothing"
    )


def test_what_a_person_ends_is_never_refused_for_its_number(mine, subscription, settings):
    settings.API_PER_MINUTE = {"organization": 1, "person": 1, "visitor": 1}
    caches["comfort"].clear()
    mine.get("me/summary")
    problem(mine.get("me/summary"), 429, "too-many-requests")
    consent = subscription.consents.filter(kind="transfer").first()
    assert mine.post(f"me/consents/{consent.pk}/withdraw", {"erase": True}).status_code == 200
    assert mine.post(f"me/subscriptions/{subscription.pk}/end", {"erase": True}).status_code == 200


def test_without_the_cache_nobody_is_held(operator, monkeypatch):
    def down(*args, **kwargs):
        raise ConnectionError

    monkeypatch.setattr(caches["comfort"], "add", down)
    answer = operator.get("deliveries")
    assert answer.status_code == 200 and "RateLimit" not in answer


# --- what will go away --------------------------------------------------------------------------------------------------------------


class Old(Door):
    authentication_classes = []
    permission_classes = [Anyone]
    deprecated_on, sunset_on = datetime.date(2026, 12, 1), datetime.date(2027, 12, 1)

    def get(self, request):
        """An operation that will go away."""
        return Response({})


def test_what_will_go_away_says_so_in_every_answer():
    for answer in (Old.as_view()(RequestFactory().get("/")), Old.as_view()(RequestFactory().post("/"))):
        assert answer["Deprecation"] == "@1796083200"  # RFC 9745
        assert answer["Sunset"] == "Wed, 01 Dec 2027 00:00:00 GMT"  # RFC 8594
        assert 'rel="deprecation"' in answer["Link"]


def test_nothing_goes_away_yet(document):
    assert not [path for _, path, operation in operations(document) if operation.get("deprecated")]
    assert "Deprecation" not in Client().get("/api/v1/scopes")


def test_what_a_proof_is_refused_with_is_told(document):
    """Found by a stranger who asked for the proof of a fact that was just written."""
    told = document["paths"]["/api/v1/me/entries/{event_id}/proof"]["get"]["responses"]
    assert {"200", "404", "409", "503"} <= set(told)
