"""Proofs that stand alone: one event is in the log, one checkpoint continues another; pure.

Invariants:
- a proof brings everything but the key: leaf, path, signed checkpoint, records of key rotation;
- it is read as what an adversary wrote; a broken one is refused with a sentence, never a crash.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from broker.merkle import leaf_hash, verify_consistency, verify_inclusion
from broker.note import COSIGNATURE, Note, NoteInvalidError, VerifierKey, cosignature_time
from broker.tlog.checkpoint import Checkpoint, LogInvalidError, TrustedKeys

MOST_BYTES = 4 << 20
"""Longest proof file: a leaf, a checkpoint, and as many rotations as anybody makes."""

INCLUSION, CONSISTENCY = "inclusion", "consistency"


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """One event is leaf `index` of the log at a checkpoint."""

    leaf: bytes
    index: int
    path: tuple[bytes, ...]
    checkpoint: str
    rotations: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Writes the proof."""
        return {
            "type": INCLUSION,
            "version": 1,
            "leaf": _encode(self.leaf),
            "index": self.index,
            "path": [_encode(digest) for digest in self.path],
            "checkpoint": self.checkpoint,
            "rotations": list(self.rotations),
        }

    def verify(self, anchors: Sequence[VerifierKey]) -> Checkpoint:
        """Gives the checkpoint under which the event is in the log.

        Raises:
            LogInvalidError: it proves nothing; says why.
        """
        checkpoint = _opened(self.checkpoint, self.rotations, anchors)
        if not verify_inclusion(
            leaf_hash(self.leaf), self.index, checkpoint.size, self.path, checkpoint.root
        ):
            raise LogInvalidError("The path does not lead from this event to the checkpoint's root.")
        return checkpoint


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """The log at a checkpoint begins with the log at an earlier size and root."""

    old_size: int
    old_root: bytes
    path: tuple[bytes, ...]
    checkpoint: str
    rotations: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Writes the proof."""
        return {
            "type": CONSISTENCY,
            "version": 1,
            "old_size": self.old_size,
            "old_root": _encode(self.old_root),
            "path": [_encode(digest) for digest in self.path],
            "checkpoint": self.checkpoint,
            "rotations": list(self.rotations),
        }

    def verify(self, anchors: Sequence[VerifierKey]) -> Checkpoint:
        """Gives the checkpoint that continues the old size and root.

        Raises:
            LogInvalidError: it proves nothing; says why.
        """
        new = _opened(self.checkpoint, self.rotations, anchors)
        if not verify_consistency(self.old_size, self.old_root, new.size, new.root, self.path):
            raise LogInvalidError(
                f"The log of size {new.size} does not continue that of size {self.old_size}: "
                "a fork, or no proof."
            )
        return new


Proof: TypeAlias = InclusionProof | ConsistencyProof


def read_proof(data: bytes) -> Proof:
    """Reads a proof; nothing in it is believed yet.

    Raises:
        LogInvalidError: it is none.
    """
    if len(data) > MOST_BYTES:
        raise LogInvalidError("This is no proof: it is too long.")
    try:
        found = json.loads(data)
        if found["version"] != 1:
            raise LogInvalidError("This proof is of another version.")
        path = tuple(_decode(text) for text in found["path"])
        rotations = tuple(_text(text) for text in found["rotations"])
        checkpoint = _text(found["checkpoint"])
        if found["type"] == INCLUSION:
            return InclusionProof(
                _decode(found["leaf"]), _number(found["index"]), path, checkpoint, rotations
            )
        if found["type"] == CONSISTENCY:
            return ConsistencyProof(
                _number(found["old_size"]), _decode(found["old_root"]), path, checkpoint, rotations
            )
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise LogInvalidError("This is no proof: it cannot be read.") from exc
    raise LogInvalidError("This is no proof of inclusion or consistency.")


def cosigned_by(checkpoint: str, witnesses: Sequence[VerifierKey]) -> dict[str, int]:
    """Gives which of the witnesses cosigned a checkpoint, and when (POSIX seconds).

    Raises:
        LogInvalidError: a key is not a witness's.
    """
    if any(key.algorithm != COSIGNATURE for key in witnesses):
        raise LogInvalidError("A witness's key is of another kind; it begins with the byte 4.")
    note = Note.parse(checkpoint)
    return {
        key.name: cosignature_time(signature.data)
        for key in note.verified_by(witnesses)
        for signature in note.signatures
        if signature.key_id == key.key_id and key.verifies(note.text, signature.data)
    }


def parse_rotations(texts: Sequence[str]) -> list[Note]:
    """Reads the records of key rotation in a proof.

    Raises:
        LogInvalidError: one is none.
    """
    try:
        return [Note.parse(text) for text in texts]
    except NoteInvalidError as exc:
        raise LogInvalidError("A record of key rotation in the proof cannot be read.") from exc


def _opened(checkpoint: str, rotations: Sequence[str], anchors: Sequence[VerifierKey]) -> Checkpoint:
    return TrustedKeys(anchors, parse_rotations(rotations)).open(checkpoint)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: Any) -> bytes:
    return base64.b64decode(_text(text), validate=True)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value
