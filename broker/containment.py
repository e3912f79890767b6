"""Stopping an agent at once; every act is one transaction with its ledger event.

Invariants:
- the act and its event commit together: if we die before, neither happened;
- every act may be repeated: the second one finds it done and records that it was asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import connection, queries, transaction
from broker.ledger import ADMIN_DOOR, Event, EventIds, EventKind, append_events
from broker.model import Agent

Q = queries("containment")


@dataclass(frozen=True, slots=True)
class Suspension:
    """One period of suspension."""

    suspension_id: int
    agent: Agent
    reason: str
    suspended_by: str
    create_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who acts, in which trace."""

    identity: str
    trace_id: str


class Containment:
    """Suspends, reinstates, revokes."""

    def __init__(self, pool: asyncpg.Pool, ids: EventIds) -> None:
        """Takes the broker_admin pool and the event ids."""
        self._pool = pool
        self._ids = ids

    async def suspend(self, by: Administrator, agent: Agent, reason: str) -> tuple[UUID, Suspension]:
        """Suspends an agent; the next grant or read after this returned is refused on every replica."""
        async with transaction(self._pool) as conn:
            [row] = await conn.fetch(Q.suspend, agent.key, reason, by.identity)
            event_id = await self._record(conn, by, EventKind.SUSPENSION, "suspend", agent.key, reason)
        return event_id, Suspension(
            0, agent, row["reason"], row["suspended_by"], row["create_time"], row["end_time"]
        )

    async def reinstate(self, by: Administrator, agent: Agent, reason: str) -> tuple[UUID, datetime | None]:
        """Ends a suspension; gives when it ended, None where there was none."""
        async with transaction(self._pool) as conn:
            end_time = await conn.fetchval(Q.reinstate, agent.key)
            event_id = await self._record(conn, by, EventKind.SUSPENSION, "reinstate", agent.key, reason)
        return event_id, end_time

    async def revoke(
        self,
        by: Administrator,
        *,
        agent: Agent | None,
        ticket_id: str | None,
        grant_id: UUID | None,
        reason: str,
    ) -> tuple[UUID, int]:
        """Revokes live grants by exactly one selector; gives how many."""
        selector = "agent" if agent else "ticket" if ticket_id else "grant"
        async with transaction(self._pool) as conn:
            count = await conn.fetchval(Q.revoke_grants, agent.key if agent else None, ticket_id, grant_id)
            event_id = await self._record(
                conn, by, EventKind.REVOKE, "revoke", agent.key if agent else "", reason,
                grant_id=grant_id, revoked=count, selector=selector,
            )  # fmt: skip
        return event_id, count

    async def list(
        self, by: Administrator, *, ended: bool, before: int | None, size: int
    ) -> tuple[list[Suspension], bool]:
        """Gives a page of suspensions, newest first, and whether there are more; looking is an event too."""
        async with transaction(self._pool) as conn:
            rows = await conn.fetch(Q.list_suspensions, ended, before, size + 1)
            await self._record(conn, by, EventKind.ADMIN, "list suspensions", "", "")
        return [_suspension(row) for row in rows[:size]], len(rows) > size

    async def is_reachable(self) -> bool:
        """Tells whether the database answers."""
        async with connection(self._pool) as conn:
            return bool(await conn.fetchval("SELECT NOT pg_is_in_recovery()"))

    async def _record(
        self, conn: Any, by: Administrator, kind: EventKind, act: str, agent: str, reason: str,
        *, grant_id: UUID | None = None, **more: object,
    ) -> UUID:  # fmt: skip
        event = Event(
            id=self._ids.new(),
            kind=kind,
            outcome="done",
            trace_id=by.trace_id,
            agent=agent,
            tool=by.identity,
            grant_id=grant_id,
            detail={"act": act, "why": reason, **more},
        )
        await append_events(conn, [event], door=ADMIN_DOOR)
        return event.id


def _suspension(row: Any) -> Suspension:
    issuer, _, subject = row["agent"].partition("|")
    return Suspension(
        row["suspension_id"], Agent(issuer, subject), row["reason"], row["suspended_by"], row["create_time"],
        row["end_time"],
    )  # fmt: skip
