"""One peer's excess is its own: others are served, and nothing piles up."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack

import asyncpg
import pytest

from broker.client import BrokerCallError, FieldState
from tests.races.conftest import open_ticket

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIELDS = ["customer.name"]


async def outcome(call) -> str:
    """Gives the code that a call ended with."""
    try:
        await call
    except BrokerCallError as error:
        return f"{error.code} {error.reason}".strip()
    return "OK"


@pytest.mark.attack("K10", "X1")
async def test_x1_a_flood_of_one_tool_is_refused_and_others_are_served(world, second):
    """With six places per tool, a tool that takes 60 is refused beyond them; beside it another is served."""
    mine, theirs = await open_ticket(world, "olga"), await open_ticket(world, "pablo")
    async with AsyncExitStack() as stack:
        flood = [await stack.enter_async_context(second.client("olga", timeout=3)) for _ in range(3)]
        other = await stack.enter_async_context(second.client("pablo", tool="phone", timeout=3))
        grant = await flood[0].create_grant(mine, FIELDS, purpose="resolve-ticket")
        calm = await other.create_grant(theirs, FIELDS, purpose="resolve-ticket")
        over = asyncio.Event()

        async def press(client) -> list[str]:
            told = []
            while not over.is_set():
                told += await asyncio.gather(*(outcome(client.read_with(grant, FIELDS)) for _ in range(10)))
            return told

        tasks = [asyncio.create_task(press(client)) for client in flood]
        took = []
        for _ in range(12):
            began = time.monotonic()
            await other.read_with(calm, FIELDS)  # raises if it is ever refused
            took.append(time.monotonic() - began)
        over.set()
        told = Counter(each for part in await asyncio.gather(*tasks) for each in part)

    assert told["RESOURCE_EXHAUSTED RATE_LIMITED"] > 0
    assert told["OK"] > 0  # control: within its places the flooding tool is served, too
    assert set(told) == {"OK", "RESOURCE_EXHAUSTED RATE_LIMITED"}
    assert sorted(took)[-2] < 1.5


@pytest.mark.attack("X3", "S11")
@pytest.mark.parametrize("table", ["ticket", "ledger_event"])
async def test_s11_a_lock_on_a_table_costs_calls_their_deadline_and_no_more(world, table):
    """While an operator holds a table, calls end at their deadline or before; after it, all is as ever."""
    subject = {"ticket": "quinn", "ledger_event": "rosa"}[table]
    tickets = [await open_ticket(world, subject, customer) for customer in range(20, 24)]
    conn = await asyncpg.connect(world.dsn())
    async with world.client(subject, timeout=1.0) as client:
        assert {
            await outcome(client.create_grant(each, FIELDS, purpose="resolve-ticket")) for each in tickets
        } == {"OK"}
        transaction = conn.transaction()
        await transaction.start()
        await conn.execute(f"LOCK TABLE broker.{table} IN ACCESS EXCLUSIVE MODE")
        began = time.monotonic()
        told = await asyncio.gather(
            *(outcome(client.create_grant(each, FIELDS, purpose="resolve-ticket")) for each in tickets * 15)
        )
        took = time.monotonic() - began
        await transaction.rollback()
        await conn.close()
        assert {each.split()[0] for each in told} <= {"DEADLINE_EXCEEDED", "UNAVAILABLE"}
        assert took < 2.5
    async with world.client(subject, timeout=8.0) as client:
        record = await client.read(tickets[0], FIELDS, purpose="resolve-ticket")
        assert record["customer.name"].state is FieldState.CLEAR
