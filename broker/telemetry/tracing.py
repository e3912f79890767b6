"""Traces: the full tree of the OpenTelemetry SDK, and its tiny stand-in for reads and grants.

Invariants:
- every trace is a new root with ids of our own; what the caller sent is a link, its sampling flag and its
  baggage are nothing to us (P7);
- no exception reaches a span: neither as an event nor as a status text;
- `put` of a sink neither blocks nor raises, so a span never costs a caller an answer;
- an SDK span costs about 10 microseconds, so reads and grants make none: they keep ids and ticks, and what
  drains the queue builds the spans (see traces/).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from random import Random
from typing import Protocol
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, set_span_in_context
from opentelemetry.trace.status import Status, StatusCode

from broker.errors import BrokerError, StartupError
from broker.telemetry import names
from broker.telemetry.compact import CompactTrace, Nanoseconds, keep_traceparent, parse_traceparent
from broker.telemetry.names import Step

Value = str | int | float | bool
RandomBytes = Callable[[int], bytes]

MAX_VALUE_LENGTH = 128
"""Characters of an attribute value; our longest is a full method name."""

LIMITS = SpanLimits(
    max_attributes=32,
    max_events=0,
    max_links=1,
    max_span_attributes=32,
    max_event_attributes=0,
    max_link_attributes=0,
    max_attribute_length=MAX_VALUE_LENGTH,
    max_span_attribute_length=MAX_VALUE_LENGTH,
)
"""Every limit is named, because the SDK reads the missing ones from OTEL_* variables."""


Item = CompactTrace | ReadableSpan


class Sink(Protocol):
    """Takes what has ended: the span store, the OTLP export."""

    def put(self, item: Item) -> None:
        """Takes what has ended at once, or drops and counts it; never blocks, never raises."""


class _Processor(SpanProcessor):
    """Hands ended spans to the sinks."""

    def __init__(self, put: Callable[[Item], None]) -> None:
        self._put = put

    def on_end(self, span: ReadableSpan) -> None:
        self._put(span)


class _Ids(IdGenerator):
    """Ids from the injected source; never zero, which means "no span"."""

    def __init__(self, random_bytes: RandomBytes) -> None:
        self._random = random_bytes

    def generate_span_id(self) -> int:
        return int.from_bytes(self._random(8), "big") or 1

    def generate_trace_id(self) -> int:
        return int.from_bytes(self._random(16), "big") or 1


class OpenStep:
    """A step under way; says more about itself, and may have steps of its own."""

    __slots__ = ("_span", "_trace")

    def __init__(self, trace: Trace, span: SdkSpan) -> None:
        """Takes the trace and the step's span."""
        self._trace = trace
        self._span = span

    def set(self, name: str, value: Value) -> None:
        """Adds an attribute; one that names.ATTRIBUTES does not hold is left out."""
        if name in names.ATTRIBUTES:
            self._span.set_attribute(name, value)

    def step(self, step: Step) -> AbstractContextManager[OpenStep]:
        """Opens a step below this one, until the `with` block ends."""
        return self._trace.open(step, self._span)


class Trace:
    """The full tree of one request: the RPC's span and its steps; for everything that is not compact."""

    __slots__ = ("_finished", "_now", "_root", "_tracer", "span_id", "trace_id")

    def __init__(self, tracer: Tracer, now: Nanoseconds, method: str, traceparent: str | None) -> None:
        """Starts the RPC's span.

        Args:
            tracer: of the SDK.
            now: a wall clock that never runs backwards within this trace.
            method: full method name, `broker.v1.AccessService/CreateGrant`; becomes the span's name.
            traceparent: as the caller sent it.
        """
        self._tracer = tracer
        self._now = now
        self._finished = False
        root = self._root = _start(
            tracer,
            method,
            Context(),  # an empty one: the SDK would take the current span for a parent
            kind=SpanKind.SERVER,
            attributes={names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: method},
            links=_links(traceparent),
            start_ns=now(),
        )
        context = root.get_span_context()
        self.trace_id = f"{context.trace_id:032x}"
        self.span_id = f"{context.span_id:016x}"

    def step(self, step: Step) -> AbstractContextManager[OpenStep]:
        """Opens a step below the RPC's span, until the `with` block ends."""
        return self.open(step, self._root)

    @contextmanager
    def open(self, step: Step, parent: SdkSpan) -> Iterator[OpenStep]:
        """Opens a step below a span; an exception passes through, of it only the type is kept."""
        span = _start(
            self._tracer,
            step.name,
            set_span_in_context(parent, Context()),
            kind=step.kind,
            attributes=step.attributes,
            links=(),
            start_ns=self._now(),
        )
        try:
            yield OpenStep(self, span)
        except BrokerError as exc:
            _blame(span, exc.code, exc.reason)
            raise
        except BaseException as exc:
            _blame(span, "INTERNAL", type(exc).__name__)
            raise
        finally:
            span.end(self._now())

    def finish(
        self,
        *,
        code: str,
        reason: str = "",
        grant_id: UUID | None = None,
        event_id: UUID | None = None,
        policy_version: str = "",
        attributes: Mapping[str, Value] | None = None,
    ) -> None:
        """Ends the RPC's span; a second call does nothing."""
        if self._finished:
            return
        self._finished = True
        for name, value in (attributes or {}).items():
            if name in names.ATTRIBUTES:
                self._root.set_attribute(name, value)
        outcome = outcome_attributes(code, reason, grant_id, event_id, policy_version)
        self._root.set_attributes(outcome)
        if code in names.SERVER_FAULTS:
            self._root.set_status(Status(StatusCode.ERROR))
        self._root.end(self._now())


