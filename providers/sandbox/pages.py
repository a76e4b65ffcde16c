"""What a person sees of the sandbox: who holds what, the faults, the last messages, the mailbox."""

import asyncio
import re
from datetime import datetime, timedelta, timezone
from html import escape

from aiohttp import web

from . import holdings, mailbox
from .faults import FAULTS, NONE
from .hooks import SANDBOX

KOREA = timezone(timedelta(hours=9))
STATE_NAMES = {
    "active": ("받는 중", "active"),
    "paused": ("멈춤", "paused"),
    "stopped": ("끊김", "stopped"),
    "erased": ("지움", "erased"),
}
RESULT_NAMES = {
    "done": ("처리함", "done"),
    "kept": ("처리한 척함", "pretended"),
    "nothing": ("할 일 없음", "nothing to do"),
}

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8881; --warm: #b45309; --link: #1d4ed8; }
@media (prefers-color-scheme: dark) { :root { --warm: #f0a95b; --link: #93b4ff; } }
* { box-sizing: border-box; }
body { font: 1rem/1.6 "Pretendard GOV", "Apple SD Gothic Neo", "Malgun Gothic", "Noto Sans KR", sans-serif; margin: 0 auto;
  max-width: 72rem; padding: 1.5rem 1rem 4rem; word-break: keep-all; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: .5rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
a { color: var(--link); } nav { display: flex; gap: 1rem; flex-wrap: wrap; }
[lang=en] { opacity: .75; font-size: .9em; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .5rem; text-align: left; vertical-align: top; }
th:first-child { min-width: 11rem; } th small { font-weight: 400; } select { max-width: 15rem; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
form { display: flex; gap: .4rem; flex-wrap: wrap; } select, input, button { font: inherit; min-height: 2.2rem; padding: .1rem .5rem; }
input[type=number] { width: 5.5rem; } .fault { color: var(--warm); font-weight: 600; }
article { border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0; }
article h2 { margin: 0; } pre { white-space: pre-wrap; background: var(--soft); padding: .8rem; border-radius: .4rem; font: inherit; }
.code { font-size: 1.5rem; font-weight: 700; letter-spacing: .1em; font-family: monospace; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
"""


async def front(request: web.Request) -> web.Response:
    """GET /: the pretend organizations."""
    sandbox = request.app[SANDBOX]
    counts, last, totals = await asyncio.gather(
        sandbox.database.read(holdings.counts),
        sandbox.database.read(holdings.messages, "", "", 30),
        sandbox.database.read(holdings.totals),
    )
    switched = sandbox.faults.all()
    parties = sandbox.parties.all()
    rows = "".join(_row(party, counts.get(party.code, {}), switched.get(party.code, {})) for party in parties)
    heads = "".join(
        f'<th scope="col" class="number">{_both(*STATE_NAMES[state])}</th>' for state in holdings.STATES
    )
    empty = f"<p>{_both('아직 회사·기관이 없어요. 데모 자료가 만들어지면 나타나요.', 'No organizations yet: they appear with the demo data.')}</p>"
    table = f"""<div class="scroll"><table><thead><tr><th scope="col">{_both("회사·기관", "Organization")}</th>{heads}
<th scope="col">{_both("고장 내 보기", "Switch a fault")}</th></tr></thead><tbody>{rows}</tbody></table></div>"""
    messages = "".join(_message(row) for row in last)
    body = f"""
<p>{
        _both(
            "방지턱이 연락하는 회사·기관을 흉내 내는 서버예요. 진짜 회사도, 진짜 정보도 없어요.",
            "This server plays the organizations that the portal talks to. Nothing here is real.",
        )
    }</p>
<p>{
        _both(
            f"지금까지 전달 {totals['messages']:,}건을 받았고, 답할 일이 {totals['duties_open']:,}건 남아 있어요.",
            f"{totals['messages']:,} messages so far; {totals['duties_open']:,} answers still owed.",
        )
    }</p>
<h2>{_both("누가 무엇을 가지고 있나요", "Who holds what")}</h2>
<p>{
        _both(
            "고장을 골라 바꾸면 다음 전달부터 그렇게 움직여요. 숫자는 초, 또는 처음 몇 번인지예요(0은 항상).",
            "A switched fault starts with the next message. The number is seconds, or the first so many times (0: always).",
        )
    }</p>
{table if parties else empty}
<h2>{_both("마지막 전달", "Last messages")}</h2>
<div class="scroll"><table><thead><tr><th scope="col">{_both("시각", "Time")}</th><th scope="col">{
        _both("받은 곳", "To")
    }</th>
<th scope="col">{_both("종류", "Type")}</th><th scope="col" class="number">{_both("도착", "Arrivals")}</th>
<th scope="col">{_both("결과", "Result")}</th></tr></thead><tbody>{messages}</tbody></table></div>"""
    return _page("가짜 회사·기관", "Pretend organizations", body, sandbox.parties.portal)


async def mail(request: web.Request) -> web.Response:
    """GET /mail/?page=: every letter that the portal sent to anybody."""
    text = request.query.get("page", "1")
    number = max(1, min(int(text[:6]), 100_000)) if text.isascii() and text.isdigit() else 1
    letters, older = await asyncio.to_thread(mailbox.page, request.app[MAIL].folder, number)
    portal = request.app[SANDBOX].parties.portal
    articles = "".join(_letter(letter, portal) for letter in letters)
    steps = (
        [f'<a href="?page={number - 1}" rel="prev">{_both("더 새로운 편지", "Newer")}</a>']
        if number > 1
        else []
    )
    steps += (
        [f'<a href="?page={number + 1}" rel="next">{_both("더 오래된 편지", "Older")}</a>'] if older else []
    )
    empty = f"<p>{_both('아직 온 편지가 없어요.', 'No letters yet.')}</p>"
    body = f"""<p>{
        _both(
            "방지턱이 보낸 편지가 모두 여기로 와요. 로그인 번호도 여기서 볼 수 있어요.",
            "Every letter the portal sends arrives here, sign-in codes too.",
        )
    }</p>
{articles or empty}<nav>{"".join(steps)}</nav>"""
    return _page("가짜 편지함", "Pretend mailbox", body, portal)


class Mail:
    def __init__(self, folder):
        self.folder = folder


MAIL = web.AppKey("mail", Mail)


def _row(party, counts: dict[str, int], switched: dict) -> str:
    chosen = switched.get("fault", NONE)
    options = "".join(
        f'<option value="{name}"{" selected" if name == chosen else ""}>{escape(f"{ko} / {en}")}</option>'
        for name, (ko, en, _, _) in FAULTS.items()
    )
    cells = "".join(f'<td class="number">{counts.get(state, 0):,}</td>' for state in holdings.STATES)
    role = _both("마이데이터 회사", "operator") if party.is_operator else _both("정보를 보내는 곳", "source")
    value = switched.get("remaining") or switched.get("value") or 0
    note = ""
    if chosen != NONE:
        ko, en, unit_ko, unit_en = FAULTS[chosen]
        detail_ko, detail_en = (f" ({value:g} {unit})" if unit else "" for unit in (unit_ko, unit_en))
        note = f'<p class="fault">{_both(ko + detail_ko, en + detail_en)}</p>'
    name, code = escape(party.name_ko), escape(party.code)
    return f"""<tr><th scope="row">{_both(party.name_ko, party.name_en)}<br><small>{code} · {role}</small></th>{cells}<td>{note}
<form method="post" action="/_/faults"><input type="hidden" name="organization" value="{code}">
<label class="hidden" for="fault-{code}">{name}: {_both("고장", "fault")}</label><select id="fault-{code}" name="fault">{options}</select>
<label class="hidden" for="value-{code}">{name}: {_both("숫자(초 또는 횟수)", "number (seconds or times)")}</label>
<input id="value-{code}" type="number" name="value" min="0" max="86400" step="any" value="{value:g}">
<button>{_both("바꾸기", "Switch")}</button></form>
<details><summary>{_both("새 웹훅 열쇠 넣기", "Put in a new webhook key")}</summary>
<form method="post" action="/_/keys"><input type="hidden" name="organization" value="{code}">
<label class="hidden" for="key-{code}">{name}: {_both("열쇠(whsec)", "key (whsec)")}</label>
<input id="key-{code}" name="secret" autocomplete="off" spellcheck="false" required>
<button>{_both("넣기", "Put in")}</button></form></details></td></tr>"""


def _message(row: dict) -> str:
    at = datetime.fromtimestamp(row["at"], KOREA)
    result = _both(*RESULT_NAMES.get(row["result"], (row["result"], "")))
    return f"""<tr><td><time datetime="{at.isoformat(timespec="seconds")}">{at:%m-%d %H:%M:%S}</time></td>
<td>{escape(row["organization"])}</td><td>{escape(row["type"])}<br><small>{escape(row["jti"])}</small></td>
<td class="number">{row["arrivals"]}</td><td>{result}</td></tr>"""


def _letter(letter: mailbox.Letter, portal: str) -> str:
    codes = "".join(f'<p><span class="code">{escape(code)}</span></p>' for code in letter.codes)
    return f"""<article><h2>{escape(letter.subject) or "—"}</h2><p><small>{escape(letter.to)} · {escape(letter.date)}</small></p>{codes}
<pre>{_linked(letter.text, portal)}</pre></article>"""


def _linked(text: str, portal: str) -> str:
    """Escaped text in which addresses of the portal, and no others, can be followed."""
    if not portal:
        return escape(text)
    pieces, end = [], 0
    for found in re.finditer(re.escape(portal) + r"/[^\s<>\"']*", text):
        url = escape(found[0])
        pieces += [escape(text[end : found.start()]), f'<a href="{url}">{url}</a>']
        end = found.end()
    return "".join([*pieces, escape(text[end:])])


def _both(ko: str, en: str) -> str:
    return f'{escape(ko)} <span lang="en">{escape(en)}</span>' if en else escape(ko)


def _page(ko: str, en: str, body: str, portal: str) -> web.Response:
    back = f'<a href="{escape(portal)}/">{_both("방지턱으로", "To the portal")}</a>' if portal else ""
    html = f"""<!doctype html>
<html lang="ko"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(ko)} · {escape(en)}</title><style>{STYLE}</style></head><body>
<header><nav aria-label="sandbox"><a href="/">{_both("회사·기관", "Organizations")}</a>
<a href="/mail/">{_both("편지함", "Mailbox")}</a>{back}</nav></header>
<main><h1>{_both(ko, en)}</h1>{body}</main></body></html>"""
    return web.Response(text=html, content_type="text/html")
