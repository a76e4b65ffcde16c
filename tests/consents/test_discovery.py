"""What organizations list against what stands here: differences become cases, once; no verb brings back what has ended."""

import datetime

import pytest

from consents import cases, counts, discovery, jobs, lifecycle, reconciliation, routes, settling
from consents.actors import Actor
from consents.ledger import replay
from consents.models import Case, Consent, Delivery, EntryIndex, Inquiry, Member, Subscription, WeeklyCount
from consents.queries import cases as queries
from consents.queries import history, oversight, paging
from providers import datafiles
from providers.models import Channel
from providers.wires import STOPPED, Listing, RemoteConsent
from tests import factories

pytestmark = pytest.mark.django_db
DAY, MINUTE = datetime.timedelta(days=1), datetime.timedelta(minutes=1)
SYSTEM = Actor.system("test")


@pytest.fixture(autouse=True)
def keys(db, settings, tmp_path_factory):
    settings.PORTAL_KEYS_DIR = tmp_path_factory.getbasetemp() / "discovery-keys"
    datafiles.load_scopes()


@pytest.fixture
def subscription(person, now):
    made = factories.joined(person, factories.offered(), now - 40 * DAY)
    factories.ChannelFactory(
        organization=made.operator, protocol="native", address="https://nobody.example/h", opened_at=now
    )
    Delivery.objects.update(closed_at=now - 39 * DAY)  # everybody heard of it long ago
    return made


@pytest.fixture
def consent(subscription):
    return subscription.consents.filter(kind="transfer", required=True).select_related("source").get()


def remote(consent: Consent, **changes) -> RemoteConsent:
    given = {
        "identifier": str(consent.pk), "service": consent.subscription.service.client_id, "source": consent.source.code,
        "scopes": tuple(consent.scopes), "until_on": consent.until_on.isoformat(),
    }  # fmt: skip
    return RemoteConsent(**given | changes)


def everything(subscription, *changed) -> Listing:
    """All that they should list, some of it as given."""
    named = {one.identifier for one in changed}
    rows = [
        RemoteConsent(str(one.pk), scopes=tuple(one.scopes)) for one in subscription.consents.all() if str(one.pk) not in named
    ]  # fmt: skip
    return Listing(True, (*rows, *changed), 200)


def heard(subscription, listing: Listing, *, at) -> Inquiry:
    """The operator answers a question about the person."""
    inquiry, _new = Inquiry.objects.update_or_create(
        person=subscription.person, organization=subscription.operator, defaults={"due_at": at}
    )
    discovery.record(inquiry, listing, by=SYSTEM, at=at)
    inquiry.refresh_from_db()
    return inquiry


# --- who is asked ------------------------------------------------------------------------------------------------------------


def test_a_person_asks_everybody_once_in_a_while(subscription, person, me, now):
    assert discovery.request(person, by=me, at=now) == 4
    outcomes = dict(Inquiry.objects.values_list("organization__code", "outcome"))
    assert outcomes.pop(subscription.operator.code) == "waiting"
    assert set(outcomes.values()) == {"unable"}, "who has no channel cannot be asked"
    with pytest.raises(discovery.TooSoon):
        discovery.request(person, by=me, at=now + 9 * MINUTE)
    assert discovery.request(person, by=me, at=now + 10 * MINUTE) == 4


def test_the_clock_asks_about_everybody_it_has_not_asked_about(subscription, now):
    assert discovery.enrol(at=now) == 1 and discovery.enrol(at=now) == 0
    assert discovery.claim(at=now - MINUTE, limit=10) == []
    assert len(discovery.claim(at=now + DAY, limit=10)) == 1
    assert discovery.claim(at=now + DAY, limit=10) == [], "under a lease"


def test_who_is_gone_for_good_is_not_asked_about(subscription, me, now):
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    Subscription.objects.update(erasure="confirmed", erasure_confirmed_at=now)
    assert discovery.enrol(at=now) == 0


def test_a_round_is_bounded_and_goes_on_where_it_stopped(subscription, now):
    for _ in range(3):
        factories.joined(factories.PersonFactory(), subscription.service, now - 40 * DAY)
    assert discovery.enrol(at=now, limit=3) == 3 and discovery.enrol(at=now, limit=3) == 1
    assert (
        len(discovery.claim(at=now + DAY, limit=2)) == 2 and len(discovery.claim(at=now + DAY, limit=40)) == 2
    )


