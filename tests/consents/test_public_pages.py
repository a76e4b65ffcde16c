"""The public pages: the register, the services and what they ask; for anybody, within a fixed number of queries."""

import datetime

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from consents import lifecycle
from consents.actors import Actor
from consents.models import Delivery
from providers.models import Organization
from tests.factories import (
    LicenceFactory,
    MemberFactory,
    OperatorFactory,
    OrganizationFactory,
    PersonFactory,
    ServiceFactory,
    TermsFactory,
    joined,
    offered,
)

pytestmark = pytest.mark.django_db
MINUTE = datetime.timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _no_league_remembered():
    cache.clear()


def text(response):
    return response.content.decode()


def test_the_home_page_says_what_this_is_and_counts(visitor):
    offered()
    page = visitor.get("/")
    assert page.status_code == 200
    assert page.context["operator_count"] == 1
    assert page.context["me"] is None


def test_the_home_page_shows_a_person_their_own_number(signed_in, person):
    joined(person)
    assert signed_in.get("/").context["me"] == {"total": 1, "receiving": 1, "held": 0}


def test_an_operators_admin_has_no_number(client):
    client.force_login(MemberFactory().person)
    assert client.get("/").context["me"] is None


def test_the_register_marks_what_is_invented(visitor):
    OperatorFactory(name_ko="진짜은행", is_fictional=False)
    OperatorFactory(name_ko="지어낸은행")
    OrganizationFactory(name_ko="정보만 주는 곳")
    page = text(visitor.get("/operators/"))
    assert "진짜은행" in page
    assert "지어낸은행" in page
    assert "정보만 주는 곳" not in page
    assert page.count('class="badge badge-fictional') == 2  # the explanation above, and the one invented


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"query": "가나"}, ["가나은행"]),
        ({"query": "alley savings"}, ["다라저축"]),
        ({"sector": "savings"}, ["다라저축"]),
        ({"status": "suspended"}, ["다라저축"]),
        ({"kind": "real"}, ["가나은행"]),
        ({"query": "없는 이름"}, []),
        ({"utm_source": "letter"}, ["가나은행", "다라저축"]),
    ],
)
def test_the_register_is_filtered(visitor, filters, found):
    OperatorFactory(name_ko="가나은행", sector="bank", is_fictional=False)
    OperatorFactory(name_ko="다라저축", name_en="Alley Savings", sector="savings", licence="suspended")
    rows = visitor.get("/operators/", filters).context["rows"]
    assert [row.organization.name_ko for row in rows] == found


@pytest.mark.parametrize("url", ["/operators/", "/services/"])
@pytest.mark.parametrize(
    "query", [{"query": "x" * 61}, {"sector": "moon"}, {"query": "a\x00b"}, {"after": "z" * 100}]
)
def test_a_filter_that_cannot_be_understood_is_said_and_ignored(visitor, url, query):
    offered()
    page = visitor.get(url, query)
    assert page.status_code == 400
    assert "notice-bad" in text(page)
    assert page.context["rows"]


def test_lists_are_paged_without_gaps_or_repetitions(visitor):
    for n in range(45):
        OperatorFactory(name_ko=f"이름 {n % 7}")
    seen, url, pages = [], "/operators/?kind=fictional", 0
    while url:
        page = visitor.get(url)
        seen += [row.organization.code for row in page.context["rows"]]
        url, pages = page.context["next_url"], pages + 1
    assert (pages, len(seen), len(set(seen))) == (3, 45, 45)
    assert page.context["first_url"] == "/operators/?kind=fictional"


def test_an_operator_page_tells_the_history_of_its_licence(visitor):
    operator = OperatorFactory()
    day = datetime.date(2026, 3, 2)
    LicenceFactory(
        organization=operator, status="suspended", decided_on=day, effective_on=day, source="시험 공고 12호"
    )
    service = offered(organization=operator)
    hidden = ServiceFactory(organization=operator, state="registered")
    page = visitor.get(f"/operators/{operator.code}/")
    assert page.context["status"] == "suspended"
    assert [licence.status for licence in page.context["licences"]] == ["suspended", "licensed"]
    assert "시험 공고 12호" in text(page)
    assert service.name_ko in text(page)
    assert hidden.name_ko not in text(page)


def test_a_source_and_an_unknown_code_have_no_operator_page(visitor):
    assert visitor.get(f"/operators/{OrganizationFactory().code}/").status_code == 404
    assert visitor.get("/operators/NOTHING000/").status_code == 404


def test_services_are_filtered_by_purpose_sector_and_name(visitor):
    ledger = offered(name_ko="꼼꼼 가계부")
    health = offered(
        name_ko="튼튼 건강", purpose_code="health", organization=OperatorFactory(sector="health")
    )
    rows = lambda **query: [service.pk for service in visitor.get("/services/", query).context["rows"]]  # noqa: E731
    assert set(rows()) == {ledger.pk, health.pk}
    assert rows(purpose="health") == [health.pk]
    assert rows(sector="health") == [health.pk]
    assert rows(query="꼼꼼") == [ledger.pk]


