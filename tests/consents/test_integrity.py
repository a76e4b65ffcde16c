"""The regulator's page of trust in the log, the place of an entry, readiness, and the letter when nobody witnesses."""

import datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.core import mail as outbox
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import jobs, mail
from consents.ledger import cosigning, monitor, notes, proofs
from consents.ledger.sequencer import Sequencer
from consents.models import EntryIndex, LedgerEntry, Promise, SignedCheckpoint, Verification
from consents.queries import integrity, paging
from tests import factories
from tests.consents.ledger.test_monitor import flip, write

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
WITNESS = Ed25519PrivateKey.from_private_bytes(b"w" * 32)
NAME = "witness.example/1"
PAGES = ("integrity", "consistency")
ACTIONS = ("check_integrity", "acknowledge_integrity")


@pytest.fixture
def regulator():
    return factories.MemberFactory(role="regulator", organization=None).person


@pytest.fixture
def site(client, regulator):
    client.force_login(regulator, backend=BACKEND)
    return client


def publish() -> int:
    Sequencer().run()
    return cosigning.run(now=1_800_000_000).published


@pytest.fixture
def published(now) -> list[int]:
    """Sizes of three published checkpoints."""
    sizes = []
    for count in (5, 300, 2):
        write(count, now)
        sizes.append(publish())
    return sizes


def witnessed(settings, at: datetime.datetime | None) -> None:
    """A policy that asks for a witness, and a published checkpoint that it saw then."""
    key = notes.Key.of(WITNESS, name=NAME, kind=notes.COSIGNATURE)
    log = settings.LEDGER_POLICY.read_text().splitlines()[0]
    settings.LEDGER_POLICY.write_text(f"{log}\nwitness fss1 {key}\nquorum fss1\n")
    path = settings.LEDGER_DIR / "checkpoint"
    if at is None:
        path.unlink()
        return
    note = notes.Note.parse(path.read_text())
    line = notes.cosignature(WITNESS, name=NAME, text=note.text, time=int(at.timestamp()))
    path.write_text(str(notes.Note(note.text, (*note.signatures, line))))


def text(answer) -> str:
    return answer.content.decode()


# --- who may come ---------------------------------------------------------------------------------------------------------


def test_only_the_regulator_reaches_these_pages(client, person, published):
    admin = factories.MemberFactory().person
    entry = EntryIndex.objects.latest("seq")
    urls = [(reverse(name), "get") for name in PAGES] + [(reverse(name), "post") for name in ACTIONS]
    urls.append((reverse("oversight_proof", args=[entry.event_id]), "get"))
    for url, method in urls:
        client.logout()
        assert getattr(client, method)(url).status_code == 302
        for visitor in (person, admin):
            client.force_login(visitor, backend=BACKEND)
            assert getattr(client, method)(url).status_code == 403, url
    assert not Verification.objects.filter(kind="monitor").exists()


def test_looking_writes_nothing_and_writing_is_not_a_get(site, published):
    for name in ACTIONS:
        assert site.get(reverse(name)).status_code == 405
    for name in PAGES:
        assert site.post(reverse(name)).status_code == 405
    site.get(reverse("integrity"))  # the first page of a session also writes the session down
    with CaptureQueriesContext(connection) as queries:
        site.get(reverse("integrity"))
    assert not [query["sql"] for query in queries if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]


# --- the page ----------------------------------------------------------------------------------------------------------------


def test_before_anything_happened_the_page_says_so(site):
    page = text(site.get(reverse("integrity")))
    assert "아직 확인하지 않았어요" in page and "아직 체크포인트가 없어요" in page


def test_a_healthy_log_reads_green(site, published, settings):
    answer = site.post(reverse("check_integrity"), follow=True)
    page = text(answer)
    assert "모두 맞아요" in page and "맞지 않는 것이 있어요" not in page
    shown = proofs.published()
    assert shown.checkpoint.root.hex() in page and f"{published[-1]:,}" in page
    assert "정책이 증인을 요구하지 않아요" in page
    for name in ("log_checkpoint", "verify", "verify_policy"):
        assert f'href="{reverse(name)}"' in page
    site.cookies["django_language"] = "en"
    assert "All is well" in text(site.get(reverse("integrity")))


