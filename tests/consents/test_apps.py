"""The applications that a person has let in, and how they are sent away."""

import pytest
from allauth.idp.oidc.models import Token
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import clients, oauth
from consents.actors import Actor
from consents.queries import apps
from tests import factories
from tests.consents.api.conftest import token

pytestmark = pytest.mark.django_db


def test_the_apps_a_person_let_in_are_shown_and_disconnected(signed_in, person):
    """Each with its last use; one press takes away what it has, and nothing of anybody else's."""
    other = factories.PersonFactory()
    operator = factories.OperatorFactory(name_ko="두루미핀테크")
    app = clients.make_app(
        operator, name="두루 지갑", scopes=["me", "openid"], redirect_uris=["https://a.example/"],
        by=Actor.system("test"), at=timezone.now(),
    ).client  # fmt: skip
    mine, theirs = (token(app, one, ["me"], type=Token.Type.REFRESH_TOKEN) for one in (person, other))
    page = signed_in.get("/me/account/").content.decode()
    assert (
        "두루 지갑" in page
        and "두루미핀테크" in page
        and "내 가입과 동의를 보고" in page
        and "마지막으로 쓴 때" in page
    )
    button = reverse("disconnect_app", args=[app.pk])
    assert signed_in.get(button).status_code == 405
    assert signed_in.post(button)["Location"] == "/me/account/"
    assert [one.user for one in Token.objects.all()] == [other] and mine != theirs
    assert "권한을 준 앱이 없어요" in signed_in.get("/me/account/").content.decode()
    assert signed_in.post(button).status_code == 404, "it has nothing of theirs any more"


def test_apps_whose_tokens_ran_out_are_not_shown(signed_in, person):
    app = oauth.create_app_client(name="옛 앱", redirect_uris=["https://a.example/"])
    token(app, person, ["me"], lasts=-1)
    assert "옛 앱" not in signed_in.get("/me/account/").content.decode()


def test_many_apps_cost_two_queries(person):
    for n in range(6):
        app = oauth.create_app_client(name=f"앱 {n}", redirect_uris=["https://a.example/"])
        token(app, person, ["me"])
        token(app, person, ["openid"], type=Token.Type.REFRESH_TOKEN)
    with CaptureQueriesContext(connection) as caught:
        found = apps.of(person, at=timezone.now())
    assert len(caught) == 2 and len(found) == 6 and len(found[0].scopes) == 2
