"""WRITES services and drafts of their terms, as their operator gives them. Publishing a draft is `registry.publish_terms`."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError, connection, transaction

from providers import lookalikes
from providers.models import Organization, Scope, Service, Terms, TermsItem

PURPOSES = ("budgeting", "credit", "invest", "pension", "insurance", "health", "mobility", "shopping")
NAMES = ("name_ko", "name_en")  # part of the text that people agree to
_NAMING = 7331  # advisory lock: of two companies that take one name at once, the second one sees the first


class NotOwn(ValueError):
    """The client_id, or the address made from it, is somebody else's."""


class NameIsAgreed(ValueError):
    """Terms with the service's name in them were published: people have agreed to that text."""


class NameIsTaken(ValueError):
    """Another company, or a service of another, is called so, or so alike that it could be taken for it."""


class Closed(ValueError):
    """The service was closed, and stays as it was then."""


class NotFirst(ValueError):
    """`first` is what the first version is called, and no other."""


class UnknownPart(ValueError):
    """An organization or a kind of data that nobody knows; `place` says where."""

    def __init__(self, place: str):
        super().__init__(place)
        self.place = place


@transaction.atomic
def put_service(
    *, organization: Organization, client_id: str, given: Mapping[str, Any], by=None, at: datetime.datetime
) -> tuple[Service, bool]:
    """Register a service under this client_id, or change what is said about it; whether it is new. The same again changes
    nothing. It can be joined from its first published terms on. Raises NotOwn, NameIsAgreed, NameIsTaken, Closed."""
    service = Service.objects.select_for_update(of=("self",)).filter(client_id=client_id).first()
    if service is None:
        _refuse_lookalikes(given, organization)
        try:
            with transaction.atomic():
                made = Service.objects.create(
                    organization=organization,
                    client_id=client_id,
                    slug=client_id,
                    opened_on=at.date(),
                    **given,
                )
        except IntegrityError as error:  # somebody else's service has it for its address
            raise NotOwn(client_id) from error
        return made, True
    if service.organization_id != organization.pk:
        raise NotOwn(client_id)
    if service.state == Service.State.CLOSED:
        raise Closed(client_id)
    changes = [name for name, value in given.items() if getattr(service, name) != value]
    if set(changes) & set(NAMES) and service.terms.exclude(state=Terms.State.DRAFT).exists():
        raise NameIsAgreed(client_id)
    if set(changes) & set(NAMES):
        _refuse_lookalikes(given, organization)
    for name in changes:
        setattr(service, name, given[name])
    if changes:
        service.changed_at = at
        service.save(update_fields=[*changes, "changed_at"])
    return service, False


def _refuse_lookalikes(given: Mapping[str, Any], organization: Organization) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_NAMING])
    names = [given[name] for name in NAMES if name in given]
    if name := lookalikes.taken(names, organization=organization):
        raise NameIsTaken(name)


@transaction.atomic
def draft(
    service: Service,
    *,
    given: Mapping[str, Any],
    items: Iterable[Mapping[str, Any]],
    by=None,
    at: datetime.datetime,
) -> Terms:
    """The next version of a service's terms, to be published. Sources and recipients come by their codes.

    Raises Closed, NotFirst, UnknownPart."""
    locked = Service.objects.select_for_update(of=("self",)).get(pk=service.pk)
    if locked.state == Service.State.CLOSED:
        raise Closed(service.client_id)
    last = service.terms.order_by("-version").first()
    if (last is None) != (given["change_kind"] == Terms.Change.FIRST):
        raise NotFirst(service.client_id)
    items = list(items)
    codes = {item[name] for item in items for name in ("source", "recipient") if item[name]}
    known = {row.code: row for row in Organization.objects.filter(code__in=codes)}
    scopes = {code for row in Scope.objects.all() for code in row.codes}
    terms = Terms.objects.create(service=service, version=last.version + 1 if last else 1, **given)
    TermsItem.objects.bulk_create(
        _item(terms, place, item, known, scopes) for place, item in enumerate(items, start=1)
    )
    return terms


def _item(terms: Terms, place: int, item: Mapping[str, Any], known: Mapping, scopes: set[str]) -> TermsItem:
    for name in ("source", "recipient"):
        if item[name] and item[name] not in known:
            raise UnknownPart(f"items/{place - 1}/{name}")
    for number, code in enumerate(item["scopes"]):
        if code not in scopes:
            raise UnknownPart(f"items/{place - 1}/scopes/{number}")
    parts = {name: known.get(item[name]) for name in ("source", "recipient")}
    return TermsItem(terms=terms, position=place, **{**item, **parts})


@transaction.atomic
def open_service(service: Service, *, by=None, at: datetime.datetime) -> None:
    """What was being prepared can be joined, and counts as new, from now on; any other state stays as it is."""
    Service.objects.filter(pk=service.pk, state=Service.State.REGISTERED).update(
        state=Service.State.LIVE, opened_on=at.date(), changed_at=at
    )