def test_every_exception_of_a_wire_is_silence(subscription, person, me, now, monkeypatch):
    class Broken:
        async def list_remote(self, session, **kwargs):
            raise RuntimeError("a bug")

    monkeypatch.setitem(routes.WIRES, "native", Broken())
    discovery.request(person, by=me, at=now)
    assert discovery.run(now=lambda: now) == 1
    inquiry = Inquiry.objects.get(organization=subscription.operator)
    assert inquiry.outcome == "silent" and now + 20 * MINUTE < inquiry.due_at and not Case.objects.exists()


def test_an_answer_to_an_old_question_is_dropped(subscription, consent, now):
    inquiry = heard(subscription, everything(subscription), at=now)
    stale = Inquiry.objects.get(pk=inquiry.pk)
    stale.due_at = now
    assert (
        discovery.record(stale, everything(subscription, remote(consent, state=STOPPED)), by=SYSTEM, at=now)
        is False
    )
    assert not Case.objects.exists()


def test_the_job_runs(subscription):
    assert jobs.discover() == 0
    assert Inquiry.objects.count() == 1


# --- what differs ------------------------------------------------------------------------------------------------------------


def kinds() -> list[str]:
    return sorted(Case.objects.values_list("kind", flat=True))


def test_a_list_that_agrees_opens_nothing(subscription, now):
    inquiry = heard(subscription, everything(subscription), at=now)
    assert kinds() == [] and (inquiry.outcome, inquiry.held, inquiry.differences) == ("complete", 4, 0)


def test_what_nobody_knows_here_is_a_case_and_told_once(subscription, person, now):
    listing = everything(
        subscription, RemoteConsent("x", service="other", source="BANK000001", scopes=("bank.list",))
    )
    heard(subscription, listing, at=now)
    heard(subscription, listing, at=now + DAY)
    assert kinds() == ["unknown_here"] and person.notices.filter(kind="mismatch").count() == 1


@pytest.mark.parametrize("listed", ["not at all", "as stopped"])
def test_what_is_gone_there_is_missing(subscription, consent, now, listed):
    if listed == "as stopped":
        heard(subscription, everything(subscription, remote(consent, state=STOPPED)), at=now)
    else:
        rest = [
            RemoteConsent(str(one.pk), scopes=tuple(one.scopes))
            for one in subscription.consents.exclude(pk=consent.pk)
        ]
        heard(subscription, Listing(False, tuple(rest), 200), at=now)
        assert kinds() == [], "an incomplete list says nothing about what is not on it"
        heard(subscription, Listing(True, tuple(rest), 200), at=now)
    assert kinds() == ["missing_there"]


def test_what_ended_here_is_rightly_gone_there(subscription, me, now):
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    Delivery.objects.update(closed_at=now)
    heard(subscription, Listing(True, (), 200), at=now + 2 * DAY)
    assert kinds() == []


def test_what_is_handed_on_is_known_by_who_receives_it(subscription, now):
    handed = subscription.consents.filter(kind="third_party").select_related("recipient").get()
    named = RemoteConsent("PC-20260110-0001", source="BANK000001", recipient=handed.recipient.name_ko)
    rest = everything(subscription).consents
    others = [one for one in rest if one.identifier != str(handed.pk)]
    heard(subscription, Listing(True, (*others, named), 200), at=now)
    assert kinds() == []


def test_a_list_is_not_missing_what_it_cannot_hold(subscription, now):
    rest = tuple(RemoteConsent(str(one.pk)) for one in subscription.consents.filter(kind="transfer"))
    kinds_of_103 = frozenset({"transfer"})
    heard(subscription, Listing(True, rest, 200, kinds=kinds_of_103), at=now)
    assert kinds() == [] and subscription.consents.exclude(kind="transfer").exists()
    heard(subscription, Listing(True, (), 200, kinds=kinds_of_103), at=now)
    assert set(Case.objects.values_list("consent__kind", flat=True)) == {"transfer"}


@pytest.mark.parametrize("listed", ["not at all", "as stopped"])
def test_what_is_paused_need_not_be_listed(subscription, consent, me, now, listed):
    lifecycle.pause(consent, by=me, at=now - 2 * DAY)
    Delivery.objects.update(closed_at=now - DAY)
    changed = [remote(consent, state=STOPPED)] if listed == "as stopped" else []
    rows = [
        one
        for one in everything(subscription, *changed).consents
        if changed or one.identifier != str(consent.pk)
    ]
    heard(subscription, Listing(True, tuple(rows), 200), at=now)
    assert kinds() == []


