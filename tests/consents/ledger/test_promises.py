"""What a receipt promises: exactly the claims of the format, for every accepted act, kept nowhere in clear."""

import base64
import datetime
import hashlib
import json

import jwt
import pytest
from django.db import connection, transaction
from django.utils import timezone

from consents import ledger, lifecycle, requests
from consents.actors import Actor
from consents.ledger import Fact, promises
from consents.models import (
    Delivery,
    Disclosure,
    EntryIndex,
    IdempotencyKey,
    LedgerEntry,
    PersonKey,
    Promise,
    Subscription,
)
from providers import signing
from tests import factories
from tests.consents.api.conftest import Caller, Signer, app, of, token

__all__ = ["app"]

pytestmark = pytest.mark.django_db


def opened(compact: str) -> dict:
    """The claims, checked by another library with nothing but the published keys."""
    header = jwt.get_unverified_header(compact)
    assert header["typ"] == "consent-receipt+jwt" and header["alg"] == "ES256"
    key = next(key for key in signing.public_jwks()["keys"] if key["kid"] == header["kid"])
    return jwt.decode(compact, jwt.PyJWK(key).key, algorithms=["ES256"])


def promised(compact: str, settings) -> dict:
    """The claims of a receipt, after everything that can be checked about them has been."""
    claims = opened(compact)
    entry = LedgerEntry.objects.get(pk=claims["jti"])
    index = EntryIndex.objects.get(event_id=entry.event_id)
    assert claims["iss"] == settings.PORTAL_URL and claims["log"] == settings.LEDGER_ORIGIN
    assert claims["iat"] == int(index.at.timestamp()) and claims["mmd"] == 300
    assert claims["leaf"] == base64.b64encode(bytes(entry.leaf_hash)).decode()
    digests = json.loads(bytes(entry.entry))["_sd"]
    for disclosure in claims["sd"]:
        digest = hashlib.sha256(disclosure.encode("ascii")).digest()
        assert base64.urlsafe_b64encode(digest).rstrip(b"=").decode() in digests
    return claims


def joining(service) -> dict:
    terms = service.terms.get(state="published")
    items = [{"item": item.pk, "riders": []} for item in terms.items.filter(required=True)]
    return {"terms": str(terms.pk), "language": "ko", "items": items}


def test_a_receipt_says_exactly_what_the_format_asks_for(person, settings):
    factories.joined(person)
    entry = EntryIndex.objects.get(typ="subscription.joined")
    claims = promised(promises.receipt(entry), settings)
    assert set(claims) == {"iss", "iat", "jti", "leaf", "log", "mmd", "sd", "act", "txn"}
    digests = json.loads(bytes(LedgerEntry.objects.get(pk=claims["jti"]).entry))["_sd"]
    assert len(claims["sd"]) == len(digests) > 8  # every field of the entry


def test_a_receipt_asked_for_again_is_the_same_bytes(person):
    factories.joined(person)
    entries = list(EntryIndex.objects.all())
    first, again = promises.receipts(entries), promises.receipts(entries)
    assert first == again and len(set(first.values())) == len(entries)


def test_receipts_cost_the_same_however_many(person, django_assert_num_queries):
    factories.joined(person)
    entries = list(EntryIndex.objects.all())
    assert len(entries) > 3
    with django_assert_num_queries(3):
        promises.receipts(entries)


def test_what_was_shredded_is_in_no_receipt_and_the_promise_stays(person, me, settings, now):
    long_ago = now - datetime.timedelta(days=4 * 366)  # after the legal hold
    with transaction.atomic():
        fact = Fact("notice.answered", person=person, operator=factories.OperatorFactory())
        ledger.append([fact], by=me, at=long_ago)
    entry = EntryIndex.objects.get()
    before = promised(promises.receipt(entry), settings)
    Disclosure.objects.filter(event_id=entry.event_id).delete()
    PersonKey.objects.filter(person=person).delete()
    after = promised(promises.receipt(entry), settings)
    assert before["sd"] and after == before | {"sd": []}


