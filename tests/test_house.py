"""The ten rules of the house, as far as a machine can look after them. Each failure names the rule and the place."""

import ast
import importlib.util
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.urls import URLPattern, URLResolver, get_resolver

from config.celery import app
from consents import access

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("config", "consents", "providers")
LONGEST_MODULE = 460  # lines; from 400 on think about how to split it
LONGEST_VIEW = 30  # lines


def modules(*packages: str) -> Iterator[tuple[str, ast.Module, str]]:
    """Path, syntax tree and text of each module that people wrote; migrations are written by Django."""
    for package in packages or PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                text = path.read_text(encoding="utf-8")
                yield str(path.relative_to(ROOT)), ast.parse(text), text


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def words(tree: ast.AST) -> Iterator[str]:
    """Every text constant."""
    return (
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


# --- rule 3: writes have homes -----------------------------------------------------------------------------------------------

# Modules that write without being a home, each with its reason.
WRITES_ELSEWHERE = {
    "consents/models/people.py": "create_user is the manager's method that Django and allauth call",
    "consents/management/commands/seed.py": "invents the demo's accounts, which people make by signing up",
    "providers/sandbox/": "the pretend organizations have a database of their own, which is not the portal's",
    "consents/ledger/witness.py": "the regulator's witness has a store of its own, which is not the portal's",
}
_ALWAYS = {
    "save",
    "create",
    "bulk_create",
    "bulk_update",
    "get_or_create",
    "update_or_create",
    "create_user",
    "delete",
}
_SQL = re.compile(
    r"\b(INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO|TRUNCATE\s|COPY\s+\S+\s*\(|UPDATE\s+\S+(\s+\w+)?\s+SET)\b"
)


def is_write(call: ast.Call) -> bool:
    """`.update(` counts with field names only: a dict or set is updated with another one."""
    if not isinstance(call.func, ast.Attribute):
        return False
    return call.func.attr in _ALWAYS or (call.func.attr == "update" and bool(call.keywords))


def is_home(tree: ast.Module) -> bool:
    return (ast.get_docstring(tree) or "").startswith("WRITES ")


def test_rows_change_only_in_modules_that_say_so():
    found = []
    for path, tree, _text in modules():
        if is_home(tree) or any(path.startswith(known) for known in WRITES_ELSEWHERE):
            continue
        found += [f"{path}:{call.lineno} .{call.func.attr}(" for call in calls(tree) if is_write(call)]
        docstrings = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        }
        found += [
            f"{path}: {text.strip()[:60]}"
            for text in words(tree)
            if _SQL.search(text) and text not in docstrings
        ]
    assert not found, "rule 3: start the docstring with WRITES, or write elsewhere"


def test_a_home_of_writes_writes():
    """The word in the docstring is a promise in both directions."""
    for path, tree, text in modules():
        if is_home(tree):
            writes = (
                any(is_write(call) for call in calls(tree))
                or "ledger.append" in text
                or "_SQL" in text
                or "COPY" in text
            )
            assert writes, f"{path} says WRITES and does not"


def test_whoever_writes_is_told_who_and_when():
    """Public functions of the homes in `consents` that write take `at`, and `by` where somebody did it; never by position."""
    nobody_acts = {
        # what comes out of the clock or the wire is signed by the system inside
        "record", "claim", "deliver_due", "owe", "note_use", "forget_old", "write_entry", "once",
        # made at its first use, inside whoever's act that is
        "person_keys",
        # scratch rows of a benchmark
        "prepare",
        # the outside world's own clients, made before anybody signs in
        "create_app_client",
    }  # fmt: skip
    found = []
    for path, tree, _text in modules("consents"):
        if not is_home(tree):
            continue
        for function in tree.body:
            if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
                continue
            if function.name in nobody_acts or not any(is_write(call) for call in calls(function)):
                continue
            named = {argument.arg for argument in function.args.kwonlyargs}
            if not {"by", "at"} <= named:
                found.append(f"{path}:{function.lineno} {function.name}")
    assert not found, "rule 3: keyword-only, given `by` and `at`"


# --- rule 2: doors decide nothing ----------------------------------------------------------------------------------------------


def test_views_are_short():
    found = []
    for path, tree, _text in modules("consents"):
        if not path.startswith("consents/views/"):
            continue
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef):
                length = (function.end_lineno or 0) - function.lineno + 1
                if length > LONGEST_VIEW and function.name != "_why":  # a table of sentences, one a refusal
                    found.append(f"{path}:{function.lineno} {function.name}: {length} lines")
    assert not found, f"rule 2: a view has at most {LONGEST_VIEW} lines"


