"""Asks for a fresh sign-in where somebody who found an open browser could do harm that is not seen at once."""

import functools
import time
from urllib.parse import urlencode

from allauth.account import app_settings
from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from django.contrib import messages
from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _


def fresh_sign_in(view):
    """Let through who signed in, or proved again who they are, in the last five minutes (ACCOUNT_REAUTHENTICATION_TIMEOUT).

    Anybody else is asked, and comes back to the page that the form stood on: what they had posted, secrets maybe, is not
    kept."""

    @functools.wraps(view)
    def guarded(request, *args, **kwargs):
        if is_fresh(request):
            return view(request, *args, **kwargs)
        back = request.get_full_path() if request.method in ("GET", "HEAD") else _page_of(request.path)
        if get_reauthentication_flows(request.user):
            if request.method == "POST":
                messages.info(request, _("5분 안에 로그인한 사람만 할 수 있어요. 확인한 뒤 다시 해 주세요."))
            return redirect(f"{reverse('account_reauthenticate')}?{urlencode({'next': back})}")
        logout(request)  # who has neither password nor passkey signs in by a code again
        return redirect_to_login(back)

    return guarded


def _page_of(path: str) -> str:
    """The page that a button under this address stands on."""
    pages = (reverse(name) for name in ("desk_api", "oversight_apps"))
    return next((page for page in pages if path.startswith(page)), reverse("desk_channel"))


def is_fresh(request) -> bool:
    """Whether this session proved who it is in the last five minutes."""
    moments = [record.get("at", 0) for record in get_authentication_records(request, request.user)]
    return bool(moments) and 0 <= time.time() - max(moments) < app_settings.REAUTHENTICATION_TIMEOUT
