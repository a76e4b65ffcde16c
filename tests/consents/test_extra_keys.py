"""T15: random names beside an honest request, in every form and at every JSON door there is, never change a row.

Doors and forms come from surface.py, which test_access.py holds against the resolver."""

import ast
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from consents.api import poll
from tests.consents import surface
from tests.consents.surface import BODIES, FORMS, fingerprint
from tests.consents.test_sweep import PAGES, knock, post

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def keys(settings, tmp_path_factory, monkeypatch):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "surface-keys"
    monkeypatch.setattr(poll, "LONGEST_WAIT", 0.1)


# What somebody would try who knows our columns, and anything at all.
COLUMNS = [
    "id", "pk", "role", "state", "person", "person_id", "subject", "organization", "organization_id", "operator_id", "is_staff",
    "is_superuser", "is_active", "granted_at", "ended_at", "end_reason", "until_on", "erasure", "version", "holds", "scopes", "published_at",
    "digest_ko", "created_at", "lodged_at", "expires_at", "client_id", "secret", "redeemed_at", "code_digest", "__class__", "_state",
]  # fmt: skip
NAMES = st.sampled_from(COLUMNS) | st.text(min_size=1, max_size=12).filter(lambda name: "\x00" not in name)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=8)
    | st.lists(st.integers(0, 3), max_size=2)
)
EXTRA = st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)
EFFORT = settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def objects() -> list[str]:
    """The doors that take one JSON object."""
    return sorted(
        path for path in BODIES if surface.OWN_BYTES.get(path, "application/json") == "application/json"
    )


def test_random_names_beside_an_honest_body_change_nothing(alice, subtests):
    bodies = {path: BODIES[path](alice) for path in objects()}
    before = fingerprint()
    for path, honest in bodies.items():
        if path == "consents/result":
            continue  # its own protocol lets the standard grow; a result for no known stop is refused whatever it holds

        @EFFORT
        @given(EXTRA, st.just(path), st.just(honest))
        def never(extra, path, honest):
            rows, several = (honest, True) if isinstance(honest, list) else ([honest], False)
            unknown = {name: value for name, value in extra.items() if name not in rows[0]}
            if not unknown:
                return
            sent = [row | unknown for row in rows]
            answer = knock(path, alice, json.dumps(sent if several else sent[0]))
            if several:  # judged row by row
                assert answer.status_code == 200, answer.content
                assert {row["result"] for row in answer.json()["results"]} == {"refused"}, (path, unknown)
            else:
                assert answer.status_code == 400, (path, unknown, answer.content[:200])

        with subtests.test(path):
            never()
    after = fingerprint()
    assert after == before, [table for table in after if after[table] != before[table]]


# No form is read at all: nothing could be taken over.
BUTTONS = {"consent_request", "decline_request", "return_request"}


def test_random_fields_beside_an_honest_form_change_nothing(alice, subtests):
    forms = {name: FORMS[name].honest(alice) for name in sorted(FORMS.keys() - BUTTONS)}
    before = fingerprint()
    for name, honest in forms.items():

        @EFFORT
        @given(
            st.dictionaries(NAMES, st.text(max_size=8), min_size=1, max_size=3),
            st.just(name),
            st.just(honest),
        )
        def never(extra, name, honest):
            unknown = {field: value for field, value in extra.items() if field not in (*honest, *KNOWN)}
            if unknown:
                answer = post(PAGES[name], alice, honest | unknown)
                assert answer.status_code in range(400, 500), (name, unknown, answer.status_code)

        with subtests.test(name):
            never()
    after = fingerprint()
    assert after == before, [table for table in after if after[table] != before[table]]


# Fields that one form or another has although an honest browser need not send them.
KNOWN = {"state", "scopes", "version", "until_on", "erase", "next", "role"}


def test_nothing_is_taken_over_wholesale():
    """No serializer or form with all the columns of a table, and no request unpacked into a call."""
    found = []
    for path in [*(ROOT / "consents").rglob("*.py"), *(ROOT / "providers").rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and node.value == "__all__" and "__init__" not in path.name:
                found.append(f"{path}:{node.lineno} __all__")
            if isinstance(node, ast.keyword) and node.arg is None:
                text = ast.unparse(node.value)
                if text.endswith((".data", ".POST", ".GET", ".query_params")):
                    found.append(f"{path}:{node.value.lineno} **{text}")
    assert not found
