"""The gym at the desk: an organization tries its own channel, and sees how each trial went. Nobody else's."""

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from consents import access, gym
from consents.actors import Actor
from consents.forms.channels import Button
from consents.queries import gym as queries
from consents.queries import paging


@access.operator_admin
@require_safe
def desk_gym(request):
    own, at = request.user.organization, timezone.now()
    try:
        page = queries.runs(own, after=request.GET.get("after", ""))
    except paging.BadCursor as error:
        raise BadRequest from error
    context = {
        "organization": own,
        "stations": queries.stations(own, at=at),
        "rows": page.rows,
        **paging.links(request, page),
    }
    return render(request, "desk/desk_gym.html", context)


@access.operator_admin
@require_POST
def start_gym(request, pk):
    own = request.user.organization
    channel = access.own_channel(own, pk)
    if not Button(request.POST).is_valid():
        raise BadRequest
    try:
        run = gym.ask(
            channel, member=request.user, by=Actor.organization(own, member=request.user), at=timezone.now()
        )
    except gym.NothingToTry:
        messages.error(request, _("이 연결에는 시험할 것이 없어요."))
        return redirect("desk_gym")
    except gym.TooManyRuns:
        messages.error(request, _("오늘은 시험을 너무 많이 했어요. 내일 다시 해 주세요."))
        return redirect("desk_gym")
    return redirect("gym_run", pk=run.pk)


@access.operator_admin
@require_safe
def gym_run(request, pk):
    run = access.own_run(request.user.organization, pk)
    return render(request, "desk/gym_run.html", queries.progress(run))


@access.operator_admin
@require_safe
def gym_progress(request, pk):
    run = access.own_run(request.user.organization, pk)
    return render(request, "desk/_trials.html", queries.progress(run))
