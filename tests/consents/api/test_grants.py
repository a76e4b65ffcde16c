"""Grant Management (FAPI draft 03): a consent read and ended as a grant, by its person, its operator or its source."""

import uuid

import pytest
from django.test import Client
from django.utils import timezone

from consents import lifecycle, oauth
from consents.api import grants
from consents.models import Consent, Delivery, EntryIndex, Notice
from tests import factories

from .conftest import Caller, of, problem, token

pytestmark = pytest.mark.django_db
BOTH = [oauth.GRANT_QUERY, oauth.GRANT_REVOKE]


@pytest.fixture
def consent(subscription) -> Consent:
    return subscription.consents.filter(kind="transfer").select_related("source").first()


@pytest.fixture
def app_of_person(app, person) -> Caller:
    return Caller(token(app, person, BOTH))


def delete(caller, pk):
    return caller.client.delete(f"/api/v1/grants/{pk}", headers=caller.headers)


def told(consent) -> set:
    rows = Delivery.objects.filter(consent=consent, event="consent-withdrawn")
    return {row.organization_id for row in rows}


def test_a_grant_has_the_drafts_members(operator, app_of_person, consent, person):
    for caller in (operator, app_of_person, of(consent.source)):
        response = caller.get(f"grants/{consent.pk}")
        assert response.status_code == 200 and "no-store" in response["Cache-Control"]
        grant = response.json()
        assert set(grant) >= {"scopes", "claims", "created_at", "last_updated_at", "expires_at"}
        assert grant["grant_id"] == str(consent.pk) and grant["claims"] == []
        assert grant["scopes"] == [{"scope": " ".join(consent.scopes), "resource": [consent.source.code]}]
        assert grant["expires_at"] == f"{consent.until_on}T15:00:00.000000Z", "the last day ends in Seoul"
        assert grant["authorization_details"][0]["state"] == "active"
        assert (
            str(person.pk) not in response.content.decode() and person.email not in response.content.decode()
        )


def test_the_last_change_is_the_logs(operator, consent, me):
    before = operator.get(f"grants/{consent.pk}").json()
    lifecycle.pause(consent, by=me, at=timezone.now())
    after = operator.get(f"grants/{consent.pk}").json()
    assert (
        before["created_at"] == after["created_at"] and before["last_updated_at"] < after["last_updated_at"]
    )
    assert after["authorization_details"][0]["state"] == "paused"


@pytest.mark.parametrize(
    ("who", "reason"), [("operator", "operator_closed"), ("source", "source_left"), ("person", "person_withdrew")]
)  # fmt: skip
def test_whoever_ends_a_grant_is_not_called_back_and_everybody_else_is(
    operator, app_of_person, consent, subscription, who, reason
):
    callers = {"operator": operator, "person": app_of_person, "source": of(consent.source)}
    response = delete(callers[who], consent.pk)
    assert response.status_code == 204 and not response.content
    consent.refresh_from_db()
    assert (consent.state, consent.end_reason, consent.erasure) == ("ended", reason, "not_requested")
    own = {"operator": subscription.operator_id, "source": consent.source_id, "person": None}[who]
    assert told(consent) == {subscription.operator_id, consent.source_id} - {own}
    entry = EntryIndex.objects.get(consent=consent, typ="consent.withdrawn")
    assert entry.reason == reason and entry.actor_kind == ("person" if who == "person" else "organization")
    lost = Notice.objects.filter(person=consent.person, kind="lost", subscription=subscription)
    assert lost.count() == (0 if who == "person" else 1)
    subscription.refresh_from_db()
    assert subscription.state == "active", "the subscription goes on"


def test_an_ended_grant_is_gone_and_stays_so(operator, app_of_person, consent, unchanged):
    callers = (operator, app_of_person, of(consent.source))
    assert delete(operator, consent.pk).status_code == 204
    with unchanged():
        for caller in callers:
            gone = problem(caller.get(f"grants/{consent.pk}"), 404, "not-found")
            assert problem(delete(caller, consent.pk), 404, "not-found") == gone


