"""The person proves who they are, by the demo's pretend provider or by one that the settings name; and the code that counts."""

from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter, get_adapter
from django.conf import settings
from django.contrib import messages
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_http_methods

from consents import access, counting, identities
from consents.actors import Actor
from consents.forms.identity import PretendForm
from consents.forms.person import NothingForm
from consents.identities import Vouched
from consents.models import Identity
from consents.views.replies import refused

read_or_post = require_http_methods(["GET", "HEAD", "POST"])
# Where each provider's answer about a person has their CI (연계정보).
CI_OF: dict[str, list[tuple[str, ...]]] = {"kakao": [("kakao_account", "ci")], "naver": [("ci",)]}


@access.person
@read_or_post
def verify_me(request):
    own = request.user
    first = {"name": own.name, "born_on": own.born_on}
    form = PretendForm(request.POST if request.method == "POST" else None, initial=first)
    if request.method == "POST" and settings.PRETEND_IDENTITY and form.is_valid():
        return _verified(request, form.vouched())
    context = {
        "identity": Identity.objects.filter(person=own).first(),
        "form": form if settings.PRETEND_IDENTITY else None,
        "providers": [(row, row.get_login_url(request, process="connect")) for row in _providers(request)],
    }
    return render(request, "person/verify_me.html", context, status=400 if request.method == "POST" else 200)


def _providers(request) -> list:
    return get_adapter().list_providers(request) if settings.SOCIALACCOUNT_PROVIDERS else []


def _verified(request, vouched: Vouched):
    """Say what came of it, and back to the page."""
    try:
        found = identities.verify(request.user, vouched, by=Actor.person(request.user), at=timezone.now())
    except identities.Taken:
        messages.error(
            request, _("이 계정이나 그 사람은 이미 다른 쪽과 이어져 있어요. 내 것이 맞다면 문의해 주세요.")
        )
        return redirect("verify_me")
    except identities.NotProved:
        messages.error(
            request,
            _(
                "본인 확인 기관이 누구인지 알려 주지 않았어요. 동의 항목에서 연계정보(CI)를 골랐는지 봐 주세요."
            ),
        )
        return redirect("verify_me")
    words = ngettext(
        "확인했어요. 회사가 알려 온 연동 %(n)d건을 내 목록에 넣었어요.",
        "확인했어요. 회사가 알려 온 연동 %(n)d건을 내 목록에 넣었어요.",
        found,
    )
    messages.success(request, words % {"n": found} if found else _("확인했어요. 기다리던 것은 없었어요."))
    return redirect("me" if found else "verify_me")


class IdentityAdapter(DefaultSocialAccountAdapter):
    """Other people's sign-in says who a person is, and never signs anybody in: nothing of its answer is kept."""

    def pre_social_login(self, request, sociallogin):
        if not request.user.is_authenticated or access.role(request.user) != access.PERSON:
            raise ImmediateHttpResponse(redirect(reverse("account_login")))
        raise ImmediateHttpResponse(_verified(request, _vouched(sociallogin.account)))

    def on_authentication_error(self, request, provider, error=None, exception=None, extra_context=None):
        messages.error(request, _("본인 확인을 마치지 못했어요. 다시 해 주세요."))
        raise ImmediateHttpResponse(redirect("verify_me"))

    def is_open_for_signup(self, request, sociallogin):
        return False


def _vouched(account) -> Vouched:
    """The CI in a provider's answer; empty where it holds none. OpenID Connect: the claim of the settings, wherever it stands."""
    claim: str = settings.IDENTITY_CI_CLAIM
    places = CI_OF.get(account.provider) or [("userinfo", claim), ("id_token", claim), (claim,)]
    found = [_inside(account.extra_data, place) for place in places]
    return Vouched(account.provider, next((ci for ci in found if isinstance(ci, str)), ""))


def _inside(answer: object, place: tuple[str, ...]) -> object:
    for name in place:
        answer = answer.get(name) if isinstance(answer, dict) else None
    return answer


@access.person
@read_or_post
def count_code(request):
    """A code for one company's sign-up screen; shown once, in the answer to the button."""
    if request.method != "POST":
        return render(request, "person/count_code.html", {})
    if not NothingForm(request.POST).is_valid():
        return refused(request, _("이렇게는 만들 수 없어요."), back_url=reverse("count_code"))
    code, row = counting.make(request.user, by=Actor.person(request.user), at=timezone.now())
    minutes = round((row.expires_at - row.made_at).total_seconds() / 60)
    return render(request, "person/count_code.html", {"code": code, "minutes": minutes})
