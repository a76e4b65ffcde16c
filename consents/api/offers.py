"""The JSON doors of what an operator offers: its services, and the terms they publish. Everybody may read them."""

import re
import unicodedata

from django.core.exceptions import ValidationError
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import publishing
from consents.api import documents, examples, shapes
from consents.api.authentication import Operator
from consents.api.idempotency import once
from consents.api.operator import OperatorDoor
from consents.api.problems import Problem, StrictJSONParser
from consents.api.public import service_shown
from consents.forms.strict import visible
from providers import offers, registry
from providers.models import Service, Terms, TermsItem
from providers.models.catalogue import Rider

LARGEST = 262_144  # bytes of terms: two texts of 100 kB
LONGEST_TEXT = 100_000
CLIENT_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,48}[a-z0-9])?")
APP_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,49}://[A-Za-z0-9._~/-]{0,47}")
BROWSERS = ("http", "https", "javascript", "data", "file")  # schemes that open something else than an app
SCRIPTS = ("LATIN", "HANGUL", "CJK")


def plain(text: str) -> None:
    """No invisible signs, and no letters of scripts that only look like ours (T11)."""
    visible(text)
    if any(sign.isalpha() and not unicodedata.name(sign, "").startswith(SCRIPTS) for sign in text):
        raise ValidationError(_("한글, 한자, 로마자로만 적어 주세요."))


def of_an_app(scheme: str) -> None:
    if not APP_SCHEME.fullmatch(scheme) or scheme.partition(":")[0] in BROWSERS:
        raise ValidationError(_("앱을 여는 주소를 durumi://처럼 적어 주세요."))


class Words(shapes.Text):
    def __init__(self, **options):
        super().__init__(validators=[plain], **options)


class Offer(shapes.Strict):
    """What is said about a service, in both languages."""

    name_ko = Words(max_length=80)
    name_en = Words(max_length=120)
    summary_ko = Words(max_length=200)
    summary_en = Words(max_length=200)
    benefit_ko = Words(max_length=300)
    benefit_en = Words(max_length=300)
    loss_ko = Words(max_length=300, help_text="what stops working when it ends")
    loss_en = Words(max_length=300)
    purpose_code = serializers.ChoiceField(offers.PURPOSES)
    app_schemes = serializers.ListField(
        child=shapes.Text(max_length=100, validators=[of_an_app]), max_length=10, required=False,
        help_text="that open its apps (지원-003), like `durumi://`; as they were if not given",
    )  # fmt: skip


class OfferedItem(shapes.Strict):
    """One thing asked, with the seven items the law demands."""

    kind = serializers.ChoiceField(TermsItem.Kind.choices)
    required = shapes.Flag()  # type: ignore[assignment]
    source = shapes.Text(  # type: ignore[assignment]
        max_length=10,
        required=False,
        default="",
        allow_blank=True,
        help_text="organization code; transfer only",
    )
    recipient = shapes.Text(
        max_length=10,
        required=False,
        default="",
        allow_blank=True,
        help_text="organization code; third_party only",
    )
    title_ko = Words(max_length=120)
    title_en = Words(max_length=160)
    scopes = serializers.ListField(
        child=shapes.Text(max_length=40), max_length=100, required=False, default=list
    )
    riders = serializers.ListField(
        child=serializers.ChoiceField(Rider.choices), max_length=3, required=False, default=list
    )
    cycle = serializers.ChoiceField(["", "1/1w", "1/2w", "1/3w", "1/4w"], required=False, default="")
    valid_months = shapes.Whole(min_value=1, max_value=60)
    purpose_ko = Words(max_length=200)
    purpose_en = Words(max_length=200)
    retention_days = shapes.Whole(
        min_value=1, max_value=36_500, required=False, allow_null=True, default=None,
        help_text="after the end; null: until the person leaves or asks",
    )  # fmt: skip
    retention_ko = Words(max_length=200)
    retention_en = Words(max_length=200)
    paid = shapes.Flag(required=False, default=False, help_text="money is paid for the data")
    grade = serializers.ChoiceField(["", "01", "02", "03", "04", "05"], required=False, default="")

    def validate(self, item):
        kind, wrong = item["kind"], {}
        for name, fitting in (("source", "transfer"), ("recipient", "third_party")):
            if bool(item[name]) != (kind == fitting):
                wrong[name] = [_("이 종류의 항목에는 맞지 않아요.")]
        if kind in ("transfer", "third_party") and not item["scopes"]:
            wrong["scopes"] = [_("무엇을 받는지 적어 주세요.")]
        if item["required"] and kind in ("third_party", "marketing"):
            wrong["required"] = [_("광고와 제3자 제공은 꼭 필요한 동의일 수 없어요.")]
        if item["required"] and item["grade"]:
            wrong["grade"] = [_("등급은 선택 항목에만 있어요.")]
        if wrong:
            raise serializers.ValidationError(wrong)
        return item


