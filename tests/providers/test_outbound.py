"""Nothing gets out to where it should not, and nothing that comes back can hold or fill us."""

import asyncio
import gzip
import ipaddress
import ssl
import tempfile
import time
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from providers import outbound
from tests.providers.loopback import serving, speaking

PUBLIC = "93.184.216.34"


async def call(url, *, headers=None, total=5.0, method="POST", body=b"x"):
    async with outbound.open_session() as session:
        return await outbound.send(
            session, method=method, url=url, headers=headers or {}, body=body, total=total
        )


def refused(url, **kwargs) -> outbound.Refused:
    with pytest.raises(outbound.Refused) as refusal:
        asyncio.run(call(url, **kwargs))
    return refusal.value


def unreachable(url, **kwargs) -> str:
    with pytest.raises(outbound.Unreachable) as failure:
        asyncio.run(call(url, **kwargs))
    return failure.value.reason


# Shape

GOOD = [
    "https://md0001.example/hooks/consent",
    "https://md0001.example:443/",
    "HTTPS://API.MD0001.EXAMPLE/x?y=z",
    "https://xn--3e0b707e.example/",
    "https://한국은행.example/",
    "https://1st.bank.example/",
]
BAD = [
    "",
    "https://",
    "http://md0001.example/",
    "ftp://md0001.example/",
    "file:///etc/passwd",
    "gopher://md0001.example/",
    "//md0001.example/",
    "md0001.example",
    "https://user@md0001.example/",
    "https://user:pass@md0001.example/",
    "https://@md0001.example/",
    "https://md0001.example@127.0.0.1/",
    "https://md0001.example#@evil.example/",
    "https://md0001.example/#x",
    "https://md0001.example:8443/",
    "https://md0001.example:0/",
    "https://md0001.example:99999/",
    "https://md0001.example:x/",
    "https://md0001.example /",
    "https://md0001.example/a b",
    " https://md0001.example/",
    "https://md0001.example/\r\nX: y",
    "https://md0001.example/\t",
    "https://md0001.example\\@evil.example/",
    "https:\\\\md0001.example/",
    "https://md0001.example/\x00",
    "https://md0001.example/\u2028",
    "https://md0001.example/\u202e",
    "https://md0001.example./",
    "https://md0001..example/",
    "https://-md0001.example/",
    "https://md_0001.example/",
    "https://md0001/",
    "https://localhost/",
    "https://bank.localhost/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://router.lan/",
    "https://something.onion/",
    "https://consent.example.kr/api/",
    "https://CONSENT.example.kr/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.1/",
    "https://0177.0.0.1/",
    "https://127.0.0.0x1/",
    "https://１２７.０.０.１/",
    "https://127。0。0。1/",
    "https://127%2e0%2e0%2e1/",
    "https://①②⑦.0.0.1/",
    "https://8.8.8.8/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[2002:7f00:1::]/",
    "https://[fe80::1%25eth0]/",
    "https://[fe80::1%eth0]/",
    "https://[2606:4700::1111]/",
    "https://[::1/",
    "http://127.0.0.1:8001/",
    "https://" + "a" * 64 + ".example/",
    "https://" + "a." * 130 + "example/",
    "https://md0001.example/" + "a" * 2048,
]


@pytest.mark.parametrize("url", GOOD)
def test_an_ordinary_address_is_fine(url):
    assert outbound.check_address(url) is None


@pytest.mark.parametrize("url", BAD)
def test_a_strange_address_is_refused_when_saved_and_when_sent(url, monkeypatch):
    monkeypatch.setattr(outbound, "_lookup", never)
    monkeypatch.setattr(outbound.socket, "socket", never)
    with pytest.raises(outbound.Refused):
        outbound.check_address(url)


def test_nothing_is_opened_for_a_refused_address(monkeypatch):
    monkeypatch.setattr(outbound, "_lookup", never)
    assert refused("https://127.0.0.1/")


def never(*args, **kwargs):
    raise AssertionError("must not be called")


