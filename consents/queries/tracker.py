"""The stop tracker: what became of each stop, a line for every party, like a parcel's."""

import datetime
import hashlib
from collections import defaultdict
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from django.db.models import OuterRef, Q, Subquery
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from consents import checks, messages
from consents.models import Check, Delivery, EndReason, Evidence, Subscription
from consents.templatetags.portal import day, label, loc

LOOK = ("says", "finding", "at")  # what is shown of a check
# What a stop begins with, as the steps of the tracker name it.
FIRST_STEP = {
    messages.CONSENT_PAUSED: "paused",
    messages.CONSENT_WITHDRAWN: "withdrawn",
    messages.ERASURE_REQUESTED: "asked",
}
BY_THE_PERSON = {"", EndReason.PERSON_LEFT, EndReason.PERSON_WITHDREW}


@dataclass(frozen=True, slots=True)
class Step:
    """`state` is done, now, late, todo or bad."""

    code: str
    state: str
    at: datetime.datetime | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A letter the person can copy or mail when an answer is late."""

    ident: str
    subject: str
    text: str
    mailto: str


@dataclass(frozen=True, slots=True)
class Party:
    """One organization that must act. `overdue` is derived from the deadline of its next step."""

    name: str
    role: str
    state: str
    goal: str
    steps: list[Step]
    overdue: bool
    due_at: datetime.datetime | None
    closed_at: datetime.datetime | None
    refused: bool
    complaint: Complaint | None
    evidence: dict | None
    statements: list[Evidence]
    contradicted: bool
    delivery: Delivery
    seen: frozenset[str]

    @property
    def received_at(self) -> datetime.datetime | None:
        """When it said that it had received the message: never, where we only saw what it did."""
        return None if "received" in self.seen else self.delivery.received_at

    @property
    def complaint_url(self) -> str:
        return f"#{self.complaint.ident}" if self.complaint else ""


@dataclass(frozen=True, slots=True)
class Act:
    """One thing the person (or somebody for them) did, and everybody who had to hear of it."""

    ident: str
    title: str
    at: datetime.datetime
    parties: list[Party]
    summary: str
    settled: bool


@dataclass(frozen=True, slots=True)
class Tracker:
    """Acts, newest first. `moving` while an answer is missing; `seen` changes when anything shown does."""

    acts: list[Act]
    moving: bool
    seen: str

    @property
    def signed_at(self) -> datetime.datetime | None:
        """When the operator last signed that everything is erased: it was not, where erasing is still asked for."""
        parties = [party for act in self.acts for party in act.parties]
        whole = [p for p in parties if p.role == Delivery.Role.OPERATOR and p.delivery.consent_id is None]
        said = [
            one.received_at for party in whole for one in party.statements if one.status == one.Status.ERASED
        ]
        return max(said, default=None)


def tracker(subscription: Subscription, *, at: datetime.datetime) -> Tracker:
    """Every stop of a subscription as of `at`. Two queries."""
    told = Check.objects.filter(delivery=OuterRef("pk")).exclude(says=Check.Says.UNKNOWN).order_by("-pk")
    deliveries = list(
        checks.with_looks(Delivery.objects.filter(subscription=subscription, replay_of__isnull=True))
        .filter(~Q(goal=Delivery.Goal.RECEIVED) | Q(event=messages.CONSENT_PAUSED))
        .select_related("organization", "consent__source", "consent__recipient")
        .annotate(**{f"look_{name}": Subquery(told.values(name)[:1]) for name in LOOK})
        .defer("body", "set_compact")
        .order_by("-id")[:200]
    )
    statements: dict = defaultdict(list)
    for statement in Evidence.objects.filter(delivery__in=deliveries).defer("document").order_by("id"):
        statements[statement.delivery_id].append(statement)
    by_act: dict = defaultdict(list)
    for delivery in reversed(deliveries):
        delivery.subscription = subscription
        party = _party(delivery, statements[delivery.pk], _look(delivery), at=at)
        by_act[delivery.txn].append(party)
    acts = [_act(subscription, parties) for parties in by_act.values()]
    acts.sort(key=lambda act: (act.at, act.ident), reverse=True)
    return Tracker(acts, any(not act.settled for act in acts), _seen(acts, subscription))


def _look(delivery: Delivery) -> Check | None:
    """Our newest look that told something, as `tracker` read it along with the delivery."""
    given = {name: getattr(delivery, f"look_{name}") for name in LOOK}
    return Check(delivery=delivery, **given) if given["says"] else None


def _act(subscription: Subscription, parties: list[Party]) -> Act:
    first = parties[0].delivery
    settled = all(party.closed_at for party in parties)
    return Act(f"act-{first.txn}", _title(first), first.created_at, parties, _summary(parties), settled)


def _title(delivery: Delivery) -> str:
    consent = delivery.consent
    other = consent and (consent.source or consent.recipient)
    what = {
        messages.CONSENT_PAUSED: _("잠시 멈춤"),
        messages.CONSENT_WITHDRAWN: _("연동 끊기(전송요구 철회)"),
        messages.SUBSCRIPTION_ENDED: _("그만두기(탈퇴)"),
        messages.ERASURE_REQUESTED: _("받아간 정보 지우기(삭제 요구)"),
    }.get(delivery.event, _("그만 받게 하기"))
    return f"{what} · {loc(other, 'name')}" if other else what


def _summary(parties: list[Party]) -> str:
    total = len(parties)
    if wrong := sum(party.contradicted for party in parties):
        return ngettext(
            "확인해 보니 %(n)d곳이 아직 멈추지 않았어요. 감독자에게 알렸어요.",
            "확인해 보니 %(n)d곳이 아직 멈추지 않았어요. 감독자에게 알렸어요.",
            wrong,
        ) % {"n": wrong}
    closed = [party for party in parties if party.closed_at and not party.refused]
    late = sum(party.overdue for party in parties)
    if any(party.refused for party in parties) and all(party.closed_at for party in parties):
        return _("모두 답했지만, 지우지 못한다고 답한 곳이 있어요.")
    if len(closed) == total:
        erased = sum(party.goal == Delivery.Goal.ERASED for party in parties)
        if erased:
            words = _("다 끝났어요. 지웠다고 서명한 곳 %(erased)d, 멈춘 곳 %(stopped)d.")
            return words % {"erased": erased, "stopped": total - erased}
        if seen := sum(party.state == "seen_stopped" for party in parties):
            words = _("다 끝났어요. 멈췄다고 답한 곳 %(said)d, 우리가 물어보니 멈춰 있던 곳 %(seen)d.")
            return words % {"said": total - seen, "seen": seen}
        return ngettext(
            "다 끝났어요. %(n)d곳이 멈췄다고 답했어요.", "다 끝났어요. %(n)d곳이 멈췄다고 답했어요.", total
        ) % {"n": total}
    words = _("%(total)d곳 가운데 %(done)d곳이 끝냈어요.") % {"total": total, "done": len(closed)}
    if late:
        return (
            words
            + " "
            + ngettext("%(n)d곳이 늦어지고 있어요.", "%(n)d곳이 늦어지고 있어요.", late) % {"n": late}
        )
    return words + " " + _("나머지 답을 기다리고 있어요.")


def _party(
    delivery: Delivery, statements: list[Evidence], check: Check | None, *, at: datetime.datetime
) -> Party:
    overdue = delivery.closed_at is None and delivery.due_at is not None and delivery.due_at < at
    seen = checks.seen(delivery)
    erased = [one for one in statements if one.status == Evidence.Status.ERASED]
    return Party(
        name=loc(delivery.organization, "name"),
        role=delivery.role,
        state=checks.shown_state(delivery),
        goal=delivery.goal,
        steps=_looked(check, _steps(delivery, statements, seen, overdue=overdue, at=at)),
        overdue=overdue,
        due_at=delivery.due_at,
        closed_at=delivery.closed_at,
        refused=delivery.refused_at is not None,
        # What we have not sent yet is our own delay: nobody else is to be blamed for it.
        complaint=_complaint(delivery, at=at)
        if overdue and delivery.state != Delivery.State.QUEUED
        else None,
        evidence={"digest": erased[-1].digest, "url": erased[-1].report_url} if erased else None,
        statements=statements,
        contradicted=check is not None and bool(check.finding),
        delivery=delivery,
        seen=seen,
    )


def _first_step(delivery: Delivery) -> str:
    """What began it. Only what the person did is called theirs."""
    first = FIRST_STEP.get(delivery.event, "ended")
    ended = delivery.consent or delivery.subscription
    return first if first in ("paused", "asked") or ended.end_reason in BY_THE_PERSON else "over"


def _steps(
    delivery: Delivery, statements: list[Evidence], seen: frozenset[str], *, overdue: bool, at
) -> list[Step]:
    """What was not said stands as what we saw; that a message was received is not to be seen, and left out."""
    codes = ["sent"] if "received" in seen else ["sent", "received"]
    if (
        delivery.goal != Delivery.Goal.RECEIVED and delivery.event != messages.ERASURE_REQUESTED
    ):  # by then the flow has been stopped before
        codes.append("stopped")
    if delivery.goal == Delivery.Goal.ERASED:
        codes.append("erased")
    steps = [Step(_first_step(delivery), "done", delivery.created_at)]
    waiting = delivery.closed_at is None
    for code in codes:
        reached = getattr(delivery, f"{code}_at")
        if reached:
            name = f"seen_{code}" if code in seen else code
            steps.append(Step(name, "done", reached, _said(code, statements)))
        elif code == "erased" and delivery.refused_at:
            steps.append(
                Step(
                    code,
                    "bad",
                    delivery.refused_at,
                    _("지우지 못한다고 답했어요: %(basis)s") % {"basis": delivery.refusal},
                )
            )
        elif waiting:
            state = "bad" if delivery.state == Delivery.State.DEAD else "late" if overdue else "now"
            steps.append(Step(code, state, None, _why_waiting(delivery, overdue=overdue, at=at)))
            waiting = False
        else:
            steps.append(Step(code, "todo"))
    return steps


def _looked(check: Check | None, steps: list[Step]) -> list[Step]:
    """Our own look stands after the last step that was reached; what has been set right since is not held against anybody."""
    if check is None:
        return steps
    words = {
        Check.Says.STOPPED: ("done", _("끝났다고 나와요.")),
        Check.Says.ABSENT: ("done", _("그런 연동이 없다고 나와요.")),
        Check.Says.STOPPING: ("now", _("끝내는 중이라고 나와요.")),
        Check.Says.ACTIVE: ("bad", _("아직 남아 있어요. 감독자에게 알렸고, 계속 확인할게요."))
        if check.finding
        else ("now", _("아직 끝나지 않았어요. 더 기다렸다가 다시 확인할게요.")),
    }
    state, note = words[Check.Says(check.says)]
    code = "contradicted" if check.finding else "checked"
    last = max((n for n, step in enumerate(steps) if step.at), default=0)
    return [*steps[: last + 1], Step(code, state, check.at, note), *steps[last + 1 :]]


def _said(code: str, statements: list[Evidence]) -> str:
    """How an organization said it: signed by its server, or confirmed by a human at the desk."""
    said = [one for one in statements if one.status == code]
    return label(said[-1].means, "means") if said else ""


def _why_waiting(delivery: Delivery, *, overdue: bool, at: datetime.datetime) -> str:
    State = Delivery.State
    if delivery.state == State.RETRYING:
        again = delivery.next_at
        tried = ngettext(
            "%(n)d번 보냈지만 닿지 않았어요.", "%(n)d번 보냈지만 닿지 않았어요.", delivery.attempts
        ) % {"n": delivery.attempts}
        if again is None or again <= at:
            return tried + " " + _("곧 다시 보내요.")
        return (
            tried
            + " "
            + _("%(when)s에 다시 보내요.") % {"when": timezone.localtime(again).strftime("%H:%M:%S")}
        )
    words: dict[str, str] = {
        State.QUEUED: _("방지턱이 아직 보내지 못했어요. 우리가 늦은 거예요.") if overdue else _("곧 보내요."),
        State.CHECKING: _("답이 뚜렷하지 않았어요. 정말 받았는지 다시 확인하고 있어요."),
        State.DEAD: _("여러 번 보냈지만 닿지 않았어요. 방지턱 담당자가 직접 살펴봐요."),
        State.MANUAL: _("이 회사는 담당자가 손으로 처리해요. 담당자의 업무함에서 기다리고 있어요."),
    }
    return words.get(delivery.state, "")


def _complaint(delivery: Delivery, *, at: datetime.datetime) -> Complaint:
    subscription, organization = delivery.subscription, delivery.organization
    asked = _("그만 보내고 지워 달라고") if delivery.goal == Delivery.Goal.ERASED else _("그만 보내 달라고")
    subject = _("[마이데이터] 그만 받아 달라는 요구에 답해 주세요: %(service)s") % {
        "service": loc(subscription.service, "name")
    }
    text = _(
        "%(organization)s 개인정보 담당자께\n\n"
        "저는 %(asked_on)s에 방지턱을 통해 ‘%(service)s’(%(operator)s)에 제 정보를 %(asked)s 요구했습니다"
        "(신용정보법 제33조의2 전송요구 철회).\n"
        "%(due)s까지 답해야 하는데, 처리했다는 답이 아직 없습니다.\n\n"
        "지금까지의 상태: %(state)s\n"
        "전달 번호: %(jti)s\n"
        "나를 가리키는 번호: %(subject)s\n\n"
        "지금 어떻게 되고 있는지, 언제까지 처리할지 알려 주세요.\n"
        "답이 없으면 금융위원회와 개인정보보호위원회에 알리겠습니다.\n"
    ) % {
        "organization": loc(organization, "name"),
        "asked_on": _clock(delivery.created_at),
        "service": loc(subscription.service, "name"),
        "operator": loc(subscription.operator, "name"),
        "asked": asked,
        "due": _clock(delivery.due_at),
        "state": label(checks.shown_state(delivery), "delivery"),
        "jti": delivery.jti,
        "subject": subscription.person.subject_id,
    }
    query = urlencode({"subject": subject, "body": text}, quote_via=quote)
    mailto = f"mailto:{organization.duty_contact}?{query}" if organization.duty_contact else ""
    return Complaint(f"complaint-{delivery.jti}", subject, text, mailto)


def _clock(moment: datetime.datetime | None) -> str:
    return "" if moment is None else f"{day(moment)} {timezone.localtime(moment):%H:%M}"


def _seen(acts: list[Act], subscription: Subscription) -> str:
    shown = [subscription.state, subscription.erasure]
    for act in acts:
        for party in act.parties:
            shown += [
                act.ident,
                party.state,
                str(party.overdue),
                str(party.closed_at),
                str(party.delivery.attempts),
            ]
            shown += [str(step.at) for step in party.steps]
    return hashlib.sha256("|".join(shown).encode()).hexdigest()[:16]
