"""WRITES who a person is: once somebody vouches for them, what was reported about them finds them.

Who vouches is behind a port, `Vouched`: the name of the provider and the CI that it gave. The CI is turned into its digest here
and goes no further; an account and a CI belong to each other once.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from django.db import IntegrityError, transaction

from consents import lifecycle, reconciliation, reports, waiting
from consents.actors import Actor
from consents.models import Identity, Person, WaitingHolding
from consents.reconciliation import Market, Report
from providers.models import Organization

ADOPTED = 500  # holdings of one person in one transaction
STRAYS = 100  # people of one run


@dataclass(frozen=True, slots=True)
class Vouched:
    """What an identity provider says: by whom, and the CI (연계정보) of the person who is there now."""

    provider: str
    ci: str = field(repr=False)


class NotProved(lifecycle.Refused):
    """What came is no proof of who somebody is."""


class Taken(lifecycle.Refused):
    """Another account is that person's, or this account is another person's."""


def verify(person: Person, vouched: Vouched, *, by: Actor, at: datetime.datetime) -> int:
    """The person is who `vouched` says. What operators reported about them before they came is theirs now; how many rows.

    Again is no change. Raises NotProved, Taken."""
    if not reports.is_ci(vouched.ci):
        raise NotProved(vouched.provider)
    digest = reports.person_digest(vouched.ci)
    try:
        with transaction.atomic():
            known, _new = Identity.objects.get_or_create(
                person=person,
                defaults={"digest": digest, "provider": vouched.provider[:30], "verified_at": at},
            )
    except IntegrityError as error:
        raise Taken("the identity") from error
    if known.digest != digest:
        raise Taken("the account")
    return adopt(known, at=at)


def adopt(identity: Identity, *, at: datetime.datetime) -> int:
    """Take in what waits for somebody, as if their operators reported it now; how many rows. In transactions of ADOPTED."""
    done = 0
    while True:
        with transaction.atomic():
            rows = waiting.of(identity.digest, limit=ADOPTED)
            for organization in {row.service.organization for row in rows}:
                own = [row for row in rows if row.service.organization_id == organization.pk]
                _report(organization, own, identity, at=at)
            waiting.take_away(rows, by=Actor.system("adopt"), at=at)
        done += len(rows)
        if len(rows) < ADOPTED:
            return done


def adopt_strays(*, by: Actor, at: datetime.datetime, limit: int = STRAYS) -> int:
    """What was reported in the very moment in which its person came, or was being taken in when we were killed."""
    strays = Identity.objects.filter(digest__in=WaitingHolding.objects.values("digest")).order_by("pk")
    return sum(adopt(identity, at=at) for identity in strays[:limit])


def _report(
    organization: Organization, rows: list[WaitingHolding], identity: Identity, *, at: datetime.datetime
) -> None:
    """One operator's rows by the rules of every report. What has ended meanwhile is refused there, and gone."""
    subject = str(identity.person.subject_id)
    reconciliation.take_in(
        [(number, _as_reported(row, subject)) for number, row in enumerate(rows, start=1)], Report(),
        market=Market.of(organization), by=Actor.organization(organization), at=at,
    )  # fmt: skip


def _as_reported(row: WaitingHolding, subject: str) -> Mapping[str, str]:
    return {
        "subject": subject, "service_client_id": row.service.client_id, "joined_on": row.joined_on.isoformat(),
        "source_org_code": row.source.code, "scopes": " ".join(row.scopes), "purpose": row.purpose, "cycle": row.cycle,
        "end_date": row.end_date.isoformat(), "retained_until": row.retained_until.isoformat() if row.retained_until else "",
        "last_used_on": row.last_used_on.isoformat() if row.last_used_on else "",
    }  # fmt: skip