def test_a_name_with_all_below_it_is_our_own(settings):
    settings.ALLOWED_HOSTS = [".portal.example"]
    for host in ("portal.example", "a.portal.example"):
        with pytest.raises(outbound.Refused):
            outbound.check_address(f"https://{host}/")
    outbound.check_address("https://notportal.example/")


@pytest.mark.parametrize("url", [None, 5, b"https://md0001.example/"])
def test_an_address_is_text(url):
    with pytest.raises(outbound.Refused):
        outbound.check_address(url)


# Judge


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "168.63.129.16",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.31.196.1",
        "192.52.193.1",
        "192.88.99.1",
        "192.168.1.1",
        "192.175.48.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "2606:4700::1111%eth0",
        "fec0::1",
        "ff02::1",
        "4000::1",
        "text",
        "8.8.8",
    ],
)
def test_an_address_that_is_not_public_is_refused(text):
    with pytest.raises(outbound.Refused):
        outbound.judge(text)


@pytest.mark.parametrize(
    "text", ["8.8.8.8", PUBLIC, "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00::1"]
)
def test_an_address_of_the_public_internet_is_allowed(text):
    assert outbound.judge(text) == ipaddress.ip_address(text)


# Resolve and connect


@pytest.fixture
def names(monkeypatch):
    """A resolver under our control: name → list of answers, one list a lookup; counts lookups and connections."""

    class Names(dict):
        lookups: list[str]
        opened: list[str]

    known = Names()
    known.lookups, known.opened = [], []

    async def lookup(host, port):
        known.lookups.append(host)
        answers = known[host]
        if isinstance(answers, BaseException):
            raise answers
        return answers[min(known.lookups.count(host), len(answers)) - 1]

    guarded = outbound._guarded_socket

    def opened(info):
        made = guarded(info)
        known.opened.append(info[4][0])
        return made

    monkeypatch.setattr(outbound, "_lookup", lookup)
    monkeypatch.setattr(outbound, "_guarded_socket", opened)
    return known


@pytest.mark.parametrize(
    "answers",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["::1"],
        ["169.254.169.254"],
        [PUBLIC, "10.0.0.1"],
        ["10.0.0.1", PUBLIC],
        ["64:ff9b::7f00:1"],
    ],
)
def test_one_bad_answer_refuses_the_request(names, answers):
    names["md0001.example"] = [answers]
    assert "public internet" in str(refused("https://md0001.example/"))
    assert names.opened == []


@pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2"])
def test_a_name_that_changes_its_mind_is_asked_once(names, monkeypatch, certificate):
    """DNS rebinding: the second answer would be loopback, and is never asked for."""
    names["md0001.example"] = [["127.0.0.2"], ["127.0.0.1"]]
    monkeypatch.setattr(outbound, "DENY4", [ipaddress.ip_network("127.0.0.1/32")])

    async def hello(request):
        return web.Response(text=request.host)

    async def run():
        async with serving(
            hello, ssl_context=certificate("md0001.example"), port=0, host="127.0.0.2"
        ) as port:
            monkeypatch.setattr(outbound, "PORTS", {port})
            return await call(f"https://md0001.example:{port}/"), port

    reply, port = asyncio.run(run())
    assert (reply.status, reply.body) == (200, f"md0001.example:{port}".encode())
    assert names.lookups == ["md0001.example"] and names.opened == ["127.0.0.2"]


