"""The regulator's pages: search, one entry, reveal, what is late."""

import datetime
import html
import re
import uuid

import pytest
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import inspection, ledger, lifecycle
from consents.actors import Actor
from consents.forms.oversight import EntryFilters
from consents.models import Delivery, EntryIndex, LedgerEntry, Lookup
from consents.queries import oversight, paging
from tests import factories

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
GROUNDS = {"case": "2026-감독-0142", "reason": "민원 처리에 본인 확인이 필요해요."}


def browser(person=None):
    made = Client()
    if person:
        made.force_login(person, backend=BACKEND)
    return made


@pytest.fixture
def regulator():
    return factories.MemberFactory(role="regulator", organization=None).person


@pytest.fixture
def site(client, regulator):
    client.force_login(regulator, backend=BACKEND)
    return client


@pytest.fixture
def left(person, now):
    """A subscription joined and left, with erasure asked."""
    subscription = factories.joined(person, at=now - datetime.timedelta(days=30))
    return lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=now)


@pytest.fixture
def entry(left):
    return EntryIndex.objects.get(typ="subscription.ended", subscription=left)


def found(response) -> list:
    return [row.event_id for row in response.context["rows"]]


def search(site, **filters):
    return site.get(reverse("oversight"), filters)


# --- who may come ---------------------------------------------------------------------------------------------------


def test_only_the_regulator_reaches_these_pages(person, regulator, entry):
    admin = factories.MemberFactory().person
    urls = [
        (reverse("oversight"), "get"), (reverse("overdue"), "get"), (reverse("entry", args=[entry.event_id]), "get"),
        (reverse("reveal", args=[entry.event_id]), "post"),
    ]  # fmt: skip
    for url, method in urls:
        for visitor, expected in ((None, 302), (person, 403), (admin, 403), (regulator, 200)):
            answer = getattr(browser(visitor), method)(url, GROUNDS if method == "post" else {})
            assert answer.status_code == expected, (url, visitor)
            if expected == 302:
                assert answer.url.startswith(reverse("account_login"))
    assert Lookup.objects.count() == 1  # the regulator's own


def test_reading_changes_nothing_and_writing_is_not_a_get(site, entry):
    before = EntryIndex.objects.count(), LedgerEntry.objects.count()
    for name in ("entry", "reveal"):
        assert site.get(reverse(name, args=[entry.event_id])).status_code == (200 if name == "entry" else 405)
    for name in ("oversight", "overdue"):
        assert site.post(reverse(name)).status_code == 405
    assert (EntryIndex.objects.count(), LedgerEntry.objects.count()) == before


# --- search -----------------------------------------------------------------------------------------------------------


def test_the_newest_entry_comes_first_and_nobody_is_named(site, left, person):
    answer = search(site)
    times = [row.at for row in answer.context["rows"]]
    assert times == sorted(times, reverse=True)
    text = answer.content.decode()
    assert person.email not in text
    assert person.name not in text
    assert str(person.pk) not in text
    assert answer.context["rows"][0].subject in text


def test_each_filter_finds_its_entries_and_no_others(site, left, now):
    other = factories.joined(factories.PersonFactory(), at=now)
    mine = EntryIndex.objects.filter(subscription=left)
    consent = left.consents.exclude(source=None).first()
    act = mine.filter(typ="subscription.ended").get()
    cases = [
        ({"operator": left.operator.code}, mine.filter(operator=left.operator)),
        ({"operator": left.operator.name_ko}, mine.filter(operator=left.operator)),
        ({"operator": f"{left.operator.name_en} ({left.operator.code})"}, mine.filter(operator=left.operator)),
        ({"party": consent.source.code}, EntryIndex.objects.filter(party=consent.source)),
        ({"typ": "subscription.ended"}, mine.filter(typ="subscription.ended")),
        ({"subject": act.subject}, EntryIndex.objects.filter(subject=act.subject)),
        ({"subscription": str(left.pk)}, mine),
        ({"consent": str(consent.pk)}, mine.filter(consent=consent)),
        ({"txn": str(act.txn)}, mine.filter(txn=act.txn)),
        ({"actor": "person", "operator": other.operator.code}, EntryIndex.objects.filter(subscription=other)),
        ({"since": "2026-11-22T11:59", "operator": left.operator.code}, mine.filter(at__gte=now)),
        ({"until": "2026-11-22T12:00", "operator": left.operator.code}, mine.filter(at__lt=now)),
        ({"since": "2026-11-22T03:00:00Z", "until": "2026-11-22T03:00:01Z", "subscription": str(left.pk)}, mine.filter(at=now)),
        ({"operator": other.operator.code, "typ": "subscription.ended"}, EntryIndex.objects.none()),
    ]  # fmt: skip
    for filters, expected in cases:
        answer = search(site, **filters)
        assert answer.status_code == 200, filters
        assert set(found(answer)) == {row.event_id for row in expected}, filters


