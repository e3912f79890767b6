"""One small company for all promises: its own PostgreSQL, a real `broker serve`, real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from broker.dev.layout import TOOLS, tool_identity
from broker.dev.world import World

OTHER_SERVICE = "https://billing.example"
"""Another service that the tools may ask grants for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """Starts the company; its tickets are opened by the tests, one or more for each promise."""
    tools = [
        {"identity": tool_identity(name), "client_ids": [client], "audiences": [OTHER_SERVICE]}
        for name, client in TOOLS.items()
    ]
    async with World.start(customers=20, fsync=False, settings={"tools": tools}) as started:
        yield started
