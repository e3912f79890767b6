"""Acts on the transparency log that are events of the ledger, too: losses accepted, partitions pruned.

Invariants:
- the act, its event and the statement that the log's key signed are one transaction;
- nothing is dropped that is not a published leaf, and no loss is accepted that the published log does not
  show to be one: a database with another past is never gone on with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import Connection, connection, queries, transaction
from broker.errors import DatabaseUnavailableError
from broker.keys import LogKeyFolder
from broker.ledger import ADMIN_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events
from broker.merkle import leaf_hash
from broker.tlog import (
    Gone,
    Head,
    LogInvalidError,
    Memory,
    Published,
    Statement,
    Storage,
    TreeTable,
    TrustedKeys,
    check_head,
    read_checkpoint,
    read_leaf_hashes,
    read_past,
    read_root,
    runs_of,
)
from broker.tlog.columns import columns_of

Q = queries("tlog")

PAGE = 4096
DROP_TRIES = 50
DROP_WAIT = "200ms"
"""How long one try waits for the ledger's lock: appends queue behind it for no longer than that."""


@dataclass(frozen=True, slots=True)
class FoundLoss:
    """What a restored database lacks: the published leaves behind its head."""

    head: Head
    published: Published | None
    leaves: list[tuple[UUID | None, bytes]]  # the event where the database still has it

    @property
    def lost(self) -> int:
        """Counts the events that are gone."""
        return sum(event_id is None for event_id, _ in self.leaves)


async def find_loss(pool: asyncpg.Pool, storage: Storage, keys: LogKeyFolder) -> FoundLoss:
    """Compares the database with the published log.

    Args:
        pool: as broker_admin.
        storage: what is published.
        keys: of the log.

    Raises:
        LogInvalidError: the database is no earlier state of the published log, so there is nothing that
            could be accepted.
    """
    trusted, memory = TrustedKeys.of(keys.load()), Memory(keys)
    async with connection(pool) as conn:
        table = TreeTable(conn)
        head = await table.head()
        published = await read_checkpoint(storage, trusted)
        remembered = await memory.read(trusted)
        size = 0 if published is None else published.checkpoint.size
        if remembered is not None and remembered.checkpoint.size > max(size, head.size):
            raise LogInvalidError(
                f"The published log has {size} leaves and had {remembered.checkpoint.size}: bring "
                "BROKER_TLOG_DIR back first. It tells what is lost."
            )
        if published is None or size <= head.size:
            await read_past(table, storage, trusted, memory, head)
            return FoundLoss(head, published, [])
        check_head(head, trusted)
        if await read_root(storage, head.size, size) != head.root:
            raise LogInvalidError(
                "The database has another past than the published log: that is no loss. Restore a backup "
                "from before it was changed, then accept what that one lacks."
            )
        hashes = [h async for _, found in read_leaf_hashes(storage, head.size, size) for h in found]
        known = await _pending(table, head, set(hashes))
    return FoundLoss(head, published, [(known.pop(digest, None), digest) for digest in hashes])


async def accept_loss(
    pool: asyncpg.Pool, found: FoundLoss, keys: LogKeyFolder, ids: EventIds, *, who: str, reason: str
) -> Event:
    """Takes the published leaves into the tree, with or without their events, and lets appends go on.

    Raises:
        LogInvalidError: the head has moved since the loss was found.
    """
    lo, hi = found.head.size, found.head.size + len(found.leaves)
    # The sequencer signs nothing while appends are stopped, so a key that waits takes over here: else the
    # statement would be signed by one that does not reign any more when its event becomes a leaf.
    signer = keys.signer(hi)
    lost = runs_of(seq for seq, (event_id, _) in enumerate(found.leaves, lo) if event_id is None)
    statement = Statement(Gone.LOST, keys.origin, lost)
    event = _event(ids, who, {"call": "audit accept-loss", "from": lo, "to": hi, "lost": found.lost,
                              "reason": reason, "statement": statement.digest})  # fmt: skip
    async with transaction(pool) as conn:
        if found.leaves and found.published is not None:
            checkpoint = found.published.checkpoint
            moved = not await TreeTable(conn).integrate(
                lo, found.head.root, found.leaves, checkpoint.root, found.published.note
            )
            if moved:
                raise LogInvalidError("Somebody else moved the log's head; look again.")
        await conn.execute(Q.resume)
        await append_events(conn, [event], door=ADMIN_DOOR)
        if lost:
            await conn.execute(Q.state, event.id, statement.signed(signer))
    return event


