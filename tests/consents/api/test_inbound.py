"""Stops that the other side started, in each protocol: proved, counted once, told to everybody else; whatever is not, changes
nothing (T19, T39)."""

import datetime
import json
import secrets
import threading
import uuid
from urllib.parse import urlencode

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from consents import inbound, jobs, lifecycle, references
from consents.actors import Actor
from consents.api import inbound as doors
from consents.models import Consent, Delivery, EntryIndex, InboundMessage, Notice, Subscription
from providers import registry
from providers.wires import push as push_wire
from tests import factories

from .conftest import Caller, of, payload_of, problem

pytestmark = pytest.mark.django_db
PORTAL = "http://127.0.0.1:8000"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = rsa.generate_private_key(65537, 2048)
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SYSTEM = Actor.system("test")


def seconds() -> int:
    return int(timezone.now().timestamp())


def connect(organization, protocol, key=RSA_KEY, **details):
    """An open channel of this protocol, with the organization's public key."""
    at = timezone.now()
    channel = registry.open_channel(
        organization=organization, protocol=protocol, address="https://there.example/", details=details, at=at
    )
    algorithm = jwt.algorithms.ECAlgorithm if key is EC_KEY else jwt.algorithms.RSAAlgorithm
    jwk = json.loads(algorithm.to_jwk(key.public_key()))
    jwk.pop("key_ops", None)
    registry.add_public_key(channel=channel, kid="k1", jwk=jwk, at=at)
    return channel


def signed(claims, key=RSA_KEY, alg="PS256", **header) -> str:
    header = {name: value for name, value in ({"kid": "k1"} | header).items() if value is not None}
    return jwt.encode(claims, key, alg, header)


@pytest.fixture
def consent(subscription) -> Consent:
    return subscription.consents.filter(kind="transfer").select_related("source").first()


@pytest.fixture
def source(consent):
    return consent.source


def note(consent, kind, identifier, organization=None):
    references.note(
        organization or consent.source, consent.person, kind=kind, identifier=identifier, consent=consent, by=SYSTEM,
        at=timezone.now(),
    )  # fmt: skip


def ended_by_source(consent) -> None:
    """Everything that must be true after the source ended its flow."""
    consent.refresh_from_db()
    assert (consent.state, consent.end_reason, consent.erasure) == ("ended", "source_left", "not_requested")
    told = Delivery.objects.filter(consent=consent, event="consent-withdrawn")
    assert {row.organization_id for row in told} == {consent.subscription.operator_id}, "no echo"
    facts = payload_of(told[0].set_compact)["events"][f"{PORTAL}/secevent/consent-withdrawn"]
    assert facts["reason"] == "source_left" and facts["initiating_entity"] == "system"
    entry = EntryIndex.objects.get(consent=consent, typ="consent.withdrawn")
    assert (entry.reason, entry.actor_kind) == ("source_left", "organization")
    (notice,) = Notice.objects.filter(person=consent.person, kind="lost", answer="")
    assert consent.source.name_ko in notice.reason_ko and consent.source.name_en in notice.reason_en
    assert Subscription.objects.get(pk=consent.subscription_id).state == "active"


# --- Australia ----------------------------------------------------------------------------------------------------------------

ARRANGEMENT = "5a1bf696-ee03-408b-b315-97955415d1f0"


def cdr_claims(**more):
    now = seconds()
    claims = {
        "iss": "dh-1",
        "sub": "dh-1",
        "aud": f"{PORTAL}/api/v1/arrangements/revoke",
        "iat": now,
        "exp": now + 300,
    }
    return claims | {"jti": secrets.token_hex(8)} | more


def from_holder(claims=None, *, key=RSA_KEY, alg="PS256", **header) -> tuple[bytes, dict]:
    named = cdr_claims(cdr_arrangement_id=ARRANGEMENT) if claims is None else claims
    body = urlencode({"cdr_arrangement_jwt": signed(named, key, alg, **header)}).encode()
    return body, {"Authorization": f"Bearer {signed(cdr_claims(), key, alg, **header)}"}


def revoke(sent):
    body, headers = sent
    return Caller().post(
        "arrangements/revoke", body, content_type="application/x-www-form-urlencoded", **headers
    )


@pytest.fixture
def holder(source, consent):
    connect(source, "cdr", issuer="dh-1", party="holder", client_id="us")
    note(consent, "arrangement", ARRANGEMENT)
    return source


