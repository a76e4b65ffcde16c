"""Letters that the portal writes by itself, each in its reader's language."""

import datetime
import uuid
from collections import Counter
from collections.abc import Collection

import structlog
from django.conf import settings
from django.core import mail
from django.urls import reverse
from django.utils import timezone, translation
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from consents import escalation, links, steps
from consents.ledger import monitor
from consents.models import Case, ChannelChange, Member, Person
from consents.models.obligations import Check, Delivery, Escalation
from consents.queries import integrity
from consents.queries.official import EVENTS
from providers import policy
from providers.models import Organization

log = structlog.get_logger(__name__)

MOST = 100  # readers of one letter
MOST_STOPS = 20  # with a link each in one letter; the inbox has all of them


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


def tell_contradicted(checks: list[Check]) -> int:
    """Tell the admins of organizations that said they had stopped, or had time enough, and had not; returns how many letters
    went out. A letter that cannot be handed over is not tried again: the case stands at their desk."""
    return _tell_admins({check.delivery.organization_id for check in checks}, _FOUND)


def tell_after_stop(*, at: datetime.datetime) -> int:
    """The same of the cases that a report of transfers has opened at that moment: data reached somebody after the stop."""
    cases = Case.objects.filter(kind=Case.Kind.AFTER_STOP, opened_at=at)
    return _tell_admins(set(cases.values_list("organization", flat=True)), _FLOWED)


def _tell_admins(organizations: Collection[uuid.UUID], words: Promise) -> int:
    owner = Organization.objects.in_bulk(organizations) if organizations else {}
    members = Member.objects.select_related("person").filter(organization__in=owner, person__is_active=True)
    letters = [
        _contradicted(member.person, owner[member.organization_id], words)
        for member in members.order_by("pk")[:MOST]
        if member.organization_id
    ]
    try:
        return mail.get_connection().send_messages(letters) or 0 if letters else 0
    except OSError as problem:
        log.error("an organization could not be told of a finding", reason=str(problem))
        return 0


_FOUND = gettext_lazy(
    "%(name)s에 되물어 보니 끝난 동의가 아직 살아 있다고 해요. 정보주체와 감독자에게 알렸어요. 바로 멈추고, 무슨 일이었는지 업무함에 적어 주세요.\n\n%(url)s"
)
_FLOWED = gettext_lazy(
    "%(name)s에 끝난 동의로 정보가 오갔다는 보고가 들어왔어요. 정보주체와 감독자에게 알렸어요. 바로 멈추고, 무슨 일이었는지 업무함에 적어 주세요.\n\n%(url)s"
)


def _contradicted(person, organization, words) -> mail.EmailMessage:
    with translation.override(person.language):
        name = (
            organization.name_en if person.language == "en" and organization.name_en else organization.name_ko
        )
        subject = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX + _("멈췄어야 할 연동이 살아 있어요: %(name)s") % {
            "name": name
        }
        body = str(words) % {"name": name, "url": settings.PORTAL_URL + reverse("desk")}
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


# What somebody did to the clients and keys of their organization, by a word of the desk.
CLIENT_CHANGES = {
    "made": gettext_lazy("서버가 쓰는 클라이언트와 첫 비밀을 만들었어요."),
    "app-made": gettext_lazy("앱을 등록했어요."),
    "secret-made": gettext_lazy("새 클라이언트 비밀을 만들었어요. 쓰던 비밀도 하루 동안 함께 통해요."),
    "secret-retired": gettext_lazy("클라이언트 비밀 하나를 거뒀어요."),
    "changed": gettext_lazy("권한이나 돌아올 주소를 바꿨어요."),
    "way-changed": gettext_lazy("로그인하는 방법(비밀, 서명 열쇠, DPoP)을 바꿨어요."),
    "tokens-ended": gettext_lazy("토큰을 모두 끊었어요."),
    "retired": gettext_lazy("클라이언트를 거뒀어요. 비밀과 토큰도 모두 끝났어요."),
    "keys-registered": gettext_lazy("서명을 확인하는 공개 키를 등록했어요."),
    "keys-removed": gettext_lazy("등록한 공개 키를 거뒀어요."),
}


def tell_client_change(
    what: str, organization: Organization, *, client_id: str = "", by: Person, at: datetime.datetime
) -> int:
    """Tell the organization's other admins what one of them did to its clients or keys (CLIENT_CHANGES); returns how many letters
    went out. A letter that cannot be handed over is not tried again: the change is done, and stands at their desk."""
    others = Member.objects.select_related("person").filter(organization=organization, person__is_active=True)
    others = others.exclude(person=by).order_by("pk")[:MOST]
    letters = [_client_change(what, organization, client_id, member.person, by, at) for member in others]
    try:
        return mail.get_connection().send_messages(letters) or 0 if letters else 0
    except OSError as problem:
        log.error("admins could not be told of a change of a client", reason=str(problem))
        return 0


