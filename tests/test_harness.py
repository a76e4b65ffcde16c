"""The harness refuses what it says it refuses."""

import socket
import warnings

import pytest
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template import Context, Origin, Template, engines
from django.test import Client
from django.urls import path

from config import health
from tests import harness


@pytest.fixture
def own_pages(settings):
    """Pages of this module alone, without middleware."""
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []
    settings.DEBUG_PROPAGATE_EXCEPTIONS = True


def write(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE django_content_type SET model = model")
    return HttpResponse()


def look(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM django_content_type")
    return HttpResponse()


urlpatterns = [
    path("write/", write),
    path("look/", look),
    path("healthz", health.healthz),
    path("readyz", health.readyz),
]


def ours(source: str) -> str:
    """Render as if the source were a file of ours."""
    origin = Origin(str(harness.CHECKOUT / "templates" / "x.html"))
    return Template(source, origin, engine=engines["django"].engine).render(
        Context({"known": "yes", "empty": {}})
    )


def test_a_socket_to_the_world_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(RuntimeError, match="tried to use socket"):
            socket.create_connection(("192.0.2.1", 80), timeout=1)


def test_a_warning_is_an_error():
    with pytest.raises(DeprecationWarning):
        warnings.warn("old", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize(
    "source",
    [
        "{{ unknown }}",
        "{{ empty.key }}",
        "{{ unknown|upper }}",
        "{% load i18n %}{% blocktranslate %}{{ unknown }}{% endblocktranslate %}",
    ],
)
def test_an_undefined_variable_in_a_template_of_ours_fails(source):
    with pytest.raises(harness.UndefinedVariable, match="undefined at"):
        ours(source)


def test_an_optional_variable_is_declared_by_its_default():
    assert ours("{{ unknown|default:'-' }}{% if unknown %}!{% endif %}{{ known }}") == "-yes"


def test_a_template_of_others_is_left_alone():
    assert engines["django"].from_string("{{ unknown }}{{ unknown|default:'-' }}").render({}) == "-"


@pytest.mark.django_db
def test_a_get_that_writes_fails(own_pages):
    with pytest.raises(harness.WriteOnRead):
        Client().get("/write/")
    assert Client().get("/look/").status_code == 200
    assert Client().post("/write/").status_code == 200


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ('INSERT INTO "consents_person" (id) VALUES (1)', "consents_person"),
        ('UPDATE "consents_person" SET x = 1', "consents_person"),
        ('DELETE FROM "consents_person"', "consents_person"),
        ('WITH a AS (SELECT 1) INSERT INTO "ledger"."entry" SELECT 1', 'ledger"."entry'),
        ('SELECT "consents_person"."updated" FROM consents_person', None),
        ("SAVEPOINT a", None),
    ],
)
def test_a_write_is_recognised_by_its_statement(sql, table):
    found = harness.WRITE.match(sql)
    assert (found.group(1).strip('"') if found else None) == table


@pytest.mark.django_db
def test_the_database_finds_korean_text():
    assert health.korean_search(None, databases=["default"]) == []
    with connection.cursor() as cursor:
        cursor.execute(health.SIMILAR)
        assert cursor.fetchone() == (1.0,)


@pytest.mark.django_db
def test_readiness_names_what_is_missing(own_pages, client, settings):
    assert client.get("/healthz").json() == {"status": "ok"}
    ready = client.get("/readyz")
    missing = {name: value for name, value in ready.json().items() if value != "ok"}
    assert (ready.status_code, missing) == (200, {})
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    down = client.get("/readyz")
    assert down.status_code == 503
    assert down.json()["broker"] == "failed"
    assert down.json()["database"] == "ok"


@pytest.mark.django_db
def test_no_migration_is_missing():
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)


@pytest.mark.browser
def test_the_browser_runs(page):
    page.set_content("<h1>방지턱</h1>")
    assert page.locator("h1").inner_text() == "방지턱"
