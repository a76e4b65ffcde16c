"""The state tables rebuilt from the log alone, and compared with those that the portal works with.

Everything is read in one snapshot and into temporary tables, which are gone afterwards; nothing that is kept changes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.db import connection, transaction

from . import comparing, folding, reading
from .findings import MOST, Difference, Findings

__all__ = ["MOST", "Difference", "Report", "run"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a replay read and found. `differences` are the first MOST; `total` is how many there are."""

    entries: int
    shredded: int
    compared: dict[str, int]
    total: int
    differences: list[Difference] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.total == 0

    def __str__(self) -> str:
        rows = ", ".join(f"{count} {table}" for table, count in self.compared.items())
        lines = [
            f"{self.entries} entries read in {self.seconds:.1f} s, {self.shredded} of them of erased people",
            f"compared: {rows}",
            *(str(difference) for difference in self.differences),
        ]
        if self.total > len(self.differences):
            lines.append(f"… and {self.total - len(self.differences)} more")
        lines.append(f"{self.total} differences" if self.total else "no difference")
        return "\n".join(lines)


def run(*, progress: Callable[[int], object] = lambda entries: None) -> Report:
    """Rebuild subscriptions, consents, erasures and deliveries' states, and compare them row by row.

    `progress` is told how many more entries were read. Sees one moment of the database, whatever others write meanwhile."""
    started = time.monotonic()
    found = Findings()
    with _snapshot():
        folding.prepare()
        counts = reading.read(found, progress=progress)
        folding.fold()
        comparing.name_people()
        compared = comparing.compare(found)
        folding.clear()
    return Report(
        entries=counts.entries, shredded=counts.shredded, compared=compared, total=found.total,
        differences=found.first, seconds=time.monotonic() - started,
    )  # fmt: skip


@contextlib.contextmanager
def _snapshot() -> Iterator[None]:
    """One transaction that sees one moment; inside another one (a test's) it is that one's."""
    outermost = not connection.in_atomic_block
    with transaction.atomic():
        with connection.cursor() as cursor:
            if outermost:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SET LOCAL work_mem = '128MB'; SET LOCAL DateStyle = 'ISO, YMD'")
        yield
