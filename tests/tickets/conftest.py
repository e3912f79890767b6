"""A helpdesk, the feed that hears it and the tickets as the access side sees them, on a fresh database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from broker.database import open_pool
from broker.dev.helpdesk import Helpdesk
from broker.dev.postgres import EmbeddedPostgres
from broker.model import Agent
from broker.settings import FeedSettings
from broker.tickets import Freshness, Outcome, Page, Resynced, Standing, TicketFeed, Tickets
from tests.conftest import TEMPLATE, Database

ALICE = Agent("https://idp.example", "alice")
BOB = Agent("https://idp.example", "bob")
CAROL = Agent("https://other.example", "alice")  # the same subject at another issuer is somebody else

FEED_ID = "helpdesk"


def settings_of(helpdesk: Helpdesk, folder: Path) -> FeedSettings:
    """Writes the helpdesk's keys to a folder and configures it as a feed."""
    path = folder / f"{helpdesk.feed_id}.jwks.json"
    path.write_text(helpdesk.jwks())
    return FeedSettings(feed_id=helpdesk.feed_id, jwks_file=path)


@dataclass
class Clock:
    """The helpdesk's clock: real time, and as many seconds ahead as a test wants."""

    ahead: float = 0

    def __call__(self) -> float:
        """Gives POSIX seconds."""
        return time.time() + self.ahead


@dataclass
class World:
    """One helpdesk before one broker."""

    clock: Clock
    helpdesk: Helpdesk
    feed: TicketFeed
    tickets: Tickets
    feed_pool: asyncpg.Pool
    access_pool: asyncpg.Pool
    admin: asyncpg.Connection  # a superuser's, to look and to turn the database's time
    folder: Path
    peer: frozenset[str] = field(default_factory=lambda: frozenset({FEED_ID}))

    async def send(self, *events: str) -> tuple[Outcome, ...]:
        """Publishes events as one batch and gives their outcomes."""
        return (await self.feed.publish(self.peer, events)).outcomes

    async def beat(self) -> Freshness:
        """Sends a heartbeat that is later than all before."""
        self.clock.ahead += 1
        return await self.feed.heartbeat(self.peer, self.helpdesk.heartbeat())

    async def resync(self, *parts: Sequence[str]) -> Resynced:
        """Sends a snapshot in parts."""

        async def stream() -> AsyncIterator[Sequence[str]]:
            for part in parts:
                yield part

        return await self.feed.resync(self.peer, stream())

    async def ground(self, ticket_id: str, agent: Agent = ALICE) -> Standing:
        """Resolves the ground as the access side does."""
        return await self.tickets.ground(ticket_id, agent)

    async def listed(self, agent: Agent = ALICE, **options) -> Page:
        """Lists an agent's tickets as the access side does."""
        return await self.tickets.list_assigned(agent, **options)

    async def history(self, ticket_id: str) -> list[tuple[str, str, bool]]:
        """Gives all assignments ever: agent's subject, who assigned, whether live."""
        rows = await self.admin.fetch(
            "SELECT * FROM broker.assignment WHERE ticket_id = $1 ORDER BY assignment_id", ticket_id
        )
        return [(row["agent"].split("|")[1], row["assigned_by"], row["end_time"] is None) for row in rows]

    async def later(self, seconds: float) -> None:
        """Lets time pass for the database: moves all that it compares with its clock into the past."""
        await self.admin.execute(
            "UPDATE broker.ticket SET present_until = present_until - make_interval(secs => $1)",
            float(seconds),
        )
        await self.admin.execute(
            "UPDATE broker.feed SET stale_time = stale_time - make_interval(secs => $1)", float(seconds)
        )


@pytest.fixture(scope="session")
def shared(server: EmbeddedPostgres) -> Database:
    """Makes the one database of these tests; emptying it is quicker than making one for each."""

    async def make() -> None:
        conn = await asyncpg.connect(server.dsn())
        try:
            await conn.execute(f"CREATE DATABASE t_tickets TEMPLATE {TEMPLATE}")
        finally:
            await conn.close()

    asyncio.run(make())
    return Database(server, "t_tickets")


@pytest.fixture
async def database(shared: Database) -> Database:
    """Empties the database."""
    conn = await asyncpg.connect(shared.dsn())
    try:
        await conn.execute("TRUNCATE broker.feed, broker.ticket_event CASCADE")
    finally:
        await conn.close()
    return shared


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    """Gives a helpdesk that has said nothing yet."""
    clock = Clock()
    helpdesk = Helpdesk(FEED_ID, clock)
    feed_pool = await open_pool(database.dsn("broker_feed"), name="tests: feed", max_size=4)
    access_pool = await open_pool(database.dsn("broker_access"), name="tests: access", max_size=4)
    admin = await asyncpg.connect(database.dsn())
    feed = TicketFeed(feed_pool, [settings_of(helpdesk, tmp_path)], time.time)
    try:
        yield World(clock, helpdesk, feed, Tickets(access_pool), feed_pool, access_pool, admin, tmp_path)
    finally:
        await asyncio.gather(feed_pool.close(), access_pool.close(), admin.close())
