"""What the experiments stand on: a cluster of their own each, a warm portal that forks for every act, witnesses.

Everything lives in one temporary folder, listens on Unix sockets or loopback, and is ended by its recorded id only.
"""

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from config import embedded, servers
from tests.faults.ledger import reader
from tests.faults.ledger.reader import Wrong, check
from tests.faults.portal import DurablePostgres

ORIGIN = "faults.portal.example/log/2026"


@dataclass
class Outcome:
    """How an act ended: its exit status (-9: killed) and, where it came to an end, what it answered."""

    exit: int
    result: dict[str, Any]
    error: str = ""

    @property
    def killed(self) -> bool:
        return self.exit == -signal.SIGKILL


class Act:
    """An act under way: `pid` once it has begun, `wait` for its outcome."""

    def __init__(self) -> None:
        self.begun: Future[int] = Future()
        self.ended: Future[int] = Future()
        self.results: Path

    @property
    def pid(self) -> int:
        return self.begun.result(60)

    def running(self) -> bool:
        return not self.ended.done()

    def wait(self, seconds: float = 120) -> Outcome:
        status = self.ended.result(seconds)
        done, error = self.results.with_suffix(".json"), self.results.with_suffix(".error")
        return Outcome(
            status,
            json.loads(done.read_text()) if done.exists() else {},
            error.read_text() if error.exists() else "",
        )

    def kill(self) -> None:
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Warm:
    """The warm process: see `child.py`."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._results = folder / "results"
        self._results.mkdir(exist_ok=True)
        self._acts: dict[int, Act] = {}
        self._next, self._lock = 0, threading.Lock()
        self._ready: Future[int] = Future()
        self._log = (folder / "child.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.ledger.child"],
            cwd=embedded.CHECKOUT, env={**environment, "RESULTS": str(self._results)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            preexec_fn=servers.die_with_parent(signal.SIGKILL),
        )  # fmt: skip
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self._ready.result(90)
        except BaseException:
            self.stop()
            raise AssertionError((folder / "child.log").read_text()[-3000:]) from None

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "ready" in message:
                self._ready.set_result(message["ready"])
            elif "pid" in message:
                self._acts[message["id"]].begun.set_result(message["pid"])
            else:
                self._acts[message["id"]].ended.set_result(message["exit"])

    def begin(self, do: str, **options: Any) -> Act:
        """`target`, `record`, `largest_file`, `torn`: see child.py; everything else goes to the act."""
        special = {
            name: options.pop(name)
            for name in ("target", "record", "largest_file", "torn")
            if name in options
        }
        with self._lock:
            self._next += 1
            act = self._acts[self._next] = Act()
            act.results = self._results / str(self._next)
            assert self._process.stdin is not None
            message = {"id": self._next, "do": do, "with": options, **special}
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        return act

    def do(self, act: str, **options: Any) -> dict[str, Any]:
        """What the act answers; it must come to its end."""
        outcome = self.begin(act, **options).wait()
        assert outcome.exit == 0, f"{act} ended with {outcome.exit}: {outcome.error}"
        return outcome.result

    def stop(self) -> None:
        for act in self._acts.values():
            act.kill()
        self._process.kill()
        self._process.wait(20)
        self._listener.join(20)  # until the last fork has let go of the pipe
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            pipe.close()


class World:
    """One experiment's cluster, folder and portal. `mutant` puts a fault into the portal: see mutants.py."""

    def __init__(self, template: Path, *, mutant: str = "", **environment: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="portal-log-", dir=servers.temporary()))
        self.home.chmod(0o711)
        self.postgres = DurablePostgres(self.home, ephemeral=True)
        if template.exists():
            self.postgres.home.mkdir()
            self.postgres.home.chmod(0o711)
            copy_tree(template, self.postgres.data)
        self.postgres.acquire()
        self.ledger = self.home / "ledger"
        self.policy = self.home / "policy.txt"
        self.environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PYTEST", "DJANGO", "LEDGER", "SIGNER"))
            },
            "DATABASE_URL": self.postgres.url(), "SECRET_KEY": "f" * 50, "MUTANT": mutant, "LOG_LEVEL": "CRITICAL",
            "PORTAL_KEYS_DIR": str(embedded.make_folder(self.home / "keys", mode=0o700)),
            "PORTAL_STATE_DIR": str(self.home), "PORTAL_URL": "http://127.0.0.1:9",
            "LEDGER_DIR": str(self.ledger), "LEDGER_ORIGIN": ORIGIN, "LEDGER_POLICY": str(self.policy),
            "SIGNER_DIR": str(self.home / "signer"), **environment,
        }  # fmt: skip
        self.environment.setdefault("REDIS_URL", "redis://127.0.0.1:9/0")
        self.warm = Warm(self.environment, self.home)
        self.others: list[subprocess.Popen] = []

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        self.warm.stop()
        for process in self.others:
            process.kill()
            process.wait(20)
            process.stdout.close()
        self.postgres.release()
        shutil.rmtree(self.home, ignore_errors=True)

    # --- processes -------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def key(self) -> reader.Key:
        return reader.Key(self.warm.do("key")["key"])

    def policy_of(self, witnesses: list["Key"], quorum: int) -> None:
        """So many of these witnesses must have cosigned."""
        names = [witness.short for witness in witnesses]
        lines = [f"log {self.vkey()}", *(f"witness {w.short} {w.vkey} {w.url}" for w in witnesses)]
        lines += [f"group enough {quorum} {' '.join(names)}", "quorum enough"] if quorum else ["quorum none"]
        self.policy.write_text("\n".join(lines) + "\n")

    def vkey(self) -> str:
        return (
            f"{self.key.name}+{self.key.id.hex()}+"
            + base64.b64encode(bytes([self.key.kind]) + self.key.raw).decode()
        )

    def no_witnesses(self) -> None:
        self.policy_of([], 0)

    def manage(self, *arguments: str) -> subprocess.Popen:
        """A command of the portal as a process of its own, until it is killed."""
        process = subprocess.Popen(
            [sys.executable, str(embedded.CHECKOUT / "manage.py"), *arguments], cwd=embedded.CHECKOUT,
            env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            preexec_fn=servers.die_with_parent(signal.SIGKILL),
        )  # fmt: skip
        self.others.append(process)
        return process

    def signer_runs(self, target: list | None = None) -> Act:
        act = self.warm.begin("serve_signer", target=target)
        socket = self.home / "signer" / "signer.sock"
        wait(lambda: not act.running() or answers(socket), 30, "the signer to listen")
        return act

    def restart_database(self, *, swap: Path | None = None) -> None:
        """Stop the cluster cleanly; with `swap` go on with another copy of its data folder. The portal starts anew."""
        self.warm.stop()
        self.postgres.release()
        if swap:
            shutil.rmtree(self.postgres.data)
            copy_tree(swap, self.postgres.data)
        self.postgres.acquire()
        self.environment["DATABASE_URL"] = self.postgres.url()
        self.warm = Warm(self.environment, self.home)

    def copy_database(self, to: Path) -> None:
        """A file-level copy, taken while the cluster stands still."""
        self.warm.stop()
        self.postgres.release()
        copy_tree(self.postgres.data, to)
        self.restart_database()

    # --- what can be seen --------------------------------------------------------------------------------------------------

    def sql(self, statement: str, values: list | tuple = ()) -> list[tuple]:
        with psycopg.connect(
            host=str(self.postgres.socket_folder()), user="portal", dbname="portal", autocommit=True
        ) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def memory(self) -> tuple[int, str]:
        """Size and root in the signer's own file."""
        try:
            memory = json.loads((self.home / "signer" / "last.json").read_text())
        except FileNotFoundError:
            return 0, ""
        return memory["size"], memory["root"]

    def signed_tree_holds(self) -> int:
        """The database and the tiles against each other and against every note ever signed; answers the size."""
        rows = self.sql(
            "SELECT leaf_index, leaf.event_id, leaf.leaf_hash, entry FROM ledger.leaf LEFT JOIN ledger.event USING (event_id) "
            "ORDER BY leaf_index"
        )
        check([row[0] for row in rows] == list(range(len(rows))), "the leaves are not dense")
        check(len({row[1] for row in rows}) == len(rows), "an event has two leaves")
        hashes = [bytes(row[2]) for row in rows]
        check(all(row[3] and reader.leaf(bytes(row[3])) == hash_ for row, hash_ in zip(rows, hashes, strict=True)),
              "a leaf is not the hash of its entry")  # fmt: skip
        roots, last = reader.Roots(hashes), 0
        for size, root, note in self.sql(
            "SELECT tree_size, root_hash, note FROM ledger.checkpoint ORDER BY signed_at"
        ):
            check(size > last, f"checkpoint sizes do not rise: {last}, then {size}")
            check(size <= len(hashes), f"{size} entries were signed, {len(hashes)} are ordered")
            check(
                reader.checkpoint(note, self.key) == (size, bytes(root)),
                "a note says something else than its row",
            )
            check(roots.of(size) == bytes(root), f"the root signed for size {size} is not that of the leaves")
            last = size
        size, root = self.memory()
        check(size >= last, f"the signer went back from {last} to {size}")
        check(size <= len(hashes), f"{size} entries were signed, {len(hashes)} are ordered")
        check(
            not size or roots.of(size).hex() == root,
            "the signer remembers another root than that of the leaves",
        )
        if last:
            found = reader.Reader(self.ledger, self.key).tree(last, roots.of(last))
            check(found == hashes[:last], "the tiles hold other leaves than the database")
        return last

    def all_are_ordered(self) -> int:
        """Every committed event has its leaf, and all of them are signed."""
        events, leaves = self.sql(
            "SELECT (SELECT count(*) FROM ledger.event), (SELECT count(*) FROM ledger.leaf)"
        )[0]
        check(events == leaves, f"{events} events were committed, {leaves} have their place")
        missing = self.sql(
            "SELECT count(*) FROM ledger.event WHERE event_id NOT IN (SELECT event_id FROM ledger.leaf)"
        )
        check(missing == [(0,)], "an event was passed over")
        check(self.sql("SELECT count(*) FROM ledger.pending") == [(0,)], "something still waits")
        check(self.signed_tree_holds() == leaves, "not all that is ordered is signed")
        return leaves


