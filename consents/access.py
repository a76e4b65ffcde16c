"""Who may reach what: fetching and permission in one step, and the guard in front of every page.

Every view says who it is for with one of the marks below; the guard lets nobody else through, and nobody at all where
the mark is missing. What belongs to somebody else does not exist (404), so that nothing can be found out by asking.
"""

import functools
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from allauth.idp.oidc.models import Client
from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.urls import Resolver404, resolve, reverse
from django.utils.cache import add_never_cache_headers
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from consents.ledger.roles import ORGANIZATION as READER
from consents.models import (
    Case,
    ChannelChange,
    Consent,
    ConsentRequest,
    CountingCode,
    Delivery,
    EntryIndex,
    Evidence,
    GymRun,
    Member,
    Notice,
    Person,
    Reissue,
    Subscription,
    Upload,
)
from providers.models import ApiClient, Channel, ClientSecret

PUBLIC, PERSON, REGULATOR, OPERATOR_ADMIN, SIGNED_IN, API = (
    "public", "person", "regulator", "operator_admin", "signed_in", "api",
)  # fmt: skip
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
LARGEST_FORM = 262_144  # bytes, as DATA_UPLOAD_MAX_MEMORY_SIZE
# Pages of libraries, which carry no mark of ours: sign-in looks after itself, the rest is public by nature.
LIBRARIES = (
    "allauth.",
    "django.views.i18n",
    "django_prometheus.",
    "drf_spectacular.",
    "django.views.static",
    "django.contrib.staticfiles",
)


def _mark(rule):
    def mark(view):
        view.access = rule
        return view

    return mark


public = _mark(PUBLIC)
person = _mark(PERSON)
regulator = _mark(REGULATOR)
operator_admin = _mark(OPERATOR_ADMIN)
signed_in = _mark(SIGNED_IN)


def role(user) -> str | None:
    """person, regulator or operator_admin; None for a visitor. An account has exactly one role."""
    if not user.is_authenticated:
        return None
    if not hasattr(user, "_role"):
        member = Member.objects.select_related("organization").filter(person=user).first()
        user._role = member.role if member else PERSON
        user.organization = member.organization if member else None
    return user._role


def rule_of(view) -> str | None:
    """The access rule of a view function, or of the class behind it; None where nobody decided."""
    target = getattr(view, "view_class", None) or getattr(view, "cls", None) or view
    rule = getattr(target, "access", None) or getattr(view, "access", None)
    if rule is None and target.__module__.startswith(LIBRARIES):
        return PUBLIC
    return rule


class GuardMiddleware:
    """Refuses every page to whoever it is not for, and keeps signed-in pages out of every cache."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        if getattr(request, "user", None) is not None and request.user.is_authenticated:
            add_never_cache_headers(response)
            response["Cache-Control"] = "no-store, private"
        return response

    def process_view(self, request, view, args, kwargs):
        rule = rule_of(view)
        machine = rule == API or getattr(view, "csrf_exempt", False)  # reads its own body
        largest = getattr(view, "largest_form", LARGEST_FORM)
        if not machine and (refusal := _not_a_form(request, largest)):
            return refusal
        if rule in (PUBLIC, API):
            return None
        if rule is None:
            raise PermissionDenied(_("아직 열리지 않은 페이지예요."))
        if not request.user.is_authenticated:
            return redirect_to_login(request.get_full_path() if request.method == "GET" else reverse("start"))
        if rule != SIGNED_IN and role(request.user) != rule:
            raise PermissionDenied(_("이 페이지는 다른 역할의 계정으로 볼 수 있어요."))
        return None


def _not_a_form(request, largest: int) -> HttpResponse | None:
    """Pages take forms: another content type would read as an empty form, and be carried out as one."""
    if request.method not in ("POST", "PUT", "PATCH", "DELETE"):
        return None
    length = request.META.get("CONTENT_LENGTH") or "0"
    if not length.isascii() or not length.isdigit() or int(length) > largest:
        return render(request, "400.html", status=413)
    if int(length) and request.content_type not in FORM_TYPES:
        return render(request, "400.html", status=415)
    return None


@contextmanager
def rows_of(organization) -> Iterator[None]:
    """Within it the database itself shows this organization's rows and no others, whatever filter was forgotten. For reads
    alone: what it begins is rolled back, which gives the ordinary role back also inside another transaction."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_ONLY, [READER, str(organization.pk)])
        yield
        transaction.set_rollback(True)


_ONLY = "SELECT set_config('role', %s, true), set_config('portal.organization', %s, true)"


