"""Numbers of the rules on a given day, read from the dated policy rows."""

import datetime
import functools

from providers.models import PolicyRule


class UnknownRule(LookupError):
    """No row of this rule was in effect on that day."""


def number(key: str, *, on: datetime.date) -> int:
    """The value of rule `key` in effect on a day; its unit stands in the row and in the key (`…_MONTHS`, `…_DAYS`).

    Raises UnknownRule where no row is that old. Values are remembered for the life of the process: rules are dated,
    so a new row is written before the day it counts from, or `forget` is called."""
    if isinstance(on, datetime.datetime):
        raise TypeError(
            "a rule is asked for a day, not for a moment: which day it is depends on the time zone"
        )
    for effective_on, value in dated(key):
        if effective_on <= on:
            return value
    raise UnknownRule(f"no value of {key} is in effect on {on}")


@functools.cache
def dated(key: str) -> list[tuple[datetime.date, int]]:
    """Every dated value of a rule, newest first: one query a rule, whatever the days that are asked for."""
    rows = PolicyRule.objects.filter(key=key).order_by("-effective_on").values_list("effective_on", "value")
    if not (found := list(rows)):
        raise UnknownRule(f"there is no rule {key}")  # not remembered: the next question asks again
    return found


def forget() -> None:
    """Read the rows afresh from now on; called after rows were written."""
    dated.cache_clear()
