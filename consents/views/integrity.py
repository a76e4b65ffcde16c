"""The regulator's page of trust in the log: verdict, checkpoint history, consistency of two, a check at the press of a button."""

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from consents import access
from consents.actors import Actor
from consents.forms.integrity import AcknowledgeForm, ConsistencyForm
from consents.forms.person import NothingForm
from consents.ledger import monitor
from consents.queries import integrity as queries
from consents.queries import paging, proofs


@access.regulator
@require_safe
def integrity(request):
    return _page(request, ConsistencyForm(), AcknowledgeForm())


@access.regulator
@require_safe
def consistency(request):
    if not request.GET:
        return redirect("integrity")
    form = ConsistencyForm(request.GET)
    if not form.is_valid():
        return _page(request, form, AcknowledgeForm(), status=400)
    try:
        found = queries.consistency(form.cleaned_data["old"], form.cleaned_data["new"])
    except queries.NoCheckpoint:
        form.add_error(None, _("그 크기의 체크포인트가 없어요. 아래 표에 있는 크기 둘을 써 주세요."))
        return _page(request, form, AcknowledgeForm(), status=400)
    if form.cleaned_data["download"] and not found.wrong:
        name = f"consistency-{found.old}-{found.new}.txt"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return HttpResponse(found.text, content_type="text/plain; charset=utf-8", headers=headers)
    return render(request, "oversight/consistency.html", {"found": found})


@access.regulator
@require_POST
def check_integrity(request):
    if not NothingForm(request.POST).is_valid():
        return render(request, "400.html", status=400)
    found = monitor.watch(at=monitor.clock(), full=True)
    if found is None:
        messages.info(request, _("다른 확인이 돌고 있어요. 곧 결과가 나와요."))
    elif found.holds:
        messages.success(request, _("공개된 기록을 다시 확인했어요. 모두 맞아요."))
    else:
        messages.error(request, _("확인했더니 맞지 않는 것이 있어요. 아래를 봐 주세요."))
    return redirect("integrity")


@access.regulator
@require_POST
def acknowledge_integrity(request):
    form = AcknowledgeForm(request.POST)
    if not form.is_valid():
        return _page(request, ConsistencyForm(), form, status=400)
    gone = monitor.acknowledge(
        reason=form.cleaned_data["reason"], by=Actor.regulator(request.user), at=timezone.now()
    )
    if gone:
        messages.success(request, _("확인했다고 남겼어요. 아직 그대로인 것은 다음 확인 때 다시 나와요."))
    else:
        messages.info(request, _("확인을 기다리는 것이 없어요."))
    return redirect("integrity")


@access.regulator
@require_safe
def oversight_proof(request, event_id):
    entry = access.any_entry(event_id)
    try:
        text = proofs.proof(entry)
    except proofs.Unreadable:
        text = None
    if text is None:
        messages.warning(request, _("아직 공개된 체크포인트 아래에 없어서 증명을 만들지 못해요."))
        return redirect("entry", event_id)
    headers = {"Content-Disposition": f'attachment; filename="{event_id}.tlog-proof"'}
    return HttpResponse(text, content_type="text/plain; charset=utf-8", headers=headers)


def _page(request, form, acknowledge, status=200):
    at = timezone.now()
    try:
        page = queries.history(request.GET.get("after", ""))
    except paging.BadCursor as wrong:
        raise Http404 from wrong
    first = reverse("integrity")
    links = {
        "next_url": f"{first}?after={page.next}#history" if page.next else None,
        "first_url": f"{first}#history" if request.GET.get("after") else None,
    }
    head = queries.overview(at=at)
    context = {
        "head": head, "late": head.witnessing.late(at=at), "form": form, "acknowledge": acknowledge, "rows": page.rows,
        "held": monitor.held(at=at), **links,
    }  # fmt: skip
    return render(request, "oversight/integrity.html", context, status=status)
