"""How servers sign in: two secrets, signed assertions, tokens bound to a key; and what one client learns of another's."""

import base64
import datetime
import hashlib
import json
import math
import re
import secrets
import threading
import time
from urllib.parse import urlencode

import pytest
from allauth.idp.oidc.models import Token
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from consents import accounts, clients, jobs, oauth, turnstile
from consents.actors import Actor
from consents.api import dpop as dpop_door
from consents.api import oauth as doors
from consents.api import oauth_server
from consents.models import EntryIndex, SpentId, Turn
from providers import dpop, keysets
from providers.models import ApiClient
from tests import factories

from .conftest import Caller, token

pytestmark = pytest.mark.django_db
FORM = "application/x-www-form-urlencoded"
TOKEN, REVOKE, INTROSPECT = (f"/identity/o/api/{name}" for name in ("token", "revoke", "introspect"))
BY = Actor.system("test")
PORTAL = "http://127.0.0.1:8000"
SCOPES = list(oauth.ORGANIZATION_SCOPES)


@pytest.fixture
def organization(db):
    return factories.OperatorFactory()


@pytest.fixture
def made(organization):
    """A server's client and its secret."""
    return clients.make(organization, scopes=SCOPES, by=BY, at=timezone.now())


@pytest.fixture
def other(db):
    return clients.make(factories.OperatorFactory(), scopes=SCOPES, by=BY, at=timezone.now())


