"""Who reaches what: two people, two operators, and nobody, at every address there is (T06, T07, T09, T10, T42)."""

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from consents import access, lifecycle
from consents.actors import Actor
from consents.models import Member
from tests import factories
from tests.consents import surface
from tests.consents.surface import BODIES, FORMS, Address, Side, fingerprint

pytestmark = pytest.mark.django_db
ADDRESSES = surface.addresses()
PAGES = [
    a
    for a in ADDRESSES
    if a.rule in (access.PERSON, access.REGULATOR, access.OPERATOR_ADMIN, access.SIGNED_IN)
]
DOORS = [a for a in ADDRESSES if a.is_api]
OWN = [a for a in PAGES if "<" in a.path and a.rule in (access.PERSON, access.OPERATOR_ADMIN)]


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "surface-keys"


def post(client, address: Address, side: Side, url: str):
    return client.post(url, FORMS[address.name].honest(side) if address.name in FORMS else {})


# --- T06: another person's --------------------------------------------------------------------------------------------------------

# What both may see: a lodged request belongs to whoever comes first with its unguessable id; services are public.
SHARED = {"consent_request", "decline_request", "join", "ask"}


def test_another_persons_or_operators_page_does_not_exist(alice, bob, subtests):
    before = fingerprint()
    for address in OWN:
        if address.name in SHARED:
            continue
        with subtests.test(address.path):
            client, url = bob.browser(address.rule), alice.fill(address.path)
            assert client.get(url).status_code in (404, 405)
            assert post(client, address, alice, url).status_code in (404, 405)
            own = bob.browser(address.rule).get(bob.fill(address.path))
            assert own.status_code in (200, 302, 303, 405), "one's own does exist"
    assert fingerprint() == before


def test_a_request_that_somebody_took_up_does_not_exist_for_others(alice, bob):
    url = alice.fill("requests/<uuid:pk>/")
    assert alice.browser(access.PERSON).post(url).status_code == 303
    before = fingerprint()
    for path in ("requests/<uuid:pk>/", "requests/<uuid:pk>/decline/"):
        assert bob.browser(access.PERSON).post(alice.fill(path)).status_code == 404
    assert bob.browser(access.PERSON).get(url).status_code == 404
    assert fingerprint() == before


def test_somebody_elses_rows_cannot_be_named_in_a_form(alice, bob):
    before, client = fingerprint(), bob.browser(access.PERSON)
    hers = str(alice.live.pk)
    assert (
        client.post("/me/end/", {"subscription": [hers], "step": "confirm", "erase": "on"}).status_code == 404
    )
    assert (
        client.post("/me/end/", {"subscription": [str(bob.live.pk), hers], "step": "confirm"}).status_code
        == 404
    )
    assert (
        client.post(bob.fill("services/<slug:slug>/join/"), {"end": hers, "erase": "on"}).status_code == 404
    )
    assert fingerprint() == before


def test_lists_show_ones_own_only(alice, bob):
    client = bob.browser(access.PERSON)
    for url in ("/me/", "/me/history/", "/me/notices/", "/me/?state=all"):
        text = client.get(url).content.decode()
        for foreign in (
            alice.live.pk,
            alice.ended.pk,
            alice.live.service.name_ko,
            alice.person.email,
            alice.person.name,
        ):
            assert str(foreign) not in text, url


# --- T07: another operator's --------------------------------------------------------------------------------------------------------


def test_anothers_thing_does_not_exist_at_the_json_doors(alice, bob, subtests):
    before = fingerprint()
    for address in DOORS:
        who = surface.caller_of(address)
        if (
            "<" not in address.path
            or who in ("nobody", "regulator")
            or (who == "person" and "<slug:slug>" in address.path)
        ):
            continue  # services are public: anybody may join them; a regulator reads everybody's
        with subtests.test(address.path):
            path = alice.fill(address.path).removeprefix("/api/v1/")
            if "GET" in address.methods() - surface.open_to_all(address):
                assert bob.callers[who].get(path).status_code == 404
            for verb in address.methods() & {"POST", "PUT"}:
                body = BODIES[address.path.removeprefix("api/v1/")](alice)
                assert bob.callers[who].post(path, body, verb=verb.lower()).status_code == 404
            if "DELETE" in address.methods():
                headers = bob.callers[who].headers
                assert Client().delete(f"/api/v1/{path}", headers=headers).status_code == 404
    assert fingerprint() == before


