"""A witness of C2SP tlog-cosignature, written from the specification and not from our verifier."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.note import COSIGNATURE, Signature, VerifierKey


class Witness:
    """Cosigns whatever it is given."""

    def __init__(self, name: str, seed: bytes) -> None:
        """Makes its key."""
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = VerifierKey(name, COSIGNATURE, self._private.public_key().public_bytes_raw())

    def cosign(self, text: str, time: int) -> Signature:
        """Says that at `time` (POSIX seconds) this was the latest checkpoint it knew."""
        signed = self._private.sign(f"cosignature/v1\ntime {time}\n{text}".encode())
        return Signature(self.key.name, self.key.key_id, time.to_bytes(8, "big") + signed)
