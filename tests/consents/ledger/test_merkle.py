"""RFC 6962 trees: own proofs of every kind verify, and the classes of published broken ones are refused.

The classes are those of transparency-dev/merkle `testdata/` (98 inclusion and 98 consistency cases, 6 of each valid); the
cases are made here for many trees instead of six. Each is put to `merkle` and, for inclusion, to verify.py.
"""

import hashlib

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

import verify
from consents.ledger import merkle, tiles

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 31, 32, 33, 100]


def leaves(size: int, seed: int = 0) -> list[bytes]:
    return [merkle.leaf_hash(b"%d %d" % (seed, n)) for n in range(size)]


def nodes(hashes: list[bytes]) -> merkle.Nodes:
    return lambda level, index: merkle.root(hashes[index << level : (index + 1) << level])


def recursive(hashes: list[bytes]) -> bytes:
    """MTH as RFC 6962 §2.1 writes it."""
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + recursive(hashes[:split]) + recursive(hashes[split:])).digest()


def included(leaf: bytes, index: int, size: int, proof, root: bytes) -> bool:
    """Whether `merkle` accepts it; verify.py must say the same."""
    try:
        merkle.verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=root)
        ours = True
    except merkle.BadProof:
        ours = False
    if all(len(hash_) == 32 for hash_ in (leaf, root, *proof)):  # verify.py reads no others
        try:
            verify.check_inclusion(leaf, index, size, proof, root)
            theirs = True
        except verify.Invalid:
            theirs = False
        assert ours == theirs
    return ours


def consistent(old: int, old_root: bytes, new: int, new_root: bytes, proof) -> bool:
    try:
        merkle.verify_consistency(old=old, old_root=old_root, new=new, new_root=new_root, proof=proof)
    except merkle.BadProof:
        return False
    return True


def flips(data: bytes):
    """Every single bit of it, the other way round."""
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


# --- roots -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", range(70))
def test_the_root_is_that_of_the_rfc(size):
    hashes = leaves(size)
    assert (
        merkle.root(hashes)
        == merkle.tree_root(nodes(hashes), size)
        == recursive(hashes)
        == verify.root_of(hashes)
    )


# --- inclusion ---------------------------------------------------------------------------------------------------------

EMPTY = merkle.EMPTY_ROOT
RANDOM = bytes(range(32))