def post(path, fields, **headers):
    body = urlencode({name: value for name, value in fields.items() if value is not None})
    return Client(REMOTE_ADDR=headers.pop("address", "127.0.0.1")).post(
        path,
        body,
        content_type=FORM,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def grant(link, secret, **fields):
    headers = {name: fields.pop(name) for name in ("DPoP", "address", "X_Forwarded_For") if name in fields}
    sent = {"grant_type": "client_credentials", "client_id": link.client_id, "client_secret": secret} | fields
    return post(TOKEN, sent, **headers)


def basic(link, secret) -> str:
    return "Basic " + base64.b64encode(f"{link.client_id}:{secret}".encode()).decode()


def logged(organization) -> list[str]:
    return list(EntryIndex.objects.filter(party=organization).order_by("seq").values_list("typ", flat=True))


# --- two secrets ---------------------------------------------------------------------------------------------------------


def test_two_secrets_are_live_while_one_is_exchanged(made, organization):
    link, first = made
    new, second = clients.rotate(link, days=90, by=BY, at=timezone.now())
    assert grant(link, first).status_code == grant(link, second).status_code == 200
    with pytest.raises(clients.TwoAlready):
        clients.rotate(link, days=90, by=BY, at=timezone.now())
    old = link.secrets.exclude(pk=new.pk).get()
    assert timezone.now() < old.expires_at <= timezone.now() + datetime.timedelta(hours=24)
    clients.retire_secret(old, by=BY, at=timezone.now())
    assert grant(link, first).status_code == 401 and grant(link, second).status_code == 200
    third, _ = clients.rotate(link, days=90, by=BY, at=timezone.now())
    assert {new.place, third.place} == {1, 2}
    assert logged(organization) == ["key.added", "key.added", "key.retired", "key.added"]
    with pytest.raises(clients.Retired):
        clients.retire_secret(old, by=BY, at=timezone.now())


def test_a_secret_stops_on_its_day(made, time_machine):
    link, first = made
    later = timezone.now() + datetime.timedelta(days=366)
    time_machine.move_to(later)
    assert grant(link, first).status_code == 401
    _new, second = clients.rotate(link, days=90, by=BY, at=later)
    assert grant(link, second).status_code == 200
    assert link.secrets.filter(retired_at__isnull=True).count() == 1


def test_the_database_has_no_place_for_a_third_secret(made):
    link, _ = made
    at = timezone.now()
    clients.rotate(link, days=90, by=BY, at=at)
    for place in (1, 2, 3):
        with pytest.raises(IntegrityError), transaction.atomic():
            oauth.add_secret(link, secret="x" * 40, place=place, expires_at=at, by=BY, at=at)


def test_secrets_are_shown_once_and_kept_as_hashes(made):
    _link, secret = made
    with connection.cursor() as cursor:
        cursor.execute("SELECT string_agg(t::text, '|') FROM providers_clientsecret t")
        kept = cursor.fetchone()[0]
        cursor.execute("SELECT string_agg(t::text, '|') FROM allauth_idp_oidc_client t")
        kept += cursor.fetchone()[0]
    assert secret not in kept and len(secret) >= 43


def test_last_use_is_noted_to_the_minute(made):
    link, secret = made
    assert link.last_used_at is None
    grant(link, secret)
    link.refresh_from_db()
    first, one = link.last_used_at, link.secrets.get()
    assert first and one.last_used_at == first
    grant(link, secret)
    link.refresh_from_db()
    assert link.last_used_at == first, "one write a minute"


def test_scopes_taken_away_are_gone_at_once(made):
    link, secret = made
    bearer = grant(link, secret).json()["access_token"]
    clients.change(
        link,
        scopes=["deliveries:ack"],
        redirect_uris=[],
        method="secret",
        dpop=False,
        by=BY,
        at=timezone.now(),
    )
    assert Caller(bearer).get("consents").status_code == 401
    assert grant(link, secret, scope="consents:read").json()["error"] == "invalid_scope"
    assert grant(link, secret).json()["scope"] == "deliveries:ack"


def test_a_retired_client_is_nobody(made, organization, other):
    link, secret = made
    bearer = grant(link, secret).json()["access_token"]
    clients.retire(link, by=BY, at=timezone.now())
    assert grant(link, secret).status_code == 401
    assert Caller(bearer).get("deliveries").status_code == 401
    assert organization.api_client is None
    again, fresh = clients.make(organization, scopes=SCOPES, by=BY, at=timezone.now())
    assert again.client_id != link.client_id and grant(again, fresh).status_code == 200
    with pytest.raises(clients.AlreadyThere):
        clients.make(organization, scopes=SCOPES, by=BY, at=timezone.now())
    with pytest.raises(clients.Retired):
        clients.rotate(link, days=90, by=BY, at=timezone.now())


def test_revoked_tokens_stop_and_the_client_goes_on(made, other):
    link, secret = made
    bearer, theirs = grant(link, secret).json()["access_token"], grant(*other).json()["access_token"]
    assert clients.revoke_tokens(link, by=BY, at=timezone.now()) == 1
    assert Caller(bearer).get("deliveries").status_code == 401
    assert Caller(theirs).get("deliveries").status_code == 200
    assert grant(link, secret).status_code == 200


def test_expired_tokens_and_old_counts_are_swept_away(made):
    link, secret = made
    grant(link, secret)
    old = timezone.now() - datetime.timedelta(hours=1)
    Token.objects.update(expires_at=old)
    Turn.objects.update(began_at=old)
    SpentId.objects.create(digest="0" * 64, until=old)
    swept = jobs.expire()
    assert swept["tokens"] == 1 and swept["turns"] >= 2
    assert not Token.objects.exists() and not SpentId.objects.exists() and not Turn.objects.exists()


# --- what is told of tokens ----------------------------------------------------------------------------------------------


def test_a_client_is_told_about_its_own_tokens_only(made, other, app, person):
    link, secret = made
    bearer = grant(link, secret, scope="deliveries:ack").json()["access_token"]
    told = post(INTROSPECT, {"token": bearer}, Authorization=basic(link, secret)).json()
    assert told["active"] and told["scope"] == "deliveries:ack" and told["client_id"] == link.client_id
    assert told["token_type"] == "Bearer" and told["iss"] == PORTAL and "sub" not in told
    foreign = [bearer, token(app, person, ["me"]), "never was", ""]
    for value in foreign[:3]:
        for hint in (None, "refresh_token"):
            answer = post(INTROSPECT, {"token": value, "token_type_hint": hint}, Authorization=basic(*other))
            assert answer.status_code == 200 and answer.json() == {"active": False}
    assert post(INTROSPECT, {"token": bearer}).status_code == 401
    assert post(INTROSPECT, {"token": bearer, "client_id": app.pk}).status_code == 401
    assert post(INTROSPECT, {"token": bearer}, Authorization=basic(link, "x" * 43)).status_code == 401
    Token.objects.update(expires_at=timezone.now())
    assert post(INTROSPECT, {"token": bearer}, Authorization=basic(link, secret)).json() == {"active": False}


def test_a_revoked_refresh_token_takes_along_what_was_had_by_it(app, person, other):
    refresh = token(app, person, ["me"], type=Token.Type.REFRESH_TOKEN)
    access, foreign = token(app, person, ["me"]), grant(*other).json()["access_token"]
    assert post(REVOKE, {"token": refresh}, Authorization=basic(*other)).status_code == 200
    assert Caller(access).get("me/summary").status_code == 200, "somebody else cannot"
    # The hint may be wrong (RFC 7009 §2.1).
    assert (
        post(REVOKE, {"token": refresh, "client_id": app.pk, "token_type_hint": "access_token"}).status_code
        == 200
    )
    assert Caller(access).get("me/summary").status_code == 401
    assert Caller(foreign).get("deliveries").status_code == 200


def test_a_stranger_learns_nothing_about_who_is_a_client(made):
    """T14: the same words for a client that exists and one that does not, and the same work."""
    link, _ = made
    bodies, counts = set(), set()
    for client_id in (link.client_id, "nobody-at-all"):
        with connection.execute_wrapper(counting := Counting()):
            answer = post(
                TOKEN, {"grant_type": "client_credentials", "client_id": client_id, "client_secret": "x" * 43}
            )
        assert answer.status_code == 401
        bodies.add(answer.content)
        counts.add(counting.seen)
    assert len(bodies) == 1 and len(counts) == 1, counts


class Counting:
    seen = 0

    def __call__(self, execute, sql, params, many, context):
        self.seen += 1
        return execute(sql, params, many, context)


# --- signed assertions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def signed(made, organization):
    """A client that signs in by its key, and the key."""
    link, secret = made
    key = ECKey.generate_key("P-256")
    public = key.as_dict(private=False) | {"kid": "k1", "use": "sig", "alg": "ES256"}
    clients.register_keys(organization, keys=keysets.checked({"keys": [public]}), by=BY, at=timezone.now())
    clients.change(
        link, scopes=SCOPES, redirect_uris=[], method="private_key_jwt", dpop=False, by=BY, at=timezone.now()
    )
    link.refresh_from_db()
    return link, key, secret


def assertion(link, key, *, header=None, **claims) -> str:
    now = int(timezone.now().timestamp())
    said = {
        "iss": link.client_id, "sub": link.client_id, "aud": PORTAL, "iat": now, "exp": now + 60, "jti": secrets.token_hex(8),
    } | claims  # fmt: skip
    head = {"alg": "ES256", "kid": "k1", "typ": "JWT"} | (header or {})
    head = {name: value for name, value in head.items() if value is not None}
    body = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
    return jws.serialize_compact(head, body, key, algorithms=[head["alg"]])


def by_assertion(compact, **fields):
    sent = {
        "grant_type": "client_credentials",
        "client_assertion_type": oauth_server.ASSERTION,
        "client_assertion": compact,
    }
    return post(TOKEN, sent | fields)


def test_a_client_signs_in_by_a_signed_assertion_once(signed):
    link, key, _ = signed
    compact = assertion(link, key)
    assert by_assertion(compact).status_code == 200
    assert by_assertion(compact).json() == {"error": "invalid_client"}
    assert by_assertion(assertion(link, key), client_id=link.client_id).status_code == 200
    told = post(INTROSPECT, {
        "token": by_assertion(assertion(link, key)).json()["access_token"], "client_assertion_type": oauth_server.ASSERTION,
        "client_assertion": assertion(link, key),
    })  # fmt: skip
    assert told.json()["active"] is True


def test_who_signs_has_no_secret(signed):
    link, key, secret = signed
    assert grant(link, secret).status_code == 401
    assert (
        by_assertion(assertion(link, key), client_id=link.client_id, client_secret=secret).status_code == 401
    )


def test_who_has_a_secret_does_not_sign(made, organization):
    link, _secret = made
    key = ECKey.generate_key("P-256")
    public = key.as_dict(private=False) | {"kid": "k1"}
    clients.register_keys(organization, keys=keysets.checked({"keys": [public]}), by=BY, at=timezone.now())
    assert by_assertion(assertion(link, key)).status_code == 401


NOW = "now"


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({}, {"aud": "http://127.0.0.1:8000/identity/o/api/token"}), ({}, {"aud": [PORTAL]}), ({}, {"aud": [PORTAL, "x"]}),
        ({}, {"aud": None}), ({}, {"iss": "other"}), ({}, {"sub": "other"}), ({}, {"sub": None}), ({}, {"iss": None}),
        ({}, {"jti": None}), ({}, {"jti": ""}), ({}, {"jti": 7}), ({}, {"jti": "x" * 300}), ({}, {"exp": None}), ({}, {"iat": None}),
        ({}, {"exp": -1}), ({}, {"exp": 120}), ({}, {"iat": 30, "exp": 80}), ({}, {"exp": True}), ({}, {"nbf": 60}),
        ({"kid": "k2"}, {}), ({"kid": None}, {}), ({"typ": "dpop+jwt"}, {}), ({"typ": "secevent+jwt"}, {}),
        ({"jku": "https://evil.example/keys"}, {}), ({"alg": "HS256"}, {}),
    ],
)  # fmt: skip
def test_an_assertion_that_is_not_right_opens_nothing(signed, header, claims):
    link, key, _secret = signed
    now = int(timezone.now().timestamp())
    moved = {n: now + v if n in ("exp", "iat", "nbf") and type(v) is int else v for n, v in claims.items()}
    if header.get("alg") == "HS256":  # a public key taken for a shared one (T39)
        from joserfc.jwk import OctKey

        key = OctKey.import_key(json.dumps(key.as_dict(private=False)))
    if "jku" in header:
        head = {"alg": "ES256", "kid": "k1"} | header
        compact = assertion(link, key)
        parts = compact.split(".")
        parts[0] = base64.urlsafe_b64encode(json.dumps(head).encode()).rstrip(b"=").decode()
        compact = ".".join(parts)
    else:
        compact = assertion(link, key, header=header, **moved)
    answer = by_assertion(compact)
    assert answer.status_code == 401 and answer.json() == {"error": "invalid_client"}
    assert not Token.objects.exists()
    assert header.get("alg") == "HS256" or by_assertion(assertion(link, key)).status_code == 200


