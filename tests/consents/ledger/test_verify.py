"""verify.py: proofs, certificates, receipts and whole logs, and everything that it must refuse."""

import ast
import base64
import copy
import datetime
import json
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st

import verify
from consents.ledger import cosigning, entries, exporting, merkle, notes, proofs, tiles
from consents.ledger.sequencer import Sequencer
from consents.models import LedgerEntry
from consents.queries import disclosures
from providers import signing
from tests.consents.ledger import invented
from tests.consents.ledger.invented import (
    AT,
    EVIDENCE,
    JTI,
    JWKS,
    ORIGIN,
    SBS,
    SEEN,
    Log,
    ending,
    sealed_by,
    text_of,
)
from tests.consents.ledger.test_sequencer import write

NOW = SEEN + 60
EXAMPLE = "VALID consent.example.kr/log/2026 size 7 index 2 consent.revoked 2026-11-22 witnessed by fss1"


def three() -> Log:
    log = Log()
    for reason in ("a", "b", "c"):
        log.add("consent.withdrawn", rsn=reason, opr="MD0001")
    return log


def judged(
    log: Log, text: str, *, policy: str | None = None, now: int = NOW, keys: dict[str, Any] | None = JWKS
):
    return verify.judge(text, log.policy if policy is None else policy, now, keys)


