"""The witness: every status of tlog-witness, one history under races and kills, and the real command over HTTP."""

import base64
import contextlib
import hashlib
import http.client
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management import CommandError, call_command
from django.db import transaction
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from consents import ledger
from consents.actors import Actor
from consents.ledger import Fact, cosigning, merkle, notes, proofs, signer, witness
from consents.ledger.sequencer import Sequencer
from consents.models import SignedCheckpoint

ROOT = Path(__file__).resolve().parents[3]
NAME = "fss.example.kr/witness/1"
NOW = 1_800_000_000


class Log:
    """A log of random or given leaves that signs whatever it is told to."""

    def __init__(self, leaves, origin="log.example.kr/1", key=None):
        self.origin, self.key = origin, key or Ed25519PrivateKey.generate()
        self.leaves = [merkle.leaf_hash(leaf) for leaf in leaves]

    @property
    def vkey(self):
        return str(notes.Key.of(self.key, name=self.origin, kind=notes.ED25519))

    def nodes(self, level, index):
        return merkle.root(self.leaves[index << level : index + 1 << level])

    def note(self, size, root=None):
        text = notes.Checkpoint(self.origin, size, root or merkle.root(self.leaves[:size])).text
        return str(notes.Note(text, (notes.note_signature(self.key, name=self.origin, text=text),)))

    def request(self, old, size, *, root=None, proof=None):
        if proof is None:
            proof = merkle.consistency_proof(self.nodes, old, size) if old <= size else []
        return f"old {old}\n{notes.lines_of(proof)}\n{self.note(size, root)}".encode()


def leaves(count, word="entry"):
    return [f"{word} {number}".encode() for number in range(count)]


@pytest.fixture
def log():
    return Log(leaves(40))


def made(folder, *vkeys, name=NAME, url=""):
    witness.make(folder, name=name, logs=vkeys, url=url)
    return witness.Witness(folder)


@pytest.fixture
def judge(tmp_path, log):
    return made(tmp_path / "w", log.vkey)


def seen(judge, request: bytes, answer) -> int:
    """When the answer's cosignature says the checkpoint was seen; it must verify."""
    note = notes.Note.parse(request.partition(b"\n\n")[2])
    lines = answer.body.decode().splitlines()
    both = notes.Note(note.text, tuple(notes.Signature.parse(line) for line in lines))
    at = notes.cosigned_at(both, judge.key)
    assert at is not None
    return at


# --- published vectors ---------------------------------------------------------------------------------------------------

# V16: the sigsum test log of torchwood's litewitness. Leaf hashes 2a‖i‖00…; sizes 1, 3 and 5.
SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
ROOTS = {
    1: "KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    3: "RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=",
    5: "QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=",
}
SIGNED = {
    1: "UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=",
    3: "UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=",
    5: "UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=",
}
L1, L2, L3, L4 = (base64.b64encode(bytes([42, number]) + bytes(30)).decode() for number in (1, 2, 3, 4))
L2_OTHER = "KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABA="
N23 = "+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI="
N01 = "wgiIFdZfYNv6WU1OllBKsWnLYIS/DBMqt8Uh/S4OukE="
FALSE = SIGNED[3].replace("6go=", "6gx=")  # as published: another last byte, and not spelt canonically
SEQUENCE = [
    ("the first, size 1", 0, [], 1, {}, 200, None),
    ("a false signature", 1, [L1, L2], 3, {"signed": FALSE}, 403, None),
    ("an unknown log", 1, [L1, L2], 3, {"origin": SIGSUM[:-1] + "3"}, 404, None),
    ("no proof", 1, [], 3, {}, 422, None),
    ("another proof", 1, [L1, L2_OTHER], 3, {}, 422, None),
    ("size 3", 1, [L1, L2], 3, {}, 200, None),
    ("from a size passed", 1, [L1, N23, L4], 5, {}, 409, b"3\n"),
    ("size 5", 3, [L2, L3, N01, L4], 5, {}, 200, None),
    ("from nothing", 0, [], 5, {}, 409, b"5\n"),
]


