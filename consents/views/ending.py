"""The desk's own ends: the customer left, or the service closes. Numbers, never people: a customer is the id of our messages."""

from django.contrib import messages
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods, require_POST

from consents import access, inbound
from consents.actors import Actor
from consents.forms.ending import CloseServiceForm, EndCustomerForm


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
def desk_end(request):
    own, ending = request.user.organization, request.method == "POST"
    form = EndCustomerForm(request.POST if ending else None, organization=own, auto_id="end_%s")
    if ending and form.is_valid():
        told = {"service": None} | form.cleaned_data
        by = Actor.organization(own, member=request.user)
        try:
            count = inbound.end_customer(own, **told, by=by, at=timezone.now())
        except inbound.Unknown:
            form.add_error("subject", _("지금 이어져 있는 고객이 아니에요."))
        except inbound.WrongReason:
            form.add_error("reason", _("이 회사가 들 수 있는 까닭이 아니에요."))
        else:
            return _ended(request, count)
    return _page(
        request, form, CloseServiceForm(organization=own, auto_id="close_%s"), status=400 if ending else 200
    )


def _ended(request, count: int):
    words = ngettext(
        "%(n)d건을 끝냈고, 다른 곳과 본인에게 알렸어요.",
        "%(n)d건을 끝냈고, 다른 곳과 본인에게 알렸어요.",
        count,
    )
    messages.success(request, words % {"n": count})
    return redirect("desk_end")


@access.operator_admin
@require_POST
def close_service(request):
    own = request.user.organization
    form = CloseServiceForm(request.POST, organization=own, auto_id="close_%s")
    if not form.is_valid():
        return _page(request, EndCustomerForm(organization=own, auto_id="end_%s"), form, status=400)
    by = Actor.organization(own, member=request.user)
    count = inbound.close_service(form.cleaned_data["service"], by=by, at=timezone.now())
    words = ngettext(
        "서비스를 닫았어요. 가입 %(n)d건을 곧 모두 끝내요.",
        "서비스를 닫았어요. 가입 %(n)d건을 곧 모두 끝내요.",
        count,
    )
    messages.success(request, words % {"n": count})
    return redirect("desk_end")


def _page(request, customer, service, *, status: int):
    own = request.user.organization
    context = {"customer": customer, "closing": service if own.is_operator else None}
    return render(request, "desk/desk_end.html", context, status=status)
