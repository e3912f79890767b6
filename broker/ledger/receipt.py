"""Receipts: one signature per commit group, one Merkle path per event (RFC 6962 hashing)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from broker.merkle import root_and_paths


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof that a leaf is in a commit group whose root the broker signed."""

    leaf: bytes
    leaf_index: int
    tree_size: int
    path: tuple[bytes, ...]
    sign: Callable[[], str]

    @property
    def signed_root(self) -> str:
        """Gives the compact JWS over the group's root; made when the first of the group asks for it."""
        return self.sign()


def receipts(leaves: Sequence[bytes], sign_root: Callable[[bytes, int], str]) -> list[Receipt]:
    """Makes the receipts of one commit group with a single signature, if anybody wants one.

    Grants and refusals hand out no receipt; a group of those alone is never signed.

    Args:
        leaves: the stored bytes, in the group's order.
        sign_root: gives the compact JWS over root and size.
    """
    root, paths = root_and_paths(leaves)
    sign = cache(lambda: sign_root(root, len(leaves)))
    return [
        Receipt(leaf, index, len(leaves), path, sign)
        for index, (leaf, path) in enumerate(zip(leaves, paths, strict=True))
    ]
