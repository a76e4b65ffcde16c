"""One attempt over the portal's own protocol, and how every answer is read."""

import asyncio
import base64
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import standardwebhooks
import time_machine
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from providers import outbound, signing
from providers.wires import (
    BLOCKED,
    GONE,
    KEY,
    RECEIVED,
    REFUSED,
    RETRY,
    SENT,
    Endpoint,
    Message,
    Outcome,
    classify,
    native,
)
from tests.providers.loopback import serving

NOW = datetime(2026, 11, 22, 3, 10, 1, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
SECRETS = [bytes(range(32)), bytes(range(1, 33))]
MESSAGE = Message("01a2013b-6740-7a01-8f00-00000000c0de", '{"type":"consent-withdrawn","값":1 }'.encode())


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *[(status, SENT) for status in (200, 201, 202, 204, 299)],
        *[(status, RETRY) for status in (300, 301, 302, 303, 304, 307, 308)],
        *[
            (status, REFUSED)
            for status in (400, 401, 403, 404, 405, 406, 409, 411, 413, 415, 418, 422, 431, 451)
        ],
        *[(status, RETRY) for status in (408, 425, 429, 500, 501, 502, 503, 504, 522, 599)],
        *[(status, RETRY) for status in (100, 199, 600, 999)],
        (410, GONE),
    ],
)
def test_each_status_has_one_meaning(status, verdict):
    outcome = classify(status, {}, b"", digest="d")
    assert (outcome.verdict, outcome.status, outcome.retry_after, outcome.digest) == (
        verdict,
        status,
        None,
        "d",
    )
    assert str(status) in outcome.detail and ("redirect" in outcome.detail) == (300 <= status < 400)


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        (b'{"err":"invalid_key","description":"Key ID 12345 has been revoked."}', KEY),
        (b'{"err":"authentication_failed"}', KEY),
        (b'{"err":"invalid_request"}', REFUSED),
        (b'{"err":"invalid_issuer"}', REFUSED),
        (b'{"err":"invalid_audience"}', REFUSED),
        (b'{"err":"access_denied"}', REFUSED),
        (b'{"err":["invalid_key"]}', REFUSED),
        (b'["invalid_key"]', REFUSED),
        (b'"invalid_key"', REFUSED),
        (b"[" * 60_000, REFUSED),
        (b"\xff\xfe", REFUSED),
        (b"", REFUSED),
    ],
)
def test_a_400_is_read_for_its_err(body, verdict):
    assert classify(400, {}, body).verdict == verdict


def test_err_counts_only_with_400_and_strange_words_are_not_kept():
    assert classify(403, {}, b'{"err":"invalid_key"}').verdict == REFUSED
    assert classify(500, {}, b'{"err":"invalid_key"}').verdict == RETRY
    assert classify(400, {}, b'{"err":"<script>"}').detail == "HTTP 400"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("3600", 3600),
        ("99999", 3600),
        ("9" * 5_000, 3600),
        ("0" * 20 + "99", 99),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("١٢٠", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), 0),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), 3600),
        ("Sun, 22 Nov 2026 03:11:01 -0000", 60),
        ("Sun, 99 Nov 2026 03:11:01 GMT", None),
    ],
)
@pytest.mark.parametrize("name", ["Retry-After", "retry-after"])
def test_retry_after_is_honoured_up_to_an_hour(name, value, seconds):
    for status in (429, 503):
        assert classify(status, {name: value}, b"", now=SECONDS).retry_after == seconds
    assert classify(404, {name: value}, b"", now=SECONDS).retry_after is None


def attempt(settings, handler, message=MESSAGE, total=2.0):
    async def run():
        async with serving(handler) as port, outbound.open_session() as session:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            endpoint = Endpoint(f"{settings.SANDBOX_URL}/MD0001/hooks/consent", SECRETS)
            return await native.send(session, message=message, endpoint=endpoint, now=SECONDS, total=total)

    return asyncio.run(run())


