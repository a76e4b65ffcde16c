"""Messages fetched and acknowledged by poll (RFC 8936): offered until they are acknowledged, one effect whatever way they came."""

import datetime
import json
import threading
import time
import urllib.request
import uuid

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consents import answers, lifecycle, polling, propagation
from consents.actors import Actor
from consents.api import poll
from consents.models import Delivery, EntryIndex
from providers import policy
from tests import factories

from .conftest import of, payload_of, problem

pytestmark = pytest.mark.django_db
NOW = {"returnImmediately": True}
# The ids of RFC 8936's own examples.
FIRST, SECOND = "4d3559ec67504aaba65d40b0363faad8", "3d0c3cf797584bd193bd0fb1bd4e7d30"
# Its requests, §2.4: initial, acknowledge only, poll with acknowledgement, poll with errors.
EXAMPLES = [
    {"returnImmediately": True},
    {"ack": [FIRST, SECOND], "maxEvents": 0, "returnImmediately": True},
    {"ack": [FIRST, SECOND], "returnImmediately": True},
    {
        "ack": [SECOND],
        "setErrs": {FIRST: {"err": "authentication_failed", "description": "The SET could not be authenticated"}},
        "returnImmediately": True,
    },
    {},
]  # fmt: skip


@pytest.fixture(autouse=True)
def slept(monkeypatch) -> list[float]:
    """How long every poll of a test has waited, step by step; a wait is short here."""
    steps, sleep = [], time.sleep
    monkeypatch.setattr(poll, "LONGEST_WAIT", 0.2)
    monkeypatch.setattr(poll, "LOOK_EVERY", 0.05)
    monkeypatch.setattr(poll.time, "sleep", lambda seconds: (steps.append(seconds), sleep(seconds)))
    return steps


def ask(caller, **asked):
    response = caller.post("sets/poll", NOW | asked)
    assert response.status_code == 200, response.content
    answer = response.json()
    assert set(answer) == {"sets", "moreAvailable"}
    return answer


def mine(organization, **filters):
    return Delivery.objects.filter(organization=organization, **filters).order_by("pk")


@pytest.mark.parametrize("example", EXAMPLES, ids=["initial", "ack only", "ack", "errors", "long poll"])
def test_the_standards_own_requests_are_understood(operator, stopped, example):
    answer = operator.post("sets/poll", example)
    assert answer.status_code == 200 and answer["Content-Type"] == "application/json"
    offered = answer.json()["sets"]
    assert len(offered) == (0 if example.get("maxEvents") == 0 else 2)
    stopped.refresh_from_db()
    assert stopped.state == "manual"


def test_what_is_not_acknowledged_is_offered_oldest_first_as_it_would_be_pushed(operator, service, stopped):
    answer = ask(operator)
    rows = list(mine(service.organization))
    assert list(answer["sets"]) == [str(row.jti) for row in rows]
    assert list(answer["sets"].values()) == [row.set_compact for row in rows]
    assert [payload_of(compact)["jti"] for compact in answer["sets"].values()] == list(answer["sets"])
    assert answer["moreAvailable"] is False
    assert [row.state for row in rows] == ["manual", "manual"], "offered is not received"


def test_a_poll_takes_a_few_at_a_time_and_says_that_there_are_more(operator, stopped):
    first = ask(operator, maxEvents=1)
    second = ask(operator, maxEvents=1)
    assert (len(first["sets"]), first["moreAvailable"]) == (1, True)
    # The second message of the subscription does not overtake the first, which nobody has acknowledged.
    assert second == {"sets": {}, "moreAvailable": False}
    assert ask(operator, maxEvents=0)["moreAvailable"] is False
    again = ask(operator, ack=list(first["sets"]))
    assert list(again["sets"]) == [str(stopped.jti)] and not again["moreAvailable"]


def test_other_subscriptions_do_not_wait_for_it(operator, service, stopped):
    offered = ask(operator, maxEvents=1)["sets"]
    factories.joined(factories.PersonFactory(), service)
    assert len(ask(operator)["sets"]) == 1
    assert list(offered) != [str(stopped.jti)]


