"""What a server does with the keys: signs with the active one, verifies with all that live."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from broker import jose
from broker.errors import InternalError, StartupError
from broker.keys.folder import KeyFolder, KeyInfo, KeyState, with_states

ALGORITHM = "ES256"
"""The one algorithm that we sign with."""

LOOK_INTERVAL = 1.0
"""Seconds between looks at the manifest: a revoked key is out of every process after this."""

_COORDINATE_BYTES = 32
_KID_LENGTH = 43  # a thumbprint
_SIGNATURE_LENGTH = 88  # 64 bytes, and the two dots
_ES256 = ec.ECDSA(hashes.SHA256())
_ENCODER = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


class Signer(Protocol):
    """One key that signs, wherever it lives; the seam for a key management service.

    `sign` runs on the event loop: an implementation that goes over a network keeps its own thread
    and its own bound on time.
    """

    @property
    def kid(self) -> str:
        """Names the key."""

    def sign(self, data: bytes) -> bytes:
        """Signs with ES256; gives r and s as 64 bytes (RFC 7518, 3.4)."""


class FileSigner:
    """A private key read from its file."""

    def __init__(self, kid: str, private: ec.EllipticCurvePrivateKey) -> None:
        """Holds the key."""
        self.kid = kid
        self._private = private

    def sign(self, data: bytes) -> bytes:
        """Signs with ES256."""
        r, s = decode_dss_signature(self._private.sign(data, _ES256))
        return r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")


class SigningKeys:
    """The keys in force now; follows the folder's manifest without a restart.

    A manifest that has become wrong leaves the last good keys in force, each until its own time, a key
    that was meant to be revoked among them; `trouble` says what is wrong, for an alert.
    """

    def __init__(
        self,
        folder: KeyFolder | Path,
        clock: Callable[[], float],
        *,
        signer: Callable[[KeyInfo], Signer] | None = None,
    ) -> None:
        """Reads the keys.

        Args:
            folder: where they are.
            clock: POSIX seconds.
            signer: makes what signs for a key; the private key's file by default.

        Raises:
            StartupError: a key is wrong or open to others, or none signs.
        """
        self._folder = folder if isinstance(folder, KeyFolder) else KeyFolder(folder)
        self._clock = clock
        self._make_signer = signer or self._file_signer
        self.error = ""
        self._stamp = self._folder.stamp()
        self._keys: tuple[KeyInfo, ...] = ()
        self._signers: dict[str, Signer] = {}
        now = clock()
        self._look_time = now + LOOK_INTERVAL
        self._read(now)
        self._settle(now)

    def verifying(self, kid: str = "") -> jose.KeySet:
        """Gives the public keys of all that live, those that do not sign yet among them.

        Args:
            kid: the key that is looked for. One that is not among them is worth a look at the manifest
                out of turn: after an emergency a key signs in another process before our next look.
        """
        self._follow(kid)
        return self._living

    def known(self, kid: str = "") -> jose.KeySet:
        """Gives every public key that ever was; for old receipts and seals, never for tokens."""
        self._follow(kid)
        return self._known

    def jwks(self) -> str:
        """Gives the JWK Set that we publish."""
        self._follow()
        return self._jwks

    def sign(self, header: Mapping[str, str], claims: Mapping[str, object]) -> str:
        """Signs claims as a compact JWS; `alg` and `kid` are put into the header."""
        return sign_compact(self._signing(), header, claims)

    def sign_bytes(self, label: str, data: bytes) -> tuple[str, bytes]:
        """Signs bytes for one purpose; gives the key's id and the signature.

        Args:
            label: what is signed, as `receipt`; a signature for one label is none for another, and
                never one of a token, whose signed text holds neither colon nor newline.
            data: the bytes.
        """
        signer = self._signing()
        return signer.kid, signer.sign(_labelled(label, data))

    def verify_bytes(self, kid: str, label: str, data: bytes, signature: bytes) -> bool:
        """Says whether a key of ours, living or gone, signed these bytes for this purpose."""
        key = self.known(kid).get(kid)
        if key is None or len(signature) != 2 * _COORDINATE_BYTES:
            return False
        r = int.from_bytes(signature[:_COORDINATE_BYTES], "big")
        s = int.from_bytes(signature[_COORDINATE_BYTES:], "big")
        if not isinstance(key.public, ec.EllipticCurvePublicKey):
            return False
        try:
            key.public.verify(encode_dss_signature(r, s), _labelled(label, data), _ES256)
        except InvalidSignature:
            return False
        return True

    def trouble(self) -> str:
        """Looks at the manifest where that is due; says what is wrong with it, or ""."""
        self._follow()
        return self.error

    def list(self) -> tuple[KeyInfo, ...]:
        """Gives all keys with their states."""
        self._follow()
        return self._infos

    def _signing(self) -> Signer:
        self._follow()
        if self._active is None:  # cannot be while the clock goes forward: the last key has no end
            raise InternalError(cause="no key signs")
        return self._active

    def _follow(self, kid: str = "") -> None:
        """Looks at the manifest once a second and for an unknown key, and moves keys on when due."""
        now = self._clock()
        is_due = now < self._settled or now >= self._look_time
        # Whoever sends made-up ids costs a look at the file's inode each, and no more.
        is_unknown = bool(kid) and self._known.get(kid) is None
        is_new = (is_due or is_unknown) and self._look(now)
        if is_due or is_new or now >= self._next_change:
            self._settle(now)

    def _look(self, now: float) -> bool:
        """Reads the manifest where it has changed; says whether it was."""
        self._look_time = now + LOOK_INTERVAL
        try:
            stamp = self._folder.stamp()
            if stamp != self._stamp:
                self._read(now)
                self._stamp = stamp
                self.error = ""
                return True
        except (StartupError, OSError) as exc:
            self.error = str(exc) if isinstance(exc, StartupError) else type(exc).__name__
        return False

    def _read(self, now: float) -> None:
        keys = self._folder.list(now)
        if not any(key.state is KeyState.ACTIVE for key in keys):
            raise StartupError(
                f"{self._folder.folder}: no key signs; make one with `broker keys rotate --now`"
            )
        signers = {
            key.kid: self._signers.get(key.kid) or self._make_signer(key)
            for key in keys
            if key.state is not KeyState.GONE
        }
        self._keys, self._signers = keys, signers

    def _settle(self, now: float) -> None:
        """Computes what is in force at `now`, and until when that holds."""
        times = [t for key in self._keys for t in (key.sign_time, key.gone_time) if t is not None and t > now]
        self._settled = now
        self._next_change = min(times, default=math.inf)
        self._infos = with_states(self._keys, now)
        living = [key for key in self._infos if key.state is not KeyState.GONE]
        active = next((key for key in living if key.state is KeyState.ACTIVE), None)
        self._active = self._signers.get(active.kid) if active else None
        self._living = jose.KeySet(key.public for key in living)
        self._known = jose.KeySet(key.public for key in self._infos)
        self._jwks = json.dumps({"keys": [published(key) for key in living]})

    def _file_signer(self, key: KeyInfo) -> Signer:
        return FileSigner(key.kid, self._folder.private_key(key.kid))


def sign_compact(signer: Signer, header: Mapping[str, str], claims: Mapping[str, object]) -> str:
    """Signs claims as a compact JWS with any signer; `alg` and `kid` are put into the header."""
    signing_input = f"{_header(signer.kid, tuple(header.items()))}.{_segment(claims)}"
    return f"{signing_input}.{_base64url(signer.sign(signing_input.encode('ascii')))}"


def compact_length(header: Mapping[str, str], claims: Mapping[str, object]) -> int:
    """Gives the length of what `sign_compact` would make, whichever key of ours signs."""
    return len(_header("k" * _KID_LENGTH, tuple(header.items()))) + len(_segment(claims)) + _SIGNATURE_LENGTH


def published(key: KeyInfo) -> dict[str, object]:
    """Gives a key's public half as the JWK that we publish while it lives."""
    return {**jose.public_jwk(key.public.public), "kid": key.kid, "alg": ALGORITHM, "use": "sig"}


def _labelled(label: str, data: bytes) -> bytes:
    return f"broker:{label}\n".encode("ascii") + data


@lru_cache(maxsize=64)
def _header(kid: str, members: tuple[tuple[str, str], ...]) -> str:
    return _segment({"alg": ALGORITHM, **dict(members), "kid": kid})


def _segment(members: Mapping[str, object]) -> str:
    return _base64url(_ENCODER.encode(members).encode("ascii"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
