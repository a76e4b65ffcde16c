"""The certificate of an end, as a page, as a file with its proofs, and as the words of the sheet that is printed."""

import datetime
import uuid
from dataclasses import dataclass
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from consents import certificates, receipts
from consents.models import EntryIndex, Erasure, Evidence, Subscription
from consents.queries import proofs
from consents.queries.tracker import Party, tracker
from consents.templatetags.labels import entry_code
from consents.templatetags.portal import day, label, loc

# Entries that belong on a certificate, beside the deliveries of the acts it speaks of.
_ACTS = (
    "subscription.ended",
    "consent.withdrawn",
    "consent.expired",
    "erasure.requested",
    "erasure.confirmed",
    "erasure.refused",
)
_EVENTS = {"subscription-ended", "consent-withdrawn", "erasure-requested"}
MOST = 200  # parties, statements and entries on the printed sheet; the file has all of them


@dataclass(frozen=True, slots=True)
class Certificate:
    """The certificate of an end as of a moment: the statement, its fingerprint, signature and picture."""

    statement: dict[str, Any]
    digest: str
    keys: str
    compact: str
    verify: str
    qr: str
    parties: list[Party]
    entries: list[dict[str, Any]]


def certificate(subscription: Subscription, *, at: datetime.datetime) -> Certificate:
    """What can be proved about the end, signed afresh. Four queries."""
    followed = tracker(subscription, at=at)
    parties = [
        party for act in reversed(followed.acts) for party in act.parties if party.delivery.event in _EVENTS
    ]
    acts = {party.delivery.txn for party in parties}
    told = {None, *(party.delivery.jti for party in parties)}
    entries = [
        entry
        for entry in EntryIndex.objects.filter(subscription=subscription)
        .select_related("party")
        .order_by("seq")
        if entry.jti in told
        and (entry.typ in _ACTS or (entry.typ.startswith("delivery.") and entry.txn in acts))
    ]
    standings = proofs.standings(entries)
    stated = certificates.statement(
        subscription,
        [(party.delivery, party.statements, party.seen) for party in parties],
        [(entry, standings[entry.event_id].leaf) for entry in entries],
    )
    verify = certificates.verify_address(stated)
    return Certificate(
        statement=stated,
        digest=receipts.digest(stated),
        keys=receipts.keys_address(),
        compact=certificates.signed(stated, subject=subscription.person.subject_id, at=at),
        verify=verify,
        qr=certificates.qr_svg(verify),
        parties=parties,
        entries=[
            {
                "id": str(entry.event_id),
                "typ": entry.typ,
                "code": entry_code(entry.typ, entry.actor_id),
                "at": entry.at,
                "leaf": standings[entry.event_id].leaf.hex(),
                "party": loc(entry.party, "name") if entry.party else "",
                "standing": standings[entry.event_id],
            }
            for entry in entries
        ],
    )


def file(paper: Certificate) -> dict[str, Any]:
    """The certificate with every party's document and the log's proof of each entry. Five queries. Raises proofs.Unreadable."""
    ids = [uuid.UUID(entry["id"]) for entry in paper.entries]
    stated = [statement.pk for party in paper.parties for statement in party.statements]
    evidence = Evidence.objects.filter(pk__in=stated).select_related("organization").order_by("pk")
    return certificates.with_proofs(
        paper.statement,
        proofs.texts(ids),
        evidence,
        size=proofs.published_size(),
        compact=paper.compact,
    )


