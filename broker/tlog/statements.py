"""What the log's key signs about leaves whose events are not there any more.

Without such a statement a missing event is a deleted one. The database's administrator cannot make one.

Invariants:
- a statement names its leaves one by one, by their place in the tree, which the signed root fixes: what the
  database says about an event's id or its number moves nothing into it;
- it is believed only from the key that reigned when its own event became a leaf: a key that was handed over
  and then stolen signs no loss any more, not even of leaves of its own reign (A13).
"""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from broker.note import MOST_BYTES as MOST_NOTE_BYTES
from broker.note import Note, NoteInvalidError, NoteSigner, sign
from broker.tlog.checkpoint import LogInvalidError, TrustedKeys

MOST_BYTES = MOST_NOTE_BYTES - 1024
"""Longest text that is signed: some 60,000 runs of leaves, where one or two are usual."""


class Gone(StrEnum):
    """Why events are not there any more."""

    LOST = "support-access-broker/accepted-loss/v2"
    PRUNED = "support-access-broker/pruned/v2"


@dataclass(frozen=True, slots=True)
class Statement:
    """The events of these leaves are gone; each run is from its first leaf to the one behind its last."""

    kind: Gone
    origin: str
    runs: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """Writes what is signed."""
        return f"{self.kind.value}\n{self.origin}\n" + "".join(f"{lo} {hi}\n" for lo, hi in self.runs)

    @property
    def digest(self) -> str:
        """Gives what the statement's own event says of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def signed(self, signer: NoteSigner) -> str:
        """Signs the statement.

        Raises:
            LogInvalidError: nobody could read it.
        """
        if len(self.text) > MOST_BYTES:
            raise LogInvalidError(f"The missing events lie in {len(self.runs)} places of the log: too many.")
        return str(sign(self.text, signer))


def runs_of(leaves: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Gives the runs of some leaves, which come in their order."""
    runs: list[tuple[int, int]] = []
    for seq in leaves:
        if runs and runs[-1][1] == seq:
            runs[-1] = (runs[-1][0], seq + 1)
        else:
            runs.append((seq, seq + 1))
    return tuple(runs)


def read_statement(text: str, leaf: bytes, seq: int, keys: TrustedKeys) -> Statement:
    """Reads a signed statement and believes it.

    Args:
        text: the statement.
        leaf: of the event that tells of it; the caller knows that these are the bytes of `seq`.
        seq: where that event stands in the tree.
        keys: of the log.

    Raises:
        LogInvalidError: it is none, not signed by the key of its time, or its event tells of another.
    """
    try:
        note = Note.parse(text)
        kind, origin, *lines = note.text.splitlines()
        runs = tuple((int(lo), int(hi)) for lo, hi in (line.split(" ") for line in lines))
        statement = Statement(Gone(kind), origin, runs)
        told = json.loads(leaf)["detail"]["statement"]
    except (NoteInvalidError, ValueError, KeyError, TypeError, RecursionError) as exc:
        raise LogInvalidError("A statement about missing events cannot be read.") from exc
    ends = [end for run in runs for end in run]
    if statement.text != note.text or any(lo >= hi for lo, hi in runs) or ends != sorted(ends):
        raise LogInvalidError("A statement about missing events cannot be read.")
    if origin != keys.keys[0].name or not note.verified_by(keys.at(seq)):
        raise LogInvalidError(
            "A statement about missing events is not signed by the key that signed the log when it was made."
        )
    if told != statement.digest:
        raise LogInvalidError("A statement about missing events is not the one that its event tells of.")
    return statement


class Missing:
    """Says which leaves may be without their event."""

    def __init__(self, statements: Iterable[Statement]) -> None:
        """Takes the statements that are believed."""
        found = list(statements)
        self._runs: dict[Gone, Sequence[tuple[int, int]]] = {
            kind: _merged(run for each in found if each.kind is kind for run in each.runs) for kind in Gone
        }

    def why(self, seq: int) -> Gone | None:
        """Tells why a leaf may be without its event; None where it may not."""
        for kind, runs in self._runs.items():
            at = bisect.bisect_right(runs, seq, key=lambda run: run[0]) - 1
            if at >= 0 and seq < runs[at][1]:
                return kind
        return None


def _merged(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for lo, hi in sorted(runs):
        if merged and lo <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(hi, merged[-1][1]))
        else:
            merged.append((lo, hi))
    return merged
