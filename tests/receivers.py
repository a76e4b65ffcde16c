"""An organization's server that a test tells what to answer, on loopback and really over HTTP."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from providers import registry, signing
from providers.models import Organization
from tests.factories import PUBLISHED_AT


@dataclass(frozen=True)
class Arrival:
    """One message as it came in."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict:
        return json.loads(self.body)


class Receiver:
    """`answer(arrival)` gives the status, (status, headers) or (status, headers, body); None hangs up. Default: 200."""

    def __init__(self, address: str):
        self.address = address
        self.arrivals: list[Arrival] = []
        self.answer: Callable[[Arrival], int | tuple[int, dict] | tuple[int, dict, str] | None] = (
            lambda arrival: 200
        )
        self.secrets: dict[str, str] = {}

    def connect(self, *organizations: Organization) -> None:
        """Open a native channel of each to this server."""
        for organization in organizations:
            self.secrets[organization.code] = signing.new_webhook_secret()
            registry.open_channel(
                organization=organization,
                protocol="native",
                address=f"{self.address}/{organization.code}",
                secret=self.secrets[organization.code],
                at=PUBLISHED_AT,
            )

    def of(self, organization: Organization) -> list[Arrival]:
        return [arrival for arrival in self.arrivals if arrival.path == f"/{organization.code}"]


@contextlib.contextmanager
def receiving(settings) -> Iterator[Receiver]:
    """A running receiver, which the portal may call."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            arrival = Arrival(self.path, headers, body, time.time())
            receiver.arrivals.append(arrival)
            answer = receiver.answer(arrival)
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            status, extra, text = (*answer, "")[:3] if isinstance(answer, tuple) else (answer, {}, "")
            content = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **extra}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that went away is part of the game."""

    server = Server(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_address[1]}"
    receiver = Receiver(address)
    settings.SANDBOX_URL = address
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