@pytest.mark.parametrize("compact", ["", "x", "a.b.c", "e30.e30.", "\x00", "é.é.é", "e30.W10.e30"])
def test_what_is_no_assertion_is_refused(signed, compact):
    assert by_assertion(compact).status_code in (400, 401)


def test_no_other_key_signs_for_a_client(signed, other):
    link, _key, _ = signed
    assert by_assertion(assertion(link, ECKey.generate_key("P-256"))).status_code == 401
    assert by_assertion(assertion(other[0], _key)).status_code == 401


@pytest.mark.django_db(transaction=True)
def test_of_two_that_come_at_once_one_gets_in(signed):
    link, key, _ = signed
    compact, seen, start = assertion(link, key), [], threading.Barrier(4)

    def come() -> None:
        start.wait()
        seen.append(by_assertion(compact).status_code)
        connection.close()

    threads = [threading.Thread(target=come) for _ in range(4)]
    [one.start() for one in threads]
    [one.join() for one in threads]
    assert sorted(seen) == [200, 401, 401, 401]


def test_the_published_assertion_is_understood(made, organization, vector, settings, time_machine):
    published = vector("jose.json")["our_client_assertion"]
    key = published["jwk"] | {"kid": vector("jose.json")["our_set_es256"]["jwk"]["kid"]}
    link = oauth.create_client(
        organization=factories.OperatorFactory(), name="md0001", secret="x" * 43, scopes=SCOPES, client_id="md0001",
        by=BY, at=timezone.now(),
    )  # fmt: skip
    clients.register_keys(link.organization, keys=keysets.checked({"keys": [key]}), by=BY, at=timezone.now())
    ApiClient.objects.filter(pk=link.pk).update(method="private_key_jwt")
    settings.PORTAL_URL = "https://consent.example.kr"
    time_machine.move_to(datetime.datetime.fromtimestamp(1795317002, datetime.UTC), tick=False)
    assert by_assertion(published["compact"]).status_code == 200
    assert by_assertion(published["compact"]).status_code == 401


