"""Whatever comes back, and however: each wire answers, and none raises."""

import asyncio
import json
import time

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from providers import outbound
from providers.wires import (
    BLOCKED,
    RETRY,
    UNKNOWN,
    Endpoint,
    Outcome,
    Reading,
    Reference,
    cdr,
    grants,
    push,
    revocation,
    uk,
)
from providers.wires.outcomes import TABLE
from tests.providers.loopback import speaking
from tests.providers.wires.asked import NOW, Server, message, run

STOP = message(*(Reference(kind, "x-1") for kind in ("token", "grant", "consent", "arrangement")))
DETAILS = {
    revocation: {"client_id": "c", "introspect": "{base}/introspect"},
    cdr: {"client_id": "c", "party": "recipient"},
}
BOUGHT = {"client_id": "c", "token_address": "{base}/token"}
ACTS = {
    "push": (push.send, {}),
    "revocation": (revocation.send, DETAILS[revocation]),
    "introspection": (revocation.read_back, DETAILS[revocation]),
    "grants": (grants.send, {}),
    "grants, read": (grants.read_back, {}),
    "grants, token": (grants.send, BOUGHT),
    "cdr, recipient": (cdr.send, DETAILS[cdr]),
    "cdr, holder": (cdr.send, {**DETAILS[cdr], "party": "holder"}),
    "uk": (uk.send, {}),
    "uk, read": (uk.read_back, {}),
    "uk, token": (uk.read_back, BOUGHT),
}
every_act = pytest.mark.parametrize("name", ACTS)


def answer(settings, name, handler, **more):
    act, details = ACTS[name]
    return run(settings, handler, act, STOP, details=details, credential="s3cr.et-1", **more)


def nothing_happened(result, detail):
    """An Outcome to try again, or a Reading that says nothing."""
    assert "s3cr" not in repr(result) and result.detail.removeprefix("token: ") == detail
    return result.verdict == RETRY if isinstance(result, Outcome) else result.says == UNKNOWN


@every_act
@pytest.mark.parametrize("where", ["nothing", "headers", "body"])
def test_a_drip_or_a_silence_ends_in_time(settings, name, where):
    starts = {"headers": b"HTTP/1.1 204 X\r\nX: ", "body": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"}

    async def drip(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(starts.get(where, b""))
        while True:
            await asyncio.sleep(0.05)
            writer.write(b"x" if where != "nothing" else b"")
            await writer.drain()

    began = time.monotonic()
    result = answer(settings, name, drip, server=speaking, total=0.3)
    assert nothing_happened(result, "timeout") and time.monotonic() - began < 2


@every_act
def test_many_things_share_the_time(settings, name):
    async def slow(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.25)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    if name == "push":
        return
    act, details = ACTS[name]
    kinds = ("token", "grant", "consent", "arrangement")
    many = message(*(Reference(kind, str(number)) for kind in kinds for number in range(9)))
    began = time.monotonic()
    result = run(settings, slow, act, many, details=details, credential="s", server=speaking, total=0.6)
    assert time.monotonic() - began < 2
    assert name.endswith("token") or nothing_happened(result, "timeout")


@every_act
@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "connection"),
        (b"nonsense\r\n\r\n", "protocol"),
        (b"HTTP/1.1 204 X\r\nX: " + b"y" * 10_000 + b"\r\n\r\n", "protocol"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", "protocol"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "protocol"),
    ],
)
def test_a_broken_answer_is_no_answer(settings, name, raw, reason):
    async def broken(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()

    assert nothing_happened(answer(settings, name, broken, server=speaking), reason)


@every_act
def test_a_reset_is_no_answer(settings, name):
    async def reset(reader, writer):
        writer.transport.abort()

    assert nothing_happened(answer(settings, name, reset, server=speaking), "connection")


@every_act
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(settings, name, status):
    server = Server([(status, "", {"Location": "http://169.254.169.254/latest/meta-data"})])
    result = answer(settings, name, server)
    assert len(server.asked) == 1
    assert (result.verdict == RETRY) if isinstance(result, Outcome) else (result.says == UNKNOWN)


@every_act
@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/octet-stream"])
def test_a_huge_answer_is_cut_and_believed_for_its_status_only(settings, name, kind):
    huge = '{"active":false,"Data":{"Status":"Revoked"},"x":"' + "y" * 200_000 + '"}'
    result = answer(settings, name, Server([(200, huge, {"Content-Type": kind})]))
    if isinstance(result, Reading):
        assert result.says == UNKNOWN
    assert result.digest and len(result.detail) < 100


@every_act
@pytest.mark.parametrize("address", ["https://127.0.0.1/", "http://bank.example/", "https://[::1]/", ""])
def test_a_forbidden_address_is_not_called(name, address):
    act, details = ACTS[name]

    async def go():
        async with outbound.open_session() as session:
            where = Endpoint(
                address,
                details={k: v.replace("{base}", address) for k, v in details.items()},
                credential="s3cr.et-1",
            )
            return await act(session, message=STOP, endpoint=where, now=NOW)

    result = asyncio.run(go())
    assert isinstance(result, Reading) or result.verdict == BLOCKED
    assert not isinstance(result, Reading) or result.says == UNKNOWN
    assert result.status is None and result.detail and "s3cr" not in repr(result)


@every_act
def test_a_credential_that_breaks_a_header_is_blocked_and_not_shown(settings, name):
    act, details = ACTS[name]
    if name.startswith(("revocation", "introspection", "cdr")) or details == BOUGHT:
        return  # encoded, or signed
    server = Server()
    result = run(settings, server, act, STOP, details=details, credential="s3cr\r\nX: y")
    assert not server.asked and "s3cr" not in repr(result)
    assert result.says == UNKNOWN if isinstance(result, Reading) else result.verdict == BLOCKED


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9)
    | st.sampled_from(["invalid_key", "invalid_client", "U011", "Revoked", "Bearer", "UK.OBIE.Resource.NotFound"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["err", "error", "active", "Data", "Status", "Errors", "ErrorCode", "access_token", "token_type", "expires_in"]
        ),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip
bodies = st.binary(max_size=200) | values.map(lambda value: json.dumps(value).encode())


@every_act
@hypothesis_settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    status=st.integers(100, 999),
    body=bodies,
    wait=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=20),
)
def test_no_answer_raises(monkeypatch, name, status, body, wait):
    """Below HTTP everything is tested above: here the answer is put in where `outbound` gives it."""

    async def answered(session, **request):
        return outbound.Reply(status, {"Retry-After": wait}, body, "d" * 64)

    monkeypatch.setattr(outbound, "send", answered)
    act, details = ACTS[name]
    where = Endpoint("https://bank.example/", details=details, credential="s3cr.et-1")
    result = asyncio.run(act(None, message=STOP, endpoint=where, now=NOW))
    assert isinstance(result, Outcome | Reading) and len(result.detail) < 120
    assert "s3cr" not in repr(result) and "x-1" not in result.detail
    if isinstance(result, Outcome):
        classes = {word for rows in TABLE.values() for word in rows.values()}
        assert result.verdict in classes
        assert result.retry_after is None or 0 <= result.retry_after <= 3600
