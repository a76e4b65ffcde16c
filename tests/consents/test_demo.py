"""The demo's year: as large and as mixed as promised, the same for the same seed, and true to its own log."""

import json
from collections import Counter, defaultdict

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import Count
from django.test import Client
from django.test.utils import CaptureQueriesContext, override_settings

from consents import ledger
from consents.demo import cast
from consents.models import (
    Consent,
    Delivery,
    EntryIndex,
    Erasure,
    Evidence,
    LedgerEntry,
    Member,
    Notice,
    Person,
    Subscription,
)
from consents.queries import person as numbers
from providers.models import Organization, Service, Terms, TermsItem

pytestmark = pytest.mark.timeout(300)  # the first of them may wait for the seed


@pytest.fixture(scope="module")
def told(city) -> dict:
    """Everything the log discloses: subscription or consent id → [(typ, fields)] in order."""
    rows = list(EntryIndex.objects.order_by("seq"))
    facts = ledger.disclosed([row.event_id for row in rows])
    found = defaultdict(list)
    for row in rows:
        found[row.consent_id if row.typ.startswith("consent.") else row.subscription_id].append(
            (row.typ, facts[row.event_id])
        )
    return found


# --- as promised -------------------------------------------------------------------------------------------------------------


def test_organizations_services_and_terms(city):
    operators = Organization.objects.filter(is_fictional=True, is_operator=True)
    sources = Organization.objects.filter(is_fictional=True, is_source=True, is_operator=False)
    assert operators.count() >= 14 and operators.values("sector").distinct().count() >= 5
    assert Organization.objects.filter(is_fictional=True, is_source=True).count() >= 35 and sources.exists()
    assert Organization.objects.filter(is_fictional=False, is_operator=True).count() >= 28, (
        "the register of 2021-01-27"
    )
    services = Service.objects.filter(organization__is_fictional=True)
    for terms in Terms.objects.filter(service__in=services).exclude(state="draft"):
        assert terms.text_ko and terms.text_en and terms.summary_ko and terms.summary_en
        assert terms.digest_ko.startswith("sha256:") and terms.digest_en.startswith("sha256:")
    for item in TermsItem.objects.filter(terms__service__in=services):
        # the seven of 신용정보법 제33조의2⑤: from whom, what, to whom, regular or not, until when, what for, how long kept
        assert item.kind != "transfer" or (item.source_id and item.scopes)
        assert (
            item.valid_months
            and item.purpose_ko
            and item.purpose_en
            and item.retention_ko
            and item.retention_en
        )
    kinds = dict(
        TermsItem.objects.filter(terms__service__in=services).values_list("kind").annotate(Count("pk"))
    )
    assert {"transfer", "third_party", "marketing"} <= set(kinds)
    assert TermsItem.objects.filter(terms__service__in=services, required=True).exists()


def test_real_companies_have_no_customers_here(city):
    """Consents, breaches and complaints only ever attach to invented operators."""
    assert not Subscription.objects.filter(operator__is_fictional=False).exists()
    assert not Delivery.objects.filter(organization__is_fictional=False).exists()
    assert not Notice.objects.filter(subscription__operator__is_fictional=False).exists()


def test_the_people_and_their_mix(city):
    people = Person.objects.filter(member=None)
    held = Counter(numbers.summary(person).operators_holding for person in people)
    assert sum(held.values()) == 40 and held[0] >= 1 and max(held) >= 7
    live = [people.filter(pk=p.pk, subscriptions__state="active").count() for p in people]
    assert sum(1 for n in live if n >= 3) >= 5, "enough for the speed bump to speak"
    assert {"seven", "none"} <= {role.key for role in cast.STARS}
    seven = Person.objects.get(email="haneul@portal.example")
    assert seven.subscriptions.live().count() == 7
    odd = seven.transfers.get(after_stop=True).subscription
    assert odd.erasure == "confirmed", (
        "what flowed after the stop was erased with the rest: it is not counted again"
    )
    assert Person.objects.get(email="saebyeok@portal.example").subscriptions.count() == 0
    assert dict(Member.objects.values_list("role").annotate(Count("pk"))) == {
        "regulator": 2,
        "operator_admin": 3,
    }


