"""Killing what can be killed: nothing is lost, nothing happens twice, and at rest everybody says the same.

The whole demo with its pretend companies: F01 to F05 (tests/faults/stops) break the same things on every run, this one is
asked for (`-m asked`). One test, because all of it happens to one portal, whose start takes half a minute; each fault takes seconds.
"""

import os
import signal
import time
from collections.abc import Iterator

import pytest

from config.programs import CannotStart
from tests.faults.portal import LEASE, Portal, wait

pytestmark = [pytest.mark.fault, pytest.mark.asked, pytest.mark.timeout(240)]


@pytest.fixture
def portal() -> Iterator[Portal]:
    running = Portal()
    try:
        running.start()
        yield running
    finally:
        running.stop()


def test_nothing_is_lost_and_nothing_happens_twice(portal, subtests):
    for fault in (
        nobody_killed_anything,
        killed_between_claim_and_send,
        killed_between_send_and_record,
        the_other_side_hangs_up_after_acting,
        the_broker_is_killed,
        the_database_is_killed,
    ):
        with subtests.test(fault.__name__):
            assert portal.at_rest(), "the one before has left something behind"
            fault(portal)
    with subtests.test("everybody_still_says_the_same"):
        everybody_agrees(portal)
        assert portal.sql("SELECT count(*) FROM consents_delivery WHERE state = 'dead'") == [(0,)]


# --- the faults ------------------------------------------------------------------------------------------------------------


def nobody_killed_anything(portal: Portal) -> None:
    """For all forty people: the API = the page = what the operators hold; a few leave; at rest it is so again."""
    numbers = everybody_agrees(portal)
    assert len(numbers) == 40 and max(numbers) >= 7 and min(numbers) == 0
    with portal.working():
        left = [portal.somebody_leaves() for _ in range(3)]
        portal.comes_to_rest()
    for subscription in left:
        assert {effect["arrivals"] for effect in told_once(portal, subscription)} == {1}
    assert sum(everybody_agrees(portal)) < sum(numbers)


def killed_between_claim_and_send(portal: Portal) -> None:
    doomed = portal.doomed_worker("claimed")
    subscription = portal.somebody_leaves()
    wait(lambda: doomed.process.poll() is not None, 30, "the worker to be killed")
    rows = portal.deliveries(subscription)
    assert {(row["state"], row["leased"], row["attempts"]) for row in rows} == {("queued", True, 1)}
    assert not {row["jti"] for row in rows} & set(portal.effects()), "nothing was sent"
    killed_at = time.monotonic()
    with portal.working():
        portal.comes_to_rest()
    assert time.monotonic() - killed_at < LEASE + 20
    assert {effect["arrivals"] for effect in told_once(portal, subscription)} == {1}


def killed_between_send_and_record(portal: Portal) -> None:
    # Whoever acknowledges before the second worker comes is not told again; whoever has not is, without a second effect.
    doomed = portal.doomed_worker("sent")
    subscription = portal.somebody_leaves()
    wait(lambda: doomed.process.poll() is not None, 30, "the worker to be killed")
    assert {row["jti"] for row in portal.deliveries(subscription)} & set(portal.effects()), (
        "something had arrived"
    )
    with portal.working():
        portal.comes_to_rest()
    assert {effect["arrivals"] for effect in told_once(portal, subscription)} <= {1, 2}


def the_other_side_hangs_up_after_acting(portal: Portal) -> None:
    """Our call fails though it was heard: the message comes again, the effect does not."""
    codes = portal.sql(
        "SELECT o.code FROM providers_organization o JOIN providers_channel c ON c.organization_id = o.id "
        "WHERE c.protocol = 'native' AND c.state = 'open' AND o.is_operator"
    )
    for (code,) in codes:
        portal.fault(code, "drop_after_effect", 1)
    with portal.working():
        subscription = portal.somebody_leaves()
        portal.comes_to_rest()
    for (code,) in codes:
        portal.fault(code, "none")
    told = {effect["jti"]: effect for effect in told_once(portal, subscription)}
    (operator,) = [row for row in portal.deliveries(subscription) if row["role"] == "operator"]
    assert (told[operator["jti"]]["arrivals"], told[operator["jti"]]["effects"]) == (2, 1)


