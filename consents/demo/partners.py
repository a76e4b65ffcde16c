"""The invented organizations as partners of the portal: channels, keys, API clients, and the file the sandbox reads."""

import datetime
import json
import os
import secrets
import sqlite3
from pathlib import Path

from django.conf import settings
from joserfc.jwk import ECKey

from consents import gym, oauth, publishing, requests, trials
from consents.actors import Actor
from consents.demo import flows, story
from consents.models import Consent, Person
from providers import datafiles, registry, signing
from providers.models import Channel, Organization, Service
from providers.sandbox import database, holdings

SCOPES = ("requests:write", "consents:read", "holdings:write", "transfers:write", "deliveries:ack", "manage")
DECLINES = "garam@portal.example"
SOURCE_SCOPES = ("transfers:write", "deliveries:ack", "manage")
SECRETS_LAST = datetime.timedelta(days=2 * 365)  # from a year ago


def folder() -> Path:
    """Where the demo keeps what the sandbox and the sign-in table need; beside the keys, readable by us only."""
    return settings.PORTAL_KEYS_DIR.parent


def address(code: str) -> str:
    return f"{settings.SANDBOX_URL or 'http://127.0.0.1:8001'}/{code}/hooks/consent"


def open_channels(*, by: Actor, at: datetime.datetime) -> dict[str, ECKey]:
    """Open every invented organization's channel, register its key and client; writes sandbox.json. Returns the keys."""
    rows = {row["code"]: row for row in datafiles.fictional()["organizations"]}
    known, keys, opened = {}, {}, []
    for organization in Organization.objects.filter(is_fictional=True).prefetch_related("services"):
        protocol, together = (rows[organization.code].get(name) for name in ("channel", "together"))
        secret, client_secret = signing.new_webhook_secret(), secrets.token_urlsafe(32)
        channel = registry.open_channel(
            organization=organization, protocol=protocol, address=address(organization.code) if protocol == "native" else "",
            secret=secret, details={"together": str(together)} if together else {}, by=by, at=at,
        )  # fmt: skip
        key = ECKey.generate_key("P-256", parameters={"use": "sig", "alg": "ES256"})
        kid = key.thumbprint()
        public = {**key.as_dict(private=False), "kid": kid}
        registry.add_public_key(channel=channel, kid=kid, jwk=public, by=by, at=at)
        client_id = f"{organization.code.lower()}-server"
        keys[organization.code] = key
        opened.append(channel)
        if protocol != "native":
            continue  # works at its desk; the tutorial gives one of these its first client
        oauth.create_client(
            organization=organization, name=organization.name_en, secret=client_secret, scopes=SCOPES if organization.is_operator else SOURCE_SCOPES,
            redirect_uris=[f"https://{organization.code.lower()}.example/back"], client_id=client_id,
            lasts=SECRETS_LAST, by=by, at=at,
        )  # fmt: skip
        known[organization.code] = {
            "name_ko": organization.name_ko, "name_en": organization.name_en, "is_operator": organization.is_operator,
            "client_id": client_id, "client_secret": client_secret, "secret": secret,
            "jwk": {**key.as_dict(private=True), "kid": kid},
            "services": [service.client_id for service in organization.services.all()],
        }  # fmt: skip
    publishing.note_channels(opened, by=by, at=at)
    write_private(folder() / "sandbox.json", {"portal": settings.PORTAL_URL, "organizations": known})
    return keys


def known_keys() -> dict[str, ECKey]:
    """The private keys of partners whose channels were opened before; empty where their file is not there."""
    path = folder() / "sandbox.json"
    if not path.exists():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))["organizations"]
    return {code: ECKey.import_key(content["jwk"]) for code, content in known.items()}


def reconnect() -> None:
    """The demo runs at another port than last time: tell both sides where the other one is now."""
    path = folder() / "sandbox.json"
    if not path.exists():
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    write_private(path, content | {"portal": settings.PORTAL_URL})
    registry.move_channels({code: address(code) for code in content["organizations"]})