def test_no_limit_is_a_hundred(operator, service, stopped, monkeypatch):
    monkeypatch.setattr(poll, "MOST", 1)
    assert ask(operator)["moreAvailable"] is True
    assert ask(operator, maxEvents=2**31 - 1)["sets"] == {}


def test_it_is_offered_again_after_a_minute_until_it_is_acknowledged(operator, stopped):
    again = policy.number("POLL_AGAIN_SECONDS", on=timezone.now().date())
    with time_machine.travel(timezone.now(), tick=False) as clock:
        first = ask(operator)["sets"]
        assert len(first) == 2
        assert ask(operator)["sets"] == {}
        clock.shift(again - 1)
        assert ask(operator)["sets"] == {}
        clock.shift(1)
        assert ask(operator)["sets"] == first, "the same bytes"
        clock.shift(again)
        assert ask(operator, ack=list(first))["sets"] == {}
        clock.shift(again)
        assert ask(operator)["sets"] == {}


def test_an_acknowledgement_moves_the_delivery_and_is_logged_once(operator, service, stopped):
    jti = str(stopped.jti)
    for _ in range(3):
        ask(operator, ack=[jti, jti])
    stopped.refresh_from_db()
    assert stopped.state == "received" and stopped.received_at and stopped.last_error == ""
    assert EntryIndex.objects.filter(jti=stopped.jti, typ="delivery.received").count() == 1


@pytest.mark.parametrize("state", ["queued", "retrying", "sent", "checking", "dead", "manual"])
def test_every_state_without_an_acknowledgement_is_offered(operator, stopped, state, now):
    Delivery.objects.filter(pk=stopped.pk).update(
        state=state, next_at=now, sent_at=now if state == "sent" else None, dead_at=now if state == "dead" else None
    )  # fmt: skip
    assert str(stopped.jti) in ask(operator)["sets"]
    ask(operator, ack=[str(stopped.jti)])
    stopped.refresh_from_db()
    assert stopped.state == "received" and stopped.next_at is None


def test_what_a_stop_made_pointless_is_not_offered(operator, stopped, service):
    Delivery.objects.filter(organization=service.organization, event="consent-granted").update(
        state="checking", overtaken=True, closed_at=timezone.now()
    )
    assert list(ask(operator)["sets"]) == [str(stopped.jti)]


def test_a_push_under_way_and_a_poll_of_the_same_message_have_one_effect(operator, stopped):
    from providers.wires import SENT, Outcome

    at = timezone.now()
    Delivery.objects.filter(pk=stopped.pk).update(state="queued", next_at=at)
    factories.ChannelFactory(
        organization=stopped.organization, protocol="native", address="https://nobody.example/hook"
    )
    leased = next(row for row in propagation.claim(at=at, limit=50) if row.pk == stopped.pk)
    ask(operator, ack=[str(stopped.jti)])
    assert propagation.record(leased, Outcome(SENT, 200), at=timezone.now()) is False
    stopped.refresh_from_db()
    assert stopped.state == "received" and stopped.next_at is None
    assert EntryIndex.objects.filter(jti=stopped.jti, typ="delivery.sent").count() == 0


# --- another's ----------------------------------------------------------------------------------------------------------


def test_anothers_messages_are_neither_offered_nor_acknowledged(operator, stopped, unchanged):
    stranger = of(factories.OperatorFactory())
    with unchanged():
        answer = ask(
            stranger,
            ack=[str(stopped.jti), str(uuid.uuid4()), "not-an-id", str(stopped.jti).upper(), stopped.jti.hex],
            setErrs={str(uuid.uuid4()): {"err": "invalid_request", "description": "x"}},
        )
        assert answer == {"sets": {}, "moreAvailable": False}
        ask(stranger, setErrs={str(stopped.jti): {"err": "invalid_key", "description": "x"}})


def test_an_id_in_another_spelling_is_another_id(operator, stopped):
    ask(operator, ack=[stopped.jti.hex, str(stopped.jti).upper(), f"{{{stopped.jti}}}"])
    stopped.refresh_from_db()
    assert stopped.state == "manual"