def run(*arguments, folder: Path) -> subprocess.CompletedProcess:
    """As somebody else would: in another folder, seeing nothing of the project."""
    command = [sys.executable, "-I", str(settings.BASE_DIR / "verify.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_worked_example_is_valid_and_prints_what_is_written(vector, tmp_path):
    example = vector("consent_ledger_example.json")
    (tmp_path / "proof").write_text(example["tlog_proof_index2_size7"], newline="")
    (tmp_path / "policy").write_text(example["policy"], newline="")
    done = run("proof", "policy", folder=tmp_path)
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[0]) == (0, EXAMPLE)
    assert [line.split()[0] for line in lines[1:]] == ["at", "con", "opr", "rsn", "sub"]
    assert lines[1].endswith("2026-11-22T03:10:00.000001Z")
    wrong = example["tlog_proof_index2_size7"].replace("\nindex 2\n", "\nindex 3\n")
    (tmp_path / "proof").write_text(wrong, newline="")
    done = run("proof", "policy", folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "INVALID not in the tree\n")


def test_whoever_asks_wrongly_is_told_how(tmp_path):
    assert run("one", folder=tmp_path).returncode == 2
    assert run("no", "such", folder=tmp_path).returncode == 2
    assert run("--receipt", "r", "--log", "d", "p", folder=tmp_path).returncode == 2
    shown = run("--help", folder=tmp_path)
    assert shown.returncode == 0 and "regulator" in shown.stdout and "--since" in shown.stdout


def test_it_imports_nothing_of_the_project():
    tree = ast.parse((settings.BASE_DIR / "verify.py").read_text(encoding="utf-8"))
    named = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert named - set(sys.stdlib_module_names) == {"cryptography"}


def test_nothing_in_a_file_moves_the_cursor_or_turns_the_line(tmp_path, capsys):
    log = Log()
    log.add("consent.withdrawn", rsn="\x1b[2J\u202e\x9b\nINVALID")
    (tmp_path / "proof").write_text(log.proof(0), newline="")
    (tmp_path / "policy").write_text(log.policy, newline="")
    assert verify.main([str(tmp_path / "proof"), str(tmp_path / "policy")], now=NOW) == 0
    printed = capsys.readouterr().out
    assert not {"\x1b", "\u202e", "\x9b"} & set(printed) and "\nINVALID" not in printed


# --- proofs ----------------------------------------------------------------------------------------------------------


def test_a_proof_shows_only_what_its_holder_wants():
    log = three()
    proof = log.proof(1, shown=[log.shown[1]["rsn"]])
    assert judged(log, proof)[1:] == [("  rsn", "reason", "b"), ("  2 more not shown",)]
    assert judged(log, log.proof(1, shown=[]))[1:] == [("  3 more not shown",)]


def line(proof: str, number: int, text: str) -> str:
    lines = proof.split("\n")
    lines[number] = text
    return "\n".join(lines)


PROOFS = {
    "another header": lambda p: p.replace("@v1", "@v2"),
    "a space before": lambda p: " " + p,
    "no final line feed": lambda p: p[:-1],
    "one more line feed": lambda p: p + "\n",
    "CRLF": lambda p: p.replace("\n", "\r\n"),
    "no extra": lambda p: "\n".join(p.split("\n")[:1] + p.split("\n")[2:]),
    "extra after index": lambda p: "\n".join([*p.split("\n")[:1], p.split("\n")[2], p.split("\n")[1], *p.split("\n")[3:]]),
    "extra twice": lambda p: p.replace("\nindex", "\n" + p.split("\n")[1] + "\nindex"),
    "index +1": lambda p: p.replace("index 1", "index +1"),
    "index 01": lambda p: p.replace("index 1", "index 01"),
    "index 1_": lambda p: p.replace("index 1", "index 1_0"),
    "index in other digits": lambda p: p.replace("index 1", "index １"),
    "index with a space": lambda p: p.replace("index 1", "index  1"),
    "index -1": lambda p: p.replace("index 1", "index -1"),
    "index at the size": lambda p: p.replace("index 1", "index 3"),
    "index far outside": lambda p: p.replace("index 1", "index 9223372036854775807"),
    "index beyond 63 bits": lambda p: p.replace("index 1", "index 9223372036854775808"),
    "index of another": lambda p: p.replace("index 1", "index 0"),
    "a hash less": lambda p: "\n".join(p.split("\n")[:3] + p.split("\n")[4:]),
    "a hash more": lambda p: p.replace("\n\n", "\n" + base64.b64encode(bytes(32)).decode() + "\n\n", 1),
    "64 hashes": lambda p: p.replace("\n\n", ("\n" + base64.b64encode(bytes(32)).decode()) * 64 + "\n\n", 1),
    "a hash of 31 bytes": lambda p: line(p, 3, base64.b64encode(bytes(31)).decode()),
    "a hash of 33 bytes": lambda p: line(p, 3, base64.b64encode(bytes(33)).decode()),
    "a hash without padding": lambda p: line(p, 3, p.split("\n")[3].rstrip("=")),
    "a hash in base64url": lambda p: line(p, 3, base64.urlsafe_b64encode(b"\xff" * 32).decode()),
    "size +3": lambda p: p.replace("\n3\n", "\n+3\n"),
    "size 03": lambda p: p.replace("\n3\n", "\n03\n"),
    "size 3 with a space": lambda p: p.replace("\n3\n", "\n3 \n"),
    "another size": lambda p: p.replace("\n3\n", "\n4\n"),
    "another origin": lambda p: p.replace(ORIGIN, "log.example/2027"),
    "an extension line": lambda p: p.replace("\n\n\u2014", "\nextension\n\n\u2014"),
    "the log's signature is not there": lambda p: "\n".join(one for one in p.split("\n") if not one.startswith(f"\u2014 {ORIGIN}")),
    "no witness": lambda p: "\n".join(one for one in p.split("\n") if not one.startswith("\u2014 w1")),
    "a hyphen for a dash": lambda p: p.replace("\u2014 w1", "- w1"),
    "two spaces": lambda p: p.replace("\u2014 w1.example ", "\u2014 w1.example  "),
    "a signature line of nobody, broken": lambda p: p + "\u2014 nobody !!!!\n",
    "a signature line too short": lambda p: p + "\u2014 nobody AAAA\n",
    "65 signatures": lambda p: p + "\u2014 nobody AAAAAAA=\n" * 63,
    "a control character": lambda p: p + "\u2014 no\x07body AAAAAAA=\n",
}  # fmt: skip


@pytest.mark.parametrize("change", PROOFS.values(), ids=PROOFS)
def test_a_proof_that_is_not_one_is_refused(change):
    log = three()
    proof = log.proof(1)
    judged(log, proof)
    changed = change(proof)
    assert changed != proof
    with pytest.raises(verify.Invalid):
        judged(log, changed)


def noncanonical(text: str) -> str:
    """The same bytes in base64, with other unused bits."""
    place = len(text.rstrip("=")) - 1
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = text[:place] + alphabet[alphabet.index(text[place]) ^ 1] + text[place + 1 :]
    assert base64.b64decode(other) == base64.b64decode(text) and other != text
    return other


def test_base64_has_one_spelling():
    log = three()
    proof = log.proof(1)
    for number, text in enumerate(proof.split("\n")):
        word = text.rpartition(" ")[2]
        if word.endswith("=") and len(word) > 8:
            with pytest.raises(verify.Invalid, match="canonical"):
                judged(log, line(proof, number, text.removesuffix(word) + noncanonical(word)))


def test_unknown_signatures_are_ignored_and_known_false_ones_refuse():
    log = three()
    note = log.checkpoint()
    other = notes.Note.parse(note).text
    judged(log, log.proof(1, note=note + "\u2014 nobody AAAAAAA=\n" * 16))
    for known in (
        notes.Signature(ORIGIN, notes.Key.of(log.key, name=ORIGIN, kind=1).id, bytes(64)),
        notes.Signature(
            "w1.example", notes.Key.of(log.witnesses["w1"], name="w1.example", kind=4).id, bytes(72)
        ),
        notes.Signature(
            "w1.example", notes.Key.of(log.witnesses["w1"], name="w1.example", kind=4).id, b"\1" * 8
        ),
    ):
        assert other
        with pytest.raises(verify.Invalid, match="false"):
            judged(log, log.proof(1, note=f"{note}{known}\n"))


@pytest.mark.parametrize("line", ["extension\n", "\n", "\n\n", " \n"])
def test_a_checkpoint_with_extension_lines_is_refused_however_well_signed(line):
    log = three()
    text = notes.Note.parse(log.checkpoint()).text + line
    note = notes.Note(
        text,
        (
            notes.note_signature(log.key, name=ORIGIN, text=text),
            notes.cosignature(log.witnesses["w1"], name="w1.example", text=text, time=SEEN),
        ),
    )
    with pytest.raises(verify.Invalid, match="three lines"):
        judged(log, log.proof(1, note=str(note)))
    with pytest.raises(notes.BadNote, match="three lines"):
        notes.opened(note, notes.Policy.parse(log.policy))


@pytest.mark.parametrize("time", [0, 1, SEEN + 86_400, 2**40, 2**63 - 1])
def test_a_witness_cannot_have_seen_it_at_a_time_that_cannot_be(time):
    log = three()
    with pytest.raises(verify.Invalid, match="time that cannot be"):
        judged(log, log.proof(1, note=log.checkpoint(times={"w1": time})))


@pytest.mark.parametrize(
    ("rules", "present", "enough"),
    [
        ("quorum none\n", [], True),
        ("group g any w1 w2\nquorum g\n", ["w2"], True),
        ("group g any w1 w2\nquorum g\n", [], False),
        ("group g all w1 w2\nquorum g\n", ["w1"], False),
        ("group g all w1 w2\nquorum g\n", ["w1", "w2"], True),
        ("group g 2 w1 w2 w3\nquorum g\n", ["w1", "w3"], True),
        ("group g 2 w1 w2 w3\nquorum g\n", ["w3"], False),
        ("group g any w1 w2\ngroup h all g w3\nquorum h\n", ["w2", "w3"], True),
        ("group g any w1 w2\ngroup h all g w3\nquorum h\n", ["w1", "w2"], False),
        ("quorum w3\n", ["w1", "w2"], False),
    ],
)
def test_a_quorum_may_be_made_of_groups(rules, present, enough):
    log = Log(witnesses=("w1", "w2", "w3"), rules=rules)
    log.add("consent.withdrawn", rsn="a")
    proof = log.proof(0, note=log.checkpoint(times=dict.fromkeys(present, SEEN)))
    if enough:
        assert judged(log, proof)
    else:
        with pytest.raises(verify.Invalid, match="too few witnesses"):
            judged(log, proof)


POLICIES = {
    "empty": lambda p: "",
    "no quorum": lambda p: p.replace("quorum w1\n", ""),
    "two quorums": lambda p: p + "quorum w1\n",
    "quorum of nobody": lambda p: p.replace("quorum w1", "quorum w2"),
    "no log": lambda p: "\n".join(p.split("\n")[1:]),
    "an unknown line": lambda p: p + "trust me\n",
    "a name twice": lambda p: p + p.split("\n")[1] + "\n",
    "a key twice": lambda p: p.replace("quorum", p.split("\n")[1].replace("witness w1", "witness w2") + "\nquorum"),
    "a group with a stranger": lambda p: p + "group g any w1 w2\n",
    "a group with one twice": lambda p: p + "group g 2 w1 w1\n",
    "a group that asks too much": lambda p: p + "group g 2 w1\n",
    "a group that asks nothing": lambda p: p + "group g 0 w1\n",
    "a group that asks +1": lambda p: p + "group g +1 w1\n",
    "a group of none": lambda p: p + "group g any none\n",
    "a key of another kind": lambda p: p.replace("witness w1 w1.example", "log w1.example"),
    "another key id": lambda p: p.replace("+", "+0", 1),
    "another name": lambda p: p.replace(ORIGIN, "log.example/2027"),
    "another space": lambda p: p.replace("quorum w1", "quorum\u00a0w1"),
}  # fmt: skip


@pytest.mark.parametrize("change", POLICIES.values(), ids=POLICIES)
def test_a_policy_that_is_not_one_is_refused(change):
    log = three()
    policy = change(log.policy)
    assert policy != log.policy
    with pytest.raises(verify.Invalid):
        judged(log, log.proof(1), policy=policy)
    with pytest.raises(notes.BadNote):
        notes.Policy.parse(policy)


def test_a_policy_may_have_comments_and_another_editors_line_ends():
    log = three()
    policy = "# from the regulator\r\n\n" + log.policy.replace("\n", "\r\n").replace(" ", "\t")
    judged(log, log.proof(1), policy=policy)
    assert notes.Policy.parse(policy) == notes.Policy.parse(log.policy)


def test_many_groups_cost_no_more_than_one_pass():
    """Each group holds the two before it: asked again and again this would take for ever."""
    log = Log(witnesses=("w1", "w2"))
    rules = ["group g0 any w1 w2", "group g1 any g0 w1"]
    rules += [f"group g{i} any g{i - 1} g{i - 2}" for i in range(2, 3000)]
    policy = log.policy.replace("quorum w1", "\n".join(rules) + "\nquorum g2999")
    log.add("consent.withdrawn", rsn="a")
    note = log.checkpoint(times={})
    with pytest.raises(verify.Invalid, match="too few"):
        judged(log, log.proof(0, note=note), policy=policy)
    assert not notes.Policy.parse(policy).satisfied(set())


# --- entries and disclosures ---------------------------------------------------------------------------------------------

GOOD = entries.seal("consent.withdrawn", at=AT, fields={"at": AT, "rsn": "a"}).entry.decode()
ENTRIES = {
    "a space": GOOD.replace(",", ", ", 1),
    "another order": "{" + ",".join(reversed(GOOD[1:-1].split(',"day"', 1))) + "}",
    "a member more": GOOD.replace('"v":1', '"v":1,"w":1'),
    "a member twice": GOOD.replace('"v":1', '"v":1,"v":1'),
    "a member less": GOOD.replace(',"v":1', ""),
    "another version": GOOD.replace('"v":1', '"v":2'),
    "version as a fraction": GOOD.replace('"v":1', '"v":1.0'),
    "another hash": GOOD.replace("sha-256", "sha-512"),
    "an escaped letter": GOOD.replace("consent", "\\u0063onsent"),
    "no day": GOOD.replace("2026-11-22", "2026-02-30"),
    "a day in other digits": GOOD.replace("2026", "２026"),
    "a time-ordered id": GOOD.replace('"id":"', '"id":"01932f3a-0000-7000-8000-000000000000","x":"'),
    "a type of one word": GOOD.replace("consent.withdrawn", "consent"),
    "a line feed after": GOOD + "\n",
    "digests out of order": json.dumps({**json.loads(GOOD), "_sd": json.loads(GOOD)["_sd"][::-1]}, separators=(",", ":")),
    "a digest twice": json.dumps({**json.loads(GOOD), "_sd": json.loads(GOOD)["_sd"][:1] * 2}, separators=(",", ":")),
    "a digest too short": GOOD.replace('"_sd":["', '"_sd":["AAAA","'),
    "nothing": "",
    "not an object": "[]",
}  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_what_stands_in_the_tree_must_be_a_canonical_entry(entry):
    log = three()
    log.add_raw(GOOD.encode())
    judged(log, log.proof(3))
    assert entry != GOOD
    log.add_raw(entry.encode())
    with pytest.raises(verify.Invalid, match="entry"):
        judged(log, log.proof(4))


def test_the_pattern_of_an_entry_and_rfc8785_agree():
    log = three()
    for raw in log.raw:
        assert verify.parse_entry(raw).digests == json.loads(raw)["_sd"]
        assert rfc8785.dumps(json.loads(raw)) == raw


def disclosure(text: str | bytes) -> str:
    return entries.b64(text.encode() if isinstance(text, str) else text)


SALT = "AAECAwQFBgcICQoLDA0ODw"
DISCLOSURES = {
    "two parts": f'["{SALT}","FR"]',
    "four parts": f'["{SALT}","at","a","b"]',
    "no list": '{"a":1}',
    "a name that is no text": f'["{SALT}",1,"a"]',
    "a salt that is no text": '[1,"at","a"]',
    "a short salt": '["AAAA","at","a"]',
    "a salt in base64": '["++++++++++++++++++++++","at","a"]',
    "no JSON": f'["{SALT}","at",]',
    "NaN": f'["{SALT}","at",NaN]',
    "a fraction": f'["{SALT}","at",1.5]',
    "a large integer": f'["{SALT}","at",9007199254740992]',
    "minus zero": f'["{SALT}","at",-0]',
    "a member twice": f'["{SALT}","at",{{"a":1,"a":2}}]',
    "a member twice, escaped": f'["{SALT}","at",{{"a":1,"\\u0061":2}}]',
    "a lone surrogate": f'["{SALT}","at","\\ud800"]',
    "too deep": f'["{SALT}","at",' + "[" * 40 + "]" * 40 + "]",
    "far too deep": "[" * 100_000,
    "not UTF-8": b'["AAECAwQFBgcICQoLDA0ODw","at","\xff"]',
    "a byte order mark": f'\ufeff["{SALT}","at","a"]',
}  # fmt: skip


@pytest.mark.parametrize("text", DISCLOSURES.values(), ids=DISCLOSURES)
def test_what_is_shown_must_be_salt_name_and_value(text):
    """Although the entry holds its digest, and the tree the entry."""
    log = three()
    shown = disclosure(text)
    entry = entries.encode(
        typ="consent.withdrawn", day=AT.date(), event_id=uuid.uuid4(), digests=[entries.digest(shown)]
    )
    log.add_raw(entry)
    with pytest.raises(verify.Invalid):
        judged(log, log.proof(3, shown=[shown]))


def test_a_value_may_be_anything_canonical_json_holds():
    log = Log()
    values = {"scp": ["은행", {"a": [None, True, -5]}], "pur": "목적 \u00e9 \U0001f600", "ver": 2**53 - 1}
    log.add("consent.withdrawn")
    entry = [disclosure(rfc8785.dumps([SALT, name, value])) for name, value in values.items()]
    digests = [entries.digest(one) for one in entry]
    log.add_raw(entries.encode(typ="consent.granted", day=AT.date(), event_id=uuid.uuid4(), digests=digests))
    lines = judged(log, log.proof(1, shown=entry))
    assert [parts[2] for parts in lines[1:]] == [
        '["은행",{"a":[null,true,-5]}]',
        values["pur"],
        "9007199254740991",
    ]


def test_nothing_is_shown_that_the_entry_does_not_hold():
    log = three()
    own, foreign = sorted(log.shown[1].values()), log.shown[0]["rsn"]
    for shown, why in (
        ([*own, foreign], "does not hold"),
        ([*own, own[0]], "shown twice"),
        ([own[0] + "="], "does not hold"),
        (["가"], "does not hold"),
        ([""], "does not hold"),
    ):
        with pytest.raises(verify.Invalid, match=why):
            judged(log, log.proof(1, shown=shown))


def test_one_name_is_shown_once():
    log = three()
    pair = [disclosure(f'["{SALT}","rsn","{value}"]') for value in "ab"]
    digests = [entries.digest(one) for one in pair]
    log.add_raw(
        entries.encode(typ="consent.withdrawn", day=AT.date(), event_id=uuid.uuid4(), digests=digests)
    )
    judged(log, log.proof(3, shown=pair[:1]))
    with pytest.raises(verify.Invalid, match="shown twice"):
        judged(log, log.proof(3, shown=pair))


@pytest.mark.parametrize(
    "extra",
    [
        b"", b"{}", b"[]", b"null", b"\xff", b'{"entry":"a"}', b'{"disclosures":[],"entry":1}', b'{"disclosures":{},"entry":"a"}',
        b'{"disclosures":[1],"entry":"a"}', b'{"disclosures":[],"entry":"a","entry":"b"}', b'{"disclosures":[],"entry":"a","x":1}',
    ],
)  # fmt: skip
def test_extra_is_an_entry_with_its_disclosures(extra):
    log = three()
    with pytest.raises(verify.Invalid):
        judged(log, log.proof(1, extra=extra))


# --- fuzz, and a second opinion ---------------------------------------------------------------------------------------------


def cut(text: str, at: int, much: int, put: str) -> str:
    place = at % (len(text) + 1)
    return text[:place] + put + text[place + much :]


LOG = three()
PROOF = LOG.proof(1)
MEANT = judged(LOG, PROOF)


@how(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(0, 10_000),
    st.integers(0, 3),
    st.sampled_from(["", "\n", " ", "=", "A", "\u2014", "0", "\r", "é", "\n\n"]),
)
def test_a_changed_proof_is_refused_or_means_the_same(at, much, put):
    """Unknown signature lines may come and go; whatever else changes, nothing else may be accepted. verify.py and our own
    reader agree about every text."""
    changed = cut(PROOF, at, much, put)
    try:
        answer = judged(LOG, changed)
    except verify.Invalid:
        answer = None
    assert answer is None or answer == MEANT
    policy = notes.Policy.parse(LOG.policy)
    try:
        proof = notes.Proof.parse(changed)
        proof.verify(merkle.leaf_hash(LOG.raw[1]), policy)
        ours = True
    except (notes.BadNote, merkle.BadProof):
        ours = False
    if answer is not None:
        assert ours
    elif ours:
        # What is left is ours to judge only with the entry at hand: `extra` is another, or none.
        assert proof.extra != notes.Proof.parse(PROOF).extra


@how(max_examples=300)
@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_no_text_makes_a_parser_do_anything_but_refuse(text):
    for read, refusal in (
        (lambda one: judged(LOG, one), verify.Invalid),
        (lambda one: judged(LOG, PROOF, policy=one), verify.Invalid),
        (lambda one: judged(LOG, LOG.proof(1, shown=[one])), verify.Invalid),
        (lambda one: verify.parse_disclosure(one), verify.Invalid),
        (lambda one: verify.open_checkpoint(one, verify.parse_policy(LOG.policy), NOW), verify.Invalid),
        (notes.Note.parse, notes.BadNote),
        (notes.Proof.parse, notes.BadNote),
        (notes.Policy.parse, notes.BadNote),
        (notes.Key.parse, notes.BadNote),
        (notes.Checkpoint.parse, notes.BadNote),
        (tiles.parse, ValueError),
    ):
        with pytest.raises(refusal):
            read(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = ["type", "subscription", "operator", "ended_at", "reason", "erasure", "parties", "log"]


@how(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_value_in_a_certificate_makes_it_do_anything_but_answer(data):
    log, paper = ending()
    place = data.draw(st.sampled_from(PLACES))
    value = data.draw(JSON)
    inside = data.draw(st.booleans())
    if inside and place == "parties":
        name = data.draw(st.sampled_from(["id", "jti", "sent_at", "erased_at", "statements"]))
        paper["parties"][0][name] = value
    elif inside and place == "log":
        paper["log"]["entries"][0][data.draw(st.sampled_from(["id", "typ", "leaf", "proof"]))] = value
    else:
        paper[place] = value
    try:
        judged(log, text_of(paper))
    except verify.Invalid:
        return
    # Accepted: what the proofs speak of is as it was, or was left open.
    assert paper["log"]["origin"] == ORIGIN and paper["subscription"] == SBS


# --- certificates ---------------------------------------------------------------------------------------------------------


def test_a_certificate_is_what_its_proofs_and_its_signature_say():
    log, paper = ending()
    lines = judged(log, text_of(paper))
    first = (
        f"VALID {ORIGIN} size 6 certificate-of-ending 6 entries proved witnessed by w1 signed by the portal"
    )
    assert lines[0] == (first,)
    logged = [parts for parts in lines[1:] if parts[0].strip().isdigit()]
    assert [parts[1] for parts in logged] == [entry["typ"] for entry in paper["log"]["entries"]]
    assert {parts[0] for parts in lines[1:]} - {parts[0] for parts in logged} == {"  SIGNED", "  PROVED"}
    assert lines[1:6] == [
        ("  SIGNED", "service", "두루 가계부", "Duru Budget", "duru-budget"),
        ("  SIGNED", "company", "두루", "Duru", "FTDURU9001"),
        ("  SIGNED", "person", paper["subject"]),
        ("  SIGNED", "joined", paper["joined_at"]),
        ("  PROVED", "ended", paper["ended_at"], "person_left"),
    ]


def test_without_keys_whatever_is_only_signed_is_not_proved():
    log, paper = ending()
    with_keys, without = (judged(log, text_of(paper), keys=keys) for keys in (JWKS, None))
    only = ("  NOT PROVED", "the portal's signature", "give its keys with --keys")
    assert only in without and only not in with_keys
    assert [row for row in without[1:] if row != only] == [
        ("  NOT PROVED", *row[1:]) if row[0] == "  SIGNED" else row for row in with_keys[1:]
    ]
    open_ones = sum(row[0] == "  NOT PROVED" for row in without)
    assert without[0][0] == with_keys[0][0].replace(
        "signed by the portal", f"but only in part: {open_ones} not proved"
    )


def test_what_a_certificate_says_beyond_its_proofs_is_named():
    log, paper = ending()
    paper["log"]["entries"][0]["proof"] = paper["log"]["entries"][4]["proof"] = None
    moment = "2026-11-22T03:10:00Z"
    statement = {"id": "e-9", "status": "erased", "digest": "sha256:00"}
    paper["parties"].append(
        {
            "id": "BK0001",
            "jti": str(uuid.uuid4()),
            "erased_at": moment,
            "sent_at": "",
            "statements": [statement],
        }
    )
    paper["evidence"][0]["document"] = ""
    lines = judged(log, text_of(sealed_by(paper, invented.by(invented.PORTAL))))
    assert "but only in part: 9 not proved" in lines[0][0]
    assert [row for row in lines if row[0] in ("  WITHOUT PROOF", "  NOT PROVED")] == [
        ("  NOT PROVED", "ended", moment, "person_left"),
        ("  WITHOUT PROOF", "subscription.ended", paper["log"]["entries"][0]["id"]),
        ("  WITHOUT PROOF", "erasure.requested", paper["log"]["entries"][4]["id"]),
        ("  NOT PROVED", "erasure asked for", moment),
        ("  NOT PROVED", "sent", "BK0001", ""),
        ("  NOT PROVED", "erased", "BK0001", moment),
        ("  NOT PROVED", "evidence", "BK0001", "sha256:00"),
        ("  NOT PROVED", "document", "FTDURU9001", "e-1"),
        ("  NOT PROVED", "document", "BK0001", "e-9"),
    ]


def test_an_end_whose_reason_is_not_shown_is_not_proved():
    log, paper = ending()
    shown = [text for name, text in log.shown[0].items() if name != "rsn"]
    paper["log"]["entries"][0]["proof"] = log.proof(0, shown=shown)
    assert ("  NOT PROVED", "ended", paper["ended_at"], "person_left") in judged(log, text_of(paper))


def deeply(paper: dict, *path, to) -> None:
    for name in path[:-1]:
        paper = paper[name]
    assert json.dumps(paper[path[-1]]) != json.dumps(to)
    paper[path[-1]] = to


def altered(*path, to=None):
    return lambda paper: deeply(paper, *path, to=to)


def by_the_portal(change):
    """What the portal itself would have to sign: the log still says no."""

    def both(paper: dict) -> None:
        change(paper)
        sealed_by(paper, invented.by(invented.PORTAL))

    return both


def signed_with(private=invented.PORTAL, header: dict | None = None, **claims):
    return lambda paper: sealed_by(paper, invented.by(private, **header or {}), **claims) and None


PARTY, STATEMENT = ("parties", 0), ("parties", 0, "statements", 0)
PROVED = {
    "another subscription": altered("subscription", to=str(uuid.uuid4())),
    "another end": altered("ended_at", to="2026-11-22T03:10:01Z"),
    "no end": altered("ended_at"),
    "another reason": altered("reason", to="expired"),
    "another company": altered("operator", "id", to="MD0001"),
    "another party": altered(*PARTY, "id", to="MD0001"),
    "another message": altered(*PARTY, "jti", to=str(uuid.uuid4())),
    "a step at another time": altered(*PARTY, "erased_at", to="2026-11-23T03:10:00Z"),
    "a step left out": altered(*PARTY, "received_at"),
    "a step that is blank": altered(*PARTY, "received_at", to=""),
    "other evidence": altered(*STATEMENT, "digest", to="sha256:00"),
    "evidence of another kind": altered(*STATEMENT, "status", to="stopped"),
    "no statement": altered(*PARTY, "statements", to=[]),
    "statements that are none": altered(*PARTY, "statements", to="e-1"),
    "a statement without a digest": altered(*STATEMENT, "digest"),
    "another request to erase": altered("erasure", "requested_at", to="2026-11-23T03:10:00Z"),
    "no erasure": altered("erasure", "state", to="not_requested"),
    "a message twice": lambda p: p["parties"].append(p["parties"][0]),
    "no parties": lambda p: p.pop("parties"),
    "an entry twice": lambda p: p["log"]["entries"].append(p["log"]["entries"][0]),
    "another id": altered("log", "entries", 0, "id", to=str(uuid.uuid4())),
    "another type": altered("log", "entries", 0, "typ", to="subscription.joined"),
    "another leaf": lambda p: p["log"]["entries"][0].update(leaf=p["log"]["entries"][1]["leaf"]),
    "another's proof": lambda p: p["log"]["entries"][0].update(proof=p["log"]["entries"][1]["proof"]),
    "another log": altered("log", "origin", to="log.example/2027"),
    "no proof at all": lambda p: [entry.update(proof=None) for entry in p["log"]["entries"]],
    "another paper": altered("type", to="certificate-of-joining"),
    "a document of something else": altered("evidence", 0, "document", to="eyJ.안 지웠어요.sig"),
    "a document that is a space": altered("evidence", 0, "document", to=" "),
    "a document that is a number": altered("evidence", 0, "document", to=1),
    "a document of nobody": altered("evidence", 0, "organization", to="BK0001"),
    "a document of another statement": altered("evidence", 0, "id", to="e-2"),
    "a document under its own digest": lambda p: p["evidence"][0].update(
        document="x", digest="sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    ),
    "evidence that is no list": altered("evidence", to="e-1"),
    "one more document": lambda p: p["evidence"].append({**p["evidence"][0], "id": "e-2"}),
}  # fmt: skip
SIGNED = {
    "another name of the service": altered("service", "name_ko", to="다른 가계부"),
    "another English name": altered("service", "name_en", to="Other"),
    "another service": altered("service", "id", to="other"),
    "no service": lambda p: p.pop("service"),
    "another name of the company": altered("operator", "name_ko", to="다른 회사"),
    "another day of joining": altered("joined_at", to="2020-01-05T00:30:00Z"),
    "a blank day of joining": altered("joined_at", to=""),
    "another person": altered("subject", to=str(uuid.uuid4())),
    "nobody": altered("subject", to=""),
    "no person": lambda p: p.pop("subject"),
    "another name of a party": altered(*PARTY, "name_ko", to="다른 회사"),
    "another goal": altered(*PARTY, "goal", to="stopped"),
    "another role": altered(*PARTY, "role", to="source"),
    "another due date": altered(*PARTY, "due_at", to="2027-11-27T03:10:00Z"),
    "a refusal": altered(*PARTY, "refusal", to="상법 제33조"),
    "a refused erasure": altered("erasure", "refusal", to="상법 제33조"),
    "another confirmation": altered("erasure", "confirmed_at", to="2026-11-23T03:10:00Z"),
    "other means": altered(*STATEMENT, "means", to="desk"),
    "another time of stating": altered(*STATEMENT, "stated_at", to="2026-11-21T03:09:00Z"),
    "another time of receiving": altered(*STATEMENT, "received_at", to="2026-11-21T03:09:00Z"),
    "more that is open": altered("open", to=1),
    "true for none": altered("open", to=False),
    "a member more": lambda p: p.update(note="x"),
    "another member of the log": lambda p: p["log"].update(note="x"),
    "an empty member of an entry": lambda p: p["log"]["entries"][0].update({"": None}),
    "another digest": altered("digest", to="sha256:" + "0" * 64),
    "a blank digest": altered("digest", to=""),
    "no digest": lambda p: p.pop("digest"),
    "no signature": lambda p: p.pop("jws"),
    "a signature of null": altered("jws"),
    "a blank signature": altered("jws", to=""),
    "two dots": altered("jws", to=".."),
    "a signature of a letter less": lambda p: p.update(jws=p["jws"][:-1]),
    "a signature without its last part": lambda p: p.update(jws=p["jws"].rpartition(".")[0] + "."),
    "a short signature": lambda p: p.update(jws=p["jws"].rpartition(".")[0] + ".AAAA"),
    "a space behind the signature": lambda p: p.update(jws=p["jws"] + " "),
    "another's signature": lambda p: p.update(jws=ending()[1]["jws"]),
    "a claim of another name": signed_with(certificate=None, receipt={}),
    "a signature about somebody else": signed_with(sub=SBS),
    "a signature about nobody": signed_with(sub=None),
    "a signature of tomorrow": signed_with(iat=NOW + 86_400),
    "a signature of no time": signed_with(iat=True),
    "a signature before all time": signed_with(iat=-1),
    "a receipt's signature": signed_with(header={"typ": "consent-receipt+jwt"}),
    "a signature without a type": signed_with(header={"typ": None}),
    "no algorithm": signed_with(header={"alg": "none"}),
    "another algorithm": signed_with(header={"alg": "HS256"}),
    "an extension": signed_with(header={"crit": ["b64"], "b64": True}),
    "b64": signed_with(header={"b64": True}),
}  # fmt: skip
FORGED = {
    "another's key": signed_with(invented.STRANGER),
    "another's key under the portal's name": signed_with(invented.STRANGER, header={"kid": JWKS["keys"][0]["kid"]}),
    "no key's name": signed_with(header={"kid": None}),
    "zeros": lambda p: p.update(jws=p["jws"].rpartition(".")[0] + "." + "A" * 86),
}  # fmt: skip
CERTIFICATES = PROVED | SIGNED | {f"{name}, signed": by_the_portal(change) for name, change in PROVED.items()}


@pytest.mark.parametrize("change", CERTIFICATES.values(), ids=CERTIFICATES)
def test_a_certificate_that_was_changed_is_refused(change):
    """With the portal's keys and without: its digest, and what the signature holds, are enough to see it."""
    log, paper = ending()
    change(paper)
    for keys in (JWKS, None):
        with pytest.raises(verify.Invalid):
            judged(log, text_of(paper), keys=keys)


@pytest.mark.parametrize("change", FORGED.values(), ids=FORGED)
def test_a_certificate_that_somebody_else_signed_is_refused_with_keys_and_proved_in_part_without(change):
    log, paper = ending()
    change(paper)
    with pytest.raises(verify.Invalid, match="the certificate's signature"):
        judged(log, text_of(paper))
    lines = judged(log, text_of(paper), keys=None)
    assert "only in part" in lines[0][0] and not [row for row in lines if row[0] == "  SIGNED"]


@pytest.mark.parametrize("change", SIGNED.values(), ids=SIGNED)
def test_what_is_only_signed_may_be_signed_anew_and_is_shown(change):
    """The table is of claims that no proof can refuse: but for the signature itself, new words are fine once signed."""
    log, paper = ending()
    change(paper)
    if isinstance(paper.get("subject"), str) and isinstance(paper["log"], dict):
        assert judged(log, text_of(sealed_by(paper, invented.by(invented.PORTAL))))[0][0].endswith(
            "signed by the portal"
        )


KEYS = {
    "no keys": {"keys": []},
    "no list": {"keys": {}},
    "no file": {},
    "another's": {"keys": [invented.jwk(invented.STRANGER)]},
    "another's under its name": {"keys": [{**invented.jwk(invented.STRANGER), "kid": JWKS["keys"][0]["kid"]}]},
    "of another curve": {"keys": [{**JWKS["keys"][0], "crv": "P-384"}]},
    "of another type": {"keys": [{**JWKS["keys"][0], "kty": "OKP"}]},
    "not on the curve": {"keys": [{**JWKS["keys"][0], "x": "A" * 43}]},
    "too short": {"keys": [{**JWKS["keys"][0], "x": "AAAA"}]},
    "no base64url": {"keys": [{**JWKS["keys"][0], "x": "="}]},
    "without y": {"keys": [{name: value for name, value in JWKS["keys"][0].items() if name != "y"}]},
    "texts": {"keys": ["x", None, 1]},
}  # fmt: skip


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_that_are_not_the_portals_prove_nothing(keys):
    log, paper = ending()
    with pytest.raises(verify.Invalid):
        judged(log, text_of(paper), keys=keys)


def test_a_retired_key_among_others_still_proves():
    log, paper = ending()
    assert judged(log, text_of(paper), keys={"keys": [None, invented.jwk(invented.STRANGER), *JWKS["keys"]]})


def test_proofs_documents_and_addresses_may_be_made_afresh():
    log, paper = ending()
    paper["log"]["size"] = 6
    paper["keys"] = paper["verify"] = "https://elsewhere.example"
    assert judged(log, text_of(paper))[0][0].endswith("signed by the portal")


LEFT_OUT = {
    "no evidence": lambda p: p.pop("evidence") and None,
    "evidence of null": altered("evidence", to=None),
    "an empty list of evidence": altered("evidence", to=[]),
    "a blank document": altered("evidence", 0, "document", to=""),
    "a document of null": altered("evidence", 0, "document", to=None),
    "no document": lambda p: p["evidence"][0].pop("document") and None,
    "no proof of the erasure": altered("log", "entries", 5, "proof", to=None),
    "no proof of the sending": altered("log", "entries", 1, "proof", to=None),
}


@pytest.mark.parametrize("change", LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_was_left_out_is_named_and_nothing_blank_passes(change):
    log, paper = ending()
    change(paper)
    lines = judged(log, text_of(paper))
    assert "but only in part" in lines[0][0]
    marks = {row[0] for row in lines}
    assert marks & {"  NOT PROVED", "  WITHOUT PROOF"}
    if paper.get("evidence") != ending()[1]["evidence"]:
        assert ("  NOT PROVED", "document", "FTDURU9001", "e-1") in lines


def test_a_certificate_names_each_member_once():
    log, paper = ending()
    text = text_of(paper)
    with pytest.raises(verify.Invalid, match="twice"):
        judged(log, text.replace('"reason":', '"reason": "expired", "reason":', 1))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-verify.SAFE, verify.SAFE) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    )
)
def test_canonical_json_is_that_of_rfc8785(value):
    assert verify.canonical(value).encode() == rfc8785.dumps(value)


def test_names_are_sorted_by_utf_16():
    value = {"\U0001f600": 1, "\ufb33": 2, "\u20ac": 3, "a": {"b": [], "": '\u2028\x7f\x1f"'}}
    assert verify.canonical(value).encode() == rfc8785.dumps(value)


OTHERS = {
    "a receipt": (invented.by(invented.PORTAL, typ="consent-receipt+jwt")({"jti": "x"}) + "\n", "a receipt"),
    "a certificate's signature": (ending()[1]["jws"], "the signature of a certificate alone"),
    "something else signed": (invented.by(invented.PORTAL, typ="secevent+jwt")({}), "neither"),
    "no header": ("a.b.c", "not"),
    "an empty header": ("e30.e30.AAAA", "neither"),
    "a header that is a list": ("W10.e30.AAAA", "neither"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "why"), OTHERS.values(), ids=OTHERS)
def test_what_is_neither_says_what_it_is(text, why):
    with pytest.raises(verify.Invalid, match=why):
        judged(three(), text)


def test_the_command_checks_a_certificate_with_keys_and_says_what_is_missing_without(tmp_path):
    log, paper = ending(invented.by(invented.PORTAL))
    paper = sealed_by(paper, invented.by(invented.PORTAL), iat=1)
    for name, text in (("paper", text_of(paper)), ("policy", log.policy), ("keys", json.dumps(JWKS))):
        (tmp_path / name).write_text(text, newline="", encoding="utf-8")
    arguments = [str(tmp_path / "paper"), str(tmp_path / "policy")]
    assert verify.main([*arguments, "--keys", str(tmp_path / "keys")], now=NOW) == 0
    assert verify.main(arguments, now=NOW) == 0
    (tmp_path / "paper").write_text(text_of(paper).replace("두루", "다른"), newline="", encoding="utf-8")
    assert verify.main(arguments, now=NOW) == 1


def test_a_reader_who_leaves_early_gets_no_traceback_and_the_verdict(grown, tmp_path):
    folder = grown.write(tmp_path / "copy")
    (tmp_path / "policy").write_text(grown.policy, newline="")
    script = str(settings.BASE_DIR / "verify.py")
    for names, code in ((["--log", str(folder), "policy"], 0), (["policy", "policy"], 1)):
        asked = subprocess.Popen(
            [sys.executable, "-I", "-u", script, *names],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert asked.stdout and asked.stderr
        asked.stdout.close()
        assert asked.stderr.read() == b"" and asked.wait(60) == code
        asked.stderr.close()


# --- a whole log ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grown() -> Log:
    log = Log()
    for n in range(600):
        log.add("channel.opened" if n % 3 else "key.added", **({"dig": str(n)} if n % 3 else {"kid": str(n)}))
    return log


def walked(log: Log, folder: Path, **more):
    return verify.walk(folder, verify.parse_policy(log.policy), NOW, **more)


def test_a_copy_of_the_log_is_recomputed_whole(grown, tmp_path, capsys):
    folder = grown.write(tmp_path / "copy")
    (tmp_path / "policy").write_text(grown.policy, newline="")
    (tmp_path / "old").write_text(grown.checkpoint(300), newline="")
    arguments = ["--log", str(folder), str(tmp_path / "policy"), "--since", str(tmp_path / "old")]
    assert verify.main(arguments, now=NOW) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"VALID {ORIGIN} size 600 ") and "continues the older" in printed[0]
    assert [one.split() for one in printed[1:]] == [["400", "channel.opened"], ["200", "key.added"]]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 599, 600])
