"""The trials of the gym: messages, right ones and wrong ones made on purpose, that an organization's server must take or
refuse. Sends and judges; keeps nothing.

A trial message is a whole message of the protocol with an event type of its own, `trial` (in the SET `…/secevent/trial`),
about a subscription and a subject that nobody has: a receiver checks and acknowledges it like any other and does nothing
else. So it can never be taken for an act of a person, nor an act for a trial.
"""

import asyncio
import base64
import datetime
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from joserfc import jws
from joserfc.jwk import ECKey

from consents import messages, routes
from providers import outbound, signing
from providers.models import Channel
from providers.wires import CHECK, KEY, RECEIVED, REFUSED, SENT, Message, Outcome, Reference

log = structlog.get_logger(__name__)

TRIAL = "trial"
ANSWER_SECONDS = 10.0  # for one answer
SLOW_SECONDS = 30.0  # for the body of the slow trial
SLOW_ANSWER_SECONDS = 15.0  # after the body has ended
SLOW_PIECES = 10
SKEW = 600  # seconds; the receiver allows 300 (Standard Webhooks 1.0.0)
NOBODY = "nobody"  # an audience that no organization is

# How a trial ended. Empty: as it should.
UNREACHABLE, NOT_TAKEN, TAKEN, NO_REFUSAL, HUNG = "unreachable", "not_taken", "taken", "no_refusal", "hung"
NO_ACK, NO_RETRY, FORGERY_ACKED, NO_STATE = "no_ack", "no_retry", "forgery_acked", "no_state"
NO_CREDENTIAL, NOT_NAMED, FAILED, DIED = "no_credential", "not_named", "failed", "died"


@dataclass(frozen=True)
class Answer:
    """One answer: HTTP status, milliseconds; `problem` is one word where none came (as in outbound.Unreachable, or
    `blocked`)."""

    status: int | None
    ms: int
    problem: str = ""

    @property
    def good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300

    @property
    def refused(self) -> bool:
        return self.status is not None and 400 <= self.status < 500 and self.status not in {408, 429}


@dataclass(frozen=True)
class Result:
    """What came of one trial. `passed` None: it does not apply here."""

    name: str
    passed: bool | None
    finding: str = ""
    answers: tuple[Answer, ...] = ()

    def as_json(self) -> dict:
        answers = [
            {"status": answer.status, "ms": answer.ms, "problem": answer.problem} for answer in self.answers
        ]
        return {"name": self.name, "passed": self.passed, "detail": self.finding, "answers": answers}


@dataclass(frozen=True)
class Bout:
    """Everything a run needs to know of the one who is tried. `ids` are the message ids of each trial."""

    channel: Channel
    route: routes.Route
    service: str
    ids: dict[str, list[uuid.UUID]]
    clock: Callable[[], datetime.datetime]
    session: outbound.Session | None = None
    subscription: uuid.UUID = field(default_factory=messages.new_id)

    @property
    def native(self) -> bool:
        return self.channel.protocol == Channel.Protocol.NATIVE

    def now(self) -> int:
        return int(self.clock().timestamp())


# --- messages ----------------------------------------------------------------------------------------------------------


def letter(
    bout: Bout, jti: uuid.UUID, *, version: int = 1, forge: str = "", event: str = TRIAL, references=()
) -> Message:
    """A message to the one who is tried. `forge`: `alg_none` (an unsigned SET), `unknown_key` (signed by nobody we know),
    `wrong_signature` (changed after it was signed), `wrong_aud` (for somebody else)."""
    at = bout.clock()
    txn = str(messages.new_id())
    facts = {
        "subscription": str(bout.subscription),
        "subject": str(uuid.uuid4()),
        "service": bout.service,
        "consents": [],
        "reason": "",
        "role": "operator",
        "delete_data": False,
        "effective_at": messages.instant(at),
        "complete_by": messages.instant(at),
        "version": version,
    }
    claims = {
        "iss": settings.PORTAL_URL,
        "aud": NOBODY if forge == "wrong_aud" else bout.channel.organization.code,
        "iat": int(at.timestamp()),
        "jti": str(jti),
        "txn": txn,
        "toe": int(at.timestamp()),
        "sub_id": {"format": "opaque", "id": facts["subscription"]},
        "events": {f"{settings.PORTAL_URL}/secevent/{event}": facts},
    }
    body = {
        "type": event,
        "timestamp": messages.instant(at),
        "data": {"txn": txn, "jti": str(jti), **facts, "set": _set(claims, forge)},
    }
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return Message(str(jti), text.encode(), tuple(references))


