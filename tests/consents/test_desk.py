"""The desk: the inbox is the channel; confirmations count once; nobody sees another organization's deliveries."""

import datetime
import hashlib
import html
import json
import uuid

import pytest
import rfc8785
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from consents import lifecycle
from consents.actors import Actor
from consents.models import Delivery, EntryIndex, Evidence
from consents.queries import paging
from tests import factories

pytestmark = pytest.mark.django_db
BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
KEPT = {"step": "retained", "legal_basis": "전자금융거래법 제22조", "retained_until": "2030-01-01"}


def browser(person=None):
    made = Client()
    if person:
        made.force_login(person, backend=BACKEND)
    return made


def admin_of(organization):
    return factories.MemberFactory(organization=organization).person


@pytest.fixture
def left(person):
    at = timezone.now()
    subscription = factories.joined(person, at=at - datetime.timedelta(days=30))
    return lifecycle.leave(subscription, erase=True, by=Actor.person(person), at=at)


@pytest.fixture
def owed(left):
    """What the operator owes: to stop and to erase."""
    return Delivery.objects.get(subscription=left, organization=left.operator, event="subscription-ended")


@pytest.fixture
def asked_source(left):
    return Delivery.objects.filter(subscription=left, role="source", event="subscription-ended").first()


@pytest.fixture
def admin(left):
    return admin_of(left.operator)


@pytest.fixture
def site(admin):
    return browser(admin)


def confirm(site, delivery, **given):
    return site.post(reverse("confirm_delivery", args=[delivery.jti]), given)


def written() -> tuple:
    """Everything a confirmation could change."""
    return (
        list(Delivery.objects.order_by("pk").values()),
        list(Evidence.objects.order_by("pk").values()),
        EntryIndex.objects.count(),
    )


# --- who may come -----------------------------------------------------------------------------------------------------


def test_each_role_gets_what_is_meant_for_it(person, admin, owed):
    regulator = factories.MemberFactory(role="regulator", organization=None).person
    stranger = admin_of(factories.OperatorFactory())
    urls = [
        ("desk", [], "get", (302, 403, 403, 200, 200)),
        ("desk_deliveries", [], "get", (302, 403, 403, 200, 200)),
        ("desk_delivery", [owed.jti], "get", (302, 403, 403, 404, 200)),
        ("confirm_delivery", [owed.jti], "post", (302, 403, 403, 404, 302)),
    ]
    for name, args, method, expected in urls:
        for visitor, status in zip((None, person, regulator, stranger, admin), expected, strict=True):
            answer = getattr(browser(visitor), method)(
                reverse(name, args=args), {"step": "received"} if method == "post" else {}
            )
            assert answer.status_code == status, (name, visitor)
    owed.refresh_from_db()
    assert owed.state == "received"  # by its own admin, who came last


def test_another_organizations_delivery_does_not_exist(site, asked_source, left):
    before = written()
    assert site.get(reverse("desk_delivery", args=[asked_source.jti])).status_code == 404
    for step in ("received", "stopped", "erased", "retained", "nonsense"):
        assert confirm(site, asked_source, step=step).status_code == 404
    assert confirm(site, Delivery(jti=uuid.uuid4()), step="received").status_code == 404
    assert str(asked_source.jti) not in site.get(reverse("desk_deliveries")).content.decode()
    assert written() == before


def test_the_organization_never_comes_from_the_request(site, asked_source, owed):
    before = written()
    code = asked_source.organization.code
    assert confirm(site, owed, step="received", organization=code).status_code == 400
    assert site.get(reverse("desk_deliveries"), {"organization": code}).status_code == 400
    assert {
        row.delivery.organization_id
        for row in site.get(reverse("desk"), {"organization": code}).context["rows"]
    } == {owed.organization_id}
    assert written() == before


def test_reading_writes_nothing_and_confirming_is_not_a_get(site, owed):
    before = written()
    for name, args in (("desk", []), ("desk_deliveries", []), ("desk_delivery", [owed.jti])):
        assert site.get(reverse(name, args=args)).status_code == 200
        assert site.post(reverse(name, args=args), {"step": "received"}).status_code == 405
    assert site.get(reverse("confirm_delivery", args=[owed.jti])).status_code == 405
    assert written() == before


def test_a_form_from_elsewhere_is_refused(admin, owed):
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admin, backend=BACKEND)
    before = written()
    assert confirm(careful, owed, step="received").status_code == 403
    assert written() == before


