"""The second lock of T07: the database shows an organization's reads its own rows, whatever filter is forgotten."""

import datetime
import re
import uuid
from pathlib import Path

import psycopg
import pytest
from django.db import ProgrammingError, connection, transaction
from django.http import Http404
from django.test import Client as Browser
from django.test.utils import CaptureQueriesContext
from django.urls import get_resolver
from django.utils import timezone

from consents import access, lifecycle, uploads
from consents.actors import Actor
from consents.api.authentication import Organization as OfOrganization
from consents.ledger.roles import ORGANIZATION
from consents.models import (
    Case,
    ChannelChange,
    Consent,
    ConsentRequest,
    Delivery,
    Evidence,
    GymRun,
    Reissue,
    Subscription,
    Upload,
)
from consents.models.owned import OwnedQuerySet
from providers.models import Channel, Terms
from tests import factories
from tests.consents.api.conftest import Signer, of, problem

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]
# Which organizations there are, what they offer and ask in published terms: public.
AUTH_CODE = datetime.timedelta(minutes=10)
EVERYBODYS = {
    "providers_organization",
    "providers_service",
    "providers_scope",
    "providers_terms",
    "providers_termsitem",
}
WITHOUT_RULE = {
    "consents_entryindex"
}  # when there was news of a consent, and nothing else: see the migration
OWN = {
    "consents_delivery", "consents_reissue", "consents_evidence", "consents_subscription", "consents_consent", "consents_consentrequest",
    "consents_upload", "consents_gymrun", "consents_channelchange", "consents_case", "consents_person", "providers_channel",
}  # fmt: skip


def full(person) -> dict:
    """An operator with a row in each table that an organization reads; by table the ids of its rows."""
    service, now = factories.offered(), timezone.now()
    own = service.organization
    subscription = factories.joined(person, service)
    lodged = ConsentRequest.objects.create(
        organization=own, service=service, terms=subscription.terms, lodged_at=now, expires_at=now + AUTH_CODE
    )
    now = timezone.now()
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=now)
    delivery = Delivery.objects.get(organization=own, event="subscription-ended")
    anew = Reissue.objects.create(delivery=delivery, jti=uuid.uuid4(), body="{}", set_compact="a.b.c", at=now)
    signer = Signer(own)
    caller = of(own)
    answer = caller.post("evidence", signer.sign(signer.claims(delivery)), content_type="application/jwt")
    assert answer.status_code == 201, answer.content
    upload = uploads.start(own, kind="holdings", format="csv", by=Actor.organization(own), at=now)
    channel = Channel.objects.get(organization=own)
    run = GymRun.objects.create(organization=own, channel=channel, address="https://a.example/", asked_at=now)
    Case.objects.create(
        organization=own, kind="holding", matter=str(own.pk), opened_at=now, subscription=subscription
    )
    return {
        "organization": own, "caller": caller, "subscription": subscription, "delivery": delivery, "lodged": lodged,
        "evidence": Evidence.objects.get(organization=own).jti, "upload": upload, "run": run, "anew": anew, "channel": channel,
        "consent": subscription.consents.order_by("pk").first(),
    }  # fmt: skip


@pytest.fixture
def two(db):
    return full(factories.PersonFactory()), full(factories.PersonFactory())


def asked(statement, *values):
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def tables_read() -> set[str]:
    rows = asked(
        "SELECT c.relname FROM pg_class c WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace <> 'pg_catalog'::regnamespace "
        "AND relnamespace <> 'information_schema'::regnamespace AND (has_table_privilege(%s, c.oid, 'SELECT') "
        "OR has_any_column_privilege(%s, c.oid, 'SELECT'))",
        ORGANIZATION, ORGANIZATION,
    )  # fmt: skip
    return {name for (name,) in rows}


def as_reader(organization_setting, statement):
    """What raw SQL under the role sees; None leaves the setting alone."""
    with transaction.atomic():
        asked(f"SELECT set_config('role', '{ORGANIZATION}', true)")
        if organization_setting is not None:
            asked("SELECT set_config('portal.organization', %s, true)", organization_setting)
        try:
            return asked(statement)
        finally:
            transaction.set_rollback(True)


def counted(organization_setting) -> dict[str, int]:
    return {
        table: as_reader(organization_setting, f"SELECT count(*) FROM {table}")[0][0] for table in sorted(OWN)
    }


# --- raw SQL ---------------------------------------------------------------------------------------------------------------