def test_a_holder_ends_an_arrangement(holder, consent):
    answer = revoke(from_holder())
    assert answer.status_code == 204 and not answer.content
    ended_by_source(consent)


def test_a_recipient_ends_an_arrangement_by_a_client_assertion(service, consent, subscription):
    operator = service.organization
    connect(operator, "cdr", issuer="dh-1", party="recipient", client_id="us")
    note(consent, "arrangement", ARRANGEMENT, operator)
    form = {
        "client_id": "dh-1", "client_assertion_type": TYPE, "client_assertion": signed(cdr_claims()),
        "cdr_arrangement_id": ARRANGEMENT,
    }  # fmt: skip
    assert revoke((urlencode(form).encode(), {})).status_code == 204
    consent.refresh_from_db()
    assert consent.end_reason == "operator_closed"
    told = Delivery.objects.filter(consent=consent, event="consent-withdrawn")
    assert [row.organization_id for row in told] == [consent.source_id]


@pytest.mark.parametrize("audience", [f"{PORTAL}/api/v1", PORTAL])
def test_the_base_address_is_an_audience_as_well(holder, audience):
    named = cdr_claims(cdr_arrangement_id=ARRANGEMENT, aud=audience)
    assert revoke(from_holder(named)).status_code == 204


def unknown_arrangement(response) -> dict:
    """The error structure of the Consumer Data Standards, which a 422 must have, and problem details in one body."""
    body = response.json()
    assert response.status_code == 422 and response["Content-Type"] == "application/json"
    (error,) = body["errors"]
    assert error["code"] == "urn:au-cds:error:cds-all:Authorisation/InvalidArrangement"
    assert error["title"] == "Invalid Consent Arrangement" and error["detail"]
    assert body["type"].endswith("#unknown-arrangement")
    return body


def test_an_arrangement_that_is_anothers_is_told_like_one_that_never_was(holder, consent, unchanged):
    other = factories.OrganizationFactory()
    connect(other, "cdr", OTHER_KEY, issuer="dh-2")
    mine = {"iss": "dh-2", "sub": "dh-2"}

    def sent(arrangement):
        body = signed(cdr_claims(**mine, cdr_arrangement_id=arrangement), OTHER_KEY)
        return urlencode({"cdr_arrangement_jwt": body}).encode(), {
            "Authorization": f"Bearer {signed(cdr_claims(**mine), OTHER_KEY)}"
        }

    with unchanged():
        foreign = unknown_arrangement(revoke(sent(ARRANGEMENT)))
        never = unknown_arrangement(revoke(sent(str(uuid.uuid4()))))
    assert foreign == never


def test_who_claims_anothers_name_signs_with_their_own_key_and_ends_their_own_only(holder, consent):
    """Two channels of one issuer's name: the key decides whose message it is."""
    impostor = factories.OrganizationFactory()
    connect(impostor, "cdr", OTHER_KEY, issuer="dh-1")
    unknown_arrangement(revoke(from_holder(key=OTHER_KEY)))
    consent.refresh_from_db()
    assert consent.state == "active"
    assert revoke(from_holder()).status_code == 204


BAD_CDR = {
    "another key": lambda: from_holder(key=OTHER_KEY),
    "unsigned": lambda: from_holder(key=None, alg="none"),
    "a shared secret": lambda: from_holder(key="k" * 64, alg="HS256"),
    "RS256": lambda: from_holder(alg="RS256"),
    "no kid": lambda: from_holder(kid=None),
    "unknown kid": lambda: from_holder(kid="k2"),
    "a key it brings along": lambda: from_holder(jku="https://evil.example/jwks"),
    "typ of another use": lambda: from_holder(typ="consent-receipt+jwt"),
    "nobody's issuer": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, iss="dh-9", sub="dh-9")),
    "another audience": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, aud="https://other.example")),
    "over": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, exp=seconds() - 1)),
    "just over: no leeway": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, exp=seconds())),
    "too long": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, exp=seconds() + 4000)),
    "from the future": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, iat=seconds() + 30)),
    "not yet": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, nbf=seconds() + 61)),
    "an issuer with a NUL": lambda: from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, iss="dh-1\x00")),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_CDR)
