"""Looking behind a pseudonym leaves a trace, or shows nothing."""

import uuid

import pytest
from django.db import DatabaseError

from consents import inspection, ledger
from consents.actors import Actor
from consents.models import EntryIndex, LedgerEntry, Lookup
from tests import factories

pytestmark = pytest.mark.django_db


@pytest.fixture
def regulator():
    return Actor.regulator(factories.MemberFactory(role="regulator", organization=None).person)


@pytest.fixture
def entry(person, now):
    factories.joined(person, at=now)
    return EntryIndex.objects.filter(person=person, typ="subscription.joined").get()


def look(entry, regulator, now, **changes):
    given = {
        "event_id": entry.event_id,
        "case": "2026-감독-0142",
        "reason": "민원 처리에 본인 확인이 필요해요.",
        "by": regulator,
        "at": now,
    }
    return inspection.reveal(**given | changes)


def test_a_reveal_leaves_one_lookup_and_one_entry_that_the_person_sees(entry, regulator, person, now):
    assert look(entry, regulator, now) == person
    lookup = Lookup.objects.get()
    assert (lookup.person, str(lookup.by_id), lookup.event_id, lookup.at) == (
        person,
        regulator.id,
        entry.event_id,
        now,
    )
    revealed = EntryIndex.objects.get(typ="record.revealed")
    assert (revealed.person, revealed.actor_kind, revealed.actor_id) == (person, "regulator", regulator.id)
    assert revealed.subject == entry.subject
    said = ledger.disclosed([revealed.event_id])[revealed.event_id]
    assert said["cas"] == "2026-감독-0142"
    assert said["rsn"] == "민원 처리에 본인 확인이 필요해요."
    assert said["eid"] == str(entry.event_id)
    assert said["act"] == regulator.id
    assert said["sub"] == entry.subject


def test_every_look_leaves_its_own_trace(entry, regulator, now):
    look(entry, regulator, now)
    look(entry, regulator, now)
    assert Lookup.objects.count() == EntryIndex.objects.filter(typ="record.revealed").count() == 2


def test_the_public_bytes_of_a_reveal_name_nobody(entry, regulator, person, now):
    look(entry, regulator, now)
    public = bytes(LedgerEntry.objects.get(event_type="record.revealed").entry).decode()
    for secret in (
        person.email,
        person.name,
        "2026-감독-0142",
        "민원",
        regulator.id,
        str(person.pk),
        entry.subject,
    ):
        assert secret not in public


@pytest.mark.parametrize(
    ("case", "reason"),
    [("", "이유는 충분히 길게 적었어요."), ("   ", "이유는 충분히 길게 적었어요."), ("12", "이유는 충분히 길게 적었어요."),
     ("사" * 61, "이유는 충분히 길게 적었어요."), ("2026-1", ""), ("2026-1", " " * 40), ("2026-1", "짧음"), ("2026-1", "가" * 301)],
)  # fmt: skip
def test_a_look_without_a_case_and_a_reason_is_refused(entry, regulator, now, case, reason):
    with pytest.raises(inspection.NotJustified):
        look(entry, regulator, now, case=case, reason=reason)
    assert not Lookup.objects.exists()
    assert not EntryIndex.objects.filter(typ="record.revealed").exists()


def test_an_unknown_entry_and_an_entry_without_a_person_reveal_nobody(regulator, now):
    factories.offered()  # publishing terms is an entry about no person
    about_terms = EntryIndex.objects.filter(person=None).first()
    for event_id in filter(None, [uuid.uuid4(), about_terms and about_terms.event_id]):
        with pytest.raises(inspection.NobodyToReveal):
            inspection.reveal(
                event_id=event_id, case="2026-1", reason="이유는 충분히 길게 적었어요.", by=regulator, at=now
            )
    assert not Lookup.objects.exists()


def test_only_a_regulator_can_look(entry, person, now):
    for actor in (Actor.person(person), Actor.system("sweep"), Actor("staff", "1")):
        with pytest.raises(ValueError, match="regulator"):
            look(entry, actor, now)
    assert not Lookup.objects.exists()


@pytest.mark.parametrize("error", [DatabaseError("disk full"), RuntimeError("no key")])
def test_without_a_ledger_entry_nothing_is_given_out_and_no_lookup_stays(
    entry, regulator, now, monkeypatch, error
):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr(inspection.ledger, "append", broken)
    with pytest.raises(inspection.NotRecorded):
        look(entry, regulator, now)
    assert not Lookup.objects.exists()


def test_without_a_lookup_no_entry_stays(entry, regulator, now, monkeypatch):
    def broken(**kwargs):
        raise DatabaseError

    monkeypatch.setattr(Lookup.objects, "create", broken)
    with pytest.raises(inspection.NotRecorded):
        look(entry, regulator, now)
    assert not EntryIndex.objects.filter(typ="record.revealed").exists()
