"""Papers that hold up without the portal: signed, complete, and the same until something changes."""

import base64
import datetime
import json

import jwt
import pytest
from django.utils import timezone

from consents import lifecycle, receipts
from consents.actors import Actor
from consents.models import Subscription
from consents.queries import certificates
from consents.queries import subscription as screens
from providers import signing
from tests import factories


def opened(compact: str) -> tuple[dict, dict]:
    """Header and claims, checked by another library with nothing but the published keys."""
    header = jwt.get_unverified_header(compact)
    key = next(key for key in signing.public_jwks()["keys"] if key["kid"] == header["kid"])
    return header, jwt.decode(
        compact, jwt.PyJWK(key).key, algorithms=["ES256"], options={"verify_aud": False}
    )


def left(person, *, erase=True) -> Subscription:
    subscription = factories.joined(person)
    lifecycle.leave(subscription, erase=erase, by=Actor.person(person), at=timezone.now())
    return Subscription.objects.select_related("service", "operator", "terms", "person").get(
        pk=subscription.pk
    )


def test_a_receipt_has_every_field_that_27560_asks_for(person):
    subscription = factories.joined(person)
    document = screens.receipt(subscription).document
    assert document["schema_version"] == "ISO/IEC TS 27560:2023"
    assert document["record_id"] != document["receipt_id"]
    assert document["dpv:hasDataSubject"]["@id"] == f"urn:uuid:{person.subject_id}"
    assert document["dpv:hasNotice"]["digest"] == subscription.text_digest
    assert document["dct:language"] == "ko"
    assert document["dpv:hasDataController"]["dct:identifier"] == subscription.operator.code
    kinds = {process["dct:type"]: process for process in document["dpv:hasProcess"]}
    assert set(kinds) == {"transfer", "third_party", "marketing"}
    transfer = kinds["transfer"]
    assert transfer["dpv:hasDataSource"]["schema:name"]
    assert transfer["dpv:hasPersonalData"]
    for field in (
        "dpv:hasPurpose",
        "dpv:hasRecipient",
        "dpv:hasDuration",
        "dpv:hasStorageCondition",
        "dpv:hasLegalBasis",
        "dpv:hasConsentStatus",
    ):
        assert transfer[field], field
    assert kinds["third_party"]["schema:isPaid"] is True


def test_every_word_of_a_receipt_is_mapped_to_a_vocabulary(person):
    def names(value):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield name
                yield from names(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from names(inner)

    document = screens.receipt(factories.joined(person)).document
    context = document.pop("@context")
    for name in set(names(document)):
        assert name.startswith("@") or name in context or name.split(":")[0] in context, name


def test_no_name_or_address_of_the_person_is_on_the_papers(person):
    subscription = left(person)
    papers = [
        screens.receipt(subscription).document,
        certificates.certificate(subscription, at=timezone.now()).statement,
    ]
    for paper in papers:
        text = json.dumps(paper, ensure_ascii=False)
        assert person.email not in text
        assert person.name not in text
        assert str(person.pk) not in text


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        ("person_left", "dpv:ConsentWithdrawn"),
        ("expired", "dpv:ConsentExpired"),
        ("licence_ended", "dpv:ConsentRevoked"),
    ],
)
def test_a_receipt_says_how_consent_ended(person, reason, status):
    subscription = factories.joined(person)
    lifecycle.leave(subscription, erase=False, by=Actor.system("test"), at=timezone.now(), reason=reason)
    subscription.refresh_from_db()
    document = screens.receipt(subscription).document
    assert [event["@type"] for event in document["dpv:hasConsentStatus"]] == ["dpv:ConsentGiven", status]


def test_a_signed_paper_verifies_with_the_published_keys(person):
    subscription, at = left(person), timezone.now()
    paper = certificates.certificate(subscription, at=at)
    header, claims = opened(paper.compact)
    assert header["typ"] == "ending-certificate+jwt"
    assert claims["certificate"] == paper.statement
    assert claims["sub"] == str(person.subject_id)
    assert claims["iat"] == int(at.timestamp())


def test_a_changed_paper_does_not_verify(person):
    compact = certificates.certificate(left(person), at=timezone.now()).compact
    head, payload, signature = compact.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["certificate"]["erasure"]["state"] = "confirmed"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(jwt.InvalidSignatureError):
        opened(f"{head}.{forged}.{signature}")


def test_a_certificate_keeps_its_digest_until_something_changes(person):
    subscription = left(person, erase=False)
    first = certificates.certificate(subscription, at=timezone.now())
    again = certificates.certificate(subscription, at=timezone.now() + datetime.timedelta(hours=1))
    assert first.digest == again.digest
    lifecycle.erase(subscription, by=Actor.person(person), at=timezone.now())
    subscription.refresh_from_db()
    assert certificates.certificate(subscription, at=timezone.now()).digest != first.digest