def test_it_continues_every_older_checkpoint_and_no_other(grown, tmp_path, size):
    folder = grown.write(tmp_path)
    walked(grown, folder, since=grown.checkpoint(size))
    with pytest.raises(verify.Invalid, match="two histories"):
        walked(grown, folder, since=grown.checkpoint(size, root=b"\1" * 32))


def test_a_log_that_has_gone_back_is_refused(grown, tmp_path):
    folder, more = grown.write(tmp_path), copy.deepcopy(grown.raw)
    longer = Log()
    longer.raw, longer.shown = [*more, GOOD.encode()], [{}] * 601
    with pytest.raises(verify.Invalid, match="gone back"):
        walked(grown, folder, since=longer.checkpoint())


@pytest.mark.parametrize(
    "address",
    ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2", "tile/entries/000", "tile/entries/002.p/88", "checkpoint"],
)  # fmt: skip
def test_any_changed_short_or_missing_file_of_it_is_seen(grown, tmp_path, address):
    folder = grown.write(tmp_path)
    walked(grown, folder)
    path = folder / address
    whole = path.read_bytes()
    for changed in (
        whole[:40] + bytes([whole[40] ^ 1]) + whole[41:],
        whole[:-1] + bytes([whole[-1] ^ 1]),
        whole[:-1],
        b"",
    ):
        path.write_bytes(changed)
        with pytest.raises(verify.Invalid):
            walked(grown, folder)
    path.unlink()
    with pytest.raises((verify.Invalid, FileNotFoundError)):
        walked(grown, folder)


