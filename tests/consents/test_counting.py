"""The number for an operator's own sign-up screen: by the person's code, once, with a way back to a registered address."""

import datetime
from types import SimpleNamespace

import pytest
from django.utils import timezone

from consents import accounts, counting, identities
from consents.actors import Actor
from consents.forms.identity import pretend
from consents.models import CountingCode, Identity, Subscription
from tests import factories
from tests.consents.api.conftest import of
from tests.consents.test_uploads import csv_of, row, send, take

pytestmark = pytest.mark.django_db
BACK = "https://app.example.com/back"


@pytest.fixture
def operator():
    return of(factories.offered().organization)


@pytest.fixture
def registered(operator):
    from allauth.idp.oidc.models import Client

    client = Client.objects.get()
    client.set_redirect_uris([BACK])
    client.save()


def made(person) -> str:
    return counting.make(person, by=Actor.person(person), at=timezone.now())[0]


def test_a_code_tells_the_number_once(operator, person):
    factories.joined(person, factories.offered())
    code = made(person)
    answer = operator.post("holding-count", {"code": code.lower().replace("-", " ")})
    told = answer.json()
    assert answer.status_code == 200 and told["operators_holding"] == 1
    assert told["sentence_ko"].startswith("이미 1곳이 내 정보를") and told["sentence_en"].startswith(
        "1 place already holds"
    )
    assert set(told) == {
        "operators_holding",
        "receiving",
        "held_after_end",
        "sentence_ko",
        "sentence_en",
        "tidy_url",
    }
    again, never = (
        operator.post("holding-count", {"code": code}),
        operator.post("holding-count", {"code": "ABCDE-FGHJK"}),
    )
    assert again.status_code == never.status_code == 404 and again.content == never.content


def test_a_code_is_good_for_minutes_and_the_last_one_counts(operator, person):
    first, second = made(person), made(person)
    assert operator.post("holding-count", {"code": first}).status_code == 404
    CountingCode.objects.update(
        expires_at=timezone.now(), made_at=timezone.now() - datetime.timedelta(hours=1)
    )
    assert operator.post("holding-count", {"code": second}).status_code == 404
    assert counting.forget_old(at=timezone.now() + datetime.timedelta(days=2)) == 1


def test_only_operators_with_the_scope_ask(person, operator):
    code = made(person)
    assert of(factories.OrganizationFactory()).post("holding-count", {"code": code}).status_code == 403
    assert (
        of(factories.offered().organization, "consents:read")
        .post("holding-count", {"code": code})
        .status_code
        == 403
    )
    assert operator.post("holding-count", {"code": code}).status_code == 200


def test_the_way_back_leads_to_a_registered_address_only(
    operator, registered, person, signed_in, browser_of=None
):
    subscription = factories.joined(person, factories.offered())
    code = made(person)
    wrong = operator.post("holding-count", {"code": code, "return_uri": BACK + "/else"})
    assert wrong.status_code == 400 and wrong.json()["type"].endswith("not-registered")
    told = operator.post("holding-count", {"code": code, "return_uri": BACK}).json()
    path = "/" + told["tidy_url"].split("/", 3)[3]
    page = signed_in.get(path)
    assert page.status_code == 200 and f'href="{BACK}"' in page.content.decode()
    ask = signed_in.post("/me/end/", {"subscription": [str(subscription.pk)], "next": path})
    assert f'value="{path}"' in ask.content.decode()
    done = signed_in.post(
        "/me/end/", {"subscription": [str(subscription.pk)], "step": "confirm", "erase": "on", "next": path}
    )
    assert done["Location"] == path and "https://app.example.com" in signed_in.get(path).content.decode()
    away = signed_in.post(
        "/me/end/",
        {"subscription": [str(subscription.pk)], "step": "confirm", "next": "https://evil.example/"},
    )
    assert away["Location"] == "/me/"


def test_the_way_back_is_the_persons_own(operator, person, client):
    path = "/" + operator.post("holding-count", {"code": made(person)}).json()["tidy_url"].split("/", 3)[3]
    factories_signed_in(client, factories.PersonFactory())
    assert client.get(path).status_code == 404


def factories_signed_in(client, person) -> None:
    client.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")