def _client_change(
    what: str, organization: Organization, client_id: str, reader: Person, by: Person, at: datetime.datetime
) -> mail.EmailMessage:
    with translation.override(reader.language):
        english = reader.language == "en" and organization.name_en
        name = organization.name_en if english else organization.name_ko
        subject = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX + _("API와 열쇠가 바뀌었어요: %(name)s") % {
            "name": name
        }
        body = _(
            "%(who)s 님이 %(when)s(서울)에 %(name)s의 API와 열쇠를 바꿨어요.\n\n%(what)s\n클라이언트: %(client)s\n\n모르는 변경이라면 바로 토큰을 끊고 비밀을 거둬 주세요.\n\n%(url)s"
        ) % {
            "who": by.name, "when": f"{timezone.localtime(at):%Y-%m-%d %H:%M}", "name": name, "what": CLIENT_CHANGES[what],
            "client": client_id or "–", "url": settings.PORTAL_URL + reverse("desk_api"),
        }  # fmt: skip
    return mail.EmailMessage(subject, body, to=[reader.email])


def tell_inboxes(escalations: list[Escalation]) -> int:
    """One letter to each organization in whose inbox a stop has begun to wait: number, deadline and a one-time link of each;
    returns how many letters went out. What is not answered in a day is told again (`tell_duty_contacts`)."""
    waiting: dict[Organization, list[Delivery]] = {}
    for one in escalations:
        if one.step == Escalation.Step.LETTER:
            waiting.setdefault(one.delivery.organization, []).append(one.delivery)
    return _send(
        [
            _waiting(organization, rows, to)
            for organization, rows in waiting.items()
            for to in _first_readers(organization)
        ]
    )


def _waiting(organization: Organization, rows: list[Delivery], to: str) -> mail.EmailMessage:
    with translation.override("ko"):
        subject = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX + _("업무함에서 기다리는 철회·삭제 요구가 있어요")
        stops = "\n\n".join(_stop(row) for row in rows[:MOST_STOPS])
        body = ngettext(
            "%(name)s의 업무함에 철회·삭제 요구 %(n)s건이 왔어요. 링크마다 한 번만 쓸 수 있고, 담당자 계정으로 로그인해야 해요. 하루 안에 답이 없으면 다른 담당자와 감독 기관이 봐요.\n\n%(stops)s\n\n업무함: %(url)s",
            "%(name)s의 업무함에 철회·삭제 요구 %(n)s건이 왔어요. 링크마다 한 번만 쓸 수 있고, 담당자 계정으로 로그인해야 해요. 하루 안에 답이 없으면 다른 담당자와 감독 기관이 봐요.\n\n%(stops)s\n\n업무함: %(url)s",
            len(rows),
        ) % {
            "name": organization.name_ko, "n": len(rows), "stops": stops, "url": settings.PORTAL_URL + reverse("desk"),
        }  # fmt: skip
        return mail.EmailMessage(subject, body, to=[to])


def _stop(row: Delivery) -> str:
    due = steps.deadline(row.goal, created_at=row.created_at, goal=row.goal)
    return _("번호: %(jti)s\n알린 일: %(event)s (%(service)s)\n기한: %(due)s(서울)\n한 번만 쓰는 링크: %(url)s") % {
        "jti": row.jti, "event": EVENTS.get(row.event, row.event), "service": row.subscription.service.name_ko,
        "due": f"{timezone.localtime(due):%Y-%m-%d %H:%M}", "url": links.address(row),
    }  # fmt: skip


def tell_duty_contacts(escalations: list[Escalation]) -> int:
    """One letter to the duty contact of each organization that could not be reached; returns how many went out. What has waited in
    an inbox for a day is told to its admins too.

    A letter that cannot be handed over is not tried again: the stop stands at its desk, and a day later with the regulator."""
    late = [one for one in escalations if escalation.is_for_duty_contact(one)]
    owners = {one.delivery.organization_id: one.delivery.organization for one in late}
    counts = Counter(one.delivery.organization_id for one in late)
    by_hand = {one.delivery.organization_id for one in late if escalation.is_by_hand(one)}
    return _send(
        [
            _unreached(organization, counts[key], to)
            for key, organization in owners.items()
            for to in dict.fromkeys(
                [organization.duty_contact, *(_admins(organization) if key in by_hand else [])]
            )
            if to
        ]
    )


def _first_readers(organization: Organization) -> list[str]:
    return [organization.duty_contact] if organization.duty_contact else _admins(organization)


def _admins(organization: Organization) -> list[str]:
    rows = Member.objects.filter(organization=organization, person__is_active=True).order_by("pk")
    return list(rows.values_list("person__email", flat=True)[:MOST])


def _send(letters: list[mail.EmailMessage]) -> int:
    try:
        return mail.get_connection().send_messages(letters[:MOST]) or 0 if letters else 0
    except OSError as problem:
        log.error("duty contacts could not be told", reason=str(problem), organizations=len(letters))
        return 0


def _unreached(organization, n: int, to: str) -> mail.EmailMessage:
    with translation.override("ko"):
        subject = settings.ACCOUNT_EMAIL_SUBJECT_PREFIX + _("전하지 못한 철회·삭제 요구가 있어요")
        body = ngettext(
            "%(name)s에 철회·삭제 요구 %(n)s건을 전하지 못하고 있어요. 연결을 살펴봐 주세요. 업무함에서 직접 확인할 수도 있어요.\n\n%(url)s",
            "%(name)s에 철회·삭제 요구 %(n)s건을 전하지 못하고 있어요. 연결을 살펴봐 주세요. 업무함에서 직접 확인할 수도 있어요.\n\n%(url)s",
            n,
        ) % {"name": organization.name_ko, "n": n, "url": settings.PORTAL_URL + reverse("desk")}
        return mail.EmailMessage(subject, body, to=[to])
