"""The JSON door of an operator's own sign-up screen: how many hold this person's data, by the person's code."""

from django.conf import settings
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import counting
from consents.api import limits, shapes
from consents.api.operator import OperatorDoor
from consents.queries import person

PER_MINUTE = 60  # codes that one operator may try


class Counting(shapes.Strict):
    code = shapes.Text(
        max_length=20, help_text="what the person copied from their portal page; good once, for minutes"
    )
    return_uri = shapes.Text(
        max_length=500, required=False, default="", allow_blank=True,
        help_text="where the person comes back to after tidying up: one of the client's redirect URIs, letter by letter",
    )  # fmt: skip


class Counted(serializers.Serializer):
    operators_holding = serializers.IntegerField(help_text="operators that hold the person's data")
    receiving = serializers.IntegerField(help_text="of these, with a live subscription")
    held_after_end = serializers.IntegerField(help_text="of these, left but not yet erased")
    sentence_ko = serializers.CharField(help_text="show this before the person joins")
    sentence_en = serializers.CharField()
    tidy_url = serializers.URLField(
        help_text="where the person can end what they no longer need; for them alone, one day"
    )


class HoldingCount(OperatorDoor):
    scope = "requests:write"

    @extend_schema(
        operation_id="holding_count", summary=_("가입 화면에 보여 줄, 이미 가지고 있는 곳의 수"), tags=["operator"],
        request=Counting, responses=Counted,
        examples=[OpenApiExample("from a sign-up screen", request_only=True, value={"code": "7KQ2M-X9PRT", "return_uri": "https://app.example.com/back"})],
    )  # fmt: skip
    def post(self, request):
        """What the regulator announced in 2021: whoever is about to join sees first how many hold their data already, and can tidy
        up. The person makes the code on their page; you learn the number and nothing else. 404 for a code that never
        was, was used, or is too old; at most 60 tries a minute."""
        limits.hold("holding-count", request.organization.code, most=PER_MINUTE)
        asked = self.read(Counting)
        row = counting.redeem(
            asked["code"], organization=request.organization, return_uri=asked["return_uri"], by=self.actor,
            at=timezone.now(),
        )  # fmt: skip
        summary = person.summary(row.person)
        answer = {
            "operators_holding": summary.operators_holding, "receiving": summary.receiving,
            "held_after_end": summary.held_after_end, "sentence_ko": sentence(summary.operators_holding, "ko"),
            "sentence_en": sentence(summary.operators_holding, "en"),
            "tidy_url": settings.PORTAL_URL + reverse("tidy", args=[row.pk]),
        }  # fmt: skip
        return Response(Counted(answer).data)


def sentence(number: int, language: str) -> str:
    """The sentence that was announced, in a language."""
    with translation.override(language):
        return ngettext(
            "이미 %(n)d곳이 내 정보를 가지고 있어요. 가입하기 전에 쓰지 않는 곳을 정리할 수 있어요.",
            "이미 %(n)d곳이 내 정보를 가지고 있어요. 가입하기 전에 쓰지 않는 곳을 정리할 수 있어요.",
            number,
        ) % {"n": number}
