"""Too many requests, told as a problem."""

from consents.api.problems import Problem
from consents.limits import WINDOW, too_often


def hold(kind: str, who: str, *, most: int) -> None:
    """Raises Problem too-many-requests with Retry-After where `who` comes more than `most` times a minute."""
    if too_often(kind, who, most=most):
        raise Problem("too-many-requests", headers={"Retry-After": str(WINDOW)})
