"""Read-back: asked by the calendar, by one worker at a time; an answer moves a stop forward or contradicts it, never back."""

import datetime
import json
from contextlib import nullcontext

import pytest
from django.core import mail as outbox
from django.db import connection

from consents import answers, checks, jobs, lifecycle, mail, readback, routes, speedbump, steps
from consents.actors import Actor
from consents.api import documents
from consents.api import person as person_api
from consents.ledger import replay
from consents.models import Breaker, Case, Check, Delivery, EntryIndex, Evidence, Notice
from consents.queries import desk, oversight, public
from consents.queries.tracker import tracker
from providers.models import Channel
from providers.wires import ABSENT, ACTIVE, STOPPED, STOPPING, UNKNOWN, Reading, native
from tests import factories

pytestmark = pytest.mark.django_db
MINUTE, HOUR, DAY = (
    datetime.timedelta(minutes=1),
    datetime.timedelta(hours=1),
    datetime.timedelta(days=1),
)


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "readback-keys"


@pytest.fixture
def left(person, me, now):
    """The person left with erasure; everybody has a native channel that nobody calls."""
    service = factories.offered()
    for item in service.terms.get(state="published").items.all():
        for party in filter(None, (item.source, item.recipient)):
            factories.ChannelFactory(
                organization=party, protocol="native", address="https://nobody.example/h"
            )
    factories.ChannelFactory(
        organization=service.organization, protocol="native", address="https://nobody.example/h"
    )
    return lifecycle.leave(factories.joined(person, service, now - DAY), erase=True, by=me, at=now)


@pytest.fixture
def stop(left, now) -> Delivery:
    """What the operator was told, as sent a moment ago and due for its first check."""
    row = left.deliveries.get(role="operator", event="subscription-ended")
    return moved(row, "sent", at=now)


def moved(row: Delivery, state: str, *, at) -> Delivery:
    row.state, row.next_at = state, None
    for step in ("sent", "received", "stopped", "erased"):
        setattr(row, f"{step}_at", at)
        if step == state:
            break
    checks.schedule(row, at=at)
    row.save()
    return row


def asked(row: Delivery, says: str, *, at) -> Check | None:
    """One answer to one claimed row."""
    Delivery.objects.filter(pk=row.pk).update(check_at=at)
    claimed = next(one for one in readback.claim(at=at, limit=50) if one.pk == row.pk)
    return readback.record(claimed, Reading(says, 200, "HTTP 200", "ab" * 32), by=readback.BY, at=at)


def entries(row: Delivery, typ: str) -> int:
    return EntryIndex.objects.filter(jti=row.jti, typ=typ).count()


# --- when ------------------------------------------------------------------------------------------------------------------


def test_a_stop_is_checked_after_a_minute_an_hour_a_day_and_then_weekly(stop, now):
    found = []
    at = stop.check_at
    for _ in range(6):
        found.append(at - now)
        asked(stop, UNKNOWN, at=at)
        stop.refresh_from_db()
        at = stop.check_at
    assert found == [MINUTE, HOUR, DAY, 8 * DAY, 15 * DAY, 22 * DAY]
    assert stop.checks == 6 and stop.checked.count() == 6


def test_nothing_more_is_asked_once_erasure_is_confirmed_and_looked_at(stop, left, now):
    left.erasure, left.erasure_confirmed_at = "confirmed", now
    left.save()
    moved(stop, "erased", at=now)
    for wait in (MINUTE, HOUR, DAY):
        asked(stop, STOPPED, at=now + wait)
    stop.refresh_from_db()
    assert stop.check_at is None
    asked(stop, ACTIVE, at=now + 2 * DAY)
    stop.refresh_from_db()
    assert stop.check_at == now + 9 * DAY, "what is wrong is looked at again"


def test_grants_and_overtaken_messages_are_never_asked_about(left, now):
    for row in left.deliveries.filter(goal="received"):
        row.state = "sent"
        checks.schedule(row, at=now)
        assert row.check_at is None


def test_stops_that_never_had_a_check_get_one(stop, left, now):
    others = left.deliveries.exclude(pk=stop.pk).filter(goal="stopped")
    others.update(state="stopped", sent_at=now, received_at=now, stopped_at=now, closed_at=now, next_at=None)
    Delivery.objects.update(check_at=None)
    assert readback.backfill(at=now) == 1 + others.count()
    assert readback.backfill(at=now) == 0
    stop.refresh_from_db()
    assert stop.check_at == now + MINUTE
    assert all(now <= row.check_at <= now + 7 * DAY for row in others)


