"""What the promises' tests do around the company: a second broker in this process, and a DBA's hands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from unittest import mock

import asyncpg
from prometheus_client import CollectorRegistry

from broker.client import BrokerClient
from broker.dev.layout import HOST, free_port
from broker.dev.world import World, agent
from broker.policy import PolicyFiles
from broker.server import access
from broker.settings import SERVE_NEEDS, Settings, read_settings
from broker.telemetry import Metrics
from tests.published import activate_in

PURPOSE = "resolve-ticket"

BESIDE_CALLS = (
    "broker.feeds()",
    "partitions_ready",
    "policy_active",
    "active_policy_version",
    "policy_worker",
    "COPY ",
)
"""What a worker asks every second, whoever calls."""


def settings_of(world: World) -> Settings:
    """Reads the settings that the company's `broker serve` runs with."""
    with mock.patch.dict(os.environ, {"BROKER_CONFIG": str(world.layout.settings_file)}):
        return read_settings(*SERVE_NEEDS)


@asynccontextmanager
async def second_broker(world: World) -> AsyncIterator[str]:
    """Runs one more access worker on the same databases, in this process; gives its target.

    Its composition is that of `broker serve`; in here a test can take a part away that no setting can.
    """
    settings, port = settings_of(world), free_port()
    listener = settings.access.model_copy(update={"port": port})
    ready, stop = asyncio.Event(), asyncio.Event()

    def report(why: str) -> None:
        if not why:
            ready.set()

    with mock.patch.object(access, "Metrics", partial(Metrics, registry=CollectorRegistry())):
        running = asyncio.create_task(
            access.run(settings.model_copy(update={"access": listener, "drain_seconds": 0.5}), report, stop)
        )
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        if not ready.is_set():
            waiting.cancel()
            running.cancel()
            await running  # says why
    try:
        yield f"{HOST}:{port}"
    finally:
        stop.set()
        await running


def client_at(
    world: World, target: str, subject: str, *, tool: str = "desk", carries: str = ""
) -> BrokerClient:
    """Makes the client of a tool at any broker; `carries` the token that another tool obtained."""
    tls = world.layout.client_tls(f"tool-{tool}")
    token = world.layout.token(subject, carries or tool)
    return BrokerClient(
        target,
        ca_file=tls.ca_file,
        cert_file=tls.cert_file,
        key_file=tls.key_file,
        token_source=lambda: token,
        timeout=5,
    )


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """Connects as whoever the DSN names; the superuser of `world.dsn()` is the DBA of the tests."""
    conn = await asyncpg.connect(dsn)
    try:
        yield conn
    finally:
        await conn.close()


async def open_ticket(world: World, ticket_id: str, customer: int, assignee: str) -> None:
    """Opens a ticket by the signed feed, assigned by the queue."""
    await world.publish(world.helpdesk.open(ticket_id, customers=[str(customer)], assignee=agent(assignee)))


async def reaches(look: Callable[[], Awaitable[object]], expected: object) -> None:
    """Waits until something looks as expected; what watches by the second must get there by itself."""
    async with asyncio.timeout(10):
        while await look() != expected:  # noqa: ASYNC110 - another process gets there
            await asyncio.sleep(0.05)


async def activate_policy(world: World, files: PolicyFiles) -> str:
    """Makes files the policy in force."""
    return await activate_in(world, files)


def policy_files(world: World, *, without: Sequence[str] = ()) -> PolicyFiles:
    """Reads the company's policy; `without` the rules that begin like this."""
    files = PolicyFiles.from_directory(world.layout.policies)
    kept = [line for line in files.texts["policy.csv"].splitlines() if not line.startswith(tuple(without))]
    return PolicyFiles.from_mapping({**files.texts, "policy.csv": "\n".join(kept) + "\n"})


@asynccontextmanager
async def telling_broker(world: World) -> AsyncIterator[tuple[str, list[str]]]:
    """Runs a second broker that tells which statements it sends for its callers."""
    told: list[str] = []
    create_pool = asyncpg.create_pool

    def tell(record: asyncpg.connection.LoggedQuery) -> None:
        if not any(part in record.query for part in BESIDE_CALLS):
            told.append(record.query)

    async def listen(conn: asyncpg.Connection) -> None:
        conn.add_query_logger(tell)

    with mock.patch("broker.database.asyncpg.create_pool", partial(create_pool, init=listen)):
        async with second_broker(world) as target:
            yield target, told
