"""A budget holds to the last one though every worker of every broker is asked at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from broker.client import BudgetExceededError
from broker.dev.world import agent
from tests.races.conftest import COUNTER

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIELDS = ["customer.name"]
BUDGET = 30
"""Of tier 1 an hour, in the starting policy's limits.yaml."""


@pytest.mark.attack("K10")
async def test_k10_a_thousand_tickets_are_no_thousand_customers(world, second):
    """45 tickets of 45 customers read at once over three workers: exactly the budget; known ones go on."""
    tickets = {f"T-{next(COUNTER)}": str(customer) for customer in range(1, 46)}
    await world.publish(
        *(
            world.helpdesk.open(ticket, customers=[customer], assignee=agent("mallory"))
            for ticket, customer in tickets.items()
        )
    )
    async with AsyncExitStack() as stack:
        # The second broker lets a tool have six calls under way; more connections go to the first.
        clients = [
            await stack.enter_async_context(broker.client("mallory", timeout=15))
            for broker in (world, world, world, second)
        ]
        grants = await asyncio.gather(
            *(clients[i % 3].create_grant(t, FIELDS, purpose="resolve-ticket") for i, t in enumerate(tickets))
        )
        places = asyncio.Semaphore(5)

        async def read(index: int) -> str:
            client = clients[index % len(clients)]
            async with places if client is clients[3] else AsyncExitStack():
                try:
                    await client.read_with(grants[index], FIELDS)
                except BudgetExceededError as error:
                    return error.metadata["free_time"]
            return ""

        told = await asyncio.gather(*(read(index) for index in range(len(grants))))
        assert Counter(told)[""] == BUDGET
        free = {datetime.fromisoformat(each) for each in told if each}
        assert all(timedelta(minutes=59) < each - datetime.now(UTC) < timedelta(minutes=62) for each in free)
        for index, said in enumerate(told):
            again = await read(index)
            assert bool(again) == bool(said)  # who was seen may be seen again, nobody else
