"""Group commit: what arrives together is appended in one transaction, each waits for its own.

Invariants:
- a verdict leaves `Ledger` only after its event is durable, or not at all;
- an event's id is its idempotency key: after a broken commit we read back before we write again;
- one bad row never fails its neighbours: a failed group is appended one by one;
- an item submitted after a flush began is in the next one, so its ground is looked at after it arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import UNREACHABLE, Batch, Connection, connection, queries, transaction
from broker.errors import DatabaseUnavailableError, LedgerUnavailableError, RequestMalformedError
from broker.ledger.events import Event, GrantAppend, ReadAppend
from broker.ledger.receipt import Receipt, receipts
from broker.ledger.skew import clock_trouble

Q = queries("ledger")

ACCESS_DOOR = Q.append_events
"""How broker_access appends an event without ground; the database allows it a few kinds."""

ADMIN_DOOR = Q.append_admin_events
"""How broker_admin appends an event: administrative acts and its own port's refusals."""

AUDITOR_DOOR = Q.append_auditor_events
"""How broker_auditor appends an event: what was asked for."""

GROUP_LIMIT = 128
"""Most events of one transaction: beyond it the first waiters would wait for the last ones' work."""

BACKLOG = 4096
"""Most events waiting; beyond it callers are refused, so a slow disk never fills our memory."""

GATHER = 0.003
"""Seconds that a busy ledger waits at most for more events: see `Batch`."""

READ_BACK_TRIES = 3
"""How often a broken commit is looked up before its callers hear UNAVAILABLE."""

ROLLED_BACK = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError)
"""What the server says of a statement that it gave up: nothing of it is durable, nothing to look up."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the append said: reason "" is yes; STALE reasons mean "decide again", nothing stored."""

    reason: str
    receipt: Receipt | None = None
    free_time: datetime | None = None
    row: Any = None  # of create_grant: the grant as it stands


Item = ReadAppend | GrantAppend | Event