# --- who asks ----------------------------------------------------------------------------------------------------------------


def test_a_claimed_row_is_nobody_elses_until_its_lease_ends(stop, now):
    at = now + MINUTE
    assert [row.pk for row in readback.claim(at=at, limit=50)] == [stop.pk]
    assert readback.claim(at=at, limit=50) == []
    assert [row.pk for row in readback.claim(at=at + HOUR, limit=50)] == [stop.pk]


def test_an_answer_to_a_row_that_moved_meanwhile_is_dropped(stop, now):
    claimed = readback.claim(at=now + MINUTE, limit=50)[0]
    Delivery.objects.filter(pk=stop.pk).update(check_at=now + HOUR)
    assert readback.record(claimed, Reading(ACTIVE, 200), by=readback.BY, at=now + DAY) is None
    assert Check.objects.count() == 0 and Case.objects.count() == 0


@pytest.mark.parametrize("change", [{"state": "retired"}, {"protocol": "desk"}, {"protocol": "poll"}])
def test_who_cannot_be_asked_is_not_claimed(stop, now, change):
    Channel.objects.filter(organization=stop.organization).update(**change)
    assert readback.claim(at=now + MINUTE, limit=50) == []


def test_an_endpoint_that_is_down_is_left_alone(stop, now):
    channel = Channel.objects.get(organization=stop.organization)
    Breaker.objects.create(channel=channel, state="open", open_until=now + HOUR, changed_at=now)
    assert readback.claim(at=now + MINUTE, limit=50) == []
    assert readback.claim(at=now + 2 * HOUR, limit=50) != []


def test_the_oldest_of_each_organization_is_claimed_by_the_index(stop, now):
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN " + readback._CLAIM,
            {"at": now, "until": now, "limit": 40, "each": 8, "protocols": ["native"]},
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "deliveries_to_check" in plan


def test_every_exception_of_a_wire_is_an_unknown_answer(stop, now, monkeypatch):
    class Broken:
        async def read_back(self, session, **kwargs):
            raise RuntimeError("a bug")

    monkeypatch.setitem(routes.WIRES, "native", Broken())
    assert readback.run(now=lambda: now + MINUTE) == []
    check = stop.checked.get()
    assert (check.says, check.detail) == (UNKNOWN, "RuntimeError")
    stop.refresh_from_db()
    assert stop.check_at == now + HOUR


# --- what follows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["sent", "received", "checking"])
@pytest.mark.parametrize("says", [STOPPED, ABSENT])
def test_our_own_look_is_enough_for_stopped(left, now, state, says):
    stop = left.deliveries.get(role="operator", event="subscription-ended")
    Delivery.objects.filter(pk=stop.pk).update(state=state, sent_at=now, received_at=now, next_at=None)
    asked(stop, says, at=now + MINUTE)
    stop.refresh_from_db()
    assert stop.state == "stopped" and stop.stopped_at == now + MINUTE
    assert stop.closed_at is None, "erasing was asked too, and is never taken from a look"
    entry = EntryIndex.objects.get(jti=stop.jti, typ="delivery.stopped")
    values = {value.name: value.value for value in oversight.entry(entry.event_id).values}
    assert values["evd"] == "sha256:" + "ab" * 32 and values["mth"] == "방지턱이 되물어 봤어요"


