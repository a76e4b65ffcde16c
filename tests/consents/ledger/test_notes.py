"""Signed notes, checkpoints, cosignatures, policies and proof files, as our own modules read and write them."""

import base64
import dataclasses

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from consents.ledger import merkle, notes
from tests.consents.ledger.invented import ORIGIN, SEEN, Log, key
from tests.consents.ledger.test_merkle import flips


def log() -> Log:
    made = Log()
    for reason in "abc":
        made.add("consent.withdrawn", rsn=reason)
    return made


LOG = log()
NOTE = LOG.checkpoint()
POLICY = notes.Policy.parse(LOG.policy)


def opened(text: str):
    return notes.opened(notes.Note.parse(text), POLICY)


def test_what_was_written_is_read():
    checkpoint, seen = opened(NOTE)
    assert (checkpoint.origin, checkpoint.size, seen) == (ORIGIN, 3, {"w1": SEEN})
    assert str(notes.Note.parse(NOTE)) == NOTE and checkpoint.text == notes.Note.parse(NOTE).text
    proof = LOG.proof(1)
    assert str(notes.Proof.parse(proof)) == proof
    for one in (*POLICY.logs, POLICY.witnesses["w1"].key):
        assert notes.Key.parse(str(one)) == one


@pytest.mark.parametrize(
    "text",
    ["+1", "01", "1_0", "１", " 1", "1 ", "-1", "", "1.0", "1e3", "0x1", str(2**63), "9" * 20, "٣", "1\n"],
)
def test_a_number_has_one_spelling(text):
    with pytest.raises(notes.BadNote):
        notes.number(text)


def test_numbers_reach_from_nothing_to_63_bits():
    assert [notes.number(text) for text in ("0", "7", str(2**63 - 1))] == [0, 7, 2**63 - 1]


@pytest.mark.parametrize(
    "text", ["AA", "AA=", "AB==", "A===", "AAA", " AAAA", "AAAA\n", "A-_A", "AAAA====", "ＡAAA", "AAAAA"]
)
def test_base64_has_one_spelling(text):
    with pytest.raises(notes.BadNote):
        notes.unb64(text)


@given(st.binary(max_size=80))
def test_base64_comes_back(data):
    assert notes.unb64(base64.b64encode(data).decode()) == data


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_hash_has_32_bytes(length):
    with pytest.raises(notes.BadNote):
        notes.hash_of(base64.b64encode(bytes(length)).decode())


@pytest.mark.parametrize(
    "body",
    [
        "", "\n", f"{ORIGIN}\n3\n", f"{ORIGIN}\n3\nAAAA\n", f"\n3\n{'A' * 43}=\n", f"a b\n3\n{'A' * 43}=\n", f"a+b\n3\n{'A' * 43}=\n",
        f"{ORIGIN}\n03\n{'A' * 43}=\n", f"{ORIGIN}\n3\n{'A' * 43}=", f"{ORIGIN}\n3\n{'A' * 43}=\nextension\n", f"{ORIGIN}\n3\n{'A' * 42}B=\n",
        f"{ORIGIN}\r\n3\r\n{'A' * 43}=\r\n",
    ],
)  # fmt: skip
def test_a_checkpoint_is_three_lines_and_no_more(body):
    with pytest.raises(notes.BadNote):
        notes.Checkpoint.parse(body)


def test_the_text_may_hold_blank_lines_and_the_last_one_separates():
    text = "one\n\ntwo\n\n\nthree\n"
    private = key(9)
    note = str(notes.Note(text, (notes.note_signature(private, name="n", text=text),)))
    read = notes.Note.parse(note)
    assert read.text == text and notes.verified(read, notes.Key.of(private, name="n", kind=notes.ED25519))


def test_many_unknown_signatures_are_ignored():
    assert opened(NOTE + "\u2014 nobody AAAAAAA=\n" * 62)
    with pytest.raises(notes.BadNote, match="too many"):
        opened(NOTE + "\u2014 nobody AAAAAAA=\n" * 63)