# --- witnesses ---------------------------------------------------------------------------------------------------------------


class Key:
    """A witness's key and where it answers."""

    def __init__(self, short: str, url: str, vkey: str = "") -> None:
        self.short, self.url, self.name = short, url, f"{short}.portal.example/witness"
        self.private = Ed25519PrivateKey.generate()
        raw = b"\x04" + self.private.public_key().public_bytes_raw()
        self.id = reader.sha(self.name.encode(), b"\n", raw)[:4]
        self.vkey = vkey or f"{self.name}+{self.id.hex()}+{base64.b64encode(raw).decode()}"

    def line(self, body: str, private: Ed25519PrivateKey | None = None) -> str:
        now = int(time.time())
        signature = (private or self.private).sign(f"cosignature/v1\ntime {now}\n{body}".encode())
        return f"— {self.name} {base64.b64encode(self.id + now.to_bytes(8, 'big') + signature).decode()}\n"


class Mock:
    """Pretend witnesses at one address, one below each path, with a mood each."""

    def __init__(self) -> None:
        self.moods: dict[str, str] = {}
        self.keys: dict[str, Key] = {}
        self.size: dict[str, int] = {}  # what each has cosigned
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                outer.answer(self)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.closing = threading.Event()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def witness(self, short: str) -> Key:
        self.keys[short] = Key(short, f"{self.url}/{short}")
        self.moods[short], self.size[short] = "good", 0
        return self.keys[short]

    def __enter__(self) -> "Mock":
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        short = request.path.split("/")[1]
        mood, key = self.moods[short], self.keys[short]
        body = request.rfile.read(int(request.headers["Content-Length"])).decode()
        asked, _, note = body.partition("\n\n")
        old = int(asked.split("\n")[0].removeprefix("old "))
        text = note.rpartition("\n\n")[0] + "\n"
        size = int(text.split("\n")[1])
        other = Ed25519PrivateKey.generate()
        if mood == "slow":
            self.closing.wait(15)
            return
        if mood == "down":
            request.connection.close()
            return
        status, kind, answer = 200, "text/plain; charset=utf-8", ""
        if mood == "error":
            status, answer = 500, "oh\n"
        elif mood == "ahead":
            status, kind, answer = 409, "text/x.tlog.size", f"{size + 50}\n"
        elif mood == "bad signature":
            answer = key.line(text.replace("\n", "x", 1))
        elif mood == "wrong key":
            answer = key.line(text, other)
        elif mood == "another witness":
            answer = Key("somebody", "").line(text)
        elif mood == "garbage":
            answer = "— \x00 not a line\n"
        elif mood == "future":
            answer = key.line(text).replace("—", "-")
        elif old != self.size[short]:
            status, kind, answer = 409, "text/x.tlog.size", f"{self.size[short]}\n"
        else:
            self.size[short] = size
            answer = key.line(text)
        data = answer.encode()
        request.send_response(status)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


# --- small things --------------------------------------------------------------------------------------------------------------


def copy_tree(source: Path, target: Path) -> None:
    """With owners and modes, as a file-level backup does."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def answers(path: Path) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def wait(done: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Wrong(f"waited {seconds} s for {what}")
        time.sleep(0.01)


@contextlib.contextmanager
def made_template() -> Iterator[Path]:
    """A migrated cluster at rest, to be copied for each experiment."""
    folder = Path(tempfile.mkdtemp(prefix="portal-log-", dir=servers.temporary()))
    folder.chmod(0o711)
    try:
        with World(folder / "none") as world:
            world.warm.do("prepare")
            world.warm.stop()
            world.postgres.release()
            copy_tree(world.postgres.data, folder / "data")
        yield folder / "data"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
