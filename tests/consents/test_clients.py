"""OAuth2 clients at the desk: a fresh sign-in for every change, secrets shown once, and nothing of anybody else's."""

import datetime
import json
import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from joserfc.jwk import ECKey, OctKey, RSAKey

from consents import clients, lifecycle
from consents.actors import Actor
from consents.models import EntryIndex, Person
from consents.queries import clients as queries
from providers import keysets, outbound
from providers.models import ApiClient, ClientSecret, KeySet
from tests import factories
from tests.consents.api.conftest import Signer, of

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
BY = Actor.system("test")
CHANGES = ["new_api_client", "new_api_app", "api_keys", "remove_api_keys", "change_api_client", "rotate_api_secret",
           "revoke_api_tokens", "retire_api_client", "retire_api_secret"]  # fmt: skip


def browser(person, *, signed_in: float | None = 0.0) -> Client:
    """Their browser; `signed_in` seconds ago they proved who they are (None: long ago)."""
    made = Client()
    made.force_login(person, backend=BACKEND)
    if signed_in is not None:
        factories.prove(made, person, ago=signed_in)
    return made


@pytest.fixture
def admin(db):
    return factories.MemberFactory(organization=factories.OperatorFactory()).person


@pytest.fixture
def own(admin):
    return admin.member.organization


@pytest.fixture
def desk(admin):
    return browser(admin)


@pytest.fixture
def link(own):
    made, _secret = clients.make(own, scopes=["deliveries:ack"], by=BY, at=timezone.now())
    return made


def address(name, link) -> str:
    if name == "retire_api_secret":
        return reverse(name, args=[link.secrets.first().name])
    plain = name in ("new_api_client", "new_api_app", "api_keys", "remove_api_keys")
    return reverse(name) if plain else reverse(name, args=[link.client_id])


def public(**other) -> dict:
    key = ECKey.generate_key("P-256").as_dict(private=False)
    return key | {"kid": "k1", "use": "sig", "alg": "ES256"} | other


def test_an_admin_makes_a_client_and_sees_its_secret_once(desk, own):
    assert reverse("new_api_client") in desk.get(reverse("desk_api")).content.decode()
    page = desk.post(
        reverse("new_api_client"),
        {
            "scopes": ["deliveries:ack", "consents:read"],
            "redirect_uris": "https://a.example/back\n",
            "days": "90",
        },
    )
    assert page.status_code == 200, page.content.decode()
    secret = re.search(r'id="secret" type="text" value="([^"]+)"', page.content.decode())[1]
    link = own.api_client
    assert link.client.get_scopes() == ["deliveries:ack", "consents:read"]
    assert link.client.get_redirect_uris() == ["https://a.example/back"]
    kept = link.secrets.get()
    assert kept.expires_at.date() == (timezone.now() + datetime.timedelta(days=90)).date()
    assert clients.secret_of(clients.find(link.client_id), secret, at=timezone.now()) == kept
    assert secret not in desk.get(reverse("desk_api")).content.decode()
    assert page["Cache-Control"] == "no-store, private"
    entry = EntryIndex.objects.get(party=own)
    assert entry.typ == "key.added"


def test_a_second_client_is_not_made(desk, link):
    sent = {"scopes": ["deliveries:ack"], "days": "90", "redirect_uris": ""}
    assert desk.post(reverse("new_api_client"), sent)["Location"] == reverse("desk_api")
    assert ApiClient.objects.count() == 1


def test_a_secret_is_exchanged_and_the_old_one_retired(desk, link):
    page = desk.post(reverse("rotate_api_secret", args=[link.client_id]), {"days": "365"})
    secret = re.search(r'id="secret" type="text" value="([^"]+)"', page.content.decode())[1]
    assert clients.secret_of(clients.find(link.client_id), secret, at=timezone.now())
    assert "비밀이 둘이에요" in desk.get(reverse("desk_api")).content.decode()
    again = desk.post(reverse("rotate_api_secret", args=[link.client_id]), {"days": "365"})
    assert again["Location"] == reverse("desk_api") and link.secrets.count() == 2
    old = link.secrets.order_by("created_at").first()
    for _ in range(2):  # pressed twice
        assert desk.post(reverse("retire_api_secret", args=[old.name]))["Location"] == reverse("desk_api")
    old.refresh_from_db()
    assert old.retired_at and link.secrets.filter(retired_at__isnull=True).count() == 1


