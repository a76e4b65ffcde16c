"""WRITES the facts about organizations: licence decisions, published terms, channels and keys.

Codes of organizations are ours, since the real ones are not public: ten letters or digits, the first two for the
sector (BK bank, SV savings bank, MU mutual, CD card, CP capital, IV securities, IN insurance, EM e-money, FT fintech,
TC telecom, PB public, HL health, TR transport, SH shopping, EN energy, OT other), four from the name, four digits;
numbers from 9001 on belong to the invented organizations. The ledger is not known here: callers write its entries.
"""

import datetime
import secrets as randomness
import zoneinfo
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.db import transaction
from django.utils import timezone

from providers import policy, register, signing, wording
from providers.models import (
    Channel,
    ChannelKey,
    DirectoryEntry,
    Licence,
    Organization,
    Service,
    Terms,
)

SEOUL = zoneinfo.ZoneInfo("Asia/Seoul")


class NotADraft(ValueError):
    """Terms that were published once cannot be published again."""


class TermsIncomplete(ValueError):
    """Terms lack something the law demands; `missing` says what, as `position: field`."""

    def __init__(self, missing: list[str]):
        super().__init__(", ".join(missing))
        self.missing = missing


class ChangeIsMaterial(ValueError):
    """Terms were marked as a typo or a clarification, but what they ask differs; `differences` says where."""

    def __init__(self, differences: list[str]):
        super().__init__(", ".join(differences))
        self.differences = differences


class NotAnOperator(ValueError):
    """A licence was to be recorded for an organization that is no operator."""


class ChannelAlreadyOpen(ValueError):
    """The organization has an open channel: retire it first."""


class ChannelRetired(ValueError):
    """A retired channel takes no keys."""


@dataclass
class Report:
    """What an import did: rows that added something, rows that said what was known, and rows refused as
    `(row number, column, reason)`. The header is row 1, as in a spreadsheet."""

    created: int = 0
    unchanged: int = 0
    refused: list[tuple[int, str, str]] = field(default_factory=list)
    licences: list[Licence] = field(default_factory=list)


# The licence register


def import_register(
    rows: Iterable[Mapping], *, by=None, at: datetime.datetime, dry_run: bool = False
) -> Report:
    """Bring in rows of the licence register (`register.COLUMNS`); accepted rows go in together, refused ones are named.

    A row adds what is not known yet: the organization, its role, the decision. It changes nothing that is there, so the
    same rows again are no change. With `dry_run` nothing is kept and the report says what would have happened."""
    report = Report()
    with transaction.atomic():
        known = {organization.code: organization for organization in Organization.objects.select_for_update()}
        decided: set[tuple[str, str, datetime.date | None, datetime.date | None]] = set(
            Licence.objects.values_list("organization__code", "status", "decided_on", "effective_on")
        )
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            try:
                entry = register.entry(row, today=at.astimezone(SEOUL).date())
                changed = _import_organization(entry, known, at)
                changed = _import_facts(entry, known[entry.org_code], at) or changed
            except register.Refused as refusal:
                report.refused.append((number, refusal.column, refusal.reason))
                continue
            decision = (entry.org_code, entry.status, entry.decided_on, entry.effective_on)
            if entry.status and decision not in decided:
                decided.add(decision)
                report.licences.append(_import_decision(entry, known[entry.org_code]))
                changed = True
            report.created += changed
            report.unchanged += not changed
        transaction.set_rollback(dry_run)
    return report


def _import_organization(
    entry: register.Entry, known: dict[str, Organization], at: datetime.datetime
) -> bool:
    organization = known.get(entry.org_code)
    if organization is None:
        known[entry.org_code] = Organization.objects.create(
            code=entry.org_code,
            name_ko=entry.name_ko,
            name_en=entry.name_en,
            sector=entry.sector,
            is_operator=entry.is_operator,
            is_source=entry.is_source,
            registration_number=entry.registration_number,
        )
        return True
    for column in ("name_ko", "name_en", "sector"):
        if getattr(organization, column) != getattr(entry, column):
            raise register.Refused(column, f"differs from what is registered under {entry.org_code}")
    number = entry.registration_number
    if number and organization.registration_number not in ("", number):
        raise register.Refused(
            "registration_number", f"differs from what is registered under {entry.org_code}"
        )
    news: dict[str, bool | str] = {
        name: True for name in ("is_operator", "is_source") if getattr(entry, name)
    }
    news = {name: value for name, value in news.items() if not getattr(organization, name)}
    if number and not organization.registration_number:
        news["registration_number"] = number
    for name, value in news.items():
        setattr(organization, name, value)
    if news:
        organization.changed_at = at
        organization.save(update_fields=[*news, "changed_at"])
    return bool(news)