def test_doors_do_not_reach_into_the_ledger_or_the_wires():
    for path, tree, _text in modules("consents"):
        if path.startswith("consents/views/"):
            names = {
                alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.ImportFrom)
                and (node.module or "").startswith(("consents", "providers"))
                for alias in node.names
            }
            assert not names & {"ledger", "propagation", "messages", "outbound"}, path


def every_view(patterns=None, prefix="") -> Iterator[tuple[str, object]]:
    for entry in get_resolver().url_patterns if patterns is None else patterns:
        address = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from every_view(entry.url_patterns, address)
        elif isinstance(entry, URLPattern):
            yield address, entry.callback


# Addresses for everybody. Whatever is added here is seen by the whole world: say so in the review.
PUBLIC = {
    "", "operators/", "operators/<slug:code>/", "services/", "services/<slug:slug>/", "healthz", "readyz", "start/",
    "api/docs/", "api/docs/problems", "api/docs/events/", "api/docs/events/asyncapi.json", "api/docs/events/vectors.json",
    "api/docs/changes/", "api/docs/korea/", "api/docs/start/", ".well-known/jwks.json", "identity/o/authorize", "identity/o/device",
    "identity/o/api/device/code", "identity/o/api/token", "identity/o/api/revoke", "api/v1/schema/", "api/",
    "log/checkpoint", "log/tile/<path:path>", "verify/", "verify/verify.py", "verify/policy.txt",
}  # fmt: skip
LIBRARY = ("accounts/", "language/", "metrics", ".well-known/", "identity/")


# Pages of allauth that we do not offer (signing in with somebody else's account): nobody gets in.
CLOSED = {f"accounts/social/{page}/" for page in ("login/cancelled", "login/error", "signup", "connections")}


def test_every_address_says_whom_it_is_for():
    rules = {
        access.PUBLIC,
        access.PERSON,
        access.REGULATOR,
        access.OPERATOR_ADMIN,
        access.SIGNED_IN,
        access.API,
    }
    nameless = [address for address, view in every_view() if access.rule_of(view) not in rules]
    assert set(nameless) == CLOSED, "no access rule: nobody gets in, which is not what was meant"


def test_what_is_public_stands_on_the_list():
    found = {
        address
        for address, view in every_view()
        if access.rule_of(view) == access.PUBLIC and address not in PUBLIC and not address.startswith(LIBRARY)
    }
    assert not found


def test_addresses_under_me_oversight_and_desk_are_for_those_roles():
    for address, view in every_view():
        for start, rule in (
            ("me/", access.PERSON),
            ("oversight/", access.REGULATOR),
            ("desk/", access.OPERATOR_ADMIN),
        ):
            assert not address.startswith(start) or access.rule_of(view) == rule, address


def test_every_json_door_names_who_may_come_in():
    from consents.api.authentication import Nobody
    from consents.api.doors import Nowhere

    for address, view in every_view():
        door = getattr(view, "cls", None)
        if door is not None and access.rule_of(view) == access.API and door is not Nowhere:
            assert door.permission_classes and Nobody not in door.permission_classes, address


# --- rule 5: the row is the queue ----------------------------------------------------------------------------------------------


def test_every_beat_entry_is_a_registered_task():
    app.loader.import_default_modules()
    for name, entry in settings.CELERY_BEAT_SCHEDULE.items():
        assert entry["task"] in app.tasks, f"rule 5: {name} rings {entry['task']}, which is no task"
        assert entry["options"]["expires"] <= 24 * 3600, "a beat that nobody heard must not pile up"
        assert not entry.get("args") and not entry.get("kwargs"), "jobs find their own work"


def test_every_task_is_rung_by_the_clock():
    app.loader.import_default_modules()
    ours = {name for name in app.tasks if name.startswith(("consents.", "providers.", "config."))}
    assert ours == {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}


def test_the_only_message_to_a_worker_is_the_doorbell():
    found = [
        f"{path}:{call.lineno}"
        for path, tree, _text in modules()
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in {"delay", "apply_async", "send_task", "signature", "s", "si"}
    ]
    assert [place.split(":")[0] for place in found] == ["consents/propagation.py"], f"rule 5: {found}"