def test_v16_the_nine_requests_of_the_sigsum_log(tmp_path):
    hashes = [bytes([42, number]) + bytes(30) for number in range(5)]
    assert {size: notes.b64(merkle.root(hashes[:size])) for size in ROOTS} == ROOTS
    judge = made(tmp_path / "w", str(notes.Key(SIGSUM, notes.ED25519, SIGSUM_KEY)))
    answers = []
    for name, old, proof, size, other, status, body in SEQUENCE:
        origin = other.get("origin", SIGSUM)
        lines = "".join(f"{line}\n" for line in proof)
        signed = other.get("signed", SIGNED[size])
        request = f"old {old}\n{lines}\n{origin}\n{size}\n{ROOTS[size]}\n\n— {origin} {signed}\n".encode()
        answer = judge.add_checkpoint(request, NOW)
        answers.append((name, answer.status, status))
        if status == 200:
            assert seen(judge, request, answer) == NOW
        if status == 409:
            assert (answer.body, answer.content_type) == (body, "text/x.tlog.size")
    assert [(name, got) for name, got, _ in answers] == [(name, wanted) for name, _, wanted in answers]


def test_the_worked_example_byte_for_byte(tmp_path):
    """Both cosignatures of the example come out as printed, from its seeds and times."""
    example = json.loads((ROOT / "tests" / "vectors" / "consent_ledger_example.json").read_text())
    folder = tmp_path / "w"
    made(folder, example["log_vkey"])
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(example["witness_seed_hex"]))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "policy.txt").write_text(example["policy"])
    judge = witness.Witness(folder)
    assert str(judge.key) == example["witness_vkey"]
    whole = {5: example["checkpoint_5"], 7: example["checkpoint_7"]}
    at = {size: notes.cosigned_at(notes.Note.parse(note), judge.key) or 0 for size, note in whole.items()}
    body, cosigned = {}, {}
    for size, note in whole.items():
        lines = note.splitlines(keepends=True)
        body[size], cosigned[size] = "".join(lines[:-1]), lines[-1].encode()
    answer = judge.add_checkpoint(f"old 0\n\n{body[5]}".encode(), at[5])
    assert (answer.status, answer.body) == (200, cosigned[5])
    answer = judge.add_checkpoint(f"old 0\n\n{body[7]}".encode(), at[7])
    assert (answer.status, answer.body, answer.content_type) == (409, b"5\n", "text/x.tlog.size")
    request = example["add_checkpoint_request_5_to_7"].encode()
    altered = request.replace(b"\n7\n", b"\n8\n")
    assert judge.add_checkpoint(altered, at[7]).status == 403
    answer = judge.add_checkpoint(request, at[7])
    assert (answer.status, answer.body) == (200, cosigned[7])
    origin = hashlib.sha256(example["origin"].encode()).hexdigest()
    assert origin == "33d0d5e20f898824db3c43c3840b63daca8ed59e025bba4df856a02ce5f77fde"
    assert judge.last(origin) == whole[7]
    assert judge.add_checkpoint(f"old 5\n\n{body[5]}".encode(), at[7]).body == b"7\n"


# --- the table of statuses -----------------------------------------------------------------------------------------------