def test_the_stored_bytes_arrive_signed_for_this_attempt(settings):
    seen = {}

    async def hook(request):
        seen.update(headers=request.headers, body=await request.read(), path=request.path)
        return web.Response(body=b"thanks")

    outcome = attempt(settings, hook)
    assert outcome.verdict == SENT and outcome.status == 200 and len(outcome.digest) == 64
    assert seen["body"] == MESSAGE.body and seen["headers"]["Content-Type"] == "application/json"
    assert seen["headers"]["webhook-id"] == MESSAGE.jti
    assert seen["headers"]["webhook-timestamp"] == str(SECONDS)
    for secret in SECRETS:
        signing.verify_webhook(seen["headers"], seen["body"], secrets=[secret], now=SECONDS)
    signing.verify_webhook(
        seen["headers"],
        seen["body"],
        secrets=[],
        public_key=signing.webhook_public_key(),
        now=SECONDS,
    )
    # v1a by the standard's own rule, which no library of it checks: Ed25519 over id, moment and body
    line = seen["headers"]["webhook-signature"].rpartition(" v1a,")[2]
    public = base64.b64decode(signing.webhook_public_key().removeprefix("whpk_"), validate=True)
    content = f"{MESSAGE.jti}.{SECONDS}.".encode() + MESSAGE.body
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(line, validate=True), content)
    only_hmac = {
        **seen["headers"],
        "webhook-signature": seen["headers"]["webhook-signature"].split(" v1a,")[0],
    }
    with time_machine.travel(NOW):
        standardwebhooks.Webhook(SECRETS[1]).verify(seen["body"], only_hmac, json_parse=False)


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (204, "", SENT),
        (410, "", GONE),
        (401, "", REFUSED),
        (400, '{"err":"invalid_key"}', KEY),
        (503, "", RETRY),
    ],
)
def test_an_answer_becomes_an_outcome(settings, status, body, verdict):
    async def hook(request):
        return web.Response(status=status, text=body, headers={"Retry-After": "7"})

    outcome = attempt(settings, hook)
    assert (outcome.verdict, outcome.status) == (verdict, status)
    assert outcome.retry_after == (7 if verdict == RETRY else None)


def test_a_silent_receiver_is_tried_again(settings):
    async def hook(request):
        await asyncio.sleep(30)

    assert attempt(settings, hook, total=0.3) == Outcome(RETRY, detail="timeout")


def test_a_receiver_that_hangs_up_is_tried_again(settings):
    async def hook(request):
        request.transport.abort()

    assert attempt(settings, hook) == Outcome(RETRY, detail="connection")


@pytest.mark.parametrize("address", ["https://127.0.0.1/", "http://md0001.example/", "", "https://[::1]/"])
def test_a_forbidden_address_is_blocked_not_tried_again(address):
    async def run():
        async with outbound.open_session() as session:
            return await native.send(
                session, message=MESSAGE, endpoint=Endpoint(address, SECRETS), now=SECONDS
            )

    outcome = asyncio.run(run())
    assert outcome.verdict == BLOCKED and outcome.status is None and outcome.detail


def test_a_secret_is_not_in_the_text_of_an_endpoint():
    assert "secret" not in repr(Endpoint("https://md0001.example/", [b"very secret"]))


@pytest.mark.parametrize(
    ("answer", "verdict"), [("{state}", SENT), ("other", REFUSED), ("[]", REFUSED), ("", REFUSED)]
)
def test_a_challenge_wants_its_state_back(settings, answer, verdict):
    async def hook(request):
        body = json.loads(await request.read())
        signing.verify_webhook(request.headers, await request.read(), secrets=SECRETS[:1], now=SECONDS)
        assert body["type"] == "verification" and body["timestamp"] == "2026-11-22T03:10:01Z"
        if answer == "{state}":
            return web.json_response({"state": body["data"]["state"]})
        return web.Response(text=answer)

    async def run():
        async with serving(hook) as port, outbound.open_session() as session:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            endpoint = Endpoint(f"{settings.SANDBOX_URL}/", SECRETS)
            return await native.challenge(session, jti="c-1", state="random", endpoint=endpoint, now=SECONDS)

    assert asyncio.run(run()).verdict == verdict


# --- several at once -----------------------------------------------------------------------------------------------------------


def letters(count):
    return [
        Message(
            f"01a2013b-6740-7a01-8f00-{n:012d}", f'{{"data":{{"jti":"{n}","set":"x"}},"type":"값"}}'.encode()
        )
        for n in range(count)
    ]


