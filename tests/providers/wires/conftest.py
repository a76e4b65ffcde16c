"""What the tests of the wires share."""

import pytest

from providers.wires import bearer
from tests.providers.wires.asked import CDR_PEM


@pytest.fixture(autouse=True)
def clean(keys):
    """No token of another test, and one RSA key for all: making one takes half a second."""
    bearer._kept.clear()
    keys.mkdir(mode=0o700)
    (keys / "cdr.pem").write_bytes(CDR_PEM)
