"""The records database's day of identifiers: whoever matches some may find it used up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from broker.database import Connection, connection

USED_UP = "BK020"
"""What the records database answers then."""


class IdentifiersUsedUpError(Exception):
    """The day's number of identifiers is used up in the records database."""


@asynccontextmanager
async def matching(records: asyncpg.Pool) -> AsyncIterator[Connection]:
    """Lends a connection of the records database, to match identifiers.

    Raises:
        IdentifiersUsedUpError: too many on this day; nothing was matched.
    """
    try:
        async with connection(records) as conn:
            yield conn
    except asyncpg.PostgresError as exc:
        if exc.sqlstate == USED_UP:
            raise IdentifiersUsedUpError from exc
        raise
