"""The person asks everybody what they hold, and watches the answers come in."""

from django.contrib import messages
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from consents import access, discovery
from consents.actors import Actor
from consents.forms.person import NothingForm
from consents.queries import cases as queries
from consents.views.replies import refused


@access.person
@require_http_methods(["GET", "HEAD", "POST"])
def ask_companies(request):
    if request.method != "POST":
        return render(request, "person/ask_companies.html", {"asked": queries.asked(request.user)})
    if not NothingForm(request.POST).is_valid():
        return refused(request, _("이렇게는 물어볼 수 없어요."), back_url=reverse("ask_companies"))
    try:
        count = discovery.request(request.user, by=Actor.person(request.user), at=timezone.now())
    except discovery.TooSoon as soon:
        when = timezone.localtime(soon.again_at)
        messages.info(
            request,
            _("조금 전에 물어봤어요. %(when)s부터 다시 물어볼 수 있어요.") % {"when": f"{when:%H:%M}"},
        )
    else:
        if count:
            messages.success(request, _("지금 물어보고 있어요. 답이 오는 대로 여기에 보여요."))
        else:
            messages.info(request, _("물어볼 곳이 없어요. 아직 가입한 서비스가 없어요."))
    return redirect("ask_companies")
