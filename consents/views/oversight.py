"""The regulator's pages: search of the log, one entry, who is behind it (recorded), obligations past their deadline."""

from django.http import Http404
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST, require_safe

from consents import access, inspection
from consents.actors import Actor
from consents.forms.oversight import EntryFilters, OverdueForm, RevealForm
from consents.queries import oversight as queries
from consents.queries import paging


@access.regulator
@require_safe
def oversight(request):
    filters = EntryFilters(request.GET)
    page = _page(request, filters.form, lambda after: queries.entries(filters, after))
    return _listed(request, "oversight/oversight.html", filters.form, page)


@access.regulator
@require_safe
def entry(request, event_id):
    return _entry(request, event_id, RevealForm())


@access.regulator
@require_POST
def reveal(request, event_id):
    form = RevealForm(request.POST)
    if not form.is_valid():
        return _entry(request, event_id, form, status=400)
    at = timezone.now()
    try:
        person = inspection.reveal(
            event_id=event_id, case=form.cleaned_data["case"], reason=form.cleaned_data["reason"],
            by=Actor.regulator(request.user), at=at,
        )  # fmt: skip
    except inspection.NobodyToReveal as nobody:
        raise Http404 from nobody
    except inspection.NotRecorded:
        form.add_error(
            None, _("조회 기록을 남기지 못해서 신원을 보여 드리지 않았어요. 잠시 뒤 다시 해 주세요.")
        )
        return _entry(request, event_id, form, status=503)
    context = {"person": person, "event_id": event_id, "at": at, **form.cleaned_data}
    return render(request, "oversight/reveal.html", context)


@access.regulator
@require_safe
def overdue(request):
    at = timezone.now()
    form = OverdueForm(request.GET)
    page = _page(
        request,
        form,
        lambda after: queries.overdue(at=at, **form.cleaned_data, after=after),
    )
    return _listed(
        request, "oversight/overdue.html", form, page, groups=queries.overdue_by_organization(at=at)
    )


def _page(request, form, find) -> paging.Page:
    """What `find` gives; nothing, with the reason in the form, where the filters or the cursor make no sense."""
    if not form.is_valid():
        return paging.Page([], None)
    try:
        return find(request.GET.get("after", ""))
    except paging.BadCursor:
        form.add_error(None, _("쪽 주소가 잘못됐어요. 처음부터 다시 찾아 주세요."))
        return paging.Page([], None)


def _listed(request, template, form, page, **more):
    context = {
        "form": form,
        "rows": page.rows,
        "filtered": any(form.data.get(name) for name in form.fields),
        **queries.organizations(),
        **paging.links(request, page),
        **more,
    }
    return render(request, template, context, status=400 if form.errors else 200)


def _entry(request, event_id, form, status=200):
    found = queries.entry(event_id)
    if found is None:
        raise Http404
    return render(request, "oversight/entry.html", {"entry": found, "form": form}, status=status)
