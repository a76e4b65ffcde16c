"""Consent requests: lodged by an operator, decided once by one person, and never a way to send somebody elsewhere."""

import datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import transaction
from django.db.utils import IntegrityError
from django.utils import timezone

from consents import lifecycle, requests
from consents.actors import Actor
from consents.ledger import disclosed
from consents.models import ConsentRequest, EntryIndex, Subscription
from tests.consents.test_join_pages import answer, ask_url, bump_url
from tests.factories import LicenceFactory, PersonFactory, api_client, joined, offered

pytestmark = pytest.mark.django_db

BACK = "https://app.example.com/back"
SYSTEM = Actor.system("test")


@pytest.fixture
def service():
    made = offered()
    api_client(
        made.organization, redirect_uris=f"{BACK}\njavascript:alert(1)\nhttps://app.example.com/other?a=1"
    )
    return made


def lodge(service, *, at=None, **more):
    at = at or timezone.now()
    given = {"redirect_uri": BACK, "client_state": "s-1", **more}
    return requests.lodge(organization=service.organization, service=service, by=SYSTEM, at=at, **given)


def page(lodged):
    return f"/requests/{lodged.pk}/"


def text(response):
    return response.content.decode()


# --- lodging -------------------------------------------------------------------------------------------------------------


def test_lodging_is_recorded_and_expires(service):
    at = timezone.now()
    lodged = lodge(service, at=at)
    assert lodged.expires_at == at + datetime.timedelta(minutes=10)
    entry = EntryIndex.objects.get(typ="request.lodged")
    said = disclosed([entry.event_id])[entry.event_id]
    assert said["req"] == str(lodged.pk)
    assert said["svc"] == service.client_id


@pytest.mark.parametrize(
    "address",
    [
        "https://app.example.com/back/", "https://app.example.com/BACK", "https://app.example.com/back?x=1", "http://app.example.com/back",
        "//evil.example", "/\\evil.example", "https:evil.example", "https://app.example.com@evil.example/back",
        "https://app.example.com/back\t", "javascript:alert(1)", f"{BACK}\n{BACK}",
    ],
)  # fmt: skip
def test_only_a_registered_address_is_taken_word_for_word(service, address):
    with pytest.raises(requests.NotRegistered):
        lodge(service, redirect_uri=address)
    assert not ConsentRequest.objects.exists()


def test_a_request_may_lead_nowhere(service):
    assert lodge(service, redirect_uri="").redirect_uri == ""


def test_without_an_api_client_no_address_is_registered():
    with pytest.raises(requests.NotRegistered):
        lodge(offered())


def test_another_organizations_service_cannot_be_asked_for(service):
    with pytest.raises(requests.NotOwnService):
        requests.lodge(organization=offered().organization, service=service, by=SYSTEM, at=timezone.now())


def test_what_nobody_could_join_cannot_be_asked_for(service):
    day = timezone.localdate()
    LicenceFactory(organization=service.organization, status="cancelled", decided_on=day, effective_on=day)
    with pytest.raises(lifecycle.NotOpen):
        lodge(service)


def test_a_state_that_is_too_long_is_refused(service):
    with pytest.raises(ValueError, match="200"):
        lodge(service, client_state="x" * 201)


# --- deciding ------------------------------------------------------------------------------------------------------------


def choose(service):
    terms = service.terms.get(state="published")
    return {
        "terms": terms,
        "choices": [lifecycle.Choice(item) for item in terms.items.filter(required=True)],
        "language": "ko",
    }


def test_accepting_joins_and_grants_together(service, person, me):
    lodged = lodge(service)
    subscription = requests.accept(lodged, person=person, by=me, at=timezone.now(), **choose(service))
    lodged.refresh_from_db()
    assert (lodged.state, lodged.subscription, lodged.person) == ("granted", subscription, person)
    assert subscription.origin == "request"


def test_a_join_that_is_refused_leaves_the_request_open(service, person, me):
    lodged = lodge(service)
    joined(person, service)
    with pytest.raises(lifecycle.AlreadyJoined):
        requests.accept(lodged, person=person, by=me, at=timezone.now(), **choose(service))
    lodged.refresh_from_db()
    assert lodged.state == "pending"


def test_a_request_is_decided_once(service, person, me):
    at = timezone.now()
    lodged = lodge(service, at=at)
    requests.decline(lodged, person=person, by=me, at=at)
    for again in (
        lambda: requests.decline(lodged, person=person, by=me, at=at),
        lambda: requests.take_up(lodged, person=person, by=me, at=at),
        lambda: requests.accept(lodged, person=person, by=me, at=at, **choose(service)),
    ):
        with pytest.raises(requests.Closed):
            again()
    assert not Subscription.objects.exists()
    assert EntryIndex.objects.filter(typ="request.declined").count() == 1


