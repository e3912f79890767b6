"""Events by filter and page: the index says what looking at every event says."""

import random
from itertools import combinations

import pytest

from broker.audit import event_walk
from broker.audit.event_filter import INDEXED, EventFilter, StoredEvent
from broker.audit.event_index import step
from broker.audit.events import EventReader
from broker.audit.postings import CHUNK, common
from broker.client.channel import MOST_MESSAGE
from broker.database import open_pool
from broker.errors import DatabaseUnavailableError, RequestMalformedError
from broker.rpc.audit.messages import event_message
from broker.v1 import audit_service_pb2 as pb
from tests.audit.filled import BEGIN, STEP, chosen, enlarge, fill, sequence

EVENTS = 2 * CHUNK + 1500
LEAVES = EVENTS - 200
"""Two chunks, a rest that is not full, and events that are no leaves yet."""


@pytest.fixture
async def filled(audited):
    """A ledger of which the index holds as much as it can."""
    await audited.partition(BEGIN)
    await audited.partition(BEGIN + EVENTS * STEP)
    await fill(audited.conn, 0, EVENTS)
    await sequence(audited.conn, LEAVES)
    pool = await open_pool(audited.database.dsn("broker_admin"), name="tests: index", max_size=1)
    assert await step(pool) == (2, 0)
    await pool.close()
    return audited


async def everything(audited) -> list[StoredEvent]:
    rows = await audited.rows(
        "SELECT e.id, t.seq, e.record_time, e.kind, e.outcome, e.reason, e.agent, e.tool,"
        " e.customer_pseudonym, e.ticket_pseudonym, e.grant_id, e.trace_id, e.policy_version, e.leaf,"
        " octet_length(e.leaf)"
        " FROM broker.ledger_event AS e LEFT JOIN broker.ledger_tree AS t ON t.event_id = e.id ORDER BY e.id"
    )
    return [StoredEvent(*row) for row in rows]


async def turned(reader, wanted, *, size=500, oldest_first=False):
    """Turns all pages."""
    found, token = [], ""
    while True:
        page = await reader.page(wanted, size=size, token=token, oldest_first=oldest_first)
        found += page.events
        token = page.next_token
        if not token:
            return found


async def test_every_filter_alone_and_in_pairs(filled):
    """Rare and frequent values, alone, in a time range, with one another: as plain looking finds them."""
    reader, events, rng = EventReader(filled.pool), await everything(filled), random.Random(3)
    names = list(EventFilter.__dataclass_fields__)[:INDEXED]
    between = {"since": BEGIN + 2000 * STEP, "until": BEGIN + 6000.5 * STEP}
    wanted = [EventFilter(), EventFilter(**between), EventFilter(since=between["until"])]
    for name in names:
        values = {getattr(event, name) for event in events} - {"", None}
        for value in rng.sample(sorted(values, key=str), min(2, len(values))):
            wanted += [EventFilter(**{name: value}), EventFilter(**{name: value}, **between)]
    for one, other in combinations(names, 2):
        like, unlike = rng.sample(events, 2)
        if getattr(like, one) and getattr(like, other) and getattr(unlike, other):
            wanted.append(EventFilter(**{one: getattr(like, one), other: getattr(like, other)}))
            wanted.append(EventFilter(**{one: getattr(like, one), other: getattr(unlike, other)}))
    for each in wanted:
        expected = chosen(events, each)
        assert await turned(reader, each, oldest_first=True) == expected, each
        assert await turned(reader, each) == expected[::-1], each


@pytest.mark.attack("E5")
async def test_pages_while_events_come(filled):
    """What is recorded or becomes a leaf between two pages makes no event come twice and none be left out."""
    reader, events = EventReader(filled.pool), await everything(filled)
    newest = [(await reader.page(EventFilter(), size=150))]
    oldest = [(await reader.page(EventFilter(), size=150, oldest_first=True))]
    await fill(filled.conn, EVENTS, EVENTS + 50)
    await sequence(filled.conn, EVENTS + 20)
    while newest[-1].next_token:
        newest.append(await reader.page(EventFilter(), size=150, token=newest[-1].next_token))
    while oldest[-1].next_token:
        oldest.append(
            await reader.page(EventFilter(), size=400, token=oldest[-1].next_token, oldest_first=True)
        )

    ids = [event.event_id for page in newest for event in page.events]
    assert ids == [event.event_id for event in reversed(events)]
    ids = [event.event_id for page in oldest for event in page.events]
    assert ids == [event.event_id for event in await everything(filled)]
    assert {len(page.next_token) for page in newest + oldest} == {0, len(newest[0].next_token)}


