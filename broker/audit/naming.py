"""From a customer's key to the pseudonym, and back; each way behind an event, in the records database.

Invariants:
- a customer's key is never in an event, a log or an error: events name pseudonyms, or say how many;
- back is for the admin process alone: only broker_admin is given a pass, for an event of its own, and opens
  the list that this event digests, no other;
- neither way costs an index: a question about one customer is two look-ups, and back is one scan over the
  salts for all that is asked, because it is asked once an incident, and what leads back must be forgotten
  when a person is erased.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.audit.matching import matching
from broker.audit.record import Auditor, put_on_record
from broker.database import connection, queries, transaction
from broker.ledger import ADMIN_DOOR, Event, EventIds, EventKind, append_events

Q = queries("privacy")

MOST = 100_000
"""Pseudonyms that one call resolves; the records database refuses more."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about one customer, on record, and whom it is about."""

    event_id: UUID
    pseudonym: str | None  # None: no agent was ever granted anything of them


async def pseudonym_of(
    pool: asyncpg.Pool, records: asyncpg.Pool, ids: EventIds, by: Auditor, query: str, customer: str
) -> Question:
    """Gives a customer's pseudonym; counts as one of the identifiers of the day.

    Args:
        pool: the broker's database as broker_auditor.
        records: the records database as broker_auditor.
        ids: event ids.
        by: who asks.
        query: what for, as the event says it.
        customer: the customer's key; it is in no event.

    Raises:
        IdentifiersUsedUpError: too many on this day; nothing was matched.
        LedgerUnavailableError: the question is not on record.
    """
    question = await put_on_record(pool, ids, by, {"query": query, "identifiers": 1})
    async with connection(pool) as conn:
        told = await conn.fetchval(Q.match_pass, question)
    async with matching(records) as conn:
        return Question(question, await conn.fetchval(Q.match_customer, told, customer))


async def resolve(
    admin: asyncpg.Pool,
    records: asyncpg.Pool,
    ids: EventIds,
    by: Auditor,
    pseudonyms: Sequence[str],
    reason: str,
) -> tuple[UUID, dict[str, str]]:
    """Gives the event, and the customers behind pseudonyms; those of erased people have none.

    Args:
        admin: the broker's database as broker_admin.
        records: the records database as broker_auditor.
        ids: event ids.
        by: who wants to know.
        pseudonyms: whose customers; 1 to `MOST`.
        reason: why, for the ledger.

    Raises:
        ValueError: none, or too many at once.
        LedgerUnavailableError: it is not on record, so nothing was resolved.
    """
    if not 1 <= len(pseudonyms) <= MOST:
        raise ValueError(f"1 to {MOST:,} pseudonyms at once")
    event = Event(
        id=ids.new(), kind=EventKind.ADMIN, outcome="done", trace_id=by.trace_id, agent=by.agent,
        tool=by.identity,
        customer=pseudonyms[0] if len(pseudonyms) == 1 else "",
        detail={
            "call": "ResolvePseudonyms", "why": reason, "pseudonyms": len(pseudonyms),
            "digest": _digest(pseudonyms),
        },
    )  # fmt: skip
    async with transaction(admin) as conn:
        await append_events(conn, [event], door=ADMIN_DOOR)
    async with connection(admin) as conn:
        told = await conn.fetchval(Q.admin_pass, event.id, "ResolvePseudonyms")
    async with connection(records) as conn:
        rows = await conn.fetch(Q.resolve, told, list(pseudonyms))
    return event.id, {row["pseudonym"]: row["customer"] for row in rows}


def _digest(names: Sequence[str]) -> str:
    """Digests a list as the pass and broker_guard.resolve_pseudonyms do."""
    return hashlib.sha256(",".join(names).encode()).hexdigest()