def test_an_operators_lists_and_evidence_are_its_own(alice, bob):
    caller = bob.callers["organization"]
    assert str(alice.delivery.jti) not in caller.get("deliveries").content.decode()
    assert str(alice.consent.pk) not in caller.get("consents").content.decode()
    before = fingerprint()
    signed = alice.signer.sign(alice.signer.claims(alice.delivery))
    assert caller.post("evidence", signed, content_type="application/jwt").status_code in (400, 404)
    posing = bob.signer.sign(bob.signer.claims(alice.delivery))
    assert caller.post("evidence", posing, content_type="application/jwt").status_code == 404
    assert caller.post("consent-requests", {"service": alice.service.client_id}).status_code == 404
    assert fingerprint() == before


def test_a_source_is_no_operator(alice):
    from tests.consents.api.conftest import of

    source = of(alice.consent.source)
    assert source.get("deliveries").status_code == 200
    for path in ("consents", f"consents/{alice.consent.pk}", f"consent-requests/{alice.lodged.pk}"):
        assert source.get(path).status_code == 403


# --- roles --------------------------------------------------------------------------------------------------------------------------


def test_every_page_is_for_one_role_only(alice, subtests):
    before = fingerprint()
    for address in PAGES:
        if address.rule == access.SIGNED_IN:
            continue
        with subtests.test(address.path):
            url = alice.fill(address.path)
            for other in {access.PERSON, access.REGULATOR, access.OPERATOR_ADMIN} - {address.rule}:
                assert alice.browser(other).get(url).status_code == 403
                assert post(alice.browser(other), address, alice, url).status_code == 403
    assert fingerprint() == before


def test_nobody_is_sent_to_sign_in(alice, subtests):
    before = fingerprint()
    for address in PAGES:
        with subtests.test(address.path):
            url = alice.fill(address.path)
            answer = Client().get(url)
            assert answer.status_code == 302 and answer["Location"].startswith(reverse("account_login"))
            assert Client().post(url).status_code == 302
    assert fingerprint() == before


def test_every_json_door_wants_its_own_kind_of_caller(alice, subtests):
    before = fingerprint()
    for address in DOORS:
        who = surface.caller_of(address)
        path = alice.fill(address.path).removeprefix("/api/v1/")
        with subtests.test(address.path):
            for method in sorted(address.methods() & {"GET", "POST", "PUT"} - surface.open_to_all(address)):
                for caller in ("person", "organization", "nobody"):
                    if who in ("nobody", caller):
                        continue
                    body = () if method == "GET" else ({},)
                    got = getattr(alice.callers[caller], method.lower())(path, *body)
                    # 40104 of the Korean support API, for whoever may not call it, goes with 401
                    no = 401 if caller == "nobody" or address.path.startswith("mydata/") else 403
                    assert got.status_code == no, (method, caller)
    assert fingerprint() == before


def test_a_member_of_an_organization_is_no_consumer(alice):
    """An account has exactly one role; whoever works for an operator has no page of subscriptions."""
    client = alice.browser(access.OPERATOR_ADMIN)
    assert client.get("/me/").status_code == 403
    assert client.get("/start/").headers["Location"] == reverse("desk")


def test_who_loses_their_role_loses_it_at_once(alice):
    client = alice.browser(access.OPERATOR_ADMIN)
    assert client.get("/desk/").status_code == 200
    Member.objects.filter(person=alice.admin).delete()
    assert client.get("/desk/").status_code == 403


def test_a_deactivated_account_is_signed_out(alice):
    client = alice.browser(access.PERSON)
    type(alice.person).objects.filter(pk=alice.person.pk).update(is_active=False)
    assert client.get("/me/").status_code == 302
    assert alice.callers["person"].get("me/summary").status_code == 401


# --- T09: forged forms ----------------------------------------------------------------------------------------------------------------


def test_a_form_from_elsewhere_is_refused(alice, subtests):
    before = fingerprint()
    for address in PAGES:
        if address.name not in FORMS:
            continue
        with subtests.test(address.path):
            url = alice.fill(address.path)
            client = alice.browser(address.rule, enforce_csrf_checks=True)
            assert post(client, address, alice, url).status_code == 403
            foreign = client.post(
                url, FORMS[address.name].honest(alice), headers={"Origin": "https://evil.example"}
            )
            assert foreign.status_code == 403
            assert "바뀐 것은 아무것도 없어요" in foreign.content.decode()
    assert fingerprint() == before


