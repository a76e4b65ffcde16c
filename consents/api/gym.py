"""The gym for programs: an organization's server asks for a trial run of its channel and reads how it went.

A trial message is of the type `trial` and about nobody: check it, acknowledge it, do nothing else."""

import functools

from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from consents import access, gym
from consents.actors import Actor
from consents.api import documents, shapes
from consents.api.authentication import Organization
from consents.api.doors import Door
from consents.api.idempotency import once
from consents.api.problems import Problem
from consents.queries import gym as queries

RETRY_SECONDS = 1


def of_trials(handler):
    """A POST about a delivery that may be a trial's instead. Such an answer is taken outside of any idempotency key: a
    trial may want to be asked twice."""

    @functools.wraps(handler)
    def told(self, request, jti):
        heard = gym.hear(jti, organization=request.organization, by=self.actor, at=timezone.now())
        if heard == gym.BUSY:
            raise Problem("try-again", headers={"Retry-After": f"{RETRY_SECONDS}"})
        if heard == gym.TAKEN:
            return Response(documents.Ack({"jti": jti, "state": "received", "receipt": None}).data)
        return handler(self, request, jti)

    return told


class Testing(shapes.Strict):
    which = serializers.ChoiceField(
        ["open", "new"], required=False, default="open",
        help_text="the channel in use, or the one of the change that is under way",
    )  # fmt: skip


class Answered(serializers.Serializer):
    status = serializers.IntegerField(allow_null=True, help_text="HTTP; null where no answer came")
    ms = serializers.IntegerField()
    problem = serializers.CharField(help_text="timeout, dns, tls, connection, protocol, busy or blocked")


class Trial(serializers.Serializer):
    name = serializers.CharField()
    passed = serializers.BooleanField(allow_null=True, help_text="null: does not apply here")
    detail = serializers.CharField(help_text="what was wrong, one word; empty where nothing was")
    fix = serializers.CharField(help_text="what to do about it, in the language of the request")
    answers = Answered(many=True)


class Run(serializers.Serializer):
    id = serializers.UUIDField(source="pk")
    protocol = serializers.CharField(source="channel.protocol")
    address = serializers.CharField()
    state = serializers.ChoiceField(["waiting", "running", "finished"])
    asked_at = shapes.Instant()
    finished_at = shapes.Instant(allow_null=True)
    passed = serializers.BooleanField(help_text="every trial went as it should")
    valid_until = shapes.Instant(
        allow_null=True, help_text="how long the channel may be used on the strength of it"
    )
    trials = Trial(many=True)


class GymDoor(Door):
    permission_classes = [Organization]
    scope = "deliveries:ack"


class TestChannel(GymDoor):
    @extend_schema(
        operation_id="test_channel", summary=_("연결 시험하기"), tags=["operator", "source"], request=Testing,
        responses={202: Run},
    )  # fmt: skip
    @once
    def post(self, request):
        """Starts the trials of the gym; while a run of the channel waits or runs, that one is the answer. Ask for its result
        at `Location`. Trial messages have the type `trial` (in the SET `…/secevent/trial`): check and acknowledge them, and do
        nothing else."""
        channel = access.organization_channel(request.organization, self.read(Testing)["which"])
        by = Actor.organization(request.organization)
        try:
            run = gym.ask(channel, by=by, at=timezone.now())
        except gym.NothingToTry as refusal:
            raise Problem("nothing-to-try") from refusal
        except gym.TooManyRuns as refusal:
            raise Problem("too-many-requests", headers={"Retry-After": "3600"}) from refusal
        headers = {"Location": f"/api/v1/channel/tests/{run.pk}"}
        return Response(Run(queries.told(run)).data, 202, headers=headers)


class OneTest(GymDoor):
    @extend_schema(
        operation_id="channel_test", summary=_("연결 시험의 결과"), tags=["operator", "source"], responses=Run
    )
    def get(self, request, pk):
        """`trials` grows while the run is under way. 404 for another organization's."""
        return Response(Run(queries.told(access.own_run(request.organization, pk))).data)
