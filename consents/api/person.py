"""JSON doors of the person: what holds my data, and making it stop."""

import datetime
from dataclasses import asdict

from django.db.models import Q
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, checks, lifecycle
from consents.actors import Actor
from consents.api import documents, receipts, shapes
from consents.api.authentication import BrowserAuthentication, Consumer, TokenAuthentication
from consents.api.doors import Door, results
from consents.api.idempotency import once
from consents.api.paging import PageQuery, page
from consents.api.problems import TYPES, Problem, body, slug_of
from consents.ledger import disclosures
from consents.ledger.entries import SEOUL
from consents.models import Consent, Delivery, EntryIndex, Evidence, Lookup, Notice, Subscription
from consents.queries import person as queries
from providers.models import Service, Terms

ENTRIES = ("operator", "party")


class PersonDoor(Door):
    """A door for the consumer, by token or by the portal's own pages."""

    authentication_classes = [TokenAuthentication, BrowserAuthentication]
    permission_classes = [Consumer]

    @property
    def actor(self) -> Actor:
        return Actor.person(self.request.user)


class Summary(PersonDoor):
    @extend_schema(
        operation_id="me_summary", summary=_("몇 곳이 내 정보를 가지고 있는지"), tags=["person"], responses=documents.Summary,
        examples=[
            OpenApiExample(
                "seven", response_only=True,
                value={"operators_holding": 7, "receiving": 5, "held_after_end": 2, "subscriptions": 6, "notices": 3},
            )
        ],
    )  # fmt: skip
    def get(self, request):
        """The numbers of the home page."""
        return Response(documents.Summary(asdict(queries.summary(request.user))).data)


class SubscriptionsQuery(PageQuery):
    state = serializers.ChoiceField(Subscription.State.choices, required=False)


class Subscriptions(PersonDoor):
    @extend_schema(
        operation_id="me_subscriptions", summary=_("내 가입(새것부터)"), tags=["person"],
        parameters=[SubscriptionsQuery], responses=results(documents.Subscription, "SubscriptionPage"),
    )  # fmt: skip
    def get(self, request):
        """Every subscription, ended ones too. `holds` says whether the operator still has data."""
        query = self.query(SubscriptionsQuery)
        rows = Subscription.objects.filter(person=request.user).select_related("service", "operator")
        if "state" in query:
            rows = rows.filter(state=query["state"])
        found, following = page(rows, order="-id", name=f"subscriptions of {request.user.pk}", query=query)
        return Response({"results": documents.Subscription(found, many=True).data, "next": following})


class OneSubscription(PersonDoor):
    @extend_schema(
        operation_id="me_subscription", summary=_("가입 하나와 그 안의 동의, 전달"), tags=["person"],
        responses=documents.SubscriptionDetail,
    )  # fmt: skip
    def get(self, request, pk):
        """`deliveries` is the stop tracker: one line for each organization and act."""
        subscription = access.own_subscription(request, pk)
        return Response(documents.SubscriptionDetail(_detailed([subscription])[0]).data)


class Join(PersonDoor):
    @extend_schema(
        operation_id="join_service", summary=_("서비스에 가입하기"), tags=["person"], request=shapes.Joining,
        responses={201: documents.Act},
        examples=[
            OpenApiExample(
                "the required item, with the memo rider off", request_only=True,
                value={
                    "terms": "019a0000-0000-7000-8000-000000000001", "version": 1, "language": "ko",
                    "items": [{"item": 12, "riders": []}],
                },
            )
        ],
    )  # fmt: skip
    @once
    def post(self, request, slug):
        """Show `GET /me/summary` and the terms first. Items left out are recorded as declined; optional ones may be."""
        asked = self.read(shapes.Joining)
        service = get_object_or_404(Service.objects.select_related("organization"), slug=slug)
        terms = Terms.objects.filter(service=service, pk=asked["terms"]).first()
        if terms is None or asked.get("version", terms.version) != terms.version:
            raise Problem("terms-changed")
        subscription = lifecycle.join(
            person=request.user, service=service, terms=terms, choices=_choices(terms, asked["items"]),
            language=asked["language"], until_on=asked.get("until_on"), by=self.actor, at=timezone.now(),
        )  # fmt: skip
        headers = {"Location": f"/api/v1/me/subscriptions/{subscription.pk}"}
        return Response(_act("subscription.joined", subscription), 201, headers=headers)


def _choices(terms: Terms, items: list[dict]) -> list[lifecycle.Choice]:
    offered = {item.pk: item for item in terms.items.all()}
    if any(chosen["item"] not in offered for chosen in items):
        raise Problem("not-offered")
    return [lifecycle.Choice(offered[chosen["item"]], tuple(chosen["riders"])) for chosen in items]


