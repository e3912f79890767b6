"""A helpdesk's tickets about customers who have salts: what access-at and erasure are tried on."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from broker.audit.record import Auditor
from broker.catalog import Catalog, Field, Kind, Mask
from broker.database import open_pool
from broker.ledger import EventIds
from broker.records import apply, plan_install, rotate_guard_key
from tests.audit.conftest import Audited
from tests.audit.test_exposure import activate

ANNA, BEN, CARL = (f"https://idp.test|{name}" for name in ("anna", "ben", "carl"))
BY = Auditor("spiffe://test/console", "0af7651916cd43dd8448eb211c80319c")
CUSTOMER = "Kunde-77-Quittenbaum"
"""A key that occurs nowhere by chance."""

SCHEMA = """
CREATE SCHEMA crm;
CREATE TABLE crm.customer (customer_id text PRIMARY KEY, name text);
INSERT INTO crm.customer VALUES ('Kunde-77-Quittenbaum', 'q'), ('K-2', 'z');
"""


def catalog() -> Catalog:
    """Maps the table."""
    fields = {"name": Field("customer", "name", "name", "contact", Mask.TEXT)}
    kinds = {"customer": Kind("customer", "crm", "customer", "customer_id", fields)}
    return Catalog(("general",), {"resolve-ticket": "."}, {"contact": "."}, frozenset(), kinds)


@dataclass
class Desk:
    """Broker and records in one database, a helpdesk's feed, and pools of the roles."""

    audited: Audited
    admin: asyncpg.Pool
    feed: asyncpg.Connection
    reader: asyncpg.Connection
    ids: EventIds = field(default_factory=EventIds)
    seq: int = 0

    @property
    def pools(self) -> tuple[asyncpg.Pool, asyncpg.Pool, asyncpg.Pool]:
        """Gives admin, auditor, and the auditor in the records database."""
        return self.admin, self.audited.pool, self.audited.pool

    async def tell(self, ticket: str, version: int, **aspects: object) -> dict:
        """Sends one event as the helpdesk; gives it, to be sent again."""
        self.seq += 1
        event = {"ticket_id": ticket, "version": version, "seq": self.seq, **aspects}
        event["hash"] = hashlib.sha256(json.dumps(aspects).encode()).hexdigest()
        await self.send(event)
        return event

    async def send(self, event: dict) -> str:
        """Sends an event; gives what became of it."""
        row = await self.feed.fetchrow(
            "SELECT outcomes FROM broker.apply_ticket_events('desk', $1::jsonb)", json.dumps([event])
        )
        return row["outcomes"][0]

    async def open(self, ticket: str, *agents: str, customers: tuple[str, ...] = (CUSTOMER,)) -> dict:
        """Opens a ticket that is routed to agents."""
        return await self.tell(
            ticket,
            1,
            kind="general",
            opened_by="customer",
            opened_by_agent=None,
            customers=list(customers),
            status="open",
            assignments=[routed(agent) for agent in agents],
        )

    async def pseudonym(self, customer: str = CUSTOMER, ticket: str = "T-1") -> str:
        """Gives the pseudonym that the next grant would have."""
        return await self.reader.fetchval(
            "SELECT customer_pseudonym FROM broker_guard.pseudonyms(ARRAY[$1], ARRAY[$2])", customer, ticket
        )

    async def grant(
        self, agent: str, ticket: str, *, customer: str = CUSTOMER, conn: asyncpg.Connection | None = None
    ) -> uuid.UUID:
        """Stores a live grant, as broker.create_grant would."""
        grant = uuid.uuid4()
        await (conn or self.audited.conn).execute(
            "INSERT INTO broker.access_grant SELECT $1, $2, $3, sha256($4::text::bytea), $5, 'tool', 'print',"
            " $6, $4, $7, 'tp', 'resolve-ticket', 'broker', '{customer.name}', '{clear}', '{}', 1, '',"
            " encode($4::text::bytea, 'hex'), now(), now() + interval '5 minutes', NULL",
            grant, uuid.uuid4(), uuid.uuid4(), customer, agent, ticket, await self.pseudonym(customer),
        )  # fmt: skip
        return grant

    async def now(self) -> datetime:
        """Gives the database's time."""
        return await self.audited.conn.fetchval("SELECT clock_timestamp()")

    async def admin_events(self, call: str) -> list[dict]:
        """Gives the leaves of administrative calls."""
        rows = await self.audited.conn.fetch(
            "SELECT leaf FROM broker.ledger_event WHERE kind = 'admin' ORDER BY id"
        )
        leaves = [json.loads(row["leaf"]) for row in rows]
        return [leaf for leaf in leaves if leaf["detail"].get("call") == call]


def routed(agent: str, relation: str = "assignee") -> dict:
    """Says that an agent was given the ticket by a queue."""
    return {"agent": agent, "relation": relation, "assigned_by": "queue", "assigned_by_agent": None}


@asynccontextmanager
async def desk_of(audited: Audited) -> AsyncIterator[Desk]:
    """Sets everything up."""
    await activate(audited)
    await audited.conn.execute(SCHEMA)
    await apply(audited.conn, await plan_install(audited.conn, catalog()))
    dsn = audited.database.dsn
    owner = await asyncpg.connect(dsn("broker_owner"))
    await rotate_guard_key(owner, audited.conn)
    admin = await open_pool(dsn("broker_admin"), name="tests: admin", max_size=2)
    desk = Desk(
        audited, admin, await asyncpg.connect(dsn("broker_feed")), await asyncpg.connect(dsn("broker_reader"))
    )
    yield desk
    await admin.close()
    for conn in (owner, desk.feed, desk.reader):
        await conn.close()