@pytest.mark.parametrize(
    ("name", "value"),
    [("operator", "없는회사"), ("operator", "x" * 500), ("party", "AAAAAAAAAA"), ("typ", "subscription.left"), ("since", "어제"),
     ("since", "2026-13-01T00:00"), ("until", "0001-01-01T00:00"), ("until", "9999-12-31T23:59"), ("subject", "p_abc"),
     ("subject", "person@example.com"), ("subscription", "1"), ("consent", "' OR 1=1 --"), ("txn", "zz"), ("actor", "admin"),
     ("after", "0"), ("after", "9" * 400), ("after", "1-2-3"), ("role", "regulator"), ("operator", "a\x00b")],
)  # fmt: skip
def test_a_bad_filter_is_refused_in_words_and_keeps_what_was_typed(site, left, name, value):
    answer = search(site, **{name: value, "txn" if name != "txn" else "consent": str(uuid.uuid4())})
    assert answer.status_code == 400
    text = answer.content.decode()
    assert "다시 한번 살펴봐 주세요" in text
    assert not answer.context["rows"]
    if (
        name in {"operator", "party", "since", "until", "subject", "subscription", "consent", "txn"}
        and "\x00" not in value
    ):
        assert html.escape(value) in text


def test_a_doubled_filter_and_a_reversed_time_are_refused(site, left):
    assert (
        site.get(reverse("oversight") + "?typ=subscription.ended&typ=subscription.joined").status_code == 400
    )
    assert search(site, since="2026-11-22T10:00", until="2026-11-22T09:00").status_code == 400


def test_pages_follow_each_other_without_gaps_while_entries_arrive(site, now):
    service = factories.offered()
    for _ in range(9):
        factories.joined(factories.PersonFactory(), service, at=now)  # many at the very same moment
    everything = list(EntryIndex.objects.order_by("-at", "-seq").values_list("event_id", flat=True))
    assert len(everything) > 2 * paging.SIZE
    seen, url = [], reverse("oversight") + f"?operator={service.organization.code}"
    expected = list(
        EntryIndex.objects.filter(operator=service.organization)
        .order_by("-at", "-seq")
        .values_list("event_id", flat=True)
    )
    while url:
        answer = site.get(url)
        seen += found(answer)
        factories.joined(factories.PersonFactory(), service, at=now + datetime.timedelta(minutes=1))
        following = answer.context["next_url"]
        assert following is None or "operator=" in following
        url = reverse("oversight") + following if following else None
    assert seen == expected


def test_the_number_of_queries_does_not_grow_with_the_entries(site, person, now):
    def count(name, **kwargs):
        with CaptureQueriesContext(connection) as queries:
            assert site.get(reverse(name, **kwargs)).status_code == 200
        return len(queries)

    service = factories.offered()
    subscription = factories.joined(person, service, at=now - datetime.timedelta(days=90))
    lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=now - datetime.timedelta(days=60))
    one = EntryIndex.objects.get(typ="subscription.ended")
    count("oversight")  # the first page of a session also writes the session down
    count("entry", args=[one.event_id])  # and the first promise looks up the policy
    few = count("oversight"), count("overdue"), count("entry", args=[one.event_id])
    for _ in range(6):
        other = factories.joined(factories.PersonFactory(), at=now - datetime.timedelta(days=90))
        lifecycle.leave(
            other, erase=True, by=Actor.person(other.person), at=now - datetime.timedelta(days=60)
        )
    many = count("oversight"), count("overdue"), count("entry", args=[one.event_id])
    assert few == many
    assert max(many) <= 12
    for granted in EntryIndex.objects.filter(
        typ__in=["consent.granted", "subscription.joined", "delivery.sent"]
    )[:5]:
        assert count("entry", args=[granted.event_id]) <= 12


