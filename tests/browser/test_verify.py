"""/verify/ in the browser: the same answers as verify.py gives, and nothing leaves the machine."""

import json
import random

import pytest
from playwright.sync_api import Page, expect

import verify
from consents.queries import disclosures
from tests.browser.conftest import NARROW, sideways, violations
from tests.consents.ledger import test_verify as cases
from tests.consents.ledger.invented import SEEN, Log, ending, text_of

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]
NOW = SEEN + 60


def said(text: str, policy: str) -> list[list[str]]:
    """What verify.py prints, in the rows of the browser: there the English word for a field is left out."""
    try:
        lines = verify.judge(text, policy, NOW)
    except verify.Invalid as why:
        return [[f"INVALID {verify.printable(str(why))}"]]
    rows = [[verify.printable(part) for part in line] for line in lines]
    names = disclosures.names()
    return [[row[0], "", row[2]] if row[0].strip() in names and len(row) == 3 else row for row in rows]


def ask(page: Page, papers: list[tuple[str, str]]) -> list[list[list[str]]]:
    return page.evaluate(
        """async ([papers, now]) => {
          const form = document.querySelector("[data-verify]"), found = []
          for (const [text, policy] of papers) {
            try { found.push(await form.verifyHere(text, policy, now)) } catch (problem) { found.push([["CRASH " + problem.stack]]) }
          }
          return found
        }""",
        [papers, NOW],
    )


@pytest.fixture
def page(window) -> Page:
    opened = window()
    opened.goto("/verify/")
    expect(opened.locator("[data-verify][data-ready=here]")).to_be_attached()
    return opened


def agree(page: Page, papers: list[tuple[str, str]]) -> list[str]:
    """Put each paper to both; answers the first lines."""
    answers = ask(page, papers)
    for (text, policy), answer in zip(papers, answers, strict=True):
        assert answer == said(text, policy), text[:3000]
    return [answer[0][0] for answer in answers]


def test_it_answers_as_verify_py_does_about_every_case(page):
    log = cases.three()
    proof = log.proof(1)
    papers = [(proof, log.policy)]
    papers += [(change(proof), log.policy) for change in cases.PROOFS.values()]
    papers += [(proof, change(log.policy)) for change in cases.POLICIES.values()]
    for change in cases.CERTIFICATES.values():
        its_log, paper = ending()
        change(paper)
        papers.append((text_of(paper), its_log.policy))
    its_log, paper = ending()
    certificate = text_of(paper)
    papers += [
        (certificate, its_log.policy),
        (certificate.replace('"reason":', '"reason":1,"reason":'), its_log.policy),
    ]
    lines = agree(page, papers)
    valid = [i for i, line in enumerate(lines) if line.startswith("VALID ")]
    assert valid == [0, len(papers) - 2]


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
        assert answer[0][0].startswith("INVALID ") and said(text, policy)[0][0].startswith("INVALID ")


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
        wanted = said(text, policy)
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


def test_a_file_is_checked_here_and_sent_nowhere(page):
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.method} {request.url}"))
    page.clock.set_fixed_time(NOW * 1000)
    its_log, paper = ending()
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name="맞아요. 기록에 있는 그대로예요.")).to_be_visible()
    expect(page.get_by_role("cell", name="subscription.ended")).to_be_visible()
    assert not violations(page)
    paper["ended_at"] = "2026-01-01T00:00:00Z"
    give(page, text_of(paper), its_log.policy)
    expect(page.get_by_role("heading", name="맞지 않아요. 이 파일을 믿지 마세요.")).to_be_visible()
    expect(page.get_by_text("확인서에 적힌 것과 기록이 서로 달라요.")).to_be_visible()
    assert not violations(page)
    assert not sent
    expect(page.get_by_role("button", name="서버에서 확인하기")).to_be_hidden()


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
    assert set(words) == {"fields", "reasons", "policy"} and words["reasons"][-1][0] == [""]
