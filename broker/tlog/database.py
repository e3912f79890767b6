"""The tree as the database holds it; every statement is a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from broker.database import Connection, queries, translated
from broker.merkle import HASH_SIZE, hashes_in
from broker.model import LAST_ID
from broker.tlog.checkpoint import LogInvalidError

Q = queries("tlog")

CHUNK = 8192
"""Leaf hashes that are read at once: about ten milliseconds of hashing between two looks at the loop."""


@dataclass(frozen=True, slots=True)
class Head:
    """The newest checkpoint of the database, and what its snapshot can see."""

    size: int
    root: bytes
    note: str
    low_id: UUID  # every event below is a leaf, or was never committed
    now: float  # POSIX seconds, the database's clock
    xmin: int  # transactions below have ended
    stopped: bool  # appends are refused


@dataclass(frozen=True, slots=True)
class Pending:
    """An event that is no leaf yet."""

    id: UUID
    leaf_hash: bytes


class TreeTable:
    """Statements over one connection, as broker_admin (or as broker_auditor, to read)."""

    def __init__(self, conn: Connection) -> None:
        """Takes the connection."""
        self._conn = conn

    async def lead(self) -> bool:
        """Tells whether this connection is, for as long as it lives, the sequencer's."""
        with translated():
            return bool(await self._conn.fetchval(Q.lead))

    async def head(self) -> Head:
        """Reads the head."""
        with translated():
            row = await self._conn.fetchrow(Q.head)
        if row is None:
            raise LogInvalidError("The row of the log's head was deleted from the database.")
        return Head(*row)

    async def mark(self) -> tuple[float, int]:
        """Gives a time and a transaction's number: greater ones begin to write later."""
        with translated():
            (row,) = await self._conn.fetch(Q.mark)
        return row["now"], row["xid"]

    async def pending(self, after: UUID, before: UUID = LAST_ID, *, most: int) -> list[Pending]:
        """Lists events between two ids that are no leaves yet, lowest ids first."""
        with translated():
            return [Pending(*row) for row in await self._conn.fetch(Q.pending, after, before, most)]

    async def integrate(
        self, size: int, root: bytes, leaves: Sequence[tuple[UUID | None, bytes]], new_root: bytes, note: str
    ) -> bool:
        """Makes events leaves and swaps the head, durably and together; False where we were overtaken."""
        ids, hashes = [leaf[0] for leaf in leaves], [leaf[1] for leaf in leaves]
        with translated():
            return bool(await self._conn.fetchval(Q.integrate, size, root, ids, hashes, new_root, note))

    async def settle(self, head: Head, low_id: UUID) -> None:
        """Remembers up to where every event is a leaf."""
        with translated():
            await self._conn.execute(Q.settle, head.size, head.root, low_id)

    async def hashes(self, lo: int, hi: int) -> AsyncIterator[list[bytes]]:
        """Reads the hashes of leaves lo to hi (without it), in parts.

        Raises:
            LogInvalidError: some are missing.
        """
        for start in range(lo, hi, CHUNK):
            end = min(hi, start + CHUNK)
            with translated():
                data = await self._conn.fetchval(Q.hashes, start, end)
            if len(data) != (end - start) * HASH_SIZE:
                raise LogInvalidError(f"Leaves are missing between {start} and {end} in the database.")
            yield hashes_in(data)

    async def stop(self) -> None:
        """Stops every append."""
        with translated():
            await self._conn.execute(Q.stop)