def test_scopes_and_the_way_of_signing_in_are_changed(desk, link, own):
    address = reverse("change_api_client", args=[link.client_id])
    assert 'value="deliveries:ack"' in desk.get(address).content.decode()
    sent = {"scopes": ["consents:read"], "redirect_uris": "", "method": "private_key_jwt", "dpop": "on"}
    refused = desk.post(address, sent)
    assert refused.status_code == 400 and "먼저 공개 키를 등록해 주세요" in refused.content.decode()
    assert (
        desk.post(reverse("api_keys"), {"jwks": json.dumps({"keys": [public()]}), "address": ""}).status_code
        == 302
    )
    assert desk.post(address, sent).status_code == 302
    link.refresh_from_db()
    assert (link.method, link.dpop) == ("private_key_jwt", True)
    assert ApiClient.objects.get().client.get_scopes() == ["consents:read"]
    stays = desk.post(reverse("remove_api_keys"), follow=True)
    assert "이 열쇠로 로그인하는 클라이언트가 있어요" in stays.content.decode() and KeySet.objects.exists()


def test_the_other_admins_are_told_of_every_change(desk, admin, own, link, mailoutbox):
    """T14: a secret or key that one of them makes alone is a thief's way to stay. Each in their own language; nobody else."""
    korean, english, gone = (factories.MemberFactory(organization=own).person for _ in range(3))
    Person.objects.filter(pk=english.pk).update(language="en")
    Person.objects.filter(pk=gone.pk).update(is_active=False)
    factories.MemberFactory(organization=factories.OperatorFactory())
    keys = {"jwks": json.dumps({"keys": [public()]}), "address": ""}
    way = {"scopes": ["deliveries:ack"], "redirect_uris": "", "method": "secret"}

    def told(name, sent=None, *, of=None) -> list[str]:
        mailoutbox.clear()
        assert desk.post(address(name, of or link), sent or {}).status_code in (200, 302)
        assert {letter.to[0] for letter in mailoutbox} in (set(), {korean.email, english.email})
        return [letter.body for letter in sorted(mailoutbox, key=lambda one: one.to[0] == english.email)]

    for name, sent, ko, en in (
        ("rotate_api_secret", {"days": "90"}, "새 클라이언트 비밀을 만들었어요", "A new client secret was made"),
        ("retire_api_secret", {}, "비밀 하나를 거뒀어요", "A client secret was retired"),
        ("api_keys", keys, "공개 키를 등록했어요", "were registered"),
        ("change_api_client", way | {"dpop": "on"}, "로그인하는 방법", "The way it signs in"),
        ("change_api_client", way | {"dpop": "on", "scopes": ["consents:read"]}, "권한이나", "scopes"),
        ("revoke_api_tokens", {}, "토큰을 모두 끊었어요", "tokens were revoked"),
        ("remove_api_keys", {}, "공개 키를 거뒀어요", "keys"),
        ("retire_api_client", {}, "클라이언트를 거뒀어요", "retired"),
    ):  # fmt: skip
        letters = told(name, sent)
        assert len(letters) == 2, name
        assert ko in letters[0] and en in letters[1] and admin.name in letters[0], name
        assert reverse("desk_api") in letters[0] and ("key" in name or link.client_id in letters[1])
    assert told("remove_api_keys") == [], "there was nothing to remove"
    new = {"scopes": ["deliveries:ack"], "redirect_uris": "", "days": "90"}
    assert len(told("new_api_client", new)) == 2
    assert (
        len(told("new_api_app", {"name": "앱", "redirect_uris": "https://a.example/back", "scopes": ["me"]}))
        == 2
    )


