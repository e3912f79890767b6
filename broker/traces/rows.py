"""What a finished trace looks like elsewhere: as a row to COPY, as spans to export; pure.

Invariants:
- a step of a compact trace has the id of its RPC's span with the step's number in the last four bits, so the
  row, the view `broker.span` and the export name the same spans without storing them;
- only what `names.ATTRIBUTES` holds leaves.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from broker.telemetry import (
    ATTRIBUTES,
    CODES,
    ERROR_TYPE,
    GRANT_ID,
    PLACED_STEPS,
    RPC_METHOD,
    RPC_SYSTEM_NAME,
    SCOPE,
    CompactTrace,
    parse_traceparent,
)
from broker.telemetry.tracing import caller_link, outcome_attributes

COMPACT_COLUMNS = (
    "trace_id",
    "span_id",
    "start_ns",
    "duration_ns",
    "steps",
    "grant_id",
    "event_id",
    "code",
    "reason",
    "policy_version",
    "link",
    "method",
)
"""Columns of broker.read_trace, in the order of `compact_row`."""

SPAN_COLUMNS = (
    "trace_id",
    "span_id",
    "parent_span_id",
    "name",
    "kind",
    "start_ns",
    "end_ns",
    "status",
    "grant_id",
    "attributes",
    "links",
)
"""Columns of broker.span_row, in the order of `span_row`."""

NUMBERS = {name: number for number, name in enumerate(CODES)}
UNKNOWN = NUMBERS["UNKNOWN"]
OUR_SCOPE = InstrumentationScope(SCOPE)
SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def root_id(trace: CompactTrace) -> bytes:
    """Gives the id of the RPC's span: the random bytes with the last four bits 0."""
    return trace.ids[16:23] + bytes((trace.ids[23] & 0xF0,))


def compact_row(trace: CompactTrace) -> tuple[object, ...]:
    """Gives a read or a grant as one row."""
    start = trace.start
    caller = parse_traceparent(trace.traceparent)
    return (
        trace.ids[:16],
        root_id(trace),
        trace.start_ns,
        trace.end - start,
        [tick - start if tick else -1 for tick in trace.marks],
        trace.grant_id,
        trace.event_id,
        NUMBERS.get(trace.code, UNKNOWN),
        trace.reason or None,
        trace.policy_version or None,
        None if caller is None else bytes.fromhex(caller[0] + caller[1]),
        trace.method.number,
    )


def span_row(span: ReadableSpan) -> tuple[object, ...]:
    """Gives a span of the SDK as one row."""
    context, parent = _context(span), span.parent
    attributes = {k: v for k, v in (span.attributes or {}).items() if k in ATTRIBUTES}
    grant = attributes.get(GRANT_ID)
    links = [
        {"trace_id": f"{link.context.trace_id:032x}", "span_id": f"{link.context.span_id:016x}"}
        for link in span.links
    ]
    return (
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
        None if parent is None else parent.span_id.to_bytes(8, "big"),
        span.name,
        span.kind.name,
        span.start_time or 0,
        span.end_time or 0,
        span.status.status_code.name,
        None if grant is None else UUID(str(grant)),
        json.dumps(attributes),
        json.dumps(links),
    )


def compact_spans(trace: CompactTrace, resource: Resource) -> Iterator[ReadableSpan]:
    """Gives a read or a grant as the spans that the SDK would make: the RPC's, then each step reached."""
    trace_id = int.from_bytes(trace.ids[:16], "big")
    root_number = int.from_bytes(root_id(trace), "big")
    root = SpanContext(trace_id, root_number, is_remote=False, trace_flags=SAMPLED)
    caller = parse_traceparent(trace.traceparent)
    offset = trace.start_ns - trace.start
    outcome = outcome_attributes(
        trace.code, trace.reason, trace.grant_id, trace.event_id, trace.policy_version
    )
    fault = ERROR_TYPE in outcome
    yield ReadableSpan(
        name=trace.method.name,
        context=root,
        resource=resource,
        attributes={RPC_SYSTEM_NAME: "grpc", RPC_METHOD: trace.method.name, **outcome},
        links=() if caller is None else (caller_link(*caller),),
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR if fault else StatusCode.UNSET),
        start_time=trace.start_ns,
        end_time=offset + trace.end,
        instrumentation_scope=OUR_SCOPE,
    )
    for step in PLACED_STEPS[: trace.method.places]:
        start, end = trace.marks[2 * step.index : 2 * step.index + 2]
        if end:
            yield ReadableSpan(
                name=step.name,
                context=SpanContext(
                    trace_id, root_number | (step.index + 1), is_remote=False, trace_flags=SAMPLED
                ),
                parent=root,
                resource=resource,
                attributes=dict(step.attributes),
                kind=step.kind,
                start_time=offset + start,
                end_time=offset + end,
                instrumentation_scope=OUR_SCOPE,
            )


def _context(span: ReadableSpan) -> SpanContext:
    context = span.get_span_context()
    if context is None:
        raise ValueError("a span without ids")  # the SDK makes none
    return context
