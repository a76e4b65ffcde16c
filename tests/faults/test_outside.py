"""The running portal as a stranger meets it: the tutorial word for word, and the API asked by a machine that has read nothing
but its description."""

import html
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from config import embedded
from tests.faults.portal import Portal

pytestmark = pytest.mark.slow
RUN = re.compile(r"<pre[^>]* data-run><code>(.*?)</code></pre>", re.DOTALL)


class Quiet(Portal):
    """Nothing is killed here: the demo's past may stay on its way."""

    people = 5

    def settle_the_past(self) -> None:
        pass


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    running = Quiet()
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("language", ["ko", "en"])
def test_the_tutorial_runs_as_it_is_written(portal, tmp_path, language):
    """From registering a client to a proven erasure, with curl alone; a second time where the first has left off."""
    request = urllib.request.Request(f"{portal.url}/api/docs/start/", headers={"Accept-Language": language})
    page = urllib.request.urlopen(request, timeout=20).read().decode()
    commands = [html.unescape(found) for found in RUN.findall(page)]
    assert len(commands) >= 10 and portal.url in commands[0]
    done = subprocess.run(
        ["sh", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=110,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    for words in (
        "outcome: partly_granted",
        "back at: https://naran.example/back",
        "delivery is now: erased",
        "evidence: erased",
    ):
        assert words in done.stdout, said[-4000:]
    found = portal.sql(
        "SELECT s.state, s.erasure FROM consents_subscription s JOIN providers_service p ON p.id = s.service_id "
        "WHERE p.client_id LIKE 'naran-ride-%%' ORDER BY s.joined_at DESC LIMIT 1"
    )
    assert found == [("ended", "confirmed")]


# --- schemathesis -----------------------------------------------------------------------------------------------------------

# Of two tenants each: what their tokens open, and how the time is shared out.
RUNS = (
    ("organizations", ("operator", "source", "korea", "public"), "examples,coverage,fuzzing", 0.4),
    ("organizations", ("operator", "source"), "stateful", 0.2),
    ("people", ("person",), "examples,coverage,fuzzing", 0.25),
    ("people", ("person",), "stateful", 0.15),
)
# All checks are on. What is well-formed may still be refused: a cursor that is none of ours, a signature that nobody made, a week
# that is not over. No schema can say so, and 400 is told in the document.
CONFIG = """
hooks = "tests.faults.strangers"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 413, 415, 422, 429]
"""


def tokens(portal: Portal) -> dict[str, dict[str, str]]:
    """Two tenants of each kind: name → access token."""
    known = json.loads((portal.home / "sandbox.json").read_text(encoding="utf-8"))["organizations"]
    organizations = {code: _server_token(portal, known[code]) for code in ("FTDURU9001", "BKNEUT9001")}
    people = {visitor.email: visitor._token for visitor in portal.visitors[:2]}
    return {"organizations": organizations, "people": people}


def _server_token(portal: Portal, client: dict) -> str:
    form = {
        "grant_type": "client_credentials", "client_id": client["client_id"], "client_secret": client["client_secret"],
    }  # fmt: skip
    asked = urllib.request.Request(f"{portal.url}/identity/o/api/token", data=urlencode(form).encode())
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return json.load(answer)["access_token"]


def stranger(portal: Portal, folder: Path, who: dict[str, str], tags, phases: str, seconds: int) -> str:
    """One run of schemathesis with all its checks; what it says. A failure of any check fails the test."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    identities = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {value}"}]}
        for name, value in who.items()
    ]
    (folder / "identities.json").write_text(json.dumps({"auth": identities}))
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(folder / "schemathesis.toml"), "run", f"{portal.url}/api/v1/schema/"]
    command += [
        "--auth-wfc",
        str(folder / "identities.json"),
        "--phases",
        phases,
        "--checks",
        "all",
        "--max-time",
        str(seconds),
    ]
    command += [
        "--request-timeout",
        "30",
        "--max-response-time",
        "30",  # waiting for messages is what a long poll is for
        "--suppress-health-check",
        "all",
        "--continue-on-failure",
        "--no-color",
        "--report",
        "ndjson",
    ]
    command += ["--report-ndjson-path", str(folder / "said.ndjson")]
    command += [f"--include-tag={tag}" for tag in tags]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(embedded.CHECKOUT)}, capture_output=True, text=True,
        timeout=seconds * 3 + 90,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-12_000:]
    return done.stdout


def ask_for(portal: Portal, folder: Path, seconds: int) -> None:
    who = tokens(portal)
    for kind, tags, phases, part in RUNS:
        said = stranger(portal, folder, who[kind], tags, phases, max(4, int(seconds * part)))
        assert re.search(r"(Tested|Scenarios): +[1-9]", said), said[-3000:]


@pytest.mark.timeout(300)
def test_a_stranger_finds_nothing_in_a_little_while(portal, tmp_path):
    """No 5xx, no undocumented status, no way around authorization; the long run is below."""
    ask_for(portal, tmp_path, 40)


@pytest.mark.asked
@pytest.mark.timeout(600)
def test_a_stranger_finds_nothing_in_two_minutes(portal, tmp_path):
    """`./portal test -m asked tests/faults/test_outside.py` (SCHEMATHESIS_SECONDS: for how long)."""
    ask_for(portal, tmp_path, int(os.environ.get("SCHEMATHESIS_SECONDS", "120")))
