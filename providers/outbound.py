"""The only way out: every HTTP request that the portal makes to somebody else's address.

Addresses come from people, so each request passes three gates: the shape of the address, a judge of every address its
name resolves to, and a last look at the socket that will really be connected. What comes back is bounded in time and
size, never followed, never unpacked. A fourth gate belongs to the network the workers run in.
"""

import asyncio
import contextlib
import functools
import hashlib
import ipaddress
import re
import socket
import ssl
from collections import defaultdict
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from django.conf import settings
from yarl import URL  # the parser aiohttp itself uses: two parsers would disagree some day

LONGEST_ADDRESS = 2048  # characters
LARGEST_ANSWER = 65_536  # bytes
CONNECT_TIMEOUT = 5.0  # seconds, name lookup and TLS included
READ_TIMEOUT = 10.0  # seconds between two pieces of an answer
KEPT_OPEN = 5.0  # seconds that a connection may wait for the next request of its session
PORTS = frozenset({443})
METHODS = frozenset({"GET", "POST", "PUT", "DELETE"})

# Special-purpose registries of IANA, and 168.63.129.16, the metadata host of Azure.
DENY4 = [
    ipaddress.ip_network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
]
ALLOW6 = ipaddress.ip_network("2000::/3")
DENY6 = [ipaddress.ip_network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")]

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)+[a-z](?:[a-z0-9-]{{0,61}}[a-z0-9])")
_LOCAL = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "onion")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


class Refused(Exception):
    """Our policy says no: nothing was sent. Trying again at once is of no use; a person must look."""


class Unreachable(Exception):
    """No complete answer came. `reason` is one word: timeout, dns, tls, connection, protocol, busy.

    busy means that our own limit of requests to that address was used up: nothing was sent."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(detail or reason)
        self.reason = reason


@dataclass(frozen=True)
class Reply:
    """What came back: at most the first 64 KiB of the body as it was sent, and the SHA-256 of those bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    digest: str


class Session:
    """Open connections with limits: so many in all, so many to one address."""

    def __init__(self, client: aiohttp.ClientSession, limit: int, per_host: int):
        self.client = client
        self._all = asyncio.Semaphore(limit)
        self._one: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(per_host))

    @contextlib.asynccontextmanager
    async def place(self, host: str, wait: float) -> AsyncIterator[None]:
        """A free place for one request, or Unreachable("busy") after `wait` seconds."""
        async with contextlib.AsyncExitStack() as held:
            try:
                async with asyncio.timeout(wait):
                    await held.enter_async_context(self._one[host])
                    await held.enter_async_context(self._all)
            except TimeoutError:
                raise Unreachable("busy", "too many requests to this address are under way") from None
            yield


def check_address(url: str) -> None:
    """Refused unless the address has a shape we may call: used when it is saved and again before each request.

    https, a real name, the usual port, no user, no fragment, no literal in any notation, none of our own names."""
    _shape(url)


async def send(
    session: Session,
    *,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes | AsyncIterable[bytes] = b"",
    total: float = 15.0,
) -> Reply:
    """One request, one answer. Waits at most `total` seconds for a free place and at most `total` for the answer.
    A body that comes in pieces (a test of slow lines) needs its Content-Length among the headers.

    Raises Refused (policy) and Unreachable (network), nothing else."""
    address = _shape(url)
    if method not in METHODS:
        raise Refused(f"the method {method[:20]!r} is not used here")
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise Refused(f"the header {name[:40]!r} holds a line break or a foreign character")
    # Asked for plainly, and never unpacked if packed all the same.
    headers = {"User-Agent": "bangjiteok", "Accept-Encoding": "identity", **headers}

    async with session.place(_whose(address), total):
        try:
            async with asyncio.timeout(total):
                try:
                    return await _asked(session, method, address, headers, body, kept := _Connection())
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                    # They closed a kept connection just as we took it up. Whatever we send can be repeated: it has an id.
                    if not kept.reused or not isinstance(body, bytes):
                        raise
                    return await _asked(session, method, address, headers, body, _Connection())
        except (aiohttp.ClientError, OSError, ValueError, Refused) as error:
            raise _reason(error) from error


@dataclass
class _Connection:
    """What is learnt about the connection of one request."""

    reused: bool = False


async def _asked(
    session: Session, method: str, address: URL, headers, body, connection: _Connection
) -> Reply:
    async with session.client.request(
        method,
        address,
        headers=headers,
        data=body or None,
        allow_redirects=False,
        trace_request_ctx=connection,
    ) as response:
        content = await _first_bytes(response)
        return Reply(
            status=response.status,
            headers=response.headers.copy(),
            body=content,
            digest=hashlib.sha256(content).hexdigest(),
        )


def _tracing() -> aiohttp.TraceConfig:
    async def reused(_session, context, _params) -> None:
        context.trace_request_ctx.reused = True

    config = aiohttp.TraceConfig()
    config.on_connection_reuseconn.append(reused)
    return config


@contextlib.asynccontextmanager
async def open_session(limit: int = 32, per_host: int = 4) -> AsyncIterator[Session]:
    """A session for a batch of requests: `limit` under way in all, `per_host` at one address."""
    connector = aiohttp.TCPConnector(
        resolver=_Resolver(),
        use_dns_cache=False,  # what was judged is what is connected, for each connection anew
        keepalive_timeout=KEPT_OPEN,  # within one session: a connection leads to the address it was judged for
        limit=limit,  # and so many to one address as `Session.place` lets in
        socket_factory=_guarded_socket,
        ssl=_tls(),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        trust_env=False,  # no proxy variables, no .netrc
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        max_line_size=4096,
        max_field_size=4096,
        timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT),
        skip_auto_headers=("Content-Type",),
        trace_configs=[_tracing()],
    ) as client:
        yield Session(client, limit, per_host)


