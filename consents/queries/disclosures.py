"""A ledger entry in words: its type, its actor, its disclosed values. Nothing here names a person, only pseudonyms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.dateparse import parse_date, parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from consents.models import Person, Subscription
from consents.templatetags import labels
from providers.models import Organization, Scope, Service

from . import official

_KINDS = {"consent": "consent_kind", "notice": "notice"}

# field of an entry → its name, and how its value is read
_FIELDS: Mapping[str, tuple[Any, str]] = {
    "at": (gettext_lazy("일어난 때"), "moment"),
    "by": (gettext_lazy("누가"), "actor"),
    "act": (gettext_lazy("조회한 감독자"), "code"),
    "sub": (gettext_lazy("정보주체(가명)"), "code"),
    "opr": (gettext_lazy("회사·기관"), "organization"),
    "svc": (gettext_lazy("서비스"), "service"),
    "sbs": (gettext_lazy("가입 번호"), "code"),
    "con": (gettext_lazy("동의 번호"), "code"),
    "knd": (gettext_lazy("종류"), "kind"),
    "src": (gettext_lazy("정보를 보내는 곳(정보제공자)"), "organization"),
    "rcp": (gettext_lazy("정보를 건네받는 곳"), "organization"),
    "scp": (gettext_lazy("정보 항목"), "scopes"),
    "rid": (gettext_lazy("따로 고른 민감 항목"), "rider"),
    "cyc": (gettext_lazy("정기 전송 주기"), "cycle"),
    "pur": (gettext_lazy("목적"), "text"),
    "prd": (gettext_lazy("유효기간"), "until"),
    "ret": (gettext_lazy("보유 기간"), "kept"),
    "pai": (gettext_lazy("대가를 받는지"), "yes"),
    "req": (gettext_lazy("필수인지"), "yes"),
    "itm": (gettext_lazy("동의 항목 번호"), "code"),
    "trm": (gettext_lazy("보여 준 동의서의 지문"), "code"),
    "lng": (gettext_lazy("보여 준 언어"), "language"),
    "org": (gettext_lazy("가입 경로"), "origin"),
    "ver": (gettext_lazy("판"), "text"),
    "rsn": (gettext_lazy("이유"), "reason"),
    "bgn": (gettext_lazy("시작한 때"), "moment"),
    "tms": (gettext_lazy("동의서 번호"), "code"),
    "wrd": (gettext_lazy("보여 준 말"), "several"),
    "pun": (gettext_lazy("멈춤이 끝나는 날"), "until"),
    "sbv": (gettext_lazy("가입의 판과 마지막 날"), "several"),
    "dlv": (gettext_lazy("알려야 하는 곳"), "duties"),
    "hnd": (gettext_lazy("담당자가 손으로 확인하는 곳"), "several"),
    "ovt": (gettext_lazy("필요 없어진 전달"), "codes"),
    "ids": (gettext_lazy("지우기가 닿는 가입과 동의"), "codes"),
    "jti": (gettext_lazy("전달 번호"), "code"),
    "evt": (gettext_lazy("알린 일"), "event"),
    "rol": (gettext_lazy("받는 곳의 역할"), "role"),
    "gol": (gettext_lazy("끝나는 조건"), "goal"),
    "sta": (gettext_lazy("전달 상태"), "delivery"),
    "evd": (gettext_lazy("증적의 지문"), "code"),
    "mth": (gettext_lazy("증적의 종류"), "means"),
    "flw": (gettext_lazy("정보가 오간 때"), "moment"),
    "rpt": (gettext_lazy("알려 온 곳"), "organization"),
    "bas": (gettext_lazy("지우지 못하는 법적 근거"), "text"),
    "cas": (gettext_lazy("사건 번호"), "text"),
    "eid": (gettext_lazy("조회한 기록"), "code"),
    "nid": (gettext_lazy("알림 번호"), "code"),
    "ans": (gettext_lazy("답"), "answer"),
    "txn": (gettext_lazy("행위 번호"), "code"),
    "who": (gettext_lazy("담당자"), "code"),
    "before": (gettext_lazy("바뀌기 전"), "code"),
    "after": (gettext_lazy("바뀐 뒤"), "code"),
    "dig": (gettext_lazy("내용의 지문"), "code"),
    "cnt": (gettext_lazy("개수"), "text"),
    "kid": (gettext_lazy("열쇠 이름"), "code"),
    "law": (gettext_lazy("근거 법"), "text"),
}


@dataclass(frozen=True, slots=True)
class Value:
    """`kind` tells the template how to show it: text, code, codes, moment, until, cycle, list."""

    name: str
    label: Any
    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class _Names:
    organizations: dict[str, Organization]
    scopes: dict[str, list[Scope]]
    services: dict[str, Service]


def in_words(typ: str, disclosed: Mapping[str, Any]) -> list[Value]:
    """The known fields in their usual order, then others. At most three queries; empty values are left out."""
    names = _names(disclosed)
    ordered = [name for name in _FIELDS if name in disclosed] + sorted(set(disclosed) - set(_FIELDS))
    found = [_value(typ, name, disclosed[name], names) for name in ordered]
    return [value for value in found if value is not None]


def _names(disclosed: Mapping[str, Any]) -> _Names:
    codes = {disclosed.get(name) for name in ("opr", "src", "rcp", "rpt")} | {
        duty[1] for duty in disclosed.get("dlv") or []
    }
    scopes: dict[str, list[Scope]] = {}
    if wanted := disclosed.get("scp"):
        for scope in Scope.objects.filter(codes__overlap=wanted):
            for code in scope.codes:
                scopes.setdefault(code, []).append(scope)
    client_id = disclosed.get("svc")
    return _Names(
        {row.code: row for row in Organization.objects.filter(code__in=codes - {None})}
        if codes - {None}
        else {},
        scopes,
        {row.client_id: row for row in Service.objects.filter(client_id=client_id)} if client_id else {},
    )


def _value(typ: str, name: str, raw: Any, names: _Names) -> Value | None:
    label, kind = _FIELDS.get(name, (name, "text"))
    if kind == "yes" and not isinstance(raw, bool):  # `req` is a request's number outside of consents
        label, kind = _("요청 번호"), "code"
    if kind == "kept":
        return Value(name, label, "until", parse_date(raw) if raw else None)
    if raw in (None, "", []):
        return Value(name, label, "cycle", "") if kind == "cycle" else None
    if kind in _READERS:
        kind, value = _READERS[kind](typ, raw, names)
    else:
        value = raw
    return Value(name, label, kind, value)


def _word(of: str):
    return lambda typ, raw, names: (
        "text",
        str(labels.WORDS[of][raw][0]) if raw in labels.WORDS[of] else str(raw),
    )


def _choice(choices):
    words = dict(choices.choices)
    return lambda typ, raw, names: ("text", words.get(raw, raw))


def _official(words):
    return lambda typ, raw, names: ("text", words.get(raw, raw))


def _organization(typ, raw, names):
    return "organization", names.organizations.get(raw) or {"name_ko": raw, "code": ""}


def _scopes(typ, raw, names):
    return "scopes", [{"code": code, "scopes": names.scopes.get(code, [])} for code in raw]


def _duties(typ, raw, names):
    return "duties", [
        {
            "organization": names.organizations.get(code) or {"name_ko": code},
            "role": official.ROLES.get(role, role),
            "goal": official.GOALS.get(goal, goal),
            "jti": jti,
        }
        for jti, code, role, goal in raw
    ]


_READERS = {
    "moment": lambda typ, raw, names: ("moment", parse_datetime(raw)),
    "until": lambda typ, raw, names: ("until", parse_date(raw)),
    "actor": _official(official.ACTORS),
    "organization": _organization,
    "service": lambda typ, raw, names: ("service", names.services.get(raw) or {"name_ko": raw}),
    "scopes": _scopes,
    "duties": _duties,
    "kind": lambda typ, raw, names: (
        "text",
        official.of_case(raw) or _word(_KINDS.get(typ.partition(".")[0], "consent_kind"))(typ, raw, names)[1],
    ),
    "rider": lambda typ, raw, names: (
        "text",
        ", ".join(str(labels.WORDS["rider"].get(r, (r,))[0]) for r in raw),
    ),
    "several": lambda typ, raw, names: (
        "text",
        ", ".join(str(part) for part in raw if part not in (None, "")),
    ),
    "yes": lambda typ, raw, names: ("text", _("네") if raw else _("아니요")),
    "language": _choice(Person.Language),
    "origin": _choice(Subscription.Origin),
    "reason": lambda typ, raw, names: ("text", official.of_case(raw) or official.REASONS.get(raw, raw)),
    "event": _official(official.EVENTS),
    "role": _official(official.ROLES),
    "goal": _official(official.GOALS),
    "delivery": _word("delivery"),
    "means": _word("means"),
    "answer": lambda typ, raw, names: (
        "text",
        official.VERBS.get(raw) or _word("answer")(typ, raw, names)[1],
    ),
}


def names() -> dict[str, str]:
    """The plain word for each field name of the log, in the reader's language."""
    return {name: str(label) for name, (label, _kind) in _FIELDS.items()}
