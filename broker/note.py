"""Signed notes (C2SP signed-note) and witness cosignatures (C2SP tlog-cosignature); pure.

A note is text, a blank line, and one line a signature:

    broker.example/ledger
    42
    qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=

    — broker.example/ledger 2NEb1wAA…

Invariants:
- a signature counts only under a key that the reader brought: its name and 32-bit id select the key, the
  signature decides; unknown signatures are kept and mean nothing;
- a note that is not exactly of this form is refused whole: what was signed has one spelling.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ED25519 = 0x01
COSIGNATURE = 0x04
"""Types of keys: a log's (or anybody's), and a witness's, whose signatures tell a time."""

MOST_BYTES = 1 << 20
MOST_SIGNATURES = 100
"""Bounds on what is parsed: no note can cost more than a moment."""

_DASH = "\u2014 "
_KEY_ID_SIZE = 4
_PUBLIC_SIZE = 32
_SIGNATURE_SIZE = 64
_TIME_SIZE = 8


class NoteInvalidError(ValueError):
    """A note, a key or a signature is not of the form that it must have."""


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with its name, written `name+id+key` (the "vkey" of C2SP signed-note)."""

    name: str
    algorithm: int
    public: bytes

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Reads a key.

        Raises:
            NoteInvalidError: it is none, of an unknown type, or its id is another key's.
        """
        parts = text.strip().split("+", 2)
        if len(parts) != 3:  # noqa: PLR2004 - name, id, key
            raise NoteInvalidError("not a key; it reads name+id+key")
        name, key_id, encoded = parts
        raw = _base64(encoded)
        if not _is_name(name) or len(raw) != 1 + _PUBLIC_SIZE or raw[0] not in {ED25519, COSIGNATURE}:
            raise NoteInvalidError("not an Ed25519 key of a log or a witness")
        key = cls(name, raw[0], raw[1:])
        if key_id != key.key_id.hex():
            raise NoteInvalidError("the id in the key is not the key's")
        return key

    def __str__(self) -> str:
        """Writes the key as it is handed to auditors."""
        encoded = base64.b64encode(bytes([self.algorithm]) + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @property
    def key_id(self) -> bytes:
        """Gives the 4 bytes that select the key."""
        material = self.name.encode() + b"\n" + bytes([self.algorithm]) + self.public
        return hashlib.sha256(material).digest()[:_KEY_ID_SIZE]

    def verifies(self, text: str, signature: bytes) -> bool:
        """Tells whether the bytes behind the key's id are this key's signature over the text."""
        if self.algorithm == COSIGNATURE:
            if len(signature) != _TIME_SIZE + _SIGNATURE_SIZE:
                return False
            signed = _cosigned(text, cosignature_time(signature))
            signature = signature[_TIME_SIZE:]
        else:
            signed = text.encode()
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, signed)
        except (InvalidSignature, ValueError):
            return False
        return True


class NoteSigner(Protocol):
    """One key that signs notes, wherever it lives; the seam for a key management service."""

    @property
    def key(self) -> VerifierKey:
        """Gives the public half."""

    def sign(self, text: str) -> bytes:
        """Signs a note's text; gives what stands behind the key's id."""


class FileNoteSigner:
    """An Ed25519 private key in this process's memory."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        """Holds the key under a name."""
        if not _is_name(name):
            raise NoteInvalidError("a key's name has no spaces and no plus")
        self.key = VerifierKey(name, ED25519, private.public_key().public_bytes_raw())
        self._private = private

    def sign(self, text: str) -> bytes:
        """Signs the text."""
        return self._private.sign(text.encode())


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line."""

    name: str
    key_id: bytes
    data: bytes

    @property
    def line(self) -> str:
        """Writes the line, without its end."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.data).decode()}"


@dataclass(frozen=True, slots=True)
class Note:
    """A text that ends in a newline, with its signatures, none of them verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, data: str) -> Note:
        """Reads a note.

        Raises:
            NoteInvalidError: it is none.
        """
        if len(data) > MOST_BYTES or any(ord(c) < 0x20 and c != "\n" for c in data):  # noqa: PLR2004
            raise NoteInvalidError("not a note: too long, or control characters")
        text, found, tail = data.rpartition("\n\n")
        lines = tail.split("\n")
        if not found or lines.pop() or not 0 < len(lines) <= MOST_SIGNATURES:
            raise NoteInvalidError("not a note: text, a blank line, signatures")
        return cls(text + "\n", tuple(_signature(line) for line in lines))

    def __str__(self) -> str:
        """Writes the note."""
        return f"{self.text}\n" + "".join(f"{signature.line}\n" for signature in self.signatures)

    def verified_by(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """Gives those of the keys whose signature stands and holds.

        A signature that names a key and does not hold spoils nothing but itself.
        """
        return [key for key in keys if self.signatures_of(key)]

    def signatures_of(self, key: VerifierKey) -> list[Signature]:
        """Gives the signatures that hold under a key."""
        return [
            signature
            for signature in self.signatures
            if signature.name == key.name
            and signature.key_id == key.key_id
            and key.verifies(self.text, signature.data)
        ]

    def with_signatures(self, more: Sequence[Signature]) -> Note:
        """Adds signatures that are not there yet.

        Raises:
            NoteInvalidError: nobody would read a note with so many.
        """
        fresh = tuple(signature for signature in more if signature not in self.signatures)
        if len(self.signatures) + len(fresh) > MOST_SIGNATURES:
            raise NoteInvalidError(f"a note has at most {MOST_SIGNATURES} signatures")
        return replace(self, signatures=(*self.signatures, *fresh))


def sign(text: str, *signers: NoteSigner) -> Note:
    """Signs a text, in the order of the signers."""
    if not text.endswith("\n") or "\n\n" in text:
        raise NoteInvalidError("a note's text ends in a newline and has no blank line")
    return Note(text, tuple(Signature(s.key.name, s.key.key_id, s.sign(text)) for s in signers))


def cosignature_time(data: bytes) -> int:
    """Gives the time in a witness's signature, POSIX seconds."""
    return int.from_bytes(data[:_TIME_SIZE], "big")


def _cosigned(text: str, time: int) -> bytes:
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _signature(line: str) -> Signature:
    name, found, encoded = line.removeprefix(_DASH).partition(" ")
    raw = _base64(encoded)
    if not line.startswith(_DASH) or not found or not _is_name(name) or len(raw) <= _KEY_ID_SIZE:
        raise NoteInvalidError("not a signature line")
    return Signature(name, raw[:_KEY_ID_SIZE], raw[_KEY_ID_SIZE:])


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError as exc:
        raise NoteInvalidError("not base64") from exc
    if base64.b64encode(raw).decode() != text:  # one spelling for everything
        raise NoteInvalidError("not base64 in its one spelling")
    return raw


def _is_name(name: str) -> bool:
    return bool(name) and not any(c.isspace() or c == "+" for c in name)
