"""Every address of the portal, found by walking the resolver, and a world with two sides in which to knock at all of them.

The crawls (test_access.py) and the sweep of bad input (test_sweep.py) read their cases from here. An address that takes a
parameter or a form nobody described fails there, so that a new page cannot be forgotten.
"""

import base64
import datetime
import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver
from django.utils import timezone

from consents import (
    access,
    cases,
    channels,
    clients,
    counting,
    gym,
    lifecycle,
    links,
    oauth,
    requests,
    speedbump,
    uploads,
)
from consents.actors import Actor
from consents.api import examples
from consents.ledger import cosigning
from consents.ledger.sequencer import Sequencer
from consents.models import CountingCode, EntryIndex, WeeklyCount
from tests import factories
from tests.consents.api.conftest import SECRET, Caller, Signer, of, token

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
SYSTEM = Actor.system("test")


# --- addresses ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Address:
    """`path` with its parameters as `<…>`, without the first slash."""

    path: str
    view: Any
    name: str

    @property
    def rule(self) -> str | None:
        return access.rule_of(self.view)

    @property
    def is_api(self) -> bool:
        return self.path.startswith(("api/v1/", "mydata/"))

    def methods(self) -> set[str]:
        """What a JSON door answers to."""
        return {
            method.upper()
            for method in ("get", "post", "put", "patch", "delete")
            if hasattr(self.view.cls, method)
        }

    def __str__(self) -> str:
        return self.path


def addresses() -> list[Address]:
    """All that are ours; libraries' own pages (sign-in, metrics) are theirs to test."""
    return [
        address
        for address in _walk(get_resolver().url_patterns, "")
        if not address.path.startswith(("accounts/", "metrics"))
    ]


def _walk(patterns, prefix: str) -> Iterator[Address]:
    for entry in patterns:
        path = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            yield from _walk(entry.url_patterns, path)
        elif isinstance(entry, URLPattern):
            yield Address(path, entry.callback, entry.name or "")


# --- a world with two sides ----------------------------------------------------------------------------------------------------


@dataclass
class Side:
    """A person, an operator they deal with, and one of everything between them."""

    person: Any
    service: Any  # joined
    fresh: Any  # could be joined
    live: Any
    ended: Any  # left without erasing
    consent: Any  # active
    paused: Any
    withdrawn: Any  # without erasing
    notice: Any
    lodged: Any  # a consent request that nobody took up
    granted: Any  # one that the person has said yes to
    code: str  # what their browser would bring back
    delivery: Any  # at the operator's desk, to be erased
    evidence: Any
    admin: Any
    regulator: Any
    event: Any  # of the log, about the person
    change: Any  # of the operator's channel, asked by another admin
    run: Any  # of the gym, waiting
    case: Any  # about the person, at the operator
    counted: Any  # by which the operator has asked for the person's number
    upload: Any  # of the operator, of which nothing is here yet
    tool: Any  # an application of the regulator's
    app: Any  # an application that the person has let in
    link: Any  # the operator's OAuth2 client, and the name of its secret
    secret: Any
    callers: dict[str, Caller]
    signer: Signer
    sessions: dict[str, str] = field(default_factory=dict)
    week: Any = None
    count_code: str = ""  # what they would tell a company, so that it may count

    def browser(self, rule: str | None, **options) -> Client:
        """The browser of whoever the rule is for. Everybody signed in once, when the side was made."""
        client = Client(**options)
        if rule in self.sessions:
            client.cookies["sid"] = self.sessions[rule]
        return client

    def sign_in(self) -> None:
        people = {
            access.PERSON: self.person,
            access.REGULATOR: self.regulator,
            access.OPERATOR_ADMIN: self.admin,
        }
        for rule, person in people.items():
            client = Client()
            client.force_login(person, backend=BACKEND)
            factories.prove(client, person)
            self.sessions[rule] = client.cookies["sid"].value
        self.sessions[access.SIGNED_IN] = self.sessions[access.PERSON]

    def fill(self, path: str) -> str:
        """The address of this side's own thing."""
        return "/" + _fill(path, self)