def test_the_year_has_everything_in_it(city):
    states = {
        "left and erased": Subscription.objects.filter(state="ended", erasure="confirmed"),
        "left, still held": Subscription.objects.held_after_end(),
        "withdrawn while the rest goes on": Consent.objects.filter(
            state="ended", subscription__state="active"
        ),
        "paused": Consent.objects.filter(state="paused"),
        "third party": Consent.objects.filter(kind="third_party"),
        "riders on": Consent.objects.exclude(riders=[]),
        "reported by the operator": Subscription.objects.filter(origin="reported"),
        "overdue": Delivery.objects.filter(
            closed_at__isnull=True, due_at__isnull=False, state__in=("retrying", "sent")
        ),
        "waiting at a desk": Delivery.objects.filter(organization__channels__protocol="desk"),
        "signed evidence": Evidence.objects.filter(means="signed"),
        "a clerk's evidence": Evidence.objects.filter(means="desk"),
        "mismatch": Notice.objects.filter(kind="mismatch"),
        "dormant": Notice.objects.filter(kind="dormant"),
        "overlap": Notice.objects.filter(kind="overlap"),
        "expiring": Notice.objects.filter(kind="expiring"),
        "ended with the licence": Subscription.objects.filter(end_reason="licence_ended"),
    }
    assert not [name for name, rows in states.items() if not rows.exists()]


def test_the_demo_sign_ins_work(city):
    listed = json.loads((city.folder / "demo.json").read_text())
    assert len(listed) >= 5
    for row in listed:
        person = Person.objects.get(email=row["email"])
        assert person.check_password(row["password"]) and row["label"]
        assert person.emailaddress_set.filter(verified=True, primary=True).exists()


def test_seeding_again_is_refused(city):
    people = Person.objects.count()
    with pytest.raises(CommandError, match="people already"):
        call_command("seed")
    with override_settings(SECURE=True), pytest.raises(CommandError, match="public https"):
        call_command("seed")
    with pytest.raises(CommandError, match="at least 1"):
        call_command("seed", people=0)
    assert Person.objects.count() == people


def test_the_same_seed_invents_the_same_people():
    import random

    assert cast.consumers(40, random.Random(7)) == cast.consumers(40, random.Random(7))
    assert cast.consumers(40, random.Random(7)) != cast.consumers(40, random.Random(8))
    assert cast.consumers(10, random.Random(7)) == cast.consumers(40, random.Random(7))[:10]


# --- true to its log -----------------------------------------------------------------------------------------------------------


def test_every_subscription_is_as_the_log_tells(city, told):
    """State, ledger and deliveries agree, to the row."""
    for row in Subscription.objects.select_related("operator", "service"):
        said = told[row.pk]
        typs = Counter(typ for typ, _ in said)
        (joined,) = [fields for typ, fields in said if typ == "subscription.joined"]
        assert (joined["sbs"], joined["opr"], joined["svc"]) == (
            str(row.pk),
            row.operator.code,
            row.service.client_id,
        )
        assert (joined["trm"], joined["lng"], joined["org"]) == (row.text_digest, row.language, row.origin)
        ended = [fields for typ, fields in said if typ == "subscription.ended"]
        assert len(ended) == (row.state == "ended")
        for fields in ended:
            assert fields["rsn"] == row.end_reason and fields["ver"] <= row.version
            assert fields["prd"] == row.until_on.isoformat()
        asked = [fields for typ, fields in said if typ == "erasure.requested" and fields["con"] is None]
        assert len(asked) == (row.erasure != Erasure.NOT_REQUESTED)
        confirmed = [
            fields for typ, fields in said
            if typ == "erasure.confirmed" and fields["con"] is None and fields["opr"] == row.operator.code
        ]  # fmt: skip
        undone = [
            ids for typ, fields in said if typ.endswith(".contradicted") for ids in fields.get("ids", ())
        ]
        settled = len(confirmed) - undone.count(str(row.pk))  # found still there: asked again
        assert settled == (row.erasure == Erasure.CONFIRMED), typs