# --- the inbox ---------------------------------------------------------------------------------------------------------


def test_the_inbox_says_what_to_do_and_names_nobody(site, owed, person):
    answer = site.get(reverse("desk"))
    assert owed.jti in [row.delivery.jti for row in answer.context["rows"]]
    text = answer.content.decode()
    assert "정보를 그만 받고, 받아간 정보를 지워 주세요." in text
    assert str(owed.subscription_id) in text
    assert str(person.subject_id) in text
    for secret in (person.email, person.name, str(person.pk)):
        assert secret not in text
        assert secret not in site.get(reverse("desk_delivery", args=[owed.jti])).content.decode()


def test_what_is_late_leads_and_what_is_done_goes(site, left, owed):
    older = factories.joined(
        factories.PersonFactory(), left.service, at=timezone.now() - datetime.timedelta(days=60)
    )
    lifecycle.leave(
        older, erase=False, by=Actor.person(older.person), at=timezone.now() - datetime.timedelta(days=40)
    )
    late = Delivery.objects.get(subscription=older, organization=left.operator, event="subscription-ended")
    answer = site.get(reverse("desk"))
    inbox = [row.delivery.jti for row in answer.context["rows"]]
    assert inbox.index(late.jti) < inbox.index(owed.jti)
    assert "늦음" in answer.content.decode()
    assert answer.context["numbers"]["late"] >= 1
    confirm(site, late, step="stopped")
    assert late.jti not in [row.delivery.jti for row in site.get(reverse("desk")).context["rows"]]


def test_news_waits_in_the_inbox_only_where_a_person_must_confirm_it(site, left):
    news = Delivery.objects.get(subscription=left, organization=left.operator, event="consent-granted")
    fresh = factories.joined(factories.PersonFactory(), left.service, at=timezone.now())
    granted = Delivery.objects.get(subscription=fresh, organization=left.operator)
    assert granted.state == "manual"  # no channel is open
    inbox = [row.delivery.jti for row in site.get(reverse("desk")).context["rows"]]
    assert granted.jti in inbox
    assert (news.jti in inbox) == (news.closed_at is None)
    Delivery.objects.filter(pk=granted.pk).update(state="queued", next_at=timezone.now())
    assert granted.jti not in [row.delivery.jti for row in site.get(reverse("desk")).context["rows"]]


def test_the_pages_of_the_inbox_follow_each_other(site, left):
    at = timezone.now()
    for _ in range(paging.SIZE + 3):
        other = factories.joined(
            factories.PersonFactory(), left.service, at=at - datetime.timedelta(days=30), optional=False
        )
        lifecycle.leave(other, erase=True, by=Actor.person(other.person), at=at)
    seen, url = [], reverse("desk")
    while url:
        answer = site.get(url)
        seen += [row.delivery.jti for row in answer.context["rows"]]
        url = reverse("desk") + answer.context["next_url"] if answer.context["next_url"] else None
    own = Delivery.objects.filter(organization=left.operator, closed_at=None)
    assert len(seen) == len(set(seen))
    assert set(seen) == set(own.values_list("jti", flat=True))
    assert site.get(reverse("desk"), {"after": "nonsense"}).status_code == 400


LOCK = 4  # a savepoint, the role with its organization, and back: what a page reads behind the database's own lock


def test_the_number_of_queries_does_not_grow(site, left, owed):
    def count(name, *args):
        with CaptureQueriesContext(connection) as queries:
            assert site.get(reverse(name, args=args)).status_code == 200
        return len(queries)

    factories.ChannelFactory(organization=left.operator)
    count("desk")
    few = count("desk"), count("desk_deliveries"), count("desk_delivery", owed.jti)
    at = timezone.now()
    for _ in range(5):
        other = factories.joined(factories.PersonFactory(), left.service, at=at - datetime.timedelta(days=30))
        lifecycle.leave(other, erase=True, by=Actor.person(other.person), at=at)
        factories.offered(organization=left.operator)
    many = count("desk"), count("desk_deliveries"), count("desk_delivery", owed.jti)
    assert few == many
    assert max(many) <= 12 + LOCK


# --- confirming --------------------------------------------------------------------------------------------------------


