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
    return _number(key, on)


@functools.lru_cache(maxsize=4096)
def _number(key: str, on: datetime.date) -> int:
    value = (
        PolicyRule.objects.filter(key=key, effective_on__lte=on)
        .order_by("-effective_on")
        .values_list("value", flat=True)
        .first()
    )
    if value is None:
        raise UnknownRule(f"no value of {key} is in effect on {on}")
    return value


def forget() -> None:
    """Read the rows afresh from now on; called after rows were written."""
    _number.cache_clear()