def test_a_service_page_shows_the_seven_items_and_the_exact_text(visitor):
    service = offered()
    page = visitor.get(f"/services/{service.slug}/")
    assert page.context["joinable"]
    assert len(page.context["items"]) == 4
    for label in ("어디서", "누구에게", "무엇을", "얼마나 자주", "언제까지", "무엇을 위해", "얼마나 보관"):
        assert label in text(page)
    assert "우리가 받아요." in text(page)
    assert f"/services/{service.slug}/join/" in text(page)


def test_terms_written_by_an_operator_cannot_act(visitor):
    evil = "<script>alert(1)</script> <img src=x onerror=alert(2)> [here](javascript:alert(3)) ![p](https://e.example/x.png)"
    service = TermsFactory(text_ko=evil, text_en=evil).service
    page = visitor.get(f"/services/{service.slug}/")
    shown = str(page.context["terms_html"])
    assert "<script" not in shown
    assert "<img" not in shown
    assert 'href="javascript' not in shown
    assert "&lt;script&gt;" in shown


def test_a_service_without_terms_or_licence_cannot_be_joined(visitor):
    bare = ServiceFactory()
    unlicensed = offered(organization=OperatorFactory(licence="held"))
    for service in (bare, unlicensed):
        page = visitor.get(f"/services/{service.slug}/")
        assert not page.context["joinable"]
        assert f"/services/{service.slug}/join/" not in text(page)


def test_who_has_joined_is_told_so(signed_in, person):
    subscription = joined(person)
    page = signed_in.get(f"/services/{subscription.service.slug}/")
    assert page.context["joined"] == f"/me/subscriptions/{subscription.pk}/"


def test_in_english_names_and_terms_are_english(visitor):
    service = offered()
    visitor.cookies["django_language"] = "en"
    page = visitor.get(f"/services/{service.slug}/")
    assert 'lang="en"' in text(page)
    assert service.name_en in text(page)
    assert "Who receives it" in text(page)


def answered(person, at, n: int, *, late: int = 0) -> Organization:
    """An operator that was told to stop `n` times and answered after 1 min, 1 h, 2 h × its turn; `late` of them never did."""
    service = offered()
    for turn in range(1, n + 1):
        subscription = joined(PersonFactory(), service, at)
        lifecycle.leave(subscription, erase=True, by=Actor.person(subscription.person), at=at)
        told = Delivery.objects.filter(role="operator", goal="erased", subscription=subscription)
        if turn > late:
            told.update(
                state="erased", sent_at=at, received_at=at + turn * MINUTE, stopped_at=at + turn * 60 * MINUTE,
                erased_at=at + turn * 120 * MINUTE, closed_at=at + turn * 120 * MINUTE, due_at=None,
            )  # fmt: skip
    return service.organization


def test_the_league_counts_answers_and_what_is_late(visitor, person):
    at = timezone.now() - datetime.timedelta(days=10)
    quick = answered(person, at, 20)
    slow = answered(person, at, 20, late=5)
    lines = {line.operator: line for line in visitor.get("/operators/").context["league"]}
    first = lines[quick]
    assert (first.stops, first.late) == (20, 0)
    assert first.received.median == 10.5 * MINUTE and abs(
        first.received.p95 - 19.05 * MINUTE
    ) < datetime.timedelta(seconds=1)
    assert first.stopped.median == 10.5 * 60 * MINUTE and first.erased.median == 10.5 * 120 * MINUTE
    assert lines[slow].late == 25
    order = [line.operator for line in visitor.get("/operators/").context["league"]]
    assert order.index(quick) < order.index(slow)
    page = text(visitor.get(f"/operators/{slow.code}/"))
    assert "25%" in page


def test_few_answers_are_not_shown_in_the_league(visitor, person):
    at = timezone.now() - datetime.timedelta(days=10)
    few = answered(person, at, 2)
    assert not [line for line in visitor.get("/operators/").context["league"] if line.operator == few]
    line = visitor.get(f"/operators/{few.code}/").context["league_row"]
    assert (line.received, line.stopped, line.erased, line.late) == (None, None, None, None)
    assert "3시간" not in text(visitor.get(f"/operators/{few.code}/"))
    assert "league-table" not in text(visitor.get("/operators/"))


def test_without_stops_there_is_no_league(visitor):
    offered()
    assert visitor.get("/").context["league"] == []


def test_reading_is_all_one_can_do(visitor):
    service = offered()
    for url in (
        "/",
        "/operators/",
        "/services/",
        f"/services/{service.slug}/",
        f"/operators/{service.organization.code}/",
    ):
        assert visitor.post(url).status_code == 405


def queries_of(client, url):
    client.get(url)  # the first page with a form puts a token into the session, once
    cache.clear()
    with CaptureQueriesContext(connection) as caught:
        assert client.get(url).status_code == 200
    return len(caught)


@pytest.mark.parametrize("url", ["/", "/operators/", "/services/", "/services/{slug}/", "/operators/{code}/"])
def test_pages_cost_the_same_with_one_and_with_twelve(signed_in, person, url):
    mine = joined(person)
    url = url.format(slug=mine.service.slug, code=mine.operator.code)
    lifecycle.leave(joined(person), erase=True, by=Actor.person(person), at=timezone.now())
    one = queries_of(signed_in, url)
    for _ in range(11):
        lifecycle.leave(joined(person), erase=True, by=Actor.person(person), at=timezone.now())
        offered(organization=mine.operator)
    assert queries_of(signed_in, url) == one
    assert one <= 12
