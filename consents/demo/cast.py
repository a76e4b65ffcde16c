"""The people of the demo: a few with a story, the rest drawn from a seeded dice."""

import datetime
import random
from dataclasses import dataclass

PASSWORD = "bangjiteok-demo"  # noqa: S105 - printed on the demo's first screen
FAMILY = "김이박최정강조윤장임한오서신권황안송류홍"
GIVEN = [
    "하늘",
    "보미",
    "가람",
    "다온",
    "라온",
    "마루",
    "사랑",
    "아라",
    "이든",
    "자람",
    "차오름",
    "한별",
    "새롬",
    "나래",
    "도담",
    "은솔",
    "초롱",
    "단비",
    "여울",
    "슬기",
    "찬솔",
    "예솔",
    "빛나",
    "소담",
    "미르",
    "해온",
]


@dataclass(frozen=True, slots=True)
class Role:
    """One account of the demo. `key` names it in the story; `label_*` stands in the sign-in table."""

    key: str
    email: str
    name: str
    born_on: datetime.date
    language: str = "ko"
    label: str = ""


STARS = (
    Role("seven", "haneul@portal.example", "김하늘", datetime.date(1988, 4, 12), label="소비자, 가입 7곳 · consumer with 7 subscriptions"),
    Role("none", "saebyeok@portal.example", "이새벽", datetime.date(1995, 9, 3), label="소비자, 가입 없음 · consumer with none"),
    Role("youth", "bom@portal.example", "박봄", datetime.date(2010, 5, 20), label="소비자, 만 16세 · consumer aged 16"),
    Role("kept", "garam@portal.example", "최가람", datetime.date(1979, 1, 30), language="en", label="소비자, 영어 · consumer, English"),
)  # fmt: skip
STAFF = (
    Role("regulator", "regulator@portal.example", "한감독", datetime.date(1980, 1, 1), label="감독자 · regulator"),
    Role("regulator2", "regulator2@portal.example", "오감사", datetime.date(1982, 1, 1), label="둘째 감독자 · second regulator"),
    Role("FTDURU9001", "desk@portal.example", "서두루", datetime.date(1985, 1, 1), label="사업자 담당자, 두루미핀테크 · operator admin"),
    Role("FTDURU9001", "desk3@portal.example", "고둘째", datetime.date(1988, 1, 1), label="둘째 담당자, 두루미핀테크 · its second admin"),
    Role("TRNARA9002", "desk2@portal.example", "나바퀴", datetime.date(1986, 1, 1), label="사업자 담당자, 나란바퀴(업무함) · operator admin without an API"),
)  # fmt: skip


def consumers(count: int, dice: random.Random) -> list[Role]:
    """`count` consumers: the stars first, then invented ones."""
    others = [
        Role(
            key=f"p{n}",
            email=f"person{n}@portal.example",
            name=dice.choice(FAMILY) + dice.choice(GIVEN),
            born_on=datetime.date(dice.randint(1945, 2004), dice.randint(1, 12), dice.randint(1, 28)),
        )
        for n in range(len(STARS) + 1, count + 1)
    ]
    return [*STARS[:count], *others]
