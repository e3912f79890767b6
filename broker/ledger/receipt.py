"""Receipts: one signature per commit group, one Merkle path per event (RFC 6962 hashing)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.merkle import root_and_paths


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a leaf is in a commit group whose root the broker signed."""

    leaf: bytes
    leaf_index: int
    tree_size: int
    path: tuple[bytes, ...]
    signed_root: str


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