def _import_facts(entry: register.Entry, organization: Organization, at: datetime.datetime) -> bool:
    """What the row tells of the organization's servers takes the place of what was known; whether anything is new."""
    if not entry.facts:
        return False
    known, _made = DirectoryEntry.objects.get_or_create(organization=organization)
    news = {name: value for name, value in entry.facts.items() if getattr(known, name) != value}
    for name, value in news.items():
        setattr(known, name, value)
    if news:
        known.save(update_fields=list(news))
        organization.changed_at = at
        organization.save(update_fields=["changed_at"])
    return bool(news)


def _import_decision(entry: register.Entry, organization: Organization) -> Licence:
    assert entry.decided_on and entry.effective_on, "an entry with a status has both dates"
    return Licence.objects.create(
        organization=organization,
        status=entry.status,
        decided_on=entry.decided_on,
        effective_on=entry.effective_on,
        source=entry.source,
    )


@transaction.atomic
def record_decision(
    *,
    organization: Organization,
    status: str,
    decided_on: datetime.date,
    effective_on: datetime.date,
    source: str,
    note: str = "",
    by=None,
    at: datetime.datetime,
) -> Licence:
    """Record one decision about an operator's licence. Said again it gives back the record there is; after another of
    the same dates came in between it is a decision of its own, and the last one counts.

    Only writes the fact. What a decision does to consents is the caller's business. Raises NotAnOperator."""
    if not organization.is_operator:
        raise NotAnOperator(organization.code)
    Organization.objects.select_for_update().get(pk=organization.pk)
    made = organization.licences.filter(decided_on=decided_on, effective_on=effective_on)
    last = made.order_by("-id").first()
    if last and last.status == status:
        return last
    return Licence.objects.create(
        organization=organization, status=status, decided_on=decided_on, effective_on=effective_on,
        nth=made.filter(status=status).count() + 1, source=source, note=note,
    )  # fmt: skip


# Terms


@transaction.atomic
def publish_terms(*, terms: Terms, by=None, at: datetime.datetime) -> Terms:
    """Publish a draft: its digests are taken, and the version published before is retired.

    Raises NotADraft, TermsIncomplete (what the law demands is missing) or ChangeIsMaterial (a change marked as typo or
    clarification alters purpose, recipient, retention, scope or cycle)."""
    service = (
        Service.objects.select_for_update(of=("self",))
        .select_related("organization")
        .get(pk=terms.service_id)
    )
    terms = Terms.objects.select_for_update().get(pk=terms.pk)
    if terms.state != Terms.State.DRAFT:
        raise NotADraft(f"{service.client_id} version {terms.version}")
    terms.service = service
    items = list(terms.items.select_related("source", "recipient").order_by("position"))
    missing = ["items"] if not items else wording.missing_legal_items(items)
    missing += [
        name
        for name in ("text_ko", "text_en", "summary_ko", "summary_en")
        if not getattr(terms, name).strip()
    ]
    if missing:
        raise TermsIncomplete(missing)
    previous = service.terms.filter(state=Terms.State.PUBLISHED).first()
    if previous:
        if terms.change_kind != Terms.Change.MATERIAL:
            differences = wording.material_differences(previous.items.all(), items)
            if differences:
                raise ChangeIsMaterial(differences)
        previous.state = Terms.State.RETIRED
        previous.retired_at = at
        previous.save(update_fields=["state", "retired_at"])
    terms.state = Terms.State.PUBLISHED
    terms.published_at = at
    terms.digest_ko = wording.text_digest(terms, "ko", items=items)
    terms.digest_en = wording.text_digest(terms, "en", items=items)
    terms.save(update_fields=["state", "published_at", "digest_ko", "digest_en"])
    return terms