def test_the_cleaning_serves_the_api_too(left):
    filters = EntryFilters({"operator": left.operator.code})
    assert filters.form.is_valid()
    page = oversight.entries(filters)
    assert page.rows
    with pytest.raises(paging.BadCursor):
        oversight.entries(filters, "nonsense")


# --- one entry ----------------------------------------------------------------------------------------------------------


def test_an_entry_shows_its_words_its_bytes_and_its_act_but_no_identity(site, left, person, entry):
    answer = site.get(reverse("entry", args=[entry.event_id]))
    text = html.unescape(answer.content.decode())
    logged = LedgerEntry.objects.get(event_id=entry.event_id)
    assert bytes(logged.entry).decode() in text
    assert bytes(logged.leaf_hash).hex() in text
    assert "공개되기를 기다려요" in text
    assert left.operator.name_ko in text
    assert left.service.name_ko in text
    for secret in (person.email, person.name, str(person.pk), str(person.subject_id)):
        assert secret not in text
    same_act = EntryIndex.objects.filter(txn=entry.txn).exclude(pk=entry.pk)
    assert {row.event_id for row in answer.context["entry"].related} == {row.event_id for row in same_act}


def test_every_type_that_a_story_writes_can_be_shown(site, left, person, regulator, now):
    consent = factories.joined(person, at=now).consents.filter(required=False).first()
    lifecycle.pause(
        consent, by=Actor.person(person), at=now, until_on=now.date() + datetime.timedelta(days=9)
    )
    lifecycle.resume(consent, by=Actor.person(person), at=now)
    lifecycle.withdraw(consent, erase=True, by=Actor.person(person), at=now)
    ended = EntryIndex.objects.get(typ="subscription.ended")
    inspection.reveal(event_id=ended.event_id, **GROUNDS, by=Actor.regulator(regulator), at=now)
    for typ in sorted(set(EntryIndex.objects.values_list("typ", flat=True))):
        event_id = EntryIndex.objects.filter(typ=typ).first().event_id
        for language in ("ko", "en"):
            answer = site.get(reverse("entry", args=[event_id]), headers={"accept-language": language})
            assert answer.status_code == 200, typ


def test_an_unknown_entry_is_404(site):
    assert site.get(reverse("entry", args=[uuid.uuid4()])).status_code == 404
    assert site.post(reverse("reveal", args=[uuid.uuid4()]), GROUNDS).status_code == 404


# --- reveal -------------------------------------------------------------------------------------------------------------


def test_a_reveal_is_recorded_and_then_shown(site, entry, person, regulator):
    answer = site.post(reverse("reveal", args=[entry.event_id]), GROUNDS)
    assert answer.status_code == 200
    assert person.email in answer.content.decode()
    assert "no-store" in answer["Cache-Control"]
    lookup = Lookup.objects.get()
    assert (lookup.person, lookup.by, lookup.case) == (person, regulator, GROUNDS["case"])
    assert EntryIndex.objects.filter(typ="record.revealed", person=person).count() == 1


