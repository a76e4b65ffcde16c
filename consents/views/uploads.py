"""Files of rows at the desk: sent, watched while they go in, and the rows that did not."""

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.http import StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consents import access, uploads
from consents.actors import Actor
from consents.forms.channels import Button
from consents.forms.sealed import FIELDS, LARGEST
from consents.forms.uploads import UploadForm
from consents.models import Upload
from consents.queries import paging
from consents.queries import uploads as queries


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
def desk_uploads(request):
    own, sending = request.user.organization, request.method == "POST"
    data = (request.POST, request.FILES) if sending else ()
    form = UploadForm(*data, operator=own.is_operator)
    if sending and form.is_valid():
        return _sent(request, form)
    try:
        page = queries.uploads(own, after=request.GET.get("after", ""))
    except paging.BadCursor as error:
        raise BadRequest from error
    context = {"form": form, "rows": page.rows, **paging.links(request, page)}
    return render(request, "desk/desk_uploads.html", context, status=400 if sending else 200)


desk_uploads.largest_form = LARGEST + FIELDS


def _sent(request, form: UploadForm):
    """The file is taken in pieces, and its turn comes next."""
    own, at, file = request.user.organization, timezone.now(), form.cleaned_data["file"]
    format = form.format_of(file.name) or Upload.Format.CSV
    by = Actor.organization(own, member=request.user)
    try:
        upload = uploads.start(
            own,
            kind=form.cleaned_data["kind"],
            format=format,
            member=request.user,
            by=by,
            at=at,
        )
    except uploads.TooManyOpen:
        messages.error(
            request,
            _("아직 끝나지 않은 파일이 많아요. 아래에서 하나를 열어 그만두거나, 끝난 뒤에 다시 해 주세요."),
        )
        return redirect("desk_uploads")
    try:
        uploads.receive(upload, file, begin=0, by=by, at=at)
    except uploads.TooMuch:
        uploads.drop(upload, by=by, at=at)
        messages.error(request, _("1,000,000줄보다 많아요. 나눠서 보내 주세요."))
        return redirect("desk_uploads")
    uploads.complete(upload, by=by, at=at)
    return redirect("desk_upload", pk=upload.pk)


@access.operator_admin
@require_safe
def desk_upload(request, pk):
    upload = access.own_upload(request.user.organization, pk)
    beyond = request.GET.get("beyond", "0")
    if not (beyond.isascii() and beyond.isdigit() and len(beyond) < 16):
        raise BadRequest
    rows, further = queries.refusals(upload, beyond=int(beyond))
    links = {
        "next_url": f"?beyond={further}" if further else None,
        "first_url": request.path if int(beyond) else None,
    }
    return render(request, "desk/desk_upload.html", {**queries.progress(upload), "rows": rows, **links})


@access.operator_admin
@require_POST
def drop_upload(request, pk):
    own = request.user.organization
    upload = access.own_upload(own, pk)
    if not Button(request.POST).is_valid():
        raise BadRequest
    try:
        uploads.drop(upload, by=Actor.organization(own, member=request.user), at=timezone.now())
    except uploads.Begun:
        messages.error(request, _("이미 넣기 시작해서 그만둘 수 없어요."))
        return redirect("desk_upload", pk=pk)
    messages.success(request, _("파일을 그만뒀어요. 받은 것은 모두 지웠어요."))
    return redirect("desk_uploads")


@access.operator_admin
@require_safe
def upload_progress(request, pk):
    upload = access.own_upload(request.user.organization, pk)
    return render(request, "desk/_upload.html", queries.progress(upload))


@access.operator_admin
@require_safe
def refused_rows(request, pk):
    upload = access.own_upload(request.user.organization, pk)
    response = StreamingHttpResponse(queries.refused_lines(upload), content_type="text/csv; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{upload.pk}.refused.csv"'
    return response
