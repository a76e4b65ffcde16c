"""The plain word and the tone of every code a page can show: the models' own words, and those no model has."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext_lazy as _

from consents.checks import LOOKED
from consents.models.agreements import Consent, EndReason, Erasure, Subscription
from consents.models.channels import ChannelChange
from consents.models.notices import Notice
from consents.models.obligations import Check, Delivery, Evidence
from consents.models.traces import Case
from consents.models.uploads import Upload
from providers.models.catalogue import Rider, Service, Terms, TermsItem
from providers.models.channels import Channel
from providers.models.organizations import LicenceStatus, Sector

# neutral: over, or nothing to do · info: running · good: done as it should be · wait: moving · late · bad
ICON_OF_TONE = {
    "neutral": "circle",
    "info": "info",
    "good": "circle-check",
    "wait": "clock",
    "late": "triangle-alert",
    "bad": "octagon-alert",
}


def _words(choices: Any, **tones: str) -> dict[Any, tuple[Any, str]]:
    """The labels of a TextChoices, each with its tone; neutral where none is given."""
    return {member.value: (member.label, tones.get(member.value, "neutral")) for member in choices}


def entry_code(typ: str, actor_id: str) -> str:
    """Under which an entry stands in WORDS: a step that was taken by our own look is nobody's word."""
    return f"{typ} seen" if actor_id == LOOKED and f"{typ} seen" in WORDS["entry"] else typ


