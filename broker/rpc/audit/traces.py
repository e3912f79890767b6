"""GetTrace, SearchSpans and Reconcile."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from broker.audit.event_filter import StoredEvent
from broker.audit.events import EventReader
from broker.audit.proofs import Prover
from broker.audit.reconcile import reconcile
from broker.audit.spans import SpanQuery, search
from broker.audit.tracing import Traced, Tracing
from broker.errors import EventNotFoundError, ProofUnavailableError, RequestMalformedError
from broker.rpc import checks
from broker.rpc.access import timestamp
from broker.rpc.audit import AUDIT
from broker.rpc.audit.asking import Asking
from broker.rpc.audit.filters import PSEUDONYM, page_size
from broker.rpc.audit.messages import event_message, span_message
from broker.rpc.calls import Call, Method, StreamedMethod
from broker.v1 import audit_service_pb2 as pb

MOST_ATTRIBUTES = 8
MOST_PROOFS = 20
"""Proofs of one answer: each reads some tiles."""

KEY = re.compile(r"[a-z][a-z0-9_.]{0,99}", re.ASCII)
VALUE_LENGTH = 256
NAME_LENGTH = 100
RECONCILE_SECONDS = 280.0


class TraceMethods:
    """The RPCs over spans."""

    def __init__(self, asking: Asking, pool: asyncpg.Pool, events: EventReader, prover: Prover) -> None:
        """Takes what records questions, the auditors' pool, what finds events, and what proves one."""
        self._asking = asking
        self._pool = pool
        self._events = events
        self._tracing = Tracing(pool, events)
        self._prover = prover

    def methods(self) -> Sequence[Method[Any, Any]]:
        """Lists those that answer at once."""
        at = f"/{AUDIT}/"
        return (
            Method(at + "GetTrace", pb.GetTraceRequest, pb.GetTraceResponse, self._get),
            Method(at + "SearchSpans", pb.SearchSpansRequest, pb.SearchSpansResponse, self._search),
        )

    def streamed(self) -> Sequence[StreamedMethod[Any, Any]]:
        """Lists those that answer in parts."""
        at = f"/{AUDIT}/"
        return (
            StreamedMethod(
                at + "Reconcile",
                pb.ReconcileRequest,
                pb.ReconcileResponse,
                self._reconcile,
                RECONCILE_SECONDS,
            ),
        )

    async def _get(self, call: Call, request: pb.GetTraceRequest) -> pb.GetTraceResponse:
        found = await self._found(call, checks.ticket_id(request.id, "id"))
        if not found.spans and not found.events:
            raise EventNotFoundError
        events = [
            pb.ProvenEvent(
                event=event_message(event),
                proof=await self._proof(event.event_id) if number < MOST_PROOFS else "",
            )
            for number, event in enumerate(found.events)
        ]
        return pb.GetTraceResponse(
            spans=map(span_message, found.spans), events=events, truncated=found.truncated
        )

    async def _found(self, call: Call, text: str) -> Traced:
        """Finds what is meant by an id: a trace or a ticket's pseudonym, an event or a grant, a ticket."""
        if PSEUDONYM.fullmatch(text):
            await self._asking.asked(call, "trace", id=text)
            try:
                return await self._tracing.of_trace(text)
            except EventNotFoundError:
                return await self._tracing.of_ticket([text])
        try:
            meant = checks.uuid(text, "id")
        except RequestMalformedError:
            # A ticket's own id stays out of the ledger; nothing of it is told before this is on record.
            pseudonyms = await self._tracing.pseudonyms(text)
            await self._asking.asked(call, "trace", tickets=pseudonyms)
            return await self._tracing.of_ticket(pseudonyms)
        await self._asking.asked(call, "trace", id=text)
        event = await self._event(meant)
        return await (self._tracing.of_event(event) if event else self._tracing.of_grants([meant]))

    async def _proof(self, event_id: UUID) -> str:
        """Proves an event; "" where that cannot be: the event is shown all the same."""
        try:
            return await self._prover.inclusion(event_id)
        except ProofUnavailableError:
            return ""

    async def _event(self, event_id: UUID) -> StoredEvent | None:
        try:
            return await self._events.get(event_id)
        except EventNotFoundError:
            return None

    async def _search(self, call: Call, request: pb.SearchSpansRequest) -> pb.SearchSpansResponse:
        since, until = _period(request)
        wanted = SpanQuery(
            since, until, _attributes(request.attributes),
            checks.bounded(request.name, "name", NAME_LENGTH) if request.name else "",
        )  # fmt: skip
        size = page_size(request.page_size)
        await self._asking.asked(call, "spans", **wanted.described(), further=bool(request.page_token))
        spans, following = await search(self._pool, wanted, size=size, token=request.page_token)
        return pb.SearchSpansResponse(spans=map(span_message, spans), next_page_token=following)

    async def _reconcile(
        self, call: Call, request: pb.ReconcileRequest
    ) -> AsyncGenerator[pb.ReconcileResponse, None]:
        since, until = _period(request)
        await self._asking.asked(call, "reconcile", since=since.isoformat(), until=until.isoformat())
        async for part in reconcile(self._pool, since, until):
            yield pb.ReconcileResponse(
                since=timestamp(part.since),
                until=timestamp(part.until),
                events=part.events,
                events_without_spans=part.events_without_spans,
                traces=part.traces,
                traces_without_events=part.traces_without_events,
                missing_spans=map(str, part.missing_spans),
                missing_events=part.missing_events,
            )


def _period(request: pb.SearchSpansRequest | pb.ReconcileRequest) -> tuple[datetime, datetime]:
    since = checks.moment(request, "since", "since")
    until = checks.moment(request, "until", "until")
    if since is None:
        raise RequestMalformedError(field="since", cause="no time")
    if until is None or since >= until:
        raise RequestMalformedError(field="until", cause="no time between")
    return since, until


def _attributes(asked: Sequence[pb.SpanAttribute]) -> dict[str, str]:
    if len(asked) > MOST_ATTRIBUTES:
        raise RequestMalformedError(field="attributes", cause="number of attributes")
    found = {}
    for number, attribute in enumerate(asked):
        if not KEY.fullmatch(attribute.key):
            raise RequestMalformedError(field=f"attributes[{number}].key", cause="name")
        found[attribute.key] = checks.bounded(attribute.value, f"attributes[{number}].value", VALUE_LENGTH)
    return found