class Ledger:
    """The append-only record of every grant, read and refusal."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        sign_root: Callable[[bytes, int], str],
        *,
        door: str = ACCESS_DOOR,
        clocks: Sequence[Callable[[], float]] = (time.time,),
        on_group: Callable[[int], None] = lambda _: None,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Takes the broker_access pool, the signer of roots and two observers.

        Args:
            pool: connections as the role of the door.
            sign_root: gives a compact JWS over root and size.
            door: which door of the database takes events without ground.
            clocks: POSIX seconds; those that event ids are made by and tokens are held against.
            on_group: told the size of each committed group.
            on_failure: told the kind of failure of each item that was refused, once an item.
        """
        self._pool = pool
        self._sign_root = sign_root
        self._door = door
        self._clocks = clocks
        self._on_group = on_group
        self._on_failure = on_failure
        self._batch: Batch[Item, Verdict] = Batch(
            self._flush,
            limit=GROUP_LIMIT,
            backlog=BACKLOG,
            refused=self._no_room,
            gather=GATHER,
        )

    async def append(self, item: Item) -> Verdict:
        """Appends one item with whatever else is waiting; returns once it is durable.

        Raises:
            LedgerUnavailableError: it is not known to be durable; nothing may be released on it.
        """
        return await self._batch.submit(item)

    def enqueue(self, item: Item) -> asyncio.Future[Verdict]:
        """Does the same without waiting, for a caller who has work to do beside it."""
        return self._batch.enqueue(item)

    async def drain(self) -> None:
        """Waits until everything submitted is through."""
        await self._batch.drain()

    def settle(self, reads: Sequence[ReadAppend], rows: Sequence[Any]) -> list[Verdict]:
        """Makes the verdicts of a group of reads that somebody else's statement appended durably.

        Args:
            reads: the group.
            rows: `reason`, `leaf` and `free_time` of each, in the group's order.
        """
        self._on_group(len(reads))
        return self._verdicts(reads, {r.id: row for r, row in zip(reads, rows, strict=True)})

    async def ready(self) -> str:
        """Tells what keeps the ledger from taking events, or ""."""
        async with connection(self._pool) as conn:
            asked = [clock() for clock in self._clocks]
            row = await conn.fetchrow(Q.ready)
        if row is None or not row["writable"]:
            return "the database is a standby"
        for clock, before in zip(self._clocks, asked, strict=True):
            if why := clock_trouble(before, row["now"], clock()):
                return why
        if row["stopped"]:
            return "the ledger is behind its published checkpoint; see `broker audit accept-loss`"
        return "" if row["partitions"] else "ledger partitions are missing; run `broker migrate`"

    async def _flush(self, items: Sequence[Item]) -> Sequence[Verdict | BaseException]:
        try:
            verdicts: list[Verdict | BaseException] = list(await self._commit(items))
        except DatabaseUnavailableError as exc:
            if isinstance(exc.__cause__, ROLLED_BACK):
                return self._told(_failed(items, exc.cause))
            # The commit may be durable all the same: ask before anybody writes again.
            return await self._after_broken_commit(items, exc)
        except (asyncpg.PostgresError, RequestMalformedError) as exc:
            if len(items) > 1:
                return [(await self._flush([item]))[0] for item in items]
            if isinstance(exc, asyncpg.UniqueViolationError):  # an earlier try of this one was durable
                return await self._after_broken_commit(items, exc)
            return self._told(_failed(items, type(exc).__name__))
        else:
            self._on_group(len(items))
            return verdicts

    async def _commit(self, items: Sequence[Item]) -> list[Verdict]:
        reads = [item for item in items if isinstance(item, ReadAppend)]
        if len(reads) == len(items):  # one statement is its own transaction: no BEGIN, no COMMIT
            async with connection(self._pool) as conn:
                rows = await self._append_reads(conn, reads)
            return self._verdicts(items, {r.id: row for r, row in zip(reads, rows, strict=True)})
        grants = [item for item in items if isinstance(item, GrantAppend)]
        if len(grants) == len(items):
            async with connection(self._pool) as conn:
                rows = await self._create_grants(conn, grants)
            return self._verdicts(items, {g.id: row for g, row in zip(grants, rows, strict=True)})
        async with transaction(self._pool) as conn:
            found: dict[UUID, Any] = {}
            if reads:
                rows = await self._append_reads(conn, reads)
                found.update({r.id: row for r, row in zip(reads, rows, strict=True)})
            if events := [item for item in items if isinstance(item, Event)]:
                by_id = {row["id"]: row for row in await _append_events(conn, events, self._door)}
                found.update({e.id: {"reason": "", "leaf": by_id[e.id]["leaf"]} for e in events})
            if grants:
                made = await self._create_grants(conn, grants)
                found.update({g.id: row for g, row in zip(grants, made, strict=True)})
        return self._verdicts(items, found)

    def _verdicts(self, items: Sequence[Item], rows: dict[UUID, Any]) -> list[Verdict]:
        leaves = [leaf for item in items if (leaf := rows[item.id]["leaf"]) is not None]
        proofs = iter(receipts(leaves, self._sign_root)) if leaves else iter(())
        verdicts = []
        for item in items:
            row = rows[item.id]
            receipt = next(proofs) if row["leaf"] is not None else None
            free_time = row["free_time"] if not isinstance(item, Event) else None
            verdicts.append(
                Verdict(row["reason"], receipt, free_time, row if isinstance(item, GrantAppend) else None)
            )
        return verdicts

    async def _after_broken_commit(
        self, items: Sequence[Item], error: BaseException
    ) -> Sequence[Verdict | BaseException]:
        """Finds out which items are durable; the others are refused, never assumed.

        A grant that turns out durable is refused too: its caller repeats the request by its
        request id and gets the grant that stands.
        """
        # Others of the pool may be as dead, half open and not know it yet: ask over new ones.
        await self._pool.expire_connections()
        stored: dict[UUID, Any] | None = None
        for _ in range(READ_BACK_TRIES):
            try:
                async with connection(self._pool) as conn:
                    rows = await conn.fetch(Q.read_back, [item.id for item in items])
                stored = {row["id"]: row for row in rows}
                break
            except DatabaseUnavailableError:
                continue
        results: list[Verdict | BaseException] = _failed(items, f"append failed: {type(error).__name__}")
        for index, item in enumerate(items):
            row = (stored or {}).get(item.id)
            # Under this id, and this event: an id says nothing about what was stored with it.
            if row is not None and row["leaf"].startswith(item.head) and not isinstance(item, GrantAppend):
                reason = "" if isinstance(item, Event) else row["reason"]
                results[index] = Verdict(reason, receipts([row["leaf"]], self._sign_root)[0])
        return self._told(results)

    def _told(self, results: list[Verdict | BaseException]) -> list[Verdict | BaseException]:
        """Counts what callers are refused with: tries that came to something in the end are no failures."""
        for result in results:
            if isinstance(result, LedgerUnavailableError):
                self._on_failure(result.cause)
        return results

    def _no_room(self) -> LedgerUnavailableError:
        error = LedgerUnavailableError(cause="backlog full")
        self._on_failure(error.cause)
        return error

    async def _append_reads(self, conn: Connection, reads: Sequence[ReadAppend]) -> list[Any]:
        if len(reads) == 1:
            return await conn.fetch(Q.append_read, *read_values(reads[0]))
        return await conn.fetch(Q.append_reads, *read_arguments(reads))

    async def _create_grants(self, conn: Connection, grants: Sequence[GrantAppend]) -> list[Any]:
        if len(grants) == 1:
            return await conn.fetch(Q.create_grant, *grant_values(grants[0]))
        return await conn.fetch(Q.create_grants, *zip(*map(grant_values, grants), strict=True))


