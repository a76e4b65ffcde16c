"""Joining a service: the speed bump, the ask, and requests that operators lodged. For persons only.

The speed bump comes first, always: it hands out a signed note that this person has seen the list for this service, and
the ask opens only with a fresh one. Nothing on the way can keep a person from going on.
"""

import uuid

from csp.constants import SELF
from django.contrib import messages
from django.core import signing
from django.http import Http404, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from consents import access, lifecycle, requests, speedbump
from consents.actors import Actor
from consents.forms.join import AskForm, EndForm
from consents.models import ConsentRequest
from consents.queries import join as queries
from consents.queries import public
from consents.views.replies import accepted
from providers.models import Service

SEEN_FOR = 60 * 60  # seconds; then the list is shown again


# --- the speed bump ------------------------------------------------------------------------------------------------------


@access.person
@require_http_methods(["GET", "HEAD", "POST"])
def join(request, slug):
    at = timezone.now()
    service = public.find_service(slug, on=lifecycle.day(at))
    lodged_id = _request_id(request)
    if request.method == "POST":
        return _end(request, service, lodged_id, at=at)
    return _bump_page(request, service, lodged_id, at=at)


def _bump_page(request, service, lodged_id, *, at, problems=(), status=200):
    if not public.is_open(service):
        return _refused(request, service, lifecycle.NotOpen())
    bump = queries.speed_bump(person=request.user, service=service, at=at)
    seen = note_of_seeing(request.user, service, bump.level, bump.total)
    context = {"service": service, "bump": bump, "seen": seen, "request_id": lodged_id, "problems": problems}
    return render(request, "join/join.html", context, status=status)


def _end(request, service, lodged_id, *, at):
    """End what was ticked, and come back to the same page with the new count."""
    form = EndForm(request.POST)
    if not form.is_valid():
        return _bump_page(request, service, lodged_id, at=at, problems=_sentences(form), status=400)
    ending = [access.own_subscription(request, pk) for pk in form.cleaned_data["chosen"]]
    ended = []
    for subscription in ending:
        try:
            lifecycle.leave(
                subscription, erase=form.cleaned_data["erase"], by=Actor.person(request.user), at=at
            )
        except lifecycle.AlreadyEnded:
            continue
        ended.append(subscription)
    if not ended:
        return _bump_page(
            request, service, lodged_id, at=at, problems=[_("이미 그만둔 곳이에요.")], status=409
        )
    said = ngettext("%(n)d곳을 그만뒀어요.", "%(n)d곳을 그만뒀어요.", len(ended)) % {"n": len(ended)}
    if form.cleaned_data["erase"]:
        said += " " + _("받아간 정보도 지워 달라고 했어요.")
    words = _("일마다 영수증은 내역에 있어요.")
    link = format_html('<a href="{}">{}</a>', reverse("history"), words)
    messages.success(request, format_html("{} {}", said, link))
    return _see_other(_address("join", service, lodged_id))


# --- the ask ---------------------------------------------------------------------------------------------------------------


@access.person
@require_http_methods(["GET", "HEAD", "POST"])
def ask(request, slug):
    at = timezone.now()
    service = public.find_service(slug, on=lifecycle.day(at))
    given = request.POST if request.method == "POST" else request.GET
    lodged_id = _request_id(request)
    if request.method == "POST" and not lodged_id and public.own_subscription_url(request.user, service):
        return _refused(request, service, lifecycle.AlreadyJoined())
    level = _seen_level(request, service, given.get("seen", ""))
    if level is None:
        return _back_to_the_bump(request, service, lodged_id)
    if level == speedbump.STRONG and given.get("reviewed") != "on":
        messages.warning(request, _("목록을 살펴봤다는 칸을 고르면 이어 갈 수 있어요."))
        return _see_other(_address("join", service, lodged_id))
    asked = queries.ask(service, person=request.user, language=_language(), at=at)
    if asked is None or not public.is_open(service):
        return _refused(request, service, lifecycle.NotOpen())
    if request.method == "POST":
        return _answer(request, service, asked, strong=level == speedbump.STRONG, at=at)
    if url := public.own_subscription_url(request.user, service):
        messages.info(request, _("이미 가입한 서비스예요."))
        return _see_other(url)
    return _ask_page(
        request, service, asked, _blank(asked, given, lodged_id, strong=level == speedbump.STRONG)
    )


