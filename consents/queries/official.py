"""Codes in the words of regulators, operators and sources; consumers read `templatetags.labels` instead."""

from django.utils.translation import gettext_lazy as _

from consents.models import Case

ACTORS = {
    "person": _("정보주체"),
    "organization": _("회사·기관"),
    "regulator": _("감독자"),
    "staff": _("포털 직원"),
    "system": _("포털(자동)"),
}
EVENTS = {
    "consent-granted": _("동의함(전송요구)"),
    "consent-amended": _("동의 내용 변경(전송요구 변경)"),
    "consent-paused": _("일시 정지"),
    "consent-resumed": _("다시 시작"),
    "consent-withdrawn": _("연동 끊기(전송요구 철회)"),
    "subscription-ended": _("그만두기(탈퇴)"),
    "erasure-requested": _("받아간 정보 지우기(삭제 요구)"),
    "operator-suspended": _("업무정지"),
    "operator-ended": _("허가 종료"),
    "terms-superseded": _("약관 변경"),
}
GOALS = {"received": _("수신 확인까지"), "stopped": _("중단 확인까지"), "erased": _("삭제 확인까지")}
OWED = {"received": _("수신 확인"), "stopped": _("중단 확인"), "erased": _("삭제 증적")}
VERBS = {verb: word for verb, word in Case.Verb.choices if verb}
CASE_SETTLED = _("서로 다르던 기록을 정리함")


def of_case(kind: str) -> str:
    """What a settled case was about, as the log names it (`case.differs`); empty for what is no case."""
    return (
        str(dict(Case.Kind.choices).get(kind.removeprefix("case."), "")) if kind.startswith("case.") else ""
    )


REASONS = {
    "person_left": _("정보주체가 탈퇴함"),
    "person_withdrew": _("정보주체가 철회함"),
    "expired": _("기간 만료"),
    "superseded": _("새 약관으로 바뀜"),
    "inactive": _("장기 미이용"),
    "operator_closed": _("회사가 서비스를 종료함"),
    "licence_suspended": _("업무정지"),
    "licence_ended": _("허가 종료"),
    "source_left": _("정보제공자가 끝냄"),
    "account_closed": _("정보주체가 계정을 닫음"),
    "security": _("보안 조치"),
    "error": _("오류 정정"),
    # what a read-back found
    "still_active": _("끊었는데 아직 살아 있음"),
    "came_back": _("멈췄다가 되살아남"),
}
ROLES = {"operator": _("마이데이터 회사"), "source": _("정보제공자"), "recipient": _("제3자")}
# types of ledger entries; `seen` what the portal saw when it asked, and nobody said
SENTENCES = {
    "subscription.joined": _("서비스에 가입함"),
    "subscription.ended": _("가입이 끝남(탈퇴)"),
    "consent.granted": _("동의함(전송요구)"),
    "consent.declined": _("선택 항목에 동의하지 않음"),
    "consent.amended": _("동의 내용을 바꿈(전송요구 변경)"),
    "consent.paused": _("연동을 잠시 멈춤"),
    "consent.resumed": _("연동을 다시 시작함"),
    "consent.withdrawn": _("연동을 끊음(전송요구 철회)"),
    "consent.expired": _("동의 기간이 끝남"),
    "erasure.requested": _("삭제를 요구함"),
    "erasure.confirmed": _("삭제 증적을 받음"),
    "erasure.refused": _("법적 근거를 들어 삭제를 거절함"),
    "delivery.sent": _("알림을 보냄"),
    "delivery.received": _("알림을 받았다고 확인함"),
    "delivery.stopped": _("멈췄다고 확인함"),
    "delivery.received seen": _("되물어 보니 멈추는 중이었음"),
    "delivery.stopped seen": _("되물어 보니 멈춰 있었음"),
    "delivery.erased": _("지웠다고 서명함"),
    "delivery.dead": _("알림을 전하지 못해 사람이 처리해야 함"),
    "delivery.contradicted": _("되물어 보니 멈추지 않았음"),
    "transfer.contradicted": _("끝난 뒤에 정보가 오감"),
    "request.lodged": _("회사가 동의를 요청함"),
    "request.declined": _("동의 요청을 거절함"),
    "request.expired": _("동의 요청의 시간이 지남"),
    "terms.published": _("약관을 게시함"),
    "terms.retired": _("약관을 물림"),
    "licence.decided": _("허가를 결정함"),
    "channel.opened": _("연결을 엶"),
    "channel.rotated": _("연결 열쇠를 바꿈"),
    "channel.retired": _("연결을 닫음"),
    "notice.raised": _("정보주체에게 알림을 보냄"),
    "notice.answered": _("정보주체가 알림에 답함"),
    "record.looked_up": _("감독자가 기록을 조회함"),
    "record.revealed": _("감독자가 신원을 확인함"),
    "record.exported": _("기록을 내려받음"),
    "key.added": _("열쇠를 더함"),
    "key.retired": _("열쇠를 거둠"),
    "person.erased": _("계정을 닫음"),
}
