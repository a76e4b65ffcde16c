"""OAuth2 clients at the desk: made, given another secret, changed, retired; and the keys an organization signs with."""

from django.contrib import messages
from django.core.exceptions import BadRequest
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from consents import access, clients, mail
from consents.actors import Actor
from consents.forms import clients as forms
from consents.forms.channels import Button
from consents.queries import clients as queries
from consents.views.fresh import fresh_sign_in
from providers.models import ApiClient

SERVER, APP = ApiClient.Kind.SERVER, ApiClient.Kind.APP


@access.operator_admin
@require_safe
def desk_api(request):
    own = request.user.organization
    context = {
        "organization": own,
        "screen": queries.screen(own, at=timezone.now()),
        "rotating": forms.RotateForm(auto_id="rotate_%s"),
    }
    return render(request, "desk/desk_api.html", context)


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
@fresh_sign_in
def new_api_client(request):
    initial = {"scopes": ["deliveries:ack"]}
    form = forms.NewServerForm(_posted(request), kind=SERVER, initial=initial)
    if not form.is_valid():
        return render(
            request, "desk/new_api_client.html", {"form": form}, status=400 if form.is_bound else 200
        )
    try:
        link, secret = clients.make(
            request.user.organization, **form.cleaned_data, by=_actor(request), at=timezone.now()
        )
    except clients.AlreadyThere:
        messages.info(request, _("서버가 쓰는 클라이언트가 이미 있어요."))
        return redirect("desk_api")
    _tell(request, "made", link.client_id)
    return render(request, "desk/client_secret.html", {"link": link, "secret": secret, "first": True})


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
@fresh_sign_in
def new_api_app(request):
    form = forms.NewAppForm(_posted(request), kind=APP, initial={"scopes": ["me", "openid"]})
    if not form.is_valid():
        return render(request, "desk/new_api_app.html", {"form": form}, status=400 if form.is_bound else 200)
    try:
        link = clients.make_app(
            request.user.organization, **form.cleaned_data, by=_actor(request), at=timezone.now()
        )
    except clients.SameName:
        form.add_error("name", _("같은 이름의 앱이 이미 있어요."))
        return render(request, "desk/new_api_app.html", {"form": form}, status=400)
    except clients.AlreadyThere:
        messages.error(request, _("앱은 10개까지 등록할 수 있어요. 쓰지 않는 것을 거둔 뒤에 해 주세요."))
    else:
        _tell(request, "app-made", link.client_id)
        messages.success(request, _("앱을 등록했어요."))
    return redirect("desk_api")


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
@fresh_sign_in
def change_api_client(request, client_id):
    link = access.own_client(request.user.organization, client_id)
    initial = {
        "scopes": link.client.get_scopes(), "redirect_uris": link.client.redirect_uris, "method": link.method,
        "dpop": link.dpop,
    }  # fmt: skip
    form = forms.ChangeForm(_posted(request), kind=link.kind, initial=initial)
    if form.is_bound and form.is_valid():
        wanted = {"method": link.method} | form.cleaned_data
        try:
            changed = clients.change(link, **wanted, by=_actor(request), at=timezone.now())
        except clients.NoKeys:
            form.add_error("method", _("먼저 공개 키를 등록해 주세요. 그래야 서명을 확인할 수 있어요."))
        else:
            same_way = (changed.method, changed.dpop) == (link.method, link.dpop)
            _tell(request, "changed" if same_way else "way-changed", link.client_id)
            messages.success(
                request, _("바꿨어요. 권한이 줄거나 방법이 바뀌었다면 쓰던 토큰은 모두 끊었어요.")
            )
            return redirect("desk_api")
    context = {"form": form, "link": link}
    return render(request, "desk/change_api_client.html", context, status=400 if form.is_bound else 200)