def test_the_last_look_stops_what_the_judge_let_through(monkeypatch):
    """Should the resolver ever have a bug, the socket is not made: for one address and for several at once."""

    class Careless(outbound._Resolver):
        async def resolve(self, host, port=0, family=0):
            return [
                {
                    "hostname": host,
                    "host": ip,
                    "port": port,
                    "family": outbound.socket.AF_INET,
                    "proto": 0,
                    "flags": 0,
                }
                for ip in self.given
            ]

    monkeypatch.setattr(outbound, "_Resolver", Careless)
    for given in (["127.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["127.0.0.1", "127.0.0.2", "127.0.0.3"]):
        Careless.given = given
        assert "public internet" in str(refused("https://md0001.example/"))


@pytest.mark.parametrize(
    "literal",
    [
        "127.0.0.1",
        "10.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1%lo]",
        "2130706433",
        "127.1",
    ],
)
def test_literals_that_skip_the_resolver_are_stopped_before_a_socket(literal, monkeypatch):
    """aiohttp asks no resolver about literals: the shape is taken away here to see the guard alone."""
    monkeypatch.setattr(outbound, "_shape", outbound.URL)
    monkeypatch.setattr(outbound, "_lookup", never)
    assert refused(f"http://{literal}:8001/")


def test_a_name_without_an_address_is_a_network_matter(names):
    names["gone.example"] = OSError("no such name")
    assert unreachable("https://gone.example/") == "dns"


# TLS


@pytest.fixture
def certificate(monkeypatch):
    """Makes a server context for a name, signed by an authority that this test alone trusts."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.now(UTC) - timedelta(days=1)

    def build(name, issuer, signer, ca):
        own = key if ca else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder(issuer or subject, subject, own.public_key(), x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + timedelta(days=3))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
            )
        )
        if ca:  # Python 3.13 wants it said
            usage = dict.fromkeys(
                ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment")
                + ("key_agreement", "crl_sign", "encipher_only", "decipher_only"),
                False,
            )
            builder = builder.add_extension(x509.KeyUsage(key_cert_sign=True, **usage), critical=True)
        else:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        return builder.sign(signer, hashes.SHA256()), own

    authority, _ = build("test authority", None, key, True)
    trusting = outbound._tls

    def trust():
        context = trusting()
        context.load_verify_locations(cadata=authority.public_bytes(Encoding.PEM).decode())
        return context

    def make(name):
        leaf, own = build(name, authority.subject, key, False)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            file.write(leaf.public_bytes(Encoding.PEM))
            file.write(own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            file.flush()
            context.load_cert_chain(file.name)
        return context

    make.trust = trust
    monkeypatch.setattr(outbound, "_tls", trust)
    return make


@pytest.mark.parametrize("fault", ["name", "authority", "plain"])
def test_a_certificate_must_fit_the_name_and_be_trusted(names, monkeypatch, certificate, fault):
    names["md0001.example"] = [["127.0.0.1"]]
    monkeypatch.setattr(outbound, "DENY4", [])
    if fault == "authority":
        monkeypatch.setattr(outbound, "_tls", ssl.create_default_context)
    name = "other.example" if fault == "name" else "md0001.example"

    async def hello(request):
        return web.Response(text="hello")

    async def run():
        context = None if fault == "plain" else certificate(name)
        async with serving(hello, ssl_context=context) as port:
            monkeypatch.setattr(outbound, "PORTS", {port})
            await call(f"https://md0001.example:{port}/")

    with pytest.raises(outbound.Unreachable) as failure:
        asyncio.run(run())
    assert failure.value.reason == "tls"


# The one loopback address, and what comes back


def sandboxed(settings, handler, path="/", server=serving, **kwargs):
    """One call to a real server on loopback that the setting allows."""

    async def run():
        async with server(handler) as port:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            return await call(f"http://127.0.0.1:{port}{path}", **kwargs)

    return asyncio.run(run())


def test_exactly_the_sandbox_may_be_reached(settings):
    settings.SANDBOX_URL = "http://127.0.0.1:8001"
    outbound.check_address("http://127.0.0.1:8001/MD0001/hooks/consent")
    for url in [
        "http://127.0.0.1:8002/",
        "http://127.0.0.1/",
        "https://127.0.0.1:8001/",
        "http://127.0.0.2:8001/",
        "http://localhost:8001/",
        "http://[::1]:8001/",
        "http://x@127.0.0.1:8001/",
        "http://127.1:8001/",
        "http://127.0.0.1:8001@evil.example/",
        "http://127.0.0.1:08001/",
    ]:
        with pytest.raises(outbound.Refused):
            outbound.check_address(url)


@pytest.mark.parametrize(
    "origin",
    ["", None, "http://127.0.0.1", "http://10.0.0.1:80", "http://db:5432", "http://0.0.0.0:8001", "*"],
)
def test_the_sandbox_setting_can_name_loopback_only(settings, origin):
    settings.SANDBOX_URL = origin
    for url in ("http://127.0.0.1:8001/", "http://10.0.0.1:80/", "http://db:5432/", "http://127.0.0.1/"):
        with pytest.raises(outbound.Refused):
            outbound.check_address(url)


def test_what_was_sent_arrives_byte_for_byte(settings):
    seen = {}

    async def hello(request):
        seen.update(
            headers=dict(request.headers),
            body=await request.read(),
            method=request.method,
            query=request.raw_path,
        )
        return web.Response(body=b"ok", headers={"X-Answer": "1", "Set-Cookie": "a=b"})

    reply = sandboxed(settings, hello, "/a%20b?c=d", headers={"X-One": "two"}, body='{"가": 1}'.encode())
    assert seen["body"] == '{"가": 1}'.encode() and seen["query"] == "/a%20b?c=d" and seen["method"] == "POST"
    assert seen["headers"]["X-One"] == "two" and seen["headers"]["Accept-Encoding"] == "identity"
    assert "Cookie" not in seen["headers"] and "aiohttp" not in seen["headers"]["User-Agent"]
    assert (reply.status, reply.body, reply.headers["x-answer"]) == (200, b"ok", "1")
    assert reply.digest == "2689367b205c16ce32ed4200942b8b8b1e262dfc70d9bc9fbc77c49699a4f1df"


def test_proxy_variables_and_netrc_are_ignored(settings, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    seen = {}

    async def hello(request):
        seen.update(request.headers)
        return web.Response()

    assert sandboxed(settings, hello).status == 200
    assert "Authorization" not in seen


def test_cookies_are_not_kept(settings):
    cookies = []

    async def hello(request):
        cookies.append(request.headers.get("Cookie"))
        return web.Response(headers={"Set-Cookie": "a=b"})

    async def run():
        async with serving(hello) as port, outbound.open_session() as session:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            for _ in range(2):
                await outbound.send(session, method="GET", url=f"{settings.SANDBOX_URL}/", headers={})

    asyncio.run(run())
    assert cookies == [None, None]


@pytest.mark.parametrize(
    "to", ["http://169.254.169.254/latest/meta-data/", "https://user:pass@md0001.example/", "/"]
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_wherever_it_leads(settings, status, to):
    asked = []

    async def redirect(request):
        asked.append(request.path)
        return web.Response(status=status, headers={"Location": to})

    assert sandboxed(settings, redirect).status == status
    assert asked == ["/"]


def test_an_endless_answer_is_cut(settings):
    async def endless(request):
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1600):  # 100 MB
            await response.write(bytes(65_536))
        return response

    began = time.monotonic()
    reply = sandboxed(settings, endless)
    assert len(reply.body) == outbound.LARGEST_ANSWER and time.monotonic() - began < 3


def test_a_packed_answer_is_not_unpacked(settings):
    bomb = gzip.compress(bytes(50_000_000))

    async def packed(request):
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    reply = sandboxed(settings, packed)
    assert reply.body == bomb[: outbound.LARGEST_ANSWER] and reply.body[:2] == b"\x1f\x8b"


@pytest.mark.parametrize("part", ["headers", "body", "nothing"])
def test_a_slow_drip_ends_at_the_total(settings, part):
    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            {
                "headers": b"HTTP/1.1 200 OK\r\nX: ",
                "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
            }.get(part, b"")
        )
        while True:
            await asyncio.sleep(0.1)
            writer.write(b"x" if part != "nothing" else b"")
            await writer.drain()

    began = time.monotonic()
    with pytest.raises(outbound.Unreachable) as failure:
        sandboxed(settings, drip, server=speaking, total=1.0)
    assert failure.value.reason == "timeout" and time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "connection"),
        (b"nonsense\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "protocol"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "protocol"),
    ],
)
def test_a_broken_answer_is_unreachable_and_nothing_else(settings, answer, reason):
    async def broken(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    with pytest.raises(outbound.Unreachable) as failure:
        sandboxed(settings, broken, server=speaking)
    assert failure.value.reason == reason


def test_a_closed_port_is_unreachable(settings):
    async def run():
        async with speaking(never) as port:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
        await call(f"{settings.SANDBOX_URL}/")

    with pytest.raises(outbound.Unreachable) as failure:
        asyncio.run(run())
    assert failure.value.reason == "connection"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "b\r\nX-Evil: 1"},
        {"X-A": "b\nc"},
        {"X-A\r\nX-Evil": "1"},
        {"X-A": "b\x00"},
        {"X-A": "가"},
        {"": "x"},
        {"X A": "x"},
    ],
)
def test_a_header_cannot_smuggle_another(settings, headers):
    async def hello(request):
        raise AssertionError("must not arrive")

    with pytest.raises(outbound.Refused):
        sandboxed(settings, hello, headers=headers)


def test_only_plain_methods_are_used(settings):
    async def hello(request):
        raise AssertionError("must not arrive")

    with pytest.raises(outbound.Refused):
        sandboxed(settings, hello, method="CONNECT")


def test_one_slow_address_does_not_take_all_places(settings):
    """Four at one address, the fifth waits its turn and is told so: `busy` means that nothing was sent."""
    most = [0, 0]

    async def slow(request):
        most[0] += 1
        most[1] = max(most)
        await asyncio.sleep(0.6)
        most[0] -= 1
        return web.Response()

    async def run():
        async with serving(slow) as port, outbound.open_session(limit=32, per_host=4) as session:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            sends = [
                outbound.send(
                    session, method="POST", url=f"{settings.SANDBOX_URL}/one/{n}", headers={}, total=1.0
                )
                for n in range(12)
            ]
            return await asyncio.gather(*sends, return_exceptions=True)

    results = asyncio.run(run())
    assert most[1] == 4
    assert sum(isinstance(r, outbound.Reply) for r in results) == 8
    assert [r.reason for r in results if isinstance(r, outbound.Unreachable)] == ["busy"] * 4


def test_nothing_else_than_our_two_exceptions_comes_out(settings, monkeypatch):
    for error in (
        aiohttp.ClientError(),
        OSError(),
        TimeoutError(),
        ValueError(),
        aiohttp.InvalidURL("x"),
        ssl.SSLError(),
    ):
        monkeypatch.setattr(aiohttp.ClientSession, "_request", failing(error))
        settings.SANDBOX_URL = "http://127.0.0.1:8001"
        with pytest.raises((outbound.Refused, outbound.Unreachable)):
            asyncio.run(call("http://127.0.0.1:8001/"))


def failing(error):
    async def request(*args, **kwargs):
        raise error

    return request


# Connections that are kept


def kept(settings, talk, times: int) -> tuple[list, int]:
    """What so many requests over one session come to, and how many connections they took."""
    taken = 0

    async def counted(reader, writer):
        nonlocal taken
        taken += 1
        await talk(reader, writer)

    async def ask(session):
        try:
            return (
                await outbound.send(session, method="POST", url=f"{url}/x", headers={}, body=b"{}")
            ).status
        except outbound.Unreachable as failure:
            return failure.reason

    async def all_of_them():
        nonlocal url
        async with speaking(counted) as port, outbound.open_session() as session:
            url = settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            return [await ask(session) for _ in range(times)]

    url = ""
    return asyncio.run(all_of_them()), taken


async def one_answer(reader, writer):
    await reader.readuntil(b"{}")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await writer.drain()


def test_a_session_keeps_its_connection(settings):
    async def patient(reader, writer):
        for _ in range(5):
            await one_answer(reader, writer)

    assert kept(settings, patient, 5) == ([200] * 5, 1)


def test_who_closes_a_kept_connection_unannounced_is_asked_over_a_new_one(settings):
    assert kept(settings, one_answer, 5) == ([200] * 5, 5)


def test_who_closes_a_new_connection_is_not_asked_twice(settings):
    async def rude(reader, writer):
        await reader.readuntil(b"{}")

    assert kept(settings, rude, 2) == (["connection"] * 2, 2)
