"""The long experiments run when they are asked for: `-m stop_faults`, or by name. F01 to F05 run always, shortened."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "stop_faults" in (config.getoption("markexpr") or "") or any("::" in part for part in config.args):
        return
    left = [
        item
        for item in items
        if item.get_closest_marker("stop_faults") and not item.get_closest_marker("always")
    ]
    if left:
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