def test_an_entry_changed_in_all_tiles_alike_gives_another_root(grown, tmp_path):
    forged = Log()
    forged.raw, forged.shown = list(grown.raw), list(grown.shown)
    forged.raw[17] = GOOD.encode()
    folder = forged.write(tmp_path)
    (folder / "checkpoint").write_bytes(grown.checkpoint().encode())
    with pytest.raises(verify.Invalid, match="another root"):
        walked(grown, folder)


def test_a_mirror_may_hold_longer_tiles_than_its_checkpoint(grown, tmp_path):
    folder = grown.write(tmp_path)
    for size in (2, 300, 512, 599):
        (folder / "checkpoint").write_bytes(grown.checkpoint(size).encode())
        assert walked(grown, folder)[0].size == size


# --- receipts -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def promised(grown, tmp_path, settings):
    """`promised(**claims)` signs a receipt about entry 300 and answers what verify.py says of it."""
    settings.PORTAL_KEYS_DIR = tmp_path / "keys"
    folder = grown.write(tmp_path / "copy")
    entry = verify.parse_entry(grown.raw[300])

    def ask(*, now=NOW, change=lambda compact: compact, **claims):
        signed = signing.sign_receipt(
            {
                "iss": "https://consent.example.kr", "iat": SEEN - 1000, "jti": entry.id, "mmd": 300, "log": ORIGIN,
                "leaf": base64.b64encode(grown.leaves()[300]).decode(), "sd": sorted(grown.shown[300].values()), **claims,
            }
        )  # fmt: skip
        keys = json.loads(json.dumps(signing.public_jwks()))
        return verify.check_receipt(change(signed), keys, verify.parse_policy(grown.policy), folder, now)

    return ask


