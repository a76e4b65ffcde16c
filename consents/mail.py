"""Letters that the portal writes by itself, each in its reader's language."""

import datetime

import structlog
from django.conf import settings
from django.core import mail
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.translation import gettext as _

from consents.ledger import monitor
from consents.models import ChannelChange, Member
from consents.models.obligations import Check
from consents.queries import integrity
from providers import policy

log = structlog.get_logger(__name__)

MOST = 100  # readers of one letter


def tell_unwitnessed(*, at: datetime.datetime) -> int:
    """Tell the regulator's members, once, that no witness has seen the log for an hour; returns how many letters went out."""
    state = integrity.witnessing_now()
    since = state.at.isoformat() if state.at and state.late(at=at, after=integrity.TELL) else ""
    if monitor.is_told(since, at=at):
        return 0
    letters = [_unwitnessed(member.person, state.at) for member in _regulators()] if since else []
    try:
        sent = mail.get_connection().send_messages(letters) if letters else 0
    except OSError as problem:
        log.error("the regulator could not be told", reason=str(problem))  # tried again with the next run
        return 0
    monitor.note_told(since, at=at)
    return sent or 0


def _regulators():
    rows = Member.objects.select_related("person").filter(role=Member.Role.REGULATOR, person__is_active=True)
    return rows.order_by("pk")[:MOST]


def _unwitnessed(person, since: datetime.datetime | None) -> mail.EmailMessage:
    with translation.override(person.language):
        when = f"{timezone.localtime(since):%Y-%m-%d %H:%M}" if since else ""
        subject = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX + _("한 시간 넘게 증인이 기록을 확인하지 않았어요")
        body = _(
            "%(when)s(서울)부터 증인이 기록부를 확인하지 않았어요. 기록은 계속 적히지만, 증인이 확인할 때까지 새 체크포인트는 공개하지 않아요. 증인 서버가 도는지 봐 주세요.\n\n%(url)s"
        ) % {"when": when, "url": settings.PORTAL_URL + reverse("integrity")}
        return mail.EmailMessage(subject, body, to=[person.email])


def tell_channel_change(change: ChannelChange, *, at: datetime.datetime) -> bool:
    """Tell the old duty contact and every admin of the organization, before its channel becomes another one.

    False: the letters could not be handed over, so the notice has not begun. Handed over twice they are two letters."""
    hours = policy.number("CHANNEL_NOTICE_HOURS", on=timezone.localdate(at))
    when = timezone.localtime(at + datetime.timedelta(hours=hours))
    rows = Member.objects.select_related("person").filter(
        organization=change.organization, person__is_active=True
    )
    readers = {member.person.email: member.person.language for member in rows.order_by("pk")[:MOST]}
    if contact := change.organization.duty_contact:
        readers.setdefault(contact, "ko")
    letters = [_channel_change(change, email, language, when) for email, language in readers.items()]
    try:
        mail.get_connection().send_messages(letters)
    except OSError as problem:
        log.error("the organization could not be told of its new channel", reason=str(problem))
        return False
    return True


def _channel_change(change: ChannelChange, email: str, language: str, when) -> mail.EmailMessage:
    with translation.override(language):
        organization, channel = change.organization, change.channel
        name = organization.name_en if language == "en" and organization.name_en else organization.name_ko
        subject = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX + _("연결이 곧 바뀌어요: %(name)s") % {"name": name}
        body = _(
            "%(name)s의 철회와 삭제 요구를 받는 연결이 %(when)s(서울)부터 바뀌어요.\n\n방식: %(protocol)s\n주소: %(address)s\n\n담당자 두 사람이 확인한 변경이고, 그때까지는 지금 연결로 계속 보내요. 모르는 변경이라면 바로 그만두어 주세요.\n\n%(url)s"
        ) % {
            "name": name, "when": f"{when:%Y-%m-%d %H:%M}", "protocol": channel.get_protocol_display(),
            "address": channel.address or "–", "url": settings.PORTAL_URL + reverse("desk_channel"),
        }  # fmt: skip
    return mail.EmailMessage(subject, body, to=[email])
