"""Whether the database goes on from what was published: the sequencer signs nothing before that is sure.

    published   in the folder of the log's keys: the newest checkpoint that was published, signed

Invariants:
- the head counts only with the log's signature: a tree that somebody else wrote is never built on;
- what was published stays published: a database that lacks some of it, or has another root there, is refused,
  whatever became of the storage, because the folder of the keys remembers the newest checkpoint. So an empty
  storage is filled again from the database, and an old database never begins a second log;
- a log is new only while database, storage and memory are all empty; the first round writes that down, before
  the first leaf.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from broker.keys import LogKeyFolder
from broker.keys.folder import locked, write_durably
from broker.merkle import EMPTY_ROOT, Edge
from broker.note import MOST_BYTES, Note, NoteInvalidError, sign
from broker.tlog.checkpoint import Checkpoint, LogInvalidError, TrustedKeys
from broker.tlog.database import Head, TreeTable
from broker.tlog.published import Published, read_checkpoint, read_edge
from broker.tlog.storage import Storage

PUBLISHED = "published"
"""Name of the newest published checkpoint, beside the log's keys."""


class LossError(LogInvalidError):
    """The database is not a continuation of what is published: appends stop."""


class Memory:
    """The newest checkpoint that was published, where neither the database's administrator writes nor
    whoever has the storage.
    """

    def __init__(self, keys: LogKeyFolder) -> None:
        """Takes the folder of the log's keys."""
        self._keys = keys
        self._path: Path = keys.folder / PUBLISHED

    async def read(self, keys: TrustedKeys) -> Published | None:
        """Gives the newest checkpoint; None where nobody ever remembered one.

        Raises:
            LogInvalidError: what is there was not signed by the log.
        """
        try:
            text = await asyncio.to_thread(self._read)
            return None if text is None else Published(keys.open(text), text)
        except (LogInvalidError, UnicodeDecodeError) as exc:
            raise LogInvalidError(f"{self._path} is no checkpoint of this log.") from exc

    async def keep(self, note: str | None) -> None:
        """Remembers a checkpoint (None: of the empty log), durably, unless a later one is remembered."""
        if note is None:
            text = Checkpoint(self._keys.origin, 0, EMPTY_ROOT).text
            note = str(sign(text, self._keys.active_signer()))
        await asyncio.to_thread(self._keep, note)

    def _read(self) -> str | None:
        try:
            with self._path.open("rb") as file:
                return file.read(MOST_BYTES).decode()
        except FileNotFoundError:
            return None

    def _keep(self, note: str) -> None:
        with locked(self._keys.folder):
            known = self._read()
            if known is None or _size(known) < _size(note):
                write_durably(self._path, note.encode())


@dataclass(frozen=True, slots=True)
class Past:
    """The tree at the database's head, which goes on from what is published."""

    edge: Edge
    published: Edge
    published_note: str | None


def check_head(head: Head, keys: TrustedKeys) -> None:
    """Refuses a head that the log's key did not sign.

    Raises:
        LossError: it is another's.
    """
    if head.size == 0 and head.root == EMPTY_ROOT:
        return
    try:
        signed = keys.open(head.note)
    except LogInvalidError as exc:
        raise LossError(f"The head in the database: {exc}") from exc
    if (signed.size, signed.root) != (head.size, head.root):
        raise LossError("The head in the database is not what its signature covers.")


async def read_past(
    table: TreeTable, storage: Storage, keys: TrustedKeys, memory: Memory, head: Head
) -> Past:
    """Makes the tree at the head: from the published one, and the database's leaves behind it.

    Raises:
        LossError: the database does not continue what was published.
        LogInvalidError: the published log cannot be read, so nothing can be said.
    """
    check_head(head, keys)
    remembered, found = await memory.read(keys), await read_checkpoint(storage, keys)
    if found is None and remembered is None and head.size:
        raise LossError("Nothing is published, and nothing remembers what was: see the manual.")
    for known in (found, remembered):
        if known is not None:
            _compare(head, known.checkpoint)
    published = Edge() if found is None else await read_edge(storage, found.checkpoint)
    edge = published.copy()
    if remembered is not None and remembered.checkpoint.size >= edge.size:
        await _extend(edge, table, remembered.checkpoint.size)
        _same_root(edge.root(), remembered.checkpoint)
    await _extend(edge, table, head.size)
    if edge.root() != head.root:
        raise LossError("The leaves in the database do not give the root of its head.")
    return Past(edge, published, None if found is None else found.note)


async def _extend(edge: Edge, table: TreeTable, size: int) -> None:
    async for hashes in table.hashes(edge.size, size):
        edge.extend(hashes)
        await asyncio.sleep(0)


def _compare(head: Head, known: Checkpoint) -> None:
    if known.size > head.size:
        raise LossError(
            f"The database ({head.size} leaves) is behind the published log ({known.size}); "
            "was it restored from a backup?"
        )
    if known.size == head.size:
        _same_root(head.root, known)


def _same_root(root: bytes, known: Checkpoint) -> None:
    if root != known.root:
        raise LossError(f"The database has another root than the published log at size {known.size}.")


def _size(note: str) -> int:
    try:
        return Checkpoint.parse(Note.parse(note).text).size
    except NoteInvalidError as exc:
        raise LogInvalidError("This is no checkpoint.") from exc
