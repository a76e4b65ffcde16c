"""The certificate of an end: a page, a sheet and a file that prove what they say to somebody who trusts nobody."""

import datetime
import hashlib
import json
import re
import subprocess
import sys
import threading
import uuid
import zlib

import jwt
import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone, translation

from consents import certificates as papers
from consents import lifecycle, receipts, typesetting
from consents.actors import Actor
from consents.ledger import cosigning, notes, proofs
from consents.ledger.sequencer import Sequencer
from consents.models import Delivery, EntryIndex, LedgerEntry, Subscription
from consents.queries import certificates
from providers import signing
from tests import factories
from tests.consents.test_person_pages import leave, state

pytestmark = pytest.mark.django_db
VERIFY = django_settings.BASE_DIR / "verify.py"


def ended(person, *, answered=True) -> Subscription:
    """A subscription that the person left with erasure, and what every party said to it."""
    subscription = factories.joined(person)
    leave(subscription)
    if answered:
        for delivery in Delivery.objects.filter(subscription=subscription, closed_at=None).exclude(
            goal="received"
        ):
            state(delivery, "stopped")
            if delivery.goal == "erased":
                state(delivery, "erased")
    return Subscription.objects.select_related("service", "operator", "terms", "person").get(
        pk=subscription.pk
    )


def publish() -> None:
    """Everything written so far stands under the published checkpoint."""
    Sequencer().run()
    cosigning.run(now=int(timezone.now().timestamp()))


def file_of(browser, subscription) -> dict:
    answer = browser.get(reverse("certificate", args=[subscription.pk]), {"format": "json"})
    assert answer.status_code == 200 and answer["Content-Type"].startswith("application/json")
    assert answer["Content-Disposition"] == f'attachment; filename="certificate-{subscription.pk}.json"'
    return answer.json()


