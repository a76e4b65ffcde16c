"""The portal in one warm process that forks for every act, so that being killed costs milliseconds and not seconds.

A line of JSON on stdin is an act; its process id, what came of it and how the process ended come back as lines on
stdout. `target` names a file and a line: the act kills itself (SIGKILL) when it comes there.
"""

import contextlib
import datetime
import json
import os
import random
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django

from config import servers


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from tests.faults.ledger import mutants

    if name := os.environ.get("MUTANT"):
        mutants.apply(name)
    import consents.ledger.upkeep  # noqa: F401 - everything is imported once

    say({"ready": os.getpid()})
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    running: dict[int, int] = {}
    buffer = b""
    while True:
        ready, _, _ = select.select([0, woken], [], [], 1.0)
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if 0 in ready:
            data = os.read(0, 65536)
            if not data:
                return
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                act = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    perform(act)
                running[pid] = act["id"]
                say({"id": act["id"], "pid": pid})
        while running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            say({"id": running.pop(pid), "exit": os.waitstatus_to_exitcode(status)})


def say(message: dict[str, Any]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def perform(act: dict[str, Any]) -> None:
    """In the fork: do it, say what came of it, end."""
    if last_wish := servers.die_with_parent(signal.SIGKILL):
        last_wish()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(0)
    code = 1
    try:
        watch = Watch(act.get("target"), act.get("record", False))
        if limit := act.get("largest_file"):
            if act.get("torn"):
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # killed in the middle of the write
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        result = ACTS[act["do"]](watch, **act.get("with", {}))
        path = Path(os.environ["RESULTS"]) / f"{act['id']}.json"
        if watch.record:
            result["lines"] = watch.seen
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        path.write_text(json.dumps(result))
        code = 0
    except BaseException as problem:
        import traceback

        Path(os.environ["RESULTS"], f"{act['id']}.error").write_text(f"{problem!r}\n{traceback.format_exc()}")
    finally:
        os._exit(code)


class Watch:
    """Counts lines of the log's own modules as they run; kills the process at its target."""

    FILES = ("sequencer.py", "tiles.py", "signer.py", "proofs.py", "cosigning.py")

    def __init__(self, target: list | None, record: bool) -> None:
        self.target, self.record, self.seen = tuple(target or ()), record, []
        self._known: set[tuple[str, int]] = set()

    def begin(self) -> None:
        if not self.target and not self.record:
            return
        wanted = {self.target[0]} if self.target else set(self.FILES)
        folder = f"{os.sep}consents{os.sep}ledger{os.sep}"

        def line(frame, event, _argument):
            if event == "line":
                place = (os.path.basename(frame.f_code.co_filename), frame.f_lineno)
                if place == self.target:
                    os.kill(os.getpid(), signal.SIGKILL)
                if self.record and place not in self._known:
                    self._known.add(place)
                    self.seen.append(list(place))
            return line

        def call(frame, _event, _argument):
            name = frame.f_code.co_filename
            return line if folder in name and os.path.basename(name) in wanted else None

        threading.settrace(call)
        sys.settrace(call)


# --- acts ------------------------------------------------------------------------------------------------------------------


def prepare(watch: Watch) -> dict:
    from django.core.management import call_command

    from providers import datafiles

    call_command("migrate", verbosity=0)
    datafiles.load_policy()
    datafiles.load_scopes()
    return {}


def write(watch: Watch, *, acts: int, seed: int, stop: str = "", hold: float = 0.0, until: str = "") -> dict:
    """So many acts of one to four entries each; some hold their transaction open, some roll back. Leaf hashes by act.

    Each is committed only when there is a file `until`."""
    from django.db import transaction

    from consents import ledger
    from consents.actors import Actor
    from consents.ledger import Fact

    rng, kept = random.Random(seed), []
    for n in range(acts):
        if stop and Path(stop).exists():
            break
        facts = [Fact("channel.opened", fields={"dig": f"{seed}.{n}.{k}"}) for k in range(rng.randint(1, 4))]
        with contextlib.suppress(_Undone):
            with transaction.atomic():
                sealed = ledger.append(
                    facts, by=Actor.system("faults"), at=datetime.datetime.now(datetime.UTC)
                )
                if hold and rng.random() < 0.3:
                    time.sleep(rng.random() * hold)
                while until and not Path(until).exists():
                    time.sleep(0.02)
                if rng.random() < 0.1 and not until:
                    raise _Undone
            kept.append([entry.leaf_hash.hex() for entry in sealed])
        if hold:
            time.sleep(rng.random() * hold * 4)
    return {"acts": kept}


class _Undone(Exception):
    pass


def sequence(watch: Watch, *, batch: int = 16_384, within: float = 0.0) -> dict:
    """One run; with a target as many as it takes to be killed there, at most `within` seconds."""
    from consents.ledger import signer
    from consents.ledger.sequencer import Sequencer, Stopped

    made, deadline, done = Sequencer(), time.monotonic() + within, 0
    result: dict[str, Any] = {}
    watch.begin()
    while True:
        try:
            report = made.run(rounds=3, batch=batch)
            result = {"size": report.size, "busy": report.busy, "ordered": report.ordered}
            done += report.ordered > 0
        except signer.Unavailable as problem:
            result = {"stopped": "signer", "detail": str(problem)}
        except Stopped as problem:
            return {"stopped": problem.code, "detail": str(problem)}
        except OSError as problem:
            result = {"stopped": "disk", "detail": str(problem)}
        if time.monotonic() > deadline or (watch.target and done >= 3):
            return result
        time.sleep(0.01)


def upkeep(
    watch: Watch, *, later: int = 0, sequence: bool = True, cosign: bool = True, patience: float = 1.0
) -> dict:
    """The jobs as the beat rings them, and the newest findings of each."""
    from consents.ledger import cosigning
    from consents.ledger import upkeep as jobs
    from consents.models import Verification

    cosigning.PATIENCE = patience
    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=later)
    watch.begin()
    signed = jobs.sequence(at=at) if sequence else None
    published = jobs.cosign(at=at) if cosign else None
    found = {}
    for kind in ("sequencer", "witness"):
        last = Verification.objects.filter(kind=kind).first()
        found[kind] = last.findings if last else []
    return {"signed": signed, "published": published, **found}