def test_the_database_refuses_a_second_decision(service, person, me):
    lodged = requests.decline(lodge(service), person=person, by=me, at=timezone.now())
    with pytest.raises(IntegrityError), transaction.atomic():
        ConsentRequest.objects.filter(pk=lodged.pk).update(state="pending", decided_at=None)


def test_whoever_takes_it_up_first_has_it_and_time_to_read(service, person, me):
    at = timezone.now()
    lodged = requests.take_up(lodge(service, at=at), person=person, by=me, at=at)
    assert lodged.expires_at == at + datetime.timedelta(minutes=60)
    other = PersonFactory()
    for act in (requests.take_up, requests.decline):
        with pytest.raises(requests.Closed):
            act(lodged, person=other, by=Actor.person(other), at=at)


def test_what_has_expired_cannot_be_accepted(service, person, me):
    at = timezone.now()
    lodged = lodge(service, at=at)
    with pytest.raises(requests.Closed):
        requests.accept(
            lodged, person=person, by=me, at=at + datetime.timedelta(minutes=10), **choose(service)
        )


def test_expiry_closes_what_is_due_and_only_once(service):
    at = timezone.now()
    old, new = lodge(service, at=at), lodge(service, at=at + datetime.timedelta(minutes=5))
    later = at + datetime.timedelta(minutes=11)
    assert requests.expire_due(by=SYSTEM, at=later) == 1
    assert requests.expire_due(by=SYSTEM, at=later) == 0
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.state, new.state) == ("expired", "pending")
    assert EntryIndex.objects.filter(typ="request.expired").count() == 1


# --- the way back ----------------------------------------------------------------------------------------------------------


def test_the_way_back_carries_state_issuer_and_answer(service, person, me, settings):
    lodged = lodge(service, redirect_uri="https://app.example.com/other?a=1", client_state="a&b=c #")
    assert requests.return_address(lodged) == ""
    lodged = requests.decline(lodged, person=person, by=me, at=timezone.now())
    parts = urlsplit(requests.return_address(lodged))
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "app.example.com", "/other")
    assert parse_qs(parts.query) == {
        "a": ["1"], "request": [str(lodged.pk)], "iss": [settings.PORTAL_URL], "state": ["a&b=c #"], "error": ["access_denied"],
    }  # fmt: skip


# --- pages -----------------------------------------------------------------------------------------------------------------


def test_the_page_says_who_asks_in_our_own_words(signed_in, service):
    lodged = lodge(service, client_state="pretend-to-be-the-bank")
    shown = signed_in.get(page(lodged))
    assert shown.status_code == 200
    assert service.organization.name_ko in text(shown)
    assert BACK not in text(shown)
    assert lodged.client_state not in text(shown)
    lodged.refresh_from_db()
    assert lodged.person is None


def test_from_request_to_receipt(signed_in, person, service):
    lodged = lodge(service)
    taken = signed_in.post(page(lodged))
    assert (taken.status_code, taken["Location"]) == (303, f"{bump_url(service)}?request={lodged.pk}")
    bump = signed_in.get(taken["Location"])
    ask = signed_in.get(ask_url(service), {"seen": bump.context["seen"], "request": str(lodged.pk)})
    assert f'name="request" value="{lodged.pk}"' in text(ask)
    done = signed_in.post(ask_url(service), answer(person, service, request=str(lodged.pk)))
    assert (done.status_code, done["Location"]) == (303, page(lodged))
    lodged.refresh_from_db()
    assert lodged.state == "granted"
    last = text(signed_in.get(page(lodged)))
    assert "app.example.com" in last
    assert f"/me/subscriptions/{lodged.subscription_id}/receipt/" in last


def test_declining_from_the_page(signed_in, service):
    lodged = lodge(service)
    done = signed_in.post(f"{page(lodged)}decline/", follow=True)
    assert done.redirect_chain == [(page(lodged), 303)]
    assert "error=access_denied" in text(done)
    assert not Subscription.objects.exists()
    assert signed_in.post(f"{page(lodged)}decline/").status_code == 409
    assert signed_in.get(f"{page(lodged)}decline/").status_code == 405


def test_an_expired_request_leads_nowhere(signed_in, person, service):
    lodged = lodge(service, at=timezone.now() - datetime.timedelta(hours=1))
    over = signed_in.get(page(lodged))
    assert over.status_code == 410
    assert "app.example.com" not in text(over)
    assert "10분 안에 열고, 연 뒤 60분 안에" in text(over)
    assert signed_in.post(page(lodged)).status_code == 410
    assert (
        signed_in.post(ask_url(service), answer(person, service, request=str(lodged.pk))).status_code == 409
    )
    assert not Subscription.objects.exists()


