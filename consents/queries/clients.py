"""The screen of an organization's OAuth2 clients: its server's, with both secrets, its applications, its public keys."""

import datetime
from dataclasses import dataclass

from allauth.idp.oidc.models import Client, Token
from django.db.models import Count, Q

from consents import clients, oauth
from providers import keysets
from providers.models import ApiClient, ClientSecret, KeySet, Organization

MOST_APPS = 50


@dataclass(frozen=True, slots=True)
class Shown:
    """A client as it is shown: `tokens` are those that work now, `scopes` are codes with their words, `secrets` the live
    ones, newest first; `room` says whether there may be another secret."""

    link: ApiClient
    scopes: list[tuple[str, str]]
    redirect_uris: list[str]
    secrets: list[ClientSecret]
    tokens: int
    room: bool


@dataclass(frozen=True, slots=True)
class Keys:
    """The registered keys; `good` says whether they count now."""

    kept: KeySet
    good: bool


@dataclass(frozen=True, slots=True)
class Screen:
    server: Shown | None
    apps: list[Shown]
    retired: list[ApiClient]
    keys: Keys | None


def screen(organization: Organization, *, at: datetime.datetime) -> Screen:
    """Four queries."""
    links = list(
        ApiClient.objects.filter(organization=organization)
        .select_related("client")
        .annotate(tokens=Count("client__token", filter=_working(at)))
        .order_by("-created_at", "-pk")[:MOST_APPS]
    )
    live = [link for link in links if link.retired_at is None]
    secrets = ClientSecret.objects.filter(link__in=live, retired_at__isnull=True, expires_at__gt=at)
    known: dict[int, list[ClientSecret]] = {}
    for secret in secrets.order_by("-created_at", "-pk"):
        known.setdefault(secret.link_id, []).append(secret)
    shown = [_shown(link, known.get(link.pk, [])) for link in live]
    kept = KeySet.objects.filter(organization=organization).first()
    return Screen(
        server=next((one for one in shown if one.link.kind == ApiClient.Kind.SERVER), None),
        apps=[one for one in shown if one.link.kind == ApiClient.Kind.APP],
        retired=[link for link in links if link.retired_at is not None],
        keys=Keys(kept, keysets.is_good(kept, at=at)) if kept else None,
    )


def oversight_apps(*, at: datetime.datetime) -> list[Client]:
    """The regulator's applications, with how many of their tokens work now. One query."""
    working = Count("token", filter=_working(at, via="token"))
    return list(clients.oversight_apps().annotate(tokens=working)[:MOST_APPS])


def _working(at: datetime.datetime, *, via: str = "client__token") -> Q:
    never = Q(**{f"{via}__expires_at__isnull": True})
    kinds = [Token.Type.ACCESS_TOKEN, Token.Type.REFRESH_TOKEN]
    return Q(**{f"{via}__type__in": kinds}) & (never | Q(**{f"{via}__expires_at__gt": at}))


def _shown(link: ApiClient, secrets: list[ClientSecret]) -> Shown:
    scopes = [(scope, str(oauth.SCOPES.get(scope, scope))) for scope in link.client.get_scopes()]
    return Shown(
        link=link, scopes=scopes, redirect_uris=link.client.get_redirect_uris(), secrets=secrets,
        tokens=link.tokens, room=len(secrets) < 2,  # type: ignore[attr-defined]
    )  # fmt: skip