def test_each_malformed_request_is_400(judge, log):
    good = log.request(0, 7).decode()
    hash_ = notes.b64(bytes(32))
    note = log.note(7)
    bad = {
        "nothing": "",
        "no old": good.removeprefix("old 0\n"),
        "sign": good.replace("old 0", "old +0"),
        "leading zero": good.replace("old 0", "old 00"),
        "empty": good.replace("old 0", "old "),
        "other digits": good.replace("old 0", "old １"),
        "two spaces": good.replace("old 0", "old  0"),
        "carriage return": good.replace("old 0\n", "old 0\r\n"),
        "beyond 63 bits": good.replace("old 0", f"old {2**63}"),
        "short hash": f"old 0\n{notes.b64(bytes(31))}\n\n{note}",
        "not base64": f"old 0\n*\n\n{note}",
        "not canonical": f"old 0\n{hash_[:-2]}B=\n\n{note}",
        "64 hashes": "old 0\n" + f"{hash_}\n" * 64 + f"\n{note}",
        "no checkpoint": "old 0\n\n",
        "no signature": good.rpartition("\n\n")[0] + "\n",
        "no last line feed": good[:-1],
        "extension lines": good.replace(good.split("\n")[4], good.split("\n")[4] + "\nmore"),
        "size": good.replace("\n7\n", "\n07\n"),
        "tab": good.replace(log.origin, log.origin + "\t"),
        "larger than may be": good + "x" * witness.LARGEST_BODY,
    }
    assert {
        name: judge.add_checkpoint(text.encode(), NOW).status for name, text in bad.items()
    } == dict.fromkeys(bad, 400)
    assert judge.add_checkpoint(good.encode() + b"\xff", NOW).status == 400
    # 63 hashes are read, and judged
    assert judge.add_checkpoint(("old 0\n" + f"{hash_}\n" * 63 + f"\n{note}").encode(), NOW).status == 422
    # signed, and the old size beyond it
    assert judge.add_checkpoint(log.request(8, 7), NOW).status == 400
    assert judge.add_checkpoint(good.encode(), NOW).status == 200


def test_whose_signature_counts(judge, log, tmp_path):
    stranger = Log(leaves(40), origin="other.example.kr/1")
    assert judge.add_checkpoint(stranger.request(0, 5), NOW).status == 404
    thief = Log(leaves(40))  # the same origin, another key: unknown, so ignored, so nobody has signed
    assert judge.add_checkpoint(thief.request(0, 5), NOW).status == 403
    extra = notes.Note.parse(thief.note(5)).signatures[0]
    assert judge.add_checkpoint(log.request(0, 5) + f"{extra}\n".encode(), NOW).status == 200
    # a trusted signature that is false refuses, though a true one stands beside it
    false = notes.Note.parse(log.note(6)).signatures[0]
    assert judge.add_checkpoint(log.request(5, 5) + f"{false}\n".encode(), NOW).status == 403
    # unknown and misspelt: ignored; the log's own misspelt: false
    line = str(extra)
    assert line.endswith("=") and not line.endswith("==")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def other(line):
        return f"{line[:-2]}{alphabet[alphabet.index(line[-2]) + 1]}=".encode() + b"\n"

    assert judge.add_checkpoint(log.request(5, 5) + other(line), NOW).status == 200
    request = log.request(5, 5).decode().rstrip("\n")
    assert judge.add_checkpoint(other(request), NOW).status == 403
    # old size and proof are not looked at before the signature is
    assert judge.add_checkpoint(thief.request(9, 5), NOW).status == 403


def test_the_sizes_must_meet(judge, log):
    assert judge.add_checkpoint(log.request(5, 9), NOW).body == b"0\n"  # never seen: zero
    assert judge.add_checkpoint(log.request(0, 5), NOW).status == 200
    for old, size in ((0, 5), (0, 9), (4, 9), (6, 9), (4, 5), (3, 4)):
        answer = judge.add_checkpoint(log.request(old, size), NOW)
        assert (answer.status, answer.body, answer.content_type) == (409, b"5\n", "text/x.tlog.size"), (
            old,
            size,
        )
    for size in range(5, 40):
        answer = judge.add_checkpoint(log.request(max(5, size - 1), size), NOW)
        assert answer.status == 200, size


def test_the_same_checkpoint_again_is_cosigned_afresh_and_time_never_goes_back(judge, log):
    times = []
    for at in (NOW, NOW + 60, NOW - 3600, NOW + 61):
        answer = judge.add_checkpoint(request := log.request(0 if at == NOW else 5, 5), at)
        assert answer.status == 200
        times.append(seen(judge, request, answer))
    assert times == [NOW, NOW + 60, NOW + 60, NOW + 61]
    answer = judge.add_checkpoint(request := log.request(5, 9), NOW)  # nor for the next checkpoint
    assert seen(judge, request, answer) == NOW + 61


