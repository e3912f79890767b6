"""Checkpoints (C2SP tlog-checkpoint) and whose signature on one is believed at which size.

Invariants:
- a checkpoint counts only where the key that reigned at its size signed it;
- keys follow from one that the reader brought: each record of rotation is signed by both its keys, so the
  chain leads from any of them to all of them, and nobody else's key is in it.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from broker.keys import LogKeys, Rotation
from broker.merkle import HASH_SIZE, LARGEST_SIZE
from broker.note import Note, NoteInvalidError, VerifierKey


class LogInvalidError(Exception):
    """What was read of a log is not what the log says of itself; the message is a whole sentence."""


class NotPublishedError(LogInvalidError):
    """Nothing can be said of it yet: the sequencer has not come to it."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The log at one size."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """Writes what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Reads a checkpoint; extension lines are those of other logs and mean nothing here.

        Raises:
            LogInvalidError: it is none.
        """
        lines = text.split("\n")
        if len(lines) < 4 or not lines[0] or not lines[1].isascii() or not lines[1].isdecimal():  # noqa: PLR2004 - see `text`
            raise LogInvalidError("This is not a checkpoint.")
        try:
            root = base64.b64decode(lines[2], validate=True)
        except ValueError:
            root = b""
        found = cls(lines[0], int(lines[1][:20]), root)
        if len(root) != HASH_SIZE or found.size > LARGEST_SIZE or not text.startswith(found.text):
            raise LogInvalidError("This is not a checkpoint.")
        return found


class TrustedKeys:
    """The keys of one log over time."""

    def __init__(self, anchors: Sequence[VerifierKey], rotations: Sequence[Note] = ()) -> None:
        """Follows the records of rotation from the keys that the reader brought.

        Args:
            anchors: keys that came to the reader by a way of their own.
            rotations: the log's records, in their order.

        Raises:
            LogInvalidError: the records are no chain, or lead from no key of the reader's.
        """
        try:
            chain = [Rotation.verified(note) for note in rotations]
        except NoteInvalidError as exc:
            raise LogInvalidError(f"A record of key rotation does not hold: {exc}.") from exc
        for earlier, later in itertools.pairwise(chain):
            if earlier.new != later.old or earlier.size > later.size or earlier.origin != later.origin:
                raise LogInvalidError("The records of key rotation are no chain.")
        self.keys: tuple[VerifierKey, ...] = (
            (chain[0].old, *(rotation.new for rotation in chain)) if chain else tuple(anchors)
        )
        if chain and not set(anchors) & set(self.keys):
            raise LogInvalidError("The records of key rotation lead from no key that you trust.")
        self._chain = chain

    @classmethod
    def of(cls, keys: LogKeys) -> TrustedKeys:
        """Believes the keys of one's own folder."""
        return cls(keys.keys[:1], keys.rotations)

    def at(self, size: int) -> list[VerifierKey]:
        """Gives the keys that could sign a tree of a size: one, or two where one handed over."""
        if not self._chain:
            return list(self.keys)
        starts = [0, *(rotation.size for rotation in self._chain)]
        ends = [*(rotation.size for rotation in self._chain), LARGEST_SIZE]
        return [key for key, lo, hi in zip(self.keys, starts, ends, strict=True) if lo <= size <= hi]

    def open(self, data: str) -> Checkpoint:
        """Reads a signed checkpoint and believes it.

        Raises:
            LogInvalidError: it is none, of another log, or not signed by the key that reigned then.
        """
        try:
            note = Note.parse(data)
        except NoteInvalidError as exc:
            raise LogInvalidError("This is not a signed checkpoint.") from exc
        found = Checkpoint.parse(note.text)
        if found.origin != self.keys[0].name:
            raise LogInvalidError(f"This is a checkpoint of another log: {found.origin}.")
        if not note.verified_by(self.at(found.size)):
            raise LogInvalidError(
                f"The checkpoint of size {found.size} is not signed by the key that signed at that size."
            )
        return found