@transaction.atomic
def set_service_states(states: dict[str, str]) -> None:
    """Set services, by slug, to live, paused, closing or closed."""
    for slug, state in states.items():
        Service.objects.filter(slug=slug).update(state=state, changed_at=timezone.now())


@transaction.atomic
def close_service(*, service: Service, by=None, at: datetime.datetime) -> bool:
    """Close a service for ever: nobody can join it from now on. False where it was closed before."""
    open_now = Service.objects.filter(pk=service.pk).exclude(state=Service.State.CLOSED)
    return bool(open_now.update(state=Service.State.CLOSED, changed_at=at))


# Channels


@transaction.atomic
def open_channel(
    *,
    organization: Organization,
    protocol: str,
    address: str = "",
    secret: str | None = None,
    details: Mapping[str, str] | None = None,
    credential: str = "",
    by=None,
    at: datetime.datetime,
) -> Channel:
    """Open the way to an organization. A native channel gets a signing secret: `secret` (`whsec_…`) or a fresh one.
    `details` are the wire's own settings, `credential` the one secret that signs us in there.

    The address is kept as given; it is judged by `outbound` at each call. Raises ChannelAlreadyOpen."""
    Organization.objects.select_for_update().get(pk=organization.pk)
    if organization.channels.filter(state=Channel.State.OPEN).exists():
        raise ChannelAlreadyOpen(organization.code)
    channel = prepare_channel(
        organization=organization, protocol=protocol, address=address, secret=secret, details=details,
        credential=credential, by=by, at=at,
    )  # fmt: skip
    channel.state, channel.opened_at = Channel.State.OPEN, at
    channel.save(update_fields=["state", "opened_at"])
    return channel


@transaction.atomic
def prepare_channel(
    *,
    organization: Organization,
    protocol: str,
    address: str = "",
    secret: str | None = None,
    details: Mapping[str, str] | None = None,
    credential: str = "",
    by=None,
    at: datetime.datetime,
) -> Channel:
    """A channel that can be tested and carries nothing yet; otherwise as `open_channel`. There may be any number."""
    channel = Channel.objects.create(
        organization=organization, protocol=protocol, address=address, details=dict(details or {})
    )
    if protocol == Channel.Protocol.NATIVE:
        _add_secret(channel, secret, at)
    if credential:
        set_credential(channel=channel, credential=credential, by=by, at=at)
    return channel


@transaction.atomic
def open_prepared(*, channel: Channel, by=None, at: datetime.datetime) -> tuple[Channel, Channel | None]:
    """Open a prepared channel in the place of the one that is open: `(opened, retired)`. The public keys that the
    organization signs its evidence with go along. Whether it was tested is the caller's business. Raises ChannelRetired."""
    Organization.objects.select_for_update().get(pk=channel.organization_id)
    channel = (
        Channel.objects.select_for_update(of=("self",)).select_related("organization").get(pk=channel.pk)
    )
    if channel.state != Channel.State.TESTING:
        raise ChannelRetired(str(channel.pk))
    before = Channel.objects.filter(organization=channel.organization_id, state=Channel.State.OPEN).first()
    if before:
        known = set(channel.keys.values_list("kid", flat=True))
        keys = before.keys.filter(kind=ChannelKey.Kind.JWK, retired_at__isnull=True)
        for key in keys.exclude(kid__in=known):
            add_public_key(channel=channel, kid=key.kid, jwk=key.jwk or {}, by=by, at=at)
        before = retire_channel(channel=before, by=by, at=at)
    channel.state, channel.opened_at = Channel.State.OPEN, at
    channel.save(update_fields=["state", "opened_at"])
    return channel, before


@transaction.atomic
def set_credential(*, channel: Channel, credential: str, by=None, at: datetime.datetime) -> ChannelKey:
    """Keep what signs us in at the other side (a bearer token, a client secret), sealed; the one before is retired."""
    kind = ChannelKey.Kind.CREDENTIAL
    channel.keys.filter(kind=kind, retired_at__isnull=True).update(retired_at=at)
    kid = f"credential-{randomness.token_hex(8)}"
    return ChannelKey.objects.create(
        channel=channel, kind=kind, kid=kid, active_from=at,
        sealed_secret=signing.seal(credential.encode(), aad=_place(channel, kid)),
    )  # fmt: skip