def hand_over_holdings() -> int:
    """Give the sandbox's own little database what the history says each organization holds. Returns the rows."""
    native = Channel.objects.filter(protocol="native", state="open").values("organization_id")
    rows = []
    consents = Consent.objects.select_related(
        "subscription__service", "subscription__operator", "person", "source", "recipient"
    )
    for consent in consents.filter(subscription__origin__in=["portal", "request", "reported"]).order_by("pk"):
        subscription = consent.subscription
        common = {
            "subscription": str(subscription.pk), "consent": str(consent.pk), "subject": str(consent.person.subject_id),
            "service": subscription.service.client_id, "kind": consent.kind, "scopes": json.dumps(consent.scopes),
            "source": consent.source.code if consent.source else "", "version": subscription.version,
        }  # fmt: skip
        erased = "confirmed" in (consent.erasure, subscription.erasure)
        stopped = "stopped" if consent.state == "ended" else consent.state
        operator = {"state": "erased" if erased else stopped, "data_present": int(not erased)}
        if (consent.person.email, subscription.service.slug) == (flows.STAR, flows.LEFT) and erased:
            # Signed as erased, and still there: the first read-back finds it.
            operator = {"state": "active", "data_present": 1}
        rows.append(
            {
                **common,
                **operator,
                "organization": subscription.operator.code,
                "_pk": subscription.operator_id,
            }
        )
        if consent.source:
            # A source that is silent on purpose never took up its stops: the read-back finds them there.
            deaf = consent.source.code in story.DEAF
            rows.append(
                {
                    **common,
                    "state": "active" if deaf else stopped,
                    "data_present": 1,
                    "organization": consent.source.code,
                    "_pk": consent.source_id,
                }
            )
        if consent.recipient:
            rows.append(
                {**common, **operator, "organization": consent.recipient.code, "_pk": consent.recipient_id}
            )
    reachable = set(native.values_list("organization_id", flat=True))
    rows = [row for row in rows if row.pop("_pk") in reachable]
    with sqlite3.connect(folder() / "sandbox.sqlite3") as db:
        db.executescript(database.SCHEMA)
        holdings.load(db, rows)
    db.close()
    return len(rows)


def write_private(path: Path, content) -> None:
    """A JSON file only we can read, replaced whole."""
    draft = path.with_suffix(".new")
    with os.fdopen(
        os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
    draft.replace(path)


def lodge_requests(code: str, *, now: datetime.datetime) -> None:
    """What the desk shows of consent requests: one that a person has declined just now, and one that waits for somebody."""
    service = (
        Service.objects.filter(organization__code=code, state=Service.State.LIVE).order_by("slug").first()
    )
    person = Person.objects.filter(email=DECLINES).first()
    if service is None or person is None:
        return
    operator, back = service.organization, f"https://{code.lower()}.example/back"
    by = Actor.organization(operator)
    for declined in (True, False):
        made = requests.lodge(
            organization=operator, service=service, redirect_uri=back, client_state="demo", by=by, at=now
        )
        if declined:
            requests.decline(made, person=person, by=Actor.person(person), at=now)


def past_runs(code: str, *, now: datetime.datetime) -> None:
    """What an organization has behind it in the gym: a run in which one thing was wrong, and a week later a badge.

    Only where the pretend organizations have an address that may be called."""
    if not settings.SANDBOX_URL:
        return
    channel = Channel.objects.select_related("organization").get(
        organization__code=code, state=Channel.State.OPEN
    )
    by, wrong = Actor.organization(channel.organization), {"storm": trials.NO_RETRY}
    for days, findings in ((197, wrong), (190, {})):
        at = now - datetime.timedelta(days=days, hours=3)
        results = [
            trials.Result(
                name, name not in findings, findings.get(name, ""),
                (trials.Answer(400 if name in trials.FORGED else 200, 9 + 7 * place),),
            ).as_json()
            for place, name in enumerate(trials.names(channel.protocol, channel.details))
        ]  # fmt: skip
        gym.finish(
            gym.ask(channel, by=by, at=at), results=results, by=by, at=at + datetime.timedelta(seconds=48)
        )
