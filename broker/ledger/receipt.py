"""Receipts: one signature per commit group, one Merkle path per event (RFC 6962 hashing)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a leaf is in a commit group whose root the broker signed."""

    leaf: bytes
    leaf_index: int
    tree_size: int
    path: tuple[bytes, ...]
    signed_root: str


def leaf_hash(leaf: bytes) -> bytes:
    """Hashes a leaf, 32 bytes."""
    return hashlib.sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hashes two nodes, 32 bytes."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_and_paths(leaves: Sequence[bytes]) -> tuple[bytes, list[tuple[bytes, ...]]]:
    """Gives the root of RFC 6962's tree over the leaves and each leaf's path, leaf to root.

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
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0], [tuple(path) for path in paths]


def receipts(leaves: Sequence[bytes], sign_root: Callable[[bytes, int], str]) -> list[Receipt]:
    """Makes the receipts of one commit group with a single signature.

    Args:
        leaves: the stored bytes, in the group's order.
        sign_root: gives the compact JWS over root and size.
    """
    root, paths = root_and_paths(leaves)
    signed = sign_root(root, len(leaves))
    return [
        Receipt(leaf, index, len(leaves), path, signed)
        for index, (leaf, path) in enumerate(zip(leaves, paths, strict=True))
    ]
