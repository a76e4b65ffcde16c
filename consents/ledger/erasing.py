"""WRITES the erasure of a person (파기): after the legal hold disclosures, key and every row about them go; the log stays.

The order is a chain that the database enforces (migration 0006): no disclosure before its hold ends, no key while a
disclosure is left under it, no row while the key is there. What remains in the tree is a type, a day and digests of
values salted with 128 random bits, the salts of which are gone with the disclosures (security brief 1.4).
"""

import datetime
from collections.abc import Iterable

import structlog
from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connections, transaction
from django.db.models import Exists, Max, OuterRef, Q

from consents.actors import Actor
from consents.models import (
    Case,
    Consent,
    ConsentRequest,
    Delivery,
    Disclosure,
    EntryIndex,
    Evidence,
    IdempotencyKey,
    Lookup,
    Notice,
    Person,
    PersonKey,
    Reference,
    Subscription,
    Transfer,
)

from .append import Fact, append, retained_until
from .entries import Sealed

log = structlog.get_logger(__name__)

LAW = "개인정보 보호법 제21조 제1항"
HOLD_LAW = "신용정보법 제20조 제2항"

_DISCLOSURES_SQL = "DELETE FROM ledger.disclosure WHERE subject_key_id = %s"
_ANSWERS_SQL = """
DELETE FROM consents_idempotencykey
WHERE actor = %(actor)s OR path LIKE ANY(%(ids)s) OR location LIKE ANY(%(ids)s) OR body::text LIKE ANY(%(ids)s)
"""


class HeldUntil(Exception):
    """The law wants the records kept (신용정보법 제20조②) until `until`; nothing was changed."""

    def __init__(self, until: datetime.datetime):
        super().__init__(f"kept by law until {until.isoformat()}")
        self.until = until


class NotClosed(Exception):
    """The account is still used: it is closed first (accounts.close)."""


def held_until(person: Person) -> datetime.datetime | None:
    """The end of the legal hold over everything that the log knows about a person; None where it knows nothing."""
    rows = Disclosure.objects.filter(subject_key_id__in=PersonKey.objects.filter(person=person).values("id"))
    return rows.aggregate(until=Max("retain_until"))["until"]


def hold_from(at: datetime.datetime) -> datetime.datetime:
    """Until when a record made at that moment would be kept."""
    return retained_until(at)


def erase_person(person: Person, *, by: Actor, at: datetime.datetime) -> Sealed:
    """Erase a person whose account is closed and whose legal hold has ended; the entry that says so tells of nobody.

    Where the privacy officer has a connection of their own, disclosures go first, in a transaction of theirs: a crash
    after it leaves what the next run finishes. The lock on the person keeps new entries out (each refers to them).
    Raises NotClosed or HeldUntil, and then nothing was changed."""
    with transaction.atomic():
        return _erase(Person.objects.select_for_update().get(pk=person.pk), by=by, at=at)


def erase_due(*, by: Actor, at: datetime.datetime, limit: int = 500) -> int:
    """Erase whose account is closed and whose hold has ended, at most `limit` a run; safe to run twice at once."""
    held = Disclosure.objects.filter(subject_key_id=OuterRef("data_key__id"), retain_until__gt=at)
    due = Person.objects.filter(closed_at__lte=at).exclude(Exists(held)).order_by("closed_at")
    erased = 0
    for pk in list(due.values_list("pk", flat=True)[:limit]):
        with transaction.atomic():
            person = Person.objects.select_for_update(skip_locked=True).filter(pk=pk).first()
            if person is None:  # another run has it
                continue
            try:
                _erase(person, by=by, at=at)
            except HeldUntil as held_longer:  # something was written about them since
                log.info("erasure waits", until=held_longer.until.isoformat())
                continue
        erased += 1
    return erased


def _erase(person: Person, *, by: Actor, at: datetime.datetime) -> Sealed:
    if person.closed_at is None:
        raise NotClosed("an account is closed before it is erased")
    until = held_until(person)
    if until and until > at:
        raise HeldUntil(until)
    entries = _entries(person)
    names = _names(person, entries)
    for key in PersonKey.objects.filter(person=person):
        with transaction.atomic(using=settings.PRIVACY_ALIAS):
            connections[settings.PRIVACY_ALIAS].cursor().execute(_DISCLOSURES_SQL, [key.id])
        key.delete()
    # Rows that others refer to come last.
    EntryIndex.objects.filter(seq__in=[entry.seq for entry in entries]).delete()
    Evidence.objects.filter(delivery__person=person).delete()
    Notice.objects.filter(person=person).delete()
    ConsentRequest.objects.filter(Q(person=person) | Q(subscription__person=person)).delete()
    Case.objects.filter(person=person).delete()
    Transfer.objects.filter(person=person).delete()
    Reference.objects.filter(person=person).delete()
    Delivery.objects.filter(person=person).delete()
    Lookup.objects.filter(person=person).delete()
    Consent.objects.filter(person=person).delete()
    Subscription.objects.filter(person=person).delete()
    _forget_answers(person, names)
    forget_sessions(person, by=by, at=at)
    person.delete()  # with its e-mail addresses, authenticators and tokens
    (sealed,) = append([Fact("person.erased", fields={"cnt": len(entries), "law": LAW})], by=by, at=at)
    return sealed


def forget_sessions(person: Person, *, by: Actor, at: datetime.datetime) -> None:
    """Sign a person out everywhere; sessions that have run out go too, since they may be theirs and say nothing any more."""
    known = UserSession.objects.filter(user=person)
    Session.objects.filter(Q(session_key__in=known.values("session_key")) | Q(expire_date__lt=at)).delete()
    known.delete()


def _entries(person: Person) -> list[EntryIndex]:
    """What search knows about a person: as the one it is about, or as the one who did it. One index a question."""
    found: dict[int, EntryIndex] = {}
    for about in (
        Q(person=person),
        Q(subscription__in=Subscription.objects.filter(person=person).values("id")),
        Q(consent__in=Consent.objects.filter(person=person).values("id")),
        Q(actor_kind="person", actor_id=str(person.pk)),
    ):
        found |= {entry.seq: entry for entry in EntryIndex.objects.filter(about)}
    return list(found.values())


def _names(person: Person, entries: Iterable[EntryIndex]) -> set[str]:
    """Everything by which an answer kept for a day could name the person: ids, pseudonyms, messages."""
    found = {person.subject_id, person.email}
    for entry in entries:
        found |= {entry.subject, entry.subscription_id, entry.consent_id, entry.jti, entry.event_id}
    found |= set(Subscription.objects.filter(person=person).values_list("id", flat=True))
    return {str(name) for name in found if name}


def _forget_answers(person: Person, names: set[str]) -> None:
    patterns = [f"%{name}%" for name in sorted(names)]
    with connections[IdempotencyKey.objects.db].cursor() as cursor:
        cursor.execute(_ANSWERS_SQL, {"actor": f"person:{person.pk}", "ids": patterns})
