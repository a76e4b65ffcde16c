"""A model of the portal walks beside the real one: the same acts in any order, and after each both must say the same.

Hypothesis chooses acts of people, operators, sources, the regulator, the calendar, workers that die and wires that lie.
Every run goes the same way again, unless a seed is given; what fails is printed as the shortest list of calls that fails.

    ./portal test tests/consents/test_model.py -n0                                  # as in CI: 20 examples of 25 steps
    ./portal test -m model tests/consents -n0                                       # and the faults put in on purpose
    MODEL_EXAMPLES=300 MODEL_STEPS=40 ./portal test -m model tests/consents -n0     # as many as asked for
    ./portal test -m model tests/consents -n0 --hypothesis-seed=7                   # another course

Four faults, each put into the portal on purpose, must be found, each by the invariant that it breaks.
"""

import os
import time
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from providers import registry
from tests import factories

from .model.both import Broken
from .model.faults import FAULTS
from .model.machine import Portal
from .model.world import World

pytestmark = [pytest.mark.django_db, pytest.mark.model]

EXAMPLES = int(os.environ.get("MODEL_EXAMPLES", "20"))
STEPS = int(os.environ.get("MODEL_STEPS", "25"))


@pytest.fixture
def world(db, now, settings, tmp_path_factory, caplog):
    caplog.set_level("ERROR", logger="consents")  # tens of thousands of tries
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "model-keys"
    return World(now)


@pytest.fixture
def walk(world, tmp_path, pytestconfig):
    """Run the machine. Raises Broken, or whatever the portal raises."""
    seeded = pytestconfig.getoption("--hypothesis-seed") is not None

    def walk(*, examples: int, shrink: bool = True, **changes) -> None:
        shrink = shrink and not os.environ.get("NOSHRINK")
        run_state_machine_as_test(
            type("Portal", (Portal,), {"world": world, "folder": tmp_path, **changes}),
            settings=settings(
                max_examples=examples, stateful_step_count=STEPS, derandomize=not seeded, database=None, deadline=None,
                phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
                suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
            ),
        )  # fmt: skip

    return walk


def took(started: float, spent: float) -> str:
    return f"{time.monotonic() - started:.1f} s, {time.process_time() - spent:.1f} s of them ours"


@pytest.mark.timeout(300 + EXAMPLES * STEPS)
@pytest.mark.always
def test_the_portal_does_what_the_model_does(walk):
    started, spent, done = time.monotonic(), time.process_time(), Counter()
    walk(examples=EXAMPLES, rules_run=done)
    print(f"\n{EXAMPLES} × {STEPS} steps: {took(started, spent)}, {dict(done.most_common())}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("fault", "invariant"), FAULTS)
def test_a_fault_put_in_is_found(walk, monkeypatch, fault, invariant):
    fault(monkeypatch)
    started, spent, done = time.monotonic(), time.process_time(), Counter()
    with pytest.raises(Broken) as found:
        walk(examples=60, shrink=False, replay_every=None, rules_run=done)
    assert found.value.invariant == invariant
    print(f"\n{fault.__name__}: found by {invariant} after {done['walks']} walks in {took(started, spent)}")


# --- found on the way ---------------------------------------------------------------------------------------------------------


@pytest.mark.always
def test_a_licence_suspended_again_on_the_same_day_is_suspended(db, now):
    operator, today = factories.OperatorFactory(), now.date()
    dates = {"decided_on": today, "effective_on": today}
    for status in ("suspended", "licensed", "suspended"):
        registry.record_decision(organization=operator, status=status, **dates, source="지어낸 결정", at=now)
    assert operator.status_on(today) == "suspended"