P = ParamSpec("P")
R = TypeVar("R")


def only_own(find: Callable[P, R]) -> Callable[P, R]:
    """What a function finds of the organization in its first argument, it finds within `rows_of`."""

    @functools.wraps(find)
    def found(*args: P.args, **kwargs: P.kwargs) -> R:
        with rows_of(args[0]):
            return find(*args, **kwargs)

    return found


def own_subscription(request, pk) -> Subscription:
    return get_object_or_404(
        Subscription.objects.select_related("service", "operator", "terms"), pk=pk, person=request.user
    )


def own_consent(request, pk) -> Consent:
    related = ("subscription__service", "subscription__operator", "source", "recipient", "terms_item")
    return get_object_or_404(Consent.objects.select_related(*related), pk=pk, person=request.user)


def any_case(pk) -> Case:
    """Any case, for the regulator: behind pseudonyms."""
    return get_object_or_404(Case.objects.select_related("organization", "subscription__service"), pk=pk)


@only_own
def organization_case(organization, pk) -> Case:
    """One of this organization's own cases."""
    rows = Case.objects.of(organization).select_related("organization", "subscription__service")
    return get_object_or_404(rows, pk=pk)


def own_way_back(request, pk, *, at) -> CountingCode:
    """A company's question for the visitor's number, with its return address, for a day."""
    rows = CountingCode.objects.select_related("organization").exclude(used_at=None)
    return get_object_or_404(rows, pk=pk, person=request.user, used_at__gt=at - CountingCode.WAY_BACK)


def own_notice(request, pk) -> Notice:
    return get_object_or_404(Notice.objects.select_related("subscription"), pk=pk, person=request.user)


def own_entry(request, event_id) -> EntryIndex:
    """A fact of the log about the visitor."""
    return get_object_or_404(EntryIndex, event_id=event_id, person=request.user)


def any_entry(event_id) -> EntryIndex:
    """Any fact of the log, for the regulator: behind pseudonyms."""
    return get_object_or_404(EntryIndex, event_id=event_id)


def organization_entry(organization, event_id) -> EntryIndex:
    """A fact of the log about one of this organization's own deliveries."""
    return get_object_or_404(
        EntryIndex, event_id=event_id, party=organization, typ__startswith="delivery.", jti__isnull=False
    )


def open_request(request, pk) -> ConsentRequest:
    """A lodged request: for anybody who holds its unguessable id, until one person takes it up."""
    related = ("service__organization", "terms", "organization")
    lodged = get_object_or_404(ConsentRequest.objects.select_related(*related), pk=pk)
    if lodged.person_id not in (None, request.user.pk):
        raise Http404
    return lodged


@only_own
def organization_delivery(organization, jti) -> Delivery:
    """One of this organization's own deliveries."""
    return get_object_or_404(Delivery.objects.of(organization).select_related("organization"), jti=jti)


@only_own
def addressed_delivery(organization, jti) -> Delivery:
    """One of this organization's own deliveries, by its id or by one under which it was signed anew."""
    rows = Delivery.objects.of(organization).only("jti")
    return rows.filter(jti=jti).first() or get_object_or_404(rows, reissues__jti=jti)


@only_own
def addressed(organization, jtis: set[uuid.UUID]) -> set[uuid.UUID]:
    """Those of the ids that name one of this organization's own deliveries, also one signed anew. One query."""
    own = Delivery.objects.of(organization).filter(jti__in=jtis).values_list("jti")
    anew = Reissue.objects.filter(jti__in=jtis, delivery__organization=organization).values_list("jti")
    return {jti for (jti,) in own.union(anew)}


@only_own
def party_consent(organization, pk) -> Consent:
    """A consent to which this organization is a party: as operator, source or third party."""
    operated = Subscription.objects.of(organization).filter(pk=OuterRef("subscription"))
    rows = Consent.objects.filter(Q(source=organization) | Q(recipient=organization) | Exists(operated))
    return get_object_or_404(rows, pk=pk)


@only_own
def has_part_in(organization, pk) -> bool:
    """Whether a subscription is this organization's, or one of its consents."""
    theirs = Q(source=organization) | Q(recipient=organization)
    return (
        Subscription.objects.of(organization).filter(pk=pk).exists()
        or Consent.objects.filter(theirs, subscription=pk).exists()
    )


def customer(organization, subject) -> Person:
    """The person whom messages call `subject`, where something of theirs is or was this organization's."""
    person = get_object_or_404(Person, subject_id=subject)
    if not _has_customer(organization, person.pk):
        raise Http404
    return person