def test_broker_messages_are_plain_json():
    """Nothing that arrives by the broker is ever unpickled (T28)."""
    assert app.conf.accept_content == ["json"] and app.conf.task_serializer == "json"
    assert app.conf.result_backend is None and app.conf.task_ignore_result


# --- rule 6: one way out -------------------------------------------------------------------------------------------------------

# Modules that touch sockets or HTTP clients, each with its reason.
SOCKETS = {
    "providers/outbound.py": "the only way out",
    "providers/sandbox/": "the other side: pretend organizations of the demo",
    "providers/management/commands/sandbox.py": "the other side: pretend organizations of the demo",
    "consents/ledger/signer.py": "the log's signer and its caller, on their own unix socket",
    "consents/management/commands/witness.py": "the regulator's witness: it listens and never connects",
    "consents/benchmarks/tokens.py": "the clients of the benchmark's own web server on loopback",
    "consents/benchmarks/steady.py": "asks the benchmark's own receiver on loopback what has arrived",
    "consents/benchmarks/stops.py": "the bare loop that sending is measured against, and its receiver on loopback",
    "config/servers.py": "asks the embedded broker on its own unix socket whether it lives",
    "config/management/commands/demo.py": "asks our own web server on loopback whether it answers",
}
CLIENTS = {
    "socket",
    "aiohttp",
    "httpx",
    "requests",
    "urllib3",
    "urllib.request",
    "http.client",
    "smtplib",
    "ftplib",
    "telnetlib",
}


def test_only_outbound_opens_sockets():
    found = []
    for path, tree, _text in modules():
        if any(path.startswith(known) for known in SOCKETS):
            continue
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            found += [f"{path}: {name}" for name in names if name in CLIENTS]
    assert not found, "rule 6: outgoing sockets are opened by providers.outbound"


# --- T20: nothing is learnt from how long a comparison takes ---------------------------------------------------------------------

_SECRET = re.compile(
    r"(?:^|_)(?:sig|signature|hmac|mac|token|secret|password|credential)s?(?:$|_)", re.IGNORECASE
)
# Comparisons of such names that leak nothing, each with its reason.
NO_SECRET = {
    ("consents/recording.py", "lease_token"): "a lease is compared with what the database just answered to us",
    ("consents/recording.py", "tokens"): "the same line",
    ("providers/wires/korea_line.py", "token"): "our own kept token with our own newer one: nobody else measures that",
}  # fmt: skip


