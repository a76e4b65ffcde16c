"""Our Korean wire and the pretend operator's Korean API, each written from the published contract, agree over real HTTP."""

import asyncio
import base64
import contextlib
import json
import time

import aiohttp
import pytest
from aiohttp import web
from joserfc.jwk import ECKey

from providers import outbound, signing
from providers.sandbox import server
from providers.wires import (
    ABSENT,
    ACTIVE,
    CHECK,
    KEY,
    REFUSED,
    RETRY,
    SENT,
    STOPPED,
    STOPPING,
    UNKNOWN,
    Endpoint,
    Message,
    Reference,
    korea,
)

OPERATOR, BANK, INSURER = "MDOPER0000", "A1BANK0000", "C1INSU0000"
PORTAL = "ZZPORT0000"
SUBJECT = "p_7Q2"
CI = base64.b64encode(SUBJECT.encode()).decode()


class World:
    """A pretend operator that holds two transfers and one third-party consent of a person, and the portal it reports to."""

    def __init__(self, folder, settings):
        self.folder, self.settings, self.results, self.portal_status = folder, settings, [], 200

    async def portal(self, request):
        if request.path == "/.well-known/openid-configuration":
            return web.json_response({"token_endpoint": f"{self.portal_url}/token"})
        if request.path == "/token":
            return web.json_response({"access_token": "of-the-portal", "expires_in": 600})
        assert request.path == "/mydata/consents/result"
        if self.portal_status == 200:
            self.results.append((dict(request.headers), await request.read()))
        return web.Response(status=self.portal_status)

    def write_config(self):
        key = ECKey.generate_key("P-256")
        rows = {
            code: {
                "is_operator": True, "client_id": f"client-{code}", "client_secret": f"secret-{code}",
                "secret": signing.new_webhook_secret(), "services": ["svc-0001"],
                "jwk": {**key.as_dict(private=True), "kid": key.thumbprint()},
            }
            for code in (OPERATOR, "MDOTHER000")
        }  # fmt: skip
        content = {"portal": self.portal_url, "organizations": rows}
        (self.folder / "sandbox.json").write_text(json.dumps(content))

    @contextlib.asynccontextmanager
    async def serving(self, app):
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    def sandbox(self):
        return server.application(
            port=8001,
            database=self.folder / "sandbox.sqlite3",
            config=self.folder / "sandbox.json",
            delays=(self.delay, 0.0),
        )

    def play(self, story, delay=0.0):
        self.delay = delay
        korea.forget_tokens()

        async def run():
            front = web.Application()
            front.router.add_route("*", "/{tail:.*}", self.portal)
            async with self.serving(front) as self.portal_url:
                self.write_config()
                async with (
                    self.serving(self.sandbox()) as self.address,
                    aiohttp.ClientSession() as self.client,
                ):
                    self.settings.SANDBOX_URL = self.address
                    await self.load()
                    await story()

        asyncio.run(run())

    async def load(self):
        def row(consent, kind, source, scopes, **more):
            return {
                "organization": OPERATOR, "subscription": "sub-1", "consent": consent, "subject": SUBJECT, "service": "svc-0001",
                "kind": kind, "source": source, "scopes": scopes, **more,
            }  # fmt: skip

        rows = [
            row("c-1", "transfer", BANK, ["bank.list", "bank.deposit"]),
            row("c-2", "transfer", INSURER, ["insu.list", "insu.insurance"]),
            row("c-3", "third_party", "가나다보험", ["bank.deposit"]),
            row("c-4", "use", "", []),
            {**row("c-9", "transfer", BANK, ["bank.list", "bank.loan"]), "subject": "p_other", "subscription": "sub-9"},
        ]  # fmt: skip
        await self.post("/_/holdings", data="\n".join(map(json.dumps, rows)))

    async def post(self, path, **kwargs):
        async with self.client.post(f"{self.address}{path}", **kwargs) as response:
            return response.status, await response.json()

    async def fault(self, fault, value=0):
        given = {"organization": OPERATOR, "fault": fault, "value": value}
        assert (await self.post("/_/faults", json=given))[0] == 200

    async def states(self):
        async with self.client.get(f"{self.address}/_/state", params={"subject": SUBJECT}) as response:
            return {row["consent"]: row["state"] for row in (await response.json())["holdings"]}

    def endpoint(self, secret=f"secret-{OPERATOR}", **more):
        details = {"org_code": OPERATOR, "portal_code": PORTAL, "client_id": f"client-{OPERATOR}", **more}
        return Endpoint(f"{self.address}/{OPERATOR}/kr", details=details, credential=secret)

    async def wire(self, call, **given):
        async with outbound.open_session() as session:
            given = {"endpoint": self.endpoint(), "now": int(time.time()), "total": 5, **given}
            return await call(session, **given)

    async def how(self):
        return await self.wire(korea.challenge, jti="j", state="s")

    async def send(self, message, **given):
        return await self.wire(korea.send, message=message, **given)

    async def says(self, message):
        return (await self.wire(korea.read_back, message=message)).says

    async def until(self, message, says):
        async with asyncio.timeout(10):
            while (found := await self.says(message)) != says:
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
def world(settings, tmp_path):
    return World(tmp_path, settings)


