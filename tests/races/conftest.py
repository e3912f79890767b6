"""A company with two workers, and a second broker on the same database."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest_asyncio

from broker.client import AgentName
from broker.dev.layout import AGENT_ISSUER
from broker.dev.world import World, agent
from tests.replica import Replica, replica

COUNTER = itertools.count(50_000)


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def world() -> AsyncIterator[World]:
    """Starts the company; fsync is off, durability is not what races are about."""
    async with World.start(customers=60, workers=2, fsync=False) as world:
        yield world


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def second(world: World) -> AsyncIterator[Replica]:
    """Starts the second broker, which lets one peer do little at once."""
    async with replica(world, "second", peer_concurrency=6) as second:
        yield second


def name_of(subject: str) -> AgentName:
    """Names an agent as the admin port knows them."""
    return AgentName(AGENT_ISSUER, subject)


async def open_ticket(world: World, subject: str, customer: int = 7) -> str:
    """Opens a routed ticket of a customer for an agent."""
    ticket = f"T-{next(COUNTER)}"
    await world.publish(world.helpdesk.open(ticket, customers=[str(customer)], assignee=agent(subject)))
    return ticket
