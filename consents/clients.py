"""WRITES an organization's OAuth2 clients over their life, with a log entry for every key: made, given a second secret
while the first still works, changed, used, retired; and the public keys that the organization signs with.

What an admin does here is done at the desk after a fresh sign-in. A secret is told once and kept as a hash.
"""

import datetime
import functools
import secrets as randomness
from collections.abc import Collection, Iterable

from allauth.idp.oidc.models import Client
from django.contrib.auth.hashers import make_password
from django.db import connection, transaction
from django.db.models import Model, Q, QuerySet

from consents import ledger, locks, oauth
from consents.actors import Actor
from consents.ledger import Fact
from consents.ledger.entries import SEOUL
from providers import keysets, policy
from providers.models import ApiClient, ClientSecret, KeySet, Organization
from providers.vault import MachineSecretHasher

MOST_APPS = 10
LIVES = (90, 180, 365)  # days that a secret may last
TO_THE_MINUTE = datetime.timedelta(seconds=60)
_NOBODY = make_password("nobody has this secret", hasher="machine_sha256")


class AlreadyThere(ValueError):
    """The organization has a client for its server, or as many applications as it may have."""


class SameName(ValueError):
    """The organization has an application of this name."""


class TwoAlready(ValueError):
    """Two secrets are live: one must be retired before there can be another."""


class Retired(ValueError):
    """The client or the secret was retired before."""


class NoKeys(ValueError):
    """Without registered keys nobody could sign in by them."""


class StillNeeded(ValueError):
    """A client signs in with the keys: they cannot be removed."""


# --- signing in ----------------------------------------------------------------------------------------------------------


# One plain statement: every token begins with it, and the library's own way of asking costs more than the answer.
_FROM = """
FROM allauth_idp_oidc_client AS c
LEFT JOIN providers_apiclient AS l ON l.client_id = c.id
LEFT JOIN providers_clientsecret AS s ON s.link_id = l.id AND s.retired_at IS NULL
WHERE c.id = %s ORDER BY s.place
"""


@functools.cache
def _fields(model: type[Model]) -> list[str]:
    """The columns that are read; `data` of a client is nothing we use."""
    return [field.attname for field in model._meta.concrete_fields if field.attname != "data"]


@functools.cache
def _sql() -> str:
    parts = ((Client, "c"), (ApiClient, "l"), (ClientSecret, "s"))
    return (
        "SELECT " + ", ".join(f"{alias}.{name}" for model, alias in parts for name in _fields(model)) + _FROM
    )


def find(client_id: str) -> Client | None:
    """A client that may be used, with its link to an organization where it has one, and that with its live secrets. One
    query, whether there is one or not."""
    with connection.cursor() as cursor:
        cursor.execute(_sql(), [client_id])
        rows = cursor.fetchall()
    if not rows:
        return None
    first, second = len(_fields(Client)), len(_fields(Client)) + len(_fields(ApiClient))
    client = Client.from_db("default", _fields(Client), rows[0][:first])
    if rows[0][first] is None:
        Client.organization_link.related.set_cached_value(client, None)
        return client
    link = ApiClient.from_db("default", _fields(ApiClient), rows[0][first:second])
    link.client = client
    secrets = [row[second:] for row in rows if row[second] is not None]
    link.live = [ClientSecret.from_db("default", _fields(ClientSecret), row) for row in secrets]
    return None if link.retired_at else client


def link_of(client: Client | None) -> ApiClient | None:
    """The organization's row behind a client; people's own applications have none."""
    return getattr(client, "organization_link", None) if client is not None else None


def secret_of(client: Client | None, secret: str, *, at: datetime.datetime) -> ClientSecret | None:
    """The live secret of a client that was found here, if this is one. It takes as long where there is no client (T14)."""
    link = link_of(client)
    by_secret = link is not None and link.method == ApiClient.Method.SECRET
    live = [one for one in link.live if one.expires_at > at] if link and by_secret else []
    hashes = [one.digest for one in live] + [_NOBODY] * (2 - len(live))
    fits = [MachineSecretHasher().verify(secret, one) for one in hashes]
    return next((one for one, fit in zip(live, fits, strict=False) if fit), None)


def note_use(link: ApiClient, secret: ClientSecret | None, *, at: datetime.datetime) -> None:
    """The client got a token, with this secret if it was one. To the minute, so that a busy client does not write its rows
    all day."""
    for row in (link, secret):
        if row is not None and (row.last_used_at is None or at - row.last_used_at >= TO_THE_MINUTE):
            old = Q(last_used_at__isnull=True) | Q(last_used_at__lte=at - TO_THE_MINUTE)
            type(row).objects.filter(old, pk=row.pk).update(last_used_at=at)


# --- made, changed, retired ----------------------------------------------------------------------------------------------


