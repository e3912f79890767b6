"""Two admin processes may take in the same events at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from broker.database import open_pool
from broker.dev.helpdesk import Helpdesk
from broker.errors import EventConflictError
from broker.model import Relation
from broker.tickets import Outcome, TicketFeed
from broker.tickets.feed import MAX_BATCH
from tests.tickets.conftest import ALICE, BOB, settings_of


async def test_overlapping_batches(world, database):
    """Of overlapping batches sent at once on two connections each event is applied exactly once."""
    events = [world.helpdesk.open(f"T-{n}", customers=["7"], assignee=ALICE) for n in range(60)]
    events += [world.helpdesk.reassign(f"T-{n}", BOB) for n in range(60)]
    batches = [events[start : start + 40] for start in range(0, 120, 20)]
    pool = await open_pool(database.dsn("broker_feed"), name="tests: second", max_size=4)
    second = TicketFeed(pool, [settings_of(world.helpdesk, world.folder)], time.time)
    try:
        published = await asyncio.gather(
            *(
                feed.publish(world.peer, batch)
                for number, batch in enumerate(batches)
                for feed in ((world.feed, second) if number % 2 else (second, world.feed))
            )
        )
    finally:
        await pool.close()

    applied = [outcome for one in published for outcome in one.outcomes].count(Outcome.APPLIED)
    # An opening that came after its reassignment is applied, but for its assignments: never live.
    late = await world.admin.fetch(
        "SELECT ticket_id, version, count(*) FROM broker.assignment WHERE start_time = end_time GROUP BY 1, 2"
    )
    superseded = [outcome for one in published for outcome in one.outcomes].count(Outcome.SUPERSEDED)
    assert applied + superseded == 120
    assert {row["count"] for row in late} <= {1}
    assert max(one.contiguous_seq for one in published) == 120
    assert len((await world.listed(BOB, page_size=100)).tickets) == 60
    assert (await world.listed(ALICE)).tickets == ()
    assert await world.admin.fetchval("SELECT count(*) FROM broker.ticket_event") == 120


async def test_two_feeds_crosswise(world):
    """Two feeds that fight over the same tickets in opposite order never lock each other out."""
    other = Helpdesk("other", time.time)
    feed = TicketFeed(world.feed_pool, [settings_of(other, world.folder)], time.time)
    names = [f"T-{n}" for n in range(40)]
    one = [world.helpdesk.open(name, customers=["7"], assignee=ALICE) for name in names]
    two = [other.open(name, customers=["9"], assignee=BOB) for name in reversed(names)]

    results = await asyncio.gather(
        world.feed.publish(world.peer, one), feed.publish({"other"}, two), return_exceptions=True
    )

    assert [type(result).__name__ for result in results].count("EventConflictError") == 1
    owners = await world.admin.fetch("SELECT DISTINCT feed_id FROM broker.ticket")
    assert len(owners) == 1


async def test_a_snapshot_in_the_order_of_ids(world):
    """A snapshot's new tickets are made by their ids, in whatever order it names them: no deadlock."""
    names = [f"T-{n:03}" for n in range(MAX_BATCH + 1)]
    for name in reversed(names):
        world.helpdesk.open(name, customers=["7"], assignee=ALICE)
    snapshot = world.helpdesk.snapshot()
    ticket = "jsonb_build_object('ticket_id', $1::text)"
    claim = f"SELECT broker.apply_snapshot('other', 1, jsonb_build_array({ticket}))"
    async with world.feed_pool.acquire() as conn, conn.transaction():
        await conn.execute(claim, names[0])
        resync = asyncio.create_task(world.resync(snapshot[:MAX_BATCH], snapshot[MAX_BATCH:]))
        while not await world.admin.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not resync.done()

        await conn.execute(claim, names[-1])  # has made none of the others while it waits for the first

    with pytest.raises(EventConflictError):
        await resync


async def test_feeds_do_not_wait(world):
    """While one feed's snapshot is being applied, another feed's events and heartbeats go through."""
    other = Helpdesk("other", time.time)
    feed = TicketFeed(world.feed_pool, [settings_of(other, world.folder)], time.time)
    opened = other.open("X-1", customers=["9"], assignee=BOB)
    rows = '[{"ticket_id": "T-1", "version": 1, "seq": 1, "hash": "", "status": "open"}]'
    async with world.feed_pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT broker.apply_snapshot('helpdesk', 1, $1)", rows)

        async with asyncio.timeout(2):
            await feed.publish({"other"}, [opened])
            assert not (await feed.heartbeat({"other"}, other.heartbeat())).resync_needed
            assert (await world.ground("X-1", BOB)).feed_fresh
        # (control: a writer of the same feed waits)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await world.send(world.helpdesk.open("T-2", customers=["7"], assignee=ALICE))


async def test_all_or_nothing_for_readers(world):
    """Who looks while a batch is applied sees none of it or all of it."""
    await world.send(*(world.helpdesk.open(f"T-{n}", customers=["7"], assignee=ALICE) for n in range(50)))
    taken_away = [world.helpdesk.reassign(f"T-{n}", BOB) for n in range(50)]
    sending = asyncio.create_task(world.send(*taken_away))
    seen = set()
    while not sending.done():
        seen.add(len((await world.listed(ALICE, page_size=100)).tickets))
    await sending

    assert seen <= {0, 50}
    assert (await world.ground("T-49", BOB)).ground.relation is Relation.ASSIGNEE


async def test_readers_do_not_wait(world):
    """A writer that holds its turn keeps no lookup waiting."""
    await world.send(world.helpdesk.open("T-1", customers=["7"], assignee=ALICE))
    async with world.feed_pool.acquire() as conn, conn.transaction():
        await conn.execute("SELECT broker.apply_snapshot('helpdesk', 1, '[]')")

        async with asyncio.timeout(2):
            assert (await world.ground("T-1")).ground.relation is Relation.ASSIGNEE
