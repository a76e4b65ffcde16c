"""WRITES trial runs of channels: asked for, run by a worker with progress, finished with a dated badge or without.

A run belongs to one channel and the address it has. Everything that goes wrong counts as a failed trial; a run whose worker
died is finished as failed by the next run of the job. One run at a time in the whole portal, so that trials never take
from stops more than one worker. The badge is what lets a channel open: see `badge` and consents.channels.
"""

import asyncio
import datetime
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterable

import structlog
from django.db import connection, transaction
from django.db.models import Q

from consents import locks, routes, trials
from consents.actors import Actor
from consents.models import GymMessage, GymRun
from providers import outbound, policy
from providers.models import Channel, Organization, Service

log = structlog.get_logger(__name__)

RUN_SECONDS = 120.0  # for all trials
ACK_SECONDS = 60.0  # for acknowledgements after them
QUIET_SECONDS = 3.0  # in which no acknowledgement of a forgery may come
DEAD_AFTER = datetime.timedelta(minutes=6)  # more than a run can last
KEPT = datetime.timedelta(days=30)  # message ids, as long as receivers keep theirs
RUNS_A_DAY = 40  # of one organization
TURNED_AWAY = 2  # acknowledgements of the storm that we answer with 503

BUSY, TAKEN = "busy", "taken"  # what `hear` says


class NothingToTry(ValueError):
    """The channel is retired, its protocol has nothing that could be tried (a desk, a poll), or its address may not be called."""


class TooManyRuns(ValueError):
    """The organization has asked for so many runs today that another one would be a nuisance."""


# --- asking ------------------------------------------------------------------------------------------------------------


@transaction.atomic
def ask(channel: Channel, *, member=None, by: Actor, at: datetime.datetime) -> GymRun:
    """Ask for a run of this channel; while one waits or runs, that one is the answer.

    Raises NothingToTry, TooManyRuns."""
    Organization.objects.select_for_update(no_key=True).get(pk=channel.organization_id)
    channel.refresh_from_db()
    if channel.state == Channel.State.RETIRED or not trials.names(channel.protocol, channel.details):
        raise NothingToTry(channel.protocol)
    try:
        outbound.check_address(channel.address)
    except outbound.Refused as refusal:
        raise NothingToTry(str(refusal)) from refusal
    own = GymRun.objects.filter(organization=channel.organization_id)
    if running := own.filter(channel=channel, finished_at__isnull=True).first():
        return running
    if own.filter(asked_at__gt=at - datetime.timedelta(days=1)).count() >= RUNS_A_DAY:
        raise TooManyRuns
    return GymRun.objects.create(
        organization=channel.organization, channel=channel, address=channel.address, asked_by=member, asked_at=at
    )  # fmt: skip


def badge(channel: Channel, *, at: datetime.datetime) -> GymRun | None:
    """The newest run that lets this channel be used now: passed, still good, and at the very address it has."""
    return badges([channel], at=at).get(channel.pk)


def badges(channels: Iterable[Channel], *, at: datetime.datetime) -> dict[uuid.UUID, GymRun]:
    """Channel id → its badge, for those that have one. One query."""
    addresses = {channel.pk: channel.address for channel in channels}
    rows = GymRun.objects.filter(channel__in=addresses, passed=True, valid_until__gt=at).order_by(
        "finished_at"
    )
    return {row.channel_id: row for row in rows if row.address == addresses[row.channel_id]}


# --- running -----------------------------------------------------------------------------------------------------------


def run_next(*, now: Callable[[], datetime.datetime]) -> int:
    """Run the trials of whoever has waited longest; returns how many runs were finished, dead ones included.

    Safe twice at once: while a run is under way nobody else begins one."""
    buried = bury(by=Actor.system("gym"), at=now())
    run = claim(at=now())
    if run is None:
        return buried
    try:
        _fight(run, now=now)
    except Exception:  # a bug here is a failed run, never one that hangs
        log.exception("a gym run failed", run=str(run.pk))
        run.results.append(trials.Result("run", False, trials.FAILED).as_json())
    finish(run, results=run.results, by=Actor.system("gym"), at=now())
    return buried + 1


