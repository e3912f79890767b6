"""Grants as the database holds them: opened, looked at, revoked, explained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import connection, queries
from broker.ledger.events import Event
from broker.ledger.writer import on_record
from broker.model import Level

Q = queries("ledger")


@dataclass(frozen=True, slots=True)
class StoredGrant:
    """A grant with what opens its record; the pass never leaves this process but to the guard."""

    guard_pass: str
    purpose: str
    ticket_id: str
    customer_pseudonym: str
    ticket_pseudonym: str
    levels: dict[str, Level]
    expire_time: datetime


class GrantStore:
    """Reads and ends grants; creating one is the ledger's work, because it is an event."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        """Takes the broker_access pool."""
        self._pool = pool

    async def open(self, grant_id: UUID, agent: str) -> StoredGrant | None:
        """Gives an agent's own grant; None for anybody else's and for none."""
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.open_grant, grant_id, agent)
        if row is None:
            return None
        levels = zip(row["fields"], map(Level, row["levels"]), strict=True)
        return StoredGrant(
            guard_pass=row["pass"],
            purpose=row["purpose"],
            ticket_id=row["ticket_id"],
            customer_pseudonym=row["customer_pseudonym"],
            ticket_pseudonym=row["ticket_pseudonym"],
            levels=dict(levels),
            expire_time=row["expire_time"],
        )

    async def status(self, grant_id: UUID, agent: str) -> tuple[str, datetime] | None:
        """Gives ticket and end of a grant on which a read would be justified now; else None."""
        async with connection(self._pool) as conn:
            row = await conn.fetchrow(Q.grant_status, grant_id, agent)
        return None if row is None else (row["ticket_id"], row["expire_time"])

    async def revoke(self, event: Event) -> datetime | None:
        """Ends the agent's own grant and appends the event; None where there is no such grant.

        Returns:
            When it was revoked; the first time where it was revoked before.
        """
        async with connection(self._pool) as conn:
            with on_record():
                revoked: datetime | None = await conn.fetchval(
                    Q.revoke_own_grant,
                    event.id, event.grant_id, event.agent, event.tool, event.trace_id, event.head,
                )  # fmt: skip
        return revoked

    async def is_suspended(self, agent: str) -> bool:
        """Tells whether an agent is suspended now."""
        async with connection(self._pool) as conn:
            return bool(await conn.fetchval(Q.is_suspended, agent))

    async def own_event(self, event_id: UUID, agent: str) -> dict[str, Any] | None:
        """Gives the leaf of an agent's own event; None for anybody else's and for none."""
        async with connection(self._pool) as conn:
            leaf = await conn.fetchval(Q.own_event, event_id, agent)
        return None if leaf is None else json.loads(leaf)
