"""What every RPC of the auditors does first: its question goes on record under the person's name."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.record import Auditor, put_on_record
from broker.ledger import EventIds
from broker.rpc.calls import Call


def auditor_of(call: Call) -> Auditor:
    """Names who asks: the person, through the console."""
    return Auditor(call.identity.tool, call.trace.trace_id, call.person.agent.key)


class Asking:
    """Puts questions on record."""

    def __init__(self, pool: asyncpg.Pool, ids: EventIds) -> None:
        """Takes the auditors' pool and the event ids."""
        self._pool = pool
        self._ids = ids

    async def asked(self, call: Call, query: str, **detail: Any) -> UUID:
        """Records a question before anything is looked up; its event is the call's decision.

        Args:
            call: under way.
            query: which command.
            detail: its parameters; no personal data.

        Raises:
            LedgerUnavailableError: it is not on record, so it must not be answered.
        """
        call.decision_id = await put_on_record(
            self._pool, self._ids, auditor_of(call), {"query": query, **detail}
        )
        return call.decision_id