def sheet(subscription: Subscription, paper: Certificate, *, at: datetime.datetime) -> dict[str, Any]:
    """The words of the printed certificate in the language of the moment, as templates/papers/certificate.typ reads them."""
    statements = [(party, one) for party in paper.parties for one in party.statements]
    cut = max(len(paper.parties), len(statements), len(paper.entries)) > MOST
    return {
        "issuer": _("방지턱"),
        "title": _("그만둔 확인서"),
        "lead": f"{loc(subscription.service, 'name')} · {loc(subscription.operator, 'name')}",
        "notice": _open_words(paper.statement["open"]) + ([_cut_words()] if cut else []),
        "facts": _facts(subscription),
        "parties": {
            "title": _("누가 언제 무엇을 답했나"),
            "head": [_("누구"), _("전한 때"), _("받았다는 답"), _("멈췄다는 답"), _("지웠다는 서명")],
            "rows": [_party(party) for party in paper.parties[:MOST]],
            "none": _("정해 둔 기간이 끝나서 저절로 멈췄어요. 끝나는 날은 모두가 알고 있어서 따로 알리지 않았어요."),
        },
        "statements": {
            "title": _("회사들이 낸 증거"),
            "rows": [
                [f"{party.name} · {label(one.status, 'evidence')} · {label(one.means, 'means')} · {_clock(one.stated_at)}", one.digest]
                for party, one in statements[:MOST]
            ],
        },
        "entries": {
            "title": _("바꿀 수 없는 기록"),
            "note": _("기록 하나하나가 공개된 기록부에 들어 있다는 증명은 JSON 파일에 있어요."),
            "head": [_("때"), _("무슨 일"), _("기록 번호와 지문(SHA-256)")],
            "rows": [
                [
                    _clock(entry["at"]),
                    label(entry["code"], "entry"),
                    entry["party"],
                    entry["id"],
                    entry["leaf"],
                    standing_words(entry["standing"]),
                ]
                for entry in paper.entries[:MOST]
            ],
        },
        "foot": [
            [_("방지턱이 서명한 때"), _clock(at)],
            [_("확인서 지문"), paper.digest],
            [_("기록부 이름"), paper.statement["log"]["origin"]],
            [_("공개된 열쇠"), paper.keys],
            [_("확인하는 곳"), paper.verify],
        ],
        "qr_alt": _("확인하는 곳으로 가는 QR 코드"),
        "qr_note": _("QR을 찍으면 확인하는 곳이 열려요. 거기에 JSON 파일을 놓으면, 방지턱을 믿지 않고도 확인할 수 있어요."),
        "qr": paper.qr,
    }  # fmt: skip


def standing_words(standing: proofs.Standing) -> str:
    """Whether an entry stands in the published log, in a sentence."""
    return {
        "in": _("%(when)s부터 기록부에 있어요"),
        "promised": _("아직 기록부에 없어요. %(when)s까지 넣기로 약속했어요"),
        "late": _("%(when)s까지 넣기로 했지만 아직 기록부에 없어요"),
        "unknown": _("지금은 기록부를 읽지 못해요"),
    }[standing.code] % {"when": _clock(standing.at)}


def _facts(subscription: Subscription) -> list[list[str]]:
    return [
        [_("누가"), subscription.person.name or subscription.person.email],
        [_("가입한 때"), _clock(subscription.joined_at)],
        [_("그만둔 때(탈퇴)"), _clock(subscription.ended_at)],
        [_("까닭"), label(subscription.end_reason, "reason")],
        [_("받아간 정보(삭제 요구)"), _erasure(subscription)],
    ]


def _erasure(subscription: Subscription) -> str:
    if subscription.erasure == Erasure.CONFIRMED:
        when = {
            "day": day(subscription.erasure_confirmed_at),
            "time": _time(subscription.erasure_confirmed_at),
        }
        return _("지웠다고 서명함 (%(day)s %(time)s)") % when
    if subscription.erasure == Erasure.REFUSED:
        return _("지우지 못한다고 답함: %(basis)s") % {"basis": subscription.erasure_refusal}
    return label(subscription.erasure, "erasure")


def _party(party: Party) -> list[str]:
    told, not_yet = party.delivery, _("아직")
    if party.goal != "erased":
        erased = _("지울 것이 없음")
    elif told.erased_at:
        erased = _clock(told.erased_at)
    else:
        erased = _("못 지운다고 답함: %(basis)s") % {"basis": told.refusal} if party.refused else not_yet
    stopped = _clock(told.stopped_at) or not_yet
    if "stopped" in party.seen:
        stopped = _("%(when)s (방지턱이 물어보고 확인)") % {"when": stopped}
    return [
        party.name,
        label(party.role, "party_role"),
        _clock(told.sent_at) or label(party.state, "delivery"),
        _clock(party.received_at) or (_("답하지 않음") if party.seen else not_yet),
        stopped,
        erased,
    ]


def _open_words(n: int) -> list[str]:
    if not n:
        return []
    return [
        ngettext(
            "아직 답하지 않은 곳이 %(n)s곳 있어요. 답이 오면 이 확인서도 바뀌어요.",
            "아직 답하지 않은 곳이 %(n)s곳 있어요. 답이 오면 이 확인서도 바뀌어요.",
            n,
        )
        % {"n": n}
    ]


def _cut_words() -> str:
    return _("너무 많아서 앞의 %(n)d개까지만 실었어요. 모두는 JSON 파일에 있어요.") % {"n": MOST}


def _clock(moment: datetime.datetime | None) -> str:
    return f"{day(moment)} {_time(moment)}" if moment else ""


def _time(moment: datetime.datetime | None) -> str:
    return f"{timezone.localtime(moment):%H:%M}" if moment else ""
