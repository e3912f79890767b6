"""Our clocks against the database's, which decides when a grant begins and ends."""

from __future__ import annotations

from collections.abc import Callable

import asyncpg

from broker.database import connection, queries
from broker.errors import BrokerError

MOST_SKEW = 5.0
"""Seconds that our clocks may differ from the database's. Less than `jose.CLOCK_SKEW`: a grant begins by the
database's clock and is held against ours. Ids of events are refused beyond a minute."""


async def clock_agrees(pool: asyncpg.Pool, clock: Callable[[], float]) -> None:
    """Holds a clock against the database's.

    Args:
        pool: of the broker's database.
        clock: POSIX seconds.

    Raises:
        BrokerError: it is too far off.
    """
    async with connection(pool) as conn:
        asked = clock()
        now = await conn.fetchval(queries("ledger").now)
    if why := clock_trouble(asked, now, clock()):
        raise BrokerError(cause=why)


def clock_trouble(asked: float, now: float, answered: float) -> str:
    """Tells by how much our clock is off the database's, or "".

    Args:
        asked: our clock before the database said its own.
        now: the database's.
        answered: our clock afterwards; a slow answer is no skew.
    """
    skew = max(asked - now, 0.0) or min(answered - now, 0.0)
    if abs(skew) <= MOST_SKEW:
        return ""
    return (
        f"the clock is {skew:+.0f} s off the database's; synchronise it, and restart where it is right by now"
    )