ABSENT = base64.b64encode(bytes(32)).decode()


def test_a_kept_promise_is_found_in_the_log(promised):
    checkpoint, index, entry, fields = promised()
    assert (checkpoint.size, index, entry.typ, fields["kid"]) == (600, 300, "key.added", "300")


def test_an_absent_leaf_is_misbehaviour_once_it_is_due_and_not_before(promised):
    with pytest.raises(verify.Invalid, match="PROOF OF MISBEHAVIOUR"):
        promised(leaf=ABSENT, iat=SEEN - 301)
    with pytest.raises(verify.Invalid, match="fetch a newer copy"):
        promised(leaf=ABSENT, iat=SEEN - 300, now=SEEN + 3600)
    with pytest.raises(verify.Invalid, match="not yet due"):
        promised(leaf=ABSENT, iat=SEEN, now=SEEN + 60)


def resigned(header: dict):
    def change(compact: str) -> str:
        _, payload, signature = compact.split(".")
        return f"{entries.b64(json.dumps(header).encode())}.{payload}.{signature}"

    return change


@pytest.mark.parametrize(
    "claims",
    [
        {"change": lambda jws: jws[:-2] + ("AA" if jws[-2:] != "AA" else "BA")},
        {"change": lambda jws: jws.rpartition(".")[0] + "."},
        {"change": lambda jws: jws.rpartition(".")[0]},
        {"change": lambda jws: jws + "="},
        {"change": resigned({"alg": "none", "typ": "consent-receipt+jwt"})},
        {"change": resigned({"alg": "HS256", "typ": "consent-receipt+jwt"})},
        {"change": resigned({"alg": "ES256", "typ": "secevent+jwt"})},
        {"change": resigned({"alg": "ES256", "typ": "consent-receipt+jwt", "kid": "nobody"})},
        {"jti": str(uuid.uuid4())},
        {"log": "log.example/2027"},
        {"leaf": "AAAA"},
        {"iat": "1"},
        {"iat": SEEN * 2},
        {"mmd": -1},
        {"sd": [disclosure(f'["{SALT}","kid","1"]')]},
        {"sd": [1]},
    ],
)
def test_a_receipt_that_is_not_one_is_refused(promised, claims):
    with pytest.raises(verify.Invalid) as refused:
        promised(**claims)
    assert "MISBEHAVIOUR" not in str(refused.value)


