"""The verifier's page: verify.py itself gives the answers; here they become rows, with words for what they name."""

import datetime
import functools
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy

import verify
from consents.ledger import proofs

from . import disclosures

# Words in the verifier's reason -> what is the matter, in plain language; the first that fits.
_REASONS: list[tuple[tuple[str, ...], Any]] = [
    (("INVALID the policy",), gettext_lazy("기준 파일을 쓸 수 없어요. 감독기관에서 받은 파일이 맞는지 봐 주세요.")),
    (("witness",), gettext_lazy("기준에 있는 증인이 이 기록을 보았다는 서명이 모자라거나 맞지 않아요.")),
    (("log's signature", "has not signed", "the log "), gettext_lazy("기준에 있는 기록의 서명이 없거나 맞지 않아요.")),
    (("tree", "index"), gettext_lazy("이 내용은 그 기록 안에 없어요.")),
    (("shown", "disclosure", "salt"), gettext_lazy("보여 주는 내용이 기록에 봉인된 것과 달라요.")),
    (("certificate", "another entry", "message"), gettext_lazy("확인서에 적힌 것과 기록이 서로 달라요.")),
    (("",), gettext_lazy("읽을 수 있는 증명 파일이 아니에요.")),
]  # fmt: skip


_LABELS = {
    "WITHOUT PROOF": gettext_lazy("증명이 없는 기록"),
    "NOT PROVED": gettext_lazy("증명되지 않은 말"),
}


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the verifier says: its first line as it is, the reason in plain words where it refuses, and rows of detail."""

    valid: bool
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
    """What the verifier in the browser needs: names of fields, reasons, and the policy."""
    reasons = [[list(keys), str(sentence)] for keys, sentence in _REASONS]
    labels = {name: str(label) for name, label in _LABELS.items()}
    return {"fields": disclosures.names() | labels, "reasons": reasons, "policy": policy_text() or ""}


def judged(file: bytes, own_policy: bytes | None, *, at: datetime.datetime) -> Answer:
    """What verify.py says about a file, by the visitor's own policy or else by ours."""
    try:
        text = _text(file, "the file")
        policy = _text(own_policy, "the policy") if own_policy is not None else policy_text() or ""
        lines = verify.judge(text, policy, int(at.timestamp()))
    except verify.Invalid as why:
        line = f"INVALID {verify.printable(str(why))}"
        reason = next(sentence for keys, sentence in _REASONS if any(key in line for key in keys))
        return Answer(valid=False, line=line, why=str(reason), rows=[])
    names = disclosures.names()
    rows = [[verify.printable(part) for part in parts] for parts in lines[1:]]
    return Answer(
        valid=True, line=verify.printable(lines[0][0]), why="", rows=[_row(row, names) for row in rows]
    )


def _row(parts: list[str], names: dict[str, str]) -> Row:
    name, rest = parts[0].strip(), parts[1:]
    if name in names:
        return Row(names[name], rest[-1])  # the meaning in English is for the command line
    return Row(str(_LABELS.get(name, name)), " ".join(part for part in rest if part))


def _text(data: bytes, what: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise verify.Invalid(f"{what} is not text") from None
