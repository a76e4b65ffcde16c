"""The log's fault experiments, each on a cluster of its own, and each again with a fault put in that it must find.

./portal test -m ledger_faults tests/faults/ledger        FAULT_SEED=7 chooses another course of events
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.ledger import experiments, mutants
from tests.faults.ledger.reader import Wrong
from tests.faults.ledger.rig import World, made_template

SEED = int(os.environ.get("FAULT_SEED", "1"))
pytestmark = [pytest.mark.fault, pytest.mark.ledger_faults, pytest.mark.timeout(600)]

EXPERIMENTS = {
    "F08": experiments.two_sequencers_killed_at_every_line,
    "F09": experiments.full_disk_and_torn_tiles,
    "F10": experiments.a_witness_fails,
    "F11": experiments.database_from_earlier,
}
# What finds a mutant is the experiment itself; only what it need not do to find this one is left out. The words are from
# the complaint: an experiment that fails for another reason has not found it.
FOUND = [
    ("F08", "watermark", {"some": 6}, "have their place"),
    ("F08", "sign_before_commit", {"only": "_note"}, "the log does not go on"),
    ("F08", "forgetful_signer", {"some": 4}, "the signer has forgotten"),
    ("F09", "writes_in_place", {"lines": False}, "checkpoint"),
    ("F09", "publishes_unread", {"lines": False}, "tile"),
    ("F10", "quorum_of_none", {"real": False, "moods": ("down",)}, "published with 0 cosignatures"),
    ("F10", "silence_is_consent", {"real": False, "moods": ("slow",)}, "published with 0 cosignatures"),
    ("F10", "any_line_counts", {"real": False, "moods": ("bad signature",)}, "does not hold"),
    ("F10", "starts_at_zero", {"real": False, "moods": ("down",)}, "published"),
    ("F10", "deaf_to_ahead", {"real": False, "moods": ()}, "published although a witness is ahead"),
    ("F10", "forgets_who_was_ahead", {"real": False, "moods": ()}, "published although a witness is ahead"),
    ("F11", "forgetful_signer", {"witnessed": False}, "does not stop the log"),
    ("F11", "signer_asks_the_database", {"witnessed": False}, "does not stop the log"),
]


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    with made_template() as data:
        yield data


def run(name: str, template: Path, mutant: str = "", **options) -> dict:
    started = time.monotonic()
    with World(template, mutant=mutant) as world:
        figures = EXPERIMENTS[name](world, random.Random(SEED), **options)
    return {"seed": SEED, **figures, "seconds": round(time.monotonic() - started, 1)}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_log_holds(name, template, record_property):
    figures = run(name, template)
    record_property("figures", figures)
    print(f"{name}: {figures}")


@pytest.mark.asked
@pytest.mark.parametrize(
    ("name", "mutant", "options", "words"), FOUND, ids=[f"{row[0]}-{row[1]}" for row in FOUND]
)
def test_a_fault_put_in_is_found(name, mutant, options, words, template):
    assert getattr(mutants, mutant).__doc__.find(name) >= 0
    with pytest.raises(Wrong, match=words):
        run(name, template, mutant, **options)
