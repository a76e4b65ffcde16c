"""/verify/ in the browser: the same answers as verify.py gives, and nothing leaves the machine."""

import datetime
import json
import random

import pytest
from playwright.sync_api import Page, expect

import verify
from consents.queries import disclosures
from providers import signing
from tests.browser.conftest import NARROW, sideways, violations
from tests.consents.ledger import test_verify as cases
from tests.consents.ledger.invented import JWKS, PORTAL, SEEN, Log, by, ending, sealed_by, text_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
NOW = SEEN + 60


def said(text: str, policy: str, keys: dict | None) -> list[list[str]]:
    """What verify.py prints, in the rows of the browser: there the English word for a field is left out."""
    try:
        lines = verify.judge(text, policy, NOW, keys)
    except verify.Invalid as why:
        return [[f"INVALID {verify.printable(str(why))}"]]
    rows = [[verify.printable(part) for part in line] for line in lines]
    names = disclosures.names()
    return [[row[0], "", row[2]] if row[0].strip() in names and len(row) == 3 else row for row in rows]


def ask(page: Page, papers: list[tuple[str, str]], keys: dict | None = JWKS) -> list[list[list[str]]]:
    return page.evaluate(
        """async ([papers, now, keys]) => {
          const form = document.querySelector("[data-verify]"), found = []
          for (const [text, policy] of papers) {
            try { found.push(await form.verifyHere(text, policy, now, keys)) } catch (problem) { found.push([["CRASH " + problem.stack]]) }
          }
          return found
        }""",
        [papers, NOW, keys],
    )


@pytest.fixture
def page(window) -> Page:
    opened = window()
    opened.goto("/verify/")
    expect(opened.locator("[data-verify][data-ready=here]")).to_be_attached()
    return opened


def agree(page: Page, papers: list[tuple[str, str]], keys: dict | None = JWKS) -> list[str]:
    """Put each paper to both; answers the first lines."""
    answers = ask(page, papers, keys)
    for (text, policy), answer in zip(papers, answers, strict=True):
        assert answer == said(text, policy, keys), text[:3000]
    return [answer[0][0] for answer in answers]


def test_it_answers_as_verify_py_does_about_every_case(page):
    log = cases.three()
    proof = log.proof(1)
    papers = [(proof, log.policy)]
    papers += [(change(proof), log.policy) for change in cases.PROOFS.values()]
    papers += [(proof, change(log.policy)) for change in cases.POLICIES.values()]
    papers += [(text, log.policy) for text, _ in cases.OTHERS.values()]
    lines = agree(page, papers)
    assert [i for i, line in enumerate(lines) if line.startswith("VALID ")] == [0]


@pytest.mark.parametrize("keys", [JWKS, None], ids=["with keys", "without"])
def test_it_answers_as_verify_py_does_about_every_certificate(page, keys):
    changes = [
        *cases.CERTIFICATES.values(),
        *cases.FORGED.values(),
        *cases.LEFT_OUT.values(),
        lambda paper: None,
    ]
    papers = []
    for change in changes:
        log, paper = ending()
        change(paper)
        papers.append((text_of(paper), log.policy))
    papers.append((papers[-1][0].replace('"reason":', '"reason":1,"reason":'), log.policy))
    lines = agree(page, papers, keys)
    refused = len(cases.CERTIFICATES) + (len(cases.FORGED) if keys else 0)
    kinds = ["part" if "only in part" in line else line.split(" ")[0] for line in lines]
    open_ones = len(cases.LEFT_OUT) + (0 if keys else len(cases.FORGED) + 1)
    assert kinds == ["INVALID"] * refused + ["part"] * open_ones + ["VALID"] * bool(keys) + ["INVALID"]


def test_it_reads_keys_as_verify_py_does(page):
    log, paper = ending()
    for keys in cases.KEYS.values():
        assert agree(page, [(text_of(paper), log.policy)], keys)[0].startswith("INVALID ")