def the_broker_is_killed(portal: Portal) -> None:
    """The end is accepted at once; the worker finds the broker again by itself, and the sweep finds the rows."""
    with portal.working():
        os.kill(portal.valkey.pid(), signal.SIGKILL)
        wait(lambda: not portal.valkey.answers(), 5, "the broker to be gone")
        started = time.monotonic()
        subscription = portal.somebody_leaves()
        assert time.monotonic() - started < 3
        assert {row["state"] for row in portal.deliveries(subscription)} == {"queued"}
        assert portal.valkey.revive()
        portal.comes_to_rest()
    told_once(portal, subscription)


def the_database_is_killed(portal: Portal) -> None:
    """Right after the answer: what was confirmed to the person is on the disk."""
    with portal.working():
        subscription = portal.somebody_leaves()
        os.kill(portal.postgres.pid(), signal.SIGKILL)
        wait(lambda: not portal.postgres.answers(), 10, "the database to be gone")
        wait(lambda: revived(portal), 30, "the database to be back")
        assert portal.sql("SELECT state FROM consents_subscription WHERE id = %s", [subscription]) == [
            ("ended",)
        ]
        portal.comes_to_rest()
    told_once(portal, subscription)


def revived(portal: Portal) -> bool:
    try:
        return portal.postgres.revive() or portal.postgres.answers()
    except CannotStart:  # its orphans have not noticed yet that the postmaster is gone
        return False


# --- what must hold ----------------------------------------------------------------------------------------------------------


def told_once(portal: Portal, subscription: str) -> list[dict]:
    """Every party has reached its goal and acted once at most, the operator exactly once. Answers what they say."""
    rows, effects = portal.deliveries(subscription), portal.effects()
    assert "operator" in {row["role"] for row in rows}
    for row in rows:
        assert row["state"] == row["goal"], row
        # A source or third party whose part was withdrawn long before has nothing left to do.
        effect = effects[row["jti"]]
        assert effect["effects"] == 1 or (row["role"] != "operator" and effect["effects"] == 0), (row, effect)
    assert portal.sql("SELECT erasure FROM consents_subscription WHERE id = %s", [subscription]) == [
        ("confirmed",)
    ]
    return [effects[row["jti"]] for row in rows]


def everybody_agrees(portal: Portal) -> list[int]:
    """For all people: the API = the page = what the operators say they hold. Answers the numbers."""
    wire, hand, numbers = operators_by_sandbox(portal), operators_by_hand(portal), []
    for visitor in portal.visitors:
        told = visitor.get("me/summary")["operators_holding"]
        theirs = wire[visitor.subject] | hand[visitor.subject]
        assert told == visitor.number() == len(theirs), (visitor.email, told, visitor.number(), theirs)
        numbers.append(told)
    return numbers


def operators_by_sandbox(portal: Portal) -> dict[str, set[str]]:
    """Subject → operators that hold something, as they say themselves."""
    own = dict(
        portal.sql(
            "SELECT s.client_id, o.code FROM providers_service s JOIN providers_organization o ON o.id = s.organization_id"
        )
    )
    answer = portal.ask_sandbox("/_/state?limit=10000")
    assert not answer["truncated"]
    found: dict[str, set[str]] = {visitor.subject: set() for visitor in portal.visitors}
    for row in answer["holdings"]:
        # As operator only: a source and a third party have data too, and are not what the number counts.
        if row["data_present"] and own.get(row["service"]) == row["organization"]:
            found[row["subject"]].add(row["organization"])
    return found


def operators_by_hand(portal: Portal) -> dict[str, set[str]]:
    """Subject → operators without an API that hold something. They are not in the sandbox: what they say is what their
    clerk confirmed at the desk, so they hold until their delivery about the whole subscription is `erased`."""
    rows = portal.sql(
        "SELECT p.subject_id::text, o.code FROM consents_subscription s JOIN consents_person p ON p.id = s.person_id "
        "JOIN providers_organization o ON o.id = s.operator_id "
        "WHERE NOT EXISTS (SELECT 1 FROM providers_channel c WHERE c.organization_id = o.id AND c.state = 'open' "
        "AND c.protocol = 'native') AND NOT EXISTS (SELECT 1 FROM consents_delivery d WHERE d.subscription_id = s.id "
        "AND d.organization_id = o.id AND d.role = 'operator' AND d.consent_id IS NULL AND d.state = 'erased')"
    )
    found: dict[str, set[str]] = {visitor.subject: set() for visitor in portal.visitors}
    for subject, code in rows:
        found[subject].add(code)
    return found
