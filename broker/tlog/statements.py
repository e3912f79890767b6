"""What the log's key signs about leaves whose events are not there any more.

Without such a statement a missing event is a deleted one. The database's administrator cannot make one.

Invariants:
- a loss covers leaves that were adopted from the published tiles, by their place in the tree;
- a prune covers events below an id that were leaves when it was signed; a later one covers the earlier.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from broker.note import Note, NoteInvalidError
from broker.tlog.checkpoint import LogInvalidError, TrustedKeys

LOSS = "support-access-broker/accepted-loss/v1"
PRUNE = "support-access-broker/pruned/v1"


@dataclass(frozen=True, slots=True)
class Loss:
    """Leaves lo to hi (without it) were published; the database came back without `lost` of their events."""

    origin: str
    lo: int
    hi: int
    lost: int

    @property
    def text(self) -> str:
        """Writes what is signed."""
        return f"{LOSS}\n{self.origin}\n{self.lo}\n{self.hi}\n{self.lost}\n"


@dataclass(frozen=True, slots=True)
class Prune:
    """Events below an id were dropped when the tree had `size` leaves, all of them published."""

    origin: str
    below: UUID
    size: int

    @property
    def text(self) -> str:
        """Writes what is signed."""
        return f"{PRUNE}\n{self.origin}\n{self.below}\n{self.size}\n"


def read_statement(text: str, keys: TrustedKeys) -> Loss | Prune:
    """Reads a signed statement and believes it.

    Raises:
        LogInvalidError: it is none, or not signed by the log.
    """
    try:
        note = Note.parse(text)
        kind, origin, *values = note.text.splitlines()
        statement: Loss | Prune
        if kind == LOSS:
            lo, hi, lost = (int(value) for value in values)
            statement = Loss(origin, lo, hi, lost)
        elif kind == PRUNE:
            below, size = values
            statement = Prune(origin, UUID(below), int(size))
        else:
            raise LogInvalidError("A statement about missing events is of no known kind.")
    except (NoteInvalidError, ValueError) as exc:
        raise LogInvalidError("A statement about missing events cannot be read.") from exc
    if statement.text != note.text or origin != keys.keys[0].name or not note.verified_by(keys.keys):
        raise LogInvalidError("A statement about missing events is not signed by the log.")
    return statement


class Missing:
    """Says which leaves may be without their event."""

    def __init__(self, statements: Iterable[Loss | Prune]) -> None:
        """Takes the statements that are believed."""
        found = list(statements)
        self._losses = [each for each in found if isinstance(each, Loss)]
        self._prunes = [each for each in found if isinstance(each, Prune)]

    def is_lost(self, seq: int) -> bool:
        """Tells whether the loss of this leaf's event was accepted."""
        return any(loss.lo <= seq < loss.hi for loss in self._losses)

    def is_pruned(self, seq: int, event_id: UUID) -> bool:
        """Tells whether this event was dropped in order."""
        return any(event_id < prune.below and seq < prune.size for prune in self._prunes)
