"""Trees, proofs and tiles against vectors that are not ours and against the RFC's words."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.merkle import (
    EMPTY_ROOT,
    LARGEST_SIZE,
    TILE_WIDTH,
    Edge,
    Subtree,
    TileId,
    consistency_proof,
    inclusion_proof,
    inclusion_proofs,
    leaf_hash,
    root_of,
    subtree_hash,
    tiles_of,
    verify_consistency,
    verify_inclusion,
)

VECTOR_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657",
                 "606162636465666768696a6b6c6d6e6f")
]  # fmt: skip
VECTOR_ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
"""Leaves and roots of the reference tests of Certificate Transparency."""


def hashes(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % i) for i in range(count)]


def published(leaves: list[bytes]) -> tuple[Edge, dict[TileId, bytes]]:
    """Grows a tree; gives its edge and all its tiles."""
    edge = Edge()
    tiles = {tile.id: tile.data for tile in edge.extend(leaves)}
    return edge, tiles | {tile.id: tile.data for tile in edge.partial()}


@pytest.mark.parametrize("size", range(9))
def test_reference_roots(size):
    """The roots are those of Certificate Transparency's reference tests."""
    leaves = [leaf_hash(leaf) for leaf in VECTOR_LEAVES[:size]]
    edge = Edge()
    edge.extend(leaves)

    assert bytes.fromhex(VECTOR_ROOTS[size]) == root_of(leaves)
    assert bytes.fromhex(VECTOR_ROOTS[size]) == edge.root()


SIZES = st.integers(1, 1400)


class TestProofs:
    @settings(max_examples=60, deadline=None)
    @given(SIZES, st.data())
    def test_inclusion_from_tiles(self, size, data):
        """A proof computed from tiles leads from any leaf to the root, and from no other leaf."""
        leaves = hashes(size)
        edge, tiles = published(leaves)
        index = data.draw(st.integers(0, size - 1))
        subtrees = inclusion_proof(index, size)

        assert tiles_of(subtrees, size) <= set(tiles)
        path = [subtree_hash(each, size, tiles) for each in subtrees]
        assert [root_of(leaves[each.lo : each.hi]) for each in subtrees] == path
        assert verify_inclusion(leaves[index], index, size, path, edge.root())
        assert not verify_inclusion(leaf_hash(b"forged"), index, size, path, edge.root())

    @settings(max_examples=60, deadline=None)
    @given(SIZES, st.data())
    def test_what_several_proofs_need(self, size, data):
        """Every hash that a proof of one of the leaves needs, once, and no other."""
        indexes = sorted(data.draw(st.sets(st.integers(0, size - 1))))
        together = list(inclusion_proofs(indexes, size))

        assert len(together) == len(set(together))
        assert set(together) == {part for index in indexes for part in inclusion_proof(index, size)}

    @settings(max_examples=60, deadline=None)
    @given(SIZES, st.data())
    @pytest.mark.attack("A8")
    def test_a8_consistency_from_tiles(self, new, data):
        """A grown tree is consistent with each earlier one, a fork with none that it forked before."""
        leaves = hashes(new)
        edge, tiles = published(leaves)
        old = data.draw(st.integers(1, new))
        proof = [subtree_hash(each, new, tiles) for each in consistency_proof(old, new)]
        before, forked = root_of(leaves[:old]), root_of([leaf_hash(b"fork"), *leaves[1:old]])

        assert verify_consistency(old, before, new, edge.root(), proof)
        assert not verify_consistency(old, forked, new, edge.root(), proof)

    @pytest.mark.attack("A14")
    @pytest.mark.parametrize(
        ("index", "size", "path"),
        [
            (0, 0, []),
            (-1, 1, []),
            (1, 1, []),
            (0, 1, [b"x" * 32]),
            (0, 2, []),
            (0, 2, [b"x" * 31]),
            (0, 2, [b"x" * 32] * 2),
            (0, 2**31, [b"x" * 32] * 31),
            (2**31 - 1, 2**31, [b"x" * 32] * 64),
            (0, LARGEST_SIZE + 1, [b"x" * 32] * 63),
            (10**30, 10**30 + 1, []),
        ],
    )
    def test_a14_wrong_lengths_are_a_plain_no(self, index, size, path):
        """Empty and huge trees, wrong lengths: no, and no crash; the control is a tree of one leaf."""
        leaf = leaf_hash(b"leaf")

        assert verify_inclusion(leaf, 0, 1, [], leaf)
        assert not verify_inclusion(leaf, index, size, path, leaf)

    @pytest.mark.attack("A14")
    @pytest.mark.parametrize(
        ("old", "new", "proof"),
        [
            (1, 0, []),
            (-1, 1, []),
            (0, 5, [b"x" * 32]),
            (2, 2, [b"x" * 32]),
            (1, 2, []),
            (3, 4, [b"x" * 32]),
            (2**31, 2**31 + 1, [b"x" * 32] * 200),
            (5, LARGEST_SIZE + 1, [b"x" * 32] * 64),
        ],
    )
    def test_a14_wrong_consistency_is_a_plain_no(self, old, new, proof):
        """The same for consistency; the control is the tree that did not grow."""
        root = leaf_hash(b"leaf")

        assert verify_consistency(1, root, 1, root, [])
        assert verify_consistency(0, EMPTY_ROOT, 1, root, [])
        assert not verify_consistency(old, root, new, root, proof)

    @pytest.mark.attack("A14")
    @given(st.integers(-5, 2**64), st.integers(-5, 2**64), st.lists(st.binary(max_size=33), max_size=70))
    def test_a14_any_garbage_is_a_plain_no(self, index, size, path):
        """Whatever is fed, the verifier ends with a verdict."""
        root = hashlib.sha256(b"").digest()

        assert not verify_inclusion(leaf_hash(b"x"), index, size, path, root)
        assert verify_consistency(index, b"r" * 32, size, root, path) is False

    @pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 4), (0, LARGEST_SIZE + 1)])
    def test_no_proof_of_what_is_not_there(self, index, size):
        """A leaf outside the tree is a mistake of the caller's."""
        with pytest.raises(ValueError):
            inclusion_proof(index, size)
        with pytest.raises(ValueError):
            list(inclusion_proofs([index], size))
        with pytest.raises(ValueError):
            consistency_proof(size + 1, size)


