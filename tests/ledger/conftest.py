"""A ledger over a database whose tickets, assignments and policy are rows that a test may turn."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import asyncpg
import pytest

from broker.database import open_pool
from broker.dev.postgres import EmbeddedPostgres
from broker.ledger import Event, EventIds, EventKind, GrantAppend, Ledger, ReadAppend, head, rest_of
from tests.conftest import TEMPLATE, Database
from tests.published import force

FILES = dict.fromkeys(("model.conf", "policy.csv", "catalog.yaml", "limits.yaml", "admin.csv"), "x")
TOOL = "spiffe://test/tool/desk"
TRACE = "0af7651916cd43dd8448eb211c80319c"
COUNTER = itertools.count()
IDS = EventIds()


def sign(root: bytes, size: int) -> str:
    """Stands where a key signs: the tests of receipts use a real one."""
    return f"{root.hex()}.{size}"


@dataclass
class Case:
    """One agent with one ticket of one customer, and a way to turn each fact that an append compares."""

    conn: asyncpg.Connection  # a superuser's
    agent: str
    ticket: str
    customer: str
    feed: str
    version: int
    facts_version: int = 0
    hour: int = 20
    day: int = 60

    async def revoke(self, grant: GrantAppend) -> None:
        """Revokes a grant."""
        await self.sql(
            "UPDATE broker.access_grant SET revoke_time = now() WHERE grant_id = $1", grant.grant_id
        )

    async def sql(self, text: str, *args: object) -> None:
        """Changes something behind everybody's back."""
        await self.conn.execute(text, *args)

    async def load(self) -> None:
        """Looks at the facts as the access side would."""
        self.facts_version = await self.conn.fetchval(
            "SELECT facts_version FROM broker.ticket WHERE ticket_id = $1", self.ticket
        )

    def pseudonym(self) -> str:
        """Stands where the records database derives one."""
        return uuid.uuid5(uuid.NAMESPACE_OID, self.customer).hex

    def grant(self, **changes: object) -> GrantAppend:
        """Makes a grant to be appended; each has ids of its own."""
        event_id, grant_id = IDS.new(), uuid.uuid4()
        rest = rest_of(
            EventKind.GRANT,
            agent=self.agent,
            tool=TOOL,
            grant_id=grant_id,
            customer=self.pseudonym(),
            ticket="t" * 32,
            policy_version=str(self.version),
            detail={"facts": {"kind": "general"}},
        )
        item = GrantAppend(
            id=event_id,
            grant_id=grant_id,
            request_id=uuid.uuid4(),
            request_hash=b"h" * 32,
            agent=self.agent,
            tool=TOOL,
            thumbprint="thumb",
            ticket_id=self.ticket,
            customer_id=self.customer,
            customer_pseudonym=self.pseudonym(),
            ticket_pseudonym="t" * 32,
            purpose="resolve-ticket",
            audience="broker",
            fields=("customer.name",),
            levels=("clear",),
            answer=json.dumps({"fields": []}),
            policy_version=self.version,
            facts_version=self.facts_version,
            present=False,
            seconds=300,
            per_hour=self.hour,
            per_day=self.day,
            trace_id=TRACE,
            head=head(event_id, TRACE, rest),
        )
        return replace(item, **changes)

    def read(self, grant: GrantAppend, **changes: object) -> ReadAppend:
        """Makes a read on a grant to be appended."""
        event_id = IDS.new()
        rest = rest_of(
            EventKind.READ,
            agent=self.agent,
            tool=TOOL,
            grant_id=grant.grant_id,
            customer=self.pseudonym(),
            ticket="t" * 32,
            policy_version=str(self.version),
            detail={"levels": {"customer.name": "clear"}},
        )
        item = ReadAppend(
            id=event_id,
            grant_id=grant.grant_id,
            agent=self.agent,
            tool=TOOL,
            trace_id=TRACE,
            facts_version=self.facts_version,
            present=False,
            policy_version=self.version,
            per_hour=self.hour,
            per_day=self.day,
            head=head(event_id, TRACE, rest),
        )
        return replace(item, **changes)


def denial(**changes: object) -> Event:
    """Makes an event that needs no ground."""
    event = Event(
        id=IDS.new(),
        kind=EventKind.DENIAL,
        outcome="refused",
        trace_id=TRACE,
        agent="https://idp.test|eve",
        tool=TOOL,
        reason="TICKET_DENIED",
    )
    return replace(event, **changes)