def test_a_closed_service_is_asked_for_no_longer(signed_in, person, service, me):
    """Whoever still has the link learns why, and the operator that nothing comes of it."""
    from consents import inbound

    waiting, taken = lodge(service), requests.take_up(lodge(service), person=person, by=me, at=timezone.now())
    inbound.close_service(service, by=SYSTEM, at=timezone.now())
    for lodged in (waiting, taken):
        over = signed_in.get(page(lodged))
        assert over.status_code == 410 and "이 서비스는 닫혔어요" in text(over)
        assert signed_in.post(page(lodged)).status_code == 410
        with pytest.raises(requests.Closed):
            requests.accept(
                ConsentRequest.objects.get(pk=lodged.pk),
                person=person,
                by=me,
                at=timezone.now(),
                **choose(service),
            )
    assert requests.expire_due(by=SYSTEM, at=timezone.now()) == 2
    assert requests.expire_due(by=SYSTEM, at=timezone.now()) == 0
    assert {row.state for row in ConsentRequest.objects.all()} == {"expired"}


def test_somebody_elses_and_unknown_requests_do_not_exist(signed_in, person, service):
    other = PersonFactory()
    taken = requests.take_up(lodge(service), person=other, by=Actor.person(other), at=timezone.now())
    unknown = "/requests/00000000-0000-7000-8000-000000000000/"
    assert signed_in.get(page(taken)).status_code == 404
    assert signed_in.post(page(taken)).status_code == 404
    assert signed_in.post(f"{page(taken)}decline/").status_code == 404
    assert signed_in.get(unknown).status_code == 404
    assert signed_in.post(ask_url(service), answer(person, service, request=str(taken.pk))).status_code == 404


def test_a_request_for_another_service_does_not_fit(signed_in, person, service):
    lodged, other = lodge(service), offered()
    assert signed_in.post(ask_url(other), answer(person, other, request=str(lodged.pk))).status_code == 404
    assert not Subscription.objects.exists()


def test_a_visitor_signs_in_first_and_comes_back(visitor, service):
    lodged = lodge(service)
    sent = visitor.get(page(lodged))
    assert sent.status_code == 302
    assert sent["Location"].endswith(f"?next={page(lodged)}")


# --- PKCE: the way back with a code ------------------------------------------------------------------------------------------

VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.fixture
def granted(service, person, me):
    """A request with PKCE that the person has said yes to, without the optional items."""
    lodged = lodge(service, code_challenge=CHALLENGE)
    requests.accept(lodged, person=person, by=me, at=timezone.now(), **choose(service))
    lodged.refresh_from_db()
    return lodged


def code_of(address: str) -> str:
    return parse_qs(urlsplit(address).query)["code"][0]


def redeem(lodged, code, *, at=None, **change):
    shown = {"code_verifier": VERIFIER, "redirect_uri": BACK, "organization": lodged.organization} | change
    return requests.redeem(code, by=SYSTEM, at=at or timezone.now(), **shown)


def test_the_way_back_carries_a_code_that_the_operator_redeems(signed_in, granted, person):
    shown = signed_in.get(page(granted))
    assert "code=" not in text(shown) and f'action="{page(granted)}return/"' in text(shown)
    assert "form-action 'self' https://app.example.com" in shown["Content-Security-Policy"]
    back = signed_in.post(f"{page(granted)}return/")
    assert back.status_code == 303 and back["Location"].startswith(f"{BACK}?")
    query = parse_qs(urlsplit(back["Location"]).query)
    assert query.keys() == {"request", "iss", "state", "code"}
    assert (query["iss"], query["state"]) == (["http://127.0.0.1:8000"], ["s-1"])
    found = redeem(granted, query["code"][0])
    assert (found.pk, found.person, found.redeemed_at is None) == (granted.pk, person, False)


def test_a_code_works_once(granted, person, me):
    code = code_of(requests.send_back(granted, person=person, by=me, at=timezone.now()))
    redeem(granted, code)
    with pytest.raises(requests.BadCode):
        redeem(granted, code)
    with pytest.raises(requests.Closed):
        requests.send_back(granted, person=person, by=me, at=timezone.now())


def test_a_new_code_takes_the_place_of_the_old(granted, person, me):
    first, second = (
        code_of(requests.send_back(granted, person=person, by=me, at=timezone.now())) for _ in range(2)
    )
    with pytest.raises(requests.BadCode):
        redeem(granted, first)
    assert redeem(granted, second)


@pytest.mark.parametrize(
    "change",
    [
        {"code_verifier": "x" * 43}, {"code_verifier": CHALLENGE}, {"code_verifier": VERIFIER + "x"}, {"code_verifier": ""},
        {"code_verifier": "é" * 43}, {"redirect_uri": BACK + "/"}, {"redirect_uri": ""},
        {"redirect_uri": "https://app.example.com/other?a=1"},
    ],
)  # fmt: skip
def test_a_code_with_anything_else_beside_it_opens_nothing(granted, person, me, change):
    code = code_of(requests.send_back(granted, person=person, by=me, at=timezone.now()))
    with pytest.raises(requests.BadCode):
        redeem(granted, code, **change)
    assert redeem(granted, code), "and is not used up by it"