class End(PersonDoor):
    never_refused = True

    @extend_schema(
        operation_id="end_subscription", summary=_("서비스 그만두기(탈퇴)"), tags=["person"], request=shapes.Ending,
        responses=documents.Act, examples=[OpenApiExample("leave and erase", value={"erase": True}, request_only=True)],
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """Ends every consent in it and tells everyone concerned. Stopping does not erase: `erase` must be said."""
        asked = self.read(shapes.Ending)
        subscription = access.own_subscription(request, pk)
        subscription = lifecycle.leave(subscription, erase=asked["erase"], by=self.actor, at=timezone.now())
        return Response(_act("subscription.ended", subscription))


class EndMany(PersonDoor):
    never_refused = True

    @extend_schema(
        operation_id="end_subscriptions", summary=_("여러 서비스를 한 번에 그만두기"), tags=["person"],
        request=shapes.Endings, responses=documents.ActResults,
    )  # fmt: skip
    @once
    def post(self, request):
        """Each on its own, with its own result; an empty list is an error, never `all`."""
        asked = self.read(shapes.Endings)
        own = Subscription.objects.filter(person=request.user).in_bulk(asked["subscriptions"])
        return Response(
            {"results": [self._end(own.get(pk), pk, erase=asked["erase"]) for pk in asked["subscriptions"]]}
        )

    def _end(self, subscription, pk, *, erase: bool) -> dict:
        if subscription is None:
            return {"id": str(pk), "status": 404, "problem": body("not-found")}
        try:
            ended = lifecycle.leave(subscription, erase=erase, by=self.actor, at=timezone.now())
        except lifecycle.Refused as refusal:
            slug = slug_of(refusal)
            return {"id": str(pk), "status": TYPES[slug][0], "problem": body(slug)}
        return {"id": str(pk), "status": 200, "act": _act("subscription.ended", ended)}


class Erase(PersonDoor):
    never_refused = True

    @extend_schema(
        operation_id="erase_subscription", summary=_("받아간 정보를 지워 달라고 하기"), tags=["person"],
        request=shapes.Nothing, responses=documents.Act,
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """After leaving without it. The operator holds until it confirms."""
        self.read(shapes.Nothing)
        subscription = access.own_subscription(request, pk)
        return Response(
            _act("erasure.requested", lifecycle.erase(subscription, by=self.actor, at=timezone.now()))
        )


class Withdraw(PersonDoor):
    never_refused = True

    @extend_schema(
        operation_id="withdraw_consent", summary=_("연동 끊기(전송요구 철회)"), tags=["person"], request=shapes.Ending,
        responses=documents.Act,
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """Data stops flowing; the subscription goes on, and the operator still holds what it received."""
        asked = self.read(shapes.Ending)
        consent = access.own_consent(request, pk)
        consent = lifecycle.withdraw(consent, erase=asked["erase"], by=self.actor, at=timezone.now())
        return Response(_consent_act("consent.withdrawn", consent))


class Pause(PersonDoor):
    @extend_schema(
        operation_id="pause_consent", summary=_("연동 잠시 멈추기"), tags=["person"], request=shapes.Pausing,
        responses=documents.Act,
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """Until it is resumed, or until a day."""
        asked = self.read(shapes.Pausing)
        consent = access.own_consent(request, pk)
        consent = lifecycle.pause(consent, until_on=asked.get("until_on"), by=self.actor, at=timezone.now())
        return Response(_consent_act("consent.paused", consent))


class Resume(PersonDoor):
    @extend_schema(
        operation_id="resume_consent", summary=_("멈춘 연동 다시 잇기"), tags=["person"], request=shapes.Nothing,
        responses=documents.Act,
    )  # fmt: skip
    @once
    def post(self, request, pk):
        """Data flows again."""
        self.read(shapes.Nothing)
        consent = access.own_consent(request, pk)
        return Response(
            _consent_act("consent.resumed", lifecycle.resume(consent, by=self.actor, at=timezone.now()))
        )


class HistoryQuery(PageQuery):
    on = shapes.Day(required=False, help_text="a day in Seoul: its facts, and who held my data on it")

    def validate_on(self, on):
        if on.year < 2000 or on > timezone.localdate():
            raise serializers.ValidationError(_("2000년부터 오늘 사이의 날을 골라 주세요."))
        return on


class HistoryPage(results(documents.Entry, "EntryPage")):  # type: ignore[misc]
    on = serializers.DateField(allow_null=True)
    holders = documents.Subscription(many=True, help_text="only with `on`: as they stand today")


class History(PersonDoor):
    @extend_schema(
        operation_id="me_history", summary=_("나에 대한 모든 기록(새것부터), 그날 누가 가지고 있었는지"), tags=["person"], parameters=[HistoryQuery],
        responses=HistoryPage,
    )  # fmt: skip
    def get(self, request):
        """With `on`, the facts of that day, and `holders`: whoever held my data at some moment of it."""
        query = self.query(HistoryQuery)
        entries = EntryIndex.objects.filter(person=request.user).select_related(*ENTRIES)
        holders: list[Subscription] = []
        if on := query.get("on"):
            start = datetime.datetime.combine(on, datetime.time(), tzinfo=SEOUL)
            end = start + datetime.timedelta(days=1)
            entries = entries.filter(at__gte=start, at__lt=end)
            holders = list(
                Subscription.objects.filter(person=request.user, joined_at__lt=end)
                .filter(Q(erasure_confirmed_at__isnull=True) | Q(erasure_confirmed_at__gte=start))
                .select_related("service", "operator")
            )
        found, following = page(entries, order="-seq", name=f"history of {request.user.pk}", query=query)
        shown = {"results": found, "next": following, "on": on, "holders": holders}
        return Response(HistoryPage(shown).data)


class Notices(PersonDoor):
    @extend_schema(
        operation_id="me_notices", summary=_("알림과 내가 한 답"), tags=["person"], parameters=[PageQuery],
        responses=results(documents.Notice, "NoticePage"),
    )  # fmt: skip
    def get(self, request):
        """Newest first."""
        notices = Notice.objects.filter(person=request.user)
        found, following = page(
            notices, order="-id", name=f"notices of {request.user.pk}", query=self.query(PageQuery)
        )
        return Response({"results": documents.Notice(found, many=True).data, "next": following})


class ExportedEntry(documents.Entry):
    disclosed = serializers.DictField(help_text="the fields behind the entry's digests")


class ExportedEvidence(documents.Evidence):
    document = serializers.CharField()


class LookupFact(serializers.Serializer):
    event_id = serializers.UUIDField()
    case = serializers.CharField()
    reason = serializers.CharField()
    at = shapes.Instant()


class Me(serializers.Serializer):
    subject_id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()
    language = serializers.CharField()
    born_on = serializers.DateField(allow_null=True)
    joined_at = shapes.Instant()


class Everything(serializers.Serializer):
    person = Me()
    subscriptions = documents.SubscriptionDetail(many=True)
    notices = documents.Notice(many=True)
    entries = ExportedEntry(many=True)
    evidence = ExportedEvidence(many=True)
    lookups = LookupFact(many=True, help_text="who at the regulator found out who I am, and why")


class Export(PersonDoor):
    @extend_schema(
        operation_id="me_export",
        summary=_("나에 대한 모든 것을 문서 하나로"),
        tags=["person"],
        responses=Everything,
    )
    def get(self, request):
        """Eleven queries, whatever the number of rows."""
        person = request.user
        entries = list(EntryIndex.objects.filter(person=person).select_related(*ENTRIES).order_by("seq"))
        disclosed = disclosures.disclosed([entry.event_id for entry in entries])
        for entry in entries:
            entry.disclosed = disclosed[entry.event_id]  # type: ignore[attr-defined]
        everything = {
            "person": person,
            "subscriptions": _detailed(
                Subscription.objects.filter(person=person)
                .select_related("service", "operator")
                .order_by("id")
            ),
            "notices": Notice.objects.filter(person=person),
            "entries": entries,
            "evidence": Evidence.objects.filter(delivery__person=person).select_related("delivery"),
            "lookups": Lookup.objects.filter(person=person),
        }
        headers = {"Content-Disposition": 'attachment; filename="bangjiteok-export.json"'}
        return Response(Everything(everything).data, headers=headers)


def _detailed(subscriptions) -> list["_Detailed"]:
    """Subscriptions with their consents and deliveries. Two more queries, whatever the number."""
    found = [{"row": subscription, "consents": [], "deliveries": []} for subscription in subscriptions]
    by_id = {one["row"].pk: one for one in found}
    for consent in (
        Consent.objects.filter(subscription__in=by_id).select_related("source", "recipient").order_by("id")
    ):
        by_id[consent.subscription_id]["consents"].append(consent)
    for delivery in (
        checks.with_looks(Delivery.objects.filter(subscription__in=by_id, replay_of__isnull=True))
        .select_related("organization")
        .order_by("id")
    ):
        seen = checks.seen(delivery)
        delivery.seen_by_portal = sorted(seen)  # type: ignore[attr-defined]
        if "received" in seen:  # for this document only: nobody said so
            delivery.received_at = None
        by_id[delivery.subscription_id]["deliveries"].append(delivery)
    return [_Detailed(**one) for one in found]


class _Detailed:
    """A subscription's own fields, and the lists beside them."""

    def __init__(self, row: Subscription, consents: list[Consent], deliveries: list[Delivery]):
        self._row, self.consents, self.deliveries = row, consents, deliveries

    def __getattr__(self, name: str):
        return getattr(self._row, name)


def _act(typ: str, subscription: Subscription) -> dict:
    done = {"id": subscription.pk, "state": subscription.state, "erasure": subscription.erasure}
    return documents.Act(done | receipts.of(typ, subscription)).data


def _consent_act(typ: str, consent: Consent) -> dict:
    done = {"id": consent.pk, "state": consent.state, "erasure": consent.erasure}
    return documents.Act(done | receipts.of(typ, consent.subscription, consent=consent)).data
