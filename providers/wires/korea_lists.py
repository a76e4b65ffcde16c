"""What a Korean organization says it holds of a person, what really went to third parties, and whether it is up."""

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from providers import outbound
from providers.wires import ACTIVE, STOPPED, STOPPING, UNKNOWN, Endpoint, Listing, Reference, RemoteConsent
from providers.wires.korea_fields import MOST_ROWS, dtime, moment
from providers.wires.korea_line import Answer, Visit, digest_of

CI = "ci"  # kind of reference: the person's CI
MOST_PAGES = 20
STATES = {"01": ACTIVE, "02": STOPPING, "03": STOPPED, "04": UNKNOWN}  # prov_consent_status


async def list_remote(
    session: outbound.Session,
    *,
    references: Sequence[Reference],
    endpoint: Endpoint,
    now: int,
    total: float = 15.0,
) -> Listing:
    """What they hold of the person whose CI is among `references`: transfer requests in force (지원-103), whose identifier is
    `client_id:org_code`, and third-party consents in every state (지원-105), whose identifier is prov_consent_num.

    Against an organization with version v1 only 103 is asked, because 105 exists since v2."""
    ci = the_ci(references)
    if not ci:
        return Listing(False, detail="no reference: ci")
    visit, jti = Visit(session, endpoint, now, total), uuid.uuid4().hex
    asked = [visit.call("지원-103", {"org_code": visit.org_code, "user_ci": ci}, visit.tran_id(jti, "103"))]
    kinds = {"transfer"}
    if endpoint.details.get("version") != "v1":
        kinds.add("third_party")
        asked.append(
            visit.call("지원-105", {"org_code": visit.org_code, "user_ci": ci}, visit.tran_id(jti, "105"))
        )
    answers = await asyncio.gather(*asked)
    consents = [one for service in services(answers[0]) for one in _held(service)]
    consents += [
        _provided(row) for answer in answers[1:] for row in answer.fields.get("prov_consent_list") or []
    ]
    worst = next((answer.outcome for answer in answers if not answer.good), answers[0].outcome)
    return Listing(
        complete=all(answer.good for answer in answers),
        consents=tuple(consents),
        status=worst.status,
        detail=worst.detail,
        digest=digest_of([answer.outcome.digest for answer in answers]),
        kinds=frozenset(kinds),
    )


@dataclass(frozen=True)
class Provision:
    """One time that data really went to a third party (지원-106). `at` is epoch seconds, `source` an organization code."""

    at: int
    source: str
    recipient: str
    purpose: str
    asset: str
    is_reward: bool


@dataclass(frozen=True)
class Provisions:
    """The provisions of one consent. Where `complete` is False, there may be others than these."""

    complete: bool
    rows: tuple[Provision, ...] = ()
    status: int | None = None
    detail: str = ""
    digest: str = ""

    @property
    def last_at(self) -> int | None:
        """When data last flowed, as far as was read."""
        return max((row.at for row in self.rows), default=None)


async def provisions(
    session: outbound.Session,
    *,
    number: str,
    endpoint: Endpoint,
    from_at: int,
    to_at: int,
    now: int,
    limit: int = 100,
    total: float = 30.0,
) -> Provisions:
    """What really went to the third party under the consent `number` from `from_at` to `to_at` (epoch seconds): 지원-106 page by
    page, at most 20 requests of at most 500 rows and 64 KiB. A page that is longer is asked for again in smaller pieces."""
    visit, jti = Visit(session, endpoint, now, total), uuid.uuid4().hex
    given: dict[str, Any] = {
        "org_code": visit.org_code,
        "prov_consent_num": number,
        "from_dtime": dtime(from_at),
        "to_dtime": dtime(to_at),
        "limit": max(1, min(limit, MOST_ROWS)),
    }
    rows: list[Provision] = []
    digests: list[str] = []
    pages: set[str] = set()
    for n in range(MOST_PAGES):
        answer = await visit.call("지원-106", given, visit.tran_id(jti, str(n)))
        outcome = answer.outcome
        if answer.cut and given["limit"] > 1:
            given["limit"] = max(1, given["limit"] // 4)
            continue
        digests.append(outcome.digest)
        if not answer.good:
            return Provisions(False, tuple(rows), outcome.status, outcome.detail, digest_of(digests))
        rows += [_flowed(row) for row in answer.fields.get("prov_list") or []]
        page = answer.fields.get("next_page") or ""
        if not page:
            return Provisions(True, tuple(rows), outcome.status, outcome.detail, digest_of(digests))
        if page in pages:
            return Provisions(
                False, tuple(rows), outcome.status, "the pages go in a circle", digest_of(digests)
            )
        pages.add(page)
        given["next_page"] = page
    return Provisions(False, tuple(rows), None, f"more than {MOST_PAGES} pages", digest_of(digests))


def the_ci(references: Sequence[Reference]) -> str:
    return next((one.identifier for one in references if one.kind == CI), "")


def services(answer: Answer) -> list[Mapping[str, Any]]:
    """The services of a 지원-103; none for who is no member."""
    return answer.fields.get("service_list") or []


def flows(row: Mapping[str, Any]) -> bool:
    """Whether a transfer request asks for data. The list scope stands in every request: alone it asks for no data."""
    return any(not scope.endswith(".list") for scope in row["scope"].split())


def _held(service: Mapping[str, Any]) -> list[RemoteConsent]:
    return [
        RemoteConsent(
            identifier=f"{service['client_id']}:{row['org_code']}",
            service=service["client_id"],
            source=row["org_code"],
            scopes=tuple(row["scope"].split()),
            since_on=_day(row["consent_date"]),
            until_on=_day(row["consent_end_date"]),
            state=ACTIVE if flows(row) else STOPPED,
        )
        for row in service.get("consent_list") or []
    ]


def _provided(row: Mapping[str, Any]) -> RemoteConsent:
    return RemoteConsent(
        identifier=row["prov_consent_num"],
        source=row["snd_org_code"],
        recipient=row["consent_rcv_name"],
        since_on=_day(row["prov_consent_dtime"]),
        state=STATES[row["prov_consent_status"]],
    )


def _flowed(row: Mapping[str, Any]) -> Provision:
    at = moment(row["prov_dtime"])
    return Provision(
        at=int(at.timestamp()) if at else 0,
        source=row["snd_org_code"],
        recipient=row["prov_rcv_name"],
        purpose=row["prov_purpose"],
        asset=row["prov_asset"],
        is_reward=row["is_reward"],
    )


def _day(text: str) -> str:
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}"