def test_nobody_can_sign_in_by_keys_that_were_not_registered(made):
    link, _ = made
    with pytest.raises(clients.NoKeys):
        clients.change(
            link,
            scopes=SCOPES,
            redirect_uris=[],
            method="private_key_jwt",
            dpop=False,
            by=BY,
            at=timezone.now(),
        )


def test_keys_that_a_client_signs_in_with_stay(signed, organization):
    with pytest.raises(clients.StillNeeded):
        clients.remove_keys(organization, by=BY, at=timezone.now())


# --- tokens bound to a key -----------------------------------------------------------------------------------------------


@pytest.fixture
def bound(made):
    link, secret = made
    clients.change(
        link, scopes=SCOPES, redirect_uris=[], method="secret", dpop=True, by=BY, at=timezone.now()
    )
    return link, secret, ECKey.generate_key("P-256")


def proof(key, method="POST", path=TOKEN, *, token=None, nonce=None, header=None, **claims) -> str:
    now = int(timezone.now().timestamp())
    said = {
        "jti": secrets.token_hex(8),
        "htm": method,
        "htu": f"http://testserver{path}",
        "iat": now,
        "nonce": nonce,
    }
    said |= {"ath": dpop.ath(token) if token else None} | claims
    head = {"typ": "dpop+jwt", "alg": "ES256", "jwk": key.as_dict(private=False)} | (header or {})
    body = json.dumps({name: value for name, value in said.items() if value is not None}).encode()
    return jws.serialize_compact(head, body, key, algorithms=[head["alg"]])


def nonce() -> str:
    return dpop.new_nonce(now=int(timezone.now().timestamp()))


def test_a_bound_token_needs_its_key_every_time(bound):
    link, secret, key = bound
    assert grant(link, secret).json()["error"] == "invalid_dpop_proof"
    asked = grant(link, secret, DPoP=proof(key))
    assert asked.status_code == 400 and asked.json()["error"] == "use_dpop_nonce"
    given = grant(link, secret, DPoP=proof(key, nonce=asked["DPoP-Nonce"]))
    assert given.status_code == 200 and given.json()["token_type"] == "DPoP"
    value, path = given.json()["access_token"], "/api/v1/deliveries"
    browser = Client()

    def use(scheme, *proofs):
        headers = {"Authorization": f"{scheme} {value}"} | ({"DPoP": ", ".join(proofs)} if proofs else {})
        return browser.get(path, headers=headers)

    assert use("Bearer")["WWW-Authenticate"].startswith('DPoP error="invalid_token", algs="')
    assert 'DPoP error="invalid_dpop_proof"' in use("DPoP")["WWW-Authenticate"]
    wanted = use("DPoP", proof(key, "GET", path, token=value))
    assert wanted.status_code == 401 and 'error="use_dpop_nonce"' in wanted["WWW-Authenticate"]
    good = proof(key, "GET", path, token=value, nonce=wanted["DPoP-Nonce"])
    assert use("Bearer", good).status_code == 401
    assert use("DPoP", good, good).status_code == 401
    told = post(INTROSPECT, {"token": value}, Authorization=basic(link, secret)).json()
    assert told["cnf"] == {"jkt": key.thumbprint()} and told["token_type"] == "DPoP"


