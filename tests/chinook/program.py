"""Another program at work on the Chinook tables: a process that knows nothing of the broker.

It writes, reads and deletes again in transactions until a line comes in, then prints as JSON what it
noticed: how many rounds, every error, every different set of counts, the longest round in seconds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import asyncpg

FEWEST_ROUNDS = 5


async def one_round(conn: asyncpg.Connection, number: int) -> list[Any]:
    """Does a little work and counts what is there."""
    async with conn.transaction():
        await conn.execute(
            "INSERT INTO chinook.invoice (invoice_id, customer_id, invoice_date, total) "
            "VALUES ($1, 1, now(), 1)",
            number,
        )
        await conn.execute("INSERT INTO chinook.invoice_line VALUES ($1, $1, 1, 0.99, 1)", number)
        await conn.execute("UPDATE chinook.customer SET fax = fax WHERE customer_id = $1", number % 59 + 1)
        counts = [await conn.fetchval("SELECT count(*) FROM chinook.invoice")]
        await conn.execute("DELETE FROM chinook.invoice_line WHERE invoice_id = $1", number)
        await conn.execute("DELETE FROM chinook.invoice WHERE invoice_id = $1", number)
    all_counts = await conn.fetchrow(
        "SELECT (SELECT count(*) FROM chinook.employee), (SELECT count(*) FROM chinook.customer), "
        "(SELECT count(*) FROM chinook.invoice), (SELECT count(*) FROM chinook.invoice_line), "
        "(SELECT md5(string_agg(c::text, ',' ORDER BY customer_id)) FROM chinook.customer AS c)"
    )
    return [*counts, *all_counts]


async def main(dsn: str) -> None:
    """Works until told to stop."""
    conn = await asyncpg.connect(dsn)
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    rounds, longest, errors, seen = 0, 0.0, [], []
    print("ready", flush=True)
    while not stop.done() or rounds < FEWEST_ROUNDS:
        began = time.monotonic()
        try:
            counts = await one_round(conn, 100_000 + rounds)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
            errors.append(f"{type(exc).__name__}: {exc}")
        else:
            if counts not in seen:
                seen.append(counts)
        longest = max(longest, time.monotonic() - began)
        rounds += 1
        await asyncio.sleep(0.002)
    await conn.close()
    print(json.dumps({"rounds": rounds, "errors": errors, "counts": seen, "longest": longest}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
