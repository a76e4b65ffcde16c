"""The desk: what an organization must do, what it confirmed, and how it is reached. Always the visitor's own organization."""

import datetime

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.db import IntegrityError
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consents import access, answers, limits, links, polling
from consents.actors import Actor
from consents.forms import desk as forms
from consents.forms.channels import Button
from consents.queries import desk as queries
from consents.queries import gym, lodged, paging, proofs
from consents.queries.cases import open_of
from consents.queries.duties import possible_steps
from consents.views import papers
from consents.views.replies import refused


@access.operator_admin
@require_safe
def desk(request):
    at, own = timezone.now(), request.user.organization
    with access.rows_of(own):
        try:
            page = queries.inbox(own, at=at, after=request.GET.get("after", ""))
        except paging.BadCursor as error:
            raise BadRequest from error
        channel = queries.channel(own)
        context = {
            "organization": own,
            "numbers": queries.numbers(own, at=at),
            "counted": queries.COUNTED,
            "cases": open_of(own),
            "channel": channel,
            "services": queries.services(own),
            "badge": gym.badge_at(channel, at=at),
            **paging.links(request, page),
        }
    return render(request, "desk/desk.html", context | {"rows": queries.as_seen(page.rows)})


@access.operator_admin
@require_safe
def desk_requests(request):
    try:
        page = lodged.of_operator(request.user.organization, after=request.GET.get("after", ""))
    except paging.BadCursor as error:
        raise Http404 from error
    context = {"rows": page.rows, **paging.links(request, page)}
    return render(request, "desk/desk_requests.html", context)


@access.operator_admin
@require_safe
def desk_deliveries(request):
    form, page = forms.DeliveryFilters(request.GET), paging.Page([], None)
    if form.is_valid():
        try:
            page = queries.deliveries(
                request.user.organization, **form.cleaned_data, after=request.GET.get("after", "")
            )
        except paging.BadCursor:
            form.add_error(None, _("쪽 주소가 잘못됐어요. 처음부터 다시 찾아 주세요."))
    filtered = any(form.data.get(name) for name in form.fields)
    context = {"form": form, "rows": page.rows, "filtered": filtered, **paging.links(request, page)}
    return render(request, "desk/desk_deliveries.html", context, status=400 if form.errors else 200)


@access.operator_admin
@require_safe
def desk_delivery(request, jti):
    return _delivery(request, access.organization_delivery(request.user.organization, jti), at=timezone.now())


@access.operator_admin
@require_POST
def confirm_delivery(request, jti):
    return _confirm(request, access.organization_delivery(request.user.organization, jti))


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
def desk_link(request, token):
    """Where the link of a letter leads: one message and its statements, until it is answered."""
    try:
        jti = links.opened(token)
    except links.BadLink as error:
        raise Http404 from error
    delivery = access.organization_delivery(request.user.organization, jti)
    if links.is_spent(delivery):
        back = reverse("desk_delivery", args=[delivery.jti])
        return refused(request, _("이 링크는 이미 썼어요. 답은 기록돼 있어요."), back_url=back, status=410)
    if request.method == "POST":
        return _confirm(request, delivery, link=token)
    return _delivery(request, delivery, at=timezone.now(), link=token)


def _confirm(request, delivery, *, link=""):
    at, own = timezone.now(), request.user.organization
    try:
        form = forms.step_form(request.POST.get("step", ""), request.POST)
    except KeyError as unknown:
        raise BadRequest from unknown
    possible = form.kind in possible_steps(delivery)
    if not form.is_valid():
        if not possible:
            raise BadRequest
        return _delivery(request, delivery, at=at, bound=form, status=400, link=link)
    by = Actor.organization(own, member=request.user)
    try:
        new = possible and _state(form, delivery, by=by, at=at, link=link)
    except answers.UnknownDelivery as unknown:
        raise Http404 from unknown
    except (answers.WrongOrder, IntegrityError):  # said before, or from another window in the same moment
        new = False
    if new:
        messages.success(request, _("확인을 기록했어요."))
    else:
        messages.info(request, _("이미 끝난 일이에요. 새로 기록한 것은 없어요."))
    if form.cleaned_data["back"] == "desk_delivery":
        return redirect("desk_delivery", jti=delivery.jti)
    return redirect("desk")


@access.operator_admin
@require_POST
def replay_delivery(request, jti):
    own = request.user.organization
    delivery = access.organization_delivery(own, jti)
    if not Button(request.POST).is_valid():
        raise BadRequest
    if limits.too_often("replay", own.code, most=polling.REPLAYS_PER_MINUTE):
        messages.info(request, _("다시 보내기가 너무 잦아요. 1분 뒤에 다시 해 주세요."))
        return redirect("desk_delivery", jti=jti)
    try:
        polling.send_again(delivery, by=Actor.organization(own, member=request.user), at=timezone.now())
    except polling.AlreadyWaiting:
        messages.info(request, _("이미 보내는 중이에요. 다시 보내지 않았어요."))
    else:
        messages.success(request, _("같은 메시지를 다시 보내요. 번호(jti)도 같아요."))
    return redirect("desk_delivery", jti=jti)


@access.operator_admin
@require_safe
def desk_receipt(request, event_id):
    own = request.user.organization
    entry = access.organization_entry(own, event_id)
    return papers.download(proofs.receipt_for(entry, own), papers.JWS, f"{event_id}.jws")


@access.operator_admin
@require_safe
def desk_proof(request, event_id):
    entry = access.organization_entry(request.user.organization, event_id)
    return papers.proof_of(request, entry, back_url=reverse("desk_delivery", args=[entry.jti]))


def _state(form, delivery, *, by: Actor, at: datetime.datetime, link: str) -> bool:
    """Pass the statement on; whether it changed anything."""
    own = delivery.organization
    if form.kind == "received":
        return answers.acknowledge(delivery.jti, organization=own, by=by, at=at).received_at == at
    evidence = form.statement(delivery, by=by, at=at, link=links.digest_of(link) if link else "")
    answers.complete(delivery.jti, organization=own, evidence=evidence, basis=form.basis, by=by, at=at)
    return True


def _delivery(request, delivery, *, at, bound=None, status=200, link=""):
    detail = queries.delivery_detail(delivery, at=at)
    steps = [
        bound if bound is not None and bound.kind == step else forms.step_form(step)
        for step in detail["duty"].steps
    ]
    shown = {"delivery": delivery, "forms": steps, "link": link, **detail}
    return render(request, "desk/desk_delivery.html", shown, status=status)