def _back_to_the_bump(request, service, lodged_id):
    """The list was never shown, too long ago, or has grown since: show it again."""
    if request.method == "POST":
        messages.warning(
            request,
            _("시간이 꽤 지났어요. 지금 목록을 다시 보고 이어 가 주세요. 아직 아무것도 동의하지 않았어요."),
        )
    return _see_other(_address("join", service, lodged_id))


def _answer(request, service, asked, *, strong, at):
    form = AskForm(request.POST, asked=asked, strong=strong)
    if not form.is_about_what_was_shown():
        fresh = _blank(asked, request.POST, _request_id(request), strong=strong)
        problems = [_("그사이 약관이 바뀌었어요. 아직 아무것도 동의하지 않았어요. 새 글을 다시 읽어 주세요.")]
        return _ask_page(request, service, asked, fresh, problems=problems, status=409)
    if not form.is_valid():
        return _ask_page(request, service, asked, form, problems=_sentences(form), status=400)
    agreed = {
        "person": request.user, "terms": asked.offer.terms, "choices": form.choices(),
        "language": form.cleaned_data["language"], "until_on": form.until_on(at), "by": Actor.person(request.user), "at": at,
    }  # fmt: skip
    lodged_id = form.cleaned_data["request"]
    try:
        if lodged_id:
            lodged = _request_for(request, service, lodged_id)
            subscription = requests.accept(lodged, **agreed)
            accepted(request, _("가입했어요."), "subscription.joined", subscription=subscription)
            return _see_other(reverse("consent_request", args=[lodged.pk]))
        subscription = lifecycle.join(service=service, **agreed)
    except lifecycle.Refused as refusal:
        return _refused(request, service, refusal)
    words = _("가입했어요. 무엇에 동의했는지 여기 영수증에 적어 두었어요.")
    accepted(request, words, "subscription.joined", subscription=subscription)
    return _see_other(reverse("receipt", args=[subscription.pk]))


def _ask_page(request, service, asked, form, *, problems=(), status=200):
    form.show_riders()
    context = {
        "service": service, "asked": asked, "form": form, "chosen": form.ticked(), "chosen_months": form.chosen_months(),
        "request_id": _request_id(request), "problems": problems,
    }  # fmt: skip
    return render(request, "join/ask.html", context, status=status)


def _blank(asked, given, lodged_id, *, strong):
    """The form as it is first shown: the shorter duration, every optional item and rider off."""
    initial = {
        "terms": asked.offer.terms.pk, "digest": asked.digest, "language": asked.language, "seen": given.get("seen", ""),
        "reviewed": "on" if given.get("reviewed") == "on" else "", "request": lodged_id, "months": asked.usual_months,
    }  # fmt: skip
    return AskForm(initial=initial, asked=asked, strong=strong)


# --- a request that an operator lodged ---------------------------------------------------------------------------------------


@access.person
@require_http_methods(["GET", "HEAD", "POST"])
def consent_request(request, pk):
    at = timezone.now()
    lodged = access.open_request(request, pk)
    if request.method == "POST":
        try:
            requests.take_up(lodged, person=request.user, by=Actor.person(request.user), at=at)
        except requests.Closed:
            return _request_page(request, lodged, at=at, status=409)
        return _see_other(_address("join", lodged.service, lodged.pk))
    return _request_page(request, lodged, at=at)


@access.person
@require_POST
def decline_request(request, pk):
    at = timezone.now()
    lodged = access.open_request(request, pk)
    try:
        requests.decline(lodged, person=request.user, by=Actor.person(request.user), at=at)
    except requests.Closed:
        return _request_page(request, lodged, at=at, status=409)
    words = _("동의하지 않기로 한 것을 기록했어요.")
    accepted(request, words, "request.declined", jti=lodged.pk, person=request.user)
    return _see_other(reverse("consent_request", args=[lodged.pk]))


@access.person
@require_POST
def return_request(request, pk):
    """The person goes back to the operator with a code of one minute."""
    at = timezone.now()
    lodged = access.open_request(request, pk)
    try:
        address = requests.send_back(lodged, person=request.user, by=Actor.person(request.user), at=at)
    except requests.Closed:
        return _request_page(request, lodged, at=at, status=409)
    return _see_other(address)