def _whose(address: URL) -> str:
    """Who has the places that a request takes: a host and port. The pretend companies share one, each below its own name."""
    host = f"{address.raw_host}:{address.port}"
    shared = (address.raw_host, address.port) in _pretended()
    return "/".join([host, *address.raw_parts[1:2]]) if shared else host


def judge(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, if it is one of the public internet; Refused if not. Python's own `is_global` differs by version."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError as error:
        raise Refused(f"{text[:60]!r} is not an address") from error
    if isinstance(ip, ipaddress.IPv4Address):
        allowed = not any(ip in net for net in DENY4)
    else:
        inside = ip in ALLOW6 and not any(ip in net for net in DENY6)
        allowed = inside and ip.scope_id is None and ip.ipv4_mapped is None
    if not allowed:
        raise Refused(f"{ip} is not an address of the public internet")
    return ip


def _shape(url: str) -> URL:
    if not isinstance(url, str) or not 0 < len(url) <= LONGEST_ADDRESS:
        raise Refused("the address is empty or too long")
    return _shaped(url, frozenset(_pretended()), frozenset(_own_names()))


@functools.lru_cache(maxsize=4096)  # a busy worker calls the same few hundred addresses all day
def _shaped(url: str, pretended: frozenset[tuple[str, int]], own_names: frozenset[str]) -> URL:
    if "\\" in url or not url.isprintable() or any(char.isspace() for char in url):
        raise Refused("the address holds a space, a control character or a backslash")
    if "#" in url:
        raise Refused("the address has a fragment")
    try:
        parts, address = urlsplit(url), URL(url)
        port = address.port
    except ValueError as error:
        raise Refused("the address cannot be read") from error
    if "@" in parts.netloc or address.user or address.password:
        raise Refused("the address holds a user or password")
    if parts.scheme == "http" and parts.netloc in {f"{host}:{port}" for host, port in pretended}:
        return address
    host = address.raw_host or ""
    if parts.scheme != "https" or address.scheme != "https":
        raise Refused("only https addresses are called")
    if port not in PORTS:
        raise Refused(f"port {port} is not called")
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise Refused("the address needs a full host name, not a number or a short name")
    if host.endswith(tuple(f".{name}" for name in _LOCAL)):
        raise Refused("the host name is a local one")
    # A name that begins with a dot stands for the domain itself too, as in ALLOWED_HOSTS.
    if any(host == own or (own.startswith(".") and f".{host}".endswith(own)) for own in own_names):
        raise Refused("the address is our own")
    return address


def _own_names() -> set[str]:
    names = {name.lower() for name in settings.ALLOWED_HOSTS if name != "*"}
    portal = urlsplit(getattr(settings, "PORTAL_URL", "") or "").hostname
    return names | ({portal} if portal else set())


def _pretended() -> set[tuple[str, int]]:
    """Host and port of the demo's pretend operators and pretend witness: the loopback addresses that may be called, where
    a setting names them."""
    found = set()
    for setting in ("SANDBOX_URL", "WITNESS_URL"):
        origin = getattr(settings, setting, "") or ""
        if named := re.fullmatch(r"http://127\.0\.0\.1:([0-9]{1,5})/?", origin):
            found.add(("127.0.0.1", int(named[1])))
    return found


class _Resolver(AbstractResolver):
    """Looks a name up once and judges every answer: one bad answer refuses the request. Not asked about literals."""

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[ResolveResult]:
        found = [judge(text) for text in dict.fromkeys(await _lookup(host, port))]
        return [
            ResolveResult(
                hostname=host,
                host=str(ip),
                port=port,
                family=socket.AF_INET if ip.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for ip in found
        ]

    async def close(self) -> None:
        pass


async def _lookup(host: str, port: int) -> list[str]:
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(info[4][0]) for info in infos]


class _Blocked(Refused, OSError):
    """Refused in the shape that aiohttp expects of a failing socket: always the same words, so that it comes out whole
    when several addresses fail."""


def _guarded_socket(info) -> socket.socket:
    family, kind, proto, _, address = info
    if (address[0], address[1]) not in _pretended():
        try:
            judge(address[0])
        except Refused:
            raise _Blocked("the connection would not go to the public internet") from None
    return socket.socket(family, kind, proto)


@functools.cache  # reading the roots takes longer than a request
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    pieces, size = [], 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size >= LARGEST_ANSWER:
            response.close()
            break
    return b"".join(pieces)[:LARGEST_ANSWER]


def _reason(error: Exception) -> Refused | Unreachable:
    """Sort what aiohttp raised. A refusal may lie inside a connector error, or inside that of another address."""
    cause: BaseException | None = error
    for _ in range(5):
        if isinstance(cause, Refused | Unreachable):
            return cause
        cause = getattr(cause, "os_error", None) or getattr(cause, "__cause__", None)
    name = type(error).__name__
    if isinstance(error, TimeoutError):
        return Unreachable("timeout", "no complete answer in time")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Unreachable("dns", "the name does not resolve")
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return Unreachable("tls", f"the certificate or the handshake failed ({name})")
    if isinstance(error, aiohttp.InvalidURL):
        return Refused("the address cannot be called")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return Unreachable("protocol", f"the answer is not proper HTTP ({name})")
    if isinstance(error, ValueError):
        return Unreachable("protocol", f"the answer cannot be read ({name})")
    return Unreachable("connection", f"the connection failed ({name})")
