"""The index over released reads: complete, each event once, and what it says is what the leaf says."""

from __future__ import annotations

import asyncio
import random
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.audit.disclosures import keep_up, lag, look_again, step
from broker.database import open_pool
from tests.audit.conftest import FACTS
from tests.conftest import LOGIN_ROLES

TALLY_ANEW = """
WITH d AS (
    SELECT d.*, s.ticket_kind, s.week
    FROM broker.disclosure AS d JOIN broker.disclosure_stratum AS s USING (stratum_id)
),
subject AS (
    SELECT 0 AS name_id, 0 AS fields_id, ticket_kind, week, customer FROM d
    UNION ALL SELECT agent_id, fields_id, ticket_kind, week, customer FROM d
    UNION ALL SELECT tool_id, fields_id, ticket_kind, week, customer FROM d
)
SELECT name_id, fields_id, ticket_kind, week, count(DISTINCT customer) AS customers
FROM subject GROUP BY 1, 2, 3, 4
UNION ALL
SELECT name_id, fields_id, '', week, count(*)
FROM (SELECT name_id, fields_id, customer, min(week) AS week FROM subject GROUP BY 1, 2, 3) AS s
GROUP BY 1, 2, 4
ORDER BY 1, 2, 3, 4
"""
TALLY = """
SELECT t.name_id, t.fields_id, s.ticket_kind, s.week, t.customers
FROM broker.disclosure_tally AS t JOIN broker.disclosure_stratum AS s USING (stratum_id) ORDER BY 1, 2, 3, 4
"""


async def test_says_what_the_leaf_says(audited):
    """A released read is a row with its words; refused reads, grants and denials are none."""
    levels = {
        "customer.phone": "masked",
        "customer.name": "clear",
        "customer.email": "clear",
        "x.y": "withheld",
    }
    read = await audited.put(levels=levels, facts={"ticket_kind": "billing"})
    await audited.put(outcome="refused")
    await audited.put(kind="grant", outcome="granted")
    await audited.put(kind="denial", outcome="refused")
    await audited.catch_up()

    [row] = await audited.rows("SELECT * FROM broker.disclosed")
    assert read == row["event_id"]
    assert (row["clear"], row["masked"]) == (["customer.email", "customer.name"], ["customer.phone"])
    assert (row["agent"], row["tool"]) == ("https://idp.test|anna", "spiffe://test/tool/desk")
    assert (row["ticket_kind"], row["purpose"], row["provenance"]) == ("billing", "resolve-ticket", "routed")
    assert row["narrowed"] is None
    assert not row["unreadable"]


@pytest.mark.parametrize("seed", [1, 2])
async def test_tallies_are_those_of_all_rows_counted_anew(audited, seed):
    """Whatever the steps, tallies and rows are those of one walk over everything; each event once."""
    rng = random.Random(seed)
    now = datetime.now(UTC)
    await audited.partition(now - timedelta(days=31))
    shapes = [{"customer.name": "clear"}, {"customer.name": "clear", "customer.phone": "clear"}]
    count = 120
    for _ in range(count):
        await audited.put(
            at=now - timedelta(days=rng.randrange(25)),
            agent=f"i|a{rng.randrange(4)}",
            tool=f"tool{rng.randrange(2)}",
            customer=f"c{rng.randrange(25)}",
            levels=rng.choice(shapes),
            facts={"ticket_kind": rng.choice(["general", "billing"])},
        )
    while not await step(audited.pool, most=rng.randrange(1, 40)):
        if rng.random() < 0.5:
            await look_again(audited.pool, most=rng.randrange(1, 40))
    await audited.catch_up()

    assert count == len(await audited.rows("SELECT FROM broker.disclosed"))
    found = await audited.conn.fetch(TALLY)
    assert [tuple(r) for r in await audited.conn.fetch(TALLY_ANEW)] == [tuple(r) for r in found]


async def test_what_commits_late_is_taken(audited):
    """An event with a lower id than those already taken is taken once its transaction has committed."""
    late = await asyncpg.connect(audited.database.dsn())
    held = late.transaction()
    await held.start()
    first = await audited.put(conn=late)
    second = await audited.put(at=datetime.now(UTC) + timedelta(seconds=1))
    await audited.catch_up()
    before = [r["event_id"] for r in await audited.rows("SELECT event_id FROM broker.disclosed")]
    await held.commit()
    await late.close()
    await audited.catch_up()

    assert [second] == before
    rows = await audited.rows("SELECT event_id FROM broker.disclosed ORDER BY event_id")
    assert [first, second] == [r["event_id"] for r in rows]


