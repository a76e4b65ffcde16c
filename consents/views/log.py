"""The log for everybody, as files: its checkpoint and its tiles. No database, no session, nothing about the caller."""

from django.http import Http404, HttpResponse
from django.views.decorators.http import require_safe

from consents import access
from consents.queries import published

FOR_EVER = "public, max-age=31536000, immutable"  # a tile never changes: what it says is fixed by its address


@access.public
@require_safe
def checkpoint(request):
    return _file("checkpoint", "text/plain; charset=utf-8", "public, max-age=2")


@access.public
@require_safe
def tile(request, path):
    return _file(f"tile/{path}", "application/octet-stream", FOR_EVER)


def _file(address: str, content_type: str, cache: str) -> HttpResponse:
    content = published.file(address)
    if content is None:
        raise Http404
    # No Last-Modified: it would tell the exact time. Any page may read what is public anyway.
    headers = {"Cache-Control": cache, "Access-Control-Allow-Origin": "*"}
    return HttpResponse(content, content_type=content_type, headers=headers)
