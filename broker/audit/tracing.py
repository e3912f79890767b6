"""What was measured and what is on record about one thing: its spans, and the events that they name.

Invariants:
- either side may lack what the other has: spans get lost, events do not, and both are shown as they are;
- bounded: a ticket's or a grant's oldest come first, and the answer says that there are more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.audit.event_filter import EventFilter, StoredEvent, fitting
from broker.audit.events import EventReader
from broker.database import Connection, connection, queries
from broker.errors import EventNotFoundError
from broker.telemetry import DECISION_ID
from broker.traces import Span, span_of

Q = queries("audit_traces")

MOST_TRACES = 100
MOST_EVENTS = 200
MOST_GRANTS = 50
"""Grants of one ticket."""


@dataclass(frozen=True, slots=True)
class Traced:
    """Both sides, oldest first."""

    spans: tuple[Span, ...]
    events: tuple[StoredEvent, ...]
    truncated: bool


class Tracing:
    """Finds both sides, as broker_auditor."""

    def __init__(self, pool: asyncpg.Pool, events: EventReader) -> None:
        """Takes the auditors' pool, and what finds events."""
        self._pool = pool
        self._events = events

    async def of_trace(self, trace_id: str) -> Traced:
        """Finds one request by its trace.

        Raises:
            EventNotFoundError: no span of it is stored.
        """
        async with connection(self._pool) as conn:
            spans = await _spans(conn, [bytes.fromhex(trace_id)])
            if not spans:
                raise EventNotFoundError
            events = await _named(conn, spans)
        fits = fitting(events)
        return Traced(spans, events[:fits], truncated=fits < len(events))

    async def of_event(self, event: StoredEvent) -> Traced:
        """Finds the request of one event."""
        async with connection(self._pool) as conn:
            spans = await _spans(conn, [_trace_id(event)])
        return Traced(spans, (event,), truncated=False)

    async def of_grants(self, grants: Sequence[UUID]) -> Traced:
        """Finds everything about some grants; empty where there is nothing."""
        async with connection(self._pool) as conn:
            rows = await conn.fetch(Q.events_of_grants, list(grants), MOST_EVENTS + 1)
            events = [StoredEvent(*row) for row in rows]
            found = await conn.fetch(Q.traces_of_grants, list(grants), MOST_TRACES + 1)
            traces = dict.fromkeys([*(row["trace_id"] for row in found), *map(_trace_id, events)])
            spans = await _spans(conn, list(traces)[:MOST_TRACES])
        fits = min(fitting(events), MOST_EVENTS)
        return Traced(spans, tuple(events[:fits]), fits < len(events) or len(traces) > MOST_TRACES)

    async def of_ticket(self, pseudonyms: Sequence[str]) -> Traced:
        """Finds the grants on a ticket, by its pseudonyms, and everything about them."""
        grants: list[UUID] = []
        more = False
        for pseudonym in pseudonyms:
            page = await self._events.page(
                EventFilter(ticket=pseudonym, kind="grant"), size=MOST_GRANTS, oldest_first=True
            )
            grants += [event.grant_id for event in page.events if event.grant_id]
            more |= bool(page.next_token) or len(grants) > MOST_GRANTS
        found = await self.of_grants(grants[:MOST_GRANTS])
        return Traced(found.spans, found.events, found.truncated or more)

    async def pseudonyms(self, ticket_id: str) -> list[str]:
        """Gives the pseudonyms of a ticket by its own id, while the broker has grants on it."""
        async with connection(self._pool) as conn:
            return [row["pseudonym"] for row in await conn.fetch(Q.tickets, ticket_id)]


async def _spans(conn: Connection, traces: Sequence[bytes]) -> tuple[Span, ...]:
    return tuple(span_of(row) for row in await conn.fetch(Q.spans_of_traces, list(traces)))


async def _named(conn: Connection, spans: Sequence[Span]) -> tuple[StoredEvent, ...]:
    named = (_event_id(s.attributes[DECISION_ID]) for s in spans if DECISION_ID in s.attributes)
    ids = [event_id for event_id in named if event_id is not None]
    return tuple(StoredEvent(*row) for row in await conn.fetch(Q.events_of_traces, ids))


def _event_id(named: object) -> UUID | None:
    """Gives the event that a span names; None where what it says is no id."""
    try:
        return UUID(str(named))
    except ValueError:
        return None


def _trace_id(event: StoredEvent) -> bytes:
    """Gives the event's trace; b"" where what it says is none."""
    try:
        return bytes.fromhex(event.trace_id)
    except ValueError:
        return b""
