"""WRITES consent requests: what an operator lodges before sending a person over. Decided once, by one person.

Nobody is sent anywhere that was not registered before: the return address must be one of the client's own, word for
word, when the request is lodged, and only that stored address is ever linked to.
"""

import base64
import datetime
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from consents import ledger, lifecycle
from consents.actors import Actor
from consents.ledger import Fact
from consents.models import ConsentRequest, Person, Subscription
from providers import policy
from providers.models import Organization, Service, Terms
from providers.models.organizations import OPEN_STATUSES

CODE_LASTS = datetime.timedelta(seconds=60)
CHALLENGE, VERIFIER = re.compile(r"[A-Za-z0-9_-]{43}"), re.compile(r"[A-Za-z0-9._~-]{43,128}")  # RFC 7636 §4
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST_STATE = ConsentRequest._meta.get_field("client_state").max_length or 0


class NotOwnService(lifecycle.Refused):
    """The service belongs to another organization."""


class NotRegistered(lifecycle.Refused):
    """The return address is not one of those registered for the client, or no address a browser should follow."""


class Closed(lifecycle.Refused):
    """The request was decided, has expired, or belongs to somebody else."""


class BadCode(lifecycle.Refused):
    """No such code, or it is used up, too old, of another client, or was asked for by whoever has another verifier."""


@dataclass(frozen=True, slots=True)
class Minutes:
    """How long a request waits: first to be opened, then to be decided."""

    opening: int
    deciding: int


def minutes(*, at: datetime.datetime) -> Minutes:
    on = lifecycle.day(at)
    return Minutes(
        policy.number("AUTH_CODE_TTL_MINUTES", on=on), policy.number("REQUEST_READING_MINUTES", on=on)
    )


def lodge(
    *,
    organization: Organization,
    service: Service,
    redirect_uri: str = "",
    client_state: str = "",
    code_challenge: str = "",
    by: Actor,
    at: datetime.datetime,
) -> ConsentRequest:
    """Note that an operator wants to ask one person about its published terms; open for AUTH_CODE_TTL_MINUTES.

    Raises NotOwnService, NotRegistered, or lifecycle.NotOpen where nobody could join now. A `client_state` longer than
    LONGEST_STATE, or a `code_challenge` that is none or leads nowhere, is a ValueError."""
    if code_challenge and not (redirect_uri and CHALLENGE.fullmatch(code_challenge)):
        raise ValueError("code_challenge is not 43 signs of base64url, or there is no redirect_uri")
    if len(client_state) > LONGEST_STATE:
        raise ValueError(f"client_state is longer than {LONGEST_STATE} characters")
    if service.organization_id != organization.pk:
        raise NotOwnService(service.client_id)
    if redirect_uri and not is_registered(redirect_uri, organization):
        raise NotRegistered(redirect_uri[:200])
    terms = Terms.objects.filter(service=service, state=Terms.State.PUBLISHED).first()
    open_now = (
        service.state == Service.State.LIVE and organization.status_on(lifecycle.day(at)) in OPEN_STATUSES
    )
    if terms is None or not open_now:
        raise lifecycle.NotOpen(service.slug)
    until = at + datetime.timedelta(minutes=minutes(at=at).opening)
    with transaction.atomic():
        lodged = ConsentRequest.objects.create(
            organization=organization, service=service, terms=terms, redirect_uri=redirect_uri,
            client_state=client_state, code_challenge=code_challenge, lodged_at=at, expires_at=until,
        )  # fmt: skip
        _log("request.lodged", lodged, by=by, at=at)
    return lodged


def is_registered(redirect_uri: str, organization: Organization) -> bool:
    """Word for word one of the client's own; without TLS only on the developer's own machine."""
    link = organization.api_client
    if redirect_uri not in (link.client.get_redirect_uris() if link else []):
        return False
    parts = urlsplit(redirect_uri)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


def take_up(lodged: ConsentRequest, *, person: Person, by: Actor, at: datetime.datetime) -> ConsentRequest:
    """The person has arrived: nobody else can use the request now, and there is time to read (REQUEST_READING_MINUTES).

    Arriving again changes nothing. Raises Closed."""
    with transaction.atomic():
        lodged = _open(lodged, person=person, at=at)
        if lodged.person_id is None:
            until = at + datetime.timedelta(minutes=minutes(at=at).deciding)
            lodged.person, lodged.expires_at = person, until
            lodged.save(update_fields=["person", "expires_at"])
    return lodged


def accept(
    lodged: ConsentRequest,
    *,
    person: Person,
    terms: Terms,
    choices: Iterable[lifecycle.Choice],
    language: str,
    until_on: datetime.date | None = None,
    by: Actor,
    at: datetime.datetime,
) -> Subscription:
    """The person agrees: join and grant in one transaction. Raises Closed and whatever lifecycle.join raises."""
    with transaction.atomic():
        lodged = _open(lodged, person=person, at=at)
        subscription = lifecycle.join(
            person=person, service=lodged.service, terms=terms, choices=choices, language=language, until_on=until_on,
            origin=Subscription.Origin.REQUEST, by=by, at=at,
        )  # fmt: skip
        grant(lodged, subscription=subscription, by=by, at=at)
    return subscription


def grant(
    lodged: ConsentRequest, *, subscription: Subscription, by: Actor, at: datetime.datetime
) -> ConsentRequest:
    """The request led to this subscription; its own ledger entry, with origin `request`, says so. Raises Closed."""
    with transaction.atomic():
        lodged = _open(lodged, person=subscription.person, at=at)
        lodged.state, lodged.decided_at = ConsentRequest.State.GRANTED, at
        lodged.person, lodged.subscription = subscription.person, subscription
        lodged.save(update_fields=["state", "decided_at", "person", "subscription"])
    return lodged


