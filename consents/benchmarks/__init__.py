"""Benchmarks, each beside its limit: what the same machine does in the same minutes without our promises."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(slots=True)
class Result:
    """One benchmark's answer. `ratio` is ours / limit, the median of interleaved rounds; `holds` is all goals together."""

    bench: str
    ours: float
    limit: float
    ratio: float
    unit: str
    goal: str
    holds: bool
    detail: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share (0…1) of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