# --- what could not be read ------------------------------------------------------------------------------------------------


def test_what_could_not_be_read_is_kept_for_the_admin_and_offered_again(operator, service, stopped, client):
    ask(
        operator,
        setErrs={
            str(stopped.jti): {"err": "invalid_key", "description": "Key ID 12345 has been revoked. " * 20}
        },
    )
    stopped.refresh_from_db()
    assert stopped.last_error.startswith("invalid_key: Key ID 12345") and len(stopped.last_error) == 300
    assert stopped.state == "manual" and stopped.received_at is None
    admin = factories.MemberFactory(organization=service.organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    assert "invalid_key: Key ID 12345" in client.get(f"/desk/deliveries/{stopped.jti}/").content.decode()
    with time_machine.travel(timezone.now() + datetime.timedelta(minutes=2)):
        assert str(stopped.jti) in ask(of(service.organization))["sets"]


def test_an_error_after_an_acknowledgement_is_late(operator, stopped):
    ask(operator, ack=[str(stopped.jti)])
    ask(operator, setErrs={str(stopped.jti): {"err": "invalid_key"}})
    stopped.refresh_from_db()
    assert stopped.state == "received" and stopped.last_error == ""


JTI = "01a2013b-6740-7a01-8f00-00000000c0de"


@pytest.mark.parametrize(
    "asked",
    [
        {"maxEvents": -1}, {"maxEvents": "1"}, {"maxEvents": True}, {"maxEvents": None}, {"maxEvents": 1.5}, {"maxEvents": 2**31},
        {"returnImmediately": "true"}, {"returnImmediately": None}, {"ack": JTI}, {"ack": None}, {"ack": [None]}, {"ack": [1]},
        {"ack": [[]]}, {"ack": ["x" * 201]}, {"ack": [""]}, {"ack": [str(n) for n in range(1001)]}, {"setErrs": []}, {"setErrs": None},
        {"setErrs": {JTI: "invalid_key"}}, {"setErrs": {JTI: {}}}, {"setErrs": {JTI: {"err": "no_time"}}},
        {"setErrs": {JTI: {"err": "invalid_key", "description": 1}}}, {"setErrs": {JTI: {"err": "invalid_key", "also": 1}}},
        {"setErrs": {JTI: {"err": None}}}, {"setErrs": {str(n): {"err": "invalid_key"} for n in range(101)}},
        {"ack": [JTI], "setErrs": {JTI: {"err": "invalid_key"}}}, {"sets": {}}, {"max_events": 1},
    ],
    ids=lambda asked: json.dumps(asked)[:50],
)  # fmt: skip
def test_a_malformed_poll_acknowledges_nothing(operator, stopped, unchanged, asked):
    with unchanged():
        told = problem(
            operator.post("sets/poll", {"ack": [str(stopped.jti)]} | asked), 400, "invalid-request"
        )
    assert told["errors"]


def test_other_bodies_are_refused(operator, stopped, unchanged):
    with unchanged():
        problem(operator.post("sets/poll", b"{"), 400, "malformed-body")
        problem(operator.post("sets/poll", b'{"ack": [], "ack": []}'), 400, "malformed-body")
        problem(operator.post("sets/poll", "[]"), 400, "invalid-request")
        problem(operator.post("sets/poll", b" " * 70_000), 413, "too-large")
        problem(operator.post("sets/poll", "{}", content_type="text/plain"), 415, "unsupported-media-type")
        assert operator.get("sets/poll").status_code == 405


# --- waiting --------------------------------------------------------------------------------------------------------------


def test_an_empty_poll_waits_and_a_full_one_does_not(operator, stopped, slept):
    offered = operator.post("sets/poll", {}).json()["sets"]
    assert len(offered) == 2 and not slept
    begun = time.monotonic()
    assert operator.post("sets/poll", {"ack": list(offered)}).json() == {"sets": {}, "moreAvailable": False}
    assert slept and time.monotonic() - begun >= 0.2


def test_acknowledging_only_waits_as_well_unless_it_says_otherwise(operator, stopped, slept):
    """`maxEvents: 0` and no `returnImmediately`: nothing can come, and the answer comes at the end of the wait."""
    ask(operator, maxEvents=0, ack=[str(uuid.uuid4())])
    assert not slept
    begun = time.monotonic()
    answer = operator.post("sets/poll", {"maxEvents": 0, "ack": [str(stopped.jti)]}).json()
    assert slept and time.monotonic() - begun >= 0.2
    assert answer == {"sets": {}, "moreAvailable": True}
    stopped.refresh_from_db()
    assert stopped.state == "received", "acknowledged before the wait"


def test_where_too_many_wait_the_answer_comes_at_once(operator, service, slept):
    with poll._place(service.organization.pk) as one:
        assert one
        assert operator.post("sets/poll", {}).json()["sets"] == {} and not slept
        with poll._place(uuid.uuid4()) as two, poll._place(uuid.uuid4()) as three:
            assert two and not three
    assert not poll._waiting


@pytest.mark.django_db(transaction=True)
def test_nothing_is_held_while_a_poll_waits_and_a_new_message_ends_it(live_server, monkeypatch):
    """A real server: its thread has no connection to the database while it waits, and is woken soon after a new row."""
    monkeypatch.setattr(poll, "LONGEST_WAIT", 60)
    service = factories.offered()
    caller = of(service.organization)
    answered: list = []

    def wait():
        request = urllib.request.Request(
            f"{live_server.url}/api/v1/sets/poll", b"{}", {"Content-Type": "application/json", **caller.headers}
        )  # fmt: skip
        with urllib.request.urlopen(request, timeout=90) as response:
            answered.append((json.load(response), time.monotonic()))

    held: list[bool] = []
    sleep = time.sleep
    monkeypatch.setattr(
        poll.time, "sleep", lambda seconds: (held.append(connection.connection is not None), sleep(seconds))
    )
    thread = threading.Thread(target=wait)
    thread.start()
    sleep(0.5)
    assert thread.is_alive()
    factories.joined(factories.PersonFactory(), service)
    written = time.monotonic()
    thread.join(timeout=30)
    ((answer, at),) = answered
    assert len(answer["sets"]) == 1 and at - written < 10
    assert held and not any(held)


def test_a_poll_costs_the_same_whatever_is_offered(operator, service, stopped):
    def count(joins: int) -> int:
        for _ in range(joins):
            factories.joined(factories.PersonFactory(), service)
        with CaptureQueriesContext(connection) as seen:
            assert len(ask(operator)["sets"]) == joins
        return len(seen)

    ask(operator)
    few = count(1)
    # The messages are looked for again behind the database's own lock: a savepoint, two statements, and back.
    assert count(6) == few <= 8 + 5


def test_a_replay_is_offered_under_the_first_id_and_answered_with_it(operator, service, stopped):
    by = Actor.organization(service.organization)
    answers.acknowledge(stopped.jti, organization=service.organization, by=by, at=timezone.now())
    again = propagation.replay(stopped, by=by, at=timezone.now())
    offered = ask(operator)["sets"]
    assert offered[str(stopped.jti)] == stopped.set_compact and str(again.jti) not in offered
    ask(operator, ack=[str(stopped.jti)])
    again.refresh_from_db()
    assert again.state == "received" and again.closed_at and again.next_at is None
    assert EntryIndex.objects.filter(jti__in=[stopped.jti, again.jti], typ="delivery.received").count() == 1


def test_two_polls_at_once_do_not_give_one_subscriptions_messages_crosswise(operator, service, stopped, me):
    found, _ = polling.offer(service.organization, most=1, by=me, at=timezone.now())
    others, more = polling.offer(service.organization, most=5, by=me, at=timezone.now())
    assert len(found) == 1 and others == {} and not more


def test_leaving_is_offered_to_the_source_as_well(stopped):
    for delivery in Delivery.objects.filter(role="source", event="subscription-ended"):
        sets = ask(of(delivery.organization))["sets"]
        assert str(delivery.jti) in sets
    assert lifecycle