def test_a_letter_that_cannot_be_handed_over_undoes_nothing(desk, own, link, monkeypatch):
    factories.MemberFactory(organization=own)

    def down(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", down)
    assert desk.post(reverse("rotate_api_secret", args=[link.client_id]), {"days": "90"}).status_code == 200
    assert link.secrets.count() == 2


def test_another_way_of_signing_in_stands_in_the_log(desk, own, link):
    """By existing words of the log: one way in is retired, another added. Scopes alone are no key."""
    change = reverse("change_api_client", args=[link.client_id])
    seen = EntryIndex.objects.filter(party=own).count()
    sent = {"scopes": ["consents:read"], "redirect_uris": "", "method": "secret"}
    desk.post(change, sent)
    assert EntryIndex.objects.filter(party=own).count() == seen
    desk.post(change, sent | {"dpop": "on"})
    after = EntryIndex.objects.filter(party=own).order_by("seq").values_list("typ", flat=True)
    assert list(after)[seen:] == ["key.retired", "key.added"]


def test_an_application_is_registered_and_retired(desk, own):
    sent = {
        "name": "두루 지갑",
        "scopes": ["me", "openid"],
        "redirect_uris": "https://a.example/b\nkr.durumi.app:/cb\nhttp://127.0.0.1/cb",
    }
    assert desk.post(reverse("new_api_app"), sent).status_code == 302
    app = own.api_clients.get()
    assert app.kind == "app" and app.method == "none" and app.client.type == "public"
    assert "두루 지갑" in desk.get(reverse("desk_api")).content.decode()
    assert desk.post(reverse("rotate_api_secret", args=[app.client_id]), {"days": "90"}).status_code == 400
    desk.post(reverse("retire_api_client", args=[app.client_id]))
    app.refresh_from_db()
    assert app.retired_at and not app.client.get_redirect_uris()


@pytest.mark.parametrize(
    "uri",
    ["http://a.example/", "javascript:alert(1)", "https://", "//a.example", "https://a.example/#x", "https://u@a.example/",
     "https://*.a.example/", "https://a.example/ b", "data:text/html,x", "https:/a", "x" * 600, "https://ā.example/", "file:///x", "custom:/x"],
)  # fmt: skip
def test_an_address_that_nobody_should_be_sent_to_is_not_registered(desk, uri):
    sent = {"name": "앱", "scopes": ["me"], "redirect_uris": uri}
    assert desk.post(reverse("new_api_app"), sent).status_code == 400
    assert not ApiClient.objects.exists()


@pytest.mark.parametrize("scopes", [["oversight:read"], ["deliveries:ack"], ["all"], []])
def test_an_application_gets_what_people_can_give(desk, scopes):
    sent = {"name": "앱", "scopes": scopes, "redirect_uris": "https://a.example/b"}
    assert desk.post(reverse("new_api_app"), sent).status_code == 400


# --- keys ----------------------------------------------------------------------------------------------------------------


def test_keys_are_registered_by_value_and_removed(desk, own):
    assert (
        desk.post(
            reverse("api_keys"), {"jwks": json.dumps({"keys": [public(x5c=["AAAA"])]}), "address": ""}
        ).status_code
        == 302
    )
    kept = KeySet.objects.get(organization=own)
    assert [key["kid"] for key in kept.keys] == ["k1"] and "x5c" not in kept.keys[0]
    assert "k1" in desk.get(reverse("desk_api")).content.decode()
    desk.post(reverse("api_keys"), {"jwks": json.dumps({"keys": [public(kid="k2")]}), "address": ""})
    desk.post(reverse("remove_api_keys"))
    assert not KeySet.objects.exists()
    logged = EntryIndex.objects.filter(party=own).order_by("seq").values_list("typ", flat=True)
    assert list(logged) == ["key.added", "key.retired", "key.added", "key.retired"]


def _bad_sets():
    private = ECKey.generate_key("P-256").as_dict(private=True) | {"kid": "k1"}
    short = {"kty": "RSA", "e": "AQAB", "n": "wX" * 60, "kid": "k1"}
    return {
        "private": ({"keys": [private]}, "비공개 키가 들어 있어요"),
        "shared": ({"keys": [OctKey.generate_key(256).as_dict(private=True) | {"kid": "k1"}]}, "비공개 키가 들어 있어요"),
        "rsa": ({"keys": [RSAKey.generate_key(2048).as_dict(private=True) | {"kid": "k1"}]}, "비공개 키가 들어 있어요"),
        "short": ({"keys": [short]}, "2048비트"),
        "nameless": ({"keys": [public(kid=None)]}, "kid가 있어야"),
        "twice": ({"keys": [public(), public()]}, "kid가 같은"),
        "many": ({"keys": [public(kid=f"k{n}") for n in range(21)]}, "20개까지"),
        "curve": ({"keys": [ECKey.generate_key("P-384").as_dict(private=False) | {"kid": "k1"}]}, "P-256"),
        "encryption": ({"keys": [public(use="enc")]}, "서명에 쓰는 열쇠가 없어요"),
        "empty": ({"keys": []}, "keys라는 목록"), "list": ([], "keys라는 목록"), "text": ("x", "JSON으로"), "deep": ("[" * 9000, "JSON으로"),
        "odd": ({"keys": [public(x=7)]}, "쓸 수 없는 열쇠"), "words": ({"keys": ["k"]}, "쓸 수 없는 열쇠"),
        "doubled": ('{"keys": [], "keys": []}', "JSON으로"),
    }  # fmt: skip


@pytest.mark.parametrize("name", list(_bad_sets()))
def test_keys_that_cannot_be_used_are_refused_with_a_reason(desk, name):
    jwks, words = _bad_sets()[name]
    text = jwks if isinstance(jwks, str) else json.dumps(jwks)
    answer = desk.post(reverse("api_keys"), {"jwks": text, "address": ""})
    assert answer.status_code == 400 and words in answer.content.decode()
    assert not KeySet.objects.exists()


@pytest.mark.parametrize(
    "where",
    [
        "http://a.example/jwks",
        "https://127.0.0.1/jwks",
        "https://localhost/jwks",
        "https://testserver/jwks",
        "x",
    ],
)
def test_keys_are_not_fetched_from_inside(desk, where):
    assert desk.post(reverse("api_keys"), {"address": where, "jwks": ""}).status_code == 400


def test_one_of_both_is_wanted(desk):
    both = {"address": "https://a.example.com/jwks", "jwks": json.dumps({"keys": [public()]})}
    assert desk.post(reverse("api_keys"), both).status_code == 400
    assert desk.post(reverse("api_keys"), {"address": "", "jwks": " "}).status_code == 400


def test_keys_at_an_address_are_fetched_when_they_are_registered(desk, own, monkeypatch):
    monkeypatch.setattr(keysets, "fetch", lambda address: keysets.checked({"keys": [public()]}))
    sent = {"address": "https://keys.example.com/jwks", "jwks": ""}
    assert desk.post(reverse("api_keys"), sent).status_code == 302
    kept = KeySet.objects.get(organization=own)
    assert kept.address == sent["address"] and kept.fetched_at and kept.keys
    assert "keys.example.com" in desk.get(reverse("desk_api")).content.decode()
    monkeypatch.setattr(keysets, "fetch", _silent)
    assert "JWK 모음을 받지 못했어요" in desk.post(reverse("api_keys"), sent).content.decode()


def _silent(address):
    raise keysets.BadKeys("no answer: timeout")


# --- who may -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_asks_for_a_fresh_sign_in(admin, link, name):
    stale = browser(admin, signed_in=999)
    before = list(ClientSecret.objects.values()), list(ApiClient.objects.values())
    answer = stale.post(address(name, link), {"days": "90"})
    assert answer.status_code == 302 and "desk_api" not in answer["Location"]
    assert reverse("desk_api").strip("/") in answer["Location"].replace("%2F", "/")
    assert (list(ClientSecret.objects.values()), list(ApiClient.objects.values())) == before


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in CHANGES
        if name not in ("new_api_client", "new_api_app", "api_keys", "remove_api_keys")
    ],
)
def test_anothers_client_is_not_found(link, name):
    other = browser(factories.MemberFactory(organization=factories.OperatorFactory()).person)
    assert other.post(address(name, link), {"days": "90"}).status_code == 404
    link.refresh_from_db()
    assert link.retired_at is None and link.secrets.get().retired_at is None