async def append_events(conn: Connection, events: Sequence[Event], *, door: str = ACCESS_DOOR) -> list[Any]:
    """Appends events that need no ground, inside the caller's transaction.

    Args:
        conn: a connection as the role of the door.
        events: what to append.
        door: `ACCESS_DOOR`, `ADMIN_DOOR` or `AUDITOR_DOOR`.

    Raises:
        LedgerUnavailableError: they could not be appended; the transaction must end with them.
    """
    with on_record():
        return await _append_events(conn, events, door)


@contextlib.contextmanager
def on_record() -> Iterator[None]:
    """Turns the database's refusal of an event (no partition, clock skew, full disk) into UNAVAILABLE.

    Raises:
        LedgerUnavailableError: the event is not on record, so what it tells of must not happen.
    """
    try:
        yield
    except UNREACHABLE:
        raise  # the connection's matter; `database.translated` names it
    except asyncpg.PostgresError as exc:
        raise LedgerUnavailableError(cause=type(exc).__name__) from exc


async def _append_events(conn: Connection, events: Sequence[Event], door: str) -> list[Any]:
    return await conn.fetch(
        door,
        [e.id for e in events],
        [e.kind.value for e in events],
        [e.agent for e in events],
        [e.tool for e in events],
        [e.grant_id for e in events],
        [e.trace_id for e in events],
        [e.customer for e in events],
        [e.ticket for e in events],
        [e.outcome for e in events],
        [e.reason for e in events],
        [int(e.policy_version) if e.policy_version else None for e in events],
        [e.head for e in events],
    )


def _failed(items: Sequence[Item], cause: str) -> list[Verdict | BaseException]:
    """Refuses each item with an exception of its own: a shared one would share its decision id."""
    return [LedgerUnavailableError(cause=cause) for _ in items]


def read_values(r: ReadAppend) -> tuple[Any, ...]:
    """Gives the values that `broker.append_read` takes, $1 to $11."""
    return (
        r.id, r.grant_id, r.agent, r.tool, r.trace_id, r.facts_version, r.present, r.policy_version,
        r.per_hour, r.per_day, r.head,
    )  # fmt: skip


def read_arguments(reads: Sequence[ReadAppend]) -> list[Sequence[Any]]:
    """Gives the arrays that `broker.append_reads` takes, $1 to $11."""
    return list(zip(*map(read_values, reads), strict=True))


def grant_values(g: GrantAppend) -> tuple[Any, ...]:
    """Gives one grant's values in the order of `create_grants`."""
    return (
        g.id, g.grant_id, g.request_id, g.request_hash, g.agent, g.tool, g.thumbprint, g.ticket_id,
        g.customer_id, g.customer_pseudonym, g.ticket_pseudonym, g.purpose, g.audience, ",".join(g.fields),
        ",".join(g.levels), g.answer, g.policy_version, g.facts_version, g.present, g.seconds, g.per_hour,
        g.per_day, g.trace_id, g.head,
    )  # fmt: skip
