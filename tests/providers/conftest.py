"""What the tests of organizations and wires share."""

import pytest


@pytest.fixture(autouse=True)
def keys(settings, tmp_path):
    """Every test makes its own keys, and may call nobody unless it says so."""
    settings.PORTAL_KEYS_DIR = tmp_path / "keys"
    settings.PORTAL_URL = "https://consent.example.kr"
    settings.SANDBOX_URL = ""
    return settings.PORTAL_KEYS_DIR
