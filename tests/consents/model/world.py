"""The world that an example begins in, and the servers of the organizations in it."""

import datetime
import json
from collections import Counter

from django.db import connection

from consents.models import LedgerEntry
from providers import registry, signing
from providers.models import Organization
from tests import factories

from .expected import Model
from .shapes import Item, Service

PEOPLE, SERVICES = ("p0", "p1"), ("s0", "s1")


class Receivers:
    """All organizations' servers. Each takes a message once by its id, and an older version never undoes a newer one."""

    def __init__(self):
        self.taken: set[tuple[str, str]] = set()
        self.effects: Counter = (
            Counter()
        )  # (act, organization): how often something happened there because of it
        self.flows: dict[
            tuple[str, str], tuple[int, bool]
        ] = {}  # (organization, consent): version, does it flow

    def take(self, organization: str, jti: str, body: str) -> None:
        if (organization, jti) in self.taken:
            return
        self.taken.add((organization, jti))
        message = json.loads(body)
        data = message["data"]
        self.effects[data["txn"], organization] += 1
        for consent in data["consents"]:
            known, _flows = self.flows.get((organization, consent["id"]), (0, False))
            if data["version"] >= known:
                self.flows[organization, consent["id"]] = data["version"], message["type"] in (
                    "consent-granted", "consent-resumed", "consent-amended",
                )  # fmt: skip


class World:
    """Two people, two services that share a source; the second service's operator and third party confirm by hand."""

    def __init__(self, now: datetime.datetime):
        empty_log()
        self.now = now
        self.people = {name: factories.PersonFactory().pk for name in PEOPLE}
        self.regulator = factories.MemberFactory(role="regulator", organization=None).person_id
        shared, own = factories.OrganizationFactory(), factories.OrganizationFactory()
        wired = {shared.code, own.code}
        self.services, self.offers = {}, {}
        for n, name in enumerate(SERVICES):
            third = factories.OrganizationFactory(is_source=False)
            service = factories.ServiceFactory()
            items = [
                {"source": shared, "riders": ["memo"]},
                {"source": own, "required": False},
                {"kind": "third_party", "required": False, "recipient": third, "scopes": ["bank.deposit"], "cycle": "", "grade": "04"},
                {"kind": "marketing", "required": False, "scopes": [], "cycle": "", "grade": "02"},
            ]  # fmt: skip
            factories.TermsFactory(service=service, items=items)
            factories.TermsFactory(service=service, items=items, published=False)
            self.services[name] = service.pk
            wired |= {service.organization.code, third.code} if n == 0 else set()
            both = ("bank.list", "bank.deposit")
            self.offers[name] = (service.organization.code, (
                Item(shared.code, "transfer", True, both, ("memo",), "1/1w"), Item(own.code, "transfer", False, both, (), "1/1w"),
                Item(third.code, "third_party", False, ("bank.deposit",)), Item("marketing", "marketing"),
            ))  # fmt: skip
        for code in wired:
            registry.open_channel(
                organization=Organization.objects.get(code=code), protocol="native", secret=signing.new_webhook_secret(),
                address=f"https://{code.lower()}.example/hooks", at=now,
            )  # fmt: skip
        self.wired = wired

    def model(self) -> Model:
        return Model({name: Service(*offer) for name, offer in self.offers.items()}, self.wired, self.now)


def empty_log() -> None:
    """What other tests have really committed to the log belongs to people who are gone."""
    if not LedgerEntry.objects.exists():
        return
    guards = ("event a_no_row", "event a_no_stmt", "leaf a_no_row", "leaf a_no_stmt", "disclosure b_hold")
    for guard in guards:
        table, trigger = guard.split()
        sql(f"ALTER TABLE ledger.{table} DISABLE TRIGGER {trigger}")
    sql(
        "DELETE FROM ledger.disclosure; DELETE FROM ledger.pending; DELETE FROM ledger.leaf; DELETE FROM ledger.event"
    )
    sql("SET CONSTRAINTS ALL IMMEDIATE; SET CONSTRAINTS ALL DEFERRED")
    for guard in guards:
        table, trigger = guard.split()
        sql(f"ALTER TABLE ledger.{table} ENABLE ALWAYS TRIGGER {trigger}")


def sql(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