def test_what_we_saw_is_not_said_of_them(client, left, now):
    """Of a silent company: the tracker, the certificate, the log's lines and the desk say that we saw it stopped, and
    nothing that it never said."""
    stop = left.deliveries.get(role="operator", event="subscription-ended")
    Delivery.objects.filter(pk=stop.pk).update(state="sent", sent_at=now, attempts=1, next_at=None)
    asked(stop, STOPPED, at=now + MINUTE)
    client.force_login(left.person, backend="allauth.account.auth_backends.AuthenticationBackend")
    followed = tracker(left, at=now + HOUR)
    party = next(one for act in followed.acts for one in act.parties if one.delivery.jti == stop.jti)
    codes = [step.code for step in party.steps if step.at]
    assert "seen_stopped" in codes and not {"received", "stopped"} & set(codes)
    assert party.state == "seen_stopped"
    page = client.get(f"/me/subscriptions/{left.pk}/").content.decode()
    assert "물어보니 멈춰 있었어요" in page
    page = client.get(f"/me/subscriptions/{left.pk}/certificate/").content.decode()
    assert "물어보니 멈춰 있었어요" in page and "회사가 멈췄다고 했어요" not in page and "답하지 않음" in page
    stated = client.get(f"/me/subscriptions/{left.pk}/certificate/?format=json").json()
    told = next(one for one in stated["parties"] if one["jti"] == str(stop.jti))
    assert (
        told["received_at"] is None
        and told["seen_by_portal"] == ["received", "stopped"]
        and told["stopped_at"]
    )
    admin = factories.MemberFactory(organization=stop.organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    for path in ("/desk/deliveries/", f"/desk/deliveries/{stop.jti}/"):
        page = client.get(path).content.decode()
        assert "멈춘 것을 봄" in page and "멈췄다고 확인함" not in page and "받았다고 확인함" not in page


def test_the_regulator_is_not_told_that_they_said_what_we_saw(client, left, now):
    stop = left.deliveries.get(role="operator", event="subscription-ended")
    Delivery.objects.filter(pk=stop.pk).update(state="sent", sent_at=now, attempts=1, next_at=None)
    asked(stop, STOPPED, at=now + MINUTE)
    [late] = [row for row in oversight.overdue(at=now + 30 * DAY).rows if row.jti == stop.jti]
    assert late.state == "seen_stopped"
    entry = oversight.entry(EntryIndex.objects.get(jti=stop.jti, typ="delivery.stopped").event_id)
    assert str(entry.row.sentence) == "되물어 보니 멈춰 있었음"
    [duty] = desk.as_seen(desk.inbox(stop.organization, at=now + HOUR).rows)
    assert duty.shown_state == "seen_stopped"
    inspector = factories.MemberFactory(role="regulator", organization=None).person
    client.force_login(inspector, backend="allauth.account.auth_backends.AuthenticationBackend")
    Delivery.objects.filter(pk=stop.pk).update(due_at=now - DAY)
    page = client.get("/oversight/overdue/").content.decode()
    assert "멈춘 것을 봄" in page and "멈췄다고 함" not in page
    asked(stop, ACTIVE, at=now + HOUR)
    assert Case.objects.get().stated["claimed"] == ""


def test_their_word_counts_also_after_our_look(left, now):
    """Who acknowledges, and signs, a while after we have looked is not refused, nor called silent for ever."""
    row = moved(left.deliveries.filter(role="source", goal="stopped").first(), "sent", at=now)
    steps.write_entry(row, "delivery.sent", state="sent", by=Actor.system("deliver"), at=now)
    asked(row, STOPPED, at=now + MINUTE)
    own = row.organization
    by = Actor.organization(own)
    for minutes in (2, 3):
        steps.acknowledge_all([row.jti], organization=own, by=by, at=now + minutes * MINUTE)
    row.refresh_from_db()
    assert row.received_at == now + 2 * MINUTE and row.state == "stopped"
    assert entries(row, "delivery.received") == 1
    assert checks.seen(checks.looked([row.pk])[row.pk]) == {"stopped"}
    said = {"status": "stopped", "means": "signed", "digest": "sha256:" + "0" * 64, "document": "a.b.c"}
    for number, refused in ((1, False), (2, True)):
        evidence = Evidence(jti=f"late-{number}", stated_at=now, **said)
        with pytest.raises(answers.WrongOrder) if refused else nullcontext():
            answers.complete(row.jti, organization=own, evidence=evidence, by=by, at=now + 4 * MINUTE)
    assert checks.seen(checks.looked([row.pk])[row.pk]) == frozenset()
    row.refresh_from_db()
    assert row.stopped_at == row.closed_at == now + MINUTE, "we had seen it by then"
    assert replay.run().ok


def test_what_we_saw_is_no_acknowledgement_in_the_league(left, now):
    rows = left.deliveries.filter(goal="stopped", role="source")
    own = rows.first().organization
    for row in rows.filter(organization=own):
        asked(moved(row, "sent", at=now), STOPPED, at=now + MINUTE)
    with connection.cursor() as cursor:
        cursor.execute(public._LEAGUE, {"at": now, "since": now - DAY})
        [line] = [row for row in cursor.fetchall() if row[0] == own.pk]
    _pk, _stops, _late, _received, heard, _stopped, stopped, *_rest = line
    assert (heard, stopped) == (0, rows.filter(organization=own).count())


def test_while_it_is_wrong_a_case_is_open(stop, now):
    moved(stop, "stopped", at=now)
    asked(stop, ACTIVE, at=now + MINUTE)
    Case.objects.update(settled_at=now + HOUR, verb="dispute", reason="확인했어요")
    asked(stop, ACTIVE, at=now + 2 * HOUR)
    assert Case.objects.filter(settled_at=None).count() == 1 and entries(stop, "delivery.contradicted") == 1


def test_the_persons_own_record_says_who_said_it(left, now):
    stop = left.deliveries.get(role="operator", event="subscription-ended")
    Delivery.objects.filter(pk=stop.pk).update(state="sent", sent_at=now, attempts=1, next_at=None)
    asked(stop, STOPPED, at=now + MINUTE)
    told = documents.SubscriptionDetail(person_api._detailed([left])[0]).data["deliveries"]
    line = next(one for one in told if one["jti"] == str(stop.jti))
    assert (
        line["seen_by_portal"] == ["received", "stopped"]
        and line["received_at"] is None
        and line["stopped_at"]
    )


def test_what_they_said_first_is_theirs(left, now):
    stop = left.deliveries.get(role="operator", event="subscription-ended")
    own = stop.organization
    steps.acknowledge_all([stop.jti], organization=own, by=Actor.organization(own), at=now)
    asked(stop, STOPPED, at=now + MINUTE)
    followed = tracker(left, at=now + HOUR)
    party = next(one for act in followed.acts for one in act.parties if one.delivery.jti == stop.jti)
    assert [step.code for step in party.steps if step.at][-3:] == ["received", "seen_stopped", "checked"]


def test_a_source_that_shows_it_as_stopped_is_done(left, now):
    row = moved(left.deliveries.filter(role="source", goal="stopped").first(), "sent", at=now)
    asked(row, STOPPED, at=now + MINUTE)
    row.refresh_from_db()
    assert row.closed_at == now + MINUTE


def test_stopping_is_received(stop, now):
    asked(stop, STOPPING, at=now + MINUTE)
    stop.refresh_from_db()
    assert stop.state == "received" and entries(stop, "delivery.received") == 1
    asked(stop, STOPPING, at=now + HOUR)
    assert entries(stop, "delivery.received") == 1


@pytest.mark.parametrize("says", [ACTIVE, UNKNOWN, STOPPING])
def test_nothing_else_moves_it(stop, now, says):
    moved(stop, "stopped", at=now)
    asked(stop, says, at=now + MINUTE)
    stop.refresh_from_db()
    assert stop.state == "stopped"


def test_there_is_time_to_stop_before_it_is_held_against_anybody(stop, now):
    assert asked(stop, ACTIVE, at=now + MINUTE).finding == ""
    assert asked(stop, ACTIVE, at=now + DAY - MINUTE).finding == ""
    assert Case.objects.count() == Notice.objects.filter(kind="revived").count() == 0
    assert asked(stop, ACTIVE, at=now + DAY).finding == "still_active"
    assert Case.objects.get().stated["claimed"] == "", "that we sent it is nothing that they say"


def test_who_says_stopped_and_is_not_is_found_out_at_once(stop, left, person, now):
    moved(stop, "stopped", at=now)
    check = asked(stop, ACTIVE, at=now + MINUTE)
    assert check.finding == "still_active" and check.is_news
    notice = person.notices.get(kind="revived")
    assert notice.urgent and stop.organization.name_ko in notice.reason_ko
    case = Case.objects.get()
    assert (case.kind, case.organization, case.person) == ("ended_here", stop.organization, person)
    assert case.stated["claimed"] == "stopped"
    assert person.name not in str(case.stated) + str(case.known)
    assert entries(stop, "delivery.contradicted") == 1
    asked(stop, ACTIVE, at=now + HOUR)
    assert (
        entries(stop, "delivery.contradicted")
        == Case.objects.count()
        == person.notices.filter(kind="revived").count()
        == 1
    )


def test_what_we_saw_gone_and_is_there_again_came_back(stop, now):
    asked(stop, STOPPED, at=now + MINUTE)
    assert asked(stop, ACTIVE, at=now + HOUR).finding == "came_back"
    stop.refresh_from_db()
    assert stop.state == "stopped", "forward only"


def test_set_right_it_is_taken_back_and_a_second_time_it_is_told_again(stop, person, now):
    moved(stop, "stopped", at=now)
    asked(stop, ACTIVE, at=now + MINUTE)
    asked(stop, UNKNOWN, at=now + 2 * MINUTE)
    assert person.notices.get(kind="revived").answer == "", "no answer takes nothing back"
    asked(stop, STOPPED, at=now + HOUR)
    assert person.notices.get(kind="revived").answer == "gone"
    asked(stop, ACTIVE, at=now + DAY)
    assert entries(stop, "delivery.contradicted") == 2
    assert sorted(person.notices.filter(kind="revived").values_list("answer", flat=True)) == ["", "gone"]
    assert Case.objects.count() == 1, "the case is still open"


def test_the_daily_review_leaves_the_notice_alone(stop, person, now):
    moved(stop, "stopped", at=now)
    asked(stop, ACTIVE, at=now + MINUTE)
    speedbump.raise_due(by=Actor.system("warn"), at=now + HOUR)
    assert person.notices.get(kind="revived").answer == ""


def test_a_list_that_does_not_know_our_ids_may_mean_what_was_agreed_since(stop, left, now, monkeypatch):
    async def active(session, **kwargs):
        return Reading(ACTIVE, 200)

    class Foreign:
        read_back = staticmethod(active)

    moved(stop, "stopped", at=now)
    factories.joined(left.person, left.service, now)
    monkeypatch.setitem(routes.WIRES, "native", Foreign())
    assert readback.run(now=lambda: now + MINUTE) == []
    assert stop.checked.get().says == UNKNOWN
    Delivery.objects.filter(pk=stop.pk).update(check_at=now)
    Foreign.NAMES_OUR_IDS = True
    assert [check.finding for check in readback.run(now=lambda: now + MINUTE)] == ["still_active"]


# --- what is seen ----------------------------------------------------------------------------------------------------------------


def test_the_tracker_says_what_we_found(stop, left, now, django_assert_num_queries):
    moved(stop, "stopped", at=now)
    asked(stop, ACTIVE, at=now + MINUTE)
    with django_assert_num_queries(2):
        seen = tracker(left, at=now + MINUTE)
    act = next(act for act in seen.acts if any(party.contradicted for party in act.parties))
    assert "아직 멈추지 않았어요" in act.summary
    party = next(party for party in act.parties if party.contradicted)
    step = next(step for step in party.steps if step.code == "contradicted")
    assert step.state == "bad" and step.at == now + MINUTE
    asked(stop, STOPPED, at=now + HOUR)
    party = next(p for a in tracker(left, at=now + HOUR).acts for p in a.parties if p.delivery.pk == stop.pk)
    assert [(step.code, step.state) for step in party.steps if step.code in {"checked", "contradicted"}] == [
        ("checked", "done")
    ]


def test_the_admins_of_the_organization_get_a_letter(stop, now):
    admin = factories.MemberFactory(organization=stop.organization).person
    moved(stop, "stopped", at=now)
    check = asked(stop, ACTIVE, at=now + MINUTE)
    assert mail.tell_contradicted([check]) == 1
    assert outbox.outbox[-1].to == [admin.email] and "/desk/" in outbox.outbox[-1].body


def test_the_job_runs(stop):
    assert jobs.read_back() == 0


# --- the question ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ({"a": "stopped", "b": "erased"}, STOPPED), ({"a": "stopped"}, STOPPED), ({}, ABSENT),
        ({"a": "active", "b": "stopped"}, ACTIVE), ({"a": "stopped", "b": "paused"}, ACTIVE),
        ({"a": "stopping", "b": "stopped"}, STOPPING), ({"a": "?", "b": "stopped"}, UNKNOWN),
        ({"other": "active"}, ABSENT),
    ],
)  # fmt: skip
def test_what_an_answer_says_about_two_consents(states, says):
    rows = [{"id": name, "state": state} for name, state in states.items()]
    answer = json.dumps({"subscription": "s", "consents": rows}).encode()
    assert native._said(answer, "s", {"a", "b"}) == says
    assert native._said(answer, "t", {"a", "b"}) == UNKNOWN


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{",
        b'{"subscription":"s"}',
        b'{"subscription":"s","consents":[1]}',
        b'{"subscription":"s","consents":[{"id":"a"}]}',
    ],
)
def test_another_form_of_answer_says_nothing(answer):
    assert native._said(answer, "s", {"a"}) == UNKNOWN