def test_a_code_lasts_a_minute(granted, person, me):
    at = timezone.now()
    code = code_of(requests.send_back(granted, person=person, by=me, at=at))
    with pytest.raises(requests.BadCode):
        redeem(granted, code, at=at + datetime.timedelta(seconds=60))


def test_a_code_is_of_the_operator_that_lodged(granted, person, me):
    code = code_of(requests.send_back(granted, person=person, by=me, at=timezone.now()))
    with pytest.raises(requests.BadCode):
        redeem(granted, code, organization=offered().organization)
    for nonsense in ("", "x", code[:-1], code.upper()):
        with pytest.raises(requests.BadCode):
            redeem(granted, nonsense)


def test_no_code_before_a_yes_after_a_no_or_for_somebody_else(service, granted, person, me):
    other = PersonFactory()
    pending = lodge(service, code_challenge=CHALLENGE)
    declined = requests.decline(
        lodge(service, code_challenge=CHALLENGE), person=person, by=me, at=timezone.now()
    )
    plain = lodge(service)
    for lodged, who in ((pending, person), (declined, person), (plain, person), (granted, other)):
        with pytest.raises(requests.Closed):
            requests.send_back(lodged, person=who, by=Actor.person(who), at=timezone.now())


def test_after_a_no_the_link_says_so_and_has_no_code(signed_in, service):
    lodged = lodge(service, code_challenge=CHALLENGE)
    done = signed_in.post(f"{page(lodged)}decline/", follow=True)
    assert "error=access_denied" in text(done) and "/return/" not in text(done)
    assert signed_in.post(f"{page(lodged)}return/").status_code == 409


@pytest.mark.parametrize("challenge", ["x" * 42, "x" * 44, "é" * 43, CHALLENGE + "="])
def test_a_challenge_that_is_none(service, challenge):
    with pytest.raises(ValueError, match="code_challenge"):
        lodge(service, code_challenge=challenge)
    with pytest.raises(ValueError, match="redirect_uri"):
        lodge(service, redirect_uri="", code_challenge=CHALLENGE)


def test_the_reference_in_the_browser_says_nothing(service):
    """It is wholly random: neither a moment nor an order can be read from it."""
    assert all(lodge(service).pk.version == 4 for _ in range(3))


@pytest.mark.parametrize(
    ("address", "taken"), [("http://127.0.0.1:9/back", True), ("http://app.example.com/back", False)]
)
def test_without_tls_only_on_the_developers_own_machine(service, address, taken):
    client = service.organization.api_client.client
    client.set_redirect_uris([address])
    client.save()
    if taken:
        assert lodge(service, redirect_uri=address).redirect_uri == address
    else:
        with pytest.raises(requests.NotRegistered):
            lodge(service, redirect_uri=address)


def test_the_number_stands_before_any_choice(signed_in, person, service):
    """The speed bump comes first: who is sent over sees at once how many hold their data already."""
    joined(person)
    first = text(signed_in.get(page(lodge(service))))
    assert "곳이 내 정보를 가지고 있어요" in first
    assert first.index("big-number") < first.index("무엇을 묻는지 보기")


EVIL = [
    "//evil.example", "/\\evil.example", "\\\\evil.example", "https:evil.example", "https:/evil.example", "https:///evil.example",
    "/\t/evil.example", "\t//evil.example", " //evil.example", "https://127.0.0.1:8000@evil.example/", "//127.0.0.1:8000@evil.example",
    "javascript:alert(1)", "data:text/html,x", "http:\n//evil.example", "///evil.example", "//evil.example\\@127.0.0.1:8000",
]  # fmt: skip


@pytest.mark.parametrize("address", EVIL)
def test_no_parameter_sends_anybody_elsewhere(visitor, signed_in, service, address):
    """T08: only the stored address is ever a way out."""
    lodged = lodge(service)
    names = ("next", "redirect_uri", "return", "state", "request_uri")
    for client, url in (
        (signed_in, page(lodged)),
        (signed_in, "/requests/00000000-0000-4000-8000-000000000000/"),
    ):
        for verb in ("get", "post"):
            answer = getattr(client, verb)(url, query_params=dict.fromkeys(names, address))
            assert "evil.example" not in answer.headers.get("Location", ""), verb
    from django.test import Client

    for url in ("/accounts/login/", "/language/", "/start/"):
        answer = Client().post(
            url, {"next": address, "language": "ko", "login": "x"}, query_params={"next": address}
        )
        assert "evil.example" not in answer.headers.get("Location", ""), url
    with pytest.raises(requests.NotRegistered):
        lodge(service, redirect_uri=address)