def make(
    organization: Organization, *, scopes: Collection[str], redirect_uris: Collection[str] = (), days: int = LIVES[-1],
    by: Actor, at: datetime.datetime,
) -> tuple[ApiClient, str]:  # fmt: skip
    """The client that an organization's server signs in with, and its first secret, told this once. Raises AlreadyThere,
    ValidationError for an unknown scope."""
    secret = new_secret()
    with transaction.atomic():
        _locked(organization)
        if organization.api_client is not None:
            raise AlreadyThere(organization.code)
        link = oauth.create_client(
            organization=organization, name=organization.name_ko, secret=secret, scopes=scopes,
            redirect_uris=redirect_uris, lasts=datetime.timedelta(days=days), by=by, at=at,
        )  # fmt: skip
        _log("key.added", [link.secrets.get().name], organization, by=by, at=at)
    return link, secret


def make_app(
    organization: Organization, *, name: str, scopes: Collection[str], redirect_uris: Collection[str], by: Actor,
    at: datetime.datetime,
) -> ApiClient:  # fmt: skip
    """An application of an organization's that people let in (authorization code + PKCE). Raises AlreadyThere where it has
    MOST_APPS, SameName, ValidationError for an unknown scope."""
    with transaction.atomic():
        _locked(organization)
        apps = organization.api_clients.filter(kind=ApiClient.Kind.APP, retired_at__isnull=True)
        if apps.count() >= MOST_APPS:
            raise AlreadyThere(organization.code)
        if apps.filter(client__name=name).exists():
            raise SameName(name)
        client = oauth.create_app_client(
            name=name, redirect_uris=redirect_uris, scopes=scopes, organization=organization, by=by, at=at
        )
        _log("key.added", [client.pk], organization, by=by, at=at)
    return client.organization_link


def rotate(link: ApiClient, *, days: int, by: Actor, at: datetime.datetime) -> tuple[ClientSecret, str]:
    """Another secret, told this once. The one before goes on working for KEY_OVERLAP_HOURS, or until it is retired.
    Raises TwoAlready, Retired."""
    secret = new_secret()
    overlap = datetime.timedelta(hours=policy.number("KEY_OVERLAP_HOURS", on=at.astimezone(SEOUL).date()))
    with transaction.atomic():
        link = _open(link)
        over = link.secrets.filter(retired_at__isnull=True, expires_at__lte=at)
        _retire(over, link, by=by, at=at)
        before = list(link.secrets.filter(retired_at__isnull=True))
        if len(before) > 1:
            raise TwoAlready(link.client_id)
        for one in before:
            one.expires_at = min(one.expires_at, at + overlap)
            one.save(update_fields=["expires_at"])
        place = 2 if before and before[0].place == 1 else 1
        until = at + datetime.timedelta(days=days)
        new = oauth.add_secret(link, secret=secret, place=place, expires_at=until, by=by, at=at)
        _log("key.added", [new.name], link.organization, by=by, at=at)
    return new, secret


def retire_secret(secret: ClientSecret, *, by: Actor, at: datetime.datetime) -> None:
    """From now on it opens nothing; tokens that were had with it run out by themselves, or are revoked. Raises Retired."""
    with transaction.atomic():
        link = _open(secret.link)
        if not _retire(link.secrets.filter(pk=secret.pk, retired_at__isnull=True), link, by=by, at=at):
            raise Retired(secret.name)


def change(
    link: ApiClient, *, scopes: Collection[str], redirect_uris: Collection[str], method: str, dpop: bool, by: Actor,
    at: datetime.datetime,
) -> ApiClient:  # fmt: skip
    """What the client may do and how it signs in; the log says so where that is another way. Tokens lose the scopes it lost at once; where tokens must be bound now,
    those that are not are revoked. Raises NoKeys, Retired, ValidationError."""
    server = link.kind == ApiClient.Kind.SERVER
    oauth.check_scopes(scopes, oauth.ORGANIZATION_SCOPES if server else oauth.PERSON_SCOPES)
    with transaction.atomic():
        link = _open(link)
        if method == ApiClient.Method.KEY and not keysets.current(link.organization, at=at):
            raise NoKeys(link.organization.code)
        client, way, fewer = link.client, _way(link), set(link.client.get_scopes()) - set(scopes)
        stricter = (dpop and not link.dpop) or (method != link.method)
        client.set_scopes(list(scopes))
        client.set_default_scopes(list(scopes) if server else [])
        client.set_redirect_uris(list(redirect_uris))
        client.save(update_fields=["scopes", "default_scopes", "redirect_uris"])
        link.method, link.dpop = method, dpop
        link.save(update_fields=["method", "dpop"])
        if fewer or stricter:
            oauth.disconnect(client, by=by, at=at)
        if way != (after := _way(link)):
            _log("key.retired", [way], link.organization, by=by, at=at)
            _log("key.added", [after], link.organization, by=by, at=at)
    return link


def revoke_tokens(link: ApiClient, *, by: Actor, at: datetime.datetime) -> int:
    """Every token of the client stops working now; it may get others. Returns how many."""
    return oauth.disconnect(link.client, by=by, at=at)


