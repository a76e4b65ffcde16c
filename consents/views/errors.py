"""What went wrong, in words; JSON problem details (RFC 9457) under /api/, pages elsewhere."""

from django.http import HttpResponseServerError, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.utils.translation import gettext as _

from consents import access
from consents.forms.sealed import LARGEST


def _answer(request, status: int, title: str, template: str):
    if request.path.startswith("/api/"):
        problem = {"type": "about:blank", "title": title, "status": status, "detail": title}
        return JsonResponse(problem, status=status, content_type="application/problem+json")
    return render(request, template, {"title": title}, status=status)


@access.public
def bad_request(request, exception=None):
    return _answer(request, 400, _("요청을 이해하지 못했어요."), "400.html")


@access.public
def permission_denied(request, exception=None):
    return _answer(request, 403, str(exception) or _("이 페이지를 볼 수 없어요."), "403.html")


@access.public
def page_not_found(request, exception=None):
    return _answer(request, 404, _("찾는 것이 없어요."), "404.html")


@access.public
def server_error(request):
    title = _("우리 쪽에 문제가 생겼어요. 잠시 뒤 다시 해 주세요.")
    if request.path.startswith("/api/"):
        return _answer(request, 500, title, "500.html")
    # Without the request: its navigation asks the database, which may be what is broken.
    return HttpResponseServerError(render_to_string("500.html", {"title": title}))


@access.public
def too_many_requests(request, exception=None):
    page = _answer(request, 429, _("잠시 뒤에 다시 해 주세요."), "429.html")
    page.headers["Retry-After"] = "60"
    return page


class WordsMiddleware:
    """Gives words and the right status where a library gives a blank page or a cheerful 200."""

    def __init__(self, get_response):
        self.get_response = get_response

    def process_template_response(self, request, response):
        """A library's form with errors is a refused request, not a fine one."""
        form = (response.context_data or {}).get("form")
        if request.method == "POST" and response.status_code == 200 and getattr(form, "errors", None):
            response.status_code = 400
        return response

    def __call__(self, request):
        response = self.get_response(request)
        is_page = response.headers.get("Content-Type", "").startswith("text/html")
        if response.status_code == 413 and is_page:  # a machine has its own words
            return _too_large(request)
        if response.status_code != 405 or response.content or request.method == "HEAD":
            return response
        page = _answer(request, 405, _("이 주소는 이렇게 열 수 없어요."), "405.html")
        page.headers["Allow"] = response.headers.get("Allow", "")
        return page


def _too_large(request):
    """How much a page for files takes, and where more may go."""
    view = request.resolver_match.func if request.resolver_match else None
    files = getattr(view, "largest_form", 0) > LARGEST
    return render(request, "413.html", {"most": LARGEST >> 20 if files else None}, status=413)


@access.public
def csrf_failure(request, reason=""):
    return _answer(request, 403, _("화면이 오래됐어요. 새로 고친 뒤 다시 해 주세요."), "403_csrf.html")
