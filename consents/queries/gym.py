"""The gym's screens: a run trial by trial in words (what was sent, what came back, what to fix), and past runs."""

import datetime
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from consents import access, gym, trials
from consents.models import ChannelChange, GymRun
from providers.models import Channel, Organization

from . import paging

# Trial → its name, and what we do.
TRIALS: dict[str, tuple[Any, Any]] = {
    "handshake": (_("확인 이벤트"), _("무작위 글을 담은 확인 이벤트를 보내요. 2xx로 답하고, 서명된 웹훅이면 그 글을 state에 그대로 돌려줘야 해요.")),
    "good": (_("올바른 메시지"), _("바른 서명과 SET을 담은 시험 메시지를 보내요. 2xx로 받고, API 클라이언트가 있으면 1분 안에 ack를 보내야 해요.")),
    "wrong_signature": (_("틀린 서명"), _("서명한 뒤에 내용을 바꿔 보내요. 4xx로 거절하고, ack를 보내지 말아야 해요.")),
    "unknown_key": (_("모르는 열쇠"), _("우리 것이 아닌 열쇠로 서명해 보내요. 4xx로 거절하고, ack를 보내지 말아야 해요.")),
    "early": (_("앞선 시계"), _("webhook-timestamp가 10분 앞선 메시지를 보내요. 5분 넘게 다르면 4xx로 거절해야 해요.")),
    "late": (_("늦은 시계"), _("webhook-timestamp가 10분 지난 메시지를 보내요. 5분 넘게 다르면 4xx로 거절해야 해요.")),
    "alg_none": (_("서명 없는 SET"), _("alg가 none인 SET을 담아 보내요. 4xx로 거절해야 해요.")),
    "wrong_aud": (_("남에게 온 SET"), _("aud가 다른 곳인 SET을 담아 보내요. 4xx로 거절해야 해요.")),
    "replay": (_("되풀이"), _("같은 메시지를 이어서 두 번 보내요. 두 번 다 2xx로 받고, 일은 한 번만 해야 해요. 밖에서 볼 수 있는 것은 답뿐이에요.")),
    "parallel": (_("동시에 두 번"), _("같은 메시지를 같은 순간에 두 번 보내요. 적어도 하나는 2xx, 다른 하나는 2xx이거나 429·503이어야 해요.")),
    "order": (_("뒤바뀐 순서"), _("version 2를 보낸 뒤 version 1을 보내요. 둘 다 2xx로 받고, 늦게 온 version 1은 아무것도 바꾸지 말아야 해요. 밖에서 볼 수 있는 것은 답뿐이에요.")),
    "storm": (_("우리 쪽 503"), _("메시지를 보내고, 그 ack에 우리가 두 번 503과 Retry-After로 답해요. 1분 안에 다시 보내야 해요.")),
    "slow": (_("느린 회선"), _("본문을 30초에 걸쳐 조금씩 보내요. 받아도, 거절해도, 끊어도 돼요. 멈춰 서면 안 돼요. 그동안 다른 시험도 함께 해요.")),
    "together": (_("여럿을 한 번에"), _("메시지 셋을 한 요청에 담아 보내요. 마지막 하나는 서명이 틀려요. 2xx로 받고, ack에는 올바른 둘만 적어야 해요.")),
    "unknown": (_("모르는 번호 끝내기"), _("우리 자격으로, 아무도 가진 적 없는 번호를 끝내 달라고 해요. 이 방식에 맞는 답이 와야 해요. 진짜 동의는 건드리지 않아요.")),
    "stranger": (_("남의 자격"), _("지어낸 자격으로 같은 요청을 보내요. 400·401·403으로 거절해야 해요.")),
    "run": (_("시험 전체"), _("시험을 끝까지 마쳐야 해요.")),
}  # fmt: skip

