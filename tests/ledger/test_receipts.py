"""Paths are RFC 6962's, receipts verify offline."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client import Receipt, ReceiptInvalidError, verify_receipt
from broker.keys import KeyFolder, SigningKeys
from broker.ledger import receipts
from broker.merkle import root_and_paths
from broker.server.parts import sign_root
from tests.ledger.conftest import denial


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def mth(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1, word by word."""
    n = len(leaves)
    if n == 1:
        return sha(b"\x00", leaves[0])
    k = 1
    while k * 2 < n:
        k *= 2
    return sha(b"\x01", mth(leaves[:k]), mth(leaves[k:]))


def path(m: int, leaves: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1, word by word."""
    n = len(leaves)
    if n == 1:
        return []
    k = 1
    while k * 2 < n:
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


A, B, C = sha(b"\x00", b"a"), sha(b"\x00", b"b"), sha(b"\x00", b"c")
AB = sha(b"\x01", A, B)
VECTORS = {
    "one": ([b"a"], A, [()]),
    "two": ([b"a", b"b"], AB, [(B,), (A,)]),
    "three": ([b"a", b"b", b"c"], sha(b"\x01", AB, C), [(B, C), (A, C), (AB,)]),
}
"""Written down by hand from the definition."""


class TestPaths:
    @pytest.mark.parametrize(("leaves", "root", "paths"), VECTORS.values(), ids=VECTORS)
    def test_vectors(self, leaves, root, paths):
        """Roots and paths of the smallest trees are those written down by hand."""
        assert root_and_paths(leaves) == (root, paths)

    @given(st.integers(1, 130))
    @settings(max_examples=80, deadline=None)
    def test_are_those_of_the_rfc(self, size):
        """Level by level gives what the recursive definition gives, for every leaf."""
        leaves = [f"leaf {n}".encode() for n in range(size)]
        root, paths = root_and_paths(leaves)

        assert root == mth(leaves)
        assert [list(p) for p in paths] == [path(m, leaves) for m in range(size)]

    def test_a_tree_needs_a_leaf(self):
        """The root of nothing is never signed."""
        with pytest.raises(ValueError, match="leaf"):
            receipts([], lambda _root, _size: "signed")

    def test_one_signature_for_a_group(self):
        """However many events a group has, one root is signed, and none before somebody wants a receipt."""
        signed = []
        made = receipts([b"x"] * 100, lambda root, size: signed.append((root, size)) or "s")
        assert not signed

        assert {receipt.signed_root for receipt in made} == {"s"}
        assert len(signed) == 1
        assert signed[0][1] == 100
        assert {r.leaf_index for r in made} == set(range(100))


async def test_receipts_of_a_group_verify_offline(ground, tmp_path):
    """Receipts made in one commit verify with the published keys alone, and not with a byte changed."""
    folder = KeyFolder(tmp_path / "keys")
    folder.rotate(time.time(), immediately=True)
    keys = SigningKeys(folder, time.time)
    ledger = await ground.ledger(sign_root=partial(sign_root, keys, time.time))
    case = await ground.case()
    grant = case.grant()
    items = [grant, *(denial() for _ in range(4))]
    verdicts = await asyncio.gather(*(ledger.append(item) for item in items))
    verdicts += await asyncio.gather(*(ledger.append(case.read(grant)) for _ in range(6)))

    sizes = set()
    for verdict in verdicts:
        receipt = Receipt(**{name: getattr(verdict.receipt, name) for name in Receipt.__slots__})
        event = verify_receipt(receipt, keys.jwks()).event
        stored = await ground.conn.fetchval(
            "SELECT leaf FROM broker.ledger_event WHERE id = $1::uuid", event["id"]
        )
        assert stored == receipt.leaf
        assert json.loads(stored) == event
        sizes.add(receipt.tree_size)
        changed = receipt.leaf.replace(b'"v":1', b'"v":2')
        with pytest.raises(ReceiptInvalidError):
            verify_receipt(replace(receipt, leaf=changed), keys.jwks())
    assert max(sizes) > 1  # they did share a commit
