"""What a replay finds: differences between what the log says and what the tables say."""

from dataclasses import dataclass, field
from typing import Any

MOST = 100  # are kept in words; all are counted


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not the same. `table` is `entry` where the log itself is wrong; `key` is the row's id."""

    table: str
    key: str
    column: str
    logged: Any
    kept: Any

    def __str__(self) -> str:
        return (
            f"{self.table} {self.key} {self.column}: in the log {self.logged!r}, in the table {self.kept!r}"
        )


@dataclass
class Findings:
    total: int = 0
    first: list[Difference] = field(default_factory=list)

    def add(self, table: str, key: Any, column: str, logged: Any, kept: Any) -> None:
        self.note(1, [Difference(table, str(key), column, logged, kept)])

    def note(self, total: int, some: list[Difference]) -> None:
        """`total` more, of which `some` in words."""
        self.total += total
        self.first += some[: MOST - len(self.first)]