def test_who_came_with_a_bound_token_is_told_of_dpop(bound, other):
    """RFC 9449 §7.1, whatever the reason; whoever showed nothing is told of both (§7.2)."""
    link, secret, key = bound
    path = "/api/v1/deliveries"
    fields = {"scope": "holdings:write"}
    narrow = grant(link, secret, DPoP=proof(key, nonce=nonce()), **fields).json()["access_token"]
    plain = grant(*other).json()["access_token"]

    def told(authorization: str, *proofs, path=path) -> tuple[int, str]:
        answer = Client().get(
            path, headers={"Authorization": authorization, **({"DPoP": proofs[0]} if proofs else {})}
        )
        return answer.status_code, answer["WWW-Authenticate"]

    algs = f'algs="{" ".join(dpop.ALGORITHMS)}"'
    for shown in ("DPoP nonsense", f"dpop {plain}", "DPoP "):
        assert told(shown) == (401, f'DPoP error="invalid_token", {algs}')
    good = proof(key, path="/api/v1/sets/poll", token=narrow, nonce=nonce())
    refused = send("/api/v1/sets/poll", narrow, good)
    assert refused.status_code == 403
    assert refused["WWW-Authenticate"] == f'DPoP error="insufficient_scope", scope="deliveries:ack", {algs}'
    assert told("Bearer nonsense") == (401, 'Bearer realm="portal", error="invalid_token"')
    assert told("Basic eDp5") == (401, f'Bearer realm="portal", DPoP {algs}')
    userinfo = "/identity/o/api/userinfo"
    refused = send(userinfo, "nonsense", proof(key, path=userinfo, token="nonsense", nonce=nonce()))
    assert (refused.status_code, refused["WWW-Authenticate"]) == (401, f'DPoP error="invalid_token", {algs}')


def send(path, value, *proofs, body='{"returnImmediately": true}'):
    return Client().post(
        path, body, content_type="application/json",
        headers={"Authorization": f"DPoP {value}", **({"DPoP": ", ".join(proofs)} if proofs else {})},
    )  # fmt: skip


def test_a_proof_is_good_for_one_request(bound):
    link, secret, key = bound
    value = grant(link, secret, DPoP=proof(key, nonce=nonce())).json()["access_token"]
    path = "/api/v1/sets/poll"
    one = proof(key, path=path, token=value, nonce=nonce())
    assert send(path, value, one).status_code == 200
    assert send(path, value, one).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"htm": "GET"}, {"htm": None}, {"htu": "http://testserver/api/v1/deliveries"}, {"htu": "https://evil.example/api/v1/sets/poll"},
        {"htu": None}, {"htu": 7}, {"iat": None}, {"iat": "now"}, {"iat": 1}, {"jti": None}, {"jti": "x" * 300}, {"ath": None},
        {"ath": "x"}, {"nonce": "x"}, {"nonce": None}, {"header": {"typ": "JWT"}}, {"iat": True},
    ],
)  # fmt: skip
def test_a_proof_that_is_not_right_proves_nothing(bound, change):
    link, secret, key = bound
    value = grant(link, secret, DPoP=proof(key, nonce=nonce())).json()["access_token"]
    path = "/api/v1/sets/poll"
    answer = send(path, value, proof(key, **{"path": path, "token": value, "nonce": nonce()} | change))
    assert answer.status_code == 401 and "DPoP" in answer["WWW-Authenticate"] and answer["DPoP-Nonce"]


@pytest.mark.parametrize(("seconds", "status"), [(-60, 200), (-62, 401), (10, 200), (12, 401), (59, 401)])
def test_a_proof_may_be_ten_seconds_ahead(bound, time_machine, seconds, status):
    link, secret, key = bound
    time_machine.move_to(timezone.now(), tick=False)
    value = grant(link, secret, DPoP=proof(key, nonce=nonce())).json()["access_token"]
    path, iat = "/api/v1/sets/poll", int(timezone.now().timestamp()) + seconds
    made = proof(key, path=path, token=value, nonce=nonce(), iat=iat)
    assert send(path, value, made).status_code == status
    assert (grant(link, secret, DPoP=proof(key, nonce=nonce(), iat=iat)).status_code == 200) == (
        status == 200
    )


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("missing", None), ("method", {"htm": "GET"}), ("address", {"htu": "http://testserver/api/v1/deliveries"}),
        ("old", {"iat": 1}), ("old", {"iat": None}), ("ahead", {"iat": 9_999_999_999}), ("token", {"ath": "x"}),
        ("nonce", {"nonce": None}), ("nonce", {"nonce": "x"}), ("unreadable", {"jti": None}), ("used", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["ko", "en"])
