"""What the person's pages share: finding what is their own, a refusal in words, an accepted act with its receipt."""

from django.contrib import messages
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from consents import access
from consents.models import Subscription
from consents.queries import history


def own(request, pk) -> Subscription:
    found = access.own_subscription(request, pk)
    found.person = request.user
    return found


def accepted(request, words: str, typ: str, **about) -> None:
    """Say that an act was done, and hand out its receipt: the newest entry of this type about what `about` names."""
    event_id = history.newest(typ, **about)
    if event_id is None:
        messages.success(request, words)
        return
    url = reverse("entry_receipt", args=[event_id])
    link = format_html('<a href="{}" download>{}</a>', url, _("이 일의 영수증 받기"))
    messages.success(request, format_html("{} {}", words, link))


def refused(
    request,
    words: str,
    *,
    back: Subscription | None = None,
    back_url: str = "",
    status: int = 400,
    title: str = "",
):
    """A page that says in words why nothing was done, and the way back."""
    url = back_url or (reverse("subscription", args=[back.pk]) if back else reverse("me"))
    context = {
        "title": title or _("이렇게는 할 수 없어요"),
        "words": words,
        "back_url": url,
        "unchanged": status == 400,
    }
    return render(request, "person/refused.html", context, status=status)