async def test_nothing_is_settled_while_an_older_transaction_is_under_way(audited):
    """What nobody looks at again ends where the oldest transaction under way began."""

    async def settled_since(moment):
        return await audited.conn.fetchval("SELECT settled_time > $1 FROM broker.disclosure_place", moment)

    late = await asyncpg.connect(audited.database.dsn())
    held = late.transaction()
    await held.start()
    began = await late.fetchval("SELECT pg_current_xact_id() IS NOT NULL, clock_timestamp()", column=1)
    await audited.catch_up()
    while_held = await settled_since(began)
    await held.commit()
    await late.close()
    await audited.catch_up()

    assert not while_held
    assert await settled_since(began)


async def test_a_second_look_goes_in_slices(audited):
    """However long a transaction was open, no statement looks again at more than told; none is lost."""
    began = datetime.now(UTC) - timedelta(minutes=10)
    late = await asyncpg.connect(audited.database.dsn())
    held = late.transaction()
    await held.start()
    lost = await audited.put(conn=late, at=began + timedelta(seconds=25, milliseconds=500))
    for second in range(60):
        await audited.put(at=began + timedelta(seconds=second))
    await audited.catch_up()
    slices = []
    other = await audited.put(at=began + timedelta(seconds=30, milliseconds=500))
    await look_again(audited.pool, most=10, progress=slices.append)

    async def taken(event):
        return await audited.conn.fetchval(
            "SELECT count(*) FROM broker.disclosure WHERE event_id = $1", event
        )

    while_held = await taken(other), await taken(lost)
    await held.commit()
    await late.close()
    looked_at, settled = [], uuid.UUID(int=0)
    while True:
        await step(audited.pool, most=10)
        place = await audited.conn.fetchrow("SELECT settled_id, seen_id FROM broker.disclosure_place")
        looked_at.append(
            await audited.conn.fetchval(
                "SELECT count(*) FROM broker.ledger_event WHERE id > $1 AND id <= $2", settled, place[0]
            )
        )
        settled = place[0]
        if settled == place[1]:
            break

    assert while_held == (1, 0)
    assert len(slices) == 7
    assert looked_at == [10] * 6 + [2]
    assert await taken(lost) == 1


async def test_an_append_has_its_number_before_its_clock_is_looked_at(audited):
    """What settling rests on: whoever passed the check of the clock is a transaction with a number."""
    numbered = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL"
    async with audited.conn.transaction():
        assert not await audited.conn.fetchval(numbered)
        await audited.conn.execute("SELECT broker.check_clock(ARRAY[broker.uuid7_floor(clock_timestamp())])")
        assert await audited.conn.fetchval(numbered)


async def test_a_broken_leaf_stops_nobody(audited):
    """An unreadable read is a row with unknown fields, and those after it are taken."""
    levels = b'{"detail":{"levels":7}}'
    broken = [
        await audited.put(at=datetime.now(UTC) - timedelta(seconds=20 - i), leaf=leaf)
        for i, leaf in enumerate(
            (b"", b"\xff\xfe", b'{"detail":', levels, b'{"detail":"\\u0000"}', b"[" * 50_000)
        )
    ]
    whole = await audited.put()
    await audited.catch_up()

    rows = await audited.rows("SELECT event_id, unreadable FROM broker.disclosed ORDER BY event_id")
    assert [*((event, True) for event in broken), (whole, False)] == [tuple(r) for r in rows]


