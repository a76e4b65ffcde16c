"""WRITES the trace of looking: who at the regulator saw whose identity, for which case and why. The trace comes first."""

import datetime
import uuid

import structlog
from django.db import transaction

from consents import ledger
from consents.actors import Actor
from consents.ledger import Fact
from consents.models import EntryIndex, Lookup, Person

log = structlog.get_logger(__name__)

CASE_LENGTH = (3, 60)
REASON_LENGTH = (10, 300)


class NobodyToReveal(Exception):
    """There is no such entry, or it speaks of no person."""


class NotJustified(Exception):
    """The case number or the reason is missing, too short or too long."""


class NotRecorded(Exception):
    """The trace could not be written, so nothing is shown."""


def reveal(*, event_id: uuid.UUID, case: str, reason: str, by: Actor, at: datetime.datetime) -> Person:
    """The person an entry speaks of, after the look itself has been recorded: a Lookup and a `record.revealed` entry.

    The person sees it in their history. Fail closed: the identity is given out only after the trace has committed.
    `by` is a regulator; `case` and `reason` are bounded by CASE_LENGTH and REASON_LENGTH characters.
    Raises NobodyToReveal, NotJustified, NotRecorded."""
    if by.kind != "regulator":
        raise ValueError("only the regulator looks behind a pseudonym")
    case, reason = case.strip(), reason.strip()
    if not (_fits(case, CASE_LENGTH) and _fits(reason, REASON_LENGTH)):
        raise NotJustified
    entry = (
        EntryIndex.objects.select_related("person", "operator")
        .filter(event_id=event_id, person__isnull=False)
        .first()
    )
    if entry is None or entry.person is None:
        raise NobodyToReveal(str(event_id))
    try:
        with transaction.atomic():
            Lookup.objects.create(
                person=entry.person, by_id=by.id, event_id=event_id, case=case, reason=reason, at=at
            )
            ledger.append(
                [
                    Fact(
                        "record.revealed",
                        person=entry.person,
                        operator=entry.operator,
                        fields={"act": by.id, "cas": case, "rsn": reason, "eid": event_id},
                    )
                ],
                by=by,
                at=at,
            )
    except Exception as error:  # whatever went wrong: no trace, no identity
        log.exception("reveal not recorded", exception=type(error).__name__)
        raise NotRecorded from error
    return entry.person


def _fits(text: str, length: tuple[int, int]) -> bool:
    return length[0] <= len(text) <= length[1]
