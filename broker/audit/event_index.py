"""Keeps the index over events up with the transparency log (100_event_index.sql), off the append's path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import asyncpg

from broker.database import connection, queries
from broker.errors import BrokerError
from broker.waiting import stopped

log = logging.getLogger(__name__)

Q = queries("events")

STEP = 4
"""Chunks of one step: under a second, so that it fits any statement timeout."""

PAUSE = 2.0
"""Seconds between looks once every full chunk is indexed."""

RETRY = 10.0
"""Seconds after a step that failed."""


async def step(pool: asyncpg.Pool, *, most: int = STEP) -> tuple[int, int]:
    """Indexes some full chunks; gives how many, and how many are left. As broker_admin."""
    async with connection(pool) as conn:
        [row] = await conn.fetch(Q.index_events, most)
    return row["indexed"], row["remaining"]


async def keep_up(
    pool: asyncpg.Pool, stop: asyncio.Event, *, on_lag: Callable[[float], None] = lambda _: None
) -> None:
    """Indexes for as long as the process lives; a failure is logged and tried again.

    Args:
        pool: as broker_admin, of its own.
        stop: ends it.
        on_lag: takes the number of full chunks that are not indexed, after every step.
    """
    while not stop.is_set():
        pause = PAUSE
        try:
            _, remaining = await step(pool)
            on_lag(remaining)
            if remaining:
                pause = 0.0
        except (BrokerError, asyncpg.PostgresError):
            log.exception("indexing events failed")
            pause = RETRY
        await stopped(stop, pause)