def test_any_flipped_bit_of_a_known_signature_refuses_the_note():
    read = notes.Note.parse(NOTE)
    for place, signature in enumerate(read.signatures):
        for value in list(flips(signature.value))[::7]:
            changed = list(read.signatures)
            changed[place] = dataclasses.replace(signature, value=value)
            with pytest.raises(notes.BadNote, match="false"):
                notes.opened(notes.Note(read.text, tuple(changed)), POLICY)


def test_a_known_line_that_is_false_refuses_beside_a_true_one():
    read = notes.Note.parse(NOTE)
    for signature in read.signatures:
        false = dataclasses.replace(signature, value=bytes(len(signature.value)))
        for order in ((*read.signatures, false), (false, *read.signatures)):
            with pytest.raises(notes.BadNote, match="false"):
                notes.opened(notes.Note(read.text, order), POLICY)


def test_another_known_log_may_not_sign_falsely_either():
    other = notes.Key.of(key(7), name="other.example", kind=notes.ED25519)
    policy = notes.Policy.parse(f"log {other}\n" + LOG.policy)
    read = notes.Note.parse(NOTE)
    assert notes.opened(read, policy)
    true = notes.note_signature(key(7), name="other.example", text=read.text)
    assert notes.opened(notes.Note(read.text, (*read.signatures, true)), policy)
    false = dataclasses.replace(true, value=bytes(64))
    with pytest.raises(notes.BadNote, match="false"):
        notes.opened(notes.Note(read.text, (*read.signatures, false)), policy)
    with pytest.raises(notes.BadNote, match="not signed"):
        notes.opened(notes.Note(read.text, (true, *read.signatures[1:])), policy)


def test_the_newest_cosignature_of_a_witness_counts():
    text = notes.Note.parse(NOTE).text
    newer = notes.cosignature(LOG.witnesses["w1"], name="w1.example", text=text, time=SEEN + 600)
    assert opened(NOTE + f"{newer}\n")[1] == {"w1": SEEN + 600}


def test_a_cosignature_counts_for_its_own_time_and_text_only():
    read = notes.Note.parse(NOTE)
    log_line, seen = read.signatures
    later = (SEEN + 1).to_bytes(8, "big") + seen.value[8:]
    with pytest.raises(notes.BadNote, match="false"):
        notes.opened(notes.Note(read.text, (log_line, dataclasses.replace(seen, value=later))), POLICY)
    plain = notes.note_signature(LOG.witnesses["w1"], name="w1.example", text=read.text)
    with pytest.raises(notes.BadNote, match="too few"):  # a plain signature of that key is another key's
        notes.opened(notes.Note(read.text, (log_line, plain)), POLICY)


@how(max_examples=300)
@given(st.integers(0, 2000), st.integers(0, 2), st.text(max_size=2))
def test_a_changed_note_is_refused_or_says_the_same(at, much, put):
    place = at % (len(NOTE) + 1)
    changed = NOTE[:place] + put + NOTE[place + much :]
    try:
        checkpoint, seen = opened(changed)
    except notes.BadNote:
        return
    assert (checkpoint, seen) == opened(NOTE)


@how(max_examples=300)
@given(st.integers(0, 2000), st.integers(0, 2), st.text(max_size=2))
def test_a_changed_proof_is_refused_or_proves_the_same(at, much, put):
    text = LOG.proof(1)
    place = at % (len(text) + 1)
    changed = text[:place] + put + text[place + much :]
    leaf = merkle.leaf_hash(LOG.raw[1])
    try:
        proof = notes.Proof.parse(changed)
        checkpoint, seen = proof.verify(leaf, POLICY)
    except (notes.BadNote, merkle.BadProof):
        return
    assert (proof.index, checkpoint, seen) == (1, *opened(NOTE))


@how(max_examples=300)
@given(st.binary(max_size=200))
def test_no_bytes_make_a_note_reader_do_anything_but_refuse(data):
    with pytest.raises(notes.BadNote):
        opened_bytes = notes.Note.parse(data)
        notes.opened(opened_bytes, POLICY)


def test_a_note_has_a_largest_size():
    with pytest.raises(notes.BadNote, match="larger"):
        notes.Note.parse("a" * 1_000_001)
    with pytest.raises(notes.BadNote, match="UTF-8"):
        notes.Note.parse("\ud800")