def test_other_items_or_dates_differ_and_less_is_lost(subscription, consent, person, now):
    heard(subscription, everything(subscription, remote(consent, scopes=("bank.list",))), at=now)
    assert kinds() == ["differs"] and person.notices.filter(kind="lost").exists()


def test_what_ended_here_and_lives_there_is_one_case_with_the_read_backs(subscription, consent, me, now):
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    heard(subscription, everything(subscription, remote(consent)), at=now + MINUTE)
    assert kinds() == [], "they are just being told"
    Delivery.objects.update(closed_at=now)
    heard(subscription, everything(subscription), at=now + 2 * DAY)
    case = Case.objects.get()
    assert case.kind == "ended_here" and case.matter == f"{subscription.pk} {subscription.operator.code}"
    assert subscription.person.notices.filter(kind="mismatch", urgent=True).exists()


def test_a_list_costs_the_same_for_one_and_for_many(subscription, now, django_assert_num_queries):
    person, operator, listing = subscription.person, subscription.operator, everything(subscription)
    discovery.differences(
        person, operator, listing, at=now
    )  # the policy's numbers are remembered from then on
    with django_assert_num_queries(2):
        discovery.differences(person, operator, listing, at=now)


# --- three verbs ---------------------------------------------------------------------------------------------------------------


def opened(kind, subscription, consent=None, *, later=0 * DAY, **stated) -> Case:
    return cases.open_case(
        kind, subscription.operator, matter=kind, stated=stated, known={}, person=subscription.person,
        subscription=subscription, consent=consent, by=SYSTEM, at=subscription.joined_at + 40 * DAY + later,
    )[0]  # fmt: skip


@pytest.fixture
def inspector(db):
    return factories.MemberFactory(role=Member.Role.REGULATOR, organization=None).person


def settled(case, verb, inspector, *, at) -> Case:
    return settling.settle(case, verb, reason="그렇게 정해요.", by=Actor.regulator(inspector), at=at)


def test_what_the_other_side_ended_is_ended_here_without_an_echo(subscription, consent, inspector, now):
    case = settled(opened("missing_there", subscription, consent), "adopt", inspector, at=now)
    consent.refresh_from_db()
    assert (case.verb, case.settled_by, case.settled_at) == ("adopt", inspector, now)
    assert (consent.state, consent.end_reason) == ("ended", "operator_closed")
    told = Delivery.objects.filter(consent=consent, event="consent-withdrawn")
    assert set(told.values_list("organization__code", flat=True)) == {consent.source.code}


def test_what_was_unknown_is_added_as_their_word(subscription, consent, inspector, now):
    other = factories.offered(organization=subscription.operator)
    case = cases.open_case(
        "unknown_here", subscription.operator, matter="x", known={}, person=subscription.person, by=SYSTEM, at=now,
        stated={
            "service": other.client_id, "source": consent.source.code, "scopes": ["bank.list"], "since_on": "2026-03-01",
            "until_on": (now + 90 * DAY).date().isoformat(),
        },
    )[0]  # fmt: skip
    settled(case, "adopt", inspector, at=now)
    added = Subscription.objects.get(service=other)
    assert (added.origin, added.state) == ("reported", "active")


@pytest.mark.parametrize("since", ["", "2026-03-01"])
def test_nothing_that_ended_comes_back_by_adopting(subscription, consent, me, inspector, now, since):
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    stated = {
        "service": subscription.service.client_id, "source": consent.source.code, "scopes": ["bank.list"],
        "since_on": since, "until_on": (now + 90 * DAY).date().isoformat(),
    }  # fmt: skip
    case = opened("unknown_here", subscription, later=3 * DAY, **stated)
    before = list(Consent.objects.values_list("pk", "state", "until_on"))
    with pytest.raises(settling.NotPossible):
        settled(case, "adopt", inspector, at=now + 4 * DAY)
    assert list(Consent.objects.values_list("pk", "state", "until_on")) == before
    assert Subscription.objects.count() == 1
    case.refresh_from_db()
    assert case.settled_at is None