@pytest.mark.parametrize(
    "name",
    ["remove_api_keys", "rotate_api_secret", "revoke_api_tokens", "retire_api_client", "retire_api_secret"],
)
def test_looking_at_a_button_does_nothing(desk, link, name):
    assert desk.get(address(name, link)).status_code == 405


def test_others_do_not_see_the_page(client, signed_in):
    assert signed_in.get(reverse("desk_api")).status_code == 403
    assert Client().get(reverse("desk_api")).status_code == 302


def test_unknown_fields_are_refused(desk, link):
    for name in ("revoke_api_tokens", "retire_api_client", "retire_api_secret", "rotate_api_secret"):
        assert desk.post(address(name, link), {"days": "90", "organization": "1"}).status_code == 400
    sent = {"scopes": ["deliveries:ack"], "redirect_uris": "", "method": "secret", "kind": "app"}
    assert desk.post(address("change_api_client", link), sent).status_code == 400


def test_the_screen_costs_the_same_with_many_clients(own, link, admin):
    def cost() -> int:
        with CaptureQueriesContext(
            connection,
        ) as caught:
            queries.screen(own, at=timezone.now())
        return len(caught)

    few = cost()
    for n in range(5):
        clients.make_app(
            own, name=f"앱 {n}", scopes=["me"], redirect_uris=["https://a.example/"], by=BY, at=timezone.now()
        )
    assert cost() == few <= 4
    same = {"scopes": ["me"], "redirect_uris": ["https://a.example/"], "by": BY, "at": timezone.now()}
    with pytest.raises(clients.SameName):
        clients.make_app(own, name="앱 1", **same)
    for n in range(5, 10):
        clients.make_app(own, name=f"앱 {n}", **same)
    with pytest.raises(clients.AlreadyThere):
        clients.make_app(own, name="앱 10", **same)