def test_the_first_entry_of_an_act_is_remembered_until_it_is_kept(person, me, now):
    subscription = factories.joined(person, at=now)
    entries = list(EntryIndex.objects.order_by("seq"))
    joined = Promise.objects.get(event_id=entries[0].event_id)
    assert entries[0].typ == "subscription.joined"
    # The delay runs from whichever clock is ahead, the portal's or the database's.
    assert joined.due_at >= now + datetime.timedelta(seconds=300)
    assert joined.due_at - max(now, timezone.now()) <= datetime.timedelta(seconds=300)
    assert bytes(joined.leaf_hash) == bytes(LedgerEntry.objects.get(pk=joined.event_id).leaf_hash)
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    ended = EntryIndex.objects.get(typ="subscription.ended")
    kept = set(Promise.objects.values_list("event_id", flat=True))
    assert ended.event_id in kept and len(kept) == 2 < EntryIndex.objects.count()


def test_what_the_system_does_by_itself_is_promised_to_nobody(now):
    with transaction.atomic():
        ledger.append([Fact("channel.opened", fields={"dig": "1"})], by=Actor.system("test"), at=now)
    assert not Promise.objects.exists()
    with transaction.atomic():
        ledger.append([Fact("channel.opened", fields={"dig": "2"})], by=Actor("staff", "root"), at=now)
        assert ledger.append([], by=Actor("staff", "root"), at=now) == []
    assert Promise.objects.count() == 1


def test_a_promise_and_its_act_are_one_transaction(person, now):
    with pytest.raises(RuntimeError), transaction.atomic():
        ledger.append([Fact("channel.opened", fields={"dig": "1"})], by=Actor.person(person), at=now)
        raise RuntimeError("the act fails after all")
    assert not Promise.objects.exists() and not LedgerEntry.objects.exists()


def test_every_act_of_a_person_is_answered_with_its_receipt(app, person, settings):
    mine = Caller(token(app, person, ["me"]))
    service, other = factories.offered(), factories.offered()

    def act(path, body, typ):
        answer = mine.post(path, body)
        assert answer.status_code in (200, 201), answer.content
        claims = promised(answer.json()["receipt"], settings)
        assert claims["act"] == typ and claims["sd"]
        assert Promise.objects.filter(event_id=claims["jti"]).exists()
        return answer.json()

    made = act(f"services/{service.slug}/subscriptions", joining(service), "subscription.joined")
    consent = Subscription.objects.get(pk=made["id"]).consents.first()
    act(f"me/consents/{consent.pk}/pause", {}, "consent.paused")
    act(f"me/consents/{consent.pk}/resume", {}, "consent.resumed")
    act(f"me/consents/{consent.pk}/withdraw", {"erase": False}, "consent.withdrawn")
    act(f"me/subscriptions/{made['id']}/end", {"erase": False}, "subscription.ended")
    act(f"me/subscriptions/{made['id']}/erase", {}, "erasure.requested")
    joined = act(f"services/{other.slug}/subscriptions", joining(other), "subscription.joined")
    ended = mine.post("me/subscriptions:end", {"subscriptions": [joined["id"]], "erase": True}).json()
    claims = promised(ended["results"][0]["act"]["receipt"], settings)
    assert claims["act"] == "subscription.ended"


def test_every_act_of_an_operator_is_answered_with_its_receipt(person, settings):
    service = factories.offered()
    server, signer = of(service.organization), Signer(service.organization)
    subscription = factories.joined(person, service)
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    lodged = server.post("consent-requests", {"service": service.client_id})
    assert promised(lodged.json()["receipt"], settings)["act"] == "request.lodged"
    message = Delivery.objects.get(organization=service.organization, event="subscription-ended")
    received = server.post(f"deliveries/{message.jti}/ack")
    assert promised(received.json()["receipt"], settings)["act"] == "delivery.received"
    for status in ("stopped", "erased"):
        compact = signer.sign(signer.claims(message, status, jti=status))
        answer = server.post("evidence", compact, content_type="application/jwt")
        claims = promised(answer.json()["receipt"], settings)
        assert claims["act"] == f"delivery.{status}" and claims["sd"]
        assert server.get(f"evidence/{status}").json()["receipt"] == answer.json()["receipt"]
        assert Promise.objects.filter(event_id=claims["jti"]).exists()


