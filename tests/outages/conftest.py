"""A company on a disk that keeps its word, for what must survive."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest_asyncio

from broker.dev.world import World, agent
from tests.throwaway import on_disk

COUNTER = itertools.count(60_000)
FIELDS = ["customer.name"]


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def world() -> AsyncIterator[World]:
    """Starts the company with fsync on and two workers, on the disk."""
    async with AsyncExitStack() as stack:
        with on_disk():
            world = await stack.enter_async_context(World.start(customers=60, workers=2, fsync=True))
        yield world


async def open_ticket(world: World, subject: str, customer: int = 7) -> str:
    """Opens a routed ticket of a customer for an agent."""
    ticket = f"T-{next(COUNTER)}"
    await world.publish(world.helpdesk.open(ticket, customers=[str(customer)], assignee=agent(subject)))
    return ticket


async def unledgered(world: World, decisions: list[str]) -> set[str]:
    """Gives those decisions whose event is not on record as released."""
    conn = await asyncpg.connect(world.dsn())
    try:
        rows = await conn.fetch(
            "SELECT id::text FROM broker.ledger_event WHERE id = ANY ($1::uuid[]) AND outcome = 'released'",
            decisions,
        )
    finally:
        await conn.close()
    return set(decisions) - {row["id"] for row in rows}
