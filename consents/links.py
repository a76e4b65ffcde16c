"""One-time links: how a letter brings an organization's admin to one stop that waits in its inbox.

A link is signed for one message, and spent as soon as the message is answered, by whatever way. It opens nothing by itself: who
follows it signs in, and must be of the organization that was told."""

import hashlib
import uuid

from django.conf import settings
from django.core import signing
from django.urls import reverse

from consents.models import Delivery

SALT = "a stop in an inbox"
GOOD_FOR = 14 * 86_400  # seconds


class BadLink(Exception):
    """Not one of our links, or too old."""


def address(delivery: Delivery) -> str:
    """The whole address, for a letter."""
    return settings.PORTAL_URL + reverse("desk_link", args=[signing.dumps(str(delivery.jti), salt=SALT)])


def opened(token: str) -> uuid.UUID:
    """Which message a link is for. Raises BadLink."""
    try:
        return uuid.UUID(signing.loads(token, salt=SALT, max_age=GOOD_FOR))
    except (signing.BadSignature, ValueError, TypeError, AttributeError) as error:
        raise BadLink from error


def is_spent(delivery: Delivery) -> bool:
    """Whether the message was answered, or nothing is owed any more."""
    return delivery.received_at is not None or delivery.closed_at is not None


def digest_of(token: str) -> str:
    """How the evidence names the link that was used."""
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"