# Parameter by the start of its address: what stands there. The first that fits counts.
PARAMETERS: dict[str, Callable[[Side], Any]] = {
    "me/subscriptions/<uuid:pk>/certificate/": lambda side: side.ended.pk,
    "me/subscriptions/<uuid:pk>/erase/": lambda side: side.ended.pk,
    "me/subscriptions/<uuid:pk>": lambda side: side.live.pk,
    "me/history/<uuid:event_id>": lambda side: side.event,
    "desk/entries/<uuid:event_id>": lambda side: (
        EntryIndex.objects.filter(typ="delivery.stopped", party=side.service.organization, person=side.person)
        .first()
        .event_id
    ),
    "me/consents/<uuid:pk>/resume/": lambda side: side.paused.pk,
    "me/consents/<uuid:pk>/erase/": lambda side: side.withdrawn.pk,
    "me/consents/<uuid:pk>": lambda side: side.consent.pk,
    "me/notices/<uuid:pk>": lambda side: side.notice.pk,
    "requests/<uuid:pk>/return/": lambda side: side.granted.pk,
    "requests/<uuid:pk>": lambda side: side.lodged.pk,
    "services/<slug:slug>/join": lambda side: side.fresh.slug,
    "services/<slug:slug>": lambda side: side.service.slug,
    "operators/<slug:code>": lambda side: side.service.organization.code,
    "log/tile/<path:path>": lambda side: "0/000",
    "oversight/entries/<uuid:event_id>": lambda side: side.event,
    "oversight/reconciliation/<uuid:pk>": lambda side: side.case.pk,
    "api/v1/oversight/weekly-counts/<int:pk>": lambda side: side.week.pk,
    "desk/cases/<uuid:pk>": lambda side: side.case.pk,
    "desk/channel/<uuid:pk>/rotate/": lambda side: side.change.channel_id,
    "desk/channel/<uuid:pk>": lambda side: side.change.pk,
    "oversight/apps/<slug:client_id>": lambda side: side.tool.pk,
    "me/apps/<slug:client_id>": lambda side: side.app.pk,
    "desk/api/clients/<slug:client_id>": lambda side: side.link.client_id,
    "desk/api/secrets/<slug:name>": lambda side: side.secret,
    "desk/uploads/<uuid:pk>": lambda side: side.upload.pk,
    "me/tidy/<uuid:pk>": lambda side: side.counted.pk,
    "desk/gym/channels/<uuid:pk>": lambda side: side.change.channel_id,
    "desk/gym/<uuid:pk>": lambda side: side.run.pk,
    "api/v1/channel/tests/<uuid:pk>": lambda side: side.run.pk,
    "desk/deliveries/<uuid:jti>": lambda side: side.delivery.jti,
    "desk/links/<str:token>": lambda side: links.address(side.delivery).split("/")[-2],
    "api/v1/me/entries/<uuid:event_id>": lambda side: side.event,
    "api/v1/me/subscriptions/<uuid:pk>/erase": lambda side: side.ended.pk,
    "api/v1/me/subscriptions/<uuid:pk>": lambda side: side.live.pk,
    "api/v1/me/consents/<uuid:pk>/resume": lambda side: side.paused.pk,
    "api/v1/me/consents/<uuid:pk>": lambda side: side.consent.pk,
    "api/v1/services/<slug:slug>/subscriptions": lambda side: side.fresh.slug,
    "api/v1/services/<slug:slug>": lambda side: side.service.slug,
    "api/v1/consent-requests/<uuid:pk>": lambda side: side.lodged.pk,
    "api/v1/consents/<uuid:pk>": lambda side: side.consent.pk,
    "api/v1/subscriptions/<uuid:pk>": lambda side: side.live.pk,
    "api/v1/services/<slug:slug>/close": lambda side: side.service.client_id,
    "api/v1/uploads/<uuid:pk>": lambda side: side.upload.pk,
    "api/v1/deliveries/<uuid:jti>/replay": lambda side: side.evidence.delivery.jti,
    "api/v1/grants/<uuid:pk>": lambda side: side.consent.pk,
    "api/v1/deliveries/<uuid:jti>": lambda side: side.delivery.jti,
    "api/v1/evidence/<str:jti>": lambda side: side.evidence.jti,
}


def _fill(path: str, side: Side) -> str:
    if "<" not in path:
        return path
    for start, value in PARAMETERS.items():
        if path.startswith(start):
            before, _, rest = path.partition("<")
            _parameter, _, after = rest.partition(">")
            return before + str(value(side)) + after
    raise AssertionError(f"nobody says what stands in {path}: add it to surface.PARAMETERS")