class TestTiles:
    @pytest.mark.parametrize(
        ("tile", "path"),
        [
            (TileId(0, 0), "tile/0/000"),
            (TileId(1, 0, 3), "tile/1/000.p/3"),
            (TileId(0, 1234067), "tile/0/x001/x234/067"),
            (TileId(2, 999), "tile/2/999"),
            (TileId(2, 1000, 255), "tile/2/x001/000.p/255"),
        ],
    )
    def test_paths(self, tile, path):
        """Resources are named as C2SP tlog-tiles says."""
        assert path == tile.path

    @settings(max_examples=20, deadline=None)
    @given(st.lists(st.integers(0, 700), min_size=1, max_size=4))
    def test_grown_in_steps_or_at_once(self, steps):
        """However a tree grew, and wherever it was loaded again, tiles and root are the same."""
        leaves = hashes(sum(steps))
        expected, expected_tiles = published(leaves)
        edge, tiles, at = Edge(), {}, 0
        for step in steps:
            edge = Edge.load(edge.size, {tile.id: tile.data for tile in edge.partial()})
            tiles |= {tile.id: tile.data for tile in edge.extend(leaves[at : at + step])}
            at += step
        tiles |= {tile.id: tile.data for tile in edge.partial()}

        assert expected.root() == edge.root() == root_of(leaves)
        assert expected_tiles == tiles

    def test_three_levels(self):
        """A tile of the third level holds the roots of 65,536 leaves."""
        leaves = hashes(TILE_WIDTH * TILE_WIDTH + 1)
        edge, tiles = published(leaves)

        assert root_of(leaves[:-1]) == tiles[TileId(2, 0, 1)]
        assert root_of(leaves) == edge.root()
        assert leaves[-1] == tiles[TileId(0, TILE_WIDTH, 1)]

    def test_a_short_tile_is_refused(self):
        """An edge is never loaded from fewer hashes than it needs."""
        edge, _ = published(hashes(5))
        short = {tile.id: tile.data[:-32] for tile in edge.partial()}

        assert edge.size == Edge.load(5, {tile.id: tile.data for tile in edge.partial()}).size
        with pytest.raises(ValueError):
            Edge.load(5, short)

    def test_a_copy_grows_alone(self):
        """What a copy takes in is not in the original."""
        edge, _ = published(hashes(300))
        root = edge.root()
        edge.copy().extend(hashes(3))

        assert (300, root) == (edge.size, edge.root())
        assert root == subtree_hash(Subtree(0, 300), 300, published(hashes(300))[1])
