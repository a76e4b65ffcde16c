"""Identifiers: time-ordered UUIDs for rows."""

import uuid

from uuid_utils.compat import uuid7 as _uuid7


def uuid7() -> uuid.UUID:
    """A new UUIDv7 (RFC 9562): random, but ordered by creation, so indexes stay dense."""
    return _uuid7()
