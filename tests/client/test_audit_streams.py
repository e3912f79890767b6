"""Streams of the audit client: who takes no more of one ends it, at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from broker.client import AgentName, AuditClient, ExposureQuery
from tests.client.conftest import agent_token

NOW = datetime(2026, 11, 25, tzinfo=UTC)

STREAMS = {
    "stream": lambda auditor: auditor.stream(0, follow=True),
    "reconcile": lambda auditor: auditor.reconcile(NOW - timedelta(days=1), NOW),
    "exposure": lambda auditor: auditor.exposure(ExposureQuery(agent=AgentName("https://idp.test", "eve"))),
}


@pytest.mark.parametrize("name", STREAMS)
async def test_ends_with_its_taker(broker, tls, name):
    """Whoever breaks off and closes holds no place at the broker, which has nobody left to write to."""
    async with AuditClient(broker.target, token_source=lambda: agent_token("audrey"), **tls) as auditor:
        parts = STREAMS[name](auditor)
        await anext(parts)
        await parts.aclose()
        async with asyncio.timeout(5):
            await broker.ended.wait()