def test_an_operator_without_an_api_confirms_everything_by_hand(site, admin, owed, left):
    assert confirm(site, owed, step="received", back="desk").url == reverse("desk")
    assert confirm(site, owed, step="stopped", note="배치를 껐어요.").status_code == 302
    digest = "ab" * 32
    answer = confirm(
        site,
        owed,
        step="erased",
        report_digest=digest,
        report_url="https://files.example.com/report.pdf",
        back="desk_delivery",
    )
    assert answer.url == reverse("desk_delivery", args=[owed.jti])
    owed.refresh_from_db()
    left.refresh_from_db()
    assert (owed.state, left.erasure, left.holds) == ("erased", "confirmed", False)
    erased = owed.evidence.get(status="erased")
    assert (erased.means, erased.report_url) == ("desk", "https://files.example.com/report.pdf")
    said = json.loads(erased.document)
    assert said["confirmed_by"] == str(admin.pk)
    assert said["report_digest"] == digest
    assert erased.document == rfc8785.dumps(said).decode()
    assert erased.digest == f"sha256:{hashlib.sha256(erased.document.encode()).hexdigest()}"
    entry = EntryIndex.objects.get(typ="delivery.erased", jti=owed.jti)
    assert (entry.actor_kind, entry.actor_id) == ("organization", str(admin.pk))
    shown = site.get(reverse("desk_delivery", args=[owed.jti])).content.decode()
    assert erased.digest in shown
    assert "더 할 일이 없어요" in shown


@pytest.mark.parametrize("given", [{"step": "received"}, {"step": "stopped"}, {"step": "erased"}, KEPT])
def test_the_same_confirmation_twice_counts_once(site, owed, given):
    first = site.post(reverse("confirm_delivery", args=[owed.jti]), given, follow=True)
    assert "확인을 기록했어요" in first.content.decode()
    after_one = written()
    again = site.post(reverse("confirm_delivery", args=[owed.jti]), given, follow=True)
    assert again.status_code == 200
    assert "이미 끝난 일이에요" in again.content.decode()
    assert written() == after_one


def test_going_backwards_changes_nothing(site, owed):
    confirm(site, owed, step="erased")
    before = written()
    for given in ({"step": "stopped"}, {"step": "received"}, KEPT):
        assert confirm(site, owed, **given).status_code == 302
    assert written() == before


def test_keeping_by_law_is_told_with_its_basis_and_erasing_can_follow(site, owed, left):
    confirm(site, owed, **KEPT)
    owed.refresh_from_db()
    left.refresh_from_db()
    assert (left.erasure, left.holds) == ("refused", True)
    assert left.erasure_refusal == "전자금융거래법 제22조 (~ 2030-01-01)"
    assert owed.closed_at
    assert [
        row.delivery.jti for row in site.get(reverse("desk")).context["rows"] if row.delivery.jti == owed.jti
    ] == []
    assert 'id="step-erased"' in site.get(reverse("desk_delivery", args=[owed.jti])).content.decode()
    confirm(site, owed, step="erased")
    left.refresh_from_db()
    assert left.erasure == "confirmed"


def test_a_source_can_only_stop(asked_source):
    site = browser(admin_of(asked_source.organization))
    text = site.get(reverse("desk_delivery", args=[asked_source.jti])).content.decode()
    assert "이 서비스로 정보를 더 보내지 마세요." in text
    assert 'id="step-erased"' not in text
    before = written()
    for given in ({"step": "erased"}, KEPT):
        assert confirm(site, asked_source, **given).status_code == 302
    assert written() == before
    confirm(site, asked_source, step="stopped")
    asked_source.refresh_from_db()
    assert asked_source.closed_at


@pytest.mark.parametrize(
    "given",
    [{}, {"step": ""}, {"step": "confirmed"}, {"step": "x" * 100_000}, {"step": "received", "state": "erased"},
     {"step": "received", "back": "https://evil.example"}, {"step": "stopped", "note": "가" * 501}, {"step": "stopped", "note": "a\x00b"},
     {"step": "erased", "report_digest": "sha1:abc"}, {"step": "erased", "report_url": "http://files.example.com/x"},
     {"step": "erased", "report_url": "javascript:alert(1)"}, {"step": "erased", "report_url": "https://a.example/" + "x" * 500},
     {"step": "erased", "legal_basis": "법"}, {"step": "retained"}, {**KEPT, "legal_basis": ""}, {**KEPT, "legal_basis": "가" * 201},
     {**KEPT, "retained_until": "2020-01-01"}, {**KEPT, "retained_until": "9999-12-31"}, {**KEPT, "retained_until": "soon"},
     {**KEPT, "legal_basis": "법 \u202e 제22조"}, {"step": ["received", "stopped"]}],
)  # fmt: skip
def test_a_bad_confirmation_is_refused_in_words_and_changes_nothing(site, owed, given):
    before = written()
    answer = confirm(site, owed, **given)
    assert answer.status_code == 400
    text = answer.content.decode()
    assert "다시 한번 살펴봐 주세요" in text or "보낸 내용을 알아듣지 못했어요" in text
    assert written() == before


