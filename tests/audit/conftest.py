"""Ledger events made at will, past ones too, and what an auditor's pool sees of them."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from broker.audit.disclosures import catch_up
from broker.database import open_pool
from broker.ledger import EventKind, head, rest_of
from tests.conftest import Database

TRACE = "0af7651916cd43dd8448eb211c80319c"
FACTS = {
    "purpose": "resolve-ticket", "relation": "assignee", "ticket_kind": "general", "provenance": "routed",
    "opened_by": "customer", "presence": "absent",
}  # fmt: skip
INSERT = """
INSERT INTO broker.ledger_event
    (id, kind, record_time, agent, tool, grant_id, trace_id, customer_pseudonym, ticket_pseudonym,
     outcome, reason, policy_version, leaf)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, '', 1, $11)
"""


def event_id(at: datetime, rng: random.Random) -> uuid.UUID:
    """Makes the UUIDv7 of a moment."""
    millis = int(at.timestamp() * 1000)
    return uuid.UUID(
        int=millis << 80 | 0x7 << 76 | rng.getrandbits(12) << 64 | 0b10 << 62 | rng.getrandbits(62)
    )


def floor(at: datetime) -> uuid.UUID:
    """Gives the smallest UUIDv7 of a moment, as `broker.uuid7_floor` does."""
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80)


@dataclass
class Audited:
    """A database with a ledger that a test writes behind everybody's back."""

    database: Database
    conn: asyncpg.Connection  # superuser
    pool: asyncpg.Pool  # broker_auditor
    rng: random.Random = field(default_factory=lambda: random.Random(7))

    async def partition(self, at: datetime) -> None:
        """Makes the partition of a past month."""
        start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = (start + timedelta(days=32)).replace(day=1)
        name = f"ledger_event_{start:%Y%m}"
        await self.conn.execute(
            f"CREATE TABLE IF NOT EXISTS broker.{name} PARTITION OF broker.ledger_event FOR VALUES"
            f" FROM ('{floor(start)}') TO ('{floor(end)}')"
        )

    async def put(
        self,
        *,
        at: datetime | None = None,
        kind: str = "read",
        agent: str = "https://idp.test|anna",
        tool: str = "spiffe://test/tool/desk",
        customer: str = "c1",
        ticket: str = "t1",
        grant: uuid.UUID | None = None,
        outcome: str = "released",
        levels: Mapping[str, str] | None = None,
        facts: Mapping[str, str] | None = None,
        detail: Mapping[str, object] | None = None,
        leaf: bytes | None = None,
        conn: asyncpg.Connection | None = None,
    ) -> uuid.UUID:
        """Stores one event; gives its id."""
        at = at or datetime.now(UTC)
        made = event_id(at, self.rng)
        grant = grant or uuid.UUID(int=self.rng.getrandbits(128))
        if detail is None:
            detail = {"facts": {**FACTS, **(facts or {})}, "levels": levels or {"customer.name": "clear"}}
        rest = rest_of(
            EventKind(kind), agent=agent, tool=tool, grant_id=grant, customer=customer, ticket=ticket,
            policy_version="1", detail=detail,
        )  # fmt: skip
        tail = b',"outcome":"%s","reason":"","record_time":"%s"}' % (
            outcome.encode(), at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode(),
        )  # fmt: skip
        await (conn or self.conn).execute(
            INSERT, made, kind, at, agent, tool, grant, TRACE, customer, ticket, outcome,
            head(made, TRACE, rest) + tail if leaf is None else leaf,
        )  # fmt: skip
        return made

    async def rows(self, sql: str, *args: object) -> Sequence[asyncpg.Record]:
        """Asks as the auditor."""
        async with self.pool.acquire() as conn:
            return await conn.fetch(sql, *args)

    async def queries(self) -> list[dict]:
        """Gives the details of the auditors' own queries on record, oldest first."""
        rows = await self.conn.fetch(
            "SELECT leaf FROM broker.ledger_event WHERE kind = 'auditor_query' ORDER BY id"
        )
        return [json.loads(row["leaf"])["detail"] for row in rows]

    async def catch_up(self) -> None:
        """Brings the index up to now."""
        await catch_up(self.pool)


@pytest.fixture
async def audited(database: Database) -> AsyncIterator[Audited]:
    """Gives a fresh database and an auditor's pool on it."""
    conn = await asyncpg.connect(database.dsn())
    pool = await open_pool(database.dsn("broker_auditor"), name="tests: auditor", max_size=3)
    yield Audited(database, conn, pool)
    await pool.close()
    await conn.close()
