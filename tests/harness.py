"""The test harness: real servers of one's own, and strictness that production does not have.

A pytest plugin (see addopts in pyproject.toml). It must be first: settings are read when pytest starts.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from config import embedded

CHECKOUT = Path(__file__).resolve().parent.parent
CI = os.environ.get("CI", "").lower() in ("1", "true", "yes")
MOST_PROCESSES = 4

# Tables that a GET may write, each with its reason.
WRITTEN_BY_READING = {
    "django_session": "a form's CSRF token and the language live in the session",
    "usersessions_usersession": "allauth notes the session that a signed-in person is using",
    "consents_lookup": "looking at somebody's record leaves a trace that the person sees",
}

servers: embedded.Servers | None = None


# --- servers -----------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> Generator[None]:
    """Start the servers once, before pytest-django reads the settings; xdist's workers inherit the environment."""
    global servers
    if "PYTEST_XDIST_WORKER" not in os.environ and not {"--version", "-V", "--help", "-h"} & set(args):
        for name in (
            "EMAIL_URL",
            "SANDBOX_URL",
            "PORTAL_URL",
            "ALLOWED_HOSTS",
            "DEBUG",
            "DEMO",
            "PORTAL_KEYS_DIR",
            "LEDGER_DIR",
            "LEDGER_POLICY",
            "LEDGER_ORIGIN",
            "LEDGER_DATABASE_URL",
            "PRIVACY_DATABASE_URL",
            "SIGNER_DIR",
            "SIGNER_SOCKET",
            "WITNESS_URL",
        ):
            os.environ.pop(name, None)  # what the shell says about a portal is not about this one
        try:
            servers = embedded.provide(ephemeral=True)
        except embedded.CannotStart as problem:
            raise pytest.UsageError(str(problem)) from problem
    try:
        return (yield)
    except BaseException:
        stop_servers()
        raise


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    stop_servers()


def stop_servers() -> None:
    global servers
    if servers:
        servers.stop()
        servers = None


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many as there are processors, up to a few; none for single tests named by hand, where workers cost more."""
    named = config.invocation_params.args
    paths = [
        str(part)
        for part in named
        if not str(part).startswith("-") and ("::" in str(part) or ".py" in str(part))
    ]
    if paths and all("::" in path for path in paths):
        return 0
    return min(MOST_PROCESSES, os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    # Registered after the plugin that it overrides, because the last fixture of a name wins.
    config.pluginmanager.register(BrowserFixtures(), "portal-browser")
    with contextlib.suppress(ImportError):
        import hypothesis

        # A busy machine is not a bug, and a failure prints what reproduces it.
        hypothesis.settings.register_profile("portal", deadline=None, print_blob=True)
        hypothesis.settings.load_profile("portal")


# --- what a test may not do ----------------------------------------------------------------------------------------


class UndefinedVariable(AssertionError):
    """A template of ours uses a variable that its view does not give."""


class Undefined(str):
    """Django's `string_if_invalid`: still empty, but a template of ours that comes to it fails.

    Third-party templates keep Django's leniency; `|default` declares a variable optional; `{% if %}` and
    `{% for %}` ask on purpose and never come here.
    """

    def __bool__(self) -> bool:
        frame = sys._getframe(1)
        if frame.f_code.co_name == "resolve":  # of a FilterExpression
            expression = frame.f_locals.get("self")
            names = [getattr(function, "__name__", "") for function, _ in getattr(expression, "filters", [])]
            if not {"default", "default_if_none"} & set(names):
                complain(frame, str(getattr(expression, "token", expression)))
        return False

    def __contains__(self, part: object) -> bool:
        frame = sys._getframe(1)
        if frame.f_code.co_name == "render_value":  # inside blocktranslate
            complain(frame, str(frame.f_locals.get("key")))
        return False


def complain(frame: Any, expression: str) -> None:
    from django.template.base import Node

    while frame:
        node = frame.f_locals.get("self")
        if isinstance(node, Node) and getattr(node, "origin", None):
            place = str(node.origin.name)
            if place.startswith(str(CHECKOUT / "templates")):
                line = getattr(getattr(node, "token", None), "lineno", "?")
                raise UndefinedVariable(f"{{{{ {expression} }}}} is undefined at {place}:{line}")
            return
        frame = frame.f_back


class WriteOnRead(AssertionError):
    """A GET or HEAD request tried to write to the database."""


WRITE = re.compile(
    r"^\s*(?:WITH\b.*?\b)?(?:INSERT\s+INTO|UPDATE(?:\s+ONLY)?|DELETE\s+FROM(?:\s+ONLY)?|MERGE\s+INTO|TRUNCATE(?:\s+TABLE)?|COPY)"
    r"\s+\"?([\w.\"]+)",
    re.IGNORECASE | re.DOTALL,
)


def refuse_writes(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    """A database wrapper that lets nothing be written but what WRITTEN_BY_READING names."""
    found = WRITE.match(str(sql))
    if found and found.group(1).replace('"', "") not in WRITTEN_BY_READING:
        raise WriteOnRead(f"a GET may not write: {str(sql)[:300]}")
    return execute(sql, params, many, context)


@pytest.fixture(autouse=True, scope="session")
def _strict_templates() -> None:
    """Undefined variables in our own templates fail."""
    from django.template import engines
    from django.template.backends.django import DjangoTemplates

    for engine in engines.all():
        if isinstance(engine, DjangoTemplates):
            engine.engine.string_if_invalid = Undefined()


@pytest.fixture(autouse=True, scope="session")
def _reading_writes_nothing() -> Iterator[None]:
    """GET and HEAD through Django, from the test client as from a browser, may not write."""
    from django.core.handlers.base import BaseHandler
    from django.db import connections

    answer = BaseHandler.get_response

    def guarded(self: Any, request: Any) -> Any:
        if request.method not in ("GET", "HEAD"):
            return answer(self, request)
        with contextlib.ExitStack() as stack:
            for alias in connections:
                stack.enter_context(connections[alias].execute_wrapper(refuse_writes))
            return answer(self, request)

    BaseHandler.get_response = guarded  # type: ignore[method-assign]
    yield
    BaseHandler.get_response = answer  # type: ignore[method-assign]


@pytest.fixture(autouse=True, scope="session")
def _quick_passwords() -> Iterator[None]:
    """Passwords are hashed as always, in fewer rounds: half a second each is for those who steal them."""
    from django.contrib.auth.hashers import PBKDF2PasswordHasher

    given, PBKDF2PasswordHasher.iterations = PBKDF2PasswordHasher.iterations, 1000
    yield
    PBKDF2PasswordHasher.iterations = given


# --- browser ---------------------------------------------------------------------------------------------------------


def chromium() -> str | None:
    """The browser to drive: the system's Chromium, or the one that playwright downloaded."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", Path.home() / ".cache" / "ms-playwright"))
    for program in sorted(folder.glob("chromium-*/chrome-*/chrome"), reverse=True):
        return str(program)
    return None