def test_what_is_not_proved_is_refused_in_one_way(holder, unchanged, name):
    with unchanged():
        told = problem(revoke(BAD_CDR[name]()), 401, "unauthorized")
        assert told["detail"] == "새 토큰을 받아 Authorization: Bearer로 보내 주세요.", (
            "which check failed is not told"
        )


@pytest.mark.parametrize(
    "body", [b"", b"a=b", b"cdr_arrangement_jwt=", b"cdr_arrangement_jwt=x", b"\xff\xfe", b"cdr_arrangement_id=" + b"x" * 100]
)  # fmt: skip
def test_forms_that_are_none(holder, unchanged, body):
    with unchanged():
        assert revoke((body, {})).status_code in (400, 401)
        assert revoke((b"a=" + b"x" * 70_000, {})).status_code == 413
        assert Caller().post("arrangements/revoke", {}).status_code == 415


# --- once ---------------------------------------------------------------------------------------------------------------------


def test_the_same_again_is_answered_alike_and_changes_nothing(holder, consent, unchanged):
    sent = from_holder()
    first = revoke(sent)
    with unchanged():
        again = revoke(sent)
    assert (first.status_code, first.content) == (again.status_code, again.content) == (204, b"")


def test_the_same_id_with_other_bytes_is_refused(holder, consent, unchanged):
    jti = secrets.token_hex(8)
    assert revoke(from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, jti=jti))).status_code == 204
    with unchanged():
        again = cdr_claims(cdr_arrangement_id=ARRANGEMENT, jti=jti, exp=seconds() + 299)
        problem(revoke(from_holder(again)), 409, "message-id-reused")


def test_emptying_the_cache_opens_no_window_for_a_replay(holder, consent, unchanged):
    """T19: what was taken stands in an ordinary, logged table; a restart or a FLUSHALL forgets nothing."""
    jti = secrets.token_hex(8)
    sent = from_holder(cdr_claims(cdr_arrangement_id=ARRANGEMENT, jti=jti))
    revoke(sent)
    cache.clear()
    with connection.cursor() as cursor:
        cursor.execute("SELECT relpersistence FROM pg_class WHERE relname = 'consents_inboundmessage'")
        assert cursor.fetchone() == ("p",)
    with unchanged():
        assert revoke(sent).status_code == 204
        other = cdr_claims(cdr_arrangement_id=ARRANGEMENT, jti=jti, exp=seconds() + 280)
        problem(revoke(from_holder(other)), 409, "message-id-reused")


def test_ids_of_two_organizations_are_two_ids(holder, service):
    message = inbound.wires.Inbound(jti="one", issuer="x", happened="verification")
    for organization in (holder, service.organization):
        assert inbound.heard(
            organization, message, raw=organization.code.encode(), by=SYSTEM, at=timezone.now()
        )
    assert InboundMessage.objects.filter(jti="one").count() == 2


