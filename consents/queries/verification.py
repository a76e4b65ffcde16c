"""The verifier's page: verify.py itself gives the answers; here they become rows, with words for what they name."""

import datetime
import functools
import re
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.translation import get_language, gettext_lazy
from django.utils.translation import gettext as _

import verify
from consents.ledger import proofs
from consents.templatetags import labels
from providers import signing

from . import disclosures, official

# Words in the verifier's reason -> what is the matter, in plain language; the first that fits.
_REASONS: list[tuple[tuple[str, ...], Any]] = [
    (("INVALID this is a receipt",), gettext_lazy("이 파일은 기록부에 제때 넣겠다고 약속한 영수증이에요. 약속을 지켰는지는 기록부의 사본과 견줘야 알 수 있어서 여기서는 확인하지 못해요. 사본을 받아 verify.py --receipt 영수증 --keys 열쇠 --log 사본 policy.txt로 확인해 주세요.")),
    (("INVALID this is the signature",), gettext_lazy("이 파일은 확인서의 서명뿐이에요. 확인서에서 증명까지 든 파일(JSON)을 받아 넣어 주세요.")),
    (("certificate holds no proof",), gettext_lazy("확인서에 기록부의 증명이 하나도 없어요. 기록부에 들어간 뒤에 파일을 다시 받아 주세요. 몇 분이면 돼요.")),
    (("certificate was changed", "certificate's signature"), gettext_lazy("확인서의 내용이나 서명이 이 포털의 것과 달라요. 받은 뒤에 바뀌었거나 이 포털이 만들지 않은 파일이에요.")),
    (("brings evidence", "document of the evidence"), gettext_lazy("확인서에 든 증거 문서가 회사가 낸 것과 달라요.")),
    (("INVALID the policy",), gettext_lazy("기준 파일을 쓸 수 없어요. 감독기관에서 받은 파일이 맞는지 봐 주세요.")),
    (("witness",), gettext_lazy("기준에 있는 증인이 이 기록을 보았다는 서명이 모자라거나 맞지 않아요.")),
    (("log's signature", "has not signed", "the log "), gettext_lazy("기준에 있는 기록의 서명이 없거나 맞지 않아요.")),
    (("tree", "index"), gettext_lazy("이 내용은 그 기록 안에 없어요.")),
    (("shown", "disclosure", "salt"), gettext_lazy("보여 주는 내용이 기록에 봉인된 것과 달라요.")),
    (("certificate", "another entry", "message"), gettext_lazy("확인서에 적힌 것과 기록이 서로 달라요.")),
    (("",), gettext_lazy("읽을 수 있는 증명 파일이 아니에요.")),
]  # fmt: skip


# A mark of verify.py -> its word and tone.
_MARKS = {
    "PROVED": (gettext_lazy("기록부가 증명"), "good"),
    "SIGNED": (gettext_lazy("포털이 서명한 말"), "info"),
    "NOT PROVED": (gettext_lazy("증명되지 않음"), "late"),
    "WITHOUT PROOF": (gettext_lazy("증명이 없는 기록"), "late"),
}
OPEN = ("  NOT PROVED", "  WITHOUT PROOF")

