"""Cases: the regulator's list and pages, an organization's own, and how one is settled."""

from contextlib import nullcontext

from django.contrib import messages
from django.http import Http404
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from consents import access, cases, settling
from consents.actors import Actor
from consents.forms.cases import CaseFilters, SettleForm
from consents.queries import cases as queries
from consents.queries import oversight, paging


@access.regulator
@require_safe
def reconciliation(request):
    form, page, status = _found(request, CaseFilters(request.GET))
    filtered = any(form.data.get(name) for name in form.fields)
    context = {
        "form": form, "rows": page.rows, "filtered": filtered, **oversight.organizations(), **paging.links(request, page),
    }  # fmt: skip
    return render(request, "oversight/reconciliation.html", context, status=status)


@access.regulator
@require_safe
def reconciliation_counts(request):
    try:
        page = queries.weeks(after=request.GET.get("after", ""))
    except paging.BadCursor as error:
        raise Http404 from error
    context = {"rows": page.rows, **paging.links(request, page)}
    return render(request, "oversight/reconciliation_counts.html", context)


@access.regulator
@require_safe
def reconciliation_case(request, pk):
    return _case(request, access.any_case(pk), desk=False)


@access.regulator
@require_POST
def settle_case(request, pk):
    return _settle(request, access.any_case(pk), by=Actor.regulator(request.user), desk=False)


@access.operator_admin
@require_safe
def desk_cases(request):
    form, page, status = _found(request, CaseFilters(request.GET), own=request.user.organization)
    context = {"form": form, "rows": page.rows, **paging.links(request, page)}
    return render(request, "desk/desk_cases.html", context, status=status)


@access.operator_admin
@require_safe
def desk_case(request, pk):
    return _case(request, access.organization_case(request.user.organization, pk), desk=True)


@access.operator_admin
@require_POST
def desk_settle(request, pk):
    own = request.user.organization
    by = Actor.organization(own, member=request.user)
    return _settle(request, access.organization_case(own, pk), by=by, desk=True)


def _found(request, form: CaseFilters, *, own=None):
    """The form, the page it asks for and the status of the answer."""
    if not form.is_valid():
        return form, paging.Page([], None), 400
    chosen = form.cleaned_data | ({"organization": own} if own else {})
    try:
        with access.rows_of(own) if own else nullcontext():
            return form, queries.listed(**chosen, after=request.GET.get("after", "")), 200
    except paging.BadCursor:
        form.add_error(None, _("쪽 주소가 잘못됐어요. 처음부터 다시 찾아 주세요."))
        return form, paging.Page([], None), 400


def _case(request, case, *, desk: bool, form=None, status=200):
    found = queries.detail(case)
    context = {
        "case": case, "found": found, "form": form or SettleForm(found.verbs), "desk": desk,
        "settle_url": reverse("desk_settle" if desk else "settle_case", args=[case.pk]),
    }  # fmt: skip
    return render(request, "oversight/reconciliation_case.html", context, status=status)


def _settle(request, case, *, by: Actor, desk: bool):
    form = SettleForm(settling.possible(case), request.POST)
    if not form.is_valid():
        return _case(request, case, desk=desk, form=form, status=400)
    try:
        settling.settle(
            case, form.cleaned_data["verb"], reason=form.cleaned_data["reason"], by=by, at=timezone.now()
        )
    except cases.AlreadySettled:
        messages.info(request, _("이미 정한 일이에요. 바뀐 것은 없어요."))
    except settling.NotPossible:
        form.add_error(
            None, _("이 방법으로는 정할 수 없어요. 끝난 것을 되살리거나 늘리는 일은 할 수 없어요.")
        )
        return _case(request, case, desk=desk, form=form, status=400)
    else:
        messages.success(request, _("정한 대로 적었어요."))
    return redirect("desk_case" if desk else "reconciliation_case", pk=case.pk)
