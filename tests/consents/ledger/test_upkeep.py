"""The log's jobs: what stops them is kept as a row, once, and the row that says it is well again follows."""

import pytest
from django.db import transaction

from consents.ledger import signer, upkeep
from consents.ledger.sequencer import Sequencer
from consents.models import SignedCheckpoint, Verification
from tests.consents.ledger.test_sequencer import write


@pytest.fixture(autouse=True)
def fresh_sequencer(monkeypatch):
    monkeypatch.setattr(upkeep, "_sequencer", Sequencer())


def findings(kind: str) -> list[list[str]]:
    rows = Verification.objects.filter(kind=kind).order_by("finished_at", "id")
    return [[finding["code"] for finding in row.findings] for row in rows]


def test_the_jobs_order_sign_and_publish(db, now):
    write(3, now)
    size = upkeep.sequence(at=now)
    assert size == SignedCheckpoint.objects.latest("tree_size").tree_size
    assert upkeep.cosign(at=now) == size
    assert not Verification.objects.exists(), "nothing changed for the worse, nothing is written"


def test_a_stopped_log_is_told_once_and_so_is_its_recovery(db, now, settings):
    write(3, now)
    upkeep.sequence(at=now)
    memory = (settings.SIGNER_DIR / signer.MEMORY).read_text()
    with transaction.atomic():
        write(2, now)
        upkeep.sequence(at=now)
        transaction.set_rollback(True)  # an older database
    monkey = upkeep._sequencer
    for _ in range(3):
        assert upkeep.sequence(at=now) == 0
    assert findings("sequencer") == [["signer_ahead"]]
    assert upkeep._sequencer is monkey
    (settings.SIGNER_DIR / signer.MEMORY).write_text(memory)  # a person has decided
    assert upkeep.sequence(at=now)
    assert findings("sequencer") == [["signer_ahead"], []]


def test_a_full_disk_is_told_and_the_entries_wait(db, now, settings, monkeypatch):
    write(3, now)

    def full(self, files):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("consents.ledger.tiles.Directory.write", full)
        assert upkeep.sequence(at=now) == 0
    assert findings("sequencer") == [["disk"]]
    assert upkeep.sequence(at=now) and findings("sequencer") == [["disk"], []]


def test_a_signer_that_is_away_is_told(db, now, settings, tmp_path):
    settings.SIGNER_SOCKET = str(tmp_path / "nobody.sock")
    write(1, now)
    assert upkeep.sequence(at=now) == 0
    assert findings("sequencer") == [["signer"]]


def test_without_its_policy_nothing_is_published(db, now, settings):
    write(1, now)
    upkeep.sequence(at=now)
    settings.LEDGER_POLICY = settings.LEDGER_DIR / "elsewhere.txt"
    assert upkeep.cosign(at=now) == 0
    assert findings("witness") == [["policy"]]