@pytest.mark.parametrize("kind", ["ended_here", "differs", "counts", "after_stop"])
def test_what_contradicts_an_end_cannot_be_adopted(subscription, consent, inspector, now, kind):
    case = opened(kind, subscription, consent)
    assert "adopt" not in settling.possible(case)
    with pytest.raises(settling.NotPossible):
        settled(case, "adopt", inspector, at=now)


def test_an_end_that_has_come_meanwhile_is_not_ended_twice(subscription, consent, me, inspector, now):
    case = opened("missing_there", subscription, consent)
    lifecycle.leave(subscription, erase=False, by=me, at=now)
    with pytest.raises(settling.NotPossible):
        settled(case, "adopt", inspector, at=now + MINUTE)


def test_sending_again_is_the_same_message(subscription, consent, me, inspector, now):
    lifecycle.leave(subscription, erase=True, by=me, at=now)
    first = Delivery.objects.get(organization=subscription.operator, event="subscription-ended")
    Delivery.objects.filter(pk=first.pk).update(state="sent", sent_at=now, next_at=None)
    settled(opened("ended_here", subscription), "send_again", inspector, at=now + DAY)
    again = Delivery.objects.get(replay_of=first)
    assert again.body == first.body and again.state == "queued"


def test_a_case_is_settled_once(subscription, inspector, now):
    case = opened("ended_here", subscription)
    settled(case, "dispute", inspector, at=now)
    with pytest.raises(cases.AlreadySettled):
        settled(case, "dispute", inspector, at=now)
    assert opened("ended_here", subscription).pk != case.pk, "the same may be opened anew"


@pytest.mark.parametrize("verb", ["adopt", "send_again", "dispute"])
def test_the_log_tells_how_a_case_was_settled(subscription, consent, me, inspector, person, now, verb):
    before = {found.key for found in replay.run().differences}  # what others have left in the log
    case = opened("missing_there", subscription, consent)
    settled(case, verb, inspector, at=now + MINUTE)
    entry = EntryIndex.objects.get(typ="notice.answered", reason="case.missing_there")
    assert (entry.person, entry.party, entry.actor_kind) == (person, case.organization, "regulator")
    assert (entry.at, entry.actor_id) == (now + MINUTE, str(inspector.pk))
    said = {value.name: value.value for value in oversight.entry(entry.event_id).values}
    words = [
        dict(choices)[key] for choices, key in ((Case.Kind.choices, case.kind), (Case.Verb.choices, verb))
    ]
    assert (said["nid"], said["knd"], said["ans"]) == (str(case.pk), *map(str, words))
    Delivery.objects.filter(closed_at=now - 39 * DAY).update(closed_at=None)  # as the log knows them
    fresh = [found for found in replay.run().differences if found.key not in before]
    assert not fresh, "no row is made of it"
    line = next(line for line in history.history(person).lines if line.event_id == entry.event_id)
    assert "정리했어요" in line.what and line.why == words[0]


def test_what_could_not_be_settled_leaves_no_entry(subscription, consent, inspector, now):
    case = opened("counts", subscription)
    with pytest.raises(settling.NotPossible):
        settled(case, "adopt", inspector, at=now)
    assert not EntryIndex.objects.filter(reason="case.counts").exists()
    settled(case, "dispute", inspector, at=now)
    with pytest.raises(cases.AlreadySettled):
        settled(case, "dispute", inspector, at=now)
    assert EntryIndex.objects.filter(reason="case.counts").count() == 1


def test_a_report_that_contradicts_is_a_case_too(subscription, consent, person, now):
    row = {
        "subject": str(person.subject_id), "service_client_id": subscription.service.client_id, "joined_on": "2026-01-10",
        "source_org_code": consent.source.code, "scopes": "bank.list bank.deposit bank.loan", "purpose": "가계부",
        "cycle": "1/w", "end_date": consent.until_on.isoformat(), "retained_until": "99991231", "last_used_on": "",
    }  # fmt: skip
    for _ in range(2):
        reconciliation.report_holdings(
            [(1, row)],
            organization=subscription.operator,
            by=Actor.organization(subscription.operator),
            at=now,
        )
    assert kinds() == ["differs"] and person.notices.filter(kind="mismatch").count() == 1


# --- pages -----------------------------------------------------------------------------------------------------------------------