# A claim of a certificate, as verify.py names it -> its word, and how each of its parts is read.
_CLAIMS: dict[str, tuple[Any, list[str]]] = {
    "service": (gettext_lazy("서비스"), ["text", "text", "text"]),
    "company": (gettext_lazy("회사"), ["text", "text", "text"]),
    "person": (gettext_lazy("정보주체(가명)"), ["text"]),
    "joined": (gettext_lazy("가입한 때"), ["moment"]),
    "ended": (gettext_lazy("그만둔 때(탈퇴)"), ["moment", "reason"]),
    "erasure": (gettext_lazy("받아간 정보(삭제 요구)"), ["erasure"]),
    "erasure asked for": (gettext_lazy("지워 달라고 한 때"), ["moment"]),
    "erasure confirmed": (gettext_lazy("지웠다고 서명한 때"), ["moment"]),
    "erasure refused": (gettext_lazy("지우지 못하는 법적 근거"), ["text"]),
    "sent": (gettext_lazy("전한 때"), ["party", "moment"]),
    "received": (gettext_lazy("받았다는 답"), ["party", "moment"]),
    "stopped": (gettext_lazy("멈춘 것(답하거나 방지턱이 봄)"), ["party", "moment"]),
    "erased": (gettext_lazy("지웠다는 서명"), ["party", "moment"]),
    "evidence": (gettext_lazy("증적의 지문"), ["party", "text"]),
    "document": (gettext_lazy("확인서에 들어 있지 않은 증거 문서"), ["party", "text"]),
    "party": (gettext_lazy("알린 곳"), ["text", "text", "text", "role", "goal", "state"]),
    "due": (gettext_lazy("답해야 하는 때"), ["party", "moment"]),
    "refused": (gettext_lazy("지우지 못하는 법적 근거"), ["party", "text"]),
    "statement": (gettext_lazy("낸 증거"), ["party", "status", "means", "stated", "received"]),
    "open": (gettext_lazy("아직 답하지 않은 곳"), ["text"]),
    "the digest on the paper is another": (gettext_lazy("종이에 적힌 지문이 이 파일의 지문과 달라요"), ["text"]),
}  # fmt: skip
# How a part is read -> the kind of its word in templatetags.labels.
_CODES = {
    "entry": "entry", "reason": "reason", "erasure": "erasure", "role": "party_role", "state": "delivery",
    "status": "evidence", "means": "means",
}  # fmt: skip
_MOMENTS = {"stated": gettext_lazy("{}에 했다고 말함"), "received": gettext_lazy("{}에 받음")}
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
_MOMENT = re.compile(
    r"(?:19|20|21)[0-9]{2}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    value: str
    mark: str
    tone: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the verifier says: its first line as it is, the reason in plain words where it refuses, and rows of detail.

    `state`: good; part, where a row is not proved; bad; other, for a paper that is checked in another way."""

    state: str
    line: str
    why: str
    rows: list[Row]


def policy_text() -> str | None:
    """The policy that this portal's log is read with; None where it has none."""
    try:
        return proofs.policy_text()
    except proofs.NoPolicy:
        return None


@functools.cache
def program() -> bytes:
    """verify.py as it is given away."""
    return (settings.BASE_DIR / "verify.py").read_bytes()


def words() -> dict[str, Any]:
    """What the verifier in the browser needs: the policy, the portal's public keys, and words for all that it can say."""
    korean = (get_language() or "ko").startswith("ko")
    codes = {
        kind: {code: str(word) for code, (word, _tone) in labels.WORDS[of].items()}
        for kind, of in _CODES.items()
    }
    return {
        "policy": policy_text() or "",
        "keys": signing.public_jwks(),
        "reasons": [[list(keys), str(sentence)] for keys, sentence in _REASONS],
        "fields": disclosures.names(),
        "marks": {mark: [str(word), tone] for mark, (word, tone) in _MARKS.items()},
        "claims": {claim: [str(word), kinds] for claim, (word, kinds) in _CLAIMS.items()},
        "codes": codes | {"goal": {code: str(word) for code, word in official.GOALS.items()}},
        "moments": {kind: str(words) for kind, words in _MOMENTS.items()},
        "date": "{y}년 {m}월 {d}일" if korean else "{d} {b} {y}",
        "months": _MONTHS,
        "name": "ko" if korean else "en",
        "entry": str(_("기록 {}")),
        "hidden": str(_("보여 주지 않은 항목")),
    }


def judged(file: bytes, own_policy: bytes | None, *, at: datetime.datetime) -> Answer:
    """What verify.py says about a file, by the visitor's own policy or else by ours. The keys are always ours."""
    try:
        text = _text(file, "the file")
        policy = _text(own_policy, "the policy") if own_policy is not None else policy_text() or ""
        lines = verify.judge(text, policy, int(at.timestamp()), signing.public_jwks())
    except verify.Invalid as why:
        line = f"INVALID {verify.printable(str(why))}"
        reason = next(sentence for keys, sentence in _REASONS if any(key in line for key in keys))
        state = "other" if line.startswith("INVALID this is ") else "bad"
        return Answer(state=state, line=line, why=str(reason), rows=[])
    rows = [[verify.printable(part) for part in parts] for parts in lines]
    state = "part" if any(row[0] in OPEN for row in rows) else "good"
    return Answer(state=state, line=rows[0][0], why="", rows=in_words(rows[1:], words()))


# --- rows in the reader's words, as verify.js makes them of the same words -----------------------------------------------


def in_words(rows: list[list[str]], words: dict[str, Any]) -> list[Row]:
    name = 2 if words["name"] == "ko" else 3
    named = {row[4]: row[name] for row in rows if row[0] == "  SIGNED" and row[1] in ("company", "party")}
    return [_row(row, words, named) for row in rows]


def _row(row: list[str], words: dict[str, Any], named: dict[str, str]) -> Row:
    head, rest = row[0].strip(), row[1:]
    proved = words["marks"]["PROVED"]
    if head == "WITHOUT PROOF":
        return Row(_read("entry", rest[0], words, named), rest[1], *words["marks"][head])
    if head in words["marks"]:
        label, kinds = words["claims"].get(rest[0], [rest[0], []])
        kinds = [*kinds, *["text"] * len(rest)]
        parts = [_read(kind, part, words, named) for kind, part in zip(kinds, rest[1:], strict=False)]
        return Row(label, _joined(parts), *words["marks"][head])
    if re.fullmatch("[0-9]+", head) and len(rest) == 4:
        typ, at, who, ident = rest
        parts = [
            _moment(at, words),
            who and _read("party", who, words, named),
            words["entry"].replace("{}", head),
            ident,
        ]
        return Row(_read("entry", typ, words, named), _joined(parts), *proved)
    if not rest and (hidden := re.fullmatch("([0-9]+) more not shown", head)):
        return Row(words["hidden"], hidden[1], "", "")
    return Row(words["fields"].get(head, head), rest[-1] if rest else "", *proved)


def _joined(parts: list[str]) -> str:
    return " · ".join(part for part in parts if part)


def _read(kind: str, part: str, words: dict[str, Any], named: dict[str, str]) -> str:
    if part in ("null", ""):
        return "–"
    if kind == "moment":
        return _moment(part, words)
    if kind == "party":
        return named.get(part, part)
    if kind in words["moments"]:
        return words["moments"][kind].replace("{}", _moment(part, words))
    return words["codes"].get(kind, {}).get(part, part)


def _moment(text: str, words: dict[str, Any]) -> str:
    """A UTC moment as Seoul clock time, a day as a day; anything else as it is."""
    if not (found := _MOMENT.fullmatch(text)):
        return text
    try:
        local = datetime.datetime.fromisoformat(text[:19])
    except ValueError:
        return text
    if found[1]:
        local += datetime.timedelta(hours=9)
    date = words["date"].format(y=local.year, m=local.month, d=local.day, b=words["months"][local.month - 1])
    return f"{date} {local:%H:%M}" if found[1] else date


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise verify.Invalid(f"{what} is not text") from None