def offer(settings, handler, messages, total=2.0):
    """What came of each, by its place; and the requests."""
    requests = []

    async def hook(request):
        body = await request.read()
        requests.append((dict(request.headers), body))
        return await handler(json.loads(body)) if handler else web.Response()

    async def run():
        async with serving(hook) as port, outbound.open_session() as session:
            settings.SANDBOX_URL = f"http://127.0.0.1:{port}"
            endpoint = Endpoint(f"{settings.SANDBOX_URL}/MD0001/hooks/consent", SECRETS)
            return await native.send_together(
                session, messages=messages, endpoint=endpoint, now=SECONDS, total=total
            )

    outcomes = asyncio.run(run())
    assert list(outcomes) == [message.jti for message in messages]
    return [outcomes[message.jti] for message in messages], requests


def test_one_request_carries_the_stored_messages_under_one_signature(settings):
    messages = letters(3)
    outcomes, [(headers, body)] = offer(settings, None, messages)
    assert {outcome.verdict for outcome in outcomes} == {SENT}
    signing.verify_webhook(headers, body, secrets=[SECRETS[0]], now=SECONDS)
    assert headers["webhook-id"] not in {message.jti for message in messages}
    whole = json.loads(body)
    assert (whole["type"], whole["timestamp"]) == ("batch", "2026-11-22T03:10:01Z")
    assert whole["data"]["messages"] == [json.loads(message.body) for message in messages]
    assert all(message.body in body for message in messages), "each byte for byte as it was stored"


def test_the_answer_names_what_is_there_and_what_is_refused(settings):
    messages = letters(5)
    ids = [message.jti for message in messages]
    answer = {
        "ack": [ids[0], ids[1], "somebody else's", 7],
        "setErrs": {
            ids[1]: {"err": "invalid_request", "description": "x"}, ids[2]: {"err": "invalid_key"}, ids[3]: "odd",
        },
    }  # fmt: skip

    async def handler(_body):
        return web.json_response(answer)

    outcomes, _ = offer(settings, handler, messages)
    assert [outcome.verdict for outcome in outcomes] == [RECEIVED, REFUSED, KEY, REFUSED, SENT]


@pytest.mark.parametrize("answer", ["", "[]", "null", '{"ack":"x","setErrs":[]}', "{", '{"ack":[[]]}'])
def test_an_answer_that_names_nothing_leaves_them_sent(settings, answer):
    async def handler(_body):
        return web.Response(text=answer)

    outcomes, _ = offer(settings, handler, letters(2))
    assert [outcome.verdict for outcome in outcomes] == [SENT, SENT]


def test_one_message_may_be_acknowledged_in_the_answer_too(settings):
    async def hook(request):
        return web.json_response({"ack": [request.headers["webhook-id"]]})

    assert attempt(settings, hook).verdict == RECEIVED


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_is_refused_whole_for_its_content_is_divided_until_it_is_known_which(settings, status):
    messages = letters(9)

    async def handler(body):
        several = body["data"].get("messages", [body])
        bad = any(one["data"]["jti"] == "6" for one in several)
        if bad:
            return web.Response(status=status)
        return web.json_response({"ack": [messages[int(one["data"]["jti"])].jti for one in several]})

    outcomes, requests = offer(settings, handler, messages)
    assert [outcome.verdict for outcome in outcomes] == [RECEIVED] * 6 + [REFUSED] + [RECEIVED] * 2
    assert len(requests) <= 9


@pytest.mark.parametrize(
    ("status", "verdict"), [(401, REFUSED), (404, REFUSED), (410, GONE), (429, RETRY), (503, RETRY)]
)
def test_what_is_about_the_address_holds_for_each(settings, status, verdict):
    async def handler(_body):
        return web.Response(status=status)

    outcomes, requests = offer(settings, handler, letters(4))
    assert [outcome.verdict for outcome in outcomes] == [verdict] * 4 and len(requests) == 1


def test_a_server_that_takes_long_to_refuse_is_not_divided_without_end(settings):
    async def handler(_body):
        await asyncio.sleep(0.15)
        return web.Response(status=400)

    begun = time.monotonic()
    outcomes, requests = offer(settings, handler, letters(64), total=0.5)
    assert time.monotonic() - begun < 2 and len(requests) <= 4, "no longer than one request may take"
    assert {outcome.verdict for outcome in outcomes} == {RETRY}


@pytest.mark.parametrize(
    "given", ["0", "101", "-1", "1.0", "", " 5", "050", "0000000019999", "١", "9" * 5_000]
)
def test_together_is_a_number_from_one_to_a_hundred(given):
    with pytest.raises(ValueError):
        native.together({"together": given})


def test_who_says_nothing_gets_them_one_by_one():
    assert (native.together({}), native.together({"together": "100"})) == (1, 100)