def test_cases_are_paged_and_cost_the_same(subscription, now, django_assert_num_queries):
    for n in range(45):
        cases.open_case(
            "counts",
            subscription.operator,
            matter=str(n),
            stated={},
            known={},
            by=SYSTEM,
            at=now + (n // 3) * MINUTE,
        )
    seen, after = [], ""
    while after is not None:
        with django_assert_num_queries(1):
            page = queries.listed(after=after)
        seen += [row.case.matter for row in page.rows]
        after = page.next
    assert len(seen) == len(set(seen)) == 45
    for bad in ("x", "1", "1-x", "1-" + "9" * 39, "9" * 30):
        with pytest.raises(paging.BadCursor):
            queries.listed(after=bad)


# --- weekly counts ---------------------------------------------------------------------------------------------------------------


def sunday(now) -> datetime.date:
    today = now.date()
    return today - datetime.timedelta(days=today.isoweekday() % 7 + 14)


def week(consent, now, new, revoked, own) -> counts.Row:
    return counts.Row(
        sunday(now),
        consent.subscription.service.client_id,
        consent.source.code,
        counts.Numbers(new, revoked, own),
    )


def test_three_sides_of_a_week(subscription, consent, now, django_assert_max_num_queries):
    operator = subscription.operator
    with django_assert_max_num_queries(8):
        assert counts.report(
            [week(consent, now, 0, 0, 1)], organization=operator, by=Actor.organization(operator), at=now
        ) == ["kept"]
    assert kinds() == []
    source = consent.source
    counts.report([week(consent, now, 0, 0, 2)], organization=source, by=Actor.organization(source), at=now)
    case = Case.objects.get()
    assert (case.kind, case.organization, case.stated["own"], case.known["own"]) == ("counts", source, 2, 1)
    [shown] = queries.weeks().rows
    assert shown.differs and shown.operator_says.own == shown.log_says.own == 1 and shown.source_says.own == 2
    counts.report([week(consent, now, 0, 0, 1)], organization=source, by=Actor.organization(source), at=now)
    assert WeeklyCount.objects.count() == 2 and not queries.weeks().rows[0].differs


def test_the_logs_numbers_of_a_week(subscription, me, now):
    seoul = datetime.timezone(datetime.timedelta(hours=9))
    start = datetime.datetime.combine(sunday(now), datetime.time(), tzinfo=seoul)
    found = []
    ends = (start + 7 * DAY, start + 7 * DAY - MINUTE)  # the next week's first moment is the next week's
    for consent, at in zip(subscription.consents.filter(kind="transfer").order_by("pk"), ends, strict=True):
        Consent.objects.filter(pk=consent.pk).update(granted_at=start)
        lifecycle.withdraw(consent, erase=False, by=me, at=at)
        service = subscription.service_id
        found.append(
            counts.known([sunday(now)], [service], [consent.source_id])[
                sunday(now), service, consent.source_id
            ]
        )
    assert found == [counts.Numbers(1, 0, 1), counts.Numbers(1, 1, 0)]


def test_what_was_changed_in_a_week_counts_as_new(subscription, consent, me, now):
    service, source = subscription.service_id, consent.source_id
    lifecycle.amend(consent, by=me, at=now - 10 * DAY, scopes=consent.scopes[:1])
    lifecycle.amend(consent, by=me, at=now - 9 * DAY, scopes=consent.scopes)
    known = counts.known([sunday(now), sunday(now) - 7 * DAY], [service], [source])
    assert known[sunday(now), service, source] == counts.Numbers(1, 0, 1)
    assert known[sunday(now) - 7 * DAY, service, source] == counts.Numbers(0, 0, 1)


def test_counts_of_others_of_other_days_and_of_this_week_are_refused(subscription, consent, now):
    operator, stranger = subscription.operator, factories.OperatorFactory()
    good = week(consent, now, 0, 0, 1)

    def why(row, organization):
        [answer] = counts.report(
            [row], organization=organization, by=Actor.organization(organization), at=now
        )
        return (answer.place, answer.reason)

    assert why(good, stranger) == ("service", "not_found")
    monday = counts.Row(good.week_on + DAY, good.service, good.source, good.numbers)
    assert why(monday, operator) == ("week_on", "no_sunday")
    current = counts.Row(good.week_on + 14 * DAY, good.service, good.source, good.numbers)
    assert why(current, operator) == ("week_on", "not_over")


def test_a_desk_has_no_list_to_ask_for(subscription, now):
    Channel.objects.update(protocol="desk")
    assert discovery.enrol(at=now) == 0