def claim(*, at: datetime.datetime) -> GymRun | None:
    """Begin the oldest waiting run, if none is under way."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [locks.GYM_CLAIM])
        if GymRun.objects.filter(started_at__isnull=False, finished_at__isnull=True).exists():
            return None
        run = GymRun.objects.filter(finished_at__isnull=True).order_by("asked_at", "pk").first()
        if run is None:
            return None
        run.started_at = at
        run.save(update_fields=["started_at"])
    return run


def bury(*, by: Actor, at: datetime.datetime) -> int:
    """Finish as failed every run that began so long ago that its worker must have died; returns how many."""
    dead = GymRun.objects.filter(started_at__lte=at - DEAD_AFTER, finished_at__isnull=True)
    return sum(
        finish(run, results=[*run.results, trials.Result("run", False, trials.DIED).as_json()], by=by, at=at)
        for run in dead
    )


def finish(run: GymRun, *, results: list[dict], by: Actor, at: datetime.datetime) -> bool:
    """Close a run with its results. The badge needs every trial of its protocol, none failed, and the channel where it
    was. False: it was finished by somebody else, and stays as it was."""
    with transaction.atomic():
        own = GymRun.objects.select_for_update(of=("self",)).select_related("channel")
        row = own.filter(pk=run.pk, finished_at__isnull=True).first()
        if row is None:
            return False
        wanted = set(trials.names(row.channel.protocol, row.channel.details))
        row.results, row.finished_at = results, at
        row.passed = (
            bool(wanted)
            and wanted <= {one["name"] for one in results}
            and all(one["passed"] is not False for one in results)
            and row.channel.address == row.address
        )
        if row.passed:
            days = policy.number("GYM_BADGE_DAYS", on=at.date())
            row.valid_until = at + datetime.timedelta(days=days)
        row.save(update_fields=["results", "finished_at", "passed", "valid_until"])
        old = {"run__organization": row.organization_id, "run__finished_at__lte": at - KEPT}
        GymMessage.objects.filter(**old).delete()
    return True


def hear(jti: uuid.UUID, *, organization: Organization, by: Actor, at: datetime.datetime) -> str | None:
    """Take the acknowledgement of a trial message: TAKEN, or BUSY while the trial wants us to answer 503. None: it is no
    trial message of this organization. After the run nothing is written any more."""
    with transaction.atomic():
        rows = GymMessage.objects.select_for_update(of=("self",)).select_related("run")
        row = rows.filter(jti=jti, run__organization=organization).first()
        if row is None:
            return None
        if row.run.finished_at is not None:
            return TAKEN
        row.asked = min(row.asked + 1, 32_000)
        row.save(update_fields=["asked"])
    return BUSY if row.trial == "storm" and row.asked <= TURNED_AWAY else TAKEN


# --- one run -----------------------------------------------------------------------------------------------------------


def _fight(run: GymRun, *, now: Callable[[], datetime.datetime]) -> None:
    """Send all trials from a thread of its own, keep each result as it arrives, then wait for acknowledgements."""
    channel = Channel.objects.select_related("organization").prefetch_related("keys").get(pk=run.channel_id)
    ids = trials.ids(channel.protocol, channel.details)
    GymMessage.objects.bulk_create(
        GymMessage(jti=jti, run=run, trial=name) for name, own in ids.items() for jti in own
    )
    service = Service.objects.filter(organization=channel.organization).order_by("pk").first()
    bout = trials.Bout(
        channel=channel, route=routes.route(channel), service=service.client_id if service else "trial",
        ids=ids, clock=now,
    )  # fmt: skip
    answers = channel.organization.api_client is not None
    late: dict[str, trials.Result] = {}
    for result in _results(bout):
        if result.name == "storm" and result.passed and not answers:
            result = trials.Result(
                "storm", None, "", result.answers
            )  # who has no client acknowledges at the desk
        if answers and result.passed and result.name in {"good", "storm"}:
            late[result.name] = result
        else:
            _keep(run, result)
    if ids.keys() & {"good", "storm"}:
        _await_acknowledgements(run, late)


def _results(bout: trials.Bout):
    arrived: queue.SimpleQueue = queue.SimpleQueue()

    def fight():
        try:
            asyncio.run(trials.run(bout, arrived.put, limit=RUN_SECONDS))
        except Exception:
            log.exception("the gym's thread failed")
        finally:
            arrived.put(None)

    thread = threading.Thread(target=fight, name="gym")
    thread.start()
    while (result := arrived.get()) is not None:
        yield result
    thread.join()


def _await_acknowledgements(run: GymRun, late: dict[str, trials.Result]) -> None:
    """Wait until what had to be acknowledged was, and long enough to see that forgeries are not."""
    began = time.monotonic()
    while late and time.monotonic() - began < ACK_SECONDS:
        for name in _acknowledged(run) & late.keys():
            _keep(run, late.pop(name))
        time.sleep(0.2)
    for name, result in late.items():
        seen = run.messages.filter(trial=name, asked__gt=0).exists()
        finding = trials.NO_RETRY if name == "storm" and seen else trials.NO_ACK
        _keep(run, trials.Result(name, False, finding, result.answers))
    time.sleep(max(0.0, QUIET_SECONDS - (time.monotonic() - began)))
    fooled = set(run.messages.filter(trial__in=trials.FORGED, asked__gt=0).values_list("trial", flat=True))
    for one in run.results:
        if one["name"] in fooled and one["passed"]:
            one["passed"], one["detail"] = False, trials.FORGERY_ACKED


def _acknowledged(run: GymRun) -> set[str]:
    often = Q(trial="good", asked__gt=0) | Q(trial="storm", asked__gt=TURNED_AWAY)
    return set(run.messages.filter(often).values_list("trial", flat=True))


def _keep(run: GymRun, result: trials.Result) -> None:
    run.results.append(result.as_json())
    GymRun.objects.filter(pk=run.pk, finished_at__isnull=True).update(results=run.results)
