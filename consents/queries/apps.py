"""The applications that a person has let in: who they are, what they may do, when they last came."""

import datetime
from dataclasses import dataclass

from allauth.idp.oidc.models import Client, Token
from django.db.models import Max, Q

from consents import oauth
from consents.models import Person
from providers.models import Organization

MOST = 50


@dataclass(frozen=True, slots=True)
class App:
    """`used_at` is when it last got a token, which it must every ten minutes of use; `organization` None for a person's own."""

    client: Client
    organization: Organization | None
    scopes: list[str]
    used_at: datetime.datetime


def of(person: Person, *, at: datetime.datetime) -> list[App]:
    """Applications with a token that works, the latest used first, MOST at most. Two queries."""
    own = Token.objects.filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=at), user=person, client__isnull=False
    )
    own = own.filter(type__in=[Token.Type.ACCESS_TOKEN, Token.Type.REFRESH_TOKEN])
    used = dict(own.values_list("client").annotate(at=Max("created_at")).order_by("-at")[:MOST])
    held: dict[str, set[str]] = {}
    clients: dict[str, Client] = {}
    for token in own.filter(client__in=used).select_related("client__organization_link__organization"):
        clients[token.client_id] = token.client
        held.setdefault(token.client_id, set()).update(token.get_scopes())
    return [
        App(
            client=clients[pk], organization=_owner(clients[pk]), used_at=moment,
            scopes=[str(words) for name, words in oauth.PERSON_SCOPES.items() if name in held[pk]],
        )
        for pk, moment in used.items()
        if pk in clients
    ]  # fmt: skip


def _owner(client: Client) -> Organization | None:
    link = getattr(client, "organization_link", None)
    return link.organization if link else None