# --- pages ---------------------------------------------------------------------------------------------------------------


def test_a_code_is_made_by_a_button_and_shown_once(signed_in, operator):
    assert "code" not in signed_in.get("/me/code/").context
    code = signed_in.post("/me/code/").context["code"]
    assert operator.post("holding-count", {"code": code}).status_code == 200


def test_the_pretend_provider_finds_what_waits(signed_in, person, settings):
    settings.PRETEND_IDENTITY = True
    service, source = factories.offered(), factories.OrganizationFactory()
    ci = pretend("김새봄", datetime.date(1990, 2, 3)).ci
    take(send(service.organization, csv_of([row(ci, service, source)])))
    assert "본인 확인하기" in signed_in.get("/me/").content.decode()
    assert signed_in.post("/me/verify/", {"name": "", "born_on": ""}).status_code == 400
    answer = signed_in.post("/me/verify/", {"name": "김새봄", "born_on": "1990-02-03"}, follow=True)
    assert answer.request["PATH_INFO"] == "/me/" and "1건을 내 목록에" in answer.content.decode()
    assert service.name_ko in answer.content.decode() and "본인 확인하기" not in answer.content.decode()
    assert Subscription.objects.get(person=person).origin == "reported"
    other = signed_in.post("/me/verify/", {"name": "김다른", "born_on": "1990-02-03"}, follow=True)
    assert "다른 쪽과 이어져" in other.content.decode()


def test_nobody_is_believed_outside_the_demo(signed_in):
    assert signed_in.post("/me/verify/", {"name": "김새봄", "born_on": "1990-02-03"}).status_code == 400
    assert not Identity.objects.exists()


def test_a_closed_account_is_nobodys_identity(person):
    by = Actor.person(person)
    identities.verify(person, pretend("a", datetime.date(2000, 1, 1)), by=by, at=timezone.now())
    accounts.close(person, by=by, at=timezone.now())
    assert not Identity.objects.exists()


@pytest.mark.parametrize(
    ("provider", "answer", "ci"),
    [
        ("kakao", {"kakao_account": {"ci": "x"}}, "x"), ("naver", {"ci": "x"}, "x"), ("identity", {"userinfo": {"ci": "x"}}, "x"),
        ("identity", {"ci": "x"}, "x"), ("identity", {"userinfo": {}, "id_token": {"ci": "x"}}, "x"), ("kakao", {"kakao_account": None}, ""), ("naver", {}, ""), ("identity", {"userinfo": {"ci": 5}}, ""),
    ],
)  # fmt: skip
def test_where_each_provider_says_who_it_is(provider, answer, ci):
    from consents.views.identity import _vouched

    assert _vouched(SimpleNamespace(provider=provider, extra_data=answer)).ci == ci


def test_another_sign_in_proves_and_never_signs_in(person, rf):
    from allauth.core.exceptions import ImmediateHttpResponse
    from allauth.socialaccount.models import SocialAccount
    from django.contrib.auth.models import AnonymousUser

    from consents.views.identity import IdentityAdapter

    account = SimpleNamespace(provider="naver", extra_data={"ci": pretend("b", datetime.date(2000, 1, 1)).ci})
    for who, address in ((AnonymousUser(), "/accounts/login/"), (person, "/me/verify/")):
        request = rf.get("/")
        request.user, request._messages = who, SimpleNamespace(add=lambda *_: None)
        with pytest.raises(ImmediateHttpResponse) as told:
            IdentityAdapter(request).pre_social_login(request, SimpleNamespace(account=account))
        assert told.value.response["Location"] == address
    assert Identity.objects.get().provider == "naver" and not SocialAccount.objects.exists()


def test_providers_come_from_the_environment():
    from config import identity

    given = {
        "IDENTITY_KAKAO_CLIENT_ID": "k",
        "IDENTITY_OIDC_CLIENT_ID": "o",
        "IDENTITY_OIDC_ISSUER": "https://id.example.com/x",
    }
    env = lambda name, default="": given.get(name, default)  # noqa: E731
    assert set(identity.providers(env)) == {"kakao", "openid_connect"}
    assert identity.origins(env) == ["https://kauth.kakao.com", "https://id.example.com"]
    assert identity.providers(lambda name, default="": default) == {}
