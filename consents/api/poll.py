"""The JSON door where an organization fetches its messages and acknowledges them (RFC 8936), whatever its channel is."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, polling, steps
from consents.api import documents, shapes
from consents.api.operator import OrganizationDoor

log = structlog.get_logger(__name__)

MOST = 100  # messages in one answer
LONGEST_WAIT = 20.0  # seconds of a long poll
LOOK_EVERY = 0.5  # seconds between two looks while one waits
# A waiting poll occupies a thread of the web server, so fewer may wait than it has.
MOST_WAITING = 2
# RFC 8935 §2.4: what can be wrong with a message. Anything else is no reason to report one.
ERRORS = (
    "invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed", "access_denied",
)  # fmt: skip


class SetError(shapes.Strict):
    err = serializers.ChoiceField(ERRORS)
    description = shapes.Text(max_length=1000, required=False, default="", allow_blank=True)


class SetErrors(serializers.DictField):
    """jti → SetError, at most 100."""

    child = SetError()

    def to_internal_value(self, data):
        if isinstance(data, dict) and len(data) > MOST:
            raise serializers.ValidationError(_("한 번에 100개까지예요."))
        return super().to_internal_value(data)


class Polling(shapes.Strict):
    maxEvents = shapes.Whole(
        min_value=0, max_value=2**31 - 1, required=False,
        help_text="0: acknowledge only; without it as many as there are, 100 an answer",
    )  # fmt: skip
    returnImmediately = shapes.Flag(
        required=False, default=False, help_text="false: wait up to 20 seconds for a message"
    )
    ack = serializers.ListField(
        child=shapes.Text(max_length=200), max_length=1000, required=False, default=list, help_text="jti that were received"
    )  # fmt: skip
    setErrs = SetErrors(required=False, default=dict, help_text="jti that could not be read, and why")

    def validate(self, asked):
        if set(asked["ack"]) & set(asked["setErrs"]):
            raise serializers.ValidationError(
                {"setErrs": [_("받았다고 한 전달을 못 읽었다고 할 수 없어요.")]}
            )
        return asked


class Poll(OrganizationDoor):
    @extend_schema(
        operation_id="poll", summary=_("우리에게 온 전달 가져가기(RFC 8936)"), tags=["operator", "source"],
        request=Polling, responses=documents.Polled,
        examples=[
            OpenApiExample("a first poll", request_only=True, value={"maxEvents": 20, "returnImmediately": True}),
            OpenApiExample(
                "acknowledge and wait for more", request_only=True,
                value={"ack": ["01a2013b-6740-7a01-8f00-00000000c0de"], "returnImmediately": False},
            ),
            OpenApiExample(
                "acknowledge only", request_only=True,
                value={"ack": ["01a2013b-6740-7a01-8f00-00000000c0de"], "maxEvents": 0, "returnImmediately": True},
            ),
            OpenApiExample(
                "one that could not be read", request_only=True,
                value={"setErrs": {"01a2013b-6740-7a01-8f00-00000000c0de": {
                    "err": "invalid_key", "description": "the kid is not in your key set"}}},
            ),
        ],
    )  # fmt: skip
    def post(self, request):
        """Every message that is not acknowledged yet, oldest first, as signed SETs by their `jti`; again after a minute, until
        it is acknowledged here or at `/deliveries/{jti}/ack`. What is acknowledged is not pushed any more. An id that is none
        of the caller's is passed over. Without `returnImmediately` an empty answer comes after up to 20 seconds; at once
        where too many wait already."""
        asked = self.read(Polling)
        self._take(asked)
        most = min(asked.get("maxEvents", MOST), MOST)
        found, more = self._offer(most)
        if not found and not asked["returnImmediately"]:
            with _place(request.organization.pk) as free:
                if free:
                    _wait(request.organization, for_messages=most > 0)
                    found, more = self._offer(most)
        return Response({"sets": found, "moreAvailable": more})

    def _take(self, asked: dict) -> None:
        organization, at = self.request.organization, timezone.now()  # type: ignore[attr-defined]
        said_of = {said: found for said in [*asked["ack"], *asked["setErrs"]] if (found := _id(said))}
        own = access.addressed(organization, set(said_of.values())) if said_of else set()
        received = own & {said_of.get(said) for said in asked["ack"]}
        steps.acknowledge_all(received, organization=organization, by=self.actor, at=at)
        if strange := len(set(asked["ack"])) - len(received):
            log.warning("unknown ids acknowledged", organization=organization.code, count=strange)
        for said, error in asked["setErrs"].items():
            found = said_of.get(said)
            if found and found in own:
                polling.note_unreadable(
                    found, organization=organization, code=error["err"], description=error["description"],
                    by=self.actor, at=at,
                )  # fmt: skip
            else:
                log.warning("unknown id reported", organization=organization.code)

    def _offer(self, most: int) -> tuple[dict[str, str], bool]:
        organization, at = self.request.organization, timezone.now()  # type: ignore[attr-defined]
        if most == 0:
            return {}, polling.waiting(organization, at=at)
        found, more = polling.offer(organization, most=most, by=self.actor, at=at)
        own = access.addressed(organization, {uuid.UUID(jti) for jti in found}) if found else set()
        return {jti: said for jti, said in found.items() if uuid.UUID(jti) in own}, more


def _id(said: str) -> uuid.UUID | None:
    """None for what cannot be one of ours: other spellings of an id are other ids."""
    try:
        found = uuid.UUID(said)
    except ValueError:
        return None
    return found if str(found) == said else None


_waiting: set[uuid.UUID] = set()
_lock = threading.Lock()


@contextmanager
def _place(organization: uuid.UUID) -> Iterator[bool]:
    """A place among those who wait in this process, one for each organization; False where there is none."""
    with _lock:
        free = organization not in _waiting and len(_waiting) < MOST_WAITING
        if free:
            _waiting.add(organization)
    try:
        yield free
    finally:
        if free:
            with _lock:
                _waiting.discard(organization)


def _wait(organization, *, for_messages: bool) -> None:
    """Until there is something to offer, or for LONGEST_WAIT. Nothing is held meanwhile: the rows are looked at, because a
    doorbell can be lost, and between two looks the database gets its connection back."""
    until = time.monotonic() + LONGEST_WAIT
    while (left := until - time.monotonic()) > 0:
        if not connection.in_atomic_block:  # never in a request; a test may be one
            connection.close()
        time.sleep(min(LOOK_EVERY, left))
        if for_messages and polling.waiting(organization, at=timezone.now()):
            return