def test_who_shows_a_wrong_proof_is_told_what_to_do(bound, fault, change, language):
    from django.utils import translation

    link, secret, key = bound
    value = grant(link, secret, DPoP=proof(key, nonce=nonce())).json()["access_token"]
    path = "/api/v1/sets/poll"
    made = None if change is None else proof(key, **{"path": path, "token": value, "nonce": nonce()} | change)

    def sent(scheme="DPoP", shown=made, bearer=value):
        headers = {"Authorization": f"{scheme} {bearer}", "Accept-Language": language}
        return Client().post(
            path, "{}", content_type="application/json", headers=headers | ({"DPoP": shown} if shown else {})
        )

    if fault == "used":
        assert sent().status_code == 200
    with translation.override(language):
        wanted = {name: dpop_door.remedy(name) for name in dpop_door.REMEDIES}
    answer = sent()
    assert (answer.status_code, answer.json()["detail"]) == (401, wanted[fault])
    assert any("가" <= letter <= "힣" for letter in wanted[fault]) == (language == "ko")
    assert sent("Bearer").json()["detail"] == wanted["bearer"]
    assert sent(bearer="nonsense").json()["detail"] == wanted["renew"]
    thief = proof(ECKey.generate_key("P-256"), path=path, token=value, nonce=nonce())
    assert sent(shown=thief).json()["detail"] == wanted["key"]


def test_another_key_or_a_bearer_token_does_not_pass(bound, other):
    link, secret, key = bound
    value = grant(link, secret, DPoP=proof(key, nonce=nonce())).json()["access_token"]
    bearer, path = grant(*other).json()["access_token"], "/api/v1/sets/poll"
    thief = ECKey.generate_key("P-256")
    assert send(path, value, proof(thief, path=path, token=value, nonce=nonce())).status_code == 401
    assert send(path, bearer, proof(thief, path=path, token=bearer, nonce=nonce())).status_code == 401
    private = {"header": {"jwk": key.as_dict(private=True)}}
    assert send(path, value, proof(key, path=path, token=value, nonce=nonce(), **private)).status_code == 401


def test_htu_is_compared_without_its_query(bound):
    link, secret, key = bound
    value = grant(link, secret, DPoP=proof(key, nonce=nonce())).json()["access_token"]
    path = "/api/v1/sets/poll"
    for htu in (f"http://TESTSERVER:80{path}?x=1#y", f"{PORTAL}{path}"):
        assert (
            send(path, value, proof(key, path=path, token=value, nonce=nonce(), htu=htu)).status_code == 200
        )


def test_an_applications_refresh_token_is_bound_too(app, person):
    key, thief = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    value = token(app, person, ["me"], type=Token.Type.REFRESH_TOKEN)
    kept = Token.objects.get()
    oauth.bind(kept, key.thumbprint())
    kept.save()
    fields = {"grant_type": "refresh_token", "client_id": app.pk, "refresh_token": value}
    assert post(TOKEN, fields).json()["error"] == "invalid_grant"
    assert post(TOKEN, fields, DPoP=proof(thief, nonce=nonce())).json()["error"] == "invalid_grant"
    given = post(TOKEN, fields, DPoP=proof(key, nonce=nonce())).json()
    assert given["token_type"] == "DPoP"
    again = fields | {"refresh_token": given["refresh_token"]}
    assert post(TOKEN, again).status_code == 400
    assert post(TOKEN, again, DPoP=proof(key, nonce=nonce())).status_code == 200


def test_userinfo_takes_a_bound_token_with_its_proof_only(app, person):
    key = ECKey.generate_key("P-256")
    value = token(app, person, ["openid"])
    kept = Token.objects.get()
    path = "/identity/o/api/userinfo"
    assert Client().get(path, headers={"Authorization": f"Bearer {value}"}).json()["sub"] == str(
        person.subject_id
    )
    oauth.bind(kept, key.thumbprint())
    kept.save()
    assert Client().get(path, headers={"Authorization": f"Bearer {value}"}).status_code == 401
    one = proof(key, "POST", path, token=value, nonce=nonce())
    answer = Client().post(path, headers={"Authorization": f"DPoP {value}", "DPoP": one})
    assert answer.json()["sub"] == str(person.subject_id)
    assert Client().post(path, headers={"Authorization": f"DPoP {value}", "DPoP": one}).status_code == 401


def test_switching_binding_on_ends_the_tokens_that_are_not_bound(made):
    link, secret = made
    bearer = grant(link, secret).json()["access_token"]
    clients.change(
        link, scopes=SCOPES, redirect_uris=[], method="secret", dpop=True, by=BY, at=timezone.now()
    )
    assert Caller(bearer).get("deliveries").status_code == 401


def test_the_published_proofs_are_understood(vector):
    ours, rfc = vector("jose.json")["our_dpop"], vector("jose.json")["rfc9449"]
    found = dpop.verify(
        ours["compact"], method="POST", addresses=["https://consent.example.kr/api/v1/sets/poll"], now=1795317001,
        token=ours["access_token"], is_ours=lambda nonce: nonce == "n-5f3a",
    )  # fmt: skip
    assert found == dpop.Proof(jkt=ours["jkt"], jti="dp-1b2c")
    assert dpop.ath(ours["access_token"]) == ours["ath"] and dpop.ath(rfc["access_token"]) == rfc["ath"]
    found = dpop.verify(
        rfc["proof"], method="POST", addresses=["https://server.example.com/token"], now=1562262616
    )
    assert found.jkt == rfc["jkt"]


