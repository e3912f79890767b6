"""Appending a disclosure and reading the record: side by side, or in one statement of one database.

Invariants:
- both come back only after the append's commit; what was read before it is dropped where it was refused;
- the one statement reads only what its own append accepted; when it fails for whatever reason, each of
  its reads goes side by side under the same event id, so nothing is recorded twice.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import asyncpg

from broker.database import Batch, HeldConnection, connection
from broker.errors import (
    DatabaseUnavailableError,
    LedgerUnavailableError,
    RecordsUnavailableError,
    RequestMalformedError,
)
from broker.ledger import Ledger, ReadAppend, Verdict, read_arguments, read_values
from broker.model import RecordSlice
from broker.records import RecordReader, is_pass_of

GROUP_LIMIT = 64
"""Most reads of one statement; as many passes as the guard reads at once."""

BACKLOG = 4096
"""Most reads waiting; beyond it callers are refused, so a slow disk never fills our memory."""


GATHER = 0.003
"""Seconds that a busy worker waits at most for more reads: see `Batch`, where it is measured."""


@dataclass(frozen=True, slots=True)
class Disclosed:
    """What the ledger said, and what the guard let through; no record where reading failed."""

    verdict: Verdict
    record: RecordSlice | None
    failure: RecordsUnavailableError | None = None


class Disclosure(Protocol):
    """A way to append and read."""

    async def disclose(self, append: ReadAppend, guard_pass: str, fields: tuple[str, ...]) -> Disclosed:
        """Appends the read and reads the fields; gives both once the append is durable.

        Raises:
            LedgerUnavailableError: the read is not known to be on record.
        """


class SideBySide:
    """Two statements on two connections, under way together; the databases may be two."""

    def __init__(self, ledger: Ledger, records: RecordReader) -> None:
        """Takes both."""
        self._ledger = ledger
        self._records = records

    async def disclose(self, append: ReadAppend, guard_pass: str, fields: tuple[str, ...]) -> Disclosed:
        """Appends and reads; the append is under way before the record is looked at.

        If we die between them the event says "released at most", which is true of nothing released.
        """
        appending = self._ledger.enqueue(append)
        try:
            record = await self._records.read(grant_id=append.grant_id, guard_pass=guard_pass, fields=fields)
        except RecordsUnavailableError as failure:
            return Disclosed(await appending, None, failure)
        except BaseException:
            # Our caller has gone. The append goes on by itself; nobody is left to hear of its failure.
            appending.add_done_callback(lambda done: done.cancelled() or done.exception())
            raise
        return Disclosed(await appending, record)


@dataclass(frozen=True, slots=True)
class _Ask:
    append: ReadAppend
    guard_pass: str
    fields: tuple[str, ...]


class OneStatement:
    """One statement for a whole group: append, then read what was accepted; one database, one round trip."""

    def __init__(
        self, pool: asyncpg.Pool, ledger: Ledger, records: RecordReader, fallback: SideBySide
    ) -> None:
        """Takes the reader's pool, both halves, and what stands in where one statement will not do."""
        self._held = HeldConnection(pool)
        self._ledger = ledger
        self._records = records
        self._fallback = fallback
        self._batch: Batch[_Ask, Disclosed | None] = Batch(
            self._flush,
            limit=GROUP_LIMIT,
            backlog=BACKLOG,
            refused=lambda: LedgerUnavailableError(cause="backlog full"),
            gather=GATHER,
        )

    async def disclose(self, append: ReadAppend, guard_pass: str, fields: tuple[str, ...]) -> Disclosed:
        """Appends and reads in one statement, or side by side where child kinds are asked for."""
        if self._records.appending().covers(fields) and is_pass_of(guard_pass, append.grant_id):
            disclosed = await self._batch.submit(_Ask(append, guard_pass, fields))
            if disclosed is not None:
                return disclosed
        return await self._fallback.disclose(append, guard_pass, fields)

    async def close(self) -> None:
        """Waits until nothing is under way and gives the connection back."""
        await self._batch.drain()
        await self._held.release()

    async def _flush(self, asks: Sequence[_Ask]) -> Sequence[Disclosed | None]:
        appending = self._records.appending()
        if not all(appending.covers(ask.fields) for ask in asks):  # the catalog has just changed
            return [None] * len(asks)
        appends = [ask.append for ask in asks]
        try:
            if len(asks) == 1:
                rows = await self._held.fetch(appending.one, *read_values(appends[0]), asks[0].guard_pass)
            else:
                passes = [ask.guard_pass for ask in asks]
                rows = await self._held.fetch(appending.many, *read_arguments(appends), passes)
        except (DatabaseUnavailableError, RequestMalformedError, asyncpg.PostgresError):
            return [None] * len(asks)  # whosever fault it is, one read must not fail its neighbours
        groups: list[list[asyncpg.Record]] = [[] for _ in asks]
        for row in rows:
            groups[row["ord"] - 1].append(row)
        verdicts = self._ledger.settle(appends, [group[0] for group in groups])
        return [
            Disclosed(verdict, appending.slice(ask.fields, group))
            for ask, verdict, group in zip(asks, verdicts, groups, strict=True)
        ]


async def share_database(one: asyncpg.Pool, other: asyncpg.Pool) -> bool:
    """Tells whether two pools lead to the same database of the same server.

    Advisory locks are per database: what one session holds, another of the same database cannot take.
    """
    key = secrets.randbits(62)
    async with connection(one) as holder, connection(other) as prober:
        await holder.execute("SELECT pg_advisory_lock($1)", key)
        try:
            taken = await prober.fetchval("SELECT pg_try_advisory_lock($1)", key)
            if taken:
                await prober.execute("SELECT pg_advisory_unlock($1)", key)
        finally:
            await holder.execute("SELECT pg_advisory_unlock($1)", key)
    return not taken
