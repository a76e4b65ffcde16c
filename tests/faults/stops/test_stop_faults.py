"""The fault experiments of propagation, each with processes of its own, and each mutant that one of them must find.

./portal test -m stop_faults tests/faults/stops     FAULT_SEED=7 takes another course, FAULT_SEEDS=5 takes five
"""

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.stops import adversity, experiments, mutants
from tests.faults.stops.rig import Template, World, Wrong, shared_template

SEED, SEEDS = int(os.environ.get("FAULT_SEED", "1")), int(os.environ.get("FAULT_SEEDS", "1"))
pytestmark = [pytest.mark.fault, pytest.mark.stop_faults, pytest.mark.timeout(400)]

# What an experiment is, how its world is made, and what is shortened where it runs with every other test.
ALWAYS = {
    "F01": (experiments.workers_are_killed, {}),
    "F02": (experiments.web_is_killed, {}),
    "F03": (experiments.broker_is_gone, {}),
    "F04": (experiments.database_crashes, {}),
    "F05": (experiments.everything_breaks, {}),
}
ASKED = {
    "F01-frozen": (experiments.worker_freezes_while_claiming, {}),
    "F06": (adversity.operators_misbehave, {"lease": 45}),
    "F07": (adversity.three_days_down, {"workers": 0, "webs": 1, "policy": {"BREAKER_OPEN_SECONDS": 60}}),
    "F13-web-ahead": (adversity.clocks_differ, {"clocks": {"web-2": 3600, "worker-2": 61}}),
    "F13-web-behind": (adversity.clocks_differ, {"clocks": {"web-2": -3600, "worker-2": 61}}),
    "F13-worker-ahead": (adversity.clocks_differ, {"clocks": {"worker-2": 3600, "web-2": 61}}),
    "F13-worker-behind": (adversity.clocks_differ, {"clocks": {"worker-2": -3600, "web-2": 61}}),
    "F14": (adversity.keys_rotate, {}),
    "F15": (adversity.answers_are_lost, {"lease": 20, "proxied": True}),
}
EXPERIMENTS = ALWAYS | ASKED
# The words are from the complaint: an experiment that fails for another reason has not found the mutant.
FOUND = [
    ("F01", "forgets_the_source", {"moments": ("claimed",)}, "is owed to .*, not to"),
    ("F01", "no_lease_token", {"moments": ("frozen",)}, "cannot go back|the log says of"),
    ("F02", "send_before_commit", {"rounds": 1}, "which no act owes|which never happened"),
    ("F06", "silence_is_an_answer", {"rounds": 1, "healthy": False}, "lost: "),
    ("F02", "watermark", {"rounds": 1}, "still wait and were never tried"),
]


def marks(name: str) -> list[pytest.MarkDecorator]:
    return [pytest.mark.always] if name in ALWAYS else []


@pytest.fixture(scope="session")
def template() -> Iterator[Template]:
    with shared_template(os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))) as made:
        yield made


def run(name: str, template: Template, seed: int, mutant: str = "", **options) -> dict:
    """The figures of one experiment; FAULT_KEEP names a folder in which they, the histories and the logs are kept."""
    experiment, world = EXPERIMENTS[name]
    started, figures = time.monotonic(), {"name": name, "seed": seed, "mutant": mutant}
    try:
        with World(template, seed=seed, mutant=mutant, **world) as made:
            figures |= experiment(made, random.Random(seed), **options)
    except AssertionError as problem:
        figures |= {"wrong": str(problem)[:1500]}
        raise
    finally:
        figures["seconds"] = round(time.monotonic() - started, 1)
        if keep := os.environ.get("FAULT_KEEP"):
            with (Path(keep) / "figures.jsonl").open("a") as file:
                file.write(json.dumps(figures) + "\n")
    return figures


# Where an experiment runs with every other test it is shorter.
SHORT = {
    "F01": {"moments": ("claimed", "frozen")},
    "F02": {"rounds": 2},
    "F03": {"absent": 12},
    "F04": {"rounds": 1},
    "F05": {"seconds": 25},
}


@pytest.mark.parametrize("seed", range(SEED, SEED + SEEDS))
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in EXPERIMENTS])
def test_every_stop_arrives(name, seed, template, record_property, pytestconfig):
    asked = "stop_faults" in (pytestconfig.getoption("markexpr") or "")
    figures = run(name, template, seed, **({} if asked else SHORT.get(name, {})))
    record_property("figures", figures)
    print(f"{name}: {figures}")


@pytest.mark.parametrize(
    ("name", "mutant", "options", "words"), FOUND, ids=[f"{row[0]}-{row[1]}" for row in FOUND]
)
def test_a_fault_put_in_is_found(name, mutant, options, words, template):
    assert name in getattr(mutants, mutant).__doc__
    with pytest.raises(Wrong, match=words):
        run(name, template, SEED, mutant, **options)


def test_a_database_that_forgets_is_found(template):
    """F04 without synchronous commit: the checker can fail."""
    with (
        World(template, seed=SEED, forgetful=True) as made,
        pytest.raises(Wrong, match="was accepted and is active"),
    ):
        experiments.database_crashes(made, random.Random(SEED), rounds=1)
