"""The regulator's witness as a process of its own: it listens and never connects, and needs no database of the portal."""

import asyncio
import signal
import sqlite3
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from aiohttp import web
from django.core.management.base import BaseCommand, CommandError

from consents.ledger import notes, witness

PATIENCE = 10.0  # seconds for a caller to finish what it began to say
QUIET = 30.0  # seconds a connection may stay open without a question
BACKLOG = 128


class Command(BaseCommand):
    help = (
        "The regulator's witness of the log (C2SP tlog-witness). `init` makes its key and store in DIR, writes the policy "
        "to hand out (DIR/policy.txt) and prints the key that verifies it (vkey); again with another --log it trusts that "
        "log too. `serve` answers POST /add-checkpoint and GET /<sha256 of the origin>/checkpoint. `evidence` lists what "
        "was refused although the log had signed it. Run it at the regulator's, away from the portal."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["init", "serve", "evidence"])
        parser.add_argument("--dir", help="folder of the witness: key, store and policy")
        parser.add_argument(
            "--name", default="", help="init: name of the witness, as fss.example.kr/witness/1"
        )
        parser.add_argument("--log", action="append", default=[], help="init: vkey of a log; may be repeated")
        parser.add_argument("--url", default="", help="init: where the portal reaches the witness")
        parser.add_argument("--host", default="127.0.0.1", help="serve: address to listen at")
        parser.add_argument("--port", type=int, default=8002, help="serve: port to listen at")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        if not options["dir"]:
            raise CommandError("say where the witness lives: --dir DIR")
        folder = Path(options["dir"])
        try:
            if action == "init":
                self._init(folder, options)
            elif action == "evidence":
                self._evidence(folder)
            else:
                asyncio.run(self._serve(witness.Witness(folder), options["host"], options["port"]))
        except (witness.Unavailable, notes.BadNote, sqlite3.Error, OSError) as problem:
            raise CommandError(str(problem)) from problem

    def _init(self, folder: Path, options: dict[str, Any]) -> None:
        if not options["name"]:
            raise CommandError("name the witness: --name NAME")
        key, new = witness.make(folder, name=options["name"], logs=options["log"], url=options["url"])
        self.stdout.write(str(key))
        if "key" in new:
            said = f"made the witness in {folder}; hand out {folder / witness.POLICY}"
        elif new:
            said = f"the witness in {folder} was there; new in its policy: {', '.join(new)}"
        else:
            said = f"the witness in {folder} was there already; nothing changed"
        self.stderr.write(said)

    def _evidence(self, folder: Path) -> None:
        for origin, size, root, kind, request, against in witness.Witness(folder).evidence():
            self.stdout.write(f"{kind} {origin} {size} {root}\n{request.decode('utf-8', 'replace')}")
            self.stdout.write(f"cosigned before:\n{against}" if against else "nothing was cosigned before")

    async def _serve(self, judge: witness.Witness, host: str, port: int) -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        doors = Doors(judge)
        runner = web.AppRunner(
            doors.application(), access_log=None, keepalive_timeout=QUIET, shutdown_timeout=PATIENCE
        )
        await runner.setup()
        try:
            server = await loop.create_server(doors.impatient(runner), host, port, backlog=BACKLOG)
            bound = server.sockets[0].getsockname()[1]
            self.stdout.write(f"witness {judge.key.name} listens at http://{host}:{bound}")
            self.stdout.flush()
            await stop.wait()
            server.close()
        finally:
            await runner.cleanup()


class Doors:
    """The witness over HTTP. Its store is asked in threads, so that a slow disk stops nobody from being told so."""

    def __init__(self, judge: witness.Witness) -> None:
        self._judge = judge
        self._heard: set[int] = set()  # connections that have asked something

    def application(self) -> web.Application:
        application = web.Application(client_max_size=witness.LARGEST_BODY, middlewares=[self._note])
        application.router.add_post("/add-checkpoint", self._add)
        application.router.add_get("/{origin:[0-9a-f]{64}}/checkpoint", self._checkpoint)
        application.router.add_get("/", self._about)
        application.router.add_get("/healthz", self._health)
        return application

    def impatient(self, runner: web.AppRunner):
        """Makes connections that are dropped where no whole question comes; a kept-alive one has QUIET for its next."""
        loop, make = asyncio.get_running_loop(), runner.server
        assert make is not None

        def drop(protocol: web.RequestHandler) -> None:
            if id(protocol) in self._heard:
                self._heard.discard(id(protocol))
            elif protocol.transport is not None:
                protocol.transport.close()

        def accept() -> web.RequestHandler:
            protocol = make()
            loop.call_later(PATIENCE, drop, protocol)  # holds it until then: its id is nobody else's
            return protocol

        return accept

    @web.middleware
    async def _note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self._heard.add(id(request.protocol))
        try:
            return await handler(request)
        except (sqlite3.Error, witness.Unavailable):
            return web.Response(status=503, text="the witness cannot use its store\n")

    async def _add(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(PATIENCE):
                body = await request.read()
        except TimeoutError:
            return web.Response(status=408, text="too slow\n", headers={"Connection": "close"})
        answer = await asyncio.to_thread(self._judge.add_checkpoint, body, int(time.time()))
        return _response(answer.status, answer.body, answer.content_type)

    async def _checkpoint(self, request: web.Request) -> web.Response:
        note = await asyncio.to_thread(self._judge.last, request.match_info["origin"])
        if note is None:
            return _response(404, b"no checkpoint of this log was cosigned\n", witness.TEXT)
        return _response(200, note.encode(), witness.TEXT)

    async def _about(self, request: web.Request) -> web.Response:
        policy = await asyncio.to_thread(self._judge.policy)
        logs = "".join(f"log {key}\n" for key in policy.logs)
        return _response(200, f"witness {self._judge.key}\n{logs}".encode(), witness.TEXT)

    async def _health(self, request: web.Request) -> web.Response:
        await asyncio.to_thread(self._judge.last, "")
        return _response(200, b"ok\n", witness.TEXT)


def _response(status: int, body: bytes, content_type: str) -> web.Response:
    headers = {"Content-Type": content_type, "Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=body, headers=headers)
