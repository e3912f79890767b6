"""Erasing a person: the pseudonym in the ledger becomes nobody's, and every proof goes on holding.

    (1) the pseudonym, behind a question on record
    (2) broker database, one transaction: grants end, links go, the event says so
    (3) records database: the salt is destroyed, behind a pass for that event
    (4) broker database, one transaction: links that came meanwhile go, the event says that it is done

If we die before (2), nothing has happened. Between (2) and (3) no agent can reach the person any more, and
whoever knows the customer's key and the salt still finds the pseudonym; between (3) and (4) the person is
erased, and the ledger does not say yet that it is done. Running it again ends each of these. After (3) nobody
can tell any more whose the pseudonym is, this run neither: its events name none, and the `begun` that does
stays without its `done`.

Invariants:
- nothing in the ledger changes: it holds pseudonyms, so leaves, proofs and counts are what they were;
- the salt is destroyed only of the person whose pseudonym the event names;
- the key is in no event: they name the pseudonym.

A ticket that comes later, or again, links the person anew, under another pseudonym.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.naming import pseudonym_of
from broker.audit.record import Auditor
from broker.database import connection, queries, transaction
from broker.ledger import ADMIN_DOOR, Event, EventIds, EventKind, append_events

Q = queries("privacy")


@dataclass(frozen=True, slots=True)
class Erased:
    """What was there, and is not any more."""

    event_id: UUID
    pseudonym: str  # nobody's now; "" where the ledger has none, or has it no more
    live_grants: int
    grants: int
    tickets: int
    salt: bool


async def erase(
    pools: tuple[asyncpg.Pool, asyncpg.Pool, asyncpg.Pool],
    ids: EventIds,
    by: Auditor,
    customer: str,
    reason: str,
) -> Erased:
    """Unlinks one customer for ever; safe to run again, and to be run again where it failed.

    Args:
        pools: the broker's database as broker_admin and as broker_auditor, the records database as
            broker_auditor.
        ids: event ids.
        by: who erases.
        customer: the customer's key.
        reason: why, for the ledger; no personal data.

    Raises:
        IdentifiersUsedUpError: too many identifiers were matched on this day.
        LedgerUnavailableError: it could not be put on record; nothing was erased by this step.
        DatabaseUnavailableError: a database did not answer; run it again.
    """
    admin, auditor, records = pools
    found = await pseudonym_of(auditor, records, ids, by, "erase", customer)
    pseudonym = found.pseudonym or ""
    event, gone = await _unlink(admin, ids, by, customer, pseudonym, reason, "begun")
    salt = False
    if pseudonym:
        async with connection(admin) as conn:
            told = await conn.fetchval(Q.admin_pass, event, "EraseCustomer")
        async with connection(records) as conn:
            salt = bool(await conn.fetchval(Q.erase_salt, told, customer))
    last, more = await _unlink(admin, ids, by, customer, pseudonym, reason, "done", salt=salt)
    return Erased(
        last, pseudonym, gone["live_grants"] + more["live_grants"], gone["grants"] + more["grants"],
        gone["tickets"] + more["tickets"], salt,
    )  # fmt: skip


async def _unlink(
    admin: asyncpg.Pool, ids: EventIds, by: Auditor, customer: str, pseudonym: str, reason: str,
    state: str, **more: object,
) -> tuple[UUID, Any]:  # fmt: skip
    async with transaction(admin) as conn:
        [gone] = await conn.fetch(Q.erase_links, customer)
        event = Event(
            id=ids.new(), kind=EventKind.ADMIN, outcome="done", trace_id=by.trace_id, agent=by.agent,
            tool=by.identity, customer=pseudonym,
            detail={"call": "EraseCustomer", "state": state, "why": reason, "revoked": gone["live_grants"],
                    "grants": gone["grants"], "tickets": gone["tickets"], **more},
        )  # fmt: skip
        await append_events(conn, [event], door=ADMIN_DOOR)
    return event.id, gone