@access.operator_admin
@require_POST
@fresh_sign_in
def rotate_api_secret(request, client_id):
    link = access.own_client(request.user.organization, client_id)
    form = forms.RotateForm(request.POST)
    if link.kind != SERVER or not form.is_valid():
        raise BadRequest
    try:
        _new, secret = clients.rotate(link, **form.cleaned_data, by=_actor(request), at=timezone.now())
    except clients.TwoAlready:
        messages.error(request, _("쓰는 비밀이 이미 둘이에요. 옛 비밀을 먼저 거둬 주세요."))
        return redirect("desk_api")
    _tell(request, "secret-made", link.client_id)
    return render(request, "desk/client_secret.html", {"link": link, "secret": secret, "first": False})


@access.operator_admin
@require_POST
@fresh_sign_in
def retire_api_secret(request, name):
    secret = access.own_secret(request.user.organization, name)
    return _done(
        request, lambda by, at: clients.retire_secret(secret, by=by, at=at), _("비밀을 거뒀어요. 이제 아무것도 열지 못해요."),
        told="secret-retired", client_id=secret.link.client_id,
    )  # fmt: skip


@access.operator_admin
@require_POST
@fresh_sign_in
def revoke_api_tokens(request, client_id):
    link = access.own_client(request.user.organization, client_id)
    return _done(
        request, lambda by, at: clients.revoke_tokens(link, by=by, at=at), _("이 클라이언트의 토큰을 모두 끊었어요."),
        told="tokens-ended", client_id=link.client_id,
    )  # fmt: skip


@access.operator_admin
@require_POST
@fresh_sign_in
def retire_api_client(request, client_id):
    link = access.own_client(request.user.organization, client_id)
    return _done(
        request, lambda by, at: clients.retire(link, by=by, at=at), _("클라이언트를 거뒀어요. 비밀과 토큰도 모두 끝났어요."),
        told="retired", client_id=link.client_id,
    )  # fmt: skip


@access.operator_admin
@require_http_methods(["GET", "HEAD", "POST"])
@fresh_sign_in
def api_keys(request):
    form = forms.KeysForm(_posted(request))
    if not form.is_bound or not form.is_valid():
        return render(request, "desk/api_keys.html", {"form": form}, status=400 if form.is_bound else 200)
    wanted = {name: form.cleaned_data[name] for name in ("keys", "address")}
    clients.register_keys(request.user.organization, **wanted, by=_actor(request), at=timezone.now())
    _tell(request, "keys-registered")
    messages.success(request, _("공개 키를 등록했어요. 지금부터 이 열쇠로 서명을 확인해요."))
    return redirect("desk_api")


@access.operator_admin
@require_POST
@fresh_sign_in
def remove_api_keys(request):
    own = request.user.organization
    try:
        return _done(
            request, lambda by, at: clients.remove_keys(own, by=by, at=at), _("등록한 공개 키를 거뒀어요."), told="keys-removed",
        )  # fmt: skip
    except clients.StillNeeded:
        messages.error(
            request, _("이 열쇠로 로그인하는 클라이언트가 있어요. 로그인 방법을 먼저 바꿔 주세요.")
        )
        return redirect("desk_api")


def _posted(request):
    """What was posted, if only nothing."""
    return request.POST if request.method == "POST" else None


def _tell(request, what: str, client_id: str = "") -> None:
    """The other admins learn of it by a letter (mail.CLIENT_CHANGES)."""
    own = request.user.organization
    mail.tell_client_change(what, own, client_id=client_id, by=request.user, at=timezone.now())


def _done(request, act, words: str, *, told: str, client_id: str = ""):
    """A button was pressed; pressed twice it does no more."""
    if not Button(request.POST).is_valid():
        raise BadRequest
    try:
        if act(_actor(request), timezone.now()) is not False:
            _tell(request, told, client_id)
    except clients.Retired:
        messages.info(request, _("이미 거둔 것이에요."))
    else:
        messages.success(request, words)
    return redirect("desk_api")


def _actor(request) -> Actor:
    return Actor.organization(request.user.organization, member=request.user)