CONSENTS = {
    "c-1": {"id": "c-1", "kind": "transfer", "source": BANK},
    "c-2": {"id": "c-2", "kind": "transfer", "source": INSURER},
    "c-3": {"id": "c-3", "kind": "third_party", "source": None},
    "c-4": {"id": "c-4", "kind": "use", "source": None},
}


def stop(*names, event="consent-withdrawn", jti="jti-1", delete=False, references=None):
    consents = [CONSENTS[name] for name in names]
    data = {"service": "svc-0001", "consents": consents, "delete_data": delete}
    if references is None:
        references = [
            Reference("provision", name, name) if name == "c-3" else Reference("request", f"RO_{name}", name)
            for name in names
        ]
    body = json.dumps({"type": event, "data": data}).encode()
    return Message(jti, body, (Reference("ci", CI), *references))


PROVISION, TRANSFER = stop("c-3"), stop("c-1", jti="jti-2")


def whole(delete=False):
    return stop(
        *CONSENTS,
        event="subscription-ended",
        delete=delete,
        references=[Reference("request", "RO_sub-1"), Reference("provision", "c-3", "c-3")],
    )


def test_the_list_is_what_is_held(world):
    async def story():
        found = await world.wire(korea.list_remote, references=[Reference("ci", CI)])
        assert found.complete, found.detail
        assert [(one.identifier, one.state) for one in found.consents] == [
            (f"svc-0001:{BANK}", ACTIVE),
            (f"svc-0001:{INSURER}", ACTIVE),
            ("c-3", ACTIVE),
        ]
        assert found.consents[0].scopes == ("bank.list", "bank.deposit")
        assert found.consents[2].recipient == "가나다보험"
        stranger = [Reference("ci", base64.b64encode(b"nobody").decode())]
        found = await world.wire(korea.list_remote, references=stranger)
        assert found.complete and not found.consents
        found = await world.wire(
            korea.list_remote, references=[Reference("ci", CI)], endpoint=world.endpoint(version="v1")
        )
        assert found.complete and len(found.consents) == 2
        assert (await world.how()).verdict == SENT

    world.play(story)


def test_a_provision_goes_from_normal_over_revoking_to_revoked(world):
    async def story():
        assert await world.says(PROVISION) == ACTIVE
        outcome = await world.send(PROVISION)
        assert outcome.verdict == SENT, outcome
        assert await world.says(PROVISION) == STOPPING
        await world.until(PROVISION, STOPPED)
        reading = await world.wire(korea.read_back, message=PROVISION)
        assert abs(reading.at - time.time()) < 30
        assert await world.states() == {"c-1": "active", "c-2": "active", "c-3": "stopped", "c-4": "active"}
        # The same stop again is the same; another stop of it finds nothing to end.
        assert (await world.send(PROVISION)).verdict == SENT
        assert (await world.send(stop("c-3", jti="jti-9"))).verdict == CHECK
        assert world.results == []

    world.play(story, delay=0.6)


