"""tlog-tiles: addresses, shapes, and trees rebuilt from tiles alone."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consents.ledger import merkle, tiles
from tests.consents.ledger.test_merkle import leaves


def files(size: int) -> dict[str, bytes]:
    edge = tiles.Edge()
    return edge.grow(leaves(size)) | edge.partials()


@pytest.mark.parametrize("start", range(0, 521, 65))
def test_trees_of_every_size_rebuilt_from_tiles_alone_have_the_direct_root(start):
    for size in range(start, min(start + 65, 521)):
        made = files(size)
        assert set(made) == {
            address for address in tiles.all_paths(size) if not address.startswith("tile/entries/")
        }
        tree = tiles.Tree(made.__getitem__, size)
        hashes = leaves(size)
        root = merkle.root(hashes)
        assert tree.root() == root
        for index in {0, size // 2, size - 1, 255, 256} & set(range(size)):
            merkle.verify_inclusion(
                leaf=hashes[index], index=index, size=size, proof=tree.inclusion_proof(index), root=root
            )
        for old in {1, size // 2, size - 1, 255, 256, 257} & set(range(1, size)):
            merkle.verify_consistency(
                old=old,
                old_root=merkle.root(hashes[:old]),
                new=size,
                new_root=root,
                proof=tree.consistency_proof(old),
            )


def test_a_tree_of_three_levels_is_rebuilt_too():
    size = 256 * 256 + 300
    made = files(size)
    assert {"tile/2/000.p/1", "tile/1/001.p/1", "tile/0/257.p/44"} <= set(made)
    assert tiles.Tree(made.__getitem__, size).root() == merkle.root(leaves(size))


def test_growing_in_steps_makes_the_same_tiles():
    edge, made = tiles.Edge(), {}
    hashes = leaves(1000)
    for start, end in ((0, 1), (1, 255), (255, 257), (257, 770), (770, 1000)):
        made |= edge.grow(hashes[start:end])
    assert made | edge.partials() == files(1000)
    assert tiles.Edge.load(files(1000).__getitem__, 1000).root() == merkle.root(hashes)


def test_addresses_and_shapes_are_the_published_ones(vector):
    published = vector("tlog_tiles.json")
    for row in published["paths"]:
        assert tiles.path(row["level"], row["n"], row["w"]) == row["path"]
        assert tiles.parse(row["path"]) == (row["level"], row["n"], row["w"])
    for bad in published["bad_paths"]:
        with pytest.raises(ValueError, match="not a tile"):
            tiles.parse(bad)
    for row in published["tiles_for_size"]:
        assert [list(one) for one in tiles.shape(row["size"])] == row["tiles"]


@given(st.one_of(st.just("entries"), st.integers(0, 63)), st.integers(0, 10**13), st.integers(1, 256))
def test_an_address_is_read_as_it_was_written(level, n, width):
    assert tiles.parse(tiles.path(level, n, width)) == (level, n, width)


@given(st.from_regex(re.compile(r"tile/(\d{1,3}|entries)(/x?\d{1,4}){1,3}(\.p/\d{1,4})?"), fullmatch=True))
@example("tile/0/x000/000")
@example("tile/0/٠٠٠")
def test_no_address_has_two_spellings(text):
    try:
        found = tiles.parse(text)
    except ValueError:
        return
    assert tiles.path(*found) == text and text.isascii()


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_entries_come_out_of_a_bundle_as_they_went_in(entries):
    data = tiles.bundle(entries)
    assert tiles.unbundle(data) == entries
    for cut in range(1, min(len(data), 3)):
        try:
            assert tiles.unbundle(data[:-cut]) != entries
        except tiles.NoTile:
            continue


@pytest.mark.parametrize("data", [b"\0", b"\0\5abc", b"\0\1a\0", b"\xff\xff" + b"a" * 65534])
def test_a_bundle_that_is_cut_short_is_none(data):
    with pytest.raises(tiles.NoTile):
        tiles.unbundle(data)


def test_a_short_or_wrong_tile_is_refused():
    made = files(600)
    for address in made:
        broken = made | {address: made[address][:-1]}
        with pytest.raises(tiles.NoTile):
            tree = tiles.Tree(broken.__getitem__, 600)
            for index in range(600):
                tree.inclusion_proof(index)
