"""The gym: well-behaved servers pass, each kind of fault fails its trial, a badge counts for one channel at one address."""

import asyncio
import base64
import datetime
import json
import threading
import uuid

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from consents import gym, routes, trials
from consents.actors import Actor
from consents.models import Delivery, EntryIndex, GymMessage, GymRun, Subscription
from consents.queries import gym as screens
from providers import registry, signing
from providers.models import Channel
from providers.wires import push, revocation
from tests import factories
from tests.consents.api.conftest import of
from tests.receivers import receiving

BACKEND = "allauth.account.auth_backends.AuthenticationBackend"
BY = Actor.system("test")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Trials as they are, only not as long."""
    monkeypatch.setattr(trials, "SLOW_SECONDS", 0.3)
    monkeypatch.setattr(trials, "SLOW_ANSWER_SECONDS", 10.0)
    monkeypatch.setattr(trials, "ANSWER_SECONDS", 8.0)
    monkeypatch.setattr(gym, "ACK_SECONDS", 20.0)
    monkeypatch.setattr(gym, "QUIET_SECONDS", 0.3)


def browser(person):
    made = Client()
    made.force_login(person, backend=BACKEND)
    return made


def asked(organization, at=None) -> GymRun:
    channel = organization.channels.exclude(state="retired").get()
    return gym.ask(channel, by=BY, at=at or timezone.now())


def fought(run: GymRun) -> dict[str, dict]:
    """The results of a run by trial, after the job."""
    assert gym.run_next(now=timezone.now) == 1
    run.refresh_from_db()
    return {one["name"]: one for one in run.results}


@pytest.fixture
def operator(partners):
    service = factories.offered()
    partners.connect(service.organization)
    return service.organization


# --- who passes, who does not ----------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_well_behaved_server_passes_and_no_subscription_is_touched(partners, operator, person):
    subscription = factories.joined(person, operator.services.get())
    before = list(Subscription.objects.values()), Delivery.objects.count(), EntryIndex.objects.count()
    held = partners.held()
    run = asked(operator)
    results = fought(run)
    assert {name: one["passed"] for name, one in results.items()} == dict.fromkeys(
        trials.names("native"), True
    )
    assert run.passed and run.valid_until - run.finished_at == datetime.timedelta(days=365)
    assert gym.badge(run.channel, at=timezone.now()) == run
    assert (
        list(Subscription.objects.values()),
        Delivery.objects.count(),
        EntryIndex.objects.count(),
    ) == before
    assert partners.held() == held and subscription.state == "active"
    storm = run.messages.get(trial="storm")
    assert storm.asked == gym.TURNED_AWAY + 1
    assert all(answer["ms"] >= 0 for one in results.values() for answer in one["answers"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("knows", [True, False])
def test_who_takes_many_at_once_is_tried_with_three(partners, operator, monkeypatch, knows):
    operator.channels.update(details={"together": "10"})
    if not knows:

        async def single(*_args):
            raise ValueError("data.set is missing")

        monkeypatch.setattr("providers.sandbox.hooks._each", single)
    run = asked(operator)
    results = fought(run)
    assert set(results) == {*trials.names("native"), "together"} and run.passed is knows
    assert results["together"]["passed"] is knows
    assert knows or results["together"]["detail"] == trials.NOT_TAKEN


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("named", "finding"), [("all", trials.FORGERY_ACKED), ("one", trials.NOT_NAMED), ("none", "")]
)
def test_the_answer_to_many_names_neither_too_many_nor_too_few(receiver_of, named, finding):
    organization, receiver = receiver_of
    organization.channels.update(details={"together": "10"})
    honest = _honest(receiver, organization)

    def answer(arrival):
        if arrival.message["type"] != "batch":
            return honest(arrival)
        ids = [one["data"]["jti"] for one in arrival.message["data"]["messages"]]
        return 200, {}, json.dumps({"ack": {"all": ids, "one": ids[:1], "none": []}[named]})

    receiver.answer = answer
    assert fought(asked(organization))["together"]["detail"] == finding


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fault", "failing"),
    [
        ("trusting", {*trials.FORGED}),
        ("silent", {"good", "storm"}),
        ("error", {*trials.names("native")} - {"slow"}),
    ],
)
def test_each_fault_fails_its_trials(partners, operator, monkeypatch, fault, failing):
    if fault == "silent":
        monkeypatch.setattr(gym, "ACK_SECONDS", 2.0)  # none will come, however long we wait
    partners.fault(operator, fault)
    run = asked(operator)
    results = fought(run)
    assert failing <= {name for name, one in results.items() if one["passed"] is False}
    assert not run.passed and run.valid_until is None and run.finished_at
    assert gym.badge(run.channel, at=timezone.now()) is None
    if fault == "silent":
        assert {name for name, one in results.items() if not one["passed"]} == failing
        assert results["good"]["detail"] == trials.NO_ACK
    if fault == "trusting":
        assert {results[name]["detail"] for name in trials.FORGED} == {trials.TAKEN}
        assert results["good"]["passed"] and results["storm"]["passed"]


@pytest.mark.django_db(transaction=True)
def test_a_server_that_is_not_there_fails_everything_quickly(settings):
    settings.SANDBOX_URL = "http://127.0.0.1:9"
    organization = factories.OperatorFactory()
    registry.open_channel(
        organization=organization, protocol="native", address="http://127.0.0.1:9/x", at=timezone.now()
    )
    results = fought(asked(organization))
    assert set(results) == set(trials.names("native"))
    assert {one["detail"] for name, one in results.items() if name not in {"slow"}} == {trials.UNREACHABLE}


@pytest.mark.django_db(transaction=True)
def test_who_has_no_client_acknowledges_at_the_desk_and_that_is_not_tried(receiver_of, person):
    organization, receiver = receiver_of
    receiver.answer = _honest(receiver, organization)
    results = fought(asked(organization))
    assert results["good"]["passed"] is True and results["storm"]["passed"] is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("kind", "failing"),
    [
        ("no_state", {"handshake": trials.NO_STATE}),
        ("refuses_repeats", {"replay": trials.NOT_TAKEN, "parallel": trials.NOT_TAKEN}),
        ("refuses_with_500", dict.fromkeys(trials.FORGED, trials.NO_REFUSAL)),
        ("no_clock", {"early": trials.TAKEN, "late": trials.TAKEN}),
        ("webhook_only", {"alg_none": trials.TAKEN, "wrong_aud": trials.TAKEN}),
    ],
)
def test_each_negligence_fails_the_trial_that_is_about_it(receiver_of, kind, failing):
    organization, receiver = receiver_of
    receiver.answer = _honest(receiver, organization, kind)
    results = fought(asked(organization))
    assert {name: one["detail"] for name, one in results.items() if one["passed"] is False} == failing


@pytest.fixture
def receiver_of(settings, db):
    """An organization whose server does what the test says, without an API client."""
    with receiving(settings) as receiver:
        settings.SANDBOX_URL = receiver.address
        organization = factories.OperatorFactory()
        receiver.connect(organization)
        yield organization, receiver


def _honest(receiver, organization, kind=""):
    """A server that checks everything there is to check, but for the negligence named."""
    seen, lock = set(), threading.Lock()

    def answer(arrival):
        now = int(timezone.now().timestamp())
        try:
            signing.verify_webhook(
                arrival.headers, arrival.body, secrets=[signing.webhook_secret(receiver.secrets[organization.code])],
                now=now, tolerance=10**6 if kind == "no_clock" else 300,
            )  # fmt: skip
            data = arrival.message["data"]
            if arrival.message["type"] == "verification":
                return 200 if kind == "no_state" else (200, {}, json.dumps({"state": data["state"]}))
            if kind != "webhook_only":
                signing.verify_jws(
                    data["set"], jwks=signing.public_jwks(), typ=signing.SET_TYP, issuer=settings.PORTAL_URL,
                    audience=organization.code, now=now,
                )  # fmt: skip
        except signing.BadSignature:
            return 500 if kind == "refuses_with_500" else 400
        with lock:
            again = arrival.id in seen
            seen.add(arrival.id)
        return 409 if again and kind == "refuses_repeats" else 200

    return answer


# --- asking, running, dying ------------------------------------------------------------------------------------------------


@pytest.fixture
def quiet(db):
    """An operator whose channel nobody will call."""
    organization = factories.OperatorFactory()
    registry.open_channel(
        organization=organization,
        protocol="native",
        address="https://stops.example.com/hooks",
        at=timezone.now(),
    )
    return organization


def test_asking_twice_is_one_run_and_too_often_is_refused(quiet, monkeypatch):
    first = asked(quiet)
    assert asked(quiet) == first
    monkeypatch.setattr(gym, "RUNS_A_DAY", 1)
    gym.finish(first, results=[], by=BY, at=timezone.now())
    with pytest.raises(gym.TooManyRuns):
        asked(quiet)
    assert asked(quiet, at=timezone.now() + datetime.timedelta(days=2)) != first


@pytest.mark.parametrize("protocol", ["desk", "poll"])
def test_where_we_call_nobody_there_is_nothing_to_try(db, protocol):
    organization = factories.OperatorFactory()
    registry.open_channel(organization=organization, protocol=protocol, at=timezone.now())
    with pytest.raises(gym.NothingToTry):
        asked(organization)
    GymRun.objects.create(
        organization=organization, channel=organization.channels.get(), asked_at=timezone.now()
    )
    run = GymRun.objects.get()
    gym.finish(run, results=[], by=BY, at=timezone.now())
    run.refresh_from_db()
    assert not run.passed, "no trials are no pass"


def test_an_error_of_ours_is_a_failed_run(quiet, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("a bug")

    run = asked(quiet)
    monkeypatch.setattr(gym, "_fight", broken)
    results = fought(run)
    assert results["run"]["detail"] == trials.FAILED and not run.passed and run.finished_at


def test_a_trial_that_breaks_fails_and_the_others_go_on(quiet, monkeypatch):
    async def broken(bout):
        raise RuntimeError("a bug")

    async def fine(bout):
        return trials.Result("good", True)

    monkeypatch.setattr(trials, "_ACTS", dict.fromkeys(trials.names("native"), fine) | {"order": broken})
    told = []
    bout = trials.Bout(quiet.channels.get(), None, "x", trials.ids("native"), timezone.now)
    asyncio.run(trials.run(bout, told.append, limit=5))
    assert [one.name for one in told if one.finding == trials.FAILED] == ["order"]
    assert len(told) == len(trials.names("native"))


def test_a_run_whose_worker_died_is_finished_as_failed_by_the_next(quiet, monkeypatch):
    begun = timezone.now()
    run = asked(quiet, at=begun)
    assert gym.claim(at=begun) == run
    assert gym.claim(at=begun) is None, "one at a time"
    assert gym.run_next(now=lambda: begun + gym.DEAD_AFTER - datetime.timedelta(seconds=1)) == 0
    assert gym.run_next(now=lambda: begun + gym.DEAD_AFTER) == 1
    run.refresh_from_db()
    assert not run.passed and run.results[-1]["detail"] == trials.DIED
    late = [{"name": name, "passed": True, "detail": "", "answers": []} for name in trials.names("native")]
    assert not gym.finish(run, results=late, by=BY, at=timezone.now()), "the dead do not win"
    run.refresh_from_db()
    assert not run.passed


def test_a_forgery_that_was_refused_and_acknowledged_all_the_same_fails(quiet, monkeypatch):
    run = asked(quiet)
    GymMessage.objects.create(run=run, trial="unknown_key", asked=1)
    monkeypatch.setattr(
        gym, "_results", lambda bout: iter([trials.Result(name, True) for name in trials.names("native")])
    )
    results = fought(run)
    assert not run.passed
    assert {name for name, one in results.items() if one["detail"] == trials.FORGERY_ACKED} == {"unknown_key"}


@pytest.mark.django_db(transaction=True)
def test_two_jobs_at_once_run_it_once(monkeypatch):
    organization = factories.OperatorFactory()
    registry.open_channel(
        organization=organization,
        protocol="native",
        address="https://stops.example.com/hooks",
        at=timezone.now(),
    )
    asked(organization)
    fights, counts = [], []
    monkeypatch.setattr(gym, "_fight", lambda run, *, now: fights.append(run.pk))

    def job():
        counts.append(gym.run_next(now=timezone.now))
        connection.close()

    threads = [threading.Thread(target=job) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fights) == 1 and sorted(counts) == [0, 0, 0, 1]


# --- badges ------------------------------------------------------------------------------------------------------------------


def passed(organization, at=None) -> GymRun:
    at = at or timezone.now()
    run = asked(organization, at)
    results = [{"name": name, "passed": True, "detail": "", "answers": []} for name in trials.names("native")]
    gym.finish(run, results=results, by=BY, at=at)
    run.refresh_from_db()
    return run


def test_a_badge_counts_for_its_channel_its_address_and_its_time(quiet):
    at = timezone.now()
    run = passed(quiet, at)
    channel = quiet.channels.get()
    assert gym.badge(channel, at=at) == run
    assert gym.badge(channel, at=run.valid_until) is None
    channel.address += "/2"
    assert gym.badge(channel, at=at) is None
    other = registry.prepare_channel(organization=quiet, protocol="native", address=run.address, at=at)
    assert gym.badge(other, at=at) is None


@pytest.mark.parametrize("change", ["missing", "failed", "moved"])
def test_no_badge_without_every_trial_at_the_place_it_was_tried(quiet, change):
    run = asked(quiet)
    names = trials.names("native")[change == "missing" :]
    results = [{"name": name, "passed": True, "detail": "", "answers": []} for name in names]
    if change == "failed":
        results[3]["passed"] = False
    if change == "moved":
        Channel.objects.update(address="https://elsewhere.example.com/")
    gym.finish(run, results=results, by=BY, at=timezone.now())
    run.refresh_from_db()
    assert run.finished_at and not run.passed and run.valid_until is None


def test_the_badge_is_shown_at_the_desk_and_to_the_public(quiet, client):
    site = browser(factories.MemberFactory(organization=quiet).person)
    words = "연결 시험을 통과했어요 ·"
    public, desk = reverse("operator", args=[quiet.code]), reverse("desk")
    for page in (client.get(public), site.get(desk)):
        assert words not in page.content.decode()
    passed(quiet)
    for page in (client.get(public), site.get(desk)):
        assert words in page.content.decode()
    registry.retire_channel(channel=quiet.channels.get(), at=timezone.now())
    assert words not in client.get(public).content.decode()


# --- pages ---------------------------------------------------------------------------------------------------------------------


def test_a_run_is_started_and_followed_at_the_desk(quiet):
    site = browser(factories.MemberFactory(organization=quiet).person)
    channel = quiet.channels.get()
    started = site.post(reverse("start_gym", args=[channel.pk]))
    run = GymRun.objects.get()
    assert started.status_code == 302 and started.url == reverse("gym_run", args=[run.pk])
    page = site.get(started.url)
    assert page.context["state"] == "waiting" and 'hx-trigger="every 2s"' in page.content.decode()
    results = [trials.Result("handshake", False, trials.NO_STATE, (trials.Answer(200, 12),)).as_json()]
    GymRun.objects.update(started_at=timezone.now(), results=results)
    page = site.get(reverse("gym_progress", args=[run.pk])).content.decode()
    assert "HTTP 200" in page and "12 ms" in page and "data.state" in page and "<html" not in page
    gym.finish(run, results=results, by=BY, at=timezone.now())
    page = site.get(started.url).content.decode()
    assert "hx-trigger" not in page and "시간 안에 하지 못했어요" in page


def test_every_finding_and_trial_has_words():
    names = {*trials._ACTS, "run"}
    assert names == set(screens.TRIALS)
    findings = {
        value for name, value in vars(trials).items()
        if name.isupper() and isinstance(value, str) and name not in {"TRIAL", "NOBODY"} and "_" not in name[:1]
    } - {trials.KEY, trials.SENT, trials.CHECK, trials.REFUSED, trials.RECEIVED}  # fmt: skip
    assert findings <= set(screens.FIXES), findings - set(screens.FIXES)


def test_nobody_sees_anothers_runs(quiet):
    run = passed(quiet)
    stranger = browser(factories.MemberFactory(organization=factories.OperatorFactory()).person)
    for name in ("gym_run", "gym_progress"):
        assert stranger.get(reverse(name, args=[run.pk])).status_code == 404
    assert str(run.pk) not in stranger.get(reverse("desk_gym")).content.decode()
    assert browser(factories.PersonFactory()).get(reverse("desk_gym")).status_code == 403
    assert Client().get(reverse("desk_gym")).status_code == 302


def test_past_runs_are_paged_with_few_queries(quiet, django_assert_max_num_queries):
    at = timezone.now()
    for days in range(23):
        gym.finish(asked(quiet, at - datetime.timedelta(days=days)), results=[], by=BY, at=at)
    site = browser(factories.MemberFactory(organization=quiet).person)
    with django_assert_max_num_queries(12 + 4):  # behind the database's own lock
        first = site.get(reverse("desk_gym"))
    assert len(first.context["rows"]) == 20
    second = site.get(reverse("desk_gym") + first.context["next_url"])
    assert len(second.context["rows"]) == 3
    assert site.get(reverse("desk_gym"), {"after": "1-1"}).status_code == 400


# --- the API -------------------------------------------------------------------------------------------------------------------


def test_a_server_asks_for_a_run_and_reads_it(quiet):
    api = of(quiet, "deliveries:ack")
    answer = api.post("channel/test", {}, **{"Idempotency-Key": "k1"})
    assert answer.status_code == 202
    told = answer.json()
    assert answer["Location"] == f"/api/v1/channel/tests/{told['id']}" and told["state"] == "waiting"
    again = api.post("channel/test", {}, **{"Idempotency-Key": "k1"})
    assert again.json() == told and GymRun.objects.count() == 1
    run = GymRun.objects.get()
    results = [trials.Result("good", False, trials.NO_ACK, (trials.Answer(200, 5),)).as_json()]
    gym.finish(run, results=results, by=BY, at=timezone.now())
    told = api.get(f"channel/tests/{run.pk}").json()
    assert told["state"] == "finished" and told["passed"] is False and told["valid_until"] is None
    assert told["trials"][0]["detail"] == "no_ack" and "ack" in told["trials"][0]["fix"]


def test_the_api_knows_whose_run_it_is(quiet):
    run = passed(quiet)
    stranger = factories.OperatorFactory()
    assert of(stranger).get(f"channel/tests/{run.pk}").status_code == 404
    assert of(stranger).post("channel/test", {}).status_code == 404, "it has no channel"
    assert of(quiet).get(f"channel/tests/{uuid.uuid4()}").status_code == 404
    assert of(quiet).post("channel/test", {"which": "new"}).status_code == 404
    assert of(quiet).post("channel/test", {"which": "both"}).status_code == 400
    assert of(quiet, "consents:read").post("channel/test", {}).status_code == 403
    registry.retire_channel(channel=quiet.channels.get(), at=timezone.now())
    registry.open_channel(organization=quiet, protocol="desk", at=timezone.now())
    assert of(quiet).post("channel/test", {}).status_code == 409


def test_acknowledging_a_trial_touches_no_delivery_and_the_storm_is_turned_away_twice(quiet):
    run = asked(quiet)
    made = {name: GymMessage.objects.create(run=run, trial=name) for name in ("good", "storm")}
    api = of(quiet)
    answer = api.post(f"deliveries/{made['good'].pk}/ack", {}, **{"Idempotency-Key": "k"})
    assert answer.status_code == 200 and answer.json() == {
        "jti": str(made["good"].pk), "state": "received", "receipt": None,
    }  # fmt: skip
    statuses = [
        api.post(f"deliveries/{made['storm'].pk}/ack", {}, **{"Idempotency-Key": "s"}) for _ in range(4)
    ]
    assert [one.status_code for one in statuses] == [503, 503, 200, 200]
    assert statuses[0]["Retry-After"]
    assert not EntryIndex.objects.filter(typ__startswith="delivery.").exists()
    assert of(factories.OperatorFactory()).post(f"deliveries/{made['good'].pk}/ack", {}).status_code == 404
    gym.finish(run, results=[], by=BY, at=timezone.now())
    assert api.post(f"deliveries/{made['storm'].pk}/ack", {}).status_code == 200
    made["storm"].refresh_from_db()
    assert made["storm"].asked == 4, "nothing is written after the run"


# --- other protocols -------------------------------------------------------------------------------------------------------------


def _wired(monkeypatch, receiver, organization, protocol, wire, **given) -> GymRun:
    monkeypatch.setitem(routes.WIRES, protocol, wire)
    registry.retire_channel(channel=organization.channels.get(), at=timezone.now())
    registry.open_channel(
        organization=organization, protocol=protocol, address=f"{receiver.address}/{organization.code}",
        at=timezone.now(), **given,
    )  # fmt: skip
    return asked(organization)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("careful", [True, False])
def test_a_receiver_of_pushed_sets_is_tried_with_sets(receiver_of, monkeypatch, careful):
    organization, receiver = receiver_of

    def answer(arrival):
        if not careful:
            return 202
        try:
            signing.verify_jws(
                arrival.body, jwks=signing.public_jwks(), typ=signing.SET_TYP, issuer=settings.PORTAL_URL,
                audience=[organization.code, f"{receiver.address}/{organization.code}"], now=int(timezone.now().timestamp()),
            )  # fmt: skip
        except signing.BadSignature as error:
            return 400, {}, json.dumps({"err": "invalid_key" if error.reason == "kid" else "invalid_request"})
        return 202

    receiver.answer = answer
    results = fought(_wired(monkeypatch, receiver, organization, "push", push))
    assert set(results) == set(trials.names("push")) and not {"early", "late"} & set(results)
    failed = {name for name, one in results.items() if one["passed"] is False}
    assert failed == (set() if careful else {"wrong_signature", "unknown_key", "alg_none", "wrong_aud"})


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("answers", "failing"),
    [
        (lambda own: 200 if own else (401, {}, '{"error": "invalid_client"}'), {}),
        (lambda own: 200, {"stranger": trials.TAKEN}),
        (lambda own: (401, {}, '{"error": "invalid_client"}'), {"unknown": trials.NO_CREDENTIAL}),
        (lambda own: 500, {"unknown": trials.NOT_TAKEN, "stranger": trials.NOT_TAKEN}),
    ],
)
def test_where_we_end_by_name_an_unknown_name_and_a_stranger_are_tried(
    receiver_of, monkeypatch, answers, failing
):
    organization, receiver = receiver_of
    right = "Basic " + base64.b64encode(b"portal:sesame").decode()
    receiver.answer = lambda arrival: answers(arrival.headers.get("authorization") == right)
    run = _wired(
        monkeypatch, receiver, organization, "revocation", revocation,
        details={"client_id": "portal"}, credential="sesame",
    )  # fmt: skip
    results = fought(run)
    assert {name: one["detail"] for name, one in results.items() if one["passed"] is False} == failing
    assert set(results) == {"unknown", "stranger"}


def test_old_messages_of_trials_are_forgotten(quiet):
    at = timezone.now()
    old = asked(quiet, at - datetime.timedelta(days=40))
    GymMessage.objects.create(run=old, trial="good")
    gym.finish(old, results=[], by=BY, at=at - datetime.timedelta(days=40))
    assert GymMessage.objects.count() == 1
    gym.finish(asked(quiet), results=[], by=BY, at=at)
    assert not GymMessage.objects.exists() and GymRun.objects.count() == 2
