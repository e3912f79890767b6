"""A store over a fresh database, and finished traces to put into it."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from broker import telemetry
from broker.telemetry import Metrics, Telemetry
from broker.traces import open_store

METHOD = "broker.v1.AccessService/RevokeGrant"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
GRANT = UUID("019ab2f0-7c1e-7000-8000-000000000001")
EVENT = UUID("019ab2f0-7c1e-7000-8000-000000000002")


class World:
    """A store, the telemetry that feeds it, and the counters beside it."""

    def __init__(self, database, store, registry):
        self.database = database
        self.store = store
        self.registry = registry
        self.telemetry = Telemetry([store])

    def counted(self, what):
        return self.registry.get_sample_value(f"broker_spans_{what}_total", {"sink": "store"})

    def grant(self, grant_id=GRANT, traceparent=None):
        """Makes the trace of a RevokeGrant with two steps, one inside the other."""
        trace = self.telemetry.start_trace(METHOD, traceparent=traceparent)
        with trace.step(telemetry.DECIDE) as step, step.step(telemetry.RESOLVE):
            pass
        trace.finish(code="OK", grant_id=grant_id, event_id=EVENT, policy_version="7")
        return trace

    def read(
        self,
        grant_id=GRANT,
        traceparent=None,
        steps=telemetry.READ_STEPS,
        method=telemetry.READ_RECORD,
        **outcome,
    ):
        """Makes the trace of a ReadRecord."""
        trace = self.telemetry.start_compact(method, traceparent)
        for step in steps:
            trace.lap(step)
        trace.finish(**{"code": "OK", "event_id": EVENT, "policy_version": "7", **outcome}, grant_id=grant_id)
        return trace

    async def query(self, sql, *args, role="postgres"):
        conn = await asyncpg.connect(self.database.dsn(role))
        try:
            return await conn.fetch(sql, *args)
        finally:
            await conn.close()


@pytest.fixture
async def world(database):
    registry = CollectorRegistry()
    store = await open_store(database.dsn("broker_access"), Metrics(registry=registry), limit=1000)
    yield World(database, store, registry)
    await store.close(0.5)
