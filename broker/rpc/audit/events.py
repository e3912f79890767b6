"""ListEvents and GetEvent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.audit.event_filter import StoredEvent
from broker.audit.events import EventReader
from broker.errors import RequestMalformedError
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import Asking
from broker.rpc.audit.filters import event_filter
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

MOST_PAGE = 500
DEFAULT_PAGE = 100


class EventMethods:
    """The RPCs over events."""

    def __init__(self, asking: Asking, events: EventReader) -> None:
        """Takes what records questions, and what answers them."""
        self._asking = asking
        self._events = events

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        at = f"/{AUDIT}/"
        return (
            Method(at + "ListEvents", pb.ListEventsRequest, pb.ListEventsResponse, self._list),
            Method(at + "GetEvent", pb.GetEventRequest, pb.GetEventResponse, self._get),
        )

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        return ()

    async def _list(self, call: Call, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        wanted = event_filter(request.filter)
        size = _page_size(request.page_size)
        await self._asking.asked(
            call, "events", filter=wanted.described(), size=size, further=bool(request.page_token)
        )
        page = await self._events.page(
            wanted, size=size, token=request.page_token, oldest_first=request.oldest_first
        )
        return pb.ListEventsResponse(
            events=[event_message(event) for event in page.events], next_page_token=page.next_token
        )

    async def _get(self, call: Call, request: pb.GetEventRequest) -> pb.GetEventResponse:
        event_id = checks.uuid(request.event_id, "event_id")
        await self._asking.asked(call, "event", event=str(event_id))
        return pb.GetEventResponse(event=event_message(await self._events.get(event_id)))


def event_message(event: StoredEvent) -> pb.LedgerEvent:
    """Writes one event."""
    return pb.LedgerEvent(
        event_id=str(event.event_id),
        leaf_index=event.leaf_index,
        record_time=timestamp(event.record_time),
        kind=event.kind,
        outcome=event.outcome,
        reason=event.reason,
        agent=event.agent,
        tool=event.tool,
        customer=event.customer,
        ticket=event.ticket,
        grant_id=str(event.grant_id) if event.grant_id else "",
        trace_id=event.trace_id,
        policy_version=str(event.policy_version) if event.policy_version is not None else "",
        leaf=event.leaf,
    )


def _page_size(number: int) -> int:
    if not 0 <= number <= MOST_PAGE:
        raise RequestMalformedError(field="page_size", cause="page size")
    return number or DEFAULT_PAGE