def side(app) -> Side:
    """One side, told through the domain."""
    at = timezone.now()
    person = factories.PersonFactory()
    by = Actor.person(person)
    name = f"side-{secrets.token_hex(4)}"  # its client_id is its address, as with every service that came over the API
    service, fresh = factories.offered(client_id=name, slug=name), factories.offered()
    operator = service.organization
    signer = Signer(operator)  # opens its desk
    live = factories.joined(person, service, at - datetime.timedelta(days=210))
    gone = factories.joined(person, factories.offered(organization=operator), at)
    ended = lifecycle.leave(gone, erase=False, by=by, at=at)
    other = factories.joined(person, factories.offered(), at)
    paused, withdrawn = other.consents.filter(kind="transfer")
    lifecycle.pause(paused, by=by, at=at)
    lifecycle.withdraw(withdrawn, erase=False, by=by, at=at)
    also = factories.joined(person, factories.offered(organization=operator), at)
    lifecycle.leave(also, erase=True, by=by, at=at)
    speedbump.raise_due(by=SYSTEM, at=at)
    api = of(operator)
    operator.refresh_from_db()
    evidence = signer.claims(ended.deliveries.get(role="operator", event="subscription-ended"))
    response = api.post("evidence", signer.sign(evidence), content_type="application/jwt")
    assert response.status_code == 201, response.content
    other_admin = factories.MemberFactory(organization=operator).person
    change, _secret = channels.ask(
        operator,
        protocol="native",
        address="https://stops.example.com/hooks",
        member=other_admin,
        by=SYSTEM,
        at=at,
    )
    case, _new = cases.open_case(
        "ended_here", operator, matter=f"{ended.pk} {operator.code}", stated={"says": "active"}, known={},
        person=person, subscription=ended, by=SYSTEM, at=at,
    )  # fmt: skip
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    granted, code = _granted(person, operator, at)
    wallet = oauth.create_app_client(name="지갑", redirect_uris=["https://wallet.example/back"])
    token(wallet, person, ["me"])
    made = Side(
        tool=clients.make_oversight_app(f"tool {name}", [BACK], by=SYSTEM, at=at), app=wallet, link=operator.api_client, secret=operator.api_client.secrets.get().name,
        granted=granted, code=code,
        case=case, person=person, service=service, fresh=fresh, live=live, ended=ended,
        consent=live.consents.filter(kind="transfer").first(), paused=paused, withdrawn=withdrawn,
        notice=person.notices.filter(answer="").first(),
        lodged=requests.lodge(organization=operator, service=service, by=Actor.organization(operator), at=at),
        delivery=also.deliveries.get(role="operator", event="subscription-ended"),
        evidence=ended.deliveries.get(role="operator", event="subscription-ended").evidence.get(),
        admin=factories.MemberFactory(organization=operator).person,
        regulator=regulator,
        event=EntryIndex.objects.filter(person=person, typ="subscription.ended").first().event_id,
        counted=_asked(person, operator, at=at), upload=uploads.start(operator, kind="holdings", format="csv", by=SYSTEM, at=at),
        change=change, run=gym.ask(change.channel, by=SYSTEM, at=at),
        callers={"person": Caller(token(app, person, ["me"])), "organization": api, "nobody": Caller(), "regulator": Caller(token(app, regulator, ["oversight:read"]))}, signer=signer,
    )  # fmt: skip
    made.count_code = counting.make(person, by=SYSTEM, at=at + datetime.timedelta(days=1))[0]
    made.week = WeeklyCount.objects.create(
        organization=operator, week_on="2026-11-15", service=service, source=made.consent.source, consents_new=1,
        consents_revoked=0, consents_own=1, reported_at=at,
    )  # fmt: skip
    made.sign_in()
    publish()
    return made


VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
BACK = "https://operator.example/back"


def _granted(person, operator, at) -> tuple[Any, str]:
    """A request with PKCE that the person has said yes to, and the code their browser was given, which lasts for the tests."""
    client = operator.api_client.client
    client.set_redirect_uris([BACK])
    client.save()
    service, by = factories.offered(organization=operator), Actor.person(person)
    lodged = requests.lodge(
        organization=operator, service=service, redirect_uri=BACK, code_challenge=CHALLENGE,
        by=Actor.organization(operator), at=at,
    )  # fmt: skip
    terms = service.terms.get(state="published")
    choices = [lifecycle.Choice(item) for item in terms.items.filter(required=True)]
    requests.accept(lodged, person=person, terms=terms, choices=choices, language="ko", by=by, at=at)
    address = requests.send_back(lodged, person=person, by=by, at=at + datetime.timedelta(days=1))
    lodged.refresh_from_db()
    return lodged, parse_qs(urlsplit(address).query)["code"][0]