def _set(claims: dict, forge: str) -> str:
    if forge == "alg_none":
        head = {"alg": "none", "typ": signing.SET_TYP}
        return f"{_base64url(head)}.{_base64url(claims)}."
    if forge == "unknown_key":
        key = ECKey.generate_key("P-256")
        head = {"alg": "ES256", "kid": key.thumbprint(), "typ": signing.SET_TYP}
        return jws.serialize_compact(head, json.dumps(claims).encode(), key, algorithms=["ES256"])
    if forge == "wrong_signature":
        first, _payload, signature = signing.sign_set(claims).split(".")
        return f"{first}.{_base64url(claims | {'txn': str(uuid.uuid4())})}.{signature}"
    return signing.sign_set(claims)


def _base64url(content: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode("ascii")


def _request(bout: Bout, message: Message, *, forge: str = "", skew: int = 0) -> tuple[dict[str, str], bytes]:
    """Headers and body as the protocol has them, the headers of a native message wrong where `forge` or `skew` want it."""
    if not bout.native:
        headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json"}
        if bout.route.endpoint.credential:
            headers["Authorization"] = f"Bearer {bout.route.endpoint.credential}"
        return headers, message.set_compact.encode("ascii")
    own = [secrets.token_bytes(32)] if forge == "unknown_key" else bout.route.endpoint.secrets
    timestamp = bout.now() + skew
    headers = signing.webhook_headers(
        message_id=message.jti, timestamp=timestamp, body=message.body, secrets=own
    )
    body = message.body
    if forge == "unknown_key":
        foreign = Ed25519PrivateKey.generate().sign(f"{message.jti}.{timestamp}.".encode() + body)
        genuine = headers["webhook-signature"].partition(" v1a,")[0]
        headers["webhook-signature"] = f"{genuine} v1a,{base64.b64encode(foreign).decode('ascii')}"
    elif forge == "wrong_signature":
        body = body.replace(b'"version":1', b'"version":7')
    return headers | {"Content-Type": "application/json"}, body


async def _offer(
    bout: Bout, message: Message, *, forge: str = "", skew: int = 0, slow: float = 0.0
) -> Answer:
    headers, body = _request(bout, message, forge=forge, skew=skew)
    total: float = ANSWER_SECONDS
    content: bytes | AsyncIterator[bytes] = body
    if slow:
        headers["Content-Length"] = str(len(body))
        total, content = slow + SLOW_ANSWER_SECONDS, _drip(body, slow)
    return await _timed(
        outbound.send(
            _open(bout), method="POST", url=bout.channel.address, headers=headers, body=content, total=total
        )
    )


async def _drip(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = len(body) // SLOW_PIECES + 1
    for start in range(0, len(body), size):
        await asyncio.sleep(seconds / SLOW_PIECES)
        yield body[start : start + size]


def _open(bout: Bout) -> outbound.Session:
    assert bout.session is not None, "a bout is fought inside run()"
    return bout.session


async def _timed(asked: Awaitable[outbound.Reply | Outcome]) -> Answer:
    began = time.monotonic()
    status, problem = None, ""
    try:
        reply = await asked
        status = reply.status
        problem = "" if status is not None or isinstance(reply, outbound.Reply) else reply.detail[:40]
    except outbound.Refused:
        problem = "blocked"
    except outbound.Unreachable as failure:
        problem = failure.reason
    return Answer(status, round((time.monotonic() - began) * 1000), problem)


# --- what is tried -----------------------------------------------------------------------------------------------------


async def _handshake(bout: Bout) -> Result:
    """The verification event with a random state, as before a channel is used and once a day afterwards."""
    outcomes: list[Outcome] = []

    async def challenged() -> Outcome:
        outcomes.append(
            await bout.route.wire.challenge(
                _open(bout), jti=str(bout.ids["handshake"][0]), state=secrets.token_urlsafe(32),
                endpoint=bout.route.endpoint, now=bout.now(), total=ANSWER_SECONDS,
            )
        )  # fmt: skip
        return outcomes[0]

    answer = await _timed(challenged())
    if outcomes and outcomes[0].verdict == SENT:
        return Result("handshake", True, "", (answer,))
    finding = NO_STATE if answer.good else _not_taken([answer])
    return Result("handshake", False, finding, (answer,))


def _takes(name: str, count: int = 1) -> Callable[[Bout], Awaitable[Result]]:
    """The same message, `count` times one after the other, must be taken each time."""

    async def trial(bout: Bout) -> Result:
        message = letter(bout, bout.ids[name][0])
        answers = [await _offer(bout, message) for _ in range(count)]
        return Result(name, all(answer.good for answer in answers), _not_taken(answers), tuple(answers))

    return trial


async def _parallel(bout: Bout) -> Result:
    """Twice in the same moment. One may be asked to come again (429, 503), none may fail."""
    message = letter(bout, bout.ids["parallel"][0])
    answers = await asyncio.gather(_offer(bout, message), _offer(bout, message))
    fine = any(answer.good for answer in answers) and all(
        answer.good or answer.status in {429, 503} for answer in answers
    )
    return Result("parallel", fine, "" if fine else _not_taken(answers), tuple(answers))


async def _order(bout: Bout) -> Result:
    """Version 2 of a subscription, then version 1: both are taken, the second has nothing to say any more."""
    first, second = bout.ids["order"]
    answers = [
        await _offer(bout, letter(bout, first, version=2)),
        await _offer(bout, letter(bout, second, version=1)),
    ]
    return Result("order", all(answer.good for answer in answers), _not_taken(answers), tuple(answers))


async def _together(bout: Bout) -> Result:
    """Three messages in one request, the last of them forged: the request is taken, and the answer names no other than the two
    good ones as received; both of them, where it names any."""
    *good, forged = bout.ids["together"]
    letters = [letter(bout, jti) for jti in good] + [letter(bout, forged, forge="wrong_signature")]
    outcomes: dict[str, Outcome] = {}

    async def asked() -> Outcome:
        outcomes.update(
            await bout.route.wire.send_together(
                _open(bout),
                messages=letters,
                endpoint=bout.route.endpoint,
                now=bout.now(),
                total=ANSWER_SECONDS,
                divide=False,
            )
        )
        return outcomes[str(good[0])]

    answer = await _timed(asked())
    verdicts = [outcomes[str(jti)].verdict for jti in good] if outcomes else []
    if not verdicts or set(verdicts) - {SENT, RECEIVED}:
        return Result("together", False, _not_taken([answer]) or NOT_TAKEN, (answer,))
    fooled = outcomes[str(forged)].verdict == RECEIVED
    finding = FORGERY_ACKED if fooled else NOT_NAMED if len(set(verdicts)) > 1 else ""
    return Result("together", not finding, finding, (answer,))


def _refuses(name: str, *, skew: int = 0) -> Callable[[Bout], Awaitable[Result]]:
    """What is wrong must be answered 4xx. Whether it had an effect all the same is seen by acknowledgements."""

    async def trial(bout: Bout) -> Result:
        # Natively the request's own signature is forged; the SET inside only where the trial is about it.
        inside = "" if bout.native and name in {"wrong_signature", "unknown_key"} else name
        message = letter(bout, bout.ids[name][0], forge=inside)
        answer = await _offer(bout, message, forge=name, skew=skew)
        if answer.refused:
            return Result(name, True, "", (answer,))
        finding = UNREACHABLE if answer.status is None else TAKEN if answer.good else NO_REFUSAL
        return Result(name, False, finding, (answer,))

    return trial


async def _slow(bout: Bout) -> Result:
    """The body drips in. Taking it, refusing it and hanging up are all fine; not answering at all is not."""
    answer = await _offer(bout, letter(bout, bout.ids["slow"][0]), slow=SLOW_SECONDS)
    closed = answer.status is None and answer.problem in {"connection", "protocol"}
    fine = closed or (answer.status is not None and answer.status < 500)
    finding = "" if fine else HUNG if answer.problem == "timeout" else _not_taken([answer])
    return Result("slow", fine, finding, (answer,))


def _asks(name: str, *, stranger: bool) -> Callable[[Bout], Awaitable[Result]]:
    """A protocol in which we end something by its name over there: a name that nobody has, with our credential or with an
    invented one."""

    async def trial(bout: Bout) -> Result:
        kind = REFERENCES[bout.channel.protocol]
        invented = Reference(kind, f"gym-{secrets.token_urlsafe(12)}")
        message = letter(bout, bout.ids[name][0], event=messages.SUBSCRIPTION_ENDED, references=[invented])
        endpoint = bout.route.endpoint
        if stranger:
            endpoint = replace(endpoint, credential=f"gym{secrets.token_hex(16)}")
        outcomes: list[Outcome] = []

        async def asked() -> Outcome:
            outcomes.append(
                await bout.route.wire.send(
                    _open(bout), message=message, endpoint=endpoint, now=bout.now(), total=ANSWER_SECONDS
                )
            )
            return outcomes[0]

        answer = await _timed(asked())
        verdict = outcomes[0].verdict if outcomes else ""
        if stranger:
            fine = verdict == KEY or (verdict == REFUSED and answer.status in {400, 401, 403})
            finding = "" if fine else TAKEN if answer.good else _not_taken([answer])
        else:
            fine = verdict in {SENT, CHECK}
            finding = "" if fine else NO_CREDENTIAL if verdict == KEY else _not_taken([answer])
        return Result(name, fine, finding, (answer,))

    return trial


def _not_taken(answers: Iterable[Answer]) -> str:
    """Why a message that had to be taken was not; empty if it was."""
    if all(answer.good for answer in answers):
        return ""
    return UNREACHABLE if any(answer.status is None for answer in answers) else NOT_TAKEN


REFERENCES: dict[str, str] = {
    Channel.Protocol.KOREA: "provision",
    Channel.Protocol.REVOCATION: "token",
    Channel.Protocol.GRANTS: "grant",
    Channel.Protocol.CDR: "arrangement",
    Channel.Protocol.UK: "consent",
}
FORGED = ("wrong_signature", "unknown_key", "early", "late", "alg_none", "wrong_aud")
_SETS: dict[str, Callable[[Bout], Awaitable[Result]]] = {
    "handshake": _handshake,
    "good": _takes("good"),
    "wrong_signature": _refuses("wrong_signature"),
    "unknown_key": _refuses("unknown_key"),
    "early": _refuses("early", skew=SKEW),
    "late": _refuses("late", skew=-SKEW),
    "alg_none": _refuses("alg_none"),
    "wrong_aud": _refuses("wrong_aud"),
    "replay": _takes("replay", 2),
    "parallel": _parallel,
    "order": _order,
    "storm": _takes("storm"),
    "slow": _slow,
}
_ACTS = {
    **_SETS,
    "together": _together,
    "unknown": _asks("unknown", stranger=False),
    "stranger": _asks("stranger", stranger=True),
}


def names(protocol: str, details: Mapping[str, str] | None = None) -> list[str]:
    """The trials of a protocol with these settings, in order; none where nothing of the other side is called, or where we
    carry nothing."""
    if protocol not in routes.WIRES:
        return []
    if protocol == Channel.Protocol.NATIVE:
        return [*_SETS, "together"] if routes.together(protocol, details or {}) > 1 else list(_SETS)
    if protocol == Channel.Protocol.PUSH:  # the moment of an attempt is not part of RFC 8935
        return [name for name in _SETS if name not in {"early", "late"}]
    if protocol == Channel.Protocol.CDR:  # signed with our key, not with a credential
        return ["unknown"]
    return ["unknown", "stranger"] if protocol in REFERENCES else []


def ids(protocol: str, details: Mapping[str, str] | None = None) -> dict[str, list[uuid.UUID]]:
    """Fresh message ids for each trial of a protocol with these settings."""
    many = {"order": 2, "together": 3}
    return {name: [messages.new_id() for _ in range(many.get(name, 1))] for name in names(protocol, details)}


async def run(bout: Bout, tell: Callable[[Result], None], *, limit: float) -> None:
    """Fight all trials, telling each result as it comes; the slow one beside the others, which shows whether it keeps them
    from being answered. After `limit` seconds what is left is not tried any more."""
    slow, rest = [name for name in bout.ids if name == "slow"], [name for name in bout.ids if name != "slow"]
    try:
        async with asyncio.timeout(limit), outbound.open_session() as session, asyncio.TaskGroup() as group:
            bout = replace(bout, session=session)
            group.create_task(_fight(bout, slow, tell))
            group.create_task(_fight(bout, rest, tell))
    except TimeoutError:
        log.warning("the gym's time is over", organization=bout.channel.organization.code)


async def _fight(bout: Bout, wanted: list[str], tell: Callable[[Result], None]) -> None:
    for place, name in enumerate(wanted):
        result = await _one(bout, name)
        tell(result)
        if (
            name == "handshake" and result.finding == UNREACHABLE
        ):  # nobody is there: the rest would only take time
            for other in wanted[place + 1 :]:
                tell(Result(other, False, UNREACHABLE))
            return


async def _one(bout: Bout, name: str) -> Result:
    try:
        return await _ACTS[name](bout)
    except Exception:  # whatever goes wrong here is no pass
        log.exception("a trial failed", trial=name, organization=bout.channel.organization.code)
        return Result(name, False, FAILED)