async def test_pages_that_a_message_holds(filled):
    """Whatever the leaves' sizes, clients take each page as a message; all events come once, both ways."""
    reader, ids = EventReader(filled.pool), [event.event_id for event in await everything(filled)]
    await enlarge(filled.conn, 250_000, every=30)
    for oldest_first in (True, False):
        found, token = [], ""
        while True:
            page = await reader.page(EventFilter(), size=500, token=token, oldest_first=oldest_first)
            told = pb.ListEventsResponse(events=map(event_message, page.events))
            assert told.ByteSize() < MOST_MESSAGE
            found += [event.event_id for event in page.events]
            token = page.next_token
            if not token:
                break
        assert found == (ids if oldest_first else ids[::-1])


async def test_two_frequent_values_that_never_meet(filled):
    """An empty answer is found in the index: no event is looked at."""
    await filled.conn.execute("UPDATE broker.tlog_head SET size = $1", 2 * CHUNK)
    reader = EventReader(filled.pool)
    looks = []

    class Counting:
        def __init__(self, conn):
            self._conn = conn

        async def fetch(self, statement, *arguments):
            rows = await self._conn.fetch(statement, *arguments)
            looks.append((statement, len(rows)))
            return rows

        async def fetchval(self, statement, *arguments):
            return await self._conn.fetchval(statement, *arguments)

    async with filled.pool.acquire() as conn:
        walk = event_walk.Walk(
            Counting(conn), EventFilter(kind="read", outcome="granted"), oldest_first=False
        )
        await walk.begin()
        found, following = await walk.go(event_walk.Place(event_walk.LEAVES, 2 * CHUNK, 2 * CHUNK), 100)

    assert (list(found), following) == ([], None)
    assert not any(
        statement in {event_walk.Q.matching, event_walk.Q.leaves} and rows for statement, rows in looks
    )
    assert (
        len((await reader.page(EventFilter(kind="read", outcome="released"), size=9)).events) == 9
    )  # control


async def test_the_index_is_written_once(filled):
    """Nothing is left after a second run; the rows are the same when they are made again."""
    pool = await open_pool(filled.database.dsn("broker_admin"), name="tests: index", max_size=1)
    rows = await filled.rows("SELECT * FROM broker.event_posting ORDER BY value, chunk")
    assert await step(pool) == (0, 0)
    await filled.conn.execute("TRUNCATE broker.event_posting, broker.event_chunk")
    assert await step(pool, most=1) == (1, 1)
    assert await step(pool, most=1) == (1, 0)
    await pool.close()

    assert await filled.rows("SELECT * FROM broker.event_posting ORDER BY value, chunk") == rows


async def test_an_index_that_lies_shows_nothing_false(filled):
    """Postings of another value are looked up and compared: no event comes that is not meant."""
    await filled.conn.execute(
        "UPDATE broker.event_posting SET places = decode(repeat('ff', 512), 'hex')"
        " WHERE value = broker.event_value(8, 'FEED_STALE')"
    )
    wanted = EventFilter(reason="FEED_STALE")
    found = await turned(EventReader(filled.pool), wanted)

    assert found == chosen(await everything(filled), wanted)[::-1]
    assert found


@pytest.mark.attack("E5")
async def test_tokens_that_are_none(filled):
    """A token of another filter or order, cut, or with an index beyond the tree is refused."""
    reader = EventReader(filled.pool)
    token = (await reader.page(EventFilter(), size=5)).next_token
    beyond = token[:34] + "f" * 16 + token[50:]
    for bad in (token[:-2], token + "00", "zz" + token[2:], token[:32] + "02" + token[34:], beyond):
        with pytest.raises(RequestMalformedError):
            await reader.page(EventFilter(), size=5, token=bad)
    with pytest.raises(RequestMalformedError):
        await reader.page(EventFilter(kind="read"), size=5, token=token)


@pytest.mark.attack("A21")
async def test_the_auditors_role_asks_and_writes_nothing(filled):
    """Auditors read the index and cannot write it; a statement that takes too long ends."""
    for statement in (
        "DELETE FROM broker.event_posting", "SELECT broker.index_events(1)", "TRUNCATE broker.event_chunk",
    ):  # fmt: skip
        with pytest.raises(Exception, match="permission denied"):
            await filled.rows(statement)
    pool = await open_pool(
        filled.database.dsn("broker_auditor"), name="tests: slow", max_size=1, statement_timeout=0.001
    )
    with pytest.raises(DatabaseUnavailableError):
        await EventReader(pool).page(EventFilter(ticket="0" * 32), size=5)
    await pool.close()


def test_places():
    """Lists and bitmaps mean the same, first bit first."""
    bitmap = bytearray(512)
    for place in (0, 9, 4095):
        bitmap[place // 8] |= 0x80 >> place % 8
    few = b"".join(place.to_bytes(2) for place in (9, 11, 4095))

    assert common([bytes(bitmap)]) == [0, 9, 4095]
    assert common([bytes(bitmap), few]) == [9, 4095]
    assert common([few, b""]) == []
