"""A company whose agents have been granted, have read and have been refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from broker.dev.world import World
from tests.rpc.company import SETTINGS, Company


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def company() -> AsyncIterator[Company]:
    """Starts a real server with everything around it."""
    async with World.start(None, customers=60, fsync=False, settings=SETTINGS) as world:
        company = Company(world)
        async with company.stack:
            yield company