@dataclass
class Ground:
    """A database with a policy and a feed; cases are made on it."""

    database: Database
    conn: asyncpg.Connection
    version: int
    pools: list[asyncpg.Pool] = field(default_factory=list)

    async def case(self, *, agent: str = "", hour: int = 20, day: int = 60) -> Case:
        """Makes an agent (or takes one) with a ticket of their own, feed and customer included."""
        number = next(COUNTER)
        agent = agent or f"https://idp.test|agent-{number}"
        case = Case(
            self.conn, agent, f"T-{number}", f"C-{number}", f"feed-{number}", self.version, hour=hour, day=day
        )
        await self.conn.execute(
            "INSERT INTO broker.feed (feed_id, stale_time)"
            " VALUES ($1, clock_timestamp() + interval '1 hour')",
            case.feed,
        )
        await self.conn.execute(
            "INSERT INTO broker.ticket"
            " (ticket_id, feed_id, version, content_hash, status, kind, opened_by)"
            " VALUES ($1, $2, 1, '', 'open', 'general', 'customer')",
            case.ticket,
            case.feed,
        )
        await self.conn.execute(
            "INSERT INTO broker.ticket_customer VALUES ($1, $2)", case.ticket, case.customer
        )
        await self.conn.execute(
            "INSERT INTO broker.assignment"
            " (ticket_id, agent, relation, assigned_by, version, ticket_live, start_time)"
            " VALUES ($1, $2, 'assignee', 'queue', 1, true, clock_timestamp())",
            case.ticket,
            agent,
        )
        await case.load()
        return case

    async def pool(
        self, role: str = "broker_access", dsn: str = "", size: int = 4, **options: object
    ) -> asyncpg.Pool:
        """Opens a pool as a worker does."""
        pool = await open_pool(dsn or self.database.dsn(role), name="tests: ledger", max_size=size, **options)
        self.pools.append(pool)
        return pool

    async def ledger(self, **options: object) -> Ledger:
        """Opens a ledger as one replica does, with a pool of its own."""
        return Ledger(await self.pool(min_size=4), options.pop("sign_root", sign), **options)

    async def event(self, event_id: uuid.UUID) -> asyncpg.Record | None:
        """Gives a stored event."""
        return await self.conn.fetchrow("SELECT * FROM broker.ledger_event WHERE id = $1", event_id)

    async def activate(self) -> int:
        """Makes a new version of the policy active."""
        return await force(self.conn, {**FILES, "policy.csv": uuid.uuid4().hex}, "0" * 64)


@asynccontextmanager
async def opened(database: Database) -> AsyncIterator[Ground]:
    """Prepares a database."""
    conn = await asyncpg.connect(database.dsn())
    await conn.execute(
        "INSERT INTO broker.guard_key (key_id, inner_pad, outer_pad)"
        " VALUES ('testkey1', decode(repeat('36', 64), 'hex'), decode(repeat('5c', 64), 'hex'))"
        " ON CONFLICT DO NOTHING"
    )
    ground = Ground(database, conn, 0)
    ground.version = await ground.activate()
    try:
        yield ground
    finally:
        for pool in ground.pools:
            await asyncio.wait_for(pool.close(), 5)
        await conn.close()


@pytest.fixture(scope="session")
def shared_ledger(server: EmbeddedPostgres) -> Database:
    """Makes the database of these tests; cases on it do not meet."""

    async def make() -> None:
        conn = await asyncpg.connect(server.dsn())
        try:
            await conn.execute(f"CREATE DATABASE t_ledger TEMPLATE {TEMPLATE}")
        finally:
            await conn.close()

    asyncio.run(make())
    return Database(server, "t_ledger")


@pytest.fixture
async def ground(shared_ledger: Database) -> AsyncIterator[Ground]:
    """Gives the shared database, for tests that leave it whole."""
    async with opened(shared_ledger) as ground:
        yield ground


@pytest.fixture
async def own_ground(database: Database) -> AsyncIterator[Ground]:
    """Gives a fresh database, for tests that break it."""
    async with opened(database) as ground:
        yield ground


async def eventually(check, seconds: float = 10.0):
    """Waits for something that another process has to do; gives what the check gave."""
    end = time.monotonic() + seconds
    while not (found := await check()):
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.01)
    return found
