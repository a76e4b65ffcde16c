"""The pretend operators do what a real one must, and each fault is what it says: all over real HTTP."""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import os
import socket
import time
import uuid

import aiohttp
import jwt
import pytest
from aiohttp import web
from django.core.management import CommandError, call_command
from joserfc.jwk import ECKey

from providers import outbound, signing
from providers.sandbox import portal as portal_client
from providers.sandbox import server
from providers.wires import KEY, RECEIVED, REFUSED, RETRY, SENT, Endpoint, Message, native

OPERATOR, SOURCE, RECIPIENT = "MD0001", "BK0001", "AD0001"


class FakePortal:
    """What the portal answers, and what it was told."""

    def __init__(self):
        self.acks, self.evidence, self.tokens, self.jwks_asked = [], [], [], 0
        self.fail, self.jwks = [], None
        self.address = ""

    async def answer(self, request):
        if request.path == "/.well-known/jwks.json":
            self.jwks_asked += 1
            return web.json_response(self.jwks or signing.public_jwks())
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"token_endpoint": f"{self.address}/identity/o/api/token"})
        if request.path == "/identity/o/api/token":
            form = dict(await request.post())
            self.tokens.append(form)
            return web.json_response({"access_token": f"token-{len(self.tokens)}", "expires_in": 600})
        if self.fail:
            status = self.fail.pop(0)
            return web.Response(status=status)
        assert request.headers["Authorization"] == f"Bearer token-{len(self.tokens)}"
        if request.path == "/api/v1/evidence":
            assert request.content_type == "application/jwt"
            self.evidence.append(await request.text())
            return web.Response(status=201)
        self.acks.append(request.path)
        return web.json_response({})

    def statements(self):
        return [jwt.decode(text, options={"verify_signature": False}) for text in self.evidence]