def names_of(node: ast.AST) -> set[str]:
    """The variable, attribute or key that an expression reads."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    if isinstance(node, ast.Subscript):
        key = node.slice.value if isinstance(node.slice, ast.Constant) else None
        return names_of(node.value) | ({key} if isinstance(key, str) else set())
    if isinstance(node, ast.Call):
        return names_of(node.func) if isinstance(node.func, ast.Attribute) else set()
    return set()


def secrets_compared(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(isinstance(sign, ast.Eq | ast.NotEq) for sign in node.ops):
            sides = [node.left, *node.comparators]
            if any(isinstance(side, ast.Constant) for side in sides):
                continue  # what stands in the source is no secret
            for name in set().union(*(names_of(side) for side in sides)):
                if _SECRET.search(name) and not name.isupper():  # a member of an enumeration names a kind
                    yield node.lineno, name


def test_secrets_are_compared_in_constant_time():
    found = [
        f"{path}:{line} {name}"
        for path, tree, _text in modules("consents", "providers")
        for line, name in secrets_compared(tree)
        if not path.startswith("providers/sandbox/") and (path, name) not in NO_SECRET
    ]
    assert not found, "T20: hmac.compare_digest, or look it up by its digest"


def test_the_rule_about_comparisons_finds_them():
    for text in (
        "given == secret", "self.token != other", 'row["signature"] == made', "expected_sig == sig", "a == channel.secrets[0]",
    ):  # fmt: skip
        assert list(secrets_compared(ast.parse(text))), text
    for text in ("hmac.compare_digest(token, given)", "token is None", 'kind == "token"', "signal == design"):
        assert not list(secrets_compared(ast.parse(text))), text


# --- rule 9 and 10: names, sizes, leftovers --------------------------------------------------------------------------------------


def test_modules_are_short():
    found = [
        f"{path}: {text.count(chr(10))} lines"
        for path, _tree, text in modules()
        if text.count("\n") > LONGEST_MODULE
    ]
    assert not found, f"rule 10: split by subject before it has {LONGEST_MODULE} lines"


def test_every_module_says_what_it_is_for():
    found = [
        path
        for path, tree, text in modules()
        if text.strip() and not ast.get_docstring(tree) and "/commands/" not in path
    ]
    assert not found, "rule 10: one job in one docstring line"


def test_no_module_is_named_after_nothing():
    empty = {
        "utils",
        "util",
        "helpers",
        "helper",
        "common",
        "base",
        "manager",
        "managers",
        "misc",
        "services",
        "handlers",
        "handler",
        "process",
        "selectors",
    }
    found = [
        str(path.relative_to(ROOT))
        for package in (*PACKAGES, "tests")
        for path in (ROOT / package).rglob("*")
        if (path.suffix == ".py" or path.is_dir()) and path.stem in empty
    ]
    assert not found, "rule 10: a name that says nothing"


def test_nothing_behaves_otherwise_while_debugging():
    found = [
        f"{path}:{node.lineno}"
        for path, tree, _text in modules()
        for node in ast.walk(tree)
        if path != "config/settings.py"
        and isinstance(node, ast.Attribute | ast.Name)
        and getattr(node, "attr", getattr(node, "id", "")) == "DEBUG"
    ]
    assert not found, "code that runs with DEBUG only is code that nobody tested"


def test_production_code_knows_no_tests():
    found = [
        path
        for path, tree, _text in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for name in (
            [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        )
        if name.split(".")[0] in {"tests", "pytest", "unittest", "hypothesis", "factory", "time_machine"}
    ]
    assert not found


def tracked() -> list[Path]:
    """The files that are published: what git knows or would add; all that is there where there is no git."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = [
            path
            for path in ROOT.rglob("*")
            if not {".venv", "var", ".git"} & set(path.relative_to(ROOT).parts)
        ]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_path_of_somebodys_machine():
    """Whoever clones this has other folders."""
    somebodys = re.compile(rb"/(?:work|root|home/\w+|Users/\w+)/")
    allowed = {ROOT / "tests" / "test_house.py"}
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path not in allowed and path.suffix not in {".png", ".woff2", ".mo", ".ico", ".jpg"}
        for number, line in enumerate(path.read_bytes().splitlines(), 1)
        if somebodys.search(line)
    ]
    assert not found


# --- dependencies ------------------------------------------------------------------------------------------------------------


def test_every_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)
    declared = project["project"]["dependencies"] + [
        row for group in project["dependency-groups"].values() for row in group
    ]
    lines = text.splitlines()
    for requirement in declared:
        (line,) = [line for line in lines if line.strip().startswith(f'"{requirement}"')]
        assert re.search(r",\s+#\s+\S.{3,}", line), f"say what it is for: {line.strip()}"


@pytest.mark.parametrize("path", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda path: path.name)
def test_locked_requirements_come_from_the_index_and_by_hash(path):
    """No address in them: neither a mirror of ours nor a repository that could change."""
    text = path.read_text(encoding="utf-8")
    assert "://" not in text
    pinned = re.findall(r"^[a-zA-Z0-9][\w.\[\],-]*==\S+", text, re.MULTILINE)
    assert pinned and text.count("--hash=sha256:") >= len(pinned)


# --- templates ---------------------------------------------------------------------------------------------------------------


def test_every_template_is_used():
    """Named in a module or another template; or it replaces one that a library brings."""
    folder = ROOT / "templates"
    texts = [text for _path, _tree, text in modules()] + [
        path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    ]
    everything = "\n".join(texts)
    libraries = [
        Path(importlib.util.find_spec(name).origin).parent / "templates"
        for name in ("allauth", "django", "rest_framework", "drf_spectacular")
    ]
    unused = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        named = f'"{name}"' in everything or f"'{name}'" in everything
        if not named and not any((library / name).exists() for library in libraries):
            unused.append(name)
    assert not unused


def test_templates_ask_for_no_script_or_style_of_their_own():
    """The content security policy would refuse them: no inline handlers, styles or scripts without a nonce."""
    inline = re.compile(
        r"\son[a-z]+\s*=|\sstyle\s*=|javascript:|<style\b(?![^>]*nonce)|<script\b(?![^>]*(?:\bsrc=|nonce|application/json))",
        re.IGNORECASE,
    )
    found = []
    for path in sorted((ROOT / "templates").rglob("*.html")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if inline.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number} {line.strip()[:80]}")
    assert not found