def test_new_words_that_the_portal_signs_are_read_alike(page):
    papers = []
    for change in cases.SIGNED.values():
        log, paper = ending()
        change(paper)
        papers.append((text_of(sealed_by(paper, by(PORTAL))), log.policy))
    names = {
        "\U0001f600": 1,
        "\ufb33": 2,
        "\u20ac": 3,
        "__proto__": {"b": [], "": '\u2028\x7f\x1f"'},
        "1": -5,
        "02": True,
    }
    log, paper = ending()
    papers.append((text_of(sealed_by({**paper, "note": names}, by(PORTAL))), log.policy))
    lines = agree(page, papers)
    assert lines[-1].endswith("signed by the portal")
    assert sum(line.endswith("signed by the portal") for line in lines) >= len(lines) - 2


def test_it_reads_entries_and_disclosures_as_strictly(page):
    log, papers = cases.three(), []
    for entry in cases.ENTRIES.values():
        log.add_raw(entry.encode())
    papers = [(log.proof(index), log.policy) for index in range(3, len(log.raw))]
    for text in cases.DISCLOSURES.values():
        shown = cases.disclosure(text)
        other = Log()
        digests = [cases.entries.digest(shown)]
        other.add_raw(
            cases.entries.encode(
                typ="consent.withdrawn", day=cases.AT.date(), event_id=cases.uuid.uuid4(), digests=digests
            )
        )
        papers.append((other.proof(0, shown=[shown]), other.policy))
    # A text that neither can read as JSON is told apart from one too deep by the verifiers' own limits.
    answers = ask(page, papers)
    for (text, policy), answer in zip(papers, answers, strict=True):
        assert answer[0][0].startswith("INVALID ") and said(text, policy, JWKS)[0][0].startswith("INVALID ")


def test_a_thousand_changed_papers_get_the_same_answer(page):
    chance = random.Random(20261122)
    log = cases.three()
    its_log, paper = ending()
    originals = [(log.proof(1), log.policy), (text_of(paper), its_log.policy)]
    papers = []
    for _ in range(1000):
        text, policy = chance.choice(originals)
        if chance.random() < 0.2:
            policy = changed(chance, policy)
        else:
            text = changed(chance, text)
        papers.append((text, policy))
    answers = ask(page, papers)
    verdicts = {"VALID": 0, "INVALID": 0}
    for (text, policy), answer in zip(papers, answers, strict=True):
        wanted = said(text, policy, JWKS)
        verdict = answer[0][0].split(" ")[0]
        assert verdict == wanted[0][0].split(" ")[0], (answer, wanted, text[:2000])
        if verdict == "VALID":
            assert answer == wanted
        verdicts[verdict] += 1
    assert verdicts["INVALID"] > 700


def changed(chance: random.Random, text: str) -> str:
    place, much = chance.randrange(len(text)), chance.randrange(3)
    put = chance.choice(
        ["", "\n", " ", "=", "A", "0", "\r", "é", "\n\n", '"', "\\", "1", "{", "}", "\u2014", "\u00a0"]
    )
    return text[:place] + put + text[place + much :]


def give(page: Page, text: str, policy: str) -> None:
    page.get_by_label("내가 받은 기준 파일").set_input_files(
        {"name": "policy.txt", "mimeType": "text/plain", "buffer": policy.encode()}
    )
    page.get_by_label("증명 파일이나 확인서").set_input_files(
        {"name": "a.tlog-proof", "mimeType": "text/plain", "buffer": text.encode()}
    )


def rows(page: Page) -> list[list[str]]:
    return page.locator("#verify-result tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.textContent.trim()))"
    )


GREEN, AMBER, RED = (
    "맞아요. 기록에 있는 그대로예요.",
    "일부만 증명됐어요. 증명되지 않은 줄을 봐 주세요.",
    "맞지 않아요. 이 파일을 믿지 마세요.",
)


