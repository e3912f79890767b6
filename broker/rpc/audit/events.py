"""ListEvents, GetEvent and StreamEvents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import asyncpg

from broker.audit.events import EventReader
from broker.audit.follow import CATCH_UP, follow
from broker.errors import RequestMalformedError
from broker.rpc import checks
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import Asking
from broker.rpc.audit.filters import event_filter, page_size
from broker.rpc.audit.messages import event_message
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

STREAM_SECONDS = CATCH_UP + 30.0
MOST_LEAVES = 1 << 62


class EventMethods:
    """The RPCs over events."""

    def __init__(self, asking: Asking, pool: asyncpg.Pool, events: EventReader, stop: asyncio.Event) -> None:
        """Takes what records questions, the auditors' pool, what finds events, and what ends streams."""
        self._asking = asking
        self._pool = pool
        self._events = events
        self._stop = stop

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        at = f"/{AUDIT}/"
        return (
            Method(at + "ListEvents", pb.ListEventsRequest, pb.ListEventsResponse, self._list),
            Method(at + "GetEvent", pb.GetEventRequest, pb.GetEventResponse, self._get),
        )

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        asked, told = pb.StreamEventsRequest, pb.StreamEventsResponse
        return (StreamedMethod(f"/{AUDIT}/StreamEvents", asked, told, self._stream, STREAM_SECONDS),)

    async def _list(self, call: Call, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        wanted = event_filter(request.filter)
        size = page_size(request.page_size)
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

    async def _stream(
        self, call: Call, request: pb.StreamEventsRequest
    ) -> AsyncGenerator[pb.StreamEventsResponse, None]:
        start = request.from_index if request.HasField("from_index") else None
        if start is not None and not 0 <= start <= MOST_LEAVES:
            raise RequestMalformedError(field="from_index", cause="index")
        await self._asking.asked(call, "stream", start=start, follow=request.follow)
        async for batch in follow(self._pool, start, waits=request.follow, stop=self._stop):
            yield pb.StreamEventsResponse(
                events=map(event_message, batch.events), next_index=batch.next_index
            )