@pytest.mark.parametrize("algorithm", ["PS256", "Ed25519", "RS256", "ES384"])
def test_each_algorithm_has_its_kind_of_key(algorithm):
    kinds = {"PS256": RSAKey, "RS256": RSAKey, "ES384": ECKey}
    kind = kinds.get(algorithm, OKPKey)
    key = kind.generate_key({RSAKey: 2048, ECKey: "P-384", OKPKey: "Ed25519"}[kind])
    compact, now = proof(key, header={"alg": algorithm}), int(timezone.now().timestamp())
    if algorithm in dpop.ALGORITHMS:
        assert dpop.verify(compact, method="POST", addresses=[f"http://testserver{TOKEN}"], now=now).jkt
    else:
        with pytest.raises(dpop.BadProof):
            dpop.verify(compact, method="POST", addresses=[f"http://testserver{TOKEN}"], now=now)


def test_a_nonce_is_ours_for_five_minutes():
    given = dpop.new_nonce(now=1000)
    assert (
        dpop.is_fresh(given, now=1300)
        and not dpop.is_fresh(given, now=1301)
        and not dpop.is_fresh(given, now=999)
    )
    for forged in (
        "",
        "x",
        given[:-2] + "AA",
        base64.urlsafe_b64encode(hashlib.sha256(b"").digest()).decode(),
        "é",
    ):
        assert not dpop.is_fresh(forged, now=1000)


# --- floods (T34) --------------------------------------------------------------------------------------------------------


def test_a_flood_of_one_client_refuses_no_other(made, other, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 3)
    assert [grant(*made).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    assert grant(*other).status_code == 200, "from the same address"
    assert [grant(made[0], "x" * 43).status_code for _ in range(3)] == [429] * 3
    assert [
        post(
            TOKEN, {"grant_type": "client_credentials", "client_id": f"c{n}", "client_secret": "x"}
        ).status_code
        for n in range(6)
    ] == [401] * 3 + [429] * 3
    assert grant(*other).status_code == 200, "guesses from its address do not shut out who is genuine"


def test_guesses_from_elsewhere_do_not_use_up_a_clients_share(made, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 2)
    for _ in range(5):
        grant(made[0], "x" * 43, address="203.0.113.9")
    assert grant(*made).status_code == 200


def test_one_client_from_many_addresses_has_one_share(made, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 2)
    assert [grant(*made, address=f"203.0.113.{n}").status_code for n in range(4)] == [200, 200, 429, 429]


def test_a_forged_forwarding_header_changes_nothing(made, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 2)
    seen = [grant(*made, X_Forwarded_For=f"198.51.100.{n}").status_code for n in range(4)]
    assert seen == [200, 200, 429, 429]


@pytest.fixture
def broken(settings):
    """Production's caches, with a broker that is not there."""
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "portal_cache"},
        "comfort": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": "redis://127.0.0.1:1/0",
        },
    }


def test_limits_hold_while_the_broker_is_down(made, monkeypatch, broken):
    monkeypatch.setattr(doors, "PER_MINUTE", 2)
    assert [grant(*made).status_code for _ in range(3)] == [200, 200, 429]


def _sign_in(email, password, address="192.0.2.7", forwarded="") -> str:
    """What a sign-in by password is answered."""
    from django.utils import translation

    with translation.override("ko"):
        answer = Client(REMOTE_ADDR=address).post(
            "/accounts/login/", {"login": email, "password": password},
            headers={"X-Forwarded-For": forwarded} if forwarded else {},
        )  # fmt: skip
    return "in" if answer.status_code == 302 else "later" if "시도" in answer.content.decode() else "wrong"


@pytest.fixture
def holder(person):
    """A person with a password."""
    from allauth.account.models import EmailAddress

    person.set_password("bangjiteok-long-enough")
    person.save()
    EmailAddress.objects.create(user=person, email=person.email, verified=True, primary=True)
    return person


def test_sign_in_is_limited_by_account_while_the_broker_is_down(holder, broken):
    """T34: guesses at one account from everywhere; what the caller says of other addresses changes nothing."""
    assert _sign_in(holder.email, "bangjiteok-long-enough") == "in"
    answers = [
        _sign_in(holder.email, "a wrong password", f"203.0.{n}.7", f"198.51.100.{n}") for n in range(12)
    ]
    assert answers[0] == "wrong" and answers[-1] == "later"
    assert _sign_in(holder.email, "bangjiteok-long-enough", "198.18.0.9") == "later"


def test_sign_in_is_limited_by_network(holder, broken, monkeypatch):
    monkeypatch.setattr(accounts, "FROM_A_NETWORK", 3)
    answers = [_sign_in(f"nobody{n}@example.com", "wrong wrong wrong", f"203.0.113.{n}") for n in range(5)]
    assert answers == ["wrong"] * 3 + ["later"] * 2
    assert _sign_in(holder.email, "bangjiteok-long-enough", "203.0.114.1") == "in"


def test_sign_in_is_limited_for_everybody(holder, broken, monkeypatch):
    monkeypatch.setattr(accounts, "FROM_EVERYBODY", 2)
    answers = [_sign_in(f"nobody{n}@example.com", "wrong wrong wrong", f"203.0.{n}.9") for n in range(4)]
    assert answers == ["wrong"] * 2 + ["later"] * 2