def test_what_is_anothers_is_told_like_what_never_was(consent, app, unchanged):
    others = [
        of(factories.OperatorFactory()), of(factories.OrganizationFactory()),
        Caller(token(app, factories.PersonFactory(), BOTH)),
    ]  # fmt: skip
    with unchanged():
        for caller in others:
            never = problem(caller.get(f"grants/{uuid.uuid4()}"), 404, "not-found")
            assert problem(caller.get(f"grants/{consent.pk}"), 404, "not-found") == never
            assert problem(delete(caller, consent.pk), 404, "not-found") == never


def test_a_third_party_of_another_consent_ends_nothing(consent, subscription, unchanged):
    third = of(subscription.consents.get(kind="third_party").recipient)
    with unchanged():
        problem(delete(third, consent.pk), 404, "not-found")


def test_each_method_has_its_scope(service, consent, app, person, unchanged):
    org = service.organization
    readers = (
        of(org, "deliveries:ack", oauth.GRANT_QUERY),
        Caller(token(app, person, ["me", oauth.GRANT_QUERY])),
    )
    with unchanged():
        for caller in readers:
            assert caller.get(f"grants/{consent.pk}").status_code == 200
            refused = delete(caller, consent.pk)
            problem(refused, 403, "insufficient-scope")
            assert 'scope="grant_management_revoke"' in refused["WWW-Authenticate"]
        problem(of(org, oauth.GRANT_REVOKE).get(f"grants/{consent.pk}"), 403, "insufficient-scope")
        problem(Caller(token(app, person, ["me"])).get(f"grants/{consent.pk}"), 403, "insufficient-scope")


def test_without_a_good_token_nobody_comes_in(app, person, consent, unchanged):
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    browser = Client()
    browser.force_login(person, backend="allauth.account.auth_backends.AuthenticationBackend")
    with unchanged():
        problem(Caller().get(f"grants/{consent.pk}"), 401, "unauthorized")
        wrong = Caller("wrong").get(f"grants/{consent.pk}")
        problem(wrong, 401, "unauthorized")
        assert 'error="invalid_token"' in wrong["WWW-Authenticate"]
        problem(delete(Caller(token(app, person, BOTH, lasts=-1)), consent.pk), 401, "unauthorized")
        problem(delete(Caller(token(app, regulator, BOTH)), consent.pk), 403, "forbidden")
        problem(delete(Caller(token(app, None, BOTH)), consent.pk), 403, "forbidden")
        assert browser.delete(f"/api/v1/grants/{consent.pk}").status_code == 401, "a session is no grant"
        assert Caller(token(app, person, BOTH)).post(f"grants/{consent.pk}").status_code == 405


def test_too_many_requests_have_to_wait(operator, consent, monkeypatch):
    monkeypatch.setattr(grants, "PER_MINUTE", 2)
    codes = [operator.get(f"grants/{consent.pk}").status_code for _ in range(2)]
    late = delete(operator, consent.pk)
    problem(late, 429, "too-many-requests")
    assert codes == [200, 200] and late["Retry-After"] == "60"
    consent.refresh_from_db()
    assert consent.state == "active"


def test_where_the_database_is_away_the_caller_is_asked_to_come_back(operator, consent, monkeypatch):
    from django.db import OperationalError

    def away(*args, **kwargs):
        raise OperationalError

    monkeypatch.setattr(grants.Grant, "_own", away)
    answer = operator.get(f"grants/{consent.pk}")
    problem(answer, 503, "try-again")
    assert answer["Retry-After"] == "5"


def test_the_metadata_names_the_endpoint():
    for address in ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"):
        told = Client().get(address).json()
        assert told["grant_management_endpoint"] == "http://127.0.0.1:8000/api/v1/grants"
        assert told["grant_management_actions_supported"] == ["query", "revoke"]
        assert set(BOTH) <= set(told["scopes_supported"])
