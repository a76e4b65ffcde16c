"""Signed evidence: what counts as proof, and everything that does not."""

import base64
import datetime
import json
import uuid

import pytest
from django.utils import timezone
from joserfc import jws
from joserfc.jwk import ECKey, OctKey

from consents import messages
from consents.models import Evidence, Subscription
from tests import factories

from .conftest import Signer, of, problem

pytestmark = pytest.mark.django_db


def prove(caller, compact, **headers):
    return caller.post("evidence", compact, content_type="application/jwt", **headers)


@pytest.fixture
def refused(operator, unchanged):
    """Hand in something that is no proof: it is refused so, and nothing changes."""

    def check(compact, status=400, slug="bad-signature"):
        with unchanged():
            return problem(prove(operator, compact), status, slug)

    return check


def test_stopped_and_erased_are_kept_with_their_digest(operator, signer, stopped):
    compact = signer.sign(signer.claims(stopped, jti="first"))
    answer = prove(operator, compact)
    assert answer.status_code == 201, answer.content
    assert answer["Location"] == "/api/v1/evidence/first"
    assert answer.json()["state"] == "stopped" and answer.json()["digest"].startswith("sha256:")
    assert operator.get("evidence/first").json() == answer.json()
    assert prove(operator, signer.sign(signer.claims(stopped, "erased", method="deleted"))).status_code == 201
    kept = Evidence.objects.get(jti="first")
    assert kept.document == compact and kept.report_url == "https://operator.example/report"
    assert Subscription.objects.get(pk=stopped.subscription_id).erasure == "confirmed"


def test_erased_may_come_before_everything_else(operator, signer, stopped):
    assert prove(operator, signer.sign(signer.claims(stopped, "erased"))).json()["state"] == "erased"
    stopped.refresh_from_db()
    assert stopped.received_at and stopped.stopped_at and stopped.closed_at


def test_the_delivery_is_found_by_its_act_where_it_is_not_named(operator, signer, stopped):
    assert prove(operator, signer.sign(signer.claims(stopped, delivery=None))).status_code == 201


def test_lawful_keeping_names_law_and_date(operator, signer, stopped, refused):
    day = (timezone.now() + datetime.timedelta(days=900)).date().isoformat()
    for claims in (
        {"basis": "상법 제33조"}, {"retain_until": day}, {"basis": "", "retain_until": day},
        {"basis": "상법 제33조", "retain_until": "2020-01-01"}, {"basis": "x" * 241, "retain_until": day},
    ):  # fmt: skip
        refused(signer.sign(signer.claims(stopped, "retained", **claims)), 400, "invalid-request")
    kept = signer.claims(stopped, "retained", basis="상법 제33조", retain_until=day)
    assert prove(operator, signer.sign(kept)).status_code == 201
    subscription = Subscription.objects.get(pk=stopped.subscription_id)
    assert subscription.erasure == "refused" and day in subscription.erasure_refusal


def test_the_same_bytes_again_are_the_same_evidence(operator, signer, stopped, unchanged):
    compact = signer.sign(signer.claims(stopped))
    first = prove(operator, compact, Idempotency_Key="e")
    assert first.status_code == 201
    with unchanged():
        assert prove(operator, compact).status_code == 200
        assert prove(operator, compact).json() == first.json()
        again = prove(operator, compact, Idempotency_Key="e")
        assert (again.status_code, again["Idempotent-Replayed"]) == (201, "true")


def test_an_id_proves_one_thing_only(operator, signer, stopped, refused):
    claims = signer.claims(stopped)
    assert prove(operator, signer.sign(claims)).status_code == 201
    refused(signer.sign(claims | {"status": "erased"}), 409, "evidence-id-reused")
    refused(signer.sign(claims), 409, "evidence-id-reused")  # ECDSA: the same claims, other bytes


def test_nothing_goes_backwards(operator, signer, stopped, refused):
    assert prove(operator, signer.sign(signer.claims(stopped, "erased"))).status_code == 201
    for status in ("stopped", "erased"):
        refused(signer.sign(signer.claims(stopped, status)), 409, "wrong-order")
    refused(signer.sign(signer.claims(stopped, version=stopped.version - 1)), 409, "outdated-version")


def test_a_grant_cannot_be_proved_away(operator, signer, service, subscription, refused):
    granted = subscription.deliveries.get(organization=service.organization)
    refused(signer.sign(signer.claims(granted, "erased")), 409, "wrong-order")


def test_a_foreign_delivery_or_act_does_not_exist(signer, stopped, refused, unchanged):
    other = Signer(factories.OperatorFactory())
    server = of(other.organization)
    with unchanged():
        problem(prove(server, other.sign(other.claims(stopped))), 404, "not-found")
    for claims in (
        {"delivery": str(uuid.uuid4())},
        {"txn": str(uuid.uuid4())},
        {"subscription": str(uuid.uuid4())},
    ):
        refused(signer.sign(signer.claims(stopped, **claims)), 404, "not-found")
    problem(of(other.organization).get("evidence/first"), 404, "not-found")


