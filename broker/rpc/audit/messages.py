"""Messages of events and spans."""

from __future__ import annotations

import json

from broker.audit.event_filter import LONGEST_WORD, StoredEvent
from broker.rpc.access import timestamp
from broker.traces import Span
from broker.v1 import audit_service_pb2 as pb


def event_message(event: StoredEvent) -> pb.LedgerEvent:
    """Writes one event."""
    return pb.LedgerEvent(
        event_id=str(event.event_id),
        leaf_index=event.leaf_index,
        record_time=timestamp(event.record_time),
        kind=event.kind,
        outcome=event.outcome,
        reason=event.reason,
        agent=event.agent[:LONGEST_WORD],
        tool=event.tool[:LONGEST_WORD],
        customer=event.customer[:LONGEST_WORD],
        ticket=event.ticket[:LONGEST_WORD],
        grant_id=str(event.grant_id) if event.grant_id else "",
        trace_id=event.trace_id[:LONGEST_WORD],
        policy_version=str(event.policy_version) if event.policy_version is not None else "",
        leaf=event.leaf,
        leaf_size=event.leaf_size,
    )


def span_message(span: Span) -> pb.Span:
    """Writes one span."""
    return pb.Span(
        trace_id=span.trace_id,
        span_id=span.span_id,
        parent_span_id=span.parent_span_id or "",
        name=span.name,
        kind=span.kind,
        start_ns=span.start_ns,
        end_ns=span.end_ns,
        status=span.status,
        attributes=json.dumps(dict(span.attributes)),
    )