def test_what_is_wrong_reads_red_in_both_languages_until_it_is_right_again(site, published):
    flip("tile/0/000")
    page = text(site.post(reverse("check_integrity"), follow=True))
    assert "맞지 않는 것이 있어요" in page and "tile/0/000" in page and "타일이 깨졌거나" in page
    site.cookies["django_language"] = "en"
    assert "Something is not right" in text(site.get(reverse("integrity")))
    flip("tile/0/000")
    assert "All is well" in text(site.post(reverse("check_integrity"), follow=True))


def test_every_finding_has_its_sentence(site):
    import ast
    import inspect

    from consents.ledger import recount, sequencer, upkeep

    said = set(integrity.FINDINGS)
    source = "".join(inspect.getsource(module) for module in (monitor, recount))
    found = {
        node.args[0].value
        for node in ast.walk(ast.parse(source.replace("from . import", "from consents.ledger import")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "attr", "") == "find"
        and isinstance(node.args[0], ast.Constant)
    }
    assert len(found) > 8 and found <= said
    for code in ("signer_ahead", "rewritten", "refused"):
        assert f'"{code}"' in inspect.getsource(sequencer) and code in said
    assert '"witness_ahead"' in inspect.getsource(upkeep)


def test_the_numbers_of_queries_do_not_grow(site, now):
    def count() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert site.get(reverse("integrity")).status_code == 200
        return len(queries)

    write(1, now)
    publish()
    monitor.watch(at=now)
    site.get(reverse("integrity"))
    few = count()
    for _n in range(6):
        write(3, now)
        publish()
    assert count() == few <= 16


def test_the_history_goes_on_by_keyset(site, now, monkeypatch):
    for _n in range(5):
        write(2, now)
        publish()
    first = integrity.history(size=2)
    second = integrity.history(first.next, size=2)
    last = integrity.history(second.next, size=2)
    sizes = [row.size for page in (first, second, last) for row in page.rows]
    assert sizes == list(
        SignedCheckpoint.objects.order_by("-tree_size").values_list("tree_size", flat=True)[:6]
    )
    assert last.next is None or len(sizes) == 6
    for wrong in ("x", "-1", "01", "9" * 40):
        with pytest.raises(paging.BadCursor):
            integrity.history(wrong)
        assert site.get(reverse("integrity"), {"after": wrong}).status_code == 404


# --- consistency ---------------------------------------------------------------------------------------------------------------


def test_consistency_of_two_checkpoints_is_proved_shown_and_given_away(site, published):
    old, _middle, new = published
    answer = site.get(reverse("consistency"), {"old": old, "new": new})
    assert answer.status_code == 200 and "그대로 이어져요" in text(answer)
    found = integrity.consistency(old, new)
    assert found.proof and all(line in text(answer) for line in found.proof)
    file = site.get(reverse("consistency"), {"old": new, "new": old, "download": "on"})
    head, _, note = text(file).partition("\n\n")
    assert head.split("\n") == [f"old {old}", *found.proof]
    assert notes.Checkpoint.parse(notes.Note.parse(note).text).size == new
    assert "attachment" in file["Content-Disposition"]


@pytest.mark.parametrize(
    "query",
    [
        {"old": "1"},
        {"old": "x", "new": "2"},
        {"old": "0", "new": "1"},
        {"old": "3", "new": "4"},
        {"old": "1", "new": "9" * 30},
        {"old": "1", "new": "2", "x": "1"},
    ],
)
def test_other_sizes_get_an_answer_in_words(site, published, query):  # fmt: skip
    answer = site.get(reverse("consistency"), query)
    assert answer.status_code == 400 and "다시 한번 살펴봐 주세요" in text(answer)


def test_without_sizes_it_is_the_integrity_page(site, published):
    assert site.get(reverse("consistency")).headers["Location"] == reverse("integrity")


def test_a_history_that_was_changed_is_not_called_consistent(site, published):
    flip("tile/0/000", place=3)
    old, _middle, new = published
    answer = site.get(reverse("consistency"), {"old": old, "new": new})
    assert "이어진다고 증명하지 못했어요" in text(answer)
    assert "attachment" not in str(
        site.get(reverse("consistency"), {"old": old, "new": new, "download": "on"}).headers
    )


# --- what a person has to look at --------------------------------------------------------------------------------------------------


def test_a_rolled_back_log_is_laid_aside_by_a_person_only(site, now, settings):
    write(2, now)
    publish()
    older = (settings.LEDGER_DIR / "checkpoint").read_bytes()
    write(2, now)
    publish()
    newer = (settings.LEDGER_DIR / "checkpoint").read_bytes()
    monitor.watch(at=monitor.clock())
    (settings.LEDGER_DIR / "checkpoint").write_bytes(older)
    assert "예전 것으로 되돌아갔어요" in text(site.post(reverse("check_integrity"), follow=True))
    (settings.LEDGER_DIR / "checkpoint").write_bytes(newer)
    assert "맞지 않는 것이 있어요" in text(site.post(reverse("check_integrity"), follow=True))
    assert site.post(reverse("acknowledge_integrity"), {"reason": "짧다"}).status_code == 400
    site.post(reverse("acknowledge_integrity"), {"reason": "백업을 잘못 되살린 것을 확인했어요."})
    assert "모두 맞아요" in text(site.post(reverse("check_integrity"), follow=True))


# --- one entry -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def entry(person, now):
    subscription = factories.joined(person, at=now - datetime.timedelta(days=30))
    return EntryIndex.objects.get(typ="subscription.joined", subscription=subscription)


def test_an_entry_waits_and_then_has_its_proof(site, entry, settings):
    url = reverse("entry", args=[entry.event_id])
    assert "공개되기를 기다려요" in text(site.get(url))
    early = site.get(reverse("oversight_proof", args=[entry.event_id]))
    assert early.status_code == 302 and early.url == url
    publish()
    page = text(site.get(url))
    found = integrity.place(
        entry.event_id,
        bytes(LedgerEntry.objects.get(event_id=entry.event_id).leaf_hash),
        entry.at,
        at=timezone.now(),
    )
    assert found.state == "in" and found.proof and all(line in page for line in found.proof)
    file = site.get(reverse("oversight_proof", args=[entry.event_id]))
    proof = notes.Proof.parse(text(file))
    proof.verify(bytes(LedgerEntry.objects.get(event_id=entry.event_id).leaf_hash), proofs.policy())
    assert str(entry.person_id) not in proof.extra.decode(), "the pseudonym must do"


def test_an_entry_that_is_not_where_it_should_be_says_so(site, entry):
    publish()
    proofs._tree.cache_clear()
    path = next((proofs.directory().root / "tile" / "0").rglob("*[0-9]"))
    if path.is_dir():
        path = next(path.iterdir())
    path.write_bytes(bytes(len(path.read_bytes())))
    page = text(site.get(reverse("entry", args=[entry.event_id])))
    assert "있어야 할 자리에 이 기록이 없어요" in page


def test_a_late_entry_says_that_the_promise_is_over(site, entry):
    found = integrity.place(entry.event_id, b"", entry.at, at=entry.at + datetime.timedelta(seconds=301))
    assert found.state == "waiting" and found.late


# --- witnesses -----------------------------------------------------------------------------------------------------------------


def test_who_has_seen_the_log_and_since_when_nobody_has(site, published, settings):
    at = timezone.now()
    witnessed(settings, at - datetime.timedelta(minutes=14))
    state = integrity.witnessing_now()
    assert (state.state, state.by) == ("seen", ["fss1"]) and not state.late(at=at)
    assert "fss1" in text(site.get(reverse("integrity")))


def test_unwitnessed_for_long_is_said_and_is_no_reason_for_503(site, published, settings):
    witnessed(settings, timezone.now() - datetime.timedelta(minutes=16))
    assert "증인이 확인하지 않고 있어요" in text(site.get(reverse("integrity")))
    ready = site.get("/readyz")
    assert (ready.status_code, ready.json()["witness"], ready.json()["ledger"]) == (200, "late", "ok")


def test_never_witnessed_counts_from_the_first_checkpoint(site, published, settings):
    witnessed(settings, None)
    state = integrity.witnessing_now()
    assert state.state == "waiting" and state.at == SignedCheckpoint.objects.earliest("tree_size").signed_at
    assert "아직 증인이 확인하지 않았어요" in text(site.get(reverse("integrity")))
    site.cookies["django_language"] = "en"
    assert "Not yet witnessed since" in text(site.get(reverse("integrity")))


def test_after_an_hour_each_member_of_the_regulator_is_told_once_in_their_language(
    published, settings, regulator
):
    other = factories.MemberFactory(role="regulator", organization=None).person
    other.language = "en"
    other.save(update_fields=["language"])
    factories.MemberFactory()  # of an organization: not told
    at = timezone.now()
    witnessed(settings, at - datetime.timedelta(minutes=59))
    assert mail.tell_unwitnessed(at=at) == 0
    assert mail.tell_unwitnessed(at=at + datetime.timedelta(minutes=2)) == 2
    assert mail.tell_unwitnessed(at=at + datetime.timedelta(minutes=3)) == 0
    letters = {letter.to[0]: letter for letter in outbox.outbox}
    assert set(letters) == {regulator.email, other.email}
    assert "증인" in letters[regulator.email].subject and "witness" in letters[other.email].subject
    assert reverse("integrity") in letters[other.email].body
    publish()  # the policy's witness has no address: the file stays as it is
    witnessed_again = at + datetime.timedelta(minutes=4)
    line = notes.Note.parse((settings.LEDGER_DIR / "checkpoint").read_text())
    fresh = notes.cosignature(WITNESS, name=NAME, text=line.text, time=int(witnessed_again.timestamp()))
    (settings.LEDGER_DIR / "checkpoint").write_text(str(notes.Note(line.text, (line.signatures[0], fresh))))
    assert mail.tell_unwitnessed(at=witnessed_again) == 0
    assert mail.tell_unwitnessed(at=witnessed_again + datetime.timedelta(minutes=61)) == 2, "a new absence"


def test_a_letter_that_could_not_be_sent_is_tried_again(published, settings, regulator, monkeypatch):
    at = timezone.now()
    witnessed(settings, at - datetime.timedelta(minutes=61))
    with monkeypatch.context() as broken:
        broken.setattr("django.core.mail.backends.locmem.EmailBackend.send_messages", lambda *_: (_ for _ in ()).throw(OSError("away")))  # fmt: skip
        assert mail.tell_unwitnessed(at=at) == 0
    assert mail.tell_unwitnessed(at=at) == 1


# --- readiness -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["monitor", "nightly", "sequencer", "witness"])
def test_a_finding_of_any_check_makes_the_portal_unready_until_the_next_is_clean(client, now, kind):
    def row(minutes, findings):
        at = now + datetime.timedelta(minutes=minutes)
        Verification.objects.create(kind=kind, started_at=at, finished_at=at, size=1, findings=findings)

    row(0, [])
    assert client.get("/readyz").json()["ledger"] == "ok"
    row(1, [{"code": "forked", "detail": ""}])
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ledger"]) == (503, "failed")
    row(2, [])
    assert client.get("/readyz").status_code == 200


def test_an_entry_that_waits_longer_than_promised_makes_the_portal_unready(client, now):
    write(1, now)
    assert client.get("/readyz").json()["ledger"] == "ok"
    with connection.cursor() as cursor:
        cursor.execute("UPDATE ledger.pending SET enqueued_at = enqueued_at - interval '301 seconds'")
    assert client.get("/readyz").json()["ledger"] == "failed"


def test_a_broken_promise_reaches_readiness_by_the_job(client, published, now):
    (sealed,) = write(1, now)
    Promise.objects.create(event_id=sealed.event_id, leaf_hash=sealed.leaf_hash, due_at=now)
    jobs.monitor()
    assert client.get("/readyz").status_code == 503