def test_what_was_typed_stays_when_it_must_be_corrected(site, owed):
    answer = confirm(
        site, owed, **{**KEPT, "legal_basis": "전자금융거래법 제22조 제1항", "retained_until": "2020-01-01"}
    )
    text = answer.content.decode()
    assert "전자금융거래법 제22조 제1항" in text
    assert "오늘보다 뒤의 날을 써 주세요." in text


# --- the delivery log --------------------------------------------------------------------------------------------------


def test_the_delivery_log_is_filtered_and_paged(site, owed, left):
    def listed(**filters):
        answer = site.get(reverse("desk_deliveries"), filters)
        assert answer.status_code == 200
        return [row.jti for row in answer.context["rows"]]

    confirm(site, owed, step="received")
    assert set(listed()) == set(
        Delivery.objects.filter(organization=left.operator).values_list("jti", flat=True)
    )
    assert listed(state="received") == [owed.jti]
    assert listed(event="subscription-ended") == [owed.jti]
    assert listed(jti=str(owed.jti)) == [owed.jti]
    assert listed(state="dead") == []
    for bad in ({"state": "lost"}, {"event": "x"}, {"jti": "1"}, {"after": "x"}, {"limit": "1"}):
        answer = site.get(reverse("desk_deliveries"), bad)
        assert answer.status_code == 400, bad
        assert "다시 한번 살펴봐 주세요" in answer.content.decode()


def test_a_delivery_shows_its_answers_and_its_message(site, owed):
    Delivery.objects.filter(pk=owed.pk).update(attempts=3, http_status=502, last_error="bad gateway <b>")
    text = html.unescape(site.get(reverse("desk_delivery", args=[owed.jti])).content.decode())
    assert "HTTP 502" in text
    assert "bad gateway <b>" in text
    assert owed.set_compact not in text
    assert '"delete_data": true' in text


def test_the_desk_shows_its_channel_and_its_terms(site, left):
    text = site.get(reverse("desk")).content.decode()
    assert "열린 연결이 없어요" in text
    assert left.service.name_ko in text
    factories.ChannelFactory(organization=left.operator)
    text = site.get(reverse("desk")).content.decode()
    assert "이 업무함이 곧 연결이에요" in text
    assert "1판" in text


# --- consent requests that were lodged ---------------------------------------------------------------------------------------


def test_lodged_requests_are_listed_with_their_outcome_and_without_people(
    person, django_assert_max_num_queries
):
    from consents import lifecycle, requests

    service = factories.offered()
    operator, at = service.organization, timezone.now()
    by = Actor.organization(operator)
    for _ in range(25):
        requests.lodge(organization=operator, service=service, by=by, at=at - datetime.timedelta(hours=1))
    asked = requests.lodge(organization=operator, service=service, by=by, at=at)
    terms = service.terms.get(state="published")
    choices = [lifecycle.Choice(item) for item in terms.items.filter(required=True)]
    me = Actor.person(person)
    requests.accept(asked, person=person, terms=terms, choices=choices, language="ko", by=me, at=at)
    other = factories.offered()
    requests.lodge(organization=other.organization, service=other, by=by, at=at)
    client = browser(admin_of(operator))
    with django_assert_max_num_queries(12):
        shown = client.get("/desk/requests/")
    text = shown.content.decode()
    assert "4개 가운데 1개 항목" in text and other.name_ko not in text
    assert person.name not in text and str(person.subject_id) not in text
    assert len(shown.context["rows"]) == 20
    second = client.get("/desk/requests/" + shown.context["next_url"])
    assert len(second.context["rows"]) == 6
    assert client.get("/desk/requests/?after=zzz").status_code == 404
