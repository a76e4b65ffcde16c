"""`manage.py bench`: its answer is one JSON object, it says what it does not know, and it leaves nothing behind."""

import datetime
import io
import json
import os
import subprocess
import sys

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from consents.benchmarks import ledger as bench
from consents.ledger import entries

COMMAND = [sys.executable, str(settings.BASE_DIR / "manage.py"), "bench"]


def databases() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database WHERE datname LIKE 'bench\\_%'")
        return {name for (name,) in cursor.fetchall()}


def test_an_unknown_benchmark_is_told_what_there_is():
    with pytest.raises(CommandError, match=r"no benchmark mass: choose ledger, claim, .* or all"):
        call_command("bench", "mass", stdout=io.StringIO())


@pytest.mark.parametrize("option", ["entries", "rounds", "leaves"])
def test_nothing_is_not_a_number_of_things(option):
    with pytest.raises(CommandError, match=f"--{option} must be at least 1"):
        call_command("bench", "ledger", **{option: 0}, stdout=io.StringIO())


def test_invented_entries_are_what_the_log_would_write():
    for event_id, entry, typ in bench.invented(50):
        said = json.loads(entry)
        digests = said["_sd"]
        day = datetime.date.fromisoformat(said["day"])
        assert entry == entries.encode(typ=typ, day=day, event_id=event_id, digests=digests[::-1])
        assert len(digests) == bench.FIELDS and digests == sorted(digests)


@pytest.mark.asked
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_last_line_is_the_result_and_the_scratch_database_is_gone(db, tmp_path):
    before = databases()
    done = subprocess.run(
        [*COMMAND, "ledger", "--entries", "700", "--rounds", "2", "--leaves", "66000", "--json"],
        capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}, timeout=550,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert set(result) == {"bench", "ours", "limit", "ratio", "unit", "goal", "holds", "detail"}
    assert result["bench"] == "ledger" and result["ours"] > 0 and result["limit"] > 0
    assert len(result["detail"]["rounds"]) == 2
    measured = {
        "full_run_per_s",
        "witnessed_after_s",
        "verify_py_per_s",
        "recount_per_s",
        "proof_file_ms",
        "proof_ms",
    }
    assert measured <= set(result["detail"]) and all(result["detail"][name] for name in measured)
    assert databases() == before
    assert not list(tmp_path.glob("portal-bench-*"))