# --- our own log ------------------------------------------------------------------------------------------------------------


def test_what_the_portal_publishes_is_valid(db, now, tmp_path):
    write(300, now)
    Sequencer().run()
    cosigning.run(now=1_800_000_000)
    later = 1_800_000_060
    policy = proofs.policy_text()
    for entry in LedgerEntry.objects.order_by("created_at")[:3]:
        lines = verify.judge(proofs.tlog_proof(entry.event_id), policy, later)
        assert lines[0][0].startswith(f"VALID {settings.LEDGER_ORIGIN} size ")
        assert verify.parse_entry(bytes(entry.entry)).id == str(entry.event_id)
    exporting.export(tmp_path / "copy")
    checkpoint, counts, _ = verify.walk(tmp_path / "copy", verify.parse_policy(policy), later)
    assert sum(counts.values()) == checkpoint.size == LedgerEntry.objects.count()


def test_the_time_of_the_test_data_is_what_it_says():
    assert datetime.datetime.fromtimestamp(SEEN, datetime.UTC) > AT
    assert JTI != SBS and EVIDENCE.startswith("sha256:")


# --- the page ---------------------------------------------------------------------------------------------------------------


def posted(client, text: str | bytes, policy: str | None = None, **more):
    data = {"proof": SimpleUploadedFile("a.tlog-proof", text.encode() if isinstance(text, str) else text)}
    if policy is not None:
        data["policy"] = SimpleUploadedFile("policy.txt", policy.encode())
    return client.post("/verify/", data | more)