def test_what_cannot_be_shown_to_continue_is_422_and_kept(judge, log):
    assert (
        judge.add_checkpoint(log.request(0, 11, proof=[bytes(32)]), NOW).status == 422
    )  # old 0 with a proof
    assert judge.add_checkpoint(log.request(0, 0, root=bytes(32)), NOW).status == 422  # another empty tree
    assert judge.add_checkpoint(log.request(0, 0), NOW).status == 200
    assert judge.add_checkpoint(log.request(0, 7), NOW).status == 200
    before = judge.evidence()
    forged = Log([*leaves(3), b"forged", *leaves(30)[4:]], key=log.key)
    for request in (
        forged.request(7, 7),  # the same size, another root
        forged.request(7, 9),
        log.request(7, 9, proof=[]),
        log.request(7, 9, proof=merkle.consistency_proof(log.nodes, 7, 9)[::-1]),
        log.request(7, 7, proof=[bytes(32)]),
    ):
        assert judge.add_checkpoint(request, NOW).status == 422
        assert judge.add_checkpoint(request, NOW + 1).status == 422
    kept = [row for row in judge.evidence() if row not in before]
    assert sorted((kind, size) for _, size, _, kind, _, _ in kept) == [
        ("fork", 7),
        ("proof", 9),
        ("proof", 9),
    ]
    (fork,) = [row for row in kept if row[3] == "fork"]
    _origin, _size, root, _kind, request, against = fork
    assert request == forged.request(7, 7) and root == merkle.root(forged.leaves[:7]).hex()
    # The evidence stands by itself: two notes of one log and one size with two roots.
    key = notes.Key.parse(log.vkey)
    pair = [notes.Note.parse(request.partition(b"\n\n")[2]), notes.Note.parse(against)]
    assert all(notes.verified(note, key) for note in pair)
    one, two = (notes.Checkpoint.parse(note.text) for note in pair)
    assert one.size == two.size and one.root != two.root
    assert judge.add_checkpoint(log.request(7, 9), NOW).status == 200  # and the honest log goes on


def test_a_fork_is_kept_whatever_old_size_it_comes_with(judge, log):
    judge.add_checkpoint(log.request(0, 7), NOW)
    forged = Log(leaves(9, "other"), key=log.key)
    assert judge.add_checkpoint(forged.request(0, 7), NOW).status == 409
    assert [row[3] for row in judge.evidence()] == ["fork"]


def test_a_forged_tree_is_never_cosigned_before_or_after(judge, log):
    """No size from which a tree with one changed entry could be slipped in."""
    judge.add_checkpoint(log.request(0, 20), NOW)
    for changed in range(20):
        entries = leaves(40)
        entries[changed] = b"changed"
        forged = Log(entries, key=log.key)
        assert {judge.add_checkpoint(forged.request(20, size), NOW).status for size in range(20, 40)} == {422}


def test_each_log_has_its_own_history(tmp_path, log):
    other = Log(leaves(9, "b"), origin="b.example.kr/1")
    judge = made(tmp_path / "w", log.vkey, other.vkey)
    assert judge.add_checkpoint(log.request(0, 30), NOW).status == 200
    assert judge.add_checkpoint(other.request(0, 9), NOW).status == 200
    for one, size in ((log, 30), (other, 9)):
        stored = notes.Note.parse(judge.last(hashlib.sha256(one.origin.encode()).hexdigest()))
        assert notes.opened(stored, judge.policy())[0].size == size


def test_a_witness_from_an_old_copy_is_behind_and_catches_up(tmp_path, log):
    folder, copy = tmp_path / "w", tmp_path / "copy"
    judge = made(folder, log.vkey)
    judge.add_checkpoint(log.request(0, 5), NOW)
    shutil.copytree(folder, copy)
    judge.add_checkpoint(log.request(5, 30), NOW)
    shutil.copyfile(copy / "witness.db", folder / "witness.db")
    back = witness.Witness(folder)
    answer = back.add_checkpoint(log.request(30, 31), NOW)
    assert (answer.status, answer.body) == (409, b"5\n")
    assert back.add_checkpoint(log.request(5, 31), NOW).status == 200


