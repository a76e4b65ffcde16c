"""WRITES scratch rows of a benchmark: how many access tokens a second servers get, and what one client notices of another's
flood.

A real web server as in production, on the scratch database; clients that keep their connection and sign in with a secret.
The limit is what a token cannot do without: its client looked up, its hash inserted and committed, from as many threads.
"""

import contextlib
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.conf import settings
from django.db import connection, connections
from django.utils import timezone

from consents import clients
from consents.actors import Actor
from consents.api import oauth
from providers.models import Organization

from . import Result, median, percentile, scratch

GOAL = 200  # tokens a second
THREADS = 4
ROUND = 800  # tokens
CLIENTS = 24  # so that none reaches its limit
FLOOD_SECONDS = 6
ASIDE = 20.0  # the other client's requests a second
SLOWER, SLOWEST = 5.0, 0.1  # p95 beside the flood: so many times what it was, or so many seconds
PATIENCE = 30.0  # seconds for the server to answer
TOKEN = "/identity/o/api/token"  # noqa: S105 - an address

Known = list[tuple[str, str]]  # client id, secret


def run(*, count: int, rounds: int, leaves: int, say) -> Result:
    """`count` bounds the tokens of a round."""
    size = max(THREADS, min(ROUND, count))
    with scratch.folders(), scratch.database():
        known = _clients(CLIENTS + 2)
        with _serving() as port:
            say(f"{rounds} rounds of {size} tokens, beside bare SQL")
            ours, limit = [], []
            for _ in range(rounds):
                ours.append(_given(port, known[:CLIENTS], size))
                limit.append(_bare(known[:CLIENTS], size))
            say("one client beside another's flood")
            alone, _ = _aside(port, known[-1], flooding=None)
            beside, seen = _aside(port, known[-1], flooding=(port, known[-2]))
    ratio = median([a / b for a, b in zip(ours, limit, strict=True)])
    p95, p95_beside = percentile(alone, 0.95), percentile(beside, 0.95)
    unharmed = p95_beside <= max(SLOWER * p95, SLOWEST)
    return Result(
        "tokens", round(median(ours)), round(median(limit)), round(ratio, 3), "tokens/s",
        f"≥ {GOAL}/s; beside a flood of another client none refused, p95 ≤ {SLOWER:.0f} × or {SLOWEST} s",
        median(ours) >= GOAL and unharmed,
        {
            "rounds": [round(one) for one in ours], "p95_alone_ms": round(1000 * p95, 1),
            "p95_beside_flood_ms": round(1000 * p95_beside, 1), "flood": dict(sorted(seen.items())),
            "limit_per_minute": oauth.PER_MINUTE,
        },
    )  # fmt: skip


def _clients(number: int) -> Known:
    by, at = Actor.system("bench"), timezone.now()
    known = []
    for n in range(number):
        organization = Organization.objects.create(
            code=f"BENCH{n:05}",
            name_ko=f"회사 {n}",
            name_en=f"Company {n}",
            sector="fintech",
            is_operator=True,
        )
        link, secret = clients.make(organization, scopes=["deliveries:ack"], by=by, at=at)
        known.append((link.client_id, secret))
    return known


# --- ours ----------------------------------------------------------------------------------------------------------------


def _given(port: int, known: Known, count: int) -> float:
    """Tokens a second, over THREADS connections; RuntimeError where one is refused."""
    todo, seen = iter(range(count)), Counter()  # type: ignore[var-annotated]
    lock = threading.Lock()

    def work() -> None:
        with _line(port) as line:
            while True:
                with lock:
                    n = next(todo, None)
                if n is None:
                    return
                status = _ask(line, *known[n % len(known)])
                with lock:
                    seen[status] += 1

    seconds = _at_once(work)
    if set(seen) != {200}:
        raise RuntimeError(f"tokens were refused: {dict(seen)}")
    return count / seconds


@contextlib.contextmanager
def _line(port: int) -> Iterator[http.client.HTTPConnection]:
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        yield line
    finally:
        line.close()


def _ask(line: http.client.HTTPConnection, client_id: str, secret: str) -> int:
    body = urlencode({"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret})
    line.request("POST", TOKEN, body, {"Content-Type": "application/x-www-form-urlencoded"})
    answer = line.getresponse()
    told = json.loads(answer.read())
    if answer.status == 200 and not told.get("access_token"):
        raise RuntimeError("an answer without a token")
    return answer.status


def _at_once(work) -> float:
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    start = time.perf_counter()
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return time.perf_counter() - start


def _aside(port: int, own: tuple[str, str], *, flooding) -> tuple[list[float], Counter]:
    """How long one client's requests take, with and without a flood of another; and what the flood was answered."""
    stop, seen = threading.Event(), Counter()  # type: ignore[var-annotated]
    crowd = (
        [threading.Thread(target=_flood, args=(*flooding, stop, seen)) for _ in range(THREADS)]
        if flooding
        else []
    )
    for one in crowd:
        one.start()
    waits, until = [], time.monotonic() + FLOOD_SECONDS
    with _line(port) as line:
        while time.monotonic() < until:
            start = time.perf_counter()
            if (status := _ask(line, *own)) != 200:
                stop.set()
                raise RuntimeError(f"the other client was refused: {status}")
            waits.append(time.perf_counter() - start)
            time.sleep(max(0.0, 1 / ASIDE - waits[-1]))
    stop.set()
    for one in crowd:
        one.join()
    return waits, seen


def _flood(port: int, own: tuple[str, str], stop: threading.Event, seen: Counter) -> None:
    with _line(port) as line:
        while not stop.is_set():
            seen[_ask(line, *own)] += 1


@contextlib.contextmanager
def _serving() -> Iterator[int]:
    """granian as in production, on the scratch database; answers its port."""
    given = urlsplit(os.environ["DATABASE_URL"])
    database = urlunsplit(given._replace(path=f"/{connection.settings_dict['NAME']}"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "wsgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [*command, "--workers", "2", "--blocking-threads", "4", "--no-ws", "--log-level", "warning", "config.wsgi:application"],
        cwd=settings.BASE_DIR, env={**os.environ, "DATABASE_URL": database, }, start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait(port)
        yield port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(port: int) -> None:
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with _line(port) as line:
                line.request("GET", "/healthz")
                line.getresponse().read()
                return
        except OSError as error:
            if time.monotonic() > until:
                raise RuntimeError("the web server did not start") from error
            time.sleep(0.1)


# --- the limit -----------------------------------------------------------------------------------------------------------

_FIND = "SELECT c.id, s.digest FROM allauth_idp_oidc_client c JOIN providers_apiclient l ON l.client_id = c.id JOIN providers_clientsecret s ON s.link_id = l.id WHERE c.id = %s"
_KEEP = "INSERT INTO allauth_idp_oidc_token (type, hash, client_id, created_at, expires_at, scopes) VALUES ('at', %s, %s, now(), now() + interval '10 minutes', 'deliveries:ack')"


def _bare(known: Known, count: int) -> float:
    """Look up and insert, nothing else."""
    todo, lock = iter(range(count)), threading.Lock()

    def work() -> None:
        try:
            with connection.cursor() as cursor:
                while True:
                    with lock:
                        n = next(todo, None)
                    if n is None:
                        return
                    cursor.execute(_FIND, [known[n % len(known)][0]])
                    cursor.fetchone()
                    cursor.execute(_KEEP, [secrets.token_hex(32), known[n % len(known)][0]])
        finally:
            connections.close_all()

    return count / _at_once(work)
