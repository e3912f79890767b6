"""The client of AuditService, for a person at a console."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Self

from broker.client import audit_wire as wire
from broker.client.administration import AdminPort
from broker.client.audit_values import EventPage, EventQuery, LedgerEvent
from broker.v1 import audit_service_pb2 as pb
from broker.v1 import audit_service_pb2_grpc

MOST_PAGE = 500
"""Events of one page, as the protocol allows."""


class AuditClient(AdminPort):
    """Asks the ledger; every call carries the person's token and is on record itself."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._stub = audit_service_pb2_grpc.AuditServiceStub(self._channel.grpc_channel)
        return self

    async def event(self, event_id: str) -> LedgerEvent:
        """Gives one event."""
        answer = await self._personal(self._stub.GetEvent, pb.GetEventRequest(event_id=event_id))
        return wire.event(answer.event)

    async def event_page(
        self, query: EventQuery, *, oldest_first: bool = False, page_size: int = 0, page_token: str = ""
    ) -> EventPage:
        """Gives one page of events; it may be short, even empty, and have a next one.

        Args:
            query: which events.
            oldest_first: the order; newest first otherwise.
            page_size: at most how many; 0 for the broker's choice.
            page_token: `next_token` of the page before, for the same query and order.
        """
        request = pb.ListEventsRequest(
            filter=wire.event_filter(query),
            oldest_first=oldest_first,
            page_size=page_size,
            page_token=page_token,
        )
        answer = await self._personal(self._stub.ListEvents, request)
        return EventPage(tuple(map(wire.event, answer.events)), answer.next_page_token)

    async def events(
        self, query: EventQuery, *, oldest_first: bool = False, most: int | None = None
    ) -> AsyncIterator[LedgerEvent]:
        """Goes through events, page by page as they are taken.

        Args:
            query: which events.
            oldest_first: the order; newest first otherwise.
            most: at most how many; None for all.
        """
        token = ""
        while most is None or most > 0:
            size = MOST_PAGE if most is None else min(most, MOST_PAGE)
            page = await self.event_page(query, oldest_first=oldest_first, page_size=size, page_token=token)
            for event in page.events:
                yield event
            token = page.next_token
            if not token:
                return
            if most is not None:
                most -= len(page.events)
