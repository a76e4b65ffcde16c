"""The regulator's applications: registered, used by a regulator alone, retired."""

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import clients
from consents.actors import Actor
from consents.models import EntryIndex
from consents.queries import clients as queries
from tests import factories
from tests.consents.api.conftest import Caller, token
from tests.consents.test_clients import browser

pytestmark = pytest.mark.django_db
BACK = "https://tool.example/back"
BY = Actor.system("test")


@pytest.fixture
def regulator(db):
    return factories.MemberFactory(role="regulator", organization=None).person


@pytest.fixture
def desk(regulator):
    return browser(regulator)


def register(desk, name="점검 도구", **other):
    return desk.post(reverse("oversight_apps"), {"name": name, "redirect_uris": BACK} | other)


def test_an_application_is_registered_reads_the_record_and_is_retired(desk, regulator):
    page = reverse("oversight_apps")
    assert page in desk.get(reverse("oversight")).content.decode()
    assert register(desk)["Location"] == page
    app = clients.oversight_apps().get()
    assert (app.get_scopes(), app.type) == (["oversight:read", "openid"], "public")
    caller = Caller(token(app, regulator, ["oversight:read"]))
    assert caller.get("oversight/reconciliation").status_code == 200
    shown = desk.get(page).content.decode()
    assert app.pk in shown and BACK in shown and ">1<" in shown
    assert desk.post(reverse("retire_oversight_app", args=[app.pk]))["Location"] == page
    assert not clients.oversight_apps().exists() and caller.get("oversight/reconciliation").status_code == 401
    assert list(EntryIndex.objects.order_by("seq").values_list("typ", flat=True)) == [
        "key.added",
        "key.retired",
    ]
    assert desk.post(reverse("retire_oversight_app", args=[app.pk])).status_code == 404


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"redirect_uris": ""}, {"redirect_uris": "http://tool.example/back"}, {"scopes": "me"}, {"name": "a\x00"}],
)  # fmt: skip
def test_what_is_no_application_is_not_registered(desk, wrong):
    assert register(desk, **wrong).status_code == 400 and not clients.oversight_apps().exists()


def test_names_are_their_own_and_there_are_ten_at_most(desk):
    assert register(desk).status_code == 302
    assert "같은 이름의 앱이 이미 있어요" in register(desk).content.decode()
    for number in range(clients.MOST_APPS - 1):
        assert register(desk, f"도구 {number}").status_code == 302
    assert "10개까지" in register(desk, "하나 더").content.decode()
    assert clients.oversight_apps().count() == clients.MOST_APPS


def test_it_is_the_regulators_and_wants_a_fresh_sign_in(regulator, signed_in):
    page = reverse("oversight_apps")
    stale = browser(regulator, signed_in=None)
    for answer in (stale.get(page), register(stale)):
        assert answer.status_code == 302 and not answer["Location"].startswith(page)
    admin = browser(factories.MemberFactory(organization=factories.OperatorFactory()).person)
    for other in (admin, signed_in):
        assert other.get(page).status_code == 403 and register(other).status_code == 403
    assert Client().get(page).status_code == 302
    assert not clients.oversight_apps().exists()


def test_peoples_and_organizations_applications_are_not_among_them(desk, app):
    clients.make_app(
        factories.OperatorFactory(), name="앱", scopes=["me"], redirect_uris=[BACK], by=BY, at=timezone.now()
    )
    for one in (app, clients.Client.objects.exclude(pk=app.pk).get()):
        assert desk.post(reverse("retire_oversight_app", args=[one.pk])).status_code == 404
    assert clients.Client.objects.count() == 2


def test_the_list_is_one_query(desk):
    for number in range(3):
        register(desk, f"도구 {number}")
    with CaptureQueriesContext(connection) as seen:
        assert len(queries.oversight_apps(at=timezone.now())) == 3
    assert len(seen) == 1


@pytest.fixture
def app(db):
    from consents import oauth

    return oauth.create_app_client(name="내 앱", redirect_uris=[BACK])