@pytest.mark.parametrize(
    "grounds",
    [{}, {"case": "", "reason": ""}, {"case": "2026-1"}, {"case": "2026-1", "reason": "짧음"}, {"case": "2026-1", "reason": " " * 50},
     {"case": "가" * 61, "reason": "이유는 충분히 길게 적었어요."}, {"case": "2026-1", "reason": "가" * 301}, {"case": "2026-1", "reason": "가" * 100_000},
     {**GROUNDS, "person": "1"}, {"case": "2026-1", "reason": "이유를 \u202e거꾸로 보이게 적었어요."}, {"case": "2026\x00-1", "reason": "이유는 충분히 길게 적었어요."}],
)  # fmt: skip
def test_bad_grounds_are_refused_in_words_and_leave_no_trace(site, entry, person, grounds):
    answer = site.post(reverse("reveal", args=[entry.event_id]), grounds)
    assert answer.status_code in (400, 413)
    text = answer.content.decode()
    told = ("다시 한번 살펴봐 주세요", "보낸 내용을 알아듣지 못했어요", "보낸 것이 너무 커요")
    assert any(words in text for words in told)
    assert person.email not in text
    assert not Lookup.objects.exists()
    assert not EntryIndex.objects.filter(typ="record.revealed").exists()


def test_what_cannot_be_recorded_is_not_shown(site, entry, person, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("the log is down")

    monkeypatch.setattr(inspection.ledger, "append", broken)
    answer = site.post(reverse("reveal", args=[entry.event_id]), GROUNDS)
    assert answer.status_code == 503
    text = answer.content.decode()
    assert person.email not in text
    assert person.name not in text
    assert GROUNDS["reason"] in text
    assert not Lookup.objects.exists()


def test_an_entry_about_nobody_offers_no_reveal(site, now):
    with transaction.atomic():
        sealed = ledger.append(
            [ledger.Fact("key.added", fields={"kid": "log-1"})], by=Actor.system("keys"), at=now
        )
    answer = site.get(reverse("entry", args=[sealed[0].event_id]))
    assert answer.status_code == 200
    assert b'name="case"' not in answer.content
    assert site.post(reverse("reveal", args=[sealed[0].event_id]), GROUNDS).status_code == 404


# --- what is late ---------------------------------------------------------------------------------------------------------


def test_the_overdue_list_names_the_late_and_the_stuck_oldest_first(site, person, now):
    today = timezone.now()
    older = factories.joined(person, at=today - datetime.timedelta(days=90))
    lifecycle.leave(older, erase=True, by=Actor.person(person), at=today - datetime.timedelta(days=60))
    newer = factories.joined(person, at=today - datetime.timedelta(days=9))
    lifecycle.leave(newer, erase=False, by=Actor.person(person), at=today)
    stuck = Delivery.objects.filter(subscription=newer, goal="stopped").first()
    Delivery.objects.filter(pk=stuck.pk).update(state="dead", dead_at=timezone.now(), next_at=None)
    answer = site.get(reverse("overdue"))
    rows = answer.context["rows"]
    assert [row.due_at for row in rows] == sorted(row.due_at for row in rows)
    jtis = {row.jti for row in rows}
    assert (
        set(
            Delivery.objects.filter(subscription=older, event="subscription-ended").values_list(
                "jti", flat=True
            )
        )
        <= jtis
    )
    assert stuck.jti in jtis
    text = answer.content.decode()
    for secret in (person.email, person.name, str(person.pk), str(person.subject_id)):
        assert secret not in text
    groups = {group["code"]: group for group in answer.context["groups"]}
    assert groups[stuck.organization.code]["stuck"] == 1
    only = site.get(reverse("overdue"), {"organization": stuck.organization.code})
    assert {row.organization.code for row in only.context["rows"]} == {stuck.organization.code}
    assert site.get(reverse("overdue"), {"organization": "없는 곳"}).status_code == 400
    assert site.get(reverse("overdue"), {"after": "x"}).status_code == 400


def test_a_late_obligation_leads_to_the_entries_of_its_act(site, person, left):
    Delivery.objects.filter(subscription=left, closed_at=None).update(
        due_at=timezone.now() - datetime.timedelta(days=3)
    )
    answer = site.get(reverse("overdue"))
    link = re.search(r'href="([^"]+\?txn=[^"]+)"', answer.content.decode())[1]
    assert "subscription.ended" in site.get(link).content.decode()


def test_an_empty_overdue_list_says_so(site):
    assert "늦은 처리가 없어요" in site.get(reverse("overdue")).content.decode()