class BrowserFixtures:
    """How pytest-playwright starts the browser here."""

    @pytest.fixture(scope="session")
    @classmethod
    def browser_type_launch_args(cls) -> dict[str, Any]:
        # Playwright's loop runs in the test's thread, where Django would refuse its own database calls.
        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
        quiet = [
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ]
        quiet += ["--disable-sync", "--disable-dev-shm-usage"]
        if os.geteuid() == 0:
            quiet.append("--no-sandbox")
        return {"executable_path": chromium(), "args": quiet}

    @pytest.fixture(scope="session")
    @classmethod
    def browser(cls, browser: Any) -> Iterator[Any]:
        """Pytest-playwright's browser; wakes its loop for the end of the session (see `playwright_asleep`)."""
        loop = asyncio._get_running_loop()
        yield browser
        asyncio._set_running_loop(loop)


@pytest.fixture(autouse=True)
def _browser_connections(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close what a browser test opened: under playwright's loop Django has other connections than elsewhere."""
    yield
    if "playwright" in request.fixturenames:
        from django.db import connections

        connections.close_all()


@contextlib.contextmanager
def playwright_asleep(item: pytest.Item) -> Iterator[None]:
    """Hide playwright's event loop, which counts as running between browser tests too, from a test of something else."""
    loop = asyncio._get_running_loop()
    if loop is None or "playwright" in getattr(item, "fixturenames", ()):
        yield
        return
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(None if loop.is_closed() else loop)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    with playwright_asleep(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    with playwright_asleep(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    refuse_without_browser(item)
    with playwright_asleep(item):
        return (yield)


def refuse_without_browser(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") and not chromium():
        reason = "NO BROWSER: install Chromium (Debian: apt install chromium fonts-noto-cjk) to run the browser tests"
        if CI:
            pytest.fail(f"{reason}; under CI a skipped browser test is a failure", pytrace=False)
        pytest.skip(reason)


# --- published test vectors ------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def vector() -> Callable[[str], Any]:
    """`vector("jose.json")` reads a published test vector, where a folder of them lies beside the checkout."""

    def read(name: str) -> Any:
        folder = Path(os.environ.get("VECTORS_DIR") or CHECKOUT.parent / "shared" / "vectors")
        if not (folder / name).exists():
            pytest.skip(f"NO TEST VECTOR: {folder / name} is missing; VECTORS_DIR may name the folder")
        return json.loads((folder / name).read_text(encoding="utf-8"))

    return read
