"""Warnings to the person: what waits for an answer, and what was answered."""

import uuid
from dataclasses import dataclass

from consents.models import Notice, Person

PAGE = 20
MOST_OPEN = 100


@dataclass(frozen=True, slots=True)
class Page:
    """All that wait (urgent first), and one page of the answered ones."""

    waiting: list[Notice]
    answered: list[Notice]
    next_after: uuid.UUID | None


def notices(person: Person, *, after: uuid.UUID | None = None) -> Page:
    """Two queries. Ids are UUIDv7, so that their order is the order of raising."""
    own = Notice.objects.filter(person=person).select_related(
        "subscription__service", "subscription__operator"
    )
    waiting = list(own.filter(answer=Notice.Answer.NONE).order_by("-urgent", "-id")[:MOST_OPEN])
    answered = own.exclude(answer=Notice.Answer.NONE).order_by("-id")
    if after is not None:
        answered = answered.filter(pk__lt=after)
    found = list(answered[: PAGE + 1])
    return Page(waiting, found[:PAGE], found[PAGE - 1].pk if len(found) > PAGE else None)