@pytest.fixture
def then(time_machine):
    """A moment after the witness of the invented log has seen it."""
    time_machine.move_to(datetime.datetime.fromtimestamp(NOW, datetime.UTC), tick=False)


def test_without_a_script_the_server_gives_the_verifiers_own_answer(client, db, then):
    log = three()
    answer = posted(client, log.proof(1), log.policy).content.decode()
    assert "맞아요. 기록에 있는 그대로예요." in answer and judged(log, log.proof(1))[0][0] in answer
    assert disclosures.names()["rsn"] in answer and "MD0001" in answer
    answer = posted(client, log.proof(1).replace("index 1", "index 0"), log.policy).content.decode()
    assert "맞지 않아요" in answer and "INVALID not in the tree" in answer
    assert "이 내용은 그 기록 안에 없어요." in answer


def test_the_answer_is_in_the_readers_language(client, db, then):
    log = three()
    client.cookies["django_language"] = "en"
    answer = client.post(
        "/verify/",
        {"proof": SimpleUploadedFile("a", log.proof(1).replace("\n3\n", "\n03\n").encode())},
        headers={"Accept-Language": "en"},
    ).content.decode()
    assert "Not right. Do not rely on this file." in answer and "INVALID" in answer


def test_what_a_file_says_is_only_text_on_the_page(client, db, then):
    log = Log()
    log.add("consent.withdrawn", rsn="<script>alert(1)</script>\u202e")
    answer = posted(client, log.proof(0), log.policy).content.decode()
    assert "<script>alert" not in answer and "&lt;script&gt;alert" in answer and "\u202e" not in answer


