"""What every JSON door has: an access mark, a request id, strict input, one form of answer, and its page in the schema."""

import datetime
import re
import uuid

import structlog
from django.conf import settings
from django.utils.cache import add_never_cache_headers
from django.utils.http import http_date
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.renderers import JSONRenderer
from rest_framework.views import APIView

from consents.api import limits, problems
from consents.api.authentication import Anyone, Nobody
from consents.api.documents import Problem as ProblemDocument
from consents.api.problems import Problem, StrictJSONParser
from consents.api.shapes import Strict
from consents.limits import Budget

REQUEST_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}")


class Described(AutoSchema):
    """Adds what every operation shares: problem answers, the request id, the idempotency key."""

    def get_override_parameters(self):
        shared = [
            OpenApiParameter(
                "X-Request-Id", str, OpenApiParameter.HEADER,
                description=f"echoed if it is {REQUEST_ID.pattern}; else we make one",
            )
        ]  # fmt: skip
        if getattr(self._handler(), "once", False):
            shared.append(
                OpenApiParameter(
                    "Idempotency-Key", str, OpenApiParameter.HEADER, pattern=r"^[\x21-\x7e]{1,255}$",
                    description="24 hours: the same request is done once; another body is 409",
                )
            )  # fmt: skip
        return shared

    def is_deprecated(self) -> bool:
        return super().is_deprecated() or getattr(self.view, "deprecated_on", None) is not None

    def _map_basic_serializer(self, serializer, direction):
        schema = super()._map_basic_serializer(serializer, direction)
        if isinstance(serializer, Strict):
            schema["additionalProperties"] = False
        return schema

    def _handler(self):
        return getattr(type(self.view), self.method.lower(), None)

    def _get_response_bodies(self, direction="response"):
        bodies = super()._get_response_bodies(direction)
        for status in self.failures():
            words, kinds = self.refused_with(status)
            bodies.setdefault(str(status), self._get_response_for_code(words, str(status), kinds))
        return bodies

    def refused_with(self, status: int) -> tuple[OpenApiResponse, list[str]]:
        """What a refusal with this status looks like, and its media types."""
        words = problems.TYPES[problems.OF_STATUS.get(status, "already-ended")][1]
        return OpenApiResponse(ProblemDocument, str(words)), [problems.CONTENT_TYPE]

    def failures(self) -> list[int]:
        """The statuses that every operation of this kind may answer with."""
        found = {400, 405, 406, 429}
        if Anyone not in self.view.permission_classes:
            found |= {401, 403}
        if "{" in self.path:
            found.add(404)
        if self.method == "DELETE":
            found.add(409)
        if self.method in ("POST", "PUT"):
            found |= {404, 409, 413, 415}
        return sorted(found)


class Door(APIView):
    """A JSON door. Subclasses name who may come in (`permission_classes`) and, for organizations, the token's `scope`."""

    access = "api"
    scope = "me"
    permission_classes = [Nobody]
    parser_classes = [StrictJSONParser]
    renderer_classes = [JSONRenderer]
    metadata_class = None
    http_method_names = ["get", "head", "post"]
    schema = Described()
    never_refused = False  # whatever their number: what a person ends, they end
    # An operation that will go away: since when it should not be used (RFC 9745), and when it ends (RFC 8594).
    deprecated_on: datetime.date | None = None
    sunset_on: datetime.date | None = None
    budget: Budget | None = None

    def initial(self, request, *args, **kwargs):
        try:
            super().initial(request, *args, **kwargs)
        finally:
            self.budget = self.counted(request)
        self._hold()

    def counted(self, request) -> Budget | None:
        """One more of whoever calls."""
        return limits.take(request)

    def _hold(self) -> None:
        if self.budget and self.budget.is_spent and not self.never_refused:
            raise limits.refuse(self.budget)

    def scope_of(self, method: str) -> str:
        """What a token must carry for this method."""
        return self.scope

    def query(self, shape: type[serializers.Serializer]) -> dict:
        """The checked query parameters. Raises Problem invalid-request."""
        checked = shape(data=self.request.query_params)
        if not checked.is_valid():
            errors = [
                {"parameter": found["pointer"].removeprefix("#/"), "detail": found["detail"]}
                for found in problems.pointers(checked.errors)
            ]
            raise Problem("invalid-request", errors=errors)
        return checked.validated_data

    def read(self, shape: type[serializers.Serializer]) -> dict:
        """The checked body. Raises ValidationError."""
        checked = shape(data=self.request.data)
        checked.is_valid(raise_exception=True)
        return checked.validated_data

    def render(self, data) -> bytes:
        return JSONRenderer().render(data)

    def _told_beside(self) -> dict[str, str]:
        """Headers about this operation and this caller."""
        told = limits.headers(self.budget) if self.budget else {}
        if self.deprecated_on:
            told["Deprecation"] = f"@{_midnight(self.deprecated_on)}"
            told["Link"] = f'<{settings.PORTAL_URL}/api/docs/changes/>; rel="deprecation"; type="text/html"'
        if self.sunset_on:
            told["Sunset"] = http_date(_midnight(self.sunset_on))
        return told

    def finalize_response(self, request, response, *args, **kwargs):
        response = super().finalize_response(request, response, *args, **kwargs)
        response["X-Request-Id"] = _request_id(request)
        for name, value in self._told_beside().items():
            response[name] = value
        if Anyone not in self.permission_classes:
            add_never_cache_headers(response)
            response["Cache-Control"] = "no-store, private"
        return response


def _midnight(day: datetime.date) -> int:
    return int(datetime.datetime.combine(day, datetime.time(), tzinfo=datetime.UTC).timestamp())


def _request_id(request) -> str:
    for candidate in (
        request.headers.get("X-Request-Id"),
        structlog.contextvars.get_contextvars().get("request_id"),
    ):
        if candidate and REQUEST_ID.fullmatch(candidate):
            return candidate
    return str(uuid.uuid4())


def results(shape: type[serializers.Serializer], name: str) -> type[serializers.Serializer]:
    """The shape of one page of `shape`."""
    return type(
        name,
        (serializers.Serializer,),
        {
            "results": shape(many=True),
            "next": serializers.CharField(allow_null=True, help_text="cursor of the following page"),
        },
    )


class Nowhere(Door):
    """Whatever is not an address of the API."""

    permission_classes = [Anyone]
    authentication_classes = []
    schema = None  # type: ignore[assignment]
    http_method_names = ["get", "head", "post", "put", "patch", "delete", "options", "trace"]

    def initial(self, request, *args, **kwargs):
        self.budget = limits.take(request)
        self._hold()
        raise Problem("not-found")
