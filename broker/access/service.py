"""What AccessService can do, in one place: creating and reading, and what comes after."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from broker import telemetry
from broker.access.creating import GrantCreation
from broker.access.opened import OpenGrants
from broker.access.reading import RecordReading
from broker.access.values import Explanation, GrantAnswer, GrantRequest, RecordAnswer
from broker.errors import AgentSuspendedError, DecisionNotFoundError, GrantNotFoundError
from broker.ledger import Event, EventIds, EventKind, GrantStore
from broker.model import Caller
from broker.telemetry import CompactTrace, Trace
from broker.tickets import Page, Tickets


class Access:
    """Decides, reads and records; knows neither gRPC nor protobuf."""

    def __init__(
        self,
        *,
        creation: GrantCreation,
        reading: RecordReading,
        tickets: Tickets,
        store: GrantStore,
        ids: EventIds,
        opened: OpenGrants,
    ) -> None:
        """Takes what it uses."""
        self._creation = creation
        self._reading = reading
        self._tickets = tickets
        self._store = store
        self._ids = ids
        self._opened = opened

    async def create_grant(self, caller: Caller, request: GrantRequest, trace: CompactTrace) -> GrantAnswer:
        """Creates a grant, or gives again the one that stands under the request's id."""
        return await self._creation.create(caller, request, trace)

    async def read_record(
        self, caller: Caller, grant_token: str, fields: tuple[str, ...], trace: CompactTrace
    ) -> RecordAnswer:
        """Reads fields of the grant's customer, cut down to what the decision of now allows."""
        return await self._reading.read(caller, grant_token, fields, trace)

    async def revoke_grant(self, caller: Caller, grant_id: UUID, trace: Trace) -> tuple[UUID, datetime]:
        """Revokes the caller's own grant; gives the event's id and when it was revoked."""
        event = Event(
            id=self._ids.new(),
            kind=EventKind.REVOKE,
            outcome="done",
            trace_id=trace.trace_id,
            agent=caller.principal.agent.key,
            tool=caller.tool.identity,
            grant_id=grant_id,
        )
        with trace.step(telemetry.APPEND):
            revoke_time = await self._store.revoke(event)
        if revoke_time is None:
            raise GrantNotFoundError
        self._opened.drop(grant_id, caller.principal.agent.key)
        return event.id, revoke_time

    async def assigned_tickets(self, caller: Caller, page_size: int, page_token: str) -> Page:
        """Gives a page of the caller's open tickets; a suspended agent has none."""
        if await self._store.is_suspended(caller.principal.agent.key):
            raise AgentSuspendedError
        return await self._tickets.list_assigned(
            caller.principal.agent, page_size=page_size, page_token=page_token
        )

    async def grant_status(self, caller: Caller, grant_id: UUID) -> tuple[str, datetime] | None:
        """Gives ticket and end of a usable grant of the caller's; None otherwise, whatever the reason."""
        return await self._store.status(grant_id, caller.principal.agent.key)

    async def explain_denial(self, caller: Caller, decision_id: UUID) -> Explanation:
        """Explains one of the caller's own decisions."""
        leaf = await self._store.own_event(decision_id, caller.principal.agent.key)
        if leaf is None:
            raise DecisionNotFoundError
        detail = leaf["detail"]
        withheld = {
            name: said[1:] for name, said in detail.get("fields", {}).items() if said[0] == "withheld"
        }
        return Explanation(
            decision_id=decision_id,
            reason=leaf["reason"],
            policy_version=leaf["policy_version"],
            facts=detail.get("facts", {}),
            fields=withheld,
        )