def test_a_store_that_cannot_be_used_is_503_and_no_cosignature(judge, log, tmp_path):
    with sqlite3.connect(tmp_path / "w" / "witness.db") as store:
        store.execute("ALTER TABLE cosigned RENAME TO lost")
    store.close()
    assert judge.add_checkpoint(log.request(0, 5), NOW).status == 503


# --- any bytes -----------------------------------------------------------------------------------------------------------

LINES = st.sampled_from(
    [
        "old 0",
        "old 7",
        "old",
        "",
        "",
        "log.example.kr/1",
        "7",
        "0",
        L1,
        L2,
        f"— log.example.kr/1 {SIGNED[1]}",
        "— a b",
    ]
)
NOISE = st.one_of(
    st.binary(max_size=300),
    st.lists(LINES, max_size=12).map(lambda lines: "\n".join(lines).encode()),
    st.tuples(st.integers(0, 400), st.binary(max_size=3)),
)


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    log = Log(leaves(40))
    judge = made(tmp_path_factory.mktemp("fuzz") / "w", log.vkey)
    return judge, log, log.request(0, 7)


@examples(max_examples=400, deadline=None)
@given(noise=NOISE)
def test_any_bytes_get_a_status_and_only_the_signed_ones_a_cosignature(fuzzed, noise):
    judge, _log, good = fuzzed
    if isinstance(noise, tuple):  # a good request with a few bytes of it replaced
        place, bytes_ = noise
        place = place % len(good)
        noise = good[:place] + bytes_ + good[place + len(bytes_) :]
    answer = judge.add_checkpoint(noise, NOW)
    if noise == good:
        assert answer.status in (200, 409)
    else:
        assert answer.status in (400, 403, 404, 409, 422)
    kept = judge.last(hashlib.sha256(b"log.example.kr/1").hexdigest())
    assert kept is None or notes.Note.parse(kept).text == notes.Note.parse(good.partition(b"\n\n")[2]).text


# --- races and kills -----------------------------------------------------------------------------------------------------


def climb(judge, log, won):
    """Push this fork as far as it goes, from wherever the witness says it is."""
    old = 0
    for size in range(1, len(log.leaves) + 1):
        for _ in range(50):
            request = log.request(min(old, size), size)
            answer = judge.add_checkpoint(request, NOW)
            if answer.status == 200:
                won.append((size, merkle.root(log.leaves[:size]).hex()))
                old = size
            if answer.status != 409:
                break
            old = int(answer.body)
            if old > size:
                break


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_of_many_forks_in_threads_and_processes_one_history_is_cosigned(tmp_path):
    key = Ed25519PrivateKey.generate()
    forks = [Log(leaves(12, f"fork {number}"), key=key) for number in range(32)]
    folder = tmp_path / "w"
    made(folder, forks[0].vkey)
    context = multiprocessing.get_context("fork")

    def racer(mine, gate, out):
        won: list[tuple[int, str]] = []
        judge = witness.Witness(folder)
        gate.wait(30)
        threads = [threading.Thread(target=climb, args=(judge, fork, won)) for fork in mine]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        out.send(won)
        os._exit(0)

    gate, processes = context.Barrier(4), []
    for start in range(0, 32, 8):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=racer, args=(forks[start : start + 8], gate, theirs))
        process.start()
        theirs.close()
        processes.append((process, ours))
    won: list[tuple[int, str]] = []
    for process, ours in processes:
        assert ours.poll(120)
        won += ours.recv()
        process.join(30)
        ours.close()
    histories = [{(n, merkle.root(fork.leaves[:n]).hex()) for n in range(1, 13)} for fork in forks]
    (one,) = [history for history in histories if history & set(won)]
    assert set(won) == one and max(size for size, _ in won) == 12


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_line_nothing_is_answered_that_is_not_stored(tmp_path, log):
    """kill -9 at the first, second, third … line that the witness runs; the parent sees whether an answer came out."""
    folder = tmp_path / "w"
    judge = made(folder, log.vkey)
    judge.add_checkpoint(log.request(0, 5), NOW)
    clean = (folder / "witness.db").read_bytes()
    origin, request = hashlib.sha256(log.origin.encode()).hexdigest(), log.request(5, 9)
    context, line, outcomes = multiprocessing.get_context("fork"), 0, set()

    def victim(line, out):
        left = line

        def trace(frame, event, _argument):
            nonlocal left
            if frame.f_code.co_filename != witness.__file__:
                return None
            left -= event == "line"
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        sys.settrace(trace)
        answer = judge.add_checkpoint(request, NOW)
        sys.settrace(None)
        out.send_bytes(answer.body)
        os.kill(os.getpid(), signal.SIGKILL)

    while (True, True) not in outcomes:
        for leftover in folder.glob("witness.db-*"):
            leftover.unlink()
        (folder / "witness.db").write_bytes(clean)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=victim, args=(line, theirs))
        process.start()
        theirs.close()
        try:
            answer = ours.recv_bytes()
        except EOFError:
            answer = b""
        process.join(30)
        ours.close()
        size = notes.Checkpoint.parse(notes.Note.parse(judge.last(origin)).text).size
        assert size in (5, 9)
        if answer:
            assert size == 9, f"answered and not stored, killed at line {line}"
        outcomes.add((bool(answer), size == 9))
        after = judge.add_checkpoint(log.request(size, 11), NOW)  # and it works on
        assert after.status == 200
        line += 1
    assert outcomes == {(False, False), (False, True), (True, True)} and line > 40


