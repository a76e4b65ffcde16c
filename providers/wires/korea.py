"""The Korean wire: stops, read-backs and listings over the MyData support API (지원-101…107) and 전송요구-003…005.

A third-party consent is ended by 지원-107 with the operator's own number of it (reference `provision`), a transfer request by
전송요구-004 with its transaction (reference `request`, tx_id) and the person's CI (reference `ci`, never logged). Both only
take the stop; what became of it is read from 지원-105, from 지원-103, and asked for again by 전송요구-005. None of their answers
is signed, so each Outcome, Reading and Listing carries the digest of what was read. Settings: korea_line.DETAILS.
"""

import asyncio
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from providers import outbound
from providers.plainjson import strict_json
from providers.wires import (
    ABSENT,
    ACTIVE,
    BLOCKED,
    CHECK,
    GONE,
    KEY,
    REFUSED,
    RETRY,
    SENT,
    STOPPED,
    STOPPING,
    UNKNOWN,
    BadInbound,
    Endpoint,
    Inbound,
    Message,
    Outcome,
    Reading,
    Reference,
    classify,
)
from providers.wires.asking import ENDS, WHOLE
from providers.wires.korea_fields import AVAILABILITY, FIELDS, UP, moment, problem
from providers.wires.korea_line import DETAILS, Answer, Visit, digest_of, forget_tokens, given_id, tran_id
from providers.wires.korea_lists import (
    CI,
    STATES,
    Provision,
    Provisions,
    flows,
    list_remote,
    provisions,
    services,
    the_ci,
)

__all__ = [
    "DETAILS", "FIELDS", "Provision", "Provisions", "ask_again", "forget_tokens", "list_remote",
    "provisions", "read_back", "send", "tran_id", "verify_inbound",
]  # fmt: skip

PROVISION, REQUEST = "provision", "request"  # kinds of references: prov_consent_num, tx_id
CARRIES = ENDS | {"erasure-requested"}
MOST_CALLS = 100  # for one message
UNSETTLED = "/v2/mgmts/consents/revoke"
NOT_EXPLAINED = "status 04 (업무완료): what it means for the data is not explained"

# Of several calls for one message, the first that occurs decides: what may still arrive is tried before a person is asked.
_DECIDES = (RETRY, BLOCKED, KEY, GONE, REFUSED, CHECK, SENT)
# Of several readings about one stop: whatever is still in force comes first.
_SAYS = (ACTIVE, UNKNOWN, STOPPING, STOPPED, ABSENT)