def test_the_role_reads_what_is_listed_and_nothing_else():
    assert tables_read() == OWN | EVERYBODYS | WITHOUT_RULE
    columns = asked(
        "SELECT table_name, column_name FROM information_schema.column_privileges WHERE grantee = %s AND table_name = ANY(%s)",
        ORGANIZATION, ["consents_person", "consents_entryindex"],
    )  # fmt: skip
    assert set(columns) == {
        ("consents_person", "id"), ("consents_person", "subject_id"), ("consents_entryindex", "consent_id"), ("consents_entryindex", "at"),
    }  # fmt: skip


def test_each_sees_its_own_rows_and_none_of_the_others(two):
    one, other = two
    for mine, theirs in ((one, other), (other, one)):
        setting = str(mine["organization"].pk)
        seen = counted(setting)
        assert {table: n for table, n in seen.items() if not n} == {"consents_channelchange": 0}
        foreign = f"'{theirs['organization'].pk}'"
        for table, column in (
            *((table, "organization_id") for table in OWN & set(_columns("organization_id"))),
            ("consents_subscription", "operator_id"),
        ):  # fmt: skip
            assert as_reader(setting, f"SELECT count(*) FROM {table} WHERE {column} = {foreign}") == [(0,)], (
                table
            )
        for table, key in (
            ("consents_consent", theirs["consent"].pk), ("consents_reissue", theirs["anew"].pk),
            ("consents_person", theirs["subscription"].person_id),
        ):  # fmt: skip
            assert as_reader(setting, f"SELECT count(*) FROM {table} WHERE id = '{key}'") == [(0,)], table
    assert sum(counted(str(uuid.uuid4())).values()) == 0


def _columns(name: str) -> list[str]:
    return [
        table
        for (table,) in asked(
            "SELECT table_name FROM information_schema.columns WHERE column_name = %s", name
        )
    ]


@pytest.mark.parametrize("setting", [None, ""])
def test_without_an_organization_nothing_is_seen(two, setting):
    assert sum(counted(setting).values()) == 0


def test_the_setting_cannot_be_left_behind(two):
    """Whoever takes it away, or is asked again in a later transaction, sees nothing."""
    own = str(two[0]["organization"].pk)
    with transaction.atomic():
        asked(
            f"SELECT set_config('role', '{ORGANIZATION}', true), set_config('portal.organization', %s, true)",
            own,
        )
        assert asked("SELECT count(*) FROM consents_delivery") != [(0,)]
        with connection.cursor() as cursor:
            cursor.execute("RESET portal.organization")
        assert asked("SELECT count(*) FROM consents_delivery") == [(0,)]
        transaction.set_rollback(True)
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), transaction.atomic():
        try:
            as_reader("everything", "SELECT count(*) FROM consents_delivery")
        except Exception as error:
            raise error.__cause__ from error
    assert counted(None)["consents_delivery"] == 0


def test_a_draft_of_terms_is_its_companys_alone(two):
    one, other = two
    draft = Terms.objects.filter(service__organization=other["organization"]).first()
    draft.pk, draft.state, draft.version, draft.published_at, draft.effective_at = (
        uuid.uuid4(),
        "draft",
        99,
        None,
        None,
    )
    draft._state.adding = True
    draft.save()
    seen = f"SELECT count(*) FROM providers_terms WHERE id = '{draft.pk}'"
    assert as_reader(str(one["organization"].pk), seen) == [(0,)]
    assert as_reader(str(other["organization"].pk), seen) == [(1,)]


def test_the_role_writes_nothing_and_cannot_log_in(two):
    own = str(two[0]["organization"].pk)
    rows = asked(
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname IN ('public', 'ledger')"
    )
    for (table,) in rows:
        for statement in (
            f"DELETE FROM {table}",
            f"INSERT INTO {table} DEFAULT VALUES",
            f"TRUNCATE {table} CASCADE",
        ):
            with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
                as_reader(own, statement)
    for statement in ("UPDATE consents_delivery SET state = 'erased'", "CREATE TABLE mine (a int)", "SELECT email FROM consents_person",
                      "SELECT * FROM consents_person", "SELECT * FROM consents_transfer", "SELECT * FROM consents_waitingholding",
                      "SELECT * FROM ledger.event", "SELECT * FROM consents_delivery FOR UPDATE"):  # fmt: skip
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic():
            as_reader(own, statement)
    attributes = "rolcanlogin, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication"
    (found,) = asked(f"SELECT {attributes} FROM pg_roles WHERE rolname = %s", ORGANIZATION)
    assert not any(found)


# --- nothing is forgotten --------------------------------------------------------------------------------------------------