WORDS: dict[str, dict[Any, tuple[Any, str]]] = {
    "subscription": _words(Subscription.State, active="info"),
    "consent": _words(Consent.State, active="info", paused="wait"),
    "consent_kind": _words(TermsItem.Kind),
    # An erasure is somebody's signed word and never more: nobody can look (security 2.8).
    "erasure": _words(Erasure, requested="wait", refused="bad")
    | {"confirmed": (_("업체가 지웠다고 서명함"), "good")},
    "reason": _words(EndReason),
    "notice": _words(Notice.Kind),
    "answer": _words(Notice.Answer),
    "delivery": _words(
        Delivery.State,
        queued="wait",
        sent="wait",
        received="info",
        stopped="good",
        erased="good",
        retrying="late",
        checking="wait",
        dead="bad",
        manual="wait",
    )
    # what we saw when we asked, and they never said
    | {"seen_received": (_("멈추는 중이라고 나옴"), "info"), "seen_stopped": (_("멈춘 것을 봄"), "good")},
    "party_role": _words(Delivery.Role),
    "evidence": _words(Evidence.Status, stopped="good", erased="good", retained="late"),
    "means": _words(Evidence.Means) | {"readback": (_("방지턱이 되물어 봤어요"), "neutral")},
    "check": _words(Check.Says, active="bad", stopping="wait", stopped="good", absent="good"),
    "finding": _words(Check.Finding, still_active="bad", came_back="bad"),
    "case": _words(
        Case.Kind,
        unknown_here="late",
        ended_here="bad",
        missing_there="late",
        differs="late",
        counts="late",
        after_stop="bad",
    ),
    "verb": _words(Case.Verb, adopt="good", send_again="wait", dispute="late"),
    "licence": _words(
        LicenceStatus,
        applied="wait",
        preliminary="wait",
        held="late",
        licensed="good",
        conditional="good",
        suspended="bad",
        refused="bad",
        cancelled="bad",
    ),
    "sector": _words(Sector),
    "service": _words(Service.State, registered="wait", live="good", paused="wait", closing="late"),
    "terms": _words(Terms.State, draft="wait", published="good"),
    "change": _words(Terms.Change, material="late"),
    "channel": _words(Channel.State, testing="wait", open="good"),
    "channel_change": _words(ChannelChange.State, asked="wait", approved="wait", proved="info", live="good"),
    "upload": _words(
        Upload.State, receiving="wait", waiting="wait", running="wait", done="good", failed="bad"
    ),
    "row": {
        "created": (_("새로 들어감"), "good"),
        "updated": (_("쓴 날을 고침"), "good"),
        "unchanged": (_("그대로"), "neutral"),
        "mismatched": (_("기록과 다름"), "late"),
        "waiting": (_("사람을 기다림"), "wait"),
        "refused": (_("들어가지 못함"), "bad"),
    },
    "trial": {
        "waiting": (_("차례를 기다려요"), "wait"),
        "passed": (_("통과"), "good"),
        "failed": (_("고쳐야 해요"), "bad"),
        "skipped": (_("해당 없음"), "neutral"),
    },
    "gym_run": {
        "waiting": (_("차례를 기다려요"), "wait"),
        "running": (_("시험하는 중"), "wait"),
        "passed": (_("통과"), "good"),
        "failed": (_("통과하지 못함"), "bad"),
    },
    "rider": _words(Rider),
    # what services are for (purpose_code)
    "purpose": {
        "budgeting": (_("가계부·자산 모아 보기"), "neutral"),
        "credit": (_("대출·신용점수"), "neutral"),
        "invest": (_("투자·저축"), "neutral"),
        "pension": (_("연금"), "neutral"),
        "insurance": (_("보험"), "neutral"),
        "health": (_("건강"), "neutral"),
        "mobility": (_("교통·이동"), "neutral"),
        "shopping": (_("쇼핑·요금제"), "neutral"),
    },
    "holding": {
        "receiving": (_("지금 받고 있어요"), "info"),
        "held": (_("그만뒀지만 아직 지우지 않았어요"), "late"),
        "gone": (_("지웠다고 서명했어요"), "good"),
    },
    "step": {
        "ended": (_("여기서 끝냈어요"), "neutral"),
        "over": (_("여기서 끝났어요"), "neutral"),
        "paused": (_("여기서 멈췄어요"), "neutral"),
        "withdrawn": (_("여기서 끊었어요"), "neutral"),
        "asked": (_("지워 달라고 했어요"), "neutral"),
        "sent": (_("그만두라고 전했어요"), "neutral"),
        "received": (_("받았다고 했어요"), "neutral"),
        "stopped": (_("멈췄다고 했어요"), "neutral"),
        "seen_stopped": (_("물어보니 멈춰 있었어요. 회사는 답하지 않았어요"), "neutral"),
        "checked": (_("정말 멈췄는지 확인했어요"), "neutral"),
        "contradicted": (_("확인해 보니 그대로 있어요"), "neutral"),
        "erased": (_("지웠다고 서명했어요"), "neutral"),
    },
    "request": {
        "pending": (_("답을 기다려요"), "wait"),
        "granted": (_("동의했어요"), "good"),
        "declined": (_("하지 않기로 했어요"), "neutral"),
        "expired": (_("시간이 지났어요"), "neutral"),
    },
    # 정보활용 동의등급, codes of the standard API; only the official grade is shown with these words
    "grade": {
        "01": (_("안심"), "good"),
        "02": (_("다소안심"), "good"),
        "03": (_("보통"), "neutral"),
        "04": (_("신중"), "late"),
        "05": (_("주의"), "bad"),
    },
    "sensitivity": {
        1: (_("덜 민감해요"), "neutral"),
        2: (_("조금 민감해요"), "neutral"),
        3: (_("민감해요"), "neutral"),
        4: (_("꽤 민감해요"), "neutral"),
        5: (_("아주 민감해요"), "neutral"),
    },
    # types of ledger entries (contracts, "Names on the wire")
    "entry": {
        "subscription.joined": (_("서비스에 가입했어요"), "info"),
        "subscription.ended": (_("서비스를 그만뒀어요"), "neutral"),
        "consent.granted": (_("동의했어요"), "info"),
        "consent.declined": (_("동의하지 않았어요"), "neutral"),
        "consent.amended": (_("동의 내용을 바꿨어요"), "info"),
        "consent.paused": (_("잠시 멈췄어요"), "wait"),
        "consent.resumed": (_("다시 시작했어요"), "info"),
        "consent.withdrawn": (_("연동을 끊었어요"), "neutral"),
        "consent.expired": (_("기간이 끝났어요"), "neutral"),
        "erasure.requested": (_("지워 달라고 했어요"), "wait"),
        "erasure.confirmed": (_("업체가 지웠다고 서명했어요"), "good"),
        "erasure.refused": (_("지우지 못한다고 답했어요"), "bad"),
        "delivery.sent": (_("회사에 전했어요"), "wait"),
        "delivery.received": (_("회사가 받았다고 했어요"), "info"),
        "delivery.stopped": (_("회사가 멈췄다고 했어요"), "good"),
        "delivery.received seen": (_("물어보니 멈추는 중이었어요"), "info"),
        "delivery.stopped seen": (_("물어보니 멈춰 있었어요"), "good"),
        "delivery.erased": (_("업체가 지웠다고 서명했어요"), "good"),
        "delivery.dead": (_("전하지 못해 사람이 살펴봐요"), "bad"),
        "delivery.contradicted": (_("되물어 보니 멈추지 않았어요"), "bad"),
        "transfer.contradicted": (_("그만둔 뒤에 정보가 오갔어요"), "bad"),
        "request.lodged": (_("회사가 동의를 요청했어요"), "wait"),
        "request.declined": (_("요청을 거절했어요"), "neutral"),
        "request.expired": (_("요청한 시간이 지났어요"), "neutral"),
        "terms.published": (_("새 약관이 나왔어요"), "info"),
        "terms.retired": (_("약관이 물러났어요"), "neutral"),
        "licence.decided": (_("허가 결정이 있었어요"), "info"),
        "channel.opened": (_("연결을 열었어요"), "neutral"),
        "channel.rotated": (_("연결 열쇠를 바꿨어요"), "neutral"),
        "channel.retired": (_("연결을 닫았어요"), "neutral"),
        "notice.raised": (_("알림을 보냈어요"), "neutral"),
        "notice.answered": (_("알림에 답했어요"), "neutral"),
        "record.looked_up": (_("감독자가 내 기록을 봤어요"), "late"),
        "record.revealed": (_("감독자가 내가 누구인지 확인했어요"), "late"),
        "record.exported": (_("기록을 내려받았어요"), "neutral"),
        "key.added": (_("열쇠를 더했어요"), "neutral"),
        "key.retired": (_("열쇠를 거뒀어요"), "neutral"),
        "person.erased": (_("계정을 닫았어요"), "neutral"),
    },
}