async def test_words_of_any_length_stop_nobody(audited):
    """A tool's name or a fact too long for any index is a row like others, and those after it are taken."""
    # As from before there was a bound.
    await audited.conn.execute("ALTER TABLE broker.ledger_event DROP CONSTRAINT ledger_event_sizes")
    long = [audited.rng.randbytes(9000).hex() for _ in range(2)]
    facts = dict.fromkeys(FACTS, long[0])
    reads = [
        await audited.put(tool=long[0], facts=facts),
        await audited.put(tool=long[1], facts=facts, customer="c2"),
        await audited.put(tool=long[1], customer="c3"),
    ]
    await audited.catch_up()

    rows = await audited.rows("SELECT * FROM broker.disclosed ORDER BY customer")
    assert [(row["event_id"], row["tool"]) for row in rows] == list(zip(reads, [*long, long[1]], strict=True))
    assert await audited.rows("SELECT count(*) AS n FROM broker.disclosure_name") == [(3,)]
    # Words of three make up the queue, which the tallies of unexplained visits have in their key.
    assert {rows[0][fact] for fact in FACTS} == {long[0][:100]}


async def test_an_outcome_narrows_the_read_of_its_own_agent_and_grant(audited):
    """`aborted` and `empty` narrow; another agent's word, another grant's and other words do not."""
    grant = uuid.uuid4()
    reads = [await audited.put(grant=grant, customer=f"c{i}") for i in range(4)]
    await audited.put(agent="i|other", customer="c9")
    for read, changes in zip(
        reads, ({}, {"agent": "i|other"}, {"grant": uuid.uuid4()}, {"came_to": "nothing"}), strict=True
    ):
        came_to = changes.pop("came_to", "empty")
        detail = {"read": str(read), "came_to": came_to}
        await audited.put(
            **{"kind": "outcome", "outcome": "done", "grant": grant, "detail": detail, **changes}
        )
    await audited.catch_up()

    rows = await audited.rows("SELECT narrowed FROM broker.disclosed ORDER BY customer")
    assert [r["narrowed"] for r in rows] == ["empty", None, None, None, None]


async def test_walkers_take_turns(audited):
    """Several walkers at once take each event once."""
    for i in range(40):
        await audited.put(customer=f"c{i}")
    pools = [await open_pool(audited.database.dsn("broker_admin"), name="w") for _ in range(3)]
    looks = [look(pool, most=7) for pool in pools for _ in range(4) for look in (step, look_again)]
    await asyncio.gather(*looks)
    for pool in pools:
        await pool.close()

    assert len(await audited.rows("SELECT FROM broker.disclosed")) == 40
    found = await audited.conn.fetch(TALLY)
    assert [tuple(r) for r in await audited.conn.fetch(TALLY_ANEW)] == [tuple(r) for r in found]


async def test_lag_is_the_time_between_the_newest_events(audited):
    """The lag is what the index has not seen yet; with nothing new it is nought."""
    now = datetime.now(UTC)
    await audited.put(at=now - timedelta(seconds=5))
    await audited.catch_up()
    assert timedelta(0) == (await lag(audited.pool)).behind
    await audited.put(at=now)
    assert timedelta(seconds=5) == (await lag(audited.pool)).behind


async def test_a_step_that_fails_is_tried_again(audited, caplog):
    """The task outlives a failure, says the lag after each step, and stops when told."""
    await audited.put()
    stop, lags, waits = asyncio.Event(), [], []
    await audited.conn.execute("ALTER TABLE broker.disclosure RENAME TO away")

    async def wait(seconds):
        waits.append(seconds)
        if len(waits) == 1:
            await audited.conn.execute("ALTER TABLE broker.away RENAME TO disclosure")
        else:
            stop.set()

    await keep_up(audited.pool, stop, on_lag=lags.append, wait=wait)

    assert waits == [10.0, 1.0]
    assert lags == [0.0]
    assert [r.message for r in caplog.records] == ["indexing disclosures failed"]
    assert len(await audited.rows("SELECT FROM broker.disclosed")) == 1


@pytest.mark.parametrize("role", [r for r in LOGIN_ROLES if r != "broker_owner"])
async def test_auditors_read_and_nobody_writes(audited, role):
    """Only the auditor reads the index; no role that logs in for the service writes it."""
    conn = await asyncpg.connect(audited.database.dsn(role))
    try:
        for table in ("disclosure", "disclosure_tally", "disclosure_place"):
            for sql in (f"DELETE FROM broker.{table}", f"UPDATE broker.{table} SET ctid = ctid"):
                with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.FeatureNotSupportedError)):
                    await conn.execute(sql)
        if role == "broker_auditor":
            assert await conn.fetch("SELECT * FROM broker.disclosed") == []
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await conn.fetch("SELECT * FROM broker.disclosed")
    finally:
        await conn.close()