# What was wrong → in words, and what to do.
FIXES: dict[str, Any] = {
    trials.UNREACHABLE: _("답이 오지 않았어요. 주소, 인증서, 방화벽과 10초 안에 답하는지를 봐 주세요."),
    trials.NOT_TAKEN: _("받아야 하는 메시지를 받지 않았어요. 서명을 원문 바이트로 확인하는지, 같은 메시지와 지난 version에도 2xx로 답하는지 봐 주세요."),
    trials.TAKEN: _("거절해야 하는 메시지를 받았어요. 일을 하기 전에 서명, 열쇠(kid), 시각, SET의 alg·iss·aud를 모두 확인하고 4xx로 답해 주세요."),
    trials.NO_REFUSAL: _("거절은 4xx여야 해요. 다른 답에는 우리가 같은 메시지를 다시 보내요."),
    trials.HUNG: _("답도 끊김도 없이 멈춰 있었어요. 본문을 읽는 시간에 한도를 두고 408로 답하거나 끊어 주세요."),
    trials.NO_ACK: _("ack가 1분 안에 오지 않았어요. 받은 메시지마다 POST /api/v1/deliveries/{jti}/ack 를 보내 주세요."),
    trials.NO_RETRY: _("503을 받은 ack를 다시 보내지 않았어요. 5xx에는 Retry-After만큼 기다렸다가 2xx가 올 때까지 다시 보내 주세요."),
    trials.FORGERY_ACKED: _("거절해 놓고 ack를 보냈어요. 확인이 끝난 메시지만 처리해 주세요."),
    trials.NO_STATE: _("답에 state가 없거나 달라요. 확인 이벤트의 data.state를 JSON {\"state\": …}로 돌려주세요."),
    trials.NOT_NAMED: _("한 요청으로 받은 것 가운데 일부만 ack에 적었어요. 받은 메시지의 jti를 모두 적거나, ack를 따로 보내 주세요."),
    trials.NO_CREDENTIAL: _("우리 자격을 알아보지 못했어요. 저장한 자격과 설정(client_id 등)을 확인해 주세요."),
    trials.FAILED: _("시험을 하다가 우리 쪽에서 오류가 났어요. 다시 해도 그러면 알려 주세요."),
    trials.DIED: _("시험을 하던 일꾼이 멈춰서 끝내지 못했어요. 다시 시작해 주세요."),
    "missing": _("시간 안에 하지 못했어요. 다시 시작해 주세요."),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Trial:
    """One line of a run. `state` is waiting, passed, failed or skipped."""

    name: str
    title: Any
    what: Any
    state: str
    fix: Any
    answers: list[dict]


def trial_rows(run: GymRun) -> list[Trial]:
    """Every trial of the run's protocol, in order, done or not, and what else went wrong. No query."""
    known = {one["name"]: one for one in run.results}
    names = list(dict.fromkeys([*trials.names(run.channel.protocol, run.channel.details), *known]))
    return [_row(name, known.get(name), over=run.finished_at is not None) for name in names]


def _row(name: str, result: dict | None, *, over: bool) -> Trial:
    title, what = TRIALS.get(name, (name, ""))
    if result is None:
        return Trial(name, title, what, "failed" if over else "waiting", FIXES["missing"] if over else "", [])
    state = {True: "passed", False: "failed", None: "skipped"}[result["passed"]]
    return Trial(name, title, what, state, FIXES.get(result["detail"], result["detail"]), result["answers"])


def progress(run: GymRun) -> dict[str, Any]:
    """A run as its page shows it: `state` with its outcome, `rows`, `done` of `count`, `failed`. No query."""
    rows = trial_rows(run)
    if run.finished_at is not None:  # what must be mended comes first
        rows.sort(key=lambda row: row.state != "failed")
    return {
        "run": run,
        "state": _shown(run),
        "rows": rows,
        "done": sum(row.state != "waiting" for row in rows),
        "count": len(rows),
        "failed": sum(row.state == "failed" for row in rows),
    }


def _state(run: GymRun) -> str:
    if run.finished_at is not None:
        return "finished"
    return "running" if run.started_at is not None else "waiting"


def _shown(run: GymRun) -> str:
    """The state with its outcome: waiting, running, passed or failed."""
    state = _state(run)
    return ("passed" if run.passed else "failed") if state == "finished" else state


def told(run: GymRun) -> GymRun:
    """The run with `state` and `trials` as the API tells them."""
    run.state = _state(run)  # type: ignore[attr-defined]
    run.trials = [one | {"fix": str(FIXES.get(one["detail"], one["detail"]))} for one in run.results]  # type: ignore[attr-defined]
    return run


@dataclass(frozen=True, slots=True)
class Station:
    """A channel that can be tried: its badge, if it has one, and the run that is under way."""

    channel: Channel
    badge: GymRun | None
    running: GymRun | None
    can: bool


def stations(organization: Organization, *, at: datetime.datetime) -> list[Station]:
    """The open channel and the one of the change under way. Three queries."""
    rows = Channel.objects.filter(organization=organization)
    pending = ChannelChange.objects.filter(organization=organization, closed_at__isnull=True)
    found = list(rows.filter(state=Channel.State.OPEN)) + list(
        rows.filter(state=Channel.State.TESTING, changes__in=pending)
    )
    badges = gym.badges(found, at=at)
    running = {
        run.channel_id: run
        for run in GymRun.objects.filter(organization=organization, finished_at__isnull=True)
    }
    return [
        Station(one, badges.get(one.pk), running.get(one.pk), bool(trials.names(one.protocol)))
        for one in found
    ]


@access.only_own
def runs(organization: Organization, *, after: str = "") -> paging.Page:
    """A page of its runs, newest first. Raises paging.BadCursor."""
    rows = GymRun.objects.filter(organization=organization).select_related("channel")
    found = paging.page(rows, moment="asked_at", number="pk", after=after)
    for run in found.rows:
        run.state = _shown(run)
        run.failures = sum(one["passed"] is False for one in run.results)
    return found


def badge_of(organization: Organization, *, at: datetime.datetime) -> GymRun | None:
    """The badge of the organization's open channel. Two queries."""
    return badge_at(
        Channel.objects.filter(organization=organization, state=Channel.State.OPEN).first(), at=at
    )


def badge_at(channel: Channel | None, *, at: datetime.datetime) -> GymRun | None:
    """The badge of a channel, if it is open. One query."""
    return gym.badge(channel, at=at) if channel and channel.state == Channel.State.OPEN else None