def _asked(person, operator, *, at) -> CountingCode:
    code, _row = counting.make(person, by=Actor.person(person), at=at)
    return counting.redeem(code, organization=operator, return_uri="", by=Actor.organization(operator), at=at)


def publish() -> None:
    """Everything written so far stands under the published checkpoint."""
    Sequencer().run()
    cosigning.run(now=int(timezone.now().timestamp()))


# --- forms: what an honest browser posts -----------------------------------------------------------------------------------------


def _ask(side: Side) -> dict:
    terms = side.fresh.terms.get(state="published")
    bump = side.browser(access.PERSON).get(f"/services/{side.fresh.slug}/join/")
    return {
        "terms": str(terms.pk), "digest": terms.digest_ko, "language": "ko", "months": "12", "reviewed": "on",
        "seen": bump.context["seen"],
    }  # fmt: skip


@dataclass(frozen=True)
class Form:
    """What an honest browser posts to a page. `button`: the form has no fields, so that nothing is what is sent.
    `ids`: fields that name something, which could be somebody else's."""

    honest: Callable[[Side], dict]
    button: bool = False
    ids: tuple[str, ...] = ()


# Page (name of its address) → its form.
FORMS: dict[str, Form] = {
    "join": Form(lambda side: {"end": str(side.live.pk), "erase": "on"}, ids=("end",)),
    "ask": Form(_ask, ids=("terms", "request")),
    "consent_request": Form(lambda side: {}, button=True),
    "decline_request": Form(lambda side: {}, button=True),
    "return_request": Form(lambda side: {}, button=True),
    "end_several": Form(
        lambda side: {"subscription": [str(side.live.pk)], "step": "confirm", "erase": "on"},
        ids=("subscription",),
    ),
    "end": Form(lambda side: {"erase": "on"}, button=True),
    "erase": Form(lambda side: {}, button=True),
    "withdraw": Form(lambda side: {"erase": "on"}, button=True),
    "pause": Form(
        lambda side: {"until_on": (timezone.localdate() + datetime.timedelta(days=9)).isoformat()},
        button=True,
    ),
    "resume": Form(lambda side: {}, button=True),
    "erase_consent": Form(lambda side: {}, button=True),
    "desk_end": Form(lambda side: {"subject": str(side.person.subject_id), "reason": "operator_closed"}),
    "close_service": Form(
        lambda side: {"service": side.service.client_id, "name": side.service.name_ko}, ids=("service",)
    ),
    "verify_me": Form(lambda side: {}, button=True),
    "count_code": Form(lambda side: {}, button=True),
    "desk_uploads": Form(
        lambda side: {"kind": "holdings", "file": SimpleUploadedFile("a.csv", b"subject\n")}
    ),
    "drop_upload": Form(lambda side: {}, button=True),
    "answer_notice": Form(lambda side: {"answer": "kept"}),
    "account": Form(lambda side: {"name": "김새봄", "language": "ko", "warn_at": "4"}),
    "reveal": Form(lambda side: {"case": "2026-감독-0142", "reason": "민원 처리에 본인 확인이 필요해요."}),
    "check_integrity": Form(lambda side: {}, button=True),
    "acknowledge_integrity": Form(lambda side: {"reason": "백업을 되살리다 생긴 일로 확인했어요."}),
    "disconnect_app": Form(lambda side: {}, button=True),
    "ask_companies": Form(lambda side: {}, button=True),
    "settle_case": Form(lambda side: {"verb": "dispute", "reason": "회사의 답을 기다려요."}),
    "desk_settle": Form(lambda side: {"verb": "dispute", "reason": "우리 쪽 기록을 다시 보고 있어요."}),
    "replay_delivery": Form(lambda side: {}, button=True),
    "confirm_delivery": Form(lambda side: {"step": "received", "back": "desk"}),
    "desk_link": Form(lambda side: {"step": "received", "back": "desk"}),
    "ask_channel": Form(lambda side: {"protocol": "desk"}),
    "approve_channel": Form(lambda side: {}, button=True),
    "withdraw_channel": Form(lambda side: {}, button=True),
    "rotate_channel_key": Form(lambda side: {"kid": side.change.channel.keys.get(kind="hmac").kid}),
    "start_gym": Form(lambda side: {}, button=True),
    "oversight_apps": Form(lambda side: {"name": "도구", "redirect_uris": "https://a.example/"}),
    "retire_oversight_app": Form(lambda side: {}, button=True),
    "new_api_client": Form(lambda side: {"scopes": ["deliveries:ack"], "days": "90"}),
    "new_api_app": Form(lambda side: {"name": "앱", "scopes": ["me"], "redirect_uris": "https://a.example/"}),
    "change_api_client": Form(lambda side: {"scopes": ["deliveries:ack"], "method": "secret"}),
    "rotate_api_secret": Form(lambda side: {"days": "90"}),
    "retire_api_secret": Form(lambda side: {}, button=True),
    "revoke_api_tokens": Form(lambda side: {}, button=True),
    "retire_api_client": Form(lambda side: {}, button=True),
    "api_keys": Form(lambda side: {"jwks": json.dumps({"keys": [side.signer.public]})}),
    "remove_api_keys": Form(lambda side: {}, button=True),
    "verify": Form(lambda side: {"proof": SimpleUploadedFile("a.tlog-proof", b"c2sp.org/tlog-proof@v1")}),
}