class World:
    """A portal and a sandbox that know each other, and the portal's pen."""

    def __init__(self, folder, settings):
        self.folder, self.settings = folder, settings
        self.portal = FakePortal()
        self.secrets = {code: signing.new_webhook_secret() for code in (OPERATOR, SOURCE, RECIPIENT)}
        self.keys = {code: ECKey.generate_key("P-256") for code in self.secrets}

    def write_config(self, **more):
        organizations = {
            code: {
                "name_ko": f"{code} <은행>",
                "name_en": f"{code} & Co",
                "is_operator": code == OPERATOR,
                "client_id": f"client-{code}",
                "client_secret": f"secret-{code}",
                "secret": self.secrets[code],
                "jwk": {**self.keys[code].as_dict(private=True), "kid": self.keys[code].thumbprint()},
            }
            for code in self.secrets
        }
        content = {"portal": self.portal.address, "organizations": organizations, **more}
        (self.folder / "sandbox.json").write_text(json.dumps(content))

    def jwks(self, code):
        return {"keys": [{**self.keys[code].as_dict(private=False), "kid": self.keys[code].thumbprint()}]}

    def message(
        self, kind, *, to=OPERATOR, version=2, jti=None, delete_data=False, consents=None, lie=None, **changes
    ):
        jti = jti or str(uuid.uuid4())
        fields = {
            "txn": str(uuid.uuid4()),
            "jti": jti,
            "subscription": "s-1",
            "subject": "p_1",
            "service": "svc-1",
            "consents": [consent()] if consents is None else consents,
            "reason": "person_left",
            "delete_data": delete_data,
            "effective_at": "2026-11-22T03:10:00Z",
            "complete_by": "2026-11-29T03:10:00Z",
            "version": version,
        }
        claims = {
            "iss": self.portal.address,
            "aud": to,
            "iat": int(time.time()),
            "jti": jti,
            "txn": fields["txn"],
            "sub_id": {"format": "opaque", "id": "p_1"},
            "events": {
                f"{self.portal.address}/secevent/{kind}": fields | {"leaf": {"log": "x", "hash": "y"}}
            },
            **changes,
        }
        data = fields | (lie or {}) | {"set": signing.sign_set(claims)}
        body = {"type": kind, "timestamp": "2026-11-22T03:10:00Z", "data": data}
        return Message(jti, json.dumps(body, ensure_ascii=False).encode())

    async def send(self, message, to=OPERATOR, secret=None, now=None):
        endpoint = Endpoint(
            f"{self.address}/{to}/hooks/consent", [signing.webhook_secret(secret or self.secrets[to])]
        )
        async with outbound.open_session() as session:
            return await native.send(
                session, message=message, endpoint=endpoint, now=now or int(time.time()), total=5
            )

    async def get(self, path, **params):
        async with self.client.get(f"{self.address}{path}", params=params) as response:
            return await response.json() if "json" in response.content_type else await response.text()

    async def post(self, path, **kwargs):
        async with self.client.post(f"{self.address}{path}", allow_redirects=False, **kwargs) as response:
            return response.status, await response.text()

    async def fault(self, fault, value=0, organization=OPERATOR):
        status, _ = await self.post(
            "/_/faults", json={"organization": organization, "fault": fault, "value": value}
        )
        assert status == 200

    async def holdings(self, **params):
        rows = (await self.get("/_/state", **params))["holdings"]
        return {row["consent"]: (row["state"], row["data_present"]) for row in rows}

    async def settled(self, duties=0):
        """Wait until the sandbox owes the portal nothing any more."""
        async with asyncio.timeout(10):
            while (await self.get("/_/effects"))["totals"]["duties_open"] > duties:
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def sandbox(self):
        runner = None
        app = server.application(
            port=8001,
            database=self.folder / "sandbox.sqlite3",
            config=self.folder / "sandbox.json",
            mail=self.folder / "mail",
            delays=(0.0, 0.0),
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.settings.SANDBOX_URL = self.address
        try:
            async with aiohttp.ClientSession() as self.client:
                yield
        finally:
            await runner.cleanup()


def consent(number=1, kind="transfer", source=SOURCE, scopes=("bank.list",)):
    return {
        "id": f"c-{number}",
        "kind": kind,
        "source": source,
        "scopes": list(scopes),
        "riders": [],
        "until": "2027-11-22",
    }


@pytest.fixture
def world(settings, tmp_path):
    return World(tmp_path, settings)


def play(world, story):
    """Run a story with both servers up."""

    async def run():
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", world.portal.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        world.portal.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        world.write_config()
        try:
            async with world.sandbox():
                await story()
        finally:
            await runner.cleanup()

    asyncio.run(run())


def test_a_grant_then_an_end_with_erasure(world):
    async def story():
        two = [consent(1), consent(2, kind="use", source=None)]
        assert (await world.send(world.message("consent-granted", version=1, consents=two))).verdict == SENT
        assert await world.holdings() == {"c-1": ("active", True), "c-2": ("active", True)}
        await world.settled()
        assert len(world.portal.acks) == 1 and world.portal.evidence == []

        end = world.message("subscription-ended", version=2, delete_data=True, consents=two)
        assert (await world.send(end)).verdict == SENT
        assert await world.holdings() == {"c-1": ("erased", False), "c-2": ("erased", False)}
        assert (await world.get("/_/state", subject="p_1"))["holdings"][0]["scopes"] == []
        await world.settled()
        assert world.portal.acks[1] == f"/api/v1/deliveries/{end.jti}/ack"
        assert [statement["status"] for statement in world.portal.statements()] == ["stopped", "erased"]
        for text in world.portal.evidence:
            claims = signing.verify_jws(
                text,
                jwks=world.jwks(OPERATOR),
                typ="deletion-evidence+jwt",
                issuer=OPERATOR,
                audience=world.portal.address,
                now=int(time.time()),
            )
            assert (
                claims["delivery"] == end.jti
                and claims["consents"] == ["c-1", "c-2"]
                and claims["version"] == 2
            )
            assert claims["subscription"] == "s-1" and abs(claims["completed_at"] - time.time()) < 60
            path = claims["report"]["url"].removeprefix("http://127.0.0.1:8001")
            async with world.client.get(world.address + path) as response:
                assert hashlib.sha256(await response.read()).hexdigest() == claims["report"]["sha256"]
        assert world.portal.statements()[1]["method"] == "deleted"
        assert world.portal.tokens == [
            {
                "grant_type": "client_credentials",
                "scope": "deliveries:ack",
                "client_id": f"client-{OPERATOR}",
                "client_secret": f"secret-{OPERATOR}",
            }
        ]

    play(world, story)


def test_a_message_that_comes_twice_has_one_effect(world):
    async def story():
        grant = world.message("consent-granted", version=1)
        for _ in range(3):
            assert (await world.send(grant)).verdict == SENT
        end = world.message("subscription-ended", delete_data=True)
        outcomes = await asyncio.gather(*(world.send(end) for _ in range(5)))
        assert {outcome.verdict for outcome in outcomes} == {SENT}
        told = {
            row["jti"]: (row["arrivals"], row["effects"])
            for row in (await world.get("/_/effects"))["effects"]
        }
        assert told == {grant.jti: (3, 1), end.jti: (5, 1)}
        await world.settled()
        assert len(world.portal.acks) == 2 and len(world.portal.evidence) == 2

    play(world, story)


def test_many_in_one_request_are_each_checked_and_named_in_the_answer(world):
    async def story():
        good, other = (
            world.message("consent-granted", version=1),
            world.message("consent-granted", version=1, to=SOURCE),
        )
        end = world.message("subscription-ended", version=2, delete_data=True)
        endpoint = Endpoint(
            f"{world.address}/{OPERATOR}/hooks/consent", [signing.webhook_secret(world.secrets[OPERATOR])]
        )
        async with outbound.open_session() as session:
            outcomes = await native.send_together(
                session, messages=[good, other, end], endpoint=endpoint, now=int(time.time()), total=5
            )
        assert [outcomes[one.jti].verdict for one in (good, other, end)] == [RECEIVED, REFUSED, RECEIVED]
        assert await world.holdings() == {"c-1": ("erased", False)}
        await world.settled()
        assert world.portal.acks == [], "the answer has named them"
        assert [statement["status"] for statement in world.portal.statements()] == ["stopped", "erased"]

    play(world, story)


def test_withdrawing_one_consent_leaves_the_others_and_the_data(world):
    async def story():
        await world.send(world.message("consent-granted", version=1, consents=[consent(1), consent(2)]))
        await world.send(world.message("consent-withdrawn", version=2, consents=[consent(1)]))
        assert await world.holdings() == {"c-1": ("stopped", True), "c-2": ("active", True)}
        await world.settled()
        assert [s["status"] for s in world.portal.statements()] == ["stopped"]
        await world.send(
            world.message("erasure-requested", version=3, consents=[consent(1)], delete_data=True)
        )
        assert await world.holdings() == {"c-1": ("erased", False), "c-2": ("active", True)}
        await world.settled()
        assert [s["status"] for s in world.portal.statements()] == ["stopped", "erased"]

    play(world, story)


def test_nothing_revives_what_has_stopped(world):
    async def story():
        await world.send(world.message("consent-granted", version=1, consents=[consent(1), consent(2)]))
        await world.send(world.message("consent-withdrawn", version=5, consents=[consent(1)]))
        for kind, version in [
            ("consent-granted", 4),
            ("consent-granted", 6),
            ("consent-resumed", 7),
            ("consent-amended", 8),
        ]:
            assert (
                await world.send(world.message(kind, version=version, consents=[consent(1)]))
            ).verdict == SENT
        assert (await world.holdings())["c-1"] == ("stopped", True)
        await world.send(world.message("subscription-ended", version=9, consents=[]))
        late = world.message("consent-granted", version=8, consents=[consent(3)])
        assert (await world.send(late)).verdict == SENT
        assert await world.holdings() == {"c-1": ("stopped", True), "c-2": ("stopped", True)}

    play(world, story)


def test_a_withdrawal_that_overtakes_its_grant_wins(world):
    async def story():
        await world.send(world.message("consent-withdrawn", version=2))
        await world.send(world.message("consent-granted", version=1))
        assert await world.holdings() == {"c-1": ("stopped", False)}

    play(world, story)


def test_pause_amend_and_resume_follow_the_version(world):
    async def story():
        await world.send(world.message("consent-granted", version=1))
        await world.send(world.message("consent-paused", version=3))
        assert (await world.holdings())["c-1"][0] == "paused"
        await world.send(world.message("consent-resumed", version=2))
        assert (await world.holdings())["c-1"][0] == "paused"
        await world.send(
            world.message("consent-amended", version=4, consents=[consent(scopes=["card.list"])])
        )
        row = (await world.get("/_/state"))["holdings"][0]
        assert row["scopes"] == ["card.list"] and row["state"] == "paused"
        await world.send(world.message("consent-resumed", version=5))
        assert (await world.holdings())["c-1"][0] == "active"

    play(world, story)


def test_a_source_stops_sending_and_keeps_its_own_data(world):
    async def story():
        await world.send(world.message("consent-granted", to=SOURCE, version=1), SOURCE)
        await world.send(world.message("subscription-ended", to=SOURCE, delete_data=True), SOURCE)
        assert await world.holdings(organization=SOURCE) == {"c-1": ("stopped", True)}
        await world.settled()
        assert [s["status"] for s in world.portal.statements()] == ["stopped"]

    play(world, story)


def test_a_third_party_erases_what_it_was_given(world):
    async def story():
        third = [consent(1, kind="third_party", source=None)]
        await world.send(world.message("consent-granted", to=RECIPIENT, version=1, consents=third), RECIPIENT)
        await world.send(
            world.message("consent-withdrawn", to=RECIPIENT, consents=third, delete_data=True), RECIPIENT
        )
        assert await world.holdings(organization=RECIPIENT) == {"c-1": ("erased", False)}
        await world.settled()
        assert [s["status"] for s in world.portal.statements()] == ["stopped", "erased"]

    play(world, story)


def test_what_is_not_right_is_refused_and_changes_nothing(world):
    async def story():
        await world.send(world.message("consent-granted", version=1))
        before = await world.get("/_/state")
        end = world.message("subscription-ended")
        other = signing.new_webhook_secret()
        late = int(time.time()) - 360
        elsewhere = {f"{world.portal.address}/secevent/consent-paused": {}}
        cases = [
            (KEY, "authentication_failed", await world.send(end, secret=other)),
            (KEY, "authentication_failed", await world.send(end, now=late)),
            (REFUSED, "invalid_audience", await world.send(world.message("subscription-ended", to="MD0002"))),
            (
                REFUSED,
                "invalid_issuer",
                await world.send(world.message("subscription-ended", iss="https://evil.example")),
            ),
            (
                REFUSED,
                "invalid_request",
                await world.send(world.message("subscription-ended", iat=int(time.time()) + 600)),
            ),
            (
                REFUSED,
                "invalid_request",
                await world.send(world.message("subscription-ended", lie={"delete_data": True})),
            ),
            (
                REFUSED,
                "invalid_request",
                await world.send(world.message("subscription-ended", lie={"more": 1})),
            ),
            (
                REFUSED,
                "invalid_request",
                await world.send(world.message("subscription-ended", events=elsewhere)),
            ),
            (REFUSED, "invalid_request", await world.send(Message(str(uuid.uuid4()), end.body))),
            (REFUSED, "invalid_request", await world.send(world.message("subscription-ended", version="2"))),
            (REFUSED, "invalid_request", await world.send(world.message("subscription-ended", consents=[5]))),
            (REFUSED, "invalid_request", await world.send(Message("m-1", b"[]"))),
            (REFUSED, "invalid_request", await world.send(Message("m-2", b'{"type":"a","type":"b"}'))),
            (REFUSED, "", await world.send(end, to=OPERATOR.lower(), secret=world.secrets[OPERATOR])),
        ]
        for verdict, err, outcome in cases:
            assert (outcome.verdict, err in outcome.detail) == (verdict, True), (err, outcome)
        assert await world.get("/_/state") == before
        status, _ = await world.post(f"/{OPERATOR}/hooks/consent", data=b"x" * 70_000)
        assert status == 413

    play(world, story)


def test_the_sets_own_age_does_not_matter(world):
    """A retry after three days is legitimate: only the attempt must be fresh."""

    async def story():
        old = world.message("consent-granted", iat=int(time.time()) - 3 * 86_400)
        assert (await world.send(old)).verdict == SENT

    play(world, story)


def test_an_unknown_key_is_looked_for_once_a_minute(world, monkeypatch):
    async def story():
        await world.send(world.message("consent-granted"))
        assert world.portal.jwks_asked == 1
        strange = world.message("consent-paused")
        world.portal.jwks = {"keys": []}
        (world.settings.PORTAL_KEYS_DIR / "set.pem").unlink()
        signing.key_file.__globals__["_key_file"].cache_clear()
        strange = world.message("consent-paused")
        world.portal.jwks = signing.public_jwks()
        assert (await world.send(strange)).verdict == KEY
        assert world.portal.jwks_asked == 1
        monkeypatch.setattr(portal_client, "JWKS_REFETCH", 0)
        assert (await world.send(strange)).verdict == SENT
        assert world.portal.jwks_asked == 2

    play(world, story)


def test_without_the_portals_keys_the_message_may_come_again(world):
    async def story():
        address, world.portal.address = world.portal.address, "http://127.0.0.1:1"
        world.write_config()
        outcome = await world.send(world.message("consent-granted"))
        assert (outcome.verdict, outcome.status, outcome.retry_after) == (RETRY, 503, 5)
        world.portal.address = address

    play(world, story)


def test_a_challenge_gets_its_state_back(world):
    async def story():
        endpoint = Endpoint(
            f"{world.address}/{OPERATOR}/hooks/consent", [signing.webhook_secret(world.secrets[OPERATOR])]
        )
        async with outbound.open_session() as session:
            outcome = await native.challenge(
                session, jti="v-1", state="random", endpoint=endpoint, now=int(time.time())
            )
        assert outcome.verdict == SENT
        assert (await world.get("/_/effects"))["totals"]["messages"] == 0

    play(world, story)


# The duty to answer


def test_a_portal_that_is_down_is_told_later_with_the_same_bytes(world, monkeypatch):
    monkeypatch.setattr("providers.sandbox.duties.LONGEST_PAUSE", 0.05)

    async def story():
        world.portal.fail = [503, 500, 429, 401, 404]
        await world.send(world.message("consent-withdrawn"))
        await world.settled()
        assert world.portal.fail == [] and len(world.portal.acks) == 1
        assert len(world.portal.tokens) == 2  # a refused token was asked for anew
        world.portal.fail = [200, 500, 409]
        await world.send(world.message("consent-withdrawn", version=3, consents=[consent(2)]))
        await world.settled()
        totals = (await world.get("/_/effects"))["totals"]
        assert world.portal.fail == [] and totals["duties_refused"] == 0

    play(world, story)


def test_an_answer_that_is_wrong_for_good_is_not_repeated(world):
    async def story():
        world.portal.fail = [422]
        await world.send(world.message("consent-granted"))
        await world.settled()
        assert (await world.get("/_/effects"))["totals"]["duties_refused"] == 1 and world.portal.acks == []

    play(world, story)


def test_what_is_owed_survives_a_restart(world, monkeypatch):
    async def story():
        world.portal.fail = [503] * 1000
        await world.send(world.message("subscription-ended", delete_data=True))
        await asyncio.sleep(0.1)
        assert (await world.get("/_/effects"))["totals"]["duties_open"] == 3
        await world.fault("silent")

    async def after():
        world.portal.fail = []
        assert (await world.get("/_/effects"))["totals"]["messages"] == 1
        await world.settled()
        assert [s["status"] for s in world.portal.statements()] == ["stopped", "erased"]
        page = await world.get("/")
        assert 'value="silent" selected' in page

    monkeypatch.setattr("providers.sandbox.duties.LONGEST_PAUSE", 0.05)
    play(world, story)
    play(world, after)


# Faults


def test_error_answers_500_so_many_times(world):
    async def story():
        await world.fault("error", 2)
        message = world.message("consent-granted")
        assert [(await world.send(message)).verdict for _ in range(3)] == [RETRY, RETRY, SENT]
        assert (await world.get("/_/effects"))["effects"][0]["arrivals"] == 1
        await world.fault("error")
        assert [(await world.send(message)).status for _ in range(3)] == [500, 500, 500]
        await world.fault("none")
        assert (await world.send(message)).verdict == SENT

    play(world, story)


def test_slow_answers_late(world):
    async def story():
        await world.fault("slow", 0.4)
        began = time.monotonic()
        assert (await world.send(world.message("consent-granted"))).verdict == SENT
        assert 0.4 <= time.monotonic() - began < 2

    play(world, story)


def test_drop_before_does_nothing(world):
    async def story():
        await world.fault("drop_before", 1)
        message = world.message("consent-granted")
        assert (await world.send(message)).verdict == RETRY
        assert (await world.get("/_/effects"))["effects"] == []
        assert (await world.send(message)).verdict == SENT

    play(world, story)


def test_drop_after_effect_acts_once_and_answers_the_second_time(world):
    async def story():
        await world.send(world.message("consent-granted", version=1))
        await world.settled()
        await world.fault("drop_after_effect", 1)
        end = world.message("subscription-ended", delete_data=True)
        assert (await world.send(end)).verdict == RETRY
        assert await world.holdings() == {"c-1": ("erased", False)}
        await asyncio.sleep(0.1)
        assert len(world.portal.acks) == 1 and world.portal.evidence == []
        assert (await world.send(end)).verdict == SENT
        await world.settled()
        told = (await world.get("/_/effects", jti=end.jti))["effects"]
        assert [(row["arrivals"], row["effects"]) for row in told] == [(2, 1)]
        assert len(world.portal.acks) == 2 and len(world.portal.evidence) == 2

    play(world, story)


def test_silent_acts_and_says_nothing(world):
    async def story():
        await world.fault("silent")
        assert (await world.send(world.message("subscription-ended", delete_data=True))).verdict == SENT
        await asyncio.sleep(0.1)
        assert world.portal.acks == [] and (await world.get("/_/effects"))["totals"]["duties_open"] == 0

    play(world, story)


def test_lies_signs_and_keeps_the_data(world):
    async def story():
        await world.send(world.message("consent-granted", version=1))
        await world.fault("lies")
        await world.send(world.message("subscription-ended", delete_data=True))
        await world.settled()
        assert [s["status"] for s in world.portal.statements()] == ["stopped", "erased"]
        assert await world.holdings() == {"c-1": ("active", True)}

    play(world, story)


def test_resurrects_erases_and_is_back(world):
    async def story():
        await world.send(world.message("consent-granted", version=1))
        await world.fault("resurrects", 0.3)
        await world.send(world.message("subscription-ended", delete_data=True))
        assert await world.holdings() == {"c-1": ("erased", False)}
        await world.settled()
        assert await world.holdings() == {"c-1": ("active", True)}
        assert (await world.get("/_/state"))["holdings"][0]["scopes"] == ["bank.list"]

    play(world, story)


@pytest.mark.parametrize(
    "given",
    [
        {"organization": "XX", "fault": "slow"},
        {"organization": OPERATOR, "fault": "other"},
        {"organization": OPERATOR, "fault": "slow", "value": -1},
        {"organization": OPERATOR, "fault": "slow", "value": "nan"},
        {"organization": OPERATOR, "fault": "slow", "value": 1e9},
        {"organization": OPERATOR},
        [],
    ],
)
def test_a_fault_that_means_nothing_is_refused(world, given):
    async def story():
        status, _ = await world.post("/_/faults", json=given)
        assert status == 400 and "selected" not in (await world.get("/")).replace('value="none" selected', "")

    play(world, story)


# Control, pages, mailbox


def test_holdings_are_loaded_in_bulk(world):
    async def story():
        rows = [
            {
                "organization": OPERATOR,
                "subscription": f"s-{n}",
                "consent": f"c-{n}",
                "subject": f"p_{n % 100}",
            }
            | {"service": "svc-1", "kind": "transfer", "source": SOURCE, "scopes": "bank.list bank.deposit"}
            for n in range(12_000)
        ]
        lines = "\n".join(map(json.dumps, rows))
        for _ in range(2):
            status, text = await world.post("/_/holdings", data=io.BytesIO(lines.encode()))
            assert (status, json.loads(text)) == (200, {"loaded": 12_000})
        found = (await world.get("/_/state", organization=OPERATOR, subject="p_7"))["holdings"]
        assert (
            len(found) == 120
            and found[0]["scopes"] == ["bank.list", "bank.deposit"]
            and found[0]["data_present"]
        )
        assert (await world.get("/_/state", limit=10))["truncated"]
        for bad in (
            "nonsense",
            "[]",
            '{"organization":"x"}',
            json.dumps(rows[0] | {"state": "sold"}),
            "x" * 200_000,
        ):
            status, text = await world.post("/_/holdings", data=bad)
            assert status == 400 and "error" in json.loads(text)
        assert (await world.post("/_/reset"))[0] == 200
        assert (await world.get("/_/state"))["holdings"] == []

    play(world, story)


def test_the_page_shows_each_organization_escaped_and_switches_faults(world):
    async def story():
        await world.send(world.message("consent-granted", version=1, consents=[consent(n) for n in range(7)]))
        page = await world.get("/")
        assert "MD0001 &lt;은행&gt;" in page and "MD0001 &amp; Co" in page and "<은행>" not in page
        assert '<td class="number">7</td>' in page and "consent-granted" in page and "<script" not in page
        form = {"organization": OPERATOR, "fault": "error", "value": "3"}
        async with world.client.post(
            f"{world.address}/_/faults", data=form, headers={"Origin": world.address}, allow_redirects=False
        ) as response:
            assert (response.status, response.headers["Location"]) == (303, "/")
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        page = await world.get("/")
        assert 'value="error" selected' in page and 'value="3"' in page

    play(world, story)


def test_another_site_can_neither_read_nor_switch(world):
    async def story():
        form = {"organization": OPERATOR, "fault": "error"}
        port = world.address.rpartition(":")[2]
        refused = [
            ("GET", "/", {"Host": "evil.example"}),
            ("GET", "/_/state", {"Host": f"evil.example:{port}"}),
            ("GET", "/mail/", {"Host": "127.0.0.1.evil.example"}),
            ("GET", "/mail/", {"Host": "[::1"}),
            ("POST", "/_/faults", {"Origin": "https://evil.example"}),
            ("POST", "/_/faults", {"Origin": "null"}),
            ("POST", "/_/reset", {"Sec-Fetch-Site": "cross-site"}),
            ("POST", "/_/reset", {"Sec-Fetch-Site": "same-site"}),
            ("POST", f"/{OPERATOR}/hooks/consent", {"Origin": "http://127.0.0.1:1"}),
        ]
        for method, path, headers in refused:
            async with world.client.request(
                method, world.address + path, data=form, headers=headers
            ) as response:
                assert response.status == 403, (method, path, headers)
        async with world.client.get(world.address, headers={"Host": f"localhost:{port}"}) as response:
            assert response.status == 200 and response.headers["X-Content-Type-Options"] == "nosniff"
        async with world.client.get(f"{world.address}/nothing/here") as response:
            assert (
                response.status == 404
                and "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
            )

    play(world, story)


def letter(subject, text, to="kim@example.kr"):
    encoded = base64.b64encode(text.encode()).decode()
    subject = f"=?utf-8?b?{base64.b64encode(subject.encode()).decode()}?="
    return (
        f'Content-Type: text/plain; charset="utf-8"\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n'
        f"Subject: {subject}\nFrom: a@b.kr\nTo: {to}\nDate: Sun, 22 Nov 2026 03:10:00 -0000\n\n{encoded}\n{'-' * 79}\n"
    )


def test_the_mailbox_shows_letters_newest_first_and_escaped(world, tmp_path):
    async def story():
        assert "아직 온 편지가 없어요" in await world.get("/mail/")
        box = tmp_path / "mail"
        box.mkdir()
        portal = world.portal.address
        text = f"번호예요\n\n  ABC-DEF\n\n{portal}/me/?a=1&b=2 <b>http://evil.example/</b> {portal}.evil.example/"
        for n in range(25):
            path = box / f"{n:02}.log"
            path.write_text(letter(f"편지 {n} <x>", text) + letter(f"둘째 {n}", "다른 글"))
            stamp = 1_700_000_000 + n
            os.utime(path, (stamp, stamp))
        (box / "note.txt").write_text(letter("secret", "secret"))
        (box / "link.log").symlink_to("/etc/passwd")
        (box / "broken.eml").write_bytes(b"\xff\x00Content-Type: multipart/x; charset=nope\n\n\xff<script>")
        page = await world.get("/mail/")
        assert page.index("둘째 24") < page.index("편지 24 &lt;x&gt;") < page.index("편지 23")
        assert '<span class="code">ABC-DEF</span>' in page and "<script" not in page and "root:" not in page
        assert f'<a href="{portal}/me/?a=1&amp;b=2">' in page and 'href="http://evil' not in page
        assert f'href="{portal}.evil' not in page and "&lt;b&gt;" in page
        assert "편지 0 " not in page and "편지 0 " in await world.get("/mail/", page=2)
        assert "secret" not in page
        for number in ("0", "-1", "99999999", "x", "²"):
            assert "편지함" in await world.get("/mail/", page=number)

    play(world, story)


def test_the_list_of_organizations_may_come_later_and_change(world, settings, tmp_path):
    async def story():
        (tmp_path / "sandbox.json").unlink()
        async with world.sandbox():
            assert (await world.send(world.message("consent-granted"))).status == 404
            (tmp_path / "sandbox.json").write_text('{"portal": ')
            assert "아직 회사·기관이 없어요" in await world.get("/")
            world.write_config()
            assert (await world.send(world.message("consent-granted"))).verdict == SENT

    play(world, story)


def test_two_hundred_messages_a_second(world):
    """Not a benchmark, a floor: also while a large load runs and the page is looked at."""

    async def story():
        messages = [
            world.message("consent-granted", version=1, consents=[consent(n)], jti=str(uuid.uuid4()))
            for n in range(300)
        ]
        url, secret = (
            f"{world.address}/{OPERATOR}/hooks/consent",
            signing.webhook_secret(world.secrets[OPERATOR]),
        )
        places = asyncio.Semaphore(32)

        async def push(message):
            headers = signing.webhook_headers(
                message_id=message.jti, timestamp=int(time.time()), body=message.body, secrets=[secret]
            )
            async with places, world.client.post(url, data=message.body, headers=headers) as response:
                assert response.status == 200

        began = time.monotonic()
        await asyncio.gather(*map(push, messages), world.get("/"))
        spent = time.monotonic() - began
        assert spent < 5, f"{spent:.2f} s for {len(messages)} messages"

    play(world, story)


def test_the_command_says_what_is_wrong():
    with pytest.raises(CommandError, match="port"):
        call_command("sandbox", port=70_000)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(CommandError, match="cannot be used"):
            call_command("sandbox", port=taken.getsockname()[1])