def test_every_consent_is_as_the_log_tells(city, told):
    after = {
        "granted": "active",
        "amended": None,
        "resumed": "active",
        "paused": "paused",
        "withdrawn": "ended",
        "expired": "ended",
    }
    for row in Consent.objects.select_related("source", "recipient", "subscription"):
        said = [(typ, fields) for typ, fields in told[row.pk] if typ.split(".")[1] in after]
        assert [typ for typ, _ in said].count("consent.granted") == 1
        state = [after[typ.split(".")[1]] for typ, _ in said if after[typ.split(".")[1]]][-1]
        fields = said[-1][1]
        assert state == row.state, [typ for typ, _ in said]
        assert (fields["scp"], fields["rid"], fields["cyc"]) == (row.scopes, row.riders, row.cycle)
        assert (fields["src"], fields["rcp"]) == (
            row.source and row.source.code,
            row.recipient and row.recipient.code,
        )
        assert (fields["prd"], fields["ver"], fields["knd"]) == (
            row.until_on.isoformat(),
            row.version,
            row.kind,
        )


def test_every_delivery_was_promised_in_the_log_and_every_promise_kept(city, told):
    promised = {}
    for said in told.values():
        for _typ, fields in said:
            for jti, code, role, goal in fields.get("dlv") or []:
                promised[jti] = (code, role, goal)
    rows = {
        str(jti): (code, role, goal)
        for jti, code, role, goal in Delivery.objects.values_list("jti", "organization__code", "role", "goal")
    }
    assert promised == rows


def test_every_step_of_a_delivery_is_in_the_log(city):
    said = defaultdict(list)
    for jti, typ in (
        EntryIndex.objects.filter(typ__startswith="delivery.").order_by("seq").values_list("jti", "typ")
    ):
        said[jti].append(typ.removeprefix("delivery."))
    order = ["sent", "received", "stopped", "erased", "dead"]
    for row in Delivery.objects.all():
        steps = said[row.jti]
        assert steps == sorted(steps, key=order.index) and len(steps) == len(set(steps))
        if row.state in order:
            assert steps[-1] == row.state
        elif not row.overtaken:
            assert not steps


def test_the_search_index_has_every_entry_of_the_log(city):
    assert EntryIndex.objects.count() == LedgerEntry.objects.count()
    ids = set(EntryIndex.objects.values_list("event_id", "typ"))
    assert ids == set(LedgerEntry.objects.values_list("event_id", "event_type"))


def test_time_passes_in_the_log(city):
    """Acts are told in the order in which they happened, and none lies in the future of another's answer."""
    moments = list(EntryIndex.objects.order_by("seq").values_list("at", flat=True))
    assert moments == sorted(moments)
    for row in Delivery.objects.exclude(received_at=None):
        reached = [row.created_at, row.sent_at, row.received_at, row.stopped_at, row.erased_at]
        known = [moment for moment in reached if moment]
        assert known == sorted(known)


# --- its pages -------------------------------------------------------------------------------------------------------------------


def test_every_persons_pages_answer_in_twelve_queries(city, subtests):
    """The cast, from nobody's subscriptions to the most anybody has, and every fifth of the crowd."""
    people = list(Person.objects.filter(member=None).order_by("email"))
    known = {role.email for role in cast.STARS}
    stars, crowd = [], []
    for person in people:
        (stars if person.email in known else crowd).append(person)
    assert len(stars) == 4
    for person in stars + crowd[::5]:
        client = Client()
        client.cookies["sid"] = city.session(person.email)
        client.get("/me/account/")  # the first form of a session writes its token there, once
        urls = ["/me/", "/me/notices/", "/me/history/", "/me/account/"]
        urls += [f"/me/subscriptions/{pk}/" for pk in person.subscriptions.values_list("pk", flat=True)[:3]]
        for url in urls:
            with subtests.test(person=person.email, url=url):
                with CaptureQueriesContext(connection) as seen:
                    assert client.get(url).status_code == 200
                assert len(seen) <= 12, [query["sql"][:200] for query in seen]