def test_part_of_what_was_asked_proves_nothing_about_the_rest(operator, signer, stopped, refused):
    asked = sorted(messages.about(stopped.body))
    assert len(asked) > 1
    for some in ([], asked[:1]):
        body = refused(signer.sign(signer.claims(stopped, consents=some)), 400, "invalid-request")
        assert body["errors"][0]["pointer"].startswith("#/consents")
    strange = str(factories.joined(factories.PersonFactory(), factories.offered()).consents.first().pk)
    for other in ({"consents": [*asked, strange]}, {"consent": strange}, {"consent": str(uuid.uuid4())}):
        refused(signer.sign(signer.claims(stopped, **other)), 404, "not-found")
    assert prove(operator, signer.sign(signer.claims(stopped, consents=asked))).status_code == 201


def test_one_organization_cannot_hand_in_anothers_signature(signer, stopped, unchanged):
    thief = of(factories.OperatorFactory())
    with unchanged():
        problem(prove(thief, signer.sign(signer.claims(stopped))), 400, "bad-signature")


@pytest.mark.parametrize(
    "change",
    [
        {"iss": "TEST999999"}, {"aud": "https://elsewhere.example"}, {"aud": None}, {"iat": 4_000_000_000}, {"iat": None},
        {"iat": "now"}, {"exp": 1}, {"nbf": 4_000_000_000},
    ],
)  # fmt: skip
def test_a_signature_for_another_time_or_reader_is_none(signer, stopped, refused, change):
    refused(signer.sign(signer.claims(stopped, **change)))


@pytest.mark.parametrize(
    "change",
    [
        {"jti": None}, {"jti": ""}, {"jti": "x" * 101}, {"jti": "a/b"}, {"jti": 7}, {"txn": None}, {"txn": "x"}, {"version": "2"},
        {"version": 0}, {"version": 2**40}, {"status": "gone"}, {"status": None}, {"method": "burnt"}, {"completed_at": None},
        {"completed_at": 4_000_000_000}, {"completed_at": "yesterday"}, {"completed_at": -1}, {"completed_at": True},
        {"report": "x"}, {"report": {"sha256": "x"}}, {"report": {"sha256": "a" * 64, "path": "/"}}, {"surprise": 1},
        {"report": {"sha256": "a" * 64, "url": "x" * 501}}, {"subscription": None}, {"consents": "all"},
    ],
)  # fmt: skip
def test_claims_that_are_not_right_are_named(signer, stopped, refused, change):
    body = refused(signer.sign(signer.claims(stopped, **change)), 400, "invalid-request")
    assert body["errors"][0]["pointer"].startswith(f"#/{next(iter(change))}")


def test_only_a_registered_key_of_the_right_kind_signs(operator, signer, stopped, refused):
    claims = signer.claims(stopped)
    payload = json.dumps(claims).encode()
    good = {"alg": "ES256", "kid": signer.kid, "typ": "deletion-evidence+jwt"}
    stranger = ECKey.generate_key("P-256")
    refused(jws.serialize_compact(good, payload, stranger, algorithms=["ES256"]))
    refused(signer.sign(claims, kid="key-2"))
    refused(signer.sign(claims, typ="JWT"))
    refused(signer.sign(claims, jwk=stranger.as_dict(private=False)))
    refused(signer.sign(claims, jku="https://evil.example/jwks.json"))
    # The public key as an HMAC secret, the oldest trick.
    secret = OctKey.import_key(json.dumps(signer.key.as_dict(private=False)))
    refused(jws.serialize_compact(good | {"alg": "HS256"}, payload, secret, algorithms=["HS256"]))
    head = base64.urlsafe_b64encode(json.dumps(good | {"alg": "none"}).encode()).rstrip(b"=").decode()
    refused(f"{head}.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.")
    signer.retire()
    refused(signer.sign(claims))


def test_what_is_no_jws_at_all_is_refused(operator, signer, stopped, refused, unchanged):
    for compact in ("a.b.c", "x", "..", "{}", "é".encode()):
        refused(compact, 400, "malformed-body" if isinstance(compact, bytes) else "bad-signature")
    refused("", 400, "malformed-body")
    refused(signer.sign(b'{"iss":"a","iss":"b"}'))
    refused(signer.sign(b"[]"))
    refused("a" * 17_000, 413, "too-large")
    with unchanged():
        problem(operator.post("evidence", {"status": "erased"}), 415, "unsupported-media-type")
        problem(
            operator.post("evidence", b"a" * 10_000_000, content_type="application/jwt"), 413, "too-large"
        )
        problem(operator.get("evidence"), 405, "method-not-allowed")


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        ("stopped", {"completed_at": "2001-01-01T00:00:00Z"}),
        ("erased", {"completed_at": 978307200}),
        ("erased", {"report": None}),
        ("stopped", {"version": 99}),
    ],
)
def test_what_cannot_be_about_this_stop_is_no_proof(operator, signer, stopped, unchanged, status, changes):
    claims = signer.claims(stopped, status) | changes
    claims = {name: value for name, value in claims.items() if value is not None}
    with unchanged():
        assert prove(operator, signer.sign(claims)).status_code == 400
