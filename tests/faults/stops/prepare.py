"""Makes the world of the experiments in an empty database and prints it as JSON: who agreed to what, and who must hear of its
end. The checker reckons with this plan and not with what the portal writes down.

Run as a program in the environment of a portal.
"""

import datetime
import json
import os
import secrets
import sys

import django

OPERATORS, SOURCES, PEOPLE = 3, 4, 50
TOGETHER = {"OPERATOR01", "SOURCE0001", "SOURCE0002"}  # take many messages in one request


def token_of(client, user=None, scopes=()) -> str:
    from allauth.idp.oidc.models import Token
    from django.utils import timezone

    value = secrets.token_urlsafe(32)
    token = Token(
        client=client, user=user, type=Token.Type.ACCESS_TOKEN,
        expires_at=timezone.now() + datetime.timedelta(days=7),
    )  # fmt: skip
    token.set_value(value)
    token.set_scopes(list(scopes))
    token.save()
    return value


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    from django.core.management import call_command
    from django.utils import timezone

    from consents import oauth
    from consents.models import Consent, Delivery
    from providers import datafiles, registry, signing
    from tests import factories

    call_command("migrate", verbosity=0, interactive=False)
    datafiles.load_policy()
    datafiles.load_scopes()
    now = timezone.now()
    operators = [factories.OperatorFactory(code=f"OPERATOR{n:02d}") for n in range(1, OPERATORS + 1)]
    sources = [factories.OrganizationFactory(code=f"SOURCE{n:04d}") for n in range(1, SOURCES + 1)]
    recipient = factories.OrganizationFactory(code="RECEIVER01", is_source=False)
    services = []
    for n, operator in enumerate(operators):
        items = [{"source": source, "required": k == 0} for k, source in enumerate(sources)]
        if n == 0:
            items.append(
                {"kind": "third_party", "required": False, "recipient": recipient, "title_ko": "연구소에 주기",
                 "title_en": "Give to an institute", "scopes": ["bank.deposit"], "cycle": "", "grade": "04"}
            )  # fmt: skip
        services.append(factories.TermsFactory(service__organization=operator, items=items).service)
    parties = {}
    for organization in [*operators, *sources, recipient]:
        secret = signing.new_webhook_secret()
        registry.open_channel(
            organization=organization, protocol="native", address=f"http://127.0.0.1:9/{organization.code}",
            secret=secret, details={"together": "20"} if organization.code in TOGETHER else {},
            at=factories.PUBLISHED_AT,
        )  # fmt: skip
        client = oauth.create_client(
            organization=organization, name=organization.name_en, secret=secrets.token_urlsafe(32),
            scopes=["deliveries:ack"],
        ).client  # fmt: skip
        parties[organization.code] = {"secret": secret, "token": token_of(client, scopes=["deliveries:ack"])}
    app = oauth.create_app_client(name="내 앱", redirect_uris=["https://my.example/back"])
    people, subscriptions, consents = [], {}, {}
    for number in range(PEOPLE):
        person = factories.PersonFactory(email=f"person{number}@example.com")
        people.append(token_of(app, person, ["me"]))
        for service in services:
            joined = factories.joined(person, service, now - datetime.timedelta(days=30))
            told = {service.organization.code}
            mine = []
            for consent in Consent.objects.filter(subscription=joined).select_related("source", "recipient"):
                party = (consent.source or consent.recipient).code
                consents[str(consent.pk)] = {
                    "person": number, "subscription": str(joined.pk), "parties": sorted({service.organization.code, party}),
                }  # fmt: skip
                mine.append(str(consent.pk))
                told.add(party)
            subscriptions[str(joined.pk)] = {"person": number, "parties": sorted(told), "consents": mine}
    # The joins were heard of long ago.
    Delivery.objects.update(
        state="received", sent_at=now, received_at=now, closed_at=now, next_at=None, due_at=None
    )
    plan = {"people": people, "parties": parties, "subscriptions": subscriptions, "consents": consents}
    sys.stdout.write(json.dumps(plan) + "\n")


if __name__ == "__main__":
    main()
