"""Merkle tree mathematics of RFC 6962 and the tiles of C2SP tlog-tiles; pure, no input or output.

Invariants:
- a leaf is hashed with 0x00 before it, a node with 0x01: no leaf can be taken for a node;
- a tree of n leaves splits at the largest power of two below n, so what is complete never changes;
- a tile holds up to 256 hashes of one level, 8 levels apart; levels between are computed from them;
- whoever verifies a proof gives it untrusted: a wrong length is a plain no, never an endless loop (A14).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

HASH_SIZE = 32
TILE_HEIGHT = 8
TILE_WIDTH = 1 << TILE_HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()

LARGEST_SIZE = (1 << 63) - 1
"""Leaves of the largest tree: sizes are signed 64-bit numbers wherever they are stored."""


def leaf_hash(leaf: bytes) -> bytes:
    """Hashes a leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hashes two nodes, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_and_paths(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """Gives the root over the leaves and each leaf's path, leaf to root.

    An odd node at the end of a level moves up unhashed, which is the same tree as the RFC's
    split at the largest power of two.
    """
    if not leaves:
        raise ValueError("a tree needs a leaf")
    level = [leaf_hash(leaf) for leaf in leaves]
    paths: list[list[bytes]] = [[] for _ in leaves]
    places = list(range(len(leaves)))
    while len(level) > 1:
        for leaf, place in enumerate(places):
            sibling = place ^ 1
            if sibling < len(level):
                paths[leaf].append(level[sibling])
            places[leaf] = place >> 1
        level = _next_level(level)
    return level[0], [tuple(path) for path in paths]


def root_of(hashes: Sequence[bytes]) -> bytes:
    """Gives the root over leaf (or node) hashes."""
    level = list(hashes)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        level = _next_level(level)
    return level[0]


def _next_level(level: Sequence[bytes]) -> list[bytes]:
    pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return pairs + list(level[len(pairs) * 2 :])


# --- proofs ------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Subtree:
    """Leaves lo to hi, without hi: what one hash of a proof stands for."""

    lo: int
    hi: int


def inclusion_proof(index: int, size: int) -> list[Subtree]:
    """Names the hashes that lead from a leaf to the root, leaf first (RFC 6962, 2.1.1)."""
    if not 0 <= index < size <= LARGEST_SIZE:
        raise ValueError("no such leaf in a tree of that size")
    lo, hi = 0, size
    path = []
    while hi - lo > 1:
        middle = lo + _split(hi - lo)
        if index < middle:
            path.append(Subtree(middle, hi))
            hi = middle
        else:
            path.append(Subtree(lo, middle))
            lo = middle
    return path[::-1]


def inclusion_proofs(indexes: Sequence[int], size: int) -> Iterator[Subtree]:
    """Names the hashes that the proofs of several leaves need together, each once.

    Args:
        indexes: of the leaves, growing.
        size: of the tree.
    """
    if indexes and not 0 <= indexes[0] <= indexes[-1] < size <= LARGEST_SIZE:
        raise ValueError("no such leaves in a tree of that size")
    open_ = [(0, size, 0, len(indexes))]  # a subtree, and which of the leaves lie in it
    while open_:
        lo, hi, first, last = open_.pop()
        if first == last or hi - lo == 1:
            continue
        middle = lo + _split(hi - lo)
        cut = bisect_left(indexes, middle, first, last)
        if cut < last:
            yield Subtree(lo, middle)
        if first < cut:
            yield Subtree(middle, hi)
        open_ += [(middle, hi, cut, last), (lo, middle, first, cut)]


def consistency_proof(old: int, new: int) -> list[Subtree]:
    """Names the hashes that show the old tree to be the beginning of the new one (RFC 6962, 2.1.2)."""
    if not 0 < old <= new <= LARGEST_SIZE:
        raise ValueError("sizes must be 0 < old <= new")
    lo, hi = 0, new
    proof = []
    while old != hi:
        middle = lo + _split(hi - lo)
        if old <= middle:
            proof.append(Subtree(middle, hi))
            hi = middle
        else:
            proof.append(Subtree(lo, middle))
            lo = middle
    if lo:  # else the old root itself, which the verifier has
        proof.append(Subtree(lo, hi))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tells whether the path leads from the leaf's hash to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size <= LARGEST_SIZE or not _are_hashes([leaf, root, *path]):
        return False
    node, last, digest = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if node & 1 or node == last:
            digest = node_hash(sibling, digest)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            digest = node_hash(digest, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and digest == root


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tells whether the old tree is the beginning of the new one (RFC 9162, 2.1.4.2).

    The empty tree is the beginning of every tree and has no proof.
    """
    if not 0 <= old <= new <= LARGEST_SIZE or not _are_hashes([old_root, new_root, *proof]):
        return False
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    rest = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not rest:
        return False
    node, last = old - 1, new - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = rest[0]
    for sibling in rest[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(sibling, first), node_hash(sibling, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == new_root


def _split(width: int) -> int:
    """Gives the largest power of two below a width of two or more."""
    return 1 << (width - 1).bit_length() - 1


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_SIZE for value in values)


# --- tiles -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, order=True)
class TileId:
    """A tile's place: `width` hashes of tree level 8 x `level`, beginning at `index` x 256."""

    level: int
    index: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """Gives the resource's name (C2SP tlog-tiles), as `tile/0/x001/067.p/17`."""
        groups = [f"{self.index % 1000:03d}"]
        rest = self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        partial = "" if self.width == TILE_WIDTH else f".p/{self.width}"
        return f"tile/{self.level}/{'/'.join(reversed(groups))}{partial}"

    @property
    def whole(self) -> TileId:
        """Gives the same tile when it is full."""
        return TileId(self.level, self.index)


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile with its hashes, one behind the other."""

    id: TileId
    data: bytes


def width_at(level: int, index: int, size: int) -> int:
    """Gives how many hashes a tile has in a tree of a size; 0 or less: it is not there."""
    return min(TILE_WIDTH, (size >> TILE_HEIGHT * level) - index * TILE_WIDTH)


def tiles_of(subtrees: Iterable[Subtree], size: int) -> set[TileId]:
    """Names the tiles that the hashes of some subtrees are computed from."""
    found = set()
    for subtree in subtrees:
        for level, index in _complete(subtree):
            found.add(_tile_of(level, index, size))
    return found


def subtree_hash(subtree: Subtree, size: int, tiles: Mapping[TileId, bytes]) -> bytes:
    """Computes the hash of a subtree from the tiles that `tiles_of` named."""
    parts = []
    for level, index in _complete(subtree):
        inner = level % TILE_HEIGHT
        first = (index << inner) % TILE_WIDTH
        data = tiles[_tile_of(level, index, size)]
        hashes = hashes_in(data)[first : first + (1 << inner)]
        parts.append(root_of(hashes))
    return _fold(parts)


def hashes_in(data: bytes) -> list[bytes]:
    """Splits a tile's data."""
    return [data[i : i + HASH_SIZE] for i in range(0, len(data), HASH_SIZE)]


def _complete(subtree: Subtree) -> list[tuple[int, int]]:
    """Splits a subtree of RFC 6962's into complete ones, left to right: level and index of each."""
    nodes = []
    lo = subtree.lo
    while lo < subtree.hi:
        level = (subtree.hi - lo).bit_length() - 1
        nodes.append((level, lo >> level))
        lo += 1 << level
    return nodes


def _tile_of(level: int, index: int, size: int) -> TileId:
    tile_level, inner = divmod(level, TILE_HEIGHT)
    tile_index = (index << inner) >> TILE_HEIGHT
    return TileId(tile_level, tile_index, width_at(tile_level, tile_index, size))


def _fold(parts: Sequence[bytes]) -> bytes:
    """Folds the hashes of complete subtrees, left to right and ever smaller, to one."""
    digest = parts[-1]
    for part in reversed(parts[:-1]):
        digest = node_hash(part, digest)
    return digest


class Edge:
    """The right edge of a growing tree: all that is needed to add leaves and to know the root.

    Holds at most 255 hashes a tile level, so a tree of a thousand million leaves costs 32 kB.
    """

    def __init__(self) -> None:
        """Begins with the empty tree."""
        self.size = 0
        self._levels: list[list[bytes]] = []

    @staticmethod
    def tiles_at(size: int) -> list[TileId]:
        """Names the unfinished tiles of a tree: what `load` wants."""
        found = []
        level = 0
        while size >> TILE_HEIGHT * level:
            index, width = divmod(size >> TILE_HEIGHT * level, TILE_WIDTH)
            if width:
                found.append(TileId(level, index, width))
            level += 1
        return found

    @classmethod
    def load(cls, size: int, tiles: Mapping[TileId, bytes]) -> Edge:
        """Makes the edge of a tree from its unfinished tiles; the caller compares the root.

        Raises:
            ValueError: a tile holds fewer hashes than it must.
        """
        edge = cls()
        edge.size = size
        for tile in cls.tiles_at(size):
            while len(edge._levels) <= tile.level:
                edge._levels.append([])
            hashes = hashes_in(tiles[tile])[: tile.width]
            if len(hashes) != tile.width or not _are_hashes(hashes):
                raise ValueError(f"{tile.path} is cut short")
            edge._levels[tile.level] = hashes
        return edge

    def copy(self) -> Edge:
        """Gives an edge that grows on its own."""
        other = Edge()
        other.size = self.size
        other._levels = [list(level) for level in self._levels]
        return other

    def extend(self, hashes: Iterable[bytes]) -> list[Tile]:
        """Adds leaf hashes; gives the tiles that became full, lower ones first."""
        full: list[Tile] = []
        for digest in hashes:
            self.size += 1
            self._add(0, digest, full)
        return full

    def partial(self) -> list[Tile]:
        """Gives the unfinished tiles."""
        return [Tile(tile, b"".join(self._levels[tile.level])) for tile in self.tiles_at(self.size)]

    def root(self) -> bytes:
        """Gives the root of the tree."""
        parts: list[bytes] = []
        for hashes in reversed(self._levels):
            parts += [
                root_of(hashes[lo : lo + (1 << level)])
                for level, lo in ((lv, index << lv) for lv, index in _complete(Subtree(0, len(hashes))))
            ]
        return _fold(parts) if parts else EMPTY_ROOT

    def _add(self, level: int, digest: bytes, full: list[Tile]) -> None:
        if len(self._levels) == level:
            self._levels.append([])
        hashes = self._levels[level]
        hashes.append(digest)
        if len(hashes) == TILE_WIDTH:
            index = (self.size >> TILE_HEIGHT * (level + 1)) - 1
            full.append(Tile(TileId(level, index), b"".join(hashes)))
            self._levels[level] = []
            self._add(level + 1, root_of(hashes), full)
