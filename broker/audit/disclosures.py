"""Keeps the index over released reads up with the ledger; off the append's path.

The index answers by customer, agent, tool or grant what the ledger, whose every index would slow each
append, could only answer by reading all of it. As broker_auditor:

    await catch_up(pool)                                  -- everything committed by now is in it
    SELECT … FROM broker.disclosed WHERE customer = $1    -- or agent, tool, grant_id
        AND event_id >= broker.uuid7_floor($since) AND narrowed IS NULL

`disclosed` has one row per read with its fields (clear, masked), purpose, queue and provenance; `narrowed`
says that a read came to nothing (reports count it unless so narrowed); `unreadable` that the leaf does not
tell its fields. The table `disclosure` behind it has indexes (agent_id, event_id), (tool_id, event_id),
(grant_id, event_id) and (customer, …), and ids grow with time.

Invariants:
- every event is taken once, also when we die between any two statements or walk in two processes;
- nothing that was committed before `catch_up` began is missing after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import asyncpg

from broker.database import connection, queries
from broker.errors import BrokerError
from broker.waiting import stopped

log = logging.getLogger(__name__)

Q = queries("disclosures")

BATCH = 5000
"""Events of one step: a fraction of a second, so that a step fits any statement timeout."""

PAUSE = 1.0
"""Seconds between steps once the walk has caught up."""

RETRY = 10.0
"""Seconds after a step that failed."""


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the index is behind the ledger."""

    indexed_to: datetime
    newest: datetime | None  # None: the ledger is empty
    behind: timedelta


async def lag(pool: asyncpg.Pool) -> Lag:
    """Tells how far the index is behind; as broker_admin or broker_auditor."""
    async with connection(pool) as conn:
        [row] = await conn.fetch(Q.lag)
    return Lag(row["indexed_to"], row["newest"], row["behind"])


async def step(pool: asyncpg.Pool, *, most: int = BATCH) -> bool:
    """Walks some events further; tells whether that was all.

    Args:
        pool: connections as broker_admin or broker_auditor.
        most: events at most, and as many that are looked at again.
    """
    async with connection(pool) as conn:
        [row] = await conn.fetch(Q.walk, most)
    return bool(row["caught_up"])


async def look_again(
    pool: asyncpg.Pool, *, most: int = BATCH, progress: Callable[[str], None] = lambda _: None
) -> None:
    """Takes what transactions that committed late have brought since the first look, in slices.

    Mostly that is a minute of events. While some transaction that writes stays open, in whatever database of
    the cluster, it is everything since that began: many slices, each of them short.

    Args:
        pool: connections as broker_admin or broker_auditor.
        most: events of a slice.
        progress: hears how far it is.
    """
    reached = upto = None
    while reached is None or reached != upto:
        async with connection(pool) as conn:
            [row] = await conn.fetch(Q.look_again, most, reached, upto)
        reached, upto = row["reached"], row["upto"]
        progress("Looking for disclosures that were committed late")


async def catch_up(pool: asyncpg.Pool, progress: Callable[[str], None] = lambda _: None) -> None:
    """Walks until everything that is committed now is in the index; what a question does first."""
    while not await step(pool):
        now = await lag(pool)
        progress(f"Indexing disclosures: at {now.indexed_to:%Y-%m-%d %H:%M}")
    await look_again(pool, progress=progress)


def until(stop: asyncio.Event) -> Callable[[float], Awaitable[None]]:
    """Gives what waits some seconds, or until it is time to stop."""

    async def wait(seconds: float) -> None:
        await stopped(stop, seconds)

    return wait


async def keep_up(
    pool: asyncpg.Pool,
    stop: asyncio.Event,
    *,
    on_lag: Callable[[float], None] = lambda _: None,
    wait: Callable[[float], Awaitable[None]] | None = None,
) -> None:
    """Walks for as long as the process lives; a failure is logged and tried again.

    Args:
        pool: a pool of its own as broker_admin, so that it never waits for others nor they for it.
        stop: ends it.
        on_lag: takes the seconds that the index is behind, after every step.
        wait: waits between steps; by default until `stop`, or the seconds given.
    """
    wait = wait or until(stop)
    while not stop.is_set():
        pause = PAUSE
        try:
            if not await step(pool):
                pause = 0.0
            on_lag((await lag(pool)).behind.total_seconds())
        except (BrokerError, asyncpg.PostgresError):
            log.exception("indexing disclosures failed")
            pause = RETRY
        await wait(pause)