def _request_page(request, lodged, *, at, status=200):
    service = public.find_service(lodged.service.slug, on=lifecycle.day(at))
    is_open = lodged.is_open(at=at)
    over = lodged.state == ConsentRequest.State.EXPIRED or (
        lodged.state == ConsentRequest.State.PENDING and not is_open
    )
    back = queries.return_link(lodged)
    context = {
        "lodged": lodged,
        "service": service,
        "is_open": is_open,
        "is_over": over,
        "minutes": requests.minutes(at=at) if over else None,
        "back": back,
        "holding": queries.summary(request.user) if is_open else None,
        "receipt_url": queries.receipt_url(lodged),
        "joined": public.own_subscription_url(request.user, service) if is_open else None,
    }
    response = render(request, "join/consent_request.html", context, status=410 if over else status)
    if back and back["with_code"]:
        # Browsers hold the redirect after the form to the page's own policy, so the way back belongs in it.
        response._csp_update = {"form-action": [SELF, back["origin"]]}  # type: ignore[attr-defined]
    return response


def _request_for(request, service, pk):
    lodged = access.open_request(request, pk)
    if lodged.service_id != service.pk:
        raise Http404
    return lodged


# --- what they share ----------------------------------------------------------------------------------------------------------


def _refused(request, service, refusal):
    """Why it did not work, in words; nothing was changed."""
    title, text, status = _why(refusal, service)
    joined = (
        public.own_subscription_url(request.user, service)
        if isinstance(refusal, lifecycle.AlreadyJoined)
        else None
    )
    context = {"service": service, "title": title, "text": text, "joined": joined}
    return render(request, "join/refused.html", context, status=status)


def _why(refusal, service):
    match refusal:
        case lifecycle.NotOpen() | requests.Closed() if service.state == Service.State.CLOSED:
            return (
                _("이 서비스는 닫혔어요"),
                _("아무것도 동의하지 않았어요. 회사가 서비스를 닫아서 이제 가입할 수 없어요."),
                409,
            )
        case lifecycle.NotOpen():
            return (
                _("지금은 새로 가입할 수 없어요"),
                _("회사의 허가나 서비스 상태 때문에 새 동의를 받을 수 없어요."),
                409,
            )
        case lifecycle.AlreadyJoined():
            return _("이미 가입한 서비스예요"), _("한 번만 가입돼요. 두 번 눌러도 달라지는 것은 없어요."), 409
        case lifecycle.TermsChanged():
            return (
                _("그사이 약관이 바뀌었어요"),
                _("아직 아무것도 동의하지 않았어요. 처음부터 새 글로 다시 볼 수 있어요."),
                409,
            )
        case lifecycle.TooYoung():
            return (
                _("아직 스스로 가입할 수 있는 나이가 아니에요"),
                _("만 14세부터 쓸 수 있고, 광고와 다른 회사 제공은 만 19세부터 고를 수 있어요."),
                403,
            )
        case lifecycle.RequiredDeclined():
            return (
                _("꼭 필요한 동의가 빠졌어요"),
                _("꼭 필요한 것에 동의하지 않으면 가입되지 않아요. 아무것도 바뀌지 않았어요."),
                400,
            )
        case requests.Closed():
            return (
                _("이 요청은 이미 끝났어요"),
                _("시간이 지났거나 이미 답한 요청이에요. 아무것도 바뀌지 않았어요."),
                409,
            )
    return (
        _("그대로는 가입할 수 없어요"),
        _("약관에 없는 것이 들어 있어요. 처음부터 다시 해 주세요. 아무것도 바뀌지 않았어요."),
        400,
    )


def _seen_level(request, service, note: str):
    """The level at which this person saw the speed bump of this service within SEEN_FOR.

    None where they did not, or where more operators hold their data now than the list they saw had."""
    try:
        level, seen = signing.loads(note, salt=_salt(request.user, service), max_age=SEEN_FOR)
    except (signing.BadSignature, TypeError, ValueError):
        return None
    return level if queries.operators_holding(request.user) <= seen else None


def note_of_seeing(person, service, level: str, operators: int) -> str:
    """Signed for this person and this service without naming either, because it travels in an address."""
    return signing.dumps([level, operators], salt=_salt(person, service))


def _salt(person, service):
    return f"the speed bump of {service.pk} was shown to {person.pk}"


def _request_id(request):
    """The lodged request this join answers, carried in the address; None for a join of the person's own accord."""
    given = request.GET.get("request") or request.POST.get("request")
    try:
        return uuid.UUID(given) if given else None
    except ValueError:
        raise Http404 from None


def _address(name, service, lodged_id):
    address = reverse(name, args=[service.slug])
    return f"{address}?{urlencode({'request': lodged_id})}" if lodged_id else address


def _language():
    return "en" if get_language() == "en" else "ko"


def _sentences(form):
    return [message for errors in form.errors.values() for message in errors]


def _see_other(address):
    """303: what was posted is done, look there."""
    response = HttpResponseRedirect(address)
    response.status_code = 303
    return response
