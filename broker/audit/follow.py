"""The ledger followed in the order of the transparency log: below its size nothing can appear any more.

Invariants:
- the index of the next leaf is all that a follower must keep: nothing is left out, nothing comes twice;
- no connection is held while a follower waits or takes its time;
- it ends by itself, so that whoever follows is asked again who they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import asyncpg

from broker.audit.event_filter import EventFilter, StoredEvent, fitting
from broker.database import connection, queries
from broker.errors import RequestMalformedError
from broker.waiting import stopped

Q = queries("events")

BATCH = 200
"""Leaves of one message, or as many as fit into one."""

LOOK = 0.25
"""Seconds between looks for more."""

FOLLOW = 60.0
"""Seconds after which a follower has to call again."""

CATCH_UP = 240.0
"""Seconds after which one that is still behind has to, too."""

SIGN = 15.0
"""Seconds after which silence is broken by an empty message, so that a dead connection shows."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some events, and where to go on once they are safe."""

    events: tuple[StoredEvent, ...]
    next_index: int


async def follow(
    pool: asyncpg.Pool,
    start: int | None,
    *,
    waits: bool,
    stop: asyncio.Event,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Batch]:
    """Gives events from a leaf on.

    Args:
        pool: as broker_auditor.
        start: index of the first leaf; None: what comes from now on.
        waits: wait for more, for a minute.
        stop: ends it at once.
        monotonic: a clock in seconds.

    Raises:
        RequestMalformedError: the log has not that many leaves: the cursor is another log's.
    """
    began = said = monotonic()
    size = await _size(pool)
    at = size if start is None else start
    if at > size:
        raise RequestMalformedError(field="from_index", cause="beyond the log")
    yield Batch((), at)
    while not stop.is_set():
        if at < size:
            end = min(at + BATCH, size)
            events = await _events(pool, at, end)
            fits = fitting(events)
            if fits < len(events):
                end = events[fits].leaf_index or end
            yield Batch(events[:fits], end)
            at, said = end, monotonic()
        passed = monotonic() - began
        if passed > CATCH_UP or (at == size and (not waits or passed > FOLLOW)):
            return
        if at == size:
            if monotonic() - said > SIGN:
                yield Batch((), at)
                said = monotonic()
            await stopped(stop, LOOK)
            size = await _size(pool)


async def _size(pool: asyncpg.Pool) -> int:
    async with connection(pool) as conn:
        return int(await conn.fetchval(Q.head))


async def _events(pool: asyncpg.Pool, at: int, end: int) -> tuple[StoredEvent, ...]:
    async with connection(pool) as conn:
        rows = await conn.fetch(Q.leaves, list(range(at, end)), *EventFilter().values)
    return tuple(StoredEvent(*row) for row in rows)