def retire(link: ApiClient, *, by: Actor, at: datetime.datetime) -> None:
    """The end of a client: its secrets, its tokens, its return addresses. Raises Retired."""
    with transaction.atomic():
        link = _open(link)
        _retire(link.secrets.filter(retired_at__isnull=True), link, by=by, at=at)
        oauth.disconnect(link.client, by=by, at=at)
        link.client.set_redirect_uris([])
        link.client.save(update_fields=["redirect_uris"])
        link.retired_at = at
        link.save(update_fields=["retired_at"])
        _log("key.retired", [link.client_id], link.organization, by=by, at=at)


# --- the regulator's applications ----------------------------------------------------------------------------------------

OVERSIGHT = ("oversight:read", "openid")


def oversight_apps() -> QuerySet[Client]:
    """Those that read the record for a regulator who lets them in; they belong to no organization. Newest first."""
    own = Client.objects.filter(organization_link__isnull=True, scopes__contains=OVERSIGHT[0])
    return own.order_by("-created_at", "pk")


def make_oversight_app(
    name: str, redirect_uris: Collection[str], *, by: Actor, at: datetime.datetime
) -> Client:
    """A public client for authorization code + PKCE. Raises AlreadyThere where there are MOST_APPS, SameName."""
    with transaction.atomic():
        _one_registration_at_a_time()
        known = set(oversight_apps().values_list("name", flat=True))
        if name in known:
            raise SameName(name)
        if len(known) >= MOST_APPS:
            raise AlreadyThere(name)
        app = oauth.create_app_client(name=name, redirect_uris=redirect_uris, scopes=OVERSIGHT, by=by, at=at)
        ledger.append([_oversight_key("key.added", app)], by=by, at=at)
    return app


def retire_oversight_app(app: Client, *, by: Actor, at: datetime.datetime) -> None:
    """The end of it and of its tokens."""
    with transaction.atomic():
        ledger.append([_oversight_key("key.retired", app)], by=by, at=at)
        app.delete()


def _one_registration_at_a_time() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.OVERSIGHT_APPS])


def _oversight_key(typ: str, app: Client) -> Fact:
    return Fact(typ, fields={"kid": f"oversight {app.pk}"})


# --- public keys ---------------------------------------------------------------------------------------------------------


def register_keys(
    organization: Organization, *, keys: list[dict], address: str = "", by: Actor, at: datetime.datetime
) -> KeySet:
    """The public keys that the organization's evidence, and its clients' assertions, are checked with: `keysets.checked`
    ones, pasted or found at the address."""
    with transaction.atomic():
        _locked(organization)
        known = KeySet.objects.filter(organization=organization).first()
        if known and not address and (known.address, known.keys) == ("", keys):
            return known  # the same again is no change
        before, after = {key["kid"] for key in known.keys} if known else set(), {key["kid"] for key in keys}
        made = keysets.register(organization, keys=keys, address=address, by=by, at=at)
        _log("key.retired", sorted(before - after), organization, by=by, at=at)
        _log("key.added", sorted(after - before), organization, by=by, at=at)
    return made


def remove_keys(organization: Organization, *, by: Actor, at: datetime.datetime) -> bool:
    """Forget the registered keys. False: there were none. Raises StillNeeded."""
    with transaction.atomic():
        _locked(organization)
        live = organization.api_clients.filter(retired_at__isnull=True, method=ApiClient.Method.KEY)
        if live.exists():
            raise StillNeeded(organization.code)
        known = KeySet.objects.filter(organization=organization).first()
        if known is None:
            return False
        keysets.remove(organization, by=by, at=at)
        _log("key.retired", sorted(key["kid"] for key in known.keys), organization, by=by, at=at)
    return True


# --- inside --------------------------------------------------------------------------------------------------------------


def new_secret() -> str:
    """256 random bits that a person can copy."""
    return randomness.token_urlsafe(32)


def _locked(organization: Organization) -> Organization:
    return Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)


def _open(link: ApiClient) -> ApiClient:
    rows = ApiClient.objects.select_for_update(of=("self",)).select_related("client", "organization")
    link = rows.get(pk=link.pk)
    if link.retired_at is not None:
        raise Retired(link.client_id)
    return link


def _way(link: ApiClient) -> str:
    """How a client proves who it is, as the log names it beside its keys."""
    return f"{link.client_id} {link.method}{' dpop' * link.dpop}"


def _retire(secrets, link: ApiClient, *, by: Actor, at: datetime.datetime) -> list[str]:
    names = list(secrets.values_list("name", flat=True))
    link.secrets.filter(name__in=names).update(retired_at=at)
    _log("key.retired", names, link.organization, by=by, at=at)
    return names


def _log(
    typ: str, names: Iterable[str], organization: Organization, *, by: Actor, at: datetime.datetime
) -> None:
    """A key is named after whose it is: two organizations may give theirs the same name."""
    operator = organization if organization.is_operator else None
    facts = [
        Fact(typ, operator=operator, party=organization, fields={"kid": f"{organization.code} {name}"[:100]})
        for name in names
    ]
    if facts:
        ledger.append(facts, by=by, at=at)
