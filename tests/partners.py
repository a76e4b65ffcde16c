"""The other side, for real: the sandbox's own server on loopback, connected to organizations of the test.

`partners` is a fixture (journeys, browser tests and faults use it). Nothing between the portal and the sandbox is
replaced: messages go out through `providers.outbound`, the sandbox checks their signatures against the portal's keys,
and answers with its own tokens and signed evidence to pytest-django's `live_server`.

    def test_a_person_leaves(partners, person):
        service = factories.offered()
        partners.connect(service.organization)          # channel, webhook secret, evidence key, OAuth2 client
        subscription = factories.joined(person, service)
        partners.settle()                               # delivers, and waits until nobody owes an answer
        partners.held(subscription=subscription.pk)     # what the other side says it holds

`partners.fault(organization, "silent")` switches a fault (names: providers/sandbox/faults.py). `partners.deliver()` is
one run of the delivery job; `partners.effects(jti=…)` counts arrivals and effects; `partners.environment()` is what a
worker of another process needs to work on this test's database with these partners.
"""

import asyncio
import datetime
import json
import os
import secrets
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from allauth.idp.oidc.models import Token
from django.core.cache import cache
from django.db import connection
from django.utils import timezone
from joserfc.jwk import ECKey

from consents import oauth, propagation
from consents.models import Delivery
from providers import registry, signing
from providers.models import Organization
from providers.sandbox.server import application
from tests.factories import PUBLISHED_AT

PROMPT = (0.0, 0.0)  # seconds until a well-behaved partner proves `stopped` and `erased`


class SandboxServer:
    """The sandbox in a thread with a loop of its own; `address` without a final slash. `stop()` ends it."""

    def __init__(self, *, config: Path, database: Path, delays: tuple[float, float] = PROMPT, port: int = 0):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self._app = application(port=self.port, database=database, config=config, delays=delays)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the sandbox does not start")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        runner = web.AppRunner(self._app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._loop.run_until_complete(web.SockSite(runner, self._listener).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def get(self, path: str, **query: object) -> Any:
        return self._ask(urllib.request.Request(f"{self.address}{path}?{urllib.parse.urlencode(query)}"))

    def post(self, path: str, content: object = None) -> Any:
        body = json.dumps(content or {}).encode()
        headers = {"Content-Type": "application/json"}
        return self._ask(urllib.request.Request(f"{self.address}{path}", data=body, headers=headers))

    def _ask(self, request: urllib.request.Request) -> Any:
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)