def test_the_network_of_an_address():
    assert accounts._network("203.0.113.7") == accounts._network("203.0.113.250") == "203.0.113.0/24"
    assert accounts._network("2001:db8:0:12ff::1") == accounts._network("2001:db8:0:1200::9")
    assert accounts._network("2001:db8:0:1300::1") != accounts._network("2001:db8:0:1200::1")
    assert accounts._network("unix:") == "unix:"


@pytest.mark.django_db(transaction=True)
def test_a_refresh_token_that_comes_twice_at_once_works_once(app, person):
    value = token(app, person, ["me"], type=Token.Type.REFRESH_TOKEN)
    fields = {"grant_type": "refresh_token", "client_id": app.pk, "refresh_token": value}
    assert sorted(_at_once(lambda: post(TOKEN, fields).status_code, 4)) == [200, 400, 400, 400]
    assert Token.objects.filter(type="rt").count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_code_that_comes_twice_at_once_works_once(app, person, broken):
    """Also where the cache that keeps it has not heard of the first use yet."""
    verifier = secrets.token_urlsafe(48)
    code = _code(app, person, verifier)
    fields = {
        "grant_type": "authorization_code", "client_id": app.pk, "code": code, "code_verifier": verifier,
        "redirect_uri": "https://my.example/back",
    }  # fmt: skip
    assert sorted(_at_once(lambda: post(TOKEN, fields).status_code, 4)) == [200, 400, 400, 400]
    assert Token.objects.filter(type="at").count() <= 1, (
        "none where a second one came after the first had gone through"
    )


def _code(app, person, verifier) -> str:
    from urllib.parse import parse_qs, urlsplit

    browser = Client()
    browser.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    page = browser.get("/identity/o/authorize", {
        "response_type": "code", "client_id": app.pk, "redirect_uri": "https://my.example/back", "scope": "me",
        "code_challenge": challenge, "code_challenge_method": "S256",
    })  # fmt: skip
    signed = re.search(r'name="request" value="([^"]+)"', page.content.decode())[1]
    back = browser.post("/identity/o/authorize", {"request": signed, "scopes": ["me"], "action": "grant"})
    return parse_qs(urlsplit(back["Location"]).query)["code"][0]


def _at_once(act, times: int) -> list:
    seen, start = [], threading.Barrier(times)

    def come() -> None:
        start.wait()
        seen.append(act())
        connection.close()

    threads = [threading.Thread(target=come) for _ in range(times)]
    [one.start() for one in threads]
    [one.join() for one in threads]
    return seen


@pytest.mark.slow
def test_a_stranger_cannot_tell_by_the_clock_who_is_a_client(made):
    """T14: 200 pairs, Mann-Whitney; a machine under load may need another try."""
    assert any(_same_time(made[0].client_id) for _ in range(3))


def _same_time(client_id: str) -> bool:
    known, unknown = [], []
    for n in range(200):
        for kept, name in ((known, client_id), (unknown, f"{n:032x}")):
            start = time.perf_counter()
            post(TOKEN, {"grant_type": "client_credentials", "client_id": name, "client_secret": "x" * 43})
            kept.append(time.perf_counter() - start)
    ranked = sorted([(one, 0) for one in known] + [(one, 1) for one in unknown])
    u = sum(rank for rank, (_one, which) in enumerate(ranked, 1) if which == 0) - 200 * 201 / 2
    z = abs(u - 200 * 200 / 2) / math.sqrt(200 * 200 * 401 / 12)
    return z < 2.576  # p > 0.01


def test_a_window_ends(made, monkeypatch, time_machine):
    monkeypatch.setattr(doors, "PER_MINUTE", 1)
    time_machine.move_to(timezone.now())
    assert grant(*made).status_code == 200 and grant(*made)["Retry-After"] == "60"
    time_machine.shift(50)
    assert grant(*made)["Retry-After"] == "10", "what is left of the window"
    time_machine.shift(11)
    assert grant(*made).status_code == 200


@pytest.mark.django_db(transaction=True)
def test_counts_are_exact_when_many_come_at_once():
    seen, start = [], threading.Barrier(8)

    def come() -> None:
        start.wait()
        seen.extend(turnstile.too_often("t", "who", most=20, at=timezone.now()) for _ in range(5))
        connection.close()

    threads = [threading.Thread(target=come) for _ in range(8)]
    [one.start() for one in threads]
    [one.join() for one in threads]
    assert seen.count(False) == 20 and seen.count(True) == 20


# --- the metadata --------------------------------------------------------------------------------------------------------


def test_the_metadata_says_what_there_is(client):
    told = client.get("/.well-known/openid-configuration").json()
    assert "private_key_jwt" in told["token_endpoint_auth_methods_supported"]
    assert told["dpop_signing_alg_values_supported"] == list(dpop.ALGORITHMS)
    assert told["introspection_endpoint"].endswith(INTROSPECT)
    assert "none" not in told["introspection_endpoint_auth_methods_supported"]
    assert "RS256" not in told["token_endpoint_auth_signing_alg_values_supported"]