@pytest.mark.django_db(transaction=True)
def test_many_at_once_have_one_effect(settings):
    person, service = factories.PersonFactory(), factories.offered()
    consent = factories.joined(person, service).consents.filter(kind="transfer").first()
    connect(consent.source, "cdr", issuer="dh-1")
    note(consent, "arrangement", ARRANGEMENT)
    sent, start, answers = from_holder(), threading.Barrier(4), []

    def knock():
        try:
            start.wait(timeout=10)
            answers.append(revoke(sent).status_code)
        finally:
            connection.close()

    threads = [threading.Thread(target=knock) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert answers == [204] * 4
    assert InboundMessage.objects.count() == 1
    assert EntryIndex.objects.filter(consent=consent, typ="consent.withdrawn").count() == 1
    assert Delivery.objects.filter(consent=consent, event="consent-withdrawn").count() == 1


def test_what_has_ended_already_stays_as_it_ended(holder, consent, me):
    lifecycle.withdraw(consent, erase=True, by=me, at=timezone.now())
    assert revoke(from_holder()).status_code == 204
    consent.refresh_from_db()
    assert (consent.end_reason, consent.erasure) == ("person_withdrew", "requested")
    assert EntryIndex.objects.filter(consent=consent, typ="consent.withdrawn").count() == 1
    assert not Notice.objects.filter(kind="lost").exists()


def test_a_failure_in_the_middle_takes_the_id_back(holder, consent, monkeypatch, unchanged):
    def fail(*args, **kwargs):
        raise RuntimeError("the disk is full")

    sent = from_holder()
    with unchanged(), monkeypatch.context() as broken, pytest.raises(RuntimeError):
        broken.setattr(lifecycle.ending.speedbump, "raise_notice", fail)
        revoke(sent)
    assert revoke(sent).status_code == 204, "and so it can come again"


def test_too_many_have_to_wait(holder, monkeypatch):
    monkeypatch.setattr(doors, "PER_MINUTE", 1)
    revoke((b"a=b", {}))
    late = revoke(from_holder())
    problem(late, 429, "too-many-requests")
    assert late["Retry-After"]


# --- UK -----------------------------------------------------------------------------------------------------------------------

REVOKED = "urn:uk:org:openbanking:events:consent-authorization-revoked"


def uk_claims(consent_id="aac-1", **more):
    subject = {
        "subject_type": "http://openbanking.org.uk/rid_http://openbanking.org.uk/rty",
        "http://openbanking.org.uk/rid": consent_id, "http://openbanking.org.uk/rty": "account-access-consent",
        "http://openbanking.org.uk/rlk": [],
    }  # fmt: skip
    claims = {
        "iss": "https://bank.example/", "iat": seconds(), "jti": str(uuid.uuid4()), "aud": "client-7", "txn": str(uuid.uuid4()),
        "toe": seconds(), "sub": "https://bank.example/x", "events": {REVOKED: {"reason": "customer", "subject": subject}},
    }  # fmt: skip
    return claims | more


def notify(claims=None, key=RSA_KEY, alg="PS256", headers=None, **header):
    token = signed(uk_claims() if claims is None else claims, key, alg, **header)
    return Caller().post("event-notifications", token, content_type="application/jwt", **(headers or {}))


@pytest.fixture
def bank(source, consent):
    connect(source, "uk", issuer="https://bank.example/", client_id="client-7")
    note(consent, "consent", "aac-1")
    return source


def test_a_bank_tells_that_its_customer_took_the_consent_back(bank, consent):
    answer = notify(headers={"x-fapi-interaction-id": "93bac548-d2de-4546-b106-880a5018460d"})
    assert answer.status_code == 202 and not answer.content
    assert answer["x-fapi-interaction-id"] == "93bac548-d2de-4546-b106-880a5018460d"
    ended_by_source(consent)


def test_a_foreign_interaction_id_is_not_repeated(bank):
    answer = notify({"iss": "x"}, headers={"x-fapi-interaction-id": "<script>"})
    assert uuid.UUID(answer["x-fapi-interaction-id"])


def test_events_that_are_not_proved_or_not_ours(bank, unchanged):
    other = factories.OrganizationFactory()
    connect(other, "uk", OTHER_KEY, issuer="https://other.example/", client_id="client-7")
    with unchanged():
        problem(notify(key=OTHER_KEY), 400, "bad-signature")
        problem(notify(alg="RS256"), 400, "bad-signature")
        problem(notify(uk_claims(aud="client-8")), 400, "bad-signature")
        problem(notify(uk_claims(iss="https://nobody.example/")), 400, "bad-signature")
        problem(notify(uk_claims(iat=seconds() + 30)), 400, "bad-signature")
        problem(notify(uk_claims(events={REVOKED: {}})), 400, "bad-signature")
        never = problem(notify(uk_claims("aac-2")), 404, "not-found")
        theirs = notify(uk_claims(iss="https://other.example/"), key=OTHER_KEY)
        assert problem(theirs, 404, "not-found") == never
        problem(
            Caller().post("event-notifications", b"", content_type="application/jwt"), 400, "malformed-body"
        )
        problem(
            Caller().post("event-notifications", b"x.y", content_type="application/jwt"), 400, "bad-signature"
        )


def test_another_event_of_the_bank_is_taken_and_changes_nothing(bank, consent, unchanged):
    claims = uk_claims(events={"urn:uk:org:openbanking:events:resource-update": {"subject": {}}})
    assert notify(claims).status_code == 202
    with unchanged():
        assert notify(claims | {"iat": claims["iat"]}).status_code in (
            202,
            409,
        )  # another signature, the same id
    consent.refresh_from_db()
    assert consent.state == "active" and InboundMessage.objects.count() == 1


# --- native partners: RFC 8935 into us ----------------------------------------------------------------------------------------------


def push(caller, claims, key=EC_KEY, alg="ES256", **header):
    token = (
        claims
        if isinstance(claims, str | bytes)
        else signed(claims, key, alg, **{"typ": "secevent+jwt"} | header)
    )
    return caller.post("sets", token, content_type="application/secevent+jwt")


def event(name="consent-withdrawn", **facts) -> dict:
    return {f"{PORTAL}/secevent/{name}": facts}


@pytest.fixture
def partner(source, consent):
    connect(source, "push", EC_KEY)
    caller = of(source)

    def claims(**more):
        ours = {
            "iss": source.code, "aud": PORTAL, "iat": seconds(), "jti": secrets.token_hex(8),
            "events": event(consent=str(consent.pk)),
        }  # fmt: skip
        return ours | more

    caller.claims = claims
    return caller


def test_a_source_pushes_that_it_has_left(partner, consent, unchanged):
    claims = partner.claims()
    token = signed(claims, EC_KEY, "ES256", typ="secevent+jwt")
    answer = push(partner, token)
    assert answer.status_code == 202 and not answer.content
    ended_by_source(consent)
    with unchanged():
        assert push(partner, token).status_code == 202
        again = problem_of_set(push(partner, claims | {"txn": "x"}), 409, "message-id-reused")
    assert again["err"] == "invalid_request"


def test_it_may_use_its_own_name_for_the_consent(partner, consent):
    note(consent, "consent", "their-name-7")
    assert push(partner, partner.claims(events=event(consent="their-name-7"))).status_code == 202
    ended_by_source(consent)


def test_an_old_message_is_as_good_as_a_new_one(partner, consent):
    """A push that was tried for days: `iat` says when it was written, not when it came (§2.9)."""
    assert push(partner, partner.claims(iat=seconds() - 30 * 86_400)).status_code == 202
    ended_by_source(consent)


def test_an_operator_ends_a_whole_subscription(service, subscription):
    connect(service.organization, "push", EC_KEY)
    claims = {
        "iss": service.organization.code, "aud": f"{PORTAL}/api/v1/sets", "iat": seconds(), "jti": "j-1",
        "events": event("subscription-ended", subscription=str(subscription.pk)),
    }  # fmt: skip
    assert push(of(service.organization), claims).status_code == 202
    subscription.refresh_from_db()
    assert (subscription.state, subscription.end_reason) == ("ended", "operator_closed")
    assert subscription.erasure == "not_requested" and subscription.holds
    assert not subscription.consents.exclude(state="ended").exists()
    told = {row.organization_id for row in subscription.deliveries.filter(event="subscription-ended")}
    assert told and service.organization.pk not in told
    assert Notice.objects.filter(person=subscription.person, kind="lost", answer="").count() == 1


def test_a_test_of_the_line_changes_nothing_else(partner, consent):
    assert push(partner, partner.claims(events={push_wire.VERIFICATION: {"state": "x"}})).status_code == 202
    consent.refresh_from_db()
    assert consent.state == "active" and InboundMessage.objects.count() == 1


def problem_of_set(response, status: int, slug: str) -> dict:
    """RFC 8935 §2.3 and problem details in one body."""
    body = json.loads(response.content)
    assert response.status_code == status and body["type"].endswith(f"#{slug}"), body
    assert body["err"] in {
        *doors.Sets.ERRORS.values(),
        "invalid_request",
        "authentication_failed",
        "access_denied",
    }
    assert body["description"]
    if status == 400:
        assert response["Content-Type"] == "application/json"
    return body


BAD_SETS = {
    "another key": (lambda c: (c(), {"key": ec.generate_private_key(ec.SECP256R1())}), "invalid_key"),
    "unknown kid": (lambda c: (c(), {"kid": "k9"}), "invalid_key"),
    "a shared secret": (lambda c: (c(), {"key": "k" * 64, "alg": "HS256"}), "invalid_key"),
    "unsigned": (lambda c: (c(), {"key": None, "alg": "none"}), "invalid_key"),
    "typ of a receipt": (lambda c: (c(), {"typ": "consent-receipt+jwt"}), "invalid_request"),
    "no typ": (lambda c: (c(), {"typ": None}), "invalid_request"),
    "a key it brings along": (lambda c: (c(), {"jku": "https://evil.example"}), "invalid_request"),
    "another issuer": (lambda c: (c(iss="OTHER00001"), {}), "invalid_issuer"),
    "another audience": (lambda c: (c(aud="https://other.example"), {}), "invalid_audience"),
    "from the future": (lambda c: (c(iat=seconds() + 61), {}), "invalid_request"),
    "a little from the future": (lambda c: (c(iat=seconds() + 30), {}), "invalid_request"),
    "no iat": (lambda c: (c(iat=None), {}), "invalid_request"),
    "no jti": (lambda c: (c(jti=None), {}), "invalid_request"),
    "a long jti": (lambda c: (c(jti="x" * 257), {}), "invalid_request"),
    "no event": (lambda c: (c(events={}), {}), "invalid_request"),
    "two events": (lambda c: (c(events=event(consent="x") | event("consent-paused")), {}), "invalid_request"),
    "another event": (lambda c: (c(events=event("consent-granted", consent="x")), {}), "invalid_request"),
    "no consent": (lambda c: (c(events=event()), {}), "invalid_request"),
    "not a text": (lambda c: (c(events=event(consent=["x"])), {}), "invalid_request"),
    "a list": (lambda c: ("W10.W10.W10", {}), "invalid_request"),
    "nonsense": (lambda c: ("abc", {}), "invalid_request"),
    "nothing": (lambda c: (b"", {}), "invalid_request"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SETS)
def test_sets_that_are_not_what_they_claim(partner, unchanged, name):
    make, err = BAD_SETS[name]
    claims, options = make(partner.claims)
    with unchanged():
        answer = push(partner, claims, **options)
        body = json.loads(answer.content)
        assert answer.status_code == 400 and answer["Content-Type"] == "application/json"
        assert body["err"] == err and body["description"] and body["type"]


def test_consents_that_are_anothers_or_nobodys(partner, subscription, unchanged):
    other = factories.joined(factories.PersonFactory()).consents.filter(kind="transfer").first()
    here = subscription.consents.filter(kind="transfer").last()
    ids = (str(other.pk), str(here.pk), str(uuid.uuid4()), str(subscription.pk), "x", "\u202e", "{}")
    with unchanged():
        told = [push(partner, partner.claims(events=event(consent=one))) for one in ids]
        whole = event("subscription-ended", subscription=str(other.subscription_id))
        told += [push(partner, partner.claims(events=whole))]
        bodies = [problem_of_set(answer, 400, "unknown-consent") for answer in told]
    assert all(body == bodies[0] for body in bodies)


def test_a_source_ends_what_it_sends_to_a_subscription_and_nothing_else(partner, consent, subscription):
    whole = event("subscription-ended", subscription=str(subscription.pk))
    assert push(partner, partner.claims(events=whole)).status_code == 202
    ended_by_source(consent)
    assert subscription.consents.exclude(state="ended").count() == 3


def test_a_push_needs_the_token_of_the_one_who_signs(partner, service, unchanged):
    operator = of(service.organization)
    narrow = of(service.organization, "consents:read")
    with unchanged():
        claims = partner.claims()
        assert problem_of_set(push(operator, claims), 400, "bad-signature")["err"] in (
            "invalid_key",
            "invalid_issuer",
        )
        assert problem_of_set(push(Caller(), claims), 401, "unauthorized")["err"] == "authentication_failed"
        assert problem_of_set(push(narrow, claims), 403, "insufficient-scope")["err"] == "access_denied"
        assert partner.post("sets", {}).status_code == 415


# --- Korea ---------------------------------------------------------------------------------------------------------------------------

CI = "Q0lfMDAwMDAwMDAx"


@pytest.fixture
def korean(service, subscription, consent, me):
    """An operator that was asked to stop, and reports what came of it."""
    operator = service.organization
    channel = registry.open_channel(
        organization=operator, protocol="korea", address="https://there.example", details={"org_code": operator.code},
        at=timezone.now(),
    )  # fmt: skip
    lifecycle.withdraw(consent, erase=False, by=me, at=timezone.now())
    note(consent, "request", "RO_1", operator)
    references.note(operator, consent.person, kind="ci", identifier=CI, by=SYSTEM, at=timezone.now())
    caller = of(operator)
    caller.tran = f"{operator.code}M00000000000001"
    caller.channel = channel
    return caller


def report(caller, *, tran=None, **more):
    body = {"type": "02", "result_code": "00000", "result_msg": "성공", "tx_id": "RO_1", "user_ci": CI} | more
    raw = json.dumps({name: value for name, value in body.items() if value is not None}, ensure_ascii=False)
    return caller.post("consents/result", raw.encode(), **{"x-api-tran-id": tran or caller.tran})


def test_a_result_is_noted_with_its_digest_and_asked_back(korean, service, consent, unchanged):
    delivery = Delivery.objects.get(
        organization=service.organization, consent=consent, event="consent-withdrawn"
    )
    answer = report(korean)
    assert answer.status_code == 200, answer.content
    assert answer.json()["rsp_code"] == "00000" and answer["x-api-tran-id"] == korean.tran
    delivery.refresh_from_db()
    assert delivery.state == "received", (
        "unsigned: that they heard of it is believed, that they stopped is not"
    )
    assert delivery.stopped_at is None and delivery.check_at is not None
    assert EntryIndex.objects.filter(jti=delivery.jti, typ="delivery.received").count() == 1
    with unchanged():
        assert report(korean).status_code == 200
        assert report(korean, result_code="40403").json()["rsp_code"] == "40001", (
            "the same id, another report"
        )


def test_a_result_that_is_no_success_is_kept_in_words(korean, service, consent):
    report(korean, result_code="40403", result_msg="없음")
    delivery = Delivery.objects.get(
        organization=service.organization, consent=consent, event="consent-withdrawn"
    )
    assert (delivery.state, delivery.last_error) == ("received", "result 40403")


def test_results_that_are_none_of_theirs(korean, service, consent, unchanged):
    stranger = of(factories.OperatorFactory())
    with unchanged():
        never = report(korean, tx_id="RO_2")
        person = report(korean, user_ci="Q0lfMDAwMDAwMDAy")
        for answer in (never, person, report(stranger, tran=korean.tran)):
            problem(answer, 404, "not-found")
            assert answer.json()["rsp_code"] == "40403"
        assert never.json() == person.json()
        for wrong in (
            {"type": "01"},
            {"type": None},
            {"result_code": "1"},
            {"user_ci": "한글"},
            {"tx_id": ""},
        ):
            answer = report(korean, **wrong)
            problem(answer, 400, "malformed-body")
            assert answer.json()["rsp_code"] == "40001"
        for tran, repeated in (("Z" * 25, "Z" * 25), ("short", None), ("é" * 25, None)):
            answer = report(korean, tran=tran)
            assert (answer.status_code, answer.json()["rsp_code"]) == (400, "40002")
            assert answer.headers.get("x-api-tran-id") == repeated
        assert report(korean, type="01")["x-api-tran-id"] == korean.tran, "a refusal repeats it too"
        assert korean.post("consents/result", b"[]", **{"x-api-tran-id": korean.tran}).status_code == 400
        nobody = Caller()
        nobody.tran = korean.tran
        assert report(nobody).json()["rsp_code"] == "40101"


def test_no_ci_stands_in_the_clear_anywhere(korean, caplog):
    report(korean)
    assert CI not in caplog.text
    with connection.cursor() as cursor:
        for table in ("consents_reference", "consents_inboundmessage", "consents_delivery"):
            cursor.execute(f"SELECT count(*) FROM {table} t WHERE t::text LIKE %s", [f"%{CI}%"])
            assert cursor.fetchone() == (0,), table


# --- how long they are remembered ----------------------------------------------------------------------------------------------


def test_old_messages_are_forgotten_in_batches_and_the_ending_stands(holder, consent, monkeypatch):
    sent, now = from_holder(), timezone.now()
    assert revoke(sent).status_code == 204
    year = datetime.timedelta(days=365)
    assert inbound.forget_old(at=now + year - datetime.timedelta(hours=1)) == 0
    organization = consent.source
    InboundMessage.objects.bulk_create(
        InboundMessage(organization=organization, jti=f"old-{n}", digest="", at=now) for n in range(5)
    )
    InboundMessage.objects.create(organization=organization, jti="new", digest="", at=now + 2 * year)
    monkeypatch.setattr(inbound, "BATCH", 2)
    assert inbound.forget_old(at=now + year + datetime.timedelta(days=1), limit=4) == 4
    with time_machine.travel(now + year + datetime.timedelta(days=1)):
        jobs.erase()
    assert InboundMessage.objects.get().jti == "new"
    assert revoke(sent).status_code == 204, "still good, for an hour"
    assert Consent.objects.get(pk=consent.pk).state == "ended"
    assert EntryIndex.objects.filter(consent=consent, typ="consent.withdrawn").count() == 1