def test_a_file_is_checked_here_and_sent_nowhere(page):
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    page.clock.set_fixed_time(NOW * 1000)
    its_log, paper = ending(signing.sign_certificate)
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name=GREEN)).to_be_visible()
    found = rows(page)
    assert found[:5] == [
        ["서비스", "두루 가계부 · Duru Budget · duru-budget", "포털이 서명한 말"],
        ["회사", "두루 · Duru · FTDURU9001", "포털이 서명한 말"],
        ["정보주체(가명)", paper["subject"], "포털이 서명한 말"],
        ["가입한 때", "2026년 1월 5일 09:30", "포털이 서명한 말"],
        ["그만둔 때(탈퇴)", "2026년 11월 22일 12:10 · 내가 그만뒀어요", "기록부가 증명"],
    ]
    first = paper["log"]["entries"][0]["id"]
    assert found[5] == [
        "서비스를 그만뒀어요",
        f"2026년 11월 22일 12:10 · 두루 · 기록 0 · {first}",
        "기록부가 증명",
    ]
    assert not violations(page)
    paper["ended_at"] = "2026-01-01T00:00:00Z"
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name=RED)).to_be_visible()
    expect(page.get_by_text("확인서에 적힌 것과 기록이 서로 달라요.")).to_be_visible()
    assert not rows(page) and not violations(page)
    its_log, paper = ending(signing.sign_certificate)
    paper["service"]["name_ko"] = "다른 가계부"
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_text("확인서의 내용이나 서명이 이 포털의 것과 달라요.")).to_be_visible()
    its_log, paper = ending()  # signed by whom this portal does not know
    give(page, text_of(paper), its_log.policy)
    expect(
        page.get_by_text("INVALID the key file does not hold the key of the certificate's signature")
    ).to_be_visible()
    assert not sent
    expect(page.get_by_role("button", name="서버에서 확인하기")).to_be_hidden()


def test_what_is_proved_in_part_is_amber(page):
    page.clock.set_fixed_time(NOW * 1000)
    its_log, paper = ending(signing.sign_certificate)
    paper["evidence"] = []
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name=AMBER)).to_be_visible()
    assert ["확인서에 들어 있지 않은 증거 문서", "두루 · e-1", "증명되지 않음"] in rows(page)
    expect(page.locator("#verify-result .notice-late")).to_be_visible()
    assert not violations(page)


@pytest.mark.parametrize("language", ["ko", "en"])
def test_with_and_without_a_script_the_page_says_the_same(window, language, time_machine):
    """The rows of the server's answer and of the browser's are made of the same words."""
    time_machine.move_to(datetime.datetime.fromtimestamp(NOW, datetime.UTC))
    its_log, paper = ending(signing.sign_certificate)
    less = json.loads(json.dumps(paper))
    less["evidence"] = []
    less["log"]["entries"][0]["proof"] = less["log"]["entries"][5]["proof"] = None
    receipt = signing.sign_receipt({"jti": "x"})
    log = cases.three()
    files = [
        (text_of(paper), its_log.policy), (text_of(less), its_log.policy), (text_of(paper)[:-1], its_log.policy),
        (receipt, its_log.policy), (log.proof(1), log.policy), (log.proof(1, shown=[]), log.policy),
    ]  # fmt: skip
    here, there = window(language=language), window(language=language, java_script_enabled=False)
    here.clock.set_fixed_time(NOW * 1000)
    here.goto("/verify/")
    there.goto("/verify/")
    for text, policy in files:
        shown = []
        for page in (here, there):
            for name, content in (("policy", policy), ("proof", text)):
                page.locator(f"[name={name}]").set_input_files(
                    {"name": name, "mimeType": "text/plain", "buffer": content.encode()}
                )
            if page is there:
                page.locator("[data-verify-server] button").click()
            expect(page.locator("#verify-result code[data-line]")).to_be_visible()
            shown.append((page.locator("#verify-result .notice").inner_text(), rows(page)))
        assert shown[0] == shown[1]
        assert language == "en" or "VALID" in shown[0][0]


