"""Auditors' questions are events, too: first the event, durable, then the look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from broker.database import transaction
from broker.ledger import AUDITOR_DOOR, NO_TRACE, Event, EventIds, EventKind, append_events


@dataclass(frozen=True, slots=True)
class Auditor:
    """Who asks, in which trace."""

    identity: str
    trace_id: str = NO_TRACE
    agent: str = ""  # the person behind the identity, as `issuer|subject`


async def put_on_record(pool: asyncpg.Pool, ids: EventIds, by: Auditor, detail: Mapping[str, Any]) -> UUID:
    """Appends what an auditor asks, or learnt; committed when it returns.

    Args:
        pool: connections as broker_auditor.
        ids: event ids.
        by: who asks.
        detail: the question as `query` and its parameters; no personal data.

    Raises:
        LedgerUnavailableError: it is not on record, so the question must not be answered.
    """
    event = Event(
        id=ids.new(), kind=EventKind.AUDITOR_QUERY, outcome="done", trace_id=by.trace_id, agent=by.agent,
        tool=by.identity, detail=detail,
    )  # fmt: skip
    async with transaction(pool) as conn:
        await append_events(conn, [event], door=AUDITOR_DOOR)
    return event.id
