"""Every way to break a message of the Korean support API, generated from the table of its fields."""

from collections.abc import Iterator, Mapping
from typing import Any

from providers.wires.korea_fields import Field


def broken(
    fields: Mapping[str, Field], sample: Mapping[str, Any], path: tuple = ()
) -> Iterator[tuple[tuple, str, Any]]:
    """Every way to break one field of a sample: name, what is put there, or that it is left out."""
    for name, wanted in fields.items():
        place = (*path, name)
        if name not in sample:
            continue
        if wanted.required:
            yield place, "missing", None
        if wanted.type == "rows":
            yield place, "wrong type", {}
            if fields[wanted.count].required or wanted.count in sample:
                yield place, "wrong number", []
            yield from broken(wanted.rows, sample[name][0], (*place, 0))
        elif wanted.type == "Boolean":
            yield from ((place, "wrong type", value) for value in ("true", 1, "Y", []))
        elif wanted.type == "N":
            yield from ((place, "wrong type", value) for value in (True, "1", 1.5, [], -1))
            yield place, "too long", 10**wanted.length
            if wanted.values:
                yield place, "another value", int(wanted.values[0]) - 1
        elif wanted.type == "F":
            yield from ((place, "wrong type", value) for value in (True, "1,5", "1.2345", [], -1, "-1"))
            yield place, "too long", 10**16
        else:
            yield from ((place, "wrong type", value) for value in (1, True, [], {}, "\x01" * wanted.length))
            yield place, "too long", "1" * (wanted.length + 1)
            if wanted.exact or wanted.type in {"DATE", "DTIME"}:
                yield place, "too short", "1" * (wanted.length - 1)
            if wanted.values:
                yield place, "another value", "7" * min(2, wanted.length)
            if wanted.type == "DATE":
                yield from (
                    (place, "no such day", value)
                    for value in ("20260230", "20261301", "00000000", "２０２６０１１０")
                )
            if wanted.type == "DTIME":
                yield from ((place, "no such time", value) for value in ("20260110246000", "20260110101560"))


def put(content: Any, place: tuple, value: Any) -> Any:
    """The content with this in its place; None takes the field out."""
    at = content
    for step in place[:-1]:
        at = at[step]
    if value is None:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    return content
