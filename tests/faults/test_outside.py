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
    ("organizations", ("operator", "source", "korea", "public"), "examples,coverage,fuzzing", 0.35),
    ("organizations", ("operator", "source"), "stateful", 0.2),
    ("people", ("person",), "examples,coverage,fuzzing", 0.2),
    ("people", ("person",), "stateful", 0.15),
    ("regulators", ("regulator",), "examples,coverage,fuzzing", 0.1),
)
# All checks are on. What is well-formed may still be refused: a cursor that is none of ours, a signature that nobody made, a week
# that is not over. No schema can say so, and 400 is told in the document.
# The bytes of a file are whatever they are, and an answer kept under its key may name a file that was dropped since.
# Peers may not see each other's things: what one of them reads, the other asks for as well. Regulators read the same.
CONFIG = """
hooks = "tests.faults.strangers"
[auth.wfc]
path = {path}
{peers}
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", 400, 401, 403, 404, 409, 413, 415, 422, 429]
[[operations]]
include-name = "PUT /api/v1/uploads/{{id}}/content"
checks.negative_data_rejection.enabled = false
[[operations]]
include-name = "DELETE /api/v1/uploads/{{id}}"
checks.ensure_resource_availability.enabled = false
"""


def tokens(portal: Portal) -> dict[str, dict[str, str]]:
    """Two tenants of each kind: name → access token."""
    known = json.loads((portal.home / "sandbox.json").read_text(encoding="utf-8"))["organizations"]
    organizations = {code: _server_token(portal, known[code]) for code in ("FTDURU9001", "BKNEUT9001")}
    people = {visitor.email: visitor._token for visitor in portal.visitors[:2]}
    regulators = json.loads(portal.run("-m", "tests.faults.visitors", "regulator").splitlines()[-1])
    return {
        "organizations": organizations,
        "people": people,
        "regulators": {one["email"]: one["token"] for one in regulators},
    }


def _server_token(portal: Portal, client: dict) -> str:
    form = {
        "grant_type": "client_credentials", "client_id": client["client_id"], "client_secret": client["client_secret"],
    }  # fmt: skip
    asked = urllib.request.Request(f"{portal.url}/identity/o/api/token", data=urlencode(form).encode())
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return json.load(answer)["access_token"]


# Start of a path → ids of things that belong to one tenant alone, and whose they are (code or address).
THINGS = {
    "/consents/": "SELECT c.id, o.code FROM consents_consent c JOIN consents_subscription s ON s.id = c.subscription_id "
    "JOIN providers_organization o ON o.id = s.operator_id LEFT JOIN providers_organization p ON p.id = c.source_id "
    "WHERE o.code = ANY(%s) AND p.code <> ALL(%s)",
    "/deliveries/": "SELECT d.jti, o.code FROM consents_delivery d JOIN providers_organization o ON o.id = d.organization_id WHERE o.code = ANY(%s)",
    "/me/subscriptions/": "SELECT s.id, p.email FROM consents_subscription s JOIN consents_person p ON p.id = s.person_id WHERE p.email = ANY(%s)",
    "/me/consents/": "SELECT c.id, p.email FROM consents_consent c JOIN consents_person p ON p.id = c.person_id WHERE p.email = ANY(%s)",
    "/me/entries/": "SELECT e.event_id, p.email FROM consents_entryindex e JOIN consents_person p ON p.id = e.person_id WHERE p.email = ANY(%s)",
}  # fmt: skip


def known(portal: Portal, who: dict[str, str]) -> dict[str, list[dict[str, str]]]:
    """Up to twenty of each and each tenant, with their owners' tokens."""
    found: dict[str, list[dict[str, str]]] = {path: [] for path in THINGS}
    for path, asked in THINGS.items():
        for name, owner in who.items():
            rows = portal.sql(f"{asked} LIMIT 20", [[name], *([list(who)] * (asked.count("%s") - 1))])
            found[path] += [{"id": str(pk), "owner": owner} for pk, _name in rows]
    return found


def stranger(portal: Portal, folder: Path, who: dict[str, str], tags, phases: str, seconds: int) -> str:
    """One run of schemathesis with all its checks; what it says. A failure of any check fails the test."""
    peers = "" if tags == ("regulator",) else f"peers = {json.dumps(list(who))}"
    path = json.dumps(str(folder / "identities.json"))
    (folder / "schemathesis.toml").write_text(CONFIG.format(path=path, peers=peers))
    identities = [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {value}"}]}
        for name, value in who.items()
    ]
    (folder / "identities.json").write_text(json.dumps({"auth": identities}))
    (folder / "ids.json").write_text(json.dumps(known(portal, who)))
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    command += ["--config-file", str(folder / "schemathesis.toml"), "run", f"{portal.url}/api/v1/schema/"]
    command += [
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
        command, cwd=folder, env={**os.environ, "PYTHONPATH": str(embedded.CHECKOUT), "STRANGERS_IDS": str(folder / "ids.json")}, capture_output=True, text=True,
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
    ask_for(portal, tmp_path, 20)


class Holed(Quiet):
    """Its web server shows every organization everybody's rows."""

    def begin(self, child, **more):
        hole = {"DJANGO_SETTINGS_MODULE": "tests.faults.hole"} if child.name == "web" else {}
        return super().begin(child, **hole, **more)


@pytest.mark.asked
@pytest.mark.timeout(600)
def test_a_hole_made_on_purpose_is_found(tmp_path):
    """One tenant reads what is another's, because every lock is off: the stranger must notice, or what it does not find is
    worth nothing."""
    portal = Holed()
    try:
        portal.start()
        who = tokens(portal)["organizations"]
        with pytest.raises(AssertionError) as said:
            stranger(portal, tmp_path, who, ("operator", "source"), "examples,coverage,fuzzing", 45)
    finally:
        portal.stop()
    assert "to somebody whose it is not" in str(said.value), str(said.value)[-3000:]


@pytest.mark.asked
@pytest.mark.timeout(600)
def test_a_stranger_finds_nothing_in_two_minutes(portal, tmp_path):
    """`./portal test -m asked tests/faults/test_outside.py` (SCHEMATHESIS_SECONDS: for how long)."""
    ask_for(portal, tmp_path, int(os.environ.get("SCHEMATHESIS_SECONDS", "120")))