def test_the_code_on_the_paper_is_held_against_the_file(page):
    page.clock.set_fixed_time(NOW * 1000)
    its_log, paper = ending(signing.sign_certificate)
    page.goto(f"/verify/#{paper['digest']}")
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name=GREEN)).to_be_visible()
    other = "sha256:" + "0" * 64
    page.evaluate("digest => { location.hash = digest }", other)
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name=AMBER)).to_be_visible()
    assert rows(page)[0] == ["종이에 적힌 지문이 이 파일의 지문과 달라요", other, "증명되지 않음"]


def test_a_receipt_is_told_where_it_is_checked(page):
    give(page, signing.sign_receipt({"jti": "x"}), cases.three().policy)
    expect(page.get_by_role("heading", name="여기서 확인하는 파일이 아니에요.")).to_be_visible()
    expect(page.get_by_text("verify.py --receipt 영수증 --keys 열쇠 --log 사본 policy.txt")).to_be_visible()
    assert not violations(page)


@pytest.mark.parametrize("language", ["ko", "en"])
def test_a_result_fits_a_narrow_screen(window, language):
    page = window(viewport=NARROW, language=language)
    page.clock.set_fixed_time(NOW * 1000)
    page.goto("/verify/")
    expect(page.locator("[data-verify][data-ready=here]")).to_be_attached()
    its_log, paper = ending(signing.sign_certificate)
    for name, text in (("policy", its_log.policy), ("proof", text_of(paper))):
        page.locator(f"[name={name}]").set_input_files(
            {"name": name, "mimeType": "text/plain", "buffer": text.encode()}
        )
    expect(page.locator("#verify-result tbody tr").first).to_be_visible()
    frame = page.locator("#verify-result .table-frame")
    assert frame.evaluate("e => e.scrollWidth <= e.clientWidth")
    assert not violations(page) and not sideways(page)


def test_a_file_may_be_dropped(page):
    page.clock.set_fixed_time(NOW * 1000)
    log = cases.three()
    page.get_by_label("내가 받은 기준 파일").set_input_files(
        {"name": "policy.txt", "mimeType": "text/plain", "buffer": log.policy.encode()}
    )
    page.evaluate(
        """text => {
          const held = new DataTransfer()
          held.items.add(new File([text], "a.tlog-proof"))
          document.querySelector("[data-verify]").dispatchEvent(new DragEvent("drop", {dataTransfer: held, cancelable: true}))
        }""",
        log.proof(1),
    )
    expect(page.get_by_text("consent.withdrawn 2026-11-22 witnessed by w1")).to_be_visible()
    expect(page.get_by_role("cell", name="MD0001")).to_be_visible()


def test_a_browser_that_cannot_says_so_and_offers_the_server(window):
    page = window(viewport=NARROW)
    page.add_init_script("crypto.subtle.generateKey = () => Promise.reject(new Error('no Ed25519'))")
    page.goto("/verify/")
    expect(page.get_by_text("이 브라우저는 Ed25519 서명을 확인하지 못해요.")).to_be_visible()
    assert not violations(page) and not sideways(page)
    log = cases.three()
    give(page, log.proof(1).replace("index 1", "index 0"), log.policy)
    page.get_by_role("button", name="서버에서 확인하기").click()
    expect(page.get_by_role("heading", name="맞지 않아요. 이 파일을 믿지 마세요.")).to_be_visible()
    expect(page.get_by_text("INVALID not in the tree")).to_be_visible()


def test_without_a_script_the_server_is_asked(window):
    page = window(java_script_enabled=False, language="en")
    page.goto("/verify/")
    page.get_by_label("Proof file or certificate").set_input_files(
        {"name": "a", "mimeType": "text/plain", "buffer": b"{}"}
    )
    page.get_by_role("button", name="Check on the server").click()
    expect(page.get_by_role("heading", name="Not right. Do not rely on this file.")).to_be_visible()


def test_what_the_page_knows_is_json_and_no_more(page):
    words = json.loads(page.locator("#verify-words").text_content() or "")
    assert words["keys"] == signing.public_jwks() and words["policy"] == ""
    assert all("d" not in key for key in words["keys"]["keys"])
    assert words["reasons"][-1][0] == [""]