def test_a_transfer_ends_and_its_result_is_told(world):
    async def story():
        assert await world.says(TRANSFER) == ACTIVE
        outcome = await world.send(TRANSFER)
        assert outcome.verdict == SENT
        await world.until(TRANSFER, ABSENT)
        assert (await world.states())["c-1"] == "stopped"
        await told(world, 1)
        headers, body = world.results[0]
        found = korea.verify_inbound(headers, body, endpoint=world.endpoint(), ci_of={"RO_c-1": CI}.get)
        assert (found.identifier, found.result, found.reason) == ("RO_c-1", "00000", SENT)
        assert (await world.wire(korea.ask_again, message=TRANSFER)).says == STOPPING
        await told(world, 2)

    world.play(story)


async def told(world, count):
    async with asyncio.timeout(10):
        while len(world.results) < count:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("delete", [True, False])
def test_the_whole_subscription_ends(world, delete):
    async def story():
        message = whole(delete)
        assert (await world.send(message)).verdict == SENT
        async with asyncio.timeout(10):
            while await world.says(message) not in {STOPPED, ABSENT}:
                await asyncio.sleep(0.02)
        rest = "erased" if delete else "stopped"
        assert await world.states() == {"c-1": rest, "c-2": rest, "c-3": "stopped", "c-4": rest}

    world.play(story)


def test_a_liar_is_found(world):
    async def story():
        await world.fault("lies")
        for message in (PROVISION, TRANSFER):
            assert (await world.send(message)).verdict == SENT
            assert await world.says(message) == ACTIVE
        await told(world, 1)  # it even tells a result
        assert await world.says(whole()) == ACTIVE
        found = await world.wire(korea.list_remote, references=[Reference("ci", CI)])
        assert {one.state for one in found.consents} == {ACTIVE}

    world.play(story)


def test_a_silent_one_never_gets_there(world):
    async def story():
        await world.fault("silent")
        for message, says in ((PROVISION, STOPPING), (TRANSFER, ACTIVE)):
            assert (await world.send(message)).verdict == SENT
            await asyncio.sleep(0.2)
            assert await world.says(message) == says
        assert world.results == []

    world.play(story)


def test_what_rises_again_is_listed_again(world):
    async def story():
        await world.fault("resurrects", 0.5)
        for message, gone in ((PROVISION, STOPPED), (TRANSFER, ABSENT)):
            assert (await world.send(message)).verdict == SENT
            await world.until(message, gone)
            await world.until(message, ACTIVE)

    world.play(story)


def test_the_other_faults_are_answers(world):
    async def story():
        await world.fault("error", 1)
        assert (await world.send(PROVISION)).verdict == RETRY
        assert (await world.send(PROVISION)).verdict == SENT
        await world.fault("drop_after_effect", 1)
        assert (await world.send(TRANSFER)).verdict == RETRY
        await world.until(TRANSFER, ABSENT)
        assert (await world.send(TRANSFER)).verdict == SENT  # the same id: it knows it has it
        await world.fault("error")
        assert await world.says(TRANSFER) == UNKNOWN
        assert (await world.how()).detail == "they say: down"
        found = await world.wire(korea.list_remote, references=[Reference("ci", CI)])
        assert not found.complete
        await world.fault("drop_before")
        assert (await world.send(stop("c-2", jti="jti-5"))).verdict == RETRY
        await world.fault("slow", 2)
        assert (await world.send(stop("c-2", jti="jti-5"), total=0.5)).verdict == RETRY

    world.play(story)


