"""Following the ledger: each leaf once, in order, whatever happens between."""

import asyncio

import pytest

from broker.audit.follow import BATCH, follow
from broker.client import audit_wire as wire
from broker.client.channel import MOST_MESSAGE
from broker.errors import RequestMalformedError
from broker.rpc.audit.messages import event_message
from broker.v1 import audit_service_pb2 as pb
from tests.audit.filled import BEGIN, enlarge, fill, sequence


@pytest.fixture
async def filled(audited):
    await audited.partition(BEGIN)
    await fill(audited.conn, 0, 2 * BATCH + 50)
    await sequence(audited.conn, 2 * BATCH + 30)
    return audited


async def taken(pool, start, *, most=100, waits=False):
    """Takes some batches; gives the indexes and where to go on."""
    found, at = [], start
    async for batch in follow(pool, start, waits=waits, stop=asyncio.Event()):
        found += [event.leaf_index for event in batch.events]
        at = batch.next_index
        most -= 1
        if not most:
            break
    return found, at


async def test_resuming_anywhere(filled):
    """Cut off after any batch and gone on with from there, all leaves come once and in order."""
    whole = list(range(2 * BATCH + 30))
    for most in (1, 2, 3, 4):
        first, at = await taken(filled.pool, 0, most=most)
        rest, end = await taken(filled.pool, at)
        assert first + rest == whole
        assert end == len(whole)


async def test_batches_that_a_message_holds(filled):
    """Whatever the leaves' sizes, each batch is a message that clients take, and all leaves come once."""
    await enlarge(filled.conn, 250_000, every=9)
    found, sizes = [], []
    async for batch in follow(filled.pool, 0, waits=False, stop=asyncio.Event()):
        found += [event.leaf_index for event in batch.events]
        sizes.append(pb.StreamEventsResponse(events=map(event_message, batch.events)).ByteSize())

    assert found == list(range(2 * BATCH + 30))
    assert max(sizes) < MOST_MESSAGE
    assert len(sizes) > 4


async def test_a_leaf_that_no_message_holds(filled):
    """It is told by its size alone, and what comes behind it comes."""
    await enlarge(filled.conn, 5_000_000, every=100)
    events = []
    async for batch in follow(filled.pool, 0, waits=False, stop=asyncio.Event()):
        assert pb.StreamEventsResponse(events=map(event_message, batch.events)).ByteSize() < MOST_MESSAGE
        events += [wire.event(event_message(event)) for event in batch.events]

    assert [event.leaf_index for event in events] == list(range(2 * BATCH + 30))
    large = [event for event in events if event.leaf_size == 5_000_000]
    assert [event.leaf_index for event in large] == [99, 199, 299, 399]
    assert {(event.leaf, event.detail["oversized_leaf"]) for event in large} == {(b"", 5_000_000)}


async def test_what_comes_meanwhile(filled):
    """A follower that waits gets what becomes a leaf, and none of what is none yet."""
    found = []
    async for batch in follow(filled.pool, None, waits=True, stop=asyncio.Event()):
        found += [event.leaf_index for event in batch.events]
        if batch.events:
            break
        await sequence(filled.conn, 2 * BATCH + 35)

    assert found == list(range(2 * BATCH + 30, 2 * BATCH + 35))


async def test_the_end(filled):
    """It ends when the broker stops, and after its time, so that whoever follows is asked again."""
    stop, now = asyncio.Event(), iter(range(0, 10_000, 50))
    assert [
        b.next_index
        async for b in follow(filled.pool, None, waits=True, stop=stop, monotonic=lambda: next(now))
    ]
    stop.set()
    assert len([b async for b in follow(filled.pool, 0, waits=True, stop=stop)]) == 1


async def test_a_cursor_of_another_log(filled):
    """An index beyond the log is refused: nothing would come for ever, and nobody would notice."""
    with pytest.raises(RequestMalformedError):
        await taken(filled.pool, 10_000)
    assert await taken(filled.pool, 2 * BATCH + 30) == ([], 2 * BATCH + 30)


async def test_a_leaf_without_its_event(filled):
    """What was pruned or lost is passed over, and the cursor with it."""
    await filled.conn.execute("SET session_replication_role = replica")
    await filled.conn.execute(
        "DELETE FROM broker.ledger_event WHERE id = (SELECT event_id FROM broker.ledger_tree WHERE seq = 5)"
    )
    found, at = await taken(filled.pool, 0)

    assert found == [n for n in range(2 * BATCH + 30) if n != 5]
    assert at == 2 * BATCH + 30
