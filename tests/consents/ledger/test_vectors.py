"""Published vectors: every file of them, and V1 to V18 by number.

Where a vector is one of the published files, the file is read; where it is not, the value stands here with its source. V16
(nine requests to a witness) is in test_witness.py; the vectors of JOSE and webhooks are in tests/providers.
"""

import base64
import hashlib
import json
import struct

import jcs
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import verify
from consents.ledger import entries, merkle, notes, tiles


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


def b64(*texts: str) -> list[bytes]:
    return [base64.b64decode(text, validate=True) for text in texts]


# --- V1 to V4: the hashes (certificate-transparency reference implementations) -----------------------------------------


def test_v1_the_empty_tree():
    wanted = unhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert wanted == merkle.EMPTY_ROOT == merkle.root([]) == verify.root_of([])


def test_v2_the_empty_leaf():
    wanted = unhex("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
    assert merkle.leaf_hash(b"") == entries.leaf_hash(b"") == verify.leaf_hash(b"") == wanted


def test_v3_a_leaf():
    wanted = unhex("395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56")
    assert merkle.leaf_hash(b"L123456") == verify.leaf_hash(b"L123456") == wanted


def test_v4_a_node():
    wanted = unhex("aa217fe888e47007fa15edab33c2b492a722cb106c64667fc2b044444de66bbb")
    assert merkle.node_hash(b"N123", b"N456") == verify.node_hash(b"N123", b"N456") == wanted


def test_v1_to_v4_as_the_file_has_them(vector):
    for row in vector("rfc6962_hasher.json"):
        match row["op"]:
            case "empty":
                made = merkle.root([])
            case "leaf":
                made = merkle.leaf_hash(unhex(row["in_hex"]))
            case "node":
                made = merkle.node_hash(unhex(row["left_hex"]), unhex(row["right_hex"]))
        assert made.hex() == row["want_hex"], row["desc"]


# --- V5 to V11: the tree of eight leaves ---------------------------------------------------------------------------------

EIGHT = [
    unhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
LEAVES = [merkle.leaf_hash(entry) for entry in EIGHT]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def node(level: int, index: int) -> bytes:
    return merkle.root(LEAVES[index << level : (index + 1) << level])


def root(size: int) -> bytes:
    return unhex(ROOTS[size])


def test_v5_roots_of_the_first_eight(vector):
    assert [merkle.root(LEAVES[:size]).hex() for size in range(9)] == ROOTS
    published = vector("rfc6962_tree8.json")
    assert [entry.hex() for entry in EIGHT] == published["leaf_inputs_hex"]
    assert published["roots_hex_by_size"] == ROOTS
    for level, hashes in enumerate(published["node_hashes_hex_by_level"]):
        assert [node(level, index).hex() for index in range(len(hashes))] == hashes


def included(index: int, size: int, proof: list[bytes]) -> None:
    assert merkle.inclusion_proof(node, index, size) == proof
    merkle.verify_inclusion(leaf=LEAVES[index], index=index, size=size, proof=proof, root=root(size))
    verify.check_inclusion(LEAVES[index], index, size, proof, root(size))


def consistent(old: int, new: int, proof: list[bytes]) -> None:
    assert merkle.consistency_proof(node, old, new) == proof
    merkle.verify_consistency(old=old, old_root=root(old), new=new, new_root=root(new), proof=proof)


def test_v6_leaf_5_of_8():
    assert LEAVES[5] == b64("QnGia+DYqE8L1UyMMC58s6O10fpngKQLzOKHNHfatlg=")[0]
    included(5, 8, b64("vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=", "yoVOoSjtBQtBs1/8G4e46yveRh6eO1WW7Oa51ZdaCuA=", "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc="))  # fmt: skip


def test_v7_leaf_1_of_5():
    included(1, 5, b64("bjQLnP+zepicpUTmu3gKLHiQHT+zNzh2hRGjBhevoB0=", "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=", "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms="))  # fmt: skip


def test_v8_leaf_2_of_3():
    included(2, 3, b64("+sVCA+fMaWzw38tCySodnbr3CtnmIfS9jZhmLwDjwSU="))


def test_v9_consistency_1_to_8():
    consistent(1, 8, b64("lqKW0iTyhcZ77pPDD4owkVfw2qNdxbh+QQt4YwoJz8c=", "Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=", "a0eq8p7jwq+a+Im8H7klTavTEXfxYjLdaqsDXKOb9uQ="))  # fmt: skip


def test_v10_consistency_6_to_7():
    consistent(6, 7, b64("DrxdNDf74tsVi58Sah0RjjCBgQMdCpSfje3t68VY72o=", "sIaT7C5yFZcTBkHoIR5+7cy0wmQTlj7ubB4u0W/7Gl8=", "037kGJdt2VdTwcc4Yrk5j6Kiz5tP8P3+izDNlSCWFLc="))  # fmt: skip


def test_v11_consistency_2_to_5():
    consistent(
        2,
        5,
        b64("Xwg/ChozygdqlSeYMlgNs+DvRYS9/x9UyKNg9Q3jAx4=", "vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms="),
    )


# --- V12: a real log with 961,984,013 leaves: Google Argon 2020 (golang/mod, sumdb/tlog/testdata/argon2020) --------------------

ARGON_SIZE, ARGON_ROOT = 961_984_013, b64("dwlueapdd7LaOEnX2W2Wp9v2XE+KzejHRQGHwEx0oaM=")[0]
ARGON_INCLUSION = b64(
    "T46AmJsuOM/gFiGlUp+IJJebp+1Z5qratFNW7U0JyOQ=",
    "9Jj1Feodn42uRYEfffkV4HF/EIPFQ5Zo9IwkxbQ2uhk=",
    "D53/1oCNebF4J59HHgioovKZxrmrKcVuCVhy3Izg8Ck=",
    "wSFDgGSrsXRPA+1c8WHoAFCsWeUv8NDyP/Q/SgsyVyY=",
    "516/RcwsgdwdzHn18v1dJHqBkgFUbNhmCIWOGjsMJaE=",
    "naTFY2ajLFgrgs5XUl+zJYZnnlJksLGsA1VYwpLfqbY=",
    "mKBRJo6qao+0Kdh/rhGkZUbHUAxMhrtrclrTpIbNjIg=",
    "Co4ueOFE7lpifLio94irxxsv1wFMMaK3tPu2ZQkHlro=",
    "yRgy800K6JMYCC05sWfqF2kvCg2riT/pVM+nEa6V5+0=",
    "n2O38XJZC8/Wpbwi9HhgVizlUyeUHVZvYyQB1607MRc=",
    "go3tAjuNfNSCj87y2Rg1xOroDknGN1eaf3cgvzObf7Q=",
    "8D0Mj3/J7ySSnFb0afIHYXv6rlOhECnsebY6XKi1IR8=",
    "6rcez46ZU8M5vPiWVMAUfJfAOV0pPP/mch/lYzZhj/M=",
    "2rtIeXrPvSdUyHc5maIgSAVB2BzaKaupWxSAiVayDE4=",
    "nniW/IMFQPN5xw8UsHFn7CRStYbm1gLu7NNa6kkRqJQ=",
    "mRPPi7sQS22MduIEyvcNzCNFqIt6kLwYPkNKrVtIcu8=",
    "JvTivzESNS9wHI8aph5a7uieVmtS/p9PciMZ5D6GyOo=",
    "UTyQd+Ym0wY4zG+qK806bBORwi1CSVvFQ/KknnqoZj8=",
    "hXODrqN+ff+U6zPqRQ+ZQKs6im1fPcxIerDSfNwflhE=",
    "II6GE+WY/DrpZzfHztLwkR46o37zVkNLCyPYlf68zA0=",
    "d609kWWcNBllbA8Jb/ad4XAVVGnScLRmtP8FYyr+Dck=",
    "rikBsP0G0gioXRpBFED2CzQdSLrGPvRd0bEcbEZw1rI=",
    "GXIElfmnRuWfbA4z7ubV/UwlpSRUbUeec7oL5HDDnh0=",
    "pR0SH/NYP6s9+8azWwaeUXA4Ze/3WCIgMfh5YW6wvcE=",
    "f3GuAKYVrF8RBg3s15jvA/YvV9oAliWtzP/imwPhQVA=",
    "WHn8zDxlVgkV+lSlmzaOdfSBrTHoRr5nT3d76q0KKWE=",
    "f2uV2ZxVgULzLPKuZcowRY3ZY7fRlX59iDBjV1R8kNQ=",
    "NzQVjJsvQwbi7WStMr9oFkh9VbHfK7LB6o7WwAqwNTs=",
    "C0LttBeYHZHgL+032JIcJC3CTBIyza/hsbmJUgJfmDI=",
    "nixU5CWTFVDlF4BGdcU6kA7WSYurEpe9jRWc+F/7sOc=",
)
ARGON_CONSISTENCY = b64(
    "80Sfbj6UQEdVSZCSIgh9NMPj3vCBzcc1A48B2crJSWg=",
    "FZcrgAHUk6nNPviJZq8kEK6jCG1d18pJOFE45ZDc1TQ=",
    "Q67reWXmPBo1UfmwBap4Xi9PMPfFdUSSw3WGlRZdG7k=",
    "eJ7CyhR4PxzBxDIsWgrVYW1eFUb9ndgf46tFmiqVrxA=",
    "QrDwp062Grm5WY8KdrhFsBuuNjGzRox2Jb8PmVL5OYw=",
    "XM4YMjMEdLH/XJam/ZWyaP14k3cmsOtnPsOWQ54lW1s=",
    "SGiBh+jOTGccXU48ZzgQ88lRcBmtB4wz4oSDndv2QTg=",
    "WAS6txqNLYKGL1GdBdpqmV42TTfn6cJsuDsqLXuTCNI=",
    "QFmRS0rirUA7ZN3lxFjDncV+E1OCrn3NUB4RCp+5fzc=",
    "Hdbp7It2XBNZmNDBpCN/KPd7vfVqxgzwOosqVIaEA9E=",
    "mxvHL0ZiblBdD7j7pIa1jlfB0gSqfJ6oX0UGo7L0VsU=",
    "q5hjyvoW6TL/PThgcitpDcSTrnKX2p1+aqscqH2euRA=",
    "jTOWDqt3IHj2NVFeezyBz2ofpru+ztEywqKUAfFclKI=",
    "GIRn0w3HqJdvU9j1WVD//eR6lk2AaTVjyzjsJNP8U88=",
    "x52GJvxG81fnQBrgOTbll1A5tz95/LXK0Ag1NhB0r1I=",
    "6/0OqrcTgc3o5dD5PymmoC96lB9yLPFuTHVvLy8fSGk=",
    "Gf+iKLfcXO5l4JEFmsZvSdG5q1uEeWPfYLrds6pmjz0=",
    "DGuaco+McyM3AfRSF6qX7RwSetwe2ieYJmxw5e9rVx0=",
    "2tQJ9V32hnYp+fdpP6TcjmgJmLeNVOMKM0Ml1kk4cNU=",
    "3PapK+IkyJr8I9yAErAmzuZezzLMzsg+PfeRCgNW8NQ=",
    "s6xiYeejb+wtqHA+URJZ2I/SCPyIW8coP6aB00FJbMY=",
    "z9lSpmdTcr5M5ZzKlc4EPh3SrSypKFdk6JUF/UccaZU=",
    "GXIElfmnRuWfbA4z7ubV/UwlpSRUbUeec7oL5HDDnh0=",
    "pR0SH/NYP6s9+8azWwaeUXA4Ze/3WCIgMfh5YW6wvcE=",
    "f3GuAKYVrF8RBg3s15jvA/YvV9oAliWtzP/imwPhQVA=",
    "WHn8zDxlVgkV+lSlmzaOdfSBrTHoRr5nT3d76q0KKWE=",
    "f2uV2ZxVgULzLPKuZcowRY3ZY7fRlX59iDBjV1R8kNQ=",
    "NzQVjJsvQwbi7WStMr9oFkh9VbHfK7LB6o7WwAqwNTs=",
    "C0LttBeYHZHgL+032JIcJC3CTBIyza/hsbmJUgJfmDI=",
    "nixU5CWTFVDlF4BGdcU6kA7WSYurEpe9jRWc+F/7sOc=",
)


def test_v12_entry_10000_of_a_real_log():
    (leaf,) = b64("nCs3mfIydh9x4CKyQ+u2xtmpxmFggA5MLymHwNQSlLg=")
    assert len(ARGON_INCLUSION) == 30
    merkle.verify_inclusion(leaf=leaf, index=10_000, size=ARGON_SIZE, proof=ARGON_INCLUSION, root=ARGON_ROOT)
    verify.check_inclusion(leaf, 10_000, ARGON_SIZE, ARGON_INCLUSION, ARGON_ROOT)
    for index, size in ((10_001, ARGON_SIZE), (10_000, ARGON_SIZE // 2)):
        with pytest.raises(merkle.BadProof):
            merkle.verify_inclusion(leaf=leaf, index=index, size=size, proof=ARGON_INCLUSION, root=ARGON_ROOT)


def test_v12_a_real_log_continues_what_it_was():
    (old_root,) = b64("AuIZ5V6sDUj1vn3Y1K85oOaQ7y+FJJKtyRTl1edIKBQ=")
    sizes = {"old": 3_654_490, "old_root": old_root, "new": ARGON_SIZE, "new_root": ARGON_ROOT}
    assert len(ARGON_CONSISTENCY) == 30
    merkle.verify_consistency(**sizes, proof=ARGON_CONSISTENCY)
    for changed in ({"old": 3_654_491}, {"new": ARGON_SIZE * 2}, {"old_root": ARGON_ROOT}):
        with pytest.raises(merkle.BadProof):
            merkle.verify_consistency(**sizes | changed, proof=ARGON_CONSISTENCY)


# --- V13 to V15: signed notes --------------------------------------------------------------------------------------------------


def test_v13_the_signed_note_of_c2sp():
    """C2SP signed-note.md, its example."""
    key = notes.Key.parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    signature = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
    text = f"This is an example message.\n\n\u2014 example.com/foo {signature}\n"
    assert notes.verified(notes.Note.parse(text), key)
    with pytest.raises(notes.BadNote, match="false"):
        notes.verified(notes.Note.parse(text.replace("example message", "Example message")), key)


def test_v14_the_note_that_go_signs():
    """golang.org/x/mod sumdb/note, note_test.go TestSign and its documentation, byte for byte."""
    private = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
    seed = base64.b64decode(private.split("+", 4)[4])
    assert seed[0] == notes.ED25519
    key = Ed25519PrivateKey.from_private_bytes(seed[1:])
    public = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
    assert str(notes.Key.of(key, name="PeterNeumann", kind=notes.ED25519)) == public
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    note = str(notes.Note(text, (notes.note_signature(key, name="PeterNeumann", text=text),)))
    wanted = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    assert note == f"{text}\n\u2014 PeterNeumann {wanted}\n"


def test_v15_a_real_checkpoint_of_gos_sumdb():
    """sum.golang.org at 35,225,469. Its origin has spaces, which our checkpoints may not have: it is read as a note."""
    key = notes.Key.parse("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    body = "go.sum database tree\n35225469\nvt5T6GaLCXvyHFl9VUvvItR43XZxfLgftEcTyO3eJCQ=\n"
    signature = "Az3grpukl5AXaVfYkLiDGORx/DN2nlcS5kZHR5uYOBV2KA2HgXpD+gu9HHONebHLAyaKbbTM75QTtPydhKCExixSfwQ="
    text = f"{body}\n\u2014 sum.golang.org {signature}\n"
    assert notes.verified(notes.Note.parse(text), key)
    with pytest.raises(notes.BadNote, match="space"):
        notes.Checkpoint.parse(body)
    with pytest.raises(notes.BadNote, match="false"):
        notes.verified(notes.Note.parse(text.replace("35225469", "35225470")), key)


# --- V17: SD-JWT -----------------------------------------------------------------------------------------------------------------


def test_v17_disclosures_of_rfc_9901(vector):
    """The given text is hashed as it is: it has a space after each comma, and is not made anew."""
    rows = vector("sd_jwt_rfc9901.json")
    assert [row["decoded"] for row in rows] == [
        ["_26bc4LT-ac6q2KI6cBW5es", "family_name", "Möbius"],
        ["lklxF5jMYlGTPUovMNIvCA", "FR"],
    ]
    assert rows[0]["digest"] == "X9yH0Ajrdm1Oij4tWso9UzzKJvPoDxwmuEcO3XAdRC0"
    assert rows[1]["digest"] == "w0I8EKcdCtUPkGCNUrfwVp2xEgNjtoIDlOxc9-PlOhs"
    for row in rows:
        decoded = base64.urlsafe_b64decode(row["disclosure"] + "==")
        assert json.loads(decoded) == row["decoded"]
        assert entries.digest(row["disclosure"]) == row["digest"]
        # Our own would have no space, and so another digest.
        assert entries.digest(entries.b64(rfc8785.dumps(row["decoded"]))) != row["digest"]


def test_v17_the_verifier_hashes_what_is_given(vector):
    row = vector("sd_jwt_rfc9901.json")[0]
    entry = verify.Entry("", "", "", [row["digest"]])
    assert verify.disclosed(entry, [row["disclosure"]]) == {"family_name": "Möbius"}
    with pytest.raises(verify.Invalid, match="does not hold"):
        verify.disclosed(entry, [row["disclosure"][:-1]])


# --- V18: canonical JSON -------------------------------------------------------------------------------------------------------------


def test_v18_documents_and_numbers_of_rfc_8785(vector):
    published = vector("jcs_rfc8785.json")
    assert (len(published["documents"]), len(published["numbers"])) == (6, 27)
    for row in published["documents"]:
        value = json.loads(row["input"])
        assert rfc8785.dumps(value).hex() == row["want_hex"], row["name"]
        assert jcs.canonicalize(value).hex() == row["want_hex"], row["name"]
    for row in published["numbers"]:
        (value,) = struct.unpack(">d", unhex(row["ieee754_hex"]))
        assert rfc8785.dumps(value).decode() == row["want"]


@pytest.mark.parametrize("value", [2**53, -(2**53), float("nan"), float("inf"), "\ud800", {1: "a"}])
def test_v18_what_must_be_refused(value):
    with pytest.raises((rfc8785.CanonicalizationError, UnicodeEncodeError)):
        rfc8785.dumps(value)


# --- the worked example of our own formats --------------------------------------------------------------------------------------------


@pytest.fixture
def worked(vector):
    return vector("consent_ledger_example.json")


def test_the_worked_examples_entries_and_roots(worked):
    raw = [unhex(row["entry_hex"]) for row in worked["entries"]]
    for row, entry in zip(worked["entries"], raw, strict=True):
        assert entry.decode() == row["entry_utf8"]
        assert merkle.leaf_hash(entry).hex() == row["leaf_hash_hex"]
        read = verify.parse_entry(entry)
        assert read.digests == sorted(entries.digest(one) for one in row["disclosures"])
        for shown, decoded in zip(row["disclosures"], row["disclosures_decoded"], strict=True):
            salt, name, value = decoded
            assert entries.disclose(name, value, base64.urlsafe_b64decode(salt + "==")) == shown
            assert verify.parse_disclosure(shown) == (name, value)
    leaves = [merkle.leaf_hash(entry) for entry in raw]
    assert [merkle.root(leaves[:size]).hex() for size in range(8)] == worked["roots"]
    edge = tiles.Edge()
    edge.grow(leaves)
    hashes, bundle = edge.partials()["tile/0/000.p/7"], tiles.bundle(raw)
    published = worked["tiles"]
    assert hashes.hex() == published["tile/0/000.p/7_hex"]
    assert hashlib.sha256(hashes).hexdigest() == published["tile/0/000.p/7_sha256"]
    assert len(bundle) == published["tile/entries/000.p/7_len"]
    assert hashlib.sha256(bundle).hexdigest() == published["tile/entries/000.p/7_sha256"]


def test_the_worked_examples_checkpoints_byte_for_byte(worked):
    log = Ed25519PrivateKey.from_private_bytes(unhex(worked["log_seed_hex"]))
    witness = Ed25519PrivateKey.from_private_bytes(unhex(worked["witness_seed_hex"]))
    name = "fss.example.kr/witness/1"
    assert str(notes.Key.of(log, name=worked["origin"], kind=notes.ED25519)) == worked["log_vkey"]
    assert str(notes.Key.of(witness, name=name, kind=notes.COSIGNATURE)) == worked["witness_vkey"]
    policy = notes.Policy.parse(worked["policy"])
    for size in (5, 7):
        published = worked[f"checkpoint_{size}"]
        checkpoint, seen = notes.opened(notes.Note.parse(published), policy)
        assert (checkpoint.size, checkpoint.root.hex()) == (size, worked["roots"][size])
        text = notes.Checkpoint(worked["origin"], size, unhex(worked["roots"][size])).text
        made = notes.Note(
            text,
            (
                notes.note_signature(log, name=worked["origin"], text=text),
                notes.cosignature(witness, name=name, text=text, time=seen["fss1"]),
            ),
        )
        assert str(made) == published


def test_the_worked_examples_proofs_byte_for_byte(worked):
    leaves = [unhex(row["leaf_hash_hex"]) for row in worked["entries"]]

    def node_of(level: int, index: int) -> bytes:
        return merkle.root(leaves[index << level : (index + 1) << level])

    for size in (5, 7):
        made = merkle.inclusion_proof(node_of, 2, size)
        assert [notes.b64(hash_) for hash_ in made] == worked[f"inclusion_2_in_{size}"]
    steps = merkle.consistency_proof(node_of, 5, 7)
    assert [notes.b64(hash_) for hash_ in steps] == worked["consistency_5_7"]
    entry = worked["entries"][2]
    extra = rfc8785.dumps({"disclosures": entry["disclosures"], "entry": entry["entry_utf8"]})
    hashes = tuple(merkle.inclusion_proof(node_of, 2, 7))
    proof = str(notes.Proof(2, hashes, worked["checkpoint_7"], extra))
    assert proof == worked["tlog_proof_index2_size7"]
    assert len(proof.encode()) == 1485
    assert hashlib.sha256(proof.encode()).hexdigest() == (
        "7463b2a80e0cac0d57e64800079022f8bcf2b856a157ca01a5520fe2ffb56aa2"
    )
    request = (
        f"old 5\n{notes.lines_of(steps)}\n{worked['checkpoint_7'].split(chr(10) + chr(0x2014) + ' fss')[0]}\n"
    )
    assert request == worked["add_checkpoint_request_5_to_7"]