def test_when_data_last_flowed_to_the_third_party(world):
    async def story():
        now = int(time.time())

        async def flowed(number="c-3", days=100):
            given = {"number": number, "from_at": now - days * 86_400, "to_at": now + 60, "limit": 5}
            return await world.wire(korea.provisions, **given)

        found = await flowed()
        assert found.complete and 14 <= len(found.rows) <= 15, found.detail
        assert 0 <= now - found.last_at < 7 * 86_400 + 60 and found.rows[0].recipient == "가나다보험"
        assert (await flowed(days=6)).complete
        unknown = await flowed("c-1")
        assert not unknown.complete and "40402" in unknown.detail

    world.play(story)


def test_strangers_and_strange_things(world):
    async def story():
        assert (await world.send(PROVISION, endpoint=world.endpoint(secret="wrong"))).verdict == KEY
        foreign = stop("c-1", references=[Reference("request", "RO_c-9", "c-1")])
        assert (await world.send(foreign)).verdict == CHECK  # another person's: 40403
        nothing = stop("c-3", references=[Reference("provision", "c-77", "c-3")])
        assert (await world.send(nothing)).verdict == CHECK
        other = world.endpoint(org_code="MDOTHER000")
        assert (await world.send(PROVISION, endpoint=other)).verdict == REFUSED  # 40303
        assert set((await world.states()).values()) == {"active"}

    world.play(story)


def test_the_pretend_side_is_strict_as_well(world):
    async def story():
        base, tran = f"/{OPERATOR}/kr", "Z" * 25
        form = {
            "grant_type": "client_credentials", "scope": "manage", "client_id": f"client-{OPERATOR}",
            "client_secret": f"secret-{OPERATOR}",
        }  # fmt: skip
        status, granted = await world.post(
            f"{base}/mgmts/oauth/2.0/token", data=form, headers={"x-api-tran-id": tran}
        )
        assert status == 200
        sign = {"Authorization": f"Bearer {granted['access_token']}", "x-api-tran-id": tran}
        ask = {"org_code": OPERATOR, "user_ci": CI}
        for path, given, headers, code in [
            ("/v2/mgmts/consents", ask, sign, "00000"),
            ("/v2/mgmts/consents", ask, {"x-api-tran-id": tran}, "40101"),
            ("/v2/mgmts/consents", ask, {**sign, "Authorization": "Bearer x"}, "40101"),
            ("/v2/mgmts/consents", ask, {"Authorization": sign["Authorization"]}, "40002"),
            ("/v2/mgmts/consents", {"org_code": OPERATOR}, sign, "40001"),
            ("/v2/mgmts/consents", [], sign, "40001"),
            ("/v2/mgmts/consents", {**ask, "user_ci": 7}, sign, "40001"),
            ("/v2/mgmts/consents", {**ask, "org_code": "MDOTHER000"}, sign, "40303"),
            ("/consents/revoke", {"tx_id": "RO_c-1", "user_ci": CI}, sign, "40001"),
            ("/consents/revoke", {"tx_id": "RO_c-1", "user_ci": CI, "is_delete": "true"}, sign, "40001"),
            ("/consents/req-result", {"type": "02", "tx_id": "RO_c-8", "user_ci": CI}, sign, "40403"),
        ]:
            _, answer = await world.post(f"{base}{path}", json=given, headers=headers)
            assert answer["rsp_code"] == code, (path, given)
        _, answer = await world.post("/MDOTHER000/kr/v2/mgmts/consents", json=ask, headers=sign)
        assert answer["rsp_code"] == "40101"

    world.play(story)


def test_a_result_waits_for_a_portal_that_is_down(world):
    async def story():
        world.portal_status = 503
        assert (await world.send(TRANSFER)).verdict == SENT
        await world.until(TRANSFER, ABSENT)
        await asyncio.sleep(0.1)
        assert world.results == []
        world.portal_status = 200
        await told(world, 1)

    world.play(story)