def test_every_table_that_names_an_organization_and_is_readable_has_a_rule():
    """Also one that comes later: a new table that the role may read needs a policy, or a place in EVERYBODYS."""
    naming = asked(
        "SELECT DISTINCT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f' "
        "AND confrelid = 'providers_organization'::regclass"
    )
    bound = asked(
        "SELECT c.relname FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid "
        "WHERE NOT polpermissive AND polroles = ARRAY[%s::regrole::oid] AND c.relrowsecurity",
        ORGANIZATION,
    )
    readable = tables_read()
    without = {name for (name,) in naming} & readable - {name for (name,) in bound} - EVERYBODYS
    assert without == WITHOUT_RULE
    assert readable - {name for (name,) in bound} == WITHOUT_RULE | {
        "providers_organization", "providers_service", "providers_scope",
    }  # fmt: skip


def test_what_is_copied_in_has_no_rule():
    """COPY … FROM is refused to the portal's own login where a table has policies."""
    copied = {
        table
        for path in (ROOT / "consents").rglob("*.py")
        for table in re.findall(r"COPY (consents_\w+)", path.read_text("utf-8"))
    }
    assert copied == {"consents_uploadrefusal", "consents_entryindex"}
    (found,) = asked("SELECT bool_or(relrowsecurity) FROM pg_class WHERE relname = ANY(%s)", list(copied))
    assert found == (False,)


def test_everybody_else_sees_what_they_saw():
    rows = asked(
        "SELECT polrelid::regclass::text FROM pg_policy WHERE polpermissive AND polroles = '{0}' AND polcmd = '*'"
    )
    bound = asked("SELECT relname FROM pg_class WHERE relrowsecurity")
    assert sorted(rows) == sorted(bound) and rows


# --- the way there and back ------------------------------------------------------------------------------------------------


def standing() -> tuple:
    return asked(
        "SELECT current_user::text, COALESCE(NULLIF(current_setting('portal.organization', true), ''), '')"
    )[0]


def test_the_ordinary_role_comes_back_whatever_happens(two):
    own, before = two[0]["organization"], standing()
    with access.rows_of(own):
        assert standing() == (ORGANIZATION, str(own.pk))
    assert standing() == before
    with pytest.raises(Http404), access.rows_of(own):
        raise Http404
    assert standing() == before
    with pytest.raises(ProgrammingError), access.rows_of(own):
        asked("DELETE FROM consents_delivery")
    assert standing() == before
    with transaction.atomic(), access.rows_of(own), access.rows_of(two[1]["organization"]):
        assert standing()[1] == str(two[1]["organization"].pk)
    assert standing() == before


@pytest.mark.django_db(transaction=True)
def test_the_role_ends_with_its_transaction():
    own, before = factories.OperatorFactory(), standing()
    with CaptureQueriesContext(connection) as queries, access.rows_of(own):
        assert not Delivery.objects.exists()
    assert len([row for row in queries if "set_config" in row["sql"]]) == 1 and len(queries) <= 4
    assert standing() == before and connection.get_autocommit()


# --- the doors, with their filter forgotten ---------------------------------------------------------------------------------


@pytest.fixture
def forgotten(monkeypatch):
    """Every filter by organization forgotten at once."""
    monkeypatch.setattr(OwnedQuerySet, "of", lambda rows, organization: rows.all())


def foreign_paths(theirs: dict) -> list[str]:
    return [
        f"consent-requests/{theirs['lodged'].pk}", f"consents/{theirs['consent'].pk}", f"uploads/{theirs['upload'].pk}",
        f"uploads/{theirs['upload'].pk}/refused", f"uploads/{theirs['upload'].pk}/refused.csv",
        f"channel/tests/{theirs['run'].pk}", f"evidence/{theirs['evidence']}", f"grants/{theirs['consent'].pk}",
    ]  # fmt: skip


def test_a_forgotten_filter_shows_nothing_foreign(two, forgotten):
    mine, theirs = two
    caller = mine["caller"]
    for path in foreign_paths(theirs):
        problem(caller.get(path), 404, "not-found")
    for path in foreign_paths(mine):
        if not path.startswith("grants/"):  # it has ended
            assert caller.get(path).status_code == 200, path
    for path, foreign in (
        ("deliveries", Delivery.objects.filter(organization=theirs["organization"]).values_list("jti")),
        ("consents", Consent.objects.filter(subscription=theirs["subscription"]).values_list("pk")),
        ("uploads", [(theirs["upload"].pk,)]),
    ):
        told = caller.get(f"{path}?limit=100").content.decode()
        assert told.count('"id"') + told.count('"jti"') > 0
        assert not [key for (key,) in foreign if str(key) in told], path


