"""Too many requests, told as a problem; and what is left, told in every answer (draft-ietf-httpapi-ratelimit-headers)."""

from allauth.account.adapter import get_adapter
from django.conf import settings

from consents import limits
from consents.api.problems import Problem
from consents.limits import WINDOW, Budget, too_often


def hold(kind: str, who: str, *, most: int) -> None:
    """Raises Problem too-many-requests with Retry-After where `who` comes more than `most` times a minute."""
    if too_often(kind, who, most=most):
        raise Problem("too-many-requests", headers={"Retry-After": str(WINDOW)})


def take(request) -> Budget | None:
    """One request of whoever calls: an organization by its code, a person by their account, anybody else by their address."""
    organization, user = getattr(request, "organization", None), request.user
    if organization is not None:
        name, who = "organization", organization.code
    elif user is not None and user.is_authenticated:
        name, who = "person", str(user.pk)
    else:
        name, who = "visitor", get_adapter().get_client_ip(request._request)
    return limits.take(name, who, most=settings.API_PER_MINUTE[name])


def headers(budget: Budget) -> dict[str, str]:
    """The policy, and what is left of it."""
    return {
        "RateLimit-Policy": f'"{budget.name}";q={budget.most};w={WINDOW}',
        "RateLimit": f'"{budget.name}";r={max(budget.left, 0)};t={budget.seconds}',
    }


def refuse(budget: Budget) -> Problem:
    return Problem("too-many-requests", headers={"Retry-After": str(budget.seconds)})