def outcome_attributes(
    code: str, reason: str, grant_id: UUID | None, event_id: UUID | None, policy_version: str
) -> dict[str, Value]:
    """Gives the attributes that say how an RPC ended; the view `broker.span` makes the same in SQL."""
    attributes: dict[str, Value] = {names.RPC_RESPONSE_STATUS_CODE: code}
    if code in names.SERVER_FAULTS:
        attributes[names.ERROR_TYPE] = code
    if reason:
        attributes[names.ERROR_REASON] = reason
    if grant_id is not None:
        attributes[names.GRANT_ID] = str(grant_id)
    if event_id is not None:
        attributes[names.DECISION_ID] = str(event_id)
    if policy_version:
        attributes[names.POLICY_VERSION] = policy_version
    return attributes


class Telemetry:
    """Starts traces and hands what has ended to the sinks."""

    def __init__(
        self,
        sinks: Sequence[Sink] = (),
        *,
        random_bytes: RandomBytes | None = None,
        clock_ns: Nanoseconds = time.time_ns,
        ticks_ns: Nanoseconds = time.perf_counter_ns,
        resource: Resource | None = None,
    ) -> None:
        """Builds a tracer that no environment variable switches off.

        Args:
            sinks: where ended spans go; each gets every one.
            random_bytes: source of ids. Ids are no secrets, so the default is a generator seeded by the
                system once, three times as fast as asking the system for each.
            clock_ns: wall clock.
            ticks_ns: clock of durations.
            resource: who speaks, for the OTLP export.

        Raises:
            StartupError: the SDK gives no tracer that records; then no grant could be traced.
        """
        self._sinks = tuple(sinks)
        self._random = random_bytes or Random().randbytes  # noqa: S311 - ids, not secrets
        self._clock = clock_ns
        self._ticks = ticks_ns
        self._put: Callable[[Item], None] = self._sinks[0].put if len(self._sinks) == 1 else self._put_all
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource or Resource({}),
            shutdown_on_exit=False,
            id_generator=_Ids(self._random),
            span_limits=LIMITS,
        )
        # OTEL_SDK_DISABLED may switch the export off, never the record of grants (P7).
        provider._disabled = False  # noqa: SLF001
        provider.add_span_processor(_Processor(self._put))
        tracer = provider.get_tracer(names.SCOPE)
        if not isinstance(tracer, Tracer):
            raise StartupError("OpenTelemetry gives no recording tracer; unset OTEL_SDK_DISABLED")
        self._tracer = tracer

    def start_trace(self, method: str, *, traceparent: str | None = None) -> Trace:
        """Starts the full tree of a request; `method` with or without its leading slash."""
        offset = self._clock() - self._ticks()
        ticks = self._ticks
        return Trace(self._tracer, lambda: offset + ticks(), method.removeprefix("/"), traceparent)

    def start(self, method: str, traceparent: str | None = None) -> Trace | CompactTrace:
        """Starts the trace of a request in the shape that its method has; with or without leading slash."""
        method = method.removeprefix("/")
        if method in names.COMPACT:
            return self.start_compact(method, traceparent)
        return self.start_trace(method, traceparent=traceparent)

    def start_compact(self, method: str, traceparent: str | None = None) -> CompactTrace:
        """Starts the trace of a method of `names.COMPACT`."""
        link = keep_traceparent(traceparent)
        return CompactTrace(
            self._put, names.COMPACT[method], self._random(24), self._clock(), self._ticks, link
        )

    def _put_all(self, item: Item) -> None:
        for sink in self._sinks:
            sink.put(item)


def _links(traceparent: str | None) -> tuple[Link, ...]:
    caller = parse_traceparent(traceparent)
    return () if caller is None else (caller_link(*caller),)


def caller_link(trace_id: str, span_id: str) -> Link:
    """Gives the link to the span that a caller named; its sampling flag is dropped."""
    return Link(SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(0)))


def _start(
    tracer: Tracer,
    name: str,
    context: Context,
    *,
    kind: SpanKind,
    attributes: Mapping[str, Value] | Mapping[str, str],
    links: Sequence[Link],
    start_ns: int,
) -> SdkSpan:
    span = tracer.start_span(
        name,
        context,
        kind,
        attributes,
        links,
        start_ns,
        record_exception=False,  # driver errors quote rows
        set_status_on_exception=False,  # as above: the SDK would write str(exc) into the status
    )
    if not isinstance(span, SdkSpan):
        raise StartupError("OpenTelemetry gives no recording span; a request without a trace is refused")
    return span


def _blame(span: SdkSpan, code: str, kind: str) -> None:
    span.set_attribute(names.ERROR_TYPE, kind)
    if code in names.SERVER_FAULTS:
        span.set_status(Status(StatusCode.ERROR))