def decline(lodged: ConsentRequest, *, person: Person, by: Actor, at: datetime.datetime) -> ConsentRequest:
    """The person says no. Raises Closed."""
    with transaction.atomic():
        lodged = _open(lodged, person=person, at=at)
        lodged.state, lodged.decided_at, lodged.person = ConsentRequest.State.DECLINED, at, person
        lodged.save(update_fields=["state", "decided_at", "person"])
        _log("request.declined", lodged, by=by, at=at)
    return lodged


def expire_due(*, by: Actor, at: datetime.datetime, limit: int = 500) -> int:
    """Close requests whose time is over or whose service is closed, at most `limit` a run; safe to run twice at once. Returns how many."""
    over = Q(expires_at__lte=at) | Q(service__state=Service.State.CLOSED)
    with transaction.atomic():
        due = list(
            ConsentRequest.objects.select_for_update(of=("self",), skip_locked=True)
            .select_related("person", "organization", "service", "terms")
            .filter(over, state=ConsentRequest.State.PENDING)
            .order_by("expires_at")[:limit]
        )
        for lodged in due:
            lodged.state, lodged.decided_at = ConsentRequest.State.EXPIRED, at
            lodged.save(update_fields=["state", "decided_at"])
            _log("request.expired", lodged, by=by, at=at)
    return len(due)


def send_back(lodged: ConsentRequest, *, person: Person, by: Actor, at: datetime.datetime) -> str:
    """Where the person's browser goes after a yes to a request with PKCE: the return address with a fresh `code`, in the
    place of any before. Raises Closed where it was not granted by this person, leads nowhere, or was redeemed."""
    with transaction.atomic():
        lodged = ConsentRequest.objects.select_for_update(no_key=True).get(pk=lodged.pk)
        address = return_address(lodged)
        fits = lodged.state == ConsentRequest.State.GRANTED and lodged.person_id == person.pk
        if not (fits and address and lodged.code_challenge) or lodged.redeemed_at:
            raise Closed(str(lodged.pk))
        code = secrets.token_urlsafe(32)
        lodged.code_digest, lodged.code_until = _digest(code), at + CODE_LASTS
        lodged.save(update_fields=["code_digest", "code_until"])
    return f"{address}&{urlencode({'code': code})}"


def redeem(
    code: str,
    *,
    code_verifier: str,
    redirect_uri: str,
    organization: Organization,
    by: Actor,
    at: datetime.datetime,
) -> ConsentRequest:
    """The operator's server shows the code that the browser brought, with the verifier of its challenge (RFC 7636 §4.6) and
    the return address: then this browser is the one that was asked. Once. Raises BadCode, whatever does not fit."""
    with transaction.atomic():
        lodged = (
            ConsentRequest.objects.select_for_update(no_key=True, of=("self",))
            .select_related("service", "person", "subscription")
            .filter(code_digest=_digest(code), organization=organization)
            .first()
        )
        fits = (
            lodged is not None and lodged.code_until is not None and at < lodged.code_until
            and redirect_uri == lodged.redirect_uri and _answers(code_verifier, lodged.code_challenge)
        )  # fmt: skip
        if lodged is None or not fits:
            raise BadCode
        lodged.code_digest, lodged.code_until, lodged.redeemed_at = "", None, at
        lodged.save(update_fields=["code_digest", "code_until", "redeemed_at"])
    return lodged


def _digest(code: str) -> str:
    return hashlib.sha256(code.encode("utf-8", "surrogatepass")).hexdigest()


def _answers(verifier: str, challenge: str) -> bool:
    if not VERIFIER.fullmatch(verifier):
        return False
    made = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode("ascii")).digest()).decode("ascii")
    return hmac.compare_digest(made.rstrip("="), challenge)


def return_address(lodged: ConsentRequest) -> str:
    """Where the operator wants the person back, once they have decided: the stored address with `request`, the
    operator's own `state`, `iss` (RFC 9207) and, after a no, `error=access_denied`. Empty while undecided or expired."""
    if (
        lodged.state not in (ConsentRequest.State.GRANTED, ConsentRequest.State.DECLINED)
        or not lodged.redirect_uri
    ):
        return ""
    parts = urlsplit(lodged.redirect_uri)
    query = [
        *parse_qsl(parts.query, keep_blank_values=True),
        ("request", str(lodged.pk)),
        ("iss", settings.PORTAL_URL),
    ]
    if lodged.client_state:
        query.append(("state", lodged.client_state))
    if lodged.state == ConsentRequest.State.DECLINED:
        query.append(("error", "access_denied"))
    return urlunsplit(parts._replace(query=urlencode(query)))


def _open(lodged: ConsentRequest, *, person: Person, at: datetime.datetime) -> ConsentRequest:
    """The request, fresh and locked, if this person may still decide it. Raises Closed."""
    fresh = (
        ConsentRequest.objects.select_for_update(no_key=True, of=("self",))
        .select_related("service__organization", "organization", "terms", "person")
        .get(pk=lodged.pk)
    )
    if not fresh.is_open(at=at) or fresh.person_id not in (None, person.pk):
        raise Closed(str(fresh.pk))
    return fresh


def _log(typ: str, lodged: ConsentRequest, *, by: Actor, at: datetime.datetime) -> None:
    fields = {
        "req": lodged.pk, "opr": lodged.organization.code, "svc": lodged.service.client_id,
        "trm": lodged.terms.digest_ko, "prd": lodged.expires_at,
    }  # fmt: skip
    ledger.append(
        [Fact(typ, person=lodged.person, operator=lodged.organization, jti=lodged.pk, fields=fields)],
        by=by,
        at=at,
    )
