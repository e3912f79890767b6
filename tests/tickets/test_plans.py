"""Large snapshots take plans that fit them, however small the tables were when a session made its first."""

from __future__ import annotations

import json

SEED = """
INSERT INTO broker.ticket
    (ticket_id, feed_id, version, content_hash, status, kind, opened_by,
     details_version, status_version, assignments_version)
SELECT 'S-' || n, 'helpdesk', 1, '\\x00', 'open', 'general', 'customer', 1, 1, 1
FROM generate_series(1, $1::int) AS n
"""
APPLY = "SELECT broker.apply_snapshot('helpdesk', 1, $1)"
END = "SELECT closed FROM broker.end_snapshot('helpdesk', 1, $1)"


def part(*numbers: int) -> str:
    """Names tickets just as they are stored."""
    said = {"version": 1, "hash": "00", "seq": 1, "status": "open"}
    return json.dumps([{"ticket_id": f"S-{n}", **said} for n in numbers])


async def test_each_ticket_of_a_part_is_looked_up(world):
    """A part of 500 among 20,000 reads its own tickets, few times each, and none of the others."""
    read = (
        "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables"
        " WHERE relid = 'broker.ticket'::regclass"
    )
    await world.send(world.helpdesk.open("T-1", customers=["7"]))
    for _ in range(8):  # beyond those that are planned anew
        await world.admin.execute(APPLY, part(1))
    await world.admin.execute(SEED.replace("series(1,", "series(2,"), 20_000)
    async with world.admin.transaction():
        before = await world.admin.fetchval(read)
        await world.admin.execute(APPLY, part(*range(19_000, 19_500)))
        after = await world.admin.fetchval(read)

    assert after - before <= 500 * 4


async def test_a_session_ends_many_large_snapshots(world):
    """The seventh snapshot of 100,000 tickets on a connection ends in a statement's time, as the first."""
    await world.send(world.helpdesk.open("T-1", customers=["7"]))
    await world.admin.execute(SEED, 100_000)
    names = [f"S-{n}" for n in range(1, 100_001)]
    async with world.feed_pool.acquire() as conn:  # whose statements end after 5 s
        closed = [await conn.fetchval(END, names) for _ in range(7)]

    assert closed == [1, 0, 0, 0, 0, 0, 0]
