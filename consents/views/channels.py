"""The channel at the desk: how the organization is reached, a change of it by two people, and new keys."""

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import Http404
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consents import access, channels, publishing
from consents.actors import Actor
from consents.forms import channels as forms
from consents.queries import channels as queries
from consents.queries import paging
from consents.views.fresh import fresh_sign_in
from providers import registry
from providers.models import Channel


@access.operator_admin
@require_safe
def desk_channel(request):
    own = request.user.organization
    try:
        page = queries.closed(own, after=request.GET.get("after", ""))
    except paging.BadCursor as error:
        raise BadRequest from error
    context = {
        "organization": own,
        "screen": queries.screen(own, request.user, at=timezone.now()),
        "rows": page.rows,
        **paging.links(request, page),
    }
    return render(request, "desk/desk_channel.html", context)


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
@fresh_sign_in
def ask_channel(request):
    own = request.user.organization
    form = forms.AskForm(request.POST if request.method == "POST" else None)
    if not form.is_bound or not form.is_valid():
        return render(request, "desk/ask_channel.html", {"form": form}, status=400 if form.is_bound else 200)
    try:
        change, secret = channels.ask(
            own, **form.cleaned_data, member=request.user, by=_actor(request), at=timezone.now()
        )
    except channels.BadAddress as refusal:
        form.add_error("address", forms.refused(str(refusal)))
        return render(request, "desk/ask_channel.html", {"form": form}, status=400)
    except channels.ChangePending:
        messages.error(request, _("이미 바꾸는 중인 연결이 있어요. 그것을 끝내거나 그만둔 뒤에 해 주세요."))
        return redirect("desk_channel")
    if not secret:
        messages.success(request, _("변경을 요청했어요. 다른 담당자가 승인해야 해요."))
        return redirect("desk_channel")
    return render(request, "desk/channel_secret.html", {"secret": secret, "change": change})


@access.operator_admin
@require_POST
@fresh_sign_in
def approve_channel(request, pk):
    change = access.own_change(request.user.organization, pk)
    if not forms.Button(request.POST).is_valid():
        raise BadRequest
    try:
        channels.approve(change, member=request.user, by=_actor(request), at=timezone.now())
    except channels.SamePerson:
        messages.error(request, _("요청한 사람은 승인할 수 없어요. 같은 회사의 다른 담당자가 승인해야 해요."))
    except channels.NotNow:
        messages.info(request, _("이미 승인했거나 그만둔 변경이에요."))
    else:
        messages.success(request, _("승인했어요. 이제 새 주소가 확인 이벤트에 답해야 해요."))
    return redirect("desk_channel")


@access.operator_admin
@require_POST
def withdraw_channel(request, pk):
    change = access.own_change(request.user.organization, pk)
    if not forms.Button(request.POST).is_valid():
        raise BadRequest
    try:
        channels.withdraw(change, by=_actor(request), at=timezone.now())
    except channels.NotNow:
        messages.info(request, _("이미 끝난 변경이에요."))
    else:
        messages.success(request, _("변경을 그만뒀어요. 지금 연결은 그대로예요."))
    return redirect("desk_channel")


@access.operator_admin
@require_POST
@fresh_sign_in
def rotate_channel_key(request, pk):
    channel = access.own_channel(request.user.organization, pk)
    form = forms.RotateForm(request.POST)
    if channel.protocol != Channel.Protocol.NATIVE:
        raise Http404
    if not form.is_valid():
        raise BadRequest
    try:
        secret = publishing.rotate(
            channel, kid=form.cleaned_data["kid"], by=_actor(request), at=timezone.now()
        )
    except (publishing.KeyChanged, registry.ChannelRetired):
        messages.info(request, _("열쇠가 그사이 바뀌었어요. 새로 고친 화면을 보고 다시 해 주세요."))
        return redirect("desk_channel")
    return render(request, "desk/channel_secret.html", {"secret": secret, "change": None})


def _actor(request) -> Actor:
    return Actor.organization(request.user.organization, member=request.user)
