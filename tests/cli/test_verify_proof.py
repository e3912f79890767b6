"""`broker audit verify-proof` reads what an adversary wrote: a leaf may be proven and be anything."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.merkle import leaf_hash
from broker.note import FileNoteSigner, sign
from broker.tlog import Checkpoint, InclusionProof

SIGNER = FileNoteSigner("broker.test/ledger", Ed25519PrivateKey.from_private_bytes(b"1" * 32))
EVENT = "019ab0c2-0000-7000-8000-000000000000"


@pytest.fixture
def verified(broker, tmp_path):
    """Proves that a leaf is the only one of a log; gives a function that runs the command on it."""

    def verify(leaf: bytes, *options: str):
        note = sign(Checkpoint("broker.test/ledger", 1, leaf_hash(leaf)).text, SIGNER)
        proof = InclusionProof(leaf, 0, (), str(note))
        (tmp_path / "proof.json").write_text(json.dumps(proof.as_json()))
        return broker("audit", "verify-proof", tmp_path / "proof.json", "--key", SIGNER.key, *options)

    return verify


@pytest.mark.attack("A14")
@pytest.mark.parametrize(
    "leaf",
    [b"", b"\x00\xff", b"not JSON", b"[]", b"7", b"{}", b'{"id":{}}', b'{"id":"\\u001b[2J"}', b"[" * 100_000],
    ids=lambda leaf: repr(leaf[:20]),
)
def test_a14_a_proven_leaf_that_is_no_event(verified, leaf):
    """It is in the log, and no event: that is told, and nothing of it reaches the terminal as it is."""
    said = verified(leaf)
    assert said.code == 0, said.err
    assert "leaf 0 of the log of size 1 is no event" in said.err
    assert said.out.strip().isprintable()

    said = verified(leaf, "--json")
    assert (said.code, said.data["event"], said.data["index"]) == (0, None, 0)


@pytest.mark.attack("A11")
def test_a11_escapes_in_a_proven_leaf(verified):
    """Bytes that would move the cursor are shown as base64, also inside an event."""
    said = verified(b'{"id":"%s","x":"\x7f\x9b"}' % EVENT.encode())

    assert said.code == 0
    assert said.out.strip().isprintable()


def test_an_event(verified):
    """The control: an event is told by its id and shown as its bytes are."""
    leaf = json.dumps({"id": EVENT})
    said = verified(leaf.encode())

    assert (said.code, said.out) == (0, leaf + "\n")
    assert f"event {EVENT} is leaf 0 of the log of size 1" in said.err
    assert verified(leaf.encode(), "--json").data["event"] == {"id": EVENT}