def test_a_refusal_to_erase_is_receipted_too(person, settings):
    service = factories.offered()
    server, signer = of(service.organization), Signer(service.organization)
    subscription = factories.joined(person, service)
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=timezone.now())
    message = Delivery.objects.get(organization=service.organization, event="subscription-ended")
    day = (timezone.now() + datetime.timedelta(days=900)).date().isoformat()
    claims = signer.claims(message, "retained", basis="상법 제33조", retain_until=day)
    answer = server.post("evidence", signer.sign(claims), content_type="application/jwt")
    assert promised(answer.json()["receipt"], settings)["act"] == "erasure.refused"


def test_the_name_towards_one_operator_is_not_given_to_another_party(person, settings):
    """`sub` is between the person and the operator; a recipient that refuses gets its receipt without it."""
    from consents.api import receipts

    subscription = factories.joined(person)
    entry = EntryIndex.objects.filter(typ="consent.granted").exclude(party=None).first()
    EntryIndex.objects.filter(pk=entry.pk).update(jti="00000000-0000-4000-8000-000000000001")
    entry.refresh_from_db()
    assert entry.party_id != entry.operator_id == subscription.operator_id
    theirs = promised(receipts.of_answer(entry.jti, entry.party, [entry.typ]), settings)
    ours = promised(promises.receipt(entry), settings)
    assert len(theirs["sd"]) == len(ours["sd"]) - 1
    names = {json.loads(base64.urlsafe_b64decode(one + "=="))[1] for one in theirs["sd"]}
    assert "sub" not in names and "con" in names


def test_no_disclosure_lies_in_clear_anywhere_after_an_act(app, person):
    """Answers that are kept to be repeated are kept sealed."""
    mine, service = Caller(token(app, person, ["me"])), factories.offered()
    first = mine.post(f"services/{service.slug}/subscriptions", joining(service), Idempotency_Key="k")
    again = mine.post(f"services/{service.slug}/subscriptions", joining(service), Idempotency_Key="k")
    assert first.content == again.content and again["Idempotent-Replayed"] == "true"
    receipt = first.json()["receipt"]
    disclosures = opened(receipt)["sd"]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'ledger')"
        )
        for (table,) in cursor.fetchall():
            cursor.execute(f"SELECT coalesce(string_agg(t::text, '|'), '') FROM {table} t")
            (text,) = cursor.fetchone()
            found = [one for one in disclosures if one in text or one.encode().hex() in text]
            assert not found and receipt.split(".")[1] not in text, table
    assert set(IdempotencyKey.objects.get().body) == {"sealed"}


def test_a_sealed_answer_belongs_to_one_caller_and_key(app, person):
    from providers import vault

    mine, service = Caller(token(app, person, ["me"])), factories.offered()
    mine.post(f"services/{service.slug}/subscriptions", joining(service), Idempotency_Key="k")
    row = IdempotencyKey.objects.get()
    row.key = "another"
    from consents.api import idempotency

    with pytest.raises(vault.BadSeal):
        idempotency._opened(row)


def test_a_request_that_a_person_declines_has_its_receipt(person, settings, now):
    from consents.api import receipts

    service = factories.offered()
    by = Actor.organization(service.organization)
    lodged = requests.lodge(organization=service.organization, service=service, by=by, at=now)
    requests.decline(lodged, person=person, by=Actor.person(person), at=now)
    claims = promised(receipts.of_request("request.declined", lodged), settings)
    assert claims["act"] == "request.declined"