def test_the_leaf_hashes_on_a_certificate_are_those_of_the_log(person):
    from consents.models import LedgerEntry

    for entry in certificates.certificate(left(person), at=timezone.now()).statement["log"]["entries"]:
        assert base64.b64decode(entry["leaf"]) == bytes(LedgerEntry.objects.get(pk=entry["id"]).leaf_hash)


def test_the_end_that_the_calendar_brings_has_a_certificate_too(person):
    subscription = factories.joined(person)
    lifecycle.leave(
        subscription, erase=False, by=Actor.system("expire"), at=timezone.now(), reason="expired", quiet=True
    )
    subscription.refresh_from_db()
    paper = certificates.certificate(subscription, at=timezone.now())
    assert paper.parties == []
    assert "subscription.ended" in {entry["typ"] for entry in paper.statement["log"]["entries"]}


# --- ISO/IEC TS 27560 as the DPV guide has it ------------------------------------------------------------------------------------

# Fields that the guide's tables call mandatory: of the record, of each process, of each party and of each event.
RECORD = {
    "dct:conformsTo", "dct:identifier", "record_id", "dpv:hasDataSubject", "dpv:hasNotice", "dct:language",
    "dpv:hasDataController", "dpv:hasJurisdiction", "dpv:hasConsentControl", "dpv:hasProcess", "dpv:hasEntity",
    "dpv:hasConsentStatus",
}  # fmt: skip
PROCESS = {
    "dpv:hasPurpose", "dpv:hasPersonalData", "dpv:hasStorageCondition", "dpv:hasRecipient", "dpv:hasLegalBasis",
    "dpv:hasConsentStatus",
}  # fmt: skip
PARTY = {"@id", "@type", "dpv:hasName", "dpv:hasIdentifier", "schema:contactPoint"}
EVENT = {"@type", "dpv:isIndicatedAtTime", "dpv:isIndicatedBy", "dpv:hasDuration"}


def test_no_mandatory_field_of_the_guide_is_missing_or_empty(person):
    document = screens.receipt(factories.joined(person)).document
    assert document["@type"] == "dpv:ConsentRecord"
    assert document["dct:conformsTo"] == "https://w3id.org/dpv/schema/dpv-27560#record"
    assert not [name for name in RECORD if not document.get(name)]
    for process in document["dpv:hasProcess"]:
        assert not [name for name in PROCESS - {"dpv:hasPersonalData"} if not process.get(name)]
        kinds = {condition["@type"] for condition in process["dpv:hasStorageCondition"]}
        assert kinds == {"dpv:StorageDuration", "dpv:StorageLocation"}
    for party in document["dpv:hasEntity"]:
        assert not [name for name in PARTY if not party.get(name)]
    given = document["dpv:hasConsentStatus"][0]
    assert given["@type"] == "dpv:ConsentGiven" and not [name for name in EVENT if not given.get(name)]


def test_every_organization_of_a_process_is_described_once(person):
    document = screens.receipt(factories.joined(person)).document
    described = [party["dpv:hasIdentifier"] for party in document["dpv:hasEntity"]]
    assert len(described) == len(set(described))
    named = {
        process[role]["dct:identifier"]
        for process in document["dpv:hasProcess"]
        for role in ("dpv:hasDataController", "dpv:hasRecipient", "dpv:hasDataSource")
        if role in process
    }
    assert named == set(described)


def test_the_record_is_tied_to_the_log(person, settings):
    from consents.models import EntryIndex, LedgerEntry

    subscription = factories.joined(person)
    entry = EntryIndex.objects.get(typ="subscription.joined", subscription=subscription)
    assert screens.receipt(subscription).document["tlog:entry"] == {
        "@id": f"urn:uuid:{entry.event_id}",
        "dct:type": "subscription.joined",
        "tlog:origin": settings.LEDGER_ORIGIN,
        "tlog:leafHash": base64.b64encode(
            bytes(LedgerEntry.objects.get(pk=entry.event_id).leaf_hash)
        ).decode(),
        "tlog:mergeDelay": 300,
    }


def test_the_signature_of_the_record_covers_the_whole_of_it(person):
    subscription = factories.joined(person)
    document = screens.receipt(subscription).document
    compact = receipts.signed(document, subject=person.subject_id, at=timezone.now())
    assert opened(compact)[1]["receipt"] == json.loads(json.dumps(document))


def test_the_receipt_page_costs_the_same_however_much_happened(person, django_assert_num_queries):
    subscription = factories.joined(person)
    with django_assert_num_queries(4):
        screens.receipt(subscription)
    for _ in range(3):
        factories.joined(person)
    with django_assert_num_queries(4):
        screens.receipt(subscription)
