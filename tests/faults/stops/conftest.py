"""The long experiments run when they are asked for: `-m stop_faults`. F01 to F05 with one seed run always."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "stop_faults" in (config.getoption("markexpr") or ""):
        return
    left = [
        item
        for item in items
        if item.get_closest_marker("stop_faults") and not item.get_closest_marker("always")
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