class Version(shapes.Strict):
    """One version of terms. Markdown, at most 100 kB in each language."""

    change_kind = serializers.ChoiceField(Terms.Change.choices)
    change_reason_ko = shapes.Text(
        max_length=300, required=False, default="", allow_blank=True, validators=[visible]
    )
    change_reason_en = shapes.Text(
        max_length=300, required=False, default="", allow_blank=True, validators=[visible]
    )
    summary_ko = Words(max_length=300)
    summary_en = Words(max_length=300)
    text_ko = shapes.Text(max_length=LONGEST_TEXT, trim_whitespace=False, validators=[visible])
    text_en = shapes.Text(max_length=LONGEST_TEXT, trim_whitespace=False, validators=[visible])
    items = serializers.ListField(child=OfferedItem(), min_length=1, max_length=100)

    def validate(self, asked):
        if asked["change_kind"] != Terms.Change.FIRST and not asked["change_reason_ko"].strip():
            raise serializers.ValidationError({"change_reason_ko": [_("무엇이 왜 바뀌었는지 적어 주세요.")]})
        sources = [item["source"] for item in asked["items"] if item["source"]]
        if len(set(sources)) < len(sources):
            raise serializers.ValidationError({"items": [_("한 곳의 정보는 한 항목으로 물어 주세요.")]})
        return asked


class ReadableByAll(Operator):
    """Operators write; whoever comes may read."""

    def has_permission(self, request, view) -> bool:
        return request.method in ("GET", "HEAD") or super().has_permission(request, view)


class OneService(OperatorDoor):
    scope = "requests:write"
    permission_classes = [ReadableByAll]
    http_method_names = ["get", "head", "put"]

    @extend_schema(
        operation_id="service", summary=_("서비스 하나와 게시된 약관"), tags=["public"],
        responses=documents.ServiceDetail, auth=[],
    )  # fmt: skip
    def get(self, request, slug):
        """`terms` is what `POST /services/{slug}/subscriptions` must name; null while nothing is published."""
        return Response(service_shown(slug))

    @extend_schema(
        operation_id="put_service", summary=_("우리 서비스를 등록하거나 고치기"), tags=["operator"], request=Offer,
        responses={200: documents.Service, 201: documents.Service},
        examples=[OpenApiExample("a service", request_only=True, value=examples.OFFER)],
    )  # fmt: skip
    def put(self, request, slug):
        """Here `slug` is the client_id. A new one is registered (201); it can be joined once it has published terms. The names
        stay as they are from then on, because people have agreed to them. A name that is another company's or its service's, or
        looks like it, is 409 `name-is-taken`; a closed service stays as it is: 409 `closed`."""
        given = self.read(Offer)
        if not CLIENT_ID.fullmatch(slug):
            raise Http404
        try:
            service, is_new = offers.put_service(
                organization=request.organization,
                client_id=slug,
                given=given,
                by=self.actor,
                at=timezone.now(),
            )
        except offers.NotOwn as error:
            raise Http404 from error
        except offers.NameIsAgreed as error:
            raise Problem("name-is-agreed") from error
        except offers.NameIsTaken as error:
            raise Problem("name-is-taken") from error
        except offers.Closed as error:
            raise Problem("closed") from error
        return Response(documents.Service(service).data, 201 if is_new else 200)


class PublishTerms(OperatorDoor):
    scope = "requests:write"
    parser_classes = [type("TermsParser", (StrictJSONParser,), {"largest": LARGEST})]

    @extend_schema(
        operation_id="publish_terms", summary=_("새 약관 게시하기"), tags=["operator"], request=Version,
        responses={201: documents.TermsDetail},
        examples=[OpenApiExample("a first version", request_only=True, value=examples.VERSION)],
    )  # fmt: skip
    @once
    def post(self, request, slug):
        """Here `slug` is the client_id. Published at once and for good: a correction is the next version, and the version before
        is retired. A change of purpose, recipient, retention, scope or cycle is `material`; calling it anything else is 409."""
        asked = dict(self.read(Version))
        service = get_object_or_404(Service, client_id=slug, organization=request.organization)
        try:
            terms = publishing.publish_version(
                service, items=asked.pop("items"), given=asked, by=self.actor, at=timezone.now()
            )
        except offers.Closed as error:
            raise Problem("closed") from error
        except offers.NotFirst as error:
            raise Problem(
                "terms-changed", detail=_("first는 첫 약관에만, 그리고 첫 약관에는 first만 써요.")
            ) from error
        except offers.UnknownPart as error:
            place = {"pointer": f"#/{error.place}", "detail": str(_("모르는 기관이나 정보 항목이에요."))}
            raise Problem("invalid-request", errors=[place]) from error
        except registry.TermsIncomplete as error:
            places = [{"pointer": f"#/{name}", "detail": str(_("빠졌어요."))} for name in error.missing]
            raise Problem("invalid-request", errors=places) from error
        except registry.ChangeIsMaterial as error:
            raise Problem("change-is-material", detail=", ".join(error.differences)) from error
        terms.listed = list(  # type: ignore[attr-defined]
            terms.items.select_related("source", "recipient").order_by("position")
        )
        return Response(documents.TermsDetail(terms).data, 201)
