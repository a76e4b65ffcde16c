"""What the portal says: its rows at one moment, under the names that the model uses."""

from collections import Counter

from consents.models import Consent, Delivery, Lookup, Notice, Subscription
from providers.models import Service

from .world import World


class Seen:
    """The portal's rows at one moment, under the names that the model uses, with the rows' own keys beside them."""

    def __init__(self, world: World):
        people = {pk: name for name, pk in world.people.items()}
        services = {pk: name for name, pk in world.services.items()}
        self.subscription_pks, names, count = {}, {}, Counter()
        subscriptions = {}
        for pk, person, service, *shown in Subscription.objects.order_by("pk").values_list(
            "pk", "person", "service", "origin", "state", "until_on", "last_used_on", "end_reason", "erasure", "version"
        ):  # fmt: skip
            pair = (people[person], services[service])
            names[pk] = key = (*pair, count[pair])
            count[pair] += 1
            self.subscription_pks[key] = pk
            subscriptions[key] = tuple(shown)
        self.consent_pks, consents, again = {}, {}, []
        for pk, subscription, kind, source, recipient, state, until, reason, erasure, scopes, riders, cycle, pause, version in (
            Consent.objects.order_by("pk").values_list(
                "pk", "subscription", "kind", "source__code", "recipient__code", "state", "until_on", "end_reason", "erasure",
                "scopes", "riders", "cycle", "paused_until", "version",
            )
        ):  # fmt: skip
            key = (names[subscription], source or recipient or kind)
            again += [key] if key in consents else []
            self.consent_pks[key] = pk
            consents[key] = (
                state,
                until,
                reason,
                erasure,
                tuple(scopes),
                tuple(riders),
                cycle,
                pause,
                version,
            )
        self.delivery_pks, self.jtis, deliveries = {}, {}, {}
        for pk, jti, subscription, version, code, *shown, refused, closed in firsts().values_list(
            "pk", "jti", "subscription", "version", "organization__code", "role", "goal", "event", "state", "overtaken",
            "refused_at", "closed_at",
        ):  # fmt: skip
            key = (names[subscription], version, code)
            again += [key] if key in deliveries else []
            self.delivery_pks[key], self.jtis[key] = pk, jti
            deliveries[key] = (*shown, refused is not None, closed is not None)
        self.names, self.again = names, again
        clients = dict(Service.objects.values_list("client_id", "pk"))
        self.rows = {
            "subscriptions": subscriptions,
            "consents": consents,
            "deliveries": deliveries,
            "notices": Counter(
                (people[person], services[clients[matter]], answer)
                for person, matter, answer in Notice.objects.filter(kind="mismatch").values_list("person", "matter", "answer")
            ),
            "lookups": Counter(people[person] for person in Lookup.objects.values_list("person", flat=True)),
        }  # fmt: skip


def firsts():
    """Deliveries without their replays, which are no messages of their own."""
    return Delivery.objects.filter(replay_of=None).order_by("pk")


def difference(table: str, expected: dict, got: dict) -> str:
    lines = [
        f"  {key}\n    model  {expected.get(key)}\n    portal {got.get(key)}"
        for key in sorted({*expected, *got}, key=str)
        if expected.get(key) != got.get(key)
    ]
    return f"{table} differ\n" + "\n".join(lines)
