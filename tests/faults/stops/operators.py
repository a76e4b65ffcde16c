"""The other side: mock operators and sources, each at a port of its own, in one process without any of the portal's code.

They check the webhook's signature (standardwebhooks) and the SET (PyJWT, keys fetched from the portal), act once for each
`jti`, keep a journal in the form of `history`, and acknowledge: in the answer where many messages came in one request, by the
portal's API otherwise. Each has a mood, set at the control
port: `POST /` with {"moods": {code: mood}}; `GET /` answers what is outstanding.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.faults.stops.history import History

POLL = "/api/v1/sets/poll"
REFETCH = 0.3  # seconds between two looks at the portal's keys
SECRETS = 9  # that an operator knows: changed every two seconds, as long as a request may be under way (15 s)


class Refused(Exception):
    """`err` as RFC 8935 §2.4 has it."""

    def __init__(self, err: str, why: str = "") -> None:
        super().__init__(why or err)
        self.err = err


class Unknown(Exception):
    """Not a message but a question, which we do not answer."""


class Later(Exception):
    """The keys cannot be had just now."""


class Operator:
    """One of them. Mood: `good`, `down`, `flaky`, `hangs`, `drips`, `errors`, `loses_answers`, `loses_messages`."""

    def __init__(self, city: "City", code: str, told: dict[str, Any]) -> None:
        self.city, self.code, self.port, self.token = city, code, told["port"], told["token"]
        self.secrets, self.acks = [told["secret"]], told["acks"]
        self.mood, self.seen = "good", set()
        self.rng = random.Random(f"{city.seed}{code}")
        self.keys: dict[str, Any] = {}
        self.keys_at = 0.0

    def note(self, f: str, k: str, v: Any = None) -> None:
        self.city.history.write(self.code, f, k, "info", v)

    async def hook(self, request: web.Request) -> web.StreamResponse:
        mood, dice = self.mood, self.rng.random()
        given = request.headers.get("webhook-id", "")
        if mood == "down" or (mood == "flaky" and dice < 0.1) or (mood == "loses_messages" and dice < 0.5):
            self.note("lost", given)
            return hang_up(request)
        raw = await request.read()
        ids = carried(raw) or [given]
        if mood == "errors" or (mood == "flaky" and dice > 0.8):
            return self.later(ids, self.rng.choice([429, 500, 503]))
        for jti in ids:
            self.note("post" if b'"set":' in raw else "probe", jti)
        if mood == "hangs":
            await asyncio.sleep(120)
            return hang_up(request)
        try:
            messages = await self.verified(request.headers, raw)
            if "state" in messages[0]:
                return web.json_response(messages[0])
        except Refused as refusal:
            self.note("refused", given, f"{refusal.err}: {refusal}")
            return web.json_response({"err": refusal.err}, status=400)
        except Unknown:
            return web.json_response({"err": "invalid_request"}, status=400)
        except Later:
            return self.later(ids, 503)
        together = ids != [given]
        for message in messages:
            self.act(message, calls=not together)
        if mood == "loses_answers" or (mood == "flaky" and dice < 0.2):
            return hang_up(request)
        if mood == "drips":
            return await drip(request)
        return web.json_response({"ack": ids}) if together and self.acks else web.Response()

    def later(self, ids: list[str], status: int) -> web.Response:
        wait = 0 if status == 500 else 2
        for jti in ids:
            self.note("later", jti, wait)
        return web.Response(status=status, headers={"Retry-After": str(wait)} if wait else {})

    async def verified(self, headers: Any, raw: bytes) -> list[dict[str, Any]]:
        """What a request says, message by message, or the state that a test of the address wants back."""
        for secret in self.secrets:
            try:
                Webhook(secret).verify(raw, dict(headers))
                break
            except WebhookVerificationError as error:
                why = str(error)
        else:
            raise Refused("authentication_failed", why)
        body = json.loads(raw)
        if body["type"] == "verification":
            return [{"state": body["data"]["state"]}]
        if body["type"] == "batch":
            return [await self.opened(one["data"]["set"]) for one in body["data"]["messages"]]
        if "set" not in body["data"]:
            raise Unknown
        message = await self.opened(body["data"]["set"])
        if message["jti"] != headers["webhook-id"]:
            raise Refused("invalid_request", "the SET has another id than the webhook")
        return [message]

    async def opened(self, compact: str) -> dict[str, Any]:
        """What a SET says, after its signature was checked."""
        kid = jwt.get_unverified_header(compact).get("kid")
        if kid not in self.keys:
            await self.fetch_keys()
        if kid not in self.keys:
            raise Refused("invalid_key", "no such key")
        try:
            # A retry after three days is legitimate: the moment that counts is the attempt's, which the webhook signs.
            claims = jwt.decode(
                compact, self.keys[kid], algorithms=["ES256"], audience=self.code, issuer=self.city.issuer,
                options={"verify_iat": False},
            )  # fmt: skip
        except jwt.PyJWTError as error:
            raise Refused("invalid_request", repr(error)) from error
        ((event, facts),) = claims["events"].items()
        return {**facts, "event": event.rsplit("/", 1)[1], "jti": claims["jti"], "txn": claims["txn"]}

    async def fetch_keys(self) -> None:
        while (wait := self.keys_at + REFETCH - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        self.keys_at = time.monotonic()
        found = await self.city.portal("GET", "/.well-known/jwks.json")
        if found is None:
            raise Later
        self.keys = {key["kid"]: jwt.PyJWK(key).key for key in found["keys"]}

    def act(self, message: dict[str, Any], *, calls: bool = True) -> None:
        """Once for each jti, however it came. `calls`: it is acknowledged by a call of its own."""
        jti = message["jti"]
        if jti in self.seen:
            return
        self.seen.add(jti)
        kept = {name: message[name] for name in ("txn", "event", "subscription", "role", "version")}
        self.note("effect", jti, {**kept, "consents": [consent["id"] for consent in message["consents"]]})
        if self.acks and calls:
            self.city.spawn(self.acknowledge(jti))

    async def acknowledge(self, jti: str) -> None:
        for _ in range(240):
            answer = await self.city.portal(
                "POST", f"/api/v1/deliveries/{jti}/ack", token=self.token, body={}
            )
            if answer is not None:
                self.note("ack", jti, answer.get("state"))
                return
            await asyncio.sleep(0.5)
        self.note("ack gave up", jti)

    async def poll(self) -> None:
        """Fetch messages (RFC 8936), act on them, acknowledge them with the next poll; until told to stop."""
        done: list[str] = []
        while self.code in self.city.polls or done:
            body = {"maxEvents": 20, "returnImmediately": True, "ack": done}
            answer = await self.city.portal("POST", POLL, token=self.token, body=body)
            if answer is not None:
                for jti in done:
                    self.note("ack", jti, "poll")
                done = []
                for jti, compact in answer.get("sets", {}).items():
                    self.note("polled", jti)
                    self.act(await self.opened(compact), calls=False)
                    done.append(jti)
            if not done:
                await asyncio.sleep(0.5)


def carried(raw: bytes) -> list[str]:
    """The ids of the messages in a request that carries many."""
    body = json.loads(raw)
    return [one["data"]["jti"] for one in body["data"]["messages"]] if body["type"] == "batch" else []


def hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def drip(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "500"})
    await answer.prepare(request)
    for _ in range(120):
        await answer.write(b"x")
        await asyncio.sleep(1)
    return answer


class City:
    """All of them, and the one client with which they call the portal."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.issuer, self.webs, self.seed = told["issuer"], told["webs"], told["seed"]
        self.history = History(Path(told["journal"]))
        self.operators = {code: Operator(self, code, one) for code, one in told["parties"].items()}
        self.control_port = told["control"]
        self.tasks: set[asyncio.Task] = set()
        self.polls: set[str] = set()
        self.polling: list[asyncio.Future] = []
        self._turn = 0

    def spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def portal(
        self, method: str, path: str, *, token: str = "", body: object = None
    ) -> dict[str, Any] | None:
        """The JSON of a 200; None where nobody answers so. The web processes take turns."""
        self._turn += 1
        url = self.webs[self._turn % len(self.webs)] + path
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            async with self.calls.request(method, url, json=body, headers=headers) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None

    async def control(self, request: web.Request) -> web.Response:
        told = await request.json() if request.method == "POST" else {}
        if told:
            for code, mood in told.get("moods", {}).items():
                self.operators[code].mood = mood
            for code, secret in told.get("secrets", {}).items():
                self.operators[code].secrets = [secret, *self.operators[code].secrets][:SECRETS]
            if "polls" in told:
                fresh, self.polls = set(told["polls"]) - self.polls, set(told["polls"])
                self.polling = [asyncio.ensure_future(self.operators[code].poll()) for code in fresh]
        door = "door" in told and await self.door()
        return web.json_response({"acks_owed": len(self.tasks), "door": door})

    async def door(self) -> bool:
        """Whether the portal has a door to fetch messages at: it asks who is there."""
        try:
            async with self.calls.post(self.webs[0] + POLL, json={}) as answer:
                return answer.status in (400, 401, 403)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=4)
        ) as self.calls:
            for port, handler in [
                (self.control_port, self.control),
                *((one.port, one.hook) for one in self.operators.values()),
            ]:
                app = web.Application()
                app.router.add_route("*", "/{rest:.*}", handler)
                runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", port).start()
            await asyncio.Event().wait()


def main() -> None:
    told = json.loads(Path(sys.argv[1]).read_text())
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    asyncio.run(City(told).run())


if __name__ == "__main__":
    main()