def page(watch: Watch, *, later: int = 0) -> dict:
    """What the page about the log's integrity says of witnesses."""
    from consents.queries import integrity

    at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=later)
    shown = integrity.overview(at=at)
    return {"state": shown.witnessing.state, "late": shown.witnessing.late(at=at), "holds": shown.holds}


def serve_signer(watch: Watch) -> dict:
    from django.conf import settings

    from consents.ledger import signer

    signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    watch.begin()
    signer.serve(settings.SIGNER_DIR, settings.LEDGER_ORIGIN, signer.socket_path())
    return {}


def key(watch: Watch) -> dict:
    from django.conf import settings

    from consents.ledger import signer

    return {"key": str(signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN))}


def probe(watch: Watch) -> dict:
    """Whether the signer would sign a smaller size, and another root for its own size: what it answers."""
    from consents.ledger import signer

    with signer.connect() as signing:
        state = signing.state()
        answers = []
        for size in (state.size - 1, state.size):
            try:
                answers.append(signing.sign(size=size, root=bytes(32), old=state.size, proof=[]))
            except signer.Refused as refusal:
                answers.append(refusal.code)
    return {"size": state.size, "root": state.root.hex(), "answers": answers}


def recount(watch: Watch) -> dict:
    """The nightly check's findings."""
    from consents.ledger import recount as nightly

    report = nightly.run()
    return {"report": str(report), "ok": report.ok}


ACTS: dict[str, Callable[..., dict]] = {
    act.__name__: act for act in (prepare, write, sequence, upkeep, page, serve_signer, key, probe, recount)
}

if __name__ == "__main__":
    main()
