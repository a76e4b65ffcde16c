"""WRITES what the data files say: the scope catalogue, the dated policy numbers, the invented organizations.

The files are the truth about the first two and are read again at every start; what was invented once stays as it is.
"""

import csv
import datetime
import json
import zoneinfo
from pathlib import Path

from django.db import transaction

from providers import policy
from providers.models import (
    DirectoryEntry,
    Licence,
    Organization,
    PolicyRule,
    Scope,
    Service,
    Terms,
    TermsItem,
)
from providers.registry import publish_terms

DATA = Path(__file__).parent / "data"
SEOUL = zoneinfo.ZoneInfo("Asia/Seoul")


@transaction.atomic
def load_scopes(*, by=None, at: datetime.datetime | None = None) -> int:
    """Bring the scope catalogue in line with `data/scopes.json`; returns how many items it has."""
    rows = _json("scopes.json")
    for row in rows:
        Scope.objects.update_or_create(
            item=row["item"], defaults={name: value for name, value in row.items() if name != "item"}
        )
    return len(rows)


@transaction.atomic
def load_policy(*, by=None, at: datetime.datetime | None = None) -> int:
    """Bring the dated numbers in line with `data/policy.csv`; returns how many there are. Rows not in the file stay."""
    with (DATA / "policy.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        PolicyRule.objects.update_or_create(
            key=row["key"],
            effective_on=datetime.date.fromisoformat(row["effective_on"]),
            defaults={
                "value": int(row["value"]),
                "unit": row["unit"],
                "source": row["source"],
                "note": row["note"],
            },
        )
    policy.forget()
    return len(rows)


@transaction.atomic
def load_fictional(
    *, by=None, at: datetime.datetime | None = None, until: datetime.date | None = None
) -> int:
    """Add the invented organizations, their licences, services and published terms from `data/fictional.json`.

    What is there already stays as it is; with `until`, terms published after that day are left for another call. Channels are opened by whoever knows the addresses; each organization's
    protocol is its `channel` in the file. Returns the number of organizations in the file."""
    data = fictional()
    organizations = {row["code"]: _load_organization(row) for row in data["organizations"]}
    for row in data["services"]:
        service, _ = Service.objects.get_or_create(
            client_id=row["client_id"],
            defaults={
                "organization": organizations[row["operator"]],
                **{name: value for name, value in row.items() if name not in _NOT_SERVICE},
            },
        )
        for version in sorted([*row["history"], row["terms"]], key=lambda terms: terms["version"]):
            if until is None or version["published_on"] <= until.isoformat():
                _load_terms(service, version, organizations, by)
    return len(organizations)


def fictional() -> dict:
    """The invented organizations and services as the file has them."""
    return _json("fictional.json")


_NOT_SERVICE = ("operator", "client_id", "terms", "history")
_INVENTED = "방지턱 가상 데이터 · invented for the demo"


def _load_organization(row: dict) -> Organization:
    names = (
        "name_ko", "name_en", "sector", "is_operator", "is_source", "duty_contact", "registration_number",
    )  # fmt: skip
    organization, _ = Organization.objects.get_or_create(
        code=row["code"], defaults={"is_fictional": True, **{name: row[name] for name in names}}
    )
    if row["directory"]:
        DirectoryEntry.objects.get_or_create(organization=organization, defaults=row["directory"])
    for licence in row["licences"]:
        Licence.objects.get_or_create(
            organization=organization,
            status=licence["status"],
            decided_on=licence["decided_on"],
            effective_on=licence["effective_on"],
            nth=1,
            defaults={"source": _INVENTED, "note": licence["note"], "note_en": licence["note_en"]},
        )
    return organization


def _load_terms(service: Service, row: dict, organizations: dict[str, Organization], by) -> None:
    if service.terms.filter(version=row["version"]).exists():
        return
    terms = Terms.objects.create(
        service=service,
        **{name: value for name, value in row.items() if name not in ("items", "published_on")},
    )
    TermsItem.objects.bulk_create(
        TermsItem(
            terms=terms,
            position=position,
            **{
                **item,
                "source": organizations[item["source"]] if item["source"] else None,
                "recipient": organizations[item["recipient"]] if item["recipient"] else None,
            },
        )
        for position, item in enumerate(row["items"], start=1)
    )
    morning = datetime.time(9, tzinfo=SEOUL)
    publish_terms(
        terms=terms,
        by=by,
        at=datetime.datetime.combine(datetime.date.fromisoformat(row["published_on"]), morning),
    )


def _json(name: str):
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def event_vectors() -> dict:
    """Messages signed with keys that everybody knows, to test a receiver with."""
    return _json("event_vectors.json")
