"""A receipt proves what it says to somebody who asks nobody."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm

from broker.client import Receipt, ReceiptInvalidError, verify_receipt
from broker.client.receipts import root_of

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
HEADERS = {"kid": "k1", "typ": "broker-receipt+jwt"}


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree(leaves: list[bytes]) -> bytes:
    """Hashes a tree by the recursive definition of RFC 6962, 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return node(tree(leaves[:k]), tree(leaves[k:]))


def path_of(index: int, leaves: list[bytes]) -> list[bytes]:
    """Gives the path by the recursive definition of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    k = 1 << (len(leaves) - 1).bit_length() - 1
    if index < k:
        return [*path_of(index, leaves[:k]), tree(leaves[k:])]
    return [*path_of(index - k, leaves[k:]), tree(leaves[:k])]


def leaf(number: int) -> bytes:
    return json.dumps({"event": number}).encode()


def receipt(key=KEY, headers=HEADERS, alg="ES256", place=2, of=5, **claims) -> Receipt:
    leaves = [leaf(n) for n in range(of)]
    root = base64.urlsafe_b64encode(tree(leaves)).rstrip(b"=").decode()
    body = {"root": root, "size": of, "iat": 1_800_000_000, **claims}
    return Receipt(
        leaf=leaves[place],
        leaf_index=place,
        tree_size=of,
        path=tuple(path_of(place, leaves)),
        signed_root=jwt.encode(body, key, alg, dict(headers)),
    )


def jwks(key=KEY, kid="k1") -> dict:
    return {
        "keys": [
            {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256", "use": "sig"}
        ]
    }


CHANGES = {
    "another leaf": lambda r: replace(r, leaf=leaf(3)),
    "another place": lambda r: replace(r, leaf_index=3),
    "a place outside": lambda r: replace(r, leaf_index=5),
    "a negative place": lambda r: replace(r, leaf_index=-1),
    "another size": lambda r: replace(r, tree_size=6),
    "an empty tree": lambda r: replace(r, tree_size=0),
    "a shorter path": lambda r: replace(r, path=r.path[:-1]),
    "a longer path": lambda r: replace(r, path=(*r.path, b"\0" * 32)),
    "an endless path": lambda r: replace(r, path=(b"\0" * 32,) * 100_000),
    "a hash of another length": lambda r: replace(r, path=(b"\0" * 31, *r.path[1:])),
    "a node passed off as a leaf": lambda r: replace(r, leaf=b"".join(r.path[:2]), leaf_index=0),
    "no JWS": lambda r: replace(r, signed_root="a.b.c"),
    "no signed root": lambda r: replace(r, signed_root=""),
    "no signature": lambda r: replace(r, signed_root=r.signed_root.rpartition(".")[0] + "."),
}
FORGERIES = {
    "another key": {"key": OTHER},
    "another kid": {"headers": {**HEADERS, "kid": "k2"}},
    "no kid": {"headers": {"typ": HEADERS["typ"]}},
    "a grant's type": {"headers": {**HEADERS, "typ": "broker-grant+jwt"}},
    "a key of its own": {"key": OTHER, "headers": {**HEADERS, "jwk": {"kty": "EC"}}},
    "alg none": {"key": "", "alg": "none"},
    "a shared secret": {"key": "x" * 32, "alg": "HS256"},
    "no root": {"root": None},
    "another root": {"root": "AAAA"},
    "a size as text": {"size": "5"},
    "a time as text": {"iat": "now"},
    "a time out of range": {"iat": 1e300},
}


class TestRootOf:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 70), st.data())
    def test_is_the_root_for_every_leaf_of_every_tree(self, size, data):
        """The loop gives what the recursive definition gives."""
        index = data.draw(st.integers(0, size - 1))
        leaves = [leaf(n) for n in range(size)]

        assert root_of(leaves[index], index, size, path_of(index, leaves)) == tree(leaves)


class TestVerifyReceipt:
    def test_accepts_a_true_one(self):
        """The event and the time of signature come out, from a parsed set or from its text."""
        verified = verify_receipt(receipt(), jwks())

        assert verified.event == {"event": 2}
        assert verified.sign_time.timestamp() == 1_800_000_000
        assert verify_receipt(receipt(), json.dumps(jwks())) == verified

    def test_accepts_a_lone_one(self):
        """A group of one has an empty path."""
        assert verify_receipt(receipt(place=0, of=1), jwks()).event == {"event": 0}

    @pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
    def test_refuses_a_changed_one(self, change):
        """Whatever is changed in a receipt, it proves nothing any more."""
        with pytest.raises(ReceiptInvalidError):
            verify_receipt(change(receipt()), jwks())

    @pytest.mark.parametrize("options", FORGERIES.values(), ids=FORGERIES)
    def test_refuses_a_forged_one(self, options):
        """A root signed by another key, in another way or as another thing proves nothing."""
        with pytest.raises(ReceiptInvalidError):
            verify_receipt(receipt(**options), jwks())

    @pytest.mark.parametrize("keys", [{}, {"keys": []}, {"keys": None}, {"keys": [{"kid": "k1"}]}], ids=repr)
    def test_refuses_without_the_key(self, keys):
        """An empty or broken set verifies nothing."""
        with pytest.raises(ReceiptInvalidError):
            verify_receipt(receipt(), keys)

    def test_refuses_an_ambiguous_key(self):
        """Two keys under one id are none."""
        twice = {"keys": jwks()["keys"] + jwks(OTHER)["keys"]}
        with pytest.raises(ReceiptInvalidError):
            verify_receipt(receipt(), twice)