# --- the command ---------------------------------------------------------------------------------------------------------


def run_init(folder, *logs, name=NAME, url=""):
    out, err = io.StringIO(), io.StringIO()
    call_command(
        "witness", "init", dir=str(folder), name=name, log=list(logs), url=url, stdout=out, stderr=err
    )
    return out.getvalue().strip(), err.getvalue()


def test_init_makes_a_witness_once_and_adds_logs(tmp_path, log):
    folder = tmp_path / "deep" / "w"
    vkey, said = run_init(folder, log.vkey, url="http://127.0.0.1:9999")
    key = notes.Key.parse(vkey)
    assert key.kind == notes.COSIGNATURE and key.name == NAME and "made" in said
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    assert (folder / "witness.db").stat().st_mode & 0o777 == 0o600
    text = (folder / "policy.txt").read_text()
    assert text == f"log {log.vkey}\nwitness fss1 {vkey} http://127.0.0.1:9999\nquorum fss1\n"
    files = {path: path.read_bytes() for path in folder.iterdir()}
    again, said = run_init(folder, log.vkey, url="http://127.0.0.1:9999")
    assert again == vkey and "nothing changed" in said
    assert files == {path: path.read_bytes() for path in folder.iterdir()}
    other = Log(leaves(3), origin="b.example.kr/1")
    judge = witness.Witness(folder)
    assert judge.add_checkpoint(other.request(0, 3), NOW).status == 404
    again, said = run_init(folder, other.vkey)
    assert again == vkey and "log" in said
    assert judge.add_checkpoint(other.request(0, 3), NOW).status == 200  # one that runs knows it too
    assert judge.add_checkpoint(log.request(0, 3), NOW).status == 200
    run_init(folder, url="http://127.0.0.1:9998")
    assert judge.policy().witnesses["fss1"].url == "http://127.0.0.1:9998"
    assert len(judge.policy().logs) == 2


