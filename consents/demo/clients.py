"""WRITES how the demo's organizations sign in: one exchanges its server's secret just now, signs with registered keys and
has an application that people have let in.
"""

import datetime
import json
import secrets

from allauth.idp.oidc.models import Token
from django.utils import timezone

from consents import clients
from consents.actors import Actor
from consents.models import Person
from providers import keysets
from providers.models import ApiClient, ChannelKey, Organization

from . import partners

BUSY = "FTDURU9001"  # the first admin's organization
OWNER = "haneul@portal.example"
APP = "두루 지갑"
REGULATOR = "regulator@portal.example"
TOOL = "점검 도구"


def settle(*, now: datetime.datetime) -> None:
    """What the desk of BUSY shows at /desk/api/, and its customer at /me/account/."""
    organization = Organization.objects.get(code=BUSY)
    by, at = Actor.organization(organization), now  # the log is in the order of its moments
    _exchange(organization, by=by, at=at)
    own = ChannelKey.objects.filter(channel__organization=organization, kind=ChannelKey.Kind.JWK)
    keys = keysets.checked({"keys": [key.jwk for key in own]})
    clients.register_keys(organization, keys=keys, by=by, at=at)
    app = clients.make_app(
        organization, name=APP, scopes=["me", "openid"], redirect_uris=["https://wallet.durumi.example/back"], by=by, at=at
    )  # fmt: skip
    _regulators(at=at)
    person = Person.objects.filter(email=OWNER).first()
    if person:
        _let_in(app, person, at=now - datetime.timedelta(hours=1))


def _regulators(*, at: datetime.datetime) -> None:
    """What the regulator shows at /oversight/apps/."""
    regulator = Person.objects.filter(email=REGULATOR).first()
    if regulator:
        by = Actor.regulator(regulator)
        clients.make_oversight_app(TOOL, ["https://oversight.example/back"], by=by, at=at)


def _exchange(organization: Organization, *, by: Actor, at: datetime.datetime) -> None:
    """A second secret, which the pretend company uses from now on; the first has a day left."""
    link = organization.api_client
    ApiClient.objects.filter(pk=link.pk).update(last_used_at=at)
    link.secrets.update(last_used_at=at)
    _new, secret = clients.rotate(link, days=clients.LIVES[-1], by=by, at=at)
    path = partners.folder() / "sandbox.json"
    known = json.loads(path.read_text(encoding="utf-8"))
    if organization.code in known["organizations"]:
        known["organizations"][organization.code]["client_secret"] = secret
        partners.write_private(path, known)


def _let_in(app: ApiClient, person: Person, *, at: datetime.datetime) -> None:
    """The application keeps a refresh token whose value nobody knows."""
    token = Token(
        client=app.client, user=person, type=Token.Type.REFRESH_TOKEN, created_at=at,
        expires_at=timezone.now() + datetime.timedelta(days=30),
    )  # fmt: skip
    token.set_value(secrets.token_urlsafe(64))
    token.set_scopes(["me", "openid"])
    token.save()
    ApiClient.objects.filter(pk=app.pk).update(last_used_at=at)