def test_a_browsers_session_opens_json_doors_with_the_forms_token_only(alice):
    before = fingerprint()
    client = alice.browser(access.PERSON, enforce_csrf_checks=True)
    assert client.get("/api/v1/me/summary").status_code == 200
    url = f"/api/v1/me/subscriptions/{alice.live.pk}/end"
    assert client.post(url, '{"erase": true}', content_type="application/json").status_code == 403
    assert fingerprint() == before


def test_nothing_changes_by_looking(alice, subtests):
    """A GET at an address that changes something is 405, or a page that asks first."""
    before = fingerprint()
    for address in PAGES:
        with subtests.test(address.path):
            answer = alice.browser(address.rule).get(alice.fill(address.path))
            assert answer.status_code in (200, 302, 303, 405), answer.status_code
            if answer.status_code == 405:
                assert "POST" in answer["Allow"] and answer.content, "told in words"
    assert fingerprint() == before


def test_every_page_that_takes_a_form_is_described(alice):
    """A new form page stands in surface.FORMS, so that every crawl and sweep finds it."""
    takes = {
        address.name
        for address in PAGES
        if alice.browser(address.rule).post(alice.fill(address.path), {"no-such-field": "x"}).status_code
        != 405
    }
    assert takes - {"start"} == set(FORMS) - {"verify"}  # which is for everybody: ledger/test_verify.py


def test_every_json_door_that_takes_a_body_is_described():
    takes = {
        address.path.removeprefix("api/v1/") for address in DOORS if address.methods() - {"GET", "DELETE"}
    }
    assert takes == set(BODIES)


# --- T10, T42: headers ------------------------------------------------------------------------------------------------------------------


def test_no_answer_can_be_framed_or_leaks_where_one_was(alice, subtests):
    stays_here(Client().get("/no/such/page/"))
    for address in ADDRESSES:
        if address.path.startswith("identity/") or address.rule is None:
            continue
        with subtests.test(address.path):
            url = alice.fill(address.path)
            stays_here(Client().get(url))
            if address.rule not in (access.PUBLIC, access.API):
                stays_here(alice.browser(address.rule).get(url))
                stays_here(alice.browser(address.rule).post(url))


def stays_here(answer) -> None:
    assert answer["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in answer["Content-Security-Policy"]
    assert answer["Referrer-Policy"] == "same-origin"
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_signed_in_pages_are_kept_nowhere(alice, subtests):
    for address in PAGES:
        with subtests.test(address.path):
            answer = alice.browser(address.rule).get(alice.fill(address.path))
            assert "no-store" in answer["Cache-Control"] and "private" in answer["Cache-Control"]


def test_a_public_page_of_somebody_signed_in_is_kept_nowhere_either(alice):
    assert "no-store" in alice.browser(access.PERSON).get("/")["Cache-Control"]


def test_answers_with_a_token_are_kept_nowhere(alice, subtests):
    for address in DOORS:
        who = surface.caller_of(address)
        if who == "nobody" or "GET" not in address.methods():
            continue
        with subtests.test(address.path):
            path = alice.fill(address.path).removeprefix("/api/v1/") + surface.QUERIES.get(address.path, "")
            answer = alice.callers[who].get(path)
            assert answer.status_code == 200 and "no-store" in answer["Cache-Control"]


def test_cookies_are_for_us_alone(alice):
    client = alice.browser(access.PERSON)
    client.get("/me/account/")
    for name, cookie in client.cookies.items():
        assert cookie["samesite"] == "Lax", name
        assert cookie["httponly"] or name == "django_language", name


# --- access.py itself ---------------------------------------------------------------------------------------------------------------------


def test_a_view_without_a_rule_lets_nobody_in(rf, person):
    from django.core.exceptions import PermissionDenied

    request = rf.get("/")
    request.user = person
    with pytest.raises(PermissionDenied):
        access.GuardMiddleware(lambda request: None).process_view(request, lambda request: None, (), {})


def test_roles(person):
    from django.contrib.auth.models import AnonymousUser

    admin = factories.MemberFactory().person
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    assert [access.role(user) for user in (AnonymousUser(), person, admin, regulator)] == [
        None,
        "person",
        "operator_admin",
        "regulator",
    ]


def test_after_leaving_the_pages_are_still_ones_own(alice):
    lifecycle.leave(alice.live, erase=True, by=Actor.person(alice.person), at=timezone.now())
    client = alice.browser(access.PERSON)
    for path in ("", "certificate/", "receipt/", "terms/"):
        assert client.get(f"/me/subscriptions/{alice.live.pk}/{path}").status_code == 200