@only_own
def _has_customer(organization, person) -> bool:
    theirs = Q(source=organization) | Q(recipient=organization)
    return (
        Subscription.objects.of(organization).filter(person=person).exists()
        or Consent.objects.filter(theirs, person=person).exists()
    )


@only_own
def delivery_about(organization, about: dict) -> Delivery:
    """The one delivery of this organization of which all of `about` is true."""
    return get_object_or_404(Delivery.objects.of(organization), **about)


@only_own
def own_evidence(organization, jti: str) -> Evidence:
    """Evidence that this organization handed in, with its delivery."""
    rows = Evidence.objects.of(organization).select_related("delivery", "organization")
    return get_object_or_404(rows, jti=jti)


@only_own
def own_channel(organization, pk) -> Channel:
    """A channel of this organization that is in use or being tested."""
    rows = Channel.objects.exclude(state=Channel.State.RETIRED).select_related("organization")
    return get_object_or_404(rows, pk=pk, organization=organization)


@only_own
def organization_channel(organization, which: str) -> Channel:
    """The channel in use (`open`), or the one of the change that is under way (`new`)."""
    rows = Channel.objects.filter(organization=organization).select_related("organization")
    if which == "new":
        return get_object_or_404(rows, state=Channel.State.TESTING, changes__closed_at__isnull=True)
    return get_object_or_404(rows, state=Channel.State.OPEN)


@only_own
def own_change(organization, pk) -> ChannelChange:
    """A change of this organization's channel."""
    return get_object_or_404(ChannelChange.objects.of(organization).select_related("channel"), pk=pk)


def own_app(request, client_id) -> Client:
    """An application that holds tokens of the visitor."""
    rows = Client.objects.filter(token__user=request.user).distinct()
    return get_object_or_404(rows, pk=client_id)


def own_client(organization, client_id) -> ApiClient:
    """A live OAuth2 client of this organization."""
    rows = ApiClient.objects.filter(retired_at__isnull=True).select_related("client", "organization")
    return get_object_or_404(rows, client=client_id, organization=organization)


def own_secret(organization, name) -> ClientSecret:
    """A secret of a live client of this organization, retired or not."""
    rows = ClientSecret.objects.filter(link__retired_at__isnull=True).select_related("link")
    return get_object_or_404(rows, name=name, link__organization=organization)


@only_own
def own_run(organization, pk) -> GymRun:
    """A trial run of this organization."""
    return get_object_or_404(GymRun.objects.of(organization).select_related("channel"), pk=pk)


@only_own
def own_upload(organization, pk) -> Upload:
    """A file that this organization sent."""
    return get_object_or_404(Upload.objects.of(organization), pk=pk)


def navigation(request) -> dict:
    """Template context: the links for this visitor's role, and how many notices wait."""
    user = getattr(request, "user", None)
    who = role(user) if user is not None else None
    links = {
        PERSON: [(_("내 정보"), "me"), (_("알림"), "notices"), (_("내역"), "history"), (_("서비스 찾기"), "services")],
        REGULATOR: [(_("기록 찾기"), "oversight"), (_("늦은 처리"), "overdue"), (_("맞춰 보기"), "reconciliation"), (_("기록 검증"), "integrity")],
        OPERATOR_ADMIN: [(_("업무함"), "desk"), (_("기록과 다른 일"), "desk_cases"), (_("전달 기록"), "desk_deliveries"), (_("파일로 알리기"), "desk_uploads"), (_("연결"), "desk_channel"), (_("연결 시험"), "desk_gym"), (_("API와 열쇠"), "desk_api")],
        None: [(pgettext("여럿", "마이데이터 회사"), "operators"), (pgettext("여럿", "서비스"), "services")],
    }[who]  # fmt: skip
    try:
        current = resolve(request.path_info).url_name
    except Resolver404:  # an unknown address still gets its 404 page with navigation
        current = None
    waiting = Notice.objects.filter(person=user, answer="").count() if who == PERSON else 0
    return {
        "nav": [{"label": label, "url": reverse(name), "current": name == current} for label, name in links],
        "notice_count": waiting,
        "visitor_role": who,
        "DEMO": settings.DEMO,
        "SANDBOX_URL": settings.SANDBOX_URL,
        "demo_links": [{"label": _("편지함"), "url": f"{settings.SANDBOX_URL}/mail/"}]
        if settings.SANDBOX_URL
        else [],
    }
