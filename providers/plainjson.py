"""JSON that means the same to everybody who reads it, for what others sign or send."""

import json
import math


def strict_json(raw: bytes | str, *, storable: bool = True) -> object:
    """JSON with one meaning: duplicate members, NaN and infinity raise ValueError; NUL and lone surrogates too, unless whoever
    asks looks for them in each part (`storable`)."""
    try:
        value = json.loads(raw, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        _check_values(value, storable)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _check_values(value: object, storable: bool) -> None:
    if isinstance(value, str) and storable:
        if "\x00" in value:
            raise ValueError("a string holds NUL, which PostgreSQL cannot store")
        value.encode("utf-8")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("a number is too large")
    elif isinstance(value, list):
        for item in value:
            _check_values(item, storable)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_values(name, storable)
            _check_values(item, storable)