def judged(tmp_path, paper: dict, *, keys: bool = True) -> subprocess.CompletedProcess:
    """What `verify.py CERTIFICATE POLICY --keys JWKS` says, in a process of its own, without anything of ours."""
    given, policy, jwks = (tmp_path / name for name in ("certificate.json", "policy.txt", "jwks.json"))
    given.write_text(json.dumps(paper, ensure_ascii=False), encoding="utf-8")
    policy.write_text(proofs.policy_text(), encoding="utf-8")
    jwks.write_text(json.dumps(signing.public_jwks()), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-I", VERIFY, given, policy, *(["--keys", jwks] if keys else [])],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )


# --- the file -----------------------------------------------------------------------------------------------------------------


def test_the_file_passes_the_verifier_that_trusts_nobody(signed_in, person, tmp_path):
    subscription = ended(person)
    publish()
    paper = file_of(signed_in, subscription)
    assert len(paper["log"]["entries"]) > 8 and all(entry["proof"] for entry in paper["log"]["entries"])
    found = judged(tmp_path, paper)
    assert found.returncode == 0, found.stdout + found.stderr
    first, *lines = found.stdout.splitlines()
    assert first.startswith("VALID ") and first.endswith(" signed by the portal")
    assert not [line for line in lines if line.startswith(("  NOT PROVED", "  WITHOUT PROOF"))]
    service = paper["service"]
    assert f"  SIGNED  service  {service['name_ko']}  {service['name_en']}  {service['id']}" in lines
    assert f"  SIGNED  joined  {paper['joined_at']}" in lines
    without = judged(tmp_path, paper, keys=False)
    assert without.returncode == 0 and "but only in part" in without.stdout.splitlines()[0]
    assert "SIGNED" not in without.stdout


@pytest.mark.parametrize(
    "change",
    [
        "ended_at",
        "digest",
        "leaf",
        "proof",
        "operator",
        "reason",
        "name",
        "joined_at",
        "document",
        "jws",
        "receipt",
    ],
)
def test_a_changed_file_does_not_pass(signed_in, person, tmp_path, change):
    subscription = ended(person)
    publish()
    paper = file_of(signed_in, subscription)
    entries = paper["log"]["entries"]
    match change:
        case "ended_at":
            paper["ended_at"] = "2020-01-01T00:00:00Z"
        case "reason":
            paper["reason"] = "expired"
        case "operator":
            paper["operator"]["id"] = "MD9999"
        case "digest":
            for one in paper["parties"][0]["statements"]:
                one["digest"] = "sha256:" + "1" * 64
        case "leaf":
            entries[0]["leaf"] = entries[1]["leaf"]
        case "proof":
            entries[0]["proof"] = entries[1]["proof"]
        case "name":
            paper["service"]["name_ko"] += "!"
        case "joined_at":
            paper["joined_at"] = "2020-01-01T00:00:00Z"
        case "document":
            paper["evidence"][0]["document"] += " "
        case "jws":
            paper["jws"] = ""
        case "receipt":
            stated = jwt.decode(paper["jws"], options={"verify_signature": False})
            paper["jws"] = signing.sign_receipt(stated)
    found = judged(tmp_path, paper)
    assert found.returncode == 1 and found.stdout.startswith("INVALID"), found.stdout


def test_the_file_holds_every_partys_own_document(signed_in, person):
    subscription = ended(person)
    paper = file_of(signed_in, subscription)
    named = {one["digest"] for party in paper["parties"] for one in party["statements"]}
    assert len(named) == len({one["digest"] for one in paper["evidence"]}) > 0
    assert {one["organization"] for one in paper["evidence"]} == {
        party["id"] for party in paper["parties"] if party["statements"]
    }


def test_the_documents_of_the_file_have_the_digests_it_names(client, person, tmp_path):
    """The desk's confirmation is canonical JSON under its own SHA-256: the file lets anybody see that."""
    subscription = factories.joined(person)
    leave(subscription)
    delivery = Delivery.objects.filter(subscription=subscription, goal="erased", role="operator").get()
    admin = factories.MemberFactory(organization=delivery.organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    asked = {"step": "stopped", "back": "desk", "done_on": timezone.localdate().isoformat()}
    client.post(reverse("confirm_delivery", args=[delivery.jti]), asked)
    subscription.refresh_from_db()
    paper = certificates.file(certificates.certificate(subscription, at=timezone.now()))
    for one in paper["evidence"]:
        assert one["digest"] == "sha256:" + hashlib.sha256(one["document"].encode()).hexdigest()
    assert bool(paper["evidence"]) == delivery.evidence.exists()


def test_the_statement_is_signed_and_its_digest_outlives_new_proofs(signed_in, person):
    subscription = ended(person)
    before = file_of(signed_in, subscription)
    assert all(entry["proof"] is None for entry in before["log"]["entries"]) and before["log"]["size"] == 0
    publish()
    after = file_of(signed_in, subscription)
    assert before["digest"] == after["digest"]
    header = jwt.get_unverified_header(after["jws"])
    key = next(key for key in signing.public_jwks()["keys"] if key["kid"] == header["kid"])
    claims = jwt.decode(after["jws"], jwt.PyJWK(key).key, algorithms=["ES256"])
    stated = claims["certificate"]
    assert receipts.digest(stated) == after["digest"]
    assert {name: after[name] for name in stated if name != "log"} == {
        name: value for name, value in stated.items() if name != "log"
    }
    bare = [
        {name: value for name, value in entry.items() if name != "proof"} for entry in after["log"]["entries"]
    ]
    assert stated["log"]["entries"] == bare
    alone = signed_in.get(reverse("certificate", args=[subscription.pk]), {"format": "jws"})
    assert (
        jwt.decode(alone.content.decode(), jwt.PyJWK(key).key, algorithms=["ES256"])["certificate"] == stated
    )


def test_each_proof_in_the_file_is_about_its_entry(signed_in, person):
    subscription = ended(person)
    publish()
    for entry in file_of(signed_in, subscription)["log"]["entries"]:
        proof = notes.Proof.parse(entry["proof"])
        proof.verify(bytes(LedgerEntry.objects.get(pk=entry["id"]).leaf_hash), proofs.policy())


def test_what_is_not_in_the_log_yet_has_no_proof_and_the_rest_has(signed_in, person, tmp_path):
    subscription = ended(person, answered=False)
    publish()
    for delivery in Delivery.objects.filter(subscription=subscription, goal="erased"):
        state(delivery, "erased")
    paper = file_of(signed_in, subscription)
    proved = {entry["proof"] is not None for entry in paper["log"]["entries"]}
    assert proved == {True, False}
    found = judged(tmp_path, paper)
    assert found.returncode == 0 and "WITHOUT PROOF" in found.stdout, found.stdout


def test_the_file_costs_the_same_with_one_party_and_with_many_entries(signed_in, person):
    first = ended(person, answered=False)
    publish()
    address = reverse("certificate", args=[first.pk])

    def cost() -> int:
        signed_in.get(address)
        with CaptureQueriesContext(connection) as queries:
            assert signed_in.get(address, {"format": "json"}).status_code == 200
        return len(queries)

    few = cost()
    for delivery in Delivery.objects.filter(subscription=first).exclude(goal="received"):
        state(delivery, "stopped")
    publish()
    assert cost() - few in (0, 1) and few <= 14  # the first statement brings the query for statements


def test_a_damaged_log_is_said_and_nothing_is_invented(signed_in, person, published_log):
    subscription = ended(person)
    publish()
    checkpoint = published_log / "checkpoint"
    checkpoint.write_text(checkpoint.read_text().replace("\n\n", "\n\n\n", 1).replace("=", "A", 1))
    address = reverse("certificate", args=[subscription.pk])
    assert signed_in.get(address).status_code == 200
    assert "지금은 기록부를 읽지 못해요" in signed_in.get(address).content.decode()
    assert signed_in.get(address, {"format": "json"}).status_code == 503


# --- the QR code ----------------------------------------------------------------------------------------------------------------


def test_the_picture_leads_to_the_verifier_and_names_nobody(signed_in, person, settings):
    subscription = ended(person)
    paper = signed_in.get(reverse("certificate", args=[subscription.pk])).context["paper"]
    assert paper.verify == f"{settings.PORTAL_URL}/verify/#{paper.digest}"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", paper.verify.partition("#")[2])
    assert paper.qr == papers.qr_svg(paper.verify)
    assert not re.search(r"\bstyle=|<script|on\w+=", paper.qr)


# --- the sheet --------------------------------------------------------------------------------------------------------------------


def pdf_of(browser, subscription, **headers) -> bytes:
    answer = browser.get(reverse("certificate", args=[subscription.pk]), {"format": "pdf"}, headers=headers)
    assert answer.status_code == 200, answer.content[:400]
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"] == f'attachment; filename="certificate-{subscription.pk}.pdf"'
    return answer.content


def inside(pdf: bytes) -> bytes:
    """The document with its streams unpacked."""
    found = [pdf]
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        try:
            found.append(zlib.decompress(stream))
        except zlib.error:
            continue
    return b"\n".join(found)


@pytest.mark.parametrize(("language", "title"), [("ko", "그만둔 확인서"), ("en", "Certificate of leaving")])
def test_the_sheet_is_a_pdf_in_the_persons_language_with_its_own_letters(signed_in, person, language, title):
    subscription = ended(person)
    publish()
    content = pdf_of(signed_in, subscription, **{"Accept-Language": language})
    assert content.startswith(b"%PDF-1.7") and len(content) < 300_000
    text = inside(content)
    assert b"NotoSansKR" in text  # embedded: no font of the reader's machine is needed
    assert f"/Lang ({language})".encode() in text or f"/Lang({language})".encode() in text
    assert title.encode("utf-8") in text or title.encode("utf-16-be") in text  # the title in its metadata


def test_the_same_words_are_the_same_bytes(person):
    subscription, at = ended(person), timezone.now()
    sheet = certificates.sheet(subscription, certificates.certificate(subscription, at=at), at=at)
    first = typesetting.pdf(sheet, template="papers/certificate.typ", language="ko", at=at)
    assert first == typesetting.pdf(sheet, template="papers/certificate.typ", language="ko", at=at)


def test_what_somebody_wrote_is_never_a_command(person):
    """Words of organizations and people reach the sheet as data."""
    evil = '#panic("x") $ * _ @a <b> \\ " #read("/etc/passwd") ' + "\u200b\u202e가" * 20
    person.name = evil[:60]
    person.save()
    subscription, at = ended(person, answered=False), timezone.now()
    Subscription.objects.filter(pk=subscription.pk).update(
        erasure="refused", erasure_confirmed_at=None, erasure_refusal=evil
    )
    subscription.refresh_from_db()
    subscription.person.name = evil
    sheet = certificates.sheet(subscription, certificates.certificate(subscription, at=at), at=at)
    assert typesetting.pdf(sheet, template="papers/certificate.typ", language="ko", at=at).startswith(b"%PDF")


def test_a_sheet_of_many_parties_is_cut_and_says_so(person, monkeypatch):
    monkeypatch.setattr(certificates, "MOST", 3)
    subscription, at = ended(person), timezone.now()
    with translation.override("ko"):
        sheet = certificates.sheet(subscription, certificates.certificate(subscription, at=at), at=at)
    assert len(sheet["entries"]["rows"]) == 3 and any("3개까지만" in line for line in sheet["notice"])


def test_a_sheet_is_bounded_in_size_time_and_number(signed_in, person, monkeypatch):
    subscription, at = ended(person), timezone.now()
    sheet = certificates.sheet(subscription, certificates.certificate(subscription, at=at), at=at)
    with pytest.raises(typesetting.CannotSet, match="large"):
        typesetting.pdf(
            {**sheet, "lead": "가" * 400_000}, template="papers/certificate.typ", language="ko", at=at
        )

    go = threading.Event()
    monkeypatch.setattr(typesetting, "SECONDS", 0.05)
    monkeypatch.setattr(typesetting, "_set", lambda *_: go.wait(30) and b"")
    try:
        address = reverse("certificate", args=[subscription.pk])
        slow = signed_in.get(address, {"format": "pdf"})
        assert slow.status_code == 503 and "PDF를 만들지 못했어요" in slow.content.decode()
        seen = set()
        for _ in range(typesetting.AT_ONCE + typesetting.WAITING + 1):
            with pytest.raises(typesetting.CannotSet) as refused:
                typesetting.pdf(sheet, template="papers/certificate.typ", language="ko", at=at)
            seen.add(str(refused.value))
    finally:
        go.set()
    assert "too slow" in seen


def test_there_is_no_certificate_of_what_goes_on_or_of_somebody_else(signed_in, person):
    own = factories.joined(person)
    other = ended(factories.PersonFactory())
    for wanted in ("", "json", "pdf", "jws"):
        assert signed_in.get(reverse("certificate", args=[own.pk]), {"format": wanted}).status_code == 404
        assert signed_in.get(reverse("certificate", args=[other.pk]), {"format": wanted}).status_code == 404


# --- receipts and proofs of single facts ---------------------------------------------------------------------------------------------


def test_a_fact_has_its_receipt_at_once_and_its_proof_when_it_is_in_the_log(signed_in, person):
    factories.joined(person, at=timezone.now())
    entry = EntryIndex.objects.get(typ="subscription.joined")
    receipt, proof = (reverse(name, args=[entry.event_id]) for name in ("entry_receipt", "entry_proof"))
    given = signed_in.get(receipt)
    assert given["Content-Disposition"] == f'attachment; filename="{entry.event_id}.jws"'
    assert given.content == signed_in.get(receipt).content
    early = signed_in.get(proof)
    assert early.status_code == 409 and "까지 넣기로 약속했어요" in early.content.decode()
    page = signed_in.get(reverse("history")).content.decode()
    assert receipt in page and proof not in page and "까지 넣기로 약속했어요" in page
    publish()
    late = signed_in.get(proof)
    assert late["Content-Type"] == "text/plain; charset=utf-8"
    assert late["Content-Disposition"] == f'attachment; filename="{entry.event_id}.tlog-proof"'
    text = late.content.decode()
    notes.Proof.parse(text).verify(
        bytes(LedgerEntry.objects.get(pk=entry.event_id).leaf_hash), proofs.policy()
    )
    assert text == proofs.tlog_proof(entry.event_id)
    page = signed_in.get(reverse("history")).content.decode()
    assert proof in page and "부터 기록부에 있어요" in page and "솔트" in page


def test_a_broken_promise_is_said_on_the_page(signed_in, person):
    factories.joined(person, at=timezone.now() - datetime.timedelta(seconds=301))
    assert "까지 넣기로 했지만 아직 기록부에 없어요" in signed_in.get(reverse("history")).content.decode()


def test_somebody_elses_fact_does_not_exist(signed_in, person):
    factories.joined(factories.PersonFactory())
    publish()
    foreign = EntryIndex.objects.filter(typ="subscription.joined").latest("seq").event_id
    for name in ("entry_receipt", "entry_proof"):
        for event_id in (foreign, uuid.uuid4()):
            assert signed_in.get(reverse(name, args=[event_id])).status_code == 404


def test_a_shredded_entry_is_still_proved_and_shows_nothing(signed_in, person, me, now):
    from django.db import transaction

    from consents import ledger
    from consents.models import Disclosure

    with transaction.atomic():
        fact = ledger.Fact("notice.answered", person=person, operator=factories.OperatorFactory())
        ledger.append([fact], by=me, at=now - datetime.timedelta(days=4 * 366))
    entry = EntryIndex.objects.get()
    publish()
    before = signed_in.get(reverse("entry_proof", args=[entry.event_id])).content.decode()
    Disclosure.objects.filter(event_id=entry.event_id).delete()
    after = signed_in.get(reverse("entry_proof", args=[entry.event_id])).content.decode()
    first, second = (json.loads(notes.Proof.parse(text).extra) for text in (before, after))
    assert first["disclosures"] and second == {**first, "disclosures": []}


@pytest.mark.parametrize(
    "act", ["end", "erase", "withdraw", "pause", "resume", "erase_consent", "answer_notice"]
)
def test_after_every_act_the_page_hands_out_its_receipt(signed_in, person, act):
    subscription = factories.joined(person)
    consent = subscription.consents.filter(kind="transfer").first()
    by, at = Actor.person(person), timezone.now()
    typs = {
        "end": ("subscription.ended", subscription), "erase": ("erasure.requested", subscription),
        "withdraw": ("consent.withdrawn", consent), "pause": ("consent.paused", consent),
        "resume": ("consent.resumed", consent), "erase_consent": ("erasure.requested", consent),
        "answer_notice": ("notice.answered", None),
    }  # fmt: skip
    typ, about = typs[act]
    if act == "erase":
        lifecycle.leave(subscription, erase=False, by=by, at=at)
    elif act == "resume":
        lifecycle.pause(consent, by=by, at=at)
    elif act == "erase_consent":
        lifecycle.withdraw(consent, erase=False, by=by, at=at)
    elif act == "answer_notice":
        from tests.consents.test_person_pages import notice_of

        about = notice_of(subscription)
    sent = {"answer": "kept"} if act == "answer_notice" else {}
    page = signed_in.post(reverse(act, args=[about.pk]), sent, follow=True)
    entry = EntryIndex.objects.filter(typ=typ, person=person).latest("seq")
    assert page.status_code == 200
    assert f'<a href="{reverse("entry_receipt", args=[entry.event_id])}" download>' in page.content.decode()


# --- the operator's desk ---------------------------------------------------------------------------------------------------------------


def test_the_desk_proves_what_the_log_says_about_its_own_deliveries(client, person):
    subscription = ended(person)
    publish()
    delivery = subscription.deliveries.get(event="subscription-ended", role="operator")
    other = subscription.deliveries.filter(event="subscription-ended").exclude(role="operator").first()
    admin = factories.MemberFactory(organization=delivery.organization).person
    client.force_login(admin, backend="allauth.account.auth_backends.AuthenticationBackend")
    entries = EntryIndex.objects.filter(jti=delivery.jti, typ__startswith="delivery.")
    assert entries.count() >= 2
    page = client.get(reverse("desk_delivery", args=[delivery.jti])).content.decode()
    for entry in entries:
        address = reverse("desk_proof", args=[entry.event_id])
        assert address in page and reverse("desk_receipt", args=[entry.event_id]) in page
        proof = notes.Proof.parse(client.get(address).content.decode())
        proof.verify(bytes(LedgerEntry.objects.get(pk=entry.event_id).leaf_hash), proofs.policy())
        assert client.get(reverse("desk_receipt", args=[entry.event_id])).content.count(b".") == 2
    foreign = EntryIndex.objects.filter(jti=other.jti, party=other.organization).first()
    about_the_person = EntryIndex.objects.get(typ="subscription.ended")
    for event_id in (foreign.event_id, about_the_person.event_id, uuid.uuid4()):
        for name in ("desk_proof", "desk_receipt"):
            assert client.get(reverse(name, args=[event_id])).status_code == 404


def test_the_sheet_is_english_for_who_reads_english(person):
    subscription, at = ended(person), timezone.now()
    with translation.override("en"):
        sheet = certificates.sheet(subscription, certificates.certificate(subscription, at=at), at=at)
    hangul = re.compile("[\uac00-\ud7a3]")
    words = [
        sheet["title"],
        sheet["issuer"],
        *sheet["notice"],
        *sheet["parties"]["head"],
        *(name for name, _ in sheet["foot"]),
    ]
    assert not [word for word in words if hangul.search(word)]
