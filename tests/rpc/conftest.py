"""One company for all tests of the ports."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from broker.dev.layout import TOOLS, tool_identity
from broker.dev.world import World
from tests.rpc.company import SETTINGS, Company

PARTNER = "https://crm.example"


@pytest_asyncio.fixture(scope="package", loop_scope="session")
async def company() -> AsyncIterator[Company]:
    """Starts a real server with everything around it."""
    tools = [
        {
            "identity": tool_identity(name),
            "client_ids": [client],
            "audiences": [PARTNER] if name == "desk" else [],
        }
        for name, client in TOOLS.items()
    ]
    async with World.start(None, customers=60, fsync=False, settings={**SETTINGS, "tools": tools}) as world:
        company = Company(world)
        async with company.stack:
            yield company
