"""RFC 6962 trees: hashes, roots, inclusion and consistency proofs, and their verification. Pure functions.

leaf hash = SHA-256(0x00 || entry)        node hash = SHA-256(0x01 || left || right)        empty root = SHA-256("")

Proofs are made over `Nodes`: any function that answers the hash of the complete subtree `index` of 2**level leaves.
Verification follows RFC 9162 §2.1.3.2 and §2.1.4.2 to the letter, and raises BadProof where it does not add up.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Nodes = Callable[[int, int], bytes]


class BadProof(ValueError):
    """The proof does not show what it claims, or is not a proof at all."""


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, or over the hashes of equally large complete subtrees with a smaller last one."""
    if not hashes:
        return EMPTY_ROOT
    level = list(hashes)
    sha256 = hashlib.sha256
    while len(level) > 1:
        # An odd last one goes up as it is: that is where RFC 6962 splits too.
        above = [sha256(b"\x01" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            above.append(level[-1])
        level = above
    return level[0]


def largest_power_below(size: int) -> int:
    """The largest power of two smaller than `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def range_root(nodes: Nodes, start: int, end: int) -> bytes:
    """The root over leaves start…end-1, where `start` is a place at which the tree splits."""
    size = end - start
    if size & (size - 1) == 0:
        return nodes(size.bit_length() - 1, start // size)
    split = largest_power_below(size)
    return node_hash(range_root(nodes, start, start + split), range_root(nodes, start + split, end))


def tree_root(nodes: Nodes, size: int) -> bytes:
    return range_root(nodes, 0, size) if size else EMPTY_ROOT


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """The hashes that lead from leaf `index` to the root of the tree of `size` leaves, lowest first."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    found: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + largest_power_below(end - start)
        if index < split:
            found.append(range_root(nodes, split, end))
            end = split
        else:
            found.append(range_root(nodes, start, split))
            start = split
    return found[::-1]


def consistency_proof(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """The hashes that show the tree of `old` leaves to be the beginning of the tree of `new`; empty where old is 0 or new."""
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} has no beginning of {old}")
    if old in (0, new):
        return []
    found: list[bytes] = []
    start, end, whole = 0, new, True
    while old != end:
        split = start + largest_power_below(end - start)
        if old <= split:
            found.append(range_root(nodes, split, end))
            end = split
        else:
            found.append(range_root(nodes, start, split))
            start, whole = split, False
    if not whole:
        found.append(range_root(nodes, start, end))
    return found[::-1]


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Return if `leaf` (a leaf hash) stands at `index` of the tree with this size and root. Raises BadProof."""
    _check_hashes([leaf, root, *proof])
    if not 0 <= index < size:
        raise BadProof("the place is outside the tree")
    place, last, made = index, size - 1, leaf
    for hash_ in proof:
        if last == 0:
            raise BadProof("the proof is too long")
        if place % 2 or place == last:
            made = node_hash(hash_, made)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            made = node_hash(made, hash_)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof("the proof is too short")
    if made != root:
        raise BadProof("the proof leads to another root")


def verify_consistency(
    *, old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Return if the tree (old, old_root) is the beginning of (new, new_root). Raises BadProof, also for old = 0:
    an empty tree proves nothing, and its callers decide for themselves."""
    if not 0 < old <= new:
        raise BadProof("the sizes do not follow each other")
    if old == new:
        # Sizes that are equal need no proof, and compare nothing but the roots.
        if proof or old_root != new_root:
            raise BadProof("the same size with another root, or with a proof")
        return
    _check_hashes([old_root, new_root, *proof])
    if not proof:
        raise BadProof("the proof is empty")
    path = list(proof) if old & (old - 1) else [old_root, *proof]
    place, last = old - 1, new - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    first = second = path[0]
    for hash_ in path[1:]:
        if last == 0:
            raise BadProof("the proof is too long")
        if place % 2 or place == last:
            first, second = node_hash(hash_, first), node_hash(hash_, second)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            second = node_hash(second, hash_)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof("the proof is too short")
    if first != old_root or second != new_root:
        raise BadProof("the proof leads to another root")


def _check_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(hash_) != HASH_BYTES for hash_ in hashes):
        raise BadProof("a hash does not have 32 bytes")