def test_a_forgotten_filter_acknowledges_and_changes_nothing_foreign(two, forgotten, monkeypatch):
    from consents import answers

    mine, theirs = two
    caller, foreign = mine["caller"], theirs["delivery"]
    reached = []
    monkeypatch.setattr(answers, "acknowledge", lambda jti, **_how: reached.append(jti))
    before = Delivery.objects.filter(pk=foreign.pk).values().get()
    for jti in (foreign.jti, theirs["anew"].jti):
        problem(caller.post(f"deliveries/{jti}/ack"), 404, "not-found")
    problem(caller.post(f"deliveries/{foreign.jti}/replay"), 404, "not-found")
    asked_for = {"ack": [str(foreign.jti)], "returnImmediately": True, "maxEvents": 0}
    assert caller.post("sets/poll", asked_for).status_code == 200
    assert Delivery.objects.filter(pk=foreign.pk).values().get() == before
    assert access.addressed(mine["organization"], {foreign.jti, theirs["anew"].jti}) == set()
    assert reached == []  # whose own filter is yet another lock
    problem(caller.post(f"subscriptions/{theirs['subscription'].pk}/end"), 404, "not-found")
    problem(caller.post(f"consents/{theirs['consent'].pk}/end"), 404, "not-found")
    assert Evidence.objects.filter(organization=theirs["organization"]).count() == 1


def test_a_message_of_somebody_else_is_not_handed_over_by_poll(two, monkeypatch):
    from consents import polling

    mine, theirs = two
    offered = polling.offer
    monkeypatch.setattr(polling, "offer", lambda organization, **how: offered(theirs["organization"], **how))
    answer = mine["caller"].post("sets/poll", {"returnImmediately": True}).json()
    assert answer["sets"] == {}


def test_the_desk_with_a_forgotten_filter(two, forgotten):
    mine, theirs = two
    browser = Browser()
    member = factories.MemberFactory(organization=mine["organization"])
    browser.force_login(member.person)
    for path in (
        f"/desk/deliveries/{theirs['delivery'].jti}/", f"/desk/uploads/{theirs['upload'].pk}/", f"/desk/gym/{theirs['run'].pk}/",
        f"/desk/cases/{Case.objects.get(organization=theirs['organization']).pk}/",
    ):  # fmt: skip
        assert browser.get(path).status_code == 404, path
    for path in (
        "/desk/",
        "/desk/deliveries/",
        "/desk/requests/",
        "/desk/uploads/",
        "/desk/cases/",
        "/desk/gym/",
    ):
        answer = browser.get(path)
        assert answer.status_code == 200, path
        words = answer.content.decode()
        for key in (theirs["delivery"].jti, theirs["upload"].pk, theirs["run"].pk, theirs["lodged"].pk):
            assert str(key) not in words, path


def doors_of_organizations():
    """Every path below /api/v1/ that an organization's token opens with GET."""
    found = []

    def opened(door) -> bool:
        return hasattr(door, "get") and any(
            issubclass(one, OfOrganization) for one in door.permission_classes
        )

    def walk(patterns, before=""):
        for entry in patterns:
            path = before + str(entry.pattern)
            if hasattr(entry, "url_patterns"):
                walk(entry.url_patterns, path)
            elif opened(getattr(entry.callback, "cls", None)):
                found.append(path)

    walk(get_resolver().url_patterns)
    return [
        path for path in found if path.startswith("api/v1/") and "services/" not in path
    ]  # which are public


def test_every_get_of_an_organization_reads_behind_the_lock(two):
    mine = two[0]
    keys = {
        "consent-requests": mine["lodged"].pk, "consents": mine["consent"].pk, "uploads": mine["upload"].pk,
        "channel": mine["run"].pk, "evidence": mine["evidence"],
    }  # fmt: skip
    paths = doors_of_organizations()
    assert len(paths) >= 9, paths
    for path in paths:
        family = path.removeprefix("api/v1/").split("/")[0]
        filled = re.sub(r"<\w+:\w+>", lambda _found, family=family: str(keys[family]), path)
        with CaptureQueriesContext(connection) as queries:
            assert mine["caller"].get(f"/{filled}").status_code == 200, filled
        assert any("portal.organization" in row["sql"] for row in queries), path


def test_an_acknowledgement_costs_two_statements_more(two):
    mine = two[0]
    path = f"deliveries/{mine['delivery'].jti}/ack"
    mine["caller"].post(path)
    with CaptureQueriesContext(connection) as queries:
        assert mine["caller"].post(path).status_code == 200
    words = [row["sql"] for row in queries]
    place = next(n for n, sql in enumerate(words) if "portal.organization" in sql)
    behind = words[place : next(n for n, sql in enumerate(words) if n > place and "ROLLBACK TO" in sql)]
    assert len(behind) == 2


def test_all_that_is_filtered_by_organization_has_the_one_filter():
    for model in (
        Case,
        ChannelChange,
        Consent,
        ConsentRequest,
        Delivery,
        Evidence,
        GymRun,
        Subscription,
        Upload,
    ):
        assert isinstance(model.objects.all(), OwnedQuerySet), model