def test_init_and_serve_refuse_with_words(tmp_path, log):
    folder = tmp_path / "w"
    with pytest.raises(CommandError, match="--log"):
        run_init(folder)
    with pytest.raises(CommandError, match="space"):
        run_init(folder, log.vkey, name="two words")
    with pytest.raises(CommandError, match="verifier key"):
        run_init(folder, "nonsense")
    with pytest.raises(CommandError, match="http"):
        run_init(folder, log.vkey, url="ftp://x")
    assert not (folder / "key.pem").exists()
    run_init(folder, log.vkey)
    with pytest.raises(CommandError, match="names no witness"):
        run_init(folder, log.vkey, name="another.example.kr")
    (folder / "witness.db").unlink()  # a witness that has forgotten
    with pytest.raises(CommandError, match="forgotten"):
        run_init(folder, log.vkey)
    with pytest.raises(CommandError, match="witness init"):
        call_command("witness", "serve", dir=str(tmp_path / "none"))


def test_a_memory_without_its_key_makes_no_second_witness(tmp_path, log):
    made(tmp_path / "w", log.vkey).add_checkpoint(log.request(0, 3), NOW)
    (tmp_path / "w" / "key.pem").unlink()
    with pytest.raises(witness.Unavailable, match="bring the key back"):
        witness.make(tmp_path / "w", name=NAME, logs=[log.vkey])


# manage.py with less patience, for the test that waits for its end.
IMPATIENT = """
import os, sys
import django, manage
from config import embedded
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
embedded.pretend()
django.setup()
from consents.management.commands import witness
witness.PATIENCE = 2.0
manage.main(sys.argv)
"""


