"""What goes wrong is said in words, in both languages, and says nothing it should not."""

import pytest
from django.test import Client, override_settings
from django.urls import path, reverse

from config import urls
from consents import access
from tests import factories

pytestmark = pytest.mark.django_db


@access.public
def broken(request):
    raise RuntimeError("a secret detail")


urlpatterns = [path("broken/", broken), path("api/broken/", broken), *urls.urlpatterns]
handler400, handler403, handler404, handler500 = (
    urls.handler400,
    urls.handler403,
    urls.handler404,
    urls.handler500,
)


@pytest.mark.parametrize(("language", "words"), [("ko", "찾는"), ("en", "Page not found")])
def test_an_unknown_address_gets_a_page(client, language, words):
    answer = client.get("/nowhere/", headers={"accept-language": language})
    assert answer.status_code == 404 and words in answer.content.decode()


def test_an_unknown_api_address_gets_problem_details(client):
    answer = client.get("/api/v1/nowhere")
    assert answer.status_code == 404 and answer.headers["content-type"].startswith("application/problem+json")


def test_the_wrong_method_gets_words_too(signed_in):
    answer = signed_in.get("/me/end/")
    assert answer.status_code == 405 and "POST" in answer.headers["Allow"]
    assert "이 주소는 이렇게 열 수 없어요" in answer.content.decode()


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize("address", ["/broken/", "/api/broken/"])
def test_our_own_fault_is_told_without_its_detail(address):
    answer = Client(raise_request_exception=False).get(address)
    assert answer.status_code == 500 and "a secret detail" not in answer.content.decode()


def test_a_form_without_its_token_is_refused_in_words(person):
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    answer = browser.post("/me/end/", {})
    assert answer.status_code == 403 and "<h1>" in answer.content.decode()


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ('{"erase": true}', "application/json", 415),
        ("until_on=x", "text/plain", 415),
        ("a=" + "x" * 10_000_000, "application/x-www-form-urlencoded", 413),
    ],
)
def test_a_page_takes_forms_of_a_decent_size_only(signed_in, person, body, kind, status):
    subscription = factories.joined(person)
    for name in ("end", "erase"):
        answer = signed_in.post(reverse(name, args=[subscription.pk]), body, content_type=kind)
        assert answer.status_code == status
    subscription.refresh_from_db()
    assert subscription.state == "active"


def test_a_sign_in_that_fails_is_no_success(client, db):
    assert client.post("/accounts/login/", {"login": "not an address"}).status_code == 400
    assert client.post("/accounts/signup/", {}).status_code == 400


@pytest.mark.parametrize(
    "address", ["/operators/%00/", "/operators/a%00b/", "/api/v1/me/history?on=9999-12-31"]
)
def test_odd_addresses_are_no_fault_of_ours(signed_in, address):
    assert signed_in.get(address).status_code in (400, 404)