def test_the_portals_own_policy_is_used_where_the_visitor_has_none(client, db, now, time_machine):
    write(3, now)
    Sequencer().run()
    time_machine.move_to(datetime.datetime.fromtimestamp(1_800_000_060, datetime.UTC), tick=False)
    cosigning.run(now=1_800_000_000)
    proof = proofs.tlog_proof(LedgerEntry.objects.earliest("created_at").event_id)
    assert f"VALID {settings.LEDGER_ORIGIN}" in posted(client, proof).content.decode()
    assert "INVALID the log" in posted(client, proof, three().policy).content.decode()
    shown = client.get("/verify/policy.txt")
    assert shown.content.decode() == proofs.policy_text() and shown["Content-Type"].startswith("text/plain")
    assert proofs.policy_text().split("\n")[0] in client.get("/verify/").content.decode()


def test_a_portal_without_a_policy_says_so(client, db):
    assert client.get("/verify/policy.txt").status_code == 404
    page = client.get("/verify/?from=qr")
    assert page.status_code == 200 and "아직 기준 파일이 없어요" in page.content.decode()
    assert "INVALID the policy needs a log" in posted(client, three().proof(1)).content.decode()


def test_the_program_is_given_away_as_it_is(client, db):
    given = client.get("/verify/verify.py")
    assert given.content == (settings.BASE_DIR / "verify.py").read_bytes()
    assert given["Content-Type"].startswith("text/x-python") and "verify.py" in given["Content-Disposition"]


def test_files_that_are_none_are_refused_in_words(client, db):
    assert client.post("/verify/", {}).status_code == 400
    assert posted(client, b"x" * 1_000_001).status_code == 400
    assert posted(client, b"x" * 2_000_000).status_code == 413
    assert posted(client, b"x", person="1").status_code == 400
    for content in (b"", b"\xff\xfe", b"\x00" * 1000, b"{" * 5000):
        answer = posted(client, content, three().policy)
        assert answer.status_code == 200 and "INVALID" in answer.content.decode()


def test_checking_asks_the_database_nothing_about_the_file(client, db, django_assert_max_num_queries):
    log = three()
    with django_assert_max_num_queries(4):  # the session, for the form's token
        posted(client, log.proof(1), log.policy)