def channel_credential(channel: Channel) -> str:
    """What signs us in at the other side; empty where nothing does. Uses prefetched keys."""
    for key in channel.keys.all():
        if key.kind == ChannelKey.Kind.CREDENTIAL and key.retired_at is None:
            return signing.unseal(bytes(key.sealed_secret or b""), aad=_place(channel, key.kid)).decode()
    return ""


@transaction.atomic
def rotate_key(*, channel: Channel, secret: str | None = None, by=None, at: datetime.datetime) -> ChannelKey:
    """Give a channel a new signing secret. The old one stays valid beside it for KEY_OVERLAP_HOURS, so that no message
    is refused while the other side changes over. Raises ChannelRetired."""
    channel = Channel.objects.select_for_update().get(pk=channel.pk)
    if channel.state == Channel.State.RETIRED:
        raise ChannelRetired(str(channel.pk))
    hours = policy.number("KEY_OVERLAP_HOURS", on=at.astimezone(SEOUL).date())
    channel.keys.filter(kind=ChannelKey.Kind.HMAC, retired_at__isnull=True).update(
        retired_at=at + datetime.timedelta(hours=hours)
    )
    return _add_secret(channel, secret, at)


@transaction.atomic
def add_public_key(*, channel: Channel, kid: str, jwk: dict, by=None, at: datetime.datetime) -> ChannelKey:
    """Note a public key the organization signs its evidence with. Raises ChannelRetired."""
    channel = Channel.objects.select_for_update().get(pk=channel.pk)
    if channel.state == Channel.State.RETIRED:
        raise ChannelRetired(str(channel.pk))
    return ChannelKey.objects.create(
        channel=channel, kind=ChannelKey.Kind.JWK, kid=kid, jwk=jwk, active_from=at
    )


@transaction.atomic
def retire_channel(*, channel: Channel, by=None, at: datetime.datetime) -> Channel:
    """Close a channel and all its keys at once; a closed channel stays as it was."""
    channel = Channel.objects.select_for_update().get(pk=channel.pk)
    if channel.state != Channel.State.RETIRED:
        channel.state = Channel.State.RETIRED
        channel.retired_at = at
        channel.save(update_fields=["state", "retired_at"])
        channel.keys.exclude(retired_at__lte=at).update(retired_at=at)
    return channel


@transaction.atomic
def move_channels(addresses: dict[str, str]) -> int:
    """New addresses for the open native channels of invented organizations (the demo's port changed); returns how many."""
    channels = Channel.objects.select_for_update(of=("self",)).filter(
        organization__code__in=addresses,
        organization__is_fictional=True,
        state=Channel.State.OPEN,
        protocol=Channel.Protocol.NATIVE,
    )
    moved = [
        channel
        for channel in channels.select_related("organization")
        if channel.address != addresses[channel.organization.code]
    ]
    for channel in moved:
        channel.address = addresses[channel.organization.code]
    Channel.objects.bulk_update(moved, ["address"])
    return len(moved)


def channel_secrets(channel: Channel) -> list[bytes]:
    """The secrets to sign with now, newest first; two while one is being rotated. Uses prefetched keys."""
    now = timezone.now()
    keys = [
        key
        for key in channel.keys.all()
        if key.kind == ChannelKey.Kind.HMAC and (key.retired_at is None or key.retired_at > now)
    ]
    keys.sort(key=lambda key: key.active_from, reverse=True)
    return [signing.unseal(bytes(key.sealed_secret or b""), aad=_place(channel, key.kid)) for key in keys]


def _add_secret(channel: Channel, secret: str | None, at: datetime.datetime) -> ChannelKey:
    raw = signing.webhook_secret(secret or signing.new_webhook_secret())
    kid = f"hmac-{randomness.token_hex(8)}"
    return ChannelKey.objects.create(
        channel=channel,
        kind=ChannelKey.Kind.HMAC,
        kid=kid,
        sealed_secret=signing.seal(raw, aad=_place(channel, kid)),
        active_from=at,
    )


def _place(channel: Channel, kid: str) -> bytes:
    return f"channel-key|{channel.pk}|{kid}".encode()