@contextlib.contextmanager
def served(folder, tmp_path, program=("manage.py",)):
    """The real command in a process of its own, without anything of the portal in its environment."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ} | {
        "PORTAL_STATE_DIR": str(tmp_path / "state")
    }
    process = subprocess.Popen(
        [sys.executable, *program, "witness", "serve", "--dir", str(folder), "--port", "0"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout and process.stderr
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found, line + process.stderr.read()
        yield int(found[1]), process
    finally:
        process.kill()
        process.communicate()


def ask(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def test_over_http(tmp_path, log):
    judge = made(tmp_path / "w", log.vkey)
    origin = hashlib.sha256(log.origin.encode()).hexdigest()
    with served(tmp_path / "w", tmp_path) as (port, process):
        assert ask(port, "GET", "/healthz")[:2] == (200, b"ok\n")
        assert str(judge.key).encode() in ask(port, "GET", "/")[1]
        assert ask(port, "GET", f"/{origin}/checkpoint")[0] == 404
        status, body, headers = ask(port, "POST", "/add-checkpoint", log.request(0, 5))
        assert status == 200 and headers["Content-Type"] == "text/plain; charset=utf-8"
        at = seen(judge, log.request(0, 5), witness.Answer(200, body))
        assert abs(at - time.time()) < 30
        status, note, headers = ask(port, "GET", f"/{origin}/checkpoint")
        assert (status, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert note == log.note(5).encode() + body
        status, body, headers = ask(port, "POST", "/add-checkpoint", log.request(0, 7))
        assert (status, body, headers["Content-Type"]) == (409, b"5\n", "text/x.tlog.size")
        for wrong, status in ((b"", 400), (log.request(5, 9, proof=[]), 422)):
            assert ask(port, "POST", "/add-checkpoint", wrong)[0] == status
        assert ask(port, "POST", "/add-checkpoint", b"x" * (witness.LARGEST_BODY + 1))[0] == 413
        status, _, headers = ask(port, "GET", "/add-checkpoint")
        assert status == 405 and headers["Allow"] == "POST"
        assert ask(port, "POST", f"/{origin}/checkpoint", b"")[0] == 405
        for path in (
            "/nothing",
            f"/{origin.upper()}/checkpoint",
            "/../key.pem",
            "/%2e%2e/key.pem",
            "/witness.db",
        ):
            assert ask(port, "GET", path)[0] == 404, path
        # keep-alive, and bytes that are no HTTP
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        for old, size in ((5, 6), (6, 8)):
            connection.request("POST", "/add-checkpoint", log.request(old, size))
            response = connection.getresponse()
            assert (response.status, response.read() != b"") == (200, True)
        connection.close()
        with socket.create_connection(("127.0.0.1", port), 5) as raw:
            raw.sendall(b"\x00\xff nonsense\r\n\r\n")
            assert b" 400 " in raw.recv(1000).split(b"\r\n")[0]
        process.terminate()
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_who_says_nothing_or_half_is_hung_up_on(tmp_path, log):
    made(tmp_path / "w", log.vkey)
    with served(tmp_path / "w", tmp_path, program=("-c", IMPATIENT)) as (port, _process):
        silent, headers, half = (socket.create_connection(("127.0.0.1", port), 20) for _ in range(3))
        headers.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\n")
        half.sendall(b"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\nold 0\n")
        begun = time.monotonic()
        assert silent.recv(1000) == b"" and headers.recv(1000) == b""
        assert b" 408 " in half.recv(1000)
        assert time.monotonic() - begun < 9
        for connection in (silent, headers, half):
            connection.close()


def test_kill_9_of_the_server_loses_nothing_that_was_answered(tmp_path, log):
    folder = tmp_path / "w"
    judge = made(folder, log.vkey)
    origin = hashlib.sha256(log.origin.encode()).hexdigest()
    for delay in (0.0, 0.013, 0.05):
        answered = 0
        with served(folder, tmp_path) as (port, process):
            note = judge.last(origin)
            size = notes.Checkpoint.parse(notes.Note.parse(note).text).size if note else 0
            killer = threading.Timer(delay, process.kill)
            killer.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                while size < 40:
                    status = ask(port, "POST", "/add-checkpoint", log.request(size, size + 1))[0]
                    assert status == 200
                    size = answered = size + 1
            killer.join()
        note = judge.last(origin)
        kept = notes.Checkpoint.parse(notes.Note.parse(note).text).size if note else 0
        assert kept >= answered


def test_f10_the_portal_and_a_witness_that_is_down_behind_and_ahead(db, now, settings, tmp_path):
    """The log's own jobs against the real witness: published only with its cosignature, whatever it has been through."""
    folder, copy = tmp_path / "w", tmp_path / "copy"

    def write(count):
        with transaction.atomic():
            ledger.append(
                [Fact("channel.opened", fields={"dig": f"{n}"}) for n in range(count)],
                by=Actor.system("test"), at=now,
            )  # fmt: skip
        return Sequencer().run()

    def submit():
        return cosigning.run(now=int(time.time()))

    write(3)
    size = SignedCheckpoint.objects.latest("tree_size").tree_size
    key = signer.make(settings.SIGNER_DIR, settings.LEDGER_ORIGIN)
    made(folder, str(key), url="http://127.0.0.1:9")
    settings.WITNESS_URL = "http://127.0.0.1:9"
    settings.LEDGER_DIR.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "policy.txt", settings.LEDGER_POLICY)
    down = submit()  # nobody listens: nothing is published, and the log has grown all the same
    assert (down.published, list(down.troubles), proofs.published()) == (0, ["fss1"], None)
    with served(folder, tmp_path) as (port, _process):
        settings.WITNESS_URL = f"http://127.0.0.1:{port}"
        made(folder, url=settings.WITNESS_URL)
        shutil.copyfile(folder / "policy.txt", settings.LEDGER_POLICY)
        assert submit().published == size
        shutil.copytree(folder, copy)
        write(300)
        assert submit().published == size + 300
        # Restored from its old copy it is behind: it gets the proof from where it is.
        shutil.copyfile(copy / "witness.db", folder / "witness.db")
        write(2)
        report = submit()
        assert (report.published, report.troubles) == (size + 302, {})
        shown = proofs.published()
        assert shown is not None and shown.checkpoint.size == size + 302
        # It has seen more than the portal has: stop, and say so.
        origin = settings.LEDGER_ORIGIN
        with sqlite3.connect(folder / "witness.db") as store:
            store.execute("UPDATE cosigned SET size = ? WHERE origin = ?", (size + 999, origin))
        store.close()
        write(1)
        report = submit()
        shown = proofs.published()
        assert report.ahead and shown is not None and shown.checkpoint.size == size + 302