@pytest.mark.parametrize("size", SIZES)
def test_inclusion_and_what_must_be_refused(size):
    hashes = leaves(size)
    root = merkle.root(hashes)
    for index in range(size):
        leaf, proof = hashes[index], merkle.inclusion_proof(nodes(hashes), index, size)
        assert included(leaf, index, size, proof, root)
        broken = {
            "leafIdx-1": (leaf, index - 1, size, proof, root),
            "leafIdx+1": (leaf, index + 1, size, proof, root),
            "leafIdx^2": (leaf, index ^ 2, size, proof, root),
            "index at size": (leaf, size, size, proof, root),
            "index beyond": (leaf, index + 2**63, size, proof, root),
            "treeSize*2": (leaf, index, size * 2, proof, root),
            "treeSize/2": (leaf, index, size // 2, proof, root),
            "size 0": (leaf, index, 0, proof, root),
            "wrong leaf": (RANDOM, index, size, proof, root),
            "empty leaf": (b"", index, size, proof, root),
            "empty root": (leaf, index, size, proof, EMPTY),
            "no root": (leaf, index, size, proof, b""),
            "random root": (leaf, index, size, proof, RANDOM),
            "trailing garbage": (leaf, index, size, [*proof, RANDOM], root),
            "trailing root": (leaf, index, size, [*proof, root], root),
            "trailing empty": (leaf, index, size, [*proof, b""], root),
            "preceding garbage": (leaf, index, size, [RANDOM, *proof], root),
            "preceding root": (leaf, index, size, [root, *proof], root),
            "31 bytes": (leaf, index, size, [*proof[:-1], RANDOM[:31]], root),
            "33 bytes": (leaf, index, size, [*proof[:-1], RANDOM + b"\0"], root),
        }
        if proof:
            broken |= {
                "removed component": (leaf, index, size, proof[:-1], root),
                "removed first": (leaf, index, size, proof[1:], root),
                "inserted component": (leaf, index, size, [proof[0], RANDOM, *proof[1:]], root),
                "twice": (leaf, index, size, [proof[0], *proof], root),
                "short hash": (leaf, index, size, [proof[0][:-1], *proof[1:]], root),
                "none": (leaf, index, size, [], root),
            }
        for name, case in broken.items():
            assert not included(*case), (name, index)


@pytest.mark.parametrize("size", [1, 2, 5, 7, 8])
def test_any_flipped_bit_of_leaf_proof_or_root_is_refused(size):
    hashes = leaves(size)
    root = merkle.root(hashes)
    for index in range(size):
        leaf, proof = hashes[index], merkle.inclusion_proof(nodes(hashes), index, size)
        assert not any(included(other, index, size, proof, root) for other in flips(leaf))
        assert not any(included(leaf, index, size, proof, other) for other in flips(root))
        for place, hash_ in enumerate(proof):
            for other in flips(hash_):
                assert not included(leaf, index, size, [*proof[:place], other, *proof[place + 1 :]], root)


@how(max_examples=200)
@given(st.integers(1, 700), st.data())
def test_random_trees_prove_themselves_and_nothing_else(size, data):
    hashes = leaves(size, seed=data.draw(st.integers(0, 2**32)))
    root = merkle.root(hashes)
    index = data.draw(st.integers(0, size - 1))
    proof = merkle.inclusion_proof(nodes(hashes), index, size)
    assert included(hashes[index], index, size, proof, root)
    bit = data.draw(st.integers(0, 255))

    def flipped(hash_: bytes) -> bytes:
        return (int.from_bytes(hash_, "big") ^ (1 << bit)).to_bytes(32, "big")

    for place, hash_ in enumerate(proof):
        assert not included(
            hashes[index], index, size, [*proof[:place], flipped(hash_), *proof[place + 1 :]], root
        )
    assert not included(flipped(hashes[index]), index, size, proof, root)
    assert not included(hashes[index], index, size, proof, flipped(root))
    assert not included(hashes[index], index ^ (1 << bit % 10), size, proof, root)
    # Another size is refused, except where the path is the same in both trees: then the statement is about the same
    # hashes at the same place, and the size stands under the log's signature.
    other = size ^ (1 << bit % 10)
    if included(hashes[index], index, other, proof, root):
        assert index < other and path(index, other) == path(index, size)

    old = data.draw(st.integers(1, size))
    old_root = merkle.root(hashes[:old])
    steps = merkle.consistency_proof(nodes(hashes), old, size)
    assert consistent(old, old_root, size, root, steps)
    for place, hash_ in enumerate(steps):
        changed = [*steps[:place], flipped(hash_), *steps[place + 1 :]]
        assert not consistent(old, old_root, size, root, changed)
    assert not consistent(old, flipped(old_root), size, root, steps)
    assert not consistent(old, old_root, size, flipped(root), steps)


def path(index: int, size: int) -> list[bool]:
    """On which side each hash of an inclusion proof stands, lowest first."""
    sides, start, end = [], 0, size
    while end - start > 1:
        split = start + (1 << (end - start - 1).bit_length() - 1)
        sides.append(index < split)
        start, end = (start, split) if index < split else (split, end)
    return sides[::-1]


# --- consistency ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", SIZES)
def test_consistency_and_what_must_be_refused(new):
    hashes = leaves(new)
    new_root = merkle.root(hashes)
    for old in range(1, new):
        old_root = merkle.root(hashes[:old])
        proof = merkle.consistency_proof(nodes(hashes), old, new)
        assert consistent(old, old_root, new, new_root, proof)
        broken = {
            "size1-1": (old - 1, old_root, new, new_root, proof),
            "size1+1": (old + 1, old_root, new, new_root, proof),
            "size1^2": (old ^ 2, old_root, new, new_root, proof),
            "size2*2": (old, old_root, new * 2, new_root, proof),
            "size2/2": (old, old_root, new // 2, new_root, proof),
            "wrong root1": (old, RANDOM, new, new_root, proof),
            "wrong root2": (old, old_root, new, RANDOM, proof),
            "swapped roots": (old, new_root, new, old_root, proof),
            "swapped sizes": (new, old_root, old, new_root, proof),
            "empty proof": (old, old_root, new, new_root, []),
            "trailing garbage": (old, old_root, new, new_root, [*proof, RANDOM]),
            "trailing root1": (old, old_root, new, new_root, [*proof, old_root]),
            "trailing root2": (old, old_root, new, new_root, [*proof, new_root]),
            "preceding garbage": (old, old_root, new, new_root, [RANDOM, *proof]),
            "preceding root1": (old, old_root, new, new_root, [old_root, *proof]),
            "preceding root2": (old, old_root, new, new_root, [new_root, *proof]),
            "preceding proof[0]": (old, old_root, new, new_root, [proof[0], *proof]),
            "truncated proof": (old, old_root, new, new_root, proof[:-1]),
            "31 bytes": (old, old_root, new, new_root, [*proof[:-1], proof[-1][:31]]),
            "33 bytes": (old, old_root, new, new_root, [*proof[:-1], proof[-1] + b"\0"]),
            "modified proof": (old, old_root, new, new_root, [*proof[:-1], next(flips(proof[-1]))]),
        }
        for name, case in broken.items():
            assert not consistent(*case), (name, old)


# testdata/consistency/additional, by the names of the files: (old, old root, new, new root, proof, holds)
A, B = b"dummyroot123", b"dummyroot456"  # of 12 bytes, as in the published cases
ADDITIONAL = {
    "consistency-check-on-empty-tree-(size1-is-zero)-is-useless": (0, EMPTY, 1, RANDOM, [], False),
    "roots-do-not-match-and-sizes-are-zero": (0, A, 0, B, [], False),
    "roots-do-not-not-match-and-sizes-are-one": (1, A, 1, B, [], False),
    "size1-is-greater-than-size2": (2, A, 1, B, [], False),
    "size1-is-greater-than-size2-again": (1, A, 0, B, [], False),
    "size1-is-zero-and-does-not-equal-size2": (0, A, 1, B, [], False),
    "sizes-are-equal-(one)-but-roots-are-not": (1, A, 1, B, [], False),
    "sizes-are-equal-(zero)-but-roots-are-not": (0, A, 0, B, [], False),
    "sizes-are-equal-and-proof-is-not-empty-where-both-sizes-are-one": (1, A, 1, A, [RANDOM], False),
    "sizes-are-equal-and-proof-is-not-empty-where-both-sizes-are-zero": (0, A, 0, A, [RANDOM], False),
    "sizes-are-equal-one-and-proof-is-empty": (1, A, 1, A, [], True),
    "sizes-are-equal-zero-and-proof-is-empty": (0, A, 0, A, [], False),
    "sizes-do-not-watch-and-proof-is-empty": (1, A, 2, B, [], False),
    "sizes-match-but-proof-is-not-empty-and-sizes-are-one": (1, A, 1, A, [b""], False),
    "sizes-match-but-proof-is-not-empty-and-sizes-are-zero": (0, A, 0, A, [b""], False),
}  # fmt: skip


@pytest.mark.parametrize("case", ADDITIONAL.values(), ids=ADDITIONAL)
def test_the_published_corner_cases_of_consistency(case):
    *given_, holds = case
    assert consistent(*given_) is holds


@pytest.mark.parametrize(
    ("index", "size", "leaf", "root"),
    [
        # testdata/inclusion/additional: single-entry, matching-root-and-leaf, empty ones
        (0, 0, b"", b""), (0, 1, b"", b""), (0, 1, b"", EMPTY), (0, 1, EMPTY, b""), (0, 2, RANDOM, RANDOM), (1, 1, RANDOM, RANDOM),
        (0, 0, RANDOM, RANDOM), (2, 1, RANDOM, RANDOM), (0, 1, RANDOM, EMPTY), (0, 1, EMPTY, RANDOM),
    ],
)  # fmt: skip
def test_the_published_corner_cases_of_inclusion(index, size, leaf, root):
    assert not included(leaf, index, size, [], root)


def test_a_tree_of_one_is_its_leaf():
    assert included(RANDOM, 0, 1, [], RANDOM)
    assert included(EMPTY, 0, 1, [], EMPTY)


def test_what_cannot_be_proved_is_not_tried():
    for index, size in ((0, 0), (-1, 1), (1, 1)):
        with pytest.raises(ValueError, match="not in a tree"):
            merkle.inclusion_proof(nodes(leaves(size)), index, size)
    for old, new in ((-1, 1), (2, 1)):
        with pytest.raises(ValueError, match="no beginning"):
            merkle.consistency_proof(nodes(leaves(1)), old, new)
    assert merkle.consistency_proof(nodes([]), 0, 5) == []


@how(max_examples=100)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=6))
def test_the_edge_grows_to_the_same_root(steps):
    edge, hashes = tiles.Edge(), []
    for number, count in enumerate(steps):
        more = leaves(count, seed=number)
        hashes += more
        edge.grow(more)
        assert edge.root() == merkle.root(hashes)
