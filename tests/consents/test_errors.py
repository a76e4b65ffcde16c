"""What goes wrong is said in words, in both languages, and says nothing it should not."""

import pytest
from django.test import Client, override_settings
from django.urls import path

from config import urls
from consents import access

pytestmark = pytest.mark.django_db


@access.public
def broken(request):
    raise RuntimeError("a secret detail")


urlpatterns = [*urls.urlpatterns, path("broken/", broken), path("api/broken/", broken)]
handler400, handler403, handler404, handler500 = (
    urls.handler400,
    urls.handler403,
    urls.handler404,
    urls.handler500,
)


@pytest.mark.parametrize(("language", "words"), [("ko", "찾는"), ("en", "find")])
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
