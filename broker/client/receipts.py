"""Offline proof that one disclosure stands in the broker's ledger.

Invariants:
- nothing is asked of the broker: the receipt and the broker's public keys are enough;
- one algorithm, one type, keys by exact `kid`; whatever the JWS says beside that is refused.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from broker.client.errors import ReceiptInvalidError
from broker.client.values import Receipt

TYPE = "broker-receipt+jwt"
ALGORITHM = "ES256"
HASH_SIZE = 32
LONGEST_PATH = 64
"""Hashes in a path: enough for any tree, so that no receipt can cost more than a millisecond."""


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """What a receipt proves: this event was committed before this time."""

    event: Mapping[str, Any]
    sign_time: datetime


def verify_receipt(receipt: Receipt, jwks: str | Mapping[str, Any]) -> VerifiedReceipt:
    """Verifies a receipt against the broker's JWK Set.

    Args:
        receipt: as `read` gave it.
        jwks: the set, as JSON text or parsed; from `BrokerClient.jwks` or from `/jwks.json`.

    Raises:
        ReceiptInvalidError: the receipt proves nothing; says at which step.
    """
    # To trust a receipt we must:
    #   1. verify the signature over the root with a key of the broker's;
    #   2. fold the leaf and its path to a root;
    #   3. find the same root, of a tree of the same size.
    claims = _signed_claims(receipt.signed_root, json.loads(jwks) if isinstance(jwks, str) else jwks)  # (1)
    root = root_of(receipt.leaf, receipt.leaf_index, receipt.tree_size, receipt.path)  # (2)
    signed = base64.urlsafe_b64encode(root).rstrip(b"=").decode()
    if claims.get("root") != signed or claims.get("size") != receipt.tree_size:  # (3)
        raise ReceiptInvalidError("the signed root is not the root of this leaf")
    try:
        return VerifiedReceipt(json.loads(receipt.leaf), datetime.fromtimestamp(claims["iat"], UTC))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise ReceiptInvalidError("the leaf or the time of signature cannot be read") from None


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """Folds a leaf and its inclusion path to the root (RFC 6962; the loop of RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or len(path) > LONGEST_PATH or any(len(p) != HASH_SIZE for p in path):
        raise ReceiptInvalidError("the path is not one of this tree")
    node, last = index, size - 1
    digest = hashlib.sha256(b"\x00" + leaf).digest()
    for sibling in path:
        if last == 0:
            raise ReceiptInvalidError("the path is longer than the tree is high")
        if node & 1 or node == last:
            digest = hashlib.sha256(b"\x01" + sibling + digest).digest()
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            digest = hashlib.sha256(b"\x01" + digest + sibling).digest()
        node, last = node >> 1, last >> 1
    if last:
        raise ReceiptInvalidError("the path is shorter than the tree is high")
    return digest


def _signed_claims(token: str, jwks: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
        if set(header) != {"alg", "kid", "typ"} or header["typ"] != TYPE or header["alg"] != ALGORITHM:
            raise ReceiptInvalidError("the signed root is not a receipt of a broker")
        known = [key for key in jwks["keys"] if key.get("kid") == header["kid"]]
        if len(known) != 1:
            raise ReceiptInvalidError("the key that signed is not one of the broker's")
        key = jwt.PyJWK(known[0], algorithm=ALGORITHM)
        # Its time is proof, not validity: a receipt does not end, and clocks differ.
        options: Any = {"require": ["root", "size", "iat"], "verify_iat": False}
        claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=[ALGORITHM], options=options)
    except (jwt.PyJWTError, KeyError, TypeError, AttributeError, ValueError):
        raise ReceiptInvalidError("the signature over the root does not hold") from None
    return claims
