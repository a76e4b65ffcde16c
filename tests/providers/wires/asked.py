"""A wire that is run once against a real server on loopback."""

import asyncio
import base64
import json
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import JWKRegistry

from providers import outbound
from providers.wires import Endpoint, Message, Reference
from tests.providers.loopback import serving

NOW = 1_795_317_001
JTI = "01a2013b-6740-7a01-8f00-00000000c0de"
EC = ec.generate_private_key(ec.SECP256R1())
RSA, OTHER_RSA = (rsa.generate_private_key(65537, 2048) for _ in range(2))


def pem(key) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(key, kid: str, **more) -> dict:
    kty = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
    return {**JWKRegistry.import_key(pem(key), kty).as_dict(private=False), "kid": kid, "use": "sig", **more}


CDR_PEM = pem(rsa.generate_private_key(65537, 2048))
JWKS = {"keys": [jwk(RSA, "r1"), jwk(EC, "e1")]}


def message(*references: Reference, compact: str = "h.p.s") -> Message:
    body = {"type": "consent-withdrawn", "data": {"jti": JTI, "set": compact}}
    return Message(JTI, json.dumps(body).encode(), references)


@dataclass
class Asked:
    """What came in."""

    method: str
    path: str
    headers: dict
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), strict_parsing=True))

    @property
    def basic(self) -> str:
        kind, _, rest = self.headers["Authorization"].partition(" ")
        assert kind == "Basic"
        return base64.b64decode(rest, validate=True).decode()


@dataclass
class Server:
    """Answers each request with what `answers` holds next, the last for ever: a status, or (status, body, headers)."""

    answers: list = field(default_factory=lambda: [204])
    asked: list[Asked] = field(default_factory=list)

    async def answer(self, request) -> web.Response:
        body = await request.read()
        self.asked.append(Asked(request.method, request.raw_path, dict(request.headers), body))
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        answer = answer(self.asked[-1]) if callable(answer) else answer
        status, text, headers = (answer, "", {}) if isinstance(answer, int) else (*answer, {})[:3]
        if isinstance(text, dict | list):
            text, headers = json.dumps(text), {"Content-Type": "application/json", **headers}
        return web.Response(
            status=status, body=text.encode() if isinstance(text, str) else text, headers=headers
        )


def run(settings, handler, act, message, *, path="", server=serving, total=2.0, **endpoint):
    """`act` (a wire's send, read_back …) once, against `handler`. `{base}` in details is the server's address."""

    async def go():
        async with server(getattr(handler, "answer", handler)) as port, outbound.open_session() as session:
            settings.SANDBOX_URL = base = f"http://127.0.0.1:{port}"
            details = {k: v.replace("{base}", base) for k, v in endpoint.pop("details", {}).items()}
            where = Endpoint(base + path, details=details, **endpoint)
            return await act(session, message=message, endpoint=where, now=NOW, total=total)

    return asyncio.run(go())
