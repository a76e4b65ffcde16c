"""The forms of JSON that come in: exactly these names, exactly these types."""

import datetime
import re

from django.core.validators import RegexValidator
from django.utils.translation import gettext_lazy as _
from rest_framework import serializers

from providers.models.catalogue import Rider

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Strict(serializers.Serializer):
    """Takes an object with exactly these names: an unknown one is an error, like a wrong one."""

    def to_internal_value(self, data):
        unknown = sorted(set(data) - set(self.fields)) if isinstance(data, dict) else []
        try:
            value = super().to_internal_value(data)
        except serializers.ValidationError as error:
            if unknown and isinstance(error.detail, dict):
                error.detail.update(_unknown(unknown))
            raise
        if unknown:
            raise serializers.ValidationError(_unknown(unknown))
        return value


def _unknown(names: list[str]) -> dict:
    return {name: [_("모르는 이름이에요.")] for name in names[:10]}


class Query(serializers.Serializer):
    """The parameters of a GET; an unknown, doubled or empty one is an error."""

    def to_internal_value(self, data):
        unknown = sorted(set(data) - set(self.fields))
        if unknown:
            raise serializers.ValidationError(_unknown(unknown))
        doubled = [name for name in data if len(data.getlist(name)) > 1]
        if doubled:
            raise serializers.ValidationError({name: [_("한 번만 써 주세요.")] for name in doubled})
        if empty := [name for name in data if data.get(name) == ""]:
            raise serializers.ValidationError(
                {name: [_("비워 두지 말고, 쓰지 않으면 빼 주세요.")] for name in empty}
            )
        return super().to_internal_value(data)


class Text(serializers.CharField):
    """A string and nothing that could become one."""

    def to_internal_value(self, data):
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class Flag(serializers.BooleanField):
    """true or false, in JSON's own words."""

    def to_internal_value(self, data):
        if not isinstance(data, bool):
            self.fail("invalid", input=data)
        return data


class Whole(serializers.IntegerField):
    """An integer, not a string of digits."""

    def to_internal_value(self, data):
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return super().to_internal_value(data)


class Identifier(serializers.UUIDField):
    """A UUID as 36 characters."""

    def to_internal_value(self, data):
        if not isinstance(data, str) or len(data) != 36:
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class Day(serializers.DateField):
    """YYYY-MM-DD."""

    def to_internal_value(self, data):
        if not isinstance(data, str) or len(data) != 10:
            self.fail("invalid", format="YYYY-MM-DD")
        return super().to_internal_value(data)


class Instant(serializers.DateTimeField):
    """RFC 3339 with a zone; out as UTC."""

    def __init__(self, **options):
        super().__init__(default_timezone=datetime.UTC, **options)

    def to_internal_value(self, data):
        if not isinstance(data, str) or not _RFC3339.fullmatch(data):
            self.fail("invalid", format="YYYY-MM-DDThh:mm:ssZ")
        return super().to_internal_value(data)


class Nothing(Strict):
    """An empty object, or no body."""


class Ending(Strict):
    erase = Flag(help_text="also ask for what was received to be destroyed; must be said")


class Endings(Strict):
    subscriptions = serializers.ListField(child=Identifier(), min_length=1, max_length=100)
    erase = Flag()

    def validate_subscriptions(self, ids):
        if len(set(ids)) != len(ids):
            raise serializers.ValidationError(_("같은 가입이 두 번 있어요."))
        return ids


class Pausing(Strict):
    until_on = Day(required=False, allow_null=True, help_text="the day it goes on again by itself")


class ChosenItem(Strict):
    item = Whole(min_value=1, max_value=2**63 - 1)
    riders = serializers.ListField(
        child=serializers.ChoiceField(Rider.choices), max_length=3, required=False, default=list
    )


class Joining(Strict):
    terms = Identifier(help_text="id of the published terms that were shown")
    version = Whole(min_value=1, required=False, help_text="its version number, checked if given")
    language = serializers.ChoiceField(["ko", "en"], help_text="the language they were shown in")
    items = serializers.ListField(child=ChosenItem(), min_length=1, max_length=100)
    until_on = Day(required=False, allow_null=True, help_text="an earlier end than the terms offer")

    def validate_items(self, items):
        if len({chosen["item"] for chosen in items}) != len(items):
            raise serializers.ValidationError(_("같은 항목이 두 번 있어요."))
        return items


CHALLENGE_WANTED = _("base64url 글자(A-Z, a-z, 0-9, -, _) 43개여야 해요: code_verifier의 SHA-256이에요.")


class Lodging(Strict):
    service = Text(max_length=50, help_text="client_id of one of the organization's own services")
    # Both are compared letter by letter, by us and by the client: nothing of them is trimmed.
    redirect_uri = Text(max_length=500, required=False, default="", allow_blank=True, trim_whitespace=False)
    state = Text(max_length=200, required=False, default="", allow_blank=True, trim_whitespace=False)
    code_challenge = Text(
        required=False,
        default="",
        allow_blank=True,
        validators=[RegexValidator(r"^[A-Za-z0-9_-]{43}\Z", CHALLENGE_WANTED)],
        help_text="PKCE (RFC 7636), S256: after a yes the browser comes back with a `code` for POST /consent-requests/redeem",
    )
    code_challenge_method = serializers.ChoiceField(["S256"], required=False)

    def validate(self, asked):
        if "code_challenge_method" in asked and not asked["code_challenge"]:
            raise serializers.ValidationError({"code_challenge": [CHALLENGE_WANTED]})
        if asked["code_challenge"] and not asked["redirect_uri"]:
            raise serializers.ValidationError(
                {"redirect_uri": [_("code_challenge에는 redirect_uri가 있어야 해요.")]}
            )
        return asked


class Redeeming(Strict):
    code = Text(max_length=200)
    code_verifier = Text(min_length=43, max_length=128, help_text="what the code_challenge was made from")
    redirect_uri = Text(max_length=500, help_text="the one that the request was lodged with")