def _joining(side: Side) -> dict:
    terms = side.fresh.terms.get(state="published")
    items = terms.items.filter(required=True)
    return {
        "terms": str(terms.pk),
        "language": "ko",
        "items": [{"item": item.pk, "riders": []} for item in items],
    }


def _pushed(side: Side) -> str:
    """A SET by which the operator ends a consent of its own."""
    claims = {
        "iss": side.service.organization.code, "aud": "http://127.0.0.1:8000", "iat": int(timezone.now().timestamp()),
        "jti": "pushed", "events": {"http://127.0.0.1:8000/secevent/consent-withdrawn": {"consent": str(side.consent.pk)}},
    }  # fmt: skip
    return side.signer.sign(claims, typ="secevent+jwt")


# Doors that read what came byte by byte, and the type it has: tests/consents/api/ sweeps them one by one.
OWN_BYTES = {
    "evidence": "application/jwt",
    "sets": "application/secevent+jwt",
    "event-notifications": "application/jwt",
    "arrangements/revoke": "application/x-www-form-urlencoded",
    "consents/result": "application/json",
    "mydata/mgmts/oauth/2.0/token": "application/x-www-form-urlencoded",
    "uploads/<uuid:pk>/content": "text/csv",
}

# JSON door (path) → what an honest caller asks a GET with, where it must ask something.
QUERIES = {"mydata/v2/mgmts/orgs": "?search_timestamp=0", "mydata/v2/mgmts/services": "?search_timestamp=0"}


def _statistics(side: Side, code: str, **also) -> dict:
    """A week of the Korean support API."""
    first = timezone.localdate() - datetime.timedelta(days=timezone.localdate().isoweekday() % 7 + 7)
    row = {"org_code": code, "consent_new": 0, "consent_revoke": 0, "consent_own": 0, "api_type_list": []}
    days = [f"{first + datetime.timedelta(days=n):%Y%m%d}" for n in range(7)]
    return also | {
        "type": "1", "inquiry_date": days[0], "stat_date_cnt": 7,
        "stat_date_list": [{"stat_date": day, "org_list": [row]} for day in days],
    }  # fmt: skip