@dataclass(frozen=True, slots=True)
class Prunable:
    """Partitions that may be dropped."""

    names: tuple[str, ...]
    below: UUID
    leaves: tuple[tuple[int, int], ...]  # runs of them: what their events were


async def find_prunable(
    pool: asyncpg.Pool, storage: Storage, keys: LogKeyFolder, before: datetime
) -> Prunable | None:
    """Finds the partitions that end before a time; None where there are none.

    Args:
        pool: as broker_owner.
        storage: what is published.
        keys: of the log.
        before: events of earlier months may go.

    Raises:
        LogInvalidError: some of their events are no published leaves, or other ones.
    """
    published = await read_checkpoint(storage, TrustedKeys.of(keys.load()))
    size = 0 if published is None else published.checkpoint.size
    async with connection(pool) as conn:
        rows = await conn.fetch(Q.prunable, before)
        if not rows:
            return None
        below = rows[-1]["below"]
        (check,) = await conn.fetch(Q.prune_check, below)
        if check["loose"] or not check["closed"]:
            raise LogInvalidError(
                f"{check['loose']} events are no leaves of the log, so nobody could show later that they "
                "were there; run `broker audit verify`."
            )
        leaves = runs_of([seq async for seq in _published_leaves(conn, storage, below, size)])
    return Prunable(tuple(row["name"] for row in rows), below, leaves)


async def _published_leaves(conn: Connection, storage: Storage, below: UUID, size: int) -> AsyncIterator[int]:
    """Gives the places of all events below an id: the bytes that are there are those that were published.

    Raises:
        LogInvalidError: one is not published, or another event.
    """
    (bounds,) = await conn.fetch(Q.prune_bounds, below)
    if bounds["hi"] > size:
        raise LogInvalidError("Some of the events are not published yet; see to the log's storage first.")
    async for start, hashes in read_leaf_hashes(storage, bounds["lo"], size):
        if start >= bounds["hi"]:
            return
        for row in await conn.fetch(Q.prune_leaves, below, start, start + len(hashes)):
            if leaf_hash(row["leaf"]) != hashes[row["seq"] - start] or not _is_of(row["leaf"], row["id"]):
                raise LogInvalidError(
                    f"Event {row['id']} is not the one that was published; run `broker audit verify`."
                )
            yield row["seq"]


async def prune(pool: asyncpg.Pool, found: Prunable, keys: LogKeyFolder, ids: EventIds, *, who: str) -> Event:
    """Drops partitions; their leaves stay in the tree.

    Raises:
        LogInvalidError: the log's key is about to be handed over.
        DatabaseUnavailableError: others held the ledger all the time; nothing was changed.
    """
    if keys.load().waiting is not None:
        raise LogInvalidError(
            "A new key of the log is about to take over, with the next event: run this again when "
            "`broker keys list --log` says that it signs."
        )
    statement = Statement(Gone.PRUNED, keys.origin, found.leaves)
    note = statement.signed(keys.active_signer())
    for attempt in range(DROP_TRIES):
        event = _event(ids, who, {"call": "audit prune", "partitions": list(found.names),
                                  "below": str(found.below), "statement": statement.digest})  # fmt: skip
        try:
            async with transaction(pool) as conn:
                await append_events(conn, [event], door=ADMIN_DOOR)
                await conn.execute(Q.state, event.id, note)
                await conn.execute(f"SET LOCAL lock_timeout = '{DROP_WAIT}'")
                for name in found.names:
                    await conn.execute(f'DROP TABLE broker."{name}"')
        except DatabaseUnavailableError as exc:
            if attempt + 1 == DROP_TRIES or not isinstance(exc.__cause__, asyncpg.LockNotAvailableError):
                raise
        else:
            return event
    raise AssertionError("unreachable")


async def _pending(table: TreeTable, head: Head, wanted: set[bytes]) -> dict[bytes, UUID]:
    """Finds which of the hashes are of events that the database has."""
    found: dict[bytes, UUID] = {}
    after = head.low_id
    while True:
        events = await table.pending(after, most=PAGE)
        found |= {event.leaf_hash: event.id for event in events if event.leaf_hash in wanted}
        if len(events) < PAGE:
            return found
        after = events[-1].id


def _is_of(leaf: bytes, event_id: UUID) -> bool:
    try:
        return bool(columns_of(leaf)["id"] == event_id)
    except ValueError:
        return False


def _event(ids: EventIds, who: str, detail: Mapping[str, Any]) -> Event:
    return Event(
        id=ids.new(), kind=EventKind.ADMIN, outcome="done", trace_id=NO_TRACE, tool=who, detail=detail
    )
