"""The person's pages: who holds my data, each subscription, every way to make it stop, and what happened."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consents import access, lifecycle, speedbump
from consents.actors import Actor
from consents.forms import person as forms
from consents.models import Identity, Subscription
from consents.queries import history as facts
from consents.queries import holdings, person, transfers
from consents.queries import notices as own_notices
from consents.queries import subscription as screens
from consents.queries import tracker as stops
from consents.templatetags.portal import loc
from consents.views.replies import accepted
from consents.views.replies import own as _own
from consents.views.replies import refused as _refused

read_or_post = require_http_methods(["GET", "HEAD", "POST"])


# --- who holds my data -------------------------------------------------------------------------------------------------


@access.person
@require_safe
def me(request):
    return _holdings(request)


@access.person
@require_safe
def tidy(request, pk):
    """The same list on the way to a company that has asked for the number; with the way back there."""
    return _holdings(request, going_to=access.own_way_back(request, pk, at=timezone.now()))


def _holdings(request, going_to=None):
    form, cursor = forms.HoldingsForm(request.GET), forms.CursorForm(request.GET)
    if not (form.is_valid() and cursor.is_valid()):
        return _refused(request, _first_error(form, cursor))
    try:
        page = holdings.holdings(request.user, **form.cleaned_data, after=cursor.cleaned_data["after"])
    except holdings.UnknownRow:
        return _refused(request, _("목록이 그사이 바뀌었어요. 처음부터 다시 봐 주세요."))
    context = {
        "summary": person.summary(request.user), "page": page, "form": form, "filtered": bool(request.GET),
        "going_to": going_to, "verified": bool(going_to) or Identity.objects.filter(person=request.user).exists(),
        **_links(request, page.next_after),
    }  # fmt: skip
    return render(request, "person/me.html", context)


@access.person
@require_POST
def end_several(request):
    form = forms.EndSeveralForm(request.POST)
    if not form.is_valid():
        return _refused(request, _first_error(form))
    rows = holdings.chosen(request.user, form.cleaned_data["subscriptions"])
    if len(rows) != len(form.cleaned_data["subscriptions"]):
        raise Http404
    back = _safe_next(request, form.cleaned_data["next"]) or reverse("me")
    if form.cleaned_data["step"] != "confirm":
        ending = [row for row in rows if row.can_end]
        context = {"rows": rows, "ending": ending, "back": back}
        return render(request, "person/end_several.html", context)
    for row in rows:
        _leave(request, row.subscription, erase=form.cleaned_data["erase"])
    return redirect(back)


# --- one subscription --------------------------------------------------------------------------------------------------


@access.person
@require_safe
def subscription(request, pk):
    own = _own(request, pk)
    return render(
        request,
        "person/subscription.html",
        {"subscription": own, "screen": screens.screen(own, at=timezone.now())},
    )


@access.person
@require_safe
def tracker(request, pk):
    own = _own(request, pk)
    now = stops.tracker(own, at=timezone.now())
    if request.GET.get("seen") == now.seen:
        return HttpResponse(status=204)
    return render(
        request,
        "person/tracker.html",
        {"subscription": own, "tracker": now, "holding": holdings.state_of(own)},
    )


@access.person
@read_or_post
def end(request, pk):
    own = _own(request, pk)
    if request.method == "POST":
        form = forms.EndForm(request.POST)
        if not form.is_valid():
            return _refused(request, _first_error(form), back=own)
        _leave(request, own, erase=form.cleaned_data["erase"])
        return redirect(_safe_next(request, form.cleaned_data["next"]) or reverse("subscription", args=[pk]))
    if own.state == Subscription.State.ENDED:
        messages.info(request, _("이미 그만뒀어요."))
        return redirect("subscription", pk)
    context = {
        "subscription": own,
        "ending": screens.ending(own),
        "next": _safe_next(request, request.GET.get("next", "")),
    }
    return render(request, "person/end.html", context)


@access.person
@require_POST
def erase(request, pk):
    own = _own(request, pk)
    form = forms.NothingForm(request.POST)
    if not form.is_valid():
        return _refused(request, _first_error(form), back=own)
    try:
        lifecycle.erase(own, by=Actor.person(request.user), at=timezone.now())
    except lifecycle.NothingToErase:
        messages.info(request, _("이미 지워 달라고 했거나, 아직 그만두지 않은 서비스예요. 바뀐 것은 없어요."))
    else:
        words = _("받아간 정보를 지워 달라고 했어요. 지웠다는 답이 오면 여기에 보여요.")
        accepted(request, words, "erasure.requested", subscription=own)
    return redirect("subscription", pk)


@access.person
@read_or_post
def withdraw(request, pk):
    consent = access.own_consent(request, pk)
    own = consent.subscription
    if request.method == "POST":
        form = forms.EndForm(request.POST)
        if not form.is_valid():
            return _refused(request, _first_error(form), back=own)
        try:
            lifecycle.withdraw(
                consent, erase=form.cleaned_data["erase"], by=Actor.person(request.user), at=timezone.now()
            )
        except lifecycle.AlreadyEnded:
            messages.info(request, _("이미 끊은 연동이에요. 바뀐 것은 없어요."))
        else:
            words = _("연동을 끊었어요. 회사들에 바로 전하고 있어요.")
            accepted(request, words, "consent.withdrawn", consent=consent)
        return redirect("subscription", own.pk)
    if consent.state == consent.State.ENDED:
        messages.info(request, _("이미 끊은 연동이에요. 바뀐 것은 없어요."))
        return redirect("subscription", own.pk)
    context = {"subscription": own, "consent": consent, "ending": screens.ending(own, only=consent)}
    return render(request, "person/withdraw.html", context)


@access.person
@require_POST
def erase_consent(request, pk):
    consent = access.own_consent(request, pk)
    form = forms.NothingForm(request.POST)
    if not form.is_valid():
        return _refused(request, _first_error(form), back=consent.subscription)
    try:
        lifecycle.erase_consent(consent, by=Actor.person(request.user), at=timezone.now())
    except lifecycle.NothingToErase:
        messages.info(request, _("이미 지워 달라고 했거나, 아직 끊지 않은 연동이에요. 바뀐 것은 없어요."))
    else:
        words = _("이 연동으로 받아간 정보를 지워 달라고 했어요.")
        accepted(request, words, "erasure.requested", consent=consent)
    return redirect("subscription", consent.subscription_id)


@access.person
@require_POST
def pause(request, pk):
    consent = access.own_consent(request, pk)
    form = forms.PauseForm(request.POST)
    if not form.is_valid():
        return _refused(
            request, _("멈출 날을 알아보지 못했어요. 2026-01-31처럼 골라 주세요."), back=consent.subscription
        )
    try:
        lifecycle.pause(
            consent, until_on=form.cleaned_data["until_on"], by=Actor.person(request.user), at=timezone.now()
        )
    except lifecycle.NotOffered:
        return _refused(request, _("다시 시작할 날은 내일이나 그 뒤여야 해요."), back=consent.subscription)
    except (lifecycle.AlreadyEnded, lifecycle.NotActive):
        messages.info(request, _("이미 멈췄거나 끊은 연동이에요. 바뀐 것은 없어요."))
    else:
        words = _("잠시 멈췄어요. 회사들에 바로 전하고 있어요.")
        accepted(request, words, "consent.paused", consent=consent)
    return redirect("subscription", consent.subscription_id)


@access.person
@require_POST
def resume(request, pk):
    consent = access.own_consent(request, pk)
    form = forms.NothingForm(request.POST)
    if not form.is_valid():
        return _refused(request, _first_error(form), back=consent.subscription)
    try:
        lifecycle.resume(consent, by=Actor.person(request.user), at=timezone.now())
    except lifecycle.NotOpen:
        words = _("회사의 허가가 멈췄거나 끝나서 지금은 다시 이을 수 없어요. 멈춘 그대로예요.")
        return _refused(request, words, back=consent.subscription, status=409)
    except (lifecycle.AlreadyEnded, lifecycle.NotActive):
        messages.info(request, _("멈춰 있는 연동이 아니에요. 바뀐 것은 없어요."))
    else:
        accepted(request, _("다시 시작했어요."), "consent.resumed", consent=consent)
    return redirect("subscription", consent.subscription_id)


# --- what happened -----------------------------------------------------------------------------------------------------


@access.person
@require_safe
def history(request):
    form = forms.HistoryForm(request.GET, operators=facts.operators(request.user))
    day = forms.DayForm(request.GET if "on" in request.GET else None)
    if not form.is_valid() or (day.is_bound and not day.is_valid()):
        return _refused(request, _first_error(form, day), back_url=reverse("history"))
    chosen = form.cleaned_data
    page = facts.history(
        request.user, kind=chosen["kind"], operator=chosen["operator"], after=chosen["after"]
    )
    context = {
        "form": form, "day": day, "page": page, "looked": facts.looked(request.user),
        "held": facts.held_on(request.user, day.cleaned_data["on"]) if day.is_bound else None,
        "flows": transfers.of_person(request.user, at=timezone.now()),
        **_links(request, page.next_after),
    }  # fmt: skip
    return render(request, "person/history.html", context)


@access.person
@require_safe
def notices(request):
    cursor = forms.CursorForm(request.GET)
    if not cursor.is_valid():
        return _refused(request, _first_error(cursor), back_url=reverse("notices"))
    page = own_notices.notices(request.user, after=cursor.cleaned_data["after"])
    return render(request, "person/notices.html", {"page": page, **_links(request, page.next_after)})


@access.person
@require_POST
def answer_notice(request, pk):
    notice = access.own_notice(request, pk)
    form = forms.AnswerForm(request.POST)
    if not form.is_valid():
        return _refused(request, _first_error(form), back_url=reverse("notices"))
    speedbump.answer(
        notice=notice, answer=form.cleaned_data["answer"], by=Actor.person(request.user), at=timezone.now()
    )
    words = _("그대로 두기로 했어요. 같은 일로 다시 알리지 않을게요.")
    accepted(request, words, "notice.answered", person=request.user)
    return redirect("notices")


# --- answers -----------------------------------------------------------------------------------------------------------


def _leave(request, own: Subscription, *, erase: bool) -> None:
    """One end, and what to say about it."""
    service = {"service": loc(own.service, "name")}
    try:
        lifecycle.leave(own, erase=erase, by=Actor.person(request.user), at=timezone.now())
    except lifecycle.AlreadyEnded:
        messages.info(request, _("%(service)s: 이미 그만뒀어요. 바뀐 것은 없어요.") % service)
    else:
        words = (
            _("%(service)s: 그만뒀어요. 받아간 정보도 지워 달라고 했어요.") if erase
            else _("%(service)s: 그만뒀어요. 받아간 정보는 아직 그 회사에 있어요.")
        )  # fmt: skip
        accepted(request, words % service, "subscription.ended", subscription=own)


def _first_error(*forms_with_errors) -> str:
    """The first thing that is wrong, named by its field where there is one."""
    for form in forms_with_errors:
        for name, errors in form.errors.items():
            label = form.fields[name].label if name in form.fields else ""
            return f"{label}: {errors[0]}" if label else errors[0]
    return ""


def _links(request, next_after) -> dict:
    """Addresses of the next and the first page, filters kept."""
    kept = request.GET.copy()
    came_from = kept.pop("after", None)
    first = f"?{kept.urlencode()}" if kept else request.path
    kept["after"] = str(next_after or "")
    return {
        "next_url": f"?{kept.urlencode()}" if next_after else None,
        "first_url": first if came_from else None,
    }


def _safe_next(request, url: str) -> str:
    """`url` where it leads to a page of ours, else nothing."""
    ours = url_has_allowed_host_and_scheme(
        url, allowed_hosts={request.get_host()}, require_https=request.is_secure()
    )
    return url if ours and url.startswith("/") else ""
