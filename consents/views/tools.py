"""The regulator's own applications, which read the record for whoever lets them in: registered and retired after a fresh sign-in."""

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from consents import access, clients
from consents.actors import Actor
from consents.forms.channels import Button
from consents.forms.clients import OversightAppForm
from consents.queries import clients as queries
from consents.views.fresh import fresh_sign_in


@access.regulator
@require_http_methods(["GET", "HEAD", "POST"])
@fresh_sign_in
def oversight_apps(request):
    registering = request.method == "POST"
    form = OversightAppForm(request.POST if registering else None)
    if registering and form.is_valid():
        by, at = Actor.regulator(request.user), timezone.now()
        try:
            clients.make_oversight_app(**form.cleaned_data, by=by, at=at)
        except clients.SameName:
            form.add_error("name", _("같은 이름의 앱이 이미 있어요."))
        except clients.AlreadyThere:
            form.add_error(None, _("앱은 10개까지 등록할 수 있어요. 쓰지 않는 것을 거둔 뒤에 해 주세요."))
        else:
            messages.success(request, _("앱을 등록했어요."))
            return redirect("oversight_apps")
    context = {"form": form, "apps": queries.oversight_apps(at=timezone.now())}
    return render(request, "oversight/apps.html", context, status=400 if registering else 200)


@access.regulator
@require_POST
@fresh_sign_in
def retire_oversight_app(request, client_id):
    if not Button(request.POST).is_valid():
        raise BadRequest
    app = get_object_or_404(clients.oversight_apps(), pk=client_id)
    clients.retire_oversight_app(app, by=Actor.regulator(request.user), at=timezone.now())
    messages.success(request, _("앱을 거뒀어요. 받은 토큰도 모두 끝났어요."))
    return redirect("oversight_apps")
