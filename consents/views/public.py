"""What anybody may see: what this is, who has a licence, which services there are and what they ask."""

from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_safe

from consents import access, lifecycle
from consents.forms.public import OperatorFilters, ServiceFilters
from consents.queries import gym
from consents.queries import person as person_queries
from consents.queries import public as queries
from providers.models.organizations import LicenceStatus, Sector


@access.public
@require_safe
def home(request):
    at = timezone.now()
    me = None
    if access.role(request.user) == access.PERSON:
        summary = person_queries.summary(request.user)
        me = {
            "total": summary.operators_holding,
            "receiving": summary.receiving,
            "held": summary.held_after_end,
        }
    context = {"league": queries.judged(at=at)[:5], "me": me, **queries.home(on=lifecycle.day(at))}
    return render(request, "public/home.html", context)


@access.public
@require_safe
def operators(request):
    at = timezone.now()
    form = OperatorFilters(request.GET)
    valid = form.is_valid()
    chosen = form.cleaned_data if valid else {}
    page = queries.operators(on=lifecycle.day(at), **chosen)
    context = {
        **_shown(form, page), "statuses": LicenceStatus.values, "sectors": Sector.values, "league": queries.judged(at=at),
    }  # fmt: skip
    return render(request, "public/operators.html", context, status=200 if valid else 400)


@access.public
@require_safe
def operator(request, code):
    at = timezone.now()
    context = queries.operator(code, on=lifecycle.day(at))
    mine = [line for line in queries.league(at=at) if line.operator.code == code]
    context["league_row"] = mine[0] if mine else None
    context["badge"] = gym.badge_of(context["organization"], at=at)
    return render(request, "public/operator.html", context)


@access.public
@require_safe
def services(request):
    form = ServiceFilters(request.GET)
    valid = form.is_valid()
    page = queries.services(**(form.cleaned_data if valid else {}))
    context = {**_shown(form, page), "purposes": queries.purposes(), "sectors": Sector.values}
    return render(request, "public/services.html", context, status=200 if valid else 400)


@access.public
@require_safe
def service(request, slug):
    on = lifecycle.day(timezone.now())
    found = queries.find_service(slug, on=on)
    offer = queries.offer(found, on=on)
    context = {
        "service": found,
        "status": found.operator_status or "",  # type: ignore[attr-defined]  # annotated
        "terms": offer.terms,
        "items": offer.items,
        "scopes": offer.scopes,
        "terms_html": offer.terms_html,
        "joined": queries.own_subscription_url(request.user, found),
        "joinable": queries.is_open(found) and offer.terms is not None and _may_join(request.user),
    }
    return render(request, "public/service.html", context)


def _may_join(user):
    """Visitors, who will sign in first, and persons; an account with another role joins nothing."""
    return access.role(user) in (None, access.PERSON)


def _shown(form, page):
    """The list, and what the filter fields show: what was chosen, also when it was refused, cut to length."""
    fields = {name: form.data.get(name, "")[:60] for name in form.fields if name != "after"}
    problems = [message for errors in form.errors.values() for message in errors]
    return {
        **fields,
        "problems": problems,
        "rows": page.rows,
        "next_url": page.next_url,
        "first_url": page.first_url,
    }