# JSON door (path) → what an honest caller sends.
BODIES: dict[str, Callable[[Side], Any]] = {
    "me/subscriptions:end": lambda side: {"subscriptions": [str(side.live.pk)], "erase": True},
    "me/subscriptions/<uuid:pk>/end": lambda side: {"erase": True},
    "me/subscriptions/<uuid:pk>/erase": lambda side: {},
    "me/consents/<uuid:pk>/withdraw": lambda side: {"erase": True},
    "me/consents/<uuid:pk>/pause": lambda side: {},
    "me/consents/<uuid:pk>/resume": lambda side: {},
    "services/<slug:slug>/subscriptions": _joining,
    "consent-requests": lambda side: {"service": side.service.client_id},
    "consent-requests/redeem": lambda side: {
        "code": side.code,
        "code_verifier": VERIFIER,
        "redirect_uri": BACK,
    },
    "deliveries/<uuid:jti>/ack": lambda side: {},
    "channel/test": lambda side: {"which": "new"},
    "deliveries/<uuid:jti>/replay": lambda side: {},
    "sets": _pushed,
    "sets/poll": lambda side: {},
    "event-notifications": lambda side: _pushed(side),
    "arrangements/revoke": lambda side: f"cdr_arrangement_jwt={_pushed(side)}",
    "consents/result": lambda side: {
        "type": "02",
        "result_code": "00000",
        "result_msg": "성공",
        "tx_id": "RO_1",
        "user_ci": "Q0k=",
    },
    "services/<slug:slug>": lambda side: (
        {name: getattr(side.service, name) for name in examples.OFFER}
        | {"summary_ko": "통장을 모아 저절로 쓰는 새 가계부"}
    ),
    "services/<slug:slug>/terms": lambda side: (
        examples.VERSION
        | {
            "change_kind": "material",
            "change_reason_ko": "보관 기간을 바꿨어요.",
            "items": [examples.VERSION["items"][0] | {"source": side.consent.source.code}],
        }
    ),
    "evidence": lambda side: side.signer.sign(side.signer.claims(side.delivery)),
    "consents/<uuid:pk>/end": lambda side: {},
    "subscriptions/<uuid:pk>/end": lambda side: {},
    "services/<slug:slug>/close": lambda side: {},
    "references": lambda side: {
        "kind": "consent",
        "identifier": f"their-{side.consent.pk}",
        "consent": str(side.consent.pk),
    },
    "holding-count": lambda side: {"code": side.count_code},
    "holdings": lambda side: [
        {
            "subject": str(side.person.subject_id),
            "service_client_id": side.service.client_id,
            "joined_on": "2026-01-02",
            "source_org_code": side.consent.source.code,
            "scopes": "bank.list",
            "purpose": "가계부",
            "cycle": "",
            "end_date": "2027-01-02",
        }
    ],
    "uploads": lambda side: {"kind": "holdings", "format": "csv"},
    "uploads/<uuid:pk>/content": lambda side: "subject\n",
    "transfers": lambda side: [
        {
            "key": "2026-0001",
            "subscription": str(side.live.pk),
            "consent": str(side.consent.pk),
            "scopes": ["bank.list"],
            "at": timezone.now().isoformat(),
        }
    ],
    "mydata/mgmts/oauth/2.0/token": lambda side: urlencode(
        {
            "grant_type": "client_credentials",
            "client_id": side.service.organization.api_client.client_id,
            "client_secret": SECRET,
            "scope": "manage",
        }
    ),
    "mydata/v2/mgmts/statistics/mydata": lambda side: _statistics(
        side, side.consent.source.code, client_id=side.service.client_id
    ),
    "mydata/v2/mgmts/statistics/provider": lambda side: _statistics(side, side.service.organization.code),
    "weekly-counts": lambda side: [
        {
            "week_on": "2026-01-04",
            "service": side.service.client_id,
            "source": side.consent.source.code,
            "consent_new": 0,
            "consent_revoke": 0,
            "consent_own": 0,
        }
    ],
}


def caller_of(address: Address) -> str:
    """Which caller a JSON door is for."""
    from consents.api.authentication import Consumer, Organization, Regulator
    from consents.api.grants import Party

    classes = address.view.cls.permission_classes
    if Consumer in classes:
        return "person"
    if Regulator in classes:
        return "regulator"
    ours = any(each is Party or issubclass(each, Organization) for each in classes)
    return "organization" if ours else "nobody"


def open_to_all(address: Address) -> set[str]:
    """The methods of a door that need no token although others of it do."""
    from consents.api.offers import ReadableByAll

    return {"GET"} if ReadableByAll in address.view.cls.permission_classes else set()


# --- the database, to the byte ---------------------------------------------------------------------------------------------------

# Sessions and their bookkeeping are written by looking; everything else must be as it was.
# So is the count of who has come how often: being refused is what it is for.
NOT_COMPARED = {"django_session", "usersessions_usersession", "django_migrations", "consents_turn"}


def fingerprint() -> dict[str, str]:
    """Table → MD5 of all its rows."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'ledger') AND tablename <> ALL (%s)",
            [list(NOT_COMPARED)],
        )
        tables = sorted(name for (name,) in cursor.fetchall())
        cursor.execute(
            " UNION ALL ".join(
                f"SELECT '{table}', md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t"
                for table in tables
            )
        )
        return dict(cursor.fetchall())


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [table for table in after if after[table] != before.get(table)]


def words(response) -> str:
    """What a refused person or program reads; empty where it is told nothing."""
    if response.headers.get("Content-Type", "").startswith("application/problem+json"):
        told = json.loads(response.content)
        return told.get("detail") or told.get("title") or ""
    return response.content.decode(errors="replace").strip() if response.content else ""