def test_the_desk_leads_there(desk):
    assert reverse("desk_api") in desk.get(reverse("desk")).content.decode()


# --- sets that are fetched -----------------------------------------------------------------------------------------------


@pytest.fixture
def fetched(own, monkeypatch):
    """A registered address, what it answers, and how often it was asked."""
    served = {"keys": [public()], "asked": 0}

    def fetch(address):
        served["asked"] += 1
        if served["keys"] is None:
            raise keysets.BadKeys("no answer: timeout")
        return keysets.checked({"keys": served["keys"]})

    monkeypatch.setattr(keysets, "fetch", fetch)
    at = timezone.now()
    keysets.register(own, keys=fetch("x"), address="https://keys.example.com/jwks", at=at)
    served["asked"] = 0
    return served, at


def later(at, **spans):
    return at + datetime.timedelta(**spans)


def test_an_unknown_key_is_looked_for_once_a_minute(own, fetched):
    served, at = fetched
    served["keys"] = [public(), public(kid="k2")]
    assert not keysets.refresh(own, "k1", at=later(at, seconds=90)) and served["asked"] == 0
    assert keysets.refresh(own, "k2", at=later(at, seconds=90)) and served["asked"] == 1
    assert {key["kid"] for key in keysets.current(own, at=later(at, seconds=90))} == {"k1", "k2"}
    for second in range(91, 149):  # somebody signs with invented keys
        keysets.refresh(own, f"k{second}", at=later(at, seconds=second))
    assert served["asked"] == 1
    keysets.refresh(own, "k999", at=later(at, seconds=151))
    assert served["asked"] == 2


def test_a_set_is_fetched_again_after_an_hour_and_a_dropped_key_is_gone(own, fetched):
    served, at = fetched
    served["keys"] = [public(kid="k2")]
    assert keysets.refresh(own, "k1", at=later(at, minutes=61))
    assert [key["kid"] for key in keysets.current(own, at=later(at, minutes=61))] == ["k2"]


def test_a_silent_address_is_forgiven_for_a_day(own, fetched):
    served, at = fetched
    served["keys"] = None
    assert not keysets.refresh(own, "k1", at=later(at, hours=23))
    assert KeySet.objects.get().problem == "no answer: timeout"
    assert keysets.current(own, at=later(at, hours=23))
    assert keysets.current(own, at=later(at, hours=25)) == []


def test_what_was_given_by_value_is_never_fetched(own, fetched):
    served, at = fetched
    keysets.register(own, keys=keysets.checked({"keys": [public()]}), at=at)
    assert not keysets.refresh(own, "other", at=later(at, hours=50)) and served["asked"] == 0
    assert keysets.current(own, at=later(at, days=900))


def test_an_address_that_moved_meanwhile_is_not_overwritten(own, fetched, monkeypatch):
    _served, at = fetched

    def fetch(address):
        keysets.register(own, keys=keysets.checked({"keys": [public(kid="new")]}), at=at)
        return keysets.checked({"keys": [public(kid="old")]})

    monkeypatch.setattr(keysets, "fetch", fetch)
    keysets.refresh(own, "x", at=later(at, seconds=90))
    assert [key["kid"] for key in KeySet.objects.get().keys] == ["new"]