class Partners:
    """Organizations of the test that the sandbox plays, and what the other side says about itself."""

    def __init__(
        self, server: SandboxServer, config: Path, portal: str, known: dict[str, dict] | None = None
    ):
        self.server, self._config, self.portal = server, config, portal
        self._known = known or {}
        self._write()

    # --- who they are --------------------------------------------------------------------------------------------------

    def connect(self, *organizations: Organization, at=PUBLISHED_AT) -> None:
        """Open a native channel to each, with its keys and its API client, and let the sandbox play it."""
        for organization in organizations:
            secret, client_secret = signing.new_webhook_secret(), secrets.token_urlsafe(32)
            channel = registry.open_channel(
                organization=organization,
                protocol="native",
                address=f"{self.server.address}/{organization.code}/hooks/consent",
                secret=secret,
                at=at,
            )
            key = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": "ES256"})
            kid = key.thumbprint()
            registry.add_public_key(
                channel=channel, kid=kid, jwk={**key.as_dict(private=False), "kid": kid}, at=at
            )
            client_id = f"{organization.code.lower()}-server"
            oauth.create_client(
                organization=organization,
                name=organization.name_en,
                secret=client_secret,
                scopes=list(oauth.ORGANIZATION_SCOPES),
                redirect_uris=["https://app.example.com/back"],
                client_id=client_id,
                at=at,
            )
            self._known[organization.code] = {
                "name_ko": organization.name_ko,
                "name_en": organization.name_en,
                "is_operator": organization.is_operator,
                "client_id": client_id,
                "client_secret": client_secret,
                "secret": secret,
                "jwk": {**key.as_dict(private=True), "kid": kid},
                "services": [service.client_id for service in organization.services.all()],
            }
        self._write()

    def connect_everybody(self) -> None:
        """Connect every organization that has no open channel yet: operators, sources and third parties."""
        self.connect(
            *Organization.objects.exclude(channels__state="open")
            .prefetch_related("services")
            .order_by("code")
        )

    def _write(self) -> None:
        draft = self._config.with_suffix(".new")
        draft.write_text(json.dumps({"portal": self.portal, "organizations": self._known}), encoding="utf-8")
        draft.replace(self._config)

    # --- what they do --------------------------------------------------------------------------------------------------

    def fault(self, organization: Organization | str, fault: str, value: float = 0) -> None:
        """Switch a fault on, or everything off with "none"."""
        code = organization if isinstance(organization, str) else organization.code
        self.server.post("/_/faults", {"organization": code, "fault": fault, "value": value})

    def deliver(self) -> int:
        """One run of the delivery job, with the real wire; returns how many messages were tried."""
        return propagation.deliver_due(now=timezone.now)

    def settle(self, seconds: float = 15.0) -> None:
        """Deliver, and wait until no message is due and the sandbox owes no answer it can give now."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if not self.deliver() and not self.totals()["duties_open"]:
                return
            time.sleep(0.02)
        stuck = list(
            Delivery.objects.exclude(state__in=("received", "stopped", "erased")).values_list(
                "organization__code", "event", "state", "last_error"
            )
        )
        raise AssertionError(f"not at rest after {seconds} s: {self.totals()}, {stuck}")

    # --- what they say -------------------------------------------------------------------------------------------------

    def held(self, **filters: object) -> list[dict]:
        """What is held; by `organization` (code), `subject` (subject_id) or `subscription`."""
        answer = self.server.get("/_/state", limit=10_000, **filters)
        assert not answer["truncated"]
        return answer["holdings"]

    def operators_holding(self, person) -> set[str]:
        """Codes of the operators that have something of this person's: what the portal counts."""
        rows = [row for row in self.held(subject=person.subject_id) if row["data_present"]]
        own = {code: set(known["services"]) for code, known in self._known.items()}
        return {row["organization"] for row in rows if row["service"] in own[row["organization"]]}

    def plays(self, organization: Organization) -> bool:
        """Whether the sandbox stands for it; others confirm by hand at the desk."""
        return organization.code in self._known

    def effects(self, **filters: object) -> list[dict]:
        """Every message with its `arrivals` and `effects`; by `organization` (code) or `jti`."""
        return self.server.get("/_/effects", limit=10_000, **filters)["effects"]

    def totals(self) -> dict[str, int]:
        """messages, arrivals, effects, duties_open, duties_refused."""
        return self.server.get("/_/effects", limit=1)["totals"]

    # --- other processes -----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        """The environment of a process (a worker, say) on this test's database with these partners."""
        database = connection.settings_dict
        quote = urllib.parse.quote
        who = quote(database["USER"]) + (f":{quote(database['PASSWORD'])}" if database["PASSWORD"] else "")
        query = urllib.parse.urlencode({"host": database["HOST"], "port": database["PORT"]})
        address = f"postgresql://{who}@/{database['NAME']}?{query}"
        return {
            **os.environ,
            "DATABASE_URL": address,
            "PORTAL_URL": self.portal,
            "SANDBOX_URL": self.server.address,
        }


class Caller:
    """The API with a token that a person's application got, through Django's test client."""

    def __init__(self, client, token: str):
        self._client, self._headers = client, {"Authorization": f"Bearer {token}"}

    def get(self, path: str) -> Any:
        response = self._client.get(f"/api/v1/{path}", headers=self._headers)
        assert response.status_code == 200, response.content
        return response.json()

    def post(self, path: str, content: object = None, *, status: int = 200) -> Any:
        response = self._client.post(
            f"/api/v1/{path}",
            json.dumps(content or {}),
            content_type="application/json",
            headers=self._headers,
        )
        assert response.status_code == status, response.content
        return response.json()


def application_of(person, client) -> Caller:
    """An application that the person allowed to speak for them."""
    app = oauth.create_app_client(name="내 앱", redirect_uris=["https://my.example/back"])
    value = secrets.token_urlsafe(32)
    token = Token(
        client=app,
        user=person,
        type=Token.Type.ACCESS_TOKEN,
        expires_at=timezone.now() + datetime.timedelta(minutes=10),
    )
    token.set_value(value)
    token.set_scopes(["me"])
    token.save()
    return Caller(client, value)


@pytest.fixture
def partners(request, live_server, settings, tmp_path) -> Iterator[Partners]:
    """The sandbox's server, answering to `live_server`; no organization is connected yet. It proves at once, or after as
    many seconds as an indirect parameter says: (until stopped, until erased)."""
    cache.clear()  # rate limits of earlier tests
    config = tmp_path / "sandbox.json"
    delays = getattr(request, "param", PROMPT)
    server = SandboxServer(config=config, database=tmp_path / "sandbox.sqlite3", delays=delays)
    settings.SANDBOX_URL, settings.PORTAL_URL = server.address, live_server.url
    try:
        yield Partners(server, config, live_server.url)
    finally:
        server.stop()
