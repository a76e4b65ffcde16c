"""The person's account: what they say about themselves, and the end of it."""

from django.contrib import messages
from django.contrib.auth import logout
from django.core.exceptions import BadRequest
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from consents import access, accounts, oauth
from consents.actors import Actor
from consents.forms import person as forms
from consents.forms.channels import Button
from consents.queries import apps
from consents.queries import person as numbers
from consents.templatetags.portal import day


@access.person
@require_http_methods(["GET", "HEAD", "POST"])
def account(request):
    own = request.user
    closing = request.method == "POST" and request.POST.get("step") == "close"
    saving = request.method == "POST" and not closing
    form = forms.ProfileForm(
        request.POST if saving else None,
        initial={"name": own.name, "language": own.language, "warn_at": own.warn_at},
    )
    ending = forms.CloseForm(request.POST if closing else None, auto_id="close_%s")
    if saving and form.is_valid():
        accounts.update_profile(person=own, **form.cleaned_data, by=Actor.person(own), at=timezone.now())
        messages.success(request, _("저장했어요."))
        return redirect("account")
    if closing and ending.is_valid():
        return _closed(request)
    at = timezone.now()
    context = {
        "form": form,
        "closing": ending,
        "leaving": numbers.leaving(own, at=at),
        "apps": apps.of(own, at=at),
    }
    return render(request, "person/account.html", context, status=400 if saving or closing else 200)


@access.person
@require_POST
def disconnect_app(request, client_id):
    """Take away what an application was given; it can ask again."""
    if not Button(request.POST).is_valid():
        raise BadRequest
    client = access.own_app(request, client_id)
    oauth.disconnect(client, person=request.user, by=Actor.person(request.user), at=timezone.now())
    messages.success(
        request, _("‘%(name)s’ 앱의 연결을 끊었어요. 이제 내 정보를 볼 수 없어요.") % {"name": client.name}
    )
    return redirect("account")


def _closed(request):
    """The account is closed; the last words say what is kept, until when and why."""
    until = accounts.close(request.user, by=Actor.person(request.user), at=timezone.now())
    logout(request)
    messages.success(
        request, _("계정을 닫았어요. 이메일과 이름, 생년월일은 지웠고, 모든 회사에 지워 달라고 했어요.")
    )
    if until:
        words = _(
            "이름 없는 처리 기록은 신용정보법 제20조 제2항에 따라 %(day)s까지 따로 보관하고, 그 뒤에 없애요."
        )
        messages.info(request, words % {"day": day(until)})
    return redirect("home")