def test_a_set_comes_through_the_one_way_out(monkeypatch):
    """Status, size and form are judged; what outbound refuses is a problem of the address."""
    seen = []

    async def send(session, *, method, url, headers, total):
        seen.append((method, url, total))
        return outbound.Reply(*answers.pop(0), digest="")

    monkeypatch.setattr(outbound, "send", send)
    good = json.dumps({"keys": [public()]}).encode()
    answers = [
        (200, {}, good),
        (404, {}, good),
        (302, {}, b""),
        (200, {}, b"<html>"),
        (200, {}, b" " * 40_000),
    ]
    assert keysets.fetch("https://keys.example.com/jwks")[0]["kid"] == "k1"
    for _ in range(4):
        with pytest.raises(keysets.BadKeys):
            keysets.fetch("https://keys.example.com/jwks")
    assert seen[0] == ("GET", "https://keys.example.com/jwks", keysets.TOTAL)
    monkeypatch.undo()
    with pytest.raises(keysets.BadKeys, match="refused"):
        keysets.fetch("https://127.0.0.1/jwks")


# --- what is signed with them --------------------------------------------------------------------------------------------


@pytest.fixture
def signing(person):
    """An organization that owes an erasure and signs with a key that only its key set has; and its API caller."""
    service = factories.offered()
    subscription = factories.joined(person, service)
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    signer = Signer(service.organization, kid="of the channel")
    signer.key, signer.kid = ECKey.generate_key("P-256"), "k9"
    signer.public = signer.key.as_dict(private=False) | {"kid": "k9"}
    delivery = subscription.deliveries.get(organization=service.organization, event="subscription-ended")
    return signer, delivery, of(service.organization)


def proves(signer, delivery, api, **headers):
    compact = signer.sign(signer.claims(delivery))
    return api.post("evidence", compact, content_type="application/jwt", **headers)


def test_evidence_is_checked_with_the_registered_keys(signing):
    signer, delivery, api = signing
    assert proves(signer, delivery, api).status_code == 400, "nobody knows the key"
    keys = keysets.checked({"keys": [signer.public]})
    clients.register_keys(signer.organization, keys=keys, by=BY, at=timezone.now())
    assert proves(signer, delivery, api).status_code == 201
    clients.remove_keys(signer.organization, by=BY, at=timezone.now())
    assert proves(signer, delivery, api).status_code == 400


def test_evidence_with_a_new_key_has_the_set_fetched_first(signing, monkeypatch):
    """Also with an Idempotency-Key, whose transaction must not wait for somebody else's server."""
    signer, delivery, api = signing
    asked = []

    def fetch(address):
        asked.append(connection.in_atomic_block and len(connection.savepoint_ids))
        return keysets.checked({"keys": [signer.public]})

    old = keysets.checked({"keys": [public()]})
    at = timezone.now() - datetime.timedelta(minutes=5)
    keysets.register(signer.organization, keys=old, address="https://keys.example.com/jwks", at=at)
    monkeypatch.setattr(keysets, "fetch", fetch)
    before = len(connection.savepoint_ids)
    assert proves(signer, delivery, api, Idempotency_Key="k-1").status_code == 201
    assert asked == [before], "outside the transaction of the act"
    for n in range(3):
        signer.kid = f"invented {n}"
        assert proves(signer, delivery, api).status_code == 400
    assert len(asked) == 1, "once a minute"


def test_a_set_of_events_is_checked_with_them_too(signing):
    signer, _delivery, api = signing
    keys = keysets.checked({"keys": [signer.public]})
    claims = {
        "iss": signer.organization.code, "aud": "http://127.0.0.1:8000", "iat": int(timezone.now().timestamp()), "jti": "v-1",
        "events": {"https://schemas.openid.net/secevent/ssf/event-type/verification": {}},
    }  # fmt: skip
    compact = signer.sign(claims, typ="secevent+jwt")
    assert api.post("sets", compact, content_type="application/secevent+jwt").status_code == 400
    clients.register_keys(signer.organization, keys=keys, by=BY, at=timezone.now())
    assert api.post("sets", compact, content_type="application/secevent+jwt").status_code == 202