async def send(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Offer the stop once: one call for each thing to end, all with ids derived from the jti. SENT only if all were taken.

    What has its reference is ended even where another's is missing; then the outcome is REFUSED and names what is missing.
    `handle` is the first call's x-api-tran-id (the n-th: `tran_id(portal_code, jti, str(n))`). What is already ended over
    there, by their code, is CHECK. `now` is epoch seconds."""
    if message.event not in CARRIES:
        return Outcome(REFUSED, detail=f"the Korean API has no call for {message.event}")
    stop = _stop(message)
    calls = stop.calls(endpoint.details.get("org_code", ""))
    if len(calls) > MOST_CALLS:
        return Outcome(REFUSED, detail=f"{len(calls)} things to end are more than {MOST_CALLS}")
    visit = Visit(session, endpoint, now, total)
    unsettled = UNSETTLED if endpoint.details.get("consents_revoke") == "on" else ""
    ids = [visit.tran_id(message.jti, str(n) if n else "") for n in range(len(calls))]
    answers = await asyncio.gather(
        *(
            visit.call(name, given, tran, unsettled if name == "전송요구-004" else "")
            for (name, given), tran in zip(calls, ids, strict=True)
        )
    )
    outcomes = [answer.outcome for answer in answers]
    if stop.missing:
        outcomes.append(Outcome(REFUSED, detail=f"no reference: {', '.join(stop.missing)}"[:250]))
    outcome = min(outcomes, key=lambda one: _DECIDES.index(one.verdict))
    waits = [one.retry_after for one in outcomes if one.retry_after is not None]
    return replace(
        outcome,
        retry_after=max(waits) if waits and outcome.verdict == RETRY else None,
        digest=digest_of([one.digest for one in outcomes]),
        handle=ids[0] if ids else "",
    )


async def read_back(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Reading:
    """Ask what became of the stop: 지원-105 for third-party consents (02 stopping, 03 stopped, 04 unknown), 지원-103 for transfer
    requests. While 103 still lists one, or cannot say, they are also asked to send their result again (전송요구-005).

    At most one 105, one 103 and a 005 for each request. One thing still in force makes it ACTIVE, one unknown UNKNOWN."""
    stop, visit = _stop(message), Visit(session, endpoint, now, total)
    if not stop.ci:
        return Reading(UNKNOWN, detail=f"no reference: {CI}")
    asked = []
    if stop.provisions:
        asked.append(_third_parties(visit, message.jti, stop))
    if stop.sources is None or stop.sources:
        asked.append(_transfers(visit, message, stop))
    elif stop.requests:  # a consent that no list shows, such as one to use data
        asked.append(_again(visit, message.jti, stop))
    if not asked:
        return Reading(UNKNOWN, detail="nothing with a reference to ask about")
    readings = await asyncio.gather(*asked)
    reading = min(readings, key=lambda one: _SAYS.index(one.says))
    return replace(reading, digest=digest_of([one.digest for one in readings]))


async def ask_again(
    session: outbound.Session, *, message: Message, endpoint: Endpoint, now: int, total: float = 15.0
) -> Reading:
    """전송요구-005 for each transfer request of the stop: send the result again. STOPPING where all agree to; the result itself
    arrives as 전송요구-003."""
    stop = _stop(message)
    if not stop.ci or not stop.requests:
        return Reading(UNKNOWN, detail=f"no reference: {REQUEST if stop.ci else CI}")
    return await _again(Visit(session, endpoint, now, total), message.jti, stop)


async def challenge(
    session: outbound.Session, *, jti: str, state: str, endpoint: Endpoint, now: int, total: float = 15.0
) -> Outcome:
    """Ask how they are (지원-102). The x-api-tran-id that they must repeat is made of `state`. SENT only where they say that they
    are up: who is down, or closed for maintenance, is called later."""
    visit = Visit(session, endpoint, now, total)
    answer = await visit.call("지원-102", {"org_code": visit.org_code}, visit.tran_id(jti, state))
    how = AVAILABILITY[answer.fields["availability"]] if answer.good else UP
    return answer.outcome if how == UP else replace(answer.outcome, verdict=RETRY, detail=f"they say: {how}")


def verify_inbound(
    headers: Mapping[str, str],
    body: bytes,
    *,
    endpoint: Endpoint,
    ci_of: Callable[[str], str | None] | None = None,
) -> Inbound:
    """Judge a 전송요구-003: the result of a stop. BadInbound (form, id, type, unknown, person) if it is not one.

    It is not signed: the door must have identified the organization of `endpoint` by its token or certificate before. `ci_of`
    gives the CI that belongs to a tx_id, or None. The Inbound's `jti` is their x-api-tran-id, `identifier` the tx_id, `result`
    the holder's own code and `reason` its class: `sent` is an end, `check` wants a read-back."""
    tran = given_id(headers)
    if not tran.startswith(endpoint.details.get("org_code") or "-"):
        raise BadInbound("id", "x-api-tran-id is missing, malformed or of another organization")
    try:
        given = strict_json(body)
    except ValueError as error:
        raise BadInbound("form", "not plain JSON") from error
    wrong = problem(FIELDS["전송요구-003"].request, given)
    if wrong or not isinstance(given, dict):
        raise BadInbound("form", wrong)
    if given["type"] != "02":
        raise BadInbound("type", "the result of a transfer request, not of a stop")
    if ci_of is not None:
        expected = ci_of(given["tx_id"])
        if expected is None:
            raise BadInbound("unknown", "no such transaction")
        if not hmac.compare_digest(expected.encode(), given["user_ci"].encode()):
            raise BadInbound("person", "the transaction is another person's")
    return Inbound(
        jti=tran,
        issuer=endpoint.details["org_code"],
        happened="result",
        identifier=given["tx_id"],
        reason=classify(200, {}, wire="korea", code=given["result_code"]).verdict,
        result=given["result_code"],
    )


# What a message comes to


@dataclass(frozen=True)
class _Stop:
    """What a message ends, by the other side's names in an order that never changes. `sources`: the organization codes whose
    transfers end, None for all of the service's. `missing`: references that would be needed and are not known."""

    provisions: tuple[str, ...]
    requests: tuple[str, ...]
    ci: str
    sources: frozenset[str] | None
    delete_data: bool
    missing: tuple[str, ...]

    def calls(self, org_code: str) -> list[tuple[str, dict[str, Any]]]:
        found: list[tuple[str, dict[str, Any]]] = [
            ("지원-107", {"org_code": org_code, "prov_consent_num": number}) for number in self.provisions
        ]
        for tx_id in self.requests if self.ci else ():
            found.append(
                ("전송요구-004", {"tx_id": tx_id, "user_ci": self.ci, "is_delete": self.delete_data})
            )
        return found


def _stop(message: Message) -> _Stop:
    facts, erasing = message.facts, message.event == "erasure-requested"
    consents, named = facts["consents"], {consent["id"] for consent in facts["consents"]}
    whole = message.event in WHOLE or not named

    def about(reference: Reference) -> bool:
        # A transaction of the whole subscription is no way to end one consent of it, but one to ask for erasure.
        return whole or reference.consent in named or (erasing and not reference.consent)

    requests = [one for one in message.references_of(REQUEST) if about(one)]
    # 107 ends a provision and erases nothing.
    provided = [] if erasing else [one for one in message.references_of(PROVISION) if about(one)]
    known = {one.consent for one in (*requests, *provided)}
    missing = [
        f"{PROVISION if third and not erasing else REQUEST} of consent {consent['id']}"
        for consent in consents
        for third in [consent["kind"] == "third_party"]
        if consent["id"] not in known and not (requests and _covered(consent["kind"], known, whole, erasing))
    ]
    if not consents and not known:
        missing.append(REQUEST)
    ci = the_ci(message.references)
    if requests and not ci:
        missing.append(CI)
    transfers = [consent["source"] for consent in consents if consent["kind"] == "transfer"]
    return _Stop(
        provisions=tuple(sorted({one.identifier for one in provided})),
        requests=tuple(sorted({one.identifier for one in requests})),
        ci=ci,
        sources=None if whole else frozenset(transfers),
        delete_data=bool(facts.get("delete_data")),
        missing=tuple(missing),
    )


def _covered(kind: str, known: set[str], whole: bool, erasing: bool) -> bool:
    """Whether some other transaction of the stop also ends a consent that has none of its own: with the whole subscription
    goes what the operator itself does with the data, and a transaction of the whole covers each transfer."""
    if erasing:
        return kind != "transfer" or "" in known
    return whole and (kind in {"use", "marketing"} or (kind == "transfer" and "" in known))


# What answers say


async def _third_parties(visit: Visit, jti: str, stop: _Stop) -> Reading:
    given = {"org_code": visit.org_code, "user_ci": stop.ci}
    answer = await visit.call("지원-105", given, visit.tran_id(jti, f"105 {visit.now}"))
    if not answer.good:
        return _unknown(answer)
    rows = answer.fields.get("prov_consent_list") or []
    found = [
        row for row in rows if row["prov_consent_num"] in stop.provisions
    ]  # a number may stand there twice
    missing = set(stop.provisions) - {row["prov_consent_num"] for row in found}
    readings = [_status(row, answer) for row in (*found, *[None] * len(missing))]
    return min(readings, key=lambda one: _SAYS.index(one.says))


def _status(row: Mapping[str, Any] | None, answer: Answer) -> Reading:
    status, digest = answer.outcome.status, answer.outcome.digest
    if row is None:
        return Reading(ABSENT, status, "지원-105 does not list it", digest)
    code, at = row["prov_consent_status"], moment(row.get("prov_revoke_dtime") or "")
    detail = NOT_EXPLAINED if code == "04" else f"지원-105 status {code}"
    return Reading(STATES[code], status, detail, digest, int(at.timestamp()) if at and code == "03" else None)


async def _transfers(visit: Visit, message: Message, stop: _Stop) -> Reading:
    given = {"org_code": visit.org_code, "user_ci": stop.ci}
    answer = await visit.call("지원-103", given, visit.tran_id(message.jti, f"103 {visit.now}"))
    reading = _listed(answer, message.facts["service"], stop.sources) if answer.good else _unknown(answer)
    if reading.says not in {ACTIVE, UNKNOWN} or not stop.requests:
        return reading
    # What they list counts; that a result is on its way is noted and changes nothing.
    again = await _again(visit, message.jti, stop)
    digest = digest_of([reading.digest, again.digest])
    return replace(reading, detail=f"{reading.detail}; {again.detail}"[:250], digest=digest)


def _listed(answer: Answer, client_id: str, sources: frozenset[str] | None) -> Reading:
    """지원-103 lists only what is in force."""
    status, digest = answer.outcome.status, answer.outcome.digest
    if not answer.fields["is_member"]:
        return Reading(ABSENT, status, "지원-103: not a member", digest)
    rows = [
        row
        for service in services(answer)
        if service["client_id"] == client_id
        for row in service.get("consent_list") or []
        if sources is None or row["org_code"] in sources
    ]
    since = max((row["consent_date"] for row in rows if flows(row)), default="")
    if since:
        return Reading(ACTIVE, status, f"지원-103 lists it as valid, given on {since}", digest)
    if rows:
        return Reading(STOPPED, status, "지원-103: only the list of products is left in its scope", digest)
    return Reading(ABSENT, status, "지원-103 does not list it", digest)


async def _again(visit: Visit, jti: str, stop: _Stop) -> Reading:
    answers = await asyncio.gather(
        *(
            visit.call(
                "전송요구-005",
                {"type": "02", "tx_id": tx_id, "user_ci": stop.ci},
                visit.tran_id(jti, f"005 {visit.now} {n}"),
            )
            for n, tx_id in enumerate(stop.requests[:MOST_CALLS])
        )
    )
    worst = next((answer for answer in answers if not answer.good), answers[0])
    reading = _unknown(worst)
    if worst.good:
        reading = replace(reading, says=STOPPING, detail="전송요구-005: the result will be sent again")
    return replace(reading, digest=digest_of([answer.outcome.digest for answer in answers]))


def _unknown(answer: Answer) -> Reading:
    outcome = answer.outcome
    return Reading(UNKNOWN, outcome.status, outcome.detail, outcome.digest)
